//! Composition: the one place that knows every module and wires them into a running service.
//!
//! Refuses to know: the command line.

mod canary;
mod certificates;
mod checkpoint;
mod dead_letters;
mod feed;
mod freshness;
mod memory;
mod networks;
mod operations_token;
mod revocations;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::checkpoint::ExportRequest;
use self::dead_letters::DeadLetters;
use crate::{
    auth::{Revocations, Verifier},
    clock,
    config::Config,
    http::{self, Context},
    hub::Hub,
    input::Publisher,
    limits::Limits,
    log::{Backend, Checkpoints, Log},
    metrics::{Listener, Metrics},
    proto::TaskId,
    session::{Canary, Drain, Sessions},
    tls::{Acceptor, Files},
    traces::{self, TraceSettings, Traces},
};

/// A running service.
pub struct App {
    address: SocketAddr,
    operations_address: SocketAddr,
    publisher: Publisher,
    /// Holds one token per WebSocket connection.
    open: TaskTracker,
    drain: Drain,
    drain_window: Duration,
    /// Everything that was spawned.
    tasks: TaskTracker,
    /// Cancelled by an internal task that ended unasked.
    failed: CancellationToken,
    /// Hard: everything ends.
    stop: CancellationToken,
}

impl App {
    /// Binds both listeners and starts everything. Port 0 picks a free one.
    ///
    /// # Errors
    /// What could not be started, in words for the operator.
    #[expect(clippy::unused_async, reason = "what it starts needs the caller to be in a runtime")]
    pub async fn start(config: Config) -> Result<Self, String> {
        let metrics = Arc::new(Metrics::new(log_label(&config.log.backend)));
        let stream = config.log.key.clone();
        let log = Log::open(config.log, metrics.clone())?;
        let checkpoints = log.checkpoints(config.checkpoint);
        let hub = Hub::new(config.tasks, metrics.clone());
        let revocations = Revocations::new(config.revocations);
        let verifier = Verifier::counted(config.auth, metrics.clone())?.with_revocations(revocations.clone());
        let publisher = Publisher::new(log.clone());
        let limits = Limits::new(config.limits, metrics.clone(), clock::now());
        // Soft: no new connections, and those that are open are ended with a word.
        let (drain, open) = (Drain::default(), TaskTracker::new());
        let sessions = Arc::new(Sessions {
            hub: hub.clone(),
            verifier: verifier.clone(),
            limits: limits.clone(),
            publisher: publisher.clone(),
            metrics: metrics.clone(),
            settings: Arc::new(config.sessions),
            drain: drain.clone(),
            open: open.clone(),
        });
        let canary = config.canary.map(|settings| {
            let id = TaskId::canary(clock::unique_id());
            Canary::new(id, settings, hub.clone(), metrics.clone(), clock::now().instant)
        });
        let public = bind(config.listen, "listen")?;
        let operations = bind(config.operations_listen, "operations_listen")?;
        let (overload, overloaded) = tokio::sync::watch::channel(false);
        let context = Context {
            settings: Arc::new(config.http),
            operations: Arc::new(config.operations),
            hub: hub.clone(),
            verifier: verifier.clone(),
            limits: limits.clone(),
            publisher: publisher.clone(),
            sessions: sessions.clone(),
            metrics: metrics.clone(),
            health: log.health(),
            overloaded,
            canary: canary.clone(),
            draining: drain.begun().clone(),
        };
        let app = Self {
            address: local_address(&public)?,
            operations_address: local_address(&operations)?,
            publisher: publisher.clone(),
            open,
            drain,
            drain_window: config.drain,
            tasks: TaskTracker::new(),
            failed: CancellationToken::new(),
            stop: CancellationToken::new(),
        };
        let tls = [(config.tls, Listener::Public), (config.operations_tls, Listener::Operations)];
        app.listen([public, operations], tls, context)?;
        app.spawn(networks::run(config.networks, limits, metrics.clone(), app.stop.clone()));
        app.keep_keys_fresh(verifier);
        app.spawn(memory::run(config.memory_max_bytes, overload, metrics.clone(), app.stop.clone()));
        app.deliver(&sessions);
        app.spawn(revocations::run(revocations.clone(), metrics.clone(), app.stop.clone()));
        let dead_letters = app.keep_dead_letters(&log, &metrics);
        if let Some(canary) = canary {
            app.spawn(canary::run(canary, sessions, log.health(), app.stop.clone()));
        }
        let exports = app.keep_checkpoints(checkpoints.as_ref(), &metrics);
        let traces = config.traces.map(|settings| app.trace(settings, &log, stream, &hub, &metrics)).transpose()?;
        let source = feed::Source { log, checkpoints, exports, revocations, traces };
        app.spawn(feed::run(source, hub, publisher, metrics, dead_letters, app.tasks.clone(), app.stop.clone()));
        Ok(app)
    }

    /// Serves both listeners, the public one first.
    fn listen(
        &self,
        [public, operations]: [TcpListener; 2],
        tls: [(Option<Files>, Listener); 2],
        context: Context,
    ) -> Result<(), String> {
        let connections = self.tasks.clone();
        let [public_tls, operations_tls] = tls.map(|(files, listener)| self.tls(files, listener, &context.metrics));
        self.spawn(operations_token::run(context.operations.clone(), self.stop.clone()));
        self.spawn(http::serve_public(public, public_tls?, context.clone(), connections.clone(), self.stop.clone()));
        self.spawn(http::serve_operations(operations, operations_tls?, context, connections, self.stop.clone()));
        Ok(())
    }

    /// Makes spans of traced events, and exports them.
    fn trace(
        &self,
        settings: TraceSettings,
        log: &Log,
        stream: String,
        hub: &Hub,
        metrics: &Arc<Metrics>,
    ) -> Result<Traces, String> {
        // As the semantic conventions for messaging call them.
        let system = if let Log::Amqp(_) = log { "rabbitmq" } else { log.kind() };
        let traces = Traces::new(system, stream, metrics.clone());
        self.spawn(traces::export(traces.clone(), settings, self.stop.clone())?);
        hub.trace_into(traces.clone());
        Ok(traces)
    }

    /// Sets aside what is no event, where the log can.
    fn keep_dead_letters(&self, log: &Log, metrics: &Arc<Metrics>) -> Option<DeadLetters> {
        log.keeps_dead_letters().then(|| {
            let (dead_letters, writer) = DeadLetters::new(metrics.clone());
            self.spawn(writer.run(log.clone(), self.stop.clone()));
            dead_letters
        })
    }

    /// TLS for a listener, with a certificate that follows its files; `None` without any.
    fn tls(
        &self,
        files: Option<Files>,
        listener: Listener,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Acceptor>, String> {
        let Some(files) = files else { return Ok(None) };
        let certificate = certificates::open(files, listener)?;
        let acceptor = certificate.acceptor()?;
        self.spawn(certificates::run(certificate, listener, metrics.clone(), self.stop.clone()));
        Ok(Some(acceptor))
    }

    /// A delivery worker for each core; and an end to connections whose token is revoked.
    fn deliver(&self, sessions: &Arc<Sessions>) {
        let revocations = sessions.verifier.revocations().clone();
        self.spawn(revocations::run(revocations, sessions.metrics.clone(), self.stop.clone()));
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            let (sessions, stop) = (sessions.clone(), self.stop.clone());
            self.spawn(async move {
                let _ = stop.run_until_cancelled(sessions.deliver()).await;
            });
        }
    }

    /// Fetches keys and reads them again.
    fn keep_keys_fresh(&self, verifier: Verifier) {
        let stop = self.stop.clone();
        self.spawn(async move {
            let _ = stop.run_until_cancelled(verifier.run()).await;
        });
    }

    /// Writes checkpoints, if any are kept; what it asks the applier for.
    fn keep_checkpoints(
        &self,
        checkpoints: Option<&Checkpoints>,
        metrics: &Arc<Metrics>,
    ) -> mpsc::Receiver<ExportRequest> {
        let (requests, exports) = mpsc::channel(checkpoint::REQUESTS_MAX);
        if let Some(checkpoints) = checkpoints {
            self.spawn(checkpoint::run(checkpoints.clone(), requests, metrics.clone(), self.stop.clone()));
        }
        exports
    }

    /// Runs a part that must outlive nothing less than the service: if it ends unasked, by a panic too, the service
    /// does.
    fn spawn(&self, part: impl Future<Output = ()> + Send + 'static) {
        let (stop, failed) = (self.stop.clone(), self.failed.clone());
        self.tasks.spawn(async move {
            let ended = FailOnDrop { stop, failed };
            part.await;
            drop(ended);
        });
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn operations_address(&self) -> SocketAddr {
        self.operations_address
    }

    /// For those who publish from within the process.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Runs until `stop` is cancelled, then drains: readiness goes off, new WebSockets are refused, each client is told
    /// when its turn comes and closed with 1012 then, all within the configured window and [`CLOSING_TIMEOUT`];
    /// requests under way then have [`STOP_TIMEOUT`] to finish.
    ///
    /// # Errors
    /// An internal task that ended although nobody asked it to. Half a service is none: its clients are told to go at
    /// once.
    pub async fn run(self, stop: CancellationToken) -> Result<(), String> {
        let (outcome, window) = tokio::select! {
            () = stop.cancelled() => (Ok(()), self.drain_window),
            () = self.failed.cancelled() => (Err("an internal task ended unexpectedly".to_owned()), Duration::ZERO),
        };
        self.drain.begin(window, clock::now().instant);
        tracing::info!(drain_seconds = window.as_secs(), "draining");
        self.tasks.close();
        self.open.close();
        let drained = tokio::time::timeout(window + CLOSING_TIMEOUT, self.open.wait()).await.is_ok();
        self.stop.cancel();
        let ended = tokio::time::timeout(STOP_TIMEOUT, self.tasks.wait()).await.is_ok();
        tracing::info!(drained, ended, "stopped");
        outcome
    }
}

fn log_label(backend: &Backend) -> &'static str {
    match backend {
        Backend::Memory => "memory",
        Backend::Redis { .. } => "redis",
        Backend::Amqp { .. } => "amqp",
    }
}

/// How long those whose turn came last may take to read their last frames and to answer the close.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(3);

/// How long everything else may take to end once told to, before the process exits all the same.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

struct FailOnDrop {
    stop: CancellationToken,
    failed: CancellationToken,
}

impl Drop for FailOnDrop {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            self.failed.cancel();
        }
    }
}

fn bind(address: SocketAddr, key: &str) -> Result<TcpListener, String> {
    http::listen(address).map_err(|error| format!("cannot listen on {address} (setting `{key}`): {error}"))
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, String> {
    listener.local_addr().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    async fn app() -> App {
        let variables = [
            ("TASKCAST_AUTH_MODE", "none"),
            ("TASKCAST_LISTEN", "127.0.0.1:0"),
            ("TASKCAST_OPERATIONS_LISTEN", "127.0.0.1:0"),
            ("TASKCAST_DRAIN_SECONDS", "3600"),
        ];
        let environment = variables.map(|(name, value)| (name.into(), value.into())).into();
        let read = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        let sources = Sources { file: None, environment, flags: Vec::new(), read: &read };
        App::start(Config::load(&sources).unwrap().config).await.unwrap()
    }

    async fn ends_as_a_failure(app: App) {
        let ended = tokio::time::timeout(Duration::from_secs(10), app.run(CancellationToken::new())).await;
        assert!(ended.expect("no drain of an hour").is_err());
    }

    #[tokio::test]
    async fn a_part_that_ends_unasked_ends_the_service_at_once_and_as_a_failure() {
        let app = app().await;
        app.spawn(async {});
        ends_as_a_failure(app).await;
    }

    #[tokio::test]
    async fn a_part_that_panics_does_too() {
        let app = app().await;
        app.spawn(async { panic!("on purpose") });
        ends_as_a_failure(app).await;
    }
}
