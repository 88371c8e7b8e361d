//! The event that a worker publishes, parsed. [`Event::decode`] is the only way in.

use std::sync::Arc;

use super::{Position, Status, TaskId, UserId};

/// How an event's bytes are to be read; `content-type` tells, JSON by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentType {
    #[default]
    Json,
    /// `application/cloudevents+json`: CloudEvents 1.0, structured mode, the event being its `data`.
    CloudEvents,
    /// `application/protobuf` or `application/x-protobuf`: `taskcast.v1.Event`.
    Protobuf,
}

impl ContentType {
    /// Reads a media type, parameters ignored. `None` when it is one that cannot be read here.
    #[must_use]
    pub fn parse(_media_type: &str) -> Option<Self> {
        todo!("proto helper")
    }
}

/// JSON text that is known to be valid and compact; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText(pub(super) Arc<str>);

impl JsonText {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why and how a task failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskError {
    pub code: Option<Arc<str>>,
    pub message: Option<Arc<str>>,
    /// The exception's class, `type` on the wire.
    pub kind: Option<Arc<str>>,
    pub retryable: Option<bool>,
}

/// One event, every field checked. Field names are those of the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub task_id: TaskId,
    pub event_id: Option<Arc<str>>,
    pub user_id: Option<UserId>,
    pub name: Option<Arc<str>>,
    pub title: Option<Arc<str>>,
    pub status: Option<Status>,
    /// Percent, 0 to 100: as given, or derived from `current` and `total`, which win.
    pub progress: Option<f64>,
    pub current: Option<f64>,
    /// Greater than 0; an unknown total is left out.
    pub total: Option<f64>,
    pub unit: Option<Arc<str>>,
    pub step: Option<Arc<str>>,
    pub message: Option<Arc<str>>,
    /// Counts from 1.
    pub attempt: Option<u32>,
    pub seq: Option<u64>,
    pub parent_id: Option<TaskId>,
    pub root_id: Option<TaskId>,
    pub weight: Option<f64>,
    pub tags: Option<Arc<[Arc<str>]>>,
    pub result: Option<JsonText>,
    pub error: Option<Arc<TaskError>>,
    /// A JSON object.
    pub metadata: Option<JsonText>,
    pub worker: Option<Arc<str>>,
    pub heartbeat_timeout_ms: Option<u64>,
    /// The worker's own clock, milliseconds since the Unix epoch.
    pub timestamp_ms: Option<u64>,
    /// Only in the service's own verdicts (`lost`): holds only if nothing of this task came after this position.
    pub observed: Option<Position>,
    /// How many fields were not understood and kept out.
    pub unknown_fields: u32,
}

/// Which rule an event broke; the label of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MalformedReason {
    /// Not JSON, not protobuf, not an object, not a CloudEvent.
    Syntax,
    /// A required field is missing.
    Missing,
    /// A field has the wrong type.
    Type,
    /// A field has the right type and an impossible value.
    Value,
    /// The event or one of its fields is too large.
    TooLarge,
}

/// Why an event was not accepted: for the worker's developer, so it names the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub reason: MalformedReason,
    /// The offending field, dotted for nested ones; `None` when the whole is at fault.
    pub field: Option<String>,
    /// One sentence without the offending value's bulk or any secret.
    pub detail: String,
}

impl Event {
    /// An event that says nothing yet.
    #[must_use]
    pub fn new(_task_id: TaskId) -> Self {
        todo!("proto helper")
    }

    /// Parses an event.
    ///
    /// # Errors
    /// [`Malformed`] names the first rule that is broken.
    pub fn decode(_content_type: ContentType, _bytes: &[u8]) -> Result<Self, Malformed> {
        todo!("proto helper")
    }

    /// The event in native JSON, as it is appended to the log. `decode` of it gives the same event.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        todo!("proto helper")
    }
}
