//! Tokens whose keys, or whose meaning, somebody else knows: issuers that publish keys, providers that are asked. Real
//! HTTP, over sockets, with servers that rotate, fail, stall and lie.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what failed by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod files;
mod harness;
mod key_sets;
mod opaque;
mod rules;
