//! How long to wait before the next attempt to connect. Owns one counter; refuses to know what is attempted.

use std::time::Duration;

use crate::clock;

/// The first retry comes after at most this long: most losses are a restart of a proxy or a dropped socket.
const FIRST: Duration = Duration::from_millis(100);

/// Exponential, with full jitter, so that replicas that lost a broker together do not come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    limit: Duration,
    max: Duration,
}

impl Backoff {
    pub(super) fn new(max: Duration) -> Self {
        Self { limit: FIRST.min(max), max }
    }

    /// After a success: the next wait is a short one again.
    pub(super) fn reset(&mut self) {
        self.limit = FIRST.min(self.max);
    }

    /// The most that the next wait can take; doubles until the maximum.
    fn step(&mut self) -> Duration {
        let limit = self.limit;
        self.limit = limit.saturating_mul(2).min(self.max);
        limit
    }

    pub(super) async fn wait(&mut self) {
        let limit = self.step();
        // A refused connection fails in microseconds: without a floor, a lucky jitter would spin.
        tokio::time::sleep((limit / 10).max(clock::jitter(limit))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(500));
        let steps: Vec<u128> = (0..5).map(|_| backoff.step().as_millis()).collect();
        assert_eq!(steps, [100, 200, 400, 500, 500]);
        backoff.reset();
        assert_eq!(backoff.step().as_millis(), 100);
    }
}
