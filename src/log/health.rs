//! How the reader of the log is doing: what readiness asks, what metrics show and what the operator reads. Owns the
//! rule that a state is logged when it changes, once. Refuses to know: brokers.

use std::sync::Arc;

use tokio::sync::watch;

use super::RestartReason;
use crate::metrics::{Lag, Metrics};

/// How the tail is doing; for readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub connected: bool,
    /// Everything that was in the log when the reader connected has been handed over.
    pub replayed: bool,
    /// The same, since the connection was last made: what the log took while it was away has been handed over too.
    pub caught_up: bool,
    /// For a person: why not, or where it stands. Holds no credentials.
    pub detail: String,
}

/// Why there is no connection, or none that is of use. The words are for the operator and hold no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Not there, or no longer; waiting may help.
    Lost(String),
    /// Somebody has to act: wrong credentials, another thing under the log's name.
    Misfit(String),
}

impl Trouble {
    pub(super) fn words(&self) -> &str {
        match self {
            Self::Lost(words) | Self::Misfit(words) => words,
        }
    }
}

/// Tells everyone how the reader is doing.
pub(super) struct Reporter {
    health: watch::Sender<Health>,
    metrics: Arc<Metrics>,
}

impl Reporter {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let health =
            Health { connected: false, replayed: false, caught_up: false, detail: "not connected yet".to_owned() };
        Self { health: watch::Sender::new(health), metrics }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn connected(&self, detail: String) {
        if self.health.borrow().connected {
            return;
        }
        tracing::info!(detail, "the log is connected");
        self.metrics.log_connected(true);
        self.change(|health| (health.connected, health.detail) = (true, detail));
    }

    pub(super) fn trouble(&self, trouble: &Trouble) {
        let words = trouble.words();
        let (was_connected, repeated) = {
            let health = self.health.borrow();
            (health.connected, health.detail == words)
        };
        if was_connected {
            self.metrics.log_lost();
        }
        match trouble {
            _ if repeated => tracing::debug!(reason = words, "still no connection to the log"),
            Trouble::Lost(_) => tracing::warn!(reason = words, "no connection to the log; trying again"),
            Trouble::Misfit(_) => tracing::error!(reason = words, "the log cannot be used; trying again"),
        }
        self.metrics.log_connected(false);
        self.change(|health| {
            *health = Health { connected: false, caught_up: false, detail: words.to_owned(), ..health.clone() };
        });
    }

    pub(super) fn replayed(&self, replayed: bool) {
        if replayed {
            self.metrics.log_lag(Lag::default());
        }
        self.change(|health| (health.replayed, health.caught_up) = (replayed, replayed));
    }

    pub(super) fn restarted(&self, reason: RestartReason) {
        tracing::warn!(reason = reason.label(), "the log is read again from its start; older cursors are refused");
        self.metrics.log_restarted(reason.label());
        self.replayed(false);
    }

    pub(super) fn lag(&self, lag: Lag) {
        self.metrics.log_lag(lag);
    }

    fn change(&self, change: impl FnOnce(&mut Health)) {
        self.health.send_if_modified(|health| {
            let before = health.clone();
            change(health);
            *health != before
        });
    }
}
