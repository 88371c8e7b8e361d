//! Checkpoints in RabbitMQ: a small stream queue under the log's name and `:checkpoint`. One checkpoint is its chunks
//! and then its manifest; the last manifest in the stream is that of the newest whole one. Retention removes the older
//! ones. Owns the connection, how the last manifest is found, and the exclusive queue by which one replica at a time
//! writes: it is gone with the connection.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Confirmation, ErrorKind, PublisherConfirm,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::timeout;

use super::{AmqpLog, declare, end, link::Link};
use crate::log::{
    CheckpointError, CheckpointSettings, Manifest, Stored,
    checkpoint::{Assembly, Parsed, SUFFIX, Unread, WRITER_SUFFIX, parse},
    health::Trouble,
};

/// Deliveries of chunks that are not acknowledged yet: about 4 MB.
const PREFETCH: u16 = 16;
/// A queue that exists has something in it; this is for a broker that is busy starting.
const FIRST_DELIVERY: Duration = Duration::from_secs(5);
/// No further delivery for this long: that was the end.
const SILENCE: Duration = Duration::from_millis(100);
/// The next chunk of a checkpoint is known to be there.
const NEXT_CHUNK: Duration = Duration::from_secs(10);
/// So many unfinished checkpoints behind one another are stepped over.
const UNFINISHED_MAX: usize = 8;
/// Offsets that the broker keeps for itself: so many at least, and one more for so many of ours.
const HOLES_MIN: u64 = 16;
const MESSAGES_PER_HOLE: u64 = 16;
/// The queue holds so many of the largest, and two segments of the smallest size.
const CHECKPOINTS_KEPT: u64 = 3;
const SEGMENTS_MIN_BYTES: u64 = 2_000_000;
/// Unconfirmed chunks at most.
const IN_FLIGHT_MAX: usize = 8;
const PERSISTENT: u8 = 2;

/// Where a stream is read from, at the latest.
fn some_before(offset: u64, messages: u64) -> u64 {
    offset.saturating_sub(messages + HOLES_MIN + messages / MESSAGES_PER_HOLE)
}

pub(in crate::log) struct CheckpointStore {
    log: Arc<AmqpLog>,
    link: Link,
    queue: ShortString,
    writer_queue: ShortString,
    max_bytes: u64,
    /// Of the one who writes, in confirm mode.
    channel: Option<Channel>,
    in_flight: Vec<PublisherConfirm>,
}

impl CheckpointStore {
    pub(in crate::log) async fn connect(log: &Arc<AmqpLog>, settings: &CheckpointSettings) -> Result<Self, Trouble> {
        let name = |suffix: &str| {
            ShortString::try_new(format!("{}{suffix}", log.queue))
                .map_err(|_| Trouble::Misfit("the log's key is too long for the name of its checkpoints".to_owned()))
        };
        let (queue, writer_queue) = (name(SUFFIX)?, name(WRITER_SUFFIX)?);
        let link = log.connect().await?;
        let max_bytes = settings.max_bytes;
        Ok(Self { log: log.clone(), link, queue, writer_queue, max_bytes, channel: None, in_flight: Vec::new() })
    }

    fn lost(&self, error: &lapin::Error) -> Trouble {
        self.link.trouble(error)
    }

    async fn channel(&self) -> Result<Channel, Trouble> {
        self.link.channel().await
    }

    async fn exists(&self) -> Result<bool, Trouble> {
        let channel = self.channel().await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match channel.queue_declare(self.queue.clone(), passive, FieldTable::default()).await {
            Ok(_) => Ok(true),
            Err(error) if refusal(&error) == Some(404) => Ok(false),
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// Hands every message from there on to `take`, with its offset, until that says stop or nothing comes.
    async fn read(
        &self,
        from: AMQPValue,
        silence: Duration,
        mut take: impl FnMut(u64, &[u8]) -> Result<bool, Unread>,
    ) -> Result<(), Unread> {
        let channel = self.channel().await?;
        let lost = |error: lapin::Error| self.lost(&error);
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(lost)?;
        let options = BasicConsumeOptions::default();
        let consuming = channel.basic_consume(self.queue.clone(), "".into(), options, end::consume_from(from));
        let mut consumer = consuming.await.map_err(lost)?;
        let mut patience = FIRST_DELIVERY;
        while let Ok(delivery) = timeout(patience, consumer.next()).await {
            let delivery = delivery.ok_or_else(|| end::cancelled(&self.queue, &self.link))?.map_err(lost)?;
            let Some(offset) = end::offset(&delivery) else {
                let words = format!("queue {} at {} is not a stream queue", self.queue, self.link.address);
                return Err(Trouble::Misfit(words).into());
            };
            channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await.map_err(lost)?;
            if !take(offset, &delivery.data)? {
                break;
            }
            patience = silence;
        }
        // A channel that fails to close is gone with its connection.
        let _ = channel.close(200, "".into()).await;
        Ok(())
    }

    /// The manifest of the newest whole checkpoint, and its offset. What is unfinished or foreign behind it is stepped
    /// over.
    async fn last_manifest(&self) -> Result<Option<(u64, Manifest)>, Unread> {
        let mut from = AMQPValue::LongString("last".into());
        let mut before = u64::MAX;
        let mut useless = None;
        for _ in 0..UNFINISHED_MAX {
            let mut found = None;
            let mut first = None;
            self.read(from, SILENCE, |offset, bytes| {
                if offset >= before {
                    return Ok(false);
                }
                match parse(bytes) {
                    Ok(Parsed::Manifest(manifest)) => found = Some((offset, manifest)),
                    Ok(Parsed::Chunk(chunk)) => first = first.or(Some((offset, chunk.index))),
                    // A later version knows best which of its checkpoints is whole.
                    Err(error @ CheckpointError::Newer(_)) => return Err(error.into()),
                    Err(error) => {
                        first = first.or(Some((offset, 0)));
                        useless = Some(error);
                    }
                }
                Ok(true)
            })
            .await?;
            if let Some((offset, manifest)) = found {
                return Ok(Some((offset, manifest)));
            }
            // In front of the first chunk of an unfinished one stands the manifest of the one before.
            let Some((offset, index)) = first else { break };
            before = offset.saturating_sub(u64::from(index));
            if before == 0 {
                break;
            }
            from = offset_value(some_before(before, 0));
        }
        useless.map_or(Ok(None), |error| Err(error.into()))
    }

    pub(in crate::log) async fn newest(&mut self) -> Result<Option<Manifest>, Unread> {
        if !self.exists().await? {
            return Ok(None);
        }
        Ok(self.last_manifest().await?.map(|(_, manifest)| manifest))
    }

    pub(in crate::log) async fn load(&mut self, max_bytes: u64) -> Result<Option<Stored>, Unread> {
        if !self.exists().await? {
            return Ok(None);
        }
        let Some((end, manifest)) = self.last_manifest().await? else { return Ok(None) };
        if manifest.bytes > max_bytes {
            return Err(CheckpointError::TooLarge(manifest.bytes).into());
        }
        let mut assembly = Assembly::of(manifest.id);
        let mut chunks = Vec::new();
        let from = offset_value(some_before(end, u64::from(manifest.chunks)));
        self.read(from, NEXT_CHUNK, |offset, bytes| {
            if offset >= end {
                return Ok(false);
            }
            // Those before it may be anything, and broken.
            if let Ok(Parsed::Chunk(chunk)) = parse(bytes)
                && chunk.id == manifest.id
            {
                assembly.accept(&chunk, &manifest)?;
                chunks.push(chunk.payload);
            }
            Ok(assembly.chunks() < manifest.chunks)
        })
        .await?;
        assembly.verify(&manifest)?;
        Ok(Some(Stored { manifest, chunks }))
    }

    /// Keeps the others from writing. False when another does so.
    pub(in crate::log) async fn lock(&mut self) -> Result<bool, Trouble> {
        let channel = self.channel().await?;
        let exclusive = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        match channel.queue_declare(self.writer_queue.clone(), exclusive, FieldTable::default()).await {
            Ok(_) => Ok(true),
            Err(error) if refusal(&error) == Some(405) => Ok(false),
            Err(error) => Err(self.lost(&error)),
        }
    }

    pub(in crate::log) async fn chunk(&mut self, chunk: Vec<u8>) -> Result<(), Trouble> {
        self.publish(&chunk).await?;
        if self.in_flight.len() >= IN_FLIGHT_MAX { self.confirmed().await } else { Ok(()) }
    }

    pub(in crate::log) async fn finish(&mut self, manifest: &Manifest) -> Result<(), Trouble> {
        // All chunks are in the stream before anything says that they are.
        self.confirmed().await?;
        self.publish(&manifest.encode()).await?;
        self.confirmed().await
    }

    pub(in crate::log) async fn release(&mut self) {
        self.link.close().await;
    }

    async fn publish(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        if self.channel.is_none() {
            // Retention goes by segments, and must leave the newest whole one while the next is written.
            let bytes = self.max_bytes.saturating_mul(CHECKPOINTS_KEPT).saturating_add(SEGMENTS_MIN_BYTES);
            let arguments = declare::stream_arguments(bytes);
            let channel = declare::declare_queue(&self.log, &self.queue, arguments, &self.link).await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|error| self.lost(&error))?;
            self.channel = Some(channel);
        }
        let Some(channel) = &self.channel else { return Ok(()) };
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        // The default exchange leads to the queue of the key's name, whatever is bound to the log's.
        let publishing = channel.basic_publish("".into(), self.queue.clone(), options, bytes, properties);
        let confirm = publishing.await.map_err(|error| self.lost(&error))?;
        self.in_flight.push(confirm);
        Ok(())
    }

    async fn confirmed(&mut self) -> Result<(), Trouble> {
        for confirm in std::mem::take(&mut self.in_flight) {
            match confirm.await {
                Ok(Confirmation::Ack(None)) => {}
                Ok(_) => {
                    let words = format!("RabbitMQ at {} did not store a part of a checkpoint", self.link.address);
                    return Err(Trouble::Lost(words));
                }
                Err(error) => return Err(self.lost(&error)),
            }
        }
        Ok(())
    }
}

fn offset_value(offset: u64) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX))
}

/// The number of the broker's refusal.
fn refusal(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(said) => Some(said.get_id()),
        _ => None,
    }
}
