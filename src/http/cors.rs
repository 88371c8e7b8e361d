//! Cross-origin requests to the REST API: what a page of a listed origin may do, and when a request that carries
//! nothing but what the browser attached by itself is a forgery.
//!
//! Refuses to know: WebSocket handshakes, which browsers do not hold to CORS.

use warp::{
    http::{HeaderValue, Method, StatusCode, header},
    reply::Response,
};

use super::{
    Settings,
    credentials::Credential,
    head::Head,
    origin::{Allowed, OriginPolicy},
    problem::HttpError,
    upgrade::origin_error,
};

/// How long a browser may remember a preflight, in seconds.
const PREFLIGHT_MAX_AGE: &str = "600";

/// What a page may send along; what it may read besides the simple headers.
const ALLOWED_HEADERS: &str = "authorization, content-type, last-event-id";
const EXPOSED_HEADERS: &str = "retry-after, www-authenticate";

/// The token of a REST request, unless another site made the browser send it.
///
/// A request with a token of its own needs no origin. One that lives on the cookie, or on nothing where no token is
/// needed, must come from an allowed one. Without an `Origin`, which browsers send with every `POST`, a cookie changes
/// nothing, and what the browser itself calls a request of another site (`Sec-Fetch-Site`: an image, a script, a link) gets
/// nothing. These two are all that a browser could attach here by itself: passwords of `Basic` are never read, and no
/// listener asks for a client's certificate.
///
/// # Errors
/// 403.
pub(super) fn credential(settings: &Settings, head: &Head, needs_token: bool) -> Result<Credential, HttpError> {
    let origin = head.origin();
    let allowed = origin.as_deref().map(|origin| settings.origins.check(Some(origin), head.host().as_deref()));
    let credential = Credential::of(head, settings, allowed != Some(Ok(Allowed::Anyone)));
    let lets_in_by_itself = credential.ambient && (credential.token.is_some() || !needs_token);
    let forged = lets_in_by_itself
        && match allowed {
            Some(allowed) => allowed.is_err(),
            None => (credential.token.is_some() && !is_safe(&head.method)) || is_of_another_site(head),
        };
    // A page of any site could have its visitor's browser offer tokens in addresses until the visitor is banned.
    let in_address = head.headers.get(header::AUTHORIZATION).is_none() && head.option("token").is_some();
    let is_planted = in_address && allowed.map_or_else(|| is_of_another_site(head), |allowed| allowed.is_err());
    if forged || is_planted { Err(origin_error()) } else { Ok(credential) }
}

/// As the browser says it, which pages cannot forge. Older browsers and programs say nothing; `none` is somebody who typed
/// the address.
fn is_of_another_site(head: &Head) -> bool {
    let site = head.headers.get("sec-fetch-site");
    site.is_some_and(|site| !["same-origin", "none"].iter().any(|own| site.as_bytes() == own.as_bytes()))
}

fn is_safe(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

/// The answer to `OPTIONS`: 204, and leave to ask if the origin is listed.
pub(super) fn preflight(allow: &'static str) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(allow));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_MAX_AGE));
    response
}

/// Lets pages of listed origins read the response. Never `*` together with cookies.
pub(super) fn decorate(origins: &OriginPolicy, head: &Head, mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = head.headers.get(header::ORIGIN) else { return response };
    match origin.to_str().ok().and_then(|text| origins.listed(text)) {
        Some(Allowed::Listed) => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        Some(Allowed::Anyone) => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        Some(Allowed::Same | Allowed::Missing) | None => return response,
    }
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
    response
}

#[cfg(test)]
mod tests {
    use super::{
        super::{credentials::tests::settings, head::tests},
        *,
    };

    const LISTED: &str = "https://app.test";

    fn policy(patterns: &[&str]) -> OriginPolicy {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        OriginPolicy::new(&patterns, false).unwrap()
    }

    #[test]
    fn a_token_in_an_address_that_a_page_of_another_site_had_fetched_is_not_looked_at() {
        let settings = Settings { origins: policy(&[LISTED]), ..settings() };
        for (headers, allowed) in [
            (&[][..], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "cross-site"), ("origin", LISTED)], true),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.test")], false),
            // What browsers say of a service without TLS.
            (&[("origin", "https://evil.test")], false),
        ] {
            let head = tests::head("token=t", headers);
            assert_eq!(credential(&settings, &head, true).is_ok(), allowed, "{headers:?}");
        }
    }

    #[test]
    fn a_cookie_counts_only_from_where_it_may_come() {
        let settings = Settings { origins: policy(&[LISTED]), ..settings() };
        let cookie = ("cookie", "session=t");
        let bearer = ("authorization", "Bearer t");
        for (method, headers, allowed) in [
            (Method::GET, &[cookie][..], true),
            (Method::GET, &[cookie, ("origin", LISTED)], true),
            (Method::GET, &[cookie, ("origin", "https://evil.test")], false),
            (Method::GET, &[cookie, ("sec-fetch-site", "same-origin")], true),
            (Method::GET, &[cookie, ("sec-fetch-site", "none")], true),
            (Method::GET, &[cookie, ("sec-fetch-site", "same-site")], false),
            (Method::GET, &[cookie, ("sec-fetch-site", "cross-site")], false),
            (Method::GET, &[cookie, ("sec-fetch-site", "cross-site"), ("origin", LISTED)], true),
            (Method::GET, &[bearer, cookie, ("sec-fetch-site", "cross-site")], true),
            (Method::GET, &[bearer, ("sec-fetch-site", "cross-site")], true),
            (Method::POST, &[cookie], false),
            (Method::POST, &[("authorization", "Basic dTpw"), cookie], false),
            (Method::POST, &[cookie, ("origin", LISTED)], true),
            (Method::POST, &[cookie, ("origin", "https://evil.test")], false),
            (Method::POST, &[cookie, ("origin", "null")], false),
            (Method::POST, &[bearer], true),
            (Method::POST, &[bearer, ("origin", "https://evil.test")], true),
            (Method::POST, &[bearer, cookie, ("origin", "https://evil.test")], true),
            // Without any token the answer is 401, from wherever it comes.
            (Method::POST, &[("origin", "https://evil.test")], true),
        ] {
            let head = Head { method, ..tests::head("", headers) };
            assert_eq!(credential(&settings, &head, true).is_ok(), allowed, "{headers:?} {head:?}");
        }
    }

    #[test]
    fn where_no_token_is_needed_other_sites_are_still_kept_out() {
        let post = |headers| Head { method: Method::POST, ..tests::head("", headers) };
        let own = post(&[("origin", "http://localhost:6161"), ("host", "localhost:6161")]);
        let foreign = post(&[("origin", "https://evil.test"), ("host", "localhost:6161")]);
        assert!(credential(&settings(), &own, false).is_ok());
        assert!(credential(&settings(), &post(&[]), false).is_ok());
        assert_eq!(credential(&settings(), &foreign, false).unwrap_err().status(), 403);
        let image = tests::head("", &[("sec-fetch-site", "cross-site"), ("host", "localhost:6161")]);
        assert_eq!(credential(&settings(), &image, false).unwrap_err().status(), 403);
    }

    #[test]
    fn the_star_shows_answers_to_everybody_but_never_with_the_cookie() {
        let settings = Settings { origins: policy(&["*"]), ..settings() };
        let head = tests::head("", &[("cookie", "session=t"), ("origin", "https://evil.test")]);
        assert_eq!(credential(&settings, &head, true).unwrap().token, None);
        let response = decorate(&settings.origins, &head, Response::default());
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!response.headers().contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }

    #[test]
    fn only_listed_origins_may_read_and_caches_are_told_so() {
        for (origin, readable) in [(LISTED, true), ("https://evil.test", false), ("null", false)] {
            let head = tests::head("", &[("origin", origin), ("host", "localhost")]);
            let response = decorate(&policy(&[LISTED]), &head, preflight("POST, OPTIONS"));
            let allowed = response.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            assert_eq!(allowed.map(HeaderValue::as_bytes), readable.then_some(origin.as_bytes()));
            assert_eq!(response.headers()[header::VARY], "Origin");
            assert_eq!(response.status(), 204);
        }
    }
}
