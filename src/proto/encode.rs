//! From messages to finished bytes, in each encoding: WebSocket frames, and chunks of an event stream. A task frame is
//! encoded once per encoding and shared.

use std::sync::OnceLock;

use bytes::Bytes;

use super::{
    Opcode, ServerMessage, TaskFrame, celery,
    event_stream::{stream_chunk, stream_event},
    frame, native, payload, protobuf,
};

/// How a connection wants what it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// taskcast's own JSON.
    #[default]
    Json,
    /// `?dialect=celery`: JSON with Celery's names, for front ends written against Django Channels consumers.
    Celery,
    /// Subprotocol `taskcast.v1.proto`: `taskcast.v1.ServerMessage` in binary frames.
    Protobuf,
    /// taskcast's own JSON as events of `text/event-stream`, in chunks of HTTP/1.1.
    EventStream,
}

impl Encoding {
    pub const ALL: [Self; 4] = [Self::Json, Self::Celery, Self::Protobuf, Self::EventStream];

    /// What `connection_established` calls it; but for the dialect, the subprotocol that asks for it.
    #[must_use]
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Json | Self::EventStream => "taskcast.v1.json",
            Self::Celery => "taskcast.v1.celery",
            Self::Protobuf => "taskcast.v1.proto",
        }
    }
}

/// What was encoded once somebody asked for it.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    json: OnceLock<Bytes>,
    celery: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
    /// Boxed, as few ask for it and every frame has room for it.
    event_stream: OnceLock<Box<Bytes>>,
}

impl TaskFrame {
    /// The finished bytes, a WebSocket's header or a chunk's included: `task_completed` when the status is terminal, else
    /// `task_progress`.
    #[must_use]
    pub fn bytes(&self, encoding: Encoding) -> Bytes {
        let encoded = &self.encoded;
        match encoding {
            Encoding::Json => encoded.json.get_or_init(|| frame(Opcode::Text, &native::task_frame(self))),
            Encoding::Celery => encoded.celery.get_or_init(|| frame(Opcode::Text, &celery::task_frame(self))),
            Encoding::Protobuf => encoded.protobuf.get_or_init(|| frame(Opcode::Binary, &protobuf::task_frame(self))),
            Encoding::EventStream => encoded.event_stream.get_or_init(|| Box::new(self.event())),
        }
        .clone()
    }

    /// Its JSON, taken from the frame of a WebSocket where there is one.
    fn event(&self) -> Bytes {
        let json = self.encoded.json.get().map_or_else(|| native::task_frame(self).into(), payload);
        stream_chunk(&stream_event(&json, Some(self.cursor)))
    }
}

impl ServerMessage {
    /// The finished bytes, a WebSocket's header or a chunk's included, dated `unix_ms`.
    #[must_use]
    pub fn encode(&self, encoding: Encoding, unix_ms: u64) -> Bytes {
        match encoding {
            Encoding::Json => frame(Opcode::Text, &native::message(self, encoding, unix_ms)),
            Encoding::Celery => frame(Opcode::Text, &celery::message(self, unix_ms)),
            Encoding::Protobuf => frame(Opcode::Binary, &protobuf::message(self, unix_ms)),
            Encoding::EventStream => {
                stream_chunk(&stream_event(&native::message(self, encoding, unix_ms), self.cursor()))
            }
        }
    }
}
