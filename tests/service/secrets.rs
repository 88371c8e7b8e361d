//! What the service logs, whatever it is asked to log and whatever strangers write: never a password, and one line for each
//! thing; and what its user must be allowed.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::{
    harness::{Client, SECRET, Service, binary, http, token, token_with, until},
    support::{
        brokers::{RabbitServer, RedisServer, free_port, signal},
        unique,
    },
};

#[tokio::test]
async fn no_level_of_the_log_shows_the_password_that_is_sent_to_rabbitmq() {
    let url = RabbitServer::shared().await.url();
    for level in ["trace", "debug,lapin=trace,lapin::io_loop=trace"] {
        let mut command = tokio::process::Command::from(binary());
        command.arg("serve").env("TASKCAST_LOG", &url).env("TASKCAST_LOG_LEVEL", level);
        command.env("TASKCAST_LOG_KEY", unique("events")).env("TASKCAST_LOG_EXCHANGE", unique("exchange"));
        command.env("TASKCAST_AUTH_SECRET", SECRET).env("TASKCAST_LISTEN", format!("127.0.0.1:{}", free_port()));
        command.env("TASKCAST_OPERATIONS_LISTEN", format!("127.0.0.1:{}", free_port()));
        let mut service = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(service.stderr.take().unwrap()).lines();
        loop {
            let line = lines.next_line().await.unwrap().expect("it connects before it ends");
            // As text, and as the library shows bytes: of user and password, each behind a zero.
            assert!(!line.contains("guest\\0guest") && !line.contains("103, 117, 101, 115, 116"), "{line}");
            if line.contains("the log is connected") {
                break;
            }
        }
    }
}

/// Colours, a cursor that moves, a title for the window (as ESC and as C1), a line that looks like the service's own, and
/// what turns a line around.
const HOSTILE: &str =
    "\u{1b}[2J\u{9b}31m\u{1b}]0;owned\u{7}\r\n2026-01-01T00:00:00.000000Z ERROR taskcast: forged\u{202e}";

/// Everything that strangers can write is offered, at a level that logs as much of it as any.
#[tokio::test]
async fn what_strangers_write_is_in_no_log_line_as_anything_but_escaped_text() {
    let redis = RedisServer::start().await;
    for format in ["text", "json"] {
        let (port, operations_port) = (free_port(), free_port());
        let mut command = tokio::process::Command::from(binary());
        command.arg("serve").env("TASKCAST_LOG", redis.url()).env("TASKCAST_LOG_LEVEL", "debug,taskcast=trace");
        command.env("TASKCAST_LOG_FORMAT", format).env("TASKCAST_DRAIN_SECONDS", "0");
        command.env("TASKCAST_AUTH_SECRET", SECRET).env("TASKCAST_LISTEN", format!("127.0.0.1:{port}"));
        command.env("TASKCAST_OPERATIONS_LISTEN", format!("127.0.0.1:{operations_port}"));
        let mut service = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let said = tokio::spawn({
            let mut stderr = service.stderr.take().unwrap();
            async move {
                let mut said = Vec::new();
                stderr.read_to_end(&mut said).await.unwrap();
                String::from_utf8(said).expect("UTF-8")
            }
        });
        until("it is ready", async || http(operations_port, "GET", "/readyz", &[], "").await.0 == 200).await;
        for event in
            [HOSTILE.to_owned(), format!("{{\"task_id\":{}}}", json!(HOSTILE)), json!({HOSTILE: 1}).to_string()]
        {
            redis.cli(&["XADD", "taskcast:events", "*", "event", &event]).await;
        }
        let bearer = format!("Bearer {}", token_with("u1", &["own"], true));
        let hostile_header = HOSTILE.replace(['\u{1b}', '\u{7}', '\r', '\n'], "");
        let headers = [("Authorization", bearer.as_str()), ("Origin", &hostile_header), ("X-Other", &hostile_header)];
        let event = json!({"task_id": "t", "user_id": "u1", "title": HOSTILE, "message": HOSTILE, "status": HOSTILE,
            "error": {"code": HOSTILE}, "metadata": {HOSTILE: HOSTILE}, HOSTILE: HOSTILE});
        let (status, answer) = http(port, "POST", "/api/v1/events", &headers, &event.to_string()).await;
        assert_eq!(status, 202, "{answer}");
        http(port, "POST", "/api/v1/events", &headers, HOSTILE).await;
        http(port, "GET", "/api/v1/tasks/%1b%5b2J%0a?token=%1b%0a", &headers, "").await;
        http(port, "GET", "/ws/tasks/%0d%0a/", &headers, "").await;
        let path = format!("/ws/tasks/?token={}&cursor=%1b%0a&dialect=%1b", token("u1"));
        assert!(Client::try_connect(port, &path, &[("Origin", "https://\u{9b}.test")]).await.is_err());
        let mut client = Client::connect(port, "/ws/tasks/", &[("Authorization", &bearer)]).await;
        for message in [json!({"type": HOSTILE, "id": HOSTILE}), json!({"type": "subscribe", "task_id": HOSTILE})] {
            client.say(&message).await;
        }
        client.settle().await;
        signal("-TERM", &service.id().unwrap().to_string());
        service.wait().await.unwrap();
        let said = said.await.unwrap();
        // That it was logged at all: or this would prove nothing.
        assert!(said.contains("malformed event") && said.contains("refused an Origin"), "{said}");
        for line in said.lines() {
            let foul = line.chars().find(|character| character.is_control() || *character == '\u{202e}');
            assert_eq!(foul, None, "{line:?}");
            let is_own = match format {
                "json" => serde_json::from_str::<Value>(line).is_ok_and(|line| line["timestamp"].is_string()),
                _ => line.starts_with("20") && !line.starts_with("2026-01-01"),
            };
            assert!(is_own, "{line:?}");
        }
    }
}

#[tokio::test]
async fn a_user_of_redis_with_the_rights_of_the_readme_is_refused_nothing() {
    let redis = RedisServer::start().await;
    let line = include_str!("../../README.md").lines().find(|line| line.starts_with("ACL SETUSER taskcast")).unwrap();
    redis.cli(&line.split(' ').collect::<Vec<_>>()).await;
    let url = redis.url().replace("redis://", "redis://taskcast:password@");
    let mut service = Service::start(&[("TASKCAST_LOG", &url), ("TASKCAST_CHECKPOINT_INTERVAL_SECONDS", "1")]).await;
    redis.cli(&["XADD", "taskcast:events", "*", "event", "poison"]).await;
    until("the dead letter", async || service.metric("taskcast_dead_letters_total{").await == 1).await;
    let written = "taskcast_checkpoint_writes_total{outcome=\"written\"}";
    until("a checkpoint", async || service.metric(written).await >= 1).await;
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    service.kill_and_restart().await;
    assert_eq!(service.metric("taskcast_checkpoint_loads_total{outcome=\"loaded\"}").await, 1);
    assert_eq!(redis.cli(&["ACL", "LOG"]).await, "", "nothing was refused");
}
