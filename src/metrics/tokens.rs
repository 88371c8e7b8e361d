//! What becomes of tokens on open connections: fresh ones that come, and revocations.
//!
//! Refuses to know: tokens.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::{
    Metrics,
    register::{counter, counters, gauge},
};

/// What became of a `refresh_token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    Refreshed,
    /// The verifier did not take it.
    Refused,
    AnotherUser,
    /// It could not be verified at the moment.
    Unavailable,
}

impl Refresh {
    const ALL: [Self; 4] = [Self::Refreshed, Self::Refused, Self::AnotherUser, Self::Unavailable];

    fn label(self) -> &'static str {
        match self {
            Self::Refreshed => "refreshed",
            Self::Refused => "refused",
            Self::AnotherUser => "another_user",
            Self::Unavailable => "unavailable",
        }
    }
}

pub(super) struct Tokens {
    refreshes: IntCounterVec,
    revocations: IntGauge,
    revocations_total: IntCounter,
    dropped: IntCounter,
    sessions_revoked: IntCounter,
}

impl Tokens {
    pub(super) fn new(registry: &Registry) -> Self {
        let refreshes = counters(
            registry,
            "taskcast_token_refreshes_total",
            "Fresh tokens sent on open connections, by what became of them.",
            &["outcome"],
        );
        for outcome in Refresh::ALL {
            refreshes.with_label_values(&[outcome.label()]).inc_by(0);
        }
        Self {
            refreshes,
            revocations: gauge(registry, "taskcast_revocations", "Revocations of tokens that are kept now."),
            revocations_total: counter(registry, "taskcast_revocations_total", "Revocations read from the log."),
            dropped: counter(
                registry,
                "taskcast_revocations_dropped_total",
                "Revocations let go of before their tokens expired, since there were too many (auth.revocations_max).",
            ),
            sessions_revoked: counter(
                registry,
                "taskcast_sessions_revoked_total",
                "Open connections that were ended since their token was revoked.",
            ),
        }
    }
}

impl Metrics {
    pub fn token_refresh(&self, outcome: Refresh) {
        self.tokens.refreshes.with_label_values(&[outcome.label()]).inc();
    }

    /// One was read; `dropped` others had to make room.
    pub fn revocation(&self, held: usize, dropped: usize) {
        self.tokens.revocations_total.inc();
        self.tokens.dropped.inc_by(dropped as u64);
        self.revocations_held(held);
    }

    pub fn revocations_held(&self, held: usize) {
        self.tokens.revocations.set(i64::try_from(held).unwrap_or(i64::MAX));
    }

    pub fn session_revoked(&self) {
        self.tokens.sessions_revoked.inc();
    }
}
