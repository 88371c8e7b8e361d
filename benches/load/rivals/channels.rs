//! Django Channels: a consumer that joins a group, served by Daphne or uvicorn, over either of the layers that
//! `channels_redis` has. Events are brought to it by a Python process that calls `group_send`.

use std::process::Command;

use super::common::{self, LOG, Running, Wire};
use crate::{
    Outcome,
    payload::topic_name,
    place::Place,
    processes::Processes,
    server::{Handshake, Instance, Road, Server, Watcher},
};

const PYTHON: &str = "venv/bin/python";

const VERSIONS: &str = "
import platform, sys
from importlib.metadata import version
names = ['channels', 'channels_redis', 'Django', sys.argv[1]] + (['uvloop', 'websockets'] if sys.argv[1] == 'uvicorn' else ['twisted'])
print(', '.join(f'{name} {version(name)}' for name in names) + ', Python ' + platform.python_version())";

pub struct Channels {
    pub name: &'static str,
    pub server: &'static str,
    pub layer: &'static str,
}

impl Server for Channels {
    fn name(&self) -> &'static str {
        self.name
    }

    fn missing(&self) -> Option<String> {
        let files = [common::installed(PYTHON), common::installed("venv/bin").join(self.server)];
        common::missing("channels", &files).or_else(|| common::missing_program("redis-server", "redis-server"))
    }

    fn start(&self, place: &Place) -> Outcome<Box<dyn Instance>> {
        let mut processes = Processes::new(self.name);
        let redis_port = common::start_redis(&mut processes, place)?;
        let (port, publishing_port) = (place.port(), place.port());
        let python = common::installed(PYTHON);
        processes.start_server(place, &python, LOG, |command| {
            command.arg(common::ours("channels/server.py")).args([self.server, self.layer]);
            command.args([port.to_string(), redis_port.to_string()]).env("PYTHONDONTWRITEBYTECODE", "1");
        })?;
        let arguments = [publishing_port.to_string(), self.layer.to_owned(), redis_port.to_string()];
        common::start_helper(&mut processes, &python, "channels/publish.py", &arguments);
        let version = common::said_by(Command::new(python).args(["-c", VERSIONS, self.server]));
        let road = Road { address: common::local(publishing_port), opening: Vec::new() };
        Running::once_ready(processes, version, port, road, Groups)
    }
}

struct Groups;

impl Wire for Groups {
    fn handshake(&self, watcher: &Watcher) -> Handshake {
        Handshake { path: format!("/{}", topic_name(watcher.topic)), headers: Vec::new() }
    }

    fn publication(&self, topic: usize, payload: &[u8], out: &mut Vec<u8>) {
        common::line(&topic_name(topic), payload, out);
    }
}
