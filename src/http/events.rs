//! `POST /api/v1/events`: one event or many, all of them or none. Decoded here so that the worker's developer is told
//! about every bad one at once; appended to the log by the publisher.
//!
//! Refuses to know: what an event does to a task.

use std::pin::pin;

use futures_util::{Stream, StreamExt};
use serde_json::{Value, json, value::RawValue};
use tokio::time::timeout;
use warp::{
    Buf,
    http::{HeaderValue, StatusCode, header},
    reply::Response,
};

use super::{
    Context, RETRY_AFTER_SECONDS,
    head::Head,
    problem::{HttpError, respond},
    refusal, rest,
};
use crate::{
    auth::{Forbidden, PublishRight},
    clock,
    hub::Hub,
    log::AppendError,
    metrics::{Limit, Metrics},
    proto::{ContentType, Event, Malformed, MalformedReason, Position, TaskId, TraceContext},
};

const READABLE: &str = "application/json, application/cloudevents+json, application/cloudevents-batch+json, \
                        application/x-ndjson, application/protobuf";

/// How the events lie in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// One JSON object, or an array of them.
    Json(ContentType),
    /// One native JSON event per line.
    Lines,
    /// One `taskcast.v1.Event`.
    Protobuf,
}

/// Answers one request.
///
/// # Errors
/// 401 and 403 for callers without the right to publish, or to publish this, 429 for those who publish too much, 400, 413
/// and 415 for what cannot be read, all with nothing appended; 503 when memory is short, or when the log did not take it,
/// saying how many it took.
pub(super) async fn publish<S, B>(context: &Context, head: &Head, body: S) -> Result<Response, HttpError>
where
    S: Stream<Item = Result<B, warp::Error>>,
    B: Buf,
{
    let (identity, token) = rest::identify(context, head).await?;
    let right = identity.rights.publish;
    if right.is_nothing() {
        let detail = "The token does not allow to publish; it lacks \"publish\": true in its claim `taskcast`.";
        return Err(HttpError::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail));
    }
    if *context.overloaded.borrow() {
        return Err(HttpError::overloaded());
    }
    if right.needs_owners() && !context.health.borrow().caught_up {
        return Err(unread());
    }
    // One to begin with: who has none left need not send a body.
    charge(context, token.as_deref(), 1)?;
    let layout = layout(head)?;
    let limit = context.settings.body_max_bytes;
    let reading = timeout(context.settings.header_timeout, read(head, body, limit)).await;
    let body = reading.map_err(|_| body_timed_out())?;
    let body = body.inspect_err(|error| {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            context.metrics.limit_refused(Limit::BodyBytes);
        }
    })?;
    let mut events = decode(layout, &body, context.settings.events_per_request_max, &context.metrics)?;
    allowed(&right, &events, &context.hub, &context.metrics)?;
    trace(head, &mut events);
    if events.is_empty() {
        return Ok(accepted(&[]));
    }
    charge(context, token.as_deref(), events.len() - 1)?;
    match context.publisher.publish(&events).await {
        Ok(positions) => Ok(accepted(&positions)),
        Err(error) => Err(unavailable(&error, events.len())),
    }
}

/// The trace that a request says it is within. Of several lines, a `tracestate` is one list, and a `traceparent` is none.
fn trace_context(head: &Head) -> Option<TraceContext> {
    let mut parents = head.headers.get_all("traceparent").iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
    let context = TraceContext::parse(parent.to_str().ok()?)?;
    let states: Result<Vec<_>, _> = head.headers.get_all("tracestate").iter().map(HeaderValue::to_str).collect();
    Some(match states {
        Ok(states) if !states.is_empty() => context.with_state(&states.join(",")),
        _ => context,
    })
}

/// A request within a trace publishes within it, but for events that say another one themselves, or that have no room for it.
fn trace(head: &Head, events: &mut [Event]) {
    let Some(context) = trace_context(head) else { return };
    for event in events.iter_mut().filter(|event| event.trace.is_none()) {
        event.trace = Some(Box::new(context.clone()));
        if event.fits_the_log().is_err() {
            event.trace = None;
        }
    }
}

/// Takes so many from what a token may publish.
fn charge(context: &Context, token: Option<&str>, count: usize) -> Result<(), HttpError> {
    let charged = token.map_or(Ok(()), |token| context.limits.publish(token, count, clock::now()));
    charged.map_err(refusal::of)
}

/// All of them, or what is forbidden about each that is.
fn allowed(right: &PublishRight, events: &[Event], hub: &Hub, metrics: &Metrics) -> Result<(), HttpError> {
    let owner_of = |id: &TaskId| hub.task(id).map(|frame| frame.task.user_id.clone());
    let mut errors = Vec::new();
    for (index, event) in events.iter().enumerate() {
        if let Err(Forbidden { limit, field, detail }) = right.check(event, owner_of) {
            metrics.event_forbidden(limit.as_str());
            errors.push(json!({ "index": index, "field": field, "reason": "forbidden", "detail": detail }));
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    let detail = "Nothing was published; `errors` names what the token's claim `taskcast.publish` does not allow.";
    Err(HttpError::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail)
        .with_member("errors", Value::Array(errors)))
}

/// Whose tasks there are is not known before the log has been read.
fn unread() -> HttpError {
    let detail =
        "This replica has not read the log to its end, which a token that is limited to users needs; try again.";
    HttpError::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "The service is not ready", detail).with_retry_after()
}

fn accepted(positions: &[Option<Position>]) -> Response {
    let positions: Vec<Option<String>> = positions.iter().map(|position| position.map(|p| p.to_string())).collect();
    let body = json!({ "accepted": positions.len(), "positions": positions });
    respond(StatusCode::ACCEPTED, "application/json", body.to_string())
}

/// Reads the media type; none means JSON, as everywhere. Here are the ones for many events, in proto those for one.
fn layout(head: &Head) -> Result<Layout, HttpError> {
    let text = head.headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let essence = text.as_deref().map(|text| text.split(';').next().unwrap_or(text).trim().to_ascii_lowercase());
    let content_type = match essence.as_deref() {
        None => Some(ContentType::Json),
        Some("application/cloudevents-batch+json") => Some(ContentType::CloudEvents),
        Some("application/x-ndjson" | "application/ndjson" | "application/jsonl") => return Ok(Layout::Lines),
        Some(essence) => ContentType::parse(essence),
    };
    match content_type {
        Some(ContentType::Protobuf) => Ok(Layout::Protobuf),
        Some(json) => Ok(Layout::Json(json)),
        None => {
            let detail = format!("`Content-Type` is one of {READABLE}.");
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            Err(HttpError::new(status, "unsupported-media-type", "The content type cannot be read", detail)
                .with_header(header::ACCEPT, HeaderValue::from_static(READABLE)))
        }
    }
}

pub(super) fn body_timed_out() -> HttpError {
    HttpError::new(StatusCode::REQUEST_TIMEOUT, "timeout", "The request took too long", "The body did not arrive.")
        .with_header(header::CONNECTION, HeaderValue::from_static("close"))
}

/// The whole body, unless it is longer than `limit`; what it claims to be is believed first.
pub(super) async fn read<S, B>(head: &Head, body: S, limit: usize) -> Result<Vec<u8>, HttpError>
where
    S: Stream<Item = Result<B, warp::Error>>,
    B: Buf,
{
    let too_large = || HttpError::too_large(format!("A request has at most {limit} bytes."));
    let claimed = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if claimed.is_some_and(|bytes| bytes > limit) {
        return Err(too_large());
    }
    let mut body = pin!(body);
    let mut whole = Vec::with_capacity(claimed.unwrap_or_default());
    while let Some(chunk) = body.next().await {
        let mut chunk = chunk.map_err(|_| HttpError::bad_request("The body broke off."))?;
        if chunk.remaining() > limit - whole.len() {
            return Err(too_large());
        }
        while chunk.has_remaining() {
            let part = chunk.chunk();
            whole.extend_from_slice(part);
            let read = part.len();
            chunk.advance(read);
        }
    }
    Ok(whole)
}

/// Counts what is odd as the log's reader does: that one gets the event written anew, without the oddities.
fn decode(layout: Layout, body: &[u8], events_max: usize, metrics: &Metrics) -> Result<Vec<Event>, HttpError> {
    let parts = parts(layout, body, metrics)?;
    if parts.len() > events_max {
        let count = parts.len();
        metrics.limit_refused(Limit::EventsPerRequest);
        return Err(HttpError::too_large(format!("A request has at most {events_max} events; this one has {count}.")));
    }
    let content_type = match layout {
        Layout::Json(content_type) => content_type,
        Layout::Lines => ContentType::Json,
        Layout::Protobuf => ContentType::Protobuf,
    };
    let read = |part: &[u8]| {
        let event = Event::decode(content_type, part)?;
        event.may_be_published()?;
        // What the service itself observed is not for others to claim.
        Ok(Event { observed: None, ..event })
    };
    let events = all_or_errors(&parts, |part| {
        read(part).inspect_err(|malformed: &Malformed| metrics.event_malformed(malformed))
    })?;
    // Not before all are accepted: a request that is refused comes again.
    for event in &events {
        metrics.unknown_fields(event.unknown_fields);
    }
    Ok(events)
}

/// The bytes of each event.
fn parts<'a>(layout: Layout, body: &'a [u8], metrics: &Metrics) -> Result<Vec<&'a [u8]>, HttpError> {
    match layout {
        Layout::Lines => {
            Ok(body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|l| !l.is_empty()).collect())
        }
        Layout::Json(_) if body.trim_ascii_start().starts_with(b"[") => {
            let elements: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| {
                let detail = format!("The body is not a JSON array: {error}.");
                let error = Malformed { reason: MalformedReason::Syntax, field: None, detail };
                metrics.event_malformed(&error);
                malformed(vec![problem(None, &error)])
            })?;
            Ok(elements.into_iter().map(|element| element.get().as_bytes()).collect())
        }
        Layout::Json(_) | Layout::Protobuf => Ok(vec![body]),
    }
}

/// Every event, or every mistake.
fn all_or_errors<T>(parts: &[&[u8]], decode: impl Fn(&[u8]) -> Result<T, Malformed>) -> Result<Vec<T>, HttpError> {
    let mut decoded = Vec::with_capacity(parts.len());
    let mut errors = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        match decode(part) {
            Ok(event) => decoded.push(event),
            Err(error) => errors.push(problem(Some(index), &error)),
        }
    }
    if errors.is_empty() { Ok(decoded) } else { Err(malformed(errors)) }
}

fn problem(index: Option<usize>, error: &Malformed) -> Value {
    json!({ "index": index, "field": error.field, "reason": error.reason.as_str(), "detail": error.detail })
}

fn malformed(errors: Vec<Value>) -> HttpError {
    let detail = "Nothing was published; `errors` names what is wrong with each bad event.";
    HttpError::new(StatusCode::BAD_REQUEST, "malformed-event", "An event is malformed", detail)
        .with_member("errors", Value::Array(errors))
}

fn unavailable(error: &AppendError, count: usize) -> HttpError {
    // The one place where a failed publish is handled; the broker's words are for the operator, not for the worker.
    tracing::warn!(detail = error.detail, appended = error.appended, count, "an append failed");
    let appended = error.appended;
    let detail = format!("The log has confirmed the first {appended} of {count} events; publish the others again.");
    HttpError::new(StatusCode::SERVICE_UNAVAILABLE, "log-unavailable", "The log did not take the events", detail)
        .with_member("appended", json!(appended))
        .with_header(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS))
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
