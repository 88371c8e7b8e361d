//! The handshake's decision, from the outside: what is answered to which request.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;
use warp::{Filter, http::HeaderMap};

use super::{
    super::{OriginPolicy, accept, credentials::tests::settings, entrance::Entrance, head::tests},
    *,
};
use crate::{metrics::Metrics, proto::Encoding, session::Deliver};

/// The key and its answer of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn request(query: &str, replaced: &[(&'static str, &str)]) -> Head {
    let mut head = tests::head(
        query,
        &[
            ("host", "localhost:6161"),
            ("origin", "http://localhost:6161"),
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
        ],
    );
    for (name, value) in replaced {
        if value.is_empty() {
            head.headers.remove(*name);
        } else {
            head.headers.insert(*name, value.parse().unwrap());
        }
    }
    head
}

fn answer(head: &Head, address: &Address<'_>) -> Result<(Request, Response), (Handshake, StatusCode)> {
    handshake(&settings(), None, head, address, true).map_err(|(outcome, error)| (outcome, error.status()))
}

#[test]
fn a_handshake_is_answered_with_101_and_the_proof_of_having_read_the_key() {
    let (request, response) = answer(&request("", &[]), &Address::Mine).unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()[header::SEC_WEBSOCKET_ACCEPT], ACCEPT);
    assert_eq!(response.headers()[header::UPGRADE], "websocket");
    assert!(!response.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL));
    assert_eq!(request.scope, Scope::Mine { everything: false });
    assert_eq!((request.encoding, request.token, request.cursor), (Encoding::Json, None, None));
}

#[test]
fn everything_that_the_handshake_says_reaches_the_session() {
    let query = "token=ignored&cursor=c&deliver=every&throttle_ms=100&watch=all&dialect=taskcast";
    let head = request(query, &[("sec-websocket-protocol", "taskcast.v1.proto, bearer.a.b.c")]);
    let (request, response) = answer(&head, &Address::Mine).unwrap();
    assert_eq!(response.headers()[header::SEC_WEBSOCKET_PROTOCOL], "taskcast.v1.proto");
    assert_eq!(request.scope, Scope::Mine { everything: true });
    assert_eq!(request.token.as_deref(), Some("a.b.c"));
    assert_eq!(request.encoding, Encoding::Protobuf);
    assert_eq!(request.deliver, Deliver::Every);
    assert_eq!(request.throttle, Duration::from_millis(100));
    assert_eq!(request.cursor.as_deref(), Some("c"));
}

#[test]
fn identifiers_in_the_path_are_percent_decoded() {
    let head = request("", &[]);
    let scope = |address| answer(&head, &address).map(|(request, _)| request.scope).unwrap();
    let id = TaskId::parse("a/b c+ü").unwrap();
    assert_eq!(scope(Address::Task("a%2Fb%20c+%C3%BC")), Scope::Topic(Topic::Task(id.clone())));
    assert_eq!(scope(Address::Group("a%2fb%20c%2B%c3%bc")), Scope::Topic(Topic::Root(id)));
}

#[test]
fn an_identifier_that_is_none_is_refused_before_the_upgrade() {
    let head = request("", &[]);
    for segment in ["x".repeat(300), "%00".to_owned(), "%FF".to_owned(), "a%0Ab".to_owned()] {
        let refused = answer(&head, &Address::Task(&segment)).unwrap_err();
        assert_eq!(refused, (Handshake::BadRequest, StatusCode::BAD_REQUEST), "{segment}");
    }
}

#[test]
fn what_is_not_a_handshake_is_told_so() {
    for (head, status) in [
        (request("", &[("upgrade", "")]), 426),
        (request("", &[("upgrade", "h2c")]), 426),
        (request("", &[("sec-websocket-version", "8")]), 426),
        (request("", &[("sec-websocket-version", "")]), 426),
        (request("", &[("sec-websocket-key", "")]), 400),
        (request("", &[("sec-websocket-key", "c2hvcnQ=")]), 400),
        (request("", &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25j!Q==")]), 400),
        (request("deliver=some", &[]), 400),
        (request("dialect=celery", &[("sec-websocket-protocol", "taskcast.v1.proto")]), 400),
        (Head { method: Method::POST, ..request("", &[]) }, 405),
    ] {
        let (outcome, error) = answer(&head, &Address::Mine).unwrap_err();
        assert_eq!((outcome, error.as_u16()), (Handshake::BadRequest, status), "{:?}", head.headers);
    }
    let plain = handshake(&settings(), None, &request("", &[]), &Address::Mine, false).unwrap_err().1;
    assert_eq!(plain.into_response().headers()[header::UPGRADE], "websocket");
}

#[test]
fn another_version_is_told_which_one_is_spoken() {
    let head = request("", &[("sec-websocket-version", "12")]);
    let response = handshake(&settings(), None, &head, &Address::Mine, true).unwrap_err().1.into_response();
    assert_eq!(response.status(), 426);
    assert_eq!(response.headers()[header::SEC_WEBSOCKET_VERSION], "13");
}

#[test]
fn a_draining_replica_sends_clients_elsewhere() {
    let (outcome, error) =
        handshake(&settings(), Some(Handshake::Draining), &request("", &[]), &Address::Mine, true).unwrap_err();
    assert_eq!(outcome, Handshake::Draining);
    let response = error.into_response();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
}

#[test]
fn a_foreign_or_missing_origin_is_refused() {
    for origin in ["https://evil.test", "null", ""] {
        let refused = answer(&request("", &[("origin", origin)]), &Address::Mine).unwrap_err();
        assert_eq!(refused, (Handshake::OriginRefused, StatusCode::FORBIDDEN), "{origin}");
    }
}

#[test]
fn a_page_that_only_the_star_lets_in_cannot_use_the_cookie() {
    let anybody = OriginPolicy::new(&["*".to_owned(), "https://app.test".to_owned()], false).unwrap();
    let settings = Settings { origins: anybody, ..settings() };
    for (origin, token) in [("https://evil.test", None), ("https://app.test", Some("t"))] {
        let head = request("", &[("origin", origin), ("cookie", "session=t")]);
        let (request, _) = handshake(&settings, None, &head, &Address::Mine, true).unwrap();
        assert_eq!(request.token.as_deref(), token, "{origin}");
    }
}

/// A listener with room for `connections_max`, whose `/` upgrades and hands the bare socket to `serve`.
pub(super) async fn start<F>(
    tracker: &TaskTracker,
    stop: &CancellationToken,
    connections_max: usize,
    serve: impl Fn(TcpStream, Bytes) -> F + Clone + Send + Sync + 'static,
) -> std::net::SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sessions = tracker.clone();
    // The suite of conformance tests sends no origin.
    let settings = Settings { origins: OriginPolicy::new(&[], true).unwrap(), ..settings() };
    let routes = warp::header::headers_cloned()
        .and(warp::ext::get::<OnUpgrade>())
        .and(warp::ext::get::<Permit>())
        .map(move |headers: HeaderMap, on_upgrade: OnUpgrade, permit: Permit| {
            let head = Head { headers, ..tests::head("", &[]) };
            let (_, response) = handshake(&settings, None, &head, &Address::Mine, true).unwrap();
            let serve = serve.clone();
            sessions.spawn(async move {
                let (Socket::Plain(socket), early) = bare_socket(on_upgrade).await.unwrap() else { panic!("TLS") };
                serve(socket, early).await;
                drop(permit);
            });
            response
        })
        .boxed();
    let metrics = Arc::new(Metrics::new("memory"));
    let limits = accept::Limits {
        entrance: Entrance::open(metrics.clone(), clock::now()),
        room: accept::Room::Bounded(connections_max),
        header_max_bytes: 65_536,
        header_timeout: Duration::from_mins(1),
        keep_alive_timeout: Duration::from_mins(1),
    };
    tracker.spawn(accept::serve(listener, None, routes, limits, metrics, tracker.clone(), stop.clone()));
    address
}

/// Sends back every byte, whatever it means.
async fn repeat(mut socket: TcpStream, early: Bytes) {
    socket.write_all(&early).await.unwrap();
    let (mut read, mut write) = socket.split();
    tokio::io::copy(&mut read, &mut write).await.unwrap();
}

/// Asks for an upgrade, with `early` right behind it; the head of the answer, and the socket behind it.
async fn shake_hands(address: std::net::SocketAddr, early: &str) -> (String, TcpStream) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n{early}"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(socket.read_u8().await.unwrap()));
    }
    (head, socket)
}

#[tokio::test]
async fn an_upgraded_socket_keeps_its_place_and_loses_no_early_byte() {
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let address = start(&tracker, &stop, 1, repeat).await;
    let (head, mut socket) = shake_hands(address, "early").await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT), "{head}");
    let mut echo = [0; 5];
    socket.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"early");

    assert!(shake_hands(address, "").await.0.starts_with("HTTP/1.1 503 "));
    // Stopping the listener leaves upgraded sockets to their sessions.
    stop.cancel();
    socket.write_all(b"later").await.unwrap();
    socket.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"later");
    drop(socket);
    tracker.close();
    tracker.wait().await;
}
