//! sockudo, which speaks Pusher's protocol. A Python process brings events to it, signed, by POST.

use std::{path::PathBuf, process::Command};

use super::common::{self, LOG, Running, Wire};
use crate::{
    Outcome,
    payload::topic_name,
    place::Place,
    processes::Processes,
    server::{Handshake, Heard, Instance, Road, Server, Watcher},
    websocket::Outbox,
};

const PROGRAM: &str = "cargo/bin/sockudo";

/// Of the application that every installation begins with.
const KEY: &str = "bench";

/// An event is longer than anything that is said besides, but the confirmation of a subscription.
const SHORT: usize = 200;

pub struct Sockudo;

impl Server for Sockudo {
    fn name(&self) -> &'static str {
        "sockudo"
    }

    fn missing(&self) -> Option<String> {
        common::missing("sockudo", &[common::installed(PROGRAM)])
            .or_else(|| common::missing_program("python3", "python3"))
    }

    fn start(&self, place: &Place) -> Outcome<Box<dyn Instance>> {
        let mut processes = Processes::new("sockudo");
        let (port, publishing_port) = (place.port(), place.port());
        let words = [("PORT", port.to_string()), ("DESCRIPTORS", common::descriptors(place))];
        let configuration = common::configured(&processes, "sockudo.json", &words)?;
        let program = common::installed(PROGRAM);
        processes.start_server(place, &program, LOG, |command| {
            command.arg("--config").arg(configuration).env("RUST_LOG", "warn");
        })?;
        let arguments = [publishing_port.to_string(), port.to_string()];
        common::start_helper(&mut processes, &PathBuf::from("python3"), "sockudo/publish.py", &arguments);
        let version = common::said_by(Command::new(program).arg("--version"));
        let road = Road { address: common::local(publishing_port), opening: Vec::new() };
        Running::once_ready(processes, version, port, road, Pusher)
    }
}

struct Pusher;

impl Wire for Pusher {
    fn handshake(&self, _watcher: &Watcher) -> Handshake {
        Handshake { path: format!("/app/{KEY}?protocol=7&client=bench&version=1"), headers: Vec::new() }
    }

    fn opened(&self, _watcher: &Watcher, _out: &mut Outbox) -> bool {
        false
    }

    fn heard(&self, watcher: &Watcher, message: &[u8], heard: &mut Heard<'_>) {
        let says = |what: &[u8]| memchr::memmem::find(message, what).is_some();
        if message.len() > SHORT {
            heard.events_in(message);
        } else if says(b"pusher:connection_established") {
            let topic = topic_name(watcher.topic);
            heard.out.text(&format!("{{\"event\":\"pusher:subscribe\",\"data\":{{\"channel\":\"{topic}\"}}}}"));
        } else if says(b"subscription_succeeded") {
            heard.ready();
        } else if says(b"pusher:ping") {
            heard.out.text("{\"event\":\"pusher:pong\",\"data\":{}}");
        }
    }

    fn publication(&self, topic: usize, payload: &[u8], out: &mut Vec<u8>) {
        common::line(&topic_name(topic), payload, out);
    }
}
