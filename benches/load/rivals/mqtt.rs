//! Mosquitto: MQTT 3.1.1, of quality 0, over WebSockets for those who watch and over TCP for who publishes.

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

const PROGRAM: &str = "usr/sbin/mosquitto";

const CONNECT: u8 = 0x10;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const SUBSCRIBED: u8 = 0x90;

pub struct Mosquitto;

impl Server for Mosquitto {
    fn name(&self) -> &'static str {
        "mosquitto"
    }

    fn missing(&self) -> Option<String> {
        common::missing("mosquitto", &[common::debian(PROGRAM)])
    }

    fn start(&self, place: &Place) -> Outcome<Box<dyn Instance>> {
        let mut processes = Processes::new("mosquitto");
        let (port, publishing_port) = (place.port(), place.port());
        let words = [
            ("PORT", port.to_string()),
            ("PUBLISHING_PORT", publishing_port.to_string()),
            ("WAITING", (2 * place.events_waiting_max).to_string()),
        ];
        let configuration = common::configured(&processes, "mosquitto.conf", &words)?;
        let program = common::debian(PROGRAM);
        processes.start_server(place, &program, LOG, |command| {
            common::with_libraries(command).arg("-c").arg(configuration);
        })?;
        let version = common::said_by(common::with_libraries(Command::new(program).arg("-h")));
        let opening = connect("publisher");
        let road = Road { address: common::local(publishing_port), opening };
        Running::once_ready(processes, version.replace(" version", ""), port, road, Mqtt)
    }
}

struct Mqtt;

impl Wire for Mqtt {
    fn handshake(&self, _watcher: &Watcher) -> Handshake {
        Handshake { path: "/mqtt".to_owned(), headers: vec![("Sec-WebSocket-Protocol", "mqtt".to_owned())] }
    }

    fn opened(&self, watcher: &Watcher, out: &mut Outbox) -> bool {
        out.binary(&connect(&format!("watcher-{}", watcher.number)));
        // The packet's number, the topic, the quality.
        let mut body = vec![0, 1];
        string(&topic_name(watcher.topic), &mut body);
        body.push(0);
        out.binary(&packet(SUBSCRIBE, &body));
        false
    }

    fn heard(&self, _watcher: &Watcher, message: &[u8], heard: &mut Heard<'_>) {
        if !heard.is_ready() && is_subscribed(message) {
            heard.ready();
        }
        heard.events_in(message);
    }

    fn publication(&self, topic: usize, payload: &[u8], out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(payload.len() + 32);
        string(&topic_name(topic), &mut body);
        body.extend_from_slice(payload);
        out.append(&mut packet(PUBLISH, &body));
    }
}

/// Clean, and without a keep-alive.
fn connect(client: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0];
    string(client, &mut body);
    packet(CONNECT, &body)
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut length = body.len();
    while length > 0x7F {
        packet.push(0x80 | (length & 0x7F) as u8);
        length >>= 7;
    }
    packet.push(length as u8);
    packet.extend_from_slice(body);
    packet
}

/// Whether one of these packets says so. The answers to CONNECT and SUBSCRIBE are shorter than 128 bytes.
fn is_subscribed(mut packets: &[u8]) -> bool {
    while let [kind, length, rest @ ..] = packets {
        if *kind == SUBSCRIBED {
            // The packet's number, and the quality or that it was refused.
            return matches!(rest, [0, 1, 0, ..]);
        }
        packets = rest.get(usize::from(*length)..).unwrap_or_default();
    }
    false
}
