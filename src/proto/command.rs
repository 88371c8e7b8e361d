//! Everything that a client may say, as closed enums.

use std::fmt;

use super::{ErrorCode, RequestId, TaskId, Topic, command_json, protobuf};

/// What a subscribe names. `Mine` is `"task_id": "*"`: everything that the token allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    Topic(Topic),
    Mine,
}

/// A client's command. `Debug` shows no token.
#[derive(Clone, PartialEq, Eq)]
pub enum CommandKind {
    Subscribe(Selector),
    Unsubscribe(Selector),
    GetTaskStatus(TaskId),
    GetActiveTasks,
    CancelTask(TaskId),
    /// `auth` or `refresh_token`: the token as the first frame, or a fresh one.
    Authenticate {
        token: String,
    },
    /// The JSON text of its `timestamp`, if it had one.
    Ping {
        client_timestamp: Option<RequestId>,
    },
    /// Something that today's front ends send and that needs no answer.
    Ignored,
}

impl CommandKind {
    /// It asks for nothing that a token would have to allow.
    #[must_use]
    pub fn needs_no_token(&self) -> bool {
        matches!(self, Self::Authenticate { .. } | Self::Ping { .. } | Self::Ignored)
    }
}

impl fmt::Debug for CommandKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subscribe(selector) => f.debug_tuple("Subscribe").field(selector).finish(),
            Self::Unsubscribe(selector) => f.debug_tuple("Unsubscribe").field(selector).finish(),
            Self::GetTaskStatus(id) => f.debug_tuple("GetTaskStatus").field(id).finish(),
            Self::GetActiveTasks => f.write_str("GetActiveTasks"),
            Self::CancelTask(id) => f.debug_tuple("CancelTask").field(id).finish(),
            Self::Authenticate { .. } => f.write_str("Authenticate { token: … }"),
            Self::Ping { client_timestamp } => {
                f.debug_struct("Ping").field("client_timestamp", client_timestamp).finish()
            }
            Self::Ignored => f.write_str("Ignored"),
        }
    }
}

/// A command and the `id` to echo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub kind: CommandKind,
    pub id: Option<RequestId>,
}

/// Why a message is not a command; becomes an `error` frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    pub code: ErrorCode,
    pub message: String,
    pub id: Option<RequestId>,
}

impl Command {
    /// Reads a JSON text message.
    ///
    /// # Errors
    /// [`CommandError`] says what is wrong, in words for the front end's developer.
    pub fn from_json(text: &str) -> Result<Self, CommandError> {
        command_json::command(text)
    }

    /// Reads a `taskcast.v1.ClientMessage`.
    ///
    /// # Errors
    /// As [`Command::from_json`].
    pub fn from_protobuf(bytes: &[u8]) -> Result<Self, CommandError> {
        protobuf::command(bytes)
    }
}
