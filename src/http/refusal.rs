//! What is said to those who are over a limit, or not welcome.
//!
//! Refuses to know: who that is.

use std::{io, time::Duration};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use warp::http::{HeaderValue, StatusCode, header};

use super::problem::HttpError;
use crate::limits::{Limit, Refusal};

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
        Limit::RequestsPerIp => "There were too many requests from this address.",
        Limit::RequestsPerUser => "There were too many requests by this user.",
        Limit::EventsPerToken => "There were too many events with this token; none of these was published.",
        _ => "There were too many attempts from this address.",
    };
    HttpError::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests", detail)
        .with_member("limit", json!(refusal.limit.as_str()))
        .with_retry_after_seconds(seconds(wait))
}

/// Says why on a connection that was never given to hyper.
pub(super) async fn say(stream: TcpStream, error: HttpError) {
    // A peer that does not even read its refusal is no loss.
    let _ = timeout(REFUSAL_TIMEOUT, write(stream, &error.into_http1())).await;
}

/// Reading what the peer sent comes first of closing, or the kernel would answer it with a reset that overtakes what was
/// said.
async fn write(mut stream: TcpStream, text: &str) -> io::Result<()> {
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
        let text = of(refusal).into_http1();
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
        let text = of(Refusal { limit: Limit::Networks, retry_after: None }).into_http1();
        assert!(text.starts_with("HTTP/1.1 403 Forbidden\r\n") && !text.contains("retry-after"), "{text}");
    }

    #[test]
    fn a_wait_is_rounded_up() {
        let milliseconds = [0, 1, 999, 1_000, 1_001].map(|ms| seconds(Duration::from_millis(ms)));
        assert_eq!(milliseconds, [0, 1, 1, 1, 2]);
    }
}
