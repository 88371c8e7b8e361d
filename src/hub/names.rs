//! Which topics a task belongs to, and tables by topic. Topics are named by reference here: an event is looked up under
//! half a dozen of them, and makes none.
//!
//! Refuses to know: what is kept under a topic.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{BuildHasher, Hash, Hasher, RandomState},
    iter,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::proto::{Task, TaskId, Topic, UserId};

const SHARDS: usize = 64;

/// A table is made smaller when it is this many times too large.
const SHRINK_FACTOR: usize = 8;

/// Below this many places it is left as it is.
const SHRINK_FROM: usize = 64;

/// A topic, in the words of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum TopicName<'a> {
    Task(&'a TaskId),
    Root(&'a TaskId),
    Tag(&'a Arc<str>),
    Owner(&'a UserId),
    All,
}

impl<'a> From<&'a Topic> for TopicName<'a> {
    fn from(topic: &'a Topic) -> Self {
        match topic {
            Topic::Task(id) => Self::Task(id),
            Topic::Root(id) => Self::Root(id),
            Topic::Tag(tag) => Self::Tag(tag),
            Topic::Owner(user) => Self::Owner(user),
            Topic::All => Self::All,
        }
    }
}

/// How many kinds of topics there are.
pub(super) const KINDS: usize = 6;

impl TopicName<'_> {
    /// Below [`KINDS`]; 0 is of canaries alone.
    pub(super) fn kind(self) -> usize {
        match self {
            Self::Task(id) if id.is_reserved() => 0,
            Self::Task(_) => 1,
            Self::Root(_) => 2,
            Self::Tag(_) => 3,
            Self::Owner(_) => 4,
            Self::All => 5,
        }
    }

    pub(super) fn to_topic(self) -> Topic {
        match self {
            Self::Task(id) => Topic::Task(id.clone()),
            Self::Root(id) => Topic::Root(id.clone()),
            Self::Tag(tag) => Topic::Tag(tag.clone()),
            Self::Owner(user) => Topic::Owner(user.clone()),
            Self::All => Topic::All,
        }
    }
}

/// The topics that a task is listed under. Its own id and `All` need no list: the hub's table is one.
pub(super) fn listed(task: &Task) -> impl Iterator<Item = TopicName<'_>> {
    let owner = task.user_id.as_ref().map(TopicName::Owner);
    let grouped = task.root_id.is_some() || task.parent_id.is_some();
    let group = grouped.then(|| TopicName::Root(task.group()));
    let tags = task.tags.iter().flat_map(|tags| tags.iter().map(TopicName::Tag));
    owner.into_iter().chain(group).chain(tags)
}

/// Every topic whose watchers want to hear of a task.
pub(super) fn heard(task: &Task) -> impl Iterator<Item = TopicName<'_>> {
    let id = &task.task_id;
    // A canary wakes nobody but its own watcher. And any task is the root of whoever names it as parent.
    let others = (!id.is_reserved()).then(|| listed(task).chain([TopicName::Root(id), TopicName::All]));
    iter::once(TopicName::Task(id)).chain(others.into_iter().flatten())
}

/// Is it heard of under one of `topics`?
pub(super) fn is_heard_under(task: &Task, topics: &[Topic]) -> bool {
    topics.iter().any(|topic| match topic {
        Topic::Task(id) => task.task_id == *id,
        _ if task.task_id.is_reserved() => false,
        Topic::Root(id) => task.task_id == *id || task.group() == id,
        Topic::Tag(tag) => task.tags.as_ref().is_some_and(|tags| tags.contains(tag)),
        Topic::Owner(user) => task.user_id.as_ref() == Some(user),
        Topic::All => true,
    })
}

/// Nothing changed by which a task is listed, nor by which somebody may see it.
pub(super) fn is_listed_alike(before: &Task, after: &Task) -> bool {
    before.user_id == after.user_id && before.tags == after.tags && before.group() == after.group()
}

/// What is kept by topic, in parts that are locked one at a time.
pub(super) struct Table<V> {
    shards: Box<[Mutex<Shard<V>>]>,
    hasher: RandomState,
}

pub(super) type Shard<V> = HashMap<Key, V>;

impl<V> Table<V> {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect(), hasher: RandomState::new() }
    }

    /// The part that has `name`.
    pub(super) fn shard(&self, name: TopicName<'_>) -> MutexGuard<'_, Shard<V>> {
        #[cfg(test)]
        LOCKED.set(LOCKED.get() + 1);
        lock(&self.shards[self.hasher.hash_one(name) as usize % SHARDS])
    }

    /// One part after the other.
    pub(super) fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard<V>>> {
        self.shards.iter().map(lock)
    }
}

#[cfg(test)]
thread_local! {
    /// How often this thread has locked a part of a table.
    pub(super) static LOCKED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives back what a crowd has left, once for many that go.
pub(super) fn shrink<K: Hash + Eq, V>(map: &mut HashMap<K, V>) {
    if map.capacity() > SHRINK_FROM && map.len() * SHRINK_FACTOR < map.capacity() {
        map.shrink_to(2 * map.len());
    }
}

/// A topic as the key of a table, found by its name.
#[derive(Debug)]
pub(super) struct Key(Topic);

impl From<TopicName<'_>> for Key {
    fn from(name: TopicName<'_>) -> Self {
        Self(name.to_topic())
    }
}

/// What a table is asked by: a key, or somebody else's words for it. Both hash and compare as the words do.
pub(super) trait Named {
    fn name(&self) -> TopicName<'_>;
}

impl Named for Key {
    fn name(&self) -> TopicName<'_> {
        (&self.0).into()
    }
}

impl Named for TopicName<'_> {
    fn name(&self) -> TopicName<'_> {
        *self
    }
}

impl Hash for dyn Named + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for dyn Named + '_ {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Key {}

impl<'a> Borrow<dyn Named + 'a> for Key {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};
    use crate::proto::{Cursor, Event, Position};

    fn task_of(event: &Event) -> Task {
        let hub = hub_with(settings());
        let cursor = Cursor { position: Position { major: 1, minor: 0 }, proof: 1 };
        hub.keep_canary(event.task_id.clone());
        hub.apply(&[crate::hub::Arrival { cursor, appended_at_ms: None, event: Some(event.clone()) }], LATE);
        hub.canary().or_else(|| hub.task(&event.task_id)).unwrap().task.clone()
    }

    fn topics(of: &Task) -> Vec<Topic> {
        heard(of).map(TopicName::to_topic).collect()
    }

    #[test]
    fn a_task_is_heard_of_under_what_it_names_and_under_nothing_else() {
        let mut event = progress("child", "u1", 1.0);
        event.parent_id = Some(id("middle"));
        event.root_id = Some(id("root"));
        event.tags = Some(["a".into(), "b".into()].into());
        let task = task_of(&event);
        let expected = [
            Topic::Task(id("child")),
            Topic::Owner(user("u1")),
            Topic::Root(id("root")),
            Topic::Tag("a".into()),
            Topic::Tag("b".into()),
            Topic::Root(id("child")),
            Topic::All,
        ];
        assert_eq!(topics(&task), expected);
        assert!(expected.iter().all(|topic| is_heard_under(&task, std::slice::from_ref(topic))));
        let others =
            [Topic::Task(id("root")), Topic::Owner(user("child")), Topic::Root(id("middle")), Topic::Tag("u1".into())];
        assert!(!is_heard_under(&task, &others));
        assert!(is_heard_under(&task, &[others.as_slice(), &expected[..1]].concat()));
    }

    #[test]
    fn a_canary_is_heard_of_under_its_own_id_alone() {
        let task = task_of(&Event::new(id("taskcast:canary:1")));
        assert_eq!(topics(&task), [Topic::Task(task.task_id.clone())]);
        assert!(!is_heard_under(&task, &[Topic::All, Topic::Root(task.task_id.clone())]));
    }

    #[test]
    fn a_table_finds_a_topic_by_its_name_and_tells_kinds_apart() {
        let table: Table<usize> = Table::new();
        let all =
            [Topic::Task(id("x")), Topic::Root(id("x")), Topic::Tag("x".into()), Topic::Owner(user("x")), Topic::All];
        for (number, topic) in all.iter().enumerate() {
            let name = TopicName::from(topic);
            table.shard(name).insert(name.into(), number);
        }
        for (number, topic) in all.iter().enumerate() {
            let name = TopicName::from(topic);
            assert_eq!(table.shard(name).get(&name as &dyn Named), Some(&number));
            assert_eq!(name.to_topic(), *topic);
        }
    }

    #[test]
    fn a_table_gives_back_the_room_of_a_crowd_that_left() {
        let mut map: HashMap<u32, u32> = (0..10_000).map(|n| (n, n)).collect();
        let full = map.capacity();
        for n in 0..9_990 {
            map.remove(&n);
            shrink(&mut map);
        }
        assert_eq!(map.len(), 10);
        assert!(map.capacity() < full / 50, "{} of {full}", map.capacity());
    }
}
