//! Log lines on stderr, as text or JSON. Refuses to know: what is logged, where its settings come from.

use std::io::{self, IsTerminal as _};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter,
    filter::filter_fn,
    fmt,
    fmt::{
        SubscriberBuilder,
        format::{DefaultFields, Format},
    },
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// lapin tells every lost connection at ERROR, where the log tells it once in words for the operator, and writes messages
/// that came back with their payload, which is not ours to log. `log_level` can name it and gets it.
const QUIET: &str = "lapin=off";

type Lines = SubscriberBuilder<DefaultFields, Format, EnvFilter, fn() -> io::Stderr>;

/// Logs lines for people, for the whole process; in colour only where a person looks. `filter` is one of
/// tracing-subscriber: `info`, `info,taskcast=debug`.
///
/// # Errors
/// A filter that cannot be read, or a second start, in words for the operator.
pub fn start_text(filter: &str) -> Result<(), String> {
    let lines = lines(filter)?.with_ansi(io::stderr().is_terminal()).finish();
    lines.with(filter_fn(is_fit)).try_init().map_err(|why| second(&why))
}

/// As [`start_text`], one JSON object a line.
///
/// # Errors
/// As [`start_text`].
pub fn start_json(filter: &str) -> Result<(), String> {
    let lines = lines(filter)?.json().flatten_event(true).finish();
    lines.with(filter_fn(is_fit)).try_init().map_err(|why| second(&why))
}

fn lines(filter: &str) -> Result<Lines, String> {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}")).map_err(|why| format!("log_level: {why}"))?;
    Ok(fmt().with_env_filter(filter).with_writer(io::stderr as fn() -> io::Stderr))
}

/// Whatever `log_level` says: lapin's traces hold what it sends, the password too.
fn is_fit(line: &Metadata<'_>) -> bool {
    *line.level() < Level::TRACE || !line.target().starts_with("lapin")
}

fn second(why: &dyn std::error::Error) -> String {
    format!("logging could not be started: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_lapin_are_kept_out_unless_asked_for() {
        let filter = |given: &str| EnvFilter::try_new(format!("{QUIET},{given}")).unwrap().to_string();
        assert!(filter("info").contains("lapin=off"));
        assert!(!filter("info,lapin=debug").contains("lapin=off"), "{}", filter("info,lapin=debug"));
    }
}
