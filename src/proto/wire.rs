//! The Rust types that prost generates from `proto/taskcast/v1/*.proto` at build time.

#![expect(clippy::pedantic, reason = "generated code")]

include!(concat!(env!("OUT_DIR"), "/taskcast.v1.rs"));
