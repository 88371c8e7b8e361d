//! What a running service logs: as JSON, with the words and fields of `LOGS.md`, and as much as the file of the log level says.

use std::{collections::BTreeSet, path::Path, process::Stdio};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr},
    time::timeout,
};

use crate::{
    harness::{Client, PATIENCE, SECRET, Service, binary, http, token, token_with, until},
    support::brokers::{RedisServer, free_port},
};

struct Logging {
    process: Child,
    lines: Lines<BufReader<ChildStderr>>,
    port: u16,
    operations_port: u16,
}

impl Logging {
    fn start(environment: &[(&str, &str)]) -> Self {
        let (port, operations_port) = (free_port(), free_port());
        let mut command = tokio::process::Command::from(binary());
        command.arg("serve").env("TASKCAST_AUTH_SECRET", SECRET).env("TASKCAST_LOG_FORMAT", "json");
        command.env("TASKCAST_LISTEN", format!("127.0.0.1:{port}")).env("TASKCAST_DRAIN_SECONDS", "0");
        command.env("TASKCAST_OPERATIONS_LISTEN", format!("127.0.0.1:{operations_port}"));
        command.envs(environment.iter().copied());
        let mut process = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { process, lines, port, operations_port }
    }

    async fn next(&mut self) -> Value {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("a line").unwrap().expect("it runs");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// The lines up to one with these words, which is the last.
    async fn until(&mut self, message: &str) -> Vec<Value> {
        let mut seen = Vec::new();
        loop {
            let line = self.next().await;
            let is_it = line["message"] == message;
            seen.push(line);
            if is_it {
                return seen;
            }
        }
    }

    async fn publish(&self, event: &Value) {
        let bearer = format!("Bearer {}", token_with("worker", &["own"], true));
        let answer = http(self.port, "POST", "/api/v1/events", &[("Authorization", &bearer)], &event.to_string()).await;
        assert_eq!(answer.0, 202, "{}", answer.1);
    }
}

/// Level, words and fields, as the table has them.
fn documented() -> BTreeSet<(String, String, BTreeSet<String>)> {
    let rows = include_str!("../../LOGS.md").lines().filter(|line| line.starts_with("| "));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let fields = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let lines = cells.filter(|cells| cells.len() == 4);
    lines.map(|cells| (cells[0].to_uppercase(), cells[1].to_owned(), fields(cells[2]))).collect()
}

fn is_documented(line: &Value) -> bool {
    let mut fields: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    for own in ["timestamp", "level", "target", "message"] {
        assert!(line[own].is_string() && fields.remove(own), "{own} is missing in {line}");
    }
    if fields.remove("span") {
        let told: Vec<&String> = line["span"].as_object().unwrap().keys().collect();
        assert_eq!(told, ["client", "method", "name", "path", "peer"], "{line}");
    }
    let is_it = |(level, message, documented): &(String, String, BTreeSet<String>)| {
        line["level"] == *level && line["message"] == *message && fields.iter().all(|field| documented.contains(*field))
    };
    documented().iter().any(is_it)
}

#[tokio::test]
async fn every_line_is_json_with_documented_words_and_fields_at_every_level() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let mut service = Logging::start(&[("TASKCAST_LOG", &url), ("TASKCAST_LOG_LEVEL", "off,taskcast=trace")]);
    let mut seen = service.until("the log is connected").await;
    until("it is ready", async || http(service.operations_port, "GET", "/readyz", &[], "").await.0 == 200).await;
    let mut client =
        Client::connect(service.port, &format!("/ws/tasks/?token={}", token("u1")), &[("X-Secret", "s")]).await;
    client.until("active_tasks").await;
    service.publish(&json!({"task_id": "t1", "user_id": "u1", "progress": 1})).await;
    client.until("task_progress").await;
    drop(client);
    seen.extend(service.until("a connection ended").await);
    redis.cli(&["XADD", "taskcast:events", "*", "event", "poison"]).await;
    seen.extend(service.until("malformed event").await);
    crate::support::brokers::signal("-TERM", &service.process.id().unwrap().to_string());
    seen.extend(service.until("stopped").await);
    let unknown: Vec<&Value> = seen.iter().filter(|line| !is_documented(line)).collect();
    assert!(unknown.is_empty(), "not in LOGS.md: {unknown:#?}");
    let levels: BTreeSet<&str> = seen.iter().map(|line| line["level"].as_str().unwrap()).collect();
    assert_eq!(levels, BTreeSet::from(["DEBUG", "INFO", "TRACE", "WARN"]));
    let said = |message: &str| seen.iter().find(|line| line["message"] == message).unwrap();
    // Canaries are read as well.
    assert!(seen.iter().any(|line| line["message"] == "an event is read" && line["task_id"] == "\"t1\""));
    assert!(said("a client is let in")["user_id"].as_str().unwrap().contains("u1"));
    assert!(said("malformed event")["position"].is_string());
}

/// As a file is replaced that somebody reads.
fn write(path: &Path, text: &str) {
    let other = path.with_extension("new");
    std::fs::write(&other, text).unwrap();
    std::fs::rename(other, path).unwrap();
}

#[tokio::test]
async fn the_log_level_follows_its_file_and_what_is_no_level_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log_level");
    let mut service =
        Logging::start(&[("TASKCAST_LOG_LEVEL", "warn"), ("TASKCAST_LOG_LEVEL_FILE", path.to_str().unwrap())]);
    write(&path, "info,taskcast=trace\n");
    let lines = service.until("the log level changes").await;
    assert_eq!(lines.len(), 1, "nothing below a warning before: {lines:?}");
    assert_eq!(lines[0]["log_level"], "info,taskcast=trace");
    service.publish(&json!({"task_id": "t1"})).await;
    service.until("an event is read").await;
    write(&path, "inof\n");
    let lines = service.until("the file of the log level cannot be used; the level before stays").await;
    assert!(lines.last().unwrap()["reason"].as_str().unwrap().contains("taskcast=debug"), "says what is expected");
    service.publish(&json!({"task_id": "t2"})).await;
    service.until("an event is read").await;
    std::fs::remove_file(&path).unwrap();
    assert_eq!(service.until("the log level changes").await.last().unwrap()["log_level"], "warn");
    // From now on there are warnings at most, as a slow machine may have its own.
    service.publish(&json!({"task_id": "t3"})).await;
    write(&path, "inof\n");
    let lines = service.until("the file of the log level cannot be used; the level before stays").await;
    assert!(lines.iter().all(|line| line["level"] == "ERROR" || line["level"] == "WARN"), "{lines:?}");
}

#[tokio::test]
async fn the_gauge_says_what_readiness_says() {
    let mut redis = RedisServer::start().await;
    let service = Service::start(&[("TASKCAST_LOG", &redis.url())]).await;
    assert_eq!(service.metric("taskcast_ready ").await, 1);
    redis.kill();
    service.until_ready(false).await;
    assert_eq!(service.metric("taskcast_ready ").await, 0);
    redis.restart().await;
    service.until_ready(true).await;
    until("the gauge", async || service.metric("taskcast_ready ").await == 1).await;
}
