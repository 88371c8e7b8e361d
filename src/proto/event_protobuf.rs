//! Events as `taskcast.v1.Event`, both ways. The rules about values are [`super::draft`]'s, the same as for JSON.
//!
//! Refuses to know: JSON, but for `result_json` and `metadata_json`.

use std::sync::Arc;

use prost::Message as _;

use super::{
    Event, JsonText, Malformed, MalformedReason, Status, TaskError, TaskId, UserId,
    draft::{self, Draft},
    wire,
};

/// Reads an event from its bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Event, Malformed> {
    let wire = wire::Event::decode(bytes)
        .map_err(|_| Malformed::new(MalformedReason::Syntax, None, "not a taskcast.v1.Event in protobuf"))?;
    Event::try_from(wire)
}

/// Writes an event.
pub(super) fn encode(event: &Event) -> Vec<u8> {
    wire::Event::from(event).encode_to_vec()
}

impl TryFrom<wire::Event> for Event {
    type Error = Malformed;

    fn try_from(wire: wire::Event) -> Result<Self, Malformed> {
        let short = |field, text: Option<String>| text.map(|text| draft::text(field, &text)).transpose();
        let task_id = |field, text: Option<String>| text.map(|text| draft::task_id(field, &text)).transpose();
        let json = |field, text: Option<String>| text.map(|text| read_json(field, &text)).transpose();
        let amount = |field, number: Option<f64>| number.map(|number| draft::amount(field, number)).transpose();
        let mut draft = Draft {
            // proto3 does not tell an empty string from an absent one here.
            task_id: task_id("task_id", Some(wire.task_id).filter(|id| !id.is_empty()))?,
            event_id: short("event_id", wire.event_id)?.filter(|id| !id.is_empty()),
            user_id: wire.user_id.map(|id| draft::user_id(&id)).transpose()?,
            name: short("name", wire.name)?,
            title: short("title", wire.title)?,
            progress: wire.progress.map(draft::percent).transpose()?,
            current: amount("current", wire.current)?,
            total: wire.total.map(draft::total).transpose()?.flatten(),
            unit: short("unit", wire.unit)?,
            step: short("step", wire.step)?,
            message: wire.message.as_deref().map(draft::message),
            attempt: wire.attempt.map(|attempt| draft::attempt(u64::from(attempt))).transpose()?,
            seq: wire.seq,
            parent_id: task_id("parent_id", wire.parent_id)?,
            root_id: task_id("root_id", wire.root_id)?,
            weight: amount("weight", wire.weight)?,
            result: json("result", wire.result_json)?.map(|json| draft::result(Some(json))).transpose()?,
            metadata: json("metadata", wire.metadata_json)?.map(|json| draft::metadata(Some(json))).transpose()?,
            worker: short("worker", wire.worker)?,
            heartbeat_timeout_ms: wire.heartbeat_timeout_ms.map(draft::heartbeat_timeout_ms).transpose()?,
            observed: wire.observed.as_deref().map(draft::observed).transpose()?,
            tracestate: wire.tracestate.map(Into::into),
            ..Draft::default()
        };
        if wire.traceparent.is_some() {
            draft.set_trace(wire.traceparent.as_deref());
        }
        match wire::Status::try_from(wire.status) {
            Ok(status) => draft.status = status.into(),
            // A newer worker's status, which has no text here.
            Err(_) => draft.unknown_fields = 1,
        }
        if wire.timestamp_ms.is_some() {
            draft.timestamp_ms = draft::timestamp_ms(wire.timestamp_ms, &mut draft.unknown_fields);
        }
        wire.tags.iter().try_for_each(|tag| draft::push_tag(&mut draft.tags, tag))?;
        if let Some(error) = wire.error {
            draft.error = TaskError {
                code: short("error.code", error.code)?,
                message: error.message.as_deref().map(draft::message),
                kind: short("error.type", error.r#type)?,
                retryable: error.retryable,
            };
        }
        draft.finish()
    }
}

fn read_json(field: &str, text: &str) -> Result<JsonText, Malformed> {
    let detail = format!("must be JSON, not nested deeper than {}", super::JSON_DEPTH_MAX);
    JsonText::parse(text).ok_or_else(|| Malformed::new(MalformedReason::Syntax, Some(field), detail))
}

/// The owned text of an optional shared one.
pub(super) fn owned(text: Option<&Arc<str>>) -> Option<String> {
    text.map(ToString::to_string)
}

impl From<&Event> for wire::Event {
    fn from(event: &Event) -> Self {
        Self {
            task_id: event.task_id.to_string(),
            event_id: owned(event.event_id.as_ref()),
            user_id: event.user_id.as_ref().map(UserId::to_string),
            name: owned(event.name.as_ref()),
            title: owned(event.title.as_ref()),
            status: event.status.map_or(wire::Status::Unspecified, wire::Status::from).into(),
            progress: event.progress,
            current: event.current,
            total: event.total,
            unit: owned(event.unit.as_ref()),
            step: owned(event.step.as_ref()),
            message: owned(event.message.as_ref()),
            attempt: event.attempt,
            seq: event.seq,
            parent_id: event.parent_id.as_ref().map(TaskId::to_string),
            root_id: event.root_id.as_ref().map(TaskId::to_string),
            weight: event.weight,
            tags: event.tags.iter().flat_map(|tags| tags.iter()).map(ToString::to_string).collect(),
            result_json: event.result.as_ref().map(|json| json.as_str().to_owned()),
            error: event.error.as_deref().map(wire::TaskError::from),
            metadata_json: event.metadata.as_ref().map(|json| json.as_str().to_owned()),
            worker: owned(event.worker.as_ref()),
            heartbeat_timeout_ms: event.heartbeat_timeout_ms,
            timestamp_ms: event.timestamp_ms,
            observed: event.observed.map(|position| position.to_string()),
            traceparent: event.trace.as_ref().map(|context| context.traceparent()),
            tracestate: event.trace.as_ref().and_then(|context| owned(context.state.as_ref())),
        }
    }
}

impl From<&TaskError> for wire::TaskError {
    fn from(error: &TaskError) -> Self {
        Self {
            code: owned(error.code.as_ref()),
            message: owned(error.message.as_ref()),
            r#type: owned(error.kind.as_ref()),
            retryable: error.retryable,
        }
    }
}

/// Both ways from one list, so that they cannot differ.
macro_rules! statuses {
    ($($name:ident),*) => {
        impl From<Status> for wire::Status {
            fn from(status: Status) -> Self {
                match status { $(Status::$name => Self::$name),* }
            }
        }

        impl From<wire::Status> for Option<Status> {
            fn from(status: wire::Status) -> Self {
                match status {
                    wire::Status::Unspecified => None,
                    $(wire::Status::$name => Some(Status::$name)),*
                }
            }
        }
    };
}
statuses!(Queued, Running, Waiting, Retrying, Cancelling, Succeeded, Failed, Cancelled, TimedOut, Expired, Lost);
