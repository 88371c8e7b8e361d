//! Event streams as `EventSource` and curl meet them: plain HTTP, read byte by byte.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{
    harness::{Service, http_whole, token, token_for, token_of, until},
    stream_client::StreamClient,
    support::{
        brokers::{RabbitServer, RedisServer},
        unique,
    },
};

fn event(task: &str, percent: u64) -> Value {
    json!({"task_id": task, "user_id": "u1", "status": "running", "progress": percent})
}

fn end(task: &str) -> Value {
    json!({"task_id": task, "user_id": "u1", "status": "succeeded", "result": {"rows": 3}})
}

/// Publishes, and waits until it can be seen by who comes from now on.
async fn publish_seen(service: &Service, event: &Value) {
    service.publish(event).await;
    let path = format!("/api/v1/tasks/{}", event["task_id"].as_str().unwrap());
    until("it is there", async || service.get(&path, "u1").await.0 == 200).await;
}

#[tokio::test]
async fn a_stream_says_what_a_websocket_says_and_its_ids_are_the_cursors() {
    let service = Service::start(&[]).await;
    publish_seen(&service, &event("t1", 10)).await;
    let mut socket = service.attach("/ws/tasks/", "u1").await;
    let mut stream = StreamClient::open(&service, "/events/tasks/", "u1").await;
    assert_eq!(stream.status, 200, "{}", stream.head);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store, no-transform"),
        ("x-accel-buffering", "no"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(stream.header(name), Some(value), "{}", stream.head);
    }
    assert!(stream.header("date").is_some() && stream.header("content-length").is_none(), "{}", stream.head);
    let greeting = stream.next().await;
    assert_eq!(
        (&greeting["type"], &greeting["protocol"]),
        (&json!("connection_established"), &json!("taskcast.v1.json"))
    );
    let retry = stream.retry.expect("a retry before the first message");
    assert!((500..=5_000).contains(&retry), "{retry}");
    let page = stream.until("active_tasks").await;
    assert_eq!((page["tasks"][0]["progress"].as_f64(), page["more"].as_bool()), (Some(10.0), Some(false)));
    service.publish(&json!({"task_id": "t1", "user_id": "u1", "progress": 20, "message": "a\nb\r\n\r\ndata: c"})).await;
    service.publish(&end("t1")).await;
    let heard = socket.until_end_of("t1").await;
    let told = stream.until("task_completed").await;
    assert_eq!(told, heard);
    assert_eq!(stream.last_id.as_deref(), told["cursor"].as_str());
    assert_eq!(stream.messages[2]["message"], "a\nb\r\n\r\ndata: c");
    // All of one's own tasks never end: others may come.
    service.publish(&event("t2", 1)).await;
    assert_eq!(stream.until("task_progress").await["task_id"], "t2");
}

#[tokio::test]
async fn a_stream_of_one_task_ends_with_it_and_who_comes_back_is_told_to_stop() {
    let service = Service::start(&[]).await;
    let mut early = StreamClient::open(&service, "/events/tasks/t1/", "u1").await;
    early.until("active_tasks").await;
    service.publish(&event("t1", 50)).await;
    assert_eq!(early.until("task_progress").await["progress"], 50.0);
    service.publish(&end("t1")).await;
    assert_eq!(early.until("task_completed").await["result"]["rows"], 3);
    assert!(early.ended().await, "the last chunk");
    let last_id = early.last_id.clone().unwrap();
    for path in ["/events/tasks/t1/", "/events/tasks/t1"] {
        let back = StreamClient::reopen(&service, path, "u1", &last_id).await;
        assert_eq!((back.status, back.header("content-length")), (204, None), "{}", back.head);
    }
    for query in ["cursor", "last_event_id"] {
        let back = StreamClient::open(&service, &format!("/events/tasks/t1/?{query}={last_id}"), "u1").await;
        assert_eq!(back.status, 204, "{query}");
    }
    // Whoever has not heard the end hears it, then, and the stream ends as well.
    let mut late = StreamClient::open(&service, "/events/tasks/t1/", "u1").await;
    assert_eq!(late.until("active_tasks").await["tasks"][0]["status"], "succeeded");
    assert!(late.ended().await);
    let last_id = late.last_id.clone().unwrap();
    drop(late);
    assert_eq!(StreamClient::reopen(&service, "/events/tasks/t1/", "u1", &last_id).await.status, 204);
    drop(early);
    until("nobody is connected", async || {
        service.metric("taskcast_transport_connections{transport=\"event_stream\"}").await == 0
    })
    .await;
    assert_eq!(service.metric("taskcast_transport_connections_total{transport=\"event_stream\"}").await, 2);
    assert_eq!(service.metric("taskcast_closes_total{code=\"1000\"}").await, 2);
}

#[tokio::test]
async fn what_is_not_ones_own_never_ends_and_looks_like_what_does_not_exist() {
    let service = Service::start(&[]).await;
    publish_seen(&service, &end("theirs")).await;
    let mut answers = Vec::new();
    for task in ["theirs", "nobodys"] {
        let mut stream = StreamClient::open(&service, &format!("/events/tasks/{task}/"), "u2").await;
        let page = stream.until("active_tasks").await;
        assert_eq!(page["tasks"], json!([]));
        let id = stream.last_id.clone().unwrap();
        drop(stream);
        let mut back = StreamClient::reopen(&service, &format!("/events/tasks/{task}/"), "u2", &id).await;
        let greeting = back.next().await;
        answers.push((back.status, greeting["resumed"].clone(), back.head.lines().count()));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!((answers[0].0, &answers[0].1), (200, &json!(true)));
}

#[tokio::test]
async fn a_group_ends_when_its_own_task_has_and_all_others_in_it() {
    let service = Service::start(&[]).await;
    let child = |id: &str, status: &str| json!({"task_id": id, "user_id": "u1", "root_id": "r1", "status": status});
    let mut stream = StreamClient::open(&service, "/events/groups/r1/", "u1").await;
    stream.until("active_tasks").await;
    for (id, status) in [("c1", "succeeded"), ("r1", "running"), ("c2", "running"), ("r1", "succeeded")] {
        service.publish(&child(id, status)).await;
        let told = stream.next().await;
        assert_eq!((&told["task_id"], &told["status"]), (&json!(id), &json!(status)));
    }
    service.publish(&child("c2", "failed")).await;
    assert_eq!(stream.next().await["status"], "failed");
    assert!(stream.ended().await);
    let last_id = stream.last_id.unwrap();
    assert_eq!(StreamClient::reopen(&service, "/events/groups/r1/", "u1", &last_id).await.status, 204);
    publish_seen(&service, &child("c3", "running")).await;
    let mut back = StreamClient::reopen(&service, "/events/groups/r1/", "u1", &last_id).await;
    assert_eq!(back.until("task_progress").await["task_id"], "c3");
}

#[tokio::test]
async fn who_may_not_come_is_told_by_a_status() {
    let origins = "https://app.test";
    let variables =
        [("TASKCAST_ORIGINS", origins), ("TASKCAST_AUTH_COOKIE", "session"), ("TASKCAST_AUTH_LEEWAY_SECONDS", "0")];
    let service = Service::start(&variables).await;
    let good = token("u1");
    let bearer = format!("Bearer {good}");
    let cookie = format!("session={good}");
    let expired = format!("Bearer {}", token_for("u1", &["own"], false, Duration::from_secs(0)));
    let nothing = format!("Bearer {}", token_of(json!({"sub": "u1", "taskcast": {}})));
    let query = format!("/events/tasks/?token={good}");
    for (path, headers, status) in [
        ("/events/tasks/", &[][..], 401),
        ("/events/tasks/", &[("Authorization", "Bearer a.b.c")], 401),
        ("/events/tasks/", &[("Authorization", expired.as_str())], 401),
        ("/events/tasks/", &[("Authorization", nothing.as_str())], 403),
        ("/events/tasks/", &[("Authorization", bearer.as_str())], 200),
        ("/events/tasks/", &[("Authorization", bearer.as_str()), ("Origin", origins)], 200),
        ("/events/tasks/", &[("Authorization", bearer.as_str()), ("Origin", "https://app.test.evil.test")], 403),
        ("/events/tasks/", &[("Authorization", bearer.as_str()), ("Origin", "null")], 403),
        ("/events/tasks/", &[("Cookie", cookie.as_str()), ("Origin", origins)], 200),
        ("/events/tasks/", &[("Cookie", cookie.as_str()), ("Sec-Fetch-Site", "same-origin")], 200),
        ("/events/tasks/", &[("Cookie", cookie.as_str()), ("Sec-Fetch-Site", "cross-site")], 403),
        ("/events/tasks/", &[("Cookie", cookie.as_str()), ("Origin", "https://evil.test")], 403),
        (query.as_str(), &[], 200),
        (query.as_str(), &[("Sec-Fetch-Site", "cross-site")], 403),
        ("/events/tasks/?watch=everything", &[("Authorization", bearer.as_str())], 400),
        ("/events/tasks/?dialect=celery", &[("Authorization", bearer.as_str())], 400),
        ("/events/tasks/%ff", &[("Authorization", bearer.as_str())], 400),
        ("/events/", &[("Authorization", bearer.as_str())], 404),
        ("/events/groups/", &[("Authorization", bearer.as_str())], 404),
    ] {
        let client = StreamClient::open_with(service.port, path, headers).await;
        assert_eq!(client.status, status, "{path} {headers:?} {}", client.head);
        let readable = client.header("access-control-allow-origin");
        let listed = headers.contains(&("Origin", origins));
        assert_eq!(readable, listed.then_some(origins), "{path} {headers:?}");
    }
    let (status, head, _) = http_whole(service.port, "POST", "/events/tasks/", &[("Authorization", &bearer)], "").await;
    assert!(status == 405 && head.contains("allow: GET, OPTIONS"), "{head}");
    let asked = [("Origin", origins), ("Access-Control-Request-Method", "GET")];
    let (status, head, _) = http_whole(service.port, "OPTIONS", "/events/tasks/", &asked, "").await;
    assert!(status == 204 && head.contains("authorization, content-type, last-event-id"), "{head}");
    assert!(service.metric("taskcast_handshakes_total{outcome=\"origin_refused\"}").await >= 2);
}

#[tokio::test]
async fn a_query_token_counts_only_where_a_websocket_takes_one() {
    let service = Service::start(&[("TASKCAST_AUTH_QUERY_TOKEN", "false")]).await;
    let client = StreamClient::open_with(service.port, &format!("/events/tasks/?token={}", token("u1")), &[]).await;
    assert_eq!(client.status, 401);
}

#[tokio::test]
async fn streams_take_the_places_of_connections_and_give_them_back() {
    let service = Service::start(&[("TASKCAST_LIMITS_CONNECTIONS_PER_USER_MAX", "2")]).await;
    let first = StreamClient::open(&service, "/events/tasks/", "u1").await;
    let socket = service.attach("/ws/tasks/", "u1").await;
    let mut third = StreamClient::open(&service, "/events/tasks/", "u1").await;
    assert_eq!((third.status, third.header("retry-after")), (429, Some("10")), "{}", third.head);
    assert!(third.rest().await.contains("connections_per_user_max"));
    // An EventSource would never come back after that, so it is told in a stream.
    let bearer = format!("Bearer {}", token("u1"));
    let headers = [("Authorization", bearer.as_str()), ("Accept", "text/event-stream")];
    let mut told = StreamClient::open_with(service.port, "/events/tasks/", &headers).await;
    assert_eq!((told.status, told.next().await["error_code"].clone()), (200, json!("LIMIT_REACHED")));
    assert!(told.retry.is_some_and(|retry| (10_000..=15_000).contains(&retry)), "{:?}", told.retry);
    assert!(told.event().await.is_none());
    assert_eq!(StreamClient::open(&service, "/events/tasks/", "u2").await.status, 200, "others have their own");
    drop((first, socket));
    until("a place is free again", async || StreamClient::open(&service, "/events/tasks/", "u1").await.status == 200)
        .await;
    assert!(service.metric("taskcast_handshakes_total{outcome=\"limited\"}").await >= 2);
}

#[tokio::test]
async fn a_silent_stream_is_kept_open_by_comments_and_what_its_client_says_means_nothing() {
    let variables = [
        ("TASKCAST_SESSIONS_HEARTBEAT_INTERVAL_MS", "50"),
        ("TASKCAST_SESSIONS_DEAD_PEER_TIMEOUT_MS", "200"),
        ("TASKCAST_SESSIONS_BYTES_PER_MINUTE", "100000"),
    ];
    let service = Service::start(&variables).await;
    let mut stream = StreamClient::open(&service, "/events/tasks/", "u1").await;
    stream.until("active_tasks").await;
    stream.say(b"\x81\x05hello GET / HTTP/1.1\r\n\r\n").await.unwrap();
    // Ten times as long as a silent WebSocket would live.
    while stream.comments < 40 {
        let event = stream.event().await.expect("an open stream");
        assert!(event.comment && event.data.is_none() && event.id.is_none(), "{event:?}");
    }
    service.publish(&event("t1", 1)).await;
    assert_eq!(stream.until("task_progress").await["task_id"], "t1");
    // But somebody who never stops is sent away.
    let flood = vec![0; 4_096];
    while stream.say(&flood).await.is_ok() {}
    assert_eq!(service.metric("taskcast_limit_refusals_total{limit=\"bytes_per_minute\"}").await, 1);
}

#[tokio::test]
async fn whoever_speaks_http_1_0_gets_the_stream_without_chunks() {
    let service = Service::start(&[]).await;
    service.publish(&event("t1", 1)).await;
    let bearer = format!("Bearer {}", token("u1"));
    let socket = TcpStream::connect(("127.0.0.1", service.port)).await.unwrap();
    let headers = [("Authorization", bearer.as_str())];
    let mut stream = StreamClient::ask(socket, "GET", "HTTP/1.0", "/events/tasks/t1/", &headers).await;
    assert_eq!((stream.status, stream.header("transfer-encoding")), (200, None), "{}", stream.head);
    stream.until("active_tasks").await;
    service.publish(&end("t1")).await;
    assert_eq!(stream.until("task_completed").await["task_id"], "t1");
    assert!(stream.event().await.is_none(), "the end of the connection");
}

#[tokio::test]
async fn a_stream_may_follow_other_requests_on_its_connection_and_is_the_last_one() {
    let service = Service::start(&[]).await;
    let bearer = format!("Bearer {}", token("u1"));
    let headers = [("Authorization", bearer.as_str())];
    let socket = TcpStream::connect(("127.0.0.1", service.port)).await.unwrap();
    let mut first = StreamClient::ask(socket, "GET", "HTTP/1.1", "/api/v1/tasks", &headers).await;
    let length = first.header("content-length").unwrap().parse().unwrap();
    let body = first.take_body(length).await;
    assert!(body.contains("\"total\":0"), "{body}");
    let mut stream = StreamClient::ask(first.into_socket(), "GET", "HTTP/1.1", "/events/tasks/", &headers).await;
    stream.until("active_tasks").await;
    service.publish(&event("t1", 1)).await;
    stream.until("task_progress").await;
    assert_eq!(service.metric("taskcast_http_requests_total{route=\"/events/tasks\",status=\"200\"}").await, 1);
}

#[tokio::test]
async fn a_token_that_ends_or_is_revoked_ends_its_stream_with_a_word() {
    let service = Service::start(&[("TASKCAST_AUTH_LEEWAY_SECONDS", "0")]).await;
    let short = format!("Bearer {}", token_for("u1", &["own"], false, Duration::from_secs(5)));
    let mut stream = StreamClient::open_with(service.port, "/events/tasks/", &[("Authorization", &short)]).await;
    let expiring = stream.until("token_expiring").await;
    assert_eq!(
        expiring["token_expires_at"], expiring["refresh_until"],
        "nothing can be sent, so nothing is waited for"
    );
    assert_eq!(stream.until("authentication_error").await["error_code"], "EXPIRED_TOKEN");
    assert!(stream.ended().await);
    let back = StreamClient::open_with(service.port, "/events/tasks/", &[("Authorization", &short)]).await;
    assert_eq!(back.status, 401);

    let of_somebody = token_of(json!({"sub": "u1", "jti": "stream-1"}));
    let bearer = format!("Bearer {of_somebody}");
    let mut stream = StreamClient::open_with(service.port, "/events/tasks/", &[("Authorization", &bearer)]).await;
    stream.until("active_tasks").await;
    let revoker = format!("Bearer {}", token_of(json!({"sub": "backend", "taskcast": {"revoke": true}})));
    let headers = [("Authorization", revoker.as_str()), ("Content-Type", "application/json")];
    let body = json!({"jti": "stream-1"}).to_string();
    assert_eq!(http_whole(service.port, "POST", "/api/v1/revocations", &headers, &body).await.0, 202);
    assert_eq!(stream.until("authentication_error").await["error_code"], "INVALID_TOKEN");
    assert!(stream.ended().await);
    assert_eq!(
        StreamClient::open_with(service.port, "/events/tasks/", &[("Authorization", &bearer)]).await.status,
        401
    );
}

#[tokio::test]
async fn a_shared_link_shows_its_task_and_ends_with_it() {
    let service = Service::start(&[]).await;
    publish_seen(&service, &event("t1", 1)).await;
    let share = token_of(json!({"jti": "share-1", "taskcast": {"watch": ["task:t1"]}}));
    let mut stream = StreamClient::open_with(service.port, &format!("/events/tasks/?token={share}"), &[]).await;
    assert_eq!(stream.until("active_tasks").await["tasks"][0]["task_id"], "t1");
    service.publish(&end("t1")).await;
    assert!(stream.ended().await, "there is nothing else that it could show");
    assert_eq!(stream.messages.last().unwrap()["type"], "task_completed");
}

#[tokio::test]
async fn a_drain_tells_each_stream_serves_it_to_its_turn_and_ends_it_whole() {
    let service = Service::start(&[("TASKCAST_DRAIN_SECONDS", "3")]).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = StreamClient::open(&service, "/events/tasks/", "u1").await;
        stream.until("active_tasks").await;
        streams.push(stream);
    }
    service.signal("TERM");
    let mut waits = Vec::new();
    for stream in &mut streams {
        let told = stream.until("server_draining").await;
        waits.push(told["reconnect_after_ms"].as_u64().unwrap());
    }
    waits.sort_unstable();
    assert!(waits[0] < 600 && waits[19] > 2_000 && waits[19] <= 3_000, "spread: {waits:?}");
    let headers = [("Accept", "text/event-stream")];
    let mut refused = StreamClient::open_with(service.port, "/events/tasks/", &headers).await;
    assert_eq!((refused.status, refused.next().await["error_code"].clone()), (200, json!("UNAVAILABLE")));
    assert!(refused.retry.is_some_and(|retry| (2_000..=3_000).contains(&retry)), "{:?}", refused.retry);
    assert_eq!(StreamClient::open_with(service.port, "/events/tasks/", &[]).await.status, 503);
    for stream in &mut streams {
        assert!(stream.ended().await, "the last chunk");
        assert_eq!(stream.retry, Some(500), "the ends are spread, so they come back at once");
    }
}

#[tokio::test]
async fn a_slow_reader_of_a_stream_holds_marks_and_gets_the_newest_state() {
    let service = Service::start(&[]).await;
    let mut slow = StreamClient::open_narrow(&service, "/events/tasks/", "u1", 4_096).await;
    slow.until("active_tasks").await;
    let text = "x".repeat(3_000);
    let batch = |from: u64| -> Value {
        (from..from + 200)
            .map(|n| json!({"task_id": format!("t{}", n % 4), "user_id": "u1", "progress": n / 20, "message": text}))
            .collect()
    };
    for from in (0..2_000).step_by(200) {
        assert_eq!(service.post(&batch(from).to_string(), "application/json").await.0, 202);
    }
    service.publish(&json!({"task_id": "last", "user_id": "u1"})).await;
    while slow.until("task_progress").await["task_id"] != "last" {}
    let heard = slow.types().iter().filter(|kind| **kind == "task_progress").count();
    assert!(heard < 1_500, "folded: {heard} of 2,001");
    let bars = slow.bars();
    for (n, task) in ["t0", "t1", "t2", "t3"].iter().enumerate() {
        assert_eq!(bars[*task].1, Some(((1_996 + n as u64) / 20) as f64));
    }
    assert!(service.metric("taskcast_frames_conflated_total").await > 0);
}

#[tokio::test]
async fn a_reader_that_has_stopped_is_dropped() {
    let service = Service::start(&[("TASKCAST_SESSIONS_WRITE_TIMEOUT_MS", "300")]).await;
    let mut stuck = StreamClient::open_narrow(&service, "/events/tasks/", "u1", 4_096).await;
    stuck.until("active_tasks").await;
    let text = "x".repeat(4_000);
    let mut n = 0;
    until("it is dropped", async || {
        n += 1;
        let batch: Value = (0..200)
            .map(|i| json!({"task_id": format!("t{i}"), "user_id": "u1", "step": n.to_string(), "message": text}))
            .collect();
        assert_eq!(service.post(&batch.to_string(), "application/json").await.0, 202);
        service.metric("taskcast_readers_dropped_total").await == 1
    })
    .await;
    until("its place is free", async || service.metric("taskcast_connections ").await == 0).await;
}

/// A stream that breaks off when its replica is killed, and the broker away meanwhile, comes back without a gap.
async fn comes_back_without_a_gap(environment: &[(&str, &str)], outage: impl AsyncFn(bool)) {
    let mut service = Service::start(environment).await;
    let steps: Vec<Value> = (0..30).map(|n| json!({"task_id": "t1", "user_id": "u1", "step": n.to_string()})).collect();
    let mut stream = StreamClient::open(&service, "/events/tasks/t1/?deliver=every", "u1").await;
    stream.until("active_tasks").await;
    for step in &steps[..10] {
        service.publish(step).await;
    }
    while stream.next().await["step"] != "9" {}
    service.kill();
    assert!(!stream.ended().await, "no last chunk: it was no end");
    let last_id = stream.last_id.clone().unwrap();
    service.kill_and_restart().await;
    for step in &steps[10..20] {
        service.publish(step).await;
    }
    let mut back = StreamClient::reopen(&service, "/events/tasks/t1/?deliver=every", "u1", &last_id).await;
    assert_eq!(back.next().await["resumed"], true);
    while back.next().await["step"] != "19" {}
    outage(true).await;
    back.until("source_degraded").await;
    outage(false).await;
    back.until("source_recovered").await;
    for step in &steps[20..] {
        until("the log takes it", async || service.post(&step.to_string(), "application/json").await.0 == 202).await;
    }
    service.publish(&end("t1")).await;
    back.until("task_completed").await;
    assert!(back.ended().await);
    let told = stream.messages.iter().chain(&back.messages).filter(|message| message["type"] == "task_progress");
    let mut told: Vec<u64> = told.map(|message| message["step"].as_str().unwrap().parse().unwrap()).collect();
    // What was published while nobody knew whether the log took it may stand there twice.
    told.dedup();
    assert_eq!(told, (0..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_over_redis_comes_back_after_a_kill_and_lives_through_an_outage() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let key = unique("streams");
    comes_back_without_a_gap(&[("TASKCAST_LOG", &url), ("TASKCAST_LOG_KEY", &key)], async |is_away| {
        if is_away { redis.pause() } else { redis.resume() }
    })
    .await;
}

#[tokio::test]
async fn a_stream_over_rabbitmq_comes_back_after_a_kill_and_lives_through_an_outage() {
    let rabbit = RabbitServer::start().await;
    let url = rabbit.url();
    let (queue, exchange) = (unique("streams-queue"), unique("streams-exchange"));
    let environment =
        [("TASKCAST_LOG", url.as_str()), ("TASKCAST_LOG_KEY", &queue), ("TASKCAST_LOG_EXCHANGE", &exchange)];
    comes_back_without_a_gap(&environment, async |is_away| if is_away { rabbit.pause() } else { rabbit.resume() })
        .await;
}
