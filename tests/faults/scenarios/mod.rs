//! One file per scenario: what is broken, and what must hold all the same.

mod brokers;
mod checker_fails;
mod drain;
mod flaps;
mod kill;
mod load;
mod partition;
mod rolling;
mod rollout;
mod rollout_fails;
mod soak;
mod volume;

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use taskcast::clock;

pub use self::volume::inside as volume_inside;
use crate::{table::Row, world::Kind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// For every change: less of everything, the same promises.
    Small,
    Full,
}

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub size: Size,
    pub seed: u64,
    /// How long the soak takes, if not as long as its size says.
    pub minutes: Option<u64>,
}

impl Settings {
    pub fn pick<T>(&self, small: T, full: T) -> T {
        if self.size == Size::Full { full } else { small }
    }
}

/// Every scenario, in the order of the table.
pub const ALL: [&str; 14] = [
    "checker",
    "flaps",
    "kill",
    "broker-redis",
    "broker-rabbitmq",
    "broker-away",
    "broker-away-rabbitmq",
    "rolling",
    "rollout",
    "rollout-checker",
    "drain",
    "partition",
    "volume",
    "soak",
];

/// What the small size leaves out: the same promise with a broker that takes long to start.
pub const FULL_ONLY: [&str; 1] = ["broker-away-rabbitmq"];

/// Runs one; a panic or a hang breaks the promise as well.
pub async fn run(name: &str, settings: Settings) -> Row {
    let started = clock::now().instant;
    let minutes = settings.minutes.unwrap_or_default() + settings.pick(4, 60);
    let scenario = async {
        match name {
            "checker" => checker_fails::run(settings).await,
            "flaps" => flaps::run(settings).await,
            "kill" => kill::run(settings).await,
            "broker-redis" => brokers::restarts(settings, Kind::Redis).await,
            "broker-rabbitmq" => brokers::restarts(settings, Kind::Rabbit).await,
            "broker-away" => brokers::away(settings, Kind::Redis).await,
            "broker-away-rabbitmq" => brokers::away(settings, Kind::Rabbit).await,
            "rolling" => rolling::run(settings).await,
            "rollout" => rollout::run(settings).await,
            "rollout-checker" => rollout_fails::run(settings).await,
            "drain" => drain::run(settings).await,
            "partition" => partition::run(settings).await,
            "volume" => volume::run(settings).await,
            "soak" => soak::run(settings).await,
            other => panic!("there is no scenario `{other}`"),
        }
    };
    let limited = tokio::time::timeout(Duration::from_secs(60 * minutes), scenario);
    let mut row = match AssertUnwindSafe(limited).catch_unwind().await {
        Ok(Ok(row)) => row,
        Ok(Err(_)) => Row { broken: vec![format!("it did not end within {minutes} minutes")], ..Row::default() },
        Err(panic) => {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
            Row { broken: vec![format!("it broke off: {words}")], ..Row::default() }
        }
    };
    name.clone_into(&mut row.scenario);
    row.took = clock::now().instant - started;
    row
}
