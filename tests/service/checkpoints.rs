//! Checkpoints as operators and clients meet them: a start is quick, cursors hold, silent tasks are not forgotten, and
//! whatever is wrong with a checkpoint costs no more than the replay.

use std::{sync::Arc, time::Duration};

use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeleteOptions},
};
use serde_json::{Value, json};
use taskcast::{
    clock,
    log::{Backend, Log, Outgoing, Settings},
    metrics::Metrics,
};

use crate::{
    harness::{Service, until},
    support::{
        brokers::{RabbitServer, RedisServer},
        unique,
    },
};

const CHECKPOINT: &str = "taskcast:events:checkpoint";
const EVERY_SECOND: (&str, &str) = ("TASKCAST_CHECKPOINT_INTERVAL_SECONDS", "1");

fn over_redis(redis: &RedisServer) -> Vec<(&'static str, String)> {
    vec![
        ("TASKCAST_LOG", redis.url()),
        // The log holds what a test publishes, and nothing else.
        ("TASKCAST_CANARY_INTERVAL_SECONDS", "0".to_owned()),
        (EVERY_SECOND.0, EVERY_SECOND.1.to_owned()),
    ]
}

async fn over_rabbit() -> Vec<(&'static str, String)> {
    let rabbit = RabbitServer::shared().await;
    vec![
        ("TASKCAST_LOG", rabbit.url()),
        ("TASKCAST_LOG_KEY", unique("checkpoint-queue")),
        ("TASKCAST_LOG_EXCHANGE", unique("checkpoint-exchange")),
        ("TASKCAST_CANARY_INTERVAL_SECONDS", "0".to_owned()),
        (EVERY_SECOND.0, EVERY_SECOND.1.to_owned()),
    ]
}

/// The same without checkpoints.
fn without(environment: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    let is_interval = |name: &str| name == EVERY_SECOND.0;
    let rest = environment.iter().filter(|(name, _)| !is_interval(name)).cloned();
    rest.chain([(EVERY_SECOND.0, "0".to_owned())]).collect()
}

async fn start(environment: &[(&'static str, String)]) -> Service {
    let variables: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Service::start(&variables).await
}

async fn writes(service: &Service, outcome: &str) -> u64 {
    service.metric(&format!("taskcast_checkpoint_writes_total{{outcome=\"{outcome}\"}}")).await
}

async fn loads(service: &Service, outcome: &str) -> u64 {
    service.metric(&format!("taskcast_checkpoint_loads_total{{outcome=\"{outcome}\"}}")).await
}

async fn replayed(service: &Service) -> u64 {
    service.metric("taskcast_replayed_events").await
}

/// Everything so far is in a checkpoint. The first that ends from now on may have been begun before; the one after it is
/// written, or not due because nothing has happened since.
async fn until_checkpointed(service: &Service) {
    let ended = async || writes(service, "written").await + writes(service, "not_due").await;
    let before = ended().await;
    until("a checkpoint is written", async || ended().await >= before + 2).await;
    assert!(writes(service, "written").await > 0);
}

fn events(from: usize, count: usize) -> Value {
    let event = |n: usize| json!({"task_id": format!("t{}", n % 30), "user_id": "u1", "progress": n as f64 / 100.0});
    (from..from + count).map(event).collect()
}

async fn publish_many(service: &Service, from: usize, count: usize) {
    for from in (from..from + count).step_by(500) {
        assert_eq!(service.post(&events(from, 500).to_string(), "application/json").await.0, 202);
    }
}

/// An end that comes after all that was published before it.
async fn publish_end(service: &Service, task: &str) {
    service.publish(&json!({"task_id": task, "user_id": "u1", "status": "succeeded"})).await;
}

async fn a_start_reads_little_and_cursors_hold(environment: &[(&'static str, String)]) {
    let mut service = start(environment).await;
    assert_eq!((loads(&service, "absent").await, loads(&service, "loaded").await), (1, 0));
    let mut old = service.attach("/ws/tasks/", "u1").await;
    service.publish(&json!({"task_id": "first", "user_id": "u1", "status": "waiting", "title": "of long ago"})).await;
    old.until("task_progress").await;
    let early = old.cursor();
    publish_many(&service, 0, 3_000).await;
    publish_end(&service, "end-1").await;
    old.until_end_of("end-1").await;
    let late = old.cursor();
    until_checkpointed(&service).await;
    service.kill_and_restart().await;
    assert_eq!(loads(&service, "loaded").await, 1);
    let read = replayed(&service).await;
    assert!(read <= 10, "{read} events were read although a checkpoint had them");
    assert_eq!(service.metric("taskcast_checkpoint_tasks").await, 32);

    let fresh = service.attach("/ws/tasks/", "u1").await;
    assert_eq!(fresh.bars(), old.bars());
    publish_end(&service, "end-2").await;
    for cursor in [&early, &late] {
        let mut back = service.connect(&format!("/ws/tasks/?cursor={cursor}"), "u1").await;
        let greeting = back.next().await;
        assert_eq!(greeting["resumed"], true, "{greeting}");
        back.until_end_of("end-2").await;
        assert!(!back.types().contains(&"active_tasks"), "no snapshot after a resume");
        assert_eq!(back.bars().contains_key("t7"), *cursor == early);
        if *cursor == early {
            assert_eq!(back.bars()["t7"], old.bars()["t7"]);
        }
    }
    let forged = format!("{}0", &late[..late.len() - 1]);
    let forged = if forged == late { format!("{}1", &late[..late.len() - 1]) } else { forged };
    let refused = service.connect(&format!("/ws/tasks/?cursor={forged}"), "u1").await.next().await;
    assert_eq!(refused["resumed"], false, "a proof is still a proof: {refused}");
}

#[tokio::test]
async fn over_redis_a_start_from_a_checkpoint_reads_little_and_cursors_hold() {
    let redis = RedisServer::start().await;
    a_start_reads_little_and_cursors_hold(&over_redis(&redis)).await;
}

#[tokio::test]
async fn over_rabbitmq_a_start_from_a_checkpoint_reads_little_and_cursors_hold() {
    a_start_reads_little_and_cursors_hold(&over_rabbit().await).await;
}

#[tokio::test]
async fn what_came_after_the_checkpoint_is_read_from_the_log() {
    let redis = RedisServer::start().await;
    let mut service = start(&over_redis(&redis)).await;
    publish_many(&service, 0, 500).await;
    until_checkpointed(&service).await;
    service.kill();
    for n in 0..20 {
        let event = format!(r#"{{"task_id":"t{n}","user_id":"u1","status":"failed"}}"#);
        redis.cli(&["XADD", "taskcast:events", "*", "event", &event]).await;
    }
    service.kill_and_restart().await;
    assert_eq!((loads(&service, "loaded").await, replayed(&service).await), (1, 20));
    let bars = service.attach("/ws/tasks/", "u1").await.bars();
    assert_eq!(bars.values().filter(|(status, _)| status == "failed").count(), 20);
    assert_eq!(bars["t25"].0, "running");
}

#[tokio::test]
async fn a_task_that_was_silent_for_longer_than_the_log_reaches_back_is_there_after_a_restart() {
    let redis = RedisServer::start().await;
    let mut service = start(&over_redis(&redis)).await;
    let mut client = service.attach("/ws/tasks/", "u1").await;
    service.publish(&json!({"task_id": "silent", "user_id": "u1", "progress": 40, "title": "Nightly"})).await;
    client.until("task_progress").await;
    let cursor = client.cursor();
    publish_many(&service, 0, 500).await;
    publish_end(&service, "end").await;
    client.until_end_of("end").await;
    until_checkpointed(&service).await;
    redis.cli(&["XTRIM", "taskcast:events", "MAXLEN", "1"]).await;
    service.kill_and_restart().await;
    let (status, task) = service.get("/api/v1/tasks/silent", "u1").await;
    assert_eq!((status, &task["progress"], &task["title"]), (200, &json!(40), &json!("Nightly")));
    // The log no longer has the event at this cursor; the checkpoint still has its proof and all that came after.
    let mut back = service.connect(&format!("/ws/tasks/?cursor={cursor}"), "u1").await;
    assert_eq!(back.next().await["resumed"], true);
    back.until_end_of("end").await;
}

#[tokio::test]
async fn when_the_log_no_longer_reaches_back_to_the_checkpoint_its_tasks_stay_and_cursors_are_trimmed() {
    let redis = RedisServer::start().await;
    let mut service = start(&over_redis(&redis)).await;
    let mut client = service.attach("/ws/tasks/", "u1").await;
    for task in ["silent", "busy", "ended"] {
        service.publish(&json!({"task_id": task, "user_id": "u1", "progress": 40})).await;
        client.until("task_progress").await;
    }
    let cursor = client.cursor();
    until_checkpointed(&service).await;
    service.kill();
    for event in [
        r#"{"task_id":"ended","user_id":"u1","status":"failed"}"#,
        r#"{"task_id":"busy","user_id":"u1","progress":60}"#,
        r#"{"task_id":"busy","user_id":"u1","progress":80}"#,
    ] {
        redis.cli(&["XADD", "taskcast:events", "*", "event", event]).await;
    }
    redis.cli(&["XTRIM", "taskcast:events", "MAXLEN", "1"]).await;
    service.kill_and_restart().await;
    assert_eq!((loads(&service, "loaded").await, loads(&service, "trimmed").await), (1, 1));
    let mut back = service.connect(&format!("/ws/tasks/?cursor={cursor}"), "u1").await;
    let greeting = back.next().await;
    assert_eq!((&greeting["resumed"], &greeting["resume_failure"]), (&json!(false), &json!("trimmed")));
    back.until("active_tasks").await;
    let bars = back.bars();
    assert_eq!(bars["silent"], ("running".to_owned(), Some(40.0)), "nothing was said of it, so this is still true");
    assert_eq!(bars["busy"], ("running".to_owned(), Some(80.0)));
    // And from here on everything is as ever, the next checkpoint too.
    service.publish(&json!({"task_id": "silent", "progress": 50})).await;
    back.until("task_progress").await;
    let cursor = back.cursor();
    until_checkpointed(&service).await;
    service.kill_and_restart().await;
    assert_eq!(loads(&service, "trimmed").await, 0);
    let mut again = service.connect(&format!("/ws/tasks/?cursor={cursor}"), "u1").await;
    assert_eq!(again.next().await["resumed"], true);
}

#[tokio::test]
async fn a_checkpoint_of_another_log_is_discarded() {
    let redis = RedisServer::start().await;
    let mut service = start(&over_redis(&redis)).await;
    publish_many(&service, 0, 500).await;
    until_checkpointed(&service).await;
    service.kill();
    redis.cli(&["DEL", "taskcast:events"]).await;
    let event = r#"{"task_id":"new","user_id":"u1","progress":1}"#;
    redis.cli(&["XADD", "taskcast:events", "*", "event", event]).await;
    service.kill_and_restart().await;
    assert_eq!((loads(&service, "loaded").await, loads(&service, "another_log").await), (1, 1));
    let bars = service.attach("/ws/tasks/", "u1").await.bars();
    assert_eq!(bars.keys().collect::<Vec<_>>(), ["new"]);
    assert_eq!(replayed(&service).await, 1);
}

/// As many events as before, so that nothing but the proof tells.
#[tokio::test]
async fn over_rabbitmq_a_checkpoint_of_another_log_is_discarded_before_anybody_sees_it() {
    let rabbit = RabbitServer::shared().await;
    let environment = over_rabbit().await;
    let mut service = start(&environment).await;
    let mut client = service.attach("/ws/tasks/", "u1").await;
    service.publish(&json!({"task_id": "old", "user_id": "u1", "progress": 1})).await;
    client.until("task_progress").await;
    let cursor = client.cursor();
    until_checkpointed(&service).await;
    service.kill();
    let channel = rabbit.connect().await.unwrap().create_channel().await.unwrap();
    let queue = environment[1].1.as_str();
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    let other = start(&without(&environment)).await;
    other.publish(&json!({"task_id": "new", "user_id": "u1", "progress": 1})).await;
    drop(other);
    service.kill_and_restart().await;
    assert_eq!(service.get("/api/v1/tasks/old", "u1").await.0, 404, "ready means proven");
    assert_eq!((loads(&service, "loaded").await, loads(&service, "another_log").await), (1, 1));
    let mut back = service.connect(&format!("/ws/tasks/?cursor={cursor}"), "u1").await;
    assert_eq!(back.next().await["resume_failure"], "another_log");
    back.until("active_tasks").await;
    assert_eq!(back.bars().keys().collect::<Vec<_>>(), ["new"]);
}

#[tokio::test]
async fn a_corrupt_checkpoint_costs_a_full_replay_and_is_replaced() {
    let redis = RedisServer::start().await;
    let mut service = start(&over_redis(&redis)).await;
    publish_many(&service, 0, 1_000).await;
    until_checkpointed(&service).await;
    service.kill();
    redis.cli(&["LSET", CHECKPOINT, "1", "something else"]).await;
    service.kill_and_restart().await;
    assert_eq!((loads(&service, "corrupt").await, loads(&service, "loaded").await), (1, 0));
    assert_eq!(replayed(&service).await, 1_000);
    assert_eq!(service.attach("/ws/tasks/", "u1").await.bars().len(), 30);
    // The next one is not due before something has happened that the broken one does not claim to know.
    publish_end(&service, "end").await;
    until_checkpointed(&service).await;
    service.kill_and_restart().await;
    assert_eq!(loads(&service, "loaded").await, 1);
}

#[tokio::test]
async fn of_two_replicas_one_writes_each_checkpoint() {
    let redis = RedisServer::start().await;
    let (a, b) = (start(&over_redis(&redis)).await, start(&over_redis(&redis)).await);
    let begun = clock::now().instant;
    let mut number = 0;
    let looked = async || {
        let (mut written, mut looked) = (0, 0);
        for service in [&a, &b] {
            written += writes(service, "written").await;
            looked += writes(service, "written").await + writes(service, "not_due").await;
        }
        (written, looked)
    };
    until("both have looked often", async || {
        number += 1;
        publish_end(&a, &format!("t{number}")).await;
        looked().await.1 >= 10
    })
    .await;
    let (written, looked) = looked().await;
    // At nine tenths of the interval at the earliest, whoever writes.
    let most = (clock::now().instant - begun).as_secs_f64() / 0.9 + 1.0;
    assert!(written >= 3 && (written as f64) <= most, "{written} written, {looked} times looked, {most} at most");
    assert!(written < looked, "the other one lets it be");
}

/// With enough tasks for a checkpoint to take a while.
async fn kill_while_a_checkpoint_is_written(redis: &RedisServer, service: &mut Service, from: usize) {
    for from in (from..from + 6_000).step_by(1_000) {
        let event = |n: usize| json!({"task_id": format!("many-{n}"), "user_id": "u1", "message": "m".repeat(1_000)});
        let batch: Value = (from..from + 1_000).map(event).collect();
        assert_eq!(service.post(&batch.to_string(), "application/json").await.0, 202);
    }
    let pattern = format!("{CHECKPOINT}:????????????????????????????????");
    until("a checkpoint is half written", async || {
        // If this one was missed, there is a reason for the next.
        service.publish(&json!({"task_id": format!("many-{from}"), "user_id": "u1"})).await;
        !redis.cli(&["--scan", "--pattern", &pattern]).await.is_empty()
    })
    .await;
    service.kill();
}

#[tokio::test]
async fn a_replica_that_is_killed_while_it_writes_leaves_the_last_whole_checkpoint() {
    let redis = RedisServer::start().await;
    let mut environment = over_redis(&redis);
    environment.push(("TASKCAST_HTTP_BODY_MAX_BYTES", "4000000".to_owned()));
    let mut service = start(&environment).await;
    publish_many(&service, 0, 500).await;
    until_checkpointed(&service).await;
    for round in 0..2 {
        kill_while_a_checkpoint_is_written(&redis, &mut service, round * 6_000).await;
        // The dead one's right to write would last for a while.
        redis.cli(&["DEL", "taskcast:events:checkpoint:writer"]).await;
        service.kill_and_restart().await;
        assert_eq!(loads(&service, "loaded").await, 1, "round {round}");
        assert_eq!(service.metric("taskcast_tasks{").await, 30 + (round as u64 + 1) * 6_000);
    }
}

#[tokio::test]
async fn without_checkpoints_none_is_written_and_none_is_read() {
    let redis = RedisServer::start().await;
    let mut service = start(&over_redis(&redis)).await;
    publish_many(&service, 0, 500).await;
    until_checkpointed(&service).await;
    service.kill();
    let service = start(&without(&over_redis(&redis))).await;
    assert_eq!((loads(&service, "loaded").await, loads(&service, "absent").await), (0, 0));
    assert_eq!(replayed(&service).await, 500);
    assert_eq!(service.metric("taskcast_checkpoint_writes_total").await, 0);
}

/// Publishes past the retention of a stream queue, which goes by whole segments, until its head is gone.
async fn overflow(rabbit: &RabbitServer, exchange: &str) {
    let connection = rabbit.connect().await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    for n in 0..400 {
        let event = json!({"task_id": "busy", "user_id": "u1", "progress": n / 5, "message": "m".repeat(4_000),
            "metadata": {"padding": "p".repeat(8_000)}, "result": "r".repeat(30_000)})
        .to_string();
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let sent = channel.basic_publish(exchange.into(), "task.busy".into(), options, event.as_bytes(), properties);
        sent.await.unwrap().await.unwrap();
    }
}

#[tokio::test]
async fn over_rabbitmq_a_silent_task_survives_the_retention_of_the_log_too() {
    let rabbit = RabbitServer::shared().await;
    let mut environment = over_rabbit().await;
    environment.push(("TASKCAST_LOG_MAX_BYTES", "1000000".to_owned()));
    let exchange = environment[2].1.clone();
    let mut service = start(&environment).await;
    let mut client = service.attach("/ws/tasks/", "u1").await;
    service.publish(&json!({"task_id": "silent", "user_id": "u1", "progress": 40})).await;
    client.until("task_progress").await;
    let cursor = client.cursor();
    until_checkpointed(&service).await;
    service.kill();
    overflow(rabbit, &exchange).await;
    service.kill_and_restart().await;
    assert_eq!((loads(&service, "loaded").await, loads(&service, "trimmed").await), (1, 1));
    let mut back = service.connect(&format!("/ws/tasks/?cursor={cursor}"), "u1").await;
    assert_eq!(back.next().await["resume_failure"], "trimmed");
    back.until("active_tasks").await;
    assert_eq!(back.bars()["silent"], ("running".to_owned(), Some(40.0)));
    assert_eq!(back.bars()["busy"].1, Some(79.0));
    // A replica without the checkpoint knows nothing of it: the log has let it go.
    let other = start(&without(&environment)).await;
    assert_eq!(other.get("/api/v1/tasks/silent", "u1").await.0, 404);
}

/// Events of 20,000 tasks, about 250 bytes each, straight into the log.
async fn fill(backend: Backend, environment: &[(&'static str, String)], count: usize) {
    let of = |name: &str, default: &str| {
        environment.iter().find(|(known, _)| *known == name).map_or(default, |(_, value)| value).to_owned()
    };
    let settings = Settings {
        backend,
        key: of("TASKCAST_LOG_KEY", "taskcast:events"),
        exchange: of("TASKCAST_LOG_EXCHANGE", "taskcast.events"),
        max_events: 1_000_000,
        max_age_seconds: 86_400,
        max_bytes: 2_147_483_648,
        read_batch: 256,
        append_timeout: Duration::from_secs(60),
        reconnect_max: Duration::from_secs(1),
        tls_ca_file: None,
        tls_client: None,
        wait_replicas: 0,
        dead_letters_max: 1_000,
        dead_letters_max_bytes: 1_000_000,
    };
    let log = Log::open(settings, Arc::new(Metrics::new("test"))).unwrap();
    for from in (0..count).step_by(2_000) {
        let event = |n: usize| {
            let task_id = format!("task-{}", n % 20_000);
            let payload = json!({"task_id": task_id, "user_id": format!("user-{}", n % 500), "name": "export",
                "title": "Export of invoices", "status": "running", "progress": n as f64 * 99.0 / count as f64,
                "step": format!("part {}", n / 40_000), "message": format!("row {n} of many, and some more words")});
            Outgoing { task_id, payload: payload.to_string().into() }
        };
        log.append(&(from..from + 2_000).map(event).collect::<Vec<_>>()).await.unwrap();
    }
}

/// Time from the start of the process until it is ready, and how many events it read.
async fn ready_after(environment: &[(&'static str, String)]) -> (f64, u64, Service) {
    let begun = clock::now().instant;
    let variables: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let service = Service::start_unready(&variables).await;
    while service.operations("/readyz").await.0 != 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seconds = (clock::now().instant - begun).as_secs_f64();
    (seconds, replayed(&service).await, service)
}

#[expect(clippy::print_stdout, reason = "a measurement")]
async fn measure(name: &str, backend: Backend, mut environment: Vec<(&'static str, String)>, count: usize) {
    fill(backend, &environment, count).await;
    "5".clone_into(&mut environment.last_mut().unwrap().1);
    let (without, read_without, service) = ready_after(&environment).await;
    while writes(&service, "written").await == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (bytes, tasks) =
        (service.metric("taskcast_checkpoint_bytes").await, service.metric("taskcast_checkpoint_tasks").await);
    let (_, text) = service.operations("/metrics").await;
    let sum = |metric: &str| text.lines().find(|line| line.starts_with(metric)).unwrap_or_default().to_owned();
    drop(service);
    let (with, read_with, service) = ready_after(&environment).await;
    println!(
        "{name}: {count} events, {tasks} tasks, checkpoint of {bytes} bytes; ready after {without:.2} s without \
         ({read_without} events read), {with:.2} s with it ({read_with} read)\n  {}\n  {}\n  load: {:?}",
        sum("taskcast_checkpoint_export_seconds_sum"),
        sum("taskcast_checkpoint_write_seconds_sum"),
        service
            .operations("/metrics")
            .await
            .1
            .lines()
            .find(|line| line.starts_with("taskcast_checkpoint_load_seconds"))
    );
    assert!(with < without && read_with < read_without / 10);
}

#[tokio::test]
#[ignore = "a measurement: cargo test --test service how_soon -- --ignored --nocapture"]
async fn how_soon_a_replica_is_ready_with_and_without_a_checkpoint() {
    let redis = RedisServer::start().await;
    let backend = Backend::Redis { url: redis.url() };
    measure("Redis", backend, over_redis(&redis), 300_000).await;
    let backend = Backend::Amqp { url: RabbitServer::shared().await.url() };
    measure("RabbitMQ", backend, over_rabbit().await, 200_000).await;
}
