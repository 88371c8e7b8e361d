//! More than the service can take: readers that do not read, storms, memory that runs short. What one does, the others
//! do not feel.
#![expect(clippy::print_stderr, reason = "what was measured is told")]

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use taskcast::clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{Client, Service, http_whole, token, token_with, until},
    support::brokers::RedisServer,
};

/// Events of tasks that each weigh `bytes`, published in requests of about 500 kB.
async fn publish_heavy(service: &Service, name: &str, user: &str, count: usize, bytes: usize) {
    let text = "x".repeat(bytes);
    let events: Vec<Value> = (0..count)
        .map(|n| json!({"task_id": format!("{name}-{n}"), "user_id": user, "metadata": {"text": text}}))
        .collect();
    for part in events.chunks((500_000 / bytes).max(1)) {
        let (status, answer) = service.post(&Value::from(part).to_string(), "application/json").await;
        assert_eq!(status, 202, "{answer}");
    }
}

/// Reads on until frames of so many tasks have come.
async fn read_tasks(client: &mut Client, count: usize) {
    let mut seen: BTreeSet<String> = client.bars().into_keys().collect();
    while seen.len() < count {
        let frame = client.next().await;
        let listed = frame["tasks"].as_array().into_iter().flatten();
        seen.extend([&frame].into_iter().chain(listed).filter_map(|task| task["task_id"].as_str()).map(str::to_owned));
    }
}

/// The Redis command that appends an event.
fn append(event: &str) -> String {
    let head = "*5\r\n$4\r\nXADD\r\n$15\r\ntaskcast:events\r\n$1\r\n*\r\n$5\r\nevent\r\n";
    format!("{head}${}\r\n{event}\r\n", event.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_is_dropped_and_comes_back_to_everything() {
    let service = Service::start(&[("TASKCAST_SESSIONS_WRITE_TIMEOUT_MS", "1500")]).await;
    let mut reader = service.attach("/ws/tasks/", "u1").await;
    let mut stalled = Client::connect_narrow(service.port, "/ws/tasks/", "u1", 4_096).await;
    stalled.until("active_tasks").await;
    publish_heavy(&service, "t", "u1", 300, 8_000).await;
    let published = clock::now().instant;
    read_tasks(&mut reader, 300).await;
    assert!(published.elapsed() < Duration::from_secs(20), "the others got theirs after {:?}", published.elapsed());
    until("the client is dropped", async || service.metric("taskcast_readers_dropped_total").await == 1).await;
    assert!(published.elapsed() < Duration::from_secs(30), "dropped only after {:?}", published.elapsed());
    until("it is gone", async || service.metric("taskcast_connections ").await == 1).await;

    stalled.drain().await;
    let before = stalled.bars().len();
    assert!((1..300).contains(&before), "it had read {before} of 300 tasks");
    service.publish(&json!({"task_id": "t-7", "user_id": "u1", "status": "failed"})).await;
    let mut again = service.connect(&format!("/ws/tasks/?cursor={}", stalled.cursor()), "u1").await;
    assert_eq!(again.until("connection_established").await["resumed"], true);
    again.until_end_of("t-7").await;
    reader.until_end_of("t-7").await;
    again.settle().await;
    let mut seen = stalled.bars();
    seen.extend(again.bars());
    assert_eq!(seen, reader.bars());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_only_sips_does_not_keep_its_frames_for_ever() {
    let service = Service::start(&[("TASKCAST_SESSIONS_WRITE_TIMEOUT_MS", "3000")]).await;
    let mut sipping = Client::connect_narrow(service.port, "/ws/tasks/", "u1", 4_096).await;
    sipping.until("active_tasks").await;
    publish_heavy(&service, "t", "u1", 300, 8_000).await;
    let began = clock::now().instant;
    // Some 3 kB per second: the socket moves all the time.
    while service.metric("taskcast_readers_dropped_total").await == 0 {
        assert!(began.elapsed() < Duration::from_secs(15), "not dropped");
        sipping.sip(300).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_that_do_not_read_cost_no_memory_of_their_own() {
    let service = Service::start(&[]).await;
    let resident = async || service.metric("process_resident_memory_bytes").await / 1_000_000;
    publish_heavy(&service, "old", "u1", 2_000, 2_000).await;
    let mut reader = service.attach("/ws/tasks/", "u1").await;
    read_tasks(&mut reader, 2_000).await;
    let before = resident().await;
    let mut stalled = Vec::new();
    for _ in 0..200 {
        stalled.push(Client::connect_narrow(service.port, "/ws/tasks/", "u1", 4_096).await);
    }
    until("all are connected", async || service.metric("taskcast_connections ").await == 201).await;
    let connected = resident().await;
    publish_heavy(&service, "new", "u1", 3_000, 4_000).await;
    let published = clock::now().instant;
    read_tasks(&mut reader, 5_000).await;
    let waited = published.elapsed();
    let after = resident().await;
    let tasks = service.metric("taskcast_tasks_bytes").await / 1_000_000;
    eprintln!("resident MB: {before}, with 200 stalled {connected}, under load {after}; tasks {tasks}; {waited:?}");
    assert_eq!(service.metric("taskcast_connections ").await, 201, "none was dropped meanwhile");
    // 200 copies of what was published would be 2,400 MB. Each may hold a page of its snapshot.
    assert!(connected.saturating_sub(before) < 40, "{connected} MB after {before} MB");
    assert!(after.saturating_sub(connected) < 80, "{after} MB after {connected} MB");
    assert!(waited < Duration::from_secs(20), "the reader waited {waited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_memory_is_short_nothing_new_is_admitted_and_the_connected_go_on() {
    let redis = RedisServer::start().await;
    let first = Service::start(&[("TASKCAST_LOG", &redis.url())]).await;
    let limit = first.metric("process_resident_memory_bytes").await + 40_000_000;
    drop(first);
    let limit = limit.to_string();
    let service = Service::start(&[
        ("TASKCAST_LOG", &redis.url()),
        ("TASKCAST_MEMORY_MAX_BYTES", &limit),
        ("TASKCAST_TASKS_MAX_BYTES", "0"),
    ])
    .await;
    let mut connected = service.attach("/ws/tasks/", "u1").await;
    let overloaded = async || service.metric("taskcast_overloaded").await == 1;
    assert!(!overloaded().await);
    let text = "x".repeat(8_000);
    let mut commands = String::new();
    for n in 0..10_000 {
        let event = json!({"task_id": format!("t{n}"), "user_id": "u2", "metadata": {"text": text}});
        commands.push_str(&append(&event.to_string()));
    }
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).await.unwrap();
    stream.write_all(commands.as_bytes()).await.unwrap();
    until("it is overloaded", overloaded).await;

    let bearer = format!("Bearer {}", token("u1"));
    let handshake = [
        ("Authorization", bearer.as_str()),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let (status, head, body) = http_whole(service.port, "GET", "/ws/tasks/", &handshake, "").await;
    assert!(status == 503 && head.to_ascii_lowercase().contains("retry-after"), "{head}");
    assert!(body.contains("urn:taskcast:problem:overloaded"), "{body}");
    let worker = format!("Bearer {}", token_with("worker", &["own"], true));
    let event = r#"{"task_id":"t","user_id":"u1"}"#;
    let (status, head, _) =
        http_whole(service.port, "POST", "/api/v1/events", &[("Authorization", &worker)], event).await;
    assert!(status == 503 && head.to_ascii_lowercase().contains("retry-after"), "{head}");
    assert_eq!(service.metric("taskcast_handshakes_total{outcome=\"overloaded\"}").await, 1);

    let (status, body) = service.operations("/readyz").await;
    assert!(status == 200 && body.contains("\"overloaded\":true"), "{body}");
    assert_eq!(service.operations("/livez").await.0, 200);
    let end = r#"{"task_id":"mine","user_id":"u1","status":"succeeded"}"#;
    redis.cli(&["XADD", "taskcast:events", "*", "event", end]).await;
    connected.until_end_of("mine").await;
    assert_eq!(service.get("/api/v1/tasks/mine", "u1").await.0, 200);
    assert_eq!(service.get("/api/v1/tasks", "u1").await.0, 503, "a long answer to a slow reader would take more");
}

/// Writes events to Redis over one connection, `per_tick` every 10 ms, until `stop` is dropped; how many.
async fn storm(port: u16, per_tick: usize, mut stop: tokio::sync::oneshot::Receiver<()>) -> usize {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut answers, mut commands) = stream.split();
    let mut count = 0;
    let write = async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while stop.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            tick.tick().await;
            let mut batch = Vec::new();
            for _ in 0..per_tick {
                count += 1;
                let event = format!(r#"{{"task_id":"storm","user_id":"u1","current":{count}}}"#);
                batch.extend_from_slice(append(&event).as_bytes());
            }
            commands.write_all(&batch).await.unwrap();
        }
    };
    let read = async {
        let mut answer = vec![0; 65_536];
        while answers.read(&mut answer).await.is_ok_and(|bytes| bytes > 0) {}
    };
    tokio::select! {
        () = write => {}
        () = read => {}
    }
    count
}

/// From publishing the ends of 30 tasks, one by one, to a client that watches them beside the storm: the third longest
/// wait, since a busy machine may stop everybody for a moment.
async fn long_wait_for_an_end(redis: &RedisServer, client: &mut Client, name: &str) -> Duration {
    let mut waits = Vec::new();
    for n in 0..30 {
        let id = format!("{name}-{n}");
        let end = json!({"task_id": id, "user_id": "u1", "status": "succeeded"}).to_string();
        redis.cli(&["XADD", "taskcast:events", "*", "event", &end]).await;
        let published = clock::now().instant;
        client.until_end_of(&id).await;
        waits.push(published.elapsed());
    }
    waits.sort_unstable();
    waits[27]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_on_one_task_delays_no_other_tasks_end() {
    let redis = RedisServer::start().await;
    let service = Service::start(&[("TASKCAST_LOG", &redis.url())]).await;
    let mut client = service.attach("/ws/tasks/", "u1").await;
    let mut crowd = Vec::new();
    for _ in 0..50 {
        let mut watcher = service.attach("/ws/tasks/storm/", "u1").await;
        crowd.push(tokio::spawn(async move { watcher.drain().await }));
    }
    let calm = long_wait_for_an_end(&redis, &mut client, "calm").await;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let blowing = tokio::spawn(storm(redis.port(), 40, stopped));
    let began = clock::now().instant;
    let stormy = long_wait_for_an_end(&redis, &mut client, "stormy").await;
    let took = began.elapsed();
    drop(stop);
    let count = blowing.await.unwrap();
    let rate = count as f64 / took.as_secs_f64();
    eprintln!("a long wait for an end: {calm:?}, beside {rate:.0} events per second {stormy:?}");
    assert!(count > 200, "no storm: {count} events");
    assert!(stormy < calm + Duration::from_millis(500), "{stormy:?} instead of {calm:?}");
    for watcher in crowd {
        watcher.abort();
    }
}
