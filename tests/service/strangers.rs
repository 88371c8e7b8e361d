//! What strangers send: an error frame or a counted drop; the service lives on.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    harness::{Client, Service, http, http_whole, token, until},
    support::brokers::RedisServer,
};

#[tokio::test]
async fn unknown_and_broken_messages_are_answered_and_the_connection_goes_on() {
    let service = Service::start(&[]).await;
    let mut client = service.attach("/ws/tasks/", "u1").await;
    for message in [
        json!({"type": "make_coffee", "id": "c"}),
        json!({"no": "type"}),
        json!([1, 2]),
        json!({"type": "subscribe"}),
        json!({"type": "subscribe", "task_id": 5}),
        json!({"type": "subscribe", "task_id": "x".repeat(300)}),
    ] {
        client.say(&message).await;
        let frame = client.next().await;
        assert_eq!(frame["type"], "error", "{message} → {frame}");
        assert!(frame["error_code"].is_string() && frame["message"].is_string());
    }
    assert_eq!(client.frames[2]["id"], "c");
    client.send(Message::text("{not json")).await;
    assert_eq!(client.next().await["type"], "error");
    client.send(Message::text("x".repeat(1_000_000))).await;
    assert_eq!(client.next().await["type"], "error");
    client.settle().await;
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_only_that_connection_with_its_code() {
    let service = Service::start(&[]).await;
    let mut bystander = service.attach("/ws/tasks/", "u1").await;
    let mut binary = service.attach("/ws/tasks/", "u1").await;
    binary.send(Message::binary(vec![0xff; 10])).await;
    assert_eq!(binary.closed().await, Some(1003));
    let mut not_utf8 = service.attach("/ws/tasks/", "u1").await;
    not_utf8.send_raw(&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe]).await;
    assert_eq!(not_utf8.closed().await, Some(1007));
    let mut unmasked = service.attach("/ws/tasks/", "u1").await;
    unmasked.send_raw(&[0x81, 0x02, b'h', b'i']).await;
    assert_eq!(unmasked.closed().await, Some(1002));
    let mut endless = service.attach("/ws/tasks/", "u1").await;
    endless.send_raw(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]).await;
    assert_eq!(endless.closed().await, Some(1009));
    bystander.settle().await;
}

#[tokio::test]
async fn malformed_events_are_counted_and_set_aside() {
    let redis = RedisServer::start().await;
    let service = Service::start(&[("TASKCAST_LOG", &redis.url())]).await;
    let mut client = service.attach("/ws/tasks/", "u1").await;
    let long = format!(r#"{{"task_id":"{}"}}"#, "x".repeat(300));
    for event in [
        r#"{"task_id":"a","progress":NaN}"#,
        r#"{"progress":1}"#,
        r#"{"task_id":7}"#,
        r#"{"task_id":"a","title":7}"#,
        r#"{"task_id":"a","progress":"much"}"#,
        "\u{fffd}not json",
        "[]",
        &long,
    ] {
        redis.cli(&["XADD", "taskcast:events", "*", "event", event]).await;
    }
    redis.cli(&["XADD", "taskcast:events", "*", "other", "field"]).await;
    for bytes in [r"'\255\254'", "string.rep('g', 1000000)"] {
        let script = format!("redis.call('XADD', KEYS[1], '*', 'event', {bytes})");
        redis.cli(&["EVAL", &script, "1", "taskcast:events"]).await;
    }
    let fine = r#"{"task_id":"fine","user_id":"u1","current":5,"total":0}"#;
    redis.cli(&["XADD", "taskcast:events", "*", "event", fine]).await;
    let frame = client.until("task_progress").await;
    assert_eq!((&frame["task_id"], &frame["progress"]), (&json!("fine"), &json!(null)), "an unknown total is no total");
    assert_eq!(service.metric("outcome=\"malformed\"").await, 11);
    assert_eq!(service.operations("/readyz").await.0, 200);
}

#[tokio::test]
async fn foreign_and_unknown_tasks_are_answered_alike_byte_for_byte() {
    let service = Service::start(&[]).await;
    service.publish(&json!({"task_id": "foreign", "user_id": "u2", "progress": 1})).await;
    until("it is there", async || service.get("/api/v1/tasks/foreign", "u2").await.0 == 200).await;
    let bearer = format!("Bearer {}", token("u1"));
    let ask = async |id: &str| {
        let path = format!("/api/v1/tasks/{id}");
        http_whole(service.port, "GET", &path, &[("Authorization", &bearer)], "").await
    };
    let plain = |(status, head, body): (u16, String, String)| {
        let head: Vec<_> = head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date:")).collect();
        (status, head.join("\n"), body.replace("foreign", "ID").replace("unknown", "ID"))
    };
    assert_eq!(plain(ask("foreign").await), plain(ask("unknown").await));
    let mut client = service.attach("/ws/tasks/", "u1").await;
    let mut answers = Vec::new();
    for id in ["foreign", "unknown"] {
        for kind in ["subscribe", "get_task_status", "cancel_task", "unsubscribe"] {
            client.say(&json!({"type": kind, "task_id": id})).await;
            let mut answer = client.next().await;
            answer["timestamp"] = json!(null);
            answers.push(answer.to_string().replace(id, "ID"));
        }
    }
    assert_eq!(answers[..4], answers[4..]);
}

#[tokio::test]
async fn an_origin_that_is_not_listed_is_refused_with_403() {
    let service = Service::start(&[("TASKCAST_ORIGINS", "https://app.example.com,https://*.tools.example.com")]).await;
    let bearer = format!("Bearer {}", token("u1"));
    for (origin, allowed) in [
        ("https://app.example.com", true),
        ("https://x.tools.example.com", true),
        ("https://app.example.com.evil.test", false),
        ("https://evil.test", false),
        ("http://app.example.com", false),
        ("null", false),
    ] {
        let headers = [("Authorization", bearer.as_str()), ("Origin", origin)];
        let outcome = Client::try_connect(service.port, "/ws/tasks/", &headers).await;
        assert_eq!(outcome.is_ok(), allowed, "{origin}");
        if let Err(tokio_tungstenite::tungstenite::Error::Http(response)) = outcome {
            assert_eq!(response.status(), 403);
        }
    }
    assert!(service.metric("taskcast_handshakes_total{outcome=\"origin_refused\"}").await >= 4);
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_in_json() {
    let service = Service::start(&[]).await;
    let (status, head, body) = http_whole(service.port, "GET", "/no/such/page", &[], "").await;
    assert_eq!(status, 404);
    assert!(head.to_ascii_lowercase().contains("application/problem+json"), "{head}");
    assert!(body.contains("\"status\":404"), "{body}");
    assert_eq!(http(service.port, "DELETE", "/api/v1/events", &[], "").await.0, 405);
    let long = format!("/ws/tasks/{}/", "x".repeat(300));
    let (status, body) =
        http(service.port, "GET", &long, &[("Connection", "Upgrade"), ("Upgrade", "websocket")], "").await;
    assert_eq!(status, 400, "{body}");
}

/// The head of the answer to a request that was sent to this `Host`.
async fn sent_to(port: u16, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_site_that_gives_itself_the_address_of_loopback_is_refused_where_no_token_is_needed() {
    let service = Service::start(&[("TASKCAST_AUTH_MODE", "none"), ("TASKCAST_AUTH_USER", "dev")]).await;
    for path in ["/", "/page/app.js", "/api/v1/tasks", "/api/v1/tasks/t", "/ws/tasks/", "/no/such/page"] {
        let refused = sent_to(service.port, "evil.test:6161", path).await;
        assert!(refused.starts_with("HTTP/1.1 403 "), "{path}: {refused}");
        assert!(
            refused.contains("urn:taskcast:problem:foreign-host") && refused.contains("DNS rebinding"),
            "{refused}"
        );
        assert!(!sent_to(service.port, "localhost:6161", path).await.starts_with("HTTP/1.1 403 "), "{path}");
    }
    for (host, allowed) in [("evil.test", false), ("localhost", true), ("app.localhost:3000", true)] {
        let headers = [("Host", host), ("Origin", &format!("http://{host}"))];
        let outcome = Client::try_connect(service.port, "/ws/tasks/", &headers).await;
        assert_eq!(outcome.is_ok(), allowed, "{host}");
    }
    let guarded = Service::start(&[]).await;
    assert!(sent_to(guarded.port, "any.name.test", "/").await.starts_with("HTTP/1.1 200 "), "tokens are proof enough");
}

#[tokio::test]
async fn events_are_taken_as_every_content_type_of_the_contract() {
    let service = Service::start(&[]).await;
    let event = json!({"task_id": "t", "user_id": "u1"});
    let cloud = json!({"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": event});
    for (content_type, body) in [
        ("application/json", event.to_string()),
        ("text/json; charset=utf-8", event.to_string()),
        ("application/cloudevents+json", cloud.to_string()),
        ("application/cloudevents-batch+json", json!([cloud]).to_string()),
        ("application/x-ndjson", format!("{event}\n{event}\n")),
        ("application/vnd.google.protobuf", "\n\u{1}t".to_owned()),
    ] {
        let (status, answer) = service.post(&body, content_type).await;
        assert_eq!(status, 202, "{content_type}: {answer}");
    }
}
