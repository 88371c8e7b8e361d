//! Reading the stream for ever, on a connection of its own. Owns where reading stands and what a reconnect has to prove
//! before it goes on.

use std::{ops::ControlFlow, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel, Connection, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::AMQPValue,
};

use super::{
    AmqpLog, TIMESTAMP_HEADER,
    end::{self, End},
};
use crate::{
    clock,
    log::{Record, RestartReason, backoff::Backoff, content_type, feed::Out, health::Trouble},
    metrics::Lag,
    proto::{ContentType, Position, proof},
};

/// How long the record at the last position may take to come again, once the stream is known to reach that far.
const PROOF_PATIENCE: Duration = Duration::from_secs(15);
/// Offsets have small holes without loss, where the broker keeps notes of its own. A larger jump means that retention
/// overtook the reader, whose deliveries then carry on at the next segment without a word.
const HOLE_MAX: u64 = 128;
/// Timestamps above this are milliseconds by mistake: in seconds it is the year 5138.
const SECONDS_MAX: u64 = 100_000_000_000;

/// Why a consumer is left.
enum Leave {
    Trouble(Trouble),
    Restart(RestartReason),
}

impl From<Trouble> for Leave {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// Where reading stands.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// The offset of the last record handed over, and the proof of its bytes.
    last: Option<(u64, u32)>,
    /// A jump that was taken for a loss. When it is there again after reading from the start, it was none.
    jump: Option<(u64, u64)>,
}

/// Reads for ever; ends only by being dropped.
pub(super) async fn read(log: Arc<AmqpLog>, out: Out) {
    let mut backoff = Backoff::new(log.settings.reconnect_max);
    let mut place = Place::default();
    loop {
        let trouble = match log.connect().await {
            Ok(connection) => run(&log, &out, &connection, &mut place, &mut backoff).await,
            Err(trouble) => trouble,
        };
        log.reporter.trouble(&trouble);
        backoff.wait().await;
    }
}

/// One connection's life.
async fn run(log: &AmqpLog, out: &Out, connection: &Connection, place: &mut Place, backoff: &mut Backoff) -> Trouble {
    loop {
        let session = Session::open(log, out, connection, place).await;
        let left = match session {
            Ok(mut session) => {
                backoff.reset();
                log.reporter.connected(format!("reading stream queue {} at {}", log.queue, log.address));
                match session.follow(connection).await {
                    Ok(never) => match never {},
                    Err(left) => left,
                }
            }
            Err(trouble) => return trouble,
        };
        match left {
            Leave::Trouble(trouble) => return trouble,
            Leave::Restart(reason) => {
                place.last = None;
                out.restarted(reason).await;
            }
        }
    }
}

/// What has to be handed over before the log counts as replayed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Unknown,
    At(u64),
    Reached,
}

/// One consumer's life.
struct Session<'a> {
    log: &'a AmqpLog,
    out: &'a Out,
    place: &'a mut Place,
    channel: Channel,
    consumer: Consumer,
    /// The record at the last position has not come again yet.
    unproven: bool,
    target: Target,
}

impl<'a> Session<'a> {
    /// Consumes from the last position, inclusively, or from the start of retention.
    async fn open(
        log: &'a AmqpLog,
        out: &'a Out,
        connection: &Connection,
        place: &'a mut Place,
    ) -> Result<Self, Trouble> {
        let lost = |error: lapin::Error| log.trouble(&error);
        let channel = connection.create_channel().await.map_err(lost)?;
        let prefetch = log.settings.read_batch.max(2);
        channel.basic_qos(prefetch, BasicQosOptions::default()).await.map_err(lost)?;
        let from = match place.last {
            Some((offset, _)) => AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX)),
            None => AMQPValue::LongString("first".into()),
        };
        let options = BasicConsumeOptions::default();
        let consumer = channel
            .basic_consume(log.queue.clone(), "".into(), options, end::consume_from(from))
            .await
            .map_err(lost)?;
        let unproven = place.last.is_some();
        Ok(Self { log, out, place, channel, consumer, unproven, target: Target::Unknown })
    }

    async fn follow(&mut self, connection: &Connection) -> Result<std::convert::Infallible, Leave> {
        let mut end = pin!(end::find(self.log, &self.log.queue, connection));
        let mut patience = pin!(tokio::time::sleep(PROOF_PATIENCE));
        loop {
            tokio::select! {
                found = &mut end, if self.target == Target::Unknown => self.aim(found?).await?,
                delivery = self.consumer.next() => self.take(delivery).await?,
                () = &mut patience, if self.unproven => {
                    let words = format!("RabbitMQ at {} delivers nothing from {}", self.log.address, self.log.queue);
                    return Err(Trouble::Lost(words).into());
                }
            }
        }
    }

    /// The end of the stream is known.
    async fn aim(&mut self, end: End) -> Result<(), Leave> {
        let last = self.place.last.map(|(offset, _)| offset);
        if self.unproven {
            // An offset beyond the end delivers nothing, ever: this is how a recreated stream shows.
            let too_short = match end {
                End::Empty => true,
                End::At(offset) => last.is_some_and(|last| offset < last),
                End::Beyond(_) => false,
            };
            if too_short {
                return Err(Leave::Restart(RestartReason::Replaced));
            }
        }
        self.target = match end {
            End::At(offset) | End::Beyond(offset) if last.is_none_or(|last| last < offset) => Target::At(offset),
            _ => Target::Reached,
        };
        self.out.replayed(self.target == Target::Reached).await;
        Ok(())
    }

    /// Takes a delivery and all that are ready behind it, hands them over, and acknowledges them together.
    async fn take(&mut self, first: Option<lapin::Result<Delivery>>) -> Result<(), Leave> {
        let batch_max = usize::from(self.log.settings.read_batch / 2).max(1);
        let mut records = Vec::new();
        let mut taken = 0;
        let mut tag = 0;
        let mut next = Some(first);
        let mut ended = ControlFlow::Continue(());
        while let Some(delivery) = next {
            match self.record(delivery, &mut tag) {
                Ok(record) => records.extend(record),
                Err(leave) => {
                    ended = ControlFlow::Break(leave);
                    break;
                }
            }
            taken += 1;
            next = if taken < batch_max { self.consumer.next().now_or_never() } else { None };
        }
        let newest_ms = records.last().and_then(|record| record.appended_at_ms);
        // What was read before the consumer failed is good.
        self.out.records(records).await;
        if let ControlFlow::Break(leave) = ended {
            return Err(leave);
        }
        let acknowledged = self.channel.basic_ack(tag, BasicAckOptions { multiple: true }).await;
        acknowledged.map_err(|error| self.log.trouble(&error))?;
        self.progressed(newest_ms, taken == batch_max).await;
        Ok(())
    }

    /// The record in a delivery, unless it was handed over before.
    fn record(&mut self, delivery: Option<lapin::Result<Delivery>>, tag: &mut u64) -> Result<Option<Record>, Leave> {
        let delivery = delivery.ok_or_else(|| end::cancelled(self.log, &self.log.queue))?;
        let delivery = delivery.map_err(|error| self.log.trouble(&error))?;
        let Some(offset) = end::offset(&delivery) else {
            let words = format!("queue {} at {} is not a stream queue", self.log.queue, self.log.address);
            return Err(Trouble::Misfit(words).into());
        };
        *tag = delivery.delivery_tag;
        let proof = proof(&delivery.data);
        if let Some((last, known)) = self.place.last {
            if self.unproven && offset >= last {
                if offset > last {
                    return Err(Leave::Restart(RestartReason::Trimmed));
                }
                if proof != known {
                    return Err(Leave::Restart(RestartReason::Replaced));
                }
                self.unproven = false;
            }
            if offset <= last {
                return Ok(None);
            }
            if offset - last > HOLE_MAX && self.place.jump != Some((last, offset)) {
                self.place.jump = Some((last, offset));
                return Err(Leave::Restart(RestartReason::Trimmed));
            }
        }
        self.place.last = Some((offset, proof));
        Ok(Some(to_record(offset, delivery)))
    }

    async fn progressed(&mut self, newest_ms: Option<u64>, more: bool) {
        let last = self.place.last.map_or(0, |(offset, _)| offset);
        if let Target::At(target) = self.target
            && last >= target
        {
            self.target = Target::Reached;
            self.out.replayed(true).await;
        }
        // Past the target only what the broker sent ahead is known to wait.
        let events = match self.target {
            Target::At(target) => target - last,
            _ if more => u64::from(self.log.settings.read_batch),
            _ => 0,
        };
        let age_ms = newest_ms.map_or(0, |newest| clock::now().unix_ms.saturating_sub(newest));
        let seconds = if events > 0 { Duration::from_millis(age_ms).as_secs_f64() } else { 0.0 };
        self.log.reporter.lag(Lag { events, seconds });
    }
}

fn to_record(offset: u64, delivery: Delivery) -> Record {
    let properties = &delivery.properties;
    let in_ms = properties.headers().as_ref().and_then(|headers| headers.inner().get(TIMESTAMP_HEADER));
    let in_ms = in_ms.and_then(AMQPValue::as_long_long_int).and_then(|ms| u64::try_from(ms).ok());
    let stamped = properties.timestamp().map(|stamp| if stamp > SECONDS_MAX { stamp } else { stamp * 1_000 });
    let content_type =
        properties.content_type().as_ref().map_or(ContentType::Json, |name| content_type(name.as_str().as_bytes()));
    Record {
        position: Position { major: offset + 1, minor: 0 },
        appended_at_ms: in_ms.or(stamped),
        content_type,
        payload: Bytes::from(delivery.data),
    }
}
