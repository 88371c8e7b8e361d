//! Pages that take long to find, and lists that are asked for again and again.

use serde_json::json;

use crate::{
    proto::Status,
    session::test_world::{World, mine, types},
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
    let answer: serde_json::Value = serde_json::from_slice(&crate::proto::payload(&output.frames[0])).unwrap();
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
