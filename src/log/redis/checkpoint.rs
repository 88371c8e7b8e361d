//! Checkpoints in Redis: a list under the log's key and `:checkpoint`, its first element the manifest, the others the
//! chunks. It is written under a name of its own and takes the place of the last one by RENAME, so there is always a
//! whole one or none. Owns the connection, and the key by which one replica at a time writes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{Cmd, FromRedisValue, Pipeline, Value, aio::MultiplexedConnection};
use tokio::time::timeout;

use super::{RedisLog, place::Connected};
use crate::{
    clock,
    log::{
        CheckpointError, Manifest, Stored,
        checkpoint::{Assembly, CheckpointId, MANIFEST_BYTES_MAX, Parsed, SUFFIX, Unread, WRITER_SUFFIX, parse},
        health::Trouble,
    },
    proto::Corrupt,
};

/// How long nobody else may write, should this replica die meanwhile. Longer than [`crate::log::WRITE_TIMEOUT`].
const LOCK_LIFETIME: Duration = Duration::from_secs(90);
/// What was begun and never finished is gone after this long.
const UNFINISHED_LIFETIME: Duration = Duration::from_mins(10);
/// So long it is surely this replica's own, whatever the clocks of the two machines make of it.
const LOCK_HELD: Duration = Duration::from_secs(80);
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// Elements per read: about 1 MB.
const READ_ELEMENTS: u32 = 4;

pub(in crate::log) struct CheckpointStore {
    log: Arc<RedisLog>,
    connection: MultiplexedConnection,
    address: Arc<str>,
    key: String,
    writer_key: String,
    locked_at: Option<Instant>,
}

impl CheckpointStore {
    pub(in crate::log) async fn connect(log: &Arc<RedisLog>) -> Result<Self, Trouble> {
        let Connected { connection, address, .. } = log.connect().await?;
        let key = format!("{}{SUFFIX}", log.settings.key);
        let writer_key = format!("{}{WRITER_SUFFIX}", log.settings.key);
        Ok(Self { log: log.clone(), connection, address, key, writer_key, locked_at: None })
    }

    async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Trouble> {
        let (address, key) = (&self.address, &self.key);
        match timeout(REPLY_TIMEOUT, command.query_async(&mut self.connection)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) if error.code() == Some("WRONGTYPE") => Err(Trouble::Misfit(format!(
                "key {key} at {address} holds something else than a checkpoint; rename it or choose another log key"
            ))),
            Ok(Err(error)) => Err(self.log.trouble_beside(&error)),
            Err(_) => Err(Trouble::Lost(format!("Redis at {address} no longer answers"))),
        }
    }

    /// The manifest of the newest checkpoint.
    pub(in crate::log) async fn newest(&mut self) -> Result<Option<Manifest>, Unread> {
        let mut command = redis::cmd("LINDEX");
        command.arg(&self.key).arg(0);
        let Some(bytes) = self.ask::<Option<Vec<u8>>>(&command).await? else { return Ok(None) };
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(CheckpointError::from(Corrupt("a manifest is too long")).into());
        }
        match parse(&bytes)? {
            Parsed::Manifest(manifest) => Ok(Some(manifest)),
            Parsed::Chunk(_) => Err(CheckpointError::from(Corrupt("the manifest is missing")).into()),
        }
    }

    pub(in crate::log) async fn load(&mut self, max_bytes: u64) -> Result<Option<Stored>, Unread> {
        let Some(manifest) = self.newest().await? else { return Ok(None) };
        if manifest.bytes > max_bytes {
            return Err(CheckpointError::TooLarge(manifest.bytes).into());
        }
        let mut assembly = Assembly::of(manifest.id);
        let mut chunks = Vec::new();
        while assembly.chunks() < manifest.chunks {
            // The manifest is element 0.
            let first = assembly.chunks() + 1;
            let last = manifest.chunks.min(assembly.chunks().saturating_add(READ_ELEMENTS));
            let mut command = redis::cmd("LRANGE");
            command.arg(&self.key).arg(first).arg(last);
            let elements = self.ask::<Vec<Vec<u8>>>(&command).await?;
            if elements.is_empty() {
                return Err(self.gone(&manifest).await?);
            }
            for element in elements {
                match parse(&element)? {
                    Parsed::Chunk(chunk) if chunk.id == manifest.id => {
                        assembly.accept(&chunk, &manifest)?;
                        chunks.push(chunk.payload);
                    }
                    _ => return Err(self.gone(&manifest).await?),
                }
            }
        }
        assembly.verify(&manifest)?;
        Ok(Some(Stored { manifest, chunks }))
    }

    /// A chunk is not there: because a newer checkpoint is, or because it is broken.
    async fn gone(&mut self, manifest: &Manifest) -> Result<Unread, Unread> {
        let is_replaced = self.newest().await?.is_none_or(|newest| newest.id != manifest.id);
        let corrupt = CheckpointError::from(Corrupt("a chunk is missing"));
        Ok(if is_replaced { Unread::Replaced } else { corrupt.into() })
    }

    /// Keeps the others from writing. False when another does so.
    pub(in crate::log) async fn lock(&mut self) -> Result<bool, Trouble> {
        let asked_at = clock::now().instant;
        let token = clock::unique_id().simple().to_string();
        let mut command = redis::cmd("SET");
        command.arg(&self.writer_key).arg(token).arg("NX").arg("PX").arg(LOCK_LIFETIME.as_millis() as u64);
        let is_mine = self.ask::<Value>(&command).await? == Value::Okay;
        self.locked_at = is_mine.then_some(asked_at);
        Ok(is_mine)
    }

    fn unfinished_key(&self, id: CheckpointId) -> String {
        format!("{}:{:032x}", self.key, u128::from_be_bytes(id))
    }

    pub(in crate::log) async fn chunk(&mut self, id: CheckpointId, index: u32, chunk: Vec<u8>) -> Result<(), Trouble> {
        let key = self.unfinished_key(id);
        if index > 0 {
            let mut push = redis::cmd("RPUSH");
            push.arg(&key).arg(chunk);
            return self.ask::<u64>(&push).await.map(|_| ());
        }
        // At once, or what is cut short between the two would stay for ever.
        let mut begin = redis::pipe();
        begin.atomic();
        begin.cmd("RPUSH").arg(&key).arg(chunk);
        begin.cmd("PEXPIRE").arg(&key).arg(UNFINISHED_LIFETIME.as_millis() as u64);
        self.ask_all(&begin).await
    }

    /// Puts it in the place of the last one.
    pub(in crate::log) async fn finish(&mut self, manifest: &Manifest) -> Result<(), Trouble> {
        let key = self.unfinished_key(manifest.id);
        let mut all = redis::pipe();
        all.atomic();
        all.cmd("LPUSH").arg(&key).arg(manifest.encode());
        all.cmd("PERSIST").arg(&key);
        all.cmd("RENAME").arg(&key).arg(&self.key);
        self.ask_all(&all).await
    }

    async fn ask_all(&mut self, commands: &Pipeline) -> Result<(), Trouble> {
        match timeout(REPLY_TIMEOUT, commands.query_async::<()>(&mut self.connection)).await {
            Ok(done) => done.map_err(|error| self.log.trouble_beside(&error)),
            Err(_) => Err(Trouble::Lost(format!("Redis at {} no longer answers", self.address))),
        }
    }

    /// Removes what was not finished, and lets the others write. What fails here expires by itself.
    pub(in crate::log) async fn release(&mut self, id: CheckpointId) {
        let mut keys = vec![self.unfinished_key(id)];
        // Past its lifetime the lock may be somebody else's.
        let is_mine = self.locked_at.is_some_and(|at| clock::now().instant < at + LOCK_HELD);
        if is_mine {
            keys.push(self.writer_key.clone());
        }
        let mut command = redis::cmd("UNLINK");
        command.arg(keys);
        if let Err(trouble) = self.ask::<u64>(&command).await {
            tracing::debug!(reason = trouble.words(), "what a checkpoint left behind expires by itself");
        }
    }
}
