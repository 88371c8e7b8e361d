//! What the hub promises, one by one.

use std::collections::BTreeMap;

use super::*;
use crate::proto::{Status, Task, TaskFrame, Topic, UserId};

pub(super) fn settings() -> Settings {
    Settings {
        max: 1_000,
        max_bytes: 0,
        max_per_owner: 0,
        ring_frames: 64,
        retain_ended: Duration::from_secs(60),
        retain_idle: Duration::from_secs(3600),
        resume_window: 10_000,
    }
}

/// A time of reading after everything that the tests date.
pub(super) const LATE: u64 = 1_000_000_000;

pub(super) fn hub_with(settings: Settings) -> Hub {
    let hub = Hub::new(settings, Arc::new(Metrics::new("memory")));
    hub.set_replayed(true);
    hub
}

pub(super) fn id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

pub(super) fn user(text: &str) -> UserId {
    UserId::parse(text).unwrap()
}

pub(super) fn cursor(major: u64) -> Cursor {
    Cursor { position: Position { major, minor: 0 }, proof: major as u32 }
}

pub(super) fn arrival(major: u64, event: Event) -> Arrival {
    Arrival { cursor: cursor(major), appended_at_ms: Some(major), event: Some(event) }
}

pub(super) fn progress(task: &str, owner: &str, percent: f64) -> Event {
    let mut event = Event::new(id(task));
    event.user_id = Some(user(owner));
    event.progress = Some(percent);
    event
}

pub(super) fn status(task: &str, owner: &str, status: Status) -> Event {
    let mut event = Event::new(id(task));
    event.user_id = Some(user(owner));
    event.status = Some(status);
    event
}

pub(super) const ALL: fn(&Task) -> bool = |_| true;

pub(super) fn options(after: Position) -> PullOptions {
    PullOptions { after, every: false, frames_max: 1_000 }
}

/// A session reduced to what the hub promises it.
pub(super) struct Client {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) topic: Topic,
    pub(super) watch: Watch,
    pub(super) after: Position,
    pub(super) seen: Vec<Arc<TaskFrame>>,
}

impl Client {
    pub(super) fn attach(hub: &Hub, topic: Topic) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        let watch = hub.watch(topic.clone(), &mailbox);
        let applied = hub.progress().applied.map_or(Position::START, |cursor| cursor.position);
        let mut seen = hub.tasks(std::slice::from_ref(&topic));
        seen.retain(|frame| frame.position() <= applied);
        seen.reverse();
        Self { mailbox, topic, watch, after: applied, seen }
    }

    pub(super) fn pull(&mut self, hub: &Hub, frames_max: usize, every: bool) {
        let options = PullOptions { after: self.after, every, frames_max };
        let pulled = hub.pull(&self.mailbox, options, ALL);
        for frame in pulled.frames {
            assert!(frame.position() > self.after, "ascending, nothing twice");
            self.after = frame.position();
            self.seen.push(frame);
        }
    }

    pub(super) fn cursor(&self) -> Cursor {
        cursor(self.after.major)
    }

    pub(super) fn states(&self) -> BTreeMap<String, Position> {
        self.seen.iter().map(|frame| (frame.task.task_id.to_string(), frame.position())).collect()
    }
}

pub(super) fn states(hub: &Hub, topic: &Topic) -> BTreeMap<String, Position> {
    let frames = hub.tasks(std::slice::from_ref(topic));
    frames.iter().map(|frame| (frame.task.task_id.to_string(), frame.position())).collect()
}

#[test]
fn a_watcher_gets_what_happens_and_nobody_else_does() {
    let hub = hub_with(settings());
    let mut mine = Client::attach(&hub, Topic::Owner(user("u1")));
    let mut other = Client::attach(&hub, Topic::Owner(user("u2")));
    hub.apply(&[arrival(1, progress("t1", "u1", 10.0)), arrival(2, progress("t1", "u1", 20.0))], LATE);
    mine.pull(&hub, 10, false);
    other.pull(&hub, 10, false);
    // The first frame of a task is never folded away.
    assert_eq!(mine.seen.iter().map(|f| f.position().major).collect::<Vec<_>>(), [1, 2]);
    assert!(other.seen.is_empty());
}

#[test]
fn progress_is_folded_and_changes_of_status_are_not() {
    let hub = hub_with(settings());
    hub.apply(&[arrival(1, progress("t1", "u1", 1.0))], LATE);
    let mut client = Client::attach(&hub, Topic::Task(id("t1")));
    let mut batch: Vec<_> = (2..40).map(|n| arrival(n, progress("t1", "u1", n as f64))).collect();
    batch.push(arrival(40, status("t1", "u1", Status::Waiting)));
    batch.push(arrival(41, progress("t1", "u1", 50.0)));
    batch.push(arrival(42, progress("t1", "u1", 51.0)));
    hub.apply(&batch, LATE);
    client.pull(&hub, 10, false);
    assert_eq!(client.seen.iter().map(|f| f.position().major).collect::<Vec<_>>(), [1, 40, 41, 42]);
}

#[test]
fn a_group_is_a_root_and_its_children_whatever_comes_first() {
    let hub = hub_with(settings());
    let mut client = Client::attach(&hub, Topic::Root(id("root")));
    let mut child = progress("child", "u1", 5.0);
    child.root_id = Some(id("root"));
    hub.apply(
        &[arrival(1, child), arrival(2, progress("root", "u1", 1.0)), arrival(3, progress("x", "u1", 1.0))],
        LATE,
    );
    client.pull(&hub, 10, false);
    assert_eq!(client.states().keys().collect::<Vec<_>>(), ["child", "root"]);
    assert_eq!(states(&hub, &Topic::Root(id("root"))), client.states());
}

#[test]
fn what_exceeds_a_pull_comes_with_the_next() {
    let hub = hub_with(settings());
    let mut client = Client::attach(&hub, Topic::All);
    hub.apply(&(1..=50).map(|n| arrival(n, progress(&format!("t{n}"), "u1", 1.0))).collect::<Vec<_>>(), LATE);
    for _ in 0..5 {
        client.pull(&hub, 10, false);
    }
    assert_eq!(client.states(), states(&hub, &Topic::All));
}

#[test]
fn ended_and_idle_tasks_are_let_go_and_watchers_are_told() {
    let hub = hub_with(settings());
    let client = Client::attach(&hub, Topic::All);
    hub.apply(&[arrival(1, status("t1", "u1", Status::Failed)), arrival(2, progress("t2", "u1", 1.0))], 1_000);
    let _ = hub.pull(&client.mailbox, options(Position::START), ALL);
    assert!(hub.sweep(61_000, 0).is_empty());
    assert_eq!(hub.len(), 2);
    let _ = hub.sweep(61_001, 0);
    assert_eq!(hub.len(), 1);
    let pulled = hub.pull(&client.mailbox, options(cursor(2).position), ALL);
    assert_eq!(pulled.removed.iter().map(TaskId::as_str).collect::<Vec<_>>(), ["t1"]);
    assert_eq!(hub.check(cursor(1)), Ok(()), "whoever saw the end has missed nothing");
    let _ = hub.sweep(3_601_001, 0);
    assert!(hub.is_empty());
    assert_eq!(hub.check(cursor(1)), Err(ResumeFailure::Trimmed));
}

#[test]
fn a_date_in_the_future_does_not_keep_a_task_for_ever() {
    let hub = hub_with(settings());
    let mut event = status("t1", "u1", Status::Failed);
    event.timestamp_ms = Some(LATE * 10);
    hub.apply(&[Arrival { cursor: cursor(1), appended_at_ms: None, event: Some(event) }], 1_000);
    let _ = hub.sweep(61_001, 0);
    assert!(hub.is_empty());
}

#[test]
fn a_full_table_lets_go_of_the_longest_ended_and_drops_only_when_none_has() {
    let hub = hub_with(Settings { max: 2, ..settings() });
    hub.apply(&[arrival(1, status("t1", "u1", Status::Failed)), arrival(2, progress("t2", "u1", 1.0))], LATE);
    hub.apply(&[arrival(3, progress("t3", "u1", 1.0))], LATE);
    assert!(hub.task(&id("t1")).is_none() && hub.task(&id("t3")).is_some());
    hub.apply(&[arrival(4, progress("t4", "u1", 1.0))], LATE);
    assert!(hub.task(&id("t4")).is_none());
}

#[test]
fn silence_is_judged_once_and_the_verdict_falls_if_the_worker_was_heard_since() {
    let hub = hub_with(settings());
    let beating = |percent| Event { heartbeat_timeout_ms: Some(500), ..progress("t1", "u1", percent) };
    hub.apply(&[arrival(1, beating(97.0))], 1_000);
    assert!(hub.sweep(1_500, 0).is_empty());
    let verdict = hub.sweep(1_501, 0).pop().unwrap();
    assert!(hub.sweep(1_502, 0).is_empty(), "not again while the first is under way");
    hub.apply(&[arrival(2, beating(98.0)), arrival(3, verdict)], 1_600);
    assert_eq!(hub.task(&id("t1")).unwrap().task.status, Status::Running);
    let verdict = hub.sweep(2_101, 0).pop().unwrap();
    hub.apply(&[arrival(4, verdict.clone()), arrival(5, verdict)], 2_200);
    assert_eq!(hub.task(&id("t1")).unwrap().task.status, Status::Lost);
}

#[test]
fn a_reset_forgets_everything_and_refuses_old_cursors() {
    let hub = hub_with(settings());
    hub.apply(&[arrival(1, progress("t1", "u1", 1.0))], LATE);
    hub.reset(ResumeFailure::AnotherLog);
    assert!(hub.is_empty());
    assert_eq!(hub.progress().generation, 1);
    assert_eq!(hub.check(cursor(1)), Err(ResumeFailure::AnotherLog));
    hub.apply(&[arrival(1, progress("t1", "u1", 2.0))], LATE);
    assert_eq!(hub.task(&id("t1")).unwrap().task.progress, Some(2.0));
}

#[test]
fn a_change_of_status_that_the_ring_lost_makes_a_resume_dishonest_and_so_refused() {
    let hub = hub_with(Settings { ring_frames: 2, ..settings() });
    for n in 1..20 {
        let next = if n % 2 == 0 { Status::Waiting } else { Status::Running };
        hub.apply(&[arrival(n, status("t1", "u1", next))], LATE);
    }
    let missed = |after: u64| {
        let topics = [Topic::Owner(user("u1"))];
        hub.missed(&topics.to_vec().into(), cursor(after), cursor(19).position, false, 100, ALL)
            .map(|missed| missed.frames.len())
    };
    assert_eq!(missed(18), Ok(1));
    assert_eq!(missed(17), Ok(2));
    assert_eq!(missed(10), Err(ResumeFailure::Trimmed));
}

#[test]
fn a_pull_in_the_middle_of_marking_skips_nothing() {
    let hub = hub_with(settings());
    let mut client = Client::attach(&hub, Topic::All);
    let batch = [("a", 1.0), ("b", 1.0), ("a", 2.0)];
    let batch: Vec<_> = (1..).zip(batch).map(|(at, (task, p))| arrival(at, progress(task, "u1", p))).collect();
    let changed = hub.change(&batch, LATE);
    let mut to_wake = Vec::new();
    hub.mark(&changed[..1], &mut to_wake);
    client.pull(&hub, 10, false);
    hub.mark(&changed[1..], &mut to_wake);
    hub.announce(to_wake);
    client.pull(&hub, 10, false);
    assert_eq!(client.seen.iter().map(|f| f.position().major).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn who_comes_after_the_marking_and_before_the_announcement_is_woken_by_it() {
    let hub = hub_with(settings());
    let changed = hub.change(&[arrival(1, progress("a", "u1", 1.0))], LATE);
    hub.mark(&changed, &mut Vec::new());
    let mailbox = Arc::new(Mailbox::default());
    let _watch = hub.watch(Topic::All, &mailbox);
    assert!(
        hub.catch_up(vec![Topic::All], Position::START, &mailbox, ALL).is_some(),
        "a list that is all told behind its walk"
    );
    mailbox.woken().await;
    assert!(hub.pull(&mailbox, options(Position::START), ALL).frames.is_empty(), "not before it is announced");
    hub.announce(Vec::new());
    tokio::time::timeout(Duration::from_secs(5), mailbox.woken()).await.expect("a wake-up");
    assert_eq!(hub.pull(&mailbox, options(Position::START), ALL).frames.len(), 1);
}

#[tokio::test]
async fn an_end_wakes_even_a_session_that_left_its_last_mark_lying() {
    let hub = hub_with(settings());
    let client = Client::attach(&hub, Topic::All);
    hub.apply(&[arrival(1, progress("a", "u1", 1.0))], LATE);
    client.mailbox.woken().await;
    hub.apply(&[arrival(2, status("a", "u1", Status::Failed))], LATE);
    tokio::time::timeout(Duration::from_secs(5), client.mailbox.woken()).await.expect("a wake-up");
    assert_eq!(client.mailbox.state(), (true, true));
}

#[test]
fn a_pull_hands_out_no_frame_from_before_the_right_to_see_it() {
    let hub = hub_with(settings());
    let mut client = Client::attach(&hub, Topic::Task(id("t")));
    let tagged = |tag: &str, named: Status| Event { tags: Some([tag.into()].into()), ..status("t", "u1", named) };
    hub.apply(&[arrival(1, tagged("private", Status::Running)), arrival(2, tagged("public", Status::Waiting))], LATE);
    let sees = |task: &Task| task.tags.iter().flat_map(|tags| tags.iter()).any(|tag| &**tag == "public");
    let pulled = hub.pull(&client.mailbox, options(client.after), sees);
    assert_eq!(pulled.frames.iter().map(|f| f.position().major).collect::<Vec<_>>(), [2]);
    client.after = cursor(2).position;
}

#[test]
fn a_resume_does_not_tell_whether_an_unseen_task_exists() {
    let hub = hub_with(Settings { ring_frames: 2, ..settings() });
    for n in 1..20 {
        let next = if n % 2 == 0 { Status::Waiting } else { Status::Running };
        hub.apply(&[arrival(n, status("t1", "u1", next))], LATE);
    }
    let missed = hub.missed(&vec![Topic::Task(id("t1"))].into(), cursor(2), cursor(19).position, false, 100, |_| false);
    assert_eq!(missed.map(|missed| missed.frames.len()), Ok(0));
}

#[test]
fn a_task_that_comes_back_after_it_was_let_go_is_not_called_removed() {
    let hub = hub_with(settings());
    let client = Client::attach(&hub, Topic::All);
    hub.apply(&[arrival(1, progress("t1", "u1", 1.0))], LATE);
    let _ = hub.sweep(LATE + 3_600_001, 0);
    hub.apply(&[arrival(2, progress("t1", "u1", 2.0))], LATE + 3_600_002);
    let pulled = hub.pull(&client.mailbox, options(Position::START), ALL);
    assert!(pulled.removed.is_empty(), "{:?}", pulled.removed);
    assert_eq!(pulled.frames.last().unwrap().position().major, 2);
}

#[test]
fn a_worker_whose_events_are_refused_is_heard_all_the_same() {
    let hub = hub_with(settings());
    let beating = |percent| Event { heartbeat_timeout_ms: Some(500), ..progress("t1", "u1", percent) };
    hub.apply(&[arrival(1, beating(50.0))], 1_000);
    hub.apply(&[arrival(2, beating(10.0))], 1_400);
    assert!(hub.sweep(1_900, 0).is_empty());
    assert!(hub.sweep(3_000, 2_600).is_empty(), "nobody is silent to who was not listening");
    assert_eq!(hub.sweep(3_101, 2_600).len(), 1);
}

#[test]
fn a_task_that_leaves_a_tag_is_removed_for_those_who_see_only_that() {
    let hub = hub_with(settings());
    let mut client = Client::attach(&hub, Topic::Tag("nightly".into()));
    let tagged = |tag: &str| Event { tags: Some([tag.into()].into()), ..progress("t", "u1", 1.0) };
    let sees = |task: &Task| task.tags.iter().flat_map(|tags| tags.iter()).any(|tag| &**tag == "nightly");
    hub.apply(&[arrival(1, tagged("nightly"))], LATE);
    client.pull(&hub, 10, false);
    hub.apply(&[arrival(2, tagged("other"))], LATE);
    let pulled = hub.pull(&client.mailbox, options(client.after), sees);
    assert!(pulled.frames.is_empty());
    assert_eq!(pulled.hidden.iter().map(TaskId::as_str).collect::<Vec<_>>(), ["t"]);
}
