//! The delivery canary in numbers: how old the newest is that came back, how long each took, which leg lost one.
//!
//! Refuses to know: who sends it, and when one is overdue.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounterVec, Registry};

use super::{
    Metrics,
    register::{counters, histogram, register},
};

/// The legs of a canary's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// To the log: the log did not confirm it.
    Append,
    /// From the log to the hub: it was confirmed, and the reader did not bring it.
    Tail,
    /// From the hub to a session: it was applied, and no session wrote it.
    Delivery,
}

impl Leg {
    const ALL: [Self; 3] = [Self::Append, Self::Tail, Self::Delivery];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Tail => "tail",
            Self::Delivery => "delivery",
        }
    }
}

pub(super) struct Canary {
    age_seconds: Gauge,
    seconds: Histogram,
    failures: IntCounterVec,
}

impl Canary {
    pub(super) fn new(registry: &Registry, buckets: &[f64]) -> Self {
        let age = Gauge::new(
            "taskcast_canary_age_seconds",
            "Since the newest delivery canary that came back was sent, or since the start; 0 when it is off.",
        );
        let failures = counters(
            registry,
            "taskcast_canary_failures_total",
            "Delivery canaries that did not come back, by the leg that lost them.",
            &["leg"],
        );
        for leg in Leg::ALL {
            failures.with_label_values(&[leg.as_str()]).inc_by(0);
        }
        let seconds = histogram(
            registry,
            "taskcast_canary_seconds",
            "From sending a delivery canary to reading it from a session of this replica.",
            buckets,
        );
        Self { age_seconds: register(registry, age), seconds, failures }
    }
}

impl Metrics {
    pub fn canary_age(&self, age: Duration) {
        self.canary.age_seconds.set(age.as_secs_f64());
    }

    pub fn canary_came_back(&self, took: Duration) {
        self.canary.seconds.observe(took.as_secs_f64());
    }

    pub fn canary_failed(&self, leg: Leg) {
        self.canary.failures.with_label_values(&[leg.as_str()]).inc();
    }
}
