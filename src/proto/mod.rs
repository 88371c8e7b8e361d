//! The contract in types: events in, commands in, messages out, identifiers, codes. Parse, don't validate. The folder
//! `proto/` at the top of the repository says the same for other languages, and `tests/contract.rs` keeps them equal.
//!
//! Refuses to know: sockets, brokers, clocks.

mod binary;
mod celery;
mod cloudevents;
mod codes;
mod command;
mod command_json;
mod draft;
mod encode;
mod event;
mod event_json;
mod event_protobuf;
mod event_stream;
mod field;
mod frame;
mod id;
mod json_text;
mod json_writer;
mod message;
mod native;
mod position;
mod protobuf;
mod revocation;
mod scalar;
mod status;
mod task;
mod task_binary;
mod timestamp;
mod trace_context;
mod wire;

pub use binary::{
    BinaryReader, Corrupt, push_bytes, push_cursor, push_difference, push_number, push_option, push_position,
};
pub use codes::{AuthenticationErrorCode, CloseCode, ErrorCode};
pub use command::{Command, CommandError, CommandKind, Selector};
pub use encode::Encoding;
pub use event::{
    ContentType, EVENT_MAX_BYTES, Event, HEARTBEAT_TIMEOUT_MAX_MS, MESSAGE_MAX_BYTES, METADATA_MAX_BYTES, Malformed,
    MalformedReason, RESULT_MAX_BYTES, TAG_MAX_BYTES, TAGS_MAX, TEXT_MAX_BYTES, TaskError,
};
pub use event_stream::{stream_chunk, stream_end, stream_event, stream_heartbeat, stream_retry};
pub use field::FIELD_ALIASES;
pub use frame::{CONTROL_PAYLOAD_MAX_BYTES, Opcode, close_frame, frame, payload};
pub use id::{CANARY_ID_PREFIX, ID_MAX_BYTES, IdError, TaskId, UserId};
pub use json_text::{JSON_DEPTH_MAX, JsonText};
pub use message::{
    ClientLimits, ConnectionEstablished, REQUEST_ID_MAX_BYTES, RequestId, ResumeFailure, ServerMessage, TaskFrame,
    Topic,
};
pub use position::{Cursor, CursorError, Position, proof};
pub use revocation::{Revocation, Revoked, TOKEN_ID_MAX_BYTES};
pub use status::Status;
pub use task::Task;
pub use task_binary::{push_task, read_task, read_task_id};
pub use timestamp::{TIMESTAMP_MAX_MS, rfc3339};
pub use trace_context::{TRACESTATE_MAX_BYTES, TraceContext};
