//! Does the checker find what it is there for? Clients with a mistake in them run through a few flaps; each mistake must
//! be told, and no mistake nothing.

use std::time::Duration;

use super::{
    Settings, Size,
    load::{Load, shape},
};
use crate::{clients::Mutation, table::Row, world::Kind};

/// A mistake, and what the checker must say of it.
const MISTAKES: [(Mutation, &[&str]); 4] = [
    (Mutation::DropsEnds, &["endings did not reach", "final states are wrong"]),
    (Mutation::RepeatsAfterResume, &["came twice"]),
    (Mutation::SkipsAfterResume, &["`resumed: true` was not true"]),
    (Mutation::Misreads, &["final states are wrong"]),
];

pub async fn run(settings: Settings) -> Row {
    let mut row = Row::default();
    // Its size would prove nothing more.
    let settings = Settings { size: Size::Small, ..settings };
    for (mutation, words) in MISTAKES {
        let found = judged(settings, mutation).await;
        for word in words {
            let told = found.broken.iter().any(|broken| broken.contains(word));
            row.promise(told, || format!("{mutation:?} went unnoticed: nothing said \"{word}\""));
        }
        row.clients += found.clients;
        row.events += found.events;
        row.measure(&format!("{mutation:?}: found"), found.broken.len());
    }
    row
}

async fn judged(settings: Settings, mutation: Mutation) -> Row {
    let over = Duration::from_secs(3);
    let mut load = Load::begin_mutated(settings, &shape(Kind::Redis), over, mutation).await;
    // Some will never be right.
    load.settles_within = over;
    for _ in 0..4 {
        tokio::time::sleep(over / 6).await;
        load.world.front.flap(0.5, over / 6, &mut load.random).await;
    }
    load.end().await.0
}
