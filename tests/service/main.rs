//! The service as its users meet it: the real binary, real brokers, real sockets. Each test starts what it needs on
//! free ports and leaves nothing behind.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what failed by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod browsers;
mod canary;
mod checkpoints;
mod collector;
mod conformance;
mod dead_letters;
mod event_streams;
mod harness;
mod limits;
mod lives;
mod log_lines;
mod long_polls;
mod overload;
mod providers;
mod publishing;
mod refusals;
mod rest;
mod resuming;
mod secrets;
mod storms;
mod strangers;
mod stream_client;
mod subscribed_lists;
mod tls;
mod tls_handshakes;
mod tokens;
mod traces;
