//! The brokers that taskcast reads, private to this run, and how events are brought to them.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use super::amqp;
use crate::{
    Outcome,
    payload::{self, Stamp, now_ns, topic_name},
    place::Place,
    processes::Processes,
    server::Road,
    support::brokers::{RabbitServer, look_for},
};

/// The Redis stream's key.
const STREAM: &str = "taskcast:events";
/// What the stream keeps, as the README tells a worker to have it.
const STREAM_EVENTS_MAX: &str = "1000000";
const EXCHANGE: &str = "taskcast.events";

/// Events that are sent to Redis before their answers are read.
const FILL_BATCH_EVENTS: usize = 1_000;
const READY_PATIENCE: Duration = Duration::from_secs(20);

pub enum Broker {
    Redis { processes: Processes, address: SocketAddr },
    Rabbitmq(Box<RabbitServer>),
}

impl Broker {
    /// A Redis without persistence: it waits for no disk.
    ///
    /// # Errors
    /// It does not start.
    pub fn redis(place: &Place) -> Outcome<Self> {
        let program = look_for(&["redis-server"]).ok_or("install redis-server (apt-get install redis-server)")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, place.port()));
        let port = address.port().to_string();
        let mut processes = Processes::new("redis");
        let folder = processes.folder().to_owned();
        processes.start_broker(&program, "redis.log", |command| {
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port]);
            command.arg("--dir").arg(folder);
        });
        processes.until_listening(&[address], READY_PATIENCE, "redis.log")?;
        Ok(Self::Redis { processes, address })
    }

    /// # Errors
    /// The kernel's.
    pub fn rabbitmq() -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self::Rabbitmq(Box::new(runtime.block_on(RabbitServer::start()))))
    }

    pub fn url(&self) -> String {
        match self {
            Self::Redis { address, .. } => format!("redis://{address}"),
            Self::Rabbitmq(rabbit) => rabbit.url(),
        }
    }

    /// Of the process groups that are counted as the broker.
    pub fn pids(&self) -> Vec<u32> {
        match self {
            Self::Redis { processes, .. } => processes.broker_pids().collect(),
            Self::Rabbitmq(rabbit) => vec![rabbit.pid()],
        }
    }

    pub fn road(&self) -> Road {
        match self {
            Self::Redis { address, .. } => Road { address: *address, opening: Vec::new() },
            Self::Rabbitmq(rabbit) => {
                Road { address: (Ipv4Addr::LOCALHOST, rabbit.port()).into(), opening: amqp::opening() }
            }
        }
    }

    pub fn publication(&self, topic: usize, payload: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Redis { .. } => {
                let limit = STREAM_EVENTS_MAX.as_bytes();
                command(&[b"XADD", STREAM.as_bytes(), b"MAXLEN", b"~", limit, b"*", b"event", payload], out);
            }
            Self::Rabbitmq(_) => amqp::publish(EXCHANGE, &format!("task.{}", topic_name(topic)), payload, out),
        }
    }

    /// Publishes so many events of these tasks in turn, as fast as they are taken. Those of Redis are there afterwards.
    /// RabbitMQ may still be at it: closed before, the connection that is handed out would take with it what it has not read.
    ///
    /// # Errors
    /// The connection's.
    pub fn fill(&self, events: usize, tasks: usize) -> Outcome<TcpStream> {
        let road = self.road();
        let mut stream = TcpStream::connect(road.address)?;
        stream.set_nodelay(true)?;
        stream.write_all(&road.opening)?;
        let (mut out, mut event) = (Vec::new(), Vec::new());
        for number in 0..events {
            let topic = number % tasks;
            let stamp = Stamp { topic: topic as u32, number: (number / tasks) as u32 + 1, sent_ns: now_ns() };
            payload::write(stamp, &mut event);
            self.publication(topic, &event, &mut out);
            let waiting = number % FILL_BATCH_EVENTS + 1;
            if waiting == FILL_BATCH_EVENTS || number + 1 == events {
                stream.write_all(&out)?;
                out.clear();
                if matches!(self, Self::Redis { .. }) {
                    skip_answers(&mut stream, waiting)?;
                }
            }
        }
        Ok(stream)
    }
}

/// Reads what Redis answers to so many XADD: two lines each.
fn skip_answers(stream: &mut TcpStream, answers: usize) -> Outcome<()> {
    let mut buffer = [0; 16 * 1024];
    let (mut lines, mut at_line_start) = (2 * answers, true);
    while lines > 0 {
        let read = stream.read(&mut buffer)?;
        // A line that begins with a minus is an error.
        let is_error = at_line_start && buffer[0] == b'-' || memchr::memmem::find(&buffer[..read], b"\n-").is_some();
        if read == 0 || is_error {
            return Err(format!("Redis does not take events: {}", String::from_utf8_lossy(&buffer[..read])).into());
        }
        at_line_start = buffer[read - 1] == b'\n';
        lines -= memchr::memchr_iter(b'\n', &buffer[..read]).count();
    }
    Ok(())
}

/// One command in the Redis protocol.
pub fn command(words: &[&[u8]], out: &mut Vec<u8>) {
    // Writing to a vector does not fail.
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n", word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}
