//! Events in: the four steps of which the hub's opening words speak. One caller at a time.
//!
//! Refuses to know: who watches, and what they may see.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Arrival, Hub, Mailbox, Progress, lock,
    names::{TopicName, heard, is_listed_alike, listed},
    slot::{Dates, Slot},
};
use crate::{
    metrics::Outcome,
    proto::{Cursor, Event, Position, Task, TaskFrame, Topic},
    traces::Taken,
};

/// A task that an event changed, and the frame that came of it.
pub(super) struct Changed {
    pub(super) slot: Arc<Slot>,
    pub(super) frame: Arc<TaskFrame>,
    /// What it was listed under before and is no longer: those who watch there must hear that it left.
    pub(super) left: Vec<Topic>,
}

impl Hub {
    /// Applies a batch, ascending. To be called by one caller at a time.
    pub fn apply(&self, batch: &[Arrival], now_ms: u64) {
        let changed = self.change(batch, now_ms);
        let mut to_wake = Vec::new();
        self.mark(&changed, &mut to_wake);
        self.announce(to_wake);
        self.release_waiting();
        self.0.metrics.tasks_bytes(self.bytes());
    }

    /// Steps one and two: states change, `applied` moves.
    pub(super) fn change(&self, batch: &[Arrival], now_ms: u64) -> Vec<Changed> {
        let Progress { applied, replayed: live, .. } = self.progress();
        let known = applied.map(|cursor| cursor.position);
        let mut changed = Vec::with_capacity(batch.len());
        let last = batch.last().map(|last| last.cursor).filter(|last| known.is_none_or(|known| known < last.position));
        if let Some(last) = last {
            *lock(&self.0.begun) = last.position;
        }
        for arrival in batch {
            if known.is_some_and(|known| arrival.cursor.position <= known) {
                self.0.metrics.event(Outcome::Duplicate);
                continue;
            }
            lock(&self.0.trail).push(arrival.cursor);
            let Some(event) = &arrival.event else { continue };
            // Workers write some of these dates: one in the future must not keep a task for ever.
            let dated_ms = arrival.appended_at_ms.or(event.timestamp_ms);
            let at_ms = dated_ms.map_or(now_ms, |ms| ms.min(now_ms));
            // What arrives live is heard now, whatever date it bears.
            let dates = Dates { at_ms, heard_ms: if live { now_ms } else { at_ms }, now_ms };
            if event.task_id.is_reserved() {
                changed.extend(self.apply_canary(event, arrival.cursor, dates));
                self.0.metrics.event(Outcome::Canary);
                continue;
            }
            let outcome = self.apply_one(event, arrival.cursor, dates).map(|one| changed.push(one));
            let outcome = outcome.err().unwrap_or(Outcome::Applied);
            self.0.metrics.event(outcome);
            if let Some(context) = event.trace.as_deref().filter(|_| live) {
                self.trace(Taken { context, task_id: event.task_id.as_str(), cursor: arrival.cursor, outcome });
            }
        }
        if last.is_some() {
            self.0.progress.send_modify(|progress| progress.applied = last);
        }
        changed
    }

    /// Step three: the watchers of what changed are looked up and marked, once for each task: of a storm on one task
    /// a batch costs its watchers no more than one event. Ends come first, and so are woken first.
    pub(super) fn mark(&self, changed: &[Changed], to_wake: &mut Vec<Arc<Mailbox>>) {
        // As when the log is read at the start.
        let is_watched = self.0.topics.is_watched();
        let is_heard_of = |one: &&Changed| is_watched || one.slot.id.is_reserved();
        if let [one] = changed {
            if is_heard_of(&one) {
                self.mark_task(&[one], to_wake);
            }
            return;
        }
        let mut by_task: Vec<&Changed> = changed.iter().filter(is_heard_of).collect();
        // Stable: the changes of each task stay in the order of the log.
        by_task.sort_by_key(|one| Arc::as_ptr(&one.slot).addr());
        let mut tasks: Vec<&[&Changed]> = by_task.chunk_by(|a, b| Arc::ptr_eq(&a.slot, &b.slot)).collect();
        tasks.sort_unstable_by_key(|task| (!has_end(task), task.first().map(|one| one.frame.position())));
        for task in tasks {
            self.mark_task(task, to_wake);
        }
    }

    /// Marks a task for all that happened to it.
    fn mark_task(&self, task: &[&Changed], to_wake: &mut Vec<Arc<Mailbox>>) {
        // Whatever the earlier frames were listed under, the last one is too, unless it was left since.
        let Some(Changed { slot, frame, .. }) = task.last() else { return };
        let left = task.iter().flat_map(|one| one.left.iter().map(TopicName::from));
        let urgent = has_end(task);
        for name in heard(&frame.task).chain(left) {
            self.0.topics.mark(name, slot, urgent, to_wake);
        }
    }

    /// Step four: `marked` moves, and those marked are woken; so is who came too early.
    pub(super) fn announce(&self, mut to_wake: Vec<Arc<Mailbox>>) {
        self.0.progress.send_modify(|progress| {
            progress.marked = progress.applied.map_or(Position::START, |cursor| cursor.position);
        });
        to_wake.append(&mut lock(&self.0.stragglers));
        self.0.deliveries.hand_out(to_wake);
    }

    fn apply_one(&self, event: &Event, cursor: Cursor, dates: Dates) -> Result<Changed, Outcome> {
        let Some(slot) = self.slot(&event.task_id) else {
            if event.observed.is_some() {
                return Err(Outcome::Stale);
            }
            let slot = self.insert(event, cursor, dates)?;
            let frame = slot.current();
            return Ok(Changed { slot, frame, left: Vec::new() });
        };
        let (before, frame, weight_before, weight) = {
            let mut state = slot.lock();
            let (before, weight_before) = (state.current().clone(), state.weight());
            let frame = state.apply(event, cursor, dates, self.0.settings.ring_frames)?;
            self.note_due(&slot, &mut state);
            (before, frame, weight_before, state.weight())
        };
        self.0.metrics.task_moved(Some(before.task.status), Some(frame.task.status));
        self.note_held(&slot, Some(&before), Some(&frame));
        let left = self.relist(&slot, &before.task, &frame.task);
        for topic in &left {
            lock(&self.0.departures).push(cursor.position, topic.clone(), slot.clone());
        }
        self.note_weight(&slot, weight_before, weight);
        Ok(Changed { slot, frame, left })
    }

    fn insert(&self, event: &Event, cursor: Cursor, dates: Dates) -> Result<Arc<Slot>, Outcome> {
        self.admit(event)?;
        let slot = Arc::new(Slot::new(event, cursor, dates));
        self.enlist(&slot);
        let weight = slot.lock().weight();
        self.note_weight(&slot, 0, weight);
        Ok(slot)
    }

    /// Puts a new task into the table, the lists and the counts, but for its weight.
    pub(super) fn enlist(&self, slot: &Arc<Slot>) {
        self.shard(&slot.id).insert(slot.id.clone(), slot.clone());
        self.0.held.fetch_add(1, Ordering::Relaxed);
        let frame = slot.current();
        for name in listed(&frame.task) {
            self.0.listings.list(name, slot);
        }
        self.note_due(slot, &mut slot.lock());
        self.0.metrics.task_moved(None, Some(frame.task.status));
        self.note_held(slot, None, Some(&frame));
    }

    /// Moves a task between the lists; those that it left.
    fn relist(&self, slot: &Arc<Slot>, before: &Task, after: &Task) -> Vec<Topic> {
        if is_listed_alike(before, after) {
            return Vec::new();
        }
        let (mut old, new): (Vec<_>, Vec<_>) = (listed(before).collect(), listed(after).collect());
        for name in new.iter().filter(|name| !old.contains(name)) {
            self.0.listings.list(*name, slot);
        }
        old.retain(|name| !new.contains(name));
        for name in &old {
            self.0.listings.unlist(*name, slot);
        }
        old.into_iter().map(TopicName::to_topic).collect()
    }
}

fn has_end(changes: &[&Changed]) -> bool {
    changes.iter().any(|one| one.frame.task.status.is_terminal())
}
