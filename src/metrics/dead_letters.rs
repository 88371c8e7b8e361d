//! What became of the log's malformed entries after they were counted as such.
//!
//! Refuses to know: what a dead letter holds.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::{
    Metrics,
    register::{counter, counters, gauge},
};
use crate::proto::MalformedReason;

/// The label of a reason that this version does not know.
const OTHER: &str = "other";

pub(super) struct DeadLetterMetrics {
    set_aside: IntCounterVec,
    dropped: IntCounter,
    failures: IntCounter,
    waiting: IntGauge,
}

impl DeadLetterMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        let set_aside = counters(
            r,
            "taskcast_dead_letters_total",
            "Malformed events that this replica set aside, by reason. Each is set aside by one replica, once, and counted if \
             the broker confirmed it.",
            &["reason"],
        );
        for reason in MalformedReason::ALL.map(MalformedReason::as_str).into_iter().chain([OTHER]) {
            set_aside.with_label_values(&[reason]).inc_by(0);
        }
        Self {
            set_aside,
            dropped: counter(
                r,
                "taskcast_dead_letters_dropped_total",
                "Malformed events that this replica passed over, because too many were waiting to be set aside; another may \
                 have set them aside.",
            ),
            failures: counter(
                r,
                "taskcast_dead_letter_failures_total",
                "Attempts to set dead letters aside that failed; they are tried again.",
            ),
            waiting: gauge(r, "taskcast_dead_letters_waiting", "Dead letters that wait to be set aside."),
        }
    }
}

impl Metrics {
    pub fn dead_letter_set_aside(&self, reason: &str) {
        let known = MalformedReason::ALL.map(MalformedReason::as_str).contains(&reason);
        self.dead_letters.set_aside.with_label_values(&[if known { reason } else { OTHER }]).inc();
    }

    pub fn dead_letters_dropped(&self, count: u64) {
        self.dead_letters.dropped.inc_by(count);
    }

    pub fn dead_letter_failure(&self) {
        self.dead_letters.failures.inc();
    }

    pub fn dead_letters_waiting(&self, change: i64) {
        self.dead_letters.waiting.add(change);
    }
}
