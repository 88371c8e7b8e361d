//! From the log to the hub: decodes what the tail brings, applies it, sweeps, and carries the hub's verdicts back to
//! the log.
//!
//! Refuses to know: sessions.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    checkpoint::{self, ExportRequest, Replay},
    dead_letters::DeadLetters,
    freshness::Freshness,
    revocations,
};
use crate::{
    auth::Revocations,
    clock,
    hub::{Arrival, Hub},
    input::Publisher,
    log::{Checkpoints, Health, Log, Record, RestartReason, TailItem},
    metrics::Metrics,
    proto::{Cursor, Event, Malformed, Position, ResumeFailure, proof},
    traces::Traces,
};

/// How often ended, idle and silent tasks are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Of a larger batch, events that are applied before sessions get a turn: an end among them waits no longer for its
/// socket because a storm is read.
const APPLIED_AT_ONCE: usize = 256;

/// Malformed events are logged at most this often; each is counted.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

/// Where records come from, and who asks for the state that they add up to.
pub(super) struct Source {
    pub(super) log: Log,
    pub(super) checkpoints: Option<Checkpoints>,
    pub(super) exports: mpsc::Receiver<ExportRequest>,
    pub(super) revocations: Revocations,
    /// `None`: nobody wants spans.
    pub(super) traces: Option<Traces>,
}

/// Runs until `stop` is cancelled.
pub(super) async fn run(
    source: Source,
    hub: Hub,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    dead_letters: Option<DeadLetters>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let Source { log, checkpoints, mut exports, revocations, traces } = source;
    let mut health = log.health();
    let mut freshness = Freshness::new(clock::now());
    let begin = match &checkpoints {
        Some(checkpoints) => tokio::select! {
            () = stop.cancelled() => return,
            begin = checkpoint::load(checkpoints, &hub, &revocations, &metrics) => begin,
            () = keep_fresh(&mut freshness, &mut health, &hub) => return,
        },
        None => None,
    };
    let mut tail = log.tail_from(begin);
    let mut replay = Replay::new(begin.is_some());
    let mut decoder =
        Decoder { metrics: metrics.clone(), revocations, dead_letters, traces, complained: None, silent: 0 };
    let mut listening_ms = None;
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let due = freshness.due(clock::now());
        tokio::select! {
            () = stop.cancelled() => return,
            item = tail.next() => {
                replay.count(&item, &metrics);
                take(item, &hub, &mut decoder).await;
            }
            Some(request) = exports.recv() => {
                // Before the end of the log the state is nobody's; whoever asked hears that by the request's end.
                if listening_ms.is_some() {
                    checkpoint::export(&hub, &decoder.revocations, tail.bookmark(), request, &metrics);
                }
            }
            changed = health.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = sleep_until(due) => {}
            _ = sweep.tick() => {
                if let Some(since_ms) = listening_ms {
                    judge(&hub, &publisher, &tasks, since_ms);
                    // A sweep is short; what is due beyond it has its turn among the batches.
                    if hub.is_sweep_due(clock::now().unix_ms) {
                        sweep.reset_immediately();
                    }
                }
            }
        }
        // After the batch that completes it, never before.
        let (connected, replayed) = {
            let health = health.borrow_and_update();
            hub.set_stale(freshness.observe(&health, clock::now()));
            (health.connected, health.replayed)
        };
        hub.set_replayed(replayed);
        if replayed {
            replay.ended(&metrics);
        }
        // Nobody is silent to somebody who was not listening.
        listening_ms = (connected && replayed).then(|| listening_ms.unwrap_or(clock::now().unix_ms));
    }
}

/// Says how fresh the tasks are, until the log is gone: for as long as nothing is read yet.
async fn keep_fresh(freshness: &mut Freshness, health: &mut watch::Receiver<Health>, hub: &Hub) {
    loop {
        hub.set_stale(freshness.observe(&health.borrow_and_update(), clock::now()));
        tokio::select! {
            () = sleep_until(freshness.due(clock::now())) => {}
            changed = health.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

async fn sleep_until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

async fn take(item: TailItem, hub: &Hub, decoder: &mut Decoder) {
    match item {
        TailItem::Records(records) => {
            for (index, piece) in records.chunks(APPLIED_AT_ONCE).enumerate() {
                if index > 0 {
                    tokio::task::yield_now().await;
                }
                if let Some(traces) = &decoder.traces {
                    traces.applying(clock::now());
                }
                let arrivals: Vec<Arrival> = piece.iter().map(|record| decoder.arrival(record)).collect();
                hub.apply(&arrivals, clock::now().unix_ms);
                if let Some(traces) = &decoder.traces {
                    traces.applied(clock::now());
                }
            }
        }
        TailItem::Restarted(reason) => {
            tracing::warn!(?reason, "the log is read anew; every client gets a new snapshot");
            if let Some(dead_letters) = &decoder.dead_letters {
                dead_letters.restarted();
            }
            match reason {
                RestartReason::Trimmed => hub.restart_after_gap(),
                RestartReason::Replaced => hub.reset(ResumeFailure::AnotherLog),
            }
        }
    }
}

/// Verdicts are events like any other, so that every replica comes to the same state. If the append fails the sweep
/// asks again.
fn judge(hub: &Hub, publisher: &Publisher, tasks: &TaskTracker, listening_ms: u64) {
    let verdicts = hub.sweep(clock::now().unix_ms, listening_ms);
    if verdicts.is_empty() {
        return;
    }
    let publisher = publisher.clone();
    tasks.spawn(async move {
        if let Err(error) = publisher.publish(&verdicts).await {
            tracing::warn!(detail = error.detail, verdicts = verdicts.len(), "verdicts were not appended");
        }
    });
}

struct Decoder {
    metrics: Arc<Metrics>,
    revocations: Revocations,
    /// `None` where they are not kept.
    dead_letters: Option<DeadLetters>,
    traces: Option<Traces>,
    complained: Option<std::time::Instant>,
    silent: u64,
}

impl Decoder {
    fn arrival(&mut self, record: &Record) -> Arrival {
        let event = match Event::decode(record.content_type, &record.payload) {
            Ok(mut event) => {
                self.metrics.unknown_fields(event.unknown_fields);
                // What the event itself says was said by who wrote it; what stands beside it, by whoever passed it on.
                event.trace = event.trace.or_else(|| record.trace.clone());
                // Nothing is said after the log took it: one clock that is ahead would make all that follows look late.
                let latest_ms = record.appended_at_ms.unwrap_or_else(|| clock::now().unix_ms);
                event.timestamp_ms = event.timestamp_ms.map(|ms| ms.min(latest_ms));
                let (position, task_id) = (record.position, event.task_id.as_str());
                tracing::trace!(%position, ?task_id, status = ?event.status, "an event is read");
                Some(event)
            }
            Err(no_event) => {
                let taken = revocations::take(record, no_event, &self.revocations, &self.metrics);
                if let Err(malformed) = taken {
                    self.refuse(record, &malformed);
                }
                None
            }
        };
        let cursor = Cursor { position: record.position, proof: proof(&record.payload) };
        Arrival { cursor, appended_at_ms: record.appended_at_ms, event }
    }

    fn refuse(&mut self, record: &Record, malformed: &Malformed) {
        self.metrics.event_malformed(malformed);
        self.complain(record.position, malformed);
        if let Some(dead_letters) = &self.dead_letters {
            dead_letters.put(record, malformed);
        }
    }

    fn complain(&mut self, position: Position, malformed: &Malformed) {
        let now = clock::now().instant;
        if self.complained.is_some_and(|at| now < at + COMPLAINT_INTERVAL) {
            self.silent += 1;
            return;
        }
        self.complained = Some(now);
        let unlogged = std::mem::take(&mut self.silent);
        let field = malformed.field.as_deref().unwrap_or("");
        tracing::warn!(%position, reason = ?malformed.reason, field, detail = malformed.detail, unlogged, "malformed event");
    }
}
