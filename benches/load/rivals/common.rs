//! What the drivers of other servers share: where they were installed, how one is started, and what it is once it runs.
//! Refuses to know: any server's protocol.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    Outcome,
    place::Place,
    processes::Processes,
    server::{Handshake, Heard, Instance, Road, Watcher},
    websocket::Outbox,
};

/// A Python server imports for seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The log of every server, in the folder of its processes.
pub const LOG: &str = "server.log";

const INSTALL: &str = "run benches/rivals/install";

/// Where `benches/rivals/install` puts things.
pub fn installed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/rivals").join(path)
}

/// A configuration or a program of ours.
pub fn ours(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/rivals").join(path)
}

/// A file of a Debian package, unpacked by the install script or, before it, installed.
pub fn debian(path: &str) -> PathBuf {
    let unpacked = installed("debian").join(path);
    if unpacked.exists() { unpacked } else { Path::new("/").join(path) }
}

/// Why a rival cannot start: the first of these files that is not there, and what the install script said of it.
pub fn missing(rival: &str, files: &[PathBuf]) -> Option<String> {
    let absent = files.iter().find(|file| !file.exists())?;
    let said = fs::read_to_string(installed("missing").join(rival)).unwrap_or_default();
    match said.trim() {
        "" => Some(format!("{} is not there: {INSTALL} {rival}", absent.display())),
        reason => Some(format!("{reason} ({INSTALL} {rival})")),
    }
}

/// Says so if a program of the machine is not there.
pub fn missing_program(program: &str, package: &str) -> Option<String> {
    let runs = Command::new(program).arg("--version").output().is_ok();
    (!runs).then(|| format!("{program} is not installed: on Debian, apt-get install {package}"))
}

/// The version of a Debian package, unpacked or installed.
pub fn debian_version(package: &str) -> String {
    let unpacked = fs::read_to_string(installed("debian/versions")).unwrap_or_default();
    let version = unpacked.lines().rev().find_map(|line| line.strip_prefix(package)?.strip_prefix(' '));
    version.map_or_else(|| said_by(Command::new("dpkg-query").args(["-W", "-f=${Version}", package])), str::to_owned)
}

/// The first line that a program prints, on whatever stream.
pub fn said_by(command: &mut Command) -> String {
    let Ok(output) = command.output() else { return "unknown".to_owned() };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").trim().to_owned()
}

/// A program of a Debian package, which finds the libraries that were unpacked with it.
pub fn with_libraries(command: &mut Command) -> &mut Command {
    command.env("LD_LIBRARY_PATH", installed(&format!("debian/usr/lib/{}-linux-gnu", std::env::consts::ARCH)))
}

pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Writes a configuration of ours into the folder of these processes, with `@WORD@` replaced.
pub fn configured(processes: &Processes, name: &str, words: &[(&str, String)]) -> Outcome<PathBuf> {
    let text = words
        .iter()
        .fold(fs::read_to_string(ours(name))?, |text, (word, value)| text.replace(&format!("@{word}@"), value));
    let path = processes.folder().join(name);
    fs::write(&path, text)?;
    Ok(path)
}

/// As many descriptors as a server needs for all watchers, and then some.
pub fn descriptors(place: &Place) -> String {
    (place.watchers_max + 200).to_string()
}

/// Starts a Redis that keeps nothing, as the broker.
pub fn start_redis(processes: &mut Processes, place: &Place) -> Outcome<u16> {
    let port = place.port();
    processes.start_broker(Path::new("redis-server"), "redis.log", |command| {
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()]);
        // What a slow subscriber has not taken; the default of 32 MB would cut it.
        command.args(["--client-output-buffer-limit", "pubsub 1gb 0 0"]);
    });
    processes.until_listening(&[local(port)], PATIENCE, "redis.log")?;
    Ok(port)
}

/// Starts one of our Python programs that bring events to a server as its own users would. It takes lines of a topic, a
/// space and a payload on the port that is its first argument.
pub fn start_helper(processes: &mut Processes, python: &Path, script: &str, arguments: &[String]) {
    processes.start_broker(python, "helper.log", |command| {
        command.arg(ours(script)).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
    });
}

/// The line for such a helper.
pub fn line(topic: &str, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(topic.as_bytes());
    out.push(b' ');
    out.extend_from_slice(payload);
    out.push(b'\n');
}

/// Redis' PUBLISH.
pub fn redis_publish(channel: &str, message: &[u8], out: &mut Vec<u8>) {
    let (channel_length, message_length) = (channel.len(), message.len());
    let head = format!("*3\r\n$7\r\nPUBLISH\r\n${channel_length}\r\n{channel}\r\n${message_length}\r\n");
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(message);
    out.extend_from_slice(b"\r\n");
}

/// A POST on a connection that is kept.
pub fn post(path: &str, body: &[u8], out: &mut Vec<u8>) {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body);
}

/// How a server is spoken to, by those who watch and by who publishes; as in [`Instance`].
pub trait Wire {
    fn handshake(&self, watcher: &Watcher) -> Handshake;

    fn opened(&self, _watcher: &Watcher, _out: &mut Outbox) -> bool {
        true
    }

    fn heard(&self, _watcher: &Watcher, message: &[u8], heard: &mut Heard<'_>) {
        heard.events_in(message);
    }

    fn publication(&self, topic: usize, payload: &[u8], out: &mut Vec<u8>);
}

/// A rival that runs.
pub struct Running<W> {
    processes: Processes,
    version: String,
    address: SocketAddr,
    road: Road,
    wire: W,
}

impl<W: Wire + 'static> Running<W> {
    /// Waits until it serves watchers and takes events.
    ///
    /// # Errors
    /// It does not, in the words of its log.
    pub fn once_ready(
        processes: Processes,
        version: String,
        port: u16,
        road: Road,
        wire: W,
    ) -> Outcome<Box<dyn Instance>> {
        let address = local(port);
        processes.until_listening(&[address, road.address], PATIENCE, LOG)?;
        Ok(Box::new(Self { processes, version, address, road, wire }))
    }
}

impl<W: Wire> Instance for Running<W> {
    fn version(&self) -> String {
        self.version.clone()
    }

    fn processes(&self) -> &Processes {
        &self.processes
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn handshake(&self, watcher: &Watcher) -> Handshake {
        self.wire.handshake(watcher)
    }

    fn opened(&self, watcher: &Watcher, out: &mut Outbox) -> bool {
        self.wire.opened(watcher, out)
    }

    fn heard(&self, watcher: &Watcher, message: &[u8], heard: &mut Heard<'_>) {
        self.wire.heard(watcher, message, heard);
    }

    fn road(&self) -> Road {
        self.road.clone()
    }

    fn publication(&self, topic: usize, payload: &[u8], out: &mut Vec<u8>) {
        self.wire.publication(topic, payload, out);
    }
}
