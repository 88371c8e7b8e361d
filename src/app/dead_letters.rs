//! From the feed to the log's dead letters: what could not be decoded waits here, within bounds, until a task of its own
//! has set it aside. Owns that queue and the knowledge of what need not go through it.
//!
//! Refuses to know: what is wrong with an event.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    log::{DeadLetter, Log, Record},
    metrics::Metrics,
    proto::{Malformed, Position},
};

/// Dead letters that wait at most; what comes then is dropped and counted.
const QUEUE_LETTERS_MAX: usize = 1024;
/// And their bytes.
const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Set aside together.
const BATCH_LETTERS_MAX: usize = 512;
/// The first retry comes after this long, and each further one after twice as long, up to the maximum.
const RETRY_MIN: std::time::Duration = std::time::Duration::from_millis(200);
const RETRY_MAX: std::time::Duration = std::time::Duration::from_secs(10);

struct Waiting {
    letter: DeadLetter,
    /// Of the reading of the log that found it.
    generation: u64,
    _bytes: OwnedSemaphorePermit,
}

/// What both ends know of the log that is being read.
#[derive(Default)]
struct Shared {
    /// Counts how often the log was read anew: positions of one reading say nothing of another.
    generation: u64,
    /// Up to here everything was set aside, by whomever.
    watermark: Option<Position>,
    /// What did not fit before the watermark was known: how many, and the last of them. After a restart it is most
    /// often old poison that was set aside long ago, and then nothing is lost.
    unjudged: Option<(u64, Position)>,
}

/// The feed's end. Never waits.
pub(super) struct DeadLetters {
    queue: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
    shared: Arc<Mutex<Shared>>,
    metrics: Arc<Metrics>,
}

/// The other end.
pub(super) struct Writer {
    queue: mpsc::Receiver<Waiting>,
    shared: Arc<Mutex<Shared>>,
    metrics: Arc<Metrics>,
}

impl DeadLetters {
    pub(super) fn new(metrics: Arc<Metrics>) -> (Self, Writer) {
        let (sender, receiver) = mpsc::channel(QUEUE_LETTERS_MAX);
        let shared = Arc::new(Mutex::new(Shared::default()));
        let writer = Writer { queue: receiver, shared: shared.clone(), metrics: metrics.clone() };
        (Self { queue: sender, bytes: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)), shared, metrics }, writer)
    }

    pub(super) fn put(&self, record: &Record, malformed: &Malformed) {
        let generation = {
            let shared = lock(&self.shared);
            if shared.watermark.is_some_and(|watermark| record.position <= watermark) {
                return;
            }
            shared.generation
        };
        if !self.try_put(record, malformed, generation) {
            self.overflow(record.position);
        }
    }

    fn try_put(&self, record: &Record, malformed: &Malformed, generation: u64) -> bool {
        // Asked first: a letter's bytes are copied for nothing when there is no place for it.
        let Ok(place) = self.queue.try_reserve() else { return false };
        let letter = DeadLetter::new(record, malformed);
        let bytes = u32::try_from(letter.bytes()).unwrap_or(u32::MAX);
        let Ok(permit) = self.bytes.clone().try_acquire_many_owned(bytes) else { return false };
        self.metrics.dead_letters_waiting(1);
        place.send(Waiting { letter, generation, _bytes: permit });
        true
    }

    fn overflow(&self, position: Position) {
        let mut shared = lock(&self.shared);
        if shared.watermark.is_some() {
            self.metrics.dead_letters_dropped(1);
        } else {
            let (count, _) = shared.unjudged.unwrap_or((0, position));
            shared.unjudged = Some((count + 1, position));
        }
    }

    /// The log is read anew.
    pub(super) fn restarted(&self) {
        let mut shared = lock(&self.shared);
        let generation = shared.generation + 1;
        if let Some((count, _)) = shared.unjudged {
            self.metrics.dead_letters_dropped(count);
        }
        *shared = Shared { generation, ..Shared::default() };
    }
}

impl Writer {
    /// Runs until `stop` is cancelled. What waits then is found again by whoever reads the log next.
    pub(super) async fn run(mut self, log: Log, stop: CancellationToken) {
        let work = async {
            let mut batch = Vec::with_capacity(BATCH_LETTERS_MAX);
            while self.queue.recv_many(&mut batch, BATCH_LETTERS_MAX).await > 0 {
                let letters = self.unknown(&batch);
                if let Some(last) = batch.last().filter(|_| !letters.is_empty()) {
                    let watermark = self.set_aside(&log, &letters).await;
                    self.judged(last.generation, watermark);
                }
                self.metrics.dead_letters_waiting(-i64::try_from(batch.len()).unwrap_or(0));
                batch.clear();
            }
            // The feed has ended, which is its own affair.
            stop.cancelled().await;
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Without those that were put before it was known that they were set aside.
    fn unknown(&self, batch: &[Waiting]) -> Vec<DeadLetter> {
        let shared = lock(&self.shared);
        let is_known = |waiting: &Waiting| {
            let watermark = shared.watermark.filter(|_| waiting.generation == shared.generation);
            watermark.is_some_and(|watermark| waiting.letter.position <= watermark)
        };
        batch.iter().filter(|waiting| !is_known(waiting)).map(|waiting| waiting.letter.clone()).collect()
    }

    /// Tries for as long as it takes.
    async fn set_aside(&self, log: &Log, letters: &[DeadLetter]) -> Position {
        let mut wait = RETRY_MIN;
        let mut told = String::new();
        loop {
            let why = match log.set_aside(letters).await {
                Ok(watermark) => return watermark,
                Err(why) => why,
            };
            self.metrics.dead_letter_failure();
            if told != why {
                tracing::warn!(reason = why, "malformed events cannot be set aside; trying again");
                told = why;
            }
            tokio::time::sleep(wait / 2 + clock::jitter(wait / 2)).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    fn judged(&self, generation: u64, watermark: Position) {
        let mut shared = lock(&self.shared);
        if shared.generation != generation {
            return;
        }
        shared.watermark = Some(watermark);
        if let Some((count, last)) = shared.unjudged.take()
            && last > watermark
        {
            self.metrics.dead_letters_dropped(count);
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Nothing in here can panic halfway through a change.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::proto::{ContentType, Event};

    fn at(major: u64) -> Position {
        Position { major, minor: 0 }
    }

    fn put(letters: &DeadLetters, major: u64, payload: &Bytes) {
        let record = Record {
            position: at(major),
            appended_at_ms: None,
            content_type: ContentType::Json,
            payload: payload.clone(),
            trace: None,
        };
        letters.put(&record, &Event::decode(ContentType::Json, payload).unwrap_err());
    }

    fn waiting(writer: &mut Writer) -> Vec<u64> {
        std::iter::from_fn(|| writer.queue.try_recv().ok()).map(|waiting| waiting.letter.position.major).collect()
    }

    fn dropped(metrics: &Metrics) -> String {
        let text = metrics.render().unwrap();
        let line = text.lines().find(|line| line.starts_with("taskcast_dead_letters_dropped_total")).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    }

    fn world() -> (DeadLetters, Writer, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new("test"));
        let (letters, writer) = DeadLetters::new(metrics.clone());
        (letters, writer, metrics)
    }

    #[test]
    fn a_storm_is_bounded_in_letters_and_in_bytes_and_what_is_dropped_is_counted() {
        let (letters, mut writer, metrics) = world();
        writer.judged(0, at(0));
        (1..=3_000).for_each(|major| put(&letters, major, &Bytes::from_static(b"x")));
        assert_eq!(waiting(&mut writer).len(), QUEUE_LETTERS_MAX);
        assert_eq!(dropped(&metrics), (3_000 - QUEUE_LETTERS_MAX).to_string());

        let (letters, mut writer, metrics) = world();
        writer.judged(0, at(0));
        let large = Bytes::from(vec![b'x'; 1_000_000]);
        (1..=1_000).for_each(|major| put(&letters, major, &large));
        let kept = waiting(&mut writer).len();
        assert!((QUEUE_BYTES_MAX / 80_000..=QUEUE_BYTES_MAX / 65_536).contains(&kept), "{kept}");
        assert_eq!(dropped(&metrics), (1_000 - kept).to_string());
        put(&letters, 1_001, &large);
        assert_eq!(waiting(&mut writer), [1_001], "there is place again");
    }

    #[test]
    fn poison_that_was_set_aside_long_ago_is_neither_queued_nor_counted_as_dropped() {
        let (letters, mut writer, metrics) = world();
        (1..=2_000).for_each(|major| put(&letters, major, &Bytes::from_static(b"x")));
        assert_eq!(waiting(&mut writer).len(), QUEUE_LETTERS_MAX);
        assert_eq!(dropped(&metrics), "0", "nobody knows yet");
        writer.judged(0, at(5_000));
        (2_001..=5_002).for_each(|major| put(&letters, major, &Bytes::from_static(b"x")));
        assert_eq!(waiting(&mut writer), [5_001, 5_002]);
        assert_eq!(dropped(&metrics), "0");
    }

    #[test]
    fn what_waited_while_another_replica_set_it_aside_is_not_brought_to_the_log() {
        let (letters, mut writer, _) = world();
        (1..=4).for_each(|major| put(&letters, major, &Bytes::from_static(b"x")));
        writer.judged(0, at(3));
        let batch: Vec<Waiting> = std::iter::from_fn(|| writer.queue.try_recv().ok()).collect();
        let unknown = |writer: &Writer| -> Vec<u64> {
            writer.unknown(&batch).iter().map(|letter| letter.position.major).collect()
        };
        assert_eq!(unknown(&writer), [4]);
        letters.restarted();
        assert_eq!(unknown(&writer), [1, 2, 3, 4], "of another reading nothing is known");
    }

    #[test]
    fn a_storm_that_nobody_set_aside_before_is_counted_once_that_is_known() {
        let (letters, writer, metrics) = world();
        (1..=2_000).for_each(|major| put(&letters, major, &Bytes::from_static(b"x")));
        writer.judged(0, at(1_024));
        assert_eq!(dropped(&metrics), (2_000 - QUEUE_LETTERS_MAX).to_string());
    }

    #[test]
    fn a_watermark_of_one_reading_says_nothing_of_the_next() {
        let (letters, mut writer, _) = world();
        writer.judged(0, at(100));
        letters.restarted();
        writer.judged(0, at(100));
        put(&letters, 3, &Bytes::from_static(b"x"));
        assert_eq!(waiting(&mut writer), [3]);
        writer.judged(1, at(3));
        put(&letters, 3, &Bytes::from_static(b"x"));
        assert!(waiting(&mut writer).is_empty());
    }
}
