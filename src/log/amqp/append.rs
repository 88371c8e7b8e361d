//! Publishing to the exchange. Owns the connection that all appends share, the channels on it, and the rule that only the
//! broker's confirmation counts, and that nothing is published twice unless it is certain that the broker did not take it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use lapin::{
    BasicProperties, Channel, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore},
    time::timeout,
};

use super::{
    AmqpLog, TIMESTAMP_HEADER,
    link::Link,
    verdict::{self, Attempt, Settled, Verdict},
};
use crate::{
    clock,
    log::{AppendError, Outgoing, backoff::Backoff, health::Trouble},
    proto::Position,
};

/// AMQP's limit of a short string.
const ROUTING_KEY_BYTES_MAX: usize = 255;
const PERSISTENT: u8 = 2;
/// Appends that publish at the same time; the others wait.
const CHANNELS_MAX: usize = 16;
/// A connection that confirmed nothing for so long is asked whether it still lives before an event is trusted to it: an
/// event that was sent is never sent again, since nobody could tell whether the first one arrived.
const RESTED: Duration = Duration::from_millis(20);
/// How long it may take to say that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

pub(super) struct Appender {
    shared: AsyncMutex<Option<Arc<Shared>>>,
    turns: Semaphore,
}

/// The connection that appends share. Each append has a channel to itself: the library tells of a message that came
/// back as unroutable with whichever confirmation follows it, which may be another append's.
struct Shared {
    link: Link,
    /// In confirm mode, with nothing outstanding.
    idle: Mutex<Vec<Channel>>,
    heard: Mutex<Instant>,
    attempts: Attempts,
}

/// Who is at a connection. What ends it ends every append on it, and only one that had it to itself knows that it was
/// meant.
#[derive(Default)]
struct Attempts(Mutex<Count>);

#[derive(Default)]
struct Count {
    /// One that was cut short stays: what it sent may still be on its way.
    under_way: usize,
    begun: u64,
}

impl Attempts {
    /// Its number, if no other is under way.
    fn begin(&self) -> Option<u64> {
        let mut count = lock(&self.0);
        count.under_way += 1;
        count.begun += 1;
        (count.under_way == 1).then_some(count.begun)
    }

    /// To be called when it waits for nothing more. Was it alone for its whole time?
    fn end(&self, begun: Option<u64>) -> bool {
        let mut count = lock(&self.0);
        count.under_way -= 1;
        begun == Some(count.begun)
    }
}

/// How far an append has come, for when it is cut short.
#[derive(Default)]
struct Progress {
    /// From the start of the batch, in the log for certain.
    appended: usize,
    in_flight: VecDeque<PublisherConfirm>,
    settled: Vec<Settled>,
    shared: Option<Arc<Shared>>,
    /// What the last attempt to connect failed of.
    why: Option<String>,
}

impl Default for Appender {
    fn default() -> Self {
        Self { shared: AsyncMutex::default(), turns: Semaphore::new(CHANNELS_MAX) }
    }
}

impl Appender {
    pub(super) async fn append(
        &self,
        log: &AmqpLog,
        events: &[Outgoing],
    ) -> Result<Vec<Option<Position>>, AppendError> {
        let mut progress = Progress::default();
        let limit = log.settings.append_timeout;
        let detail = match timeout(limit, self.send(log, events, &mut progress)).await {
            Ok(Ok(())) => return Ok(vec![None; events.len()]),
            Ok(Err(detail)) => detail,
            Err(_) => {
                let confirmed = progress.cut_short(&events[progress.appended..]);
                progress.appended += confirmed;
                format!("{} (waited {} ms)", self.why(log, &mut progress), limit.as_millis())
            }
        };
        Err(AppendError { appended: progress.appended, detail })
    }

    /// Why time ran out.
    fn why(&self, log: &AmqpLog, progress: &mut Progress) -> String {
        if let Some(shared) = &progress.shared {
            // A blocked connection is kept: it will be told when the alarm is over, and a fresh one would have to publish
            // something to find out.
            if let Some(blocked) = shared.link.blocked() {
                return blocked;
            }
            self.forget(shared);
        }
        progress.why.take().unwrap_or_else(|| {
            let address = progress.shared.as_ref().map_or(log.nodes[0].address.as_str(), |shared| &shared.link.address);
            format!("RabbitMQ at {address} did not confirm; a stream needs a majority of its nodes for that")
        })
    }

    async fn send(&self, log: &AmqpLog, events: &[Outgoing], progress: &mut Progress) -> Result<(), String> {
        // Closed never.
        let _turn = self.turns.acquire().await;
        let mut is_second = false;
        let mut backoff = Backoff::new(log.settings.reconnect_max);
        loop {
            let shared = self.shared(log, progress).await?;
            shared.link.unblocked().await;
            let begun = shared.attempts.begin();
            let Some((channel, is_first)) = shared.channel().await else {
                shared.attempts.end(begun);
                if shared.link.blocked().is_none() {
                    self.forget(&shared);
                }
                continue;
            };
            let rest = &events[progress.appended..];
            // A channel's first event goes ahead alone: it finds out whether the stream runs.
            let part = if is_first { rest.get(..1).unwrap_or(rest) } else { rest };
            let failed = publish_all(log, &channel, part, progress).await;
            let is_alone = shared.attempts.end(begun);
            let settled = std::mem::take(&mut progress.settled);
            let attempt =
                Attempt { is_first, is_alone, address: &shared.link.address, exchange: &log.exchange, failed };
            let (confirmed, verdict) = verdict::of(part, &settled, &attempt);
            progress.appended += confirmed;
            match verdict {
                Verdict::Appended => {
                    shared.give_back(channel);
                    if progress.appended == events.len() {
                        return Ok(());
                    }
                    continue;
                }
                // A fresh connection makes what was missing.
                Verdict::NotTaken(_) if !is_second => is_second = true,
                Verdict::NotYet(words) => {
                    progress.why = Some(words);
                    backoff.wait().await;
                }
                Verdict::NotTaken(words) | Verdict::Open(words) => {
                    self.forget(&shared);
                    return Err(words);
                }
            }
            self.forget(&shared);
        }
    }

    async fn shared(&self, log: &AmqpLog, progress: &mut Progress) -> Result<Arc<Shared>, String> {
        let mut shared = self.shared.lock().await;
        if let Some(shared) = shared.as_ref().filter(|shared| shared.link.is_connected()) {
            progress.shared = Some(shared.clone());
            return Ok(shared.clone());
        }
        *shared = None;
        progress.shared = None;
        let mut backoff = Backoff::new(log.settings.reconnect_max);
        loop {
            match Box::pin(log.connect()).await {
                Ok(link) => {
                    let heard = Mutex::new(clock::now().instant);
                    let fresh = Arc::new(Shared { link, idle: Mutex::default(), heard, attempts: Attempts::default() });
                    progress.shared = Some(fresh.clone());
                    return Ok(shared.insert(fresh).clone());
                }
                Err(Trouble::Misfit(words)) => return Err(words),
                Err(Trouble::Lost(words)) => progress.why = Some(words),
            }
            backoff.wait().await;
        }
    }

    /// Whoever comes next starts with a fresh connection; what others wait for on this one is theirs.
    fn forget(&self, gone: &Arc<Shared>) {
        if let Ok(mut shared) = self.shared.try_lock()
            && shared.as_ref().is_some_and(|shared| Arc::ptr_eq(shared, gone))
        {
            *shared = None;
        }
    }
}

impl Shared {
    /// A channel in confirm mode on a connection that is alive, and whether it is a new one; `None` when it is not alive.
    /// Nothing is published by this.
    async fn channel(&self) -> Option<(Channel, bool)> {
        let idle = loop {
            match lock(&self.idle).pop() {
                // The broker closes a channel for a mistake made on it.
                Some(channel) if !channel.status().connected() => {}
                other => break other,
            }
        };
        let rested = clock::now().instant.saturating_duration_since(*lock(&self.heard)) >= RESTED;
        let confirmed = async {
            let (channel, is_first) = match idle {
                Some(channel) => (channel, false),
                None => (self.link.channel().await.ok()?, true),
            };
            if is_first || rested {
                channel.confirm_select(ConfirmSelectOptions::default()).await.ok()?;
                self.heard();
            }
            Some((channel, is_first))
        };
        timeout(SIGN_OF_LIFE, confirmed).await.ok().flatten()
    }

    fn give_back(&self, channel: Channel) {
        self.heard();
        lock(&self.idle).push(channel);
    }

    fn heard(&self) {
        *lock(&self.heard) = clock::now().instant;
    }
}

impl Progress {
    /// How many of the events that were being published are in the log for certain.
    fn cut_short(&mut self, events: &[Outgoing]) -> usize {
        use futures_util::FutureExt;
        while let Some(confirm) = self.in_flight.pop_front() {
            self.settled.push(confirm.now_or_never().into());
        }
        verdict::confirmed(events, &self.settled)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Publishes until one cannot be sent, whose error is the answer, and waits for what the broker says of the others.
async fn publish_all(
    log: &AmqpLog,
    channel: &Channel,
    events: &[Outgoing],
    progress: &mut Progress,
) -> Option<lapin::Error> {
    progress.settled.clear();
    let mut failed = None;
    for event in events {
        match publish(log, channel, event).await {
            Ok(confirm) => progress.in_flight.push_back(confirm),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    while let Some(confirm) = progress.in_flight.front_mut() {
        let settled = confirm.await;
        progress.in_flight.pop_front();
        progress.settled.push(Some(settled).into());
    }
    failed
}

/// An error means that the event was not sent, or not to its end: the broker cannot have taken it.
async fn publish(log: &AmqpLog, channel: &Channel, event: &Outgoing) -> lapin::Result<PublisherConfirm> {
    // Mandatory: an event that no queue takes must not be confirmed as if it were in the log.
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let now_ms = clock::now().unix_ms;
    let mut headers = FieldTable::default();
    headers.insert(TIMESTAMP_HEADER.into(), AMQPValue::LongLongInt(i64::try_from(now_ms).unwrap_or(i64::MAX)));
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(now_ms / 1_000)
        .with_headers(headers);
    channel.basic_publish(log.exchange.clone(), routing_key(&event.task_id), options, &event.payload, properties).await
}

fn routing_key(task_id: &str) -> ShortString {
    let key = format!("task.{task_id}");
    let end = key.floor_char_boundary(ROUTING_KEY_BYTES_MAX);
    // Cut to fit, so it fits.
    ShortString::try_new(&key[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_append_was_alone_only_if_no_other_was_under_way_from_its_beginning_to_its_end() {
        let attempts = Attempts::default();
        let first = attempts.begin();
        assert!(attempts.end(first));
        // One that came and went meanwhile, and one that was there before.
        let (long, short) = (attempts.begin(), attempts.begin());
        assert!(!attempts.end(short));
        let next = attempts.begin();
        assert!(!attempts.end(long));
        assert!(!attempts.end(next));
        let after = attempts.begin();
        assert!(attempts.end(after));
        // One that was cut short never ends.
        attempts.begin();
        let beside = attempts.begin();
        assert!(!attempts.end(beside));
    }

    #[test]
    fn a_long_task_id_is_cut_to_a_routing_key_between_characters() {
        assert_eq!(routing_key("a.b").as_str(), "task.a.b");
        let long = routing_key(&"ä".repeat(200));
        assert_eq!(long.as_str().len(), 255);
        assert!(long.as_str().ends_with('ä'));
    }
}
