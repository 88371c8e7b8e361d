//! The page at `/`: live bars of the caller's tasks over the real WebSocket. A few embedded files without
//! any dependency.
//!
//! Refuses to know: what is on it.

use warp::{
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    reply::Response,
};

use super::{
    Settings,
    head::Head,
    origin,
    problem::{HttpError, respond},
};

/// One embedded file.
pub(super) struct Asset {
    content_type: &'static str,
    content: &'static str,
}

pub(super) const INDEX: Asset = Asset::html(include_str!("page/index.html"));
pub(super) const APP: Asset = Asset::script(include_str!("page/app.js"));
pub(super) const TASKS: Asset = Asset::script(include_str!("page/tasks.js"));
pub(super) const TOKEN: Asset = Asset::script(include_str!("page/token.js"));
/// The browser client, as `clients/js` builds it.
pub(super) const CLIENT: Asset = Asset::script(include_str!("../../clients/js/dist/client.js"));
/// Colours and type, of `/docs/` too.
pub(super) const THEME: Asset = Asset::style(include_str!("page/theme.css"));
pub(super) const STYLE: Asset = Asset::style(include_str!("page/style.css"));

impl Asset {
    pub const fn html(content: &'static str) -> Self {
        Self { content_type: "text/html; charset=utf-8", content }
    }

    pub const fn style(content: &'static str) -> Self {
        Self { content_type: "text/css; charset=utf-8", content }
    }

    pub const fn script(content: &'static str) -> Self {
        Self { content_type: "text/javascript; charset=utf-8", content }
    }

    pub const fn json(content: &'static str) -> Self {
        Self { content_type: "application/json", content }
    }
}

/// Own files only, no inline script, no frame around it; and no script can make markup of text, the page's own included
/// (Trusted Types). What it connects to stands before it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                                       base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                                       require-trusted-types-for 'script'; trusted-types 'none'";

/// The policy for a page that was asked for like this: it connects to where it came from. That host is named besides,
/// because older browsers do not count a WebSocket to it as `'self'`; `ws:` alone would let what a stranger got to run
/// send what it sees to anybody.
fn content_security_policy(head: &Head) -> String {
    let own = origin::authority(head.host().as_deref());
    let own = own.map_or(String::new(), |host| format!(" ws://{host} wss://{host}"));
    format!("connect-src 'self'{own}; {CONTENT_SECURITY_POLICY}")
}

/// Answers with an embedded file, or with 304 when the browser has it.
///
/// # Errors
/// 405 for anything but `GET` and `HEAD`.
pub(super) fn asset(head: &Head, asset: &Asset) -> Result<Response, HttpError> {
    if ![Method::GET, Method::HEAD].contains(&head.method) {
        return Err(HttpError::method_not_allowed("GET, HEAD"));
    }
    let tag = format!("\"{:08x}\"", crc32fast::hash(asset.content.as_bytes()));
    let known = head.list(&header::IF_NONE_MATCH).any(|held| held == "*" || held.trim_start_matches("W/") == tag);
    let mut response = if known {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        respond(StatusCode::OK, asset.content_type, asset.content)
    };
    let headers = response.headers_mut();
    for (name, value) in [
        // Kept, but asked for again each time: a rollout must not leave an old script talking to a new service.
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in [(header::ETAG, tag), (header::CONTENT_SECURITY_POLICY, content_security_policy(head))] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    Ok(response)
}

/// Answers with a file that pages of any site may load: it holds nothing of anybody, and no cookie changes it.
///
/// # Errors
/// As [`asset`].
pub(super) fn shared(head: &Head, file: &Asset) -> Result<Response, HttpError> {
    let mut response = asset(head, file)?;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("cross-origin"));
    Ok(response)
}

/// The page itself; in the demo it hands out the token as a cookie.
///
/// # Errors
/// As [`asset`].
pub(super) fn index(settings: &Settings, head: &Head) -> Result<Response, HttpError> {
    let mut response = asset(head, &INDEX)?;
    if let (Some(token), Some(cookie)) = (&settings.page_token, &settings.cookie) {
        let value = format!("{cookie}={token}; Path=/; HttpOnly; SameSite=Strict");
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(header::SET_COOKIE, value);
            // Not to be kept with somebody's token in it.
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        } else {
            tracing::error!("the page's token cannot be put into a cookie");
        }
    }
    Ok(response)
}

/// For browsers that ask for an icon whatever the page says.
pub(super) fn no_icon() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

#[cfg(test)]
mod tests {
    use super::{
        super::{credentials::tests::settings, head::tests},
        *,
    };

    #[test]
    fn a_file_that_the_browser_has_is_not_sent_again() {
        let first = asset(&tests::head("", &[]), &APP).unwrap();
        assert_eq!(first.status(), 200);
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        for held in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let again = asset(&tests::head("", &[("if-none-match", held.as_str())]), &APP).unwrap();
            assert_eq!(again.status(), 304, "{held}");
            assert_eq!(again.headers()[header::ETAG], tag.as_str());
        }
        assert_eq!(asset(&tests::head("", &[("if-none-match", "\"x\"")]), &APP).unwrap().status(), 200);
    }

    #[test]
    fn the_client_may_be_loaded_by_pages_of_other_sites_and_the_page_by_none() {
        let response = shared(&tests::head("", &[("origin", "https://elsewhere.test")]), &CLIENT).unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/javascript; charset=utf-8");
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(response.headers()["cross-origin-resource-policy"], "cross-origin");
        assert!(response.headers().contains_key(header::ETAG));
        let page = index(&settings(), &tests::head("", &[])).unwrap();
        assert_eq!(page.headers()["cross-origin-resource-policy"], "same-origin");
        assert!(!page.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    }

    #[test]
    fn the_page_runs_only_its_own_files_and_in_no_frame() {
        let response = index(&settings(), &tests::head("", &[])).unwrap();
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("script-src 'self';") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(policy.contains("require-trusted-types-for 'script'") && !policy.contains("unsafe"), "{policy}");
        assert!(!INDEX.content.contains("style=") && !INDEX.content.contains("onclick="));
        assert_eq!(response.headers()[header::REFERRER_POLICY], "no-referrer");
        assert!(!response.headers().contains_key(header::SET_COOKIE));
    }

    #[test]
    fn the_page_connects_to_where_it_came_from_and_nowhere_else() {
        for (host, expected) in [
            (None, "connect-src 'self'; "),
            (Some("Tasks.example.com"), "connect-src 'self' ws://tasks.example.com wss://tasks.example.com; "),
            (Some("localhost:6161"), "connect-src 'self' ws://localhost:6161 wss://localhost:6161; "),
            (Some("[::1]:6161"), "connect-src 'self' ws://[::1]:6161 wss://[::1]:6161; "),
            (Some("a.test; script-src *"), "connect-src 'self'; "),
            (Some("a.test;script-src *"), "connect-src 'self'; "),
            (Some("a.test, b.test"), "connect-src 'self'; "),
            (Some("*"), "connect-src 'self'; "),
            (Some("*.test"), "connect-src 'self'; "),
        ] {
            let headers: Vec<_> = host.map(|host| ("host", host)).into_iter().collect();
            let policy = content_security_policy(&tests::head("", &headers));
            assert!(policy.starts_with(expected), "{host:?}: {policy}");
        }
    }

    #[test]
    fn the_demo_hands_out_its_token_as_a_cookie_that_scripts_and_other_sites_cannot_use() {
        let demo = Settings { page_token: Some("a.b.c".to_owned()), ..settings() };
        let response = index(&demo, &tests::head("", &[])).unwrap();
        assert_eq!(response.headers()[header::SET_COOKIE], "session=a.b.c; Path=/; HttpOnly; SameSite=Strict");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    }
}
