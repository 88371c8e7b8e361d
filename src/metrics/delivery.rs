//! What is counted of delivered frames. Whoever writes to many sockets in a row counts into a [`Tally`] of its own and
//! hands that over now and then: the shared counters cost more than the bookkeeping of a whole delivery.
//!
//! Refuses to know: sockets.

use std::{sync::Arc, time::Duration};

use prometheus::{
    Histogram, IntCounter, Registry,
    local::{LocalHistogram, LocalIntCounter},
};

use super::{
    Metrics,
    register::{counter, histogram},
};

pub(super) struct Delivery {
    frames_delivered: IntCounter,
    bytes_delivered: IntCounter,
    frames_conflated: IntCounter,
    pull_batch_frames: Histogram,
    event_to_socket_seconds: Histogram,
}

impl Delivery {
    pub(super) fn new(registry: &Registry, seconds: &[f64], sizes: &[f64]) -> Self {
        let r = registry;
        Self {
            frames_delivered: counter(r, "taskcast_frames_delivered_total", "Task frames written to sockets."),
            bytes_delivered: counter(
                r,
                "taskcast_bytes_delivered_total",
                "Bytes written to WebSockets and event streams.",
            ),
            frames_conflated: counter(
                r,
                "taskcast_frames_conflated_total",
                "Task frames that a session passed over because a newer one of the same task stood behind them.",
            ),
            pull_batch_frames: histogram(r, "taskcast_pull_batch_frames", "Task frames per pull of a session.", sizes),
            event_to_socket_seconds: histogram(
                r,
                "taskcast_event_to_socket_seconds",
                "From applying an event to having written its frame to a socket; the oldest frame of each write.",
                seconds,
            ),
        }
    }
}

impl Metrics {
    /// A write to a client's socket finished.
    pub fn written(&self, bytes: u64) {
        self.delivery.bytes_delivered.inc_by(bytes);
    }

    /// Task frames reached a socket; `waited` is the age of the oldest live one among them.
    pub fn frames_delivered(&self, frames: u64, waited: Option<Duration>) {
        self.delivery.frames_delivered.inc_by(frames);
        if let Some(waited) = waited {
            self.delivery.event_to_socket_seconds.observe(waited.as_secs_f64());
        }
    }

    pub fn pulled(&self, frames: usize, conflated: u64) {
        self.delivery.pull_batch_frames.observe(frames as f64);
        self.delivery.frames_conflated.inc_by(conflated);
    }

    /// Counts aside.
    #[must_use]
    pub fn tally(self: &Arc<Self>) -> Tally {
        Tally {
            metrics: self.clone(),
            frames_delivered: self.delivery.frames_delivered.local(),
            bytes_delivered: self.delivery.bytes_delivered.local(),
            frames_conflated: self.delivery.frames_conflated.local(),
            pull_batch_frames: self.delivery.pull_batch_frames.local(),
            event_to_socket_seconds: self.delivery.event_to_socket_seconds.local(),
            applied_ms: Vec::new(),
        }
    }
}

/// Counts of one who delivers; nobody sees them before they are handed over.
pub struct Tally {
    metrics: Arc<Metrics>,
    frames_delivered: LocalIntCounter,
    bytes_delivered: LocalIntCounter,
    frames_conflated: LocalIntCounter,
    pull_batch_frames: LocalHistogram,
    event_to_socket_seconds: LocalHistogram,
    /// Of frames that were written since [`Tally::written_by`] was called: when they were applied.
    applied_ms: Vec<u64>,
}

impl Tally {
    /// Does what is counted here end up there?
    #[must_use]
    pub fn is_of(&self, metrics: &Arc<Metrics>) -> bool {
        Arc::ptr_eq(&self.metrics, metrics)
    }

    /// Task frames were pulled, and written whole at once; `conflated` were passed over, and the first of those written
    /// was applied at `oldest_ms`.
    pub fn delivered(&mut self, frames: usize, bytes: usize, conflated: u64, oldest_ms: u64) {
        self.pull_batch_frames.observe(frames as f64);
        self.frames_delivered.inc_by(frames as u64);
        self.bytes_delivered.inc_by(bytes as u64);
        self.frames_conflated.inc_by(conflated);
        self.applied_ms.push(oldest_ms);
    }

    /// The time, read after the last few writes.
    pub fn written_by(&mut self, now_ms: u64) {
        for applied_ms in self.applied_ms.drain(..) {
            let waited = Duration::from_millis(now_ms.saturating_sub(applied_ms));
            self.event_to_socket_seconds.observe(waited.as_secs_f64());
        }
    }

    pub fn hand_over(&mut self) {
        self.frames_delivered.flush();
        self.bytes_delivered.flush();
        self.frames_conflated.flush();
        self.pull_batch_frames.flush();
        self.event_to_socket_seconds.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_aside_shows_once_it_is_handed_over() {
        let metrics = Arc::new(Metrics::new("memory"));
        let mut tally = metrics.tally();
        tally.delivered(3, 250, 2, 1_000);
        tally.written_by(1_002);
        assert!(metrics.render().unwrap().contains("taskcast_frames_delivered_total 0"));
        tally.hand_over();
        tally.hand_over();
        let shown = metrics.render().unwrap();
        for line in [
            "taskcast_frames_delivered_total 3",
            "taskcast_frames_conflated_total 2",
            "taskcast_bytes_delivered_total 250",
            "taskcast_pull_batch_frames_count 1",
            "taskcast_event_to_socket_seconds_count 1",
            "taskcast_event_to_socket_seconds_sum 0.002",
        ] {
            assert!(shown.contains(line), "{line}");
        }
    }
}
