//! The page at `/`: live bars of the caller's tasks over the real WebSocket. A few embedded files without
//! any dependency.
//!
//! Refuses to know: what is on it.

use warp::{
    http::{HeaderValue, Method, StatusCode, header},
    reply::Response,
};

use super::{
    Settings,
    head::Head,
    problem::{HttpError, respond},
};

/// One embedded file.
pub(super) struct Asset {
    content_type: &'static str,
    content: &'static str,
}

pub(super) const INDEX: Asset =
    Asset { content_type: "text/html; charset=utf-8", content: include_str!("page/index.html") };
pub(super) const APP: Asset = script(include_str!("page/app.js"));
pub(super) const CONNECTION: Asset = script(include_str!("page/connection.js"));
pub(super) const TASKS: Asset = script(include_str!("page/tasks.js"));
pub(super) const STYLE: Asset =
    Asset { content_type: "text/css; charset=utf-8", content: include_str!("page/style.css") };

const fn script(content: &'static str) -> Asset {
    Asset { content_type: "text/javascript; charset=utf-8", content }
}

/// Own files only, no inline script, no frame around it. `ws:` and `wss:` because older browsers do not count a
/// WebSocket to the same host as `'self'`.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                                       connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; \
                                       frame-ancestors 'none'";

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
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
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
    fn the_page_runs_only_its_own_files_and_in_no_frame() {
        let response = index(&settings(), &tests::head("", &[])).unwrap();
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("script-src 'self';") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!INDEX.content.contains("style=") && !INDEX.content.contains("onclick="));
        assert_eq!(response.headers()[header::REFERRER_POLICY], "no-referrer");
        assert!(!response.headers().contains_key(header::SET_COOKIE));
    }

    #[test]
    fn the_demo_hands_out_its_token_as_a_cookie_that_scripts_and_other_sites_cannot_use() {
        let demo = Settings { page_token: Some("a.b.c".to_owned()), ..settings() };
        let response = index(&demo, &tests::head("", &[])).unwrap();
        assert_eq!(response.headers()[header::SET_COOKIE], "session=a.b.c; Path=/; HttpOnly; SameSite=Strict");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    }
}
