//! The hub against a naive model of everything that was ever said, and under threads.

use proptest::prelude::*;

use super::{tests::*, *};
use crate::proto::{Status, TaskFrame, Topic};

#[derive(Debug, Clone)]
enum Act {
    /// Events, and which client pulls after each marking.
    Apply(Vec<(usize, Option<Status>, f64)>, usize),
    Attach(usize),
    Pull {
        client: usize,
        frames_max: usize,
        every: bool,
    },
    Resume(usize),
}

fn any_act() -> impl Strategy<Value = Act> {
    const STATUSES: [Status; 4] = [Status::Running, Status::Waiting, Status::Succeeded, Status::Failed];
    let status = prop::option::weighted(0.3, prop::sample::select(&STATUSES[..]));
    let event = (0..6_usize, status, 0.0..100.0_f64);
    prop_oneof![
        4 => (prop::collection::vec(event, 1..8), 0..6_usize).prop_map(|(events, puller)| Act::Apply(events, puller)),
        1 => (0..8_usize).prop_map(Act::Attach),
        4 => (0..6_usize, 1..6_usize, any::<bool>())
            .prop_map(|(client, frames_max, every)| Act::Pull { client, frames_max, every }),
        1 => (0..6_usize).prop_map(Act::Resume),
    ]
}

fn topic(number: usize) -> Topic {
    match number {
        0..=4 => Topic::Task(id(&format!("t{number}"))),
        5 | 6 => Topic::Owner(user(&format!("u{}", number - 5))),
        _ => Topic::All,
    }
}

/// Every task has the owner of its number, whatever the generator says, so that owners never clash.
fn event_of((task, named, percent): (usize, Option<Status>, f64)) -> Event {
    let mut event = progress(&format!("t{task}"), &format!("u{}", task % 2), percent);
    event.status = named;
    event
}

proptest! {
    #[test]
    fn whatever_the_order_of_events_and_pulls_every_client_ends_with_the_state_of_the_hub(
        acts in prop::collection::vec(any_act(), 1..80)
    ) {
        let hub = hub_with(settings());
        let mut clients: Vec<Client> = Vec::new();
        // The naive model: every frame there ever was.
        let mut frames: Vec<Arc<TaskFrame>> = Vec::new();
        let mut at = 0;
        for act in acts {
            match act {
                Act::Apply(events, puller) => {
                    let batch: Vec<_> = events.into_iter().map(|e| { at += 1; arrival(at, event_of(e)) }).collect();
                    let changed = hub.change(&batch, LATE);
                    frames.extend(changed.iter().map(|one| one.frame.clone()));
                    let mut to_wake = Vec::new();
                    for one in &changed {
                        hub.mark(std::slice::from_ref(one), &mut to_wake);
                        if let Some(client) = clients.get_mut(puller) {
                            client.pull(&hub, 2, false);
                        }
                    }
                    hub.announce(to_wake);
                }
                Act::Attach(number) if clients.len() < 6 => clients.push(Client::attach(&hub, topic(number))),
                Act::Attach(_) => {}
                Act::Pull { client, frames_max, every } => {
                    if let Some(client) = clients.get_mut(client) {
                        client.pull(&hub, frames_max, every);
                    }
                }
                Act::Resume(client) => {
                    // Drops the connection and carries on from its cursor over a new one.
                    if client < clients.len() {
                        let old = clients.remove(client);
                        hub.unwatch(&old.watch);
                        let mut new = Client::attach(&hub, old.topic.clone());
                        if old.after > Position::START {
                            let topics = std::slice::from_ref(&old.topic);
                            let missed = hub.missed(&topics.to_vec().into(), old.cursor(), new.after, false, usize::MAX, ALL).unwrap();
                            new.seen = old.seen;
                            new.seen.extend(missed.frames);
                        }
                        clients.push(new);
                    }
                }
            }
        }
        for client in &mut clients {
            for _ in 0..200 {
                client.pull(&hub, 3, false);
            }
            prop_assert_eq!(client.states(), states(&hub, &client.topic));
            let first = client.seen.first().map(|frame| frame.position());
            let keys = frames.iter().filter(|f| f.is_key && Some(f.position()) > first);
            for key in keys.filter(|f| names::is_heard_under(&f.task, std::slice::from_ref(&client.topic))) {
                let known = client.seen.iter().any(|f| f.cursor == key.cursor);
                // What a first snapshot showed already stands for everything before it.
                let snapshot = client.seen.iter().any(|f| f.task.task_id == key.task.task_id && f.position() > key.position());
                prop_assert!(known || snapshot, "a key frame was folded away: {:?}", key);
            }
        }
    }
}

/// Several sessions on threads of their own, which do nothing but pull when they are woken, while events are applied as
/// fast as they go. Each must come to see the last event of its topic.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_lost_between_threads() {
    const EVENTS: u64 = 20_000;
    let task_of = |n: u64| n as usize % 7;
    let hub = hub_with(settings());
    let sessions: Vec<_> = [7, 6, 5, 3, 7, 6, 5, 3]
        .into_iter()
        .map(|number| {
            let hub = hub.clone();
            let concerns = move |n: &u64| match number {
                7 => true,
                3 => task_of(*n) == 3,
                owner => task_of(*n) % 2 == owner - 5,
            };
            let last = (1..=EVENTS).rev().find(concerns).unwrap();
            let mut client = Client::attach(&hub, topic(number));
            tokio::spawn(async move {
                while client.after.major < last {
                    client.mailbox.woken().await;
                    // As the pump does: on until nothing more comes.
                    let mut after = None;
                    while after.replace(client.after) != Some(client.after) {
                        client.pull(&hub, 16, number % 2 == 0);
                    }
                }
                (client.states(), client.topic)
            })
        })
        .collect();
    let applier = tokio::task::spawn_blocking({
        let hub = hub.clone();
        move || {
            let all: Vec<_> = (1..=EVENTS).map(|n| (n, (task_of(n), None, n as f64 / EVENTS as f64 * 99.0))).collect();
            for chunk in all.chunks(7) {
                hub.apply(&chunk.iter().map(|(n, event)| arrival(*n, event_of(*event))).collect::<Vec<_>>(), LATE);
            }
        }
    });
    applier.await.unwrap();
    for session in sessions {
        let (seen, topic) = tokio::time::timeout(Duration::from_secs(20), session).await.expect("a wake-up").unwrap();
        assert_eq!(seen, states(&hub, &topic), "{topic:?}");
    }
}
