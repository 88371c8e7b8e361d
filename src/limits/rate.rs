//! How often something may happen: a number at once, and as many again per minute (GCRA, by the library `governor`). The
//! time is an argument, so that a test sees an hour pass in a moment.
//!
//! Refuses to know: who is counted, and what for.

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed, StateStore},
};

use super::{Key, generations::Generations};
use crate::metrics::{Limit, Metrics};

/// In this time every number comes back, so a cell that was not touched for as long is as good as new.
const PERIOD: Duration = Duration::from_mins(1);

/// The library asks a clock; this one says what it was told, in nanoseconds since the limiter was made.
struct Told {
    since: Instant,
    nanos: AtomicU64,
}

impl Told {
    /// Never backwards: threads may come in another order than they looked at the clock.
    fn tell(&self, now: Instant) {
        let nanos = u64::try_from(now.saturating_duration_since(self.since).as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_max(nanos, Ordering::Relaxed);
    }

    fn instant(&self) -> Instant {
        self.since + Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

impl Clock for Told {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.nanos.load(Ordering::Relaxed).into()
    }
}

/// Shared by the library and the cells.
struct Shared(Arc<Told>);

impl Clock for Shared {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.now()
    }
}

/// The cells of all keys; whoever comes under many names does not make them grow.
struct Cells {
    by_key: Mutex<Generations<Key, Nanos>>,
    told: Arc<Told>,
    limit: Limit,
    metrics: Arc<Metrics>,
}

impl StateStore for Cells {
    type Key = Key;

    fn measure_and_replace<T, F, E>(&self, key: &Key, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let now = self.told.instant();
        let mut cells = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let before = cells.len();
        // Who is refused was looked up too, and so is remembered for as long as it goes on.
        let known = cells.get(key, now).copied();
        let decided = decide(known).map(|(outcome, next)| {
            cells.put(key, next, now);
            outcome
        });
        if cells.len() != before {
            self.metrics.limit_keys(self.limit, cells.len(), cells.take_forgotten());
        }
        decided
    }
}

/// A rate for each of many keys.
pub(super) struct Rate {
    limiter: RateLimiter<Key, Cells, Shared, NoOpMiddleware<Nanos>>,
    told: Arc<Told>,
}

impl Rate {
    /// `None` when there is no limit: 0.
    pub(super) fn new(
        per_minute: u32,
        keys_max: usize,
        limit: Limit,
        metrics: &Arc<Metrics>,
        now: Instant,
    ) -> Option<Self> {
        let quota = Quota::per_minute(NonZeroU32::new(per_minute)?);
        let told = Arc::new(Told { since: now, nanos: AtomicU64::new(0) });
        let by_key = Mutex::new(Generations::new(keys_max, PERIOD, now));
        let cells = Cells { by_key, told: told.clone(), limit, metrics: metrics.clone() };
        Some(Self { limiter: RateLimiter::new(quota, cells, Shared(told.clone())), told })
    }

    /// Takes so many at once, or none.
    ///
    /// # Errors
    /// How long it takes until there are as many.
    pub(super) fn take(&self, key: Key, count: u32, now: Instant) -> Result<(), Duration> {
        let Some(count) = NonZeroU32::new(count) else { return Ok(()) };
        self.told.tell(now);
        let taken = self.limiter.check_key_n(&key, count);
        // More than there can ever be; the configuration sees to it that this is nobody's normal case.
        taken.map_err(|_| PERIOD)?.map_err(|until| until.wait_time_from(self.told.now()))
    }
}

/// A rate for one connection, small enough to have one in each.
pub(super) struct Meter(RateLimiter<NotKeyed, InMemoryState, Told, NoOpMiddleware<Nanos>>);

impl Meter {
    /// `None` when there is no limit: 0.
    pub(super) fn new(per_minute: u32, now: Instant) -> Option<Self> {
        let quota = Quota::per_minute(NonZeroU32::new(per_minute)?);
        let told = Told { since: now, nanos: AtomicU64::new(0) };
        Some(Self(RateLimiter::new(quota, InMemoryState::default(), told)))
    }

    /// False when there are not as many.
    pub(super) fn take(&self, count: u32, now: Instant) -> bool {
        let Some(count) = NonZeroU32::new(count) else { return true };
        self.0.clock().tell(now);
        matches!(self.0.check_n(count), Ok(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{self, Now};

    fn rate(per_minute: u32, now: Now) -> Rate {
        Rate::new(per_minute, 1_000, Limit::HandshakesPerIp, &Arc::new(Metrics::new("memory")), now.instant).unwrap()
    }

    /// How many of these attempts, one per `every`, are let through within `lasting`.
    fn let_through(mut take: impl FnMut(Instant) -> bool, start: Instant, every: Duration, lasting: Duration) -> u32 {
        let mut at = Duration::ZERO;
        let mut count = 0;
        while at < lasting {
            count += u32::from(take(start + at));
            at += every;
        }
        count
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn an_hour_of_attempts_gets_the_burst_and_then_the_rate_and_no_more() {
        let now = clock::now();
        for per_minute in [1, 7, 60, 600] {
            let rate = rate(per_minute, now);
            let every = Duration::from_millis(50);
            let count = let_through(|at| rate.take(Key(1), 1, at).is_ok(), now.instant, every, HOUR);
            let expected = per_minute + 60 * per_minute;
            assert!(count.abs_diff(expected) <= 1, "{count} instead of {expected}");
        }
    }

    #[test]
    fn attempts_at_the_rate_are_never_refused_in_an_hour() {
        let now = clock::now();
        let rate = rate(60, now);
        let every = Duration::from_secs(1);
        assert_eq!(let_through(|at| rate.take(Key(1), 1, at).is_ok(), now.instant, every, HOUR), 3_600);
    }

    #[test]
    fn the_burst_comes_back_within_a_minute_of_silence_and_never_more_than_once() {
        let now = clock::now();
        let rate = rate(60, now);
        for minutes in [0, 1, 2, 61] {
            let at = now.instant + Duration::from_mins(minutes);
            let burst = (0..1_000).filter(|_| rate.take(Key(1), 1, at).is_ok()).count();
            assert_eq!(burst, 60, "after {minutes} minutes");
        }
    }

    #[test]
    fn who_is_told_to_wait_is_let_through_then_and_not_before() {
        let now = clock::now();
        let rate = rate(60, now);
        assert_eq!(rate.take(Key(1), 60, now.instant), Ok(()));
        let wait = rate.take(Key(1), 30, now.instant).unwrap_err();
        assert_eq!(wait.as_secs(), 30);
        let almost = wait.saturating_sub(Duration::from_millis(1));
        assert!(rate.take(Key(1), 30, now.instant + almost).is_err());
        assert_eq!(rate.take(Key(1), 30, now.instant + wait), Ok(()));
        // More than there can be at once is refused with words, not for ever with a shrug.
        assert_eq!(rate.take(Key(1), 61, now.instant + HOUR), Err(PERIOD));
    }

    #[test]
    fn keys_do_not_share_and_a_flood_of_them_does_not_free_who_goes_on() {
        let now = clock::now();
        let rate = rate(60, now);
        assert_eq!(rate.take(Key(0), 60, now.instant), Ok(()));
        for stranger in 1..100_000 {
            assert_eq!(rate.take(Key(stranger), 60, now.instant), Ok(()));
            assert!(rate.take(Key(0), 1, now.instant).is_err(), "after {stranger} strangers");
        }
        assert!(rate.limiter.into_state_store().by_key.into_inner().unwrap().len() <= 1_000);
    }

    #[test]
    fn one_connections_meter_keeps_its_rate_for_an_hour() {
        let now = clock::now();
        let meter = Meter::new(600, now.instant).unwrap();
        let every = Duration::from_millis(20);
        let count = let_through(|at| meter.take(1, at), now.instant, every, HOUR);
        assert!(count.abs_diff(600 + 36_000) <= 1, "{count}");
        let bytes = Meter::new(1 << 20, now.instant).unwrap();
        let count = let_through(|at| bytes.take(4_096, at), now.instant, every, HOUR);
        assert!(count.abs_diff(61 * 256) <= 2, "{count}");
        assert!(size_of::<Meter>() <= 56, "{} bytes in each connection", size_of::<Meter>());
    }

    #[test]
    fn a_clock_that_is_read_out_of_order_gives_nothing_twice() {
        let now = clock::now();
        let rate = rate(60, now);
        let later = now.instant + Duration::from_secs(10);
        assert_eq!(rate.take(Key(1), 60, later), Ok(()));
        assert!(rate.take(Key(1), 1, now.instant).is_err());
        assert_eq!(rate.take(Key(1), 1, later + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn no_limit_is_none() {
        let now = clock::now().instant;
        assert!(Meter::new(0, now).is_none());
        assert!(Rate::new(0, 1, Limit::Bytes, &Arc::new(Metrics::new("memory")), now).is_none());
    }
}
