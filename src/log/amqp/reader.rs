//! Reading the stream for ever, on a connection of its own. Owns where reading stands and what a reconnect has to prove
//! before it goes on.

use std::{ops::ControlFlow, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt,
    future::{Fuse, FusedFuture},
};
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::AMQPValue,
};
use tokio::time::{sleep, timeout};

use super::{
    AmqpLog, TIMESTAMP_HEADER,
    end::{self, End},
    link::Link,
    pulse::Pulse,
};
use crate::{
    clock,
    log::{
        Bookmark, Record, RestartReason, TRACEPARENT, TRACESTATE, backoff::Backoff, content_type, feed::Out,
        health::Trouble, trace,
    },
    metrics::Lag,
    proto::{ContentType, Cursor, Position, proof},
};

/// How long a node that just let this connection in may take to open a channel.
const OPEN_TIMEOUT: Duration = Duration::from_millis(1_500);
/// While behind, the end is looked for again this often: it moves.
const SURVEY_EVERY: Duration = Duration::from_secs(5);
/// No delivery for so long: nothing waits.
const CALM: Duration = Duration::from_millis(100);
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

impl Place {
    /// Where another reader stood.
    fn at(begin: Option<Bookmark>) -> Self {
        let last =
            begin.and_then(|Bookmark { cursor, .. }| Some((cursor.position.major.checked_sub(1)?, cursor.proof)));
        Self { last, jump: None }
    }

    fn bookmark(&self) -> Option<Bookmark> {
        let (offset, proof) = self.last?;
        Some(Bookmark { cursor: Cursor { position: position(offset), proof }, added: None })
    }
}

/// Reads for ever; ends only by being dropped.
pub(super) async fn read(log: Arc<AmqpLog>, out: Out, begin: Option<Bookmark>) {
    let mut backoff = Backoff::new(log.settings.reconnect_max);
    let mut place = Place::at(begin);
    loop {
        let trouble = match log.connect().await {
            Ok(link) => run(&log, &out, &link, &mut place, &mut backoff).await,
            Err(trouble) => trouble,
        };
        log.reporter.trouble(&trouble);
        backoff.wait().await;
    }
}

/// One connection's life.
async fn run(log: &AmqpLog, out: &Out, link: &Link, place: &mut Place, backoff: &mut Backoff) -> Trouble {
    let starting = timeout(OPEN_TIMEOUT, Pulse::start(link, log.exchange.clone())).await;
    let mut pulse = match starting {
        Ok(Ok(pulse)) => pulse,
        Ok(Err(trouble)) => return trouble,
        Err(_) => return Trouble::Lost(format!("RabbitMQ at {} no longer answers", link.address)),
    };
    // Known from the consumer before, on this connection.
    let mut end = None;
    loop {
        let opened = tokio::select! {
            opened = Session::open(log, out, link, place) => opened,
            trouble = pulse.lost(link) => Err(trouble),
        };
        let left = match opened {
            Ok(mut session) => {
                backoff.reset();
                log.reporter.connected(format!("reading stream queue {} at {}", log.queue, link.address));
                match session.follow(&mut pulse, &mut end).await {
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
    link: &'a Link,
    place: &'a mut Place,
    channel: Channel,
    consumer: Consumer,
    /// The record at the last position has not come again yet.
    unproven: bool,
    target: Target,
    /// The last offset of the stream, when it was looked for last.
    end: Option<u64>,
    /// The last batch was full: more waits.
    is_flooded: bool,
    /// When the newest record read was appended.
    newest_ms: Option<u64>,
}

impl<'a> Session<'a> {
    /// Consumes from the last position, inclusively, or from the start of retention.
    async fn open(log: &'a AmqpLog, out: &'a Out, link: &'a Link, place: &'a mut Place) -> Result<Self, Trouble> {
        let lost = |error: lapin::Error| link.trouble(&error);
        let channel = link.channel().await?;
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
        Ok(Self {
            log,
            out,
            link,
            place,
            channel,
            consumer,
            unproven,
            target: Target::Unknown,
            end: None,
            is_flooded: false,
            newest_ms: None,
        })
    }

    /// `known` is the end, if a consumer before on this connection found it; it is left there for the next one.
    async fn follow(&mut self, pulse: &mut Pulse, known: &mut Option<End>) -> Result<std::convert::Infallible, Leave> {
        let (log, link) = (self.log, self.link);
        let mut survey = pin!(Fuse::terminated());
        match known.take() {
            Some(end) => self.aim(end).await?,
            None => survey.set(end::find(&log.queue, link).fuse()),
        }
        let mut patience = pin!(sleep(PROOF_PATIENCE));
        let mut again = pin!(sleep(SURVEY_EVERY));
        loop {
            tokio::select! {
                // The broker's answers first: a reader that was held up must not take them for silence.
                biased;
                trouble = pulse.lost(link) => return Err(trouble.into()),
                found = &mut survey => {
                    let found = found?;
                    again.as_mut().reset((clock::now().instant + SURVEY_EVERY).into());
                    if self.target == Target::Unknown {
                        *known = Some(found);
                        self.aim(found).await?;
                        *known = None;
                    } else {
                        self.surveyed(found);
                    }
                }
                () = &mut again, if survey.is_terminated() && self.is_behind() => {
                    survey.set(end::find(&log.queue, link).fuse());
                }
                delivery = self.consumer.next() => {
                    self.take(delivery).await?;
                    pulse.heard();
                }
                () = sleep(CALM), if self.is_flooded => {
                    self.is_flooded = false;
                    self.tell_lag();
                }
                () = &mut patience, if self.unproven => {
                    let words = format!("RabbitMQ at {} delivers nothing from {}", link.address, log.queue);
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
        // Nothing that was read before counts until the record at the last position has come again.
        self.out.replayed(self.target == Target::Reached && !self.unproven).await;
        self.surveyed(end);
        Ok(())
    }

    /// The end as it is now; it does not change what counts as replayed.
    fn surveyed(&mut self, end: End) {
        self.end = match end {
            End::Empty => None,
            End::At(offset) | End::Beyond(offset) => Some(offset),
        };
        self.tell_lag();
    }

    fn is_behind(&self) -> bool {
        self.is_flooded || matches!(self.target, Target::At(_)) || self.end > self.place.last.map(|(last, _)| last)
    }

    /// Takes a delivery and all that are ready behind it, hands them over, and acknowledges them together.
    async fn take(&mut self, first: Option<lapin::Result<Delivery>>) -> Result<(), Leave> {
        let batch_max = usize::from(self.log.settings.read_batch / 2).max(1);
        let was_unproven = self.unproven;
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
        self.out.records(records, self.place.bookmark()).await;
        if let ControlFlow::Break(leave) = ended {
            return Err(leave);
        }
        let acknowledged = self.channel.basic_ack(tag, BasicAckOptions { multiple: true }).await;
        acknowledged.map_err(|error| self.link.trouble(&error))?;
        self.progressed(newest_ms, taken == batch_max).await;
        if was_unproven && !self.unproven && self.target == Target::Reached {
            self.out.replayed(true).await;
        }
        Ok(())
    }

    /// The record in a delivery, unless it was handed over before.
    fn record(&mut self, delivery: Option<lapin::Result<Delivery>>, tag: &mut u64) -> Result<Option<Record>, Leave> {
        let delivery = delivery.ok_or_else(|| end::cancelled(&self.log.queue, self.link))?;
        let delivery = delivery.map_err(|error| self.link.trouble(&error))?;
        let Some(offset) = end::offset(&delivery) else {
            let words = format!("queue {} at {} is not a stream queue", self.log.queue, self.link.address);
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
        self.newest_ms = newest_ms.or(self.newest_ms);
        self.is_flooded = more;
        if let Target::At(target) = self.target
            && self.place.last.is_some_and(|(last, _)| last >= target)
        {
            self.target = Target::Reached;
            self.out.replayed(true).await;
        }
        self.tell_lag();
    }

    /// How far behind, as far as is known: to the end that was found last, and beyond it what the broker sent ahead.
    fn tell_lag(&self) {
        let next = self.place.last.map_or(0, |(last, _)| last + 1);
        let found = self.end.map_or(0, |end| (end + 1).saturating_sub(next));
        let sent_ahead = if self.is_flooded { u64::from(self.log.settings.read_batch) } else { 0 };
        let events = found.max(sent_ahead);
        let age_ms = self.newest_ms.map_or(0, |newest| clock::now().unix_ms.saturating_sub(newest));
        let seconds = if events > 0 { Duration::from_millis(age_ms).as_secs_f64() } else { 0.0 };
        self.log.reporter.lag(Lag { events, seconds });
    }
}

/// Offsets start at 0, and [`Position::START`] stands before all of them.
fn position(offset: u64) -> Position {
    Position { major: offset + 1, minor: 0 }
}

fn to_record(offset: u64, delivery: Delivery) -> Record {
    let properties = &delivery.properties;
    let header = |name: &str| properties.headers().as_ref().and_then(|headers| headers.inner().get(name));
    let text = |name: &str| match header(name)? {
        AMQPValue::LongString(text) => Some(text.as_bytes()),
        AMQPValue::ShortString(text) => Some(text.as_str().as_bytes()),
        _ => None,
    };
    let in_ms = header(TIMESTAMP_HEADER);
    let in_ms = in_ms.and_then(AMQPValue::as_long_long_int).and_then(|ms| u64::try_from(ms).ok());
    let stamped = properties.timestamp().map(|stamp| if stamp > SECONDS_MAX { stamp } else { stamp * 1_000 });
    let content_type =
        properties.content_type().as_ref().map_or(ContentType::Json, |name| content_type(name.as_str().as_bytes()));
    Record {
        position: position(offset),
        appended_at_ms: in_ms.or(stamped),
        content_type,
        trace: trace(text(TRACEPARENT), text(TRACESTATE)),
        payload: Bytes::from(delivery.data),
    }
}
