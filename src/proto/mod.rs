//! The contract in types: events in, commands in, messages out, identifiers, codes. Parse, don't validate. The folder
//! `proto/` at the top of the repository says the same for other languages, and `tests/contract.rs` keeps them equal.
//!
//! Refuses to know: sockets, brokers, clocks.

mod codes;
mod command;
mod encode;
mod event;
mod frame;
mod id;
mod message;
mod position;
mod status;
mod task;

pub use codes::{AuthenticationErrorCode, CloseCode, ErrorCode};
pub use command::{Command, CommandError, CommandKind, Selector};
pub use encode::Encoding;
pub use event::{ContentType, Event, JsonText, Malformed, MalformedReason, TaskError};
pub use frame::{CONTROL_PAYLOAD_MAX_BYTES, Opcode, close_frame, frame, payload};
pub use id::{ID_MAX_BYTES, IdError, TaskId, UserId};
pub use message::{ClientLimits, ConnectionEstablished, RequestId, ResumeFailure, ServerMessage, TaskFrame, Topic};
pub use position::{Cursor, CursorError, Position, proof};
pub use status::Status;
pub use task::Task;
