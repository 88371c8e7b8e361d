//! Dead letters in Redis: a bounded stream beside the log, `<log key>:dead-letters`, in which each stands under its own
//! position in the log. So setting aside is atomic without a lock: an id at or below the last one ever given is refused,
//! which means that a replica was here before. The last id is the watermark, and stays when entries are deleted.
//!
//! Where the log was replaced by one whose positions are lower, the dead letters of the one before are moved to
//! `<log key>:dead-letters:previous`, in place of those that were there.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, Value, aio::MultiplexedConnection};
use tokio::time::timeout;

use super::{RedisLog, wire};
use crate::{
    log::dead_letters::{DeadLetter, Fields, SUFFIX, ascending, newest},
    log::health::Trouble,
    proto::{Position, proof},
};

const PAYLOAD: &str = "payload";
const PREVIOUS: &str = ":previous";
/// One answer takes less, and setting aside altogether, unless Redis is gone. A listing may take as long as it takes: an
/// operator's way to Redis may be a slow one.
const PATIENCE: Duration = Duration::from_secs(15);
/// Letters per read or removal: at their longest they are a few megabytes together.
const PAGE: usize = 64;
/// How often another replica may come first while another log's letters are moved away.
const ATTEMPTS_MAX: usize = 5;
/// Rounds of trimming until the letters fit into their bytes.
const TRIMS_MAX: usize = 8;

impl RedisLog {
    /// In the order of the log. Gives the watermark.
    pub(in crate::log) async fn set_aside(&self, letters: &[DeadLetter]) -> Result<Position, String> {
        self.patiently(async {
            let mut desk = Desk::open(self).await?;
            let mut rest = letters;
            let mut watermark = Position::START;
            while !rest.is_empty() {
                let (now, later) = rest.split_at(ascending(rest));
                watermark = desk.set_aside(now).await?;
                rest = later;
            }
            if desk.has_added {
                desk.fit().await?;
            }
            Ok(watermark)
        })
        .await
    }

    /// The newest ones, oldest first.
    pub(in crate::log) async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, String> {
        let work = async {
            let mut desk = Desk::open(self).await?;
            let mut letters = Vec::new();
            for key in [desk.previous.clone(), desk.key.clone()] {
                letters.extend(desk.newest(&key, limit).await?);
            }
            Ok(newest(letters, limit))
        };
        work.await.map_err(|trouble: Trouble| trouble.words().to_owned())
    }

    pub(in crate::log) async fn remove_dead_letters(&self, letters: &[DeadLetter]) -> Result<(), String> {
        let work = async {
            let mut desk = Desk::open(self).await?;
            for page in letters.chunks(PAGE) {
                desk.remove(page).await?;
            }
            Ok(())
        };
        work.await.map_err(|trouble: Trouble| trouble.words().to_owned())
    }

    async fn patiently<T>(&self, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, String> {
        match timeout(PATIENCE, work).await {
            Ok(done) => done.map_err(|trouble| trouble.words().to_owned()),
            Err(_) => Err(self.late().words().to_owned()),
        }
    }

    fn late(&self) -> Trouble {
        Trouble::Lost(format!("Redis at {} does not answer in time", self.place.address()))
    }
}

/// A connection of its own: WATCH is a connection's.
struct Desk<'a> {
    log: &'a RedisLog,
    connection: MultiplexedConnection,
    key: String,
    previous: String,
    has_added: bool,
}

impl<'a> Desk<'a> {
    async fn open(log: &'a RedisLog) -> Result<Self, Trouble> {
        let key = format!("{}{SUFFIX}", log.settings.key);
        Ok(Self {
            log,
            connection: log.connect().await?.connection,
            previous: format!("{key}{PREVIOUS}"),
            key,
            has_added: false,
        })
    }

    /// Ascending ones.
    async fn set_aside(&mut self, letters: &[DeadLetter]) -> Result<Position, Trouble> {
        let (Some(first), Some(last)) = (letters.first(), letters.last()) else { return Ok(Position::START) };
        let mut top = self.last_generated(&self.key.clone()).await?.unwrap_or_default();
        let mut attempts = 0;
        while first.position <= top && !self.is_of_this_log(top).await? {
            if attempts == ATTEMPTS_MAX {
                return Err(Trouble::Lost(format!("{} changes all the time", self.key)));
            }
            attempts += 1;
            self.move_away(top).await?;
            top = self.last_generated(&self.key.clone()).await?.unwrap_or_default();
        }
        let mut batch = redis::pipe();
        let missing: Vec<&DeadLetter> = letters.iter().filter(|letter| letter.position > top).collect();
        for letter in &missing {
            batch.add_command(self.xadd(letter));
        }
        if !missing.is_empty() {
            let answers: Vec<RedisResult<Value>> = self.query_all(batch.ignore_errors()).await?;
            for (letter, answer) in missing.iter().zip(answers) {
                match answer {
                    Ok(_) => {
                        self.has_added = true;
                        self.log.metrics().dead_letter_set_aside(&letter.reason);
                    }
                    // Another replica came first.
                    Err(error) if error.to_string().contains("equal or smaller") => {}
                    Err(error) => return Err(self.trouble(&error)),
                }
            }
        }
        Ok(top.max(last.position))
    }

    fn xadd(&self, letter: &DeadLetter) -> Cmd {
        let mut command = redis::cmd("XADD");
        command.arg(&self.key).arg("MAXLEN").arg("~").arg(self.log.settings.dead_letters_max);
        command.arg(letter.position.to_string());
        for (name, value) in letter.fields() {
            command.arg(name).arg(value);
        }
        command.arg(PAYLOAD).arg(letter.payload.as_ref());
        command
    }

    /// Whether the letters up to `top` are this log's: the bytes at the last of them say so, or, where they were
    /// deleted, that the log reaches so far.
    async fn is_of_this_log(&mut self, top: Position) -> Result<bool, Trouble> {
        if let Some(last) = self.newest(&self.key.clone(), 1).await?.pop() {
            let mut range = redis::cmd("XRANGE");
            range.arg(&self.log.settings.key).arg(last.position.to_string()).arg(last.position.to_string());
            let there = self.query(&range).await?;
            if let Some(record) = wire::entries(there).unwrap_or_default().first() {
                return Ok(proof(&record.payload) == last.proof);
            }
        }
        Ok(self.last_generated(&self.log.settings.key).await?.is_some_and(|end| top <= end))
    }

    /// Unless another replica changes them first.
    async fn move_away(&mut self, top: Position) -> Result<(), Trouble> {
        let _: Value = self.query(redis::cmd("WATCH").arg(&self.key)).await?;
        if self.last_generated(&self.key.clone()).await? != Some(top) {
            let _: Value = self.query(&redis::cmd("UNWATCH")).await?;
            return Ok(());
        }
        let mut rename = redis::pipe();
        rename.atomic().cmd("RENAME").arg(&self.key).arg(&self.previous);
        let renamed: Value = self.query_all(&rename).await?;
        if renamed != Value::Nil {
            tracing::warn!(
                from = self.key,
                to = self.previous,
                "the log was replaced: the dead letters of the one before are moved"
            );
        }
        Ok(())
    }

    /// `None` when there is no stream.
    async fn last_generated(&mut self, key: &str) -> Result<Option<Position>, Trouble> {
        let mut command = redis::cmd("XINFO");
        command.arg("STREAM").arg(key);
        match command.query_async::<Value>(&mut self.connection).await {
            Ok(reply) => Ok(wire::info(&reply).map(|info| info.last_generated)),
            Err(error) if error.to_string().contains("no such key") => Ok(None),
            Err(error) if error.code() == Some("WRONGTYPE") => Err(Trouble::Misfit(format!(
                "key {key} at {} holds something else, not a stream; rename it",
                self.log.place.address()
            ))),
            Err(error) => Err(self.trouble(&error)),
        }
    }

    /// Redis counts entries; that they are few bytes too is seen to here. Without the right to ask for the bytes, the
    /// count is all that holds.
    async fn fit(&mut self) -> Result<(), Trouble> {
        let max_bytes = self.log.settings.dead_letters_max_bytes;
        for _ in 0..TRIMS_MAX {
            let mut usage = redis::cmd("MEMORY");
            usage.arg("USAGE").arg(&self.key).arg("SAMPLES").arg(0);
            let used = match usage.query_async::<Option<u64>>(&mut self.connection).await {
                Ok(used) => used.unwrap_or(0),
                Err(error) if error.code() == Some("NOPERM") => {
                    tracing::debug!("Redis does not tell how much memory the dead letters take");
                    return Ok(());
                }
                Err(error) => return Err(self.trouble(&error)),
            };
            if used <= max_bytes {
                return Ok(());
            }
            let length: u64 = self.query(redis::cmd("XLEN").arg(&self.key)).await?;
            // A little more than needed, or the next letter would need it again.
            let keep = u128::from(length) * u128::from(max_bytes) * 9 / (u128::from(used) * 10);
            let keep = u64::try_from(keep).unwrap_or(length).min(length.saturating_sub(1));
            let _: Value = self.query(redis::cmd("XTRIM").arg(&self.key).arg("MAXLEN").arg(keep)).await?;
        }
        Ok(())
    }

    async fn newest(&mut self, key: &str, limit: usize) -> Result<Vec<DeadLetter>, Trouble> {
        let mut letters = Vec::new();
        let mut below = "+".to_owned();
        while letters.len() < limit {
            let mut range = redis::cmd("XREVRANGE");
            range.arg(key).arg(&below).arg("-").arg("COUNT").arg(PAGE.min(limit));
            let Value::Array(entries) = self.query::<Value>(&range).await? else { break };
            let Some(lowest) = entries.last().and_then(id) else { break };
            // Exclusively below it, as Redis 6.2 and later have it.
            below = format!("({lowest}");
            letters.extend(entries.into_iter().filter_map(letter));
        }
        letters.truncate(limit);
        letters.reverse();
        Ok(letters)
    }

    /// In a few turns, however many they are: each turn waits for the network.
    async fn remove(&mut self, letters: &[DeadLetter]) -> Result<(), Trouble> {
        for key in [self.key.clone(), self.previous.clone()] {
            let mut ranges = redis::pipe();
            for letter in letters {
                let id = letter.position.to_string();
                ranges.cmd("XRANGE").arg(&key).arg(&id).arg(&id);
            }
            let there: Vec<Value> = self.query_all(&ranges).await?;
            let is_there = |(wanted, entries): (&DeadLetter, Value)| {
                let Value::Array(entries) = entries else { return None };
                let found = entries.into_iter().filter_map(letter).any(|found| found.proof == wanted.proof);
                found.then(|| wanted.position.to_string())
            };
            let ids: Vec<String> = letters.iter().zip(there).filter_map(is_there).collect();
            if !ids.is_empty() {
                let _: Value = self.query(redis::cmd("XDEL").arg(&key).arg(ids)).await?;
            }
        }
        Ok(())
    }

    async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Trouble> {
        match timeout(PATIENCE, command.query_async(&mut self.connection)).await {
            Ok(answer) => answer.map_err(|error| self.trouble(&error)),
            Err(_) => Err(self.log.late()),
        }
    }

    async fn query_all<T: FromRedisValue>(&mut self, commands: &Pipeline) -> Result<T, Trouble> {
        match timeout(PATIENCE, commands.query_async(&mut self.connection)).await {
            Ok(answer) => answer.map_err(|error| self.trouble(&error)),
            Err(_) => Err(self.log.late()),
        }
    }

    fn trouble(&self, error: &redis::RedisError) -> Trouble {
        if error.code() == Some("WRONGTYPE") {
            let (key, address) = (&self.key, self.log.place.address());
            return Trouble::Misfit(format!("key {key} at {address} holds something else, not a stream; rename it"));
        }
        self.log.trouble_beside(error)
    }
}

fn id(entry: &Value) -> Option<Position> {
    match entry {
        Value::Array(parts) => wire::position(parts.first()?),
        _ => None,
    }
}

/// `None` for what somebody else wrote into the stream.
fn letter(entry: Value) -> Option<DeadLetter> {
    let Value::Array(parts) = entry else { return None };
    let Some(Value::Array(pairs)) = parts.into_iter().nth(1) else { return None };
    let mut texts = Vec::with_capacity(pairs.len());
    for value in pairs {
        let Value::BulkString(bytes) = value else { return None };
        texts.push(bytes);
    }
    let payload = texts.chunks_exact_mut(2).find(|pair| pair[0] == PAYLOAD.as_bytes());
    let payload = payload.map(|pair| Bytes::from(std::mem::take(&mut pair[1]))).unwrap_or_default();
    let fields = texts.chunks_exact(2).map(|pair| (pair[0].as_slice(), pair[1].as_slice())).collect();
    DeadLetter::read(&Fields(fields), payload)
}
