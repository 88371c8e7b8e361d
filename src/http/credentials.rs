//! Where a request may carry its token, and in which order the places are looked at: `Authorization: Bearer`, the
//! WebSocket subprotocols, the configured cookie, `?token=`. An empty one counts as none.
//!
//! Also which subprotocol is answered, because the token may stand among them and must never be the answer.
//!
//! Refuses to know: whether the token is any good.

use std::fmt;

use warp::http::header;

use super::{Settings, head::Head};
use crate::proto::Encoding;

/// A token and where it was.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credential {
    pub token: Option<String>,
    /// The browser attaches it by itself, whichever page asks: it proves nothing without the `Origin`.
    pub ambient: bool,
}

/// Says whether there is a token, not which.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("ambient", &self.ambient)
            .finish()
    }
}

/// What the client offered in `Sec-WebSocket-Protocol`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subprotocols<'a> {
    token: Option<&'a str>,
    /// The one to answer with; `None` when none was offered that may be said aloud.
    pub selected: Option<&'static str>,
}

const JSON: &str = "taskcast.v1.json";
const PROTOBUF: &str = "taskcast.v1.proto";
/// `['access_token', jwt]`: the token is the member after this one.
const ACCESS_TOKEN: &str = "access_token";
/// `bearer.<jwt>`, `access_token.<jwt>`, in any case.
const TOKEN_PREFIXES: [&str; 2] = ["bearer.", "access_token."];

impl<'a> Subprotocols<'a> {
    pub fn of(head: &'a Head) -> Self {
        let mut found = Self::default();
        let mut pair_label = false;
        let mut next_is_token = false;
        for member in head.list(&header::SEC_WEBSOCKET_PROTOCOL) {
            let known = [JSON, PROTOBUF].into_iter().find(|&known| known == member);
            if let Some(known) = known {
                found.selected.get_or_insert(known);
            } else if member == ACCESS_TOKEN {
                pair_label = true;
                next_is_token = true;
                continue;
            } else if let Some(token) = after_prefix(member) {
                found.token.get_or_insert(token);
            } else if next_is_token {
                found.token.get_or_insert(member);
            }
            next_is_token = false;
        }
        if pair_label {
            found.selected.get_or_insert(ACCESS_TOKEN);
        }
        found
    }

    pub fn encoding(&self) -> Encoding {
        if self.selected == Some(PROTOBUF) { Encoding::Protobuf } else { Encoding::Json }
    }
}

fn after_prefix(member: &str) -> Option<&str> {
    TOKEN_PREFIXES.iter().find_map(|prefix| {
        let (head, token) = member.split_at_checked(prefix.len())?;
        (head.eq_ignore_ascii_case(prefix) && !token.is_empty()).then_some(token)
    })
}

impl Credential {
    /// Looks through all places. `cookie_counts` is false when the request comes from a page that may not use the
    /// cookie that the browser attached to it.
    pub fn of(head: &Head, settings: &Settings, cookie_counts: bool) -> Self {
        let brought = bearer(head).or_else(|| Subprotocols::of(head).token);
        if let Some(token) = brought {
            return Self { token: Some(token.to_owned()), ambient: false };
        }
        let name = settings.cookie.as_deref().filter(|_| cookie_counts);
        if let Some(token) = name.and_then(|name| cookie(head, name)) {
            return Self { token: Some(token.to_owned()), ambient: true };
        }
        let query = head.option("token").filter(|_| settings.query_token);
        // Without a token the caller may still be let in, where none is needed; then any page could use that.
        Self { ambient: query.is_none(), token: query.map(std::borrow::Cow::into_owned) }
    }
}

pub(super) fn bearer(head: &Head) -> Option<&str> {
    head.headers.get_all(header::AUTHORIZATION).iter().find_map(|value| {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
    })
}

fn cookie<'a>(head: &'a Head, name: &str) -> Option<&'a str> {
    let lines = head.headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(';')).find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (key.trim() == name && !value.is_empty()).then_some(value)
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::{super::head::tests::head, *};
    use crate::http::OriginPolicy;

    /// Settings for tests of any module of `http`: `?token=` and the cookie `session` are read.
    pub fn settings() -> Settings {
        Settings {
            origins: OriginPolicy::default(),
            query_token: true,
            cookie: Some("session".to_owned()),
            connections_max: 10,
            trusted_proxies: crate::limits::Networks::default(),
            forwarded_header: crate::http::ForwardedHeader::default(),
            proxy_protocol: false,
            header_max_bytes: 65_536,
            header_timeout: Duration::from_secs(5),
            keep_alive_timeout: Duration::from_secs(5),
            body_max_bytes: 1000,
            events_per_request_max: 3,
            local_hosts_only: false,
            page_token: None,
        }
    }

    const PROTOCOL: &str = "sec-websocket-protocol";

    #[test]
    fn a_token_is_found_in_every_place() {
        for (query, headers, token) in [
            ("", &[("authorization", "Bearer t")][..], Some("t")),
            ("", &[("authorization", "bEARER   t ")], Some("t")),
            ("", &[("authorization", "Basic t")], None),
            ("", &[("authorization", "Bearer ")], None),
            ("", &[("authorization", "Bearer")], None),
            ("", &[(PROTOCOL, "taskcast.v1.json, bearer.t")], Some("t")),
            ("", &[(PROTOCOL, "bearer.t, taskcast.v1.json")], Some("t")),
            ("", &[(PROTOCOL, "Bearer.a.b.c")], Some("a.b.c")),
            ("", &[(PROTOCOL, "access_token, a.b.c")], Some("a.b.c")),
            ("", &[(PROTOCOL, "access_token.a.b.c")], Some("a.b.c")),
            ("", &[(PROTOCOL, "access_token"), (PROTOCOL, "a.b.c")], Some("a.b.c")),
            ("", &[(PROTOCOL, "access_token, taskcast.v1.json")], None),
            ("", &[(PROTOCOL, "access_token")], None),
            ("", &[(PROTOCOL, "bearer.")], None),
            ("", &[(PROTOCOL, "graphql-ws, soap")], None),
            ("", &[("cookie", "a=b; session=t; c=d")], Some("t")),
            ("", &[("cookie", "a=b"), ("cookie", "session=\"t\"")], Some("t")),
            ("", &[("cookie", "xsession=t; session=")], None),
            ("token=t", &[], Some("t")),
            ("a=b&token=a%2Eb%3D&c", &[], Some("a.b=")),
            ("token=", &[], None),
            ("token=&token=t", &[], Some("t")),
            ("xtoken=t", &[], None),
            ("", &[], None),
        ] {
            let found = Credential::of(&head(query, headers), &settings(), true);
            assert_eq!(found.token.as_deref(), token, "{query} {headers:?}");
        }
    }

    #[test]
    fn the_places_have_an_order() {
        let all = [("cookie", "session=3"), (PROTOCOL, "bearer.2"), ("authorization", "Bearer 1")];
        for (places, token) in [(&all[..], "1"), (&all[..2], "2"), (&all[..1], "3"), (&[], "4")] {
            let found = Credential::of(&head("token=4", places), &settings(), true);
            assert_eq!(found.token.as_deref(), Some(token));
            assert_eq!(found.ambient, token == "3");
        }
    }

    #[test]
    fn places_can_be_closed() {
        let closed = Settings { query_token: false, cookie: None, ..settings() };
        let found = Credential::of(&head("token=4", &[("cookie", "session=3")]), &closed, true);
        assert_eq!(found, Credential { token: None, ambient: true });
        let found = Credential::of(&head("token=4", &[("cookie", "session=3")]), &settings(), false);
        assert_eq!(found.token.as_deref(), Some("4"));
    }

    #[test]
    fn only_an_offered_protocol_that_is_no_token_is_answered() {
        for (offered, selected, encoding) in [
            ("taskcast.v1.json, bearer.t", Some(JSON), Encoding::Json),
            ("bearer.t, taskcast.v1.proto", Some(PROTOBUF), Encoding::Protobuf),
            ("taskcast.v1.proto, taskcast.v1.json", Some(PROTOBUF), Encoding::Protobuf),
            ("access_token, t", Some(ACCESS_TOKEN), Encoding::Json),
            ("access_token, t, taskcast.v1.proto", Some(PROTOBUF), Encoding::Protobuf),
            ("bearer.t", None, Encoding::Json),
            ("access_token.t", None, Encoding::Json),
            ("TASKCAST.V1.JSON", None, Encoding::Json),
            ("soap", None, Encoding::Json),
        ] {
            let head = head("", &[(PROTOCOL, offered)]);
            let found = Subprotocols::of(&head);
            assert_eq!((found.selected, found.encoding()), (selected, encoding), "{offered}");
        }
        assert_eq!(Subprotocols::of(&head("", &[])).selected, None);
    }
}
