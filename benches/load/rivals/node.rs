//! Servers on Node and Bun that are fed by Redis' PUBLISH: ws, Bun's own, Socket.IO with its adapter.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use super::common::{self, LOG, Running, Wire};
use crate::{
    Outcome,
    payload::topic_name,
    place::Place,
    processes::Processes,
    server::{Handshake, Heard, Instance, Road, Server, Watcher},
};

const BUN: &str = "node_modules/@oven/bun-linux-x64/bin/bun";

pub struct Ws;
pub struct Bun;
pub struct SocketIo;

impl Server for Ws {
    fn name(&self) -> &'static str {
        "ws"
    }

    fn missing(&self) -> Option<String> {
        missing("ws")
    }

    fn start(&self, place: &Place) -> Outcome<Box<dyn Instance>> {
        let version = format!("ws {}, {}, {}", module_version("ws"), node_version(), redis_version());
        start(place, "node/ws.mjs", Path::new("node"), version, Plain)
    }
}

impl Server for Bun {
    fn name(&self) -> &'static str {
        "bun"
    }

    fn missing(&self) -> Option<String> {
        missing("redis").or_else(|| common::missing("node", &[common::installed(BUN)]))
    }

    fn start(&self, place: &Place) -> Outcome<Box<dyn Instance>> {
        let program = common::installed(BUN);
        let version = format!("Bun {}, {}", common::said_by(Command::new(&program).arg("--version")), redis_version());
        start(place, "node/bun.mjs", &program, version, Plain)
    }
}

impl Server for SocketIo {
    fn name(&self) -> &'static str {
        "socketio"
    }

    fn missing(&self) -> Option<String> {
        missing("socket.io")
    }

    fn start(&self, place: &Place) -> Outcome<Box<dyn Instance>> {
        let modules = ["socket.io", "@socket.io/redis-adapter", "ws"];
        let modules = modules.map(|module| format!("{module} {}", module_version(module))).join(", ");
        let version = format!("{modules}, {}, {}", node_version(), redis_version());
        start(place, "node/socketio.mjs", Path::new("node"), version, Rooms)
    }
}

fn missing(module: &str) -> Option<String> {
    let modules = common::installed("node_modules");
    common::missing_program("node", "nodejs")
        .or_else(|| common::missing_program("redis-server", "redis-server"))
        .or_else(|| common::missing("node", &[modules.join(module), modules.join("redis")]))
}

fn start<W: Wire + 'static>(
    place: &Place,
    script: &str,
    program: &Path,
    version: String,
    wire: W,
) -> Outcome<Box<dyn Instance>> {
    let mut processes = Processes::new("node");
    let redis_port = common::start_redis(&mut processes, place)?;
    let port = place.port();
    processes.start_server(place, program, LOG, |command| {
        command.arg(common::ours(script)).args([port.to_string(), redis_port.to_string()]);
        command.env("RIVALS_MODULES", common::installed("node_modules")).env("NODE_ENV", "production");
    })?;
    let road = Road { address: common::local(redis_port), opening: Vec::new() };
    Running::once_ready(processes, version, port, road, wire)
}

fn module_version(module: &str) -> String {
    let package = common::installed("node_modules").join(module).join("package.json");
    let package: Value = serde_json::from_slice(&fs::read(package).unwrap_or_default()).unwrap_or_default();
    package["version"].as_str().unwrap_or("unknown").to_owned()
}

fn node_version() -> String {
    common::said_by(Command::new("node").arg("--version")).replace('v', "Node ")
}

fn redis_version() -> String {
    let said = common::said_by(Command::new("redis-server").arg("--version"));
    let version = said.split_whitespace().find_map(|word| word.strip_prefix("v="));
    format!("Redis {}", version.unwrap_or("unknown"))
}

/// The path is the topic, and a message is an event.
struct Plain;

impl Wire for Plain {
    fn handshake(&self, watcher: &Watcher) -> Handshake {
        Handshake { path: format!("/{}", topic_name(watcher.topic)), headers: Vec::new() }
    }

    fn publication(&self, topic: usize, payload: &[u8], out: &mut Vec<u8>) {
        common::redis_publish(&format!("tasks:{}", topic_name(topic)), payload, out);
    }
}

/// Engine.IO's packets begin with a digit: 0 is its greeting, 2 a ping, 3 a pong, 4 a message; a message's second digit is
/// Socket.IO's: 0 connects, 2 is an event.
struct Rooms;

impl Wire for Rooms {
    fn handshake(&self, watcher: &Watcher) -> Handshake {
        let topic = topic_name(watcher.topic);
        Handshake { path: format!("/socket.io/?EIO=4&transport=websocket&topic={topic}"), headers: Vec::new() }
    }

    fn opened(&self, _watcher: &Watcher, _out: &mut crate::websocket::Outbox) -> bool {
        false
    }

    fn heard(&self, _watcher: &Watcher, message: &[u8], heard: &mut Heard<'_>) {
        match message {
            [b'4', b'2', ..] => heard.events_in(message),
            [b'4', b'0', ..] => heard.ready(),
            [b'0', ..] => heard.out.text("40"),
            [b'2', ..] => heard.out.text("3"),
            _ => {}
        }
    }

    /// What `@socket.io/redis-emitter` publishes: who says it, the packet, and which rooms it is for.
    fn publication(&self, topic: usize, payload: &[u8], out: &mut Vec<u8>) {
        let room = topic_name(topic);
        let event: Value = serde_json::from_slice(payload).unwrap_or_default();
        let packet = serde_json::json!({ "type": 2, "data": ["progress", event], "nsp": "/" });
        let options = serde_json::json!({ "rooms": [room], "except": [], "flags": {} });
        let mut message = Vec::with_capacity(2 * payload.len());
        message_pack(&serde_json::json!(["emitter", packet, options]), &mut message);
        common::redis_publish(&format!("socket.io#/#{room}#"), &message, out);
    }
}

/// As much of `MessagePack` as events need.
fn message_pack(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0xC0),
        Value::Bool(value) => out.push(if *value { 0xC3 } else { 0xC2 }),
        Value::Number(number) => {
            out.push(0xCB);
            out.extend_from_slice(&number.as_f64().unwrap_or_default().to_be_bytes());
        }
        Value::String(text) => {
            out.push(0xDA);
            out.extend_from_slice(&(text.len() as u16).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        Value::Array(items) => {
            out.push(0xDC);
            out.extend_from_slice(&(items.len() as u16).to_be_bytes());
            for item in items {
                message_pack(item, out);
            }
        }
        Value::Object(members) => {
            out.push(0xDE);
            out.extend_from_slice(&(members.len() as u16).to_be_bytes());
            for (name, value) in members {
                message_pack(&Value::String(name.clone()), out);
                message_pack(value, out);
            }
        }
    }
}
