//! The reference: the least that a server can do, in one thread. A frame is made once, and written to each watcher with one
//! `write(2)`, either for every event ([`Mode::Each`]), or for every event but as long as taskcast's ([`Mode::Long`]), or for
//! all that came together ([`Mode::Batch`]). It checks nothing, keeps nothing, and watchers cannot resume.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::{
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    net::sockopt,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    Outcome,
    place::Place,
    processes::Processes,
    server::{Handshake, Instance, Road, Server, Watcher},
};

/// The hidden subcommand that makes this program the floor.
pub const SUBCOMMAND: &str = "floor-server";

/// Events that are written together at most.
const BATCH_EVENTS: usize = 32;

/// A frame of taskcast for the event of this harness, header included: what the kernel has to copy is a part of what a frame
/// costs.
const LONG_FRAME_BYTES: usize = 470;
const HEADER_BYTES: usize = 4;

const BACKLOG: i32 = 4096;
const READY_PATIENCE: Duration = Duration::from_secs(10);

const WATCHERS_LISTENER: u64 = u64::MAX;
const EVENTS_LISTENER: u64 = u64::MAX - 1;
const EVENTS: u64 = u64::MAX - 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Each,
    Long,
    Batch,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Each, Self::Long, Self::Batch];

    /// As it is called on the command line and in the tables.
    pub fn server(self) -> &'static str {
        match self {
            Self::Each => "floor",
            Self::Long => "floor-long",
            Self::Batch => "floor-batch",
        }
    }

    /// The column of costs beside this one's.
    pub fn ratio(self) -> &'static str {
        match self {
            Self::Each => "× floor",
            Self::Long => "× floor-long",
            Self::Batch => "× floor-batch",
        }
    }

    /// `None`: this server is no floor.
    pub fn of(server: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.server() == server)
    }
}

// ---- as the harness sees it ------------------------------------------------------------------------------------------

pub struct Floor(pub Mode);

struct Running {
    mode: Mode,
    processes: Processes,
    address: SocketAddr,
    events_address: SocketAddr,
}

impl Server for Floor {
    fn name(&self) -> &'static str {
        self.0.server()
    }

    fn start(&self, place: &Place) -> Outcome<Box<dyn Instance>> {
        let mut processes = Processes::new(self.name());
        let [address, events_address] = [(); 2].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, place.port())));
        let program = std::env::current_exe()?;
        processes.start_server(place, &program, "floor.log", |command| {
            command.arg(SUBCOMMAND).arg(address.to_string()).arg(events_address.to_string()).arg(self.name());
        })?;
        processes.until_listening(&[address, events_address], READY_PATIENCE, "floor.log")?;
        Ok(Box::new(Running { mode: self.0, processes, address, events_address }))
    }
}

impl Instance for Running {
    fn version(&self) -> String {
        match self.mode {
            Mode::Each => "one write(2) per frame".to_owned(),
            Mode::Long => format!("one write(2) per frame, padded to {LONG_FRAME_BYTES} bytes, a frame of taskcast's"),
            Mode::Batch => format!("one write(2) for up to {BATCH_EVENTS} waiting frames"),
        }
    }

    fn processes(&self) -> &Processes {
        &self.processes
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn handshake(&self, watcher: &Watcher) -> Handshake {
        Handshake { path: format!("/{}", watcher.topic), headers: Vec::new() }
    }

    fn road(&self) -> Road {
        Road { address: self.events_address, opening: Vec::new() }
    }

    /// Topic and length, then the payload.
    fn publication(&self, topic: usize, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&(topic as u32).to_be_bytes());
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        out.extend_from_slice(payload);
    }
}

// ---- the server ------------------------------------------------------------------------------------------------------

struct Client {
    stream: TcpStream,
    /// The request, until it is whole.
    request: Vec<u8>,
    is_open: bool,
    topic: usize,
    /// What its socket had no room for.
    unwritten: Vec<u8>,
}

struct FloorServer {
    epoll: OwnedFd,
    batch_events: usize,
    /// Shorter payloads are padded.
    payload_bytes_min: usize,
    /// By token.
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    /// Tokens of the watchers of each topic.
    topics: Vec<Vec<usize>>,
    events: Option<TcpStream>,
    /// What was read of events that are not whole.
    input: Vec<u8>,
    buffer: Vec<u8>,
    frames: Vec<u8>,
}

/// Runs as the floor until it is killed: `floor-server ADDRESS EVENTS_ADDRESS FORM`, which is the server's name.
///
/// # Errors
/// Bad arguments, or the kernel's.
pub fn serve(arguments: &[String]) -> Outcome<()> {
    let [address, events_address, form] = arguments else { return Err("ADDRESS EVENTS_ADDRESS FORM".into()) };
    let mode = Mode::of(form).ok_or("the floor has no such form")?;
    let listener = listen(address.parse()?)?;
    let events_listener = listen(events_address.parse()?)?;
    let mut server = FloorServer {
        epoll: epoll::create(CreateFlags::CLOEXEC)?,
        batch_events: if mode == Mode::Batch { BATCH_EVENTS } else { 1 },
        payload_bytes_min: if mode == Mode::Long { LONG_FRAME_BYTES - HEADER_BYTES } else { 0 },
        clients: Vec::new(),
        free: Vec::new(),
        topics: Vec::new(),
        events: None,
        input: Vec::new(),
        buffer: vec![0; 64 * 1024],
        frames: Vec::new(),
    };
    epoll::add(&server.epoll, &listener, EventData::new_u64(WATCHERS_LISTENER), EventFlags::IN)?;
    epoll::add(&server.epoll, &events_listener, EventData::new_u64(EVENTS_LISTENER), EventFlags::IN)?;
    let mut ready = Vec::with_capacity(256);
    loop {
        ready.clear();
        epoll::wait(&server.epoll, rustix::buffer::spare_capacity(&mut ready), None)?;
        for event in &ready {
            match event.data.u64() {
                WATCHERS_LISTENER => server.accept(&listener)?,
                EVENTS_LISTENER => server.accept_events(&events_listener)?,
                EVENTS => server.read_events()?,
                token => server.attend(token as usize),
            }
        }
    }
}

fn listen(address: SocketAddr) -> Outcome<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl FloorServer {
    fn accept(&mut self, listener: &TcpListener) -> Outcome<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            stream.set_nonblocking(true)?;
            sockopt::set_tcp_nodelay(&stream, true)?;
            let token = self.free.pop().unwrap_or(self.clients.len());
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&self.epoll, &stream, EventData::new_u64(token as u64), flags)?;
            let client = Client { stream, request: Vec::new(), is_open: false, topic: 0, unwritten: Vec::new() };
            if token == self.clients.len() {
                self.clients.push(Some(client));
            } else {
                self.clients[token] = Some(client);
            }
        }
    }

    fn accept_events(&mut self, listener: &TcpListener) -> Outcome<()> {
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        epoll::add(&self.epoll, &stream, EventData::new_u64(EVENTS), EventFlags::IN)?;
        self.input.clear();
        self.events = Some(stream);
        Ok(())
    }

    /// A watcher said something, went, or has room again.
    fn attend(&mut self, token: usize) {
        let Some(client) = self.clients.get_mut(token).and_then(Option::as_mut) else { return };
        let is_well = match client.stream.read(&mut self.buffer) {
            Ok(0) => false,
            Ok(read) => {
                if !client.is_open {
                    client.request.extend_from_slice(&self.buffer[..read]);
                    if upgrade(client).is_some() {
                        let topic = client.topic;
                        if self.topics.len() <= topic {
                            self.topics.resize(topic + 1, Vec::new());
                        }
                        self.topics[topic].push(token);
                    }
                }
                true
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        if !is_well || !flush(client) {
            let topic = client.topic;
            self.clients[token] = None;
            self.free.push(token);
            if let Some(watchers) = self.topics.get_mut(topic) {
                watchers.retain(|watcher| *watcher != token);
            }
        }
    }

    /// Reads what waits, and delivers it.
    fn read_events(&mut self) -> Outcome<()> {
        let Some(events) = &mut self.events else { return Ok(()) };
        let read = match events.read(&mut self.buffer) {
            Ok(0) => {
                self.events = None;
                return Ok(());
            }
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(&self.buffer[..read]);
        let mut at = 0;
        let (mut topic, mut waiting) = (0, 0);
        self.frames.clear();
        while let Some((next, payload)) = event_at(&input[at..]) {
            // What came together is written together, if it is for the same watchers.
            if waiting > 0 && (next != topic || waiting == self.batch_events) {
                self.deliver(topic);
                waiting = 0;
            }
            topic = next;
            frame(payload, self.payload_bytes_min, &mut self.frames);
            waiting += 1;
            at += 8 + payload.len();
        }
        if waiting > 0 {
            self.deliver(topic);
        }
        input.drain(..at);
        self.input = input;
        Ok(())
    }

    /// Writes the frames that were made to everyone who watches, and forgets them.
    fn deliver(&mut self, topic: usize) {
        for token in self.topics.get(topic).into_iter().flatten() {
            let Some(client) = &mut self.clients[*token] else { continue };
            if !client.unwritten.is_empty() {
                client.unwritten.extend_from_slice(&self.frames);
                continue;
            }
            // Who is gone is found out by the loop.
            let written = client.stream.write(&self.frames).unwrap_or(0);
            client.unwritten.extend_from_slice(&self.frames[written..]);
        }
        self.frames.clear();
    }
}

fn event_at(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let topic = u32::from_be_bytes(*bytes.first_chunk()?);
    let length = u32::from_be_bytes(*bytes.get(4..)?.first_chunk()?) as usize;
    Some((topic as usize, bytes.get(8..8 + length)?))
}

/// Spaces behind the JSON fill it up.
fn frame(payload: &[u8], payload_bytes_min: usize, frames: &mut Vec<u8>) {
    let padding = payload_bytes_min.saturating_sub(payload.len());
    frames.extend_from_slice(&[0x81, 126]);
    frames.extend_from_slice(&((payload.len() + padding) as u16).to_be_bytes());
    frames.extend_from_slice(payload);
    frames.resize(frames.len() + padding, b' ');
}

/// Answers the request once it is whole.
fn upgrade(client: &mut Client) -> Option<()> {
    memchr::memmem::find(&client.request, b"\r\n\r\n")?;
    let request = String::from_utf8_lossy(&client.request);
    client.topic = request.split(' ').nth(1)?.trim_start_matches('/').parse().ok()?;
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    client.unwritten.extend_from_slice(answer.as_bytes());
    client.is_open = true;
    client.request = Vec::new();
    Some(())
}

/// Writes what is left; false if the connection is broken.
fn flush(client: &mut Client) -> bool {
    while !client.unwritten.is_empty() {
        match client.stream.write(&client.unwritten) {
            Ok(written) => drop(client.unwritten.drain(..written)),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    // Memory of what was once full is not kept.
    client.unwritten = Vec::new();
    true
}
