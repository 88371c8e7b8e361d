//! The state machine of a session, with the time as an argument and no socket in sight.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{super::test_world::*, *};
use crate::{auth::Rights, proto::Status, session::Scope};

#[test]
fn another_user_sees_nothing_whatever_they_subscribe_to() {
    let mut world = World::new();
    world.event("t1", "u1", Some(10.0), None);
    let mut session = world.open("u2", &Request { scope: Scope::Topic(Topic::Task(task_id("t1"))), ..mine() });
    for wish in [json!({"task_id": "t1"}), json!({"root_id": "t1"}), json!({"task_id": "*"})] {
        let mut message = wish.clone();
        message["type"] = json!("subscribe");
        world.say(&mut session, &message);
    }
    world.say(&mut session, &json!({"type": "get_task_status", "task_id": "t1"}));
    world.say(&mut session, &json!({"type": "get_task_status", "task_id": "never"}));
    world.event("t1", "u1", Some(20.0), None);
    let frames = world.frames(&mut session);
    assert!(frames.iter().all(|f| f["tasks"].as_array().is_none_or(Vec::is_empty)), "{frames:?}");
    assert!(!types(&frames).contains(&"task_progress"), "{frames:?}");
    let statuses: Vec<_> = frames.iter().filter(|f| f["type"] == "task_status").collect();
    assert_eq!((&statuses[0]["task"], &statuses[1]["task"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_subscription_to_a_task_that_does_not_exist_yet_gets_its_first_event() {
    let mut world = World::new();
    let mut session = world.open("u1", &mine());
    world.say(&mut session, &json!({"type": "unsubscribe", "task_id": "*"}));
    world.say(&mut session, &json!({"type": "subscribe", "task_id": "later", "id": 7}));
    let frames = world.frames(&mut session);
    assert_eq!(frames.last().unwrap()["type"], "subscribed");
    assert_eq!(frames.last().unwrap()["id"], 7);
    world.event("other", "u1", Some(1.0), None);
    world.event("later", "u1", Some(1.0), None);
    let frames = world.frames(&mut session);
    assert_eq!(frames.iter().map(|f| f["task_id"].as_str().unwrap()).collect::<Vec<_>>(), ["later"]);
}

#[test]
fn a_subscription_in_mid_session_starts_with_the_state_that_there_is() {
    let mut world = World::new();
    world.event("t1", "u1", None, Some(Status::Succeeded));
    let elsewhere = Request { scope: Scope::Topic(Topic::Task(task_id("t2"))), ..mine() };
    let mut session = world.open("u1", &elsewhere);
    world.frames(&mut session);
    world.say(&mut session, &json!({"type": "subscribe", "task_id": "t1"}));
    let frames = world.frames(&mut session);
    assert_eq!(types(&frames), ["subscribed", "active_tasks"]);
    assert_eq!(frames[1]["tasks"][0]["status"], "succeeded");
}

#[test]
fn a_throttled_session_waits_but_not_with_an_end() {
    let mut world = World::new();
    let mut session = world.open("u1", &Request { throttle: Duration::from_secs(5), ..mine() });
    world.frames(&mut session);
    world.event("t1", "u1", Some(10.0), None);
    assert_eq!(types(&world.frames(&mut session)), ["task_progress"]);
    world.event("t1", "u1", Some(20.0), None);
    assert!(world.frames(&mut session).is_empty());
    assert_eq!(session.deadline(world.now), world.now.instant + Duration::from_secs(5));
    world.event("t2", "u1", None, Some(Status::Failed));
    assert_eq!(types(&world.frames(&mut session)), ["task_progress", "task_completed"]);
    world.event("t1", "u1", Some(30.0), None);
    world.now = world.now.after(Duration::from_secs(5));
    assert_eq!(types(&world.frames(&mut session)), ["task_progress"]);
}

#[test]
fn every_delivers_what_the_ring_holds() {
    let mut world = World::new();
    let mut session = world.open("u1", &Request { deliver: Deliver::Every, ..mine() });
    world.frames(&mut session);
    for percent in 1..=10 {
        world.event("t1", "u1", Some(f64::from(percent)), None);
    }
    assert_eq!(world.frames(&mut session).len(), 10);
}

#[test]
fn bad_messages_are_answered_and_only_many_in_a_row_close() {
    let world = World::new();
    let mut session = world.open("u1", &mine());
    world.frames(&mut session);
    for _ in 0..2 {
        world.say(&mut session, &json!({"type": "no_such_thing"}));
    }
    world.say(&mut session, &json!({"type": "ping", "id": "p"}));
    session.on_inbound(Inbound::TooLong(1_000_000), world.now);
    let frames = world.frames(&mut session);
    assert_eq!(types(&frames), ["error", "error", "pong", "error"]);
    assert_eq!(frames[0]["error_code"], "UNKNOWN_TYPE");
    assert!(session.closing().is_none());
    for _ in 0..2 {
        session.on_inbound(Inbound::Text("{".into()), world.now);
    }
    assert_eq!(session.closing().map(|(code, _)| code), Some(CloseCode::Policy));
}

#[test]
fn a_peer_is_pinged_and_given_up_when_it_stays_silent() {
    let world = World::new();
    let mut session = world.open("u1", &mine());
    world.frames(&mut session);
    assert!(session.on_time(world.now.after(Duration::from_secs(25))));
    assert_eq!(&session.output(world.now).frames[..], [frame(Opcode::Ping, b"")]);
    session.on_inbound(Inbound::Pong, world.now.after(Duration::from_secs(26)));
    assert!(session.on_time(world.now.after(Duration::from_secs(85))));
    assert!(!session.on_time(world.now.after(Duration::from_secs(86))));
}

#[test]
fn subscriptions_are_limited_and_undone_with_the_session() {
    let world = World::new();
    let mut session = world.open("u1", &mine());
    for number in 0..4 {
        world.say(&mut session, &json!({"type": "subscribe", "task_id": format!("t{number}")}));
    }
    let frames = world.frames(&mut session);
    assert_eq!(frames.last().unwrap()["error_code"], "LIMIT_REACHED");
    let mailbox = Arc::downgrade(&session.mailbox());
    drop(session);
    assert!(mailbox.upgrade().is_none(), "the hub holds nothing of a session that is gone");
}

#[test]
fn a_flood_without_reading_is_cut_off() {
    let world = World::new();
    let mut session = world.open("u1", &mine());
    for _ in 0..=REPLIES_MAX {
        session.on_inbound(Inbound::Ping(b"x".to_vec()), world.now);
    }
    assert_eq!(session.closing().map(|(code, _)| code), Some(CloseCode::Policy));
}

#[test]
fn only_who_may_cancel_a_live_task_does() {
    let mut world = World::new();
    world.event("t1", "u1", Some(1.0), None);
    let cancel = json!({"type": "cancel_task", "task_id": "t1"});
    let mut session = world.open("u1", &mine());
    world.say(&mut session, &cancel);
    assert!(session.waiting.cancels() == 0, "the token lacks the right");
    session.identity.rights.cancel = true;
    world.say(&mut session, &cancel);
    assert_eq!(session.waiting.cancels(), 1);
    let mut stranger = world.open("u2", &mine());
    stranger.identity.rights.cancel = true;
    world.say(&mut stranger, &cancel);
    assert_eq!(stranger.waiting.cancels(), 0);
    assert_eq!(world.frames(&mut stranger).last().unwrap()["success"], false);
}

#[test]
fn a_log_that_is_read_anew_leaves_a_session_waiting_and_not_busy() {
    let mut world = World::new();
    let mut session = world.open("u1", &mine());
    world.frames(&mut session);
    for number in 0..=PULL_FRAMES_MAX {
        world.event(&format!("t{number}"), "u1", Some(1.0), None);
    }
    assert_eq!(session.output(world.now).frames.len(), PULL_FRAMES_MAX);
    assert!(session.has_more());
    world.shared.hub.reset(ResumeFailure::AnotherLog);
    assert!(session.output(world.now).frames.is_empty());
    assert!(!session.has_more());
}

#[test]
fn a_subscription_right_after_a_resume_or_in_a_snapshot_misses_no_end() {
    let mut world = World::new();
    world.event("t1", "u1", Some(10.0), None);
    let one = Request { scope: Scope::Topic(Topic::Task(task_id("t1"))), ..mine() };
    let cursor = last_cursor(&world.frames(&mut world.open("u1", &one)));
    world.event("ended", "u1", None, Some(Status::Failed));
    world.event("t1", "u1", Some(20.0), None);
    for request in [Request { cursor: Some(cursor), ..one.clone() }, one] {
        let mut session = world.open("u1", &request);
        world.say(&mut session, &json!({"type": "subscribe", "task_id": "ended"}));
        let frames = world.frames(&mut session);
        assert!(Value::from(frames.clone()).to_string().contains("\"failed\""), "{frames:?}");
    }
}

#[test]
fn nothing_comes_after_unsubscribed() {
    let mut world = World::new();
    let mut session = world.open("u1", &mine());
    world.frames(&mut session);
    world.event("t1", "u1", Some(1.0), None);
    world.say(&mut session, &json!({"type": "unsubscribe", "task_id": "*"}));
    world.event("t1", "u1", Some(2.0), None);
    assert_eq!(types(&world.frames(&mut session)), ["unsubscribed"]);
}

#[test]
fn a_session_that_is_closing_obeys_no_more() {
    let mut world = World::new();
    world.event("t1", "u1", Some(1.0), None);
    let mut session = world.open("u1", &mine());
    session.identity.rights.cancel = true;
    session.close(CloseCode::Restart, "");
    world.say(&mut session, &json!({"type": "cancel_task", "task_id": "t1"}));
    assert!(session.waiting.cancels() == 0);
}

#[test]
fn a_cancellation_under_way_is_not_appended_again_and_few_wait_at_once() {
    let mut world = World::new();
    let mut session = world.open("u1", &mine());
    session.identity.rights.cancel = true;
    world.event("t", "u1", None, Some(Status::Cancelling));
    world.say(&mut session, &json!({"type": "cancel_task", "task_id": "t"}));
    assert!(session.waiting.cancels() == 0);
    assert_eq!(world.frames(&mut session).last().unwrap()["success"], true);
    for number in 0..=CANCELS_MAX {
        world.event(&format!("t{number}"), "u1", Some(1.0), None);
        world.say(&mut session, &json!({"type": "cancel_task", "task_id": format!("t{number}")}));
    }
    assert_eq!(session.waiting.cancels(), CANCELS_MAX);
    let refused = world.frames(&mut session).into_iter().find(|frame| frame["type"] == "error");
    assert_eq!(refused.unwrap()["error_code"], "LIMIT_REACHED");
}

#[test]
fn a_client_that_does_not_take_its_answers_is_asked_no_more() {
    let mut world = World::new();
    world.event("t", "u1", Some(1.0), None);
    let mut session = world.open("u1", &mine());
    let mut asked = 0;
    while !session.is_backed_up() && asked < REPLIES_MAX {
        world.say(&mut session, &json!({"type": "get_task_status", "task_id": "t".repeat(250)}));
        asked += 1;
    }
    assert!(session.is_backed_up() && session.closing().is_none(), "after {asked}");
    session.output(world.now);
    assert!(!session.is_backed_up());
}

#[test]
fn an_answer_is_never_ahead_of_what_follows_it() {
    let mut world = World::new();
    let mut session = world.open("u1", &Request { deliver: Deliver::Every, ..mine() });
    world.frames(&mut session);
    for percent in [10.0, 20.0, 30.0] {
        world.event("t1", "u1", Some(percent), None);
    }
    world.say(&mut session, &json!({"type": "get_active_tasks", "id": 1}));
    let frames = world.frames(&mut session);
    let shown: Vec<f64> = frames
        .iter()
        .flat_map(|frame| match frame["tasks"].as_array() {
            Some(tasks) => tasks.clone(),
            None => vec![frame.clone()],
        })
        .filter_map(|task| task["progress"].as_f64())
        .collect();
    assert!(shown.is_sorted() && shown.ends_with(&[30.0]), "the bar falls: {shown:?}");
    assert!(frames.iter().any(|frame| frame["type"] == "active_tasks" && frame["id"] == 1), "an answer: {frames:?}");
}

#[test]
fn what_a_throttle_held_back_is_due_also_when_its_moment_has_just_passed() {
    let mut world = World::new();
    let mut session = world.open("u1", &Request { throttle: Duration::from_secs(5), ..mine() });
    world.frames(&mut session);
    world.event("t1", "u1", Some(10.0), None);
    world.frames(&mut session);
    world.event("t1", "u1", Some(20.0), None);
    assert!(world.frames(&mut session).is_empty());
    // Who asks for the deadline reads the clock once more, after what held the task back has ended.
    let later = world.now.after(Duration::from_secs(6));
    assert_eq!(session.deadline(later), world.now.instant + Duration::from_secs(5));
    world.now = later;
    assert_eq!(types(&world.frames(&mut session)), ["task_progress"]);
    assert!(session.deadline(later) > later.instant, "nothing is held back any more");
}

#[test]
fn a_throttle_that_ends_while_the_socket_is_slow_sets_no_timer_in_the_past() {
    let mut world = World::new();
    let mut session = world.open("u1", &Request { throttle: Duration::from_secs(5), ..mine() });
    world.frames(&mut session);
    world.event("t1", "u1", Some(10.0), None);
    world.frames(&mut session);
    world.event("t1", "u1", Some(20.0), None);
    world.say(&mut session, &json!({"type": "ping"}));
    assert_eq!(session.output(world.now).frames.len(), 1, "the answer, which the socket does not take");
    world.now = world.now.after(Duration::from_secs(6));
    assert!(session.on_time(world.now));
    assert!(session.deadline(world.now) > world.now.instant, "the loop would spin until the socket takes it");
    assert_eq!(types(&world.frames(&mut session)), ["task_progress"]);
}

#[test]
fn a_page_that_was_due_does_not_bring_what_was_unsubscribed_meanwhile() {
    let mut world = World::new();
    for number in 0..10 {
        world.event(&format!("t{number}"), "u2", Some(1.0), None);
    }
    let everything = Identity { rights: Rights { all: true, ..Rights::default() }, ..identity("u1") };
    let one = Request { scope: Scope::Topic(Topic::Task(task_id("t0"))), ..mine() };
    let mut session = Session::open(&world.shared, everything, &one, world.now);
    world.frames(&mut session);
    world.say(&mut session, &json!({"type": "subscribe", "task_id": "*"}));
    let first = session.output(world.now).frames;
    assert!(first.len() >= 2, "an answer and the first page");
    world.say(&mut session, &json!({"type": "unsubscribe", "task_id": "*"}));
    let rest = world.frames(&mut session);
    let names: Vec<_> = rest.iter().flat_map(|frame| frame["tasks"].as_array().cloned().unwrap_or_default()).collect();
    assert!(names.iter().all(|task| task["task_id"] == "t0"), "{names:?}");
}
