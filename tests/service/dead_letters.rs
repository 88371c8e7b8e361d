//! Poison in the log: set aside once, however many replicas meet it how often, within bounds, and replayed once.

use std::sync::Arc;

use bytes::Bytes;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeleteOptions};
use serde_json::{Value, json};
use taskcast::{
    log::{Backend, DeadLetter, Log, Record, Settings, TailItem},
    metrics::Metrics,
    proto::{ContentType, Event, Position},
};

use crate::{
    harness::{Service, binary, until},
    support::{
        brokers::{RabbitServer, RedisServer},
        unique,
    },
};

/// A log of its own in a broker, which anybody can write anything into.
enum World {
    Redis { server: RedisServer, key: String },
    Amqp { server: &'static RabbitServer, key: String },
}

impl World {
    async fn redis() -> Self {
        Self::Redis { server: RedisServer::start().await, key: unique("events") }
    }

    async fn amqp() -> Self {
        Self::Amqp { server: RabbitServer::shared().await, key: unique("events") }
    }

    fn url(&self) -> String {
        match self {
            Self::Redis { server, .. } => server.url(),
            Self::Amqp { server, .. } => server.url(),
        }
    }

    fn key(&self) -> &str {
        let (Self::Redis { key, .. } | Self::Amqp { key, .. }) = self;
        key
    }

    fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("TASKCAST_LOG", self.url()),
            ("TASKCAST_LOG_KEY", self.key().to_owned()),
            ("TASKCAST_LOG_EXCHANGE", format!("{}-exchange", self.key())),
            // Events are counted here.
            ("TASKCAST_CANARY_INTERVAL_SECONDS", "0".to_owned()),
        ]
    }

    /// Makes what the log needs in the broker.
    async fn declare(&self) {
        let (log, _) = self.log();
        let (mut tail, mut health) = (log.tail(), log.health());
        let connected = health.wait_for(|health| health.connected);
        let reading = async {
            loop {
                tail.next().await;
            }
        };
        tokio::select! {
            connected = connected => drop(connected.unwrap()),
            never = reading => never,
        }
    }

    async fn service(&self) -> Service {
        let environment = self.environment();
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Service::start(&environment).await
    }

    fn settings(&self) -> Settings {
        let url = self.url();
        Settings {
            backend: match self {
                Self::Redis { .. } => Backend::Redis { url },
                Self::Amqp { .. } => Backend::Amqp { url },
            },
            key: self.key().to_owned(),
            exchange: format!("{}-exchange", self.key()),
            max_events: 100_000,
            max_age_seconds: 3_600,
            max_bytes: 100_000_000,
            dead_letters_max: 10_000,
            dead_letters_max_bytes: 100_000_000,
            read_batch: 100,
            append_timeout: std::time::Duration::from_secs(5),
            reconnect_max: std::time::Duration::from_millis(500),
            wait_replicas: 0,
            tls_ca_file: None,
            tls_client: None,
        }
    }

    fn log(&self) -> (Log, Arc<Metrics>) {
        open(self.settings())
    }

    /// Into the log, as a worker would that has gone wrong.
    async fn poison(&self, bytes: &[u8]) {
        match self {
            Self::Redis { key, .. } => {
                let mut command = redis::cmd("XADD");
                command.arg(key).arg("*").arg("event").arg(bytes);
                self.redis_command(&command).await;
            }
            Self::Amqp { server, key } => {
                let channel = server.connect().await.unwrap().create_channel().await.unwrap();
                channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
                let (exchange, options) = (format!("{key}-exchange"), BasicPublishOptions::default());
                let properties = lapin::BasicProperties::default();
                let sent =
                    channel.basic_publish(exchange.as_str().into(), "task.x".into(), options, bytes, properties).await;
                assert!(sent.unwrap().await.unwrap().is_ack());
            }
        }
    }

    async fn redis_command(&self, command: &redis::Cmd) -> redis::Value {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        command.query_async(&mut connection).await.unwrap()
    }

    /// Everything in the log, as a dead letter.
    async fn letters(&self, count: usize) -> Vec<DeadLetter> {
        let (log, _) = self.log();
        let mut tail = log.tail();
        let mut records: Vec<Record> = Vec::new();
        while records.len() < count {
            let TailItem::Records(more) = tail.next().await else { panic!("no restart") };
            records.extend(more);
        }
        records.iter().map(letter).collect()
    }

    /// The log is deleted, and its positions begin anew.
    async fn delete_log(&self) {
        match self {
            Self::Redis { server, key } => drop(server.cli(&["DEL", key]).await),
            Self::Amqp { server, key } => {
                let channel = server.connect().await.unwrap().create_channel().await.unwrap();
                channel.queue_delete(key.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
            }
        }
    }

    /// `taskcast dead-letters …`: the exit code, and what was printed on stdout and stderr.
    fn command(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = binary();
        command.arg("dead-letters").args(arguments).envs(self.environment());
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn listed(&self) -> Vec<Value> {
        let (code, out, err) = self.command(&["list", "--json"]);
        assert_eq!(code, Some(0), "{err}");
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn open(settings: Settings) -> (Log, Arc<Metrics>) {
    crate::support::install_crypto();
    let metrics = Arc::new(Metrics::new("test"));
    (Log::open(settings, metrics.clone()).unwrap(), metrics)
}

fn letter(record: &Record) -> DeadLetter {
    // As another version would, which understood less.
    let malformed = Event::decode(ContentType::Json, b"not an event").unwrap_err();
    DeadLetter::new(record, &malformed)
}

fn set_aside_by(metrics: &Metrics) -> u64 {
    let text = metrics.render().unwrap();
    let series = text.lines().filter(|line| line.starts_with("taskcast_dead_letters_total"));
    series.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

async fn total(services: &[&Service]) -> u64 {
    let mut sum = 0;
    for service in services {
        sum += service.metric("taskcast_dead_letters_total").await;
    }
    sum
}

/// Everything that these found was set aside, by whomever.
async fn settled(services: &[&Service], malformed: u64) {
    for service in services {
        until("the poison is read and set aside", async || {
            service.metric("outcome=\"malformed\"").await >= malformed
                && service.metric("taskcast_dead_letters_waiting").await == 0
        })
        .await;
    }
}

macro_rules! both {
    ($($test:ident = $check:ident;)*) => {
        mod redis_log {
            $(#[tokio::test] async fn $test() { super::$check(super::World::redis().await).await; })*
        }
        mod amqp_log {
            $(#[tokio::test] async fn $test() { super::$check(super::World::amqp().await).await; })*
        }
    };
}

both! {
    poison_is_set_aside_once_by_two_replicas_and_after_their_restarts = once;
    what_this_version_can_read_is_replayed_once_and_the_rest_stays = replay;
    many_who_set_the_same_aside_at_once_keep_it_once = at_once;
    poison_of_a_log_that_was_recreated_is_not_taken_for_that_of_the_one_before = recreated;
    what_strangers_write_among_the_dead_letters_harms_nobody = strangers;
}

async fn once(world: World) {
    let (mut one, mut other) = (world.service().await, world.service().await);
    let mut owner = one.attach("/ws/tasks/", "u1").await;
    let large = vec![b'x'; 5_000_000];
    let poison: [&[u8]; 5] =
        [b"\xff\xfe garbage \x1b[2J", b"", b"{\"progress\":1}", br#"{"task_id":"t","progress":101}"#, &large];
    for bytes in poison {
        world.poison(bytes).await;
    }
    one.publish(&json!({"task_id": "t", "user_id": "u1", "progress": 40})).await;
    assert_eq!(owner.until("task_progress").await["progress"], 40, "what follows poison is applied");
    settled(&[&one, &other], 5).await;
    assert_eq!(total(&[&one, &other]).await, 5);

    let listed = world.listed();
    let reasons: Vec<_> = listed.iter().map(|letter| letter["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["syntax", "syntax", "missing", "value", "too_large"]);
    assert_eq!(listed[0]["payload_hex"], "fffe2067617262616765201b5b324a");
    assert_eq!((&listed[1]["payload"], &listed[3]["field"]), (&json!(""), &json!("progress")));
    assert_eq!(listed[1]["detail"], "the event is empty");
    assert_eq!((&listed[4]["payload_bytes"], &listed[4]["truncated"]), (&json!(5_000_000), &json!(true)));
    assert_eq!(listed[4]["payload"].as_str().unwrap().len(), 65_536);

    one.kill_and_restart().await;
    other.kill_and_restart().await;
    world.poison(b"later").await;
    settled(&[&one, &other], 6).await;
    assert_eq!(total(&[&one, &other]).await, 1, "only what came since");
    assert_eq!(world.listed().len(), 6);
    for service in [&one, &other] {
        assert_eq!(service.metric("taskcast_dead_letters_dropped_total").await, 0);
        assert_eq!(service.metric("taskcast_dead_letter_failures_total").await, 0);
    }

    let (code, out, _) = world.command(&["list", "--limit", "2"]);
    assert_eq!((code, out.lines().count()), (Some(0), 2));
    assert!(out.lines().last().unwrap().ends_with("later") && !out.contains('\u{1b}'), "{out}");
}

async fn replay(world: World) {
    let (log, _) = world.log();
    world.declare().await;
    assert!(log.dead_letters(10).await.unwrap().is_empty());
    world.poison(br#"{"task_id":"t","user_id":"u1","status":"succeeded"}"#).await;
    world.poison(b"still no event").await;
    // The first was poison to an earlier version, which understood less.
    log.set_aside(&world.letters(2).await).await.unwrap();
    let service = world.service().await;
    settled(&[&service], 1).await;
    let positions: Vec<_> = world.listed().iter().map(|l| l["position"].as_str().unwrap().to_owned()).collect();
    assert_eq!((positions.len(), total(&[&service]).await), (2, 0));

    let before = service.metric("taskcast_events_total").await;
    let (code, out, err) = world.command(&["replay", "--all"]);
    assert_eq!((code, out), (Some(1), format!("{} replayed\n", positions[0])), "{err}");
    assert!(err.contains(&format!("{} stays: ", positions[1])), "{err}");
    until("it is read again", async || service.metric("taskcast_events_total").await == before + 1).await;
    let (code, out, err) = world.command(&["replay", "--position", &positions[0]]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "there is nothing to replay a second time");
    assert!(err.contains("is no dead letter"), "{err}");
    let left = world.listed();
    assert_eq!((left.len(), left[0]["position"].as_str()), (1, Some(positions[1].as_str())));

    let (code, out, _) = world.command(&["discard", "--position", &positions[1]]);
    assert_eq!((code, out), (Some(0), format!("{} discarded\n", positions[1])));
    assert!(world.listed().is_empty());
    let (code, out, err) = world.command(&["replay", "--all"]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", "there are no dead letters\n"));
    // What was replayed and discarded is not set aside again by who reads it again.
    let again = world.service().await;
    settled(&[&again], 1).await;
    assert!(world.listed().is_empty());
    assert_eq!(total(&[&service, &again]).await, 0);
    assert_eq!(again.metric("taskcast_events_total").await, before + 1);
}

async fn at_once(world: World) {
    let (log, _) = world.log();
    world.declare().await;
    for number in 0..40 {
        world.poison(format!("poison {number}").as_bytes()).await;
    }
    let letters = world.letters(40).await;
    let logs: Vec<_> = (0..4).map(|_| world.log()).collect();
    let writing = logs.iter().map(async |(log, _)| {
        for some in letters.chunks(7) {
            log.set_aside(some).await.unwrap();
        }
    });
    futures_util::future::join_all(writing).await;
    assert_eq!(logs.iter().map(|(_, metrics)| set_aside_by(metrics)).sum::<u64>(), 40);
    assert_eq!(log.dead_letters(usize::MAX).await.unwrap(), letters);
    assert_eq!(log.dead_letters(3).await.unwrap(), letters[37..]);
}

async fn recreated(world: World) {
    let (log, metrics) = world.log();
    world.declare().await;
    for number in 0..5 {
        world.poison_at(100 + number, format!("before {number}").as_bytes()).await;
    }
    let before = world.letters(5).await;
    log.set_aside(&before).await.unwrap();
    world.delete_log().await;
    world.declare().await;
    for number in 0..3 {
        world.poison_at(1 + number, format!("after {number}").as_bytes()).await;
    }
    let after = world.letters(3).await;
    assert!(after[2].position < before[4].position, "positions begin anew");
    let (other, other_metrics) = world.log();
    for log in [&log, &other, &log] {
        assert_eq!(log.set_aside(&after).await.unwrap(), after[2].position);
    }
    assert_eq!((set_aside_by(&metrics), set_aside_by(&other_metrics)), (8, 0));
    let all: Vec<_> = before.iter().chain(&after).cloned().collect();
    assert_eq!(log.dead_letters(usize::MAX).await.unwrap(), all, "of both logs");
    log.remove_dead_letters(&[before[2].clone(), after[0].clone()]).await.unwrap();
    assert_eq!(log.dead_letters(usize::MAX).await.unwrap().len(), 6);
    assert_eq!(log.set_aside(&after).await.unwrap(), after[2].position);
    assert_eq!((set_aside_by(&metrics), set_aside_by(&other_metrics)), (8, 0));
}

async fn strangers(world: World) {
    let (log, metrics) = world.log();
    world.declare().await;
    world.poison_at(100, b"one").await;
    world.poison_at(200, b"two").await;
    let letters = world.letters(2).await;
    log.set_aside(&letters[..1]).await.unwrap();
    world.stranger().await;
    log.set_aside(&letters).await.unwrap();
    world.stranger().await;
    log.set_aside(&letters).await.unwrap();
    assert_eq!(set_aside_by(&metrics), 2);
    assert_eq!(log.dead_letters(usize::MAX).await.unwrap(), letters);
}

impl World {
    /// Where a log lets its writers choose positions, at this one.
    async fn poison_at(&self, major: u64, bytes: &[u8]) {
        let Self::Redis { key, .. } = self else { return self.poison(bytes).await };
        let mut command = redis::cmd("XADD");
        command.arg(key).arg(format!("{major}-0")).arg("event").arg(bytes);
        self.redis_command(&command).await;
    }

    /// An entry that is no dead letter, right behind the last one.
    async fn stranger(&self) {
        match self {
            Self::Redis { key, .. } => {
                let (key, id) = (format!("{key}:dead-letters"), self.last_dead_letter().await);
                let id = Position { minor: id.minor + 1, ..id }.to_string();
                self.redis_command(redis::cmd("XADD").arg(key).arg(id).arg("\u{1b}").arg(&b"\xff"[..])).await;
            }
            Self::Amqp { server, key } => {
                let channel = server.connect().await.unwrap().create_channel().await.unwrap();
                channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
                let (queue, options) = (format!("{key}:dead-letters"), BasicPublishOptions::default());
                let properties = lapin::BasicProperties::default();
                let sent = channel.basic_publish("".into(), queue.as_str().into(), options, b"\xff", properties).await;
                assert!(sent.unwrap().await.unwrap().is_ack());
            }
        }
    }

    async fn last_dead_letter(&self) -> Position {
        self.log().0.dead_letters(1).await.unwrap()[0].position
    }
}

#[tokio::test]
async fn a_storm_keeps_redis_within_its_count_and_its_bytes() {
    let world = World::redis().await;
    let World::Redis { server, key } = &world else { unreachable!() };
    let letters_key = format!("{key}:dead-letters");
    let at = |major, bytes: usize| {
        let position = Position { major, minor: 0 };
        let payload = Bytes::from(vec![b'x'; bytes]);
        letter(&Record { position, appended_at_ms: None, content_type: ContentType::Json, payload, trace: None })
    };
    let (log, _) = open(Settings { dead_letters_max: 100, ..world.settings() });
    let small: Vec<_> = (1..=1_000).map(|major| at(major, 10)).collect();
    log.set_aside(&small).await.unwrap();
    let kept: u64 = server.cli(&["XLEN", &letters_key]).await.parse().unwrap();
    assert!((100..300).contains(&kept), "{kept}");
    assert_eq!(log.dead_letters(usize::MAX).await.unwrap().last(), small.last(), "the newest stay");

    let (log, _) = open(Settings { dead_letters_max_bytes: 2_000_000, ..world.settings() });
    for round in 0..4 {
        let large: Vec<_> = (1..=50).map(|number| at(10_000 + round * 100 + number, 64 * 1024)).collect();
        log.set_aside(&large).await.unwrap();
        let used: u64 = server.cli(&["MEMORY", "USAGE", &letters_key, "SAMPLES", "0"]).await.parse().unwrap();
        assert!((1_000_000..=2_000_000).contains(&used), "{used}");
        assert_eq!(log.dead_letters(usize::MAX).await.unwrap().last(), large.last());
    }
}

#[tokio::test]
async fn a_place_that_cannot_be_written_to_is_tried_again_and_holds_up_nothing() {
    let world = World::redis().await;
    let World::Redis { server, key } = &world else { unreachable!() };
    let letters_key = format!("{key}:dead-letters");
    server.cli(&["SET", &letters_key, "somebody's own"]).await;
    let service = world.service().await;
    let mut owner = service.attach("/ws/tasks/", "u1").await;
    let mut storm = redis::pipe();
    for number in 0..3_000 {
        storm.cmd("XADD").arg(key).arg("*").arg("event").arg(format!("poison {number}")).ignore();
    }
    let client = redis::Client::open(world.url()).unwrap();
    let () = storm.query_async(&mut client.get_multiplexed_async_connection().await.unwrap()).await.unwrap();
    service.publish(&json!({"task_id": "t", "user_id": "u1", "progress": 40})).await;
    assert_eq!(owner.until("task_progress").await["progress"], 40);
    until("failures are counted", async || service.metric("taskcast_dead_letter_failures_total").await >= 2).await;
    let waiting = service.metric("taskcast_dead_letters_waiting").await;
    assert!((1_025..=1_024 + 512).contains(&waiting), "the queue, and a batch of it: {waiting}");
    assert_eq!(total(&[&service]).await, 0);
    server.cli(&["DEL", &letters_key]).await;
    until("all is set aside", async || service.metric("taskcast_dead_letters_waiting").await == 0).await;
    let kept = total(&[&service]).await;
    assert_eq!(kept, waiting);
    assert_eq!(service.metric("taskcast_dead_letters_dropped_total").await, 3_000 - kept);
}

#[tokio::test]
async fn poison_before_and_after_a_restart_of_the_broker_is_set_aside_once() {
    let mut server = RedisServer::start().await;
    let key = unique("events");
    let service = Service::start(&[("TASKCAST_LOG", &server.url()), ("TASKCAST_LOG_KEY", &key)]).await;
    for round in 1..=3 {
        server.cli(&["XADD", &key, "*", "event", "poison"]).await;
        server.restart().await;
        server.cli(&["XADD", &key, "*", "event", "more poison"]).await;
        settled(&[&service], 2 * round).await;
        assert_eq!(server.cli(&["XLEN", &format!("{key}:dead-letters")]).await, (2 * round).to_string());
        // One whose confirmation was lost with the broker is not known to be this service's own.
        let counted = total(&[&service]).await;
        assert!((round..=2 * round).contains(&counted), "{counted}");
    }
    assert_eq!(service.metric("taskcast_dead_letters_dropped_total").await, 0);
}

#[tokio::test]
async fn rabbitmq_that_stops_in_between_loses_and_repeats_no_dead_letter() {
    let mut server = RabbitServer::start().await;
    let (key, exchange) = (unique("events"), unique("exchange"));
    let settings = [("TASKCAST_LOG", &*server.url()), ("TASKCAST_LOG_KEY", &key), ("TASKCAST_LOG_EXCHANGE", &exchange)];
    let services = [Service::start(&settings).await, Service::start(&settings).await];
    let [one, other] = &services;
    let poison = async |server: &RabbitServer| {
        let channel = server.connect().await.unwrap().create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let (options, properties) = (BasicPublishOptions::default(), lapin::BasicProperties::default());
        let sent = channel.basic_publish(exchange.as_str().into(), "task.x".into(), options, b"poison", properties);
        assert!(sent.await.unwrap().await.unwrap().is_ack());
    };
    for round in 1..=2 {
        poison(&server).await;
        until("it is set aside", async || total(&[one, other]).await == round * 2 - 1).await;
        server.stop().await;
        server.restart().await;
        one.until_ready(true).await;
        other.until_ready(true).await;
        poison(&server).await;
        until("that too", async || total(&[one, other]).await == round * 2).await;
        settled(&[one, other], round * 2).await;
        assert_eq!(total(&[one, other]).await, round * 2);
    }
}

#[tokio::test]
async fn a_writer_that_is_cut_off_lets_go_of_the_lock() {
    let world = World::amqp().await;
    world.declare().await;
    world.poison(b"poison").await;
    let letters = world.letters(1).await;
    let (log, metrics) = world.log();
    log.dead_letters(1).await.unwrap();
    // In each of its steps, of which the longest is to find that nothing was set aside before.
    for ms in (10..200).step_by(10) {
        let (cut_off, _) = world.log();
        let _ = tokio::time::timeout(std::time::Duration::from_millis(ms), cut_off.set_aside(&letters)).await;
    }
    // A lock that nobody lets go of would be waited for longer.
    let soon = tokio::time::timeout(std::time::Duration::from_secs(45), log.set_aside(&letters));
    soon.await.expect("nobody holds the lock").unwrap();
    assert_eq!(log.dead_letters(10).await.unwrap(), letters);
    assert_eq!(set_aside_by(&metrics), 1);
}

#[tokio::test]
async fn a_log_in_memory_has_no_dead_letters_and_the_command_says_so() {
    let output = binary().args(["dead-letters", "list"]).env("TASKCAST_LOG", "memory").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("lives within a running service"), "{said}");
    let output = binary().args(["dead-letters", "replay"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "which ones, must be said");
}

#[tokio::test]
async fn nothing_is_set_aside_where_none_are_wanted() {
    let world = World::redis().await;
    let World::Redis { server, key } = &world else { unreachable!() };
    let settings = [("TASKCAST_LOG", &*world.url()), ("TASKCAST_LOG_KEY", key), ("TASKCAST_LOG_DEAD_LETTERS_MAX", "0")];
    let service = Service::start(&settings).await;
    world.poison(b"poison").await;
    settled(&[&service], 1).await;
    assert_eq!(server.cli(&["EXISTS", &format!("{key}:dead-letters")]).await, "0");
}
