//! The events whose deliveries are followed, by their place in the log. Everybody who hands out frames asks whether theirs are
//! among them; the answer is nearly always no, and takes no lock.
//!
//! Refuses to know: what is told of a delivery.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use super::{
    delivery::{Delivery, Traced},
    lock,
};
use crate::proto::Position;

/// Events whose deliveries are followed at a time.
pub(super) const FOLLOWED_MAX: usize = 8192;

/// How long a delivery is followed. Who reads more slowly than this is not in its span.
pub const FOLLOWED_FOR: std::time::Duration = std::time::Duration::from_secs(2);

/// Bits of the filter, as a power of two. With 80 followed, one frame of 50 asks under the lock for nothing.
const FILTER_BITS: u32 = 12;
const FILTER_WORDS: usize = 1 << (FILTER_BITS - 6);

/// An odd number whose multiples are spread well: 2^64 by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

pub(super) struct Followed {
    /// How many there are, so that without any nobody looks further.
    count: AtomicUsize,
    /// A bit for each of them, some shared: where it is not set, there is none. Set before anybody has the frame.
    filter: [AtomicU64; FILTER_WORDS],
    deliveries: Mutex<HashMap<Position, Arc<Delivery>>>,
}

/// The word of the filter, and the bit in it.
fn place(position: Position) -> (usize, u64) {
    let spread = (position.major.rotate_left(20) ^ position.minor).wrapping_mul(SPREAD) >> (64 - FILTER_BITS);
    (spread as usize >> 6, 1 << (spread & 63))
}

impl Followed {
    pub fn new() -> Self {
        let filter = std::array::from_fn(|_| AtomicU64::new(0));
        Self { count: AtomicUsize::new(0), filter, deliveries: Mutex::default() }
    }

    /// False: there are too many.
    pub fn follow(&self, position: Position, delivery: Delivery) -> bool {
        let mut deliveries = lock(&self.deliveries);
        if deliveries.len() >= FOLLOWED_MAX {
            return false;
        }
        deliveries.insert(position, Arc::new(delivery));
        let (word, bit) = place(position);
        self.filter[word].fetch_or(bit, Ordering::Relaxed);
        self.count.store(deliveries.len(), Ordering::Relaxed);
        true
    }

    /// Of the events at these places, those that are followed.
    pub fn among(&self, positions: impl Iterator<Item = Position>) -> Option<Traced> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut positions = positions.filter(|position| self.may_hold(*position)).peekable();
        positions.peek()?;
        let deliveries = lock(&self.deliveries);
        Traced::of(positions.filter_map(|position| deliveries.get(&position).cloned()))
    }

    fn may_hold(&self, position: Position) -> bool {
        let (word, bit) = place(position);
        self.filter[word].load(Ordering::Relaxed) & bit != 0
    }

    /// Takes out what was followed for long enough, or everything.
    pub fn sweep(&self, now: Instant, all: bool) -> Vec<Arc<Delivery>> {
        let mut over = Vec::new();
        let mut deliveries = lock(&self.deliveries);
        deliveries.retain(|_, delivery| {
            let is_over = all || delivery.age(now) >= FOLLOWED_FOR;
            if is_over {
                over.push(delivery.clone());
            }
            !is_over
        });
        if !over.is_empty() {
            let mut words = [0; FILTER_WORDS];
            for (word, bit) in deliveries.keys().map(|position| place(*position)) {
                words[word] |= bit;
            }
            // Bits of those that stay are never away meanwhile.
            for (word, bits) in self.filter.iter().zip(words) {
                word.store(bits, Ordering::Relaxed);
            }
            self.count.store(deliveries.len(), Ordering::Relaxed);
        }
        over
    }

    /// To how many sessions each was written, in the order of the log.
    #[cfg(test)]
    pub fn written(&self) -> Vec<u64> {
        let deliveries = lock(&self.deliveries);
        let mut written: Vec<_> = deliveries.iter().map(|(position, one)| (*position, one.sessions())).collect();
        written.sort_unstable();
        written.into_iter().map(|(_, sessions)| sessions).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_in_the_log_lie_apart_in_the_filter() {
        for at in [|n| Position { major: n, minor: 0 }, |n| Position { major: 1_766_000_000_000, minor: n }] {
            let mut places: Vec<_> = (0..1000).map(|n| place(at(n))).collect();
            places.sort_unstable();
            places.dedup();
            assert!(places.len() > 800, "{}", places.len());
        }
    }
}
