//! What is counted of how tokens are checked: keys that are fetched and read again, questions to a provider.
//!
//! Refuses to know: tokens, keys.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::{
    Metrics,
    register::{counter, counters, gauge, gauges, histogram},
};

/// Where keys come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySource {
    File,
    /// An issuer's key set.
    Url,
}

/// How getting them went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefresh {
    /// They are in use.
    Changed,
    /// Those from before are kept.
    Failed,
}

/// How a question about an opaque token ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introspection {
    Good,
    Bad,
    TimedOut,
    Failed,
    /// Not asked: too many are waiting.
    Busy,
    /// Not asked: the provider is left alone for a while.
    Spared,
}

impl KeySource {
    fn label(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Url => "url",
        }
    }
}

impl KeyRefresh {
    fn label(self) -> &'static str {
        match self {
            Self::Changed => "ok",
            Self::Failed => "failed",
        }
    }
}

impl Introspection {
    const ALL: [Self; 6] = [Self::Good, Self::Bad, Self::TimedOut, Self::Failed, Self::Busy, Self::Spared];

    fn label(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::TimedOut => "timed_out",
            Self::Failed => "failed",
            Self::Busy => "busy",
            Self::Spared => "spared",
        }
    }
}

pub(super) struct AuthenticationMetrics {
    refreshes: IntCounterVec,
    fetched_at: IntGaugeVec,
    unavailable: IntCounter,
    introspections: IntCounterVec,
    introspection_seconds: Histogram,
    remembered: IntCounter,
    answers: IntGauge,
    breaker_open: IntGauge,
}

impl AuthenticationMetrics {
    pub(super) fn new(registry: &Registry, seconds: &[f64]) -> Self {
        let r = registry;
        let metrics = Self {
            refreshes: counters(
                r,
                "taskcast_key_refreshes_total",
                "Keys that were fetched, or read again because their files changed, by outcome.",
                &["source", "outcome"],
            ),
            fetched_at: gauges(
                r,
                "taskcast_keys_fetched_timestamp_seconds",
                "When an issuer's published keys were last fetched.",
                &["key_set"],
            ),
            unavailable: counter(
                r,
                "taskcast_authentication_unavailable_total",
                "Callers who were told to come back, because their tokens could not be checked.",
            ),
            introspections: counters(
                r,
                "taskcast_introspections_total",
                "Questions to the provider about opaque tokens, by outcome.",
                &["outcome"],
            ),
            introspection_seconds: histogram(
                r,
                "taskcast_introspection_seconds",
                "Time that the provider took to answer.",
                seconds,
            ),
            remembered: counter(
                r,
                "taskcast_introspections_remembered_total",
                "Opaque tokens that were not asked about, because the answer was remembered.",
            ),
            answers: gauge(r, "taskcast_introspection_answers", "Answers about opaque tokens that are remembered."),
            breaker_open: gauge(
                r,
                "taskcast_introspection_breaker_open",
                "1 while the provider is left alone, because it failed again and again.",
            ),
        };
        for source in [KeySource::File, KeySource::Url] {
            for outcome in [KeyRefresh::Changed, KeyRefresh::Failed] {
                metrics.refreshes.with_label_values(&[source.label(), outcome.label()]).inc_by(0);
            }
        }
        for outcome in Introspection::ALL {
            metrics.introspections.with_label_values(&[outcome.label()]).inc_by(0);
        }
        metrics
    }
}

impl Metrics {
    pub fn keys_refreshed(&self, source: KeySource, outcome: KeyRefresh) {
        self.authentication.refreshes.with_label_values(&[source.label(), outcome.label()]).inc();
    }

    /// `key_set` is a configured address without its query.
    pub fn keys_fetched(&self, key_set: &str, unix_ms: u64) {
        let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
        self.authentication.fetched_at.with_label_values(&[key_set]).set(seconds);
    }

    pub fn authentication_unavailable(&self) {
        self.authentication.unavailable.inc();
    }

    pub fn introspected(&self, outcome: Introspection) {
        self.authentication.introspections.with_label_values(&[outcome.label()]).inc();
    }

    pub fn introspection_took(&self, took: Duration) {
        self.authentication.introspection_seconds.observe(took.as_secs_f64());
    }

    pub fn introspection_remembered(&self) {
        self.authentication.remembered.inc();
    }

    pub fn introspection_state(&self, answers: usize, breaker_open: bool) {
        self.authentication.answers.set(i64::try_from(answers).unwrap_or(i64::MAX));
        self.authentication.breaker_open.set(i64::from(breaker_open));
    }
}
