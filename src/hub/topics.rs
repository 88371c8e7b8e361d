//! Who watches what.
//!
//! Refuses to know: what happened to a task.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::{
    mailbox::Mailbox,
    names::{KINDS, Key, Named, Table, TopicName, shrink},
    slot::Slot,
    watchers::{WATCHERS_PER_LOCK, Watchers},
};
use crate::proto::Topic;

/// The watchers of each topic, by the number of their watch.
pub(super) struct Topics {
    watchers: Table<Watchers>,
    /// The next watch's number.
    next: AtomicU64,
    /// Watches of each kind of topic: nobody has to be looked for under a kind that nobody watches.
    watched: [AtomicUsize; KINDS],
}

impl Topics {
    pub(super) fn new() -> Self {
        Self { watchers: Table::new(), next: AtomicU64::new(0), watched: Default::default() }
    }

    /// Begins a watch; its number.
    pub(super) fn watch(&self, topic: &Topic, mailbox: &Arc<Mailbox>) -> u64 {
        let name = TopicName::from(topic);
        // Counted first: whoever applies looks at the count after `applied` has moved, so it sees either this watch or an
        // `applied` that this watcher will read: both take the lock of `progress` in between.
        self.watched[name.kind()].fetch_add(1, Ordering::SeqCst);
        let mut shard = self.watchers.shard(name);
        // Under the lock, so that numbers ascend within a topic: marking goes on behind the last one that it marked.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        shard.entry(Key::from(name)).or_default().join(number, mailbox);
        number
    }

    pub(super) fn unwatch(&self, topic: &Topic, number: u64) {
        let name = TopicName::from(topic);
        let mut shard = self.watchers.shard(name);
        if let Some(watchers) = shard.get_mut(&name as &dyn Named) {
            watchers.leave(number);
            if watchers.is_empty() {
                shard.remove(&name as &dyn Named);
                shrink(&mut shard);
            }
        }
        drop(shard);
        self.watched[name.kind()].fetch_sub(1, Ordering::SeqCst);
    }

    /// Does anybody watch anything but a canary?
    pub(super) fn is_watched(&self) -> bool {
        self.watched[1..].iter().any(|watched| watched.load(Ordering::SeqCst) > 0)
    }

    /// Marks `slot` in the mailbox of everyone who watches `name`; those that were empty are added to `to_wake`.
    pub(super) fn mark(&self, name: TopicName<'_>, slot: &Arc<Slot>, urgent: bool, to_wake: &mut Vec<Arc<Mailbox>>) {
        if self.watched[name.kind()].load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut after = None;
        loop {
            let shard = self.watchers.shard(name);
            let Some(watchers) = shard.get(&name as &dyn Named) else { return };
            let piece = watchers.piece(after);
            let mailboxes = || piece.iter().filter_map(|(_, mailbox)| mailbox.as_ref());
            mailboxes().for_each(|mailbox| mailbox.prefetch());
            for mailbox in mailboxes() {
                if mailbox.mark(slot, urgent) {
                    to_wake.push(mailbox.clone());
                }
            }
            if piece.len() < WATCHERS_PER_LOCK {
                return;
            }
            after = piece.last().map(|(number, _)| *number);
        }
    }

    /// For how many topics and watchers there is room, and how many topics are watched.
    #[cfg(test)]
    pub(super) fn room(&self) -> (usize, usize) {
        let rooms = self.watchers.shards().map(|shard| {
            let watchers: usize = shard.values().map(Watchers::room).sum();
            (shard.capacity() + watchers, shard.len())
        });
        rooms.fold((0, 0), |sum, room| (sum.0 + room.0, sum.1 + room.1))
    }

    /// Everyone who watches anything, some more than once.
    pub(super) fn watchers(&self) -> Vec<Arc<Mailbox>> {
        let mut all = Vec::new();
        for shard in self.watchers.shards() {
            all.extend(shard.values().flat_map(Watchers::mailboxes).cloned());
        }
        all
    }
}
