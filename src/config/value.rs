//! Values: from a TOML file, from the environment or a flag, and back to TOML.

use std::net::{Ipv4Addr, SocketAddr};

use tracing_subscriber::EnvFilter;
use url::Url;

use super::{
    file,
    keys::Kind,
    mistake::{cut, shown},
};
use crate::log::{self, check_redis_address, check_sentinel_address};

/// A value before its key's [`Kind`] was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    /// From the environment, a flag or a secret's file: everything is text there.
    Untyped(String),
    Text(String),
    /// In decimal digits.
    Integer(String),
    Boolean(bool),
    Array(Vec<Raw>),
    /// By name, in no order.
    Table(Vec<(String, Raw)>),
    /// What no key takes: TOML's name of the type, and the text.
    Other(&'static str, String),
}

/// A value that its key accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Integer(u64),
    Boolean(bool),
    List(Vec<String>),
    Address(SocketAddr),
    Tables(Vec<Vec<(String, Raw)>>),
}

impl Raw {
    /// As it may be shown for a key of this kind.
    pub(super) fn shown(&self, kind: Kind) -> String {
        match self {
            _ if matches!(kind, Kind::Secret | Kind::Tables) => "(hidden)".to_owned(),
            Self::Untyped(text) => shown(kind, text),
            Self::Text(text) => format!("\"{}\"", shown(kind, text)),
            Self::Integer(digits) => cut(digits),
            Self::Boolean(flag) => flag.to_string(),
            Self::Array(items) => {
                let items: Vec<String> = items.iter().take(16).map(|item| item.shown(kind)).collect();
                cut(&format!("[{}]", items.join(", ")))
            }
            Self::Table(_) => "{…}".to_owned(),
            Self::Other(_, text) => cut(text),
        }
    }

    /// What it is, for a sentence.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Untyped(_) | Self::Text(_) => "text",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(name, _) => name,
        }
    }
}

/// Applies the kind.
///
/// # Errors
/// What was expected instead.
pub(super) fn parse(kind: Kind, raw: &Raw) -> Result<Value, String> {
    let wrong_type = |expected: String| Err(format!("{expected}, not {}", raw.type_name()));
    match (kind, raw) {
        (Kind::Integer { min, max }, Raw::Integer(text) | Raw::Untyped(text)) => {
            let digits = text.trim().replace('_', "");
            let number = digits.parse().ok().filter(|number| (min..=max).contains(number));
            number.map(Value::Integer).ok_or_else(|| expected(kind))
        }
        (Kind::Boolean, Raw::Boolean(flag)) => Ok(Value::Boolean(*flag)),
        (Kind::Boolean, Raw::Untyped(text)) => match text.trim() {
            "true" | "1" | "yes" | "on" => Ok(Value::Boolean(true)),
            "false" | "0" | "no" | "off" => Ok(Value::Boolean(false)),
            _ => Err(expected(kind)),
        },
        (Kind::List, Raw::Array(items)) => {
            let texts: Option<Vec<String>> = items
                .iter()
                .map(|item| match item {
                    Raw::Text(text) => Some(text.clone()),
                    _ => None,
                })
                .collect();
            texts.map(Value::List).ok_or_else(|| expected(kind))
        }
        (Kind::List, Raw::Untyped(text) | Raw::Text(text)) => {
            Ok(Value::List(text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect()))
        }
        (Kind::Tables, Raw::Array(items)) => {
            let tables: Option<Vec<_>> = items
                .iter()
                .map(|item| match item {
                    Raw::Table(entries) => Some(entries.clone()),
                    _ => None,
                })
                .collect();
            tables.map(Value::Tables).ok_or_else(|| expected(kind))
        }
        (Kind::Tables, Raw::Untyped(text)) => {
            let array = file::array(text).filter(|array| matches!(array, Raw::Array(_)));
            array.ok_or_else(|| expected(kind)).and_then(|array| parse(kind, &array))
        }
        (Kind::Integer { .. } | Kind::Boolean | Kind::List | Kind::Tables, _) => wrong_type(expected(kind)),
        (_, Raw::Untyped(text) | Raw::Text(text)) => parse_text(kind, text),
        _ => wrong_type(expected(kind)),
    }
}

fn parse_text(kind: Kind, text: &str) -> Result<Value, String> {
    let text = if matches!(kind, Kind::Secret) { text } else { text.trim() };
    if text.is_empty() {
        return Err(format!("{}, not an empty text", expected(kind)));
    }
    match kind {
        Kind::Address => {
            let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
            let address = local.map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            address.or_else(|| text.parse().ok()).map(Value::Address).ok_or_else(|| expected(kind))
        }
        Kind::Choice(names) if !names.contains(&text) => Err(expected(kind)),
        Kind::LogLevel if !is_filter(text) => Err(expected(kind)),
        Kind::HttpUrl => check_http_url(text).map(|()| Value::Text(text.to_owned())),
        Kind::HttpUrlOrPath if text.contains("://") => check_http_url(text).map(|()| Value::Text(text.to_owned())),
        Kind::LogUrl => check_log_url(text).map(|()| Value::Text(text.to_owned())),
        _ => Ok(Value::Text(text.to_owned())),
    }
}

/// What a key of this kind takes.
pub(super) fn expected(kind: Kind) -> String {
    match kind {
        Kind::Text | Kind::Secret => "text".to_owned(),
        Kind::LogUrl => "memory, or an address that begins with redis://, rediss://, redis+sentinel://, \
                         rediss+sentinel://, amqp:// or amqps://"
            .to_owned(),
        Kind::Address => "an IP address and a port".to_owned(),
        Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Boolean => "true or false".to_owned(),
        Kind::List => "a list of texts".to_owned(),
        Kind::Choice(names) => format!("one of {}", names.join(", ")),
        Kind::Path => "the path of a file".to_owned(),
        Kind::HttpUrl => "an address that begins with https://".to_owned(),
        Kind::HttpUrlOrPath => "an address that begins with https://, or the path of a file".to_owned(),
        Kind::Tables => "a list of tables".to_owned(),
        Kind::LogLevel => "off, error, warn, info, debug, trace, or a filter such as info,taskcast=debug".to_owned(),
    }
}

/// Is this one of the values of `log_level`?
///
/// # Errors
/// What was expected.
pub fn check_log_level(text: &str) -> Result<(), String> {
    if is_filter(text) { Ok(()) } else { Err(expected(Kind::LogLevel)) }
}

/// tracing-subscriber takes any word for the name of a module, so `inof` would silently log everything of a module
/// called so and nothing else.
fn is_filter(text: &str) -> bool {
    let is_level = |word: &str| {
        ["off", "error", "warn", "info", "debug", "trace"].iter().any(|level| word.trim().eq_ignore_ascii_case(level))
    };
    let parts_fit = text.split(',').all(|part| match part.rsplit_once('=') {
        Some((_, level)) => is_level(level),
        None => is_level(part),
    });
    parts_fit && text.parse::<EnvFilter>().is_ok()
}

fn check_http_url(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|why| format!("{} ({why})", expected(Kind::HttpUrl)))?;
    if !["https", "http"].contains(&url.scheme()) || url.host_str().is_none_or(str::is_empty) {
        return Err(expected(Kind::HttpUrl));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address without user and password".to_owned());
    }
    Ok(())
}

fn check_log_url(text: &str) -> Result<(), String> {
    if text == "memory" {
        return Ok(());
    }
    if let Some(checked) = check_sentinel_address(text) {
        return checked;
    }
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    let Some(scheme @ ("redis" | "rediss" | "amqp" | "amqps")) = scheme else {
        return Err(expected(Kind::LogUrl));
    };
    if !scheme.starts_with("amqp") {
        return check_address(scheme, text);
    }
    let addresses = log::addresses(text).map_err(|why| format!("an address {scheme}://… with other hosts; {why}"))?;
    let check = |(index, address): (usize, &String)| {
        let several = addresses.len() > 1;
        let mistake = check_address(scheme, address).err()?;
        Some(if several { format!("host {}: {mistake}", index + 1) } else { mistake })
    };
    let mistakes: Vec<String> = addresses.iter().enumerate().filter_map(check).collect();
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes.join("; ")) }
}

/// The address of one host.
fn check_address(scheme: &str, text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|why| {
        format!(
            "an address {scheme}://… ({why}); `@ : / ? #` and `%` in a password are written %40 %3A %2F %3F %23 %25"
        )
    })?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("an address {scheme}://… with the name of a host"));
    }
    let database = url.path().trim_start_matches('/');
    if scheme.starts_with("redis") && !database.is_empty() && database.parse::<u32>().is_err() {
        return Err(format!("an address {scheme}://… that ends in the number of a database, or in none"));
    }
    if scheme.starts_with("redis") {
        if url.host_str().is_some_and(|host| host.contains(',')) {
            return Err(format!(
                "an address {scheme}://… with one host; several sentinels are \
                 {scheme}+sentinel://host:port,host:port/name-of-the-primary"
            ));
        }
        check_redis_address(text).map_err(|why| format!("an address {scheme}://… that can be used ({why})"))?;
    }
    if scheme.starts_with("amqp") && database.contains('/') {
        return Err(format!("an address {scheme}://… with one virtual host; `/` within its name is written %2F"));
    }
    Ok(())
}

/// A value in the form of the environment, as TOML.
pub(super) fn to_toml(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Integer { .. } | Kind::Boolean | Kind::Tables => text.to_owned(),
        Kind::List => {
            let items = text.split(',').filter(|item| !item.is_empty()).map(|item| toml::Value::from(item).to_string());
            format!("[{}]", items.collect::<Vec<_>>().join(", "))
        }
        _ => toml::Value::from(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_not_taken_for_a_module() {
        for good in ["info", "INFO", "warn,taskcast=debug", "taskcast::http=trace", "off"] {
            assert!(is_filter(good), "{good}");
        }
        for bad in ["inof", "info,taskcast", "taskcast=loud", "info,,debug", "="] {
            assert!(!is_filter(bad), "{bad}");
        }
    }

    #[test]
    fn a_log_address_must_be_one_that_can_be_dialled() {
        for good in [
            "memory",
            "redis://h",
            "rediss://u:p@h:6380/3",
            "redis+sentinel://u:p@one:1,two:2,three/primary/3",
            "rediss+sentinel://one/primary",
            "amqp://g:g@h:5672/%2f",
            "amqps://h/vhost",
            "amqp://u:p@a:1,b,[::1]:2/v",
        ] {
            assert_eq!(check_log_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "Memory",
            "redis",
            "redis:/h",
            "kafka://h",
            "redis://",
            "redis://h/zero",
            "amqp://h/a/b",
            "amqp://a,",
            "amqp://a:1,b:x/v",
            "amqp://a:1,b:2,a:1",
            "redis://a:1,b:2",
            "redis://h:x",
            "redis://one,two/0",
            "redis://h?protocol=loud",
            "redis://u:%ff@h",
            "rediss://h#loud",
            "redis+sentinel://h:1",
            "redis+sentinel://h:1/primary/zero",
            "amqp+sentinel://h:1/primary",
        ] {
            assert!(check_log_url(bad).is_err(), "{bad}");
        }
    }
}
