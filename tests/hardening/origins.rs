//! Pages of other sites: what a browser says of where it comes from, over the wire, for each door.

use crate::{
    harness::token,
    target::{Target, secret_token},
    wire::{exchange, handshake, statuses},
};

const LISTED: &str = "https://app.example.com,https://*.tools.example.com,https://bücher.example";

/// Those that are a listed origin in other words are let in; those that only look like one are not.
const ORIGINS: [(&str, bool); 32] = [
    ("https://app.example.com", true),
    ("HTTPS://APP.EXAMPLE.COM", true),
    ("https://app.example.com:443", true),
    ("https://a.tools.example.com", true),
    ("https://a.b.tools.example.com", true),
    ("https://xn--bcher-kva.example", true),
    ("https://app.example.com.evil.test", false),
    ("https://app.example.com.", false),
    ("https://app.example.com:8443", false),
    ("https://app.example.com:80", false),
    ("https://app.example.com/", false),
    ("http://app.example.com", false),
    ("null", false),
    ("NULL", false),
    ("", false),
    ("https://", false),
    ("https://bücher.example", false),
    ("https://bucher.example", false),
    // The first letter is Cyrillic.
    ("https://xn--pp-6kc.example.com", false),
    ("https://evil.test/https://app.example.com", false),
    ("https://evil.test?https://app.example.com", false),
    ("https://evil.test#app.example.com", false),
    ("https://app.example.com@evil.test", false),
    ("https://app.example.com\\.evil.test", false),
    ("https://app.example.com%2eevil.test", false),
    ("https://tools.example.com", false),
    ("https://.tools.example.com", false),
    ("https://eviltools.example.com", false),
    ("https://app.example.com, https://evil.test", false),
    ("https://app.example.com https://evil.test", false),
    ("file://", false),
    ("https://app.example.com\t", true),
];

/// Cross-site WebSocket hijacking and forged requests: a page of another site lets the browser of a signed-in user connect,
/// from an `Origin` that resembles a listed one.
#[tokio::test]
async fn a_page_of_another_site_gets_nothing_with_a_cookie_that_the_browser_attaches() {
    let mut target = Target::start(&[("TASKCAST_ORIGINS", LISTED), ("TASKCAST_AUTH_COOKIE", "session")]).await;
    let cookie = format!("Cookie: session={}\r\n", secret_token(&mut target, "u1"));
    for (origin, allowed) in ORIGINS {
        let headers = format!("{cookie}Origin: {origin}\r\n");
        let mut wire = crate::wire::Wire::connect(target.port).await;
        wire.send(handshake("/ws/tasks/", &headers).as_bytes()).await;
        let head = String::from_utf8_lossy(&wire.until(b"\r\n\r\n").await).into_owned();
        assert_eq!(statuses(&head), [if allowed { 101 } else { 403 }], "WebSocket from {origin:?}");

        for (line, welcome) in [("GET /api/v1/tasks", 200), ("POST /api/v1/events", 403)] {
            let request = format!(
                "{line} HTTP/1.1\r\nHost: progress.example.com\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n"
            );
            let answer = exchange(target.port, request.as_bytes()).await;
            let refused = answer.contains("urn:taskcast:problem:origin-refused");
            assert_eq!(
                (statuses(&answer)[0], refused),
                (if allowed { welcome } else { 403 }, !allowed),
                "{line} from {origin:?}"
            );
            let readable = answer.to_ascii_lowercase().contains("access-control-allow-origin");
            assert_eq!(readable, allowed, "{line} from {origin:?}: {answer}");
        }
    }
    target.stays_unharmed().await;
}

/// A request without an `Origin` changes nothing with a cookie alone: an old browser that sends none with a form.
#[tokio::test]
async fn a_cookie_without_an_origin_changes_nothing() {
    let mut target = Target::start(&[("TASKCAST_AUTH_COOKIE", "session")]).await;
    let cookie = secret_token(&mut target, "u1");
    let request = format!(
        "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\nCookie: session={cookie}\r\n\r\n"
    );
    let answer = exchange(target.port, request.as_bytes()).await;
    assert!(answer.contains("urn:taskcast:problem:origin-refused"), "{answer}");
    target.stays_unharmed().await;
}

/// `origins = "*"` lets every page in; then a cookie that the browser attached must not count, or every page would act as
/// its visitor.
#[tokio::test]
async fn where_every_page_is_let_in_a_cookie_does_not_count() {
    let target = Target::start(&[("TASKCAST_ORIGINS", "*"), ("TASKCAST_AUTH_COOKIE", "session")]).await;
    let request = format!(
        "GET /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nOrigin: https://evil.test\r\nCookie: session={}\r\n\r\n",
        token("u1")
    );
    let answer = exchange(target.port, request.as_bytes()).await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 401"), "{answer}");
    assert!(!answer.contains("access-control-allow-credentials"), "{answer}");
    target.stays_unharmed().await;
}
