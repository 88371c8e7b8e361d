//! How connections live and end: tokens, drains, limits.

use std::time::Duration;

use serde_json::json;
use taskcast::clock;
use tokio::net::TcpStream;

use crate::harness::{Client, Service, http, token, token_for, until};

async fn refusal(service: &Service, path: &str, headers: &[(&str, &str)]) -> (String, Option<u16>) {
    let mut client = Client::connect(service.port, path, headers).await;
    let frame = client.next().await;
    assert_eq!(frame["type"], "authentication_error", "{frame}");
    (frame["error_code"].as_str().unwrap().to_owned(), client.closed().await)
}

#[tokio::test]
async fn a_refused_token_is_explained_in_a_frame_and_closed_with_4001() {
    let service = Service::start(&[("TASKCAST_SESSIONS_FIRST_FRAME_TIMEOUT_MS", "100")]).await;
    let expired = token_for("u1", &["own"], false, Duration::ZERO);
    assert_eq!(refusal(&service, "/ws/tasks/", &[]).await, ("AUTH_REQUIRED".into(), Some(4001)));
    assert_eq!(refusal(&service, "/ws/tasks/?token=junk", &[]).await, ("INVALID_TOKEN".into(), Some(4001)));
    // Leeway is the service's; a token without life left is refused once that has passed too.
    let strict = Service::start(&[("TASKCAST_AUTH_LEEWAY_SECONDS", "0")]).await;
    assert_eq!(
        refusal(&strict, &format!("/ws/tasks/?token={expired}"), &[]).await,
        ("EXPIRED_TOKEN".into(), Some(4001))
    );
    assert!(service.metric("taskcast_authentication_failures_total{code=\"INVALID_TOKEN\"}").await >= 1);
}

#[tokio::test]
async fn a_token_is_taken_from_every_place_that_a_client_can_put_it() {
    let service = Service::start(&[("TASKCAST_AUTH_COOKIE", "session")]).await;
    let token = token("u1");
    let bearer = format!("Bearer {token}");
    let protocols = format!("taskcast.v1.json, bearer.{token}");
    let cookie = format!("a=b; session={token}");
    let query = format!("/ws/tasks?token={token}");
    for (path, headers) in [
        ("/ws/tasks/", vec![("Authorization", bearer.as_str())]),
        ("/ws/tasks/", vec![("Sec-WebSocket-Protocol", protocols.as_str())]),
        ("/ws/tasks", vec![("Cookie", cookie.as_str())]),
        (query.as_str(), vec![]),
    ] {
        let mut client = Client::connect(service.port, path, &headers).await;
        assert_eq!(client.next().await["user_id"], "u1", "{path} {headers:?}");
    }
    let mut first = Client::connect(service.port, "/ws/tasks/", &[]).await;
    first.say(&json!({"type": "auth", "token": token})).await;
    assert_eq!(first.next().await["user_id"], "u1");
}

#[tokio::test]
async fn a_token_that_expires_during_the_connection_ends_it() {
    let service = Service::start(&[("TASKCAST_AUTH_LEEWAY_SECONDS", "0")]).await;
    let short = token_for("u1", &["own"], false, Duration::from_secs(4));
    let mut client = Client::connect(service.port, &format!("/ws/tasks/?token={short}"), &[]).await;
    client.until("active_tasks").await;
    assert_eq!(client.closed().await, Some(4001));
    assert_eq!(client.frames.last().unwrap()["error_code"], "EXPIRED_TOKEN");
}

#[tokio::test]
async fn a_deploy_closes_with_1012_and_the_process_ends_well() {
    let service = Service::start(&[]).await;
    let mut client = service.attach("/ws/tasks/", "u1").await;
    let (code, exit) = tokio::join!(client.closed(), service.terminate());
    assert_eq!((code, exit), (Some(1012), Some(0)));
}

#[tokio::test]
async fn a_deploy_tells_each_client_its_turn_and_serves_it_until_then() {
    let service = Service::start(&[("TASKCAST_DRAIN_SECONDS", "4")]).await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(service.attach("/ws/tasks/", "u1").await);
    }
    let port = service.port;
    let asked = clock::now().instant;
    let terminated = tokio::spawn(service.terminate());
    let mut ends = Vec::new();
    for mut client in clients {
        ends.push(tokio::spawn(async move {
            let told = client.until("server_draining").await["reconnect_after_ms"].as_u64().unwrap();
            assert_eq!(client.closed().await, Some(1012));
            (Duration::from_millis(told), asked.elapsed())
        }));
    }
    let mut per_second = [0; 4];
    for end in ends {
        let (told, waited) = end.await.unwrap();
        assert!(waited >= told && waited < told + Duration::from_secs(10), "told {told:?}, waited {waited:?}");
        per_second[(told.as_secs() as usize).min(3)] += 1;
    }
    assert!(per_second.iter().all(|count| (2..=4).contains(count)), "{per_second:?}");
    assert_eq!(terminated.await.unwrap(), Some(0));
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn nobody_new_is_let_in_during_a_drain_and_readiness_says_so() {
    let service = Service::start(&[("TASKCAST_DRAIN_SECONDS", "3600")]).await;
    // The first turn is at once; who comes second stays.
    let mut first = service.attach("/ws/tasks/", "u1").await;
    let mut second = service.attach("/ws/tasks/", "u1").await;
    service.signal("TERM");
    first.until("server_draining").await;
    let (closed, stays) = match second.until("server_draining").await["reconnect_after_ms"].as_u64() {
        Some(0) => (&mut second, &mut first),
        _ => (&mut first, &mut second),
    };
    assert_eq!(closed.closed().await, Some(1012));
    service.until_ready(false).await;
    let refused = Client::try_connect(service.port, "/ws/tasks/", &[]).await.err().expect("a refusal");
    assert!(refused.to_string().contains("503"), "{refused}");
    assert_eq!(service.operations("/livez").await.0, 200);
    service.publish(&json!({"task_id": "t", "user_id": "u1", "status": "succeeded"})).await;
    stays.until_end_of("t").await;
}

#[tokio::test]
async fn a_second_signal_ends_a_drain_at_once() {
    let service = Service::start(&[("TASKCAST_DRAIN_SECONDS", "3600")]).await;
    let mut client = service.attach("/ws/tasks/", "u1").await;
    service.signal("TERM");
    client.until("server_draining").await;
    assert_eq!(service.terminate().await, Some(143));
}

#[tokio::test]
async fn many_sockets_of_one_user_are_legal() {
    let service = Service::start(&[]).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(service.attach("/ws/tasks/", "u1").await);
    }
    service.publish(&json!({"task_id": "t", "user_id": "u1", "progress": 1})).await;
    for client in &mut clients {
        client.until("task_progress").await;
    }
    assert!(service.metric("taskcast_connections ").await >= 10);
    drop(clients);
    until("they are all gone", async || service.metric("taskcast_connections ").await == 0).await;
}

#[tokio::test]
async fn a_dead_peer_is_noticed() {
    let service = Service::start(&[
        ("TASKCAST_SESSIONS_HEARTBEAT_INTERVAL_MS", "250"),
        ("TASKCAST_SESSIONS_DEAD_PEER_TIMEOUT_MS", "5000"),
    ])
    .await;
    // It never reads, so it never answers a ping.
    let silent = service.connect("/ws/tasks/", "u1").await;
    until("the silent peer is dropped", async || service.metric("taskcast_closes_total{code=\"none\"}").await >= 1)
        .await;
    drop(silent);
    let mut lively = service.attach("/ws/tasks/", "u1").await;
    let open = tokio::time::timeout(Duration::from_secs(10), lively.closed()).await;
    assert!(open.is_err(), "who answers stays");
}

#[tokio::test]
async fn a_slow_reader_costs_only_its_own_frames_and_still_sees_the_end() {
    let service = Service::start(&[]).await;
    let mut slow = service.attach("/ws/tasks/", "u1").await;
    let mut quick = service.attach("/ws/tasks/", "u1").await;
    let padding = "x".repeat(3_000);
    for round in 0..20 {
        let batch: Vec<_> = (0..200)
            .map(|n| json!({"task_id": "t", "user_id": "u1", "progress": f64::from(round * 200 + n) / 50.0, "message": padding}))
            .collect();
        assert_eq!(service.post(&json!(batch).to_string(), "application/json").await.0, 202);
    }
    service.publish(&json!({"task_id": "t", "status": "succeeded"})).await;
    quick.until_end_of("t").await;
    slow.until_end_of("t").await;
    assert!(slow.frames.len() < 4_000, "{} frames reached it", slow.frames.len());
}

#[tokio::test]
async fn throttling_is_a_choice_of_the_client() {
    let service = Service::start(&[]).await;
    let mut client = service.attach("/ws/tasks/?throttle_ms=60000", "u1").await;
    service.publish(&json!({"task_id": "t", "user_id": "u1", "progress": 1})).await;
    client.until("task_progress").await;
    service.publish(&json!({"task_id": "t", "progress": 2})).await;
    service.publish(&json!({"task_id": "t", "status": "failed"})).await;
    assert_eq!(client.next().await["type"], "task_completed", "the end is not delayed, the rest is folded");
}

#[tokio::test]
async fn a_bad_query_option_is_named_before_the_upgrade() {
    let service = Service::start(&[]).await;
    for option in ["throttle_ms=soon", "deliver=never", "dialect=klingon"] {
        let upgrade = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let (status, body) = http(service.port, "GET", &format!("/ws/tasks/?{option}"), &upgrade, "").await;
        assert_eq!(status, 400, "{body}");
        assert!(body.contains(option.split('=').next().unwrap()), "{body}");
    }
}

#[tokio::test]
async fn the_operators_listener_tells_what_is_going_on() {
    let service = Service::start(&[]).await;
    let mut client = service.attach("/ws/tasks/", "u1").await;
    service.publish(&json!({"task_id": "t", "user_id": "u1", "progress": 1})).await;
    client.until("task_progress").await;
    assert_eq!(service.operations("/livez").await.0, 200);
    assert_eq!(service.metric("taskcast_events_total{log=\"memory\",outcome=\"applied\"").await, 1);
    until("the write is counted", async || service.metric("taskcast_frames_delivered_total").await == 1).await;
    assert!(service.metric("taskcast_event_to_socket_seconds_count").await >= 1);
    assert!(service.metric("process_resident_memory_bytes").await > 0);
    assert_eq!(http(service.port, "GET", "/metrics", &[], "").await.0, 404, "not for the public");
}
