//! Load as a fleet of browsers and workers would bring it. `benches/README.md` says what is measured and how to read it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people: tables, and what it is at")]

mod payload;
mod place;
mod processes;
mod rivals;
mod server;
mod websocket;

#[path = "../../tests/support/mod.rs"]
mod support;

/// Errors end a scenario, in words.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() {
    println!("the harness is being built");
}
