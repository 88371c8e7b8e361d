//! How a session begins: snapshots, resumes, resets, and the dialect of today's front ends.

use serde_json::{Value, json};

use super::{super::test_world::*, *};
use crate::{
    auth::Rights,
    proto::{Event, Status, payload},
};

#[test]
fn a_session_begins_with_the_greeting_then_the_snapshot_then_lives() {
    let mut world = World::new();
    world.event("t1", "u1", Some(10.0), None);
    let mut session = world.open("u1", &mine());
    let frames = world.frames(&mut session);
    assert_eq!(types(&frames), ["connection_established", "active_tasks"]);
    assert_eq!(frames[0]["resumed"], false);
    assert_eq!(frames[1]["tasks"][0]["progress"], 10);
    world.event("t1", "u1", Some(20.0), None);
    world.event("t1", "u1", None, Some(Status::Failed));
    let frames = world.frames(&mut session);
    assert_eq!(types(&frames), ["task_completed"], "the progress before the end was folded into it");
    assert_eq!(frames[0]["status"], "failed");
}

#[test]
fn a_snapshot_can_be_resumed_from_the_middle() {
    let mut world = World::new();
    for number in 0..20 {
        world.event(&format!("t{number}"), "u1", Some(1.0), None);
    }
    let mut session = world.open("u1", &mine());
    let first = session.output(world.now);
    let page: Value = serde_json::from_slice(&payload(&first.frames[1])).unwrap();
    assert_eq!(page["more"], true);
    let got = page["tasks"].as_array().unwrap().len();
    drop(session);
    let again = Request { cursor: page["cursor"].as_str().map(ToOwned::to_owned), ..mine() };
    let frames = world.frames(&mut world.open("u1", &again));
    assert_eq!(frames[0]["resumed"], true);
    assert_eq!(frames.len() - 1, 20 - got, "exactly what was not sent");
    assert!(frames[1..].iter().all(|frame| frame["type"] == "task_progress"));
}

#[test]
fn a_resumed_session_gets_what_it_missed_and_no_snapshot() {
    let mut world = World::new();
    world.event("t1", "u1", Some(10.0), None);
    let cursor = last_cursor(&world.frames(&mut world.open("u1", &mine())));
    world.event("t1", "u1", Some(20.0), None);
    world.event("t2", "u2", Some(20.0), None);
    world.event("t3", "u1", None, Some(Status::Cancelled));
    let mut session = world.open("u1", &Request { cursor: Some(cursor), ..mine() });
    let frames = world.frames(&mut session);
    assert_eq!(types(&frames), ["connection_established", "task_progress", "task_completed"]);
    assert_eq!(frames[0]["resumed"], true);
    world.event("t1", "u1", Some(30.0), None);
    assert_eq!(types(&world.frames(&mut session)), ["task_progress"]);
}

#[test]
fn a_cursor_that_cannot_be_honoured_brings_the_reason_and_a_snapshot() {
    let mut world = World::new();
    world.event("t1", "u1", Some(10.0), None);
    let bad = [("nonsense", "malformed"), ("1.1.0.00000009", "another_log"), ("1.0.0.00000000", "trimmed")];
    for (cursor, reason) in bad {
        let request = Request { cursor: Some(cursor.into()), ..mine() };
        let frames = world.frames(&mut world.open("u1", &request));
        assert_eq!(types(&frames), ["connection_established", "active_tasks"]);
        assert_eq!((&frames[0]["resumed"], &frames[0]["resume_failure"]), (&json!(false), &json!(reason)));
        assert_eq!(frames[1]["tasks"][0]["progress"], 10);
    }
}

#[test]
fn a_log_that_is_read_anew_brings_a_new_snapshot_that_says_so() {
    let mut world = World::new();
    world.event("t1", "u1", Some(10.0), None);
    let mut session = world.open("u1", &mine());
    world.frames(&mut session);
    world.shared.hub.reset(ResumeFailure::AnotherLog);
    assert!(world.frames(&mut session).is_empty(), "until the log has been read");
    world.event("t9", "u1", Some(1.0), None);
    world.shared.hub.set_replayed(true);
    let frames = world.frames(&mut session);
    assert_eq!(types(&frames), ["active_tasks"]);
    assert_eq!(frames[0]["reset"], "another_log");
    assert_eq!(frames[0]["tasks"][0]["task_id"], "t9");
}

#[test]
fn marks_and_listings_from_before_a_reset_do_not_outlive_it() {
    let mut world = World::new();
    let mut session = world.open("u1", &mine());
    world.frames(&mut session);
    for percent in [10.0, 20.0, 30.0] {
        world.event("old", "u1", Some(percent), None);
    }
    world.say(&mut session, &json!({"type": "get_active_tasks", "id": 1}));
    world.shared.hub.reset(ResumeFailure::AnotherLog);
    // A recreated log counts from its start again, so old positions lie ahead of new ones.
    world.at = 0;
    world.event("new", "u1", Some(1.0), None);
    world.shared.hub.set_replayed(true);
    let frames = world.frames(&mut session);
    assert!(!Value::from(frames.clone()).to_string().contains("old"), "{frames:?}");
    world.event("new", "u1", Some(2.0), None);
    assert_eq!(types(&world.frames(&mut session)), ["task_progress"]);
}

#[test]
fn a_token_that_may_watch_nothing_is_told_so_and_closed_with_4003() {
    let world = World::new();
    let nobody = Identity::default();
    let mut session = Session::open(&world.shared, nobody, &mine(), world.now);
    assert_eq!(types(&world.frames(&mut session)), ["error"]);
    assert_eq!(session.closing().map(|(code, _)| code), Some(CloseCode::NotAllowed));
}

#[test]
fn the_celery_dialect_lists_live_tasks_and_tells_ends_apart() {
    let mut world = World::new();
    world.event("done", "u1", None, Some(Status::Succeeded));
    world.event("live", "u1", Some(10.0), None);
    let mut session = world.open("u1", &Request { encoding: Encoding::Celery, ..mine() });
    let frames = world.frames(&mut session);
    let after_greeting = &frames[1..];
    assert_eq!(types(after_greeting), ["active_tasks", "task_completed"]);
    assert_eq!(after_greeting[0]["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(after_greeting[1]["status"], "SUCCESS");
    world.event("live", "u1", Some(50.0), None);
    let frames = world.frames(&mut session);
    assert_eq!((types(&frames), &frames[0]["progress"]), (vec!["task_progress"], &json!(50)));
}

#[test]
fn in_the_celery_dialect_a_list_is_whole_and_a_subscription_never_replaces_one() {
    let mut world = World::new();
    for number in 0..30 {
        world.event(&format!("live{number}"), "u1", Some(1.0), None);
    }
    world.event("ended", "u1", None, Some(Status::Failed));
    let scope = Scope::Topic(Topic::Task(task_id("elsewhere")));
    let mut session = world.open("u1", &Request { encoding: Encoding::Celery, scope, ..mine() });
    world.frames(&mut session);
    world.say(&mut session, &json!({"type": "subscribe", "task_id": "ended"}));
    let frames = world.frames(&mut session);
    assert_eq!(types(&frames), ["subscribed", "task_completed"]);
    world.say(&mut session, &json!({"type": "subscribe", "task_id": "*"}));
    world.frames(&mut session);
    world.say(&mut session, &json!({"type": "get_active_tasks"}));
    let frames = world.frames(&mut session);
    assert_eq!(types(&frames), ["active_tasks"]);
    let tasks = frames[0]["tasks"].as_array().unwrap();
    assert_eq!((tasks.len(), &tasks[0]["task_id"]), (20, &json!("live29")));
}

#[test]
fn a_celery_snapshot_that_was_cut_short_is_resumed_without_a_gap() {
    let mut world = World::new();
    for number in 0..25 {
        world.event(&format!("live{number}"), "u1", Some(1.0), None);
        world.event(&format!("ended{number}"), "u1", None, Some(Status::Failed));
    }
    let celery = Request { encoding: Encoding::Celery, ..mine() };
    let frames = world.frames(&mut world.open("u1", &celery));
    assert!(frames[1]["cursor"].is_null(), "the list promises nothing of what follows it");
    let told = |frames: &[Value]| -> std::collections::BTreeSet<String> {
        let listed = frames.iter().filter_map(|frame| frame["tasks"].as_array()).flatten();
        listed.chain(frames).filter_map(|frame| frame["task_id"].as_str().map(ToOwned::to_owned)).collect()
    };
    assert_eq!(told(&frames).len(), 50);
    let cut = &frames[..10];
    let cursor = Some(last_cursor(cut));
    let rest = world.frames(&mut world.open("u1", &Request { cursor, ..celery }));
    assert_eq!(rest[0]["resumed"], true);
    assert_eq!(told(cut).union(&told(&rest)).count(), 50);
}

/// Sees what carries the tag `x`, and nothing else.
fn tagged() -> Identity {
    let rights = Rights { tags: ["x".to_owned()].into(), ..Rights::default() };
    Identity { rights, ..Identity::default() }
}

fn with_tag(tag: &str, percent: f64) -> Event {
    Event { tags: Some([tag.into()].into()), progress: Some(percent), ..Event::new(task_id("t1")) }
}

#[test]
fn a_client_that_was_away_hears_which_tasks_left_its_tag() {
    let mut world = World::new();
    world.apply(with_tag("x", 1.0));
    let mut session = Session::open(&world.shared, tagged(), &mine(), world.now);
    let cursor = last_cursor(&world.frames(&mut session));
    drop(session);
    world.apply(with_tag("y", 2.0));
    let again = Request { cursor: Some(cursor), ..mine() };
    let frames = world.frames(&mut Session::open(&world.shared, tagged(), &again, world.now));
    assert_eq!(types(&frames), ["connection_established", "task_removed"]);
    assert_eq!((&frames[0]["resumed"], &frames[1]["task_id"]), (&json!(true), &json!("t1")));
}

#[test]
fn a_slow_client_hears_that_a_task_left_although_the_ring_forgot_what_it_had_seen() {
    let mut world = World::new();
    world.apply(with_tag("x", 1.0));
    let mut session = Session::open(&world.shared, tagged(), &mine(), world.now);
    world.frames(&mut session);
    for number in 0..100 {
        let status = [Status::Waiting, Status::Running][number % 2];
        world.apply(Event { status: Some(status), ..with_tag("y", number as f64 / 2.0) });
    }
    assert_eq!(types(&world.frames(&mut session)), ["task_removed"]);
}

#[test]
fn that_a_task_left_is_told_before_a_cursor_that_is_beyond_it() {
    let mut world = World::new();
    world.apply(with_tag("x", 1.0));
    let mut session = Session::open(&world.shared, tagged(), &mine(), world.now);
    world.frames(&mut session);
    world.apply(with_tag("y", 2.0));
    world.apply(Event { task_id: task_id("t2"), ..with_tag("x", 1.0) });
    // Whoever drops after the second frame comes back with its cursor, and would not be told any more.
    assert_eq!(types(&world.frames(&mut session)), ["task_removed", "task_progress"]);
}

#[test]
fn a_resumed_client_that_reads_so_slowly_that_the_rest_is_let_go_starts_over() {
    let mut world = World::new();
    world.event("first", "u1", Some(1.0), None);
    let mut session = world.open("u1", &mine());
    let cursor = last_cursor(&world.frames(&mut session));
    // More than a piece, of tasks that may be let go.
    let missed = 2_300;
    for n in 0..missed {
        world.event(
            &format!("t{}", n % 300),
            "u1",
            None,
            Some(if n / 300 % 2 == 0 { Status::Waiting } else { Status::Running }),
        );
    }
    let resume = Request { cursor: Some(cursor), ..mine() };
    let mut patient = world.open("u1", &resume);
    let mut slow = world.open("u1", &resume);
    let whole = world.frames(&mut patient);
    assert_eq!(types(&whole).iter().filter(|kind| **kind == "task_progress").count(), missed);
    assert_eq!(whole[0]["resumed"], true);
    // The slow one has read the first of it when the service lets go of some task that it has not heard the end of.
    let output = slow.output(world.now);
    assert!(!output.frames.is_empty());
    world.event("ends", "u1", None, Some(Status::Failed));
    world.event("t1", "u1", None, Some(Status::Failed));
    let _ = world.shared.hub.sweep(world.now.unix_ms + 61_000, 0);
    let rest = world.frames(&mut slow);
    let anew = rest.iter().position(|frame| frame["reset"] == "trimmed").expect("a new snapshot");
    let listed: usize = rest[anew..].iter().filter_map(|frame| frame["tasks"].as_array()).map(Vec::len).sum();
    assert_eq!(listed, 300, "first, and all but the one that was let go");
}

#[test]
fn a_snapshot_of_many_pieces_is_whole_whatever_happens_meanwhile() {
    let mut world = World::new();
    for n in 0..900 {
        world.event(&format!("t{n}"), "u1", Some(1.0), None);
    }
    let mut session = world.open("u1", &mine());
    let mut frames = Vec::new();
    let mut turn = 0;
    loop {
        let output = session.output(world.now);
        if output.frames.is_empty() && !session.has_more() {
            break;
        }
        frames.extend(output.frames.iter().map(|frame| serde_json::from_slice::<Value>(&payload(frame)).unwrap()));
        // One that was sent, and one that was not.
        for task in [turn % 900, 899 - turn % 900] {
            if turn < 200 {
                world.event(&format!("t{task}"), "u1", Some(2.0 + f64::from(turn)), None);
            }
        }
        turn += 1;
    }
    let mut shown = std::collections::BTreeMap::new();
    for frame in &frames {
        let listed = frame["tasks"].as_array().into_iter().flatten();
        for task in listed.chain([frame].into_iter().filter(|frame| frame["type"] == "task_progress")) {
            shown.insert(task["task_id"].as_str().unwrap().to_owned(), task["progress"].as_f64());
        }
    }
    let held = world.shared.hub.tasks(&[Topic::All]);
    let held = held.iter().map(|frame| (frame.task.task_id.to_string(), frame.task.progress)).collect();
    assert_eq!(shown, held);
}
