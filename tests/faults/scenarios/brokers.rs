//! The broker restarts, is killed, stands still, and is away for a while.

use std::time::Duration;

use taskcast::clock;

use super::{
    Settings,
    load::{Load, shape},
};
use crate::{
    table::Row,
    world::{Kind, Shape},
};

/// Within this readiness follows the broker, both ways; the small size shares its machine with others.
const READINESS_LIMITS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(2));

/// For the readiness of a replica to show, at most; it should take less than [`READINESS_LIMITS`] say.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stopped as an operator does it, killed, and paused for longer than a heartbeat.
pub async fn restarts(settings: Settings, kind: Kind) -> Row {
    let (paused, calm, over) = settings.pick((3, 1, 12), (10, 5, 60));
    let (paused, calm) = (Duration::from_secs(paused), Duration::from_secs(calm));
    let mut load = Load::begin(settings, &shape(kind), Duration::from_secs(over)).await;
    tokio::time::sleep(calm).await;
    load.world.broker.stop().await;
    tokio::time::sleep(calm).await;
    load.world.broker.restart().await;
    tokio::time::sleep(calm).await;
    load.world.broker.kill();
    load.world.broker.restart().await;
    tokio::time::sleep(calm).await;
    load.world.broker.pause();
    tokio::time::sleep(paused).await;
    load.world.broker.resume();
    for place in 0..load.world.places.len() {
        load.world.until_ready(place, true).await;
    }
    let (row, _) = load.end().await;
    row
}

/// Away for so long that everybody notices; the clients stay.
pub async fn away(settings: Settings, kind: Kind) -> Row {
    let (away, over) = settings.pick((8, 10), (60, 70));
    let limit = settings.pick(READINESS_LIMITS.0, READINESS_LIMITS.1);
    // In small too the broker is away for longer than a canary may be.
    let (interval, overdue) = settings.pick((2, 6), (10, 30));
    let environment = vec![
        ("TASKCAST_CANARY_INTERVAL_SECONDS", interval.to_string()),
        ("TASKCAST_CANARY_TIMEOUT_SECONDS", overdue.to_string()),
    ];
    let shape = Shape { environment, ..shape(kind) };
    let mut load = Load::begin(settings, &shape, Duration::from_secs(over)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let gone = clock::now().instant;
    load.world.broker.kill();
    tokio::time::sleep(Duration::from_secs(away)).await;
    load.world.broker.restart().await;
    load.world.broker.until_it_serves().await;
    let back = clock::now().instant;
    let mut delays = Vec::new();
    for place in 0..load.world.places.len() {
        load.world.until_ready(place, true).await;
        let readiness = &load.world.readiness;
        while readiness.delay(place, true, back).is_none() && clock::now().instant < back + PATIENCE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        delays.push((place, readiness.delay(place, false, gone), readiness.delay(place, true, back)));
    }
    let (mut row, load) = load.end().await;
    for (place, unready, ready) in delays {
        let words = |delay: Option<Duration>| delay.map_or("never".to_owned(), |delay| format!("{delay:.1?}"));
        row.measure(
            &format!("replica {place}"),
            &format!("unready {} after the broker went, ready {} after it came", words(unready), words(ready)),
        );
        // For RabbitMQ from when it delivers again, which is up to three seconds after it lets clients in.
        let in_time = |delay: Option<Duration>| delay.is_some_and(|delay| delay <= limit);
        row.promise(in_time(unready), || format!("replica {place} was unready only after {}", words(unready)));
        row.promise(in_time(ready), || format!("replica {place} was ready again only after {}", words(ready)));
    }
    let lost: u32 = load
        .clients
        .iter()
        .map(|client| client.account.lock().expect("no panic under the lock").closes.values().sum::<u32>())
        .sum();
    row.promise(lost == 0, || format!("{lost} clients lost their connection"));
    row
}
