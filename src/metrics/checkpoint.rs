//! What is counted of checkpoints: what became of each attempt to write or read one, how old and how large the newest is,
//! how long the hub stood still for it, and how many events a start had to read.
//!
//! Refuses to know: what is in a checkpoint.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounterVec, IntGauge, Registry};

use super::{
    Metrics,
    register::{counters, gauge, histogram, register},
};

/// What became of an attempt to write a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointWrite {
    Written,
    /// The newest one is recent enough, or nothing has happened since.
    NotDue,
    /// Another replica is writing.
    Busy,
    /// This replica is not up to date itself.
    NotReady,
    /// Beyond `checkpoint.max_bytes`.
    TooLarge,
    Failed,
}

impl CheckpointWrite {
    const ALL: [Self; 6] = [Self::Written, Self::NotDue, Self::Busy, Self::NotReady, Self::TooLarge, Self::Failed];

    fn label(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::NotDue => "not_due",
            Self::Busy => "busy",
            Self::NotReady => "not_ready",
            Self::TooLarge => "too_large",
            Self::Failed => "failed",
        }
    }
}

/// What became of the checkpoint at a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointLoad {
    Loaded,
    Absent,
    Corrupt,
    /// Of a later version of taskcast.
    Newer,
    TooLarge,
    Failed,
    /// It was loaded, and the log turned out to be another one.
    AnotherLog,
    /// It was loaded, and the log no longer reaches back to it.
    Trimmed,
}

impl CheckpointLoad {
    const ALL: [Self; 8] = [
        Self::Loaded,
        Self::Absent,
        Self::Corrupt,
        Self::Newer,
        Self::TooLarge,
        Self::Failed,
        Self::AnotherLog,
        Self::Trimmed,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Absent => "absent",
            Self::Corrupt => "corrupt",
            Self::Newer => "newer",
            Self::TooLarge => "too_large",
            Self::Failed => "failed",
            Self::AnotherLog => "another_log",
            Self::Trimmed => "trimmed",
        }
    }
}

/// The series of checkpoints.
pub(super) struct CheckpointMetrics {
    writes: IntCounterVec,
    loads: IntCounterVec,
    written_at: Gauge,
    bytes: IntGauge,
    tasks: IntGauge,
    export_seconds: Histogram,
    write_seconds: Histogram,
    load_seconds: Gauge,
    replayed_events: IntGauge,
}

impl CheckpointMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        let seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
        let plain = |name: &str, help: &str| register(r, Gauge::new(name, help));
        let metrics = Self {
            writes: counters(
                r,
                "taskcast_checkpoint_writes_total",
                "Attempts of this replica to write a checkpoint, by outcome.",
                &["outcome"],
            ),
            loads: counters(
                r,
                "taskcast_checkpoint_loads_total",
                "Checkpoints read by this replica, by outcome; another_log and trimmed come after loaded.",
                &["outcome"],
            ),
            written_at: plain(
                "taskcast_checkpoint_written_timestamp_seconds",
                "When the newest known checkpoint was written, by whichever replica, as Unix time; 0: none is known.",
            ),
            bytes: gauge(r, "taskcast_checkpoint_bytes", "Size of the newest known checkpoint."),
            tasks: gauge(
                r,
                "taskcast_checkpoint_tasks",
                "Tasks in the checkpoint that this replica wrote or read last.",
            ),
            export_seconds: histogram(
                r,
                "taskcast_checkpoint_export_seconds",
                "Time for which no event was applied, because the state was taken out for a checkpoint.",
                &seconds,
            ),
            write_seconds: histogram(
                r,
                "taskcast_checkpoint_write_seconds",
                "Time to write a checkpoint, beside the applying of events.",
                &seconds,
            ),
            load_seconds: plain(
                "taskcast_checkpoint_load_seconds",
                "Time that this replica took to read a checkpoint.",
            ),
            replayed_events: gauge(
                r,
                "taskcast_replayed_events",
                "Events that this replica read from the log until it was up to date, since its start or the last restart \
                 of the log.",
            ),
        };
        for outcome in CheckpointWrite::ALL {
            metrics.writes.with_label_values(&[outcome.label()]).inc_by(0);
        }
        for outcome in CheckpointLoad::ALL {
            metrics.loads.with_label_values(&[outcome.label()]).inc_by(0);
        }
        metrics
    }
}

impl Metrics {
    pub fn checkpoint_write(&self, outcome: CheckpointWrite) {
        self.checkpoint.writes.with_label_values(&[outcome.label()]).inc();
    }

    pub fn checkpoint_written(&self, took: Duration) {
        self.checkpoint.write_seconds.observe(took.as_secs_f64());
    }

    pub fn checkpoint_load(&self, outcome: CheckpointLoad) {
        self.checkpoint.loads.with_label_values(&[outcome.label()]).inc();
    }

    pub fn checkpoint_loaded(&self, took: Duration) {
        self.checkpoint.load_seconds.set(took.as_secs_f64());
    }

    /// The newest checkpoint that this replica knows of.
    pub fn checkpoint_newest(&self, written_at_ms: u64, bytes: u64) {
        self.checkpoint.written_at.set(written_at_ms as f64 / 1_000.0);
        self.checkpoint.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub fn checkpoint_tasks(&self, tasks: usize) {
        self.checkpoint.tasks.set(i64::try_from(tasks).unwrap_or(i64::MAX));
    }

    pub fn checkpoint_exported(&self, took: Duration) {
        self.checkpoint.export_seconds.observe(took.as_secs_f64());
    }

    /// So many events were read until the hub was up to date.
    pub fn replayed(&self, events: u64) {
        self.checkpoint.replayed_events.set(i64::try_from(events).unwrap_or(i64::MAX));
    }
}
