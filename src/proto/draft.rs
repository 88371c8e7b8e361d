//! An event in the making: every rule about a single value, shared by all forms in which events come.
//!
//! Refuses to know: JSON, protobuf.

use std::sync::Arc;

use super::{
    Event, JsonText, Malformed, MalformedReason, Position, Status, TaskError, TaskId, TraceContext, UserId,
    event::{
        HEARTBEAT_TIMEOUT_MAX_MS, MESSAGE_MAX_BYTES, METADATA_MAX_BYTES, RESULT_MAX_BYTES, TAG_MAX_BYTES, TAGS_MAX,
        TEXT_MAX_BYTES,
    },
    id::{IdError, has_control_character},
    json_text::cut,
    timestamp::TIMESTAMP_MAX_MS,
};

/// The fields read so far, each checked by itself.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub task_id: Option<TaskId>,
    pub event_id: Option<Arc<str>>,
    pub user_id: Option<UserId>,
    pub name: Option<Arc<str>>,
    pub title: Option<Arc<str>>,
    pub status: Option<Status>,
    /// A status that is none of ours: text for people, then.
    pub status_text: Option<Arc<str>>,
    pub progress: Option<f64>,
    pub current: Option<f64>,
    pub total: Option<f64>,
    pub unit: Option<Arc<str>>,
    pub step: Option<Arc<str>>,
    pub message: Option<Arc<str>>,
    pub attempt: Option<u32>,
    pub seq: Option<u64>,
    pub parent_id: Option<TaskId>,
    pub root_id: Option<TaskId>,
    pub weight: Option<f64>,
    pub tags: Vec<Arc<str>>,
    pub result: Option<JsonText>,
    pub error: TaskError,
    /// From `error_message` and its like; `error` itself wins.
    pub error_message: Option<Arc<str>>,
    /// From `error_code`; `error` itself wins.
    pub error_code: Option<Arc<str>>,
    pub metadata: Option<JsonText>,
    pub worker: Option<Arc<str>>,
    pub heartbeat_timeout_ms: Option<u64>,
    pub timestamp_ms: Option<u64>,
    pub observed: Option<Position>,
    pub trace: Option<Box<TraceContext>>,
    /// Means something only beside a `traceparent`.
    pub tracestate: Option<Arc<str>>,
    pub unknown_fields: u32,
}

impl Draft {
    /// Notes a status in words.
    pub fn set_status(&mut self, text: &str) {
        self.status = Status::parse(text);
        self.status_text = None;
        if self.status.is_none() {
            self.unknown_fields = self.unknown_fields.saturating_add(1);
            self.status_text = (!text.is_empty()).then(|| message(text));
        }
    }

    /// Notes where the event was published. What cannot be read is left out and counted, not fatal; a span of somebody else's
    /// trace must not cost a task its end.
    pub fn set_trace(&mut self, traceparent: Option<&str>) {
        self.trace = traceparent.and_then(TraceContext::parse).map(Box::new);
        self.unknown_fields += u32::from(self.trace.is_none());
    }

    /// The event, once all fields are in.
    pub fn finish(mut self) -> Result<Event, Malformed> {
        let task_id = self
            .task_id
            .take()
            .ok_or_else(|| Malformed::new(MalformedReason::Missing, Some("task_id"), "is required"))?;
        let derived = self.current.zip(self.total).map(|(current, total)| (current / total * 100.0).min(100.0));
        let error = self.take_error();
        let trace = self.trace.take().map(|context| match &self.tracestate {
            Some(state) => Box::new(context.with_state(state)),
            None => context,
        });
        Ok(Event {
            task_id,
            event_id: self.event_id,
            user_id: self.user_id,
            name: self.name,
            title: self.title,
            status: self.status,
            progress: derived.or(self.progress),
            current: self.current,
            total: self.total,
            unit: self.unit,
            step: self.step,
            message: self.message.or(self.status_text),
            attempt: self.attempt,
            seq: self.seq,
            parent_id: self.parent_id,
            root_id: self.root_id,
            weight: self.weight,
            tags: (!self.tags.is_empty()).then(|| self.tags.into()),
            result: self.result,
            error,
            metadata: self.metadata,
            worker: self.worker,
            heartbeat_timeout_ms: self.heartbeat_timeout_ms,
            timestamp_ms: self.timestamp_ms,
            observed: self.observed,
            trace,
            unknown_fields: self.unknown_fields,
        })
    }

    fn take_error(&mut self) -> Option<Arc<TaskError>> {
        let mut error = std::mem::take(&mut self.error);
        for (own, alias) in [(&mut error.message, self.error_message.take()), (&mut error.code, self.error_code.take())]
        {
            match (own.is_some(), alias) {
                (true, Some(_)) => self.unknown_fields = self.unknown_fields.saturating_add(1),
                (false, Some(text)) => *own = Some(text),
                (_, None) => {}
            }
        }
        (error != TaskError::default()).then(|| Arc::new(error))
    }
}

fn value(field: &str, detail: impl Into<String>) -> Malformed {
    Malformed::new(MalformedReason::Value, Some(field), detail)
}

fn too_large(field: &str, detail: impl Into<String>) -> Malformed {
    Malformed::new(MalformedReason::TooLarge, Some(field), detail)
}

fn identifier<T>(field: &str, parsed: Result<T, IdError>) -> Result<T, Malformed> {
    parsed.map_err(|error| match error {
        IdError::TooLong { .. } => too_large(field, error.to_string()),
        IdError::Empty | IdError::ControlCharacter => value(field, error.to_string()),
    })
}

pub(super) fn task_id(field: &str, text: &str) -> Result<TaskId, Malformed> {
    identifier(field, TaskId::parse(text))
}

pub(super) fn user_id(text: &str) -> Result<UserId, Malformed> {
    identifier("user_id", UserId::parse(text))
}

/// A short text.
pub(super) fn text(field: &str, text: &str) -> Result<Arc<str>, Malformed> {
    if text.len() > TEXT_MAX_BYTES {
        return Err(too_large(field, format!("has {} bytes, more than {TEXT_MAX_BYTES}", text.len())));
    }
    Ok(text.into())
}

/// A text for people: cut, never refused.
pub(super) fn message(text: &str) -> Arc<str> {
    if text.len() <= MESSAGE_MAX_BYTES { text.into() } else { cut(text, MESSAGE_MAX_BYTES).into() }
}

///
/// A worker that divides may be off by its last digits, and must not lose its ending over them.
pub(super) fn percent(number: f64) -> Result<f64, Malformed> {
    if (0.0..=100.0 + ROUNDING).contains(&number) {
        // -0.0 is in the range as well; adding 0 makes it 0.
        return Ok(number.min(100.0) + 0.0);
    }
    Err(value("progress", "must be a percentage from 0 to 100"))
}

/// How far above 100 a percentage may be by rounding.
const ROUNDING: f64 = 1e-6;

/// A number that cannot be negative.
pub(super) fn amount(field: &str, number: f64) -> Result<f64, Malformed> {
    if number.is_finite() && number >= 0.0 {
        return Ok(number + 0.0);
    }
    Err(value(field, "must be 0 or more"))
}

/// A total; 0 means that it is not known.
pub(super) fn total(number: f64) -> Result<Option<f64>, Malformed> {
    amount("total", number).map(|total| (total > 0.0).then_some(total))
}

pub(super) fn attempt(number: u64) -> Result<u32, Malformed> {
    match u32::try_from(number) {
        Ok(attempt) if attempt >= 1 => Ok(attempt),
        _ => Err(value("attempt", "counts from 1 and must fit in 32 bits")),
    }
}

pub(super) fn heartbeat_timeout_ms(number: u64) -> Result<u64, Malformed> {
    if (1..=HEARTBEAT_TIMEOUT_MAX_MS).contains(&number) {
        return Ok(number);
    }
    Err(value("heartbeat_timeout_ms", format!("must be from 1 to {HEARTBEAT_TIMEOUT_MAX_MS}")))
}

/// A moment that can be written on the wire again. The worker's clock is a hint to the rules, so an unreadable one (no
/// offset, no such day) is left out and counted, not fatal: no ending is lost over a date.
pub(super) fn timestamp_ms(moment: Option<u64>, unknown_fields: &mut u32) -> Option<u64> {
    let readable = moment.filter(|ms| *ms <= TIMESTAMP_MAX_MS);
    *unknown_fields += u32::from(readable.is_none());
    readable
}

pub(super) fn observed(text: &str) -> Result<Position, Malformed> {
    text.parse().map_err(|_| value("observed", "must be a position of the log"))
}

/// Adds a tag, unless the task has it already.
pub(super) fn push_tag(tags: &mut Vec<Arc<str>>, tag: &str) -> Result<(), Malformed> {
    if tag.len() > TAG_MAX_BYTES {
        return Err(too_large("tags", format!("a tag has {} bytes, more than {TAG_MAX_BYTES}", tag.len())));
    }
    if tag.is_empty() || has_control_character(tag) {
        return Err(value("tags", "a tag must not be empty or contain control characters"));
    }
    if tags.iter().any(|known| **known == *tag) {
        return Ok(());
    }
    if tags.len() == TAGS_MAX {
        return Err(too_large("tags", format!("more than {TAGS_MAX} tags")));
    }
    tags.push(tag.into());
    Ok(())
}

/// A result; `None` stands for JSON that nests too deeply.
pub(super) fn result(json: Option<JsonText>) -> Result<JsonText, Malformed> {
    bounded_json("result", json, RESULT_MAX_BYTES)
}

/// Metadata; `None` stands for JSON that nests too deeply.
pub(super) fn metadata(json: Option<JsonText>) -> Result<JsonText, Malformed> {
    let json = bounded_json("metadata", json, METADATA_MAX_BYTES)?;
    if json.is_object() {
        return Ok(json);
    }
    Err(Malformed::new(MalformedReason::Type, Some("metadata"), "must be an object"))
}

fn bounded_json(field: &str, json: Option<JsonText>, max_bytes: usize) -> Result<JsonText, Malformed> {
    let json = json.ok_or_else(|| too_large(field, "is nested too deeply"))?;
    let bytes = json.as_str().len();
    if bytes > max_bytes {
        return Err(too_large(field, format!("has {bytes} bytes, more than {max_bytes}")));
    }
    Ok(json)
}
