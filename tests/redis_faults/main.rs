//! The log in Redis under every fault that it promises to survive: killed, paused, emptied, cut off, locked out, full,
//! demoted, failed over. Each against a real Redis.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "a test that fails shows how long things took")]

mod appends;
mod cluster;
mod dead_letters;
mod harness;
mod proxy;
mod reading;
mod sentinel;
#[path = "../support/mod.rs"]
mod support;
