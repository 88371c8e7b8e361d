//! Brings spans to a collector: OTLP over HTTP, in protobuf. A collector that is away holds up nothing: spans wait within bounds,
//! and what finds no room is dropped and counted.
//!
//! Refuses to know: what the spans are about.

use std::{fmt, time::Duration};

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Traces, otlp, span::Span};
use crate::{
    client::{Client, ClientSettings},
    clock,
    metrics::SpanDrop,
};

/// How long a span waits for others at most.
const EXPORT_EVERY: Duration = Duration::from_secs(1);

/// The first retry comes after this long, and each further one after twice as long, up to the maximum.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// At the end of the process.
const LAST_EXPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// A longer answer is not read.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Where spans go.
#[derive(Clone)]
pub struct TraceSettings {
    /// Of the collector, without `/v1/traces`.
    pub endpoint: String,
    /// Sent with each request; they may hold secrets.
    pub headers: Vec<(String, String)>,
    /// `service.name`.
    pub service_name: String,
    pub client: ClientSettings,
}

/// Shows the names of the headers alone, and nothing of an address that may hold a password.
impl fmt::Debug for TraceSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("TraceSettings")
            .field("headers", &names)
            .field("service_name", &self.service_name)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// What became of a request.
enum Sent {
    Taken {
        rejected: usize,
        why: String,
    },
    /// The same may be tried again.
    Failed(String),
    Refused(String),
}

struct Exporter {
    traces: Traces,
    client: Client,
    address: String,
    headers: Vec<(String, String)>,
    resource: Vec<(&'static str, String)>,
    /// The last one failed, and that was logged.
    is_told: bool,
}

/// Exports until `stop` is cancelled, and what is left then, once.
///
/// # Errors
/// Settings that cannot be used.
pub fn export(
    traces: Traces,
    settings: TraceSettings,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + 'static, String> {
    let client = Client::new(&settings.client)?;
    let mut headers = settings.headers;
    headers.push(("content-type".to_owned(), "application/x-protobuf".to_owned()));
    let resource = vec![
        ("service.name", settings.service_name),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", clock::unique_id().to_string()),
    ];
    let address = format!("{}/v1/traces", settings.endpoint.trim_end_matches('/'));
    let exporter = Exporter { traces, client, address, headers, resource, is_told: false };
    Ok(exporter.run(stop))
}

impl Exporter {
    async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(EXPORT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
                () = self.traces.0.filled.notified() => {}
            }
            self.traces.sweep(clock::now().instant, false);
            loop {
                let spans = self.traces.batch();
                if spans.is_empty() || stop.run_until_cancelled(self.bring(&spans)).await.is_none() {
                    break;
                }
            }
        }
        self.traces.sweep(clock::now().instant, true);
        // Whatever is left after this is lost with the process.
        let _ = timeout(LAST_EXPORT_TIMEOUT, async {
            loop {
                let spans = self.traces.batch();
                if spans.is_empty() {
                    return;
                }
                let Sent::Taken { rejected, .. } = self.send(&spans).await else { return };
                self.traces.0.metrics.spans_exported(spans.len().saturating_sub(rejected));
            }
        })
        .await;
    }

    /// Tries for as long as it may help.
    async fn bring(&mut self, spans: &[Span]) {
        let mut wait = RETRY_MIN;
        loop {
            match self.send(spans).await {
                Sent::Taken { rejected: 0, .. } => {
                    if std::mem::take(&mut self.is_told) {
                        tracing::info!("spans are exported again");
                    }
                    self.traces.0.metrics.spans_exported(spans.len());
                    return;
                }
                Sent::Taken { rejected, why } => {
                    self.traces.0.metrics.spans_exported(spans.len().saturating_sub(rejected));
                    return self.refused(rejected.min(spans.len()), &why);
                }
                Sent::Refused(why) => return self.refused(spans.len(), &why),
                Sent::Failed(why) => {
                    if !std::mem::replace(&mut self.is_told, true) {
                        tracing::warn!(reason = why, "spans are not exported; trying again");
                    }
                }
            }
            sleep(wait / 2 + clock::jitter(wait / 2)).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    fn refused(&mut self, count: usize, why: &str) {
        self.traces.0.metrics.spans_dropped(SpanDrop::Refused, count);
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::error!(reason = why, "the collector refuses spans");
        }
    }

    async fn send(&self, spans: &[Span]) -> Sent {
        let body = otlp::request(&self.resource, spans);
        match self.client.post(&self.address, &self.headers, body, ANSWER_MAX_BYTES).await {
            Ok(answer) if (200..300).contains(&answer.status) => {
                let (rejected, why) = otlp::rejected(&answer.body);
                Sent::Taken { rejected, why }
            }
            // As the specification has them.
            Ok(answer) if [429, 502, 503, 504].contains(&answer.status) => {
                Sent::Failed(format!("the collector answers {}", answer.status))
            }
            Ok(answer) => Sent::Refused(format!("the collector answers {}", answer.status)),
            Err(failure) => Sent::Failed(failure.to_string()),
        }
    }
}
