//! Which web sites a browser may come from: the `Origin` header (RFC 6454) against a list of exact origins and
//! subdomain patterns. Parsed and compared part by part; a substring never decides.
//!
//! Refuses to know: requests, tokens, what a refused one is answered.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use url::Host;

use crate::clock::Now;

/// Distinct refused origins that are remembered so as not to log each of them again and again.
const LOGGED_MAX: usize = 64;

/// A refused origin is logged once in this time.
const LOGGED_FOR: Duration = Duration::from_mins(1);

/// How much of a stranger's header a log line holds.
const LOGGED_CHARS_MAX: usize = 200;

/// Which `Origin`s a browser may come from.
#[derive(Clone, Debug, Default)]
pub struct OriginPolicy {
    patterns: Arc<[Pattern]>,
    allow_missing: bool,
    /// The service itself speaks TLS, so its own origin is of `https`.
    is_encrypted: bool,
    logged: Arc<Mutex<VecDeque<(String, Now)>>>,
}

/// Why an origin is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// It is where this service itself was reached.
    Same,
    /// A pattern names it.
    Listed,
    /// Only by `*`, which anybody's page satisfies: good for tokens that the page itself brings, not for a cookie that
    /// the browser attaches.
    Anyone,
    /// There is none, so it is not a browser, or a same-origin `GET`.
    Missing,
}

/// This origin may not connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

impl OriginPolicy {
    /// `patterns`: `https://app.example.com`, `https://app.example.com:8443`, `https://*.example.com`, or `*`. Empty:
    /// same origin only, that is, the host and port of the request's own `Host` header. A list replaces that: whoever
    /// uses the page of the service itself besides names its origin too. Schemes other than `http` and `https` are
    /// those of web views (`capacitor://localhost`).
    ///
    /// # Errors
    /// The first pattern that is none of these, with what is wrong.
    pub fn new(patterns: &[String], allow_missing: bool) -> Result<Self, String> {
        let parsed: Result<Vec<Pattern>, String> = patterns.iter().map(|text| Pattern::parse(text)).collect();
        Ok(Self { patterns: parsed?.into(), allow_missing, is_encrypted: false, logged: Arc::default() })
    }

    /// For a service that speaks TLS: a page that came without, and so perhaps from whoever is on the way, is of another
    /// origin.
    #[must_use]
    pub fn over_tls(self) -> Self {
        Self { is_encrypted: true, ..self }
    }

    /// `host` is the request's `Host` header.
    pub(super) fn check(&self, origin: Option<&str>, host: Option<&str>) -> Result<Allowed, Refused> {
        let Some(text) = origin else {
            return if self.allow_missing { Ok(Allowed::Missing) } else { Err(Refused) };
        };
        if self.patterns.is_empty() {
            return if self.is_same(text, host) { Ok(Allowed::Same) } else { Err(Refused) };
        }
        self.listed(text).ok_or(Refused)
    }

    /// What the list says about this origin, same origin left aside. For CORS.
    pub(super) fn listed(&self, origin: &str) -> Option<Allowed> {
        if self.patterns.is_empty() {
            return None;
        }
        let parsed = Origin::parse(origin);
        let named = |pattern: &Pattern| parsed.as_ref().is_ok_and(|origin| pattern.matches(origin));
        if self.patterns.iter().any(named) {
            return Some(Allowed::Listed);
        }
        self.patterns.contains(&Pattern::Any).then_some(Allowed::Anyone)
    }

    /// Tells the operator about a refusal: which origin, which list, which setting. Each distinct origin once a
    /// minute, and a bounded number of them, because whoever is refused chooses the text.
    pub(super) fn log_refusal(&self, origin: Option<&str>, host: Option<&str>, now: Now) {
        let cut = |text: Option<&str>| text.map_or_else(|| "(none)".to_owned(), shorten);
        let (origin, host) = (cut(origin), cut(host));
        if self.is_news(&origin, now) {
            tracing::warn!(
                ?origin,
                ?host,
                allowed = %self,
                "refused an Origin with 403; to let it in, name it in `origins` (TASKCAST_ORIGINS)"
            );
        }
    }

    /// Does this origin name where the request was sent to?
    fn is_same(&self, origin: &str, host: Option<&str>) -> bool {
        let Ok(parsed) = Origin::parse(origin) else { return false };
        if self.is_encrypted && parsed.scheme != "https" {
            return false;
        }
        // Browsers write both alike, and what was read once need not be read again.
        let is_alike = origin.split_once("://").is_some_and(|(_, authority)| host == Some(authority));
        is_alike || parsed.is_at(host)
    }

    fn is_news(&self, origin: &str, now: Now) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        while logged.front().is_some_and(|(_, at)| now.instant.saturating_duration_since(at.instant) >= LOGGED_FOR) {
            logged.pop_front();
        }
        let news = logged.len() < LOGGED_MAX && !logged.iter().any(|(known, _)| known == origin);
        if news {
            logged.push_back((origin.to_owned(), now));
        }
        news
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(LOGGED_CHARS_MAX).collect()
}

impl fmt::Display for OriginPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.patterns.is_empty() {
            return f.write_str("same origin");
        }
        for (index, pattern) in self.patterns.iter().enumerate() {
            write!(f, "{}{pattern}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    Exact(Origin),
    /// Any depth below this origin's host, but not the host itself.
    Below(Origin),
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let wrong = |why: &str| format!("{text:?} is not an origin: {why}");
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| wrong("it begins with a scheme, as in https://app.example.com, or is `*`"))?;
        let Some(parent) = rest.strip_prefix("*.") else {
            return if rest.contains('*') {
                Err(wrong("`*` stands alone or for whole subdomains, as in https://*.example.com"))
            } else {
                Origin::from_parts(scheme, rest).map(Self::Exact).map_err(wrong)
            };
        };
        if parent.contains('*') {
            return Err(wrong("it has one `*` at most"));
        }
        let parent = Origin::from_parts(scheme, parent).map_err(wrong)?;
        match parent.host {
            Host::Domain(_) => Ok(Self::Below(parent)),
            Host::Ipv4(_) | Host::Ipv6(_) => Err(wrong("an address has no subdomains")),
        }
    }

    fn matches(&self, origin: &Origin) -> bool {
        match self {
            Self::Any => false,
            Self::Exact(exact) => exact == origin,
            Self::Below(parent) => {
                parent.scheme == origin.scheme && parent.port == origin.port && origin.is_below(&parent.host)
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stars, origin) = match self {
            Self::Any => return f.write_str("*"),
            Self::Exact(origin) => ("", origin),
            Self::Below(origin) => ("*.", origin),
        };
        write!(f, "{}://{stars}{}", origin.scheme, origin.host)?;
        match origin.port {
            Some(port) if default_port(&origin.scheme) != Some(port) => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

/// Scheme, host and port, normalised: lower case, punycode, the default port filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: Host<String>,
    port: Option<u16>,
}

impl Origin {
    /// Reads what a browser sends. `null` is not an origin.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, authority) = text.split_once("://").ok_or("it has no scheme")?;
        if !text.is_ascii() {
            return Err("it is not ASCII");
        }
        Self::from_parts(scheme, authority)
    }

    fn from_parts(scheme: &str, authority: &str) -> Result<Self, &'static str> {
        let scheme = scheme.to_ascii_lowercase();
        let starts_well = scheme.starts_with(|first: char| first.is_ascii_lowercase());
        if !starts_well || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
            return Err("its scheme is not one");
        }
        let (host, port) = parse_authority(authority)?;
        let port = port.or_else(|| default_port(&scheme));
        Ok(Self { scheme, host, port })
    }

    /// Is this where the request was sent to? `host` has no scheme and leaves the scheme's default port out; behind a
    /// proxy that ends TLS, the scheme that the browser used is known from the origin alone.
    fn is_at(&self, host: Option<&str>) -> bool {
        let Some(Ok((host, port))) = host.map(parse_authority) else { return false };
        host == self.host && port.or_else(|| default_port(&self.scheme)) == self.port
    }

    fn is_below(&self, parent: &Host<String>) -> bool {
        let (Host::Domain(own), Host::Domain(parent)) = (&self.host, parent) else { return false };
        let labels = own.strip_suffix(parent.as_str()).and_then(|rest| rest.strip_suffix('.'));
        labels.is_some_and(|labels| labels.split('.').all(|label| !label.is_empty()))
    }
}

/// Is this `Host` a name that a machine has for itself? Nobody else can have a browser take such a name for theirs.
pub(super) fn is_local(host: Option<&str>) -> bool {
    match host.map(parse_authority) {
        Some(Ok((Host::Domain(name), _))) => {
            let name = name.strip_suffix('.').unwrap_or(&name);
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Ok((Host::Ipv4(address), _))) => address.is_loopback(),
        Some(Ok((Host::Ipv6(address), _))) => address.is_loopback(),
        Some(Err(_)) | None => false,
    }
}

/// A `Host` that names one place and nothing that means more elsewhere, written as a URL has it.
pub(super) fn authority(host: Option<&str>) -> Option<String> {
    let (host, port) = parse_authority(host?).ok()?;
    let host = host.to_string();
    let is_plain = |character: char| character.is_ascii_alphanumeric() || ".-_:[]".contains(character);
    let port = port.map_or(String::new(), |port| format!(":{port}"));
    (host.chars().all(is_plain)).then(|| format!("{host}{port}"))
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// `host[:port]`, and nothing else: no path, no user, no percent-encoding.
fn parse_authority(text: &str) -> Result<(Host<String>, Option<u16>), &'static str> {
    if text.contains(['/', '\\', '?', '#']) {
        return Err("it ends after the host and port, without a path or a slash");
    }
    if text.contains(['@', '%']) || text.contains(char::is_whitespace) || text.contains(char::is_control) {
        return Err("it holds more than a host and a port");
    }
    // An IPv6 address has colons of its own, inside its brackets.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host = Host::parse(host).map_err(|_| "its host is not a host name or an address")?;
    let port = match port {
        None => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse().map_err(|_| "its port is not between 1 and 65535")?)
        }
        Some(_) => return Err("its port is not a number"),
    };
    if port == Some(0) { Err("its port is not between 1 and 65535") } else { Ok((host, port)) }
}

#[cfg(test)]
#[path = "origin_tests.rs"]
mod tests;
