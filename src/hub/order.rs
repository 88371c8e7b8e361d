//! All tasks in the order of the log, by the event that changed each last: the ended ones and the others apart. So room is
//! found without a search, and a snapshot or a resume looks at little more than what it brings.
//!
//! Refuses to know: who watches, and what they may see.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::slot::Slot;
use crate::proto::{Position, TaskFrame};

/// Places that are read with the lock held, of the ended and of the others each.
/// Few in tests of this crate, so that all of them go from piece to piece.
const PLACES_PER_LOCK: usize = if cfg!(test) { 16 } else { 256 };

/// Written by the applier alone.
#[derive(Default)]
pub(super) struct Order(Mutex<Places>);

#[derive(Default)]
struct Places {
    live: BTreeMap<Position, Arc<Slot>>,
    ended: BTreeMap<Position, Arc<Slot>>,
}

impl Places {
    fn of(&mut self, frame: &TaskFrame) -> &mut BTreeMap<Position, Arc<Slot>> {
        if frame.task.status.is_terminal() { &mut self.ended } else { &mut self.live }
    }
}

impl Order {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task moves from where `before` stood to where `now` stands; at no time is it in neither place.
    pub(super) fn note(&self, slot: &Arc<Slot>, before: Option<&TaskFrame>, now: Option<&TaskFrame>) {
        let mut places = self.lock();
        if let Some(before) = before {
            places.of(before).remove(&before.position());
        }
        if let Some(now) = now {
            places.of(now).insert(now.position(), slot.clone());
        }
    }

    /// The longest-ended tasks.
    pub(super) fn longest_ended(&self, tasks_max: usize) -> Vec<Arc<Slot>> {
        self.lock().ended.values().take(tasks_max).cloned().collect()
    }

    /// The first places behind `after`, not beyond `through`, ascending; none only if there are no more.
    pub(super) fn piece(&self, after: Position, through: Position) -> Vec<(Position, Arc<Slot>)> {
        if after >= through {
            return Vec::new();
        }
        let mut piece = Vec::with_capacity(2 * PLACES_PER_LOCK);
        let mut whole_through = through;
        {
            let places = self.lock();
            for part in [&places.live, &places.ended] {
                let first = part.range((Excluded(after), Included(through))).take(PLACES_PER_LOCK);
                let before = piece.len();
                piece.extend(first.map(|(position, slot)| (*position, slot.clone())));
                if piece.len() - before == PLACES_PER_LOCK {
                    whole_through = piece.last().map_or(through, |(last, _)| whole_through.min(*last));
                }
            }
        }
        piece.sort_unstable_by_key(|(position, _)| *position);
        piece.truncate(piece.partition_point(|(position, _)| *position <= whole_through));
        piece
    }

    pub(super) fn clear(&self) {
        *self.lock() = Places::default();
    }
}
