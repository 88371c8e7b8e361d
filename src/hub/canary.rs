//! The delivery canary's task: this replica's own, and no other. It stands apart from the table of tasks, so it is in no
//! snapshot but that of its own watcher, on no list, takes no room and is never let go; other reserved ids leave
//! nothing but their position. So what strangers write under such ids takes at most one ring of short frames.
//!
//! Refuses to know: who sends the canary, and whether it comes back.

use std::sync::{Arc, Mutex};

use super::{
    Hub,
    apply::Changed,
    lock,
    slot::{Dates, Slot},
};
use crate::proto::{Cursor, Event, TaskFrame, TaskId};

/// The id that is kept, and its slot once it has been heard of.
pub(super) struct Kept {
    id: TaskId,
    slot: Mutex<Option<Arc<Slot>>>,
}

impl Hub {
    /// From now on this is the one reserved id whose events are kept. To be called once, before anything is applied.
    pub fn keep_canary(&self, id: TaskId) {
        // A second one would find the first: there is one canary per replica.
        let _ = self.0.canary.set(Kept { id, slot: Mutex::default() });
    }

    /// The canary as it was applied last.
    #[must_use]
    pub fn canary(&self) -> Option<Arc<TaskFrame>> {
        Some(lock(&self.0.canary.get()?.slot).as_ref()?.current())
    }

    pub(super) fn canary_slot(&self, id: &TaskId) -> Option<Arc<Slot>> {
        let kept = self.0.canary.get().filter(|kept| kept.id == *id)?;
        lock(&kept.slot).clone()
    }

    /// Applies an event of a reserved id; `None` when it is not this replica's.
    pub(super) fn apply_canary(&self, event: &Event, cursor: Cursor, dates: Dates) -> Option<Changed> {
        let kept = self.0.canary.get().filter(|kept| kept.id == event.task_id)?;
        // Nothing of it but its words: else whoever can write to the log could end it, or move it out of order.
        let mut words = Event::new(kept.id.clone());
        words.message.clone_from(&event.message);
        let mut held = lock(&kept.slot);
        let (slot, frame) = if let Some(slot) = &*held {
            let frame = slot.lock().apply(&words, cursor, dates, self.0.settings.ring_frames).ok()?;
            (slot.clone(), frame)
        } else {
            let slot = held.insert(Arc::new(Slot::new(&words, cursor, dates)));
            (slot.clone(), slot.current())
        };
        Some(Changed { slot, frame, left: Vec::new() })
    }

    /// The log is read anew.
    pub(super) fn forget_canary(&self) {
        let slot = self.0.canary.get().and_then(|kept| lock(&kept.slot).take());
        if let Some(slot) = slot {
            slot.lock().removed = true;
        }
    }
}

#[cfg(test)]
#[path = "canary_tests.rs"]
mod tests;
