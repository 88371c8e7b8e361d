//! How a request is refused: RFC 9457 problem details, one shape for every error of every route.
//!
//! Refuses to know: which route it was.

use serde_json::{Map, Value, json};
use warp::{
    Rejection,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    reply::Response,
};

use super::RETRY_AFTER_SECONDS;

/// A refusal. Boxed, because results carry it through every handler.
#[derive(Debug)]
pub(super) struct HttpError(Box<Problem>);

#[derive(Debug)]
struct Problem {
    status: StatusCode,
    /// The last part of `type`; stable, for programs.
    name: &'static str,
    title: &'static str,
    detail: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    members: Map<String, Value>,
}

impl HttpError {
    /// `name` ends the `type`, which programs compare; `title` is the same for each occurrence, `detail` is about this
    /// one. Neither may hold a secret.
    pub fn new(status: StatusCode, name: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let (headers, members) = (Vec::new(), Map::new());
        Self(Box::new(Problem { status, name, title, detail: detail.into(), headers, members }))
    }

    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    #[must_use]
    pub fn with_member(mut self, name: &str, value: Value) -> Self {
        self.0.members.insert(name.to_owned(), value);
        self
    }

    /// Says when to come back, and that this connection is not the one to do it on.
    #[must_use]
    pub fn with_retry_after(self) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS))
            .with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// As [`HttpError::with_retry_after`], with a time of its own.
    #[must_use]
    pub fn with_retry_after_seconds(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
            .with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request cannot be understood", detail)
    }

    /// A query option that is known, with a value that is not.
    pub fn bad_option(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-option", "A query option has an impossible value", detail)
            .with_member("option", json!(name))
    }

    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here", "Nothing is found under this address.")
    }

    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "The method is not allowed here",
            format!("This address answers to {allow}."),
        )
        .with_header(header::ALLOW, HeaderValue::from_static(allow))
    }

    /// Memory is short.
    pub fn overloaded() -> Self {
        let detail = "This replica is short of memory and takes nothing new; try again.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "The service is overloaded", detail).with_retry_after()
    }

    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large", detail)
            // What is left of the body is not worth reading.
            .with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The service failed",
            "The request could not be answered because of a fault in the service.",
        )
    }

    /// What warp rejects by itself. Handlers never reject, so this is an unknown path.
    pub fn from_rejection(rejection: &Rejection) -> Self {
        if rejection.is_not_found() {
            return Self::not_found();
        }
        tracing::error!(?rejection, "a route rejected a request that it had matched");
        Self::internal()
    }

    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// What to tell a person.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// When it may be gone; `None` when it will not.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        let (_, value) = self.0.headers.iter().find(|(name, _)| *name == header::RETRY_AFTER)?;
        value.to_str().ok()?.parse().ok()
    }

    fn body(&self) -> String {
        let mut members = self.0.members.clone();
        members.insert("type".into(), json!(format!("urn:taskcast:problem:{}", self.0.name)));
        members.insert("title".into(), json!(self.0.title));
        members.insert("status".into(), json!(self.0.status.as_u16()));
        members.insert("detail".into(), json!(self.0.detail));
        Value::Object(members).to_string()
    }

    /// The whole response as it goes over the wire, with `more` headers, for a connection that ends with it.
    pub fn into_http1(self, more: &HeaderMap) -> String {
        let body = self.body();
        let own = [("content-type", "application/problem+json"), ("cache-control", "no-store")];
        let length = body.len().to_string();
        let own = own.into_iter().chain([("content-length", &*length)]);
        let headers = self.0.headers.iter().map(|(name, value)| (name, value)).chain(more);
        let headers = headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        http1(self.0.status, own.chain(headers), &body)
    }

    pub fn into_response(self) -> Response {
        let mut response = respond(self.0.status, "application/problem+json", self.body());
        for (name, value) in self.0.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

/// A response as bytes, for a connection that was never given to hyper.
pub(super) fn http1<'a>(status: StatusCode, headers: impl Iterator<Item = (&'a str, &'a str)>, body: &str) -> String {
    let mut text = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in headers {
        text.extend([name, ": ", value, "\r\n"]);
    }
    text.extend(["\r\n", body]);
    text
}

/// For browsers that are led to something which is no page: nothing in it runs, nothing shows it in a frame, no other
/// site's page gets hold of it but by CORS, and a link in it tells nobody where it was found.
const FOR_BROWSERS: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// A response that no cache keeps and no browser second-guesses.
pub(super) fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<warp::hyper::body::Bytes>,
) -> Response {
    let mut response = Response::new(body.into().into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in FOR_BROWSERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_members_of_rfc_9457_and_its_own() {
        let error = HttpError::bad_option("deliver", "`deliver` is `latest` or `every`.");
        let body: Value = serde_json::from_str(&error.body()).unwrap();
        assert_eq!(body["type"], "urn:taskcast:problem:bad-option");
        assert_eq!(body["title"], "A query option has an impossible value");
        assert_eq!(body["status"], 400);
        assert_eq!(body["detail"], "`deliver` is `latest` or `every`.");
        assert_eq!(body["option"], "deliver");
    }

    #[test]
    fn a_problem_keeps_its_headers_and_is_not_cached() {
        let response = HttpError::method_not_allowed("GET, HEAD").into_response();
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()[header::ALLOW], "GET, HEAD");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    }

    #[test]
    fn a_browser_makes_nothing_of_a_response_but_what_it_is() {
        let response = respond(StatusCode::OK, "application/json", "{}");
        for (name, value) in FOR_BROWSERS {
            assert_eq!(response.headers()[name], value);
        }
    }

    #[test]
    fn two_problems_for_the_same_reason_are_the_same_bytes() {
        assert_eq!(HttpError::not_found().body(), HttpError::not_found().body());
    }
}
