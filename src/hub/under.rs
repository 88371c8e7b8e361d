//! Tasks under some topics, and where to look for them: how long it takes to find nothing must not tell how much there is
//! that somebody may not see.
//!
//! Refuses to know: who may see what.

use std::{collections::HashSet, sync::Arc};

use super::names::{Key, Named, TopicName, heard};
use crate::proto::{Task, Topic};

/// What is watched, and a part of everything that holds all of it that is to be found.
#[derive(Clone, Debug)]
pub struct Under {
    pub(super) topics: Vec<Topic>,
    /// `None`: the topics themselves.
    among: Option<Arc<Among>>,
}

#[derive(Debug)]
struct Among {
    sources: Vec<Topic>,
    /// The topics, since there may be hundreds of them, and thousands of tasks to look at.
    wanted: HashSet<Key>,
}

impl Under {
    /// Tasks under `topics`, as far as they are also under one of `among`.
    #[must_use]
    pub fn among(topics: Vec<Topic>, among: Option<Vec<Topic>>) -> Self {
        let among = among.map(|sources| {
            Arc::new(Among { sources, wanted: topics.iter().map(|topic| TopicName::from(topic).into()).collect() })
        });
        Self { topics, among }
    }

    /// Means no more what is under `topic` alone.
    pub(super) fn give_up(&mut self, topic: &Topic) {
        self.topics.retain(|watched| watched != topic);
        let sources = self.among.take().map(|among| among.sources.clone());
        *self = Self::among(std::mem::take(&mut self.topics), sources);
    }

    /// What is watched.
    #[must_use]
    pub fn into_topics(self) -> Vec<Topic> {
        self.topics
    }

    /// Where to look.
    #[must_use]
    pub fn sources(&self) -> &[Topic] {
        self.among.as_ref().map_or(&self.topics, |among| &among.sources)
    }

    /// Is a task from there one of those that are looked for?
    #[must_use]
    pub fn has(&self, task: &Task) -> bool {
        let Some(among) = &self.among else { return true };
        heard(task).any(|name| among.wanted.contains(&name as &dyn Named))
    }
}

impl From<Vec<Topic>> for Under {
    fn from(topics: Vec<Topic>) -> Self {
        Self { topics, among: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hub::{Mailbox, Walk, tests::*},
        proto::Position,
    };

    /// A group of somebody else's, with one task of `u1`'s in it, and `u1`'s other tasks.
    fn mine_in_the_group() -> Under {
        Under::among(vec![Topic::Root(id("group"))], Some(vec![Topic::Owner(user("u1"))]))
    }

    fn hub() -> crate::hub::Hub {
        let hub = hub_with(settings());
        let event = |task: &str, owner: &str, root: Option<&str>| {
            let mut event = progress(task, owner, 1.0);
            event.root_id = root.map(id);
            event
        };
        let events = [
            event("theirs", "u2", Some("group")),
            event("mine", "u1", Some("group")),
            event("another", "u1", None),
            event("group", "u2", None),
        ];
        let batch: Vec<_> = (1..).zip(events).map(|(at, event)| arrival(at, event)).collect();
        hub.apply(&batch, LATE);
        hub
    }

    #[test]
    fn what_is_looked_for_is_found_and_nobody_elses_is_looked_at() {
        let hub = hub();
        let looked_at = std::cell::RefCell::new(Vec::new());
        let sees = |task: &Task| {
            looked_at.borrow_mut().push(task.task_id.to_string());
            true
        };
        let through = cursor(4).position;
        let mut walk = Walk::new(mine_in_the_group(), through);
        let first = hub.peek(&mut walk, sees).expect("one task");
        walk.advance();
        assert!(first.task.task_id == id("mine") && hub.peek(&mut walk, sees).is_none());
        let missed = hub.missed(&mine_in_the_group(), cursor(1), through, true, 10, sees).unwrap();
        assert_eq!(missed.frames.iter().map(|frame| &frame.task.task_id).collect::<Vec<_>>(), [&id("mine")]);
        let mailbox = std::sync::Arc::new(Mailbox::default());
        assert!(hub.catch_up(mine_in_the_group(), Position::START, &mailbox, sees).is_some());
        assert_eq!(mailbox.len(), 1);
        assert!(looked_at.borrow().iter().all(|task| task == "mine"), "{looked_at:?}");
    }

    #[test]
    fn what_is_given_up_on_the_way_is_no_more_found_among_the_rest() {
        let hub = hub();
        let topics = vec![Topic::Root(id("group")), Topic::Task(id("another"))];
        let mut under = Under::among(topics, Some(vec![Topic::Owner(user("u1"))]));
        let has = |under: &Under, task: &str| under.has(&hub.task(&id(task)).unwrap().task);
        assert!(has(&under, "mine") && has(&under, "another") && has(&under, "theirs"));
        under.give_up(&Topic::Root(id("group")));
        assert!(!has(&under, "mine") && has(&under, "another") && !has(&under, "theirs"));
        assert_eq!(under.sources(), [Topic::Owner(user("u1"))]);
    }

    #[test]
    fn where_nothing_is_narrowed_everything_under_the_topics_is_meant() {
        let hub = hub();
        let all = Under::from(vec![Topic::Root(id("group"))]);
        let mut walk = Walk::new(all, cursor(4).position);
        let mut found = Vec::new();
        while let Some(frame) = hub.peek(&mut walk, ALL) {
            found.push(frame.task.task_id.to_string());
            walk.advance();
        }
        assert_eq!(found, ["theirs", "mine", "group"]);
    }
}
