//! A client of event streams, reduced to its bytes: it reads chunks as RFC 9112 has them and events as browsers do.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::harness::{PATIENCE, Service, token};

/// What came between two empty lines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    pub id: Option<String>,
    pub retry: Option<u64>,
    pub comment: bool,
    pub data: Option<Value>,
}

pub struct StreamClient {
    socket: TcpStream,
    /// Bytes of the body, or of its chunks, that are not read yet.
    unread: Vec<u8>,
    /// Content of chunks that is no whole event yet.
    text: Vec<u8>,
    pub status: u16,
    pub head: String,
    /// The last chunk was there.
    pub is_complete: bool,
    /// Messages so far.
    pub messages: Vec<Value>,
    pub last_id: Option<String>,
    pub retry: Option<u64>,
    pub comments: usize,
}

impl StreamClient {
    /// A client of `user`.
    pub async fn open(service: &Service, path: &str, user: &str) -> Self {
        Self::open_with(service.port, path, &[("Authorization", &format!("Bearer {}", token(user)))]).await
    }

    /// As a browser comes back.
    pub async fn reopen(service: &Service, path: &str, user: &str, last_id: &str) -> Self {
        let bearer = format!("Bearer {}", token(user));
        Self::open_with(service.port, path, &[("Authorization", &bearer), ("Last-Event-ID", last_id)]).await
    }

    pub async fn open_with(port: u16, path: &str, headers: &[(&str, &str)]) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        Self::ask(socket, "GET", "HTTP/1.1", path, headers).await
    }

    /// A client that has room for so many bytes, about.
    pub async fn open_narrow(service: &Service, path: &str, user: &str, room: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(room).unwrap();
        let socket = socket.connect(([127, 0, 0, 1], service.port).into()).await.unwrap();
        let bearer = format!("Bearer {}", token(user));
        Self::ask(socket, "GET", "HTTP/1.1", path, &[("Authorization", &bearer)]).await
    }

    pub async fn ask(mut socket: TcpStream, method: &str, version: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = format!("{method} {path} {version}\r\nHost: {}\r\n", socket.peer_addr().unwrap());
        for (name, value) in headers {
            write!(request, "{name}: {value}\r\n").unwrap();
        }
        request.push_str("\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut client = Self {
            socket,
            unread: Vec::new(),
            text: Vec::new(),
            status: 0,
            head: String::new(),
            is_complete: false,
            messages: Vec::new(),
            last_id: None,
            retry: None,
            comments: 0,
        };
        client.read_head().await;
        client
    }

    async fn read_head(&mut self) {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                self.head = String::from_utf8(self.unread.drain(..end + 4).collect()).unwrap().to_ascii_lowercase();
                self.status = self.head.split(' ').nth(1).unwrap().parse().unwrap();
                return;
            }
            assert!(self.read().await > 0, "no head: {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// Bytes that came; 0 at the end.
    async fn read(&mut self) -> usize {
        let read = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut self.unread)).await;
        read.unwrap_or_else(|_| panic!("nothing came; so far: {:?}", self.messages)).unwrap_or(0)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Takes whole chunks apart; without chunks everything is content.
    fn unchunk(&mut self) {
        if self.header("transfer-encoding") != Some("chunked") {
            self.text.append(&mut self.unread);
            return;
        }
        while let Some(end) = find(&self.unread, b"\r\n") {
            let length = std::str::from_utf8(&self.unread[..end]).unwrap();
            let length = usize::from_str_radix(length, 16).expect("the length of a chunk");
            let whole = end + 2 + length + 2;
            if self.unread.len() < whole {
                return;
            }
            assert!(!self.is_complete, "something behind the last chunk");
            assert_eq!(&self.unread[whole - 2..whole], b"\r\n");
            self.is_complete = length == 0;
            self.text.extend_from_slice(&self.unread[end + 2..whole - 2]);
            self.unread.drain(..whole);
        }
    }

    /// What comes next between two empty lines; `None` at the end.
    pub async fn event(&mut self) -> Option<Event> {
        loop {
            self.unchunk();
            if let Some(end) = find(&self.text, b"\n\n") {
                let block: Vec<u8> = self.text.drain(..end + 2).collect();
                return Some(self.note(&String::from_utf8(block).unwrap()));
            }
            if self.read().await == 0 {
                assert!(self.text.is_empty(), "an event that has no end: {:?}", String::from_utf8_lossy(&self.text));
                return None;
            }
        }
    }

    fn note(&mut self, block: &str) -> Event {
        let mut event = Event::default();
        let mut data = Vec::new();
        for line in block.split(['\r', '\n']).filter(|line| !line.is_empty()) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => event.comment = true,
                "id" => event.id = Some(value.to_owned()),
                "retry" => event.retry = Some(value.parse().unwrap()),
                "data" => data.push(value),
                other => panic!("a field {other:?}"),
            }
        }
        event.data = (!data.is_empty()).then(|| serde_json::from_str(&data.join("\n")).expect("JSON"));
        self.messages.extend(event.data.clone());
        self.last_id = event.id.clone().or(self.last_id.take());
        self.retry = event.retry.or(self.retry);
        self.comments += usize::from(event.comment);
        event
    }

    /// The next message.
    pub async fn next(&mut self) -> Value {
        loop {
            let event = self.event().await;
            if let Some(data) = event.unwrap_or_else(|| panic!("it ended; so far: {:?}", self.messages)).data {
                return data;
            }
        }
    }

    /// Reads on to the next message of this type.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Reads on to the end; whether that was meant.
    pub async fn ended(&mut self) -> bool {
        while self.event().await.is_some() {}
        self.is_complete
    }

    /// Every byte of the body that is still to come.
    pub async fn rest(&mut self) -> String {
        while self.read().await > 0 {}
        String::from_utf8(std::mem::take(&mut self.unread)).unwrap()
    }

    /// A body of so many bytes.
    pub async fn take_body(&mut self, length: usize) -> String {
        while self.unread.len() < length {
            assert!(self.read().await > 0);
        }
        String::from_utf8(self.unread.drain(..length).collect()).unwrap()
    }

    pub fn into_socket(self) -> TcpStream {
        self.socket
    }

    pub async fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes).await
    }

    pub fn types(&self) -> Vec<&str> {
        self.messages.iter().filter_map(|message| message["type"].as_str()).collect()
    }

    /// What the page shows: status and progress of each task.
    pub fn bars(&self) -> BTreeMap<String, (String, Option<f64>)> {
        let mut bars = BTreeMap::new();
        for message in &self.messages {
            let listed = message["tasks"].as_array().into_iter().flatten();
            let own = [message].into_iter().filter(|message| message["task_id"].is_string());
            for task in listed.chain(own) {
                let shown = (task["status"].as_str().unwrap().to_owned(), task["progress"].as_f64());
                bars.insert(task["task_id"].as_str().unwrap().to_owned(), shown);
            }
        }
        bars
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
