//! The one place that reads clocks and draws random numbers. Everything else is handed a [`Now`], so that a test can
//! say what time it is. Refuses to know: everything else.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// One reading of both clocks: the monotonic one for timers, the wall clock for what people and tokens say.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic; for deadlines and durations within this process.
    pub instant: Instant,
    /// Milliseconds since the Unix epoch; for timestamps on the wire and expiry claims.
    pub unix_ms: u64,
}

impl Now {
    /// This moment, moved forward by `by` on both clocks.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self {
            instant: self.instant + by,
            unix_ms: self.unix_ms.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// The monotonic instant at which the wall clock shows `unix_ms`, as far as can be told now.
    #[must_use]
    pub fn instant_at(self, unix_ms: u64) -> Instant {
        let ahead = Duration::from_millis(unix_ms.saturating_sub(self.unix_ms));
        // A claim a million years ahead must not overflow the monotonic clock: a year is as good as never.
        self.instant + ahead.min(Duration::from_secs(366 * 24 * 3600))
    }
}

/// Reads both clocks.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place that the ban points to")]
pub fn now() -> Now {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), unix_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX) }
}

/// A fresh, time-ordered identifier for a connection, a message or a replica.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place that the ban points to")]
pub fn unique_id() -> Uuid {
    Uuid::now_v7()
}

/// A random duration in `0..=limit`: full jitter for retries, so that replicas do not march in step.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place that the ban points to")]
pub fn jitter(limit: Duration) -> Duration {
    let random = u64::from_le_bytes(Uuid::new_v4().as_bytes()[8..].try_into().unwrap_or_default()) >> 2;
    limit.mul_f64(random as f64 / (1_u64 << 62) as f64)
}
