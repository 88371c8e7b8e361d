//! Centrifuge, the engine of Centrifugo, in its JSON protocol; events come to it by POST.

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

const PROGRAM: &str = "centrifuge";

pub struct Centrifuge;

impl Server for Centrifuge {
    fn name(&self) -> &'static str {
        "centrifuge"
    }

    fn missing(&self) -> Option<String> {
        common::missing("centrifuge", &[common::installed(PROGRAM)])
    }

    fn start(&self, place: &Place) -> Outcome<Box<dyn Instance>> {
        let mut processes = Processes::new("centrifuge");
        let port = place.port();
        processes.start_server(place, &common::installed(PROGRAM), LOG, |command| {
            command.arg(port.to_string());
        })?;
        let library = common::debian_version("golang-github-centrifugal-centrifuge-dev");
        let go = common::said_by(Command::new(common::installed("venv/bin/go")).arg("version"));
        let version = format!("centrifuge {library}, {}", go.replace("go version go", "Go "));
        let road = Road { address: common::local(port), opening: Vec::new() };
        Running::once_ready(processes, version, port, road, Channels)
    }
}

struct Channels;

impl Wire for Channels {
    fn handshake(&self, _watcher: &Watcher) -> Handshake {
        Handshake { path: "/watch".to_owned(), headers: Vec::new() }
    }

    fn opened(&self, watcher: &Watcher, out: &mut Outbox) -> bool {
        let topic = topic_name(watcher.topic);
        // To connect is method 0, to subscribe 1.
        out.text(&format!(
            "{{\"id\":1,\"params\":{{}}}}\n{{\"id\":2,\"method\":1,\"params\":{{\"channel\":\"{topic}\"}}}}"
        ));
        false
    }

    fn heard(&self, _watcher: &Watcher, message: &[u8], heard: &mut Heard<'_>) {
        if !heard.is_ready() && memchr::memmem::find(message, b"\"id\":2,\"result\"").is_some() {
            heard.ready();
        }
        heard.events_in(message);
    }

    fn publication(&self, topic: usize, payload: &[u8], out: &mut Vec<u8>) {
        common::post(&format!("/publish/{}", topic_name(topic)), payload, out);
    }
}
