//! Who failed too often is not listened to for a while.
//!
//! Refuses to know: what they failed at.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Key, generations::Generations, rate::Rate};

/// Failures, and whom they got banned.
pub(super) struct Bans {
    failures: Rate,
    lasting: Duration,
    /// Until when.
    banned: Mutex<Generations<Key, Instant>>,
    since: Instant,
    /// When the last ban ends, in milliseconds from `since`: whoever asks later need not wait for the lock.
    last_ends_ms: AtomicU64,
}

impl Bans {
    pub(super) fn new(failures: Rate, lasting: Duration, keys_max: usize, now: Instant) -> Self {
        let banned = Mutex::new(Generations::new(keys_max, lasting, now));
        Self { failures, lasting, banned, since: now, last_ends_ms: AtomicU64::new(0) }
    }

    fn milliseconds(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.since).as_millis()).unwrap_or(u64::MAX)
    }

    /// Counts a failure; true when it was one too many.
    pub(super) fn failed(&self, key: Key, now: Instant) -> bool {
        if self.failures.take(key, 1, now).is_ok() {
            return false;
        }
        let until = now + self.lasting;
        let mut banned = self.banned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = banned.get(&key, now).is_none_or(|until| *until <= now);
        banned.put(&key, until, now);
        self.last_ends_ms.fetch_max(self.milliseconds(until) + 1, Ordering::Relaxed);
        is_new
    }

    /// How much of its ban a key has still to sit out.
    pub(super) fn left(&self, key: Key, now: Instant) -> Option<Duration> {
        if self.milliseconds(now) > self.last_ends_ms.load(Ordering::Relaxed) {
            return None;
        }
        let mut banned = self.banned.lock().unwrap_or_else(PoisonError::into_inner);
        let until = *banned.get(&key, now)?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        clock,
        metrics::{Limit, Metrics},
    };

    const BAN: Duration = Duration::from_secs(300);

    fn bans(per_minute: u32, now: Instant) -> Bans {
        let metrics = Arc::new(Metrics::new("memory"));
        let failures = Rate::new(per_minute, 100, Limit::FailedAuthenticationsPerIp, &metrics, now).unwrap();
        Bans::new(failures, BAN, 100, now)
    }

    #[test]
    fn one_failure_too_many_is_a_ban_that_ends_by_itself() {
        let now = clock::now().instant;
        let bans = bans(3, now);
        assert_eq!([(); 4].map(|()| bans.failed(Key(1), now)), [false, false, false, true]);
        assert_eq!(bans.left(Key(1), now), Some(BAN));
        assert_eq!(bans.left(Key(2), now), None);
        assert_eq!(bans.left(Key(1), now + Duration::from_secs(299)), Some(Duration::from_secs(1)));
        assert_eq!(bans.left(Key(1), now + BAN), None);
        // And it all begins again.
        let later = now + BAN;
        assert_eq!([(); 4].map(|()| bans.failed(Key(1), later)), [false, false, false, true]);
    }

    #[test]
    fn an_hour_of_guessing_gets_a_few_guesses_for_each_ban() {
        let start = clock::now().instant;
        let bans = bans(30, start);
        let (mut guesses, mut banned) = (0, 0);
        for tick in 0..36_000 {
            let now = start + Duration::from_millis(100 * tick);
            if bans.left(Key(1), now).is_none() {
                guesses += 1;
                banned += u32::from(bans.failed(Key(1), now));
            }
        }
        // 31 guesses take 3 s and some more that come back meanwhile, and then 300 s of silence: 12 times in an hour.
        assert_eq!(banned, 12);
        assert!((12 * 31..12 * 34).contains(&guesses), "{guesses}");
    }

    #[test]
    fn an_hour_of_failures_below_the_rate_bans_nobody() {
        let start = clock::now().instant;
        let bans = bans(30, start);
        for tick in 0..1_800 {
            let now = start + Duration::from_secs(2 * tick);
            assert!(!bans.failed(Key(1), now) && bans.left(Key(1), now).is_none());
        }
    }

    #[test]
    fn a_flood_of_addresses_that_fail_takes_no_more_room_than_there_is() {
        let now = clock::now().instant;
        let bans = bans(1, now);
        for key in 0..10_000 {
            bans.failed(Key(key), now);
            bans.failed(Key(key), now);
        }
        assert!(bans.banned.lock().unwrap().len() <= 100);
    }
}
