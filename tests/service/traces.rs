//! Traces, end to end: a worker's event within a trace, through the broker and the real binary, to spans at a collector.

use std::time::Duration;

use serde_json::json;
use taskcast::clock;

use crate::{
    collector::{Collector, Span},
    harness::{Service, http, token_with, until},
    support::{
        brokers::{RabbitServer, RedisServer},
        unique,
    },
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const WORKER: &str = "b7ad6b7169203331";

fn sampled() -> String {
    format!("00-{TRACE}-{WORKER}-01")
}

/// The spans of a trace, once there are so many.
async fn spans(collector: &Collector, trace: &str, count: usize) -> Vec<Span> {
    let of_it = || collector.spans().into_iter().filter(|span| span.trace_id() == trace).collect::<Vec<_>>();
    until(&format!("{count} spans of {trace}"), async || of_it().len() >= count).await;
    of_it()
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name() == name).unwrap_or_else(|| panic!("{name} is not in {spans:?}"))
}

#[tokio::test]
async fn a_traced_event_leaves_a_span_below_its_workers_and_one_of_its_delivery() {
    let (redis, collector) = (RedisServer::start().await, Collector::start().await);
    // Of before the start: a replay is no news.
    let old = json!({"task_id": "t9", "user_id": "u1", "traceparent": format!("00-{}-{WORKER}-01", "9".repeat(32))});
    redis.cli(&["XADD", "taskcast:events", "*", "event", &old.to_string()]).await;
    let service = Service::start(&[
        ("TASKCAST_LOG", &redis.url()),
        ("TASKCAST_TELEMETRY_OTLP_ENDPOINT", &collector.url()),
        ("TASKCAST_TELEMETRY_OTLP_HEADERS", "authorization=Bearer%20of-the-collector"),
    ])
    .await;
    let mut watchers = Vec::new();
    for _ in 0..3 {
        watchers.push(service.attach("/ws/tasks/", "u1").await);
    }
    // Not recorded by its worker, then no context at all, then one that is none.
    let other = "1".repeat(32);
    for traceparent in [format!("00-{other}-{WORKER}-00"), String::new(), format!("00-{other}-{WORKER}")] {
        let event = json!({"task_id": "t0", "user_id": "u1", "progress": 1, "traceparent": traceparent});
        redis.cli(&["XADD", "taskcast:events", "*", "event", &event.to_string()]).await;
    }
    let event =
        json!({"task_id": "t1", "user_id": "u1", "progress": 40, "traceparent": sampled(), "tracestate": "a=b"});
    let position = redis.cli(&["XADD", "taskcast:events", "*", "event", &event.to_string()]).await;
    for watcher in &mut watchers {
        while watcher.until("task_progress").await["task_id"] != "t1" {}
    }
    let spans = spans(&collector, TRACE, 2).await;
    let (process, deliver) = (named(&spans, "process taskcast:events"), named(&spans, "deliver"));
    assert_eq!((process.parent_id().as_str(), deliver.parent_id()), (WORKER, process.id()));
    for (key, value) in [
        ("messaging.system", "redis"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "taskcast:events"),
        ("messaging.message.id", position.trim()),
        ("taskcast.task_id", "t1"),
        ("taskcast.outcome", "applied"),
    ] {
        assert_eq!(process.attribute(key).as_deref(), Some(value), "{key}");
    }
    // Whoever is written to too late is not counted; that the number is exact is shown where no socket takes its time.
    let sessions: u32 = deliver.attribute("taskcast.sessions").unwrap().parse().unwrap();
    assert!((1..=3).contains(&sessions), "{sessions}");
    let [started, ended] = [7, 8].map(|tag| deliver.fields.number(tag));
    let first = deliver.fields.below(11).next().unwrap().number(1);
    assert!(started > 0 && started <= first && first <= ended, "{started} {first} {ended}");
    assert_eq!((process.fields.number(6), process.fields.text(3).as_str()), (5, "a=b"));
    assert_eq!(process.resource.attribute(1, "service.name").as_deref(), Some("taskcast"));
    assert!(process.resource.attribute(1, "service.instance.id").is_some());
    let head = collector.heads().remove(0);
    assert!(head.starts_with("post /v1/traces "), "{head}");
    assert!(
        head.contains("content-type: application/x-protobuf") && head.contains("bearer of-the-collector"),
        "{head}"
    );
    assert_eq!(collector.spans().len(), 2, "of nothing else");
    until("they are counted", async || service.metric("taskcast_spans_exported_total ").await == 2).await;
}

#[tokio::test]
async fn the_context_of_a_request_is_that_of_its_events_but_for_those_with_their_own() {
    let collector = Collector::start().await;
    let service =
        Service::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url()), ("OTEL_SERVICE_NAME", "shop")]).await;
    let bearer = format!("Bearer {}", token_with("worker", &["own"], true));
    let sampled = sampled();
    let headers = [("Authorization", bearer.as_str()), ("traceparent", &sampled), ("tracestate", "a=b")];
    let other = "2".repeat(32);
    let events = json!([{"task_id": "t1"}, {"task_id": "t2", "traceparent": format!("00-{other}-{WORKER}-01")}]);
    let (status, answer) = http(service.port, "POST", "/api/v1/events", &headers, &events.to_string()).await;
    assert_eq!(status, 202, "{answer}");
    for (trace, task) in [(TRACE, "t1"), (other.as_str(), "t2")] {
        let spans = spans(&collector, trace, 1).await;
        assert_eq!(spans[0].attribute("taskcast.task_id").as_deref(), Some(task));
        assert_eq!(spans[0].resource.attribute(1, "service.name").as_deref(), Some("shop"));
    }
}

#[tokio::test]
async fn a_collector_that_is_away_gets_the_spans_later_and_one_that_refuses_them_does_not() {
    let collector = Collector::start().await;
    collector.refuse(&[503, 429]);
    let service = Service::start(&[("TASKCAST_TELEMETRY_OTLP_ENDPOINT", &collector.url())]).await;
    service.publish(&json!({"task_id": "t1", "traceparent": sampled()})).await;
    spans(&collector, TRACE, 1).await;
    assert!(collector.heads().len() >= 3, "it was tried again");
    collector.refuse(&[400]);
    let other = "3".repeat(32);
    service.publish(&json!({"task_id": "t2", "traceparent": format!("00-{other}-{WORKER}-01")})).await;
    let dropped = "taskcast_spans_dropped_total{reason=\"refused\"}";
    until("they are dropped", async || service.metric(dropped).await == 1).await;
    assert_eq!(collector.spans().len(), 1);
}

#[tokio::test]
async fn deliveries_are_exported_while_events_go_on_and_requests_stay_few() {
    let collector = Collector::start().await;
    collector.delay(Duration::from_millis(50));
    let service = Service::start(&[("TASKCAST_TELEMETRY_OTLP_ENDPOINT", &collector.url())]).await;
    let mut watcher = service.attach("/ws/tasks/", "u1").await;
    let (began, mut events) = (clock::now().instant, 0_usize);
    while !collector.spans().iter().any(|span| span.name() == "deliver") {
        assert!(events < 20_000, "no delivery among {}", collector.spans().len());
        let event = json!({"task_id": "t1", "user_id": "u1", "message": events.to_string(), "traceparent": sampled()});
        service.publish(&event).await;
        watcher.until("task_progress").await;
        events += 1;
    }
    // One a second, and one for each batch that is full.
    let most = (clock::now().instant - began).as_secs() as usize + 2 + 2 * events / 512;
    let requests = collector.heads().len();
    assert!(requests <= most, "{requests} of at most {most} for {events} events");
}

#[tokio::test]
async fn a_batch_that_failed_is_exported_when_the_service_ends() {
    let collector = Collector::start().await;
    collector.refuse(&[503]);
    let service = Service::start(&[("TASKCAST_TELEMETRY_OTLP_ENDPOINT", &collector.url())]).await;
    service.publish(&json!({"task_id": "t1", "traceparent": sampled()})).await;
    until("it was tried", async || !collector.heads().is_empty()).await;
    assert_eq!(service.terminate().await, Some(0));
    let spans = collector.spans();
    assert_eq!(spans.len(), 1, "{spans:?}");
}

#[tokio::test]
async fn what_waits_for_a_collector_is_exported_when_the_service_ends() {
    let collector = Collector::start().await;
    let service = Service::start(&[("TASKCAST_TELEMETRY_OTLP_ENDPOINT", &collector.url())]).await;
    let mut watcher = service.attach("/ws/tasks/", "u1").await;
    service.publish(&json!({"task_id": "t1", "user_id": "u1", "traceparent": sampled()})).await;
    watcher.until("task_progress").await;
    drop(watcher);
    assert_eq!(service.terminate().await, Some(0));
    let spans = collector.spans();
    assert_eq!(spans.len(), 2, "{spans:?}");
}

#[tokio::test]
async fn the_headers_of_a_message_carry_a_trace_too() {
    let (rabbit, collector) = (RabbitServer::shared().await, Collector::start().await);
    let (stream, exchange) = (unique("events"), unique("exchange"));
    let service = Service::start(&[
        ("TASKCAST_LOG", &rabbit.url()),
        ("TASKCAST_LOG_KEY", &stream),
        ("TASKCAST_LOG_EXCHANGE", &exchange),
        ("TASKCAST_TELEMETRY_OTLP_ENDPOINT", &collector.url()),
    ])
    .await;
    let mut watcher = service.attach("/ws/tasks/", "u1").await;
    let mut headers = lapin::types::FieldTable::default();
    headers.insert("traceparent".into(), lapin::types::AMQPValue::LongString(sampled().into()));
    let channel = rabbit.connect().await.unwrap().create_channel().await.unwrap();
    let properties = lapin::BasicProperties::default().with_headers(headers);
    let event = json!({"task_id": "t1", "user_id": "u1", "progress": 1}).to_string();
    let options = lapin::options::BasicPublishOptions::default();
    channel
        .basic_publish(exchange.as_str().into(), "task.t1".into(), options, event.as_bytes(), properties)
        .await
        .unwrap();
    watcher.until("task_progress").await;
    let spans = spans(&collector, TRACE, 2).await;
    let process = named(&spans, &format!("process {stream}"));
    assert_eq!(
        (process.parent_id().as_str(), process.attribute("messaging.system").as_deref()),
        (WORKER, Some("rabbitmq"))
    );
    // As a field beside the event, where the broker is Redis.
    let redis = RedisServer::start().await;
    let service =
        Service::start(&[("TASKCAST_LOG", &redis.url()), ("TASKCAST_TELEMETRY_OTLP_ENDPOINT", &collector.url())]).await;
    let other = "4".repeat(32);
    let traceparent = format!("00-{other}-{WORKER}-01");
    redis.cli(&["XADD", "taskcast:events", "*", "event", &event, "traceparent", &traceparent]).await;
    until("the span", async || collector.spans().iter().any(|span| span.trace_id() == other)).await;
    drop(service);
}
