//! When clients are told that the service no longer hears from the log, and when that it does again. Pure: the time is
//! an argument.
//!
//! Refuses to know: sessions, brokers.

use std::time::{Duration, Instant};

use crate::{clock::Now, hub::Stale, log::Health};

/// A connection that comes back sooner is not worth a word: nobody has seen a bar stand still by then.
const PATIENCE: Duration = Duration::from_secs(1);

/// Follows the health of the log.
#[derive(Debug)]
pub(super) struct Freshness {
    /// When everything in the log had been read, last.
    fresh_until_ms: Option<u64>,
    /// Since when that is not so.
    behind_since: Option<Now>,
}

impl Freshness {
    pub(super) fn new(now: Now) -> Self {
        Self { fresh_until_ms: None, behind_since: Some(now) }
    }

    /// What clients are to know now.
    pub(super) fn observe(&mut self, health: &Health, now: Now) -> Option<Stale> {
        if health.connected && health.caught_up {
            *self = Self { fresh_until_ms: Some(now.unix_ms), behind_since: None };
            return None;
        }
        let since = *self.behind_since.get_or_insert(now);
        let long = now.instant >= since.instant + PATIENCE;
        long.then_some(Stale { fresh_until_ms: self.fresh_until_ms, since_ms: since.unix_ms })
    }

    /// When [`Freshness::observe`] says something new although nothing happens.
    pub(super) fn due(&self, now: Now) -> Option<Instant> {
        self.behind_since.map(|since| since.instant + PATIENCE).filter(|due| *due > now.instant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn health(connected: bool, caught_up: bool) -> Health {
        Health { connected, replayed: true, caught_up, detail: String::new() }
    }

    fn after(now: Now, ms: u64) -> Now {
        Now { instant: now.instant + Duration::from_millis(ms), unix_ms: now.unix_ms + ms }
    }

    #[test]
    fn a_short_interruption_is_not_worth_a_word() {
        let start = clock::now();
        let mut freshness = Freshness::new(start);
        assert_eq!(freshness.observe(&health(true, true), start), None);
        assert_eq!(freshness.observe(&health(false, false), after(start, 10)), None);
        assert_eq!(freshness.due(after(start, 10)), Some(after(start, 1_010).instant));
        assert_eq!(freshness.observe(&health(true, true), after(start, 900)), None);
        assert_eq!(freshness.due(after(start, 900)), None);
    }

    #[test]
    fn a_longer_one_says_until_when_everything_was_known_and_lasts_until_all_has_been_read() {
        let start = clock::now();
        let mut freshness = Freshness::new(start);
        freshness.observe(&health(true, true), start);
        freshness.observe(&health(false, false), after(start, 5));
        let stale = freshness.observe(&health(false, false), after(start, 1_005)).unwrap();
        assert_eq!(stale, Stale { fresh_until_ms: Some(start.unix_ms), since_ms: start.unix_ms + 5 });
        // Connected again, and still reading what it missed.
        assert_eq!(freshness.observe(&health(true, false), after(start, 9_000)), Some(stale));
        assert_eq!(freshness.observe(&health(true, true), after(start, 9_500)), None);
    }

    #[test]
    fn a_log_that_was_never_read_has_no_moment_of_truth() {
        let start = clock::now();
        let mut freshness = Freshness::new(start);
        let stale = freshness.observe(&health(false, false), after(start, 2_000)).unwrap();
        assert_eq!(stale.fresh_until_ms, None);
    }
}
