//! Does the rehearsal of a rollout find what it is there for? The same one, of one replica and with one thing wrong in each,
//! must break the promise that is meant for it. `rollout` is the same with nothing wrong.

use std::time::Duration;

use futures_util::future::join_all;

use super::{
    Settings, Size,
    load::{Crowd, Load},
    rollout::{self, SMALL_IS_FASTER},
};
use crate::{manifests::Rollout, table::Row, world::Shape};

type Mistake = (&'static str, fn(&mut Rollout), &'static str);

/// What is wrong, and what the rehearsal must say of it.
const MISTAKES: [Mistake; 4] = [
    ("no preStop", |rollout| rollout.times.pre_stop = Duration::ZERO, "handshakes met a replica that drains"),
    (
        "a grace period that is shorter than the drain",
        |rollout| rollout.times.grace = rollout.times.pre_stop + rollout.times.drain / 2,
        "a pod did not end in order",
    ),
    (
        "a pod that goes before its successor is there",
        |rollout| (rollout.max_surge, rollout.max_unavailable) = (0, 1),
        "only 0 of 1 pods",
    ),
    (
        "cursors that are soon forgotten",
        |rollout| rollout.environment.push(("TASKCAST_TASKS_RESUME_WINDOW", "1".to_owned())),
        "resumes were refused",
    ),
];

/// For each of them; all go on at once.
const CLIENTS: usize = 40;
const EVENTS_PER_SECOND: usize = 20;

pub async fn run(settings: Settings) -> Row {
    // Its size would prove nothing more.
    let settings = Settings { size: Size::Small, ..settings };
    let mut right = Rollout::read().await;
    rollout::quicken(&mut right, SMALL_IS_FASTER);
    right.replicas = 1;
    let rehearsals = MISTAKES.map(|(_, make, _)| {
        let mut wrong = right.clone();
        make(&mut wrong);
        async move { rollout::rehearse(settings, &wrong, async |shape, over| load(settings, shape, over).await).await }
    });
    let mut row = Row::default();
    for ((mistake, _, words), found) in MISTAKES.iter().zip(join_all(rehearsals).await) {
        row.clients += found.clients;
        row.events += found.events;
        row.measure(&format!("{mistake}: complaints"), &found.broken.len());
        let told = found.broken.iter().any(|broken| broken.contains(words));
        row.promise(told, || format!("{mistake} went unnoticed: nothing said \"{words}\", only {:?}", found.broken));
    }
    row
}

async fn load(settings: Settings, shape: Shape, over: Duration) -> Load {
    let events = EVENTS_PER_SECOND * over.as_secs() as usize;
    let mut load = Load::begin_sized(settings, &shape, over, Crowd { clients: CLIENTS, events, all_every: 20 }).await;
    // What its replicas complain of is meant to be.
    load.is_meant_to_break = true;
    load
}
