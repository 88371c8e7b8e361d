//! Arguments that several commands share.

use std::{fs, path::PathBuf, time::Duration};

use clap::Args;

use crate::config::{Flag, Sources};

/// Where the configuration is, and what of it is set right here. Wins over the environment, which wins over the file.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Common {
    /// The TOML file [environment: `TASKCAST_CONFIG`].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients connect [environment: `TASKCAST_LISTEN`].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where operators connect [environment: `TASKCAST_OPERATIONS_LISTEN`].
    #[arg(long, value_name = "ADDRESS:PORT")]
    operations_listen: Option<String>,
    /// memory, redis[s]://…, redis[s]+sentinel://… or amqp[s]://… [environment: `TASKCAST_LOG`].
    #[arg(long, value_name = "URL")]
    log: Option<String>,
    /// How much is logged: a level or a filter [environment: `TASKCAST_LOG_LEVEL`].
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Any key of the configuration; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// What the configuration is read from for these arguments.
pub(super) fn sources(common: &Common) -> Sources<'static> {
    Sources {
        file: common.config.clone(),
        environment: std::env::vars_os().collect(),
        flags: flags(common),
        read: &|path| fs::read(path),
    }
}

/// As [`sources`], but nothing but these flags: no file and no environment.
pub(super) fn sources_of_flags_only(flags: Vec<Flag>) -> Sources<'static> {
    Sources { file: None, environment: Vec::new(), flags, read: &|path| fs::read(path) }
}

pub(super) fn flag(name: &str, key: &str, value: &str) -> Flag {
    Flag { name: name.to_owned(), key: key.to_owned(), value: Some(value.to_owned()) }
}

fn flags(common: &Common) -> Vec<Flag> {
    let set = common.set.iter().map(|text| match text.split_once('=') {
        Some((key, value)) => flag("--set", key.trim(), value),
        None => Flag { name: "--set".to_owned(), key: text.clone(), value: None },
    });
    let named = [
        ("--listen", "listen", &common.listen),
        ("--operations-listen", "operations_listen", &common.operations_listen),
        ("--log", "log.url", &common.log),
        ("--log-level", "log_level", &common.log_level),
    ];
    let named = named.into_iter().filter_map(|(name, key, value)| value.as_ref().map(|value| flag(name, key, value)));
    // A flag of its own says it more plainly than `--set`.
    set.chain(named).collect()
}

/// Reads `90s`, `15m`, `12h` or `7d`; a bare number is seconds.
///
/// # Errors
/// What a duration looks like.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_seconds = match &text[digits.len()..] {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let seconds = unit_seconds.zip(digits.parse::<u64>().ok()).and_then(|(unit, number)| number.checked_mul(unit));
    seconds
        .filter(|s| *s > 0)
        .map(Duration::from_secs)
        .ok_or_else(|| "a duration such as 90s, 15m, 12h or 7d".to_owned())
}

/// Reads a number. JSON has none that are endless or not a number: they would become `null`, which says nothing.
///
/// # Errors
/// What was expected.
pub(super) fn finite(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| "a number such as 40 or 99.5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_finite() {
        assert_eq!((finite("40"), finite("-0.5")), (Ok(40.0), Ok(-0.5)));
        for text in ["nan", "NaN", "inf", "-inf", "infinity", "1e999", "", "4O"] {
            assert!(finite(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "0", "-1h", "1.5h", "1y", "1 h", "99999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
