//! Log lines on stderr, as text or JSON. Refuses to know: what is logged, where its settings come from.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{
    EnvFilter, fmt,
    fmt::{
        SubscriberBuilder,
        format::{DefaultFields, Format},
    },
};

type Lines = SubscriberBuilder<DefaultFields, Format, EnvFilter, fn() -> io::Stderr>;

/// Logs lines for people, for the whole process; in colour only where a person looks. `filter` is one of
/// tracing-subscriber: `info`, `info,taskcast=debug`.
///
/// # Errors
/// A filter that cannot be read, or a second start, in words for the operator.
pub fn start_text(filter: &str) -> Result<(), String> {
    lines(filter)?.with_ansi(io::stderr().is_terminal()).try_init().map_err(|why| second(why.as_ref()))
}

/// As [`start_text`], one JSON object a line.
///
/// # Errors
/// As [`start_text`].
pub fn start_json(filter: &str) -> Result<(), String> {
    lines(filter)?.json().flatten_event(true).try_init().map_err(|why| second(why.as_ref()))
}

/// RabbitMQ answers "no" to a question by closing the channel that asked. lapin calls every such answer an error; what is
/// one is told by `log`, in words for the operator.
const ANSWERS: &str = "lapin::channel=off";

fn lines(filter: &str) -> Result<Lines, String> {
    let filter = EnvFilter::try_new(format!("{ANSWERS},{filter}")).map_err(|why| format!("log_level: {why}"))?;
    Ok(fmt().with_env_filter(filter).with_writer(io::stderr as fn() -> io::Stderr))
}

fn second(why: &dyn std::error::Error) -> String {
    format!("logging could not be started: {why}")
}
