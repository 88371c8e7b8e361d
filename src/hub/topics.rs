//! Which tasks belong to an owner, a group or a tag, and who watches what.
//!
//! Refuses to know: what happened to a task.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{mailbox::Mailbox, slot::Slot};
use crate::proto::{Task, TaskId, Topic};

const SHARDS: usize = 64;

/// Watchers are marked this many at a time with the lock held, so that a crowd around one task delays nobody else for
/// longer than that.
const WATCHERS_PER_LOCK: usize = 128;

#[derive(Default)]
struct Entry {
    tasks: HashMap<TaskId, Arc<Slot>>,
    /// Slots of a slab: a watch keeps its index, so that both ends cost O(1).
    watchers: Vec<Option<Arc<Mailbox>>>,
    free: Vec<usize>,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.free.len() == self.watchers.len()
    }
}

/// The indexes, sharded by topic.
pub(super) struct Topics {
    shards: Box<[Mutex<HashMap<Topic, Entry>>]>,
    hasher: RandomState,
}

/// The topics that a task is listed under. Its own id and `All` need no list: the hub's table is one.
pub(super) fn listed(task: &Task) -> Vec<Topic> {
    let owner = task.user_id.clone().map(Topic::Owner);
    let grouped = task.root_id.is_some() || task.parent_id.is_some();
    let group = grouped.then(|| Topic::Root(task.group().clone()));
    let tags = task.tags.iter().flat_map(|tags| tags.iter().cloned().map(Topic::Tag));
    owner.into_iter().chain(group).chain(tags).collect()
}

/// Nothing changed by which a task is listed, nor by which somebody may see it.
pub(super) fn is_listed_alike(before: &Task, after: &Task) -> bool {
    before.user_id == after.user_id && before.tags == after.tags && before.group() == after.group()
}

/// Every topic whose watchers want to hear of a task.
pub(super) fn heard(task: &Task) -> Vec<Topic> {
    if task.task_id.is_reserved() {
        // A canary wakes nobody but its own watcher.
        return vec![Topic::Task(task.task_id.clone())];
    }
    let mut topics = listed(task);
    topics.push(Topic::Task(task.task_id.clone()));
    if task.root_id.is_some() || task.parent_id.is_some() {
        // A middle task is also the root of whoever names it as parent.
        topics.push(Topic::Root(task.task_id.clone()));
    } else {
        topics.push(Topic::Root(task.group().clone()));
    }
    topics.push(Topic::All);
    topics
}

impl Topics {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    fn shard(&self, topic: &Topic) -> MutexGuard<'_, HashMap<Topic, Entry>> {
        let index = self.hasher.hash_one(topic) as usize % self.shards.len();
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn list(&self, topic: Topic, slot: &Arc<Slot>) {
        self.shard(&topic).entry(topic).or_default().tasks.insert(slot.id.clone(), slot.clone());
    }

    pub(super) fn unlist(&self, topic: &Topic, id: &TaskId) {
        let mut shard = self.shard(topic);
        if let Some(entry) = shard.get_mut(topic) {
            entry.tasks.remove(id);
            if entry.is_empty() {
                shard.remove(topic);
            }
        }
    }

    pub(super) fn tasks(&self, topic: &Topic) -> Vec<Arc<Slot>> {
        self.shard(topic).get(topic).map(|entry| entry.tasks.values().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn watch(&self, topic: &Topic, mailbox: &Arc<Mailbox>) -> usize {
        let mut shard = self.shard(topic);
        let entry = shard.entry(topic.clone()).or_default();
        if let Some(index) = entry.free.pop() {
            entry.watchers[index] = Some(mailbox.clone());
            return index;
        }
        entry.watchers.push(Some(mailbox.clone()));
        entry.watchers.len() - 1
    }

    pub(super) fn unwatch(&self, topic: &Topic, index: usize) {
        let mut shard = self.shard(topic);
        let Some(entry) = shard.get_mut(topic) else { return };
        entry.watchers[index] = None;
        entry.free.push(index);
        if entry.is_empty() {
            shard.remove(topic);
        }
    }

    /// Marks `slot` in the mailbox of everyone who watches `topic`; those that were empty are added to `to_wake`.
    pub(super) fn mark(&self, topic: &Topic, slot: &Arc<Slot>, urgent: bool, to_wake: &mut Vec<Arc<Mailbox>>) {
        let mut from = 0;
        loop {
            let shard = self.shard(topic);
            let Some(entry) = shard.get(topic) else { return };
            let rest = entry.watchers.get(from..).unwrap_or_default();
            for mailbox in rest.iter().take(WATCHERS_PER_LOCK).flatten() {
                if mailbox.mark(slot, urgent) {
                    to_wake.push(mailbox.clone());
                }
            }
            if rest.len() <= WATCHERS_PER_LOCK {
                return;
            }
            from += WATCHERS_PER_LOCK;
        }
    }

    /// Everyone who watches anything, some more than once.
    pub(super) fn watchers(&self) -> Vec<Arc<Mailbox>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.values().flat_map(|entry| entry.watchers.iter().flatten().cloned()));
        }
        all
    }

    /// Takes all tasks off the lists; watchers stay.
    pub(super) fn clear_tasks(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for entry in shard.values_mut() {
                entry.tasks = HashMap::new();
            }
            shard.retain(|_, entry| !entry.is_empty());
        }
    }
}
