//! The service as a process, and clients of it, with verbs.

use std::{
    collections::BTreeMap,
    fmt::Write,
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use taskcast::{
    auth::{self, JwtSettings, Key, NewToken},
    clock,
    proto::UserId,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use crate::support::{self, brokers::free_port};

pub const SECRET: &str = "a-secret-of-the-tests-32-bytes-long-or-more";

/// Nothing that is awaited here takes longer unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A running `taskcast serve`, killed on drop.
pub struct Service {
    child: Child,
    pub port: u16,
    pub operations_port: u16,
    environment: BTreeMap<String, String>,
}

impl Service {
    /// Starts with these variables besides the secret and the ports, and waits until it is ready.
    pub async fn start(environment: &[(&str, &str)]) -> Self {
        let service = Self::start_unready(environment).await;
        service.until_ready(true).await;
        service
    }

    pub async fn start_unready(environment: &[(&str, &str)]) -> Self {
        let mut all = BTreeMap::from([
            ("TASKCAST_AUTH_SECRET".to_owned(), SECRET.to_owned()),
            ("TASKCAST_LOG_LEVEL".to_owned(), "warn".to_owned()),
            ("TASKCAST_DRAIN_SECONDS".to_owned(), "2".to_owned()),
        ]);
        all.extend(environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let (port, operations_port) = (free_port(), free_port());
        let service = Self { child: spawn(&all, port, operations_port), port, operations_port, environment: all };
        service.until_alive().await;
        service
    }

    /// Of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, then the same again on the same ports.
    pub async fn kill_and_restart(&mut self) {
        self.kill();
        self.child = spawn(&self.environment, self.port, self.operations_port);
        self.until_alive().await;
        self.until_ready(true).await;
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// SIGTERM; the exit code.
    pub async fn terminate(mut self) -> Option<i32> {
        self.signal("TERM");
        let waited = tokio::task::spawn_blocking(move || self.child.wait().unwrap().code());
        tokio::time::timeout(PATIENCE, waited).await.expect("an exit").unwrap()
    }

    async fn until_alive(&self) {
        until("the service answers", async || {
            TcpStream::connect(("127.0.0.1", self.operations_port)).await.is_ok()
                && TcpStream::connect(("127.0.0.1", self.port)).await.is_ok()
        })
        .await;
    }

    pub async fn until_ready(&self, ready: bool) {
        let status = if ready { 200 } else { 503 };
        until(&format!("/readyz answers {status}"), async || self.operations("/readyz").await.0 == status).await;
    }

    pub async fn operations(&self, path: &str) -> (u16, String) {
        http(self.operations_port, "GET", path, &[], "").await
    }

    /// The sum, in whole numbers, of a metric's series whose text holds `part`.
    pub async fn metric(&self, part: &str) -> u64 {
        let (_, text) = self.operations("/metrics").await;
        support::metric(&text, part)
    }

    pub async fn get(&self, path: &str, user: &str) -> (u16, Value) {
        let bearer = format!("Bearer {}", token(user));
        let (status, body) = http(self.port, "GET", path, &[("Authorization", &bearer)], "").await;
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    pub async fn post(&self, body: &str, content_type: &str) -> (u16, Value) {
        let bearer = format!("Bearer {}", token_with("worker", &["own"], true));
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", content_type)];
        let (status, body) = http(self.port, "POST", "/api/v1/events", &headers, body).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    /// Publishes over HTTP and demands that it was taken.
    pub async fn publish(&self, event: &Value) {
        let (status, answer) = self.post(&event.to_string(), "application/json").await;
        assert_eq!(status, 202, "{answer}");
    }

    /// A client of `user` at `path`, which may have a query.
    pub async fn connect(&self, path: &str, user: &str) -> Client {
        Client::connect(self.port, path, &[("Authorization", &format!("Bearer {}", token(user)))]).await
    }

    /// A client that has read its greeting and its snapshot.
    pub async fn attach(&self, path: &str, user: &str) -> Client {
        let mut client = self.connect(path, user).await;
        client.until("active_tasks").await;
        client
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The binary, with nothing of the caller's own settings.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskcast"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TASKCAST_")) {
        command.env_remove(name);
    }
    command
}

fn spawn(environment: &BTreeMap<String, String>, port: u16, operations_port: u16) -> Child {
    let mut command = binary();
    command.arg("serve").envs(environment).stdout(Stdio::null());
    command.env("TASKCAST_LISTEN", format!("127.0.0.1:{port}"));
    command.env("TASKCAST_OPERATIONS_LISTEN", format!("127.0.0.1:{operations_port}"));
    command.spawn().expect("the binary starts")
}

/// Asks again and again until it is so.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// One HTTP/1.1 request over a connection of its own.
pub async fn http(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let (status, _, body) = http_whole(port, method, path, headers, body).await;
    (status, body)
}

/// As [`http`], with the head of the answer.
pub async fn http_whole(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String, String) {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n");
    for (name, value) in headers {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    write!(request, "Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await.expect("an answer").unwrap_or_default();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    (status, head.to_owned(), if chunked { unchunk(body) } else { body.to_owned() })
}

fn unchunk(body: &str) -> String {
    let mut rest = body;
    let mut whole = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        whole.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    whole
}

pub fn settings() -> JwtSettings {
    JwtSettings {
        key: Key::Secret(SECRET.into()),
        algorithms: vec!["HS256".into()],
        user_claim: None,
        audience: vec![],
        issuer: vec![],
        leeway: Duration::ZERO,
        max_age_without_expiry: None,
    }
}

pub fn token(user: &str) -> String {
    token_with(user, &["own"], false)
}

pub fn token_with(user: &str, watch: &[&str], publish: bool) -> String {
    token_for(user, watch, publish, Duration::from_secs(600))
}

pub fn token_for(user: &str, watch: &[&str], publish: bool, lifetime: Duration) -> String {
    support::install_crypto();
    let new = NewToken {
        user: UserId::parse(user).ok(),
        watch: watch.iter().map(ToString::to_string).collect(),
        publish,
        cancel: publish,
        lifetime,
        ..NewToken::default()
    };
    auth::mint(&settings(), &new, clock::now().unix_ms).unwrap()
}

/// A token of these claims and an hour to live.
pub fn token_of(mut claims: Value) -> String {
    support::install_crypto();
    claims["exp"] = json!(clock::now().unix_ms / 1000 + 3600);
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

/// A browser reduced to its socket.
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Every frame so far.
    pub frames: Vec<Value>,
}

impl Client {
    pub async fn connect(port: u16, path: &str, headers: &[(&str, &str)]) -> Self {
        Self::try_connect(port, path, headers).await.expect("a handshake")
    }

    pub async fn try_connect(port: u16, path: &str, headers: &[(&str, &str)]) -> Result<Self, tungstenite::Error> {
        let mut request = format!("ws://127.0.0.1:{port}{path}").into_client_request()?;
        for (name, value) in headers {
            let name: tungstenite::http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let (socket, _) = tokio::time::timeout(PATIENCE, tokio_tungstenite::connect_async(request)).await.unwrap()?;
        Ok(Self { socket, frames: Vec::new() })
    }

    /// A client of `user` that has room for so many bytes, about, so that its socket is soon full when it does not read.
    pub async fn connect_narrow(port: u16, path: &str, user: &str, room: u32) -> Self {
        let mut request = format!("ws://127.0.0.1:{port}{path}").into_client_request().unwrap();
        request.headers_mut().insert("Authorization", format!("Bearer {}", token(user)).parse().unwrap());
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(room).unwrap();
        let stream = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
        let handshake = tokio_tungstenite::client_async(request, MaybeTlsStream::Plain(stream));
        let (socket, _) = tokio::time::timeout(PATIENCE, handshake).await.unwrap().expect("a handshake");
        Self { socket, frames: Vec::new() }
    }

    /// The next bytes as they come, which are then lost to the frames; 0 at the end.
    pub async fn sip(&mut self, bytes: usize) -> usize {
        let mut sip = vec![0; bytes];
        self.socket.get_mut().read(&mut sip).await.unwrap_or(0)
    }

    /// Every frame that is still on its way, until the connection ends.
    pub async fn drain(&mut self) {
        while let Some(message) = self.message().await {
            if let Message::Text(text) = message {
                self.frames.push(serde_json::from_str(&text).expect("JSON"));
            }
        }
    }

    async fn message(&mut self) -> Option<Message> {
        match tokio::time::timeout(PATIENCE, self.socket.next()).await {
            Ok(next) => next.and_then(Result::ok),
            Err(elapsed) => panic!("no frame came ({elapsed}); so far: {:?}", self.frames),
        }
    }

    /// The next JSON frame.
    pub async fn next(&mut self) -> Value {
        loop {
            match self.message().await {
                Some(Message::Text(text)) => {
                    let frame: Value = serde_json::from_str(&text).expect("JSON");
                    self.frames.push(frame.clone());
                    return frame;
                }
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("{other:?} instead of a frame; so far: {:?}", self.frames),
            }
        }
    }

    /// Reads on to the next frame of this type.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Reads on to the end of a task.
    pub async fn until_end_of(&mut self, task_id: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["type"] == "task_completed" && frame["task_id"] == task_id {
                return frame;
            }
        }
    }

    /// The close code, after everything else has been read.
    pub async fn closed(&mut self) -> Option<u16> {
        loop {
            match self.message().await {
                Some(Message::Close(frame)) => return frame.map(|frame| u16::from(frame.code)),
                Some(Message::Text(text)) => self.frames.push(serde_json::from_str(&text).expect("JSON")),
                Some(_) => {}
                None => return None,
            }
        }
    }

    pub async fn binary(&mut self) -> Vec<u8> {
        loop {
            match self.message().await {
                Some(Message::Binary(bytes)) => return bytes.to_vec(),
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("{other:?} instead of a binary frame"),
            }
        }
    }

    pub async fn say(&mut self, message: &Value) {
        self.send(Message::text(message.to_string())).await;
    }

    pub async fn send(&mut self, message: Message) {
        self.socket.send(message).await.expect("an open socket");
    }

    /// Everything that was on its way has arrived: a question is answered in order.
    pub async fn settle(&mut self) {
        let id = format!("settle-{}", self.frames.len());
        self.say(&json!({"type": "ping", "id": id})).await;
        while self.next().await["id"] != id.as_str() {}
    }

    /// Raw bytes onto the wire.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).await.unwrap();
    }

    /// The cursor to resume from: the last one received.
    pub fn cursor(&self) -> String {
        self.frames.iter().rev().find_map(|frame| frame["cursor"].as_str()).expect("a cursor").to_owned()
    }

    /// What a page would show: the newest state of each task by id, as (status, progress).
    pub fn bars(&self) -> BTreeMap<String, (String, Option<f64>)> {
        let mut bars = BTreeMap::new();
        for frame in &self.frames {
            if frame["reset"].is_string() {
                bars.clear();
            }
            let listed = frame["tasks"].as_array().into_iter().flatten();
            let own = [frame].into_iter().filter(|f| f["type"] == "task_progress" || f["type"] == "task_completed");
            for task in listed.chain(own) {
                let id = task["task_id"].as_str().unwrap().to_owned();
                bars.insert(id, (task["status"].as_str().unwrap().to_owned(), task["progress"].as_f64()));
            }
            if frame["type"] == "task_removed" {
                bars.remove(frame["task_id"].as_str().unwrap());
            }
        }
        bars
    }

    pub fn types(&self) -> Vec<&str> {
        self.frames.iter().filter_map(|frame| frame["type"].as_str()).collect()
    }
}
