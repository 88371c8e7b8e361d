//! Whoever is refused for what passes is told when to come back: `Retry-After`, on the wire, in every such state.

use serde_json::json;

use crate::{
    harness::{Service, http_whole, token_of, until},
    support::brokers::RedisServer,
};

const HANDSHAKE: [(&str, &str); 4] = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A client that is told longer would be away for longer than any of these states is expected to take.
const LONGEST_SECONDS: u64 = 10;

type Request<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)]);

/// Each of these requests is answered 503, with the problem and a time to wait.
async fn all_are_put_off(port: u16, problem: &str, requests: &[Request<'_>]) {
    let claims = json!({"sub": "admin", "taskcast": {"revoke": true, "publish": true, "watch": ["own"]}});
    let bearer = format!("Bearer {}", token_of(claims));
    for (method, path, body, headers) in requests {
        let headers = [&[("Authorization", bearer.as_str())], *headers].concat();
        let (status, head, answer) = http_whole(port, method, path, &headers, body).await;
        assert_eq!(status, 503, "{method} {path}: {head}");
        assert!(answer.contains(problem), "{method} {path}: {answer}");
        let told = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("retry-after: ")?.parse().ok());
        assert!(told.is_some_and(|seconds| (1..=LONGEST_SECONDS).contains(&seconds)), "{method} {path}: {head}");
    }
}

#[tokio::test]
async fn a_replica_that_drains_says_when_to_come_back() {
    let service = Service::start(&[("TASKCAST_DRAIN_SECONDS", "3600")]).await;
    // The first turn is at once; who comes second keeps the process.
    let (_first, _second) = (service.attach("/ws/tasks/", "u1").await, service.attach("/ws/tasks/", "u1").await);
    service.signal("TERM");
    service.until_ready(false).await;
    let requests = [("GET", "/ws/tasks/", "", &HANDSHAKE[..]), ("GET", "/events/tasks/", "", &[])];
    all_are_put_off(service.port, "urn:taskcast:problem:draining", &requests).await;
    all_are_put_off(service.operations_port, "\"draining\":true", &[("GET", "/readyz", "", &[])]).await;
}

#[tokio::test]
async fn a_replica_that_is_short_of_memory_says_when_to_come_back() {
    let service = Service::start_unready(&[("TASKCAST_MEMORY_MAX_BYTES", "1")]).await;
    until("it is overloaded", async || service.metric("taskcast_overloaded").await == 1).await;
    let requests = [
        ("GET", "/ws/tasks/", "", &HANDSHAKE[..]),
        ("GET", "/events/tasks/", "", &[]),
        ("GET", "/api/v1/tasks", "", &[]),
        ("GET", "/api/v1/tasks/t/frames", "", &[]),
        ("POST", "/api/v1/events", r#"{"task_id":"t","user_id":"u1"}"#, &[]),
    ];
    all_are_put_off(service.port, "urn:taskcast:problem:overloaded", &requests).await;
}

#[tokio::test]
async fn a_replica_whose_log_is_away_says_when_to_come_back() {
    let mut redis = RedisServer::start().await;
    let service = Service::start(&[("TASKCAST_LOG", &redis.url()), ("TASKCAST_LOG_APPEND_TIMEOUT_MS", "500")]).await;
    redis.kill();
    service.until_ready(false).await;
    let requests = [
        ("POST", "/api/v1/events", r#"{"task_id":"t","user_id":"u1"}"#, &[][..]),
        ("POST", "/api/v1/revocations", r#"{"jti":"x"}"#, &[]),
    ];
    all_are_put_off(service.port, "urn:taskcast:problem:log-unavailable", &requests).await;
    all_are_put_off(service.operations_port, "\"connected\":false", &[("GET", "/readyz", "", &[])]).await;
}
