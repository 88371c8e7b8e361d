//! What the running service answers over HTTP, held against `proto/openapi.json`: status, headers, media type and body of
//! every operation, and what the parameters may be.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{Client, PATIENCE, Service, http_whole, token, token_of, token_with, until},
    support::brokers::RedisServer,
};

const EVENTS: &str = "/api/v1/events";
const TASKS: &str = "/api/v1/tasks";
const TASK: &str = "/api/v1/tasks/{task_id}";
const FRAMES: &str = "/api/v1/tasks/{task_id}/frames";
const REVOCATIONS: &str = "/api/v1/revocations";
const OPERATIONS: [&str; 3] = ["/livez", "/readyz", "/metrics"];
const OPERATIONS_TOKEN: &str = "a-token-of-operators";

/// What is documented and not provoked here. An operation that is new, or a status, must be asked for or stand here.
const NOT_PROVOKED: [(&str, &str); 1] = [("get /metrics", "500")];
/// Tested where it is a matter of other things than words: hosts, a replica that starts, a provider that is away, a drain.
const PROBLEMS_NOT_PROVOKED: [&str; 5] =
    ["foreign-host", "internal", "authentication-unavailable", "draining", "not-ready"];

/// The document, and what was seen of it.
struct OpenApi {
    document: Value,
    seen: BTreeSet<(String, String)>,
    problems: BTreeSet<String>,
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn of(status: u16, head: &str, body: String) -> Self {
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Self { status, headers: head.lines().skip(1).filter_map(header).collect(), body }
    }
}

impl OpenApi {
    fn read() -> Self {
        let text = include_str!("../../proto/openapi.json");
        Self { document: serde_json::from_str(text).unwrap(), seen: BTreeSet::new(), problems: BTreeSet::new() }
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        value["$ref"].as_str().map_or(value, |reference| self.document.pointer(&reference[1..]).unwrap())
    }

    fn is_valid(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let mut schema = schema.clone();
        schema["components"] = self.document["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        validator.validate(value).map_err(|error| format!("{error} at {} in {value}", error.instance_path))
    }

    /// Demands that this answer is documented, in all its parts.
    fn check(&mut self, operation: &str, path: &str, method: &str, answer: &Answer) {
        let place = format!("{method} {operation} {}: {path}", answer.status);
        let documented = &self.document["paths"][operation][&method.to_lowercase()]["responses"];
        // An unknown method is not an operation, but is refused by the address of one.
        let any = self.document["paths"][operation].as_object().unwrap().values().next().unwrap();
        let responses = if documented.is_object() { documented } else { &any["responses"] };
        let response = self.resolve(&responses[answer.status.to_string()]);
        assert!(response.is_object(), "{place} is not documented: {}", answer.body);
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let header = self.resolve(header);
            let value = answer.headers.get(&name.to_ascii_lowercase());
            assert!(value.is_some() || header["required"] != true, "{place} lacks {name}");
            if let Some(value) = value {
                let as_json = value.parse::<u64>().map_or_else(|_| json!(value), |number| json!(number));
                self.is_valid(&header["schema"], &as_json).unwrap_or_else(|error| panic!("{place}: {name}: {error}"));
            }
        }
        if let Some(content) = response["content"].as_object().filter(|_| method != "HEAD") {
            let media_type = answer.headers.get("content-type").unwrap_or_else(|| panic!("{place} has no media type"));
            let body = content.get(media_type).unwrap_or_else(|| panic!("{place} is {media_type}"));
            let value = if media_type.ends_with("json") {
                serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{place}: {error}"))
            } else {
                json!(answer.body)
            };
            self.is_valid(&body["schema"], &value).unwrap_or_else(|error| panic!("{place}: {error}"));
            if let Some(problem) = value["type"].as_str().filter(|_| media_type.contains("problem")) {
                let name = problem.rsplit(':').next().unwrap().to_owned();
                assert!(response["x-problems"].as_array().unwrap().contains(&json!(name)), "{place}: {name}");
                let rows = self.document["x-problem-types"].as_array().unwrap();
                let row = rows.iter().find(|row| row["name"] == name.as_str()).unwrap();
                let is_of_the_log = name == "log-unavailable";
                assert!(is_of_the_log || row["title"] == value["title"], "{place}: {}", value["title"]);
                self.problems.insert(name);
            }
        }
        let method =
            if documented.is_object() { method.to_lowercase() } else { first_method(&self.document, operation) };
        self.seen.insert((format!("{method} {operation}"), answer.status.to_string()));
    }

    async fn ask(&mut self, service: &Service, operation: &str, request: &Request<'_>) -> u16 {
        let port = if OPERATIONS.contains(&operation) { service.operations_port } else { service.port };
        let headers: Vec<(&str, &str)> = request.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (status, head, body) = http_whole(port, request.method, request.path, &headers, request.body).await;
        self.check(operation, request.path, request.method, &Answer::of(status, &head, body));
        status
    }

    /// What no answer was seen of: (operation, status).
    fn unseen(&self) -> BTreeSet<(String, String)> {
        let mut unseen = BTreeSet::new();
        for (path, methods) in self.document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                for status in operation["responses"].as_object().unwrap().keys() {
                    let place = (format!("{method} {path}"), status.clone());
                    if !self.seen.contains(&place) {
                        unseen.insert(place);
                    }
                }
            }
        }
        unseen
    }
}

fn first_method(document: &Value, path: &str) -> String {
    document["paths"][path].as_object().unwrap().keys().next().unwrap().clone()
}

struct Request<'a> {
    method: &'a str,
    path: &'a str,
    headers: Vec<(&'a str, String)>,
    body: &'a str,
}

impl<'a> Request<'a> {
    fn get(path: &'a str) -> Self {
        Self { method: "GET", path, headers: Vec::new(), body: "" }
    }

    fn post(path: &'a str, body: &'a str) -> Self {
        Self { method: "POST", body, ..Self::get(path) }
    }

    fn by(self, token: &str) -> Self {
        self.with("Authorization", &format!("Bearer {token}"))
    }

    fn with(mut self, name: &'a str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// As a browser asks for a WebSocket, with a token that ends it at once.
    fn handshake(path: &'a str) -> Self {
        let upgrade = Self::get(path).with("Connection", "Upgrade").with("Upgrade", "websocket").by("none");
        upgrade.with("Sec-WebSocket-Version", "13").with("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
    }
}

const SOCKETS: [(&str, &str); 3] = [
    ("/ws/tasks/", "/ws/tasks/"),
    ("/ws/tasks/{task_id}/", "/ws/tasks/t1/"),
    ("/ws/groups/{root_id}/", "/ws/groups/t1/"),
];

const STREAMS: [(&str, &str); 3] = [
    ("/events/tasks/", "/events/tasks/"),
    ("/events/tasks/{task_id}/", "/events/tasks/t3/"),
    ("/events/groups/{root_id}/", "/events/groups/t3/"),
];

/// Every operation of the API, as anybody would ask for it.
fn api<'a>() -> [(&'static str, Request<'a>); 5] {
    [
        (EVENTS, Request::post(EVENTS, r#"{"task_id":"t1"}"#)),
        (TASKS, Request::get(TASKS)),
        (TASK, Request::get("/api/v1/tasks/t1")),
        (FRAMES, Request::get("/api/v1/tasks/t1/frames")),
        (REVOCATIONS, Request::post(REVOCATIONS, r#"{"jti":"x"}"#)),
    ]
}

async fn workers_are_answered(openapi: &mut OpenApi, service: &Service) {
    let worker = token_with("worker", &["own"], true);
    let limited = token_of(json!({"sub": "worker", "taskcast": {"publish": {"task_prefixes": ["export-"]}}}));
    let long = format!(r#"{{"task_id":"t1","message":"{}"}}"#, "x".repeat(1_100_000));
    let cloud = r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"task_id":"t2","user_id":"u1"}}"#;
    for (status, token, media_type, body) in [
        (202, &worker, "application/json", r#"{"task_id":"t1","user_id":"u1","status":"running","progress":4}"#),
        (202, &worker, "application/json", r#"[{"task_id":"t1"},{"task_id":"t3","user_id":"u1","status":"failed"}]"#),
        (202, &worker, "application/json", "[]"),
        (202, &worker, "application/x-ndjson", "{\"task_id\":\"t1\"}\n{\"task_id\":\"t1\"}\n"),
        (202, &worker, "application/cloudevents+json", cloud),
        (202, &worker, "application/protobuf", "\n\u{2}t1"),
        (400, &worker, "application/json", "[{"),
        (400, &worker, "application/json", r#"[{"task_id":"t1"},{"progress":7},{"task_id":"t1","progress":"much"}]"#),
        (403, &token("u1"), "application/json", r#"{"task_id":"t1"}"#),
        (403, &limited, "application/json", r#"{"task_id":"t1"}"#),
        (413, &worker, "application/json", &long),
        (415, &worker, "text/plain", r#"{"task_id":"t1"}"#),
    ] {
        let request = Request::post(EVENTS, body).by(token).with("Content-Type", media_type);
        assert_eq!(openapi.ask(service, EVENTS, &request).await, status, "{media_type} {body:.100}");
    }
    let revoker = token_of(json!({"sub": "admin", "taskcast": {"revoke": true}}));
    let long = format!(r#"{{"jti":"{}"}}"#, "x".repeat(5_000));
    for (status, token, body) in [
        (202, &revoker, r#"{"jti":"some"}"#),
        (202, &revoker, r#"{"user_id":7}"#),
        (400, &revoker, r#"{"jti":7}"#),
        (400, &revoker, "nothing"),
        (403, &worker, r#"{"jti":"some"}"#),
        (413, &revoker, &long),
    ] {
        let request = Request::post(REVOCATIONS, body).by(token);
        assert_eq!(openapi.ask(service, REVOCATIONS, &request).await, status, "{body:.100}");
    }
}

async fn readers_are_answered(openapi: &mut OpenApi, service: &Service) {
    let user = token("u1");
    until("the task is there", async || service.get("/api/v1/tasks/t3", "u1").await.0 == 200).await;
    for (status, operation, path) in [
        (200, TASKS, TASKS),
        (200, TASKS, "/api/v1/tasks?status=ended&limit=1&page=2"),
        (200, TASKS, "/api/v1/tasks?root=t1&tag=x"),
        (400, TASKS, "/api/v1/tasks?status=well"),
        (400, TASKS, "/api/v1/tasks?root=%00"),
        (400, TASKS, "/api/v1/tasks?before=7"),
        (200, TASKS, "/api/v1/tasks?before=1.0.0.00000000"),
        (200, TASK, "/api/v1/tasks/t3?wait=1500ms"),
        (400, TASK, "/api/v1/tasks/t3?wait=long"),
        (400, TASK, "/api/v1/tasks/t3?after=7"),
        (200, TASK, "/api/v1/tasks/t1"),
        (200, TASK, "/api/v1/tasks/t3"),
        (404, TASK, "/api/v1/tasks/unknown"),
        (400, TASK, "/api/v1/tasks/%FF"),
        (200, FRAMES, "/api/v1/tasks/t3/frames"),
        (404, FRAMES, "/api/v1/tasks/unknown/frames"),
        (400, FRAMES, "/api/v1/tasks/%FF/frames"),
    ] {
        assert_eq!(openapi.ask(service, operation, &Request::get(path).by(&user)).await, status, "{path}");
        let head = Request { method: "HEAD", ..Request::get(path).by(&user) };
        assert_eq!(openapi.ask(service, operation, &head).await, status, "{path}");
    }
}

/// Event streams, and what has nothing more to tell. The task has ended.
async fn listeners_are_answered(openapi: &mut OpenApi, service: &Service) {
    let (user, mute) = (token("u1"), token_of(json!({"sub": "u1", "taskcast": {"watch": []}})));
    let (_, task) = service.get("/api/v1/tasks/t3", "u1").await;
    let cursor = task["cursor"].as_str().expect("a cursor").to_owned();
    let path = format!("/api/v1/tasks/t3?after={cursor}&wait=1ms");
    assert_eq!(openapi.ask(service, TASK, &Request::get(&path).by(&user)).await, 204);
    let request = Request::get("/events/tasks/").by(&mute);
    assert_eq!(openapi.ask(service, "/events/tasks/", &request).await, 403, "who may watch nothing");
    for (operation, path) in STREAMS {
        let answer = beginning(service, path, &user).await;
        openapi.check(operation, path, "GET", &answer);
        assert!(answer.status == 200 && answer.body.contains("connection_established"), "{}", answer.body);
        if path.contains("t3") {
            let request = Request::get(path).by(&user).with("Last-Event-ID", &cursor);
            assert_eq!(openapi.ask(service, operation, &request).await, 204, "{path}");
        }
        let option = format!("{path}?deliver=some");
        for (status, request) in [
            (400, Request::get(&option).by(&user)),
            (401, Request::get(path)),
            (403, Request::get(path).by(&user).with("Origin", "https://evil.test")),
            (405, Request::post(path, "").by(&user)),
            (405, Request { method: "HEAD", ..Request::get(path).by(&user) }),
        ] {
            assert_eq!(openapi.ask(service, operation, &request).await, status, "{path}");
        }
    }
}

/// The head and the first message of a stream, which need not end.
async fn beginning(service: &Service, path: &str, token: &str) -> Answer {
    let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", service.port)).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !String::from_utf8_lossy(&answer).contains("\ndata: ") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "it ended before its first message");
        }
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await.expect("a message");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer::of(status, head, body.to_owned())
}

/// What is refused of every operation alike.
async fn strangers_are_refused(openapi: &mut OpenApi, service: &Service) {
    for (operation, request) in api() {
        let path = request.path;
        assert_eq!(openapi.ask(service, operation, &request).await, 401, "{path}");
        assert_eq!(openapi.ask(service, operation, &request.by("none")).await, 401, "{path}");
        let request = Request { method: "PUT", ..Request::get(path) };
        assert_eq!(openapi.ask(service, operation, &request).await, 405, "{path}");
    }
    for (operation, path) in SOCKETS {
        let ask = Request::handshake;
        assert_eq!(openapi.ask(service, operation, &ask(path)).await, 101, "{path}");
        let evil = ask(path).with("Origin", "https://evil.test");
        assert_eq!(openapi.ask(service, operation, &evil).await, 403, "{path}");
        assert_eq!(openapi.ask(service, operation, &Request::get(path)).await, 426, "{path}");
        let option = format!("{path}?deliver=some");
        assert_eq!(openapi.ask(service, operation, &ask(&option)).await, 400, "{path}");
        let request = Request { method: "POST", ..ask(path) };
        assert_eq!(openapi.ask(service, operation, &request).await, 405, "{path}");
    }
}

async fn pages_are_shown(openapi: &mut OpenApi, service: &Service) {
    for path in ["/", "/client.js", "/docs/", "/docs/openapi.json", "/docs/asyncapi.json"] {
        assert_eq!(openapi.ask(service, path, &Request::get(path)).await, 200, "{path}");
        assert_eq!(openapi.ask(service, path, &Request::get(path).with("If-None-Match", "*")).await, 304, "{path}");
        assert_eq!(openapi.ask(service, path, &Request::post(path, "")).await, 405, "{path}");
    }
    let (status, head, _) = http_whole(service.port, "GET", "/docs", &[], "").await;
    assert!(status == 308 && head.contains("\r\nlocation: docs/\r\n"), "{head}");
}

async fn operators_are_answered(openapi: &mut OpenApi) {
    let operators = [("TASKCAST_OPERATIONS_TOKEN", OPERATIONS_TOKEN), ("TASKCAST_OPERATIONS_TOKEN_FOR_PROBES", "true")];
    let service = Service::start_unready(&operators).await;
    until("it is ready", async || {
        let headers = [("Authorization", "Bearer a-token-of-operators")];
        http_whole(service.operations_port, "GET", "/readyz", &headers, "").await.0 == 200
    })
    .await;
    for path in OPERATIONS {
        let request = Request::get(path);
        assert_eq!(openapi.ask(&service, path, &request).await, 401, "{path}");
        assert_eq!(openapi.ask(&service, path, &request.by(OPERATIONS_TOKEN)).await, 200, "{path}");
        assert_eq!(openapi.ask(&service, path, &Request::post(path, "")).await, 405, "{path}");
    }
}

/// Refused at the door, whatever is asked for.
async fn everything_is_refused(openapi: &mut OpenApi, service: &Service, status: u16, header: (&str, &str)) {
    for (operation, request) in api() {
        let path = request.path;
        assert_eq!(openapi.ask(service, operation, &request.with(header.0, header.1)).await, status, "{path}");
    }
    for (operation, path) in SOCKETS {
        let request = Request::handshake(path).with(header.0, header.1);
        assert_eq!(openapi.ask(service, operation, &request).await, status, "{path}");
    }
    for (operation, path) in STREAMS {
        let request = Request::get(path).with(header.0, header.1);
        assert_eq!(openapi.ask(service, operation, &request).await, status, "{path}");
    }
}

async fn limits_are_told(openapi: &mut OpenApi) {
    let service = Service::start(&[("TASKCAST_LIMITS_DENY_NETWORKS", "127.0.0.0/8")]).await;
    everything_is_refused(openapi, &service, 403, ("Accept", "*/*")).await;
    let service = Service::start(&[
        ("TASKCAST_HTTP_TRUSTED_PROXIES", "127.0.0.0/8"),
        ("TASKCAST_LIMITS_FAILED_AUTHENTICATIONS_PER_MINUTE_PER_IP", "1"),
    ])
    .await;
    let from = ("X-Forwarded-For", "192.0.2.7");
    until("the address is banned", async || {
        let headers = [from, ("Authorization", "Bearer none")];
        http_whole(service.port, "GET", TASKS, &headers, "").await.0 == 429
    })
    .await;
    everything_is_refused(openapi, &service, 429, from).await;
    let service = Service::start(&[("TASKCAST_HTTP_CONNECTIONS_MAX", "1")]).await;
    // The harness's own question may hold the one place for a moment.
    let mut held = None;
    until("it holds the place", async || {
        held =
            Client::try_connect(service.port, "/ws/tasks/", &[("Authorization", &format!("Bearer {}", token("u1")))])
                .await
                .ok();
        held.is_some()
    })
    .await;
    everything_is_refused(openapi, &service, 503, ("Accept", "*/*")).await;
    drop(held);
    let service = Service::start(&[("TASKCAST_MEMORY_MAX_BYTES", "1")]).await;
    until("it is overloaded", async || service.metric("taskcast_overloaded").await == 1).await;
    let worker = token_with("worker", &["own"], true);
    for (operation, request) in [
        (EVENTS, Request::post(EVENTS, r#"{"task_id":"t1"}"#).by(&worker)),
        (TASKS, Request::get(TASKS).by(&worker)),
        ("/ws/tasks/", Request::handshake("/ws/tasks/")),
    ] {
        assert_eq!(openapi.ask(&service, operation, &request).await, 503, "{operation}");
    }
}

/// A body that does not come, and more events than a token may publish.
async fn patience_ends(openapi: &mut OpenApi) {
    let service = Service::start(&[
        ("TASKCAST_HTTP_HEADER_TIMEOUT_MS", "1500"),
        ("TASKCAST_LIMITS_EVENTS_PER_MINUTE_PER_TOKEN", "60"),
        ("TASKCAST_HTTP_EVENTS_PER_REQUEST_MAX", "60"),
    ])
    .await;
    let token = token_of(json!({"sub": "admin", "taskcast": {"revoke": true, "publish": true}}));
    for path in [EVENTS, REVOCATIONS] {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nAuthorization: Bearer {token}\r\n\r\n");
        let exchange = async {
            let mut stream = TcpStream::connect(("127.0.0.1", service.port)).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await.expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        openapi.check(path, path, "POST", &Answer::of(408, head, body.to_owned()));
        assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    }
    let many = json!(vec![json!({"task_id": "t1"}); 59]).to_string();
    until("it is too much", async || {
        openapi.ask(&service, EVENTS, &Request::post(EVENTS, &many).by(&token)).await == 429
    })
    .await;
}

#[tokio::test]
async fn every_answer_is_as_openapi_says_and_every_answer_of_openapi_is_given() {
    let mut openapi = OpenApi::read();
    let mut redis = RedisServer::start().await;
    let service = Service::start(&[("TASKCAST_LOG", &redis.url())]).await;
    workers_are_answered(&mut openapi, &service).await;
    readers_are_answered(&mut openapi, &service).await;
    listeners_are_answered(&mut openapi, &service).await;
    strangers_are_refused(&mut openapi, &service).await;
    pages_are_shown(&mut openapi, &service).await;
    operators_are_answered(&mut openapi).await;
    limits_are_told(&mut openapi).await;
    patience_ends(&mut openapi).await;
    redis.kill();
    service.until_ready(false).await;
    assert_eq!(openapi.ask(&service, "/readyz", &Request::get("/readyz")).await, 503);
    let worker = token_of(json!({"sub": "w", "taskcast": {"publish": true, "revoke": true}}));
    for (operation, request) in api().into_iter().filter(|(operation, _)| [EVENTS, REVOCATIONS].contains(operation)) {
        assert_eq!(openapi.ask(&service, operation, &request.by(&worker)).await, 503, "{operation}");
    }
    let unseen: Vec<(String, String)> = openapi.unseen().into_iter().collect();
    let expected: Vec<(String, String)> =
        NOT_PROVOKED.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    assert_eq!(unseen, expected, "documented, and never answered");
    let problems = openapi.document["x-problem-types"].as_array().unwrap().iter();
    let unseen: Vec<&str> =
        problems.map(|row| row["name"].as_str().unwrap()).filter(|name| !openapi.problems.contains(*name)).collect();
    assert_eq!(unseen, PROBLEMS_NOT_PROVOKED, "documented, and never answered");
}

/// The values at the borders of what a parameter may be, and those beyond: (value, is good).
fn borders(schema: &Value) -> Vec<(String, bool)> {
    let mut borders = Vec::new();
    for value in schema["enum"].as_array().into_iter().flatten() {
        borders.push((value.as_str().unwrap().to_owned(), true));
    }
    if schema["enum"].is_array() {
        borders.push(("something-else".to_owned(), false));
    }
    for (border, beyond) in [("minimum", -1), ("maximum", 1)] {
        if let Some(value) = schema[border].as_i64() {
            borders.extend([(value.to_string(), true), ((value + beyond).to_string(), false)]);
        }
    }
    let length = schema["maxLength"].as_u64().unwrap_or_default() as usize;
    if length > 0 {
        borders.extend([("x".repeat(length), true), ("x".repeat(length + 1), false)]);
    }
    borders
}

#[tokio::test]
async fn every_parameter_may_be_what_openapi_says_and_nothing_beyond() {
    let mut openapi = OpenApi::read();
    let service = Service::start(&[]).await;
    let document = openapi.document.clone();
    let mut tried = BTreeSet::new();
    for (operation, methods) in document["paths"].as_object().unwrap() {
        for parameter in methods["get"]["parameters"].as_array().into_iter().flatten() {
            let parameter = openapi.resolve(parameter).clone();
            let (name, schema) = (parameter["name"].as_str().unwrap(), openapi.resolve(&parameter["schema"]).clone());
            for (value, is_good) in borders(&schema) {
                let path = if parameter["in"] == "path" {
                    operation.replace(&format!("{{{name}}}"), &value)
                } else {
                    format!("{}?{name}={value}", operation.replace("{task_id}", "t1").replace("{root_id}", "r1"))
                };
                // Whom a tag is too long for, it is one that no task has.
                let is_good = is_good || name == "tag";
                let request = match operation.split('/').nth(1) {
                    Some("ws") => Request::handshake(&path),
                    // Without a token: the options are looked at first, and a stream would not end.
                    Some("events") => Request::get(&path),
                    _ => Request::get(&path).by(&token("u1")),
                };
                let status = openapi.ask(&service, operation, &request).await;
                assert_eq!(status == 400, !is_good, "{path:.200}: {status}");
                tried.insert(name.to_owned());
            }
        }
    }
    let expected =
        ["deliver", "dialect", "limit", "page", "root", "root_id", "status", "tag", "task_id", "throttle_ms", "watch"];
    assert_eq!(tried.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}
