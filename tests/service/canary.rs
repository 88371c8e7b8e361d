//! The delivery canary: over each log, hidden from everyone, and honest about the leg that fails.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use taskcast::clock;

use crate::{
    harness::{Client, Service, binary, token_with, until},
    support::{
        brokers::{RabbitServer, RedisServer},
        unique,
    },
};

const EVERY_SECOND: [(&str, &str); 2] =
    [("TASKCAST_CANARY_INTERVAL_SECONDS", "1"), ("TASKCAST_CANARY_TIMEOUT_SECONDS", "3")];

/// Long enough apart to tell an append that is tried again from the next one's turn.
const SELDOM: [(&str, &str); 2] = [("TASKCAST_CANARY_INTERVAL_SECONDS", "8"), ("TASKCAST_CANARY_TIMEOUT_SECONDS", "9")];

/// One at the start and one after each outage, and no other while a test runs.
const ONCE: [(&str, &str); 2] =
    [("TASKCAST_CANARY_INTERVAL_SECONDS", "3000"), ("TASKCAST_CANARY_TIMEOUT_SECONDS", "3600")];

async fn start(settings: &[(&str, &str)], log: &str) -> Service {
    Service::start(&[settings, &[("TASKCAST_LOG", log)]].concat()).await
}

async fn readiness(service: &Service) -> Value {
    serde_json::from_str(&service.operations("/readyz").await.1).unwrap()
}

async fn came_back(service: &Service) -> u64 {
    service.metric("taskcast_canary_seconds_count").await
}

async fn until_more_came_back(service: &Service, more: u64) {
    let wanted = came_back(service).await + more;
    until("more canaries come back", async || came_back(service).await >= wanted).await;
}

/// The ids under which canaries stand in the log.
async fn ids(redis: &RedisServer) -> BTreeSet<String> {
    let entries = redis.cli(&["XRANGE", "taskcast:events", "-", "+"]).await;
    let events = entries.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ids = events.filter_map(|event| Some(event["task_id"].as_str()?.to_owned()));
    ids.filter(|id| id.starts_with("taskcast:canary:")).collect()
}

async fn it_comes_back(service: &Service) {
    until_more_came_back(service, 2).await;
    let canary = &readiness(service).await["canary"];
    assert_eq!((&canary["ok"], &canary["suspect"]), (&json!(true), &Value::Null));
    let age = canary["age_seconds"].as_f64().unwrap();
    assert!((0.0..3.0).contains(&age), "{age}");
    assert_eq!(service.metric("taskcast_canary_failures_total").await, 0);
}

#[tokio::test]
async fn it_comes_back_over_a_log_in_memory() {
    it_comes_back(&start(&EVERY_SECOND, "memory").await).await;
}

#[tokio::test]
async fn it_comes_back_over_redis_to_each_of_two_replicas() {
    let redis = RedisServer::start().await;
    let replicas = [start(&EVERY_SECOND, &redis.url()).await, start(&EVERY_SECOND, &redis.url()).await];
    for replica in &replicas {
        it_comes_back(replica).await;
    }
    assert_eq!(ids(&redis).await.len(), 2);
    // In another log too, whose positions begin anew.
    redis.cli(&["DEL", "taskcast:events"]).await;
    for replica in &replicas {
        it_comes_back(replica).await;
    }
}

#[tokio::test]
async fn it_comes_back_over_rabbitmq() {
    let rabbit = RabbitServer::shared().await;
    let (queue, exchange) = (unique("canary-queue"), unique("canary-exchange"));
    let names = [("TASKCAST_LOG_KEY", queue.as_str()), ("TASKCAST_LOG_EXCHANGE", exchange.as_str())];
    it_comes_back(&start(&[&EVERY_SECOND[..], &names].concat(), &rabbit.url()).await).await;
}

#[tokio::test]
async fn a_rabbitmq_that_blocks_its_publishers_or_is_restarted_costs_readiness_for_as_long() {
    let mut rabbit = RabbitServer::start().await;
    let timeout = [("TASKCAST_LOG_APPEND_TIMEOUT_MS", "1000")];
    let service = start(&[&EVERY_SECOND[..], &timeout].concat(), &rabbit.url()).await;
    rabbit.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
    service.until_ready(false).await;
    let answer = readiness(&service).await;
    assert_eq!((&answer["connected"], &answer["canary"]["suspect"]), (&json!(true), &json!("append")), "{answer}");
    rabbit.ctl(&["set_vm_memory_high_watermark", "absolute", "512MB"]).await;
    service.until_ready(true).await;
    rabbit.stop().await;
    service.until_ready(false).await;
    assert_eq!(readiness(&service).await["connected"], false);
    rabbit.restart().await;
    let back = clock::now().instant;
    service.until_ready(true).await;
    let waited = clock::now().instant - back;
    // Two seconds on a machine that is not busy; `tests/run faults` measures that.
    assert!(waited < Duration::from_secs(8), "{waited:?}");
    until_more_came_back(&service, 2).await;
}

#[tokio::test]
async fn nobody_meets_it_and_nothing_counts_it() {
    let redis = RedisServer::start().await;
    let service = start(&EVERY_SECOND, &redis.url()).await;
    until("it is in the log", async || !ids(&redis).await.is_empty()).await;
    let id = ids(&redis).await.pop_first().unwrap();
    let rights = ["own", "all", &format!("task:{id}"), &format!("root:{id}")];
    let bearer = format!("Bearer {}", token_with("u1", &rights, true));
    let headers = [("Authorization", bearer.as_str())];
    let mut all = Client::connect(service.port, "/ws/tasks/?watch=all", &headers).await;
    let mut one = Client::connect(service.port, &format!("/ws/tasks/{id}/"), &headers).await;
    one.say(&json!({"type": "subscribe", "root_id": id})).await;
    until_more_came_back(&service, 2).await;
    one.say(&json!({"type": "get_task_status", "task_id": id})).await;
    assert_eq!(one.until("task_status").await["task"], Value::Null);
    one.say(&json!({"type": "cancel_task", "task_id": id})).await;
    assert_eq!(one.until("task_cancelled").await["success"], false);
    one.say(&json!({"type": "get_active_tasks"})).await;
    one.settle().await;
    all.settle().await;
    for client in [&all, &one] {
        assert!(client.bars().is_empty() && !client.types().contains(&"task_removed"), "{:?}", client.frames);
    }
    let ask = |path: String| {
        let bearer = bearer.clone();
        let port = service.port;
        async move { crate::harness::http(port, "GET", &path, &[("Authorization", &bearer)], "").await }
    };
    let unknown = ask("/api/v1/tasks/taskcast:canary:none".to_owned()).await;
    assert_eq!((ask(format!("/api/v1/tasks/{id}")).await, unknown.0), (unknown.clone(), 404));
    let list: Value = serde_json::from_str(&ask("/api/v1/tasks".to_owned()).await.1).unwrap();
    assert_eq!(list["total"], 0);
    for (series, value) in [
        ("taskcast_connections ", 2),
        ("taskcast_connections_total ", 2),
        ("taskcast_handshakes_total{", 2),
        ("taskcast_frames_delivered_total", 0),
        ("taskcast_event_to_socket_seconds_count", 0),
        ("taskcast_pull_batch_frames_count", 0),
        ("taskcast_closes_total", 0),
        ("taskcast_tasks{", 0),
        ("outcome=\"applied\"", 0),
    ] {
        assert_eq!(service.metric(series).await, value, "{series}");
    }
    assert!(service.metric("outcome=\"canary\"").await >= 2);
}

#[tokio::test]
async fn no_stranger_may_publish_under_a_reserved_id() {
    let redis = RedisServer::start().await;
    let service = start(&ONCE, &redis.url()).await;
    let event = json!({"task_id": "taskcast:canary:mine", "user_id": "u1", "progress": 5});
    let (status, answer) = service.post(&event.to_string(), "application/json").await;
    let error = &answer["errors"][0];
    assert_eq!((status, &error["field"], &error["reason"]), (400, &json!("task_id"), &json!("value")));
    assert!(error["detail"].as_str().unwrap().contains("taskcast:canary:"), "{error}");
    let mut publish = binary();
    publish.args(["publish", "--log", &redis.url(), "taskcast:canary:mine"]);
    let output = tokio::task::spawn_blocking(move || publish.output().unwrap()).await.unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("taskcast:canary:"), "{output:?}");
    assert!(!ids(&redis).await.contains("taskcast:canary:mine"));
}

#[tokio::test]
async fn what_strangers_write_under_reserved_ids_into_the_log_changes_nothing() {
    let redis = RedisServer::start().await;
    let service = start(&[&EVERY_SECOND[..], &[("TASKCAST_TASKS_MAX", "2")]].concat(), &redis.url()).await;
    until("it is in the log", async || !ids(&redis).await.is_empty()).await;
    let own = ids(&redis).await.pop_first().unwrap();
    let bearer = format!("Bearer {}", token_with("u1", &["own", "all"], false));
    let headers = [("Authorization", bearer.as_str())];
    let mut all = Client::connect(service.port, "/ws/tasks/?watch=all", &headers).await;
    all.until("active_tasks").await;
    // An end, and an order that nothing can follow.
    let hostile = r#","user_id":"u1","status":"cancelled","seq":9000000000000,"attempt":4000000000,"message":"2"}"#;
    let mut script =
        "for number = 1, 500 do redis.call('XADD', KEYS[1], '*', 'event', '{\"task_id\":\"taskcast:canary:' \
                      .. number .. '\"' .. ARGV[1]) end "
            .to_owned();
    script += "redis.call('XADD', KEYS[1], '*', 'event', '{\"task_id\":\"' .. ARGV[2] .. '\"' .. ARGV[1])";
    redis.cli(&["EVAL", &script, "1", "taskcast:events", hostile, &own]).await;
    for task in ["t1", "t2"] {
        let event = json!({"task_id": task, "user_id": "u1", "progress": 5});
        redis.cli(&["XADD", "taskcast:events", "*", "event", &event.to_string()]).await;
    }
    until("both are there", async || service.metric("taskcast_tasks{").await == 2).await;
    assert!(service.metric("outcome=\"canary\"").await >= 501);
    assert_eq!(service.metric("outcome=\"dropped\"").await, 0);
    until_more_came_back(&service, 5).await;
    assert_eq!(readiness(&service).await["ready"], true);
    all.settle().await;
    assert_eq!(all.bars().into_keys().collect::<Vec<_>>(), ["t1", "t2"]);
    assert!(!all.types().contains(&"task_completed"));
}

#[tokio::test]
async fn a_user_who_loses_the_right_to_append_costs_readiness_and_nothing_else() {
    let redis = RedisServer::start().await;
    let user = async |rule: &str| {
        redis.cli(&["ACL", "SETUSER", "service", "on", ">pass", "~*", "&*", "+@all", rule]).await;
    };
    user("+xadd").await;
    let url = redis.url_as("service", "pass");
    let service = start(&SELDOM, &url).await;
    let mut owner = service.attach("/ws/tasks/", "u1").await;
    user("-xadd").await;
    service.until_ready(false).await;
    let answer = readiness(&service).await;
    assert_eq!((&answer["connected"], &answer["replayed"]), (&json!(true), &json!(true)));
    assert_eq!((&answer["canary"]["ok"], &answer["canary"]["suspect"]), (&json!(false), &json!("append")));
    let detail = answer["detail"].as_str().unwrap();
    assert!(detail.contains("canary") && detail.contains("xadd") && !detail.contains("pass"), "{detail}");
    assert!(service.metric("taskcast_canary_failures_total{leg=\"append\"}").await >= 1);
    assert_eq!(service.metric("taskcast_canary_failures_total{leg=\"tail\"}").await, 0);
    assert!(service.metric("taskcast_canary_age_seconds").await >= 9);
    assert_eq!(service.operations("/livez").await.0, 200);
    // Whoever may append reaches everyone all the same.
    let event = r#"{"task_id":"t","user_id":"u1","progress":5}"#;
    redis.cli(&["XADD", "taskcast:events", "*", "event", event]).await;
    assert_eq!(owner.until("task_progress").await["progress"], 5);
    user("+xadd").await;
    let healed = clock::now().instant;
    service.until_ready(true).await;
    let waited = clock::now().instant - healed;
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    // Who never could append is not ready, unless it is not asked to.
    user("-xadd").await;
    let other = Service::start_unready(&[&EVERY_SECOND[..], &[("TASKCAST_LOG", &url)]].concat()).await;
    until("it knows why", async || readiness(&other).await["canary"]["suspect"] == "append").await;
    assert_eq!(readiness(&other).await["ready"], false);
    let reader = start(&[("TASKCAST_CANARY_INTERVAL_SECONDS", "0")], &url).await;
    assert_eq!(readiness(&reader).await["canary"], Value::Null);
}

#[tokio::test]
async fn a_redis_without_memory_costs_readiness_until_it_has_some() {
    let redis = RedisServer::start().await;
    let service = start(&EVERY_SECOND, &redis.url()).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    service.until_ready(false).await;
    let answer = readiness(&service).await;
    assert_eq!((&answer["connected"], &answer["canary"]["suspect"]), (&json!(true), &json!("append")));
    assert!(answer["detail"].as_str().unwrap().contains("OOM"), "{answer}");
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    service.until_ready(true).await;
}

#[tokio::test]
async fn after_an_outage_one_is_sent_at_once_and_readiness_is_not_late() {
    let mut redis = RedisServer::start().await;
    let service = start(&ONCE, &redis.url()).await;
    assert_eq!(came_back(&service).await, 1);
    redis.kill();
    service.until_ready(false).await;
    redis.restart().await;
    let back = clock::now().instant;
    service.until_ready(true).await;
    let waited = clock::now().instant - back;
    // Two seconds on a machine that is not busy; `tests/run faults` measures that.
    assert!(waited < Duration::from_secs(8), "{waited:?}");
    until("another came back", async || came_back(&service).await == 2).await;
    let entries = redis.cli(&["XLEN", "taskcast:events"]).await;
    assert_eq!(entries, "2", "none piled up");
}
