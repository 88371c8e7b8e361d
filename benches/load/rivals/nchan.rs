//! nchan: nginx keeps the channels itself; events come to it by POST.

use std::process::Command;

use super::common::{self, LOG, Running, Wire};
use crate::{
    Outcome,
    payload::topic_name,
    place::Place,
    processes::Processes,
    server::{Handshake, Instance, Road, Server, Watcher},
};

const PROGRAM: &str = "usr/sbin/nginx";
const MODULE: &str = "usr/lib/nginx/modules/ngx_nchan_module.so";

pub struct Nchan;

impl Server for Nchan {
    fn name(&self) -> &'static str {
        "nchan"
    }

    fn missing(&self) -> Option<String> {
        common::missing("nchan", &[common::debian(PROGRAM), common::debian(MODULE)])
    }

    fn start(&self, place: &Place) -> Outcome<Box<dyn Instance>> {
        let mut processes = Processes::new("nchan");
        let port = place.port();
        let folder = processes.folder().display().to_string();
        let words = [
            ("MODULE", common::debian(MODULE).display().to_string()),
            ("PORT", port.to_string()),
            ("CONNECTIONS", (2 * place.watchers_max + 200).to_string()),
            ("WAITING", (2 * place.events_waiting_max).to_string()),
            ("FOLDER", folder.clone()),
        ];
        let configuration = common::configured(&processes, "nchan.conf", &words)?;
        let program = common::debian(PROGRAM);
        processes.start_server(place, &program, LOG, |command| {
            common::with_libraries(command).args(["-p", &folder, "-c"]).arg(configuration);
        })?;
        let nginx = common::said_by(common::with_libraries(Command::new(program).arg("-v")));
        let nginx = nginx.replace("nginx version: nginx/", "nginx ");
        let version = format!("nchan {}, {nginx}", common::debian_version("libnginx-mod-nchan"));
        let road = Road { address: common::local(port), opening: Vec::new() };
        Running::once_ready(processes, version, port, road, Channels)
    }
}

struct Channels;

impl Wire for Channels {
    fn handshake(&self, watcher: &Watcher) -> Handshake {
        Handshake { path: format!("/watch/{}", topic_name(watcher.topic)), headers: Vec::new() }
    }

    fn publication(&self, topic: usize, payload: &[u8], out: &mut Vec<u8>) {
        common::post(&format!("/publish/{}", topic_name(topic)), payload, out);
    }
}
