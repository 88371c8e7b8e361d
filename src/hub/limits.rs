//! Limits: how many tasks are held, of how many bytes, and of one owner; and who makes room for whom. What is held
//! follows from the log's order alone, but for retention, so replicas come to the same state.
//!
//! Refuses to know: clocks, watchers.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use super::{Hub, lock, names::shrink, slot::Slot};
use crate::{
    metrics::{Eviction, Outcome},
    proto::{Event, Position, TaskFrame, UserId},
};

/// When a number of tasks is reached one in so many is let go at once, longest-ended first, so that cursors from before
/// are refused in one go and not with every event; and such a share of the bytes.
const EVICT_SHARE: usize = 100;

/// But no more than this for one event, since others wait for it.
const EVICTED_AT_ONCE: usize = 1_000;

/// What one owner has in the hub.
#[derive(Default)]
pub(super) struct Owned {
    held: usize,
    ended: BTreeMap<Position, Arc<Slot>>,
}

impl Hub {
    /// Keeps the order of tasks and count of owners, from a task's frame before to its frame now.
    pub(super) fn note_held(&self, slot: &Arc<Slot>, before: Option<&TaskFrame>, now: Option<&TaskFrame>) {
        self.0.order.note(slot, before, now);
        if self.0.settings.max_per_owner > 0 {
            let over = |frame: Option<&TaskFrame>| {
                frame.filter(|frame| frame.task.status.is_terminal()).map(TaskFrame::position)
            };
            let (owners, ends) = ((owner(before), owner(now)), (over(before), over(now)));
            if owners.0 != owners.1 || ends.0 != ends.1 {
                self.note_owner(slot, owners, ends);
            }
        }
    }

    fn note_owner(
        &self,
        slot: &Arc<Slot>,
        (before, now): (Option<&UserId>, Option<&UserId>),
        (ended_before, ended_now): (Option<Position>, Option<Position>),
    ) {
        let mut owners = lock(&self.0.owners);
        if let Some(owner) = before
            && let Some(owned) = owners.get_mut(owner)
        {
            owned.held -= 1;
            if let Some(position) = ended_before {
                owned.ended.remove(&position);
            }
            if owned.held == 0 && now != Some(owner) {
                owners.remove(owner);
                shrink(&mut owners);
            }
        }
        if let Some(owner) = now {
            let owned = owners.entry(owner.clone()).or_default();
            owned.held += 1;
            if let Some(position) = ended_now {
                owned.ended.insert(position, slot.clone());
            }
        }
    }

    /// Makes room for a new task, at first among its owner's, so that one owner's flood pushes out nobody else's.
    ///
    /// # Errors
    /// Which limit has no room left.
    pub(super) fn admit(&self, event: &Event) -> Result<(), Outcome> {
        let settings = &self.0.settings;
        if let Some(owner) = event.user_id.as_ref().filter(|_| settings.max_per_owner > 0)
            && self.owner_is_full(owner)
        {
            return Err(Outcome::DroppedOwner);
        }
        if self.len() >= settings.max {
            let share = settings.max.div_ceil(EVICT_SHARE).min(EVICTED_AT_ONCE);
            let oldest = self.0.order.longest_ended(share);
            if oldest.is_empty() {
                return Err(Outcome::Dropped);
            }
            for slot in &oldest {
                self.evict(slot, Eviction::Limit);
            }
        }
        if self.is_over_bytes() { Err(Outcome::DroppedBytes) } else { Ok(()) }
    }

    /// At its limit, and none of its tasks has ended.
    fn owner_is_full(&self, owner: &UserId) -> bool {
        let limit = self.0.settings.max_per_owner;
        let oldest: Vec<Arc<Slot>> = {
            let owners = lock(&self.0.owners);
            let Some(full) = owners.get(owner).filter(|its| its.held >= limit) else { return false };
            full.ended.values().take(limit.div_ceil(EVICT_SHARE).min(EVICTED_AT_ONCE)).cloned().collect()
        };
        for slot in &oldest {
            self.evict(slot, Eviction::OwnerLimit);
        }
        oldest.is_empty()
    }

    fn is_over_bytes(&self) -> bool {
        let limit = self.0.settings.max_bytes;
        limit > 0 && self.bytes() >= limit
    }

    /// A task's weight changed, by an event that was applied. A task that is held is always updated: if that is too
    /// much, others that have ended make room, then its own ring does.
    pub(super) fn note_weight(&self, slot: &Arc<Slot>, before: usize, now: usize) {
        self.0.bytes.fetch_add(now, Ordering::Relaxed);
        self.0.bytes.fetch_sub(before, Ordering::Relaxed);
        if !self.is_over_bytes() {
            return;
        }
        let limit = self.0.settings.max_bytes;
        let target = limit - limit.div_ceil(EVICT_SHARE);
        let mut evicted = 0;
        while self.is_over_bytes() || (self.bytes() > target && evicted < EVICTED_AT_ONCE) {
            let Some(oldest) = self.0.order.longest_ended(1).pop() else { break };
            self.evict(&oldest, Eviction::Bytes);
            evicted += 1;
        }
        if self.is_over_bytes() {
            let mut state = slot.lock();
            let before = state.weight();
            state.fold();
            if !state.removed {
                self.0.bytes.fetch_sub(before - state.weight(), Ordering::Relaxed);
            }
        }
    }
}

fn owner(frame: Option<&TaskFrame>) -> Option<&UserId> {
    frame.and_then(|frame| frame.task.user_id.as_ref())
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
