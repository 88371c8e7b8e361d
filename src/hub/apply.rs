//! Events in: the four steps of which the hub's opening words speak. One caller at a time.
//!
//! Refuses to know: who watches, and what they may see.

use std::sync::{Arc, atomic::Ordering};

use super::{Arrival, Hub, lock, slot::Slot, topics};
use crate::{
    metrics::Outcome,
    proto::{Cursor, Event, Position, Task, TaskFrame},
};

impl Hub {
    /// Applies a batch, ascending. To be called by one caller at a time.
    pub fn apply(&self, batch: &[Arrival], now_ms: u64) {
        let Some(last) = batch.last() else { return };
        let known = self.progress().applied.map(|cursor| cursor.position);
        let mut changed = Vec::with_capacity(batch.len());
        for arrival in batch {
            if known.is_some_and(|known| arrival.cursor.position <= known) {
                self.0.metrics.event(Outcome::Duplicate);
                continue;
            }
            lock(&self.0.trail).push(arrival.cursor);
            let Some(event) = &arrival.event else { continue };
            let at_ms = arrival.appended_at_ms.unwrap_or(now_ms);
            let outcome = self.apply_one(event, arrival.cursor, at_ms, now_ms).map(|touched| changed.push(touched));
            self.0.metrics.event(outcome.err().unwrap_or(Outcome::Applied));
        }
        if known.is_none_or(|known| known < last.cursor.position) {
            self.0.progress.send_modify(|progress| progress.applied = Some(last.cursor));
        }
        self.tell(&changed);
    }

    /// Steps three and four: mark, then wake.
    fn tell(&self, changed: &[(Arc<Slot>, Arc<TaskFrame>)]) {
        let mut to_wake = Vec::new();
        for (slot, frame) in changed {
            let urgent = frame.task.status.is_terminal();
            for topic in topics::heard(&frame.task) {
                self.0.topics.mark(&topic, slot, urgent, &mut to_wake);
            }
        }
        self.0.progress.send_modify(|progress| {
            progress.marked = progress.applied.map_or(Position::START, |cursor| cursor.position);
        });
        to_wake.append(&mut lock(&self.0.stragglers));
        for mailbox in to_wake {
            mailbox.wake();
        }
    }

    fn apply_one(
        &self,
        event: &Event,
        cursor: Cursor,
        at_ms: u64,
        now_ms: u64,
    ) -> Result<(Arc<Slot>, Arc<TaskFrame>), Outcome> {
        let held = self.shard(&event.task_id).get(event.task_id.as_str()).cloned();
        let Some(slot) = held else {
            if event.observed.is_some() {
                return Err(Outcome::Stale);
            }
            let slot = self.insert(event, cursor, at_ms, now_ms)?;
            let frame = slot.current();
            return Ok((slot, frame));
        };
        let (before, frame) = {
            let mut state = slot.lock();
            let before = state.current().clone();
            (before, state.apply(event, cursor, at_ms, now_ms, self.0.settings.ring_frames)?)
        };
        self.0.metrics.task_moved(Some(before.task.status), Some(frame.task.status));
        self.relist(&slot, &before.task, &frame.task);
        Ok((slot, frame))
    }

    fn insert(&self, event: &Event, cursor: Cursor, at_ms: u64, now_ms: u64) -> Result<Arc<Slot>, Outcome> {
        if self.len() >= self.0.settings.max && !self.make_room() {
            return Err(Outcome::Dropped);
        }
        let slot = Arc::new(Slot::new(event, cursor, at_ms, now_ms));
        self.shard(&slot.id).insert(slot.id.clone(), slot.clone());
        self.0.held.fetch_add(1, Ordering::Relaxed);
        let frame = slot.current();
        for topic in topics::listed(&frame.task) {
            self.0.topics.list(topic, &slot);
        }
        self.0.metrics.task_moved(None, Some(frame.task.status));
        Ok(slot)
    }

    fn relist(&self, slot: &Arc<Slot>, before: &Task, after: &Task) {
        if before.user_id == after.user_id && before.tags == after.tags && before.group() == after.group() {
            return;
        }
        let (old, new) = (topics::listed(before), topics::listed(after));
        for topic in old.iter().filter(|topic| !new.contains(topic)) {
            self.0.topics.unlist(topic, &slot.id);
        }
        for topic in new.into_iter().filter(|topic| !old.contains(topic)) {
            self.0.topics.list(topic, slot);
        }
    }
}
