//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::servers::floor::Mode;

/// Brings load to taskcast, to a reference that does the least that a server can do, and to other servers.
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
#[derive(Debug, Parser)]
#[command(name = "load", bin_name = "cargo bench --bench load --")]
pub struct Options {
    /// fan-out, own-task, latency, idle, tasks, storm, resume-storm, replay, ingest; check, soak. None: all but these two
    pub scenarios: Vec<String>,

    /// A third of the time, for smaller figures of the same kind
    #[arg(long)]
    pub quick: bool,

    /// 50 watchers and a moment of everything: does the harness work? Targets are not judged
    #[arg(long)]
    pub smoke: bool,

    /// Only these servers, with commas between them; `list` names them
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub server: Vec<String>,

    /// All other servers too
    #[arg(long)]
    pub rivals: bool,

    /// Other numbers of watchers, with commas between them, for scenarios that have several; the largest for the others
    #[arg(long, value_delimiter = ',', value_name = "N")]
    pub watchers: Vec<usize>,

    /// How often everything is measured, in turns over the servers; medians are shown [default: 3, quick: 1]
    #[arg(long, value_name = "N")]
    pub repeat: Option<usize>,

    /// How long one measurement lasts [default: 5, quick: 2]
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,

    /// How long the soak lasts
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub minutes: u64,

    /// Another taskcast than the one that cargo has built
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,

    /// Where results.json, results.md and the plots go
    #[arg(long, default_value = "target/bench", value_name = "FOLDER")]
    pub out: PathBuf,

    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// How much of everything there is.
#[derive(Clone, Debug)]
pub struct Size {
    pub fan_out_watchers: Vec<usize>,
    pub latency_watchers: Vec<usize>,
    /// Steps on the way to the most.
    pub idle_watchers: Vec<usize>,
    pub many_watchers: usize,
    pub events_per_second: f64,
    pub frames_before_idle: u32,
    pub retained_tasks: Vec<usize>,
    pub replay_redis_events: usize,
    pub replay_rabbitmq_events: usize,
    pub seconds: u64,
    pub repeat: usize,
    /// With a RabbitMQ, which takes seconds to start.
    pub with_rabbitmq: bool,
}

impl Options {
    /// Whether a server takes part in this run.
    pub fn wants(&self, server: &str) -> bool {
        let floor = Mode::of(server).map(|_| Mode::Each.server());
        match (self.server.is_empty(), self.rivals) {
            (true, true) => true,
            (true, false) => floor.is_some() || server == "taskcast",
            // Who names the floor wants whichever form a case compares with.
            (false, _) => self.server.iter().any(|wanted| wanted == server || Some(wanted.as_str()) == floor),
        }
    }

    pub fn size(&self) -> Size {
        let full = Size {
            fan_out_watchers: vec![100, 1_000, 5_000],
            latency_watchers: vec![1_000, 10_000],
            idle_watchers: vec![1_000, 2_500, 5_000, 10_000],
            many_watchers: 10_000,
            events_per_second: 5_000.0,
            frames_before_idle: 1_000,
            retained_tasks: vec![10_000, 50_000, 100_000],
            replay_redis_events: 1_000_000,
            replay_rabbitmq_events: 300_000,
            seconds: 5,
            repeat: 3,
            with_rabbitmq: true,
        };
        let mut size = if self.smoke {
            Size {
                fan_out_watchers: vec![50],
                latency_watchers: vec![50],
                idle_watchers: vec![25, 50],
                many_watchers: 50,
                events_per_second: 200.0,
                frames_before_idle: 20,
                retained_tasks: vec![100, 200],
                replay_redis_events: 1_000,
                replay_rabbitmq_events: 500,
                seconds: 0,
                repeat: 1,
                with_rabbitmq: false,
            }
        } else if self.quick {
            Size { replay_redis_events: 200_000, replay_rabbitmq_events: 60_000, seconds: 2, repeat: 1, ..full }
        } else {
            full
        };
        size.seconds = self.seconds.unwrap_or(size.seconds);
        size.repeat = self.repeat.unwrap_or(size.repeat).max(1);
        if let Some(most) = self.watchers.iter().max() {
            size.fan_out_watchers.clone_from(&self.watchers);
            size.latency_watchers.clone_from(&self.watchers);
            size.idle_watchers.clone_from(&self.watchers);
            size.idle_watchers.sort_unstable();
            size.many_watchers = *most;
        }
        size
    }
}
