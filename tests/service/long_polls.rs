//! A script that waits for a task with one request at a time.

use std::time::Duration;

use serde_json::{Value, json};
use taskcast::clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{Service, http_whole, token, token_for, token_of, until},
    support::{brokers::RedisServer, unique},
};

fn event(task: &str, percent: u64) -> Value {
    json!({"task_id": task, "user_id": "u1", "status": "running", "progress": percent})
}

/// A request of `u1`'s that is under way.
fn ask(service: &Service, path: &str) -> tokio::task::JoinHandle<(u16, String, Value)> {
    ask_with(service.port, path, token("u1"))
}

fn ask_with(port: u16, path: &str, token: String) -> tokio::task::JoinHandle<(u16, String, Value)> {
    let path = path.to_owned();
    tokio::spawn(async move {
        let bearer = format!("Bearer {token}");
        let (status, head, body) = http_whole(port, "GET", &path, &[("Authorization", &bearer)], "").await;
        (status, head, serde_json::from_str(&body).unwrap_or(Value::Null))
    })
}

async fn until_waiting(service: &Service, count: u64) {
    let series = "taskcast_transport_connections{transport=\"long_poll\"}";
    until("they wait", async || service.metric(series).await == count).await;
}

#[tokio::test]
async fn a_script_hears_of_each_change_and_waits_in_between() {
    let service = Service::start(&[]).await;
    // Before it exists.
    let asked = ask(&service, "/api/v1/tasks/t1?wait=20s");
    until_waiting(&service, 1).await;
    service.publish(&event("t1", 10)).await;
    let (status, _, task) = asked.await.unwrap();
    assert_eq!((status, &task["type"], task["progress"].as_f64()), (200, &json!("task_progress"), Some(10.0)));
    let mut cursor = task["cursor"].as_str().unwrap().to_owned();
    for percent in [20, 30] {
        let asked = ask(&service, &format!("/api/v1/tasks/t1?wait=20s&after={cursor}"));
        until_waiting(&service, 1).await;
        // Another task's events are nothing to it.
        service.publish(&event("t2", percent)).await;
        service.publish(&event("t1", percent)).await;
        let (status, _, task) = asked.await.unwrap();
        assert_eq!((status, task["progress"].as_f64()), (200, Some(percent as f64)));
        cursor = task["cursor"].as_str().unwrap().to_owned();
    }
    service.publish(&json!({"task_id": "t1", "user_id": "u1", "status": "failed"})).await;
    until("it has ended", async || service.get("/api/v1/tasks/t1", "u1").await.1["status"] == "failed").await;
    // What happened between two questions is answered at once.
    let began = clock::now().instant;
    let (status, _, task) = ask(&service, &format!("/api/v1/tasks/t1?wait=20s&after={cursor}")).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!((status, &task["type"], task["completed_at"].is_string()), (200, &json!("task_completed"), true));
    until_waiting(&service, 0).await;
}

#[tokio::test]
async fn nothing_new_is_204_and_no_task_is_404_each_after_the_wait() {
    let service = Service::start(&[]).await;
    service.publish(&event("t1", 10)).await;
    until("it is there", async || service.get("/api/v1/tasks/t1", "u1").await.0 == 200).await;
    let cursor = service.get("/api/v1/tasks/t1", "u1").await.1["cursor"].as_str().unwrap().to_owned();
    for (query, status, waits) in [
        (format!("t1?wait=300ms&after={cursor}"), 204, true),
        (format!("t1?after={cursor}"), 204, false),
        ("t1?wait=20s".to_owned(), 200, false),
        ("unknown?wait=300ms".to_owned(), 404, true),
        ("unknown".to_owned(), 404, false),
        ("t1?wait=61s".to_owned(), 400, false),
        ("t1?after=nonsense".to_owned(), 400, false),
        // Of another log, and of none: whatever there is, at once.
        ("t1?wait=20s&after=1.1.1.00000000".to_owned(), 200, false),
    ] {
        let began = clock::now().instant;
        let (answered, head, body) = ask(&service, &format!("/api/v1/tasks/{query}")).await.unwrap();
        assert_eq!(answered, status, "{query} {body}");
        assert!(began.elapsed() < Duration::from_secs(10), "{query}");
        assert!(!waits || began.elapsed() >= Duration::from_millis(300), "{query}");
        assert!(status != 204 || !head.contains("\r\ncontent-type"), "{head}");
    }
}

#[tokio::test]
async fn a_task_of_somebody_else_is_waited_for_like_one_that_does_not_exist() {
    let service = Service::start(&[]).await;
    service.publish(&event("theirs", 10)).await;
    until("it is there", async || service.get("/api/v1/tasks/theirs", "u1").await.0 == 200).await;
    let mut answers = Vec::new();
    for task in ["theirs", "nobodys"] {
        let began = clock::now().instant;
        let asked = ask_with(service.port, &format!("/api/v1/tasks/{task}?wait=3s"), token("u2"));
        until_waiting(&service, 1).await;
        service.publish(&event("theirs", 20)).await;
        let (status, _, body) = asked.await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(3));
        answers.push((status, body));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].0, 404);
}

#[tokio::test]
async fn those_who_wait_are_counted_among_the_connections_of_their_user() {
    let service = Service::start(&[("TASKCAST_LIMITS_CONNECTIONS_PER_USER_MAX", "2")]).await;
    let socket = service.attach("/ws/tasks/", "u1").await;
    let waiting = ask(&service, "/api/v1/tasks/t1?wait=20s");
    until_waiting(&service, 1).await;
    let (status, head, problem) = ask(&service, "/api/v1/tasks/t1?wait=20s").await.unwrap();
    assert_eq!((status, &problem["limit"]), (429, &json!("connections_per_user_max")));
    assert!(head.contains("retry-after: 10"), "{head}");
    assert_eq!(ask(&service, "/api/v1/tasks/t1").await.unwrap().0, 404, "who does not wait needs no place");
    // Whoever leaves gives the place back.
    waiting.abort();
    until_waiting(&service, 0).await;
    let waiting = ask(&service, "/api/v1/tasks/t1?wait=20s");
    until_waiting(&service, 1).await;
    service.publish(&event("t1", 1)).await;
    assert_eq!(waiting.await.unwrap().0, 200);
    drop(socket);
}

#[tokio::test]
async fn those_who_wait_behind_a_proxy_are_counted_among_the_connections_of_their_address() {
    let service = Service::start(&[
        ("TASKCAST_HTTP_TRUSTED_PROXIES", "127.0.0.0/8"),
        ("TASKCAST_LIMITS_CONNECTIONS_PER_IP_MAX", "2"),
    ])
    .await;
    let ask = |path: &'static str, address: &'static str| {
        let port = service.port;
        tokio::spawn(async move {
            let bearer = format!("Bearer {}", token("u1"));
            http_whole(port, "GET", path, &[("Authorization", &bearer), ("X-Forwarded-For", address)], "").await
        })
    };
    let waiting = [1, 2].map(|_| ask("/api/v1/tasks/t1?wait=60s", "203.0.113.9"));
    until_waiting(&service, 2).await;
    let (status, head, body) = ask("/api/v1/tasks/t1?wait=60s", "203.0.113.9").await.unwrap();
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &problem["limit"]), (429, &json!("connections_per_ip_max")));
    assert!(head.contains("retry-after: "), "{head}");
    assert_eq!(ask("/api/v1/tasks/t1", "203.0.113.9").await.unwrap().0, 404, "who does not wait needs no place");
    let other = ask("/api/v1/tasks/t1?wait=60s", "203.0.113.8");
    until_waiting(&service, 3).await;
    service.publish(&event("t1", 10)).await;
    for asked in waiting.into_iter().chain([other]) {
        assert_eq!(asked.await.unwrap().0, 200);
    }
    assert_eq!(ask("/api/v1/tasks/t1?wait=60s", "203.0.113.9").await.unwrap().0, 200, "the places are free again");
}

#[tokio::test]
async fn who_closes_a_connection_waits_no_longer_whatever_they_said_behind_the_question() {
    let service = Service::start(&[]).await;
    let bearer = token("u1");
    let question =
        format!("GET /api/v1/tasks/t1?wait=60s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n\r\n");
    let mut connections = Vec::new();
    for behind in ["", "GET / HTTP/1.1\r\n", &question, "GET / HTTP/1.1\r\n"] {
        let mut connection = TcpStream::connect(("127.0.0.1", service.port)).await.unwrap();
        connection.write_all(format!("{question}{behind}").as_bytes()).await.unwrap();
        connections.push(connection);
    }
    until_waiting(&service, 4).await;
    let mut stays = connections.pop().unwrap();
    let began = clock::now().instant;
    drop(connections);
    until_waiting(&service, 1).await;
    assert!(began.elapsed() < Duration::from_secs(40), "not after a minute");
    // Who is still there is still answered.
    service.publish(&event("t1", 10)).await;
    let mut status = [0; 12];
    stays.read_exact(&mut status).await.unwrap();
    assert_eq!(status, *b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_token_that_ends_or_is_revoked_meanwhile_learns_nothing() {
    let service = Service::start(&[("TASKCAST_AUTH_LEEWAY_SECONDS", "0")]).await;
    let short = token_for("u1", &["own"], false, Duration::from_secs(2));
    let began = clock::now().instant;
    let (status, _, problem) = ask_with(service.port, "/api/v1/tasks/t1?wait=60s", short).await.unwrap();
    assert_eq!((status, &problem["error_code"]), (401, &json!("EXPIRED_TOKEN")));
    assert!(began.elapsed() < Duration::from_secs(15), "not after a minute");

    let of_somebody = token_of(json!({"sub": "u1", "jti": "poll-1"}));
    let asked = ask_with(service.port, "/api/v1/tasks/t1?wait=20s", of_somebody);
    until_waiting(&service, 1).await;
    let revoker = format!("Bearer {}", token_of(json!({"sub": "backend", "taskcast": {"revoke": true}})));
    let headers = [("Authorization", revoker.as_str()), ("Content-Type", "application/json")];
    let body = json!({"jti": "poll-1"}).to_string();
    assert_eq!(http_whole(service.port, "POST", "/api/v1/revocations", &headers, &body).await.0, 202);
    // The log is applied in order, so what comes behind it finds it done.
    service.publish(&event("t1", 1)).await;
    let (status, _, problem) = asked.await.unwrap();
    assert_eq!((status, &problem["error_code"]), (401, &json!("INVALID_TOKEN")));
}

#[tokio::test]
async fn a_drain_answers_those_who_wait_in_turn_and_closes_their_connections() {
    let service = Service::start(&[("TASKCAST_DRAIN_SECONDS", "2")]).await;
    service.publish(&event("t1", 10)).await;
    until("it is there", async || service.get("/api/v1/tasks/t1", "u1").await.0 == 200).await;
    let cursor = service.get("/api/v1/tasks/t1", "u1").await.1["cursor"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/tasks/t1?wait=60s&after={cursor}");
    let waiting: Vec<_> = (0..10).map(|_| ask(&service, &path)).collect();
    let not_begun = ask(&service, "/api/v1/tasks/t2?wait=60s");
    until_waiting(&service, 11).await;
    let began = clock::now().instant;
    service.signal("TERM");
    for asked in waiting {
        let (status, head, _) = asked.await.unwrap();
        assert!(status == 204 && head.contains("connection: close"), "{head}");
    }
    // It may begin within the minute, so "there is none" would be too early.
    let (status, head, _) = not_begun.await.unwrap();
    assert!(status == 503 && head.contains("connection: close") && head.contains("retry-after: "), "{head}");
    assert!(began.elapsed() < Duration::from_secs(10), "not after a minute");
}

#[tokio::test]
async fn a_cursor_holds_on_another_replica_and_after_a_restart() {
    let redis = RedisServer::start().await;
    let (url, key) = (redis.url(), unique("polls"));
    let environment = [("TASKCAST_LOG", url.as_str()), ("TASKCAST_LOG_KEY", &key)];
    let mut a = Service::start(&environment).await;
    let b = Service::start(&environment).await;
    a.publish(&event("t1", 10)).await;
    let (_, _, task) = ask(&a, "/api/v1/tasks/t1?wait=20s").await.unwrap();
    let path = format!("/api/v1/tasks/t1?wait=20s&after={}", task["cursor"].as_str().unwrap());
    a.kill_and_restart().await;
    let asked = [ask(&a, &path), ask(&b, &path)];
    until_waiting(&a, 1).await;
    until_waiting(&b, 1).await;
    b.publish(&event("t1", 20)).await;
    for asked in asked {
        assert_eq!(asked.await.unwrap().2["progress"], 20.0);
    }
}
