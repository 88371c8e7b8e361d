//! The log in a Redis Stream: one entry per event, the JSON in its field `event`, its stream id the position. Owns the
//! connections and the words for what can be wrong with them. Refuses to know: tasks.
//!
//! Redis 6.2 is enough; from 7.0 on the stream counts what was ever added, which makes lost records provable.

mod append;
mod checkpoint;
mod dead_letters;
mod place;
mod reader;
mod sentinel;
mod settle;
mod tally;
mod tap;
mod wire;
mod words;

use std::{sync::Arc, time::Duration};

use redis::RedisError;
use tokio::sync::watch;

pub(super) use self::checkpoint::CheckpointStore;
pub use self::place::check_redis_address;
pub use self::sentinel::{check_sentinel_address, shown_sentinel_address};
use self::{
    append::Appender,
    place::{Connected, Place, Purpose},
};
use super::{
    AppendError, Bookmark, Health, Outgoing, Settings, TailItem,
    feed::{self, Feed},
    health::{Reporter, Trouble},
};
use crate::{metrics::Metrics, proto::Position};

/// The log itself. Appends share one connection; each tail has its own, because a blocking read blocks everybody
/// behind it.
pub struct RedisLog {
    place: Place,
    settings: Settings,
    reporter: Arc<Reporter>,
    appender: Appender,
}

impl RedisLog {
    pub(super) fn open(url: &str, settings: Settings, metrics: Arc<Metrics>) -> Result<Self, String> {
        if settings.key.is_empty() {
            return Err("the key of the Redis stream must not be empty".to_owned());
        }
        let place = Place::open(url, &settings)?;
        let reporter = Arc::new(Reporter::new(metrics));
        Ok(Self { place, settings, reporter, appender: Appender::default() })
    }

    pub(super) async fn append(&self, events: &[Outgoing]) -> Result<Vec<Option<Position>>, AppendError> {
        self.appender.append(self, events).await
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn metrics(&self) -> &Metrics {
        self.reporter.metrics()
    }

    pub(super) fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    pub(super) fn reconnect_max(&self) -> Duration {
        self.settings.reconnect_max
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.reporter.watch()
    }

    async fn connect(&self) -> Result<Connected, Trouble> {
        self.place.connect(&self.settings.key, Purpose::Other).await
    }

    async fn connect_to_read(&self) -> Result<Connected, Trouble> {
        self.place.connect(&self.settings.key, Purpose::Read).await
    }

    /// What an error means for the operator.
    fn trouble(&self, error: &RedisError) -> Trouble {
        words::trouble(&self.place.address(), &self.settings.key, error)
    }

    /// The same, of a command about what is kept beside the log.
    fn trouble_beside(&self, error: &RedisError) -> Trouble {
        words::trouble_beside(&self.place.address(), &self.settings.key, error)
    }
}

/// A reader of the stream.
pub struct RedisTail {
    log: Arc<RedisLog>,
    feed: Option<Feed>,
    /// For the first reader; one that is started anew begins at the start.
    begin: Option<Bookmark>,
}

impl RedisTail {
    pub(super) fn new(log: Arc<RedisLog>, begin: Option<Bookmark>) -> Self {
        Self { log, feed: None, begin }
    }

    pub(super) fn bookmark(&self) -> Option<Bookmark> {
        feed::bookmark(self.feed.as_ref())
    }

    pub(super) async fn next(&mut self) -> TailItem {
        let (log, begin) = (&self.log, &mut self.begin);
        feed::next(&mut self.feed, &log.reporter, |out| reader::read(log.clone(), out, begin.take())).await
    }
}
