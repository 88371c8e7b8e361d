//! The client's half of RFC 6455, as cheap as it can be: frames are looked at where they were read, and copied only if
//! a read ended within one.
//!
//! Refuses to know: sockets, what messages mean.

use std::fmt::Write;

use crate::server::Handshake;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// Instead of a length: it follows, in so many bytes.
const LENGTH_OF_2: u8 = 0x7E;
const LENGTH_OF_8: u8 = 0x7F;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;

/// Frames of a client that wait to be written.
#[derive(Debug, Default)]
pub struct Outbox {
    pub(crate) bytes: Vec<u8>,
}

impl Outbox {
    pub fn text(&mut self, text: &str) {
        self.frame(TEXT, text.as_bytes());
    }

    pub fn binary(&mut self, bytes: &[u8]) {
        self.frame(BINARY, bytes);
    }

    pub fn pong(&mut self, body: &[u8]) {
        self.frame(0xA, body);
    }

    /// Masked, as a client has to, by a key of zeros, which costs nothing.
    fn frame(&mut self, opcode: u8, body: &[u8]) {
        self.bytes.push(FIN | opcode);
        match body.len() {
            length @ 0..=125 => self.bytes.push(MASKED | length as u8),
            length @ 126..=0xFFFF => {
                self.bytes.push(MASKED | LENGTH_OF_2);
                self.bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                self.bytes.push(MASKED | LENGTH_OF_8);
                self.bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(body);
    }
}

/// The whole request, for a host of this name.
pub fn request(host: &str, handshake: &Handshake) -> Vec<u8> {
    let mut request = format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
        handshake.path
    );
    for (name, value) in &handshake.headers {
        // Writing to a string does not fail.
        let _ = write!(request, "{name}: {value}\r\n");
    }
    request.push_str("\r\n");
    request.into_bytes()
}

/// How many bytes the head of an answer takes, once it is whole; an error with its first line if it is no 101.
pub fn head_length(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    if bytes.starts_with(b"HTTP/1.1 101") {
        return Ok(Some(end + 4));
    }
    Err(String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_owned())
}

/// What stands in the bytes of a connection.
pub enum Piece<'a> {
    /// A whole message, text or binary.
    Message(&'a [u8]),
    Ping(&'a [u8]),
    /// The code, if there was one.
    Close(Option<u16>),
    /// A part of a message that was sent in several frames, and whether it is the last.
    Part(&'a [u8], bool),
    Pong,
}

/// The frame at the start of `bytes`, and how many of them it takes; nothing if it is not whole yet.
pub fn piece(bytes: &[u8]) -> Option<(Piece<'_>, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    // A server does not mask.
    let (length, start) = match second & 0x7F {
        LENGTH_OF_2 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        LENGTH_OF_8 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize, 10),
        length => (usize::from(length), 2),
    };
    let body = bytes.get(start..start + length)?;
    let piece = match (first & 0xF, first & FIN != 0) {
        (TEXT | BINARY, true) => Piece::Message(body),
        (TEXT | BINARY, false) => Piece::Part(body, false),
        (CONTINUATION, last) => Piece::Part(body, last),
        (PING, _) => Piece::Ping(body),
        (CLOSE, _) => Piece::Close(body.first_chunk().copied().map(u16::from_be_bytes)),
        _ => Piece::Pong,
    };
    Some((piece, start + length))
}
