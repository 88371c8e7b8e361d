//! What is counted of a log that is there and yet does not serve.
//!
//! Refuses to know: brokers.

use prometheus::{IntCounter, Registry};

use super::{Metrics, register::counter};

pub(super) struct LogFaults {
    stalls: IntCounter,
}

impl LogFaults {
    pub(super) fn new(registry: &Registry) -> Self {
        let help = "Times that the log went silent on an open connection.";
        Self { stalls: counter(registry, "taskcast_log_stalls_total", help) }
    }
}

impl Metrics {
    pub fn log_stalled(&self) {
        self.log_faults.stalls.inc();
    }
}
