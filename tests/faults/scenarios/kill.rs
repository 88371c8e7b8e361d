//! Each replica in turn is killed with `kill -9` and started again, twice.

use std::time::Duration;

use super::{
    Settings,
    load::{Load, shape},
};
use crate::{table::Row, world::Kind};

const ROUNDS: usize = 2;

pub async fn run(settings: Settings) -> Row {
    let (down, pause, over) = settings.pick((500, 1_000, 10), (2_000, 8_000, 60));
    let mut load = Load::begin(settings, &shape(Kind::Redis), Duration::from_secs(over)).await;
    for place in (0..ROUNDS).flat_map(|_| 0..load.world.places.len()).collect::<Vec<_>>() {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        load.world.kill(place);
        tokio::time::sleep(Duration::from_millis(down)).await;
        load.world.launch(place);
        load.world.until_ready(place, true).await;
    }
    let (row, _) = load.end().await;
    row
}
