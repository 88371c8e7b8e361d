//! The service under attack: the real binary, and what a stranger, a user with bad intentions or a hostile worker may do
//! to it. One test per attack, the attack in its doc. Each ends with the same questions: does it still live and serve,
//! did nothing panic, and is no secret in its log or its metrics?
//!
//! `SECURITY.md` names these tests in its table of threats.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what failed by panicking")]
#![expect(clippy::print_stdout, reason = "what was measured is told")]

#[path = "../support/mod.rs"]
mod support;

#[expect(dead_code, reason = "the verbs of the service's own tests; here the half of them is used")]
#[path = "../service/harness.rs"]
mod harness;

mod bystander;
mod cursors;
mod floods;
mod foreign_in_protobuf;
mod foreign_tasks;
mod forged_tokens;
mod frames;
mod guesses;
mod hostile_publishers;
mod hostile_workers;
mod listings;
mod made_up_tokens;
mod origins;
mod requests;
mod target;
mod tls_floods;
mod wire;
