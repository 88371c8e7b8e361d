//! HTTP as nobody should speak it: requests that two servers would read differently, that never end, that are too long,
//! or that lead out of where they should stay.

use std::time::Duration;

use futures_util::future::join_all;

use crate::{
    harness::{http, token, token_with, until},
    target::{MB, Target, secret_token, soon},
    wire::{Wire, exchange, handshake, statuses},
};

/// What may wait for a head and a body here.
const PATIENT: &str = "600";

/// Request smuggling: a request whose end two servers see in different places, so that what one of them takes for its
/// body the other takes for the next request, of the next user. Whatever is ambiguous ends the connection: nothing that
/// stands behind it is ever answered.
#[tokio::test]
async fn what_stands_behind_an_ambiguous_request_is_never_taken_for_another_one() {
    let target = Target::start(&[]).await;
    let bearer = format!("Authorization: Bearer {}\r\n", token_with("worker", &["own"], true));
    let smuggled = "GET /livez/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let length = smuggled.len();
    for (what, headers, body) in [
        ("two lengths", "Content-Length: 0\r\nContent-Length: 60\r\n".to_owned(), smuggled.to_owned()),
        ("a list of lengths", format!("Content-Length: 0, {length}\r\n"), smuggled.to_owned()),
        (
            "length and chunks",
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
            format!("0\r\n\r\n{smuggled}"),
        ),
        (
            "chunks and length",
            format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
            format!("0\r\n\r\n{smuggled}"),
        ),
        (
            "chunks by another name",
            format!("Content-Length: {length}\r\nTransfer-Encoding: xchunked\r\n"),
            smuggled.to_owned(),
        ),
        (
            "chunks behind something else",
            "Transfer-Encoding: chunked, identity\r\n".to_owned(),
            format!("0\r\n\r\n{smuggled}"),
        ),
        (
            "chunks twice",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n".to_owned(),
            format!("0\r\n\r\n{smuggled}"),
        ),
        ("a space before the colon", "Content-Length : 0\r\n".to_owned(), smuggled.to_owned()),
        ("a folded line", format!("Content-Length: 0\r\n Content-Length: {length}\r\n"), smuggled.to_owned()),
        ("a length with a sign", "Content-Length: +0\r\n".to_owned(), smuggled.to_owned()),
        ("a length below zero", "Content-Length: -1\r\n".to_owned(), smuggled.to_owned()),
        ("a length in hexadecimal", "Content-Length: 0x0\r\n".to_owned(), smuggled.to_owned()),
        ("a length beyond all numbers", "Content-Length: 18446744073709551616\r\n".to_owned(), smuggled.to_owned()),
        (
            "a chunk longer than all numbers",
            "Transfer-Encoding: chunked\r\n".to_owned(),
            format!("fffffffffffffffff\r\n{smuggled}"),
        ),
        ("a chunk with a sign", "Transfer-Encoding: chunked\r\n".to_owned(), format!("-1\r\n{smuggled}")),
        ("a bare line feed in a chunk", "Transfer-Encoding: chunked\r\n".to_owned(), format!("0\n\n{smuggled}")),
        ("chunks in HTTP/1.0", "VERSION-1.0".to_owned(), format!("0\r\n\r\n{smuggled}")),
    ] {
        let (version, headers) = match headers.strip_prefix("VERSION-1.0") {
            Some(_) => ("1.0", "Transfer-Encoding: chunked\r\n".to_owned()),
            None => ("1.1", headers),
        };
        let request = format!("POST /api/v1/events HTTP/{version}\r\nHost: localhost\r\n{bearer}{headers}\r\n{body}");
        let answers = exchange(target.port, request.as_bytes()).await;
        let codes = statuses(&answers);
        assert!(codes.len() <= 1, "{what}: {answers}");
        assert!(codes.iter().all(|code| (400..500).contains(code)), "{what}: {answers}");
    }
    // The same two requests without a trick are both answered: so the above can fail.
    let last = smuggled.replace("Host", "Connection: close\r\nHost");
    let honest = format!("POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\n{bearer}Content-Length: 0\r\n\r\n{last}");
    let answers = exchange(target.port, honest.as_bytes()).await;
    assert_eq!(statuses(&answers).len(), 2, "{answers}");
    target.stays_unharmed().await;
}

/// A handshake with a body, which a proxy takes for the body and the service would take for the first frames.
#[tokio::test]
async fn a_handshake_that_has_a_body_is_no_handshake() {
    let target = Target::start(&[]).await;
    let bearer = format!("Authorization: Bearer {}\r\n", token("u1"));
    for headers in [
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let mut wire = Wire::connect(target.port).await;
        wire.send(handshake("/ws/tasks/", &format!("{bearer}{headers}Connection: close\r\n")).as_bytes()).await;
        wire.send(b"0\r\n\r\n").await;
        let head = String::from_utf8_lossy(&wire.until(b"\r\n\r\n").await).into_owned();
        assert_eq!(statuses(&head), [400], "{headers}: {head}");
    }
    target.stays_unharmed().await;
}

/// Slowloris: connections that bring their head, or nothing, a byte at a time, to hold places for ever.
#[tokio::test]
async fn who_brings_a_head_slowly_is_let_go_in_time() {
    let target = Target::start(&[("TASKCAST_HTTP_HEADER_TIMEOUT_MS", PATIENT)]).await;
    let drip = async |first: &[u8]| {
        let mut wire = Wire::connect(target.port).await;
        wire.send(first).await;
        // As long as somebody listens: a letter each 50 ms is no silence.
        soon("the end of the connection", async {
            while wire.within(Duration::from_millis(50)).await {
                wire.send(b"a").await;
            }
        })
        .await;
        assert_eq!(statuses(&String::from_utf8_lossy(&wire.received)).iter().find(|code| **code < 400), None);
    };
    let silent = async {
        let mut wire = Wire::connect(target.port).await;
        assert!(!soon("its end", async { wire.within(Duration::from_secs(15)).await }).await);
    };
    tokio::join!(drip(b"G"), drip(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "), silent);
    target.stays_unharmed().await;
}

/// R.U.D.Y.: a body that is announced as long and comes a byte at a time, to hold a request and its buffer for ever.
#[tokio::test]
async fn who_brings_a_body_slowly_is_let_go_in_time() {
    let target = Target::start(&[("TASKCAST_HTTP_HEADER_TIMEOUT_MS", PATIENT)]).await;
    let bearer = format!("Authorization: Bearer {}\r\n", token_with("worker", &["own"], true));
    for headers in ["Content-Length: 100000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut wire = Wire::connect(target.port).await;
        let head = format!("POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\n{bearer}{headers}\r\n");
        wire.send(head.as_bytes()).await;
        soon("the end of the connection", async {
            while wire.within(Duration::from_millis(50)).await {
                wire.send(if headers.starts_with('C') { b"[" } else { b"1\r\n[\r\n" }).await;
            }
        })
        .await;
        let answer = String::from_utf8_lossy(&wire.received).into_owned();
        assert_eq!(statuses(&answer), [408], "{headers}: {answer}");
    }
    target.stays_unharmed().await;
}

/// Heads without end: one header of megabytes, ten thousand headers, a path of megabytes, a request line without an end;
/// on many connections at a time.
#[tokio::test]
async fn a_head_without_end_is_cut_and_its_memory_given_back() {
    const BOUND: u64 = 48 * MB;
    let target = Target::start(&[]).await;
    // hyper by itself would take 400 KiB of one.
    let long = |length| {
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Long: {}\r\n\r\n", "a".repeat(length))
    };
    assert_eq!(statuses(&exchange(target.port, long(60_000).as_bytes()).await), [200]);
    for length in [140_000, 200_000, 300_000] {
        let codes = statuses(&exchange(target.port, long(length).as_bytes()).await);
        assert!(codes.is_empty() || codes == [431], "{length}: {codes:?}");
    }
    until("they are counted", async || target.metric("limit=\"header_max_bytes\"").await == 3).await;
    let before = target.resident();
    let header = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}", "a".repeat(2_000_000));
    let headers = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}", "X-A: b\r\n".repeat(10_000));
    let path = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(2_000_000));
    let cookies = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "Cookie: session=x\r\n".repeat(10_000));
    for (what, request) in [("a header", header), ("headers", headers), ("a path", path), ("cookies", cookies)] {
        let answers = join_all((0..20).map(async |_| exchange(target.port, request.as_bytes()).await)).await;
        for answer in answers {
            let codes = statuses(&answer);
            // Reset or refused: whichever of the two overtakes the other.
            assert!(codes.is_empty() || [400, 414, 431].contains(&codes[0]), "{what}: {codes:?}");
        }
    }
    let grown = target.peak().saturating_sub(before);
    assert!(grown < BOUND, "{} MB more", grown / MB);
    target.stays_unharmed().await;
}

/// A thousand cookies, of which one may be the token: within the head's limit all are looked through, and a cookie's name
/// that merely ends alike is not it.
#[tokio::test]
async fn a_token_hides_in_no_crowd_of_cookies() {
    let mut target = Target::start(&[("TASKCAST_AUTH_COOKIE", "session")]).await;
    let token = secret_token(&mut target, "u1");
    let crowd: Vec<String> = (0..1000).map(|n| format!("c{n}=v{n}")).collect();
    let crowd = crowd.join("; ");
    for (cookie, status) in [
        (format!("{crowd}; session={token}"), 200),
        (format!("xsession={token}; {crowd}"), 401),
        (format!("session.={token}; session =x; {crowd}"), 401),
        (format!("{crowd}; =session={token}"), 401),
    ] {
        let answer = http(target.port, "GET", "/api/v1/tasks", &[("Cookie", &cookie)], "").await;
        assert_eq!(answer.0, status, "{}", answer.1);
    }
    target.stays_unharmed().await;
}

/// Paths that lead out of a folder: encoded dots and slashes, backslashes, other roots, whole addresses. Nothing is
/// served from files here, so all of them are nowhere, and none reaches the operators' addresses.
#[tokio::test]
async fn no_path_leads_to_a_file_or_to_the_operators_addresses() {
    let target = Target::start(&[]).await;
    for path in [
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/%252e%252e/etc/passwd",
        "/..\\..\\etc\\passwd",
        "//etc/passwd",
        "/page/../../../../etc/passwd",
        "/page/app.js%00.html",
        "/page/app.js;.html",
        "/%c0%ae%c0%ae/etc/passwd",
        "/api/v1/../../metrics",
        "/api/v1/%2e%2e/%2e%2e/metrics",
        "/metrics",
        "/metrics/",
        "/livez",
        "/readyz",
        "http://127.0.0.1/metrics",
        "file:///etc/passwd",
        "*",
        "/.git/config",
        "/.env",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = exchange(target.port, request.as_bytes()).await;
        let codes = statuses(&answer);
        assert!(codes.is_empty() || codes == [404] || codes == [400], "{path}: {answer}");
        assert!(!answer.contains("root:") && !answer.contains("taskcast_"), "{path}: {answer}");
    }
    target.stays_unharmed().await;
}

/// Response splitting and log forging: line ends, zeros and terminal escapes in an identifier, which must not become a
/// header, a line of the log, or a colour on the operator's screen.
#[tokio::test]
async fn a_line_end_in_an_identifier_becomes_no_header_and_no_line_of_the_log() {
    let target = Target::start(&[]).await;
    let bearer = format!("Bearer {}", token("u1"));
    for id in [
        "a%0d%0aSet-Cookie:%20evil=1",
        "a%0aFORGED%20LINE",
        "%00",
        "%1b%5b31mFORGED%20LINE",
        "a%e2%80%a8b",
        "%ff%fe",
        "%7f",
        "%c2%9b31m",
    ] {
        for path in [
            format!("/api/v1/tasks/{id}"),
            format!("/api/v1/tasks?root={id}"),
            format!("/api/v1/tasks?tag={id}"),
            format!("/ws/tasks/{id}/"),
            format!("/ws/groups/{id}/"),
            format!("/{id}"),
        ] {
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\nOrigin: http://{id}\r\nConnection: close\r\nX-Forwarded-For: {id}\r\n\r\n"
            );
            let answer = exchange(target.port, request.as_bytes()).await;
            let (head, _) = answer.split_once("\r\n\r\n").unwrap();
            assert!(!head.to_ascii_lowercase().contains("set-cookie"), "{path}: {answer}");
            assert!(!head.contains('\u{1b}') && !head.contains('\0'), "{path}: {answer}");
        }
    }
    let log = target.log();
    assert!(log.lines().all(|line| !line.starts_with("FORGED") && !line.contains("\u{1b}[31mFORGED")), "{log}");
    assert!(!log.contains('\u{9b}') && !log.contains('\0'), "{log}");
    target.stays_unharmed().await;
}

/// Other protocols on the port: TLS, HTTP/2, HTTP/0.9, SMTP, Redis, noise. Each is refused or dropped, none is waited for
/// beyond the header timeout.
#[tokio::test]
async fn other_protocols_are_turned_away() {
    let target = Target::start(&[("TASKCAST_HTTP_HEADER_TIMEOUT_MS", PATIENT)]).await;
    let noise: Vec<u8> = (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (what, bytes) in [
        ("TLS", &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..]),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("HTTP/0.9", b"GET /\r\n"),
        ("HTTP/9.9", b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n"),
        ("SMTP", b"EHLO localhost\r\n"),
        ("Redis", b"*1\r\n$4\r\nPING\r\n"),
        ("PROXY", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("zeros", &[0; 4096]),
        ("noise", &noise),
        ("CONNECT", b"CONNECT evil.test:25 HTTP/1.1\r\nHost: evil.test:25\r\nConnection: close\r\n\r\n"),
        ("TRACE", b"TRACE / HTTP/1.1\r\nHost: localhost\r\nCookie: session=secret\r\nConnection: close\r\n\r\n"),
    ] {
        let answer = exchange(target.port, bytes).await;
        assert!(statuses(&answer).iter().all(|code| (400..600).contains(code)), "{what}: {answer}");
        assert!(!answer.contains("session=secret"), "{what}: {answer}");
    }
    target.stays_unharmed().await;
}
