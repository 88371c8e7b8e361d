//! What is counted of load and of its limits: what tasks weigh, whether memory is short, readers that were dropped.
//!
//! Refuses to know: what the limits are.

use prometheus::{IntCounter, IntGauge, Registry};

use super::{
    Metrics,
    register::{counter, gauge},
};

pub(super) struct Overload {
    tasks_bytes: IntGauge,
    memory_bytes: IntGauge,
    memory_max_bytes: IntGauge,
    overloaded: IntGauge,
    readers_dropped: IntCounter,
}

impl Overload {
    pub(super) fn new(registry: &Registry) -> Self {
        let r = registry;
        Self {
            tasks_bytes: gauge(r, "taskcast_tasks_bytes", "What the tasks held now take in memory, by estimate."),
            memory_bytes: gauge(r, "taskcast_memory_bytes", "Resident memory, as admission control last read it."),
            memory_max_bytes: gauge(
                r,
                "taskcast_memory_max_bytes",
                "Resident memory beyond which nothing new is admitted; 0 without a limit.",
            ),
            overloaded: gauge(r, "taskcast_overloaded", "1 while nothing new is admitted because memory is short."),
            readers_dropped: counter(
                r,
                "taskcast_readers_dropped_total",
                "WebSocket connections dropped because the client did not read, or too slowly.",
            ),
        }
    }
}

impl Metrics {
    pub fn tasks_bytes(&self, bytes: usize) {
        self.overload.tasks_bytes.set(whole(bytes as u64));
    }

    /// Resident memory and its limit were read.
    pub fn memory(&self, bytes: u64, max_bytes: u64) {
        self.overload.memory_bytes.set(whole(bytes));
        self.overload.memory_max_bytes.set(whole(max_bytes));
    }

    pub fn overloaded(&self, overloaded: bool) {
        self.overload.overloaded.set(i64::from(overloaded));
    }

    pub fn reader_dropped(&self) {
        self.overload.readers_dropped.inc();
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
