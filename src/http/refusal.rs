//! What is said to those who are over a limit, or not welcome.
//!
//! Refuses to know: who that is.

use std::{future, io, pin::pin, sync::Arc, time::Duration};

use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use warp::{
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    reply::Response,
};

use super::{
    OriginPolicy, cors, event_stream,
    handshake::Handshakes,
    head::Head,
    problem::{HttpError, http1},
};
use crate::limits::{Limit, Refusal};

/// Refusals that are said at the same time; other connections are just closed.
const REFUSALS_MAX: usize = 64;

/// How long a refused connection may take to say from where it comes, and how much of it is read.
const HEAD_PATIENCE: Duration = Duration::from_millis(500);
const HEAD_MAX_BYTES: usize = 8 * 1024;

/// A place that was taken for a TLS handshake is free again after this time.
const TLS_PAUSE: Duration = Duration::from_secs(1);

/// How long a refused connection may take to read its refusal.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The connection ends with it: it is cheaper to refuse the next one at the door.
pub(super) fn of(refusal: Refusal) -> HttpError {
    let Some(wait) = refusal.retry_after else {
        let detail = "This service does not answer to the network that the request comes from.";
        return HttpError::new(StatusCode::FORBIDDEN, "network-refused", "The network is not allowed", detail)
            .with_header(header::CONNECTION, HeaderValue::from_static("close"));
    };
    if refusal.limit == Limit::Connections {
        let detail = "The limit of connections is reached; try again.";
        return HttpError::new(StatusCode::SERVICE_UNAVAILABLE, "over-capacity", "The service is full", detail)
            .with_retry_after_seconds(seconds(wait));
    }
    let detail = match refusal.limit {
        Limit::FailedAuthenticationsPerIp => {
            "Too many tokens from this address were refused; nothing from it is heard for a while."
        }
        Limit::ConnectionsPerIp => "There are too many connections from this address.",
        Limit::ConnectionsPerUser => "This user has as many connections as one may have.",
        Limit::ConnectionsPerLink => "This link is open as often as one may be.",
        Limit::HandshakesPerUser => "This user connects too often.",
        Limit::RequestsPerIp => "There were too many requests from this address.",
        Limit::RequestsPerUser => "There were too many requests by this user.",
        Limit::UnreadListsPerIp => "There are too many lists that were asked for from this address and are not read.",
        Limit::UnreadListsPerUser => "There are too many lists that this user asked for and has not read.",
        Limit::EventsPerToken => "There were too many events with this token; none of these was published.",
        _ => "There were too many attempts from this address.",
    };
    HttpError::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests", detail)
        .with_member("limit", json!(refusal.limit.as_str()))
        .with_retry_after_seconds(seconds(wait))
}

/// What all refusals of a listener share.
pub(super) struct Refusals {
    origins: OriginPolicy,
    places: Arc<Semaphore>,
}

impl Refusals {
    pub fn new(origins: OriginPolicy) -> Self {
        Self { origins, places: Arc::new(Semaphore::new(REFUSALS_MAX)) }
    }

    /// A place among those who are told; `None`: just close it.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    /// What is said to a request. A page of a listed origin can read it: without these headers all that it could tell its user
    /// is that there is "a network error". So its preflight is answered, which tells it nothing.
    pub fn response(&self, refused: Refusal, method: &Method, path: &str, headers: &HeaderMap) -> Response {
        let asked = Head::of_refused(method.clone(), path, headers);
        let response = if asked.is_preflight() { preflight() } else { event_stream::refuse(&asked, of(refused)) };
        cors::decorate(&self.origins, &asked, response)
    }

    /// Says why on a connection that was never given to hyper, to whatever request it brings within a moment.
    pub async fn say(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, refused: Refusal) {
        let telling = async {
            let asked = timeout(HEAD_PATIENCE, asked(&mut stream)).await.ok().flatten();
            let text = self.text(refused, asked.as_ref());
            write(stream, &text).await
        };
        // A peer that does not even read its refusal is no loss.
        let _ = timeout(REFUSAL_TIMEOUT, telling).await;
    }

    /// The same inside TLS. A handshake is what a refusal is to save, so there are no more of them than places in each
    /// [`TLS_PAUSE`], and they take turns with those of everybody else.
    pub async fn say_over_tls(&self, tls: &Handshakes, turns: &Semaphore, stream: TcpStream, refused: Refusal) {
        let telling = async {
            let mut first_byte = [0];
            if !matches!(stream.peek(&mut first_byte).await, Ok(1..)) {
                return;
            }
            if let Some(stream) = tls.shake_hands(stream, first_byte[0], turns, pin!(future::pending())).await {
                self.say(stream, refused).await;
            }
        };
        let _ = tokio::join!(timeout(REFUSAL_TIMEOUT, telling), sleep(TLS_PAUSE));
    }

    fn text(&self, refused: Refusal, asked: Option<&Head>) -> String {
        let error = of(refused);
        let Some(asked) = asked else { return error.into_http1(&HeaderMap::new()) };
        let (blank, body) = if asked.is_preflight() {
            (preflight(), Some(String::new()))
        } else {
            event_stream::passing(asked, &error).map(|(head, body)| (head, Some(body))).unwrap_or_default()
        };
        let (parts, _) = cors::decorate(&self.origins, asked, blank).into_parts();
        let Some(body) = body else { return error.into_http1(&parts.headers) };
        let headers = parts.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        http1(parts.status, headers, &body)
    }
}

fn preflight() -> Response {
    let mut response = cors::preflight("GET, HEAD, POST, OPTIONS");
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

impl Head {
    /// What CORS wants to know of a request that is refused whatever it is, and whether it asks for an event stream.
    fn of_refused(method: Method, path: &str, headers: &HeaderMap) -> Self {
        let is_stream = method == Method::GET && path.starts_with(event_stream::PATHS);
        let accept = is_stream.then_some(header::ACCEPT);
        let wanted = [header::ORIGIN, header::ACCESS_CONTROL_REQUEST_METHOD].into_iter().chain(accept);
        let wanted = wanted.into_iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
        Self { method, query: String::new(), headers: wanted.collect(), client: None }
    }

    fn is_preflight(&self) -> bool {
        let names = [header::ORIGIN, header::ACCESS_CONTROL_REQUEST_METHOD];
        self.method == Method::OPTIONS && names.iter().all(|name| self.headers.contains_key(name))
    }
}

/// Reads the head of a request, if it is there and no longer than one of a browser.
async fn asked(stream: &mut (impl AsyncRead + Unpin)) -> Option<Head> {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut bytes = [0; 1024];
        let read = stream.read(&mut bytes).await.ok()?;
        head.extend_from_slice(bytes.get(..read).filter(|bytes| !bytes.is_empty())?);
        if head.len() > HEAD_MAX_BYTES {
            return None;
        }
    }
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut first = lines.next()?.split(|byte| *byte == b' ');
    let method = Method::from_bytes(first.next()?).ok()?;
    let path = String::from_utf8_lossy(first.next().unwrap_or_default());
    let mut headers = HeaderMap::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else { continue };
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.trim_ascii())) {
            headers.append(name, value);
        }
    }
    Some(Head::of_refused(method, &path, &headers))
}

/// Reading what the peer sent comes first of closing, or the kernel would answer it with a reset that overtakes what was
/// said.
async fn write(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut unread = [0; 512];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

/// Whole ones, and never too few.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_over_a_limit_hears_which_and_when_to_come_back() {
        let refusal = Refusal { limit: Limit::HandshakesPerIp, retry_after: Some(Duration::from_millis(1_001)) };
        let text = of(refusal).into_http1(&HeaderMap::new());
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{head}");
        assert!(head.contains("\r\nretry-after: 2\r\n") && head.contains("connection: close"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["type"], "urn:taskcast:problem:too-many-requests");
        assert_eq!(problem["limit"], "handshakes_per_minute_per_ip");
    }

    #[test]
    fn who_is_not_welcome_is_not_told_when_to_come_back() {
        let text = of(Refusal { limit: Limit::Networks, retry_after: None }).into_http1(&HeaderMap::new());
        assert!(text.starts_with("HTTP/1.1 403 Forbidden\r\n") && !text.contains("retry-after"), "{text}");
    }

    #[test]
    fn a_wait_is_rounded_up() {
        let milliseconds = [0, 1, 999, 1_000, 1_001].map(|ms| seconds(Duration::from_millis(ms)));
        assert_eq!(milliseconds, [0, 1, 1, 1, 2]);
    }

    const LISTED: &str = "https://app.test";

    fn refusals() -> Refusals {
        Refusals::new(OriginPolicy::new(&[LISTED.to_owned()], false).unwrap())
    }

    const DENIED: Refusal = Refusal { limit: Limit::Networks, retry_after: None };

    /// All that is said to somebody who sends this.
    async fn said_to(bytes: &[u8]) -> String {
        said_of(DENIED, bytes).await
    }

    async fn said_of(refused: Refusal, bytes: &[u8]) -> String {
        let (mut near, far) = tokio::io::duplex(64 * 1024);
        near.write_all(bytes).await.unwrap();
        let mut answer = String::new();
        let hearing = async {
            near.read_to_string(&mut answer).await.unwrap();
            drop(near);
        };
        let refusals = refusals();
        tokio::join!(refusals.say(far, refused), hearing);
        answer
    }

    #[tokio::test]
    async fn a_page_of_a_listed_origin_can_read_why_it_is_refused_and_others_cannot() {
        for (origin, may) in [(LISTED, true), ("https://evil.test", false), ("null", false)] {
            let answer =
                said_to(format!("GET /api/v1/tasks HTTP/1.1\r\nHost: x\r\norigin: {origin}\r\n\r\n").as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with('}'), "{answer}");
            assert_eq!(answer.contains(&format!("access-control-allow-origin: {LISTED}\r\n")), may, "{answer}");
            assert!(answer.contains("\r\nvary: Origin\r\n"), "{answer}");
            let preflight = format!(
                "OPTIONS /api/v1/tasks HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: GET\r\n\r\n"
            );
            let answer = said_to(preflight.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 204 ") && answer.ends_with("\r\n\r\n"), "{answer}");
            assert_eq!(answer.contains(&format!("access-control-allow-origin: {LISTED}\r\n")), may, "{answer}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        }
    }

    #[tokio::test]
    async fn an_event_source_is_told_in_a_stream_what_passes_and_others_by_the_status() {
        let refused = |limit, seconds: Option<u64>| Refusal { limit, retry_after: seconds.map(Duration::from_secs) };
        let banned = refused(Limit::FailedAuthenticationsPerIp, Some(60));
        let full = refused(Limit::Connections, Some(2));
        let stream = "text/event-stream";
        for (refused, line, accept, status, said) in [
            (banned, "GET /events/tasks", stream, 200, "LIMIT_REACHED"),
            (full, "GET /events/tasks/t1/?cursor=1", stream, 200, "UNAVAILABLE"),
            (DENIED, "GET /events/tasks", stream, 403, "network-refused"),
            (banned, "GET /events/tasks", "*/*", 429, "too-many-requests"),
            (banned, "GET /api/v1/tasks", stream, 429, "too-many-requests"),
            (banned, "POST /events/tasks", stream, 429, "too-many-requests"),
        ] {
            let request = format!("{line} HTTP/1.1\r\nHost: x\r\nOrigin: {LISTED}\r\nAccept: {accept}\r\n\r\n");
            let answer = said_of(refused, request.as_bytes()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(said), "{line} {answer}");
            assert!(answer.contains(&format!("access-control-allow-origin: {LISTED}\r\n")), "{answer}");
            assert_eq!(answer.contains("\r\ncontent-type: text/event-stream\r\n"), status == 200, "{answer}");
            assert_eq!(answer.contains("\r\n\r\nretry: "), status == 200, "{answer}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
            // The same on a connection that was let in.
            let (method, path) = line.split_once(' ').unwrap();
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            let response = refusals().response(refused, &method.parse().unwrap(), path, &headers);
            assert_eq!(response.status(), status, "{line}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_a_refused_connection_brings_or_not_it_is_told_and_closed() {
        let long =
            [b"GET / HTTP/1.1\r\nOrigin: https://app.test\r\nX: ".to_vec(), vec![b'x'; 2 * HEAD_MAX_BYTES]].concat();
        for bytes in [&b""[..], b"GET / HTTP/1.1\r\nOrigin: https://app.te", b"\0\xff\r\n\r\n", b" : \r\n\r\n", &long] {
            let answer = said_to(bytes).await;
            assert!(answer.starts_with("HTTP/1.1 403 ") && !answer.contains("access-control"), "{answer}");
        }
    }
}
