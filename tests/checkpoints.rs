//! Checkpoints beside a real Redis and a real RabbitMQ keep what `src/log/checkpoint` promises: a reader gets the newest
//! whole one or none, one replica at a time writes, and what was not finished is nothing.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails by panicking")]

mod support;

use std::{sync::Arc, time::Duration};

use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use support::{
    brokers::{RabbitServer, RedisServer},
    unique,
};
use taskcast::{
    log::{
        Backend, Bookmark, CheckpointError, CheckpointSettings, Checkpoints, Log, Manifest, Outgoing, RestartReason,
        Settings, Tail, TailItem,
    },
    metrics::Metrics,
    proto::{Cursor, Position},
};

const MAX_BYTES: u64 = 20_000_000;

fn log_of(backend: Backend, key: &str) -> Log {
    support::install_crypto();
    let settings = Settings {
        backend,
        key: key.to_owned(),
        exchange: unique("exchange"),
        max_events: 100_000,
        max_age_seconds: 3_600,
        max_bytes: 100_000_000,
        read_batch: 100,
        append_timeout: Duration::from_secs(5),
        reconnect_max: Duration::from_millis(500),
        tls_ca_file: None,
        tls_client: None,
        wait_replicas: 0,
        dead_letters_max: 1_000,
        dead_letters_max_bytes: 1_000_000,
    };
    Log::open(settings, Arc::new(Metrics::new("test"))).unwrap()
}

fn checkpoints_of(backend: Backend, key: &str, max_bytes: u64) -> Checkpoints {
    let settings = CheckpointSettings { interval: Duration::from_secs(60), max_bytes };
    log_of(backend, key).checkpoints(settings).expect("brokers keep checkpoints")
}

fn bookmark(major: u64) -> Bookmark {
    Bookmark { cursor: Cursor { position: Position { major, minor: 5 }, proof: 9 }, added: Some(major) }
}

fn payloads(count: usize, seed: u8) -> Vec<Vec<u8>> {
    (0..count).map(|n| vec![seed.wrapping_add(n as u8); 100_000 + n]).collect()
}

async fn write(checkpoints: &Checkpoints, chunks: &[Vec<u8>], major: u64) -> Manifest {
    let mut writer = checkpoints.writer().await.unwrap().expect("nobody else writes");
    for chunk in chunks {
        writer.chunk(chunk).await.unwrap();
    }
    writer.finish(bookmark(major), 1_234).await.unwrap()
}

/// Chunks without an end, as a replica that is killed leaves them.
async fn write_unfinished(checkpoints: &Checkpoints, chunks: &[Vec<u8>]) {
    let mut writer = checkpoints.writer().await.unwrap().expect("nobody else writes");
    for chunk in chunks {
        writer.chunk(chunk).await.unwrap();
    }
    drop(writer);
}

async fn loaded(checkpoints: &Checkpoints) -> (Vec<Vec<u8>>, Manifest) {
    let stored = checkpoints.load().await.unwrap().expect("a checkpoint");
    (stored.chunks, stored.manifest)
}

/// The contract, beside each of the brokers.
async fn the_newest_whole_one_is_read(checkpoints: &Checkpoints) {
    assert!(checkpoints.load().await.unwrap().is_none(), "nothing was written yet");
    for (round, count) in [(1, 3), (2, 1), (3, 40)] {
        let chunks = payloads(count, round);
        let manifest = write(checkpoints, &chunks, u64::from(round)).await;
        assert_eq!(manifest.bytes, chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>());
        assert_eq!(loaded(checkpoints).await, (chunks, manifest));
        let mut writer = checkpoints.writer().await.unwrap().unwrap();
        assert_eq!(writer.newest().await.unwrap(), Some(manifest));
        writer.release().await;
    }
}

async fn one_writes_and_the_others_are_told(one: &Checkpoints, other: &Checkpoints) {
    let mut writer = one.writer().await.unwrap().unwrap();
    assert!(other.writer().await.unwrap().is_none(), "another replica writes");
    writer.chunk(b"chunk").await.unwrap();
    assert!(other.load().await.unwrap().is_none(), "what is not finished is nothing");
    writer.finish(bookmark(1), 1).await.unwrap();
    let next = other.writer().await.unwrap().expect("the first is done");
    assert!(one.writer().await.unwrap().is_none(), "another replica writes");
    next.release().await;
    one.writer().await.unwrap().expect("the second is done").release().await;
}

async fn a_larger_one_than_allowed_is_neither_written_nor_read(large: &Checkpoints, small: &Checkpoints) {
    let chunks = payloads(11, 1);
    let mut writer = small.writer().await.unwrap().unwrap();
    let mut refused = Ok(());
    for chunk in &chunks {
        refused = refused.and(writer.chunk(chunk).await);
    }
    assert!(matches!(refused, Err(CheckpointError::TooLarge(bytes)) if bytes > 1_000_000), "{refused:?}");
    writer.release().await;
    write(large, &chunks, 1).await;
    let refused = small.load().await.unwrap_err();
    assert!(matches!(refused, CheckpointError::TooLarge(_)), "{refused}");
}

struct Redis(RedisServer);

impl Redis {
    async fn start() -> Self {
        Self(RedisServer::start().await)
    }

    fn checkpoints(&self) -> Checkpoints {
        checkpoints_of(Backend::Redis { url: self.0.url() }, "events", MAX_BYTES)
    }
}

async fn rabbit_checkpoints(key: &str) -> Checkpoints {
    checkpoints_of(Backend::Amqp { url: RabbitServer::shared().await.url() }, key, MAX_BYTES)
}

#[tokio::test]
async fn redis_hands_out_the_newest_whole_checkpoint() {
    the_newest_whole_one_is_read(&Redis::start().await.checkpoints()).await;
}

#[tokio::test]
async fn rabbitmq_hands_out_the_newest_whole_checkpoint() {
    the_newest_whole_one_is_read(&rabbit_checkpoints(&unique("whole")).await).await;
}

#[tokio::test]
async fn one_replica_at_a_time_writes_to_redis() {
    let redis = Redis::start().await;
    one_writes_and_the_others_are_told(&redis.checkpoints(), &redis.checkpoints()).await;
    let left = redis.0.cli(&["KEYS", "*"]).await;
    assert_eq!(left, "events:checkpoint", "nothing else is left behind");
}

#[tokio::test]
async fn one_replica_at_a_time_writes_to_rabbitmq() {
    let key = unique("writers");
    one_writes_and_the_others_are_told(&rabbit_checkpoints(&key).await, &rabbit_checkpoints(&key).await).await;
}

#[tokio::test]
async fn the_limit_of_size_holds_both_ways() {
    let redis = Redis::start().await;
    let small = checkpoints_of(Backend::Redis { url: redis.0.url() }, "events", 1_000_000);
    a_larger_one_than_allowed_is_neither_written_nor_read(&redis.checkpoints(), &small).await;
    let key = unique("limit");
    let small = checkpoints_of(Backend::Amqp { url: RabbitServer::shared().await.url() }, &key, 1_000_000);
    a_larger_one_than_allowed_is_neither_written_nor_read(&rabbit_checkpoints(&key).await, &small).await;
}

#[tokio::test]
async fn what_a_killed_writer_left_in_redis_is_nothing_and_expires() {
    let redis = Redis::start().await;
    let checkpoints = redis.checkpoints();
    let whole = payloads(3, 1);
    write(&checkpoints, &whole, 1).await;
    write_unfinished(&checkpoints, &payloads(2, 9)).await;
    assert_eq!(loaded(&checkpoints).await.0, whole);
    let keys = redis.0.cli(&["KEYS", "events:checkpoint:*"]).await;
    assert_eq!(keys.lines().count(), 2, "a lock and a list: {keys}");
    for key in keys.lines() {
        let seconds: i64 = redis.0.cli(&["TTL", key]).await.parse().unwrap();
        assert!((1..=600).contains(&seconds), "{key} lives for {seconds} s");
    }
    redis.0.cli(&["DEL", "events:checkpoint:writer"]).await;
    let next = payloads(4, 2);
    write(&checkpoints, &next, 2).await;
    assert_eq!(loaded(&checkpoints).await.0, next);
}

#[tokio::test]
async fn a_first_chunk_in_redis_is_not_kept_without_the_time_when_it_expires() {
    let redis = Redis::start().await;
    redis.0.cli(&["ACL", "SETUSER", "short", "on", ">secret", "~*", "+@all", "-pexpire"]).await;
    let url = redis.0.url_as("short", "secret");
    let checkpoints = checkpoints_of(Backend::Redis { url }, "events", MAX_BYTES);
    let mut writer = checkpoints.writer().await.unwrap().unwrap();
    writer.chunk(b"chunk").await.unwrap_err();
    drop(writer);
    assert_eq!(redis.0.cli(&["KEYS", "events:checkpoint:*"]).await.trim(), "events:checkpoint:writer");
}

#[tokio::test]
async fn what_killed_writers_left_in_rabbitmq_is_stepped_over() {
    let checkpoints = rabbit_checkpoints(&unique("killed")).await;
    write_unfinished(&checkpoints, &payloads(2, 9)).await;
    until_unlocked(&checkpoints).await;
    assert!(checkpoints.load().await.unwrap().is_none(), "none was ever finished");
    let whole = payloads(3, 1);
    write(&checkpoints, &whole, 1).await;
    for seed in [9, 10, 11] {
        // Far more than is read again to be sure.
        write_unfinished(&checkpoints, &vec![vec![seed; 1_000]; 400]).await;
        assert_eq!(loaded(&checkpoints).await.0, whole);
        until_unlocked(&checkpoints).await;
    }
    let next = payloads(4, 2);
    write(&checkpoints, &next, 2).await;
    assert_eq!(loaded(&checkpoints).await.0, next);
}

/// The broker notices that a connection is gone.
async fn until_unlocked(checkpoints: &Checkpoints) {
    let unlocked = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Some(writer) = checkpoints.writer().await.unwrap() {
                return writer.release().await;
            }
        }
    });
    unlocked.await.expect("the lock ends with the connection");
}

#[tokio::test]
async fn retention_in_rabbitmq_never_takes_the_newest_whole_checkpoint() {
    // A third of what is allowed, many times over: older ones go, and the newest is there throughout.
    let key = unique("retention");
    let rabbit = RabbitServer::shared().await;
    let checkpoints = checkpoints_of(Backend::Amqp { url: rabbit.url() }, &key, 3_000_000);
    for round in 0..12 {
        let chunks = payloads(9, round);
        write(&checkpoints, &chunks, u64::from(round)).await;
        assert_eq!(loaded(&checkpoints).await.0, chunks, "round {round}");
        write_unfinished(&checkpoints, &payloads(9, 100)).await;
        assert_eq!(loaded(&checkpoints).await.0, chunks, "round {round}, beside an unfinished one");
        until_unlocked(&checkpoints).await;
    }
}

#[tokio::test]
async fn broken_and_foreign_bytes_in_redis_are_refused_and_replaced() {
    let redis = Redis::start().await;
    let checkpoints = redis.checkpoints();
    let whole = payloads(6, 1);
    let corruptions: [&[&str]; 6] = [
        &["LSET", "events:checkpoint", "3", "something else"],
        &["LSET", "events:checkpoint", "0", "something else"],
        &["LTRIM", "events:checkpoint", "0", "4"],
        &["LTRIM", "events:checkpoint", "1", "-1"],
        &["LPUSH", "events:checkpoint", ""],
        &["LPUSH", "events:checkpoint", &"x".repeat(100_000)],
    ];
    for corruption in corruptions {
        write(&checkpoints, &whole, 1).await;
        redis.0.cli(corruption).await;
        let refused = checkpoints.load().await.unwrap_err();
        assert!(matches!(refused, CheckpointError::Corrupt(_)), "{corruption:?}: {refused}");
    }
    write(&checkpoints, &whole, 1).await;
    assert_eq!(loaded(&checkpoints).await.0, whole);
    redis.0.cli(&["DEL", "events:checkpoint"]).await;
    redis.0.cli(&["SET", "events:checkpoint", "somebody's"]).await;
    let refused = checkpoints.load().await.unwrap_err().to_string();
    assert!(refused.contains("events:checkpoint") && refused.contains("something else"), "{refused}");
    let mut writer = checkpoints.writer().await.unwrap().unwrap();
    writer.newest().await.expect_err("what is somebody else's is not replaced");
}

#[tokio::test]
async fn broken_and_foreign_bytes_in_rabbitmq_are_refused_and_replaced() {
    let rabbit = RabbitServer::shared().await;
    let key = unique("broken");
    let checkpoints = rabbit_checkpoints(&key).await;
    let queue = format!("{key}:checkpoint");
    write(&checkpoints, &payloads(3, 1), 1).await;
    let connection = rabbit.connect().await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let publish = async |bytes: &[u8]| {
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish("".into(), queue.as_str().into(), options, bytes, BasicProperties::default());
        sent.await.unwrap().await.unwrap();
    };
    publish(b"something else").await;
    assert_eq!(loaded(&checkpoints).await.0, payloads(3, 1), "foreign bytes behind a whole one are stepped over");
    publish(b"TCkm\x09\x00").await;
    assert_eq!(checkpoints.load().await.unwrap_err(), CheckpointError::Newer(9));
    let next = payloads(5, 2);
    write(&checkpoints, &next, 2).await;
    assert_eq!(loaded(&checkpoints).await.0, next);
}

async fn append(log: &Log, numbers: std::ops::Range<usize>) {
    let event = |n: usize| Outgoing { task_id: "t".to_owned(), payload: format!("event {n}").into() };
    log.append(&numbers.map(event).collect::<Vec<_>>()).await.unwrap();
}

/// Reads so many records, by their texts.
async fn read(tail: &mut Tail, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        match tokio::time::timeout(Duration::from_secs(30), tail.next()).await.expect("a record") {
            TailItem::Records(records) => {
                texts.extend(records.iter().map(|record| String::from_utf8(record.payload.to_vec()).unwrap()));
            }
            TailItem::Restarted(reason) => texts.push(format!("{reason:?}")),
        }
    }
    texts
}

/// A bookmark after so many records of a new log.
async fn bookmark_after(log: &Log, count: usize) -> Bookmark {
    append(log, 0..count).await;
    let mut tail = log.tail();
    assert!(tail.bookmark().is_none());
    read(&mut tail, count).await;
    tail.bookmark().expect("where it stands")
}

async fn a_tail_goes_on_from_a_bookmark(log: &Log) {
    let bookmark = bookmark_after(log, 5).await;
    append(log, 5..7).await;
    let mut tail = log.tail_from(Some(bookmark));
    assert_eq!(read(&mut tail, 2).await, ["event 5", "event 6"]);
    let mut again = log.tail_from(tail.bookmark());
    append(log, 7..8).await;
    assert_eq!(read(&mut again, 1).await, ["event 7"]);
    let other_bytes = Bookmark { cursor: Cursor { proof: 1, ..bookmark.cursor }, ..bookmark };
    let mut replaced = log.tail_from(Some(other_bytes));
    let texts = read(&mut replaced, 9).await;
    assert_eq!((texts[0].clone(), texts[1].as_str()), (format!("{:?}", RestartReason::Replaced), "event 0"));
}

#[tokio::test]
async fn a_reader_goes_on_from_a_bookmark_in_both_brokers() {
    let redis = Redis::start().await;
    a_tail_goes_on_from_a_bookmark(&log_of(Backend::Redis { url: redis.0.url() }, "events")).await;
    let rabbit = Backend::Amqp { url: RabbitServer::shared().await.url() };
    a_tail_goes_on_from_a_bookmark(&log_of(rabbit, &unique("bookmark"))).await;
}

#[tokio::test]
async fn trimming_what_a_bookmark_had_read_is_no_loss_and_one_more_is() {
    let redis = Redis::start().await;
    let log = log_of(Backend::Redis { url: redis.0.url() }, "events");
    let bookmark = bookmark_after(&log, 5).await;
    append(&log, 5..7).await;
    redis.0.cli(&["XTRIM", "events", "MAXLEN", "2"]).await;
    let mut tail = log.tail_from(Some(bookmark));
    assert_eq!(read(&mut tail, 2).await, ["event 5", "event 6"]);
    redis.0.cli(&["XTRIM", "events", "MAXLEN", "1"]).await;
    let mut tail = log.tail_from(Some(bookmark));
    assert_eq!(read(&mut tail, 2).await, [&format!("{:?}", RestartReason::Trimmed), "event 6"]);
}
