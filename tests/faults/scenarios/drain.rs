//! SIGTERM under many connections: each is told when to come back, and they leave evenly over the drain window.

use std::{sync::Arc, time::Duration};

use taskcast::clock;

use super::{Settings, load::shape};
use crate::{
    clients::{Client, Mutation, Plan, Watches},
    script::{Random, Script},
    table::Row,
    world::{Kind, PATIENCE, Shape, World},
};

/// The deadline of the process beyond its drain window.
const EXIT_MARGIN: Duration = Duration::from_secs(3);
const SLOT: Duration = Duration::from_secs(1);
const RESTART: u16 = 1012;
/// How far from the told moment a connection may be closed; a busy machine is late.
const PUNCTUALITY: Duration = Duration::from_secs(2);

pub async fn run(settings: Settings) -> Row {
    let (count, drain) = settings.pick((300, 4), (5_000, 20));
    let window = Duration::from_secs(drain);
    let environment = vec![("TASKCAST_DRAIN_SECONDS", drain.to_string())];
    let mut world = World::start(&Shape { replicas: 1, places: 1, environment, ..shape(Kind::Redis) }).await;
    let mut random = Random::new(settings.seed);
    let script = Arc::new(Script::new("task", count, 1, &mut random));
    let clients = connect(&world, &script, count, &mut random).await;
    let began = clock::now().instant;
    let exit = world.terminate(0, window + 2 * EXIT_MARGIN).await;
    tokio::time::sleep(Duration::from_millis(200)).await;

    let mut row = Row { clients: count, events: 0, ..Row::default() };
    let mut slots = vec![0_usize; drain as usize + 1];
    let (mut in_order, mut told, mut off) = (0, 0, Duration::ZERO);
    for client in &clients {
        let account = client.account.lock().expect("no panic under the lock");
        let Some((at, code)) = account.first_close else { continue };
        in_order += usize::from(code == Some(RESTART));
        let after = at.saturating_duration_since(began);
        let slot = (after.as_millis() / SLOT.as_millis()) as usize;
        slots[slot.min(drain as usize)] += 1;
        if let Some(promised) = account.told {
            told += 1;
            off = off.max(after.abs_diff(promised));
        }
    }
    let open = clients.iter().filter(|client| !client.has_ended()).count();
    let (largest, mean) = (slots.iter().max().copied().unwrap_or_default(), count as f64 / drain as f64);
    row.measure("closed with 1012", &in_order);
    row.measure("told when to come back", &told);
    row.measure("closed so far from the told moment at most", &format!("{off:.1?}"));
    row.measure("largest second", &format!("{largest} of {mean:.0} on average"));
    row.measure("exit", &format!("{exit:?} with a window of {window:?}"));
    row.promise(in_order == count, || {
        format!("{} connections were not closed with 1012, {open} are open", count - in_order)
    });
    row.promise(largest as f64 <= 2.0 * mean, || format!("{largest} connections were closed in one second: {slots:?}"));
    row.promise(told == count, || format!("{} connections were not told when to come back", count - told));
    row.promise(off <= PUNCTUALITY, || format!("a connection was closed {off:.1?} from the told moment"));
    let code = exit.and_then(|(code, took)| code.filter(|_| took <= window + EXIT_MARGIN));
    row.promise(code == Some(0), || format!("the process did not end with 0 in time: {exit:?}"));
    row
}

async fn connect(world: &World, script: &Arc<Script>, count: usize, random: &mut Random) -> Vec<Client> {
    let mut clients: Vec<Client> = Vec::with_capacity(count);
    let deadline = clock::now().instant + 2 * PATIENCE;
    for owner in 0..count {
        let plan = Plan {
            port: world.proxy_port,
            script: script.clone(),
            owner,
            watches: Watches::Own,
            mutation: Mutation::None,
            returns: false,
        };
        clients.push(Client::start(plan, random.fork()));
        // A backlog has an end.
        if owner % 50 == 49 {
            let greeted = |client: &Client| client.account.lock().expect("no panic under the lock").greetings > 0;
            while !clients.iter().rev().take(50).all(greeted) {
                assert!(clock::now().instant < deadline, "the clients do not get in");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
    clients
}
