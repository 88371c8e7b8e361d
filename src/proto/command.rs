//! Everything that a client may say, as closed enums.

use super::{ErrorCode, RequestId, TaskId, Topic};

/// What a subscribe names. `Mine` is `"task_id": "*"`: everything that the token allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    Topic(Topic),
    Mine,
}

/// A client's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandKind {
    Subscribe(Selector),
    Unsubscribe(Selector),
    GetTaskStatus(TaskId),
    GetActiveTasks,
    CancelTask(TaskId),
    /// `auth` or `refresh_token`: the token as the first frame.
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
    pub fn from_json(_text: &str) -> Result<Self, CommandError> {
        todo!("proto helper")
    }

    /// Reads a `taskcast.v1.ClientMessage`.
    ///
    /// # Errors
    /// As [`Command::from_json`].
    pub fn from_protobuf(_bytes: &[u8]) -> Result<Self, CommandError> {
        todo!("proto helper")
    }
}
