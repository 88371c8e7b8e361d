//! How the process ends: the first signal asks, the second one insists. Refuses to know: what has to be drained.

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
