//! Watchers of one server, and the connection that events are published on, in one loop over epoll: a thread, a buffer, and
//! nothing copied that was read whole.

use std::{
    io::{ErrorKind, Read, Write},
    mem,
    net::TcpStream,
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::{
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt},
    time::Timespec,
};

use crate::{
    Outcome,
    payload::{self, Stamp, now_ns},
    server::{Heard, Instance, Watcher},
    tally::{Tally, Topics},
    websocket::{self, Outbox, Piece},
};

const BUFFER_BYTES: usize = 256 * 1024;
const EVENTS_PER_TURN: usize = 1024;

/// The token of the publisher's connection.
const PUBLISHER: u64 = u64::MAX;

/// More of a message in parts would be a mistake of a server's.
const MESSAGE_MAX_BYTES: usize = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not connected yet, or not any more.
    Away,
    Upgrading,
    Open,
}

struct Connection {
    watcher: Watcher,
    request: Vec<u8>,
    stream: Option<TcpStream>,
    phase: Phase,
    is_ready: bool,
    /// The number of the event that is due.
    expected: u32,
    /// What was read of a frame that is not whole.
    rest: Vec<u8>,
    /// Of a message that comes in several frames.
    parts: Vec<u8>,
    unwritten: Vec<u8>,
    /// The last whole message, if they are kept.
    last_message: Vec<u8>,
}

struct Publisher {
    stream: TcpStream,
    unwritten: Vec<u8>,
}

pub struct Crowd<'a> {
    instance: &'a dyn Instance,
    epoll: OwnedFd,
    ready: Vec<epoll::Event>,
    buffer: Vec<u8>,
    connections: Vec<Connection>,
    publisher: Option<Publisher>,
    pub topics: Topics,
    pub tally: Tally,
    /// How many are watching.
    pub ready_count: usize,
    /// Connections that were refused or ended before they watched, and in which words the last one was.
    pub refused: (usize, String),
    pub keeps_messages: bool,
    outbox: Outbox,
    stamps: Vec<Stamp>,
    payload: Vec<u8>,
}

impl<'a> Crowd<'a> {
    /// Nobody is connected yet; their requests are made.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(instance: &'a dyn Instance, watchers: Vec<Watcher>) -> Outcome<Self> {
        let host = instance.address().to_string();
        let connection = |watcher: Watcher| Connection {
            request: websocket::request(&host, &instance.handshake(&watcher)),
            watcher,
            stream: None,
            phase: Phase::Away,
            is_ready: false,
            expected: 0,
            rest: Vec::new(),
            parts: Vec::new(),
            unwritten: Vec::new(),
            last_message: Vec::new(),
        };
        Ok(Self {
            instance,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            ready: Vec::with_capacity(EVENTS_PER_TURN),
            buffer: vec![0; BUFFER_BYTES],
            connections: watchers.into_iter().map(connection).collect(),
            publisher: None,
            topics: Topics::new(),
            tally: Tally::new(),
            ready_count: 0,
            refused: (0, String::new()),
            keeps_messages: false,
            outbox: Outbox::default(),
            stamps: Vec::new(),
            payload: Vec::new(),
        })
    }

    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Begins to connect a watcher; [`Self::turn`] does the rest.
    ///
    /// # Errors
    /// The kernel's, when there are no sockets; it must be away.
    pub fn begin(&mut self, number: usize) -> Outcome<()> {
        if self.connections[number].is_ready {
            return Err(format!("watcher {number} is connected").into());
        }
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        // Closed by a reset: thousands of them waiting for late packets would use up the ports.
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        match connect(&socket, &self.instance.address()) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &socket, EventData::new_u64(number as u64), flags)?;
        let connection = &mut self.connections[number];
        connection.unwritten.clone_from(&connection.request);
        connection.stream = Some(socket.into());
        connection.phase = Phase::Upgrading;
        connection.is_ready = false;
        Ok(())
    }

    /// Where the cursor of a resuming watcher has to go before it connects again.
    pub fn resume(&mut self, number: usize, cursor: Option<String>) {
        let host = self.instance.address().to_string();
        let connection = &mut self.connections[number];
        connection.watcher.cursor = cursor;
        connection.request = websocket::request(&host, &self.instance.handshake(&connection.watcher));
    }

    /// Cuts a watcher's connection; it keeps its place in the sequence for when it comes back.
    pub fn cut(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        connection.stream = None;
        connection.phase = Phase::Away;
        connection.rest.clear();
        connection.parts.clear();
        connection.unwritten.clear();
        if mem::take(&mut connection.is_ready) {
            self.ready_count -= 1;
        }
    }

    /// Nothing more will come: what is under way is lost.
    pub fn give_up(&mut self) {
        self.topics.give_up(&mut self.tally);
        for connection in self.connections.iter_mut().filter(|connection| connection.is_ready) {
            connection.expected = self.topics.next(connection.watcher.topic);
        }
    }

    pub fn last_message(&self, number: usize) -> &[u8] {
        &self.connections[number].last_message
    }

    /// Publishes the next event of a topic; written by the next [`Self::turn`] at the latest.
    ///
    /// # Errors
    /// The road's, when it cannot be connected to.
    pub fn publish(&mut self, topic: usize) -> Outcome<()> {
        if self.publisher.is_none() {
            let road = self.instance.road();
            let stream = TcpStream::connect(road.address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&self.epoll, &stream, EventData::new_u64(PUBLISHER), flags)?;
            self.publisher = Some(Publisher { stream, unwritten: road.opening });
        }
        let number = self.topics.publish(topic);
        let stamp = Stamp { topic: topic as u32, number, sent_ns: now_ns() };
        payload::write(stamp, &mut self.payload);
        if let Some(publisher) = &mut self.publisher {
            self.instance.publication(topic, &self.payload, &mut publisher.unwritten);
        }
        self.tally.published += 1;
        Ok(())
    }

    /// How much of what was published is not even written.
    pub fn unwritten_bytes(&self) -> usize {
        self.publisher.as_ref().map_or(0, |publisher| publisher.unwritten.len())
    }

    /// Writes what is to be written, waits for something to happen, and sees to all that did.
    ///
    /// # Errors
    /// The publisher's connection broke, or the kernel's.
    pub fn turn(&mut self, patience: Duration) -> Outcome<()> {
        if let Some(publisher) = &mut self.publisher {
            write(&mut publisher.stream, &mut publisher.unwritten)
                .map_err(|error| format!("events cannot be published: {error}"))?;
        }
        let timeout =
            Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: i64::from(patience.subsec_nanos()) };
        let mut ready = mem::take(&mut self.ready);
        ready.clear();
        let waited = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), Some(&timeout));
        if let Err(error) = waited
            && error != Errno::INTR
        {
            return Err(error.into());
        }
        for event in &ready {
            match event.data.u64() {
                PUBLISHER => self.read_answers()?,
                number => self.attend(number as usize),
            }
        }
        self.ready = ready;
        Ok(())
    }

    /// Nobody looks at what the publisher is answered, but it has to be taken.
    fn read_answers(&mut self) -> Outcome<()> {
        let Some(publisher) = &mut self.publisher else { return Ok(()) };
        loop {
            match publisher.stream.read(&mut self.buffer) {
                Ok(0) => return Err("the connection that events are published on was closed".into()),
                Ok(read) if read == self.buffer.len() => {}
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("events cannot be published: {error}").into()),
            }
        }
    }

    /// Reads all that a watcher was sent, and writes what it has to say.
    fn attend(&mut self, number: usize) {
        let mut buffer = mem::take(&mut self.buffer);
        let ended = loop {
            let connection = &mut self.connections[number];
            let Some(stream) = &mut connection.stream else { break None };
            if !connection.unwritten.is_empty()
                && let Err(error) = write(stream, &mut connection.unwritten)
            {
                break Some(error.to_string());
            }
            // What is left of a frame goes before what comes now.
            let kept = connection.rest.len();
            if kept + BUFFER_BYTES / 2 > buffer.len() {
                buffer.resize(kept + BUFFER_BYTES, 0);
            }
            buffer[..kept].copy_from_slice(&connection.rest);
            connection.rest.clear();
            match stream.read(&mut buffer[kept..]) {
                Ok(0) => break Some("closed without a word".to_owned()),
                Ok(read) => {
                    self.tally.bytes += read as u64;
                    let filled = kept + read;
                    if let Err(error) = self.take(number, &buffer[..filled]) {
                        break Some(error);
                    }
                    if filled < buffer.len() {
                        break None;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    connection.rest.extend_from_slice(&buffer[..kept]);
                    break None;
                }
                Err(error) => break Some(error.to_string()),
            }
        };
        self.buffer = buffer;
        if let Some(reason) = ended {
            self.end(number, reason);
        }
    }

    fn end(&mut self, number: usize, reason: String) {
        let (is_ready, topic) = (self.connections[number].is_ready, self.connections[number].watcher.topic);
        let expected = self.connections[number].expected;
        self.cut(number);
        if is_ready {
            self.tally.ended += 1;
            self.topics.unwatch(topic, expected);
            self.connections[number].expected = 0;
        } else {
            self.refused.0 += 1;
        }
        self.refused.1 = reason;
    }

    /// Sees to these bytes of a watcher's connection, and keeps what is not whole.
    fn take(&mut self, number: usize, mut bytes: &[u8]) -> Result<(), String> {
        let now = now_ns();
        if self.connections[number].phase == Phase::Upgrading {
            let Some(length) = websocket::head_length(bytes)? else {
                self.connections[number].rest.extend_from_slice(bytes);
                return Ok(());
            };
            bytes = &bytes[length..];
            self.connections[number].phase = Phase::Open;
            if self.instance.opened(&self.connections[number].watcher, &mut self.outbox) {
                self.is_ready(number);
            }
        }
        while let Some((piece, length)) = websocket::piece(bytes) {
            match piece {
                Piece::Message(message) => self.hear(number, message, now),
                Piece::Part(part, is_last) => self.put_together(number, part, is_last, now)?,
                Piece::Ping(body) => self.outbox.pong(body),
                Piece::Close(code) => return Err(format!("closed with {code:?}")),
                Piece::Pong => {}
            }
            bytes = &bytes[length..];
        }
        let connection = &mut self.connections[number];
        connection.rest.extend_from_slice(bytes);
        if !self.outbox.bytes.is_empty() {
            connection.unwritten.append(&mut self.outbox.bytes);
            if let Some(stream) = &mut connection.stream {
                write(stream, &mut connection.unwritten).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    fn put_together(&mut self, number: usize, part: &[u8], is_last: bool, now: u64) -> Result<(), String> {
        let mut parts = mem::take(&mut self.connections[number].parts);
        parts.extend_from_slice(part);
        if parts.len() > MESSAGE_MAX_BYTES {
            return Err("sent a message without end".to_owned());
        }
        if is_last {
            self.hear(number, &parts, now);
            parts.clear();
        }
        self.connections[number].parts = parts;
        Ok(())
    }

    fn hear(&mut self, number: usize, message: &[u8], now: u64) {
        let connection = &mut self.connections[number];
        let was_ready = connection.is_ready;
        let mut ready = was_ready;
        let mut heard = Heard { out: &mut self.outbox, ready: &mut ready, stamps: &mut self.stamps };
        self.instance.heard(&connection.watcher, message, &mut heard);
        if self.keeps_messages {
            connection.last_message.clear();
            connection.last_message.extend_from_slice(message);
        }
        if ready && !was_ready {
            self.is_ready(number);
        }
        let connection = &mut self.connections[number];
        for stamp in self.stamps.drain(..) {
            let topic = connection.watcher.topic;
            self.topics.arrived(stamp, topic, &mut connection.expected, now, &mut self.tally);
        }
    }

    fn is_ready(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        connection.is_ready = true;
        self.ready_count += 1;
        // One that comes back is owed what it missed.
        if connection.expected == 0 {
            self.topics.watch(connection.watcher.topic);
            connection.expected = self.topics.next(connection.watcher.topic);
        }
    }
}

/// Writes what it can.
fn write(stream: &mut TcpStream, unwritten: &mut Vec<u8>) -> std::io::Result<()> {
    let mut written = 0;
    let outcome = loop {
        if written == unwritten.len() {
            break Ok(());
        }
        match stream.write(&unwritten[written..]) {
            Ok(count) => written += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    unwritten.drain(..written);
    outcome
}
