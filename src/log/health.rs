//! How the reader of the log is doing: what readiness asks, what metrics show and what the operator reads. Owns the
//! rule that a state is logged when it changes, once. Refuses to know: brokers.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::sync::watch;

use super::RestartReason;
use crate::{
    clock,
    metrics::{Lag, Metrics},
};

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
    known: Mutex<Known>,
}

/// What is known between two changes of the health.
#[derive(Default)]
struct Known {
    /// There is a connection, whether it answers or not.
    linked: bool,
    /// As it was last told while the log answered.
    lag: Lag,
    /// Since when it does not.
    lost: Option<Instant>,
}

impl Known {
    fn away_seconds(&self) -> f64 {
        self.lost.map_or(0.0, |lost| clock::now().instant.saturating_duration_since(lost).as_secs_f64())
    }
}

impl Reporter {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let health =
            Health { connected: false, replayed: false, caught_up: false, detail: "not connected yet".to_owned() };
        Self { health: watch::Sender::new(health), metrics, known: Mutex::default() }
    }

    fn known<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
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
        self.known(|known| {
            known.linked = true;
            // What piled up meanwhile is not read yet: this lag stays until the reader tells another.
            known.lag.seconds += known.away_seconds();
            known.lost = None;
        });
        self.metrics.log_connected(true);
        self.change(|health| (health.connected, health.detail) = (true, detail));
    }

    pub(super) fn trouble(&self, trouble: &Trouble) {
        let words = trouble.words();
        let repeated = self.health.borrow().detail == words;
        if self.known(|known| std::mem::take(&mut known.linked)) {
            self.metrics.log_lost();
        }
        match trouble {
            _ if repeated => tracing::debug!(reason = words, "still no connection to the log"),
            Trouble::Lost(_) => tracing::warn!(reason = words, "no connection to the log; trying again"),
            Trouble::Misfit(_) => tracing::error!(reason = words, "the log cannot be used; trying again"),
        }
        self.away(words);
    }

    /// The connection is there, but the broker has been silent on it for longer than a living one is. Whoever waits for
    /// the answer goes on waiting, and says [`Reporter::connected`] once answers come in time again.
    pub(super) fn stalled(&self, words: &str) {
        if !self.health.borrow().connected {
            return;
        }
        tracing::warn!(reason = words, "the log does not answer; still waiting");
        self.metrics.log_stalled();
        self.away(words);
    }

    fn away(&self, words: &str) {
        self.known(|known| *known.lost.get_or_insert_with(|| clock::now().instant));
        self.metrics.log_connected(false);
        self.change(|health| {
            *health = Health { connected: false, caught_up: false, detail: words.to_owned(), ..health.clone() };
        });
    }

    /// While the log is away nothing is read and nobody knows how many events wait, but for how long is known.
    pub(super) fn tick(&self) {
        let lag = self.known(|known| Lag { seconds: known.lag.seconds + known.away_seconds(), ..known.lag });
        self.metrics.log_lag(lag);
    }

    pub(super) fn replayed(&self, replayed: bool) {
        if replayed {
            self.lag(Lag::default());
        }
        self.change(|health| (health.replayed, health.caught_up) = (replayed, replayed));
    }

    pub(super) fn restarted(&self, reason: RestartReason) {
        tracing::warn!(reason = reason.label(), "the log is read again from its start; older cursors are refused");
        self.metrics.log_restarted(reason.label());
        self.replayed(false);
    }

    pub(super) fn lag(&self, lag: Lag) {
        self.known(|known| known.lag = lag);
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
