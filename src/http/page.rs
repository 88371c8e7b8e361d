//! The dashboard at `/`: embedded files without any dependency, compressed when the service was built.
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
    /// The same as gzip; empty where it is not worth it.
    compressed: &'static [u8],
}

/// A file of the page, with what `build.rs` made of it.
macro_rules! embedded {
    ($kind:ident $folder:literal $name:literal) => {
        Asset::$kind(include_str!(concat!($folder, "/", $name))).or_compressed(include_bytes!(concat!(
            env!("OUT_DIR"),
            "/page/",
            $name,
            ".gz"
        )))
    };
}

pub(super) use embedded;

pub(super) const INDEX: Asset = embedded!(html "page" "index.html");
/// The browser client, as `clients/js` builds it.
pub(super) const CLIENT: Asset = embedded!(script "../../clients/js/dist" "client.js");
/// Colours and type, of `/docs/` too.
pub(super) const THEME: Asset = embedded!(style "page" "theme.css");

/// What the page is made of, below `/page/`.
const FILES: &[(&str, Asset)] = &[
    ("app.js", embedded!(script "page" "app.js")),
    ("bar.js", embedded!(script "page" "bar.js")),
    ("clock.js", embedded!(script "page" "clock.js")),
    ("connection.js", embedded!(script "page" "connection.js")),
    ("dom.js", embedded!(script "page" "dom.js")),
    ("filters.js", embedded!(script "page" "filters.js")),
    ("format.js", embedded!(script "page" "format.js")),
    ("history.js", embedded!(script "page" "history.js")),
    ("list.js", embedded!(script "page" "list.js")),
    ("loading.js", embedded!(script "page" "loading.js")),
    ("model.js", embedded!(script "page" "model.js")),
    ("plot.js", embedded!(script "page" "plot.js")),
    ("route.js", embedded!(script "page" "route.js")),
    ("row.js", embedded!(script "page" "row.js")),
    ("sign-in.js", embedded!(script "page" "sign-in.js")),
    ("states.js", embedded!(script "page" "states.js")),
    ("task-page.js", embedded!(script "page" "task-page.js")),
    ("timeline.js", embedded!(script "page" "timeline.js")),
    ("token.js", embedded!(script "page" "token.js")),
    ("toolbar.js", embedded!(script "page" "toolbar.js")),
    ("trail.js", embedded!(script "page" "trail.js")),
    ("view.js", embedded!(script "page" "view.js")),
    ("frame.css", embedded!(style "page" "frame.css")),
    ("list.css", embedded!(style "page" "list.css")),
    ("task.css", embedded!(style "page" "task.css")),
];

impl Asset {
    pub const fn html(content: &'static str) -> Self {
        Self { content_type: "text/html; charset=utf-8", content, compressed: &[] }
    }

    pub const fn style(content: &'static str) -> Self {
        Self { content_type: "text/css; charset=utf-8", content, compressed: &[] }
    }

    pub const fn script(content: &'static str) -> Self {
        Self { content_type: "text/javascript; charset=utf-8", content, compressed: &[] }
    }

    pub const fn json(content: &'static str) -> Self {
        Self { content_type: "application/json", content, compressed: &[] }
    }

    pub const fn or_compressed(self, compressed: &'static [u8]) -> Self {
        Self { compressed, ..self }
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
    let is_compressed = !asset.compressed.is_empty() && accepts_gzip(head);
    // Other bytes, another tag.
    let tag =
        format!("\"{:08x}{}\"", crc32fast::hash(asset.content.as_bytes()), if is_compressed { "-gzip" } else { "" });
    let known = head.list(&header::IF_NONE_MATCH).any(|held| held == "*" || held.trim_start_matches("W/") == tag);
    let mut response = if known {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if is_compressed {
        let mut response = respond(StatusCode::OK, asset.content_type, asset.compressed);
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        respond(StatusCode::OK, asset.content_type, asset.content)
    };
    let headers = response.headers_mut();
    // In front of the origin, which some answers depend on too.
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
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

/// Whether gzip is among what the client names, and not as what it refuses (`q=0`).
fn accepts_gzip(head: &Head) -> bool {
    head.list(&header::ACCEPT_ENCODING).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        is_gzip && weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0))
    })
}

/// Answers with one of the files that the page is made of.
///
/// # Errors
/// 404 for any other name; and as [`asset`].
pub(super) fn file(head: &Head, name: &str) -> Result<Response, HttpError> {
    let found = FILES.iter().find(|(known, _)| *known == name);
    found.map_or_else(|| Err(HttpError::not_found()), |(_, file)| asset(head, file))
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
        let first = file(&tests::head("", &[]), "app.js").unwrap();
        assert_eq!(first.status(), 200);
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        for held in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let again = file(&tests::head("", &[("if-none-match", held.as_str())]), "app.js").unwrap();
            assert_eq!(again.status(), 304, "{held}");
            assert_eq!(again.headers()[header::ETAG], tag.as_str());
        }
        assert_eq!(file(&tests::head("", &[("if-none-match", "\"x\"")]), "app.js").unwrap().status(), 200);
    }

    #[test]
    fn files_are_compressed_for_those_who_take_it() {
        for (accepted, expected) in [
            ("gzip, deflate, br, zstd", true),
            ("br;q=1.0, GZIP;q=0.5", true),
            ("gzip;q=0, *", false),
            ("identity", false),
            ("", false),
        ] {
            let response = file(&tests::head("", &[("accept-encoding", accepted)]), "app.js").unwrap();
            assert_eq!(response.headers().contains_key(header::CONTENT_ENCODING), expected, "{accepted}");
            assert_eq!(response.headers()[header::VARY], "Accept-Encoding", "{accepted}");
            let is_its_own = response.headers()[header::ETAG].to_str().unwrap().contains("-gzip");
            assert_eq!(is_its_own, expected, "{accepted}");
        }
    }

    #[test]
    fn the_page_is_made_of_what_is_in_its_folder_and_names_all_of_it() {
        let mut there: Vec<_> = std::fs::read_dir("src/http/page")
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("docs.") && !["index.html", "theme.css"].contains(&name.as_str()))
            .collect();
        let mut embedded: Vec<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        there.sort();
        embedded.sort();
        assert_eq!(there, embedded);
        for name in embedded {
            assert!(INDEX.content.contains(&format!("\"page/{name}\"")), "{name} is not fetched with the page");
        }
        assert_eq!(file(&tests::head("", &[]), "docs.js").unwrap_err().status(), 404);
    }

    #[test]
    fn the_page_asks_nobody_else_for_anything() {
        for (name, Asset { content, .. }) in FILES.iter().chain(&[("index.html", INDEX), ("theme.css", THEME)]) {
            let own = content.replace("http://www.w3.org/2000/svg", "");
            assert!(!own.contains("://") && !own.contains("url(\"//"), "{name} has an address of somebody else");
        }
    }

    /// What a browser gets before it can show anything, as it comes over the line.
    #[test]
    fn the_first_paint_takes_less_than_100_kilobytes() {
        let files = FILES.iter().map(|(_, file)| file).chain(&[INDEX, CLIENT, THEME]);
        let bytes: usize = files.map(|file| file.compressed.len()).sum();
        assert!(bytes > 10_000 && bytes < 100_000, "{bytes}");
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
