//! What is counted of exported spans. Refuses to know: what is in them.

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::{
    Metrics,
    register::{counter, counters},
};

/// Why a span was not exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanDrop {
    /// Too many waited.
    Full,
    /// The collector does not want it.
    Refused,
    /// The service ended before the collector took it.
    Shutdown,
}

impl SpanDrop {
    const ALL: [Self; 3] = [Self::Full, Self::Refused, Self::Shutdown];

    fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Refused => "refused",
            Self::Shutdown => "shutdown",
        }
    }
}

pub(super) struct Spans {
    exported: IntCounter,
    dropped: IntCounterVec,
}

impl Spans {
    pub(super) fn new(registry: &Registry) -> Self {
        let exported = counter(registry, "taskcast_spans_exported_total", "Spans that the collector has taken.");
        let dropped =
            counters(registry, "taskcast_spans_dropped_total", "Spans that were not exported, by reason.", &["reason"]);
        for reason in SpanDrop::ALL {
            dropped.with_label_values(&[reason.label()]).inc_by(0);
        }
        Self { exported, dropped }
    }
}

impl Metrics {
    pub fn spans_exported(&self, count: usize) {
        self.spans.exported.inc_by(count as u64);
    }

    pub fn spans_dropped(&self, reason: SpanDrop, count: usize) {
        self.spans.dropped.with_label_values(&[reason.label()]).inc_by(count as u64);
    }
}
