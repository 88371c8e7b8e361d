//! Making metrics and putting them into a registry, in one step each.
//!
//! Refuses to know: which metrics there are.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector,
};

#[cfg(target_os = "linux")]
pub(super) fn register_process(registry: &Registry) {
    // Its own namespace; the only way for this to fail is a second one in the same registry.
    let _ = registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()));
}

#[cfg(not(target_os = "linux"))]
pub(super) fn register_process(_: &Registry) {}

#[expect(clippy::expect_used, reason = "names are literals below; the test that makes a Metrics shows a clash")]
pub(super) fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let metric = made.expect("a metric's name and labels are valid");
    registry.register(Box::new(metric.clone())).expect("a metric's name is taken once");
    metric
}

pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

pub(super) fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

pub(super) fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

pub(super) fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    register(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
}
