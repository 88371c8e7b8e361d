//! Whether the replica may get clients, as a number. Refuses to know: what it depends on.

use prometheus::{IntGauge, Registry};

use super::{Metrics, register::gauge};

pub(super) struct Readiness {
    ready: IntGauge,
}

impl Readiness {
    pub(super) fn new(registry: &Registry) -> Self {
        Self { ready: gauge(registry, "taskcast_ready", "1 while `/readyz` answers 200, as of this scrape.") }
    }
}

impl Metrics {
    pub fn ready(&self, ready: bool) {
        self.readiness.ready.set(i64::from(ready));
    }
}
