//! What the limits of the hub promise: who goes, who is refused, and that the sums are right.

use super::{super::tests::*, *};
use crate::{
    hub::Settings,
    proto::{JsonText, Status, Topic},
};

fn heavy(task: &str, owner: &str, bytes: usize) -> Event {
    let mut event = progress(task, owner, 1.0);
    event.metadata = JsonText::parse(&format!("{{\"text\":\"{}\"}}", "x".repeat(bytes)));
    event
}

fn ids(hub: &Hub) -> Vec<String> {
    let mut ids: Vec<_> = hub.tasks(&[Topic::All]).iter().map(|frame| frame.task.task_id.to_string()).collect();
    ids.sort();
    ids
}

/// What the counter should say, added up anew.
fn added_up(hub: &Hub) -> usize {
    hub.slots().map(|slot| slot.lock().weight()).sum()
}

#[test]
fn the_weight_follows_every_change_and_ends_at_nothing() {
    let hub = hub_with(Settings { ring_frames: 3, ..settings() });
    for n in 0..200 {
        let task = format!("t{}", n % 7);
        let mut event = if n % 5 == 0 {
            status(&task, "u1", if n % 2 == 0 { Status::Waiting } else { Status::Running })
        } else {
            heavy(&task, "u1", (n * 37 % 400) as usize)
        };
        event.message = Some(format!("message {}", n / 3).into());
        event.event_id = Some(format!("event-{n}").into());
        hub.apply(&[arrival(n + 1, event)], LATE);
        assert_eq!(hub.bytes(), added_up(&hub), "after event {n}");
        // The sum within a slot is kept step by step; here it is made at once.
        for slot in hub.slots() {
            let state = slot.lock();
            assert_eq!(state.weight(), state.weight_anew(), "after event {n}");
        }
    }
    assert!(hub.bytes() > 0);
    let _ = hub.sweep(LATE + 10_000_000, 0);
    assert_eq!((hub.len(), hub.bytes()), (0, 0));
}

#[test]
fn what_is_said_again_weighs_once() {
    let hub = hub_with(settings());
    hub.apply(&[arrival(1, heavy("t1", "u1", 100_000))], LATE);
    let first = hub.bytes();
    hub.apply(&[arrival(2, heavy("t1", "u1", 100_000))], LATE);
    // The encoded frame has the text again, the state has not.
    assert!(hub.bytes() - first < 110_000, "{} more", hub.bytes() - first);
}

#[test]
fn beyond_the_limit_of_bytes_the_longest_ended_go_and_then_new_tasks_are_dropped() {
    let hub = hub_with(Settings { max_bytes: 200_000, ..settings() });
    hub.apply(&[arrival(1, heavy("a", "u1", 20_000)), arrival(2, heavy("b", "u1", 20_000))], LATE);
    hub.apply(&[arrival(3, status("b", "u1", Status::Failed)), arrival(4, status("a", "u1", Status::Failed))], LATE);
    hub.apply(&[arrival(5, heavy("c", "u1", 40_000))], LATE);
    assert_eq!(ids(&hub), ["a", "c"], "b ended before a");
    hub.apply(&[arrival(6, heavy("d", "u1", 60_000))], LATE);
    assert_eq!(ids(&hub), ["c", "d"]);
    hub.apply(&[arrival(7, progress("e", "u1", 1.0))], LATE);
    assert_eq!(ids(&hub), ["c", "d"], "nothing has ended, so the new one is dropped");
    let text = hub.0.metrics.render().unwrap();
    assert!(text.contains("outcome=\"dropped\",reason=\"bytes\"} 1"), "{text}");
    assert!(text.contains("taskcast_tasks_evicted_total{reason=\"bytes\"} 2"), "{text}");
    assert!(text.contains(&format!("taskcast_tasks_bytes {}", hub.bytes())), "{text}");
}

#[test]
fn a_task_that_is_held_is_updated_and_ended_whatever_the_bytes_say() {
    let hub = hub_with(Settings { max_bytes: 30_000, ..settings() });
    let mut client = Client::attach(&hub, Topic::All);
    hub.apply(&[arrival(1, heavy("t1", "u1", 20_000))], LATE);
    for n in 2..12 {
        let mut event = heavy("t1", "u1", 5_000 + n as usize);
        event.progress = Some(n as f64);
        hub.apply(&[arrival(n, event)], LATE);
    }
    let state = hub.task(&id("t1")).unwrap();
    assert_eq!(state.task.progress, Some(11.0));
    assert_eq!(hub.bytes(), added_up(&hub), "older frames made room");
    assert!(hub.slots().all(|slot| slot.lock().frames_held() == 2), "the first and the newest");
    client.pull(&hub, 10, false);
    hub.apply(&[arrival(20, status("t1", "u1", Status::Succeeded))], LATE);
    client.pull(&hub, 10, false);
    assert_eq!(client.seen.last().unwrap().task.status, Status::Succeeded);
}

#[test]
fn one_owners_flood_pushes_out_none_of_the_others_tasks() {
    let hub = hub_with(Settings { max: 10, max_per_owner: 4, ..settings() });
    hub.apply(&[arrival(1, status("mine", "u1", Status::Succeeded))], LATE);
    for n in 2..40 {
        hub.apply(&[arrival(n, status(&format!("f{n:02}"), "flood", Status::Failed))], LATE);
    }
    assert_eq!(ids(&hub), ["f36", "f37", "f38", "f39", "mine"], "the flood's own longest-ended went");
    for n in 40..60 {
        hub.apply(&[arrival(n, progress(&format!("f{n}"), "flood", 1.0))], LATE);
    }
    assert_eq!(ids(&hub), ["f40", "f41", "f42", "f43", "mine"], "no more of it than its share");
    let text = hub.0.metrics.render().unwrap();
    assert!(text.contains("outcome=\"dropped\",reason=\"owner_limit\"} 16"), "{text}");
    hub.apply(&[arrival(60, status("f41", "flood", Status::Failed)), arrival(61, progress("new", "u1", 1.0))], LATE);
    hub.apply(&[arrival(62, progress("f62", "flood", 1.0))], LATE);
    assert_eq!(ids(&hub), ["f40", "f42", "f43", "f62", "mine", "new"]);
}

#[test]
fn a_task_that_gets_its_owner_later_counts_from_then_on() {
    let hub = hub_with(Settings { max_per_owner: 1, ..settings() });
    hub.apply(&[arrival(1, Event { user_id: None, ..progress("t1", "u1", 1.0) })], LATE);
    hub.apply(&[arrival(2, progress("t1", "u1", 2.0)), arrival(3, progress("t2", "u1", 1.0))], LATE);
    assert_eq!(ids(&hub), ["t1"]);
    let _ = hub.sweep(LATE + 4_000_000, 0);
    hub.apply(&[arrival(4, progress("t2", "u1", 1.0))], LATE);
    assert_eq!(ids(&hub), ["t2"], "what is let go gives its place back");
    hub.reset(crate::proto::ResumeFailure::AnotherLog);
    hub.apply(&[arrival(1, progress("t3", "u1", 1.0))], LATE);
    assert_eq!(ids(&hub), ["t3"]);
}

#[test]
fn batches_of_any_size_make_the_same_tasks_under_every_limit() {
    let limits = Settings { max: 30, max_bytes: 60_000, max_per_owner: 12, ring_frames: 3, ..settings() };
    let mut random = 7_u64;
    let mut draw = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let events: Vec<(u64, Event)> = (1..3_000)
        .map(|n| {
            let (task, owner) = (draw(300), draw(4));
            let (task, owner) = (format!("t{}", task * 4 + owner), format!("u{owner}"));
            let event = match draw(4) {
                0 => status(&task, &owner, Status::Failed),
                1 => heavy(&task, &owner, draw(4_000) as usize),
                _ => progress(&task, &owner, draw(99) as f64),
            };
            (n, event)
        })
        .collect();
    let run = |batch: usize| {
        let hub = hub_with(limits.clone());
        for part in events.chunks(batch) {
            let part: Vec<_> = part.iter().map(|(n, event)| arrival(*n, event.clone())).collect();
            hub.apply(&part, LATE);
        }
        (states(&hub, &Topic::All), hub.bytes())
    };
    let one_by_one = run(1);
    assert!(one_by_one.0.len() > 5, "{one_by_one:?}");
    assert_eq!(run(7), one_by_one);
    assert_eq!(run(1_000), one_by_one);
}

#[test]
fn a_batch_marks_each_task_once_and_wakes_first_those_who_wait_for_an_end() {
    let hub = hub_with(settings());
    let client = |topic: Topic| Client::attach(&hub, topic);
    let mut crowd: Vec<Client> = (0..3).map(|_| client(Topic::Task(id("storm")))).collect();
    let mut waiting = client(Topic::Task(id("ends")));
    let mut batch: Vec<_> = (1..=100).map(|n| arrival(n, progress("storm", "u1", n as f64 / 2.0))).collect();
    batch.push(arrival(101, status("ends", "u1", Status::Failed)));
    batch.extend((102..=200).map(|n| arrival(n, progress("storm", "u1", n as f64 / 3.0))));
    let changed = hub.change(&batch, LATE);
    assert!(changed.len() > 100, "{} changes", changed.len());
    let mut to_wake = Vec::new();
    hub.mark(&changed, &mut to_wake);
    assert_eq!(to_wake.len(), 4, "each watcher is woken once");
    assert!(Arc::ptr_eq(&to_wake[0], &waiting.mailbox), "the end comes first");
    hub.announce(to_wake);
    waiting.pull(&hub, 10, false);
    assert_eq!(waiting.seen.last().unwrap().task.status, Status::Failed);
    for watcher in &mut crowd {
        watcher.pull(&hub, 10, false);
        assert_eq!(watcher.states(), states(&hub, &Topic::Task(id("storm"))));
    }
}

#[test]
fn a_topic_that_was_joined_and_left_within_one_batch_is_told() {
    let hub = hub_with(settings());
    let tagged = |tag: &str, percent: f64| {
        let mut event = progress("t1", "u1", percent);
        event.tags = Some(vec![Arc::from(tag)].into());
        event
    };
    hub.apply(&[arrival(1, tagged("a", 1.0))], LATE);
    let watchers = ["a", "b", "c"].map(|tag| Client::attach(&hub, Topic::Tag(tag.into())));
    hub.apply(&[arrival(2, tagged("b", 2.0)), arrival(3, tagged("c", 3.0))], LATE);
    for watcher in watchers {
        assert!(watcher.mailbox.state().0, "{:?} was not marked", watcher.topic);
    }
}

#[test]
fn a_storm_on_a_watched_task_costs_a_batch_no_more_than_one_event() {
    let hub = hub_with(settings());
    let crowd: Vec<Client> = (0..2_000).map(|_| Client::attach(&hub, Topic::Task(id("storm")))).collect();
    let mut at = 0;
    let mut take = |batch: usize| {
        let began = crate::clock::now().instant;
        let events: Vec<_> = (0..256)
            .map(|_| {
                at += 1;
                let mut event = progress("storm", "u1", 1.0);
                event.current = Some(at as f64);
                arrival(at, event)
            })
            .collect();
        events.chunks(batch).for_each(|part| hub.apply(part, LATE));
        crate::clock::now().instant - began
    };
    let (one_by_one, at_once) = (take(1), take(256));
    assert!(at_once * 10 < one_by_one, "256 events: {at_once:?} in one batch, {one_by_one:?} one by one");
    drop(crowd);
}
