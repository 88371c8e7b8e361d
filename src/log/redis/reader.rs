//! Reading the stream for ever, on a connection of its own. Owns the order of questions on that connection; what the
//! answers mean is [`super::tally`]'s.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{RedisError, RedisResult, Value};
use tokio::time::timeout;

use super::{
    RedisLog,
    place::Connected,
    tally::Tally,
    tap::Foreign,
    wire::{self, Info},
    words,
};
use crate::{
    clock,
    log::{Bookmark, Record, RestartReason, backoff::Backoff, feed::Out, health::Trouble},
    metrics::Lag,
    proto::{Position, proof},
};

/// How long a read waits for something to read. Never for ever: a flush under a blocked read raises nothing. Short,
/// because an answer that is due is also the sign of life, and its absence is noticed this much later.
const BLOCK_MS: u64 = 250;
/// How often the stream is asked whether it is still the same.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Entries of the first read, before anything is known of their size.
const READ_FIRST: u16 = 8;
/// Reads are halved beyond this many bytes of events, and doubled below a quarter of it.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Events that come faster than one in this time are let gather, so that a question, an answer and all that they set in
/// motion are not paid for each of them.
const GATHER: Duration = Duration::from_millis(2);
/// An answer that is due for longer means that the log does not serve now. With [`BLOCK_MS`] it is noticed within 2 s,
/// and a Redis that is held up for a second by a long command is left in peace.
const STALL: Duration = Duration::from_millis(1_250);
/// The longest that a silent connection is waited for before another one is tried beside it.
const PATIENCE_MAX: Duration = Duration::from_secs(40);

/// When the next question may be put that follows one of `asked_at`, whose answer brought so many records of `count`.
/// `None`: now.
fn gather_until(asked_at: Instant, records: usize, count: u16, now: Instant) -> Option<Instant> {
    let until = asked_at + GATHER;
    (records < usize::from(count) && now < until).then_some(until)
}

/// Why a connection is left.
enum Leave {
    Trouble(Trouble),
    Restart(RestartReason),
    /// Another one was made while this one was silent.
    For(Box<Connected>),
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
    let mut patience = STALL;
    let mut replacement = None;
    loop {
        let connected = match replacement.take() {
            Some(connected) => Ok(connected),
            None => log.connect_to_read().await,
        };
        let trouble = match connected {
            Ok(to) => {
                let mut session = Session::new(&log, &out, to, patience);
                let left = session.run(&mut tally, &mut backoff).await;
                patience = session.patience;
                match left {
                    Err(trouble) => trouble,
                    Ok(to) => {
                        // A connection over which large answers come slowly must get its chance.
                        patience = (patience * 2).min(PATIENCE_MAX);
                        let words = format!("Redis at {} went silent; another connection to it works", to.address);
                        log.reporter.trouble(&Trouble::Lost(words));
                        replacement = Some(*to);
                        continue;
                    }
                }
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
    to: Connected,
    /// Ends when the log is no longer where this connection leads.
    moved: Pin<Box<dyn Future<Output = Trouble> + Send + 'a>>,
    /// How long an answer may be due before another connection is tried.
    patience: Duration,
    /// It was said that the log does not answer in time, and it has not done so since.
    stalled: bool,
    /// It answers in time again, and that was not said yet.
    recovered: bool,
    /// Entries to ask for.
    count: u16,
    /// The last entry that stood in the stream on connecting, while it has not been handed over.
    target: Option<Position>,
}

impl<'a> Session<'a> {
    fn new(log: &'a RedisLog, out: &'a Out, to: Connected, patience: Duration) -> Self {
        let address = to.address.clone();
        let moved = Box::pin(async move { log.place.moved(&address).await });
        let count = if patience > STALL { 1 } else { READ_FIRST };
        Self { log, out, to, moved, patience, stalled: false, recovered: false, count, target: None }
    }

    /// Asks and waits, for as long as it takes: a connection is left only for one that works. A slow answer is an
    /// answer, and whoever is paused answers where it was asked when it goes on.
    async fn ask(&mut self, command: &redis::Cmd, due: Duration) -> Result<RedisResult<Value>, Leave> {
        let mut connection = self.to.connection.clone();
        let mut asked = pin!(command.query_async::<Value>(&mut connection));
        self.wait(asked.as_mut(), due).await
    }

    async fn wait<T>(
        &mut self,
        mut asked: Pin<&mut (impl Future<Output = RedisResult<T>> + Send)>,
        due: Duration,
    ) -> Result<RedisResult<T>, Leave> {
        let log = self.log;
        let asked_at = clock::now().instant;
        let answered = tokio::select! {
            biased;
            answered = timeout(due + STALL, asked.as_mut()) => answered,
            trouble = &mut self.moved => return Err(Leave::Trouble(trouble)),
        };
        if let Ok(answered) = answered {
            // Well in time, or a Redis that is just too slow would be well and unwell in turns.
            let took = clock::now().instant.saturating_duration_since(asked_at);
            if self.stalled && took < due + STALL / 2 {
                (self.stalled, self.recovered) = (false, true);
            }
            return Ok(answered);
        }
        self.stalled = true;
        let words = format!("Redis at {} has not answered for {} ms", log.place.address(), STALL.as_millis());
        log.reporter.stalled(&words);
        let another = async {
            tokio::time::sleep(self.patience.saturating_sub(STALL)).await;
            another(log).await
        };
        tokio::select! {
            biased;
            answered = asked => Ok(answered),
            trouble = &mut self.moved => Err(Leave::Trouble(trouble)),
            another = another => Err(another.map_or_else(Leave::Trouble, |to| Leave::For(Box::new(to)))),
        }
    }

    fn detail(&self) -> String {
        format!("reading stream {} at {}", self.log.settings.key, self.log.place.address())
    }
    async fn run(&mut self, tally: &mut Option<Tally>, backoff: &mut Backoff) -> Result<Box<Connected>, Trouble> {
        loop {
            match self.follow(tally, backoff).await {
                Leave::Trouble(trouble) => return Err(trouble),
                Leave::For(to) => return Ok(to),
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
        let mut connection = self.to.connection.clone();
        let asked = pin!(both.query_async::<(Value, Value)>(&mut connection));
        let (info, entries) = self.wait(asked, Duration::ZERO).await?.map_err(|error| self.failed(&error))?;
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
            let reply = self.ask(&range, Duration::ZERO).await?.map_err(|error| self.failed(&error))?;
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
        self.log.reporter.connected(self.detail());
        self.target = info.filter(|info| !tally.caught_up(info)).and_then(|info| info.last_entry);
        self.out.replayed(self.target.is_none()).await;
    }

    /// Reads until it is time to ask whether the stream is still the same, and asks. Redis puts the next answer together
    /// while the last one is on its way to be applied.
    async fn read_on(&mut self, tally: &mut Tally) -> Result<(), Leave> {
        let check_at = clock::now().instant + CHECK_EVERY;
        let mut asked_at = clock::now().instant;
        let mut records = self.read(tally).await?;
        let nothing_left = loop {
            let (nothing_left, records_read) = (records.is_empty(), records.len());
            let handed_over = self.hand_over(tally, records);
            if nothing_left || self.recovered || clock::now().instant >= check_at {
                handed_over.await;
                break nothing_left;
            }
            let gather_until = gather_until(asked_at, records_read, self.count, clock::now().instant);
            let next = async {
                if let Some(until) = gather_until {
                    tokio::time::sleep_until(until.into()).await;
                }
                asked_at = clock::now().instant;
                self.read(tally).await
            };
            let (read, ()) = tokio::join!(next, handed_over);
            records = read?;
        };
        if self.target.take_if(|_| nothing_left).is_some() {
            // The entry aimed at was deleted meanwhile.
            self.out.replayed(true).await;
        }
        let info = self.info().await?;
        tally.check(info.as_ref())?;
        if std::mem::take(&mut self.recovered) {
            self.aim(tally, info.as_ref()).await;
        }
        self.report_lag(tally, info.as_ref());
        Ok(())
    }

    /// What stands behind the last record.
    async fn read(&mut self, tally: &Tally) -> Result<Vec<Record>, Leave> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(self.count).arg("BLOCK").arg(BLOCK_MS).arg("STREAMS");
        command.arg(&self.log.settings.key).arg(tally.position().to_string());
        let due = Duration::from_millis(BLOCK_MS);
        let tapped = self.to.tapped.clone();
        if let Some(tapped) = &tapped {
            tapped.harvest.expect();
        }
        let answered = self.ask(&command, due).await?;
        let taken = tapped.and_then(|tapped| tapped.harvest.take()).transpose();
        // Comes first: of the error that it gave, the library's words would say only "invalid data".
        let taken = taken.map_err(|Foreign| self.log.unreadable())?;
        let reply = answered.map_err(|error| self.failed(&error))?;
        let records = match taken {
            Some(records) => records,
            None => wire::read(reply).ok_or_else(|| self.log.unreadable())?,
        };
        self.patience = STALL;
        Ok(records)
    }

    /// Counts them as read at once; they are on their way when what is returned has ended.
    fn hand_over(&mut self, tally: &mut Tally, records: Vec<Record>) -> impl Future<Output = ()> + Send + use<'a> {
        self.fit(&records);
        tally.read(&records);
        let (out, bookmark) = (self.out, tally.bookmark());
        let reached = self.target.take_if(|target| *target <= tally.position()).is_some();
        async move {
            out.records(records, bookmark).await;
            if reached {
                out.replayed(true).await;
            }
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
        match self.ask(&command, Duration::ZERO).await? {
            Ok(reply) => wire::info(&reply).map(Some).ok_or_else(|| self.log.unreadable()),
            Err(error) if error.to_string().contains("no such key") => Ok(None),
            Err(error) if words::code(&error) == "WRONGTYPE" => Err(self.wrong_type().await),
            Err(error) => Err(self.failed(&error)),
        }
    }

    async fn wrong_type(&mut self) -> Leave {
        let mut command = redis::cmd("TYPE");
        command.arg(&self.log.settings.key);
        let holds = match self.ask(&command, Duration::ZERO).await {
            Ok(Ok(Value::SimpleString(name))) => name,
            Ok(_) => "something else".to_owned(),
            Err(leave) => return leave,
        };
        let (key, address) = (&self.log.settings.key, self.log.place.address());
        Leave::Trouble(Trouble::Misfit(format!(
            "key {key} at {address} holds a {holds}, not a stream; rename it or choose another log key"
        )))
    }

    fn failed(&self, error: &RedisError) -> Leave {
        Leave::Trouble(self.log.trouble(error))
    }
}

/// Another connection beside one that is silent, for as long as it takes. A Redis that is there and refuses is an
/// answer too.
async fn another(log: &RedisLog) -> Result<Connected, Trouble> {
    let mut backoff = Backoff::new(log.settings.reconnect_max);
    loop {
        match log.connect_to_read().await {
            Ok(to) => return Ok(to),
            Err(misfit @ Trouble::Misfit(_)) => return Err(misfit),
            Err(Trouble::Lost(words)) => tracing::debug!(reason = words, "no other connection to the log either"),
        }
        backoff.wait().await;
    }
}

impl RedisLog {
    fn unreadable(&self) -> Leave {
        let address = self.place.address();
        Leave::Trouble(Trouble::Lost(format!("{address} answers in a way that Redis does not")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_gather_for_a_moment_but_neither_slow_ones_nor_a_replay_wait() {
        let asked_at = clock::now().instant;
        let soon = asked_at + GATHER / 2;
        assert_eq!(gather_until(asked_at, 1, 100, soon), Some(asked_at + GATHER));
        assert_eq!(gather_until(asked_at, 99, 100, soon), Some(asked_at + GATHER));
        assert_eq!(gather_until(asked_at, 100, 100, soon), None, "a full answer: there is more");
        assert_eq!(gather_until(asked_at, 1, 100, asked_at + GATHER), None, "that long ago it asked");
    }
}
