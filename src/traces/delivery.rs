//! One event on its way to those who watch it: how many sessions its frame was written to, and when.
//!
//! Refuses to know: who they are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    followed::FOLLOWED_FOR,
    span::{Kind, Span, Value},
};
use crate::clock::Now;

/// A moment on both clocks, so that what comes behind it has a date as exact as the monotonic clock.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    instant: Instant,
    unix_ns: u64,
}

impl Begun {
    pub fn at(now: Now) -> Self {
        Self { instant: now.instant, unix_ns: now.unix_ms.saturating_mul(1_000_000) }
    }

    pub fn unix_ns(self, instant: Instant) -> u64 {
        self.unix_ns.saturating_add(nanoseconds(instant.saturating_duration_since(self.instant)))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// An event that was applied, and whose frames are followed.
pub struct Delivery {
    span: Span,
    begun: Begun,
    sessions: AtomicU64,
    /// Nanoseconds since it begun.
    first_ns: AtomicU64,
    last_ns: AtomicU64,
}

impl Delivery {
    /// Of the event that `process` is the span of.
    pub(super) fn new(process: &Span, task_id: &str, begun: Begun) -> Self {
        let mut span = Span::within(process, "deliver".to_owned(), Kind::Internal);
        span.set("taskcast.task_id", Value::Text(task_id.to_owned()));
        let (sessions, last_ns) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { span, begun, sessions, first_ns: AtomicU64::new(u64::MAX), last_ns }
    }

    /// Its frame was written to one more session. Too late is not counted, whenever the sweep comes.
    fn written(&self, now: Instant) {
        let since = self.age(now);
        if since > FOLLOWED_FOR {
            return;
        }
        let since = nanoseconds(since);
        self.sessions.fetch_add(1, Ordering::Relaxed);
        self.first_ns.fetch_min(since, Ordering::Relaxed);
        self.last_ns.fetch_max(since, Ordering::Relaxed);
    }

    pub(super) fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun.instant)
    }

    /// From the event's beginning to the last write; `None` while nobody was told.
    pub(super) fn span(&self) -> Option<Span> {
        let sessions = self.sessions();
        let at = |since: &AtomicU64| self.begun.unix_ns.saturating_add(since.load(Ordering::Relaxed));
        let mut span = self.span.clone();
        span.set("taskcast.sessions", Value::Number(i64::try_from(sessions).unwrap_or(i64::MAX)));
        span.note(at(&self.first_ns), "first write");
        (sessions > 0).then(|| span.lasted(self.begun.unix_ns, at(&self.last_ns)))
    }
}

/// Deliveries that some written frames are part of; never empty. One pointer, as every connection has room for it.
#[derive(Clone)]
pub struct Traced(Arc<Vec<Arc<Delivery>>>);

/// Shows how many.
impl std::fmt::Debug for Traced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Traced").field(&self.0.len()).finish()
    }
}

impl Traced {
    pub(super) fn of(deliveries: impl Iterator<Item = Arc<Delivery>>) -> Option<Self> {
        let deliveries: Vec<_> = deliveries.collect();
        (!deliveries.is_empty()).then(|| Self(deliveries.into()))
    }

    /// The frames were written to one session.
    pub fn written(&self, now: Instant) {
        self.0.iter().for_each(|delivery| delivery.written(now));
    }
}
