//! How long a session's token is good for: when its client is told that it ends, when it ends, and how long a fresh one
//! is waited for then.
//!
//! Refuses to know: tokens.

use std::time::{Duration, Instant};

use crate::clock::Now;

/// What is left of a token that ends sooner is of no use to its client: it is told when the token ends.
const LEAD_MIN: Duration = Duration::from_secs(1);

/// Where a session's token stands; each but the first until `due`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Term {
    /// Nothing is to be waited for.
    Endless,
    /// Good; the client is to be told that it ends.
    Good { due: Instant },
    /// The client knows.
    Told { due: Instant },
    /// It has ended; a fresh one is waited for.
    Over { due: Instant },
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Nothing,
    /// Tell the client that it ends.
    Tell,
    /// It has ended, and no fresh one came.
    End,
}

impl Term {
    pub(super) fn begin(expires_at_ms: Option<u64>, lead: Duration, now: Now) -> Self {
        match expires_at_ms {
            None => Self::Endless,
            // Whoever is not to be told counts as told.
            Some(at_ms) if lead.is_zero() => Self::Told { due: now.instant_at(at_ms) },
            Some(at_ms) => {
                // Whoever brings a token that lives shorter than the lead, again and again, is told each time: so not at once.
                let half = Duration::from_millis(at_ms.saturating_sub(now.unix_ms) / 2);
                let lead = if half < LEAD_MIN { Duration::ZERO } else { lead.min(half) };
                Self::Good { due: now.instant_at(before(at_ms, lead)) }
            }
        }
    }

    pub(super) fn due(self) -> Option<Instant> {
        match self {
            Self::Endless => None,
            Self::Good { due } | Self::Told { due } | Self::Over { due } => Some(due),
        }
    }

    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Over { .. })
    }

    /// The client was told of the end.
    pub(super) fn is_told(self, lead: Duration) -> bool {
        self.is_over() || (!lead.is_zero() && matches!(self, Self::Told { .. }))
    }

    /// Moves on as far as it is due, a step at a time; to be called again after a [`Turn::Tell`]. The wall clock decides:
    /// a timer goes no further than a year, and a machine may have slept.
    pub(super) fn turn(&mut self, expires_at_ms: u64, lead: Duration, grace: Duration, now: Now) -> Turn {
        match *self {
            Self::Good { due } if now.instant >= due => {
                let told_at_ms = before(expires_at_ms, lead);
                if now.unix_ms < told_at_ms {
                    *self = Self::Good { due: now.instant_at(told_at_ms) };
                    return Turn::Nothing;
                }
                *self = Self::Told { due: now.instant_at(expires_at_ms) };
                Turn::Tell
            }
            Self::Told { due } if now.instant >= due => {
                if now.unix_ms < expires_at_ms {
                    *self = Self::Told { due: now.instant_at(expires_at_ms) };
                    return Turn::Nothing;
                }
                *self = Self::Over { due: now.instant + grace };
                if grace.is_zero() { Turn::End } else { Turn::Nothing }
            }
            Self::Over { due } if now.instant >= due => Turn::End,
            _ => Turn::Nothing,
        }
    }
}

fn before(at_ms: u64, lead: Duration) -> u64 {
    at_ms.saturating_sub(u64::try_from(lead.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const LEAD: Duration = Duration::from_secs(60);
    const GRACE: Duration = Duration::from_secs(10);

    #[test]
    fn a_token_is_told_of_then_ends_then_is_waited_for() {
        let now = clock::now();
        let at_ms = now.unix_ms + 100_000;
        let mut term = Term::begin(Some(at_ms), LEAD, now);
        for (seconds, turn, is_over) in [
            (49, Turn::Nothing, false),
            (50, Turn::Tell, false),
            (99, Turn::Nothing, false),
            (100, Turn::Nothing, true),
            (109, Turn::Nothing, true),
            (110, Turn::End, true),
        ] {
            let now = now.after(Duration::from_secs(seconds));
            assert_eq!((term.turn(at_ms, LEAD, GRACE, now), term.is_over()), (turn, is_over), "{seconds}");
        }
    }

    #[test]
    fn a_token_that_lives_shorter_than_the_lead_is_told_of_at_half_of_its_time() {
        for (lives_ms, told_ms) in [(40_000, 20_000), (120_000, 60_000), (2_000, 1_000), (1_900, 1_900), (0, 0)] {
            let now = clock::now();
            let at_ms = now.unix_ms + lives_ms;
            let mut term = Term::begin(Some(at_ms), LEAD, now);
            if told_ms > 0 {
                let before = now.after(Duration::from_millis(told_ms - 1));
                assert_eq!(term.turn(at_ms, LEAD, GRACE, before), Turn::Nothing, "{lives_ms}");
            }
            assert_eq!(
                term.turn(at_ms, LEAD, GRACE, now.after(Duration::from_millis(told_ms))),
                Turn::Tell,
                "{lives_ms}"
            );
        }
    }

    #[test]
    fn a_token_of_decades_outlives_every_timer() {
        let now = clock::now();
        let year = Duration::from_secs(366 * 24 * 3600);
        let at_ms = now.after(30 * year).unix_ms;
        let mut term = Term::begin(Some(at_ms), LEAD, now);
        for years in 1..30 {
            let now = now.after(years * year);
            assert_eq!(term.turn(at_ms, LEAD, GRACE, now), Turn::Nothing, "{years}");
            assert!(term.due().is_some_and(|due| due > now.instant));
        }
        let now = now.after(30 * year);
        assert_eq!(term.turn(at_ms, LEAD, GRACE, now), Turn::Tell);
        assert_eq!((term.turn(at_ms, LEAD, GRACE, now), term.is_over()), (Turn::Nothing, true));
    }

    #[test]
    fn without_a_lead_nobody_is_told_and_without_a_grace_nobody_waited_for() {
        let now = clock::now();
        let at_ms = now.unix_ms + 1_000;
        let mut term = Term::begin(Some(at_ms), Duration::ZERO, now);
        assert_eq!(term.due(), Some(now.instant + Duration::from_secs(1)));
        assert_eq!(term.turn(at_ms, Duration::ZERO, Duration::ZERO, now.after(Duration::from_secs(1))), Turn::End);
        assert_eq!(Term::begin(None, LEAD, now).due(), None);
    }
}
