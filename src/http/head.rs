//! A request's head as the handlers see it: everything but the body, taken apart once.
//!
//! Refuses to know: what any of it means.

use std::{borrow::Cow, fmt};

use url::form_urlencoded;
use warp::http::{HeaderMap, HeaderName, Method, header};

use super::entrance::Client;

/// Method, query and headers of one request, and who makes it.
#[derive(Clone)]
pub(super) struct Head {
    pub method: Method,
    /// Raw and without the `?`. It may hold a token, so nothing ever prints it.
    pub query: String,
    pub headers: HeaderMap,
    /// `None` only where nobody stands at the door, as in tests.
    pub client: Option<Client>,
}

/// Without the query and the headers, which may hold secrets.
impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head").field("method", &self.method).finish_non_exhaustive()
    }
}

impl Head {
    /// The `Origin`; several of them, or unreadable ones, come as a text that is no origin.
    pub fn origin(&self) -> Option<Cow<'_, str>> {
        self.joined(&header::ORIGIN)
    }

    /// The `Host`.
    pub fn host(&self) -> Option<Cow<'_, str>> {
        self.joined(&header::HOST)
    }

    fn joined(&self, name: &HeaderName) -> Option<Cow<'_, str>> {
        let mut values = self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let first = values.next()?;
        Some(values.fold(first, |all, next| Cow::Owned(format!("{all}, {next}"))))
    }

    /// The query's options, decoded.
    pub fn options(&self) -> form_urlencoded::Parse<'_> {
        form_urlencoded::parse(self.query.as_bytes())
    }

    /// One query option; an empty one counts as none.
    pub fn option(&self, name: &str) -> Option<Cow<'_, str>> {
        self.options().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value)
    }

    /// The members of a comma-separated header, however many lines it came in; unreadable lines are left out.
    pub fn list(&self, name: &HeaderName) -> impl Iterator<Item = &str> {
        let lines = self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(str::trim).filter(|member| !member.is_empty())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A head for tests of any module of `http`.
    pub fn head(query: &str, headers: &[(&'static str, &str)]) -> Head {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Head { method: Method::GET, query: query.to_owned(), headers: map, client: None }
    }

    #[test]
    fn nothing_that_may_be_secret_is_printed() {
        let printed = format!("{:?}", head("token=sesame", &[("authorization", "Bearer sesame")]));
        assert!(!printed.contains("sesame"), "{printed}");
    }

    #[test]
    fn a_list_is_read_across_lines() {
        let head = head("", &[("sec-websocket-protocol", "a, b"), ("sec-websocket-protocol", ",c")]);
        let members: Vec<&str> = head.list(&header::SEC_WEBSOCKET_PROTOCOL).collect();
        assert_eq!(members, ["a", "b", "c"]);
    }

    #[test]
    fn two_origins_are_no_origin() {
        let head = head("", &[("origin", "https://a.test"), ("origin", "https://b.test")]);
        assert_eq!(head.origin().unwrap(), "https://a.test, https://b.test");
    }
}
