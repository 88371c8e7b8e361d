//! What is found under topics, against a look at every task.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{super::tests::*, *};
use crate::proto::{Event, Status, TaskId};

/// Few enough that most tasks share something, many enough for several pieces.
fn any_said() -> impl Strategy<Value = (usize, usize, usize, usize, bool)> {
    (0..200_usize, 0..3_usize, 0..3_usize, 0..4_usize, prop::bool::weighted(0.1))
}

/// Every task keeps the owner and the group that its number says.
fn event_of((task, _, tag, another, is_end): (usize, usize, usize, usize, bool)) -> Event {
    let mut event = progress(&format!("t{task}"), &format!("u{}", task % 3), 1.0);
    event.root_id = (task % 4 == 0).then(|| id(&format!("t{}", task / 40)));
    event.tags = Some([format!("g{tag}").into(), format!("g{another}").into()].into());
    event.status = is_end.then_some(Status::Failed);
    event
}

fn any_topics() -> impl Strategy<Value = Vec<Topic>> {
    let topic = prop_oneof![
        (0..200_usize).prop_map(|n| Topic::Task(id(&format!("t{n}")))),
        (0..5_usize).prop_map(|n| Topic::Root(id(&format!("t{n}")))),
        (0..3_usize).prop_map(|n| Topic::Owner(user(&format!("u{n}")))),
        (0..4_usize).prop_map(|n| Topic::Tag(format!("g{n}").into())),
        Just(Topic::All),
    ];
    prop::collection::vec(topic, 1..4)
}

proptest! {
    #[test]
    fn what_is_found_is_what_a_look_at_every_task_finds(
        said in prop::collection::vec(any_said(), 1..500),
        topics in any_topics(),
        (after, skip, limit) in (0..500_u64, 0..60_usize, 0..30_usize),
    ) {
        let hub = hub_with(settings());
        let batch: Vec<_> = (1..).zip(said).map(|(at, said)| arrival(at, event_of(said))).collect();
        hub.apply(&batch, LATE);
        let mut expected: Vec<_> =
            hub.slots().map(|slot| slot.current()).filter(|frame| is_heard_under(&frame.task, &topics)).collect();
        expected.sort_by_key(|frame| Reverse(frame.position()));
        let places = |frames: &[Arc<TaskFrame>]| frames.iter().map(|frame| frame.position().major).collect::<Vec<_>>();

        let wanted = |frame: &TaskFrame| !frame.position().major.is_multiple_of(3);
        let newest = hub.newest(&topics, skip, limit, wanted);
        let all: Vec<_> = expected.iter().filter(|frame| wanted(frame)).cloned().collect();
        prop_assert_eq!(newest.total, all.len());
        prop_assert_eq!(places(&newest.frames), places(&all[skip.min(all.len())..(skip + limit).min(all.len())]));

        let since = cursor(after).position;
        let changed: BTreeSet<TaskId> = hub.changed(&topics, since).iter().map(|slot| slot.id.clone()).collect();
        let moved = expected.iter().filter(|frame| frame.position() > since);
        prop_assert_eq!(changed, moved.map(|frame| frame.task.task_id.clone()).collect());

        let mut walk = Walk::new(topics.clone(), since);
        let mut walked = Vec::new();
        while let Some(frame) = hub.peek(&mut walk, ALL) {
            walked.push(frame);
            walk.advance();
        }
        walked.reverse();
        let stayed: Vec<_> = expected.iter().filter(|frame| frame.position() <= since).cloned().collect();
        prop_assert_eq!(places(&walked), places(&stayed));
    }
}
