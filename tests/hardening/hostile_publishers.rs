//! A worker that is hostile, or broken, at RabbitMQ: beside the body it may write properties, headers and routing keys, and
//! it may pass by the exchange.

use lapin::{
    BasicProperties, Channel,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::json;

use crate::{
    harness::{Client, token, until},
    support::{brokers::RabbitServer, unique},
    target::{MB, Target},
};

/// What is to be published, and how.
struct Message {
    routing_key: String,
    properties: BasicProperties,
    body: Vec<u8>,
}

fn plain(body: impl Into<Vec<u8>>) -> Message {
    Message { routing_key: "task.x".to_owned(), properties: BasicProperties::default(), body: body.into() }
}

fn with(properties: BasicProperties, body: impl Into<Vec<u8>>) -> Message {
    Message { properties, ..plain(body) }
}

fn headers(entries: &[(&str, AMQPValue)]) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert((*name).into(), value.clone());
    }
    BasicProperties::default().with_headers(table)
}

/// Publishes one after the other, each confirmed.
async fn publish(channel: &Channel, exchange: &str, messages: &[Message]) {
    for Message { routing_key, properties, body } in messages {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let key = routing_key.as_str().into();
        let sent = channel.basic_publish(exchange.into(), key, options, body, properties.clone()).await.unwrap();
        let confirmed = sent.await.unwrap();
        assert!(confirmed.is_ack() && confirmed.take_message().is_none(), "{routing_key} was not routed");
    }
}

/// Bodies that are no event, whatever stands beside them.
fn garbage() -> Vec<Message> {
    let deep = |length: usize| format!("{}{}", "[".repeat(length), "]".repeat(length));
    let protobuf = || BasicProperties::default().with_content_type("application/protobuf".into());
    let cloudevent = || BasicProperties::default().with_content_type("application/cloudevents+json".into());
    vec![
        plain(vec![b'x'; 2_000_000]),
        plain(vec![0; 2_000_000]),
        plain(vec![0xff; 2_000_000]),
        plain(json!({"task_id": "big", "message": "x".repeat(2_000_000)}).to_string()),
        plain(json!({"task_id": "big", "result": "x".repeat(60_000)}).to_string()),
        plain(deep(500_000)),
        plain(format!("{{\"a\":{}}}", deep(30_000))),
        plain(b"{\"task_id\":\"a\\u0000b\"}"),
        plain(b"{\"task_id\":\"\\u001b[31mred\"}"),
        plain(b"{\"task_id\":\"a\",\"seq\":-1}"),
        plain(b"{\"task_id\":\"half \xed\xa0\x80\"}"),
        plain(b""),
        // What is none of what it calls itself.
        with(protobuf(), b"{\"task_id\":\"json\"}"),
        with(protobuf(), vec![0x0a; 60_000]),
        with(protobuf(), b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
        with(cloudevent(), b"{\"task_id\":\"t\"}"),
        with(cloudevent(), b"{\"specversion\":\"1.0\",\"data\":".repeat(5_000)),
        // A revocation of nobody.
        plain(b"{\"revoke\":{\"user_id\":{}}}"),
    ]
}

/// Events that are good, and what stands beside them is a lie: none of it decides where they stand in the log, or when.
fn lies() -> Vec<Message> {
    let event = |id: &str| json!({"task_id": id, "user_id": "u1", "progress": 1}).to_string();
    let mut nested = FieldTable::default();
    for _ in 0..60 {
        let mut outer = FieldTable::default();
        outer.insert("a".into(), AMQPValue::FieldTable(nested));
        nested = outer;
    }
    vec![
        with(headers(&[("x-stream-offset", AMQPValue::LongLongInt(i64::MAX))]), event("far")),
        with(headers(&[("x-stream-offset", AMQPValue::LongLongInt(-1))]), event("before")),
        with(headers(&[("x-stream-offset", AMQPValue::LongString("7".into()))]), event("text")),
        with(headers(&[("timestamp_in_ms", AMQPValue::LongLongInt(i64::MAX))]), event("late")),
        with(headers(&[("timestamp_in_ms", AMQPValue::LongLongInt(i64::MIN))]), event("early")),
        with(BasicProperties::default().with_timestamp(u64::MAX), event("later")),
        with(headers(&[("a", AMQPValue::FieldTable(nested))]), event("nested")),
        with(headers(&[("a", AMQPValue::LongString(vec![0x1b; 60_000].into()))]), event("long")),
        with(BasicProperties::default().with_content_type("\u{1b}[31m".repeat(30).into()), event("escapes")),
        with(BasicProperties::default().with_user_id("guest".into()).with_expiration("1".into()), event("named")),
        Message { routing_key: format!("task.{}", "x".repeat(250)), ..plain(event("routed")) },
    ]
}

/// Garbage of megabytes, bodies that are not what they call themselves, properties and headers that lie, also straight into the
/// queue: each is judged by itself, counted and set aside within bounds; positions stay the broker's; what is honest in
/// between is delivered, also by a replica that reads all of it again.
#[tokio::test]
async fn what_a_hostile_publisher_writes_into_rabbitmq_is_set_aside_and_stops_nobody() {
    const BOUND: u64 = 160 * MB;
    let rabbit = RabbitServer::shared().await;
    let (url, queue, exchange) = (rabbit.url(), unique("hostile-queue"), unique("hostile-exchange"));
    let settings = [
        ("TASKCAST_LOG", &*url),
        ("TASKCAST_LOG_KEY", &*queue),
        ("TASKCAST_LOG_EXCHANGE", &*exchange),
        ("TASKCAST_LOG_DEAD_LETTERS_MAX_BYTES", "2000000"),
    ];
    let target = Target::start(&settings).await;
    let mut client = target.attach("/ws/tasks/", "u1").await;
    let connection = rabbit.connect().await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let honest = |id: &str| plain(json!({"task_id": id, "user_id": "u1", "status": "succeeded"}).to_string());
    let rounds = 4;
    for _ in 0..rounds {
        publish(&channel, &exchange, &garbage()).await;
    }
    publish(&channel, &exchange, &lies()).await;
    // The default exchange leads straight into the queue.
    let past_the_exchange = |message: Message| Message { routing_key: queue.clone(), ..message };
    publish(&channel, "", &garbage().into_iter().chain(lies()).map(past_the_exchange).collect::<Vec<_>>()).await;
    publish(&channel, &exchange, &[honest("honest")]).await;
    assert_eq!(client.until_end_of("honest").await["status"], "succeeded");
    let (bad, malformed) = ((rounds + 1) * garbage().len() as u64, "outcome=\"malformed\"");
    until("all of it was counted", async || target.metric(malformed).await == bad).await;
    let seen: Vec<&str> = client.frames.iter().filter_map(|frame| frame["task_id"].as_str()).collect();
    for id in ["far", "before", "text", "late", "early", "later", "nested", "long", "escapes", "named", "routed"] {
        assert!(seen.contains(&id), "{id} was not delivered: {seen:?}");
    }
    // Who comes back with what it has misses nothing, and gets nothing twice: positions are not the publisher's.
    let bearer = format!("Bearer {}", token("u1"));
    let path = format!("/ws/tasks/?cursor={}", client.cursor());
    let mut back = Client::connect(target.port, &path, &[("Authorization", &bearer)]).await;
    assert_eq!(back.next().await["resumed"], true);
    target.stays_small(BOUND);
    target.stays_unharmed().await;
    // A replica that begins anew reads all of it, and serves.
    let mut another = Target::start(&settings).await;
    let mut late = another.attach("/ws/tasks/", "u1").await;
    assert_eq!(another.metric(malformed).await, bad);
    publish(&channel, &exchange, &[honest("afterwards-too")]).await;
    late.until_end_of("afterwards-too").await;
    another.stands().await;
}
