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
    /// How many times the log became connected: which of them something was found out in.
    connections: u64,
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
            known.connections += 1;
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

    /// The connection that the log has, or had last; for [`Reporter::replayed`].
    pub(super) fn connection(&self) -> u64 {
        self.known(|known| known.connections)
    }

    /// Found out in that connection. It may be gone by now, for what is found out waits behind the records before it: then
    /// it says nothing of what the log took since.
    pub(super) fn replayed(&self, replayed: bool, connection: u64) {
        self.change(|health| {
            let is_current = health.connected && connection == self.connection();
            if replayed && is_current {
                self.lag(Lag::default());
            }
            (health.replayed, health.caught_up) = (replayed, replayed && is_current);
        });
    }

    pub(super) fn restarted(&self, reason: RestartReason) {
        tracing::warn!(reason = reason.label(), "the log is read again from its start; older cursors are refused");
        self.metrics.log_restarted(reason.label());
        self.replayed(false, self.connection());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_out_before_the_connection_was_lost_does_not_make_the_next_one_caught_up() {
        let reporter = Reporter::new(Arc::new(Metrics::new("memory")));
        let health = || reporter.watch().borrow().clone();
        reporter.connected("first".to_owned());
        let first = reporter.connection();
        reporter.trouble(&Trouble::Lost("gone".to_owned()));
        reporter.replayed(true, first);
        assert!(health().replayed && !health().caught_up, "while it is away");
        reporter.connected("second".to_owned());
        assert!(!health().caught_up, "once it is back");
        reporter.replayed(true, first);
        assert!(health().replayed && !health().caught_up, "told late");
        reporter.replayed(true, reporter.connection());
        assert!(health().caught_up);
    }
}
