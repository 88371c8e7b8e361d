//! The RabbitMQ log under faults, against real brokers: killed, frozen, emptied, out of memory or disk, cut off, and a
//! cluster that loses nodes. What must hold: whoever reads is told in time and misses nothing; whoever appends hears no
//! yes that is not true.

#![expect(clippy::print_stdout, reason = "how long each fault took to notice is told with --nocapture")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod appends;
mod cluster;
mod harness;
mod proxy;
mod reading;
