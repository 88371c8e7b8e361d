//! The WebSocket handshake (RFC 6455 section 4.2), server side: everything is decided before the 101, and then the bare
//! socket goes to a session. The order: address, is it a handshake at all, draining or overloaded, origin,
//! options; before all of it, whether its address comes too often.
//!
//! A bad token is not refused here: a browser cannot read the status of a refused handshake, so the session accepts,
//! says `authentication_error` and closes with 4001.
//!
//! Refuses to know: what is said over the socket.

use std::sync::Arc;

use bytes::Bytes;
use headers::{HeaderMapExt, SecWebsocketAccept, SecWebsocketKey};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit};
use tokio_util::task::TaskTracker;
use warp::{
    http::{HeaderValue, Method, StatusCode, header},
    hyper::upgrade::OnUpgrade,
    reply::Response,
};

use super::{
    Context, Settings,
    credentials::{Credential, Subprotocols},
    head::Head,
    lent::{Lender, Lent, Socket},
    options::Options,
    origin::Allowed,
    problem::HttpError,
    refusal, socket,
};
use crate::{
    clock,
    limits::Place,
    metrics::Handshake,
    proto::{TaskId, Topic},
    session::{Request, Scope, Sessions},
    tls::Encrypted,
};

/// The connection's places: under the limit of all, and of its address. Whoever holds a clone keeps them.
#[derive(Clone, Debug)]
pub(super) struct Permit {
    _places: Arc<(OwnedSemaphorePermit, Option<Place>)>,
}

impl Permit {
    pub fn new(place: OwnedSemaphorePermit, of_address: Option<Place>) -> Self {
        Self { _places: Arc::new((place, of_address)) }
    }
}

/// What hyper and the accept loop know of a connection that may be upgraded.
pub(super) struct Connection {
    /// `None` when hyper saw no request to upgrade.
    pub on_upgrade: Option<OnUpgrade>,
    pub permit: Option<Permit>,
}

/// Which address was asked for; the identifier is as it stood in the path.
pub(super) enum Address<'a> {
    Mine,
    Task(&'a str),
    Group(&'a str),
}

type Refusal = (Handshake, HttpError);

/// Answers one request under `/ws/`.
///
/// # Errors
/// Why there is no WebSocket to be had.
pub(super) fn upgrade(
    context: &Context,
    tracker: &TaskTracker,
    head: &Head,
    address: &Address<'_>,
    connection: Connection,
) -> Result<Response, HttpError> {
    let closed = if context.draining.is_cancelled() {
        Some(Handshake::Draining)
    } else {
        context.overloaded.borrow().then_some(Handshake::Overloaded)
    };
    let now = clock::now();
    let place = head.client.map_or(Ok(None), |client| client.handshake(&context.limits, now));
    let accepted = place.map_err(|refused| (Handshake::Limited, refusal::of(refused))).and_then(|place| {
        let (request, response) = handshake(&context.settings, closed, head, address, connection.on_upgrade.is_some())?;
        Ok((request, response, place))
    });
    let outcome = accepted.as_ref().map_or_else(|(outcome, _)| *outcome, |_| Handshake::Accepted);
    context.metrics.handshake(outcome);
    if outcome == Handshake::OriginRefused {
        let origins = &context.settings.origins;
        origins.log_refusal(head.origin().as_deref(), head.host().as_deref(), now);
    }
    let (request, response, place) = accepted.map_err(|(_, error)| error)?;
    if let Some(on_upgrade) = connection.on_upgrade {
        let places = (connection.permit, place);
        tracker.spawn(serve(on_upgrade, places, context.sessions.clone(), request));
    }
    Ok(response)
}

async fn serve(
    on_upgrade: OnUpgrade,
    places: (Option<Permit>, Option<Place>),
    sessions: Arc<Sessions>,
    request: Request,
) {
    match bare_socket(on_upgrade).await {
        Some((Socket::Plain(socket), early)) => sessions.serve(socket, early, request).await,
        // Boxed, so that a plain connection does not take the room of this one.
        Some((Socket::Encrypted(socket), early)) => Box::pin(sessions.serve(socket, early, request)).await,
        None => {}
    }
    drop(places);
}

/// Waits for the 101 to be written and takes the socket out of hyper, with what the client sent right behind its
/// handshake.
async fn bare_socket(on_upgrade: OnUpgrade) -> Option<(Socket, Bytes)> {
    let upgraded =
        on_upgrade.await.inspect_err(|error| tracing::debug!(%error, "the peer left during its handshake")).ok()?;
    // Copied, so that hyper's read buffer is let go: kept, it would be 4.6 KiB for each connection.
    let early = |read_buf: Bytes| Bytes::copy_from_slice(&read_buf);
    let (lender, early) = match upgraded.downcast::<TokioIo<Lent<TcpStream>>>() {
        Ok(parts) => (Lender::Plain(parts.io.into_inner()), early(parts.read_buf)),
        Err(upgraded) => {
            let parts = upgraded
                .downcast::<TokioIo<Lent<Encrypted>>>()
                .inspect_err(|_| tracing::error!("an upgraded connection is none that was accepted"))
                .ok()?;
            (Lender::Encrypted(parts.io.into_inner()), early(parts.read_buf))
        }
    };
    let socket = lender.take_back()?;
    socket::change_write_timeout(socket.tcp(), None);
    Some((socket, early))
}

/// The decision, without any I/O: the session's request and the 101, or a refusal with its name for the metrics.
/// `closed` says why nobody is let in at all.
fn handshake(
    settings: &Settings,
    closed: Option<Handshake>,
    head: &Head,
    address: &Address<'_>,
    can_upgrade: bool,
) -> Result<(Request, Response), Refusal> {
    let bad_request = |error: HttpError| (Handshake::BadRequest, error);
    let topic = topic(address).map_err(bad_request)?;
    let key = websocket_key(head, can_upgrade).map_err(bad_request)?;
    if let Some(outcome) = closed {
        let is_overload = outcome == Handshake::Overloaded;
        return Err((outcome, if is_overload { HttpError::overloaded() } else { draining_error() }));
    }
    let allowed = settings
        .origins
        .check(head.origin().as_deref(), head.host().as_deref())
        .map_err(|_| (Handshake::OriginRefused, origin_error()))?;
    let options = Options::of(head).map_err(bad_request)?;
    let subprotocols = Subprotocols::of(head);
    let encoding = options.encoding(subprotocols.encoding()).map_err(bad_request)?;
    let scope = topic.map_or(Scope::Mine { everything: options.everything }, Scope::Topic);
    let token = Credential::of(head, settings, allowed != Allowed::Anyone).token;
    let Options { deliver, throttle, cursor, .. } = options;
    let caller = head.client.map(|client| client.caller);
    let request = Request { scope, token, encoding, deliver, throttle, cursor, caller };
    Ok((request, switching_protocols(key, subprotocols.selected)))
}

fn switching_protocols(key: SecWebsocketKey, subprotocol: Option<&'static str>) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.typed_insert(SecWebsocketAccept::from(key));
    if let Some(subprotocol) = subprotocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    }
    response
}

pub(super) fn topic(address: &Address<'_>) -> Result<Option<Topic>, HttpError> {
    match address {
        Address::Mine => Ok(None),
        Address::Task(id) => Ok(Some(Topic::Task(task_id(id)?))),
        Address::Group(id) => Ok(Some(Topic::Root(task_id(id)?))),
    }
}

/// An identifier out of a path, percent-decoded.
///
/// # Errors
/// It is not UTF-8, or not an identifier.
pub(super) fn task_id(segment: &str) -> Result<TaskId, HttpError> {
    let text = percent_encoding::percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| HttpError::bad_request("The identifier in the path is not UTF-8."))?;
    TaskId::parse(&text).map_err(|error| HttpError::bad_request(format!("The identifier in the path {error}.")))
}

fn websocket_key(head: &Head, can_upgrade: bool) -> Result<SecWebsocketKey, HttpError> {
    if head.method != Method::GET {
        return Err(HttpError::method_not_allowed("GET"));
    }
    let asked = head.list(&header::UPGRADE).any(|protocol| protocol.eq_ignore_ascii_case("websocket"));
    let connection = head.list(&header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    if !can_upgrade || !asked || !connection {
        return Err(upgrade_required("This address speaks WebSocket; ask for it with `Connection: Upgrade`."));
    }
    if head.headers.get_all(header::HOST).iter().count() != 1 {
        return Err(HttpError::bad_request("A WebSocket handshake names one `Host`."));
    }
    // A body would be read as the first frames, by this end or by a proxy between.
    let empty = head.headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0");
    if !empty || head.headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(HttpError::bad_request("A WebSocket handshake has no body."));
    }
    if head.list(&header::SEC_WEBSOCKET_VERSION).ne(["13"]) {
        let error = upgrade_required("Only version 13 of the WebSocket protocol is spoken here.");
        return Err(error.with_header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    }
    let well_formed = head.headers.get_all(header::SEC_WEBSOCKET_KEY).iter().map(is_key).eq([true]);
    let key = well_formed.then(|| head.headers.typed_get::<SecWebsocketKey>()).flatten();
    key.ok_or_else(|| HttpError::bad_request("`Sec-WebSocket-Key` is not 16 bytes in base64."))
}

/// Base64 of 16 bytes: 22 characters and two for padding.
fn is_key(value: &HeaderValue) -> bool {
    let digits = value.as_bytes().strip_suffix(b"==");
    digits.is_some_and(|digits| {
        digits.len() == 22 && digits.iter().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(b))
    })
}

fn upgrade_required(detail: &str) -> HttpError {
    HttpError::new(StatusCode::UPGRADE_REQUIRED, "upgrade-required", "A WebSocket handshake is needed", detail)
        .with_header(header::UPGRADE, HeaderValue::from_static("websocket"))
        .with_header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
}

pub(super) fn draining_error() -> HttpError {
    let detail = "This replica is being replaced; connect again.";
    HttpError::new(StatusCode::SERVICE_UNAVAILABLE, "draining", "The service is shutting down", detail)
        .with_retry_after()
}

/// 403 for an origin that the list does not name.
pub(super) fn origin_error() -> HttpError {
    HttpError::new(
        StatusCode::FORBIDDEN,
        "origin-refused",
        "The Origin is not allowed",
        "Pages of this origin may not use this service; its operator can name it in `origins` (TASKCAST_ORIGINS).",
    )
}

#[cfg(test)]
#[path = "upgrade_conformance_tests.rs"]
mod conformance;
#[cfg(test)]
#[path = "upgrade_tests.rs"]
mod tests;
