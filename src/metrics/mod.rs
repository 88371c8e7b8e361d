//! What is counted, as verbs of the domain over a registry of its own, so that two services can live in one process.
//! No label holds an identifier of a task, a user or a connection: label values are closed sets.
//!
//! Refuses to know: who counts, and why.

mod advice;
mod authentication;
mod canary;
mod checkpoint;
mod dead_letters;
mod delivery;
mod description;
mod labels;
mod limits;
mod log_faults;
mod overload;
mod publishing;
mod readiness;
mod register;
mod spans;
mod tls;
mod tokens;
mod transports;

use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

pub use self::authentication::{Introspection, KeyRefresh, KeySource};
pub use self::canary::Leg;
pub use self::checkpoint::{CheckpointLoad, CheckpointWrite};
use self::dead_letters::DeadLetterMetrics;
pub use self::delivery::Tally;
pub use self::description::Description;
pub use self::labels::{Eviction, Handshake, Lag, Outcome};
pub use self::limits::{Forwarded, Limit};
use self::overload::Overload;
use self::register::{counter, counters, gauge, gauges, histogram, register, register_process};
pub use self::spans::SpanDrop;
pub use self::tls::{Listener, TlsHandshake};
pub use self::tokens::Refresh;
pub use self::transports::Transport;
use crate::proto::{AuthenticationErrorCode, CloseCode, ErrorCode, Malformed, MalformedReason, ResumeFailure, Status};

/// Every metric of the service.
pub struct Metrics {
    registry: Registry,
    log: &'static str,
    connections: IntGauge,
    connections_total: IntCounter,
    handshakes: IntCounterVec,
    authentication_failures: IntCounterVec,
    events: IntCounterVec,
    applied: IntCounter,
    unknown_fields: IntCounter,
    tasks: IntGaugeVec,
    tasks_evicted: IntCounterVec,
    key_frame_gaps: IntCounter,
    resumes: IntCounterVec,
    snapshot_tasks: Histogram,
    log_lag_events: IntGauge,
    log_lag_seconds: prometheus::Gauge,
    log_connected: IntGauge,
    log_reconnects: IntCounter,
    log_restarts: IntCounterVec,
    log_faults: log_faults::LogFaults,
    append_seconds: Histogram,
    append_failures: IntCounter,
    closes: IntCounterVec,
    client_messages: IntCounterVec,
    http_requests: IntCounterVec,
    http_request_seconds: HistogramVec,
    dead_letters: DeadLetterMetrics,
    delivery: delivery::Delivery,
    limits: limits::LimitMetrics,
    overload: Overload,
    authentication: authentication::AuthenticationMetrics,
    canary: canary::Canary,
    checkpoint: checkpoint::CheckpointMetrics,
    tls: tls::TlsMetrics,
    publishing: publishing::Publishing,
    readiness: readiness::Readiness,
    spans: spans::Spans,
    tokens: tokens::Tokens,
    transports: transports::Transports,
}

impl Metrics {
    /// A registry with everything in it. `log` is the label of the event counters.
    ///
    /// # Panics
    /// If two metrics have one name, which the tests would show.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a table: one entry per metric")]
    pub fn new(log: &'static str) -> Self {
        let registry = Registry::new();
        let r = &registry;
        let seconds = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let sizes = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 10_000.0];
        let events =
            counters(r, "taskcast_events_total", "Events read, by what became of them.", &["log", "outcome", "reason"]);
        let build_info = gauges(r, "taskcast_build_info", "Always 1; the label says which version runs.", &["version"]);
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        register_process(r);
        let tasks = gauges(r, "taskcast_tasks", "Tasks held now, by status.", &["status"]);
        let metrics = Self {
            log,
            connections: gauge(r, "taskcast_connections", "WebSockets and event streams open now."),
            connections_total: counter(r, "taskcast_connections_total", "WebSockets and event streams ever accepted."),
            handshakes: counters(
                r,
                "taskcast_handshakes_total",
                "WebSocket handshakes and requests for event streams, by outcome.",
                &["outcome"],
            ),
            authentication_failures: counters(
                r,
                "taskcast_authentication_failures_total",
                "Refused or expired tokens, by the error code that the client was told.",
                &["code"],
            ),
            applied: events.with_label_values(&[log, "applied", ""]),
            events,
            unknown_fields: counter(
                r,
                "taskcast_event_unknown_fields_total",
                "Fields of events that were not understood and kept out.",
            ),
            tasks,
            tasks_evicted: counters(r, "taskcast_tasks_evicted_total", "Tasks no longer kept, by reason.", &["reason"]),
            key_frame_gaps: counter(
                r,
                "taskcast_key_frame_gaps_total",
                "Pulls that came too late for a change of status: the ring of the task had let go of it.",
            ),
            resumes: counters(
                r,
                "taskcast_resumes_total",
                "Connections that came with a cursor, by outcome.",
                &["outcome"],
            ),
            snapshot_tasks: histogram(r, "taskcast_snapshot_tasks", "Tasks per snapshot sent.", &sizes),
            log_lag_events: gauge(r, "taskcast_log_lag_events", "Events in the log that are not applied yet."),
            log_lag_seconds: register(
                r,
                prometheus::Gauge::new(
                    "taskcast_log_lag_seconds",
                    "Age of the newest applied event while behind; grows while the log is away; else 0.",
                ),
            ),
            log_connected: gauge(r, "taskcast_log_connected", "1 while the reader of the log is connected."),
            log_reconnects: counter(r, "taskcast_log_reconnects_total", "Connections to the log that were lost."),
            log_restarts: counters(
                r,
                "taskcast_log_restarts_total",
                "Times that the log had to be read anew, by reason; cursors from before are refused.",
                &["reason"],
            ),
            log_faults: log_faults::LogFaults::new(r),
            append_seconds: histogram(
                r,
                "taskcast_append_seconds",
                "Time until the log confirmed an append.",
                &seconds,
            ),
            append_failures: counter(r, "taskcast_append_failures_total", "Appends that the log did not confirm."),
            closes: counters(
                r,
                "taskcast_closes_total",
                "WebSockets and event streams ended, by close code, or what it would be.",
                &["code"],
            ),
            client_messages: counters(
                r,
                "taskcast_client_messages_total",
                "Messages from clients, by outcome.",
                &["outcome"],
            ),
            http_requests: counters(
                r,
                "taskcast_http_requests_total",
                "HTTP requests, by route and status.",
                &["route", "status"],
            ),
            http_request_seconds: register(
                r,
                HistogramVec::new(
                    HistogramOpts::new("taskcast_http_request_seconds", "Time to answer an HTTP request.")
                        .buckets(seconds.to_vec()),
                    &["route"],
                ),
            ),
            dead_letters: DeadLetterMetrics::new(r),
            delivery: delivery::Delivery::new(r, &seconds, &sizes),
            limits: limits::LimitMetrics::new(r),
            overload: Overload::new(r),
            authentication: authentication::AuthenticationMetrics::new(r, &seconds),
            canary: canary::Canary::new(r, &seconds),
            checkpoint: checkpoint::CheckpointMetrics::new(r),
            tls: tls::TlsMetrics::new(r),
            publishing: publishing::Publishing::new(r),
            readiness: readiness::Readiness::new(r),
            spans: spans::Spans::new(r),
            tokens: tokens::Tokens::new(r),
            transports: transports::Transports::new(r),
            registry,
        };
        metrics.begin_at_zero();
        metrics
    }

    /// Every series that can be there is there from the start, at 0: a rate then sees the first occurrence too.
    fn begin_at_zero(&self) {
        let zero = |counters: &IntCounterVec, labels: &[&str]| counters.with_label_values(labels).inc_by(0);
        for outcome in Handshake::ALL {
            zero(&self.handshakes, &[outcome.label()]);
        }
        for code in AuthenticationErrorCode::ALL {
            zero(&self.authentication_failures, &[code.as_str()]);
        }
        for outcome in Outcome::ALL {
            let (outcome, reason) = outcome.labels();
            zero(&self.events, &[self.log, outcome, reason]);
        }
        for reason in MalformedReason::ALL {
            zero(&self.events, &[self.log, "malformed", reason.as_str()]);
        }
        for reason in Eviction::ALL {
            zero(&self.tasks_evicted, &[reason.label()]);
        }
        // The last one only ever is a reason to start over.
        let failures = ResumeFailure::ALL.into_iter().filter(|failure| *failure != ResumeFailure::RightsChanged);
        for outcome in failures.map(ResumeFailure::as_str).chain(["resumed"]) {
            zero(&self.resumes, &[outcome]);
        }
        for code in CloseCode::ALL.map(|code| code.number().to_string()).iter().map(String::as_str) {
            zero(&self.closes, &[code]);
        }
        for code in ["1001", "none", "other"] {
            zero(&self.closes, &[code]);
        }
        for outcome in ErrorCode::ALL.map(ErrorCode::as_str).into_iter().chain(["ok"]) {
            zero(&self.client_messages, &[outcome]);
        }
        for reason in ["trimmed", "replaced"] {
            zero(&self.log_restarts, &[reason]);
        }
        for status in Status::ALL {
            self.tasks.with_label_values(&[status.as_str()]).set(0);
        }
    }

    pub fn connection_opened(&self, transport: Transport) {
        self.transport_opened(transport);
        self.connections.inc();
        self.connections_total.inc();
    }

    /// `code` is `None` when the peer vanished without a word.
    pub fn connection_closed(&self, transport: Transport, code: Option<u16>) {
        self.transport_closed(transport);
        self.connections.dec();
        // Codes come from strangers: only the ones with a meaning get a label of their own.
        let label = match code {
            None => "none".to_owned(),
            Some(known) if known == 1001 || CloseCode::ALL.iter().any(|c| c.number() == known) => known.to_string(),
            Some(_) => "other".to_owned(),
        };
        self.closes.with_label_values(&[label.as_str()]).inc();
    }

    pub fn handshake(&self, outcome: Handshake) {
        self.handshakes.with_label_values(&[outcome.label()]).inc();
    }

    pub fn authentication_failed(&self, code: AuthenticationErrorCode) {
        self.authentication_failures.with_label_values(&[code.as_str()]).inc();
    }

    pub fn event(&self, outcome: Outcome) {
        if outcome == Outcome::Applied {
            self.applied.inc();
            return;
        }
        let (outcome, reason) = outcome.labels();
        self.events.with_label_values(&[self.log, outcome, reason]).inc();
    }

    pub fn event_malformed(&self, malformed: &Malformed) {
        self.events.with_label_values(&[self.log, "malformed", malformed.reason.as_str()]).inc();
    }

    pub fn unknown_fields(&self, count: u32) {
        self.unknown_fields.inc_by(u64::from(count));
    }

    /// A task changed from one status to another; `None` is "not held".
    pub fn task_moved(&self, from: Option<Status>, to: Option<Status>) {
        if from == to {
            return;
        }
        if let Some(from) = from {
            self.tasks.with_label_values(&[from.as_str()]).dec();
        }
        if let Some(to) = to {
            self.tasks.with_label_values(&[to.as_str()]).inc();
        }
    }

    pub fn task_evicted(&self, reason: Eviction) {
        self.tasks_evicted.with_label_values(&[reason.label()]).inc();
    }

    pub fn key_frame_gaps(&self, gaps: u64) {
        self.key_frame_gaps.inc_by(gaps);
    }

    pub fn resume(&self, outcome: Result<(), ResumeFailure>) {
        let label = outcome.map_or_else(ResumeFailure::as_str, |()| "resumed");
        self.resumes.with_label_values(&[label]).inc();
    }

    pub fn snapshot(&self, tasks: usize) {
        self.snapshot_tasks.observe(tasks as f64);
    }

    pub fn log_lag(&self, lag: Lag) {
        self.log_lag_events.set(i64::try_from(lag.events).unwrap_or(i64::MAX));
        self.log_lag_seconds.set(lag.seconds);
    }

    pub fn log_connected(&self, connected: bool) {
        self.log_connected.set(i64::from(connected));
    }

    pub fn log_lost(&self) {
        self.log_reconnects.inc();
    }

    pub fn log_restarted(&self, reason: &'static str) {
        self.log_restarts.with_label_values(&[reason]).inc();
    }

    pub fn appended(&self, took: Duration, succeeded: bool) {
        self.append_seconds.observe(took.as_secs_f64());
        if !succeeded {
            self.append_failures.inc();
        }
    }

    /// `outcome` is `ok` or an error code's name.
    pub fn client_message(&self, outcome: &'static str) {
        self.client_messages.with_label_values(&[outcome]).inc();
    }

    /// `route` is a route's pattern, never a path.
    pub fn http_request(&self, route: &'static str, status: u16, took: Duration) {
        self.http_requests.with_label_values(&[route, &status.to_string()]).inc();
        self.http_request_seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// Prometheus' text format, version 0.0.4.
    ///
    /// # Errors
    /// When the library refuses to encode, which it has no reason to.
    pub fn render(&self) -> Result<String, String> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out).map_err(|error| error.to_string())?;
        String::from_utf8(out).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_registers_once_and_renders() {
        let metrics = Metrics::new("memory");
        metrics.event(Outcome::Applied);
        metrics.event(Outcome::IllegalEnded);
        metrics.connection_opened(Transport::WebSocket);
        metrics.connection_closed(Transport::WebSocket, Some(4999));
        let text = metrics.render().unwrap();
        assert!(text.contains("taskcast_events_total{log=\"memory\",outcome=\"applied\",reason=\"\"} 1"), "{text}");
        assert!(text.contains("outcome=\"illegal\",reason=\"ended\"} 1"), "{text}");
        assert!(text.contains("taskcast_closes_total{code=\"other\"} 1"), "{text}");
        assert!(text.contains("taskcast_log_restarts_total{reason=\"replaced\"} 0"), "{text}");
        assert!(text.contains("taskcast_connections 0"), "{text}");
    }
}
