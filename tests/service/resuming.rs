//! Drops, restarts and replicas: the bar is right when the client comes back.

use serde_json::{Value, json};

use crate::{
    harness::{Client, Service, until},
    support::{
        brokers::{RabbitServer, RedisServer},
        unique,
    },
};

/// A log that two replicas share, and that can be written to.
struct Shared {
    environment: Vec<(&'static str, String)>,
}

impl Shared {
    fn redis(redis: &RedisServer) -> Self {
        Self { environment: vec![("TASKCAST_LOG", redis.url())] }
    }

    fn rabbit(rabbit: &RabbitServer) -> Self {
        let environment = vec![
            ("TASKCAST_LOG", rabbit.url()),
            ("TASKCAST_LOG_KEY", unique("resume-queue")),
            ("TASKCAST_LOG_EXCHANGE", unique("resume-exchange")),
        ];
        Self { environment }
    }

    async fn replica(&self) -> Service {
        let variables: Vec<_> = self.environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Service::start(&variables).await
    }
}

fn events(from: usize, count: usize) -> Value {
    let event = |n: usize| {
        let task = n % 20;
        let ends = n / 20 == 50 && task.is_multiple_of(4);
        json!({
            "task_id": format!("t{task}"), "user_id": "u1", "progress": n / 20,
            "status": if ends { "failed" } else { "running" },
        })
    };
    (from..from + count).map(event).collect()
}

/// A client drops from one replica while 1,000 events pass and comes back to another.
async fn a_dropped_client_catches_up_elsewhere(shared: &Shared) {
    let (a, b) = (shared.replica().await, shared.replica().await);
    let mut steady = a.attach("/ws/tasks/", "u1").await;
    let mut dropped = a.attach("/ws/tasks/", "u1").await;
    assert_eq!(a.post(&events(0, 200).to_string(), "application/json").await.0, 202);
    while dropped.bars().len() < 20 {
        dropped.next().await;
    }
    let cursor = dropped.cursor();
    let before = dropped.bars();
    drop(dropped);
    assert_eq!(b.post(&events(200, 1_000).to_string(), "application/json").await.0, 202);
    let last = json!({"task_id": "end", "user_id": "u1", "status": "succeeded"});
    a.publish(&last).await;
    steady.until_end_of("end").await;

    let mut back = b.connect(&format!("/ws/tasks/?cursor={cursor}"), "u1").await;
    let greeting = back.next().await;
    assert_eq!(greeting["resumed"], true, "{greeting}");
    back.until_end_of("end").await;
    let mut bars = before;
    bars.extend(back.bars());
    assert_eq!(bars, steady.bars());
    let mut cursors: Vec<_> = back.frames[1..].iter().filter_map(|frame| frame["cursor"].as_str()).collect();
    let all = cursors.len();
    cursors.sort_unstable();
    cursors.dedup();
    assert_eq!(cursors.len(), all, "nothing twice");
    assert!(!back.types().contains(&"active_tasks"), "no snapshot after a resume");
}

#[tokio::test]
async fn a_client_resumes_on_another_replica_over_redis() {
    let redis = RedisServer::start().await;
    a_dropped_client_catches_up_elsewhere(&Shared::redis(&redis)).await;
}

#[tokio::test]
async fn a_client_resumes_on_another_replica_over_rabbitmq() {
    a_dropped_client_catches_up_elsewhere(&Shared::rabbit(RabbitServer::shared().await)).await;
}

#[tokio::test]
async fn after_kill_minus_9_all_tasks_are_there_from_the_log_alone_and_cursors_hold() {
    let redis = RedisServer::start().await;
    let mut service = Shared::redis(&redis).replica().await;
    let mut client = service.attach("/ws/tasks/", "u1").await;
    service.publish(&json!({"task_id": "t1", "user_id": "u1", "progress": 10})).await;
    service.publish(&json!({"task_id": "t2", "user_id": "u1", "status": "failed"})).await;
    client.until_end_of("t2").await;
    let (cursor, before) = (client.cursor(), client.bars());
    service.kill_and_restart().await;
    let fresh = service.attach("/ws/tasks/", "u1").await;
    assert_eq!(fresh.bars(), before);
    let mut back = service.connect(&format!("/ws/tasks/?cursor={cursor}"), "u1").await;
    assert_eq!(back.next().await["resumed"], true);
    service.publish(&json!({"task_id": "t1", "progress": 20})).await;
    assert_eq!(back.until("task_progress").await["progress"], 20);
}

async fn refused(service: &Service, cursor: &str) -> (String, Client) {
    let mut client = service.connect(&format!("/ws/tasks/?cursor={cursor}"), "u1").await;
    let greeting = client.next().await;
    assert_eq!(greeting["resumed"], false, "{greeting}");
    let snapshot = client.next().await;
    assert_eq!(snapshot["type"], "active_tasks", "a full snapshot: {snapshot}");
    (greeting["resume_failure"].as_str().unwrap().to_owned(), client)
}

#[tokio::test]
async fn a_cursor_from_before_a_flush_is_refused_and_open_clients_start_over() {
    let redis = RedisServer::start().await;
    let service = Shared::redis(&redis).replica().await;
    let mut client = service.attach("/ws/tasks/", "u1").await;
    service.publish(&json!({"task_id": "old", "user_id": "u1", "progress": 10})).await;
    client.until("task_progress").await;
    let cursor = client.cursor();
    redis.cli(&["FLUSHALL"]).await;
    let new = r#"{"task_id":"new","user_id":"u1","progress":1}"#;
    redis.cli(&["XADD", "taskcast:events", "*", "event", new]).await;
    while client.bars().keys().ne(["new"]) {
        client.next().await;
    }
    let (reason, other) = refused(&service, &cursor).await;
    assert!(["another_log", "trimmed"].contains(&reason.as_str()), "{reason}");
    assert_eq!(other.bars().keys().collect::<Vec<_>>(), ["new"]);
}

#[tokio::test]
async fn a_cursor_that_retention_has_passed_is_refused_as_trimmed() {
    let redis = RedisServer::start().await;
    let mut service = Shared::redis(&redis).replica().await;
    let mut client = service.attach("/ws/tasks/", "u1").await;
    for n in 0..3 {
        service.publish(&json!({"task_id": format!("t{n}"), "user_id": "u1", "progress": 10})).await;
        client.until("task_progress").await;
    }
    let cursor = client.frames[2]["cursor"].as_str().unwrap().to_owned();
    redis.cli(&["XTRIM", "taskcast:events", "MAXLEN", "1"]).await;
    service.kill_and_restart().await;
    let (reason, client) = refused(&service, &cursor).await;
    assert_eq!(reason, "trimmed");
    assert_eq!(client.bars().keys().collect::<Vec<_>>(), ["t2"], "what the log still holds");
}

#[tokio::test]
async fn a_cursor_of_another_log_or_of_the_memory_log_before_a_restart_is_refused() {
    let redis = RedisServer::start().await;
    let over_redis = Shared::redis(&redis).replica().await;
    let mut in_memory = Service::start(&[]).await;
    let mut cursors = Vec::new();
    for service in [&over_redis, &in_memory] {
        let mut client = service.attach("/ws/tasks/", "u1").await;
        service.publish(&json!({"task_id": "t", "user_id": "u1", "progress": 10})).await;
        client.until("task_progress").await;
        cursors.push(client.cursor());
    }
    refused(&over_redis, &cursors[1]).await;
    refused(&in_memory, &cursors[0]).await;
    in_memory.kill_and_restart().await;
    let (_, empty) = refused(&in_memory, &cursors[1]).await;
    assert!(empty.bars().is_empty());
    in_memory.publish(&json!({"task_id": "t", "user_id": "u1", "progress": 10})).await;
    until("the event is applied", async || in_memory.get("/api/v1/tasks/t", "u1").await.0 == 200).await;
    refused(&in_memory, &cursors[1]).await;
}

#[tokio::test]
async fn clients_stay_while_the_broker_is_away_and_hear_what_came_when_it_is_back() {
    let mut redis = RedisServer::start().await;
    let service = Shared::redis(&redis).replica().await;
    let mut client = service.attach("/ws/tasks/", "u1").await;
    service.publish(&json!({"task_id": "t", "user_id": "u1", "progress": 10})).await;
    client.until("task_progress").await;
    redis.kill();
    service.until_ready(false).await;
    assert_eq!(service.operations("/livez").await.0, 200);
    assert!(client.until("source_degraded").await["fresh_until"].is_string());
    // So that it cannot be back before something was missed.
    service.signal("STOP");
    redis.restart().await;
    redis.cli(&["XADD", "taskcast:events", "*", "event", r#"{"task_id":"t","progress":60}"#]).await;
    service.signal("CONT");
    client.until("source_recovered").await;
    let progress = client.frames.iter().rev().find(|frame| frame["type"] == "task_progress").unwrap();
    assert_eq!(progress["progress"], 60, "what was missed comes before the word that all is well");
    service.until_ready(true).await;
}

#[tokio::test]
async fn a_task_that_ended_before_the_client_came_shows_its_end() {
    let service = Service::start(&[]).await;
    service.publish(&json!({"task_id": "t", "user_id": "u1", "status": "succeeded", "result": 42})).await;
    until("it has ended", async || service.get("/api/v1/tasks/t", "u1").await.1["status"] == "succeeded").await;
    for path in ["/ws/tasks/t/", "/ws/tasks/", "/ws/groups/t"] {
        let client = service.attach(path, "u1").await;
        let task = &client.frames[1]["tasks"][0];
        assert_eq!((&task["status"], &task["result"]), (&json!("succeeded"), &json!(42)), "{path}");
    }
}
