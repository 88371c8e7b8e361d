//! A rolling restart as Kubernetes does it: a new process becomes ready, then an old one gets SIGTERM.

use std::time::Duration;

use super::{
    Settings,
    load::{Load, shape},
};
use crate::{
    table::Row,
    world::{CHECK_INTERVAL, Kind, Shape},
};

/// What a client may wait beyond the delay that it was told.
const WAIT_LIMIT: Duration = Duration::from_secs(5);

/// The deadline of a process beyond its drain window.
const EXIT_MARGIN: Duration = Duration::from_secs(3);

pub async fn run(settings: Settings) -> Row {
    let (drain, calm, over, rounds) = settings.pick((2, 1, 12, 1), (5, 5, 60, 2));
    let (drain, calm) = (Duration::from_secs(drain), Duration::from_secs(calm));
    let environment = vec![("TASKCAST_DRAIN_SECONDS", drain.as_secs().to_string())];
    let shape = Shape { places: 4, environment, ..shape(Kind::Redis) };
    let mut load = Load::begin(settings, &shape, Duration::from_secs(over)).await;
    let mut exits = Vec::new();
    for step in 0..2 * rounds {
        tokio::time::sleep(calm).await;
        let (old, new) = (step % 4, (step + 2) % 4);
        load.world.launch(new);
        load.world.until_ready(new, true).await;
        // The proxy sees it too.
        tokio::time::sleep(2 * CHECK_INTERVAL).await;
        exits.push((old, load.world.terminate(old, drain + 2 * EXIT_MARGIN).await));
    }
    let (mut row, load) = load.end().await;
    for (place, exit) in exits {
        let in_order = matches!(exit, Some((Some(0), took)) if took <= drain + EXIT_MARGIN);
        row.promise(in_order, || format!("the process in place {place} did not end in order: {exit:?}"));
    }
    row.measure("processes replaced", &(2 * rounds));
    row.measure("drain window", &format!("{drain:?}"));
    let wait = load.most(|account| account.longest_wait);
    row.promise(wait <= WAIT_LIMIT, || format!("a client waited {wait:.1?} longer than it was told"));
    row
}
