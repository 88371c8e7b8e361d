//! The end of all connections of this replica, spread over a window: each is told when its turn comes and is closed
//! then, so that those who come back do not all come back at once.
//!
//! Refuses to know: why the service ends.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

/// 2³² divided by the golden ratio. Its multiples, modulo 2³², fill the range evenly however many are taken: each falls
/// into the largest gap that the others left. So connections need not be counted before the first turn is given.
const GOLDEN_STEP: u32 = 0x9E37_79B9;

/// One per replica. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    begun: CancellationToken,
    /// When it began, and how long it lasts.
    window: OnceLock<(Instant, Duration)>,
    turns: AtomicU32,
}

impl Drain {
    /// Ends every connection within `window` from now. The first call counts.
    pub fn begin(&self, window: Duration, now: Instant) {
        let _ = self.0.window.set((now, window));
        self.0.begun.cancel();
    }

    /// Cancelled once it has begun.
    #[must_use]
    pub fn begun(&self) -> &CancellationToken {
        &self.0.begun
    }

    /// The next connection's turn. It lies in the window, which may be partly over: a connection that authenticates
    /// hears of the drain late. `None` before it has begun.
    pub(super) fn turn(&self) -> Option<Instant> {
        let (began_at, window) = *self.0.window.get()?;
        let turn = self.0.turns.fetch_add(1, Ordering::Relaxed).wrapping_mul(GOLDEN_STEP);
        Some(began_at + window.mul_f64(f64::from(turn) / f64::from(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn turns_are_spread_evenly_over_the_window_however_many_there_are() {
        for (connections, slack) in [(20_u32, 2), (300, 2), (5_000, 2)] {
            let drain = Drain::default();
            let now = clock::now().instant;
            drain.begin(Duration::from_secs(20), now);
            let mut per_second = [0_u32; 20];
            for _ in 0..connections {
                let turn = drain.turn().unwrap() - now;
                per_second[(turn.as_secs() as usize).min(19)] += 1;
            }
            let mean = connections / 20;
            assert!(per_second.iter().all(|count| count.abs_diff(mean) <= slack), "{connections}: {per_second:?}");
        }
    }

    #[test]
    fn without_a_window_every_turn_is_now() {
        let drain = Drain::default();
        let now = clock::now().instant;
        drain.begin(Duration::ZERO, now);
        assert_eq!([drain.turn(), drain.turn()], [Some(now); 2]);
    }
}
