//! The network between clients and proxy flaps: again and again a random share of the connections is cut, or stands
//! still and is cut then.

use std::time::Duration;

use futures_util::future::join_all;

use super::{
    Settings,
    load::{Load, shape},
};
use crate::{table::Row, world::Kind};

/// The largest share of the connections that one flap breaks.
const SHARE_MAX: f64 = 0.2;

pub async fn run(settings: Settings) -> Row {
    let (flaps, lasting, over) = settings.pick((20, 1, 10), (200, 2, 100));
    let (lasting, over) = (Duration::from_secs(lasting), Duration::from_secs(over));
    let mut load = Load::begin(settings, &shape(Kind::Redis), over).await;
    let interval = over / flaps;
    // So far away are the clients.
    load.world.front.delay(Duration::from_millis(5));
    let mut dice: Vec<_> = (0..flaps).map(|_| load.random.fork()).collect();
    let front = &load.world.front;
    let all = dice.iter_mut().zip(0..).map(async |(random, number)| {
        let wait = interval * number + interval.mul_f64(random.share());
        tokio::time::sleep(wait).await;
        let share = random.share() * SHARE_MAX;
        front.flap(share, lasting, random).await;
    });
    join_all(all).await;
    let (mut row, _) = load.end().await;
    row.measure("flaps", &format!("{flaps} of {lasting:?}"));
    let failures: u32 = row.resume_failures.values().sum();
    let resumed = row.resumed;
    row.promise(resumed > flaps, || format!("only {resumed} connections were lost and resumed"));
    row.promise(failures == 0, || format!("{failures} clients were refused a resume that nothing stood against"));
    row
}
