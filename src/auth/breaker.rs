//! A circuit breaker: a provider that fails again and again is left alone for a while, and asked once before it is asked
//! by all again. So callers hear at once that nobody can tell, and the provider is not held down by their questions.
//!
//! Refuses to know: clocks, what is asked.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES_MAX: u32 = 5;

/// How long it stays open.
const OPEN_FOR: Duration = Duration::from_secs(5);

/// Whether questions are let through.
#[derive(Debug)]
pub(super) enum Breaker {
    /// They are.
    Closed { failures: u32 },
    /// They are not, until then.
    Open { until: Instant },
    /// One is, and decides.
    Trying,
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// May this question be asked? Who is told yes says how it went.
    pub fn admits(&mut self, now: Instant) -> bool {
        match self {
            Self::Closed { .. } => true,
            Self::Open { until } if now < *until => false,
            Self::Open { .. } => {
                *self = Self::Trying;
                true
            }
            Self::Trying => false,
        }
    }

    /// How a question went; true when it is the first to fail, or has opened it.
    pub fn record(&mut self, succeeded: bool, now: Instant) -> bool {
        if succeeded {
            *self = Self::default();
            return false;
        }
        match self {
            Self::Closed { failures } if *failures + 1 < FAILURES_MAX => {
                *failures += 1;
                return *failures == 1;
            }
            // A question from before it opened.
            Self::Open { .. } => return false,
            Self::Closed { .. } | Self::Trying => {}
        }
        *self = Self::Open { until: now + OPEN_FOR };
        true
    }

    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }

    /// One question is under way that decides.
    pub fn is_trying(&self) -> bool {
        matches!(self, Self::Trying)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_after_one_good_answer() {
        let mut now = clock::now().instant;
        let mut breaker = Breaker::default();
        for round in 0..2 {
            for failure in 1..FAILURES_MAX {
                assert!(breaker.admits(now) && breaker.is_closed(), "only failures in a row count");
                assert_eq!(breaker.record(false, now), failure == 1);
            }
            if round == 0 {
                breaker.record(true, now);
            }
        }
        assert!(breaker.record(false, now) && !breaker.admits(now) && !breaker.is_closed());
        now += OPEN_FOR;
        assert!(breaker.admits(now) && !breaker.admits(now), "one is let through");
        assert!(breaker.record(false, now) && !breaker.admits(now));
        now += OPEN_FOR;
        assert!(breaker.admits(now));
        breaker.record(true, now);
        assert!(breaker.is_closed() && breaker.admits(now) && breaker.admits(now));
    }
}
