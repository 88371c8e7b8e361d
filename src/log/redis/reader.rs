//! Reading the stream for ever, on a connection of its own. Owns the order of questions on that connection; what the
//! answers mean is [`super::tally`]'s.

use std::{sync::Arc, time::Duration};

use redis::{RedisError, RedisResult, Value, aio::MultiplexedConnection};
use tokio::time::timeout;

use super::{
    RedisLog,
    tally::Tally,
    wire::{self, Info},
};
use crate::{
    clock,
    log::{Bookmark, Record, RestartReason, backoff::Backoff, feed::Out, health::Trouble},
    metrics::Lag,
    proto::{Position, proof},
};

/// How long a read waits for something to read. Never for ever: a flush under a blocked read raises nothing.
const BLOCK_MS: usize = 1_000;
/// How often the stream is asked whether it is still the same.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Entries of the first read, before anything is known of their size.
const READ_FIRST: u16 = 8;
/// Reads are halved beyond this many bytes of events, and doubled below a quarter of it.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A reply that takes this much longer than it may means that the connection is dead.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a connection is left.
enum Leave {
    Trouble(Trouble),
    Restart(RestartReason),
}

impl From<RestartReason> for Leave {
    fn from(reason: RestartReason) -> Self {
        Self::Restart(reason)
    }
}

/// Reads for ever; ends only by being dropped.
pub(super) async fn read(log: Arc<RedisLog>, out: Out, begin: Option<Bookmark>) {
    let mut backoff = Backoff::new(log.settings.reconnect_max);
    let mut tally = begin.map(Tally::at_bookmark);
    loop {
        let trouble = match log.connect().await {
            Ok(connection) => {
                let mut session = Session { log: &log, out: &out, connection, count: READ_FIRST, target: None };
                session.run(&mut tally, &mut backoff).await
            }
            Err(trouble) => trouble,
        };
        log.reporter.trouble(&trouble);
        backoff.wait().await;
    }
}

/// One connection's life.
struct Session<'a> {
    log: &'a RedisLog,
    out: &'a Out,
    connection: MultiplexedConnection,
    /// Entries to ask for.
    count: u16,
    /// The last entry that stood in the stream on connecting, while it has not been handed over.
    target: Option<Position>,
}

impl Session<'_> {
    async fn run(&mut self, tally: &mut Option<Tally>, backoff: &mut Backoff) -> Trouble {
        loop {
            match self.follow(tally, backoff).await {
                Leave::Trouble(trouble) => return trouble,
                Leave::Restart(reason) => {
                    *tally = None;
                    self.out.restarted(reason).await;
                }
            }
        }
    }

    /// Takes up where reading stands and goes on from there.
    async fn follow(&mut self, tally: &mut Option<Tally>, backoff: &mut Backoff) -> Leave {
        let begun = match tally {
            Some(tally) => self.resume(tally).await,
            None => self.start().await.map(|begun| *tally = Some(begun)),
        };
        if let Err(leave) = begun {
            return leave;
        }
        backoff.reset();
        let tally = tally.get_or_insert_default();
        loop {
            if let Err(leave) = self.read_on(tally).await {
                return leave;
            }
        }
    }

    /// The start of retention. The first read and the counters are taken at one moment, so that trimming in between
    /// is not mistaken for a loss.
    async fn start(&mut self) -> Result<Tally, Leave> {
        let key = &self.log.settings.key;
        if self.info().await?.is_none() {
            let tally = Tally::at_start(None);
            self.aim(&tally, None).await;
            return Ok(tally);
        }
        let mut both = redis::pipe();
        both.atomic().cmd("XINFO").arg("STREAM").arg(key);
        both.cmd("XRANGE").arg(key).arg("-").arg("+").arg("COUNT").arg(self.count);
        let query = both.query_async::<(Value, Value)>(&mut self.connection);
        let (info, entries) = self.log.answer(REPLY_TIMEOUT, query).await?;
        let info = wire::info(&info).ok_or_else(|| self.log.unreadable())?;
        let records = wire::entries(entries).ok_or_else(|| self.log.unreadable())?;
        let mut tally = Tally::at_start(Some(&info));
        self.aim(&tally, Some(&info)).await;
        self.hand_over(&mut tally, records).await;
        Ok(tally)
    }

    /// Reads the last record again: other bytes there, or none, and the stream is not the one that was read.
    async fn resume(&mut self, tally: &mut Tally) -> Result<(), Leave> {
        let info = self.info().await?;
        tally.check(info.as_ref())?;
        if let (Some(info), Some((position, known))) = (info.as_ref(), tally.last()) {
            let mut range = redis::cmd("XRANGE");
            range.arg(&self.log.settings.key).arg(position.to_string()).arg(position.to_string());
            let query = range.query_async::<Value>(&mut self.connection);
            let reply = self.log.answer(REPLY_TIMEOUT, query).await?;
            let records = wire::entries(reply).ok_or_else(|| self.log.unreadable())?;
            match records.first() {
                Some(record) if proof(&record.payload) == known => {}
                Some(_) => return Err(RestartReason::Replaced.into()),
                None => tally.missing(info)?,
            }
        }
        self.aim(tally, info.as_ref()).await;
        Ok(())
    }

    /// Reading can begin: notes what has to be handed over before the log counts as replayed.
    async fn aim(&mut self, tally: &Tally, info: Option<&Info>) {
        let detail = format!("reading stream {} at {}", self.log.settings.key, self.log.address);
        self.log.reporter.connected(detail);
        self.target = info.filter(|info| !tally.caught_up(info)).and_then(|info| info.last_entry);
        self.out.replayed(self.target.is_none()).await;
    }

    /// Reads until it is time to ask whether the stream is still the same, and asks.
    async fn read_on(&mut self, tally: &mut Tally) -> Result<(), Leave> {
        let check_at = clock::now().instant + CHECK_EVERY;
        loop {
            let mut command = redis::cmd("XREAD");
            command.arg("COUNT").arg(self.count).arg("BLOCK").arg(BLOCK_MS).arg("STREAMS");
            command.arg(&self.log.settings.key).arg(tally.position().to_string());
            let query = command.query_async::<Value>(&mut self.connection);
            let reply = self.log.answer(REPLY_TIMEOUT, query).await?;
            let records = wire::read(reply).ok_or_else(|| self.log.unreadable())?;
            let nothing_left = records.is_empty();
            self.hand_over(tally, records).await;
            if nothing_left && self.target.take().is_some() {
                // The entry aimed at was deleted meanwhile.
                self.out.replayed(true).await;
            }
            if nothing_left || clock::now().instant >= check_at {
                break;
            }
        }
        let info = self.info().await?;
        tally.check(info.as_ref())?;
        self.report_lag(tally, info.as_ref());
        Ok(())
    }

    async fn hand_over(&mut self, tally: &mut Tally, records: Vec<Record>) {
        self.fit(&records);
        tally.read(&records);
        self.out.records(records, tally.bookmark()).await;
        if self.target.is_some_and(|target| target <= tally.position()) {
            self.target = None;
            self.out.replayed(true).await;
        }
    }

    fn report_lag(&self, tally: &Tally, info: Option<&Info>) {
        let events = info.map_or(0, |info| tally.behind(info));
        let age_ms = clock::now().unix_ms.saturating_sub(tally.position().major);
        let behind = events > 0 && tally.last().is_some();
        let seconds = if behind { Duration::from_millis(age_ms).as_secs_f64() } else { 0.0 };
        self.log.reporter.lag(Lag { events, seconds });
    }

    /// Fits the next read to the size of the last one: events may be as large as their workers like, and a batch of
    /// them must not fill the memory.
    fn fit(&mut self, records: &[Record]) {
        let bytes: usize = records.iter().map(|record| record.payload.len()).sum();
        if bytes > READ_BYTES_MAX {
            self.count = (self.count / 2).max(1);
        } else if bytes < READ_BYTES_MAX / 4 {
            self.count = (self.count * 2).min(self.log.settings.read_batch.max(1));
        }
    }

    /// `None` when there is no stream yet.
    async fn info(&mut self) -> Result<Option<Info>, Leave> {
        let key = &self.log.settings.key;
        let mut command = redis::cmd("XINFO");
        command.arg("STREAM").arg(key);
        let asked = timeout(REPLY_TIMEOUT, command.query_async::<Value>(&mut self.connection));
        match asked.await {
            Ok(Ok(reply)) => wire::info(&reply).map(Some).ok_or_else(|| self.log.unreadable()),
            Ok(Err(error)) if error.to_string().contains("no such key") => Ok(None),
            Ok(Err(error)) if error.code() == Some("WRONGTYPE") => Err(self.wrong_type().await),
            Ok(Err(error)) => Err(Leave::Trouble(self.log.trouble(&error))),
            Err(_) => Err(self.log.silent()),
        }
    }

    async fn wrong_type(&mut self) -> Leave {
        let (key, address) = (&self.log.settings.key, &self.log.address);
        let mut command = redis::cmd("TYPE");
        command.arg(key);
        let asked = timeout(REPLY_TIMEOUT, command.query_async::<String>(&mut self.connection)).await;
        let holds = asked.ok().and_then(Result::ok).unwrap_or_else(|| "something else".to_owned());
        Leave::Trouble(Trouble::Misfit(format!(
            "key {key} at {address} holds a {holds}, not a stream; rename it or choose another log key"
        )))
    }
}

impl RedisLog {
    async fn answer<T>(&self, limit: Duration, query: impl Future<Output = RedisResult<T>>) -> Result<T, Leave> {
        match timeout(limit, query).await {
            Ok(answered) => answered.map_err(|error: RedisError| Leave::Trouble(self.trouble(&error))),
            Err(_) => Err(self.silent()),
        }
    }

    fn silent(&self) -> Leave {
        Leave::Trouble(Trouble::Lost(format!("Redis at {} no longer answers", self.address)))
    }

    fn unreadable(&self) -> Leave {
        let address = &self.address;
        Leave::Trouble(Trouble::Lost(format!("{address} answers in a way that Redis does not")))
    }
}
