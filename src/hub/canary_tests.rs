//! What the hub keeps of canaries, and what it does not.

use super::*;
use crate::{
    hub::{
        Mailbox, Settings,
        tests::{ALL, Client, LATE, arrival, cursor, hub_with, id, options, progress, settings},
    },
    proto::{MESSAGE_MAX_BYTES, Position, ResumeFailure, Status, Topic, UserId},
};

const OWN: &str = "taskcast:canary:own";

fn hub() -> Hub {
    let hub = hub_with(settings());
    hub.keep_canary(id(OWN));
    hub
}

fn words(task: &str, message: &str) -> Event {
    let mut event = Event::new(id(task));
    event.message = Some(message.into());
    event
}

fn message(frame: &TaskFrame) -> &str {
    frame.task.message.as_deref().unwrap_or_default()
}

fn rendered(hub: &Hub, series: &str) -> bool {
    hub.0.metrics.render().unwrap().lines().any(|line| line == series)
}

#[test]
fn it_reaches_its_watcher_and_is_in_nothing_else() {
    let hub = hub();
    let mailbox = Arc::new(Mailbox::default());
    let _watch = hub.watch(Topic::Task(id(OWN)), &mailbox);
    let everything = Client::attach(&hub, Topic::All);
    let group = Client::attach(&hub, Topic::Root(id(OWN)));
    hub.apply(&[arrival(1, words(OWN, "1")), arrival(2, words(OWN, "2"))], LATE);
    let pulled = hub.pull(&mailbox, options(Position::START), ALL);
    assert_eq!(pulled.frames.iter().map(|frame| message(frame)).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(message(&hub.canary().unwrap()), "2");
    for other in [everything, group] {
        assert_eq!(other.mailbox.state(), (false, false), "{:?} was woken", other.topic);
        assert!(hub.tasks(&[other.topic]).is_empty());
    }
    assert!(hub.is_empty() && hub.task(&id(OWN)).is_none());
    assert!(rendered(&hub, "taskcast_events_total{log=\"memory\",outcome=\"canary\",reason=\"\"} 2"));
    assert!(rendered(&hub, "taskcast_events_total{log=\"memory\",outcome=\"applied\",reason=\"\"} 0"));
    assert!(rendered(&hub, "taskcast_tasks{status=\"queued\"} 0"));
}

#[test]
fn a_watcher_that_comes_later_finds_it_in_its_snapshot() {
    let hub = hub();
    hub.apply(&[arrival(1, words(OWN, "1"))], LATE);
    let found = hub.tasks(&[Topic::Task(id(OWN))]);
    assert_eq!(found.iter().map(|frame| message(frame)).collect::<Vec<_>>(), ["1"]);
}

#[test]
fn those_of_others_leave_nothing_but_their_position() {
    let hub = hub_with(Settings { max: 2, ..settings() });
    hub.keep_canary(id(OWN));
    let strangers: Vec<_> =
        (1..=1_000).map(|number| arrival(number, words(&format!("taskcast:canary:{number}"), "1"))).collect();
    hub.apply(&strangers, LATE);
    assert!(hub.is_empty() && hub.canary().is_none() && hub.slots().next().is_none());
    assert!(hub.tasks(&[Topic::Task(id("taskcast:canary:7"))]).is_empty());
    assert_eq!(hub.progress().applied, Some(cursor(1_000)));
    // They took nobody's room.
    hub.apply(&[arrival(1_001, progress("t1", "u1", 1.0)), arrival(1_002, progress("t2", "u1", 1.0))], LATE);
    assert_eq!(hub.len(), 2);
}

#[test]
fn whoever_writes_under_its_id_can_neither_end_it_nor_grow_it_nor_list_it() {
    let hub = hub();
    let mut hostile = words(OWN, &"x".repeat(MESSAGE_MAX_BYTES));
    hostile.status = Some(Status::Cancelled);
    (hostile.seq, hostile.attempt, hostile.timestamp_ms) = (Some(u64::MAX), Some(u32::MAX), Some(u64::MAX));
    hostile.event_id = Some("e".into());
    hostile.user_id = Some(UserId::parse("u1").unwrap());
    hostile.tags = Some(Arc::from([Arc::from("night")]));
    hostile.root_id = Some(id("t1"));
    hostile.heartbeat_timeout_ms = Some(1);
    hub.apply(&(1..=1_000).map(|at| arrival(at, hostile.clone())).collect::<Vec<_>>(), LATE);
    for topic in [Topic::Owner(UserId::parse("u1").unwrap()), Topic::Tag("night".into()), Topic::Root(id("t1"))] {
        assert!(hub.tasks(&[topic]).is_empty());
    }
    assert_eq!(hub.sweep(2 * LATE, 0), []);
    let mut frames = Vec::new();
    let slot = hub.canary_slot(&id(OWN)).unwrap();
    slot.lock().collect(Position::START, cursor(1_000).position, true, &mut frames);
    assert!(frames.len() <= settings().ring_frames);
    hub.apply(&[arrival(1_001, words(OWN, "7"))], LATE);
    assert_eq!(message(&hub.canary().unwrap()), "7");
    assert!(!hub.canary().unwrap().task.status.is_terminal());
}

#[test]
fn it_is_never_let_go_so_that_no_cursor_is_refused_for_it() {
    let hub = hub();
    hub.apply(&[arrival(1, words(OWN, "1")), arrival(2, words(OWN, "2"))], 3);
    let _ = hub.sweep(LATE * 1_000, 0);
    assert_eq!(message(&hub.canary().unwrap()), "2");
    assert_eq!(hub.check(cursor(1)), Ok(()));
}

#[test]
fn a_reset_forgets_it_until_it_is_read_again() {
    let hub = hub();
    hub.apply(&[arrival(5, words(OWN, "1"))], LATE);
    let slot = hub.canary_slot(&id(OWN)).unwrap();
    hub.reset(ResumeFailure::AnotherLog);
    assert!(hub.canary().is_none() && slot.lock().removed);
    hub.apply(&[arrival(1, words(OWN, "2"))], LATE);
    assert_eq!(message(&hub.canary().unwrap()), "2");
}
