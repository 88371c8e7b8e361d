//! The processes of one server, and what they took: CPU time and memory, from /proc.

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use crate::{Outcome, payload::now_ns, place::Place, support::brokers::Kennel};

/// Of `/proc/PID/stat`: Linux reports in hundredths of a second on every platform.
const TICK: Duration = Duration::from_millis(10);

const POLL: Duration = Duration::from_millis(20);

/// All of them end with this, and when the harness is gone. Each is started in a process group of its own, and all that
/// belongs to the group is counted: workers, helpers, an Erlang machine.
pub struct Processes {
    kennel: Kennel,
    server: BTreeSet<u32>,
    broker: BTreeSet<u32>,
}

/// User and system time together; a server's and, apart from it, its broker's. `server_user` comes in hundredths of a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    pub server: Duration,
    pub server_user: Duration,
    pub broker: Duration,
}

impl std::ops::Sub for CpuTime {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            server: self.server.saturating_sub(earlier.server),
            server_user: self.server_user.saturating_sub(earlier.server_user),
            broker: self.broker.saturating_sub(earlier.broker),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    pub resident_bytes: u64,
    /// What is shared with other processes counts by its part.
    pub proportional_bytes: u64,
}

impl Processes {
    pub fn new(name: &str) -> Self {
        Self { kennel: Kennel::new(&format!("load-{name}")), server: BTreeSet::new(), broker: BTreeSet::new() }
    }

    /// Data and configuration go here; it is removed at the end.
    pub fn folder(&self) -> &Path {
        &self.kennel.folder
    }

    /// Starts a process of the server itself, on the server's core. Its output goes into the file `log` in
    /// [`Self::folder`]. It must not leave its process group (`daemon off`).
    ///
    /// # Errors
    /// The kernel's, when it cannot be pinned.
    pub fn start_server(
        &mut self,
        place: &Place,
        program: &Path,
        log: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Outcome<u32> {
        let pid = place.on_the_servers_core(|| self.kennel.start(program, log, prepare))?.id();
        self.server.insert(pid);
        Ok(pid)
    }

    /// Starts something that the server needs and that is not counted as the server: a Redis, a publisher's helper. It
    /// runs on the core of the load.
    pub fn start_broker(&mut self, program: &Path, log: &str, prepare: impl FnOnce(&mut Command)) -> u32 {
        let pid = self.kennel.start(program, log, prepare).id();
        self.broker.insert(pid);
        pid
    }

    /// Counts the process group of a broker that somebody else started.
    pub fn count_broker(&mut self, pid: u32) {
        self.broker.insert(pid);
    }

    pub fn broker_pids(&self) -> impl Iterator<Item = u32> {
        self.broker.iter().copied()
    }

    /// Waits until somebody listens on all of these.
    ///
    /// # Errors
    /// Nobody did in time, or the server ended: with the last words of its log.
    pub fn until_listening(&self, addresses: &[SocketAddr], patience: Duration, log: &str) -> Outcome<()> {
        self.until(patience, log, || addresses.iter().all(|address| TcpStream::connect(address).is_ok()))
    }

    /// Asks again and again until it is so.
    ///
    /// # Errors
    /// As above.
    pub fn until(&self, patience: Duration, log: &str, mut is_so: impl FnMut() -> bool) -> Outcome<()> {
        let deadline = now_ns() + patience.as_nanos() as u64;
        while !is_so() {
            if now_ns() > deadline || !self.are_alive() {
                return Err(format!("it does not serve; its last words:\n{}", self.last_words(log)).into());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// The last lines of a log, for errors.
    pub fn last_words(&self, log: &str) -> String {
        let log = self.kennel.log(log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    pub fn cpu(&self) -> CpuTime {
        let mut time = CpuTime::default();
        for (pid, stat) in all() {
            if self.server.contains(&stat.group) {
                time.server += on_cpu(pid).unwrap_or(stat.user + stat.system);
                time.server_user += stat.user;
            } else if self.broker.contains(&stat.group) {
                time.broker += on_cpu(pid).unwrap_or(stat.user + stat.system);
            }
        }
        time
    }

    /// Of the server, without its broker.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for (pid, _) in all().filter(|(_, stat)| self.server.contains(&stat.group)) {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            memory.resident_bytes += kilobytes(&rollup, "Rss:") * 1024;
            memory.proportional_bytes += kilobytes(&rollup, "Pss:") * 1024;
        }
        memory
    }

    /// Whether every process of the server that was started still runs.
    pub fn are_alive(&self) -> bool {
        let alive: BTreeSet<u32> = all().filter(|(_, stat)| stat.is_running).map(|(pid, _)| pid).collect();
        self.server.is_subset(&alive)
    }
}

struct Stat {
    group: u32,
    user: Duration,
    system: Duration,
    is_running: bool,
}

fn all() -> impl Iterator<Item = (u32, Stat)> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = folders.filter_map(|folder| folder.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)))
}

/// To the nanosecond, where the kernel counts it: `/proc/PID/task/TID/schedstat`, by thread. What a thread had that is gone
/// is missing.
fn on_cpu(pid: u32) -> Option<Duration> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let times = threads.filter_map(|thread| -> Option<u64> {
        let schedstat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse().ok()
    });
    let total = times.sum();
    (total > 0).then(|| Duration::from_nanos(total))
}

fn stat(text: &str) -> Option<Stat> {
    // The name before the last parenthesis may hold anything.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    let ticks = |index: usize| Some(TICK * fields.get(index)?.parse::<u32>().ok()?);
    Some(Stat {
        group: fields.get(2)?.parse().ok()?,
        user: ticks(11)?,
        system: ticks(12)?,
        is_running: !matches!(fields.first(), Some(&"Z" | &"X")),
    })
}

fn kilobytes(rollup: &str, name: &str) -> u64 {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
