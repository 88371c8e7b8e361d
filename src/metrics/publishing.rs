//! What is counted of publishing over HTTP: events that the caller's token does not allow.
//!
//! Refuses to know: tokens.

use prometheus::{IntCounterVec, Registry};

use super::{Metrics, register::counters};

/// The limits that a token may have, as labels.
const LIMITS: [&str; 2] = ["user", "task_prefix"];

pub(super) struct Publishing {
    events_forbidden: IntCounterVec,
}

impl Publishing {
    pub(super) fn new(registry: &Registry) -> Self {
        let events_forbidden = counters(
            registry,
            "taskcast_events_forbidden_total",
            "Events over HTTP that are beyond a limit of the caller's right to publish, by the limit.",
            &["limit"],
        );
        for limit in LIMITS {
            events_forbidden.with_label_values(&[limit]).inc_by(0);
        }
        Self { events_forbidden }
    }
}

impl Metrics {
    pub fn event_forbidden(&self, limit: &'static str) {
        self.publishing.events_forbidden.with_label_values(&[limit]).inc();
    }
}
