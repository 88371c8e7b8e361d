//! From messages to finished WebSocket frames, in each encoding. A task frame is encoded once per encoding and shared.

use std::sync::OnceLock;

use bytes::Bytes;

use super::{Opcode, ServerMessage, TaskFrame, celery, frame, native, protobuf};

/// How a connection wants its frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// taskcast's own JSON.
    #[default]
    Json,
    /// `?dialect=celery`: JSON with Celery's names, for front ends written against Django Channels consumers.
    Celery,
    /// Subprotocol `taskcast.v1.proto`: `taskcast.v1.ServerMessage` in binary frames.
    Protobuf,
}

impl Encoding {
    pub const ALL: [Self; 3] = [Self::Json, Self::Celery, Self::Protobuf];

    /// What `connection_established` calls it; but for the dialect, the subprotocol that asks for it.
    #[must_use]
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Json => "taskcast.v1.json",
            Self::Celery => "taskcast.v1.celery",
            Self::Protobuf => "taskcast.v1.proto",
        }
    }

    /// The frame type that carries it.
    #[must_use]
    pub fn opcode(self) -> Opcode {
        match self {
            Self::Json | Self::Celery => Opcode::Text,
            Self::Protobuf => Opcode::Binary,
        }
    }
}

/// One slot per encoding, filled when the first session asks.
#[derive(Debug, Default)]
pub(super) struct Encoded([OnceLock<Bytes>; Encoding::ALL.len()]);

impl TaskFrame {
    /// The finished frame, WebSocket header included: `task_completed` when the status is terminal, else
    /// `task_progress`.
    #[must_use]
    pub fn bytes(&self, encoding: Encoding) -> Bytes {
        let slot = &self.encoded.0[encoding as usize];
        slot.get_or_init(|| {
            let payload = match encoding {
                Encoding::Json => native::task_frame(self),
                Encoding::Celery => celery::task_frame(self),
                Encoding::Protobuf => protobuf::task_frame(self),
            };
            frame(encoding.opcode(), &payload)
        })
        .clone()
    }
}

impl ServerMessage {
    /// The finished frame, WebSocket header included, dated `unix_ms`.
    #[must_use]
    pub fn encode(&self, encoding: Encoding, unix_ms: u64) -> Bytes {
        let payload = match encoding {
            Encoding::Json => native::message(self, unix_ms),
            Encoding::Celery => celery::message(self, unix_ms),
            Encoding::Protobuf => protobuf::message(self, unix_ms),
        };
        frame(encoding.opcode(), &payload)
    }
}
