//! The contract cannot drift: the table, the schemas, the vectors and the `.proto` files under `proto/` are compared
//! with what the code does. The vectors of `server/` are written by
//! `TASKCAST_WRITE_VECTORS=1 cargo test --test contract`; look at the difference before you commit it.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers may fail the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::Arc,
};

use proptest::prelude::*;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json, value::RawValue};
use taskcast::proto::{
    AuthenticationErrorCode, ClientLimits, CloseCode, Command, CommandKind, ConnectionEstablished, ContentType, Cursor,
    Encoding, ErrorCode, Event, FIELD_ALIASES, JsonText, MalformedReason, Position, RequestId, ResumeFailure,
    Revocation, Selector, ServerMessage, Status, Task, TaskError, TaskFrame, TaskId, Topic, TraceContext, UserId,
    payload,
};

const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn path(below: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("proto").join(below)
}

fn read(below: &str) -> String {
    fs::read_to_string(path(below)).unwrap()
}

fn read_json(below: &str) -> Value {
    serde_json::from_str(&read(below)).unwrap()
}

fn vectors<T: DeserializeOwned>(folder: &str) -> Vec<T> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(path(&format!("vectors/{folder}"))).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 5, "vectors/{folder} is all but empty");
    let parse = |file: &PathBuf| {
        serde_json::from_str(&fs::read_to_string(file).unwrap()).map_err(|error| format!("{}: {error}", file.display()))
    };
    files.iter().map(|file| parse(file).unwrap()).collect()
}

fn schema(name: &str) -> jsonschema::Validator {
    let schema = read_json(&format!("taskcast/v1/{name}.schema.json"));
    assert!(jsonschema::meta::is_valid(&schema), "{name} is not a schema");
    jsonschema::validator_for(&schema).unwrap()
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| u32::try_from(BASE64.iter().position(|known| *known == byte).unwrap()).unwrap();
    let mut out = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = group.iter().fold(0, |bits, byte| (bits << 6) | digit(*byte)) << (6 * (4 - group.len()));
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    out
}

fn to_base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = BASE64[((bits >> (18 - 6 * place)) & 63) as usize] as char;
            out.push(if place <= group.len() { digit } else { '=' });
        }
    }
    out
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventVector {
    name: String,
    content_type: String,
    input: Option<Box<RawValue>>,
    input_text: Option<String>,
    expected: Option<Value>,
    unknown_fields: Option<u32>,
    reason: Option<String>,
    field: Option<String>,
    /// The schema cannot say what is wrong with it.
    #[serde(default)]
    beyond_schema: bool,
}

impl EventVector {
    fn content_type(&self) -> ContentType {
        ContentType::parse(&self.content_type).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        let Some(raw) = &self.input else { return self.input_text.clone().unwrap().into_bytes() };
        match self.content_type() {
            ContentType::Protobuf => base64(&serde_json::from_str::<String>(raw.get()).unwrap()),
            ContentType::Json | ContentType::CloudEvents => raw.get().as_bytes().to_vec(),
        }
    }

    /// The input as native JSON, for the schema.
    fn native(&self) -> Option<Value> {
        let raw = self.input.as_ref().filter(|_| self.content_type() == ContentType::Json)?;
        Some(serde_json::from_str(raw.get()).unwrap())
    }
}

#[test]
fn every_valid_event_decodes_to_what_its_vector_says() {
    let schema = schema("event");
    for vector in vectors::<EventVector>("valid") {
        let name = &vector.name;
        let event = Event::decode(vector.content_type(), &vector.bytes()).map_err(|bad| format!("{name}: {bad}"));
        let event = event.unwrap();
        let expected = vector.expected.clone().unwrap();
        let native: Value = serde_json::from_slice(&event.to_json()).unwrap();
        assert_eq!(native, expected, "{name}");
        assert_eq!(Some(event.unknown_fields), vector.unknown_fields, "{name}");
        assert!(schema.is_valid(&expected), "{name}: expected is against the schema");
        if let Some(input) = vector.native().filter(|input| input.get("task_id").is_some()) {
            assert!(schema.is_valid(&input), "{name}: input is against the schema");
        }
        let known = Event { unknown_fields: 0, ..event };
        assert_eq!(Event::decode(ContentType::Json, &known.to_json()), Ok(known.clone()), "{name}");
        assert_eq!(Event::decode(ContentType::Protobuf, &known.to_protobuf()), Ok(known), "{name}");
    }
}

#[test]
fn every_invalid_event_is_refused_for_the_reason_that_its_vector_says() {
    let schema = schema("event");
    let mut reasons = BTreeSet::new();
    for vector in vectors::<EventVector>("invalid") {
        let name = &vector.name;
        let malformed = Event::decode(vector.content_type(), &vector.bytes()).map(|_| name).unwrap_err();
        let reason = malformed.reason.as_str();
        let found = (Some(reason), &malformed.field);
        assert_eq!(found, (vector.reason.as_deref(), &vector.field), "{name}: {malformed}");
        assert!(malformed.detail.len() < 200, "{name}: {malformed}");
        reasons.insert(reason);
        if let Some(input) = vector.native() {
            assert_eq!(schema.is_valid(&input), vector.beyond_schema, "{name}: what the schema says");
        }
    }
    assert_eq!(reasons.len(), MalformedReason::ALL.len(), "a vector for every reason");
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevocationVector {
    name: String,
    input: Value,
    expected: Option<Value>,
    reason: Option<String>,
    field: Option<String>,
    /// The schema cannot say what is wrong with it.
    #[serde(default)]
    beyond_schema: bool,
}

#[test]
fn every_valid_revocation_is_read_as_its_vector_says_and_is_no_event() {
    let schema = schema("revocation");
    for vector in vectors::<RevocationVector>("revocation/valid") {
        let name = &vector.name;
        let revocation =
            Revocation::from_json(vector.input.to_string().as_bytes()).map_err(|bad| format!("{name}: {bad}"));
        let revocation = revocation.unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&revocation.to_json()).ok(), vector.expected, "{name}");
        assert!(schema.is_valid(&vector.input), "{name}: input is against the schema");
        let record = json!({ "revoke": vector.input }).to_string();
        for record in [record.into_bytes(), revocation.to_record()] {
            assert_eq!(Revocation::from_record(&record), Some(Ok(revocation.clone())), "{name}");
            let no_event = Event::decode(ContentType::Json, &record).map(|_| name).unwrap_err();
            assert_eq!((no_event.reason, no_event.field.as_deref()), (MalformedReason::Missing, Some("task_id")));
        }
    }
}

#[test]
fn every_invalid_revocation_is_refused_for_the_reason_that_its_vector_says() {
    let schema = schema("revocation");
    for vector in vectors::<RevocationVector>("revocation/invalid") {
        let name = &vector.name;
        let malformed = Revocation::from_json(vector.input.to_string().as_bytes()).map(|_| name).unwrap_err();
        let found = (Some(malformed.reason.as_str()), &malformed.field);
        assert_eq!(found, (vector.reason.as_deref(), &vector.field), "{name}: {malformed}");
        assert_eq!(schema.is_valid(&vector.input), vector.beyond_schema, "{name}: what the schema says");
    }
    for other in ["", "[]", "{}", r#"{"task_id":"t1"}"#, r#"{"Revoke":{"jti":"a"}}"#] {
        assert_eq!(Revocation::from_record(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn a_key_that_stands_twice_counts_as_it_stands_last() {
    let event = Event::decode(ContentType::Json, br#"{"task_id":"a","seq":1,"task_id":"b","seq":2}"#).unwrap();
    assert_eq!((event.task_id.as_str(), event.seq, event.unknown_fields), ("b", Some(2), 0));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientVector {
    name: String,
    format: String,
    input: Option<Box<RawValue>>,
    input_text: Option<String>,
    expected: Option<Value>,
    /// False when a name of somebody else's is used, which the schema does not describe.
    native: Option<bool>,
    error_code: Option<String>,
    message_contains: Option<String>,
    id: Option<Value>,
}

impl ClientVector {
    fn command(&self) -> Result<Command, taskcast::proto::CommandError> {
        let Some(raw) = &self.input else { return Command::from_json(self.input_text.as_ref().unwrap()) };
        match self.format.as_str() {
            "protobuf" => Command::from_protobuf(&base64(&serde_json::from_str::<String>(raw.get()).unwrap())),
            _ => Command::from_json(raw.get()),
        }
    }
}

fn echoed(id: &RequestId) -> Value {
    serde_json::from_str(id.as_json()).unwrap()
}

/// A command as the vectors write it.
fn described(command: &Command) -> Value {
    let selected = |name: &str, selector: &Selector| match selector {
        Selector::Mine => json!({"command": name, "task_id": "*"}),
        Selector::Topic(Topic::Task(id)) => json!({"command": name, "task_id": id.as_str()}),
        Selector::Topic(Topic::Root(id)) => json!({"command": name, "root_id": id.as_str()}),
        Selector::Topic(Topic::Tag(tag)) => json!({"command": name, "tag": tag.to_string()}),
        Selector::Topic(other) => json!({"command": name, "not for clients": format!("{other:?}")}),
    };
    let mut described = match &command.kind {
        CommandKind::Subscribe(selector) => selected("subscribe", selector),
        CommandKind::Unsubscribe(selector) => selected("unsubscribe", selector),
        CommandKind::GetTaskStatus(id) => json!({"command": "get_task_status", "task_id": id.as_str()}),
        CommandKind::GetActiveTasks => json!({"command": "get_active_tasks"}),
        CommandKind::CancelTask(id) => json!({"command": "cancel_task", "task_id": id.as_str()}),
        CommandKind::Authenticate { token } => json!({"command": "refresh_token", "token": token}),
        CommandKind::Ping { client_timestamp: None } => json!({"command": "ping"}),
        CommandKind::Ping { client_timestamp: Some(moment) } => json!({"command": "ping", "timestamp": echoed(moment)}),
        CommandKind::Ignored => json!({"command": "ignored"}),
    };
    if let Some(id) = &command.id {
        described["id"] = echoed(id);
    }
    described
}

#[test]
fn every_valid_client_message_is_the_command_that_its_vector_says() {
    let schema = schema("client-message");
    for vector in vectors::<ClientVector>("client/valid") {
        let name = &vector.name;
        let command = vector.command().map_err(|error| format!("{name}: {}", error.message)).unwrap();
        assert_eq!(Some(described(&command)), vector.expected, "{name}");
        assert!(!format!("{command:?}").contains("a.b.c"), "{name}: a token shows in Debug");
        if vector.format == "json" && vector.native != Some(false) {
            let input = serde_json::from_str(vector.input.as_ref().unwrap().get()).unwrap();
            assert!(
                schema.is_valid(&input) != (vector.expected.as_ref().unwrap()["command"] == "ignored"),
                "{name}: input against the schema"
            );
        }
    }
}

#[test]
fn every_invalid_client_message_is_answered_as_its_vector_says() {
    let schema = schema("client-message");
    for vector in vectors::<ClientVector>("client/invalid") {
        let name = &vector.name;
        let error = vector.command().map(|_| name).unwrap_err();
        assert_eq!(Some(error.code.as_str()), vector.error_code.as_deref(), "{name}");
        let wanted = vector.message_contains.as_ref().unwrap();
        assert!(error.message.contains(wanted), "{name}: {:?} lacks {wanted:?}", error.message);
        assert!(error.message.len() < 250, "{name}: {}", error.message);
        assert_eq!(error.id.as_ref().map(echoed), vector.id.clone().filter(|id| !id.is_null()), "{name}");
        if let Some(input) = vector.input.as_ref().filter(|_| vector.format == "json") {
            let input = serde_json::from_str(input.get()).unwrap();
            assert!(!schema.is_valid(&input), "{name}: the schema allows it");
        }
    }
}

const CREATED_MS: u64 = 1_700_000_000_000;

fn id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

fn request(json: &str) -> Option<RequestId> {
    let id = RequestId::from_json(json);
    assert!(id.is_some(), "{json} is no id");
    id
}

fn cursor(major: u64) -> Cursor {
    Cursor { position: Position { major, minor: 0 }, proof: 0x1234_abcd }
}

fn task(task_id: &str, status: Status) -> Task {
    Task {
        task_id: id(task_id),
        user_id: None,
        name: None,
        title: None,
        status,
        progress: None,
        current: None,
        total: None,
        unit: None,
        step: None,
        message: None,
        attempt: 1,
        parent_id: None,
        root_id: None,
        weight: None,
        tags: None,
        result: None,
        error: None,
        metadata: None,
        worker: None,
        heartbeat_timeout_ms: None,
        created_at_ms: CREATED_MS,
        started_at_ms: None,
        updated_at_ms: CREATED_MS,
        completed_at_ms: None,
    }
}

/// A task with every field that a live one has.
fn full_task() -> Task {
    Task {
        user_id: Some(UserId::parse("u1").unwrap()),
        name: Some("export".into()),
        title: Some("Export of orders".into()),
        progress: Some(37.5),
        current: Some(3.0),
        total: Some(8.0),
        unit: Some("files".into()),
        step: Some("copy".into()),
        message: Some("Copying file 3".into()),
        attempt: 2,
        parent_id: Some(id("parent")),
        root_id: Some(id("root")),
        weight: Some(2.5),
        tags: Some(Arc::new([Arc::from("nightly"), Arc::from("shop-7")])),
        metadata: JsonText::parse(r#"{"category":"data_export","url":"/orders"}"#),
        worker: Some("w-3".into()),
        heartbeat_timeout_ms: Some(30_000),
        started_at_ms: Some(CREATED_MS + 1_000),
        updated_at_ms: CREATED_MS + 31_000,
        ..task("task-1", Status::Running)
    }
}

fn ended(task: Task, status: Status) -> Task {
    Task { status, completed_at_ms: Some(task.updated_at_ms), ..task }
}

fn task_error(message: Option<&str>) -> Arc<TaskError> {
    let code = message.map(|_| Arc::from("E42"));
    let kind = Some("OSError".into());
    Arc::new(TaskError { code, message: message.map(Arc::from), kind, retryable: Some(true) })
}

fn frame(task: Task) -> Arc<TaskFrame> {
    Arc::new(TaskFrame::new(task, cursor(0x2a), true, CREATED_MS + 31_002))
}

fn frames() -> Vec<(&'static str, Task)> {
    let done = Task { progress: Some(100.0), result: JsonText::parse(r#"{"rows":12}"#), ..full_task() };
    let text_result = Task { result: JsonText::parse("\"a file\""), ..task("t1", Status::Running) };
    vec![
        ("frame-bare", task("t1", Status::Queued)),
        ("frame-full", full_task()),
        ("frame-started", task("t1", Status::Running)),
        ("frame-waiting", Task { progress: Some(99.99), ..task("t1", Status::Waiting) }),
        ("frame-retrying", Task { attempt: 3, ..task("t1", Status::Retrying) }),
        ("frame-unknown-total", Task { current: Some(1_234.0), ..task("t1", Status::Running) }),
        ("frame-succeeded", ended(done, Status::Succeeded)),
        ("frame-succeeded-with-text", ended(text_result, Status::Succeeded)),
        ("frame-failed", ended(Task { error: Some(task_error(Some("disk full"))), ..full_task() }, Status::Failed)),
        (
            "frame-timed-out",
            ended(Task { error: Some(task_error(None)), ..task("t1", Status::Running) }, Status::TimedOut),
        ),
        ("frame-cancelled", ended(task("t1", Status::Running), Status::Cancelled)),
        ("frame-lost", ended(task("t1", Status::Running), Status::Lost)),
    ]
}

fn established() -> ConnectionEstablished {
    ConnectionEstablished {
        connection_id: "c-1".to_owned(),
        user_id: Some(UserId::parse("u1").unwrap()),
        cursor: Some(cursor(0x2a)),
        resumed: true,
        resume_failure: None,
        heartbeat_interval_ms: 25_000,
        token_expires_at_ms: Some(CREATED_MS + 3_600_000),
        limits: ClientLimits { message_max_bytes: 65_536, subscriptions_max: 100 },
        reconnect_min_ms: 1_000,
        reconnect_max_ms: 30_000,
    }
}

/// The messages that tell of tasks.
fn task_messages() -> Vec<(&'static str, ServerMessage)> {
    let older = Task { created_at_ms: CREATED_MS - 1, ..task("t0", Status::Queued) };
    let tasks = vec![frame(older), frame(full_task()), frame(ended(task("t2", Status::Running), Status::Cancelled))];
    let page = |reset| {
        let tasks = tasks.clone();
        ServerMessage::ActiveTasks { tasks, cursor: Some(cursor(0x2a)), more: true, reset, id: None }
    };
    let answer = ServerMessage::ActiveTasks { tasks: vec![], cursor: None, more: false, reset: None, id: request("7") };
    let status = |task| ServerMessage::TaskStatus { task_id: id("task-1"), task, id: request("\"r1\"") };
    let done = Task { result: JsonText::parse("12"), progress: Some(100.0), ..full_task() };
    vec![
        ("active-tasks", page(None)),
        ("active-tasks-after-a-reset", page(Some(ResumeFailure::AnotherLog))),
        ("active-tasks-answer", answer),
        ("task-removed", ServerMessage::TaskRemoved { task_id: id("t1") }),
        ("task-status", status(Some(frame(full_task())))),
        ("task-status-ended", status(Some(frame(ended(done, Status::Succeeded))))),
        ("task-status-unknown", status(None)),
        ("task-cancelled", ServerMessage::TaskCancelled { task_id: id("t1"), success: true, id: request("1.5") }),
    ]
}

fn messages() -> Vec<(&'static str, ServerMessage)> {
    let refused = ConnectionEstablished {
        user_id: None,
        cursor: None,
        resumed: false,
        resume_failure: Some(ResumeFailure::AnotherLog),
        token_expires_at_ms: None,
        ..established()
    };
    let subscribed = |topic| ServerMessage::Subscribed { topic, id: request("\"r1\"") };
    let timed = ServerMessage::Pong { client_timestamp: request("1700000000123"), id: request("\"p\"") };
    let error = ServerMessage::Error {
        error_code: ErrorCode::InvalidField,
        message: "task_id is required".to_owned(),
        id: request("\"r \\\" 1\""),
    };
    let authentication_error = ServerMessage::AuthenticationError {
        error_code: AuthenticationErrorCode::ExpiredToken,
        message: "The token has expired".to_owned(),
    };
    let refreshed = |token_expires_at_ms| ServerMessage::TokenRefreshed { token_expires_at_ms, id: request("\"r1\"") };
    let mut messages = task_messages();
    messages.extend([
        ("connection-established", ServerMessage::ConnectionEstablished(Box::new(established()))),
        ("connection-established-not-resumed", ServerMessage::ConnectionEstablished(Box::new(refused))),
        ("subscribed-task", subscribed(Topic::Task(id("t1")))),
        ("subscribed-root", subscribed(Topic::Root(id("g1")))),
        ("subscribed-tag", subscribed(Topic::Tag("nightly".into()))),
        ("subscribed-owner", subscribed(Topic::Owner(UserId::parse("u1").unwrap()))),
        ("subscribed-all", subscribed(Topic::All)),
        ("unsubscribed", ServerMessage::Unsubscribed { topic: Topic::Task(id("t1")), id: None }),
        ("pong", ServerMessage::Pong { client_timestamp: None, id: None }),
        ("source-degraded", ServerMessage::SourceDegraded { fresh_until_ms: Some(1_700_000_000_000) }),
        ("source-degraded-from-the-start", ServerMessage::SourceDegraded { fresh_until_ms: None }),
        ("source-recovered", ServerMessage::SourceRecovered { degraded_ms: 61_250 }),
        ("server-draining", ServerMessage::ServerDraining { reconnect_after_ms: 7_300 }),
        ("pong-with-the-clients-time", timed),
        ("error", error),
        ("authentication-error", authentication_error),
        (
            "token-expiring",
            ServerMessage::TokenExpiring {
                token_expires_at_ms: CREATED_MS + 120_000,
                refresh_until_ms: CREATED_MS + 130_000,
            },
        ),
        ("token-refreshed", refreshed(Some(CREATED_MS + 3_600_000))),
        ("token-refreshed-for-good", refreshed(None)),
    ]);
    messages
}

/// What the service writes, as the vectors have it.
fn encodings(bytes: impl Fn(Encoding) -> bytes::Bytes) -> Value {
    let json = |encoding| serde_json::from_slice::<Value>(&payload(&bytes(encoding))).unwrap();
    let protobuf = bytes(Encoding::Protobuf);
    assert_eq!(protobuf[0], 0x82, "one final binary frame");
    assert_eq!((bytes(Encoding::Json)[0], bytes(Encoding::Celery)[0]), (0x81, 0x81), "one final text frame");
    json!({
        "json": json(Encoding::Json),
        "celery": json(Encoding::Celery),
        "protobuf": to_base64(&payload(&protobuf)),
        "event_stream": event(&bytes(Encoding::EventStream)),
    })
}

/// The text of an event, out of its chunk.
fn event(chunk: &[u8]) -> String {
    let chunk = std::str::from_utf8(chunk).unwrap();
    let (length, rest) = chunk.split_once("\r\n").unwrap();
    let (text, end) = rest.split_at(usize::from_str_radix(length, 16).unwrap());
    assert_eq!(end, "\r\n", "one whole chunk");
    text.to_owned()
}

/// Reads one event as browsers do: its id, if it sets one, and its data.
fn read_event(text: &str) -> (Option<String>, String) {
    let (mut id, mut data) = (None, Vec::new());
    let block = text.strip_suffix("\n\n").expect("an empty line ends an event");
    for line in block.split(['\r', '\n']) {
        match line.split_once(": ").unwrap() {
            ("id", value) => id = Some(value.to_owned()),
            ("data", value) => data.push(value),
            other => panic!("{other:?}"),
        }
    }
    (id, data.join("\n"))
}

/// What a client whose token ends can do is not the same over both.
fn without_advice(mut json: Value) -> Value {
    if json["type"] == "token_expiring" {
        json["message"].take();
    }
    json
}

#[test]
fn an_event_stream_says_in_one_event_what_a_websocket_says_in_one_frame() {
    let of_frames = frames().into_iter().map(|(name, task)| (name, encodings(|e| frame(task.clone()).bytes(e))));
    let of_messages =
        messages().into_iter().map(|(name, message)| (name, encodings(|e| message.encode(e, CREATED_MS))));
    for (name, written) in of_frames.chain(of_messages) {
        let (id, data) = read_event(written["event_stream"].as_str().unwrap());
        let data = serde_json::from_str::<Value>(&data).unwrap();
        assert_eq!(id.as_deref(), data["cursor"].as_str(), "{name}");
        assert_eq!(without_advice(data), without_advice(written["json"].clone()), "{name}");
    }
}

#[test]
fn nothing_that_a_worker_writes_ends_an_event_early() {
    let text = "a\nb\r\n\ndata: c\rid: 7\u{2028}\u{85}\0";
    let metadata = JsonText::parse("{\n\"a\":\r\n[1,\n\n2]}").unwrap();
    let task = Task { message: Some(text.into()), metadata: Some(metadata), ..full_task() };
    let (id, data) = read_event(&event(&frame(task).bytes(Encoding::EventStream)));
    let data = serde_json::from_str::<Value>(&data).unwrap();
    assert_eq!((&data["message"], id), (&json!(text), Some(cursor(0x2a).to_string())));
}

#[test]
fn every_server_message_is_written_as_its_vector_says() {
    const SENT_MS: u64 = CREATED_MS + 60_000;
    let schema = schema("server-message");
    let frames =
        frames().into_iter().map(|(name, task)| (name, encodings(|encoding| frame(task.clone()).bytes(encoding))));
    let messages =
        messages().into_iter().map(|(name, message)| (name, encodings(|encoding| message.encode(encoding, SENT_MS))));
    let mut names = BTreeSet::new();
    for (name, written) in frames.chain(messages) {
        let file = format!("vectors/server/{name}.json");
        if std::env::var_os("TASKCAST_WRITE_VECTORS").is_some() {
            let vector = json!({"name": name.replace('-', " "), "encodings": written});
            fs::create_dir_all(path("vectors/server")).unwrap();
            fs::write(path(&file), serde_json::to_string_pretty(&vector).unwrap() + "\n").unwrap();
        }
        assert_eq!(read_json(&file)["encodings"], written, "{name}");
        schema.validate(&written["json"]).map_err(|error| format!("{name}: {error}")).unwrap();
        names.insert(format!("{name}.json"));
    }
    let folder = fs::read_dir(path("vectors/server")).unwrap();
    let files: BTreeSet<String> = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files, names, "a vector for every sample, and no other");
}

#[test]
fn a_front_end_for_django_channels_finds_every_field_that_it_reads() {
    let listed = "task_id task_name category status progress current_step total_items processed_items created_at \
                  started_at estimated_completion";
    let status = format!("{listed} result_data error_message completed_at duration");
    let fields = [
        ("active-tasks", "/tasks/0", listed),
        ("task-status-ended", "/status", &status),
        ("frame-full", "", "task_id status progress current_step processed_items total_items"),
        ("frame-failed", "", "task_id status result_data error_message"),
        ("task-cancelled", "", "task_id success"),
        ("error", "", "message"),
        ("task-status-unknown", "", "task_id status"),
    ];
    for (name, pointer, fields) in fields {
        let vector = read_json(&format!("vectors/server/{name}.json"));
        let object = vector["encodings"]["celery"].pointer(pointer).unwrap().as_object().unwrap();
        for field in fields.split_whitespace() {
            assert!(object.contains_key(field), "{name} lacks {field}");
        }
    }
}

fn names(table: &Value, key: &str) -> Vec<String> {
    table.as_array().unwrap().iter().map(|row| row[key].as_str().unwrap().to_owned()).collect()
}

fn owned(names: impl IntoIterator<Item = &'static str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[test]
fn the_table_has_every_status_with_its_aliases() {
    let table = read_json("taskcast/v1/contract.json");
    assert_eq!(names(&table["statuses"], "name"), owned(Status::ALL.map(Status::as_str)));
    for row in table["statuses"].as_array().unwrap() {
        let status = Status::parse(row["name"].as_str().unwrap()).unwrap();
        assert_eq!(row["terminal"], status.is_terminal(), "{status:?}");
        assert_eq!(row["celery"], status.celery_name(), "{status:?}");
        let aliases = Status::ALIASES.into_iter().filter(|(_, meant)| *meant == status).map(|(alias, _)| alias);
        assert_eq!(row["aliases"], json!(aliases.collect::<Vec<_>>()), "{status:?}");
        for alias in row["aliases"].as_array().unwrap() {
            let event = json!({"task_id": "t1", "status": alias.as_str().unwrap().to_uppercase()});
            let event = Event::decode(ContentType::Json, event.to_string().as_bytes()).unwrap();
            assert_eq!((event.status, event.unknown_fields), (Some(status), 0), "{alias}");
        }
    }
    let celery = ["PENDING", "RECEIVED", "STARTED", "PROGRESS", "SUCCESS", "FAILURE", "RETRY", "REVOKED", "REJECTED"];
    assert!(celery.into_iter().all(|name| Status::parse(name).is_some()));
}

#[test]
fn the_table_has_every_field_alias_and_each_means_what_it_says() {
    let table = read_json("taskcast/v1/contract.json");
    let mut aliases: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (alias, field) in FIELD_ALIASES {
        aliases.entry(field).or_default().push(alias);
    }
    assert_eq!(table["field_aliases"], json!(aliases));
    let schema = read_json("taskcast/v1/event.schema.json");
    for (alias, field) in FIELD_ALIASES {
        let value = match field {
            "progress" | "current" | "total" => json!(7),
            "heartbeat_timeout_ms" => json!(1000),
            "metadata" => json!({"a": 1}),
            "status" => json!("running"),
            _ => json!("text"),
        };
        let (outer, inner) = field.split_once('.').unwrap_or((field, ""));
        assert!(schema["properties"][outer].is_object(), "{outer} is not in the schema");
        let own = if inner.is_empty() { value.clone() } else { json!({ inner: value.clone() }) };
        let mut by_alias = if field == "task_id" { json!({}) } else { json!({"task_id": "t1"}) };
        let mut by_name = by_alias.clone();
        by_alias[alias] = value;
        by_name[outer] = own;
        let decode = |event: &Value| Event::decode(ContentType::Json, event.to_string().as_bytes()).unwrap();
        assert_eq!(decode(&by_alias), decode(&by_name), "{alias}");
        assert_eq!(decode(&by_alias).unknown_fields, 0, "{alias}");
    }
}

#[test]
fn the_table_has_every_code_with_its_number() {
    let table = read_json("taskcast/v1/contract.json");
    let authentication = AuthenticationErrorCode::ALL.map(AuthenticationErrorCode::as_str);
    assert_eq!(names(&table["error_codes"], "code"), owned(ErrorCode::ALL.map(ErrorCode::as_str)));
    assert_eq!(names(&table["authentication_error_codes"], "code"), owned(authentication));
    assert_eq!(names(&table["resume_failures"], "code"), owned(ResumeFailure::ALL.map(ResumeFailure::as_str)));
    assert_eq!(names(&table["malformed_reasons"], "name"), owned(MalformedReason::ALL.map(MalformedReason::as_str)));
    let row = |row: &Value| {
        let name = row["name"].as_str().unwrap().replace('_', "").to_lowercase();
        (row["code"].as_u64().unwrap(), name)
    };
    let closes: Vec<(u64, String)> = table["close_codes"].as_array().unwrap().iter().map(row).collect();
    let ours = CloseCode::ALL.map(|code| (u64::from(code.number()), format!("{code:?}").to_lowercase()));
    assert_eq!(closes, ours);
}

#[test]
fn the_table_has_the_limits_and_the_media_types_of_the_code() {
    use taskcast::proto as limits;
    let table = read_json("taskcast/v1/contract.json");
    let expected = json!({
        "event_max_bytes": limits::EVENT_MAX_BYTES,
        "result_max_bytes": limits::RESULT_MAX_BYTES,
        "metadata_max_bytes": limits::METADATA_MAX_BYTES,
        "message_max_bytes": limits::MESSAGE_MAX_BYTES,
        "text_max_bytes": limits::TEXT_MAX_BYTES,
        "id_max_bytes": limits::ID_MAX_BYTES,
        "tags_max": limits::TAGS_MAX,
        "tag_max_bytes": limits::TAG_MAX_BYTES,
        "json_depth_max": limits::JSON_DEPTH_MAX,
        "heartbeat_timeout_max_ms": limits::HEARTBEAT_TIMEOUT_MAX_MS,
        "request_id_max_bytes": limits::REQUEST_ID_MAX_BYTES,
    });
    assert_eq!(table["limits"], expected);
    let forms =
        [("json", ContentType::Json), ("cloudevents", ContentType::CloudEvents), ("protobuf", ContentType::Protobuf)];
    for (name, content_type) in forms {
        for media_type in table["content_types"][name].as_array().unwrap() {
            assert_eq!(ContentType::parse(media_type.as_str().unwrap()), Some(content_type), "{media_type}");
        }
    }
    assert_eq!(table["subprotocols"], json!([Encoding::Json.protocol(), Encoding::Protobuf.protocol()]));
}

#[test]
fn a_reserved_task_id_is_refused_by_the_schema_and_by_the_code() {
    let table = read_json("taskcast/v1/contract.json");
    assert_eq!(table["reserved_task_id_prefix"], taskcast::proto::CANARY_ID_PREFIX);
    let schema = schema("event");
    for (task_id, is_free) in [("taskcast:canary:", false), ("taskcast:canary:1", false), ("taskcast:canary", true)] {
        let event = json!({ "task_id": task_id });
        assert_eq!(schema.is_valid(&event), is_free, "{task_id}");
        let event = Event::decode(ContentType::Json, event.to_string().as_bytes()).unwrap();
        assert_eq!(event.may_be_published().is_ok(), is_free, "{task_id}");
    }
}

#[test]
fn the_table_has_every_message_type() {
    let types = &read_json("taskcast/v1/contract.json")["message_types"];
    let mut written: BTreeSet<String> = messages().iter().map(|(_, message)| message.type_name().to_owned()).collect();
    written.extend(frames().into_iter().map(|(_, task)| frame(task).type_name().to_owned()));
    let listed: BTreeSet<String> = serde_json::from_value(types["server"].clone()).unwrap();
    assert_eq!(written, listed);
    let read_as = |name: &str| {
        let text = json!({"type": name, "task_id": "t1", "token": "x"}).to_string();
        described(&Command::from_json(&text).unwrap())["command"].clone()
    };
    let client: BTreeMap<String, Vec<String>> = serde_json::from_value(types["client"].clone()).unwrap();
    for (own, aliases) in &client {
        for name in aliases.iter().chain([own]) {
            assert_eq!(read_as(name), json!(own), "{name}");
        }
    }
    for ignored in types["ignored"].as_array().unwrap() {
        assert_eq!(read_as(ignored.as_str().unwrap()), "ignored");
    }
}

/// The names of an enum's values in a `.proto` file with their numbers, without prefix and without the unspecified one.
fn proto_enum(file: &str, name: &str, prefix: &str) -> Vec<(String, usize)> {
    let text = read(&format!("taskcast/v1/{file}.proto"));
    let body = text.split_once(&format!("enum {name} {{")).unwrap().1.split_once('}').unwrap().0;
    let value = |line: &str| {
        let (name, number) = line.trim().strip_suffix(';')?.split_once(" = ")?;
        Some((name.strip_prefix(prefix)?.to_owned(), number.parse().ok()?))
    };
    let values: Vec<(String, usize)> = body.lines().filter_map(value).collect();
    assert_eq!(values[0], ("UNSPECIFIED".to_owned(), 0), "{name}");
    values[1..].to_vec()
}

#[test]
fn the_enums_of_the_protobuf_form_have_the_same_names_in_the_same_order() {
    let numbered = |names: Vec<String>| -> Vec<(String, usize)> {
        names.into_iter().enumerate().map(|(index, name)| (name.to_uppercase(), index + 1)).collect()
    };
    let statuses = numbered(owned(Status::ALL.map(Status::as_str)));
    let errors = numbered(owned(ErrorCode::ALL.map(ErrorCode::as_str)));
    let authentication = numbered(owned(AuthenticationErrorCode::ALL.map(AuthenticationErrorCode::as_str)));
    let failures = numbered(owned(ResumeFailure::ALL.map(ResumeFailure::as_str)));
    assert_eq!(proto_enum("event", "Status", "STATUS_"), statuses);
    assert_eq!(proto_enum("messages", "ErrorCode", "ERROR_CODE_"), errors);
    assert_eq!(proto_enum("messages", "AuthenticationErrorCode", "AUTHENTICATION_ERROR_CODE_"), authentication);
    assert_eq!(proto_enum("messages", "ResumeFailure", "RESUME_FAILURE_"), failures);
}

/// The field names of a message in a `.proto` file.
fn proto_fields(file: &str, message: &str) -> BTreeSet<String> {
    let text = read(&format!("taskcast/v1/{file}.proto"));
    let body = text.split_once(&format!("message {message} {{")).unwrap().1.split_once("\n}").unwrap().0;
    let field = |line: &str| {
        let declaration = line.trim().strip_suffix(';')?.split_once(" = ")?.0;
        declaration.split_whitespace().last().map(str::to_owned)
    };
    body.lines().filter_map(field).collect()
}

#[test]
fn the_protobuf_form_and_the_schemas_have_the_same_fields() {
    // Moments are numbers there and JSON is text, and the names say so.
    let as_proto = |properties: &Value| -> BTreeSet<String> {
        let name = |name: &String| match name.as_str() {
            "result" | "metadata" => format!("{name}_json"),
            "timestamp" | "created_at" | "started_at" | "updated_at" | "completed_at" => format!("{name}_ms"),
            _ => name.clone(),
        };
        properties.as_object().unwrap().keys().map(name).collect()
    };
    let event = read_json("taskcast/v1/event.schema.json");
    assert_eq!(as_proto(&event["properties"]), proto_fields("event", "Event"));
    assert_eq!(as_proto(&event["$defs"]["error"]["properties"]), proto_fields("event", "TaskError"));
    let server = read_json("taskcast/v1/server-message.schema.json");
    assert_eq!(as_proto(&server["$defs"]["task"]["properties"]), proto_fields("task", "Task"));
    let result = JsonText::parse("1");
    let everything = ended(Task { result, error: Some(task_error(Some("m"))), ..full_task() }, Status::Failed);
    let written: Value = serde_json::from_slice(&everything.to_json()).unwrap();
    assert_eq!(as_proto(&written), proto_fields("task", "Task"), "a task with everything has every field");
}

fn any_text(max_bytes: usize) -> impl Strategy<Value = Option<Arc<str>>> {
    let text = proptest::collection::vec(any::<char>(), 0..max_bytes / 4);
    proptest::option::of(text.prop_map(|chars| Arc::from(String::from_iter(chars))))
}

fn any_id() -> impl Strategy<Value = String> {
    "[^\\p{Cc}]{1,60}"
}

/// Keys that mean something somewhere, so that random objects reach further than the first check.
fn known_keys() -> Vec<String> {
    let schema = read_json("taskcast/v1/event.schema.json");
    let own: Vec<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    let aliases = FIELD_ALIASES.into_iter().map(|(alias, _)| alias.to_owned());
    let commands = ["type", "id", "tag", "token", "data", "payload", "channel", "code", "retryable"];
    own.into_iter().chain(aliases).chain(commands.map(str::to_owned)).collect()
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    let keys = known_keys();
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let key = prop_oneof![proptest::sample::select(keys.clone()), "\\PC{0,6}"];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..6).prop_map(|map| json!(map)),
        ]
    })
}

prop_compose! {
    fn any_measures()(
        progress in proptest::option::of(0.0..=100.0_f64),
        current in proptest::option::of(0.0..1e12_f64),
        total in proptest::option::of(0.001..1e12_f64),
        weight in proptest::option::of(0.0..1e3_f64),
        attempt in proptest::option::of(1..=u32::MAX),
        seq in any::<Option<u64>>(),
        heartbeat_timeout_ms in proptest::option::of(1..=taskcast::proto::HEARTBEAT_TIMEOUT_MAX_MS),
        timestamp_ms in proptest::option::of(0..=253_402_300_799_999_u64),
        observed in any::<Option<(u64, u64)>>(),
        trace in proptest::option::of((1..=u128::MAX, 1..=u64::MAX, any::<u8>(), proptest::option::of("[a-z]{1,9}=[!-+]{1,30}"))),
    ) -> Event {
        let derived = current.zip(total).map(|(current, total)| (current / total * 100.0).min(100.0));
        Event {
            progress: derived.or(progress),
            current,
            total,
            weight,
            attempt,
            seq,
            heartbeat_timeout_ms,
            timestamp_ms,
            observed: observed.map(|(major, minor)| Position { major, minor }),
            trace: trace.map(|(trace_id, span_id, flags, state)| {
                let (trace_id, span_id) = (trace_id.to_be_bytes(), span_id.to_be_bytes());
                Box::new(TraceContext { trace_id, span_id, flags, state: state.map(Into::into) })
            }),
            ..Event::new(id("t"))
        }
    }
}

prop_compose! {
    fn any_event()(
        measures in any_measures(),
        (task_id, parent_id, user_id) in (any_id(), proptest::option::of(any_id()), proptest::option::of(any_id())),
        event_id in any_text(200).prop_map(|text| text.filter(|text| !text.is_empty())),
        (title, step, unit, worker) in (any_text(255), any_text(255), any_text(255), any_text(255)),
        message in any_text(4096),
        status in proptest::option::of(proptest::sample::select(&Status::ALL[..])),
        tags in proptest::collection::btree_set("[^\\p{Cc}]{1,30}", 0..16),
        (error_message, kind, retryable) in (any_text(4096), any_text(255), any::<Option<bool>>()),
        result in proptest::option::of(any_json().prop_filter("null is absent", |json| !json.is_null())),
        metadata in proptest::option::of(proptest::collection::btree_map("[a-z]{0,5}", any_json(), 0..3)),
    ) -> Event {
        let error = TaskError { code: None, message: error_message, kind, retryable };
        Event {
            task_id: id(&task_id),
            parent_id: parent_id.as_deref().map(id),
            user_id: user_id.map(|text| UserId::parse(&text).unwrap()),
            event_id,
            title,
            step,
            unit,
            worker,
            message,
            status,
            tags: (!tags.is_empty()).then(|| tags.iter().map(|tag| Arc::from(tag.as_str())).collect()),
            error: (error != TaskError::default()).then(|| Arc::new(error)),
            result: result.map(|json| JsonText::parse(&json.to_string()).unwrap()),
            metadata: metadata.map(|json| JsonText::parse(&json!(json).to_string()).unwrap()),
            ..measures
        }
    }
}

proptest! {
    #[test]
    fn an_event_comes_back_from_its_json_and_its_protobuf(event in any_event()) {
        prop_assert_eq!(Event::decode(ContentType::Json, &event.to_json()), Ok(event.clone()));
        prop_assert_eq!(Event::decode(ContentType::Protobuf, &event.to_protobuf()), Ok(event));
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for content_type in [ContentType::Json, ContentType::CloudEvents, ContentType::Protobuf] {
            let _ = Event::decode(content_type, &bytes);
        }
        let _ = Command::from_protobuf(&bytes);
        let _ = Command::from_json(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_json_never_panics_and_what_decodes_can_be_written(json in any_json(), kind in 0..8_usize) {
        let mut json = json;
        if let Some(object) = json.as_object_mut() {
            object.insert("task_id".to_owned(), json!("t1"));
            let kinds = ["subscribe", "unsubscribe", "get_status", "list_tasks", "cancel_task", "auth", "ping"];
            object.insert("type".to_owned(), json!(kinds.get(kind)));
        }
        let text = json.to_string();
        if let Ok(event) = Event::decode(ContentType::Json, text.as_bytes()) {
            let known = Event { unknown_fields: 0, ..event };
            prop_assert_eq!(Event::decode(ContentType::Json, &known.to_json()), Ok(known));
        }
        let envelope = json!({"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": json});
        let _ = Event::decode(ContentType::CloudEvents, envelope.to_string().as_bytes());
        let _ = Command::from_json(&text);
        let _ = Revocation::from_json(text.as_bytes());
        let _ = Revocation::from_record(json!({"revoke": json}).to_string().as_bytes());
    }
}
