//! The three logs keep what `src/log` promises: order, completeness, durability, identity. The same contract runs
//! against memory, a real Redis and a real RabbitMQ; what only one of them can suffer has a test of its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of a test fails by panicking")]

mod support;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use lapin::{
    options::{QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use support::{
    brokers::{Certificates, RabbitServer, RedisServer, free_port},
    unique,
};
use taskcast::{
    log::{Backend, Health, Log, Outgoing, Record, RestartReason, Settings, Tail, TailItem},
    metrics::Metrics,
    proto::Position,
    tls::Files,
};
use tokio::sync::watch;

/// Nothing here takes so long unless it is broken.
const PATIENCE: Duration = Duration::from_mins(1);

async fn soon<T>(what: &str, wanted: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wanted).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

fn settings(backend: Backend) -> Settings {
    Settings {
        backend,
        key: unique("events"),
        exchange: unique("exchange"),
        max_events: 100_000,
        max_age_seconds: 3_600,
        max_bytes: 100_000_000,
        dead_letters_max: 1_000,
        dead_letters_max_bytes: 10_000_000,
        read_batch: 100,
        append_timeout: Duration::from_secs(5),
        reconnect_max: Duration::from_millis(500),
        wait_replicas: 0,
        tls_ca_file: None,
        tls_client: None,
    }
}

fn open(settings: &Settings) -> Log {
    let log = Log::open(settings.clone(), Arc::new(Metrics::new("test"))).unwrap();
    assert!(["memory", "redis", "amqp"].contains(&log.kind()));
    log
}

fn event(number: usize) -> Outgoing {
    Outgoing { task_id: format!("t{number}"), payload: Bytes::from(format!("{{\"task_id\":\"t{number}\"}}")) }
}

fn events(numbers: std::ops::Range<usize>) -> Vec<Outgoing> {
    numbers.map(event).collect()
}

/// A tail that checks what holds for all of them.
struct Reader {
    tail: Tail,
    last: Position,
    waiting: Vec<Record>,
    health: watch::Receiver<Health>,
}

impl Reader {
    fn of(log: &Log) -> Self {
        Self { tail: log.tail(), last: Position::START, waiting: Vec::new(), health: log.health() }
    }

    async fn step(&mut self) -> Option<RestartReason> {
        match soon("the log", self.tail.next()).await {
            TailItem::Restarted(reason) => {
                self.last = Position::START;
                self.waiting.clear();
                return Some(reason);
            }
            TailItem::Records(records) => {
                assert!(!records.is_empty());
                for record in records {
                    assert!(record.position > self.last, "{} came after {}", record.position, self.last);
                    self.last = record.position;
                    self.waiting.push(record);
                }
            }
        }
        None
    }

    /// The next records, without a restart on the way.
    async fn take(&mut self, count: usize) -> Vec<Record> {
        while self.waiting.len() < count {
            let restarted = self.step().await;
            assert_eq!(restarted, None, "after {} of {count} records", self.waiting.len());
        }
        self.waiting.drain(..count).collect()
    }

    async fn expect(&mut self, numbers: std::ops::Range<usize>) {
        let wanted: Vec<Bytes> = numbers.map(|number| event(number).payload).collect();
        let got: Vec<Bytes> = self.take(wanted.len()).await.into_iter().map(|record| record.payload).collect();
        assert_eq!(got, wanted);
    }

    /// Reads until the log restarts.
    async fn restart(&mut self) -> RestartReason {
        loop {
            if let Some(reason) = self.step().await {
                return reason;
            }
        }
    }

    /// Reads on, into `waiting`, until the health is so.
    async fn until(&mut self, what: &str, condition: impl Fn(&Health) -> bool) -> Health {
        let mut health = self.health.clone();
        let found = async {
            loop {
                tokio::select! {
                    biased;
                    found = health.wait_for(&condition) => break found.unwrap().clone(),
                    restarted = self.step() => assert_eq!(restarted, None),
                }
            }
        };
        soon(what, found).await
    }

    async fn replayed(&mut self) {
        self.until("the replay", |health| health.connected && health.replayed).await;
    }
}

/// The contract, against each of the logs.
mod contract {
    use super::*;

    pub async fn order(log: Log, _: Log) {
        let mut positions = log.append(&events(0..50)).await.unwrap();
        for number in 50..60 {
            positions.extend(log.append(&events(number..number + 1)).await.unwrap());
        }
        assert!(log.append(&[]).await.unwrap().is_empty());
        let mut reader = Reader::of(&log);
        let records = reader.take(60).await;
        for (number, (record, told)) in records.iter().zip(&positions).enumerate() {
            assert_eq!(record.payload, event(number).payload);
            assert_eq!(told.unwrap_or(record.position), record.position);
            assert!(record.appended_at_ms.is_some_and(|at| at > 1_700_000_000_000), "{record:?}");
        }
        assert_eq!(positions.iter().any(Option::is_some), log.kind() != "amqp");
    }

    pub async fn replay(log: Log, same: Log) {
        log.append(&events(0..1_000)).await.unwrap();
        let mut reader = Reader::of(&same);
        assert!(!reader.health.borrow().replayed, "nothing was read yet");
        reader.expect(0..500).await;
        reader.replayed().await;
        reader.expect(500..1_000).await;
        log.append(&events(1_000..1_001)).await.unwrap();
        reader.expect(1_000..1_001).await;
    }

    pub async fn empty(log: Log, _: Log) {
        let mut reader = Reader::of(&log);
        reader.replayed().await;
        log.append(&events(0..1)).await.unwrap();
        reader.expect(0..1).await;
    }

    pub async fn two_tails(log: Log, same: Log) {
        let (mut one, mut other) = (Reader::of(&log), Reader::of(&same));
        log.append(&events(0..10)).await.unwrap();
        let seen = one.take(10).await;
        same.append(&events(10..20)).await.unwrap();
        let also_seen = other.take(20).await;
        let seen: Vec<Record> = seen.into_iter().chain(one.take(10).await).collect();
        for (record, also) in seen.iter().zip(&also_seen) {
            assert_eq!((record.position, &record.payload), (also.position, &also.payload));
        }
    }

    pub async fn cancelled(log: Log, _: Log) {
        let mut reader = Reader::of(&log);
        for number in 0..100 {
            log.append(&events(number..number + 1)).await.unwrap();
            for _ in 0..3 {
                // Polled once and dropped, as in a select! whose other arm won.
                if let Some(item) = reader.tail.next().now_or_never() {
                    let TailItem::Records(records) = item else { panic!("no restart") };
                    reader.waiting.extend(records);
                }
            }
        }
        reader.last = reader.waiting.last().map_or(Position::START, |record| record.position);
        reader.expect(0..100).await;
    }
}

macro_rules! contract {
    ($($test:ident = $contract:ident;)*) => {
        mod memory {
            $(#[tokio::test] async fn $test() {
                let log = super::open(&super::settings(super::Backend::Memory));
                super::contract::$contract(log.clone(), log).await;
            })*
        }
        mod redis {
            $(#[tokio::test] async fn $test() {
                let server = super::RedisServer::start().await;
                let settings = super::settings(super::Backend::Redis { url: server.url() });
                super::contract::$contract(super::open(&settings), super::open(&settings)).await;
            })*
        }
        mod amqp {
            $(#[tokio::test] async fn $test() {
                let server = super::RabbitServer::shared().await;
                let settings = super::settings(super::Backend::Amqp { url: server.url() });
                super::contract::$contract(super::open(&settings), super::open(&settings)).await;
            })*
        }
    };
}

contract! {
    events_are_read_in_the_order_of_their_appends = order;
    a_tail_begins_at_the_start_of_retention_and_says_when_it_has_replayed = replay;
    an_empty_log_is_replayed_at_once = empty;
    two_tails_see_the_same_positions_and_bytes = two_tails;
    a_cancelled_read_loses_nothing = cancelled;
}

#[tokio::test]
async fn a_memory_ring_that_overtakes_its_reader_says_so() {
    let log = open(&Settings { max_events: 10, ..settings(Backend::Memory) });
    let mut reader = Reader::of(&log);
    log.append(&events(0..10)).await.unwrap();
    reader.expect(0..10).await;
    log.append(&events(10..20)).await.unwrap();
    reader.expect(10..20).await;
    log.append(&events(20..31)).await.unwrap();
    assert_eq!(reader.restart().await, RestartReason::Trimmed);
    reader.expect(21..31).await;
}

#[tokio::test]
async fn positions_of_a_memory_log_are_later_than_those_of_the_one_before() {
    let before = open(&settings(Backend::Memory)).append(&events(0..1)).await.unwrap()[0].unwrap();
    soon("the next millisecond", async {
        loop {
            let after = open(&settings(Backend::Memory)).append(&events(0..1)).await.unwrap()[0].unwrap();
            if after > before {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Appends in the background, as a patient caller does, until everything is in the log. It begins while the broker is
/// down: a first try may meet the connection of before, whose end has not been noticed yet, and fails with it.
fn keep_appending(log: &Log, numbers: std::ops::Range<usize>) -> tokio::task::JoinHandle<()> {
    let log = log.clone();
    tokio::spawn(async move {
        while let Err(failed) = log.append(&events(numbers.clone())).await {
            assert_eq!(failed.appended, 0, "{}", failed.detail);
        }
    })
}

#[tokio::test]
async fn redis_killed_and_restarted_loses_and_repeats_nothing() {
    let mut server = RedisServer::start().await;
    let patient = Settings { append_timeout: PATIENCE, ..settings(Backend::Redis { url: server.url() }) };
    let log = open(&patient);
    let mut reader = Reader::of(&log);
    log.append(&events(0..10)).await.unwrap();
    reader.expect(0..10).await;
    for round in 1..4 {
        server.kill();
        let down = reader.until("the loss", |health| !health.connected).await;
        assert!(down.detail.contains(&server.port().to_string()), "{}", down.detail);
        let appending = keep_appending(&log, round * 10..round * 10 + 10);
        server.restart().await;
        soon("the append", appending).await.unwrap();
        reader.expect(round * 10..round * 10 + 10).await;
        reader.replayed().await;
    }
}

#[tokio::test]
async fn rabbitmq_stopped_or_killed_and_restarted_loses_and_repeats_nothing() {
    let mut server = RabbitServer::start().await;
    let patient = Settings { append_timeout: PATIENCE, ..settings(Backend::Amqp { url: server.url() }) };
    let log = open(&patient);
    let mut reader = Reader::of(&log);
    log.append(&events(0..10)).await.unwrap();
    reader.expect(0..10).await;
    for round in 1..3 {
        if round == 1 {
            server.stop().await;
        } else {
            server.kill();
        }
        let down = reader.until("the loss", |health| !health.connected).await;
        assert!(down.detail.contains(&server.port().to_string()), "{}", down.detail);
        let appending = keep_appending(&log, round * 10..round * 10 + 10);
        server.restart().await;
        soon("the append", appending).await.unwrap();
        reader.expect(round * 10..round * 10 + 10).await;
        reader.replayed().await;
    }
}

#[tokio::test]
async fn a_redis_that_stops_answering_is_noticed_and_comes_back() {
    let server = RedisServer::start().await;
    let impatient =
        Settings { append_timeout: Duration::from_millis(300), ..settings(Backend::Redis { url: server.url() }) };
    let log = open(&impatient);
    let mut reader = Reader::of(&log);
    log.append(&events(0..1)).await.unwrap();
    reader.expect(0..1).await;
    server.pause();
    let failed = log.append(&events(1..2)).await.unwrap_err();
    assert_eq!(failed.appended, 0);
    assert!(failed.detail.contains("300 ms"), "{}", failed.detail);
    reader.until("the silence", |health| !health.connected).await;
    server.resume();
    reader.replayed().await;
    log.append(&events(2..3)).await.unwrap();
    // What became of the append that was given up is open: it may have waited in the socket.
    loop {
        if reader.take(1).await[0].payload == event(2).payload {
            break;
        }
    }
}

#[tokio::test]
async fn nobody_waits_longer_for_an_append_than_configured() {
    for scheme in ["redis", "amqp"] {
        support::install_crypto();
        let url = format!("{scheme}://u:hunter2@127.0.0.1:{}", free_port());
        let backend = if scheme == "redis" { Backend::Redis { url } } else { Backend::Amqp { url } };
        let log = open(&Settings { append_timeout: Duration::from_millis(300), ..settings(backend) });
        let asked = taskcast::clock::now().instant;
        let failed = soon("the failure", log.append(&events(0..2))).await.unwrap_err();
        assert!(asked.elapsed() < Duration::from_secs(5), "{scheme}: {:?}", asked.elapsed());
        assert_eq!(failed.appended, 0);
        assert!(failed.detail.to_lowercase().contains("refused"), "{}", failed.detail);
        assert!(!failed.detail.contains("hunter2"), "{}", failed.detail);
    }
}

async fn says(log: &Log, what: &[&str]) {
    let mut reader = Reader::of(log);
    let health = reader.until("the refusal", |health| what.iter().all(|part| health.detail.contains(part))).await;
    assert!(!health.connected);
    assert!(!health.detail.contains("hunter2"), "{}", health.detail);
    let failed = log.append(&events(0..1)).await.unwrap_err();
    assert!(!failed.detail.contains("hunter2"), "{}", failed.detail);
}

#[tokio::test]
async fn redis_refusing_a_password_is_said_without_the_password() {
    let server = RedisServer::start_with(&["--requirepass", "swordfish"]).await;
    let wrong = settings(Backend::Redis { url: server.url_as("", "hunter2") });
    says(&open(&wrong), &["refuses the user or password"]).await;
    let none = settings(Backend::Redis { url: server.url() });
    says(&open(&none), &["refuses the user or password"]).await;
    let right = open(&settings(Backend::Redis { url: server.url_as("", "swordfish") }));
    right.append(&events(0..1)).await.unwrap();
    Reader::of(&right).expect(0..1).await;
}

#[tokio::test]
async fn rabbitmq_refusing_a_password_or_a_vhost_is_said_without_the_password() {
    let server = RabbitServer::shared().await;
    let wrong = settings(Backend::Amqp { url: server.url_as("guest", "hunter2") });
    says(&open(&wrong), &["refuses the user or password"]).await;
    let elsewhere = settings(Backend::Amqp { url: format!("{}/nowhere", server.url()) });
    says(&open(&elsewhere), &["vhost", "nowhere"]).await;
}

#[tokio::test]
async fn another_kind_of_key_is_said_plainly_and_used_once_it_is_gone() {
    let server = RedisServer::start().await;
    let settings = settings(Backend::Redis { url: server.url() });
    server.cli(&["RPUSH", &settings.key, "x"]).await;
    let log = open(&settings);
    says(&log, &[&settings.key, "holds a list, not a stream"]).await;
    assert!(log.append(&events(0..1)).await.unwrap_err().detail.contains("not a stream"));
    let mut reader = Reader::of(&log);
    server.cli(&["DEL", &settings.key]).await;
    reader.replayed().await;
    log.append(&events(0..1)).await.unwrap();
    reader.expect(0..1).await;
}

/// A Redis with a user of its own for the log, who can be locked out while the test changes the stream.
async fn lockable() -> (RedisServer, Settings) {
    let server = RedisServer::start().await;
    server.cli(&["ACL", "SETUSER", "taskcast", "on", ">swordfish", "~*", "&*", "+@all"]).await;
    let settings = settings(Backend::Redis { url: server.url_as("taskcast", "swordfish") });
    (server, settings)
}

async fn lock_out(server: &RedisServer, reader: &mut Reader) {
    server.cli(&["ACL", "SETUSER", "taskcast", "off"]).await;
    server.cli(&["CLIENT", "KILL", "USER", "taskcast"]).await;
    reader.until("being locked out", |health| !health.connected).await;
}

async fn let_in(server: &RedisServer) {
    server.cli(&["ACL", "SETUSER", "taskcast", "on"]).await;
}

async fn xadd(server: &RedisServer, settings: &Settings, id: &str, number: usize) {
    let payload = String::from_utf8(event(number).payload.to_vec()).unwrap();
    server.cli(&["XADD", &settings.key, id, "event", &payload]).await;
}

#[tokio::test]
async fn a_flushed_redis_is_noticed_while_connected() {
    let server = RedisServer::start().await;
    let log = open(&settings(Backend::Redis { url: server.url() }));
    let mut reader = Reader::of(&log);
    log.append(&events(0..5)).await.unwrap();
    reader.expect(0..5).await;
    server.cli(&["FLUSHALL"]).await;
    assert_eq!(reader.restart().await, RestartReason::Replaced);
    reader.replayed().await;
    log.append(&events(5..8)).await.unwrap();
    reader.expect(5..8).await;
}

#[tokio::test]
async fn a_flush_that_is_filled_again_at_once_is_noticed_while_connected() {
    let server = RedisServer::start().await;
    let log = open(&settings(Backend::Redis { url: server.url() }));
    let mut reader = Reader::of(&log);
    log.append(&events(0..3)).await.unwrap();
    reader.expect(0..3).await;
    server.cli(&["FLUSHALL"]).await;
    log.append(&events(100..120)).await.unwrap();
    assert_eq!(reader.restart().await, RestartReason::Replaced);
    reader.expect(100..120).await;
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_another_log() {
    let mut server = RedisServer::start().await;
    let log = open(&settings(Backend::Redis { url: server.url() }));
    let mut reader = Reader::of(&log);
    log.append(&events(0..5)).await.unwrap();
    reader.expect(0..5).await;
    server.restart_empty().await;
    assert_eq!(reader.restart().await, RestartReason::Replaced);
    reader.replayed().await;
}

#[tokio::test]
async fn other_bytes_at_the_last_position_are_another_log() {
    let (server, settings) = lockable().await;
    for id in 1..4 {
        xadd(&server, &settings, &format!("{id}-0"), id).await;
    }
    let log = open(&settings);
    let mut reader = Reader::of(&log);
    reader.expect(1..4).await;
    lock_out(&server, &mut reader).await;
    server.cli(&["DEL", &settings.key]).await;
    for id in 1..10 {
        xadd(&server, &settings, &format!("{id}-0"), id + 100).await;
    }
    let_in(&server).await;
    assert_eq!(reader.restart().await, RestartReason::Replaced);
    reader.expect(101..110).await;
}

#[tokio::test]
async fn trimming_what_was_read_is_no_restart_and_trimming_more_is() {
    let (server, settings) = lockable().await;
    let log = open(&settings);
    let mut reader = Reader::of(&log);
    log.append(&events(0..10)).await.unwrap();
    reader.expect(0..10).await;
    server.cli(&["XTRIM", &settings.key, "MAXLEN", "=", "2"]).await;
    log.append(&events(10..12)).await.unwrap();
    reader.expect(10..12).await;

    lock_out(&server, &mut reader).await;
    xadd(&server, &settings, "*", 12).await;
    xadd(&server, &settings, "*", 13).await;
    server.cli(&["XTRIM", &settings.key, "MAXLEN", "=", "2"]).await;
    let_in(&server).await;
    reader.expect(12..14).await;

    lock_out(&server, &mut reader).await;
    for number in 14..18 {
        xadd(&server, &settings, "*", number).await;
    }
    server.cli(&["XTRIM", &settings.key, "MAXLEN", "=", "3"]).await;
    let_in(&server).await;
    assert_eq!(reader.restart().await, RestartReason::Trimmed);
    reader.expect(15..18).await;
}

#[tokio::test]
async fn a_reader_that_retention_overtakes_while_connected_says_so() {
    let server = RedisServer::start().await;
    let settings = Settings { read_batch: 10, ..settings(Backend::Redis { url: server.url() }) };
    let log = open(&settings);
    let mut reader = Reader::of(&log);
    log.append(&events(0..500)).await.unwrap();
    reader.expect(0..10).await;
    // Nobody reads on: the next batches wait, the rest is still in Redis.
    server.cli(&["XTRIM", &settings.key, "MAXLEN", "=", "5"]).await;
    assert_eq!(reader.restart().await, RestartReason::Trimmed);
    reader.expect(495..500).await;
}

#[tokio::test]
async fn an_entry_without_an_event_is_read_as_an_empty_one() {
    let server = RedisServer::start().await;
    let settings = settings(Backend::Redis { url: server.url() });
    server.cli(&["XADD", &settings.key, "5-1", "something", "else"]).await;
    server.cli(&["XADD", &settings.key, "5-2", "content_type", "application/json", "event", "{}"]).await;
    let records = Reader::of(&open(&settings)).take(2).await;
    assert!(records[0].payload.is_empty());
    assert_eq!(records[0].position, Position { major: 5, minor: 1 });
    assert_eq!(records[1].payload, "{}");
}

#[tokio::test]
async fn redis_keeps_about_as_many_events_as_configured() {
    let server = RedisServer::start().await;
    let settings = Settings { max_events: 100, ..settings(Backend::Redis { url: server.url() }) };
    open(&settings).append(&events(0..2_000)).await.unwrap();
    let kept: u64 = server.cli(&["XLEN", &settings.key]).await.parse().unwrap();
    assert!((100..400).contains(&kept), "{kept}");
}

fn stream_arguments(more: &[(&'static str, AMQPValue)]) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    for (name, value) in more {
        arguments.insert((*name).into(), value.clone());
    }
    arguments
}

async fn declare(channel: &lapin::Channel, queue: &str, arguments: FieldTable) {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, arguments).await.unwrap();
}

#[tokio::test]
async fn a_stream_queue_with_another_retention_is_used_as_it_is() {
    let server = RabbitServer::shared().await;
    let settings = settings(Backend::Amqp { url: server.url() });
    let channel = server.connect().await.unwrap().create_channel().await.unwrap();
    let retention =
        [("x-max-age", AMQPValue::LongString("2h".into())), ("x-initial-cluster-size", AMQPValue::LongLongInt(1))];
    declare(&channel, &settings.key, stream_arguments(&retention)).await;
    let log = open(&settings);
    log.append(&events(0..3)).await.unwrap();
    Reader::of(&log).expect(0..3).await;
}

#[tokio::test]
async fn a_classic_queue_under_the_log_s_name_is_said_plainly_and_keeps_its_messages() {
    let server = RabbitServer::shared().await;
    let settings = settings(Backend::Amqp { url: server.url() });
    let channel = server.connect().await.unwrap().create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(10_000));
    declare(&channel, &settings.key, arguments).await;
    let log = open(&settings);
    says(&log, &[&settings.key, "not a durable stream queue"]).await;
    let mut reader = Reader::of(&log);
    channel.queue_delete(settings.key.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    reader.replayed().await;
    log.append(&events(0..1)).await.unwrap();
    reader.expect(0..1).await;
}

#[tokio::test]
async fn an_exchange_of_another_type_is_said_plainly() {
    let server = RabbitServer::shared().await;
    let settings = Settings { exchange: "amq.direct".to_owned(), ..settings(Backend::Amqp { url: server.url() }) };
    says(&open(&settings), &["amq.direct", "not a durable topic exchange"]).await;
}

#[tokio::test]
async fn a_deleted_stream_queue_is_made_again_and_is_another_log() {
    let server = RabbitServer::shared().await;
    let settings = settings(Backend::Amqp { url: server.url() });
    let channel = server.connect().await.unwrap().create_channel().await.unwrap();
    let log = open(&settings);
    let mut reader = Reader::of(&log);
    log.append(&events(0..5)).await.unwrap();
    reader.expect(0..5).await;
    channel.queue_delete(settings.key.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    assert_eq!(reader.restart().await, RestartReason::Replaced);
    reader.replayed().await;
    log.append(&events(5..8)).await.unwrap();
    reader.expect(5..8).await;
}

#[tokio::test]
async fn an_event_that_no_queue_takes_is_published_again_with_the_binding_in_place() {
    let server = RabbitServer::shared().await;
    let settings = settings(Backend::Amqp { url: server.url() });
    let channel = server.connect().await.unwrap().create_channel().await.unwrap();
    let log = open(&settings);
    log.append(&events(0..1)).await.unwrap();
    let (queue, exchange) = (settings.key.as_str(), settings.exchange.as_str());
    channel.queue_unbind(queue.into(), exchange.into(), "task.#".into(), FieldTable::default()).await.unwrap();
    log.append(&events(1..2)).await.unwrap();
    log.append(&events(2..3)).await.unwrap();
    Reader::of(&log).expect(0..3).await;
}

#[tokio::test]
async fn a_reader_that_a_stream_s_retention_overtakes_says_so() {
    let server = RabbitServer::shared().await;
    let settings = Settings { read_batch: 4, ..settings(Backend::Amqp { url: server.url() }) };
    let channel = server.connect().await.unwrap().create_channel().await.unwrap();
    let retention = [
        ("x-max-length-bytes", AMQPValue::LongLongInt(50_000)),
        ("x-stream-max-segment-size-bytes", AMQPValue::LongLongInt(20_000)),
    ];
    declare(&channel, &settings.key, stream_arguments(&retention)).await;
    let log = open(&settings);
    let mut reader = Reader::of(&log);
    log.append(&events(0..10)).await.unwrap();
    reader.expect(0..2).await;
    for round in 0..40 {
        log.append(&events(10 + round * 100..110 + round * 100)).await.unwrap();
    }
    assert_eq!(reader.restart().await, RestartReason::Trimmed);
    let first = reader.take(1).await.remove(0).payload;
    assert_ne!(first, event(0).payload, "the start of retention has moved");
}

#[tokio::test]
async fn other_bytes_at_the_last_offset_are_another_log() {
    let server = RabbitServer::shared().await;
    let user = unique("user");
    server.ctl(&["add_user", &user, "hunter2"]).await;
    server.ctl(&["set_permissions", &user, ".*", ".*", ".*"]).await;
    let settings = settings(Backend::Amqp { url: server.url_as(&user, "hunter2") });
    let log = open(&settings);
    let mut reader = Reader::of(&log);
    log.append(&events(0..5)).await.unwrap();
    reader.expect(0..5).await;
    // Locked out: the password is another one, and its connections are closed.
    server.ctl(&["change_password", &user, "swordfish"]).await;
    server.ctl(&["close_all_user_connections", &user, "test"]).await;
    reader.until("being locked out", |health| !health.connected).await;
    let channel = server.connect().await.unwrap().create_channel().await.unwrap();
    channel.queue_delete(settings.key.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let meanwhile = Settings { backend: Backend::Amqp { url: server.url() }, ..settings.clone() };
    open(&meanwhile).append(&events(100..120)).await.unwrap();
    server.ctl(&["change_password", &user, "hunter2"]).await;
    assert_eq!(reader.restart().await, RestartReason::Replaced);
    reader.expect(100..120).await;
    reader.replayed().await;
}

#[tokio::test]
async fn tls_with_a_private_authority_reaches_both_brokers() {
    let certificates = Certificates::make();
    let (redis_port, rabbit_port) = (free_port(), free_port());
    let arguments = RedisServer::tls_arguments(&certificates, redis_port);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let _redis = RedisServer::start_with(&arguments).await;
    let _rabbit = RabbitServer::start_with(&RabbitServer::tls_configuration(&certificates, rabbit_port)).await;
    let redis = Backend::Redis { url: format!("rediss://127.0.0.1:{redis_port}") };
    let rabbit = Backend::Amqp { url: format!("amqps://guest:guest@localhost:{rabbit_port}") };
    for backend in [redis, rabbit] {
        let stranger = settings(backend);
        let failed = open(&stranger).append(&events(0..1)).await.unwrap_err();
        assert!(failed.detail.to_lowercase().contains("certificate"), "{}", failed.detail);
        let trusting = Settings { tls_ca_file: Some(certificates.authority.clone()), ..stranger };
        let log = open(&trusting);
        log.append(&events(0..3)).await.unwrap();
        Reader::of(&log).expect(0..3).await;
    }
}

#[tokio::test]
async fn brokers_that_ask_for_a_certificate_get_one_and_a_renewed_one_is_used_without_a_restart() {
    let (certificates, others) = (Certificates::make(), Certificates::make());
    let (redis_port, rabbit_port) = (free_port(), free_port());
    let arguments = RedisServer::mutual_tls_arguments(&certificates, redis_port);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let _redis = RedisServer::start_with(&arguments).await;
    let configuration = RabbitServer::mutual_tls_configuration(&certificates, rabbit_port);
    let _rabbit = RabbitServer::start_with(&configuration).await;
    let folder = tempfile::tempdir().unwrap();
    let client = Files { certificate: folder.path().join("tls.crt"), key: folder.path().join("tls.key") };
    let put = |from: &Files| {
        std::fs::copy(&from.certificate, &client.certificate).unwrap();
        std::fs::copy(&from.key, &client.key).unwrap();
    };
    for url in [
        format!("rediss://127.0.0.1:{redis_port}"),
        format!("amqps://guest:guest@localhost:{rabbit_port}"),
        // The certificate is the user.
        format!("amqps://localhost:{rabbit_port}?auth_mechanism=external"),
    ] {
        let backend = if url.starts_with("amqps") { Backend::Amqp { url } } else { Backend::Redis { url } };
        let without = Settings { tls_ca_file: Some(certificates.authority.clone()), ..settings(backend) };
        let without = Settings { append_timeout: Duration::from_millis(700), ..without };
        assert!(open(&without).append(&events(0..1)).await.is_err());
        put(&others.client);
        let log = open(&Settings { tls_client: Some(client.clone()), append_timeout: PATIENCE, ..without });
        let mut reader = Reader::of(&log);
        reader.until("being refused", |health| !health.connected && health.detail != "connecting").await;
        put(&certificates.client);
        log.append(&events(0..3)).await.unwrap();
        reader.expect(0..3).await;
    }
}

#[tokio::test]
async fn sentinels_and_their_primary_may_ask_for_a_certificate() {
    let certificates = Certificates::make();
    let (primary_port, sentinel_port) = (free_port(), free_port());
    let arguments = RedisServer::mutual_tls_arguments(&certificates, primary_port);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let _primary = RedisServer::start_with(&arguments).await;
    let lines = RedisServer::mutual_tls_arguments(&certificates, sentinel_port);
    let lines: Vec<String> =
        lines.chunks(2).map(|pair| format!("{} {}", pair[0].trim_start_matches('-'), pair[1])).collect();
    // It shows its own certificate to the primary.
    let lines = format!("{}\ntls-replication yes\n", lines.join("\n"));
    let _sentinel = RedisServer::sentinel_with("mine", primary_port, 1, &lines).await;
    let url = format!("rediss+sentinel://127.0.0.1:{sentinel_port}/mine");
    let with = Settings {
        tls_ca_file: Some(certificates.authority.clone()),
        tls_client: Some(certificates.client.clone()),
        append_timeout: PATIENCE,
        ..settings(Backend::Redis { url })
    };
    let log = open(&with);
    log.append(&events(0..3)).await.unwrap();
    Reader::of(&log).expect(0..3).await;
    let without = Settings { tls_client: None, append_timeout: Duration::from_secs(1), ..with };
    assert!(open(&without).append(&events(0..1)).await.is_err());
}

#[test]
fn what_cannot_be_used_is_refused_before_anything_connects() {
    let refused = |settings: Settings| match Log::open(settings, Arc::new(Metrics::new("test"))) {
        Ok(_) => panic!("must be refused"),
        Err(words) => words,
    };
    let redis = |url: &str| settings(Backend::Redis { url: url.to_owned() });
    let said = refused(redis("http://u:hunter2@localhost"));
    assert!(said.contains("Redis URL") && !said.contains("hunter2"), "{said}");
    let missing = Settings { tls_ca_file: Some("/nowhere/ca.pem".into()), ..redis("rediss://localhost") };
    assert!(refused(missing).contains("/nowhere/ca.pem"));
    let client = Files { certificate: "/nowhere/tls.crt".into(), key: "/nowhere/tls.key".into() };
    for url in ["rediss://localhost", "rediss+sentinel://localhost/mine"] {
        let missing = Settings { tls_client: Some(client.clone()), ..redis(url) };
        assert!(refused(missing).contains("/nowhere/tls.crt"), "{url}");
    }
    let rabbit = settings(Backend::Amqp { url: "amqps://localhost".to_owned() });
    assert!(refused(Settings { tls_client: Some(client), ..rabbit }).contains("/nowhere/tls.crt"));
    let long = settings(Backend::Amqp { url: "amqp://localhost".to_owned() });
    assert!(refused(Settings { key: "q".repeat(256), ..long }).contains("255 bytes"));
}
