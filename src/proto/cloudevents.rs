//! CloudEvents 1.0 in structured JSON: the envelope around an event.
//!
//! Refuses to know: the event's own fields, which [`super::event_json`] reads.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Event, Malformed, MalformedReason, TraceContext, draft,
    event_json::{decode_text, syntax},
    timestamp,
};

/// The attributes of CloudEvents 1.0 that matter here. Extensions are legal and ignored.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    specversion: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
    #[serde(borrow)]
    datacontenttype: Option<&'a RawValue>,
    /// These two are of the extension for distributed tracing.
    #[serde(borrow)]
    traceparent: Option<&'a RawValue>,
    #[serde(borrow)]
    tracestate: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Reads a CloudEvent whose `data` is an event. The pair of `source` and `id`, which CloudEvents makes unique, stands in
/// for a missing `event_id`, and `time` for a missing `timestamp`.
pub(super) fn decode(bytes: &[u8]) -> Result<Event, Malformed> {
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(|error| syntax(&error))?;
    let required = |name: &'static str, raw| {
        let text = attribute(name, raw)?;
        text.ok_or_else(|| Malformed::new(MalformedReason::Missing, Some(name), "is required by CloudEvents 1.0"))
    };
    if required("specversion", envelope.specversion)? != "1.0" {
        return Err(Malformed::new(MalformedReason::Value, Some("specversion"), "must be \"1.0\""));
    }
    let id = required("id", envelope.id)?;
    let source = required("source", envelope.source)?;
    required("type", envelope.kind)?;
    if let Some(media_type) = attribute("datacontenttype", envelope.datacontenttype)? {
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence != "application/json" && essence != "text/json" && !essence.ends_with("+json") {
            return Err(Malformed::new(MalformedReason::Value, Some("datacontenttype"), "must be JSON"));
        }
    }
    let time = attribute("time", envelope.time)?
        .map(|text| {
            timestamp::parse(&text)
                .ok_or_else(|| Malformed::new(MalformedReason::Value, Some("time"), "must be RFC 3339 with an offset"))
        })
        .transpose()?;
    let data = envelope
        .data
        .ok_or_else(|| Malformed::new(MalformedReason::Missing, Some("data"), "must be the event, a JSON object"))?;
    let mut event = decode_text(data.get()).map_err(within_data)?;
    if event.event_id.is_none() {
        event.event_id = Some(draft::text("id", &format!("{source}#{id}"))?);
    }
    event.timestamp_ms = event.timestamp_ms.or(time);
    if event.trace.is_none() {
        event.trace = trace(envelope.traceparent, envelope.tracestate).map(Box::new);
    }
    Ok(event)
}

/// The trace of the envelope; whatever cannot be read is an extension that is ignored.
fn trace(traceparent: Option<&RawValue>, tracestate: Option<&RawValue>) -> Option<TraceContext> {
    let text = |raw: Option<&RawValue>| serde_json::from_str::<String>(raw?.get()).ok();
    let context = TraceContext::parse(&text(traceparent)?)?;
    Some(text(tracestate).map_or(context.clone(), |state| context.with_state(&state)))
}

/// An attribute that must be a string that is not empty; `null` is as good as absent.
fn attribute(name: &'static str, raw: Option<&RawValue>) -> Result<Option<String>, Malformed> {
    let Some(raw) = raw else { return Ok(None) };
    let text: String = serde_json::from_str(raw.get())
        .map_err(|_| Malformed::new(MalformedReason::Type, Some(name), "must be a string"))?;
    if text.is_empty() {
        return Err(Malformed::new(MalformedReason::Value, Some(name), "must not be empty"));
    }
    Ok(Some(text))
}

fn within_data(malformed: Malformed) -> Malformed {
    match malformed.field {
        Some(field) => Malformed { field: Some(format!("data.{field}")), ..malformed },
        None if malformed.reason == MalformedReason::Syntax => {
            Malformed::new(MalformedReason::Type, Some("data"), "must be the event, a JSON object")
        }
        None => malformed,
    }
}
