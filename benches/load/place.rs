//! Where servers run: cores, ports, limits. The server under test has one core for itself; everything else, this
//! harness, brokers and publishers, has the other.

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use crate::{Outcome, support::brokers::free_port};

/// More descriptors than watchers: brokers' sockets, files, listeners.
const DESCRIPTORS_BESIDES_WATCHERS: u64 = 200;

/// For scenarios that ask for no more: what taskcast keeps of a task by default.
pub const EVENTS_WAITING_DEFAULT: usize = 16;

/// The cores that this process was given, and who gets which.
#[derive(Clone, Debug)]
pub struct Place {
    /// `None`: there is only one core, and nothing is pinned.
    pub cores: Option<Cores>,
    /// The most watchers that will connect; limits of a server have to allow them.
    pub watchers_max: usize,
    /// For how many, of all servers together, this process can have files.
    pub watchers_at_once: usize,
    /// How many events of one task may wait for a watcher: what a server keeps per topic has to be more.
    pub events_waiting_max: usize,
}

#[derive(Clone, Copy, Debug)]
pub struct Cores {
    pub server: usize,
    pub load: usize,
}

impl Place {
    /// Pins this process to the core of the load, and with it whatever it starts.
    ///
    /// # Errors
    /// The kernel's, when affinities or limits cannot be set.
    pub fn prepare(watchers_max: usize) -> Outcome<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let cores = match (allowed.next(), allowed.next()) {
            (Some(server), Some(load)) => Some(Cores { server, load }),
            _ => None,
        };
        if let Some(cores) = cores {
            pin_to(cores.load)?;
        }
        let hard = getrlimit(Resource::Nofile).maximum;
        let wanted = watchers_max as u64 + DESCRIPTORS_BESIDES_WATCHERS;
        if hard.is_some_and(|hard| hard < wanted) {
            return Err(format!("{watchers_max} watchers need {wanted} file descriptors: raise `ulimit -Hn`").into());
        }
        setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })?;
        let watchers_at_once = hard.map_or(u64::MAX, |hard| hard - DESCRIPTORS_BESIDES_WATCHERS) as usize;
        Ok(Self { cores, watchers_at_once, watchers_max, events_waiting_max: EVENTS_WAITING_DEFAULT })
    }

    /// A port that nobody listens on.
    #[expect(clippy::unused_self, reason = "ports belong to a place")]
    pub fn port(&self) -> u16 {
        free_port()
    }

    /// Runs `start` such that the processes that it starts are pinned to the server's core.
    ///
    /// # Errors
    /// Those of `start`, or the kernel's.
    pub fn on_the_servers_core<T>(&self, start: impl FnOnce() -> T) -> Outcome<T> {
        let Some(cores) = self.cores else { return Ok(start()) };
        // A child has the affinity of the thread that starts it, from its first instruction on.
        pin_to(cores.server)?;
        let started = start();
        pin_to(cores.load)?;
        Ok(started)
    }
}

fn pin_to(core: usize) -> Outcome<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}
