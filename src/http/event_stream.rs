//! `GET /events/…`: a session as `text/event-stream`. Everything is decided before the head of the response, and said by its
//! status; then the bare socket goes to the session. The order is that of the WebSocket handshake: draining or overloaded,
//! rate, origin, options, token, and then the user's limits.
//!
//! Refuses to know: what is said in the stream.

use std::{
    fmt::Write,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use headers::{Date, HeaderMapExt};
use tokio_util::task::TaskTracker;
use warp::{
    http::{HeaderName, HeaderValue, Method, StatusCode, Version, header},
    reply::Response,
};

use super::{
    Context, Settings, cors,
    head::Head,
    lent::{Lender, Socket},
    options::Options,
    origin::Allowed,
    problem::{HttpError, respond},
    refusal, rest, socket,
    unchunked::Unchunked,
    upgrade::{self, Address, Permit},
};
use crate::{
    clock,
    limits::Place,
    metrics::Handshake,
    proto::{Encoding, ErrorCode, ServerMessage, payload, stream_event, stream_retry},
    session::{EventStream, Request, Scope, Unopened},
};

/// Where these addresses begin.
pub(super) const PATHS: &str = "/events/";

const METHODS: &str = "GET, OPTIONS";
const MEDIA_TYPE: &str = "text/event-stream";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// nginx and what is made of it keep responses back unless told so.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The socket under a request.
#[derive(Clone)]
pub(super) struct Lending {
    pub lender: Lender,
    pub version: Version,
}

/// A stream that is granted, with its places.
struct Granted {
    stream: EventStream,
    places: (Option<Permit>, Option<Place>),
}

/// Why there is no stream; and its name for the metrics, where it has one.
struct Refused(Option<Handshake>, HttpError);

impl From<HttpError> for Refused {
    fn from(error: HttpError) -> Self {
        Self(None, error)
    }
}

/// Answers one request under `/events/`.
pub(super) async fn answer(
    context: &Context,
    tracker: &TaskTracker,
    head: &Head,
    address: &Address<'_>,
    connection: (Option<Lending>, Option<Permit>),
) -> Response {
    let origins = &context.settings.origins;
    let decorated = |response| cors::decorate(origins, head, response);
    match head.method {
        Method::GET => {}
        Method::OPTIONS => return decorated(cors::preflight(METHODS)),
        _ => return decorated(HttpError::method_not_allowed(METHODS).into_response()),
    }
    let (lending, permit) = connection;
    let granted = grant(context, head, address, permit).await;
    let outcome = granted.as_ref().map_or_else(|refused| refused.0, |_| Some(Handshake::Accepted));
    if let Some(outcome) = outcome {
        context.metrics.handshake(outcome);
    }
    match granted {
        Ok(granted) => {
            let response = decorated(begin());
            if let Some(lending) = lending
                && let Some(socket) = lending.lender.take_back()
            {
                let serving =
                    serve(granted, socket, lending.version, &response, context.sessions.settings.dead_peer_timeout);
                tracker.spawn(serving);
                // hyper writes it into nowhere and is done.
                return response;
            }
            let detail = "An event stream begins when the answers to all requests before it have been read.";
            decorated(HttpError::bad_request(detail).into_response())
        }
        Err(Refused(_, error)) if error.status() == StatusCode::NO_CONTENT => decorated(nothing_to_come()),
        Err(Refused(_, error)) => decorated(refuse(head, error)),
    }
}

async fn grant(
    context: &Context,
    head: &Head,
    address: &Address<'_>,
    permit: Option<Permit>,
) -> Result<Granted, Refused> {
    let now = clock::now();
    let place = head.client.map_or(Ok(None), |client| client.handshake(&context.limits, now));
    let place = place.map_err(|refused| Refused(Some(Handshake::Limited), refusal::of(refused)))?;
    if context.draining.is_cancelled() {
        return Err(Refused(Some(Handshake::Draining), upgrade::draining_error()));
    }
    if *context.overloaded.borrow() {
        return Err(Refused(Some(Handshake::Overloaded), HttpError::overloaded()));
    }
    check_origin(&context.settings, head).map_err(|error| {
        context.settings.origins.log_refusal(head.origin().as_deref(), head.host().as_deref(), now);
        Refused(Some(Handshake::OriginRefused), error)
    })?;
    let request = request(head, address).map_err(|error| Refused(Some(Handshake::BadRequest), error))?;
    let (identity, _) = rest::identify(context, head).await?;
    let opened = context.sessions.open_stream(identity, &request).await;
    let stream = opened.map_err(|unopened| match unopened {
        Unopened::Limited(limit) => Refused(Some(Handshake::Limited), refusal::of(limit)),
        Unopened::Forbidden => Refused(None, forbidden()),
        Unopened::Ended => Refused(Some(Handshake::Accepted), ended()),
    })?;
    Ok(Granted { stream, places: (permit, place) })
}

/// A browser says its origin unless it asks where its page came from, which it says in another way.
fn check_origin(settings: &Settings, head: &Head) -> Result<Allowed, HttpError> {
    let origin = head.origin();
    let is_same = head.headers.get(FETCH_SITE).is_some_and(|site| site == "same-origin");
    if origin.is_none() && is_same {
        return Ok(Allowed::Same);
    }
    settings.origins.check(origin.as_deref(), head.host().as_deref()).map_err(|_| upgrade::origin_error())
}

fn request(head: &Head, address: &Address<'_>) -> Result<Request, HttpError> {
    let options = Options::of(head)?;
    if options.encoding(Encoding::Json)? != Encoding::Json {
        return Err(HttpError::bad_option("dialect", "`dialect=celery` is spoken over WebSockets only."));
    }
    let topic = upgrade::topic(address)?;
    Ok(Request {
        scope: topic.map_or(Scope::Mine { everything: options.everything }, Scope::Topic),
        token: None,
        encoding: Encoding::EventStream,
        deliver: options.deliver,
        throttle: options.throttle,
        cursor: last_event_id(head).or(options.cursor),
        caller: head.client.map(|client| client.caller),
    })
}

/// What the browser heard last is newer than what stands in the address that a page gave it.
fn last_event_id(head: &Head) -> Option<String> {
    let header = head.headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty());
    let header = header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    header.or_else(|| head.option("last_event_id").map(std::borrow::Cow::into_owned))
}

fn forbidden() -> HttpError {
    let detail = "This token allows watching nothing; it needs the claim taskcast.watch.";
    HttpError::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail)
}

/// Never shown: 204 has no body.
fn ended() -> HttpError {
    HttpError::new(StatusCode::NO_CONTENT, "ended", "Everything has ended", "")
}

fn nothing_to_come() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The head of a stream; nothing on the way may keep parts of it back, or take it apart to compress it.
fn begin() -> Response {
    let mut response = respond(StatusCode::OK, MEDIA_TYPE, "");
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.typed_insert(Date::from(UNIX_EPOCH + Duration::from_millis(clock::now().unix_ms)));
    response
}

/// `EventSource` gives up for good on any status but 200, so what passes is said to it in a stream that ends at once.
pub(super) fn refuse(head: &Head, error: HttpError) -> Response {
    let Some((mut response, body)) = passing(head, &error) else { return error.into_response() };
    *response.body_mut() = Bytes::from(body).into();
    response
}

/// The head of such a stream, and all that is said in it; `None`: who asks is told by the status.
pub(super) fn passing(head: &Head, error: &HttpError) -> Option<(Response, String)> {
    let is_event_source = head.list(&header::ACCEPT).any(|accepted| accepted == MEDIA_TYPE);
    let wait = Duration::from_secs(error.retry_after_seconds().filter(|_| is_event_source)?);
    let is_limit = error.status() == StatusCode::TOO_MANY_REQUESTS;
    let error_code = if is_limit { ErrorCode::LimitReached } else { ErrorCode::Unavailable };
    let message = ServerMessage::Error { error_code, message: error.detail().to_owned(), id: None };
    let message = payload(&message.encode(Encoding::Json, clock::now().unix_ms));
    // Never too early, and not all at once: it draws nothing itself.
    let retry = wait.saturating_add(clock::jitter(wait / 2));
    let mut body = stream_retry(u64::try_from(retry.as_millis()).unwrap_or(u64::MAX));
    body.extend_from_slice(&stream_event(&message, None));
    Some((begin(), String::from_utf8_lossy(&body).into_owned()))
}

fn serve(
    granted: Granted,
    socket: Socket,
    version: Version,
    response: &Response,
    silence_max: Duration,
) -> impl Future<Output = ()> + Send + use<> {
    let Granted { stream, places } = granted;
    // Its peer says nothing; that it takes what it is sent is how it is known to be alive.
    socket::change_write_timeout(socket.tcp(), Some(silence_max));
    let is_chunked = version >= Version::HTTP_11;
    let head = head_of(response, is_chunked);
    async move {
        match socket {
            Socket::Plain(socket) if is_chunked => stream.serve(socket, head).await,
            // Boxed, so that a plain connection does not take the room of these.
            Socket::Encrypted(socket) if is_chunked => Box::pin(stream.serve(*socket, head)).await,
            Socket::Plain(socket) => Box::pin(stream.serve(Unchunked::new(socket, head.len()), head)).await,
            Socket::Encrypted(socket) => Box::pin(stream.serve(Unchunked::new(*socket, head.len()), head)).await,
        }
        drop(places);
    }
}

/// As it goes over the wire.
fn head_of(response: &Response, is_chunked: bool) -> Bytes {
    let mut text = format!("HTTP/1.1 {}\r\n", response.status());
    for (name, value) in response.headers() {
        if let Ok(value) = value.to_str() {
            // Writing to memory does not fail.
            let _ = write!(text, "{name}: {value}\r\n");
        }
    }
    text.push_str(if is_chunked { "transfer-encoding: chunked\r\n\r\n" } else { "\r\n" });
    text.into()
}

#[cfg(test)]
#[path = "event_stream_tests.rs"]
mod tests;
