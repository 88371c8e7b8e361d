//! How many there may be at a time, for each of many keys. What is held are places; who lets go of one frees it.
//!
//! Refuses to know: what a place is for.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::Key;
use crate::metrics::{Limit, Metrics};

/// There is an entry for each key that has a place taken, so there are no more than places in all.
pub(super) struct Places {
    max: u32,
    limit: Limit,
    taken: Mutex<HashMap<Key, u32>>,
    metrics: Arc<Metrics>,
}

/// One of the places of a key.
pub struct Place {
    places: Arc<Places>,
    key: Key,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("limit", &self.places.limit).finish_non_exhaustive()
    }
}

impl Places {
    /// `None` when there is no limit: 0.
    pub(super) fn new(max: u32, limit: Limit, metrics: &Arc<Metrics>) -> Option<Arc<Self>> {
        (max > 0).then(|| Arc::new(Self { max, limit, taken: Mutex::default(), metrics: metrics.clone() }))
    }

    /// `None` when all places of the key are taken.
    pub(super) fn take(self: &Arc<Self>, key: Key) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(key).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        if *count == 1 {
            self.metrics.limit_keys(self.limit, taken.len(), 0);
        }
        Some(Place { places: self.clone(), key })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(mut entry) = taken.entry(self.key) else { return };
        *entry.get_mut() -= 1;
        if *entry.get() > 0 {
            return;
        }
        entry.remove();
        // A crowd that has left leaves no room behind that is many times what is used.
        if taken.capacity() > 64 && taken.len() < taken.capacity() / 8 {
            taken.shrink_to_fit();
        }
        self.places.metrics.limit_keys(self.places.limit, taken.len(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(max: u32) -> (Arc<Places>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new("memory"));
        (Places::new(max, Limit::ConnectionsPerIp, &metrics).unwrap(), metrics)
    }

    #[test]
    fn a_place_that_is_let_go_is_given_away_again_for_as_long_as_one_likes() {
        let (places, _) = places(2);
        let kept = places.take(Key(1)).unwrap();
        for _ in 0..10_000 {
            let other = places.take(Key(1)).expect("a place");
            assert!(places.take(Key(1)).is_none());
            assert!(places.take(Key(2)).is_some(), "keys do not share");
            drop(other);
        }
        drop(kept);
        assert!(places.taken.lock().unwrap().is_empty());
    }

    #[test]
    fn a_crowd_that_has_left_leaves_nothing_behind() {
        let (places, metrics) = places(1);
        let crowd: Vec<Place> = (0..10_000).map(|key| places.take(Key(key)).unwrap()).collect();
        assert!(metrics.render().unwrap().contains("taskcast_limit_keys{limit=\"connections_per_ip_max\"} 10000"));
        drop(crowd);
        assert!(places.taken.lock().unwrap().capacity() < 200);
        assert!(metrics.render().unwrap().contains("taskcast_limit_keys{limit=\"connections_per_ip_max\"} 0"));
        // Without a limit nobody is counted.
        assert!(Places::new(0, Limit::ConnectionsPerIp, &metrics).is_none());
    }

    #[test]
    fn threads_that_take_and_let_go_never_hold_more_than_there_are() {
        let (places, _) = places(3);
        let held = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if let Some(place) = places.take(Key(7)) {
                            let now = held.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            assert!(now < 3);
                            held.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                            drop(place);
                        }
                    }
                });
            }
        });
        assert!(places.taken.lock().unwrap().is_empty());
    }
}
