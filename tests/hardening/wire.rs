//! Bytes on a socket as an attacker writes them, with no library in between that would correct them.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::target::soon;

/// A connection, and what came over it so far.
pub struct Wire {
    stream: TcpStream,
    pub received: Vec<u8>,
}

impl Wire {
    pub async fn connect(port: u16) -> Self {
        let stream = soon("a connection", TcpStream::connect(("127.0.0.1", port))).await.expect("a connection");
        Self { stream, received: Vec::new() }
    }

    /// A WebSocket whose handshake is over. `headers` are whole lines with their ends.
    pub async fn open(port: u16, path: &str, headers: &str) -> Self {
        let mut wire = Self::connect(port).await;
        wire.send(handshake(path, headers).as_bytes()).await;
        let head = wire.until(b"\r\n\r\n").await;
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        wire
    }

    /// A WebSocket of the token's user that has read its snapshot.
    pub async fn open_as(port: u16, token: &str) -> Self {
        let mut wire = Self::open(port, "/ws/tasks/", &format!("Authorization: Bearer {token}\r\n")).await;
        wire.frame_with("\"active_tasks\"").await;
        wire
    }

    /// Reads on to the end of the first text that holds this, and forgets all until then.
    pub async fn frame_with(&mut self, part: &str) -> String {
        let reading = async {
            loop {
                let mut frames = Frames(&self.received);
                while let Some((_, payload)) = frames.next() {
                    let text = String::from_utf8_lossy(payload).into_owned();
                    if text.contains(part) {
                        let rest = frames.0.len();
                        self.received.drain(..self.received.len() - rest);
                        return text;
                    }
                }
                assert!(self.read().await, "the connection ended before {part}");
            }
        };
        soon("a frame", reading).await
    }

    /// What the other end does not take any more is no failure of the attacker's.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Reads once; false at the end of the connection.
    pub async fn read(&mut self) -> bool {
        let mut bytes = vec![0; 16 * 1024];
        match self.stream.read(&mut bytes).await {
            Ok(read @ 1..) => {
                self.received.extend_from_slice(&bytes[..read]);
                true
            }
            _ => false,
        }
    }

    /// Reads on until these bytes have come, and takes everything up to them.
    pub async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let reading = async {
            loop {
                let found = self.received.windows(end.len()).position(|window| window == end);
                if let Some(at) = found {
                    return self.received.drain(..at + end.len()).collect();
                }
                let text = String::from_utf8_lossy(&self.received).into_owned();
                assert!(self.read().await, "the connection ended before {:?}: {text}", String::from_utf8_lossy(end));
            }
        };
        soon("the end of an answer", reading).await
    }

    /// Everything until the other end closes the connection.
    pub async fn rest(mut self) -> Vec<u8> {
        soon("the end of the connection", async { while self.read().await {} }).await;
        self.received
    }

    /// Everything that comes within this time; and whether the connection is open still.
    pub async fn within(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, async { while self.read().await {} }).await.is_err()
    }

    /// The code of the close frame, after everything else. `None`: the connection just ended.
    pub async fn close_code(self) -> Option<u16> {
        let received = self.rest().await;
        let close = Frames(&received).find(|(opcode, _)| *opcode == CLOSE)?.1;
        close.first_chunk().map(|code| u16::from_be_bytes(*code))
    }
}

/// Frames of the service: never masked.
pub struct Frames<'a>(pub &'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [first, second, rest @ ..] = self.0 else { return None };
        let (length, rest) = match second & 0x7f {
            126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), &rest[2..]),
            127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?, &rest[8..]),
            short => (usize::from(short), rest),
        };
        let (payload, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((first & 0x0f, payload))
    }
}

pub fn handshake(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

pub const FINAL: u8 = 0x80;
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;

/// A client's frame. Its mask is four zeros, so the payload stands there as it is.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        medium @ 126..65_536 => {
            bytes.push(0x80 | 0x7e);
            bytes.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 0x7f);
            bytes.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

pub fn text(payload: &str) -> Vec<u8> {
    frame(FINAL | TEXT, payload.as_bytes())
}

/// One request with everything as given, and all that is answered until the connection ends.
pub async fn exchange(port: u16, request: &[u8]) -> String {
    let mut wire = Wire::connect(port).await;
    wire.send(request).await;
    String::from_utf8_lossy(&wire.rest().await).into_owned()
}

/// The status codes of all answers in what a connection brought.
pub fn statuses(answers: &str) -> Vec<u16> {
    let codes = answers.split("HTTP/1.1 ").skip(1);
    codes.filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
}
