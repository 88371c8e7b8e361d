//! From messages to finished WebSocket frames, in each encoding. A task frame is encoded once per encoding and shared.

use std::sync::OnceLock;

use bytes::Bytes;

use super::{ServerMessage, TaskFrame};

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
}

/// One slot per encoding, filled when the first session asks.
#[derive(Debug, Default)]
pub(super) struct Encoded([OnceLock<Bytes>; Encoding::ALL.len()]);

impl TaskFrame {
    /// The finished frame, WebSocket header included: `task_completed` when the status is terminal, else
    /// `task_progress`.
    #[must_use]
    pub fn bytes(&self, encoding: Encoding) -> Bytes {
        self.encoded.0[encoding as usize].get_or_init(|| todo!("proto helper")).clone()
    }
}

impl ServerMessage {
    /// The finished frame, WebSocket header included, dated `unix_ms`.
    #[must_use]
    pub fn encode(&self, _encoding: Encoding, _unix_ms: u64) -> Bytes {
        todo!("proto helper")
    }
}
