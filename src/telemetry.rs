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

type Lines = SubscriberBuilder<DefaultFields, Format, EnvFilter, fn() -> io::Stderr>;

/// RabbitMQ's library. It logs an error of its own for each attempt of an outage, which the service tells once, and in
/// better words; and in traces all that it sends, the password too.
const LAPIN: &str = "lapin";

/// Logs lines for people, for the whole process; in colour only where a person looks. `filter` is one of
/// tracing-subscriber: `info`, `info,taskcast=debug`.
///
/// # Errors
/// A filter that cannot be read, or a second start, in words for the operator.
pub fn start_text(filter: &str) -> Result<(), String> {
    let lines = lines(filter)?.with_ansi(io::stderr().is_terminal()).finish();
    lines.with(filter_fn(quiet(filter))).try_init().map_err(|why| second(&why))
}

/// As [`start_text`], one JSON object a line.
///
/// # Errors
/// As [`start_text`].
pub fn start_json(filter: &str) -> Result<(), String> {
    let lines = lines(filter)?.json().flatten_event(true).finish();
    lines.with(filter_fn(quiet(filter))).try_init().map_err(|why| second(&why))
}

fn lines(filter: &str) -> Result<Lines, String> {
    let filter = EnvFilter::try_new(filter).map_err(|why| format!("log_level: {why}"))?;
    Ok(fmt().with_env_filter(filter).with_writer(io::stderr as fn() -> io::Stderr))
}

fn quiet(filter: &str) -> impl Fn(&Metadata<'_>) -> bool + use<> {
    let names_lapin = filter.contains(LAPIN);
    move |line| is_fit(line.target(), *line.level(), names_lapin)
}

/// Whether a line may be logged, if the filter wants it.
fn is_fit(target: &str, level: Level, names_lapin: bool) -> bool {
    !target.starts_with(LAPIN) || (names_lapin && level < Level::TRACE)
}

fn second(why: &dyn std::error::Error) -> String {
    format!("logging could not be started: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_of_rabbitmq_speaks_when_asked_and_never_of_what_it_sends() {
        for (target, level, names_lapin, fit) in [
            ("lapin::channel", Level::ERROR, false, false),
            ("lapin::channel", Level::ERROR, true, true),
            ("lapin::channel", Level::DEBUG, true, true),
            ("lapin::io_loop", Level::TRACE, true, false),
            ("taskcast::log", Level::TRACE, false, true),
        ] {
            assert_eq!(is_fit(target, level, names_lapin), fit, "{target} {level}");
        }
    }
}
