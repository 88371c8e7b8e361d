//! Letting go: of ended and idle tasks after their time, of everything when the log is read anew; and noticing who has gone silent.
//!
//! Refuses to know: clocks; the time is an argument.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Hub, Progress, Stale, lock, slot::Slot, topics, trail::Trail};
use crate::{
    metrics::Eviction,
    proto::{Event, Position, ResumeFailure, Status},
};

/// A verdict that did not come back through the log is asked for again after this long.
const JUDGE_AGAIN_AFTER_MS: u64 = 10_000;

impl Hub {
    pub(super) fn evict(&self, slot: &Arc<Slot>, reason: Eviction) {
        let last = {
            let mut state = slot.lock();
            state.removed = true;
            self.0.bytes.fetch_sub(state.weight(), Ordering::Relaxed);
            state.current().clone()
        };
        self.shard(&slot.id).remove(slot.id.as_str());
        self.0.held.fetch_sub(1, Ordering::Relaxed);
        for topic in topics::listed(&last.task) {
            self.0.topics.unlist(&topic, &slot.id);
        }
        lock(&self.0.trail).evicted(last.position());
        self.0.metrics.task_moved(Some(last.task.status), None);
        self.note_held(slot, Some(&last), None);
        self.0.metrics.task_evicted(reason);
        let mut to_wake = Vec::new();
        for topic in topics::heard(&last.task) {
            self.0.topics.mark(&topic, slot, true, &mut to_wake);
        }
        for mailbox in to_wake {
            mailbox.wake();
        }
    }

    /// Lets go of what retention no longer covers, and returns the verdicts to append for tasks that went silent. To
    /// be called by the caller of [`Hub::apply`], between batches, while the log is connected and read to its end;
    /// `listening_ms` is since when it has been.
    #[must_use]
    pub fn sweep(&self, now_ms: u64, listening_ms: u64) -> Vec<Event> {
        let mut verdicts = Vec::new();
        let (ended, idle) = (millis(self.0.settings.retain_ended), millis(self.0.settings.retain_idle));
        for slot in self.slots() {
            let mut state = slot.lock();
            let age = now_ms.saturating_sub(state.heard_at_ms);
            let (limit, reason) =
                if state.status().is_terminal() { (ended, Eviction::Ended) } else { (idle, Eviction::Idle) };
            if age > limit {
                drop(state);
                self.evict(&slot, reason);
            } else if state.is_silent(now_ms, listening_ms)
                && state.judged_at_ms.is_none_or(|at| now_ms.saturating_sub(at) > JUDGE_AGAIN_AFTER_MS)
            {
                state.judged_at_ms = Some(now_ms);
                let mut verdict = Event::new(slot.id.clone());
                verdict.status = Some(Status::Lost);
                verdict.observed = Some(state.current().position());
                verdicts.push(verdict);
            }
        }
        self.0.metrics.tasks_bytes(self.bytes());
        verdicts
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
        lock(&self.0.ended).clear();
        lock(&self.0.owners).clear();
        self.0.metrics.tasks_bytes(0);
        self.0.topics.clear_tasks();
        lock(&self.0.departures).clear();
        *lock(&self.0.trail) = Trail::new(self.0.settings.resume_window);
        self.0.progress.send_modify(|progress| {
            *progress = Progress {
                generation: progress.generation + 1,
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
