//! The log: where every event has a position, can be read again from the start of retention, and is read by every
//! replica. A closed enum of three: memory, a Redis Stream, a RabbitMQ stream queue.
//!
//! Owns connections to the broker, reconnecting, positions, retention, and noticing that a log is not the one it was.
//! Refuses to know: what a task is; an event is bytes here.
//!
//! What the three promise to whoever reads:
//! - **Order.** Records arrive in strictly ascending position, each once, however often the connection broke.
//! - **Completeness.** After [`TailItem::Restarted`] the log is read again from its start; until then no retained
//!   record is skipped. A record that was trimmed before it was read is never skipped silently: that is a restart too.
//! - **Durability.** [`Log::append`] returns once the broker has confirmed, not before.
//! - **Identity.** There is no epoch kept anywhere. On every reconnect the record at the last position is read again:
//!   other bytes, or nothing there, mean that the log was flushed, recreated or failed over with a lost tail.
//!
//! Example of the last: a stream held 1-0, 2-0 and 3-0 when the broker was replaced by an empty one, into which
//! another 1-0 … 9-0 were written while this replica was away. Carrying on after 3-0 would be wrong in every way; the
//! bytes at 3-0 differ from those remembered, so the reader says `Restarted` and begins at the new 1-0.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    metrics::Metrics,
    proto::{ContentType, Position},
};

/// One event in the log.
#[derive(Clone, Debug)]
pub struct Record {
    pub position: Position,
    /// When the log took it, if the log says: milliseconds since the Unix epoch.
    pub appended_at_ms: Option<u64>,
    pub content_type: ContentType,
    /// Empty when the entry has no event in it; it is malformed then.
    pub payload: Bytes,
}

/// An event to append.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// For the routing key.
    pub task_id: String,
    /// Native JSON.
    pub payload: Bytes,
}

/// Why the log is read again from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RestartReason {
    /// Retention removed records that had not been read yet.
    Trimmed,
    /// Another log stands under this name.
    Replaced,
}

/// What the reader of a log gets.
#[derive(Debug)]
pub enum TailItem {
    /// Ascending, not empty.
    Records(Vec<Record>),
    /// Everything read so far is void; the next records are from the start of retention.
    Restarted(RestartReason),
}

/// How the tail is doing; for readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub connected: bool,
    /// Everything that was in the log when the reader connected has been handed over.
    pub replayed: bool,
    /// For a person: why not, or where it stands. Holds no credentials.
    pub detail: String,
}

/// An append that did not happen, or may not have.
#[derive(Clone, Debug)]
pub struct AppendError {
    /// How many of the batch, from its start, are known to be in the log.
    pub appended: usize,
    /// For a person; holds no credentials.
    pub detail: String,
}

/// Settings of the log; every field has a key in the configuration's `[log]` table.
#[derive(Clone, Debug)]
pub struct Settings {
    pub backend: Backend,
    /// Redis: the stream's key. RabbitMQ: the queue's name.
    pub key: String,
    /// RabbitMQ: the durable topic exchange that workers publish to.
    pub exchange: String,
    /// Redis: `MAXLEN ~` of appends; memory: the ring's length.
    pub max_events: u64,
    /// RabbitMQ: `x-max-age` in seconds, when the queue is created here.
    pub max_age_seconds: u64,
    /// RabbitMQ: `x-max-length-bytes`, when the queue is created here.
    pub max_bytes: u64,
    /// RabbitMQ: unacknowledged deliveries; Redis: entries per read.
    pub read_batch: u16,
    /// An append fails after this long.
    pub append_timeout: std::time::Duration,
    /// The longest wait between two attempts to connect.
    pub reconnect_max: std::time::Duration,
    /// PEM file of certificate authorities to trust besides the system's, for `rediss://` and `amqps://`.
    pub tls_ca_file: Option<std::path::PathBuf>,
}

/// Which broker, with its address. `Debug` shows no password.
#[derive(Clone)]
pub enum Backend {
    Memory,
    Redis { url: String },
    Amqp { url: String },
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory => "Memory",
            Self::Redis { .. } => "Redis",
            Self::Amqp { .. } => "Amqp",
        })
    }
}

/// The log of this service. Cheap to clone.
#[derive(Clone)]
pub enum Log {
    Todo,
}

impl Log {
    /// Makes a handle; connects when first used.
    ///
    /// # Errors
    /// A URL or certificate file that cannot be used, in words for the operator.
    pub fn open(_settings: Settings, _metrics: Arc<Metrics>) -> Result<Self, String> {
        todo!("log helper")
    }

    /// Appends all, in order. Positions are known at once to memory and Redis only; RabbitMQ's confirms carry none.
    ///
    /// # Errors
    /// Says how many were appended before the failure. Redis and memory append all or nothing.
    pub async fn append(&self, _events: &[Outgoing]) -> Result<Vec<Option<Position>>, AppendError> {
        todo!("log helper")
    }

    /// Reads from the start of retention, for ever.
    #[must_use]
    pub fn tail(&self) -> Tail {
        todo!("log helper")
    }

    /// Changes whenever the tail's state does.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        todo!("log helper")
    }

    /// `memory`, `redis` or `amqp`: the label of metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        todo!("log helper")
    }
}

/// The reader. One per process.
pub struct Tail {}

impl Tail {
    /// The next items; waits as long as it takes, reconnecting with backoff and jitter. Cancel safe: what was not
    /// returned is returned by the next call.
    pub async fn next(&mut self) -> TailItem {
        todo!("log helper")
    }
}
