//! The names of an event's fields: their own, and those by which workers in the field call them.

/// A field of the event, or a part of `error` that has aliases of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    TaskId,
    EventId,
    UserId,
    Name,
    Title,
    Status,
    Progress,
    Current,
    Total,
    Unit,
    Step,
    Message,
    Attempt,
    Seq,
    ParentId,
    RootId,
    Weight,
    Tags,
    Result,
    Error,
    Metadata,
    Worker,
    HeartbeatTimeoutMs,
    Timestamp,
    Observed,
    Traceparent,
    Tracestate,
    ErrorMessage,
    ErrorCode,
}

/// A name on the wire: which field it means, and whether it is the field's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub field: Field,
    pub is_own: bool,
}

/// Other names of fields, seen in public code. The same list stands in `proto/taskcast/v1/contract.json`.
pub const FIELD_ALIASES: [(&str, &str); 43] = [
    ("taskId", "task_id"),
    ("uuid", "task_id"),
    ("job_id", "task_id"),
    ("jobId", "task_id"),
    ("eventId", "event_id"),
    ("userId", "user_id"),
    ("task_name", "name"),
    ("taskName", "name"),
    ("job_name", "name"),
    ("state", "status"),
    ("percent", "progress"),
    ("percentage", "progress"),
    ("progress_percentage", "progress"),
    ("pct_complete", "progress"),
    ("done", "current"),
    ("processed_items", "current"),
    ("processed_rows", "current"),
    ("items_processed", "current"),
    ("itemsProcessed", "current"),
    ("total_items", "total"),
    ("total_rows", "total"),
    ("itemsTotal", "total"),
    ("current_step", "step"),
    ("currentStep", "step"),
    ("stage", "step"),
    ("phase", "step"),
    ("msg", "message"),
    ("description", "message"),
    ("detail", "message"),
    ("progressMessage", "message"),
    ("parentId", "parent_id"),
    ("rootId", "root_id"),
    ("result_data", "result"),
    ("returnvalue", "result"),
    ("error_message", "error.message"),
    ("errorMessage", "error.message"),
    ("failedReason", "error.message"),
    ("exception", "error.message"),
    ("error_code", "error.code"),
    ("meta", "metadata"),
    ("hostname", "worker"),
    ("worker_name", "worker"),
    ("heartbeatTimeoutMs", "heartbeat_timeout_ms"),
];

impl Field {
    /// Its own name; dotted for a part of `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskId => "task_id",
            Self::EventId => "event_id",
            Self::UserId => "user_id",
            Self::Name => "name",
            Self::Title => "title",
            Self::Status => "status",
            Self::Progress => "progress",
            Self::Current => "current",
            Self::Total => "total",
            Self::Unit => "unit",
            Self::Step => "step",
            Self::Message => "message",
            Self::Attempt => "attempt",
            Self::Seq => "seq",
            Self::ParentId => "parent_id",
            Self::RootId => "root_id",
            Self::Weight => "weight",
            Self::Tags => "tags",
            Self::Result => "result",
            Self::Error => "error",
            Self::Metadata => "metadata",
            Self::Worker => "worker",
            Self::HeartbeatTimeoutMs => "heartbeat_timeout_ms",
            Self::Timestamp => "timestamp",
            Self::Observed => "observed",
            Self::Traceparent => "traceparent",
            Self::Tracestate => "tracestate",
            Self::ErrorMessage => "error.message",
            Self::ErrorCode => "error.code",
        }
    }

    fn by_own_name(name: &str) -> Option<Self> {
        Some(match name {
            "task_id" => Self::TaskId,
            "event_id" => Self::EventId,
            "user_id" => Self::UserId,
            "name" => Self::Name,
            "title" => Self::Title,
            "status" => Self::Status,
            "progress" => Self::Progress,
            "current" => Self::Current,
            "total" => Self::Total,
            "unit" => Self::Unit,
            "step" => Self::Step,
            "message" => Self::Message,
            "attempt" => Self::Attempt,
            "seq" => Self::Seq,
            "parent_id" => Self::ParentId,
            "root_id" => Self::RootId,
            "weight" => Self::Weight,
            "tags" => Self::Tags,
            "result" => Self::Result,
            "error" => Self::Error,
            "metadata" => Self::Metadata,
            "worker" => Self::Worker,
            "heartbeat_timeout_ms" => Self::HeartbeatTimeoutMs,
            "timestamp" => Self::Timestamp,
            "observed" => Self::Observed,
            "traceparent" => Self::Traceparent,
            "tracestate" => Self::Tracestate,
            _ => return None,
        })
    }
}

impl Name {
    /// Reads a key of the event's object; `None` when it is unknown.
    pub fn parse(key: &str) -> Option<Self> {
        if let Some(field) = Field::by_own_name(key) {
            return Some(Self { field, is_own: true });
        }
        let (_, own) = FIELD_ALIASES.iter().find(|(alias, _)| *alias == key)?;
        let field = match *own {
            "error.message" => Field::ErrorMessage,
            "error.code" => Field::ErrorCode,
            own => Field::by_own_name(own)?,
        };
        Some(Self { field, is_own: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alias_means_the_field_that_the_table_says() {
        for (alias, own) in FIELD_ALIASES {
            let name = Name::parse(alias).unwrap();
            assert_eq!((name.field.as_str(), name.is_own), (own, false), "{alias}");
        }
    }

    #[test]
    fn a_field_is_found_by_its_own_name() {
        assert_eq!(Name::parse("heartbeat_timeout_ms").unwrap().field.as_str(), "heartbeat_timeout_ms");
        assert_eq!(Name::parse("Task_ID"), None);
    }
}
