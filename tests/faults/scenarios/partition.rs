//! One replica is cut off from the broker without being told (half-open connections), the other one goes on.

use std::time::Duration;

use taskcast::clock;

use super::{
    Settings,
    load::{Load, shape},
};
use crate::{table::Row, world::Kind};

pub async fn run(settings: Settings) -> Row {
    let (lasting, over) = settings.pick((6, 8), (20, 40));
    let load = Load::begin(settings, &shape(Kind::Redis), Duration::from_secs(over)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cut = clock::now().instant;
    load.world.places[1].network.freeze();
    tokio::time::sleep(Duration::from_secs(lasting)).await;
    let noticed = load.world.readiness.delay(1, false, cut);
    let healed = clock::now().instant;
    load.world.places[1].network.heal();
    load.world.until_ready(1, true).await;
    let recovered = clock::now().instant - healed;
    let (mut row, _) = load.end().await;
    let words = noticed.map_or("not at all".to_owned(), |delay| format!("after {delay:.1?}"));
    row.measure("the cut-off replica noticed", &words);
    row.promise(noticed.is_some(), || "the cut was not noticed".to_owned());
    row.measure("ready again after", &format!("{recovered:.1?}"));
    row.promise(row.longest_outage.is_some_and(|outage| outage < Duration::from_secs(1)), || {
        "a replica that was not cut off was not ready either".to_owned()
    });
    row
}
