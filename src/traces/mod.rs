//! Spans of events that were published within a sampled trace: what became of them here, and when their frames were written.
//! An event whose worker records no trace costs nothing but the look that tells.
//!
//! Owns the spans until they are exported, within bounds. Refuses to know: tasks, sessions, sockets.

mod delivery;
mod export;
mod followed;
mod otlp;
mod span;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use self::{
    delivery::Begun,
    followed::Followed,
    span::{Kind, Span, Value},
};
pub use self::{
    delivery::{Delivery, Traced},
    export::{TraceSettings, export},
    followed::FOLLOWED_FOR,
};
use crate::{
    clock::Now,
    metrics::{Metrics, Outcome, SpanDrop},
    proto::{Cursor, Position, TraceContext},
};

/// Spans that wait to be exported.
const WAITING_MAX: usize = 8192;

/// Spans that are exported together.
const BATCH_MAX: usize = 512;

/// Where spans come together. Cheap to clone.
#[derive(Clone)]
pub struct Traces(Arc<Shared>);

struct Shared {
    /// `messaging.system`: `redis`, `rabbitmq`.
    system: &'static str,
    /// `messaging.destination.name`.
    destination: String,
    metrics: Arc<Metrics>,
    batch: Mutex<Batch>,
    followed: Followed,
    waiting: Mutex<VecDeque<Span>>,
    /// There is a batch of them.
    filled: tokio::sync::Notify,
}

/// The events that are being applied.
#[derive(Default)]
struct Batch {
    began: Option<Now>,
    spans: Vec<Span>,
}

/// An event that was read within a trace.
#[derive(Clone, Copy)]
pub struct Taken<'a> {
    pub context: &'a TraceContext,
    pub task_id: &'a str,
    pub cursor: Cursor,
    pub outcome: Outcome,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Traces {
    #[must_use]
    pub fn new(system: &'static str, destination: String, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared {
            system,
            destination,
            metrics,
            batch: Mutex::default(),
            followed: Followed::new(),
            waiting: Mutex::default(),
            filled: tokio::sync::Notify::new(),
        }))
    }

    /// Events are about to be decoded and applied. One caller at a time, who calls [`Traces::applied`] behind it.
    pub fn applying(&self, began: Now) {
        lock(&self.0.batch).began = Some(began);
    }

    /// An event among them was read, and this became of it.
    pub fn take(&self, taken: Taken<'_>) {
        let Taken { context, task_id, cursor, outcome } = taken;
        let mut batch = lock(&self.0.batch);
        let Some(began) = batch.began.filter(|_| context.is_sampled()) else { return };
        let (outcome_label, reason) = outcome.labels();
        let mut span = Span::below(context, format!("process {}", self.0.destination), Kind::Consumer);
        span.set("messaging.system", Value::Word(self.0.system));
        span.set("messaging.operation.type", Value::Word("process"));
        span.set("messaging.operation.name", Value::Word("process"));
        span.set("messaging.destination.name", Value::Text(self.0.destination.clone()));
        span.set("messaging.message.id", Value::Text(cursor.position.to_string()));
        span.set("taskcast.task_id", Value::Text(task_id.to_owned()));
        span.set("taskcast.outcome", Value::Word(outcome_label));
        if !reason.is_empty() {
            span.set("taskcast.outcome.reason", Value::Word(reason));
        }
        if outcome == Outcome::Applied {
            let delivery = Delivery::new(&span, task_id, Begun::at(began));
            if !self.0.followed.follow(cursor.position, delivery) {
                self.0.metrics.spans_dropped(SpanDrop::Full, 1);
            }
        }
        batch.spans.push(span);
    }

    /// What was taken since is applied, and is marked for whoever watches it.
    pub fn applied(&self, ended: Now) {
        let mut batch = lock(&self.0.batch);
        let spans = std::mem::take(&mut batch.spans);
        if let Some(began) = batch.began.take().filter(|_| !spans.is_empty()) {
            let begun = Begun::at(began);
            let (start, end) = (begun.unix_ns(began.instant), begun.unix_ns(ended.instant));
            self.add(spans.into_iter().map(|span| span.lasted(start, end)));
        }
    }

    /// Of the events at these places, those whose delivery is followed. Nearly always there are none, and this is one look.
    #[must_use]
    pub fn among(&self, positions: impl Iterator<Item = Position>) -> Option<Traced> {
        self.0.followed.among(positions)
    }

    /// Ends what was followed for long enough, or everything. Whom nobody watched has no delivery.
    fn sweep(&self, now: Instant, all: bool) {
        // Their spans are made beside the lock, which those who deliver wait for.
        let ended: Vec<_> = self.0.followed.sweep(now, all).iter().filter_map(|delivery| delivery.span()).collect();
        self.add(ended.into_iter());
    }

    fn add(&self, spans: impl ExactSizeIterator<Item = Span>) {
        let mut waiting = lock(&self.0.waiting);
        let room = WAITING_MAX.saturating_sub(waiting.len());
        let dropped = spans.len().saturating_sub(room);
        waiting.extend(spans.take(room));
        if dropped > 0 {
            self.0.metrics.spans_dropped(SpanDrop::Full, dropped);
        }
        if waiting.len() >= BATCH_MAX {
            self.0.filled.notify_one();
        }
    }

    /// To how many sessions each of the followed was written, in the order of the log.
    #[cfg(test)]
    pub(crate) fn written(&self) -> Vec<u64> {
        self.0.followed.written()
    }

    /// How many wait.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        lock(&self.0.waiting).len()
    }

    /// The oldest that wait.
    fn batch(&self) -> Vec<Span> {
        let mut waiting = lock(&self.0.waiting);
        let count = waiting.len().min(BATCH_MAX);
        waiting.drain(..count).collect()
    }

    /// A batch that was not exported, once the export ends: it waits before all others, room or not.
    fn put_back(&self, batch: Vec<Span>) {
        let mut waiting = lock(&self.0.waiting);
        for span in batch.into_iter().rev() {
            waiting.push_front(span);
        }
    }

    /// Lets go of all that wait, and says how many they were.
    fn forget(&self) -> usize {
        std::mem::take(&mut *lock(&self.0.waiting)).len()
    }
}

#[cfg(test)]
#[path = "traces_tests.rs"]
mod tests;
