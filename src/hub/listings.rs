//! Which tasks belong to an owner, a group or a tag.
//!
//! Refuses to know: what happened to a task, and who watches it.

use std::sync::Arc;

use super::{
    names::{Key, Named, Table, TopicName, shrink},
    slot::Slot,
    small_map::SmallMap,
};
use crate::proto::Position;

/// Tasks that are read with the lock held, so that whoever reads a long list delays nobody else for longer than that.
/// Few in tests of this crate, so that all of them go from piece to piece.
pub(super) const TASKS_PER_LOCK: usize = if cfg!(test) { 16 } else { 256 };

/// The lists, each by where the first event of a task stands: it never changes, so a list can be read in pieces.
pub(super) struct Listings(Table<SmallMap<Position, Arc<Slot>>>);

impl Listings {
    pub(super) fn new() -> Self {
        Self(Table::new())
    }

    pub(super) fn list(&self, name: TopicName<'_>, slot: &Arc<Slot>) {
        let born = slot.lock().born;
        let mut shard = self.0.shard(name);
        if let Some(tasks) = shard.get_mut(&name as &dyn Named) {
            tasks.insert(born, slot.clone());
        } else {
            shard.entry(Key::from(name)).or_default().insert(born, slot.clone());
        }
    }

    pub(super) fn unlist(&self, name: TopicName<'_>, slot: &Slot) {
        let born = slot.lock().born;
        let mut shard = self.0.shard(name);
        let Some(tasks) = shard.get_mut(&name as &dyn Named) else { return };
        tasks.remove(born);
        if tasks.is_empty() {
            shard.remove(&name as &dyn Named);
            shrink(&mut shard);
        }
    }

    /// How many tasks are on a list.
    pub(super) fn len(&self, name: TopicName<'_>) -> usize {
        self.0.shard(name).get(&name as &dyn Named).map_or(0, SmallMap::len)
    }

    /// Shows each task on a list, with no lock held.
    pub(super) fn each(&self, name: TopicName<'_>, mut show: impl FnMut(&Arc<Slot>)) {
        let mut piece: Vec<Arc<Slot>> = Vec::new();
        let mut after = None;
        loop {
            {
                let shard = self.0.shard(name);
                let Some(tasks) = shard.get(&name as &dyn Named) else { return };
                for (born, slot) in tasks.after(after).take(TASKS_PER_LOCK) {
                    piece.push(slot.clone());
                    after = Some(born);
                }
            }
            let is_last = piece.len() < TASKS_PER_LOCK;
            piece.drain(..).for_each(|slot| show(&slot));
            if is_last {
                return;
            }
        }
    }

    pub(super) fn clear(&self) {
        for mut shard in self.0.shards() {
            *shard = std::collections::HashMap::new();
        }
    }
}
