//! A mistake in the configuration, told so that it can be put right without reading anything else.

use std::{fmt, path::PathBuf};

use url::Url;

use super::{
    keys::{Key, Kind},
    value,
};
use crate::log::{self, shown_sentinel_address};

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Default,
    File {
        path: PathBuf,
        /// Counts from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
    /// The file that a `…_file` key names.
    SecretFile(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::SecretFile(path) => write!(f, "the content of {}", path.display()),
        }
    }
}

/// One thing wrong with the configuration. Holds no secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Dotted, or the name of what is not a key.
    pub key: String,
    /// As it was given, secrets hidden. `None`: nothing was given.
    pub value: Option<String>,
    /// `None`: nothing was given.
    pub source: Option<Source>,
    /// What would be right.
    pub expected: String,
    /// Something that would work.
    pub example: String,
}

impl Mistake {
    /// A key with a wrong value.
    pub(super) fn of(key: &'static Key, value: String, source: Source, expected: impl Into<String>) -> Self {
        let example = example(key, &source);
        Self { key: key.path.to_owned(), value: Some(value), source: Some(source), expected: expected.into(), example }
    }
}

/// All that is wrong with the configuration, not just the first. Not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => writeln!(f, "1 mistake in the configuration:")?,
            count => writeln!(f, "{count} mistakes in the configuration:")?,
        }
        for (index, mistake) in self.0.iter().enumerate() {
            match &mistake.value {
                Some(value) => writeln!(f, "\n{}. {} = {value}", index + 1, mistake.key)?,
                None => writeln!(f, "\n{}. {}", index + 1, mistake.key)?,
            }
            if let Some(source) = &mistake.source {
                writeln!(f, "   from:     {source}")?;
            }
            writeln!(f, "   expected: {}", mistake.expected)?;
            writeln!(f, "   example:  {}", mistake.example.replace('\n', "\n             "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// For what resembles no key.
pub(super) const EXAMPLE_OF_NOTHING_KNOWN: &str = "`taskcast default-config` lists every key with a value";

/// How the key is set well in the place that `source` is.
pub(super) fn example(key: &Key, source: &Source) -> String {
    example_with(key, source, key.example)
}

/// As [`example`], with a value that is nearer to what was meant.
pub(super) fn example_with(key: &Key, source: &Source, value: &str) -> String {
    match source {
        Source::Variable(_) => format!("{}={value}", key.variable()),
        Source::Flag(flag) if flag == "--set" => format!("--set {}={value}", key.path),
        Source::Flag(flag) => format!("{flag} {value}"),
        Source::SecretFile(path) if matches!(key.kind, Kind::Secret) => {
            format!("openssl rand -hex 32 > {}", path.display())
        }
        Source::SecretFile(_) => value.to_owned(),
        Source::Default | Source::File { .. } => {
            let (table, name) = key.split();
            let line = format!("{name} = {}", value::to_toml(key.kind, value));
            if table.is_empty() { line } else { format!("[{table}]\n{line}") }
        }
    }
}

/// Longer values are cut in what people are shown.
const SHOWN_MAX_CHARACTERS: usize = 120;

/// A value as it may be shown: secrets and credentials hidden, and not endless.
pub(super) fn shown(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Secret | Kind::Tables => "(hidden)".to_owned(),
        Kind::HttpUrl | Kind::HttpUrlOrPath if text.contains("//") => cut(&one_without_credentials(text)),
        Kind::LogUrl => cut(&without_credentials(text)),
        _ => cut(text),
    }
}

pub(super) fn cut(text: &str) -> String {
    let mut short: String =
        text.chars().take(SHOWN_MAX_CHARACTERS).map(|c| if c.is_control() { '�' } else { c }).collect();
    if text.chars().nth(SHOWN_MAX_CHARACTERS).is_some() {
        short.push('…');
    }
    short
}

/// An address without user, password and query (a user's name can be a token too). Of what is not quite an address only
/// the scheme is shown: nobody can tell where in it a password stands.
pub(super) fn without_credentials(text: &str) -> String {
    if let Some(shown) = shown_sentinel_address(text) {
        return shown;
    }
    let addresses = log::addresses(text).unwrap_or_default();
    if let [first, others @ ..] = addresses.as_slice()
        && !others.is_empty()
        && addresses.iter().all(|address| Url::parse(address).is_ok())
    {
        return several_without_credentials(first, others);
    }
    one_without_credentials(text)
}

/// The first address, with the hosts of the others.
fn several_without_credentials(first: &str, others: &[String]) -> String {
    let place = |address: &String| {
        let url = Url::parse(address).ok()?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("{}{port}", url.host_str()?))
    };
    let shown = one_without_credentials(first);
    let others: Option<Vec<String>> = others.iter().map(place).collect();
    match (place(&first.to_owned()), others) {
        (Some(host), Some(others)) => shown.replacen(&host, &format!("{host},{}", others.join(",")), 1),
        _ => shown,
    }
}

fn one_without_credentials(text: &str) -> String {
    let scheme =
        text.split_once("://").map(|(scheme, _)| scheme).filter(|s| s.bytes().all(|b| b.is_ascii_alphanumeric()));
    let Some(scheme) = scheme else {
        let is_word = text.len() <= 16 && text.bytes().all(|b| b.is_ascii_alphanumeric());
        return if is_word { text.to_owned() } else { "(hidden)".to_owned() };
    };
    match Url::parse(text) {
        Ok(url) if url.has_host() && !url.path().contains('@') => {
            let credentials = url.has_authority() && (!url.username().is_empty() || url.password().is_some());
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!(
                "{scheme}://{}{}{port}{}{}",
                if credentials { "(hidden)@" } else { "" },
                url.host_str().unwrap_or_default(),
                url.path(),
                if url.query().or(url.fragment()).is_some() { "?(hidden)" } else { "" },
            )
        }
        _ => format!("{scheme}://(hidden)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_hidden_however_broken_the_address_is() {
        for (url, expected) in [
            ("memroy", "memroy"),
            ("redis://localhost:6379/0", "redis://localhost:6379/0"),
            ("redis://user:hunter2@host/0", "redis://(hidden)@host/0"),
            ("redis://:hunter2@host:6379", "redis://(hidden)@host:6379"),
            ("amqp://user:hun@ter2@host", "amqp://(hidden)@host"),
            ("amqp://hunter2@host/vhost", "amqp://(hidden)@host/vhost"),
            ("redis://host/?password=hunter2", "redis://host/?(hidden)"),
            ("redis://host/#hunter2", "redis://host/?(hidden)"),
            ("amqp://user:hun/ter2@host", "amqp://(hidden)"),
            ("amqp://user:12/hunter2@host", "amqp://(hidden)"),
            ("amqp://u:hunter2@a:1,b,[::1]:2/v", "amqp://(hidden)@a:1,b,[::1]:2/v"),
            ("amqp://u:hunter2@a:1,b:x/v", "amqp://(hidden)"),
            ("amqp://u:12/hunter2@a:1,b:2/v", "amqp://(hidden)"),
            ("redis://:hunter2", "redis://(hidden)"),
            ("redis+sentinel://user:hunter2@one:1,two/primary", "redis+sentinel://(hidden)@one:1,two:26379/primary/0"),
            ("redis+sentinel://user:hunter2@one:1", "redis+sentinel://(hidden)"),
            ("user:hunter2@host", "(hidden)"),
            ("redis//:hunter2@host", "(hidden)"),
            ("@://hunter2", "(hidden)"),
        ] {
            assert_eq!(without_credentials(url), expected, "{url}");
        }
    }
}
