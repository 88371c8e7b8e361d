//! The proof that nothing is lost: real hubs and real sessions, a log that misbehaves as brokers may, and clients that
//! drop at any byte, in virtual time and by one seed; checked against a naive model of what should be.
//!
//! - `random`: chance
//! - `log`: the log and the workers that write to it
//! - `model`: what should be, kept in plain maps
//! - `replica`: a hub, what feeds it, and the model of what it read
//! - `connection`: a session and the bytes between it and a client
//! - `wire`: how a client reads bytes
//! - `client`: what a client does, shows, and must never be told
//! - `world`: all of them, a step at a time
//!
//! `TASKCAST_SIMULATION_SEED=n` runs one seed and tells what happens in it; `TASKCAST_SIMULATION_SEEDS=n` runs so many.

mod client;
mod connection;
mod log;
mod model;
mod random;
mod replica;
mod wire;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
};

use world::World;

/// As many as a debug build does in some seconds.
const SEEDS: u64 = 1_500;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn nothing_is_lost_whatever_the_log_and_the_clients_do() {
    if let Some(seed) = setting("TASKCAST_SIMULATION_SEED") {
        World::run(seed, true);
        return;
    }
    let seeds = setting("TASKCAST_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let resumed = AtomicU64::new(0);
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(u64::MAX);
    // Each run is alone with its seed; half of the machine is left to the tests that look at a clock.
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)) {
            scope.spawn(|| {
                while failed.load(Ordering::Relaxed) == u64::MAX {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    match catch_unwind(AssertUnwindSafe(|| World::run(seed, false))) {
                        Ok(outcome) => resumed.fetch_add(outcome.resumed, Ordering::Relaxed),
                        Err(_) => failed.fetch_min(seed, Ordering::Relaxed),
                    };
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert_eq!(failed, u64::MAX, "replay it: TASKCAST_SIMULATION_SEED={failed} cargo test --lib simulation");
    let resumed = resumed.into_inner();
    assert!(resumed > seeds, "{resumed} resumes in {seeds} runs prove little");
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in 0..20 {
        assert_eq!(World::run(seed, false).digest, World::run(seed, false).digest, "seed {seed}");
    }
}
