//! NATS: its own protocol, over WebSockets for those who watch and over TCP for who publishes.

use std::process::Command;

use super::common::{self, LOG, Running, Wire};
use crate::{
    Outcome,
    payload::topic_name,
    place::Place,
    processes::Processes,
    server::{Handshake, Heard, Instance, Road, Server, Watcher},
    websocket::Outbox,
};

const PROGRAM: &str = "venv/bin/nats-server";

pub struct Nats;

impl Server for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn missing(&self) -> Option<String> {
        common::missing("nats", &[common::installed(PROGRAM)])
    }

    fn start(&self, place: &Place) -> Outcome<Box<dyn Instance>> {
        let mut processes = Processes::new("nats");
        let (port, publishing_port) = (place.port(), place.port());
        let words = [
            ("PORT", port.to_string()),
            ("PUBLISHING_PORT", publishing_port.to_string()),
            ("DESCRIPTORS", common::descriptors(place)),
        ];
        let configuration = common::configured(&processes, "nats.conf", &words)?;
        let program = common::installed(PROGRAM);
        processes.start_server(place, &program, LOG, |command| {
            command.arg("-c").arg(configuration);
        })?;
        let version = common::said_by(Command::new(program).arg("--version")).replace("nats-server: v", "NATS ");
        let opening = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"name\":\"publisher\"}\r\n".to_vec();
        let road = Road { address: common::local(publishing_port), opening };
        Running::once_ready(processes, version, port, road, Subjects)
    }
}

struct Subjects;

impl Wire for Subjects {
    fn handshake(&self, _watcher: &Watcher) -> Handshake {
        Handshake { path: "/".to_owned(), headers: Vec::new() }
    }

    fn opened(&self, watcher: &Watcher, out: &mut Outbox) -> bool {
        let topic = topic_name(watcher.topic);
        let text = format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {topic} 1\r\nPING\r\n");
        out.binary(text.as_bytes());
        false
    }

    fn heard(&self, _watcher: &Watcher, message: &[u8], heard: &mut Heard<'_>) {
        // The answer to the ping that came after the subscription.
        if !heard.is_ready() && memchr::memmem::find(message, b"PONG\r\n").is_some() {
            heard.ready();
        }
        if message.ends_with(b"PING\r\n") {
            heard.out.binary(b"PONG\r\n");
        }
        heard.events_in(message);
    }

    fn publication(&self, topic: usize, payload: &[u8], out: &mut Vec<u8>) {
        let head = format!("PUB {} {}\r\n", topic_name(topic), payload.len());
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }
}
