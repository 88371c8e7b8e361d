//! Everything that the service says to a client, as closed enums. [`super::encode`] turns it into frames.

use std::sync::Arc;

use super::{AuthenticationErrorCode, Cursor, ErrorCode, Position, Task, TaskId, UserId};

/// A request's `id`, echoed in its reply: JSON text of a string or a number, at most 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Box<str>);

/// The longest [`RequestId`] in bytes of JSON text, quotes included.
pub const REQUEST_ID_MAX_BYTES: usize = 128;

impl RequestId {
    /// Reads the JSON text of a string or a number; `None` when it is something else, or too long.
    #[must_use]
    pub fn from_json(json: &str) -> Option<Self> {
        if json.len() > REQUEST_ID_MAX_BYTES {
            return None;
        }
        let is_string = json.starts_with('"') && serde_json::from_str::<String>(json).is_ok();
        let is_number = || serde_json::from_str::<serde_json::Number>(json).is_ok();
        (is_string || is_number()).then(|| Self(json.trim().into()))
    }

    /// As [`Self::from_json`], of a plain string.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        // Before escaping, lest a long text is copied only to be refused.
        if text.len() > REQUEST_ID_MAX_BYTES {
            return None;
        }
        serde_json::to_string(text).ok().filter(|json| json.len() <= REQUEST_ID_MAX_BYTES).map(|json| Self(json.into()))
    }

    /// Its JSON text.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Its plain text: a string without quotes, or the number as it was written.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::from_str(&self.0).unwrap_or_else(|_| self.0.to_string())
    }
}

/// Why a cursor could not be resumed from, or why what the client had is void. Its wire names are in the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResumeFailure {
    /// The text is not a cursor.
    Malformed,
    /// What stood there, or what came right after, is no longer held.
    Trimmed,
    /// Another event stands there, or nothing ever did: the log was flushed, recreated or is a different one.
    AnotherLog,
    /// The replica has not finished reading the log.
    NotReady,
    /// A fresh token allows other things than the one before. Only as a `reset`.
    RightsChanged,
}

impl ResumeFailure {
    pub const ALL: [Self; 5] = [Self::Malformed, Self::Trimmed, Self::AnotherLog, Self::NotReady, Self::RightsChanged];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Trimmed => "trimmed",
            Self::AnotherLog => "another_log",
            Self::NotReady => "not_ready",
            Self::RightsChanged => "rights_changed",
        }
    }
}

/// What a client needs to know to behave well; constant for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    pub message_max_bytes: u32,
    pub subscriptions_max: u32,
}

/// The first frame of every accepted connection.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionEstablished {
    pub connection_id: String,
    pub user_id: Option<UserId>,
    /// The resume position: the cursor handed in when resumed, else none until the snapshot gives one.
    pub cursor: Option<Cursor>,
    pub resumed: bool,
    pub resume_failure: Option<ResumeFailure>,
    pub heartbeat_interval_ms: u64,
    pub token_expires_at_ms: Option<u64>,
    pub limits: ClientLimits,
    pub reconnect_min_ms: u64,
    pub reconnect_max_ms: u64,
}

/// What a subscription names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// One task.
    Task(TaskId),
    /// A task and its children.
    Root(TaskId),
    /// Tasks that carry a tag.
    Tag(Arc<str>),
    /// Tasks of one user.
    Owner(UserId),
    /// Everything.
    All,
}

/// A message to one client. `id` is the request's, when the message answers one. The moment of sending becomes its
/// `timestamp` on encoding.
#[derive(Clone, Debug)]
pub enum ServerMessage {
    ConnectionEstablished(Box<ConnectionEstablished>),
    /// A page of the snapshot, or the answer to `get_active_tasks` (then without a cursor). `reset` says why what the
    /// client had before is void.
    ActiveTasks {
        tasks: Vec<Arc<TaskFrame>>,
        cursor: Option<Cursor>,
        more: bool,
        reset: Option<ResumeFailure>,
        id: Option<RequestId>,
    },
    TaskRemoved {
        task_id: TaskId,
    },
    /// `task` is `None` alike for unknown and for foreign tasks.
    TaskStatus {
        task_id: TaskId,
        task: Option<Arc<TaskFrame>>,
        id: Option<RequestId>,
    },
    TaskCancelled {
        task_id: TaskId,
        success: bool,
        id: Option<RequestId>,
    },
    Subscribed {
        topic: Topic,
        id: Option<RequestId>,
    },
    Unsubscribed {
        topic: Topic,
        id: Option<RequestId>,
    },
    /// `client_timestamp` is the JSON text of the ping's `timestamp`, if it had one.
    Pong {
        client_timestamp: Option<RequestId>,
        id: Option<RequestId>,
    },
    /// The service no longer hears from the log, or has fallen behind it: what the client shows is what was true at
    /// `fresh_until_ms`; `None` when the log has not been read at all yet. The connection stays.
    SourceDegraded {
        fresh_until_ms: Option<u64>,
    },
    /// Everything that the log took meanwhile has been read; sent behind it.
    SourceRecovered {
        degraded_ms: u64,
    },
    /// This replica is about to end. Everything goes on until it closes this connection, `reconnect_after_ms` from now.
    ServerDraining {
        reconnect_after_ms: u64,
    },
    /// The token ends at `token_expires_at_ms`. From then on nothing of any task is sent, until a fresh one comes; the
    /// connection is closed at `refresh_until_ms`.
    TokenExpiring {
        token_expires_at_ms: u64,
        refresh_until_ms: u64,
    },
    TokenRefreshed {
        token_expires_at_ms: Option<u64>,
        id: Option<RequestId>,
    },
    Error {
        error_code: ErrorCode,
        message: String,
        id: Option<RequestId>,
    },
    AuthenticationError {
        error_code: AuthenticationErrorCode,
        message: String,
    },
}

impl ServerMessage {
    /// Its `type` on the wire.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::ConnectionEstablished(_) => "connection_established",
            Self::ActiveTasks { .. } => "active_tasks",
            Self::TaskRemoved { .. } => "task_removed",
            Self::TaskStatus { .. } => "task_status",
            Self::TaskCancelled { .. } => "task_cancelled",
            Self::Subscribed { .. } => "subscribed",
            Self::Unsubscribed { .. } => "unsubscribed",
            Self::Pong { .. } => "pong",
            Self::SourceDegraded { .. } => "source_degraded",
            Self::SourceRecovered { .. } => "source_recovered",
            Self::ServerDraining { .. } => "server_draining",
            Self::TokenExpiring { .. } => "token_expiring",
            Self::TokenRefreshed { .. } => "token_refreshed",
            Self::Error { .. } => "error",
            Self::AuthenticationError { .. } => "authentication_error",
        }
    }

    /// The cursor that holds once the client has it, if it has one.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        match self {
            Self::ConnectionEstablished(established) => established.cursor,
            Self::ActiveTasks { cursor, .. } => *cursor,
            _ => None,
        }
    }

    /// The id of the request that it answers.
    #[must_use]
    pub fn id(&self) -> Option<&RequestId> {
        match self {
            Self::ActiveTasks { id, .. }
            | Self::TaskStatus { id, .. }
            | Self::TaskCancelled { id, .. }
            | Self::Subscribed { id, .. }
            | Self::Unsubscribed { id, .. }
            | Self::Pong { id, .. }
            | Self::TokenRefreshed { id, .. }
            | Self::Error { id, .. } => id.as_ref(),
            Self::ConnectionEstablished(_)
            | Self::TaskRemoved { .. }
            | Self::SourceDegraded { .. }
            | Self::SourceRecovered { .. }
            | Self::ServerDraining { .. }
            | Self::TokenExpiring { .. }
            | Self::AuthenticationError { .. } => None,
        }
    }
}

/// The state of a task right after one event, and where that event stands: what `task_progress` and `task_completed`
/// carry. Immutable and shared by every session.
#[derive(Debug)]
pub struct TaskFrame {
    pub task: Task,
    pub cursor: Cursor,
    /// Never folded away: a change of status, a new attempt, an end.
    pub is_key: bool,
    /// When the service applied it, milliseconds since the Unix epoch; the frame's `timestamp`.
    pub applied_at_ms: u64,
    pub(super) encoded: super::encode::Encoded,
}

impl TaskFrame {
    #[must_use]
    pub fn new(task: Task, cursor: Cursor, is_key: bool, applied_at_ms: u64) -> Self {
        Self { task, cursor, is_key, applied_at_ms, encoded: super::encode::Encoded::default() }
    }

    /// Its `type` on the wire: `task_completed` when the status is terminal, else `task_progress`.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        if self.task.status.is_terminal() { "task_completed" } else { "task_progress" }
    }

    #[must_use]
    pub fn position(&self) -> Position {
        self.cursor.position
    }
}
