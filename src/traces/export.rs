//! Brings spans to a collector: OTLP over HTTP, in protobuf. A collector that is away holds up nothing: spans wait within bounds,
//! and what finds no room is dropped and counted.
//!
//! Refuses to know: what the spans are about.

use std::{
    fmt,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{BATCH_MAX, Traces, otlp, span::Span};
use crate::{
    client::{Client, ClientSettings, Headers},
    clock,
    metrics::SpanDrop,
};

/// How long a span waits for others at most.
const EXPORT_EVERY: Duration = Duration::from_secs(1);

/// How often deliveries are looked through for those that are over.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// The first retry comes after this long, and each further one after twice as long, up to the maximum.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// At the end of the process.
const LAST_EXPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// A longer answer is not read.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// The same trouble is logged once in this time at most, and in so many characters: a collector must not fill the log.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
const REASON_MAX_CHARACTERS: usize = 256;

/// Where spans go.
#[derive(Clone)]
pub struct TraceSettings {
    /// The whole URL that spans are posted to.
    pub address: String,
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
    /// The same may be tried again, not before the collector says so.
    Failed {
        why: String,
        retry_after: Option<Duration>,
    },
    Refused(String),
}

/// What may be wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Away,
    Refusing,
}

/// What the log was told, so that it is told once, of each change, and never often.
#[derive(Default)]
struct Complaints {
    /// It lasts, as far as the log says.
    lasting: Option<Trouble>,
    away_at: Option<Instant>,
    refusing_at: Option<Instant>,
}

impl Complaints {
    /// This is the trouble now: is it to be logged?
    fn begin(&mut self, trouble: Trouble, now: Instant) -> bool {
        let told_at = match trouble {
            Trouble::Away => &mut self.away_at,
            Trouble::Refusing => &mut self.refusing_at,
        };
        let is_recent = told_at.is_some_and(|at| now.saturating_duration_since(at) < COMPLAIN_EVERY);
        if is_recent || self.lasting == Some(trouble) {
            return false;
        }
        *told_at = Some(now);
        self.lasting = Some(trouble);
        true
    }

    /// There is none now: is that to be logged?
    fn end(&mut self) -> bool {
        self.lasting.take().is_some()
    }
}

struct Exporter {
    traces: Traces,
    client: Client,
    address: String,
    headers: Headers,
    resource: Vec<(&'static str, String)>,
    complaints: Complaints,
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
    let headers = Headers::new(&headers)?;
    let resource = vec![
        ("service.name", settings.service_name),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", clock::unique_id().to_string()),
    ];
    let complaints = Complaints::default();
    let sweeping = sweep(traces.clone(), stop.clone());
    let mut exporter = Exporter { traces, client, address: settings.address, headers, resource, complaints };
    Ok(async move {
        tokio::join!(sweeping, exporter.run(&stop));
        exporter.finish().await;
    })
}

/// Ends deliveries beside the export, which may hang on a collector for long.
async fn sweep(traces: Traces, stop: CancellationToken) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        traces.sweep(clock::now().instant, false);
    }
}

impl Exporter {
    async fn run(&mut self, stop: &CancellationToken) {
        let mut ticks = interval(EXPORT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
                () = self.traces.0.filled.notified() => {}
            }
            let mut is_full = true;
            while is_full {
                let spans = self.traces.batch();
                // What came meanwhile waits for others, unless there is a batch of it.
                is_full = spans.len() == BATCH_MAX;
                if !spans.is_empty() && stop.run_until_cancelled(self.bring(&spans)).await.is_none() {
                    return self.traces.put_back(spans);
                }
            }
        }
    }

    /// Tries once to export all there is. Whatever is left after this is lost with the process.
    async fn finish(mut self) {
        self.traces.sweep(clock::now().instant, true);
        let mut in_hand = 0;
        let exporting = async {
            loop {
                let spans = self.traces.batch();
                in_hand = spans.len();
                let sent = if spans.is_empty() { return } else { self.send(&spans).await };
                if self.settle(spans.len(), &sent).is_err() {
                    return;
                }
            }
        };
        // Too late is as if it had failed.
        let _ = timeout(LAST_EXPORT_TIMEOUT, exporting).await;
        let count = in_hand + self.traces.forget();
        if count > 0 {
            self.traces.0.metrics.spans_dropped(SpanDrop::Shutdown, count);
            tracing::warn!(count, "spans were not exported before the end");
        }
    }

    /// Tries for as long as it may help.
    async fn bring(&mut self, spans: &[Span]) {
        let mut wait = RETRY_MIN;
        loop {
            let sent = self.send(spans).await;
            let Err(retry_after) = self.settle(spans.len(), &sent) else { return };
            let backoff = wait / 2 + clock::jitter(wait / 2);
            sleep(backoff.max(retry_after.min(RETRY_MAX))).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Counts what became of so many spans, and tells whether it went wrong.
    ///
    /// # Errors
    /// They are to be tried again, not before this time has passed.
    fn settle(&mut self, count: usize, sent: &Sent) -> Result<(), Duration> {
        let (refused, why) = match sent {
            Sent::Taken { rejected, why } => ((*rejected).min(count), why),
            Sent::Refused(why) => (count, why),
            Sent::Failed { why, retry_after } => {
                if self.complaints.begin(Trouble::Away, clock::now().instant) {
                    tracing::warn!(reason = cut(why), "spans are not exported; trying again");
                }
                return Err(retry_after.unwrap_or_default());
            }
        };
        self.traces.0.metrics.spans_exported(count - refused);
        self.traces.0.metrics.spans_dropped(SpanDrop::Refused, refused);
        if refused == 0 {
            if self.complaints.end() {
                tracing::info!("spans are exported again");
            }
        } else if self.complaints.begin(Trouble::Refusing, clock::now().instant) {
            tracing::error!(reason = cut(why), "the collector refuses spans");
        }
        Ok(())
    }

    async fn send(&self, spans: &[Span]) -> Sent {
        let body = otlp::request(&self.resource, spans);
        match self.client.post(&self.address, &self.headers, body, ANSWER_MAX_BYTES).await {
            Ok(answer) if (200..300).contains(&answer.status) => {
                let (rejected, why) = otlp::rejected(&answer.body);
                Sent::Taken { rejected, why }
            }
            // As the specification has them.
            Ok(answer) if [429, 502, 503, 504].contains(&answer.status) => Sent::Failed {
                why: format!("the collector answers {}", answer.status),
                retry_after: answer.retry_after,
            },
            Ok(answer) => Sent::Refused(format!("the collector answers {}", answer.status)),
            Err(failure) => Sent::Failed { why: failure.to_string(), retry_after: None },
        }
    }
}

/// Some of it may be a collector's own words.
fn cut(why: &str) -> &str {
    why.char_indices().nth(REASON_MAX_CHARACTERS).map_or(why, |(end, _)| &why[..end])
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
