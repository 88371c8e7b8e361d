//! The hub's whole state out, as of one position of the log, and in again; and going on after a gap in the log.
//!
//! Refuses to know: bytes, brokers, who keeps a checkpoint.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use super::{
    Hub, Progress,
    departures::Departures,
    image::{Held, Image, ImageReader, Restored},
    lock,
    trail::Trail,
};
use crate::proto::{Position, ResumeFailure};

impl Hub {
    /// Everything that is held, as of what is applied. Rings are shared, not copied, so this takes little longer than
    /// touching each task once; turning them into bytes is for another thread. `None` before the first event. To be called by
    /// the caller of [`Hub::apply`], between batches.
    #[must_use]
    pub fn export(&self) -> Option<Image> {
        let cursor = self.progress().applied?;
        let (trail, evicted_through) = lock(&self.0.trail).parts();
        let mut image = Image::new(cursor, trail, evicted_through, self.len());
        for shard in &self.0.shards {
            for slot in lock(shard).values() {
                let state = slot.lock();
                image.tasks.push(Held {
                    frames: state.frames.clone(),
                    memory: state.memory.clone(),
                    key_floor: state.key_floor,
                    born: state.born,
                    moves: state.moves.clone(),
                    heard_at_ms: state.heard_at_ms,
                });
            }
        }
        Some(image)
    }

    /// Reads the bytes of an image, within the limits of this hub.
    #[must_use]
    pub fn image_reader(&self) -> ImageReader {
        ImageReader::new(&self.0.settings)
    }

    /// Takes over an image, as if every event up to its position had been applied here. To be called by the caller of
    /// [`Hub::apply`], before the first event.
    pub fn import(&self, restored: Restored) {
        let Restored { cursor, trail, evicted_through, slots } = restored;
        *lock(&self.0.trail) = Trail::restored(trail, self.0.settings.resume_window, evicted_through);
        *lock(&self.0.departures) = Departures::unknown_through(cursor.position);
        let mut places = HashSet::with_capacity(2 * slots.len());
        for slot in slots {
            // Only a forged image names a task twice, or one of the service's own, or has two tasks of one event.
            let has_place = {
                let state = slot.lock();
                places.insert((false, state.born)) && places.insert((true, state.current().position()))
            };
            if slot.id.is_reserved() || !has_place || self.slot(&slot.id).is_some() {
                continue;
            }
            // No limit lets go of anything here: the reader counted the tasks, and what is beyond the others is the
            // next event's business, as it was where the image was taken.
            let slot = Arc::new(slot);
            self.enlist(&slot);
            self.0.bytes.fetch_add(slot.lock().weight(), Ordering::Relaxed);
        }
        self.0.metrics.tasks_bytes(self.bytes());
        self.0.progress.send_modify(|progress| {
            progress.applied = Some(cursor);
            progress.marked = cursor.position;
        });
    }

    /// Some records between what is applied and what the log still holds are lost. Tasks stay: what is known of those
    /// that were silent meanwhile is still true, and the log holds newer events of the others. Cursors from before are
    /// refused, since their clients may have missed something, and every session starts over once
    /// [`Hub::set_replayed`] says so.
    pub fn restart_after_gap(&self) {
        let applied = self.progress().applied.map_or(Position::START, |cursor| cursor.position);
        let after = Position { major: applied.major, minor: applied.minor.saturating_add(1) };
        lock(&self.0.trail).evicted(after);
        self.0.progress.send_modify(|progress| {
            *progress = Progress {
                generation: self.next_generation(),
                reset: Some(ResumeFailure::Trimmed),
                replayed: false,
                ..*progress
            };
        });
    }
}
