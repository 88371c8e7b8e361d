//! How the process ends: the first signal asks, the second one insists; and how many files it may open until then. Refuses
//! to know: what has to be drained.

use std::io;

use tokio_util::sync::CancellationToken;

/// What a shell reports for a process that a signal ended: 128 and the signal's number.
const EXIT_INTERRUPTED: i32 = 130;
const EXIT_TERMINATED: i32 = 143;

/// The process's wish to end.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    /// Cancelled by the first SIGTERM or SIGINT: stop accepting, drain, return.
    pub stop: CancellationToken,
}

#[derive(Clone, Copy)]
enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    fn exit_code(self) -> i32 {
        match self {
            Self::Interrupt => EXIT_INTERRUPTED,
            Self::Terminate => EXIT_TERMINATED,
        }
    }
}

impl Lifecycle {
    /// Listens to signals from now on. The second one ends the process at once, with 130 (SIGINT) or 143 (SIGTERM).
    ///
    /// # Errors
    /// When the system does not let the process listen.
    pub fn start() -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut signals = Signals::new()?;
        let first = stop.clone();
        // Lives as long as the process, as the second signal may come at any time.
        tokio::spawn(async move {
            let signal = signals.next().await;
            tracing::info!(signal = signal.name(), "stopping; once more to stop at once");
            first.cancel();
            let signal = signals.next().await;
            tracing::warn!(signal = signal.name(), "stopping at once");
            std::process::exit(signal.exit_code());
        });
        Ok(Self { stop })
    }
}

/// Raises the limit of open files to what the system allows, since each connection is one and many systems begin with
/// 1,024. Answers the limit then, if there is one.
#[cfg(unix)]
pub fn raise_open_files() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused, it stays as it was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current
}

#[cfg(not(unix))]
pub fn raise_open_files() -> Option<u64> {
    None
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal::Interrupt
    }
}

#[cfg(all(test, unix))]
mod tests {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    #[test]
    fn the_limit_of_open_files_is_raised_to_what_is_allowed() {
        let limit = getrlimit(Resource::Nofile);
        // Other tests run in this process, so it is lowered by little.
        let lower = limit.maximum.map(|most| most - 1);
        setrlimit(Resource::Nofile, Rlimit { current: lower, ..limit }).unwrap();
        assert_eq!(raise_open_files(), limit.maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
    }
}
