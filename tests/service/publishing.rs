//! From a worker to a browser, over each log, and over HTTP.

use serde_json::{Value, json};

use crate::{
    harness::{Client, Service, http, http_whole, token, token_of, token_with, until},
    support::{
        brokers::{RabbitServer, RedisServer},
        unique,
    },
};

#[tokio::test]
async fn an_xadd_reaches_the_owner_and_nobody_else() {
    let redis = RedisServer::start().await;
    let service = Service::start(&[("TASKCAST_LOG", &redis.url())]).await;
    let mut owner = service.attach("/ws/tasks/", "u1").await;
    let mut stranger = service.attach("/ws/tasks/t1/", "u2").await;
    for wish in [json!({"task_id": "t1"}), json!({"task_id": "*"}), json!({"root_id": "t1"}), json!({"tag": "x"})] {
        let mut message = wish;
        message["type"] = json!("subscribe");
        stranger.say(&message).await;
    }
    stranger.settle().await;
    let event = r#"{"task_id":"t1","user_id":"u1","progress":40,"tags":["x"]}"#;
    redis.cli(&["XADD", "taskcast:events", "*", "event", event]).await;
    let update = owner.until("task_progress").await;
    assert_eq!(owner.types(), ["connection_established", "active_tasks", "task_progress"]);
    assert_eq!(
        (&update["task_id"], &update["progress"], &update["status"]),
        (&json!("t1"), &json!(40), &json!("running"))
    );
    stranger.settle().await;
    assert!(stranger.bars().is_empty(), "{:?}", stranger.frames);
    assert!(!stranger.types().contains(&"task_progress"));
}

#[tokio::test]
async fn an_amqp_message_with_confirms_reaches_the_owner() {
    let rabbit = RabbitServer::shared().await;
    let (queue, exchange) = (unique("street-queue"), unique("street-exchange"));
    let settings =
        [("TASKCAST_LOG", &*rabbit.url()), ("TASKCAST_LOG_KEY", &queue), ("TASKCAST_LOG_EXCHANGE", &exchange)];
    let service = Service::start(&settings).await;
    let mut owner = service.attach("/ws/tasks/", "u1").await;
    let channel = rabbit.connect().await.unwrap().create_channel().await.unwrap();
    channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await.unwrap();
    let confirm = channel
        .basic_publish(
            exchange.as_str().into(),
            "task.t1".into(),
            lapin::options::BasicPublishOptions { mandatory: true, ..Default::default() },
            br#"{"task_id":"t1","user_id":"u1","status":"SUCCESS","result":{"rows":3}}"#,
            lapin::BasicProperties::default(),
        )
        .await
        .unwrap();
    assert!(confirm.await.unwrap().is_ack());
    let end = owner.until("task_completed").await;
    assert_eq!(
        (&end["status"], &end["progress"], &end["result"]["rows"]),
        (&json!("succeeded"), &json!(100), &json!(3))
    );
}

#[tokio::test]
async fn an_event_by_http_is_durable_and_told_its_position() {
    let service = Service::start(&[]).await;
    let mut owner = service.attach("/ws/tasks/", "u1").await;
    let events = json!([{"task_id": "a", "user_id": "u1", "progress": 1}, {"task_id": "b", "user_id": "u1"}]);
    let (status, answer) = service.post(&events.to_string(), "application/json").await;
    assert_eq!((status, &answer["accepted"]), (202, &json!(2)));
    assert_eq!(answer["positions"].as_array().unwrap().len(), 2);
    owner.until("task_progress").await;
    owner.until("task_progress").await;
    assert_eq!(owner.bars().keys().collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn a_cloud_event_is_an_event() {
    let service = Service::start(&[]).await;
    let cloud = json!({
        "specversion": "1.0", "id": "1", "source": "/worker", "type": "task.progress",
        "data": {"task_id": "c", "user_id": "u1", "progress": 7},
    });
    let (status, answer) = service.post(&cloud.to_string(), "application/cloudevents+json").await;
    assert_eq!(status, 202, "{answer}");
    until("the task is there", async || service.get("/api/v1/tasks/c", "u1").await.1["progress"] == 7).await;
}

#[tokio::test]
async fn every_bad_event_of_a_batch_is_named_and_none_is_taken() {
    let service = Service::start(&[]).await;
    let events = json!([{"task_id": "good", "user_id": "u1"}, {"progress": 1}, {"task_id": "x", "progress": 101}]);
    let (status, problem) = service.post(&events.to_string(), "application/json").await;
    assert_eq!(status, 400, "{problem}");
    let named: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|e| (&e["index"], &e["field"])).collect();
    assert_eq!(named, [(&json!(1), &json!("task_id")), (&json!(2), &json!("progress"))]);
    service.publish(&json!({"task_id": "after", "user_id": "u1"})).await;
    until("the next event is there", async || service.get("/api/v1/tasks/after", "u1").await.0 == 200).await;
    assert_eq!(service.get("/api/v1/tasks/good", "u1").await.0, 404);
}

#[tokio::test]
async fn publishing_needs_the_right_to_publish() {
    let service = Service::start(&[]).await;
    let json_type = ("Content-Type", "application/json");
    let body = r#"{"task_id":"t"}"#;
    assert_eq!(http(service.port, "POST", "/api/v1/events", &[json_type], body).await.0, 401);
    let bearer = format!("Bearer {}", token("u1"));
    let headers = [json_type, ("Authorization", bearer.as_str())];
    assert_eq!(http(service.port, "POST", "/api/v1/events", &headers, body).await.0, 403);
}

#[tokio::test]
async fn tasks_are_listed_by_status_group_and_tag() {
    let service = Service::start(&[]).await;
    for event in [
        json!({"task_id": "r", "user_id": "u1", "progress": 1}),
        json!({"task_id": "c1", "user_id": "u1", "root_id": "r", "tags": ["red"], "progress": 1}),
        json!({"task_id": "c2", "user_id": "u1", "root_id": "r", "status": "failed"}),
        json!({"task_id": "foreign", "user_id": "u2", "root_id": "r", "tags": ["red"]}),
    ] {
        service.publish(&event).await;
    }
    until("all are there", async || service.get("/api/v1/tasks/foreign", "u2").await.0 == 200).await;
    let ids = async |query: &str| -> Vec<String> {
        let (status, list) = service.get(&format!("/api/v1/tasks?{query}"), "u1").await;
        assert_eq!(status, 200, "{list}");
        let tasks = list["tasks"].as_array().unwrap().iter();
        tasks.map(|task| task["task_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("").await, ["c2", "c1", "r"]);
    assert_eq!(ids("status=failed").await, ["c2"]);
    assert_eq!(ids("status=active&limit=1&page=2").await, ["r"]);
    assert_eq!(ids("root=r").await, ["c2", "c1", "r"]);
    assert_eq!(ids("tag=red").await, ["c1"]);
}

#[tokio::test]
async fn a_silent_worker_is_found_out_and_heard_again() {
    let service = Service::start(&[]).await;
    let mut owner = service.attach("/ws/tasks/", "u1").await;
    service.publish(&json!({"task_id": "t", "user_id": "u1", "progress": 97, "heartbeat_timeout_ms": 200})).await;
    let verdict = owner.until_end_of("t").await;
    assert_eq!(verdict["status"], "lost");
    service.publish(&json!({"task_id": "t", "status": "succeeded"})).await;
    assert_eq!(owner.until_end_of("t").await["status"], "succeeded");
}

#[tokio::test]
async fn a_cancellation_is_in_the_log_before_it_is_confirmed() {
    let service = Service::start(&[]).await;
    service.publish(&json!({"task_id": "t", "user_id": "u1", "progress": 5})).await;
    let bearer = format!("Bearer {}", token_with("u1", &["own"], true));
    let mut owner = Client::connect(service.port, "/ws/tasks/", &[("Authorization", &bearer)]).await;
    until("the task is there", async || service.get("/api/v1/tasks/t", "u1").await.0 == 200).await;
    owner.say(&json!({"type": "cancel_task", "task_id": "t", "id": 1})).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let frame = owner.next().await;
        if frame["type"] == "task_cancelled" {
            assert_eq!((&frame["success"], &frame["id"]), (&Value::Bool(true), &json!(1)));
            seen.push("answer");
        } else if frame["status"] == "cancelling" {
            seen.push("state");
        }
    }
}

#[tokio::test]
async fn a_task_needs_no_owner_but_then_only_wide_eyes_see_it() {
    let service = Service::start(&[]).await;
    service.publish(&json!({"task_id": "t", "progress": 5, "tags": ["nightly"]})).await;
    for (watch, path, sees) in [
        (&["own"][..], "/ws/tasks/t/", false),
        (&["task:t"], "/ws/tasks/", true),
        (&["tag:nightly"], "/ws/tasks/", true),
        (&["all"], "/ws/tasks/", true),
        (&["own", "all"], "/ws/tasks/?watch=all", true),
        (&["root:other"], "/ws/tasks/t/", false),
    ] {
        let bearer = format!("Bearer {}", token_with("u1", watch, false));
        let mut client = Client::connect(service.port, path, &[("Authorization", &bearer)]).await;
        let snapshot = client.until("active_tasks").await;
        assert_eq!(!snapshot["tasks"].as_array().unwrap().is_empty(), sees, "{watch:?} at {path}");
    }
}

#[tokio::test]
async fn a_clock_that_is_far_ahead_once_does_not_hold_up_what_follows() {
    let redis = RedisServer::start().await;
    let service = Service::start(&[("TASKCAST_LOG", &redis.url())]).await;
    let mut owner = service.attach("/ws/tasks/", "u1").await;
    let far = r#"{"task_id":"t","user_id":"u1","progress":1,"timestamp":"9999-12-31T00:00:00Z"}"#;
    redis.cli(&["XADD", "taskcast:events", "*", "event", far]).await;
    let first = owner.until("task_progress").await;
    let right = first["timestamp"].as_str().unwrap();
    let next = format!(r#"{{"task_id":"t","message":"and on","timestamp":"{right}"}}"#);
    redis.cli(&["XADD", "taskcast:events", "*", "event", &next]).await;
    assert_eq!(owner.until("task_progress").await["message"], "and on");
}

#[tokio::test]
async fn an_alarm_of_rabbitmq_is_a_503_that_says_when_to_come_back() {
    let rabbit = RabbitServer::start().await;
    let service = Service::start(&[("TASKCAST_LOG", &*rabbit.url()), ("TASKCAST_LOG_APPEND_TIMEOUT_MS", "1000")]).await;
    service.publish(&json!({"task_id": "t1", "user_id": "u1"})).await;
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.000001"]).await;
    let bearer = format!("Bearer {}", token_with("worker", &["own"], true));
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    for _ in 0..2 {
        let body = r#"{"task_id":"t1","user_id":"u1","progress":40}"#;
        let (status, head, body) = http_whole(service.port, "POST", "/api/v1/events", &headers, body).await;
        assert_eq!(status, 503, "{body}");
        assert!(head.to_ascii_lowercase().contains("retry-after: "), "{head}");
        assert!(body.contains("log-unavailable"), "{body}");
    }
    // Whoever watches is served.
    assert_eq!(service.operations("/readyz").await.0, 200);
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.6"]).await;
    service.publish(&json!({"task_id": "t1", "user_id": "u1", "progress": 50})).await;
}

#[tokio::test]
async fn a_limited_token_publishes_within_its_limits_and_every_event_beyond_them_is_named() {
    let service = Service::start(&[]).await;
    let mut owner = service.attach("/ws/tasks/", "u2").await;
    service.publish(&json!({"task_id": "theirs", "user_id": "u2", "progress": 10})).await;
    let post = async |publish: Value, body: Value| {
        let bearer = format!("Bearer {}", token_of(json!({"sub": "worker", "taskcast": {"publish": publish}})));
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let (status, answer) = http(service.port, "POST", "/api/v1/events", &headers, &body.to_string()).await;
        (status, serde_json::from_str::<Value>(&answer).unwrap())
    };
    let users = json!({"users": ["u1"]});
    let mine = json!({"task_id": "mine", "user_id": "u1"});
    assert_eq!(post(users.clone(), mine.clone()).await.0, 202);
    // Another's task is not to be had by saying that it is one's own.
    let stolen = json!({"task_id": "theirs", "user_id": "u1", "status": "failed"});
    let (status, answer) = post(users.clone(), json!([mine, stolen, {"task_id": "mine"}])).await;
    assert_eq!((status, &answer["type"]), (403, &json!("urn:taskcast:problem:forbidden")));
    let errors = answer["errors"].as_array().unwrap();
    let named: Vec<_> = errors.iter().map(|error| (&error["index"], &error["field"], &error["reason"])).collect();
    let (task_id, user_id, forbidden) = (json!("task_id"), json!("user_id"), json!("forbidden"));
    assert_eq!(named, [(&json!(1), &task_id, &forbidden), (&json!(2), &user_id, &forbidden)]);
    let prefixes = json!({"task_prefixes": ["export-"]});
    assert_eq!(post(prefixes.clone(), json!({"task_id": "export-1"})).await.0, 202);
    assert_eq!(post(prefixes, json!({"task_id": "theirs"})).await.0, 403);
    assert_eq!(post(json!({"users": ["u1"], "teams": ["t"]}), mine.clone()).await.0, 401);
    assert_eq!(post(json!(false), mine).await.0, 403);
    let counted = async |limit: &str| service.metric(&format!("events_forbidden_total{{limit=\"{limit}\"}}")).await;
    assert_eq!((counted("user").await, counted("task_prefix").await), (2, 1));
    // Nothing of all that reached the task.
    service.publish(&json!({"task_id": "theirs", "progress": 20})).await;
    assert_eq!(owner.until("task_progress").await["progress"], 10);
    assert_eq!(owner.until("task_progress").await["progress"], 20);
}
