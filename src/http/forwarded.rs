//! Where a request really comes from, when it comes through proxies: `X-Forwarded-For` or `Forwarded` (RFC 7239), counted
//! from the right, where the proxy that is known wrote. What stands further left anybody may have written.
//!
//! Only one of the two headers is looked at: a proxy writes one and lets the other pass as the client sent it.
//!
//! Refuses to know: what the address is good for.

use std::net::{IpAddr, SocketAddr};

use warp::http::{HeaderMap, HeaderName, header};

use crate::{limits::Networks, metrics::Forwarded};

/// The header that the trusted proxies write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    #[default]
    XForwardedFor,
    Forwarded,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Who asks, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub address: IpAddr,
    /// It is a trusted proxy all the same: it said of nobody else that can be understood.
    pub is_proxy: bool,
    pub outcome: Forwarded,
}

/// Does the request carry either header?
pub(super) fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(header::FORWARDED)
}

/// The first address from the right that is no trusted proxy's; the leftmost if all are. `proxy` is trusted.
pub(super) fn origin(proxy: IpAddr, headers: &HeaderMap, which: ForwardedHeader, trusted: &Networks) -> Origin {
    let name = match which {
        ForwardedHeader::XForwardedFor => X_FORWARDED_FOR,
        ForwardedHeader::Forwarded => header::FORWARDED,
    };
    let mut origin = Origin { address: proxy, is_proxy: true, outcome: Forwarded::Absent };
    for line in headers.get_all(name).iter().rev() {
        for element in (Elements { rest: Some(line.as_bytes()) }) {
            let Some(address) = address(element, which) else {
                return Origin { outcome: Forwarded::Malformed, ..origin };
            };
            let is_proxy = trusted.contains(address);
            origin = Origin { address, is_proxy, outcome: Forwarded::Used };
            if !is_proxy {
                return origin;
            }
        }
    }
    origin
}

fn address(element: &[u8], which: ForwardedHeader) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?;
    match which {
        ForwardedHeader::XForwardedFor => node(text),
        ForwardedHeader::Forwarded => node(&parameter(text)?),
    }
}

/// The members of a list, from the right. Commas within quotes separate nothing; and as they are counted from the right too,
/// a quote that somebody opened further left swallows nothing of what the proxy appended.
struct Elements<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let rest = self.rest?;
            let comma = last_comma(rest);
            let (before, element) = match comma {
                Some(place) => (rest.get(..place), rest.get(place + 1..).unwrap_or_default()),
                None => (None, rest),
            };
            self.rest = before;
            let element = element.trim_ascii();
            // An empty member is none (RFC 9110 section 5.6.1).
            if !element.is_empty() {
                return Some(element);
            }
        }
    }
}

fn last_comma(text: &[u8]) -> Option<usize> {
    let mut is_quoted = false;
    for (place, byte) in text.iter().enumerate().rev() {
        match byte {
            b'"' if !is_escaped(text, place) => is_quoted = !is_quoted,
            b',' if !is_quoted => return Some(place),
            _ => {}
        }
    }
    None
}

/// An odd number of backslashes stands before it.
fn is_escaped(text: &[u8], place: usize) -> bool {
    let before = text.get(..place).unwrap_or_default();
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// What `for=` says, without its quotes; `None` unless it is there once.
fn parameter(element: &str) -> Option<String> {
    let mut found = None;
    for pair in pairs(element) {
        let Some((name, value)) = pair.split_once('=') else { continue };
        if name.trim().eq_ignore_ascii_case("for") {
            if found.is_some() {
                return None;
            }
            let value = value.trim();
            found = Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value).to_owned());
        }
    }
    found
}

/// The parameters of an element; semicolons within quotes separate nothing.
fn pairs(element: &str) -> impl Iterator<Item = &str> {
    let bytes = element.as_bytes();
    let mut is_quoted = false;
    let is_end = move |(place, character): (usize, char)| {
        if character == '"' && !is_escaped(bytes, place) {
            is_quoted = !is_quoted;
        }
        (character == ';' && !is_quoted).then_some(place)
    };
    let ends: Vec<usize> = element.char_indices().filter_map(is_end).chain([element.len()]).collect();
    let starts: Vec<usize> = [0].into_iter().chain(ends.iter().map(|end| end + 1)).collect();
    starts.into_iter().zip(ends).filter_map(|(start, end)| element.get(start..end))
}

/// An address, with a port or without: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`. Names that hide
/// somebody (`unknown`, `_proxy`) are no addresses.
fn node(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    let bare = text.strip_prefix('[')?.strip_suffix(']')?;
    bare.parse::<std::net::Ipv6Addr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn headers(lines: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, warp::http::HeaderValue::from_bytes(value).unwrap());
        }
        map
    }

    fn asked(lines: &[(&'static str, &[u8])], which: ForwardedHeader) -> (String, bool, Forwarded) {
        let trusted = Networks::parse(["10.0.0.0/8", "2001:db8:f::/48"]).unwrap();
        let found = origin(PROXY.parse().unwrap(), &headers(lines), which, &trusted);
        (found.address.to_string(), found.is_proxy, found.outcome)
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_no_trusted_proxy() {
        use Forwarded::{Absent, Malformed, Used};
        for (value, address, is_proxy, outcome) in [
            ("192.0.2.1", "192.0.2.1", false, Used),
            ("203.0.113.9, 192.0.2.1", "192.0.2.1", false, Used),
            ("192.0.2.1, 10.0.0.2,10.9.9.9", "192.0.2.1", false, Used),
            ("192.0.2.1,2001:db8:f::7", "192.0.2.1", false, Used),
            // What is left of the client is what it said itself.
            ("10.0.0.9, 192.0.2.1", "192.0.2.1", false, Used),
            ("garbage, \", 192.0.2.1", "192.0.2.1", false, Used),
            ("192.0.2.1:4711", "192.0.2.1", false, Used),
            ("2001:db8::1", "2001:db8::1", false, Used),
            ("[2001:db8::1]", "2001:db8::1", false, Used),
            ("[2001:db8::1]:4711", "2001:db8::1", false, Used),
            ("::ffff:192.0.2.1", "192.0.2.1", false, Used),
            ("::ffff:10.0.0.2", "10.0.0.2", true, Used),
            ("  192.0.2.1 ,, ,", "192.0.2.1", false, Used),
            // All trusted: the one that is furthest away.
            ("10.0.0.3, 10.0.0.2", "10.0.0.3", true, Used),
            // Where an address is due there is none: as far as can be told.
            ("192.0.2.1, unknown", PROXY, true, Malformed),
            ("192.0.2.1, unknown, 10.0.0.2", "10.0.0.2", true, Malformed),
            ("_hidden", PROXY, true, Malformed),
            ("192.0.2.1.", PROXY, true, Malformed),
            ("192.0.2.300", PROXY, true, Malformed),
            ("0300.0.2.1", PROXY, true, Malformed),
            ("192.0.2.1:port", PROXY, true, Malformed),
            ("[2001:db8::1", PROXY, true, Malformed),
            ("[192.0.2.1]", PROXY, true, Malformed),
            ("fe80::1%eth0", PROXY, true, Malformed),
            ("192.0.2.1 192.0.2.2", PROXY, true, Malformed),
            ("", PROXY, true, Absent),
            (" , ", PROXY, true, Absent),
        ] {
            let found = asked(&[("x-forwarded-for", value.as_bytes())], ForwardedHeader::XForwardedFor);
            assert_eq!(found, (address.to_owned(), is_proxy, outcome), "{value}");
        }
    }

    #[test]
    fn the_standard_header_is_read_as_the_standard_says() {
        use Forwarded::{Malformed, Used};
        for (value, address, is_proxy, outcome) in [
            ("for=192.0.2.1", "192.0.2.1", false, Used),
            ("For=\"192.0.2.1:4711\";proto=https;by=203.0.113.43", "192.0.2.1", false, Used),
            ("proto=http; FOR=\"[2001:db8::1]:4711\"", "2001:db8::1", false, Used),
            ("for=203.0.113.9, for=192.0.2.1, for=10.0.0.2", "192.0.2.1", false, Used),
            // What was quoted by somebody else, commas, semicolons and all, is no address.
            ("for=192.0.2.1;host=\"a,for=203.0.113.9\"", "192.0.2.1", false, Used),
            ("host=\"a;for=203.0.113.9\";for=192.0.2.1", "192.0.2.1", false, Used),
            ("host=\"a\\\";for=203.0.113.9\";for=192.0.2.1", "192.0.2.1", false, Used),
            ("for=\", for=192.0.2.1", "192.0.2.1", false, Used),
            ("for=203.0.113.9;host=\"a, for=192.0.2.1", "192.0.2.1", false, Used),
            ("for=192.0.2.1;for=203.0.113.9", PROXY, true, Malformed),
            ("for=192.0.2.1, by=10.0.0.2", PROXY, true, Malformed),
            ("for=unknown", PROXY, true, Malformed),
            ("for=\"_gazonk\", for=10.0.0.2", "10.0.0.2", true, Malformed),
            ("192.0.2.1", PROXY, true, Malformed),
        ] {
            let found = asked(&[("forwarded", value.as_bytes())], ForwardedHeader::Forwarded);
            assert_eq!(found, (address.to_owned(), is_proxy, outcome), "{value}");
        }
    }

    #[test]
    fn lines_of_a_header_are_one_list_and_the_other_header_is_not_looked_at() {
        let lines: [(&str, &[u8]); 4] = [
            ("x-forwarded-for", b"203.0.113.9"),
            ("forwarded", b"for=198.51.100.1"),
            ("x-forwarded-for", b"192.0.2.1"),
            ("x-forwarded-for", b"10.0.0.2"),
        ];
        assert_eq!(asked(&lines, ForwardedHeader::XForwardedFor).0, "192.0.2.1");
        assert_eq!(asked(&lines, ForwardedHeader::Forwarded).0, "198.51.100.1");
        assert_eq!(asked(&lines[..1], ForwardedHeader::Forwarded), (PROXY.to_owned(), true, Forwarded::Absent));
        // Bytes that are no text, further left, hide nothing.
        let found = asked(&[("x-forwarded-for", b"\xff\xfe, 192.0.2.1")], ForwardedHeader::XForwardedFor);
        assert_eq!(found.0, "192.0.2.1");
    }

    proptest! {
        #[test]
        fn whatever_a_client_says_the_address_that_the_proxy_appended_counts(
            said in "[ -~]{0,80}",
            which in prop_oneof![Just(ForwardedHeader::XForwardedFor), Just(ForwardedHeader::Forwarded)],
        ) {
            let (name, appended) = match which {
                ForwardedHeader::XForwardedFor => ("x-forwarded-for", "192.0.2.1"),
                ForwardedHeader::Forwarded => ("forwarded", "for=192.0.2.1"),
            };
            let value = format!("{said}, {appended}");
            let found = asked(&[(name, value.as_bytes())], which);
            prop_assert_eq!(found, ("192.0.2.1".to_owned(), false, Forwarded::Used));
        }
    }
}
