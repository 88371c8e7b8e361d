//! Everyone at once: they all get in, and every one of them is right.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    harness::{Client, PATIENCE, Service},
    support::brokers::RedisServer,
};

const CLIENTS: usize = 300;

/// Rounds of events, of every task one each. The first is what clients know, two more are missed, the rest comes while
/// they come back.
const ROUNDS: usize = 12;

fn user(n: usize) -> String {
    format!("u{n}")
}

/// One event of every task: queued, then running, waiting for one round in the middle, and at last an end.
fn round(number: usize) -> Value {
    let status = match number {
        0 => "queued",
        6 => "waiting",
        last if last == ROUNDS - 1 => "succeeded",
        _ => "running",
    };
    let event = |n| json!({"task_id": format!("t{n}"), "user_id": user(n), "status": status, "current": number});
    (0..CLIENTS).map(event).collect()
}

async fn publish(service: &Service, rounds: std::ops::Range<usize>) {
    for number in rounds {
        let (status, answer) = service.post(&round(number).to_string(), "application/json").await;
        assert_eq!(status, 202, "{answer}");
    }
}

/// Comes back with `cursor` and reads on to the end of its task.
async fn comes_back(service: &Service, n: usize, cursor: &str) -> Client {
    let mut client = service.connect(&format!("/ws/tasks/?cursor={cursor}"), &user(n)).await;
    let greeting = client.next().await;
    assert_eq!(greeting["resumed"], true, "{greeting}");
    assert_eq!(greeting["cursor"], cursor);
    client.until_end_of(&format!("t{n}")).await;
    client
}

fn is_right(client: &Client, n: usize) {
    let frames = &client.frames[1..];
    assert!(frames.iter().all(|frame| frame["task_id"] == format!("t{n}")), "what is its own, and no snapshot");
    let steps: Vec<u64> = frames.iter().map(|frame| frame["current"].as_u64().unwrap()).collect();
    assert!(steps.is_sorted_by(|a, b| a < b) && steps[0] > 0, "nothing twice, nothing that it had: {steps:?}");
    // Progress may be folded away, a change of status never.
    for (round, status) in [(1, "running"), (6, "waiting"), (7, "running"), (ROUNDS - 1, "succeeded")] {
        let told = frames.iter().any(|frame| frame["current"] == round && frame["status"] == status);
        assert!(told, "{status} in round {round} of t{n}: {steps:?}");
    }
}

#[tokio::test]
async fn everyone_who_comes_back_at_once_while_events_flow_is_right() {
    let redis = RedisServer::start().await;
    let service = Service::start(&[("TASKCAST_LOG", &redis.url())]).await;
    publish(&service, 0..1).await;
    let known = join_all((0..CLIENTS).map(async |n| {
        let mut client = service.attach("/ws/tasks/", &user(n)).await;
        if client.bars().is_empty() {
            client.until("task_progress").await;
        }
        client.cursor()
    }))
    .await;
    publish(&service, 1..3).await;
    let back = join_all(known.iter().enumerate().map(|(n, cursor)| comes_back(&service, n, cursor)));
    let (clients, ()) = tokio::join!(back, publish(&service, 3..ROUNDS));
    for (n, client) in clients.iter().enumerate() {
        is_right(client, n);
    }
    assert_eq!(service.metric(r#"taskcast_resumes_total{outcome="resumed"}"#).await, CLIENTS as u64);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn more_than_the_usual_backlog_get_in_while_the_service_is_busy() {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    // The kernel's limit, where it is lower.
    let most: usize = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    let service = Service::start(&[]).await;
    service.signal("STOP");
    let connecting = join_all((0..600.min(most)).map(|_| TcpStream::connect(("127.0.0.1", service.port))));
    let connected = tokio::time::timeout(PATIENCE, connecting).await;
    service.signal("CONT");
    for stream in connected.expect("the kernel takes them all, though nobody accepts") {
        let mut stream = stream.unwrap();
        stream.write_all(b"GET /theme.css HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }
}
