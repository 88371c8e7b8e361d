//! Log lines on stderr, as text or JSON, and how much of them there is, which may change while the service runs.
//!
//! Refuses to know: what is logged, where its settings come from.

use std::{
    fs::File,
    io::{self, ErrorKind, IsTerminal as _, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterFn, filter_fn},
    fmt,
    layer::{Layered, SubscriberExt as _},
    reload::{self, Handle},
    util::SubscriberInitExt as _,
};

use crate::settled::{Settled, Sight};

/// lapin tells every lost connection at ERROR, where the log tells it once in words for the operator, and writes messages
/// that came back with their payload, which is not ours to log. `log_level` can name it and gets it.
const QUIET: &str = "lapin=off";

/// How often the file of the log level is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A longer file is refused, and no more of it is read: it may have no end.
const FILE_MAX_BYTES: u64 = 4096;

/// Which lines are logged. It may be replaced at any time.
pub struct LogLevel {
    filter: Handle<EnvFilter, Registry>,
    configured: String,
}

/// Logs lines for people, for the whole process; in colour only where a person looks. `filter` is one of
/// tracing-subscriber: `info`, `info,taskcast=debug`.
///
/// # Errors
/// A filter that cannot be read, or a second start, in words for the operator.
pub fn start_text(filter: &str) -> Result<LogLevel, String> {
    start(filter, fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr))
}

/// As [`start_text`], one JSON object a line.
///
/// # Errors
/// As [`start_text`].
pub fn start_json(filter: &str) -> Result<LogLevel, String> {
    start(filter, fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(io::stderr))
}

/// The chosen lines, of those that may be logged at all.
type Chosen = Layered<FilterFn<fn(&Metadata<'_>) -> bool>, Layered<reload::Layer<EnvFilter, Registry>, Registry>>;

fn start(configured: &str, lines: impl Layer<Chosen> + Send + Sync) -> Result<LogLevel, String> {
    let (chosen, filter) = reload::Layer::new(parse(configured)?);
    let is_fit: fn(&Metadata<'_>) -> bool = is_fit;
    let started = tracing_subscriber::registry().with(chosen).with(filter_fn(is_fit)).with(lines).try_init();
    started.map_err(|why| format!("logging could not be started: {why}"))?;
    Ok(LogLevel { filter, configured: configured.to_owned() })
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(format!("{QUIET},{filter}")).map_err(|why| format!("log_level: {why}"))
}

/// Whatever `log_level` says: lapin's traces hold what it sends, the password too.
fn is_fit(line: &Metadata<'_>) -> bool {
    *line.level() < Level::TRACE || !line.target().starts_with("lapin")
}

impl LogLevel {
    /// Has the level follow a file for as long as the process lives: what it holds counts in place of what is configured,
    /// while it is there. `check` says what was expected of a text that is no filter.
    pub async fn follow(self, path: PathBuf, check: fn(&str) -> Result<(), String>) {
        let mut content = Settled::new(Ok(None));
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let file = path.clone();
            // A mount that hangs must not hang a thread of the runtime.
            let Ok(now) = tokio::task::spawn_blocking(move || read(&file)).await else { return };
            if content.look(now) != Sight::Taken {
                continue;
            }
            let chosen = content.taken().clone().and_then(|given| {
                let log_level = given.unwrap_or_else(|| self.configured.clone());
                check(&log_level).map_err(|expected| format!("{} holds no {expected}", path.display()))?;
                Ok(log_level)
            });
            if let Err(why) = chosen.and_then(|log_level| self.replace(&log_level)) {
                tracing::error!(reason = why, "the file of the log level cannot be used; the level before stays");
            }
        }
    }

    /// Told before, as nothing may be logged from then on, and behind, as nothing may have been.
    fn replace(&self, log_level: &str) -> Result<(), String> {
        let filter = parse(log_level)?;
        let was_told = tracing::enabled!(Level::INFO);
        if was_told {
            tracing::info!(log_level, "the log level changes");
        }
        self.filter.reload(filter).map_err(|why| why.to_string())?;
        if !was_told {
            tracing::info!(log_level, "the log level changes");
        }
        Ok(())
    }
}

/// `None` without a file.
fn read(path: &Path) -> Result<Option<String>, String> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text)) {
        Ok(_) if text.len() as u64 > FILE_MAX_BYTES => {
            Err(format!("{} is longer than {FILE_MAX_BYTES} bytes", path.display()))
        }
        Ok(_) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_lapin_are_kept_out_unless_asked_for() {
        let filter = |given: &str| parse(given).unwrap().to_string();
        assert!(filter("info").contains("lapin=off"));
        assert!(!filter("info,lapin=debug").contains("lapin=off"), "{}", filter("info,lapin=debug"));
    }

    #[test]
    fn a_file_that_is_not_there_or_empty_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log-level");
        assert_eq!(read(&path), Ok(None));
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(read(&path), Ok(None));
        std::fs::write(&path, " info,taskcast=debug\n").unwrap();
        assert_eq!(read(&path), Ok(Some("info,taskcast=debug".to_owned())));
        assert!(read(folder.path()).is_err());
    }

    #[test]
    fn a_file_without_an_end_is_refused_and_not_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log-level");
        std::fs::write(&path, format!("info{}", " ".repeat(5000))).unwrap();
        assert!(read(&path).unwrap_err().contains("longer than 4096 bytes"));
    }
}
