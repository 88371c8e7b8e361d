//! The embedded log: a ring of the latest events in this process, gone with it. Owns the ring. Its positions hold the
//! moment at which it was made, so that a cursor from before a restart cannot be mistaken for one of today's.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{Health, Outgoing, Record, RestartReason, Settings, TailItem, health::Reporter};
use crate::{
    clock,
    metrics::Metrics,
    proto::{ContentType, Position},
};

struct Ring {
    records: VecDeque<Record>,
    /// The counter of the next record; the first one is 1.
    next: u64,
}

/// The log itself. Shared by all its tails.
pub struct MemoryLog {
    born_unix_ms: u64,
    capacity: usize,
    batch: usize,
    ring: Mutex<Ring>,
    /// The counter of the next record, for those who wait.
    grown: watch::Sender<u64>,
    reporter: Reporter,
}

impl MemoryLog {
    pub(super) fn open(settings: &Settings, metrics: Arc<Metrics>) -> Self {
        Self {
            born_unix_ms: clock::now().unix_ms,
            capacity: usize::try_from(settings.max_events).unwrap_or(usize::MAX).max(1),
            batch: usize::from(settings.read_batch).max(1),
            ring: Mutex::new(Ring { records: VecDeque::new(), next: 1 }),
            grown: watch::Sender::new(1),
            reporter: Reporter::new(metrics),
        }
    }

    pub(super) fn append(&self, events: &[Outgoing]) -> Vec<Option<Position>> {
        let appended_at_ms = Some(clock::now().unix_ms);
        let mut ring = self.ring();
        let mut positions = Vec::with_capacity(events.len());
        for event in events {
            let position = Position { major: self.born_unix_ms, minor: ring.next };
            ring.next += 1;
            if ring.records.len() == self.capacity {
                ring.records.pop_front();
            }
            let payload = event.payload.clone();
            ring.records.push_back(Record {
                position,
                appended_at_ms,
                content_type: ContentType::Json,
                payload,
                trace: None,
            });
            positions.push(Some(position));
        }
        // Under the lock, so that the counter never goes backwards.
        self.grown.send_replace(ring.next);
        positions
    }

    pub(super) fn metrics(&self) -> &Metrics {
        self.reporter.metrics()
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.reporter.watch()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing in here can panic halfway through a change.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader of the ring.
pub struct MemoryTail {
    log: Arc<MemoryLog>,
    /// The counter of the next record to hand over; `None`: wherever the ring starts.
    next: Option<u64>,
    grown: watch::Receiver<u64>,
}

impl MemoryTail {
    pub(super) fn new(log: Arc<MemoryLog>) -> Self {
        let grown = log.grown.subscribe();
        Self { log, next: None, grown }
    }

    pub(super) async fn next(&mut self) -> TailItem {
        self.log.reporter.connected("in this process; events are gone when it ends".to_owned());
        loop {
            self.grown.borrow_and_update();
            if let Some(item) = self.ready() {
                return item;
            }
            self.log.reporter.replayed(true, self.log.reporter.connection());
            // The sender lives in the log, which this tail holds: it cannot be gone.
            let _ = self.grown.changed().await;
        }
    }

    fn ready(&mut self) -> Option<TailItem> {
        let ring = self.log.ring();
        let first = ring.next - ring.records.len() as u64;
        let next = self.next.unwrap_or(first);
        if next < first {
            self.next = None;
            self.log.reporter.restarted(RestartReason::Trimmed);
            return Some(TailItem::Restarted(RestartReason::Trimmed));
        }
        let skip = usize::try_from(next - first).unwrap_or(usize::MAX);
        let records: Vec<Record> = ring.records.range(skip..).take(self.log.batch).cloned().collect();
        self.next = Some(next + records.len() as u64);
        (!records.is_empty()).then_some(TailItem::Records(records))
    }
}
