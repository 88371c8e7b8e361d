//! Dead letters in RabbitMQ: a bounded stream queue beside the log, `<log key>:dead-letters`. AMQP 0.9.1 cannot append
//! on a condition, so who writes holds a lock, an exclusive queue that goes with its connection; reads the last entry,
//! whose watermark says how far everybody has come; and appends what lies behind it. Nothing can be deleted from a
//! stream: what an operator removed is noted by an entry of its own, which carries the watermark on.

use std::{collections::HashSet, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Confirmation, ErrorKind,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions},
    options::{QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::timeout;

use super::{
    AmqpLog, declare,
    end::{self, End},
    link::Link,
};
use crate::{
    log::backoff::Backoff,
    log::dead_letters::{DeadLetter, Fields, SUFFIX, Watermark, ascending, newest},
    log::health::Trouble,
    proto::{Position, proof},
};

/// What is appended to the name of the dead letters for that of the lock.
const LOCK_SUFFIX: &str = ":writer";
const REMOVED_POSITION: &str = "removed_position";
const REMOVED_PROOF: &str = "removed_proof";
const PERSISTENT: u8 = 2;
const PREFETCH: u16 = 100;
/// A record that is known to be there comes within this.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(15);
/// Everything that one call asks of RabbitMQ takes less, unless it is gone or another replica keeps the lock.
const PATIENCE: Duration = Duration::from_secs(60);
/// A broker that has just started, or is busy, fails once or twice.
const ATTEMPTS_MAX: usize = 3;
/// The longest wait between two attempts to take the lock.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(1);

/// The names of the dead letters and of their lock.
pub(super) fn names(key: &str) -> Result<(ShortString, ShortString), String> {
    let letters = format!("{key}{SUFFIX}");
    let lock = format!("{letters}{LOCK_SUFFIX}");
    match (ShortString::try_new(letters), ShortString::try_new(&*lock)) {
        (Ok(letters), Ok(lock)) => Ok((letters, lock)),
        _ => Err(format!(
            "log.key is too long for the queue {lock} beside it: shorten it by {} bytes, or set log.dead_letters_max = 0",
            lock.len() - 255
        )),
    }
}

impl AmqpLog {
    /// In the order of the log. Gives the watermark.
    pub(in crate::log) async fn set_aside(&self, letters: &[DeadLetter]) -> Result<Position, String> {
        self.patiently(|| self.try_set_aside(letters)).await
    }

    async fn try_set_aside(&self, letters: &[DeadLetter]) -> Result<Position, Trouble> {
        let desk = Desk::open(self).await?;
        let lock = desk.lock().await?;
        let mut watermark = desk.watermark().await?;
        let mut rest = letters;
        while let Some(first) = rest.first() {
            let (now, later) = rest.split_at(ascending(rest));
            if let Some(reached) = watermark
                && first.position <= reached.position
                && !desk.is_of_this_log(reached).await?
            {
                watermark = None;
            }
            desk.append(now, &mut watermark).await?;
            rest = later;
        }
        desk.close(lock).await;
        Ok(watermark.map_or(Position::START, |watermark| watermark.position))
    }

    /// The newest ones, oldest first.
    pub(in crate::log) async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, String> {
        self.patiently(|| self.try_dead_letters(limit)).await
    }

    async fn try_dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, Trouble> {
        let desk = Desk::open(self).await?;
        Ok(newest(desk.read_all().await?.letters, limit))
    }

    pub(in crate::log) async fn remove_dead_letters(&self, letters: &[DeadLetter]) -> Result<(), String> {
        self.patiently(|| self.try_remove_dead_letters(letters)).await
    }

    async fn try_remove_dead_letters(&self, letters: &[DeadLetter]) -> Result<(), Trouble> {
        let desk = Desk::open(self).await?;
        let lock = desk.lock().await?;
        if let Some(watermark) = desk.watermark().await? {
            let marks: Vec<_> = letters.iter().map(|letter| (removal(watermark, letter), Bytes::new())).collect();
            desk.publish(&marks, |_| {}).await?;
        }
        desk.close(lock).await;
        Ok(())
    }

    /// Tries again what a busy broker did not do, since each of these can be done twice.
    async fn patiently<T, Work>(&self, work: impl Fn() -> Work) -> Result<T, String>
    where
        Work: Future<Output = Result<T, Trouble>>,
    {
        let mut why = None;
        let attempts = async {
            let mut backoff = Backoff::new(self.settings.reconnect_max);
            for _ in 1..ATTEMPTS_MAX {
                match work().await {
                    Err(Trouble::Lost(words)) => why = Some(words),
                    done => return done,
                }
                backoff.wait().await;
            }
            work().await
        };
        match timeout(PATIENCE, attempts).await {
            Ok(done) => done.map_err(|trouble| trouble.words().to_owned()),
            Err(_) => Err(why.unwrap_or_else(|| {
                format!(
                    "RabbitMQ at {} does not answer in time, or another replica keeps its lock",
                    self.nodes[0].address
                )
            })),
        }
    }
}

type Content = Vec<(&'static str, String)>;

fn removal(watermark: Watermark, letter: &DeadLetter) -> Content {
    let mut fields = watermark.fields();
    fields.push((REMOVED_POSITION, letter.position.to_string()));
    fields.push((REMOVED_PROOF, format!("{:08x}", letter.proof)));
    fields
}

/// What one entry of the stream says; nothing at all when a stranger wrote it.
struct Entry {
    watermark: Option<Watermark>,
    letter: Option<DeadLetter>,
    removed: Option<(Position, u32)>,
}

impl Entry {
    fn read(delivery: Delivery) -> Self {
        let headers = delivery.properties.headers().as_ref();
        let texts = headers.into_iter().flat_map(FieldTable::inner).filter_map(|(name, value)| match value {
            AMQPValue::LongString(text) => Some((name.as_str().as_bytes(), text.as_bytes())),
            _ => None,
        });
        let fields = Fields(texts.collect());
        let removed = fields.text(REMOVED_POSITION).and_then(|position| position.parse().ok());
        let proof = fields.text(REMOVED_PROOF).and_then(|proof| u32::from_str_radix(proof, 16).ok());
        Self {
            watermark: Watermark::read(&fields),
            removed: removed.zip(proof),
            letter: DeadLetter::read(&fields, Bytes::from(delivery.data)),
        }
    }
}

#[derive(Default)]
struct Everything {
    watermark: Option<Watermark>,
    /// Without those that were removed.
    letters: Vec<DeadLetter>,
}

/// A connection of its own, which holds the lock.
struct Desk<'a> {
    log: &'a AmqpLog,
    link: Link,
    queue: ShortString,
    lock: ShortString,
}

impl<'a> Desk<'a> {
    async fn open(log: &'a AmqpLog) -> Result<Self, Trouble> {
        let (queue, lock) = names(&log.settings.key).map_err(Trouble::Misfit)?;
        let desk = Self { log, link: log.dial().await?, queue, lock };
        desk.declare().await?;
        Ok(desk)
    }

    /// Once it is known to be a stream, it is enough that it is there: a queue with other arguments than configured is
    /// asked for many times until they are found.
    async fn declare(&self) -> Result<(), Trouble> {
        let declared = &self.log.dead_letters_declared;
        if declared.load(Ordering::Relaxed) {
            let channel = self.channel().await?;
            let options = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
            if channel.queue_declare(self.queue.clone(), options, FieldTable::default()).await.is_ok() {
                let _ = channel.close(200, "".into()).await;
                return Ok(());
            }
        }
        let arguments = declare::stream_arguments(self.log.settings.dead_letters_max_bytes);
        let channel = declare::declare_queue(self.log, &self.queue, arguments, &self.link).await?;
        declared.store(true, Ordering::Relaxed);
        // A channel that fails to close is gone with its connection.
        let _ = channel.close(200, "".into()).await;
        Ok(())
    }

    async fn channel(&self) -> Result<Channel, Trouble> {
        self.link.channel().await
    }

    /// Waits for as long as another replica writes.
    async fn lock(&self) -> Result<Channel, Trouble> {
        let mut backoff = Backoff::new(LOCK_WAIT_MAX);
        loop {
            // A refusal closes the channel.
            let channel = self.channel().await?;
            let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
            let Err(error) = channel.queue_declare(self.lock.clone(), options, FieldTable::default()).await else {
                return Ok(channel);
            };
            match error.kind() {
                ErrorKind::ProtocolError(said) if said.get_id() == 405 => backoff.wait().await,
                _ => return Err(self.link.trouble(&error)),
            }
        }
    }

    async fn close(self, lock: Channel) {
        // Where this fails, the lock goes with the connection.
        let _ = lock.queue_delete(self.lock.clone(), QueueDeleteOptions::default()).await;
    }

    /// How far everybody has come.
    async fn watermark(&self) -> Result<Option<Watermark>, Trouble> {
        match end::find(&self.queue, &self.link).await? {
            End::Empty => Ok(None),
            End::Beyond(_) => Err(Trouble::Lost(format!("somebody else writes to queue {} all the time", self.queue))),
            End::At(offset) => match Entry::read(self.fetch(&self.queue, offset).await?).watermark {
                // What the last letter stands behind was written by a stranger.
                None => Ok(self.read_all().await?.watermark),
                watermark => Ok(watermark),
            },
        }
    }

    /// Whether the dead letters are this log's: the bytes at the last of them say so. What was trimmed lies before
    /// everything that can still be read.
    async fn is_of_this_log(&self, reached: Watermark) -> Result<bool, Trouble> {
        let Some(offset) = reached.position.major.checked_sub(1) else { return Ok(false) };
        match end::find(&self.log.queue, &self.link).await? {
            End::Empty => return Ok(false),
            End::At(end) if end < offset => return Ok(false),
            End::At(_) | End::Beyond(_) => {}
        }
        let delivery = self.fetch(&self.log.queue, offset).await?;
        Ok(end::offset(&delivery) != Some(offset) || proof(&delivery.data) == reached.proof)
    }

    /// The record at `offset`, or the first behind it.
    async fn fetch(&self, queue: &ShortString, offset: u64) -> Result<Delivery, Trouble> {
        let from = AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX));
        let mut found = None;
        self.consume(queue, from, |delivery| {
            found = Some(delivery);
            true
        })
        .await?;
        found.ok_or_else(|| end::cancelled(queue, &self.link))
    }

    async fn read_all(&self) -> Result<Everything, Trouble> {
        let (End::At(last) | End::Beyond(last)) = end::find(&self.queue, &self.link).await? else {
            return Ok(Everything::default());
        };
        let mut everything = Everything::default();
        let mut removed = HashSet::new();
        self.consume(&self.queue, AMQPValue::LongString("first".into()), |delivery| {
            let is_last = end::offset(&delivery).is_none_or(|offset| offset >= last);
            let entry = Entry::read(delivery);
            everything.watermark = entry.watermark.or(everything.watermark);
            everything.letters.extend(entry.letter);
            removed.extend(entry.removed);
            is_last
        })
        .await?;
        everything.letters.retain(|letter| !removed.contains(&(letter.position, letter.proof)));
        Ok(everything)
    }

    /// Until `take` has seen enough.
    async fn consume(
        &self,
        queue: &ShortString,
        from: AMQPValue,
        mut take: impl FnMut(Delivery) -> bool,
    ) -> Result<(), Trouble> {
        let trouble = |error: lapin::Error| self.link.trouble(&error);
        let channel = self.channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(trouble)?;
        let from = end::consume_from(from);
        let mut consumer = channel
            .basic_consume(queue.clone(), "".into(), BasicConsumeOptions::default(), from)
            .await
            .map_err(trouble)?;
        loop {
            let Ok(delivery) = timeout(DELIVERY_PATIENCE, consumer.next()).await else {
                let words = format!("RabbitMQ at {} delivers nothing from {queue}", self.link.address);
                return Err(Trouble::Lost(words));
            };
            let delivery = delivery.ok_or_else(|| end::cancelled(queue, &self.link))?.map_err(trouble)?;
            let tag = delivery.delivery_tag;
            if take(delivery) {
                break;
            }
            channel.basic_ack(tag, BasicAckOptions::default()).await.map_err(trouble)?;
        }
        // A channel that fails to close is gone with its connection.
        let _ = channel.close(200, "".into()).await;
        Ok(())
    }

    /// Ascending ones. Moves the watermark with what is confirmed.
    async fn append(&self, letters: &[DeadLetter], watermark: &mut Option<Watermark>) -> Result<(), Trouble> {
        let reached = watermark.map(|watermark| watermark.position);
        let missing: Vec<&DeadLetter> = letters.iter().filter(|letter| Some(letter.position) > reached).collect();
        let contents: Vec<_> = missing.iter().map(|letter| (letter.fields(), letter.payload.clone())).collect();
        self.publish(&contents, |at| {
            self.log.metrics().dead_letter_set_aside(&missing[at].reason);
            *watermark = Some(missing[at].watermark());
        })
        .await
    }

    /// In order; `confirmed` is told of each.
    async fn publish(&self, contents: &[(Content, Bytes)], mut confirmed: impl FnMut(usize)) -> Result<(), Trouble> {
        let trouble = |error: lapin::Error| self.link.trouble(&error);
        let channel = self.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(trouble)?;
        let mut in_flight = Vec::with_capacity(contents.len());
        for (fields, payload) in contents {
            let mut headers = FieldTable::default();
            for (name, value) in fields {
                headers.insert((*name).into(), AMQPValue::LongString(value.as_str().into()));
            }
            let properties = BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(headers);
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            // The default exchange brings it to the queue of that name.
            let sent = channel.basic_publish("".into(), self.queue.clone(), options, payload, properties).await;
            in_flight.push(sent.map_err(trouble)?);
        }
        for (at, confirm) in in_flight.into_iter().enumerate() {
            if !matches!(confirm.await.map_err(trouble)?, Confirmation::Ack(None)) {
                let words = format!("RabbitMQ at {} could not store it in {}", self.link.address, self.queue);
                return Err(Trouble::Lost(words));
            }
            confirmed(at);
        }
        let _ = channel.close(200, "".into()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_leaves_no_room_for_the_names_beside_it_is_refused_with_how_much_is_too_much() {
        let (letters, lock) = names("taskcast:events").unwrap();
        assert_eq!(letters.as_str(), "taskcast:events:dead-letters");
        assert_eq!(lock.as_str(), "taskcast:events:dead-letters:writer");
        assert!(names(&"k".repeat(235)).is_ok());
        assert!(names(&"k".repeat(238)).unwrap_err().contains("shorten it by 3 bytes"));
    }
}
