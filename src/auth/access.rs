//! The access function: pure, without a clock, asked for every task before every delivery.

use super::{Identity, Rights};
use crate::proto::{Task, Topic};

impl Rights {
    /// Everything that the token names one by one.
    fn named(&self) -> impl Iterator<Item = Topic> {
        let tasks = self.tasks.iter().cloned().map(Topic::Task);
        let roots = self.roots.iter().cloned().map(Topic::Root);
        tasks.chain(roots).chain(self.tags.iter().map(|tag| Topic::Tag(tag.as_str().into())))
    }
}

impl Identity {
    /// The access function: may this caller watch this task? Asked for every task before every delivery.
    #[must_use]
    pub fn may_watch(&self, task: &Task) -> bool {
        let rights = &self.rights;
        if task.task_id.is_reserved() {
            return rights.canary.as_deref() == Some(&task.task_id);
        }
        rights.all
            || (rights.own && self.user.is_some() && self.user == task.user_id)
            || rights.tasks.contains(&task.task_id)
            || rights.roots.contains(task.group())
            || rights.roots.contains(&task.task_id)
            || task.tags.iter().flat_map(|tags| tags.iter()).any(|tag| rights.tags.contains(&**tag))
    }

    /// May this caller subscribe to this topic? Naming a task or a group is always allowed, lest the answer tell
    /// whether it exists; what is delivered is decided per task by [`Identity::may_watch`]. `Owner` of another and
    /// `All` need the right to everything, a tag needs the right to it.
    #[must_use]
    pub fn may_subscribe(&self, topic: &Topic) -> bool {
        match topic {
            Topic::Task(_) | Topic::Root(_) => true,
            Topic::Tag(tag) => self.rights.all || self.rights.tags.contains(&**tag),
            Topic::Owner(user) => self.rights.all || (self.rights.own && self.user.as_ref() == Some(user)),
            Topic::All => self.rights.all,
        }
    }

    /// Could anything under this topic ever be shown to this caller? A subscription for which the answer is no is of no
    /// use to anybody.
    #[must_use]
    pub fn may_keep(&self, topic: &Topic) -> bool {
        let rights = &self.rights;
        let own = rights.own && self.user.is_some();
        let unnamed = rights.all || own || !rights.roots.is_empty() || !rights.tags.is_empty();
        match topic {
            Topic::Task(id) => unnamed || rights.tasks.contains(id),
            // Any task may be of the group, for all that a right by its own id says.
            Topic::Root(_) => unnamed || !rights.tasks.is_empty(),
            Topic::Tag(_) | Topic::Owner(_) | Topic::All => self.may_subscribe(topic),
        }
    }

    /// Where to look for the tasks under `topics` that this caller may watch; `None`: there. A group of which it may not
    /// watch all is looked for among what is the caller's: a look at the rest would take the longer the more of it there is,
    /// and so tell that it exists.
    #[must_use]
    pub fn sources(&self, topics: &[Topic]) -> Option<Vec<Topic>> {
        let rights = &self.rights;
        let is_whole = |topic: &&Topic| match topic {
            Topic::Root(id) => rights.all || rights.roots.contains(id),
            Topic::Tag(tag) => rights.all || rights.tags.contains(&**tag),
            Topic::All => rights.all,
            Topic::Task(_) | Topic::Owner(_) => true,
        };
        if topics.iter().all(|topic| is_whole(&topic)) {
            return None;
        }
        let mut sources: Vec<Topic> = topics.iter().filter(is_whole).cloned().collect();
        let own = self.user.iter().filter(|_| rights.own).cloned().map(Topic::Owner);
        let others: Vec<Topic> = own.chain(rights.named()).filter(|topic| !sources.contains(topic)).collect();
        sources.extend(others);
        Some(sources)
    }

    /// What `/ws/tasks/` means to this caller: their own tasks; or, for a token without `own`, everything that it
    /// names.
    #[must_use]
    pub fn default_topics(&self) -> Vec<Topic> {
        let rights = &self.rights;
        if let (true, Some(user)) = (rights.own, &self.user) {
            return vec![Topic::Owner(user.clone())];
        }
        if rights.all {
            return vec![Topic::All];
        }
        rights.named().collect()
    }

    /// May this caller ask to cancel this task?
    #[must_use]
    pub fn may_cancel(&self, task: &Task) -> bool {
        self.rights.cancel && self.may_watch(task)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        auth::Rights,
        proto::{Status, TaskId, UserId},
    };

    fn id(text: &str) -> TaskId {
        TaskId::parse(text).unwrap()
    }

    fn user(text: &str) -> UserId {
        UserId::parse(text).unwrap()
    }

    /// Task `t1` with `owner`, `parent`, `root` and the tag `night`.
    fn task(owner: Option<&str>, parent: Option<&str>, root: Option<&str>) -> Task {
        Task {
            task_id: id("t1"),
            user_id: owner.map(user),
            name: None,
            title: None,
            status: Status::Running,
            progress: None,
            current: None,
            total: None,
            unit: None,
            step: None,
            message: None,
            attempt: 1,
            parent_id: parent.map(id),
            root_id: root.map(id),
            weight: None,
            tags: Some(Arc::from([Arc::from("night")])),
            result: None,
            error: None,
            metadata: None,
            worker: None,
            heartbeat_timeout_ms: None,
            created_at_ms: 0,
            started_at_ms: None,
            updated_at_ms: 0,
            completed_at_ms: None,
        }
    }

    fn caller(name: Option<&str>, watch: &[&str]) -> Identity {
        let mut rights = Rights::default();
        for entry in watch {
            match entry.split_once(':') {
                None if *entry == "own" => rights.own = true,
                None if *entry == "all" => rights.all = true,
                Some(("task", rest)) => drop(rights.tasks.insert(id(rest))),
                Some(("root", rest)) => drop(rights.roots.insert(id(rest))),
                Some(("tag", rest)) => drop(rights.tags.insert(rest.to_owned())),
                _ => panic!("no such entry: {entry}"),
            }
        }
        Identity { user: name.map(user), rights, ..Identity::default() }
    }

    #[test]
    fn who_may_watch_what() {
        let (mine, foreign, nobodys) =
            (task(Some("u1"), None, None), task(Some("u2"), None, None), task(None, None, None));
        let (child, grandchild) = (task(Some("u2"), Some("p"), None), task(Some("u2"), Some("p"), Some("r")));
        for (name, watch, task, may) in [
            (Some("u1"), &["own"][..], &mine, true),
            (Some("u1"), &["own"], &foreign, false),
            (Some("u1"), &["own"], &nobodys, false),
            // No owner and no user are not the same person.
            (None, &["own"], &nobodys, false),
            (Some("u1"), &[], &mine, false),
            (Some("u1"), &["all"], &foreign, true),
            (None, &["all"], &nobodys, true),
            (None, &["task:t1"], &foreign, true),
            (None, &["task:t1"], &nobodys, true),
            (None, &["task:t2"], &nobodys, false),
            (None, &["task:p"], &child, false),
            (None, &["root:p"], &child, true),
            (None, &["root:r"], &grandchild, true),
            (None, &["root:p"], &grandchild, false),
            (None, &["root:t1"], &nobodys, true),
            (None, &["root:t1"], &grandchild, true),
            (None, &["tag:night"], &foreign, true),
            (None, &["tag:nigh"], &foreign, false),
            (Some("u1"), &["own", "task:x", "tag:y"], &foreign, false),
        ] {
            assert_eq!(caller(name, watch).may_watch(task), may, "{name:?} {watch:?} {task:?}");
        }
    }

    #[test]
    fn a_canary_is_for_the_one_session_that_has_it_whatever_a_token_says() {
        let canary = |text: &str| Task { task_id: id(text), ..task(Some("u1"), None, Some("r")) };
        let (own, other) = (canary("taskcast:canary:a"), canary("taskcast:canary:b"));
        let watch = ["own", "all", "task:taskcast:canary:a", "root:taskcast:canary:a", "root:r", "tag:night"];
        let mut stranger = caller(Some("u1"), &watch);
        stranger.rights.cancel = true;
        assert!(!stranger.may_watch(&own) && !stranger.may_cancel(&own));
        let rights = Rights { canary: Some(Box::new(id("taskcast:canary:a"))), ..Rights::default() };
        let loopback = Identity { rights, ..Identity::default() };
        assert!(loopback.may_watch(&own) && !loopback.may_watch(&other));
        assert!(!loopback.may_watch(&task(Some("u1"), None, None)));
    }

    #[test]
    fn who_may_subscribe_to_what() {
        let (own, tag, all) = (caller(Some("u1"), &["own"]), caller(None, &["tag:a"]), caller(None, &["all"]));
        for (topic, by_own, by_tag) in [
            (Topic::Task(id("unheard-of")), true, true),
            (Topic::Root(id("unheard-of")), true, true),
            (Topic::Owner(user("u1")), true, false),
            (Topic::Owner(user("u2")), false, false),
            (Topic::Tag("a".into()), false, true),
            (Topic::Tag("b".into()), false, false),
            (Topic::All, false, false),
        ] {
            assert_eq!(own.may_subscribe(&topic), by_own, "own: {topic:?}");
            assert_eq!(tag.may_subscribe(&topic), by_tag, "tag: {topic:?}");
            assert!(all.may_subscribe(&topic), "all: {topic:?}");
        }
    }

    #[test]
    fn a_subscription_is_kept_as_long_as_anything_could_come_of_it() {
        let (task, root, tag) = (Topic::Task(id("t1")), Topic::Root(id("r")), Topic::Tag("a".into()));
        for (watch, of_task, of_root, of_tag) in [
            (&["own"][..], true, true, false),
            (&["all"], true, true, true),
            (&["task:t1"], true, true, false),
            (&["task:t2"], false, true, false),
            (&["root:x"], true, true, false),
            (&["tag:a"], true, true, true),
            (&[], false, false, false),
        ] {
            let caller = caller(Some("u1"), watch);
            let kept = [&task, &root, &tag].map(|topic| caller.may_keep(topic));
            assert_eq!(kept, [of_task, of_root, of_tag], "{watch:?}");
        }
        assert!(!caller(None, &["own"]).may_keep(&task));
        assert!(!caller(Some("u1"), &["own"]).may_keep(&Topic::Owner(user("u2"))));
    }

    #[test]
    fn the_plain_address_means_ones_own_tasks_else_all_that_the_token_names() {
        assert_eq!(caller(Some("u1"), &["own", "all"]).default_topics(), [Topic::Owner(user("u1"))]);
        assert_eq!(caller(Some("u1"), &["all"]).default_topics(), [Topic::All]);
        assert_eq!(
            caller(None, &["tag:a", "root:r", "task:t"]).default_topics(),
            [Topic::Task(id("t")), Topic::Root(id("r")), Topic::Tag("a".into())]
        );
        assert_eq!(caller(None, &[]).default_topics(), []);
    }

    #[test]
    fn to_cancel_takes_the_right_and_the_sight() {
        let mut owner = caller(Some("u1"), &["own"]);
        assert!(!owner.may_cancel(&task(Some("u1"), None, None)));
        owner.rights.cancel = true;
        assert!(owner.may_cancel(&task(Some("u1"), None, None)));
        assert!(!owner.may_cancel(&task(Some("u2"), None, None)));
    }

    #[test]
    fn a_group_that_is_not_all_the_callers_is_looked_for_among_what_is() {
        let rights = |watch: &[&str]| Rights {
            own: watch.contains(&"own"),
            all: watch.contains(&"all"),
            roots: watch.contains(&"root:g").then(|| id("g")).into_iter().collect(),
            tags: watch.contains(&"tag:night").then(|| "night".to_owned()).into_iter().collect(),
            ..Rights::default()
        };
        let of = |watch: &[&str], topic: Topic| {
            let identity =
                Identity { user: Some(user("u1")), rights: rights(watch), expires_at_ms: None, issued: None };
            identity.sources(&[topic])
        };
        let (group, tag) = (Topic::Root(id("g")), Topic::Tag("night".into()));
        for whole in [["all"], ["root:g"]] {
            assert_eq!(of(&whole, group.clone()), None);
        }
        assert_eq!(of(&["own"], group.clone()), Some(vec![Topic::Owner(user("u1"))]));
        assert_eq!(of(&["own", "tag:night"], group), Some(vec![Topic::Owner(user("u1")), tag.clone()]));
        assert_eq!(of(&["own", "tag:night"], tag), None);
        assert_eq!(of(&["own"], Topic::All), Some(vec![Topic::Owner(user("u1"))]));
        assert_eq!(of(&[], Topic::Root(id("g"))), Some(Vec::new()));
        assert_eq!(of(&["own"], Topic::Task(id("t"))), None, "a task is found or not, whoever's it is");
    }
}
