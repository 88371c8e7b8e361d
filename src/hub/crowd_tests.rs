//! Crowds: thousands who watch one task, come at once and leave at once, and lists of thousands of tasks. Nobody else may
//! wait for them, so no lock is held for more than a piece, and who has left takes no memory.

use super::{names::LOCKED, tests::*, *};
use crate::{clock, proto::Topic};

const CROWD: usize = 5_000;

fn locks_taken(act: impl FnOnce()) -> usize {
    let before = LOCKED.get();
    act();
    LOCKED.get() - before
}

fn crowd() -> Vec<Arc<Mailbox>> {
    (0..CROWD).map(|_| Arc::default()).collect()
}

#[test]
fn a_crowd_that_comes_and_goes_locks_a_topic_once_for_each_and_for_a_piece_at_a_time() {
    let hub = hub_with(settings());
    let (topic, mailboxes) = (Topic::Task(id("t")), crowd());
    let mut watches = Vec::new();
    let joining = locks_taken(|| watches.extend(mailboxes.iter().map(|mailbox| hub.watch(topic.clone(), mailbox))));
    assert_eq!(joining, CROWD);
    let quiet = locks_taken(|| hub.apply(&[arrival(1, progress("another", "u1", 1.0))], LATE));
    let marking = locks_taken(|| hub.apply(&[arrival(2, progress("t", "u1", 1.0))], LATE));
    assert!(mailboxes.iter().all(|mailbox| mailbox.state().0), "each is marked");
    assert_eq!(marking - quiet, CROWD / watchers::WATCHERS_PER_LOCK, "a lock for each piece");
    let leaving = locks_taken(|| watches.iter().for_each(|watch| hub.unwatch(watch)));
    assert_eq!(leaving, CROWD);
}

#[test]
fn a_long_list_is_read_with_the_lock_held_for_a_piece_at_a_time() {
    let hub = hub_with(settings());
    let batch: Vec<_> = (1..=800).map(|n| arrival(n, progress(&format!("t{n}"), "u1", 1.0))).collect();
    hub.apply(&batch, LATE);
    let mut found = 0;
    let reading = locks_taken(|| found = hub.newest(&[Topic::Owner(user("u1"))], 0, 1, |_| true).total);
    assert_eq!((found, reading), (800, 800 / listings::TASKS_PER_LOCK + 1));
}

#[test]
fn who_has_left_takes_no_memory() {
    let hub = hub_with(settings());
    let (topic, mailboxes) = (Topic::Task(id("t")), crowd());
    let mut watches: Vec<_> = mailboxes.iter().map(|mailbox| hub.watch(topic.clone(), mailbox)).collect();
    // Everyone has a topic of their own, too.
    let own = |n: usize| Topic::Owner(user(&format!("u{n}")));
    watches.extend(mailboxes.iter().enumerate().map(|(n, mailbox)| hub.watch(own(n), mailbox)));
    let full = hub.0.topics.room();
    let last = watches.pop().unwrap();
    for watch in &watches {
        hub.unwatch(watch);
    }
    let left = hub.0.topics.room();
    assert!(left.0 <= full.0 / 4 && left.1 == 1, "room for {left:?} of {full:?}");
    hub.unwatch(&last);
    assert_eq!(hub.0.topics.room().1, 0);
    assert!(mailboxes.iter().all(|mailbox| Arc::strong_count(mailbox) == 1));
}

/// How long it takes from an event of a task to its watcher's pull, mostly and for one in a hundred.
fn delays(hub: &Hub, client: &mut Client, at: &mut u64, until: impl Fn() -> bool) -> [Duration; 2] {
    let mut delays = Vec::new();
    while !until() {
        let began = clock::now().instant;
        *at += 1;
        hub.apply(&[arrival(*at, progress("watched", "u1", 1.0))], LATE);
        client.pull(hub, 16, false);
        assert_eq!(client.after.major, *at, "delivered");
        delays.push(began.elapsed());
    }
    delays.sort_unstable();
    [500, 990].map(|thousandth| delays[delays.len() * thousandth / 1_000])
}

#[test]
#[expect(clippy::print_stdout, reason = "a measurement")]
#[ignore = "a measurement: cargo test --lib how_long -- --ignored --nocapture"]
fn how_long_others_wait_while_crowds_come_and_go() {
    const ROUNDS: usize = 20;
    let hub = hub_with(settings());
    let (mut at, mut client) = (0, Client::attach(&hub, Topic::Task(id("watched"))));
    let (topic, mailboxes) = (Topic::Task(id("crowded")), crowd());
    let began = clock::now().instant;
    let quiet = delays(&hub, &mut client, &mut at, || began.elapsed() > Duration::from_secs(1));
    let crowds = std::thread::spawn({
        let hub = hub.clone();
        move || {
            let mut took = [Duration::ZERO; 2];
            for _ in 0..ROUNDS {
                let began = clock::now().instant;
                let watches: Vec<_> = mailboxes.iter().map(|mailbox| hub.watch(topic.clone(), mailbox)).collect();
                took[0] += began.elapsed();
                let began = clock::now().instant;
                for watch in &watches {
                    hub.unwatch(watch);
                }
                took[1] += began.elapsed();
            }
            took.map(|all| all / ROUNDS as u32)
        }
    });
    let crowded = delays(&hub, &mut client, &mut at, || crowds.is_finished());
    let [join, leave] = crowds.join().unwrap();
    println!("{CROWD} join in {join:?} and leave in {leave:?}");
    println!("delivery to another: {quiet:?} when quiet, {crowded:?} meanwhile");
}

#[test]
fn nobody_is_looked_for_under_a_kind_of_topic_that_nobody_watches() {
    let hub = hub_with(settings());
    hub.apply(&[arrival(1, progress("t", "u1", 1.0))], LATE);
    let mailboxes = crowd();
    let of_nobody = locks_taken(|| hub.apply(&[arrival(2, progress("t", "u1", 2.0))], LATE));
    let watch = hub.watch(Topic::Owner(user("another")), &mailboxes[0]);
    let of_owners = locks_taken(|| hub.apply(&[arrival(3, progress("t", "u1", 3.0))], LATE));
    let _tasks = hub.watch(Topic::Task(id("another")), &mailboxes[1]);
    let of_tasks_too = locks_taken(|| hub.apply(&[arrival(4, progress("t", "u1", 4.0))], LATE));
    hub.unwatch(&watch);
    let of_tasks = locks_taken(|| hub.apply(&[arrival(5, progress("t", "u1", 5.0))], LATE));
    assert_eq!([of_nobody, of_owners, of_tasks_too, of_tasks], [0, 1, 2, 1]);
}
