//! What came of one task in one piece: for whom it is the same, what is in it, and when there is none.

use super::{tests::*, *};
use crate::proto::{Encoding, Status, Task, Topic};

const JSON: Wanted = Wanted { after: Position::START, every: true, encoding: Encoding::Json };

/// `count` watchers of `u1`'s tasks, who have nothing yet.
fn watchers(hub: &Hub, count: usize) -> Vec<(Arc<Mailbox>, Watch)> {
    let watch = |_| {
        let mailbox: Arc<Mailbox> = Arc::default();
        let watch = hub.watch(Topic::Owner(user("u1")), &mailbox);
        (mailbox, watch)
    };
    (0..count).map(watch).collect()
}

/// A pull of somebody for whom the access function says `sees`.
fn pull<'a>(hub: &Hub, mailbox: &Arc<Mailbox>, wanted: Wanted, runs: &'a mut Runs, sees: bool) -> Option<&'a Run> {
    hub.pull_run(mailbox, wanted, &hub.progress(), runs, &mut Grant::default(), |_| sees)
}

fn at(major: u64) -> Position {
    cursor(major).position
}

fn frames_of(run: &Run) -> Vec<u8> {
    run.rest(0).concat()
}

#[test]
fn a_crowd_at_the_same_place_gets_one_piece_with_all_frames_in_order() {
    let hub = hub_with(settings());
    let crowd = watchers(&hub, 3);
    hub.apply(&[arrival(1, progress("t", "u1", 1.0)), arrival(2, progress("t", "u1", 2.0))], LATE);
    let mut runs = Runs::default();
    let mut pieces = Vec::new();
    for (mailbox, _watch) in &crowd {
        let run = pull(&hub, mailbox, JSON, &mut runs, true).expect("two frames");
        assert_eq!((run.frames(), run.conflated(), run.cursor().position), (2, 0, at(2)));
        assert_eq!(&frames_of(run), run.bytes());
        pieces.push(run.bytes().clone());
        assert!(mailbox.is_empty());
    }
    assert!(pieces.iter().all(|piece| piece.as_ptr() == pieces[0].as_ptr()), "made once");
}

#[test]
fn the_rest_of_a_piece_begins_within_the_frame_that_was_cut() {
    let hub = hub_with(settings());
    let crowd = watchers(&hub, 1);
    hub.apply(&[arrival(1, progress("t", "u1", 1.0)), arrival(2, progress("t", "u1", 2.0))], LATE);
    let mut runs = Runs::default();
    let run = pull(&hub, &crowd[0].0, JSON, &mut runs, true).unwrap();
    let all = run.bytes().clone();
    for cut in 0..=all.len() {
        let rest = run.rest(cut);
        assert_eq!(rest.concat(), all[cut..]);
        assert!(rest.iter().all(|part| !part.is_empty()));
    }
}

#[test]
fn who_wants_something_else_gets_a_piece_of_their_own() {
    let hub = hub_with(settings());
    let crowd = watchers(&hub, 5);
    let batch: Vec<_> = (1..=4).map(|n| arrival(n, progress("t", "u1", n as f64))).collect();
    hub.apply(&batch, LATE);
    let mut runs = Runs::default();
    let mut pull = |number: usize, wanted| {
        let run = pull(&hub, &crowd[number].0, wanted, &mut runs, true).expect("frames");
        (run.frames(), run.conflated(), run.bytes().clone())
    };
    let every = pull(0, JSON);
    assert_eq!((every.0, every.1), (4, 0));
    let later = pull(1, Wanted { after: at(2), ..JSON });
    assert_eq!((later.0, &later.2), (2, &every.2.slice(every.2.len() - later.2.len()..)));
    let latest = pull(2, Wanted { every: false, after: at(1), ..JSON });
    assert_eq!((latest.0, latest.1), (1, 2), "the newest, and two that were passed over");
    let celery = pull(3, Wanted { encoding: Encoding::Celery, ..JSON });
    assert!(celery.0 == 4 && celery.2 != every.2);
    assert_eq!(pull(4, JSON), every);
}

#[test]
fn what_is_more_than_frames_or_not_yet_to_be_told_is_left_marked() {
    let hub = hub_with(settings());
    let crowd = watchers(&hub, 1);
    let mailbox = &crowd[0].0;
    hub.apply(&[arrival(1, progress("t", "u1", 1.0)), arrival(2, progress("t", "u1", 2.0))], LATE);
    let mut runs = Runs::default();
    let told_of = |marked| Progress { marked, ..hub.progress() };
    let mut is_left = |wanted, progress: Progress, sees: bool| {
        let mut grant = Grant::default();
        let run = hub.pull_run(mailbox, wanted, &progress, &mut runs, &mut grant, |_| sees);
        run.is_none() && mailbox.len() == 1
    };
    assert!(is_left(JSON, told_of(at(1)), true), "the second frame is not announced");
    assert!(is_left(JSON, told_of(at(2)), false), "not this client's to see");
    assert!(is_left(Wanted { after: at(2), ..JSON }, told_of(at(2)), true), "nothing is new");
    assert!(is_left(JSON, Progress { generation: 7, ..told_of(at(2)) }, true), "the log was read anew");
    let mut tagged = progress("t", "u1", 3.0);
    tagged.tags = Some(["night".into()].into());
    hub.apply(&[arrival(3, tagged)], LATE);
    assert!(is_left(JSON, told_of(at(3)), true), "who may see it changed on the way");
    hub.apply(&[arrival(4, progress("t2", "u1", 3.0))], LATE);
    assert!(pull(&hub, mailbox, JSON, &mut runs, true).is_none() && mailbox.len() == 2, "two tasks");
}

#[test]
fn a_piece_is_not_taken_for_what_came_after_it() {
    let hub = hub_with(settings());
    let crowd = watchers(&hub, 2);
    let mut runs = Runs::default();
    hub.apply(&[arrival(1, progress("t", "u1", 1.0))], LATE);
    let first = pull(&hub, &crowd[0].0, JSON, &mut runs, true).unwrap();
    assert_eq!((first.frames(), first.cursor().position), (1, at(1)));
    hub.apply(&[arrival(2, status("t", "u1", Status::Succeeded))], LATE);
    let second = pull(&hub, &crowd[1].0, JSON, &mut runs, true).unwrap();
    assert_eq!((second.frames(), second.cursor().position), (2, at(2)));
}

#[test]
fn access_is_asked_once_and_again_when_the_task_is_listed_elsewhere() {
    let hub = hub_with(settings());
    let crowd = watchers(&hub, 1);
    let (mut runs, mut grant) = (Runs::default(), Grant::default());
    let asked = std::cell::Cell::new(0);
    let sees = |task: &Task| {
        asked.set(asked.get() + 1);
        task.tags.is_none()
    };
    let mut after = Position::START;
    let mut tell = |number, tag: bool| {
        let mut event = progress("t", "u1", number as f64);
        event.tags = tag.then(|| ["night".into()].into());
        hub.apply(&[arrival(number, event)], LATE);
        let wanted = Wanted { after, ..JSON };
        after = at(number);
        hub.pull_run(&crowd[0].0, wanted, &hub.progress(), &mut runs, &mut grant, sees).is_some()
    };
    assert!(tell(1, false) && tell(2, false) && tell(3, false));
    assert_eq!(asked.get(), 1);
    assert!(!tell(4, true) && !tell(5, true), "and no grant of what was refused");
    assert_eq!(asked.get(), 3);
}
