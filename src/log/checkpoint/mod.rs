//! Checkpoints beside the log: chunks of bytes and a manifest that proves them whole. One writer at a time among all
//! replicas, whoever reads gets a whole one or none. Owns their place in the broker and how they are read back; memory
//! has none, since nothing there outlives the process.
//!
//! Refuses to know: what the bytes mean.

mod envelope;

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

pub(super) use self::envelope::{Assembly, MANIFEST_BYTES_MAX, Parsed, parse};
pub use self::envelope::{CheckpointId, Manifest};
use super::{
    AmqpLog, Bookmark, Log, RedisLog, amqp,
    backoff::Backoff,
    health::{Reporter, Trouble},
    redis,
};
use crate::proto::Corrupt;

/// The key or queue is the log's own name and this.
pub(super) const SUFFIX: &str = ":checkpoint";
/// That of the one who writes.
pub(super) const WRITER_SUFFIX: &str = ":checkpoint:writer";

/// Whoever writes must be done by then: longer than this nobody keeps the others from writing.
pub const WRITE_TIMEOUT: Duration = Duration::from_mins(1);
/// How long one look at what is kept, or the whole of its chunks, may take: a broker that is busy starting is slow.
const LOAD_TIMEOUT: Duration = Duration::from_mins(1);
/// So many tries to read a checkpoint once the broker is there, before the log is read without.
const LOAD_ATTEMPTS: usize = 3;

/// Settings of checkpoints; every field has a key in the configuration's `[checkpoint]` table.
#[derive(Clone, Debug)]
pub struct CheckpointSettings {
    /// How often one is written, by all replicas together. Zero: never, and none is read.
    pub interval: Duration,
    /// A larger one is neither written nor read.
    pub max_bytes: u64,
}

/// Why a checkpoint was not read or not written. The words are for the operator and hold no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointError {
    /// The bytes are not those that were written.
    Corrupt(String),
    /// A later version of taskcast wrote it.
    Newer(u16),
    /// More bytes than `checkpoint.max_bytes`.
    TooLarge(u64),
    /// The broker is not there, or refuses.
    Broker(String),
}

impl std::fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Corrupt(what) => write!(f, "it is corrupt: {what}"),
            Self::Newer(format) => write!(f, "it has format {format}, which a later version of taskcast writes"),
            Self::TooLarge(bytes) => write!(f, "it has {bytes} bytes or more, beyond checkpoint.max_bytes"),
            Self::Broker(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for CheckpointError {}

impl From<Corrupt> for CheckpointError {
    fn from(corrupt: Corrupt) -> Self {
        Self::Corrupt(corrupt.to_string())
    }
}

/// Why a checkpoint could not be read at one attempt.
pub(super) enum Unread {
    Trouble(Trouble),
    Useless(CheckpointError),
    /// Another one took its place meanwhile.
    Replaced,
}

impl From<Trouble> for Unread {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<CheckpointError> for Unread {
    fn from(error: CheckpointError) -> Self {
        Self::Useless(error)
    }
}

/// A checkpoint that was read: every chunk is there and as it was written.
#[derive(Debug)]
pub struct Stored {
    pub manifest: Manifest,
    pub chunks: Vec<Vec<u8>>,
}

/// Where the checkpoints of a log are. Cheap to clone.
#[derive(Clone)]
pub struct Checkpoints {
    place: Place,
    pub settings: CheckpointSettings,
}

#[derive(Clone)]
enum Place {
    Redis(Arc<RedisLog>),
    Amqp(Arc<AmqpLog>),
}

impl Log {
    /// `None` when none are kept.
    #[must_use]
    pub fn checkpoints(&self, settings: CheckpointSettings) -> Option<Checkpoints> {
        if settings.interval.is_zero() {
            return None;
        }
        let place = match self {
            Self::Memory(_) => return None,
            Self::Redis(log) => Place::Redis(log.clone()),
            Self::Amqp(log) => Place::Amqp(log.clone()),
        };
        Some(Checkpoints { place, settings })
    }
}

impl Checkpoints {
    /// The newest one, if there is any. Waits for a broker that is not there, as the reader of the log would, and says
    /// so to whoever asks after the log's health.
    ///
    /// # Errors
    /// It cannot be used; the log has to be read without.
    pub async fn load(&self) -> Result<Option<Stored>, CheckpointError> {
        let mut backoff = Backoff::new(self.reconnect_max());
        let mut attempts = 0;
        loop {
            let unread = match timeout(LOAD_TIMEOUT, self.load_once(&mut attempts)).await {
                Ok(Ok(stored)) => return Ok(stored),
                Ok(Err(unread)) => unread,
                Err(_) => Unread::Trouble(Trouble::Lost("the broker does not hand out the checkpoint".to_owned())),
            };
            match unread {
                Unread::Useless(error) => return Err(error),
                Unread::Trouble(trouble) if attempts >= LOAD_ATTEMPTS => {
                    return Err(CheckpointError::Broker(trouble.words().to_owned()));
                }
                Unread::Replaced if attempts >= LOAD_ATTEMPTS => {
                    return Err(CheckpointError::Broker("it is replaced again and again while it is read".to_owned()));
                }
                Unread::Replaced => {}
                Unread::Trouble(trouble) => self.reporter().trouble(&trouble),
            }
            backoff.wait().await;
        }
    }

    /// `attempts` counts those that found a broker.
    async fn load_once(&self, attempts: &mut usize) -> Result<Option<Stored>, Unread> {
        let max_bytes = self.settings.max_bytes;
        match &self.place {
            Place::Redis(log) => {
                let mut store = redis::CheckpointStore::connect(log).await?;
                *attempts += 1;
                store.load(max_bytes).await
            }
            Place::Amqp(log) => {
                let mut store = amqp::CheckpointStore::connect(log, &self.settings).await?;
                *attempts += 1;
                store.load(max_bytes).await
            }
        }
    }

    /// The right to write, unless another replica has it.
    ///
    /// # Errors
    /// [`CheckpointError::Broker`].
    pub async fn writer(&self) -> Result<Option<CheckpointWriter>, CheckpointError> {
        let broker = |trouble: Trouble| CheckpointError::Broker(trouble.words().to_owned());
        let store = match &self.place {
            Place::Redis(log) => {
                let mut store = redis::CheckpointStore::connect(log).await.map_err(broker)?;
                store.lock().await.map_err(broker)?.then_some(Store::Redis(store))
            }
            Place::Amqp(log) => {
                let mut store = amqp::CheckpointStore::connect(log, &self.settings).await.map_err(broker)?;
                store.lock().await.map_err(broker)?.then_some(Store::Amqp(Box::new(store)))
            }
        };
        let max_bytes = self.settings.max_bytes;
        Ok(store.map(|store| CheckpointWriter { store, assembly: Assembly::default(), max_bytes }))
    }

    fn reconnect_max(&self) -> Duration {
        match &self.place {
            Place::Redis(log) => log.reconnect_max(),
            Place::Amqp(log) => log.reconnect_max(),
        }
    }

    fn reporter(&self) -> &Reporter {
        match &self.place {
            Place::Redis(log) => log.reporter(),
            Place::Amqp(log) => log.reporter(),
        }
    }
}

enum Store {
    Redis(redis::CheckpointStore),
    Amqp(Box<amqp::CheckpointStore>),
}

/// Writes one checkpoint. While it lives no other replica has one; what was not finished is nothing.
pub struct CheckpointWriter {
    store: Store,
    assembly: Assembly,
    max_bytes: u64,
}

impl CheckpointWriter {
    /// The manifest of the newest one, if it can be read.
    ///
    /// # Errors
    /// [`CheckpointError::Broker`].
    pub async fn newest(&mut self) -> Result<Option<Manifest>, CheckpointError> {
        let newest = match &mut self.store {
            Store::Redis(store) => store.newest().await,
            Store::Amqp(store) => store.newest().await,
        };
        match newest {
            Ok(manifest) => Ok(manifest),
            Err(Unread::Trouble(trouble)) => Err(CheckpointError::Broker(trouble.words().to_owned())),
            // Whatever stands there, it is to be replaced.
            Err(Unread::Useless(_) | Unread::Replaced) => Ok(None),
        }
    }

    /// Appends a chunk.
    ///
    /// # Errors
    /// [`CheckpointError::TooLarge`] and [`CheckpointError::Broker`].
    pub async fn chunk(&mut self, payload: &[u8]) -> Result<(), CheckpointError> {
        let chunk = self.assembly.add(payload);
        if self.assembly.bytes() > self.max_bytes {
            return Err(CheckpointError::TooLarge(self.assembly.bytes()));
        }
        let (id, index) = (self.assembly.id(), self.assembly.chunks() - 1);
        let written = match &mut self.store {
            Store::Redis(store) => store.chunk(id, index, chunk).await,
            Store::Amqp(store) => store.chunk(chunk).await,
        };
        written.map_err(|trouble| CheckpointError::Broker(trouble.words().to_owned()))
    }

    /// Makes it the newest one, at once and as a whole.
    ///
    /// # Errors
    /// [`CheckpointError::Broker`].
    pub async fn finish(mut self, bookmark: Bookmark, written_at_ms: u64) -> Result<Manifest, CheckpointError> {
        let manifest = self.assembly.manifest(bookmark, written_at_ms);
        let finished = match &mut self.store {
            Store::Redis(store) => store.finish(&manifest).await,
            Store::Amqp(store) => store.finish(&manifest).await,
        };
        finished.map_err(|trouble| CheckpointError::Broker(trouble.words().to_owned()))?;
        self.release().await;
        Ok(manifest)
    }

    /// Lets the next one write. What was not finished is removed.
    pub async fn release(mut self) {
        match &mut self.store {
            Store::Redis(store) => store.release(self.assembly.id()).await,
            Store::Amqp(store) => store.release().await,
        }
    }
}
