//! When each task is to be looked at next: because retention may no longer cover it, or because its worker may have gone
//! silent. A task stands here once, at a time that is never too late; mostly it is too early, since an event that puts
//! a deadline off leaves it alone. So events cost nothing here, and a sweep costs what is due.
//!
//! Refuses to know: clocks, and what happens when the time has come.

use std::{cmp::Ordering, collections::BTreeSet, sync::Arc};

use super::slot::Slot;

/// The time of what never comes.
pub(super) const NEVER: u64 = u64::MAX;

/// Ascending by time.
#[derive(Default)]
pub(super) struct Deadlines(BTreeSet<Deadline>);

struct Deadline {
    at_ms: u64,
    slot: Arc<Slot>,
}

impl Deadlines {
    /// Moves a task from the time `before` to the time `now`.
    pub(super) fn move_to(&mut self, slot: &Arc<Slot>, before: u64, now: u64) {
        let deadline = |at_ms| Deadline { at_ms, slot: slot.clone() };
        if before != NEVER {
            self.0.remove(&deadline(before));
        }
        if now != NEVER {
            self.0.insert(deadline(now));
        }
    }

    /// Takes the first `tasks_max` of those whose time has come.
    pub(super) fn take_due(&mut self, now_ms: u64, tasks_max: usize) -> Vec<Arc<Slot>> {
        let mut due = Vec::new();
        while due.len() < tasks_max && self.is_due(now_ms) {
            due.extend(self.0.pop_first().map(|deadline| deadline.slot));
        }
        due
    }

    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.0.first().is_some_and(|first| first.at_ms <= now_ms)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Deadline {
    fn key(&self) -> (u64, usize) {
        (self.at_ms, Arc::as_ptr(&self.slot).addr())
    }
}

impl Ord for Deadline {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Deadline {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Deadline {}
