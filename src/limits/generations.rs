//! A map that cannot outgrow a limit: when its young half is full, the old half is forgotten, and with it whatever was
//! not asked for since the last time that happened. What is still in use moves over and stays.
//!
//! Refuses to know: what is kept, and why.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// At most as many entries as it was made for; each is kept for `lasting` after its last use, unless there are too many.
#[derive(Debug)]
pub(super) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    /// Of each of the two.
    max: usize,
    lasting: Duration,
    began: Instant,
    forgotten: u64,
}

impl<K: Hash + Eq + Clone, V> Generations<K, V> {
    pub(super) fn new(max: usize, lasting: Duration, now: Instant) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), max: (max / 2).max(1), lasting, began: now, forgotten: 0 }
    }

    /// The entry of a key, which counts as used.
    pub(super) fn get(&mut self, key: &K, now: Instant) -> Option<&mut V> {
        self.age(now);
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value, now);
        }
        self.young.get_mut(key)
    }

    /// Keeps an entry.
    pub(super) fn put(&mut self, key: &K, value: V, now: Instant) {
        self.age(now);
        if let Some(known) = self.young.get_mut(key) {
            *known = value;
            return;
        }
        self.old.remove(key);
        self.insert(key.clone(), value, now);
    }

    fn insert(&mut self, key: K, value: V, now: Instant) {
        if self.young.len() >= self.max {
            self.forgotten += self.old.len() as u64;
            self.turn(now);
        }
        self.young.insert(key, value);
    }

    /// How many had to go before their time since this was last asked.
    pub(super) fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }

    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// What was not used for `lasting` is nobody's loss. Entries of the young half became part of it within that time,
    /// so after it none of the old half is younger.
    fn age(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.began);
        if age >= self.lasting {
            self.turn(now);
        }
        if age >= 2 * self.lasting {
            self.old = HashMap::new();
        }
    }

    fn turn(&mut self, now: Instant) {
        // A new map, so that what a flood took is given back.
        self.old = std::mem::take(&mut self.young);
        self.began = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_million_strangers_take_no_more_room_than_there_is() {
        let now = clock::now().instant;
        let mut kept = Generations::new(1_000, SECOND, now);
        let mut forgotten = 0_u64;
        for stranger in 0..1_000_000_u32 {
            kept.put(&stranger, (), now);
            assert!(kept.len() <= 1_000);
            forgotten += kept.take_forgotten();
        }
        assert_eq!(forgotten + kept.len() as u64, 1_000_000, "what is forgotten is counted");
        let room = kept.young.capacity() + kept.old.capacity();
        assert!(room < 3_000, "room for {room}");
    }

    #[test]
    fn who_keeps_coming_is_remembered_through_a_flood_of_strangers() {
        let now = clock::now().instant;
        let mut kept = Generations::new(100, SECOND, now);
        kept.put(&0, "known", now);
        for stranger in 1..10_000_u32 {
            kept.put(&stranger, "stranger", now);
            assert_eq!(kept.get(&0, now), Some(&mut "known"), "after {stranger}");
        }
        assert!(kept.len() <= 100);
    }

    #[test]
    fn those_who_move_over_leave_no_room_for_more_than_the_limit() {
        let now = clock::now().instant;
        let mut kept = Generations::new(100, SECOND, now);
        for round in 0..20_u32 {
            for key in 0..100 {
                kept.put(&(100 * round + key), (), now);
                kept.get(&(100 * round + key / 2), now);
                kept.get(&(100 * round.saturating_sub(1) + key), now);
                assert!(kept.len() <= 100);
            }
        }
    }

    #[test]
    fn an_entry_outlives_its_time_and_not_twice_that_unless_it_is_used() {
        let start = clock::now().instant;
        for began_before in [0, 300, 700, 999].map(Duration::from_millis) {
            let mut kept = Generations::new(100, SECOND, start);
            let put = start + began_before;
            kept.put(&1, (), put);
            kept.put(&2, (), put);
            assert!(kept.get(&1, put + Duration::from_millis(999)).is_some(), "{began_before:?}");
            // Used last at that moment, so it has as long again; the other one has not.
            assert!(kept.get(&2, put + 3 * SECOND).is_none(), "{began_before:?}");
        }
    }
}
