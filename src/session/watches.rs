//! What a session watches. Nearly always it is one topic, so this is a list and no map: a map's smallest node would take
//! more than everything else that an idle session holds.
//!
//! Refuses to know: who may watch what.

use smallvec::SmallVec;

use crate::{hub::Watch, proto::Topic};

#[derive(Default)]
pub(super) struct Watches(SmallVec<[Watch; 1]>);

impl Watches {
    /// Of a topic that is not watched yet.
    pub(super) fn insert(&mut self, watch: Watch) {
        self.0.push(watch);
    }

    pub(super) fn remove(&mut self, topic: &Topic) -> Option<Watch> {
        let index = self.0.iter().position(|watch| watch.topic() == topic)?;
        Some(self.0.swap_remove(index))
    }

    pub(super) fn contains(&self, topic: &Topic) -> bool {
        self.0.iter().any(|watch| watch.topic() == topic)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn topics(&self) -> Vec<Topic> {
        self.0.iter().map(|watch| watch.topic().clone()).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Watch> {
        self.0.iter()
    }
}
