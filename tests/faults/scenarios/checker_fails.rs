//! Does the checker find what it is there for? Clients with mistakes in them run through a few flaps beside clients
//! without; each mistake must be told, and of who made none nothing.

use std::time::Duration;

use super::{
    Settings, Size,
    load::{Load, shape},
};
use crate::{
    checker,
    clients::{Client, Mutation},
    table::Row,
    world::Kind,
};

/// A mistake, and what the checker must say of it.
const MISTAKES: [(Mutation, &[&str]); 5] = [
    (Mutation::None, &[]),
    (Mutation::DropsEnds, &["endings did not reach", "final states are wrong"]),
    (Mutation::RepeatsAfterResume, &["came twice"]),
    (Mutation::SkipsAfterResume, &["`resumed: true` was not true"]),
    (Mutation::Misreads, &["final states are wrong"]),
];

pub async fn run(settings: Settings) -> Row {
    // Its size would prove nothing more.
    let settings = Settings { size: Size::Small, ..settings };
    let over = Duration::from_secs(4);
    let mut load = Load::begin_mutated(settings, &shape(Kind::Redis), over, mistake).await;
    // Some will never be right.
    load.settles_within = over;
    for _ in 0..4 {
        tokio::time::sleep(over / 6).await;
        load.world.front.flap(0.6, over / 6, &mut load.random).await;
    }
    let mut row = Row::default();
    load.settle(&mut row).await;
    row.clients = load.clients.len();
    let mut groups: Vec<Vec<Client>> = MISTAKES.iter().map(|_| Vec::new()).collect();
    for (index, client) in std::mem::take(&mut load.clients).into_iter().enumerate() {
        groups[group(index)].push(client);
    }
    for ((mutation, words), clients) in MISTAKES.into_iter().zip(&groups) {
        let mut found = Row::default();
        checker::check_clients(&mut found, clients);
        row.measure(&format!("{mutation:?}: complaints"), &found.broken.len());
        for word in words {
            let told = found.broken.iter().any(|broken| broken.contains(word));
            row.promise(told, || format!("{mutation:?} went unnoticed: nothing said \"{word}\""));
        }
        if words.is_empty() {
            row.broken.extend(found.broken);
        }
    }
    row
}

/// Across the kinds of clients.
fn group(index: usize) -> usize {
    (index / MISTAKES.len()) % MISTAKES.len()
}

fn mistake(index: usize) -> Mutation {
    MISTAKES[group(index)].0
}
