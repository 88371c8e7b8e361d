//! The event that a worker publishes, parsed. [`Event::decode`] is the only way in.

use std::{fmt, sync::Arc};

use super::{
    CANARY_ID_PREFIX, JsonText, Position, Status, TaskId, TraceContext, UserId, cloudevents, event_json, event_protobuf,
};

/// The longest event in bytes, in whatever form it comes.
pub const EVENT_MAX_BYTES: usize = 64 * 1024;
/// The longest `result` in bytes of compact JSON.
pub const RESULT_MAX_BYTES: usize = 32 * 1024;
/// The longest `metadata` in bytes of compact JSON.
pub const METADATA_MAX_BYTES: usize = 8 * 1024;
/// `message` and `error.message` are cut here: a long traceback must not cost the task its end.
pub const MESSAGE_MAX_BYTES: usize = 4096;
/// The longest `name`, `title`, `unit`, `step`, `worker`, `event_id`, `error.code` and `error.type` in bytes.
pub const TEXT_MAX_BYTES: usize = 255;
/// How many tags a task may have.
pub const TAGS_MAX: usize = 16;
/// The longest tag in bytes.
pub const TAG_MAX_BYTES: usize = 128;
/// The longest `heartbeat_timeout_ms`: 30 days.
pub const HEARTBEAT_TIMEOUT_MAX_MS: u64 = 30 * 24 * 3600 * 1000;

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
    pub fn parse(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" | "text/json" => Some(Self::Json),
            "application/cloudevents+json" => Some(Self::CloudEvents),
            "application/protobuf" | "application/x-protobuf" | "application/vnd.google.protobuf" => {
                Some(Self::Protobuf)
            }
            _ => None,
        }
    }

    /// The media type that [`Self::parse`] reads as this.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::CloudEvents => "application/cloudevents+json",
            Self::Protobuf => "application/protobuf",
        }
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
    /// The trace that it was published in: `traceparent` and `tracestate` on the wire. Boxed: few have one.
    pub trace: Option<Box<TraceContext>>,
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

impl MalformedReason {
    pub const ALL: [Self; 5] = [Self::Syntax, Self::Missing, Self::Type, Self::Value, Self::TooLarge];

    /// Its name in answers, vectors and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Missing => "missing",
            Self::Type => "type",
            Self::Value => "value",
            Self::TooLarge => "too_large",
        }
    }
}

impl Malformed {
    pub(super) fn new(reason: MalformedReason, field: Option<&str>, detail: impl Into<String>) -> Self {
        Self { reason, field: field.map(str::to_owned), detail: detail.into() }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{field}: {}", self.detail),
            None => f.write_str(&self.detail),
        }
    }
}

impl std::error::Error for Malformed {}

impl Event {
    /// An event that says nothing yet: for what the service and its tools publish themselves.
    #[must_use]
    pub fn new(task_id: TaskId) -> Self {
        Self {
            task_id,
            event_id: None,
            user_id: None,
            name: None,
            title: None,
            status: None,
            progress: None,
            current: None,
            total: None,
            unit: None,
            step: None,
            message: None,
            attempt: None,
            seq: None,
            parent_id: None,
            root_id: None,
            weight: None,
            tags: None,
            result: None,
            error: None,
            metadata: None,
            worker: None,
            heartbeat_timeout_ms: None,
            timestamp_ms: None,
            observed: None,
            trace: None,
            unknown_fields: 0,
        }
    }

    /// Parses an event of at most [`EVENT_MAX_BYTES`].
    ///
    /// # Errors
    /// [`Malformed`] names the first rule that is broken.
    pub fn decode(content_type: ContentType, bytes: &[u8]) -> Result<Self, Malformed> {
        check_size(bytes.len(), "the event")?;
        match content_type {
            ContentType::Json => event_json::decode(bytes),
            ContentType::CloudEvents => cloudevents::decode(bytes),
            ContentType::Protobuf => event_protobuf::decode(bytes),
        }
    }

    /// May somebody outside the service publish this? What is for nobody else to publish is refused at every door that
    /// a stranger has; in the log itself the hub keeps it apart.
    ///
    /// # Errors
    /// [`MalformedReason::Value`] for a reserved `task_id`, or as [`Self::fits_the_log`].
    pub fn may_be_published(&self) -> Result<(), Malformed> {
        if self.task_id.is_reserved() {
            let detail = format!("must not begin with {CANARY_ID_PREFIX}, which the service keeps for itself");
            return Err(Malformed::new(MalformedReason::Value, Some("task_id"), detail));
        }
        self.fits_the_log()
    }

    /// Would its [`Self::to_json`], which is what the log keeps, be read again? Protobuf holds in one byte what JSON
    /// escapes with six, so an event can grow beyond [`EVENT_MAX_BYTES`] on its way into the log.
    ///
    /// # Errors
    /// [`MalformedReason::TooLarge`].
    pub fn fits_the_log(&self) -> Result<(), Malformed> {
        check_size(self.to_json().len(), "the event, as JSON,")
    }

    /// The event in native JSON, as it is appended to the log. `decode` of it gives the same event.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        event_json::encode(self)
    }

    /// The event as `taskcast.v1.Event`. `decode` of it gives the same event.
    #[must_use]
    pub fn to_protobuf(&self) -> Vec<u8> {
        event_protobuf::encode(self)
    }
}

fn check_size(bytes: usize, what: &str) -> Result<(), Malformed> {
    if bytes <= EVENT_MAX_BYTES {
        return Ok(());
    }
    let detail = format!("{what} has {bytes} bytes, more than {EVENT_MAX_BYTES}");
    Err(Malformed::new(MalformedReason::TooLarge, None, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_grows_beyond_the_limit_on_its_way_into_the_log_is_told() {
        let result = "x".repeat(30_000);
        let small = format!(r#"{{"task_id":"t","result":"{result}"}}"#);
        let mut event = Event::decode(ContentType::Json, small.as_bytes()).unwrap();
        assert_eq!(event.fits_the_log(), Ok(()));
        let control: Arc<str> = "\u{1}".repeat(MESSAGE_MAX_BYTES).into();
        event.message = Some(control.clone());
        event.error = Some(Arc::new(TaskError { message: Some(control), ..TaskError::default() }));
        // As protobuf it is small enough to be taken.
        let taken = Event::decode(ContentType::Protobuf, &event.to_protobuf()).unwrap();
        assert_eq!(taken.fits_the_log().unwrap_err().reason, MalformedReason::TooLarge);
        // And the log's reader would refuse it.
        let read = Event::decode(ContentType::Json, &taken.to_json());
        assert_eq!(read.unwrap_err().reason, MalformedReason::TooLarge);
    }

    #[test]
    fn a_reserved_id_can_be_read_from_the_log_and_not_be_published() {
        let decode = |id: &str| Event::decode(ContentType::Json, format!(r#"{{"task_id":"{id}"}}"#).as_bytes());
        let canary = decode(TaskId::canary(uuid::Uuid::nil()).as_str()).unwrap();
        let refused = canary.may_be_published().unwrap_err();
        assert_eq!((refused.reason, refused.field.as_deref()), (MalformedReason::Value, Some("task_id")));
        assert!(refused.detail.contains(CANARY_ID_PREFIX), "{refused}");
        for free in ["taskcast", "taskcast:canary", "taskcast:canaries:1", "Taskcast:canary:1", " taskcast:canary:1"] {
            assert_eq!(decode(free).unwrap().may_be_published(), Ok(()), "{free}");
        }
        let large = Event { message: Some("\u{1}".repeat(20_000).into()), ..decode("t").unwrap() };
        assert_eq!(large.may_be_published().unwrap_err().reason, MalformedReason::TooLarge);
    }

    #[test]
    fn a_media_type_is_read_without_its_parameters_and_in_any_case() {
        assert_eq!(ContentType::parse("Application/JSON; charset=utf-8"), Some(ContentType::Json));
        assert_eq!(ContentType::parse("application/x-protobuf"), Some(ContentType::Protobuf));
        for own in [ContentType::Json, ContentType::CloudEvents, ContentType::Protobuf] {
            assert_eq!(ContentType::parse(own.as_str()), Some(own));
        }
        for foreign in ["", "text/plain", "application/cloudevents-batch+json", "application/x-python-serialize"] {
            assert_eq!(ContentType::parse(foreign), None, "{foreign}");
        }
    }
}
