//! Letting go: of ended and idle tasks after their time, of everything when the log is read anew; and noticing who has gone silent.
//!
//! Refuses to know: clocks; the time is an argument.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    Hub, Progress, Stale,
    deadlines::NEVER,
    lock,
    names::{heard, listed, shrink},
    slot::{Slot, State},
    trail::Trail,
};
use crate::{
    metrics::Eviction,
    proto::{Event, Position, ResumeFailure, Status},
};

/// A verdict that did not come back through the log is asked for again after this long.
const JUDGE_AGAIN_AFTER_MS: u64 = 10_000;

/// Tasks that a sweep looks at, so that events wait no longer for it than for some batches.
const SWEPT_AT_ONCE: usize = if cfg!(test) { 16 } else { 1024 };

impl Hub {
    pub(super) fn evict(&self, slot: &Arc<Slot>, reason: Eviction) {
        let last = {
            let mut state = slot.lock();
            state.removed = true;
            self.0.bytes.fetch_sub(state.weight(), Ordering::Relaxed);
            self.move_due(slot, &mut state, NEVER);
            state.current().clone()
        };
        {
            let mut shard = self.shard(&slot.id);
            shard.remove(slot.id.as_str());
            shrink(&mut shard);
        }
        self.0.held.fetch_sub(1, Ordering::Relaxed);
        for name in listed(&last.task) {
            self.0.listings.unlist(name, slot);
        }
        lock(&self.0.trail).evicted(last.position());
        self.0.metrics.task_moved(Some(last.task.status), None);
        self.note_held(slot, Some(&last), None);
        self.0.metrics.task_evicted(reason);
        let mut to_wake = Vec::new();
        for name in heard(&last.task) {
            self.0.topics.mark(name, slot, true, &mut to_wake);
        }
        for mailbox in to_wake {
            mailbox.wake();
        }
    }

    /// Lets go of what retention no longer covers, and returns the verdicts to append for tasks that went silent: a piece
    /// of what is due, at the price of that; [`Hub::is_sweep_due`] says whether there is more. To be called by the caller
    /// of [`Hub::apply`], between batches, while the log is connected and read to its end; `listening_ms` is since when it
    /// has been.
    #[must_use]
    pub fn sweep(&self, now_ms: u64, listening_ms: u64) -> Vec<Event> {
        let mut verdicts = Vec::new();
        let due = lock(&self.0.deadlines).take_due(now_ms, SWEPT_AT_ONCE);
        for slot in due {
            let mut state = slot.lock();
            // It is taken out.
            state.due_ms = NEVER;
            let (kept_until_ms, reason) = self.kept_until(&state);
            if now_ms >= kept_until_ms {
                drop(state);
                self.evict(&slot, reason);
                continue;
            }
            if state.judge_from(listening_ms) <= now_ms {
                state.judged_at_ms = Some(now_ms);
                let mut verdict = Event::new(slot.id.clone());
                verdict.status = Some(Status::Lost);
                verdict.observed = Some(state.current().position());
                verdicts.push(verdict);
            }
            let next_ms = kept_until_ms.min(state.judge_from(listening_ms));
            self.move_due(&slot, &mut state, next_ms);
        }
        self.0.metrics.tasks_bytes(self.bytes());
        verdicts
    }

    /// A sweep would find something to look at.
    #[must_use]
    pub fn is_sweep_due(&self, now_ms: u64) -> bool {
        lock(&self.0.deadlines).is_due(now_ms)
    }

    /// To be called when an event changed a task: a sweep is to look at it in time. What an event puts off is noticed by
    /// the sweep that comes too early.
    pub(super) fn note_due(&self, slot: &Arc<Slot>, state: &mut State) {
        let next_ms = self.kept_until(state).0.min(state.judge_from(0));
        if next_ms < state.due_ms {
            self.move_due(slot, state, next_ms);
        }
    }

    fn move_due(&self, slot: &Arc<Slot>, state: &mut State, next_ms: u64) {
        lock(&self.0.deadlines).move_to(slot, state.due_ms, next_ms);
        state.due_ms = next_ms;
    }

    /// From when on retention does not cover a task, if nothing more is heard of it; and by which rule.
    fn kept_until(&self, state: &State) -> (u64, Eviction) {
        let settings = &self.0.settings;
        let (kept, reason) = if state.status().is_terminal() {
            (settings.retain_ended, Eviction::Ended)
        } else {
            (settings.retain_idle, Eviction::Idle)
        };
        (after(state.heard_at_ms, millis(kept)), reason)
    }

    /// Forgets all tasks, for the log is read anew. Every session starts over once [`Hub::set_replayed`] says so.
    pub fn reset(&self, reason: ResumeFailure) {
        for slot in self.slots() {
            let mut state = slot.lock();
            state.removed = true;
            self.0.metrics.task_moved(Some(state.status()), None);
        }
        for shard in &self.0.shards {
            lock(shard).clear();
        }
        self.forget_canary();
        self.0.held.store(0, Ordering::Relaxed);
        self.0.bytes.store(0, Ordering::Relaxed);
        self.0.order.clear();
        lock(&self.0.deadlines).clear();
        lock(&self.0.owners).clear();
        self.0.metrics.tasks_bytes(0);
        self.0.listings.clear();
        lock(&self.0.departures).clear();
        *lock(&self.0.trail) = Trail::new(self.0.settings.resume_window);
        *lock(&self.0.begun) = Position::START;
        self.0.progress.send_modify(|progress| {
            *progress = Progress {
                generation: self.next_generation(),
                reset: Some(reason),
                applied: None,
                marked: Position::START,
                replayed: false,
                stale: progress.stale,
            };
        });
    }

    /// Says since when nothing has been heard from the log, and wakes everyone when that changes.
    pub fn set_stale(&self, stale: Option<Stale>) {
        let changed = self.0.progress.send_if_modified(|progress| {
            let changed = progress.stale.is_some() != stale.is_some();
            progress.stale = stale;
            changed
        });
        if changed {
            for mailbox in self.0.topics.watchers() {
                mailbox.wake();
            }
        }
    }

    /// Says whether the log has been read to its end, and wakes everyone when it has.
    pub fn set_replayed(&self, replayed: bool) {
        let changed = self.0.progress.send_if_modified(|progress| {
            let changed = progress.replayed != replayed;
            progress.replayed = replayed;
            changed
        });
        if changed && replayed {
            self.release_waiting();
            for mailbox in self.0.topics.watchers() {
                mailbox.wake();
            }
        }
    }
}

impl State {
    /// From when on a live task that promised to be heard from counts as silent, if nothing more is heard of it and the
    /// service has listened since `listening_ms`; and is to be judged again, if it was.
    fn judge_from(&self, listening_ms: u64) -> u64 {
        let task = &self.current().task;
        let Some(limit_ms) = task.heartbeat_timeout_ms.filter(|_| !task.status.is_terminal()) else { return NEVER };
        let silent_ms = after(self.heard_at_ms.max(listening_ms), limit_ms);
        self.judged_at_ms.map_or(silent_ms, |judged_ms| silent_ms.max(after(judged_ms, JUDGE_AGAIN_AFTER_MS)))
    }
}

/// The first moment that is more than `limit_ms` after `since_ms`.
fn after(since_ms: u64, limit_ms: u64) -> u64 {
    since_ms.saturating_add(limit_ms).saturating_add(1)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
