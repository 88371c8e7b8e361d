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

mod amqp;
mod backoff;
mod bookmark;
mod checkpoint;
mod dead_letters;
mod feed;
mod health;
mod memory;
mod redis;
mod settings;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

pub use self::{
    amqp::{AmqpLog, AmqpTail, addresses},
    bookmark::Bookmark,
    checkpoint::{CheckpointError, CheckpointSettings, CheckpointWriter, Checkpoints, Manifest, Stored, WRITE_TIMEOUT},
    dead_letters::{DeadLetter, PAYLOAD_MAX_BYTES},
    health::Health,
    memory::{MemoryLog, MemoryTail},
    redis::{RedisLog, RedisTail, check_redis_address, check_sentinel_address, shown_sentinel_address},
    settings::{Backend, Settings},
};
use crate::{
    clock,
    metrics::Metrics,
    proto::{ContentType, Position, TraceContext},
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
    /// What stands beside the event, where instrumented publishers put it. Boxed: few have one.
    pub trace: Option<Box<TraceContext>>,
}

/// An event to append.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// For the routing key.
    pub task_id: String,
    /// Native JSON.
    pub payload: Bytes,
}

/// How an entry says that it is to be read. An unknown media type counts as JSON: decoding then says what is wrong.
fn content_type(media_type: &[u8]) -> ContentType {
    if media_type == b"application/json" {
        return ContentType::Json;
    }
    str::from_utf8(media_type).ok().and_then(ContentType::parse).unwrap_or_default()
}

/// A field or header beside the event, as W3C Trace Context names it; the other one is `tracestate`.
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// A trace context that stands beside an event; what cannot be read is none.
fn trace(traceparent: Option<&[u8]>, tracestate: Option<&[u8]>) -> Option<Box<TraceContext>> {
    let text = |bytes| str::from_utf8(bytes).ok();
    let context = TraceContext::parse(traceparent.and_then(text)?)?;
    Some(Box::new(match tracestate.and_then(text) {
        Some(state) => context.with_state(state),
        None => context,
    }))
}

/// Why the log is read again from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RestartReason {
    /// Retention removed records that had not been read yet.
    Trimmed,
    /// Another log stands under this name.
    Replaced,
}

impl RestartReason {
    /// The label of metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Replaced => "replaced",
        }
    }
}

/// What the reader of a log gets.
#[derive(Debug)]
pub enum TailItem {
    /// Ascending, not empty.
    Records(Vec<Record>),
    /// The next records are from the start of retention. If the log was replaced, everything read so far is void; if it
    /// was trimmed, some records after the last one that was returned are lost.
    Restarted(RestartReason),
}

/// An append that did not happen, or may not have.
#[derive(Clone, Debug)]
pub struct AppendError {
    /// How many of the batch, from its start, are known to be in the log.
    pub appended: usize,
    /// For a person; holds no credentials.
    pub detail: String,
}

impl AppendError {
    fn nothing(detail: impl Into<String>) -> Self {
        Self { appended: 0, detail: detail.into() }
    }
}

impl std::fmt::Display for AppendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the append failed after {} events: {}", self.appended, self.detail)
    }
}

impl std::error::Error for AppendError {}

/// The log of this service. Cheap to clone.
#[derive(Clone)]
pub enum Log {
    Memory(Arc<MemoryLog>),
    Redis(Arc<RedisLog>),
    Amqp(Arc<AmqpLog>),
}

impl Log {
    /// Makes a handle; connects when first used.
    ///
    /// # Errors
    /// A URL, name or certificate file that cannot be used, in words for the operator.
    pub fn open(settings: Settings, metrics: Arc<Metrics>) -> Result<Self, String> {
        Ok(match settings.backend.clone() {
            Backend::Memory => Self::Memory(Arc::new(MemoryLog::open(&settings, metrics))),
            Backend::Redis { url } => Self::Redis(Arc::new(RedisLog::open(&url, settings, metrics)?)),
            Backend::Amqp { url } => Self::Amqp(Arc::new(AmqpLog::open(&url, settings, metrics)?)),
        })
    }

    /// Appends all, in order. Positions are known at once to memory and Redis only; RabbitMQ's confirms carry none.
    ///
    /// # Errors
    /// Says how many were appended before the failure. Redis and memory append all or nothing.
    pub async fn append(&self, events: &[Outgoing]) -> Result<Vec<Option<Position>>, AppendError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let started = clock::now().instant;
        let (appended, metrics) = match self {
            Self::Memory(log) => (Ok(log.append(events)), log.metrics()),
            Self::Redis(log) => (log.append(events).await, log.metrics()),
            Self::Amqp(log) => (log.append(events).await, log.metrics()),
        };
        metrics.appended(clock::now().instant - started, appended.is_ok());
        appended
    }

    /// Whether [`Self::set_aside`] keeps anything. Into the log in memory only what was decoded comes.
    #[must_use]
    pub fn keeps_dead_letters(&self) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Redis(log) => log.settings().dead_letters_max > 0,
            Self::Amqp(log) => log.settings().dead_letters_max > 0,
        }
    }

    /// Keeps each, unless a replica did before; in the order of the log. Gives the watermark: what stands at or below it
    /// in this log need not be brought again.
    ///
    /// # Errors
    /// Why not, for the operator. What was kept until then is kept, and the same may be tried again.
    pub async fn set_aside(&self, letters: &[DeadLetter]) -> Result<Position, String> {
        match self {
            Self::Memory(_) => Ok(letters.last().map_or(Position::START, |letter| letter.position)),
            Self::Redis(log) => log.set_aside(letters).await,
            Self::Amqp(log) => log.set_aside(letters).await,
        }
    }

    /// The newest dead letters that were not removed, oldest first.
    ///
    /// # Errors
    /// Why not, for the operator.
    pub async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, String> {
        match self {
            Self::Memory(_) => Ok(Vec::new()),
            Self::Redis(log) => log.dead_letters(limit).await,
            Self::Amqp(log) => log.dead_letters(limit).await,
        }
    }

    /// They are not listed any more, nor set aside again.
    ///
    /// # Errors
    /// Why not, for the operator. Some may be removed.
    pub async fn remove_dead_letters(&self, letters: &[DeadLetter]) -> Result<(), String> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(log) => log.remove_dead_letters(letters).await,
            Self::Amqp(log) => log.remove_dead_letters(letters).await,
        }
    }

    /// Reads from the start of retention, for ever.
    #[must_use]
    pub fn tail(&self) -> Tail {
        self.tail_from(None)
    }

    /// Reads on from where a reader stood, for ever; whether the log is still the same is proven first. The memory log
    /// knows no bookmarks.
    #[must_use]
    pub fn tail_from(&self, bookmark: Option<Bookmark>) -> Tail {
        match self {
            Self::Memory(log) => Tail::Memory(MemoryTail::new(log.clone())),
            Self::Redis(log) => Tail::Redis(RedisTail::new(log.clone(), bookmark)),
            Self::Amqp(log) => Tail::Amqp(AmqpTail::new(log.clone(), bookmark)),
        }
    }

    /// Changes whenever the tail's state does.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        match self {
            Self::Memory(log) => log.health(),
            Self::Redis(log) => log.health(),
            Self::Amqp(log) => log.health(),
        }
    }

    /// `memory`, `redis` or `amqp`: the label of metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Redis(_) => "redis",
            Self::Amqp(_) => "amqp",
        }
    }
}

/// The reader. One per process, since there is one health; it works from the first [`Tail::next`] on.
pub enum Tail {
    Memory(MemoryTail),
    Redis(RedisTail),
    Amqp(AmqpTail),
}

impl Tail {
    /// The next items; waits as long as it takes, reconnecting with backoff and jitter. Cancel safe: what was not
    /// returned is returned by the next call.
    pub async fn next(&mut self) -> TailItem {
        match self {
            Self::Memory(tail) => tail.next().await,
            Self::Redis(tail) => tail.next().await,
            Self::Amqp(tail) => tail.next().await,
        }
    }
    /// Where the items that were returned end. `None` when nothing was read since the start or a restart.
    #[must_use]
    pub fn bookmark(&self) -> Option<Bookmark> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(tail) => tail.bookmark(),
            Self::Amqp(tail) => tail.bookmark(),
        }
    }
}
