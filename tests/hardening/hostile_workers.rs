//! A worker that is hostile, or broken: whoever can write to the broker can write anything there. It is read by every
//! replica, at every start; so it must cost what it weighs and no more.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{http, token_of, until},
    support::brokers::RedisServer,
    target::{MB, Target, soon},
};

/// Appends events as they are, in one breath.
async fn append(redis: &RedisServer, events: impl Iterator<Item = Vec<u8>>) {
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).await.unwrap();
    let (mut answers, mut commands) = stream.split();
    let mut count = 0_usize;
    let write = async {
        for event in events {
            let head =
                format!("*5\r\n$4\r\nXADD\r\n$15\r\ntaskcast:events\r\n$1\r\n*\r\n$5\r\nevent\r\n${}\r\n", event.len());
            commands.write_all(&[head.as_bytes(), &event, b"\r\n"].concat()).await.unwrap();
            count += 1;
        }
        count
    };
    let written = async {
        let (mut lines, mut bytes) = (0, vec![0; 65_536]);
        let mut write = std::pin::pin!(write);
        let mut expected = None;
        while expected.is_none_or(|count| lines < 2 * count) {
            tokio::select! {
                count = &mut write, if expected.is_none() => expected = Some(count),
                read = answers.read(&mut bytes) => lines += memchr::memchr_iter(b'\n', &bytes[..read.unwrap()]).count(),
            }
        }
    };
    soon("every answer of Redis", written).await;
}

/// Events of megabytes, deeper than a stack, full of control characters, with numbers that are none, half in UTF-8: each is
/// judged by itself, set aside within the bounds for that, and the next honest one is delivered at once.
#[tokio::test]
async fn what_a_hostile_worker_writes_is_set_aside_and_exhausts_nothing() {
    const BOUND: u64 = 160 * MB;
    let redis = RedisServer::start().await;
    let settings = [("TASKCAST_LOG", &*redis.url()), ("TASKCAST_LOG_DEAD_LETTERS_MAX_BYTES", "2000000")];
    let target = Target::start(&settings).await;
    let mut client = target.attach("/ws/tasks/", "u1").await;
    let deep = |length: usize| format!("{}{}", "[".repeat(length), "]".repeat(length));
    let poison: Vec<Vec<u8>> = vec![
        vec![b'x'; 2_000_000],
        vec![0; 2_000_000],
        vec![0xff; 2_000_000],
        json!({"task_id": "big", "user_id": "u1", "message": "x".repeat(2_000_000)}).to_string().into_bytes(),
        json!({"task_id": "big", "user_id": "u1", "result": "x".repeat(60_000)}).to_string().into_bytes(),
        deep(500_000).into_bytes(),
        format!("{{\"a\":{}}}", deep(30_000)).into_bytes(),
        b"{\"task_id\":\"a\\u0000b\"}".to_vec(),
        b"{\"task_id\":\"\\u001b[31mred\"}".to_vec(),
        b"{\"task_id\":\"a\",\"progress\":1e999}".to_vec(),
        b"{\"task_id\":\"a\",\"progress\":NaN}".to_vec(),
        b"{\"task_id\":\"a\",\"seq\":-1}".to_vec(),
        b"{\"task_id\":\"a\",\"seq\":18446744073709551616}".to_vec(),
        format!("{{\"task_id\":\"a\",\"current\":{}}}", "9".repeat(60_000)).into_bytes(),
        b"{\"task_id\":\"half \xed\xa0\x80\"}".to_vec(),
        b"{\"task_id\":\"taskcast:canary:x\",\"user_id\":\"u1\"}".to_vec(),
        Vec::new(),
    ];
    let count = poison.len();
    let rounds = 20;
    append(&redis, (0..rounds * count).map(|n| poison[n % count].clone())).await;
    let honest = json!({"task_id": "honest", "user_id": "u1", "status": "succeeded"}).to_string();
    append(&redis, [honest.into_bytes()].into_iter()).await;
    let end = client.until_end_of("honest").await;
    assert_eq!(end["status"], "succeeded");
    let malformed = target.metric("outcome=\"malformed\"").await as usize;
    assert!(malformed >= rounds * (count - 4), "{malformed} of {} were malformed", rounds * count);
    target.stays_small(BOUND);
    target.stays_unharmed().await;
}

/// What is legal and ugly: titles that are markup, messages with line ends and escapes of a terminal, names in both
/// directions of writing. It is data, and reaches the browser as JSON that says exactly that.
#[tokio::test]
async fn markup_and_escapes_in_events_stay_data() {
    let redis = RedisServer::start().await;
    let target = Target::start(&[("TASKCAST_LOG", &*redis.url())]).await;
    let mut client = target.attach("/ws/tasks/", "u1").await;
    for (n, text) in [
        "<script>alert(1)</script>",
        "\"};alert(1);//",
        "\u{2028}\u{2029}",
        "\u{202e}desrever",
        "{{7*7}} ${7*7} <%= 7*7 %>",
        "' OR 1=1 --",
    ]
    .iter()
    .enumerate()
    {
        let id = format!("t{n}");
        let event = json!({
            "task_id": id, "user_id": "u1", "status": "succeeded", "title": text, "message": text, "metadata": {"text": text},
            "result": text, "tags": [text], "worker": text,
        });
        append(&redis, [event.to_string().into_bytes()].into_iter()).await;
        let end = client.until_end_of(&id).await;
        for field in ["title", "message", "result"] {
            assert_eq!(end[field], *text, "{end}");
        }
    }
    target.stays_unharmed().await;
}

/// Task ids without end, each with an owner of its own: none of what is counted, listed or remembered grows beyond its limit.
#[tokio::test]
async fn task_ids_without_end_stay_within_the_limits() {
    const BOUND: u64 = 200 * MB;
    const IDS: usize = 300_000;
    let redis = RedisServer::start().await;
    let settings = [
        ("TASKCAST_LOG", &*redis.url()),
        ("TASKCAST_TASKS_MAX", "2000"),
        ("TASKCAST_TASKS_RESUME_WINDOW", "10000"),
        ("TASKCAST_LOG_LEVEL", "warn"),
    ];
    let target = Target::start(&settings).await;
    let script = "for n = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], '*', 'event', \
                  '{\"task_id\":\"id-' .. n .. '\",\"user_id\":\"user-' .. n .. '\",\"root_id\":\"root-' .. n .. '\",\"tags\":[\"tag-' .. n .. '\"]}') end";
    redis.cli(&["EVAL", script, "1", "taskcast:events", &IDS.to_string()]).await;
    let seen = async || target.metric("taskcast_events_total{").await as usize;
    let reading = async {
        while seen().await < IDS {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), reading).await.is_ok(), "read {}", seen().await);
    assert!(target.metric("taskcast_tasks{").await <= 2_000);
    println!("at most {} MB", target.peak() / MB);
    assert!(target.peak() < BOUND, "{} MB", target.peak() / MB);
    let (_, metrics) = target.operations("/metrics").await;
    assert!(metrics.len() < 200_000, "the metrics have {} bytes", metrics.len());
    until("the limit holds", async || target.metric("taskcast_tasks{").await <= 2_000).await;
    drop(redis);
    drop(target);
}

/// A worker that may publish for one user alone guesses the id that another user's task will have, and is there first. What
/// names the other user is refused to it, and counted; where its token has prefixes, it cannot even begin.
#[tokio::test]
async fn a_guessed_task_id_brings_nothing_that_names_its_user() {
    let target = Target::start(&[]).await;
    let publish = async |right: &Value, event: &Value| {
        let bearer = format!("Bearer {}", token_of(json!({"sub": "worker", "taskcast": {"publish": right}})));
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        http(target.port, "POST", "/api/v1/events", &headers, &event.to_string()).await.0
    };
    let (everything, for_u1) = (json!(true), json!({"users": ["u1"]}));
    let with_prefix = json!({"users": ["u1"], "task_prefixes": ["u1-"]});
    let squat = json!({"task_id": "export-43", "user_id": "u1", "title": "mine"});
    assert_eq!(publish(&with_prefix, &squat).await, 403);
    let mut squatter = target.attach("/ws/tasks/", "u1").await;
    assert_eq!(publish(&for_u1, &squat).await, 202);
    assert_eq!(squatter.until("task_progress").await["title"], "mine");
    let heard = squatter.frames.len();
    let secret = json!({"task_id": "export-43", "user_id": "u2", "message": "a secret of u2"});
    assert_eq!(publish(&everything, &secret).await, 202);
    until("it is refused", async || target.metric("reason=\"owner\"").await == 1).await;
    squatter.settle().await;
    assert_eq!(squatter.frames.len(), heard + 1, "{:?}", squatter.frames);
    // The other way round nothing is taken either.
    target.has_task("export-44", Some("u2")).await;
    assert_eq!(publish(&for_u1, &json!({"task_id": "export-44", "user_id": "u1"})).await, 403);
    target.stays_unharmed().await;
}
