//! Pages that take long to find, lists that are asked for again and again, and lists of what moves meanwhile.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use serde_json::{Value, json};

use crate::{
    hub::Arrival,
    proto::{Cursor, Event, Position, Status, payload},
    session::{
        machine::Session,
        test_world::{World, mine, task_id, types, user},
    },
};

/// More than is looked at in one go, none of which the answer holds.
const ENDED: u64 = 200;

/// A user that watches everything, whose only live task is the newest.
fn world_with_one_live_task() -> World {
    let mut world = World::new();
    for n in 0..ENDED {
        world.event(&format!("t{n}"), "u1", None, Some(Status::Succeeded));
    }
    world.event("live", "u1", Some(1.0), None);
    world
}

#[test]
fn a_page_that_has_to_be_looked_for_comes_whole_and_others_have_their_turn_meanwhile() {
    let world = world_with_one_live_task();
    let mut session = world.open("u1", &mine());
    session.identity.rights.all = true;
    world.say(&mut session, &json!({"type": "subscribe", "all": true}));
    world.frames(&mut session);
    world.say(&mut session, &json!({"type": "get_active_tasks", "id": 7}));
    let mut turns = 0;
    let output = loop {
        let output = session.output(world.now);
        if !output.frames.is_empty() {
            break output;
        }
        turns += 1;
        assert!(session.has_more() && turns < ENDED, "it goes on without being woken");
    };
    assert!(turns > 1, "it was looked for in one go");
    assert_eq!(output.frames.len(), 1);
    let answer: Value = serde_json::from_slice(&payload(&output.frames[0])).unwrap();
    assert_eq!((&answer["id"], &answer["more"]), (&json!(7), &json!(false)));
    assert_eq!((answer["tasks"].as_array().unwrap().len(), &answer["tasks"][0]["task_id"]), (1, &json!("live")));
}

#[test]
fn lists_are_answered_one_after_the_other_and_so_many_wait() {
    let world = world_with_one_live_task();
    let mut session = world.open("u1", &mine());
    world.frames(&mut session);
    for id in 0..100 {
        world.say(&mut session, &json!({"type": "get_active_tasks", "id": id}));
    }
    let frames = world.frames(&mut session);
    let refused = frames.iter().filter(|frame| frame["error_code"] == "LIMIT_REACHED").count();
    let answered: Vec<_> =
        frames.iter().filter(|frame| frame["type"] == "active_tasks").map(|frame| &frame["id"]).collect();
    assert_eq!((refused, answered), (96, vec![&json!(0), &json!(1), &json!(2), &json!(3)]));
    assert_eq!(session.closing(), None);
    // Once they are out it may ask again.
    world.say(&mut session, &json!({"type": "get_active_tasks"}));
    assert_eq!(types(&world.frames(&mut session)), ["active_tasks"]);
}

const MEMBERS: u32 = 300;

fn member_moves(world: &mut World, number: u32, percent: f64) {
    let mut event = Event::new(task_id(&format!("m{number}")));
    (event.user_id, event.root_id, event.progress) = (Some(user("u2")), Some(task_id("many")), Some(percent));
    world.apply(event);
}

/// Which tasks a session tells of until a list's last page, while those move on that it has sent and those that it has not;
/// and in how many pages.
fn told_until_the_last_page(world: &mut World, session: &mut Session) -> (BTreeSet<String>, usize) {
    let (mut told, mut pages) = (BTreeSet::new(), 0);
    for turn in 0..10_000 {
        for frame in session.output(world.now).frames {
            let frame: Value = serde_json::from_slice(&payload(&frame)).unwrap();
            let tasks = frame["tasks"].as_array().into_iter().flatten().chain(Some(&frame));
            told.extend(tasks.filter_map(|task| task["task_id"].as_str()).map(str::to_owned));
            pages += usize::from(frame["type"] == "active_tasks");
            if frame["more"] == false {
                return (told, pages);
            }
        }
        if turn < MEMBERS / 2 {
            member_moves(world, turn, f64::from(turn % 100));
            member_moves(world, MEMBERS - 1 - turn, f64::from(turn % 100));
        }
    }
    panic!("a list without an end");
}

#[test]
fn whatever_moves_while_a_list_is_sent_is_told_before_the_last_page_of_it() {
    let mut world = World::new();
    (0..MEMBERS).for_each(|number| member_moves(&mut world, number, 0.0));
    let mut session = world.open("u1", &mine());
    session.identity.rights.all = true;
    world.frames(&mut session);
    for question in [json!({"type": "subscribe", "root_id": "many"}), json!({"type": "get_active_tasks", "id": 1})] {
        world.say(&mut session, &question);
        let (told, pages) = told_until_the_last_page(&mut world, &mut session);
        assert_eq!(told.len(), MEMBERS as usize, "{question}");
        assert!(pages > 10, "{question}: {pages}");
        world.frames(&mut session);
    }
    let mut another = world.open("u2", &mine());
    let (told, pages) = told_until_the_last_page(&mut world, &mut another);
    assert!(told.len() == MEMBERS as usize && pages > 10, "{told:?} in {pages}");
}

#[test]
fn a_list_under_a_subscription_begins_before_the_next_answer_though_all_of_it_has_just_moved() {
    let mut world = World::new();
    member_moves(&mut world, 0, 0.0);
    let mut session = world.open("u1", &mine());
    session.identity.rights.all = true;
    world.frames(&mut session);
    member_moves(&mut world, 0, 1.0);
    world.say(&mut session, &json!({"type": "subscribe", "root_id": "many"}));
    let first = session.output(world.now).frames.len();
    world.say(&mut session, &json!({"type": "ping"}));
    let frames = world.frames(&mut session);
    assert_eq!(
        (first, types(&frames)),
        (2, vec!["pong", "task_progress", "active_tasks"]),
        "answer and page, then the rest"
    );
    assert_eq!(frames[2]["more"], false);
}

/// Every frame until a list's last page, and none of what the test does meanwhile.
fn told_meanwhile(world: &World, session: &mut Session) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    loop {
        for frame in session.output(world.now).frames {
            let frame: Value = serde_json::from_slice(&payload(&frame)).unwrap();
            let tasks = frame["tasks"].as_array().into_iter().flatten().chain(Some(&frame));
            told.extend(tasks.filter_map(|task| task["task_id"].as_str()).map(str::to_owned));
            if frame["more"] == false {
                return told;
            }
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_list_is_whole_though_a_batch_is_just_being_applied() {
    // Few move at a time, so that a pull brings all that did; each not so often that its ring forgets what was announced.
    const TASKS: u64 = 4;
    const EVENTS: u64 = 8;
    let mut world = World::new();
    (0..TASKS as u32).for_each(|number| member_moves(&mut world, number, 0.0));
    let (hub, now_ms, is_over) = (world.shared.hub.clone(), world.now.unix_ms, AtomicBool::new(false));
    let batch = |from: u64| -> Vec<Arrival> {
        let moved = |number: u64| {
            let mut event = Event::new(task_id(&format!("m{}", number % TASKS)));
            event.progress = Some(1.0);
            let cursor = Cursor { position: Position { major: number, minor: 0 }, proof: number as u32 };
            Arrival { cursor, appended_at_ms: Some(now_ms), event: Some(event) }
        };
        (from..from + EVENTS).map(moved).collect()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut from = world.at + 1;
            while !is_over.load(Ordering::Relaxed) {
                hub.apply(&batch(from), now_ms);
                from += EVENTS;
            }
        });
        let told: Vec<_> = (0..2_000)
            .map(|_| {
                let mut session = world.open("u2", &mine());
                let listed = told_meanwhile(&world, &mut session).len();
                world.say(&mut session, &json!({"type": "get_active_tasks", "id": 1}));
                (listed, told_meanwhile(&world, &mut session).len())
            })
            .collect();
        is_over.store(true, Ordering::Relaxed);
        let missed = told.iter().filter(|told| **told != (TASKS as usize, TASKS as usize)).count();
        // Of a machine that stops this thread again and again nothing can be had in the frames that a last page waits for.
        assert!(10 * missed < told.len(), "{missed} of {}", told.len());
    });
}

#[test]
fn a_last_page_is_written_as_soon_as_a_batch_is_applied_that_was_none_of_its_business() {
    let mut world = World::new();
    member_moves(&mut world, 0, 0.0);
    world.shared.hub.begin(Position { major: world.at + 1, minor: 0 });
    let mut session = world.open("u2", &mine());
    let begun = world.frames(&mut session);
    assert_eq!((types(&begun), &begun[1]["more"]), (vec!["connection_established", "active_tasks"], &json!(true)));
    while session.mailbox.woken().now_or_never().is_some() {}
    world.event("another", "u1", Some(1.0), None);
    assert_eq!(session.mailbox.woken().now_or_never(), Some(()));
    let ended = world.frames(&mut session);
    assert_eq!((types(&ended), &ended[0]["more"]), (vec!["active_tasks"], &json!(false)));
}

#[test]
fn of_lists_under_several_subscriptions_the_last_one_says_that_all_is_there() {
    let mut world = World::new();
    member_moves(&mut world, 0, 0.0);
    world.event("alone", "u2", Some(1.0), None);
    let mut session = world.open("u1", &mine());
    session.identity.rights.all = true;
    world.frames(&mut session);
    world.say(&mut session, &json!({"type": "subscribe", "root_id": "many"}));
    world.say(&mut session, &json!({"type": "get_active_tasks", "id": 1}));
    world.say(&mut session, &json!({"type": "subscribe", "task_id": "alone"}));
    let frames = world.frames(&mut session);
    let pages = frames.iter().filter(|frame| frame["type"] == "active_tasks");
    let told: Vec<_> = pages.map(|page| (&page["id"], &page["more"])).collect();
    let (unnamed, named) = (&Value::Null, &json!(1));
    assert_eq!(told, [(unnamed, &json!(true)), (named, &json!(false)), (unnamed, &json!(false))]);
}

#[test]
fn the_last_page_waits_for_no_throttle_and_comes_however_fast_things_move() {
    let mut world = World::new();
    (0..MEMBERS).for_each(|number| member_moves(&mut world, number, 0.0));
    let mut session = world.open("u2", &mine());
    session.throttle = Duration::from_secs(60);
    let (told, _) = told_until_the_last_page(&mut world, &mut session);
    assert_eq!(told.len(), MEMBERS as usize);
    world.frames(&mut session);
    world.say(&mut session, &json!({"type": "get_active_tasks", "id": 1}));
    let mut outputs = 0;
    let is_last = |frame: &Value| frame["more"] == false;
    loop {
        // More than a pull takes.
        (0..MEMBERS).for_each(|number| member_moves(&mut world, number, 1.0));
        let frames = session.output(world.now).frames;
        if frames.iter().any(|frame| serde_json::from_slice(&payload(frame)).is_ok_and(|frame| is_last(&frame))) {
            break;
        }
        outputs += 1;
        assert!(outputs < 1_000 && session.has_more(), "after {outputs}");
    }
}
