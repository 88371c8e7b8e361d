//! Checkpoints: the last one into the hub at the start, and a new one beside the log from time to time, by one replica
//! at a time.
//!
//! Refuses to know: how the hub applies events, and where checkpoints are kept.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{REVOCATIONS_CHUNK, Revocations},
    clock,
    hub::{Hub, Image},
    log::{
        Bookmark, CheckpointError, CheckpointWriter, Checkpoints, Manifest, RestartReason, Stored, TailItem,
        WRITE_TIMEOUT,
    },
    metrics::{CheckpointLoad, CheckpointWrite, Metrics},
    proto::Corrupt,
};

/// A checkpoint is due when the newest one is older than this share of the interval, so that of several replicas the
/// next one to look writes it, and no interval passes without.
const DUE_SHARE: f64 = 0.9;
/// Chunks that are encoded while one is written.
const CHUNKS_AHEAD: usize = 2;

/// The hub's state, and where in the log it stands.
pub(super) struct Exported {
    image: Image,
    revocations: Vec<Vec<u8>>,
    bookmark: Bookmark,
}

/// A request to the applier for the state as of now; unanswered while it is not up to date.
pub(super) type ExportRequest = oneshot::Sender<Exported>;

/// One waits at most: there is one writer.
pub(super) const REQUESTS_MAX: usize = 1;

/// Takes the state out between two batches, if it can be told where in the log it stands.
pub(super) fn export(
    hub: &Hub,
    revocations: &Revocations,
    bookmark: Option<Bookmark>,
    request: ExportRequest,
    metrics: &Metrics,
) {
    let started = clock::now().instant;
    let exported = hub.export().zip(bookmark).filter(|(image, bookmark)| image.cursor() == bookmark.cursor);
    metrics.checkpoint_exported(clock::now().instant - started);
    if let Some((image, bookmark)) = exported {
        // Who asked may have given up.
        let _ = request.send(Exported { image, revocations: revocations.export(), bookmark });
    }
}

/// Puts the newest checkpoint into the hub, which must be empty. The bookmark to read on from; `None`: from the start of
/// the log's retention.
pub(super) async fn load(
    checkpoints: &Checkpoints,
    hub: &Hub,
    revocations: &Revocations,
    metrics: &Metrics,
) -> Option<Bookmark> {
    let started = clock::now().instant;
    let stored = match checkpoints.load().await {
        Ok(Some(stored)) => stored,
        Ok(None) => {
            tracing::info!("there is no checkpoint; the whole log is read");
            metrics.checkpoint_load(CheckpointLoad::Absent);
            return None;
        }
        Err(error) => return refuse(&error, metrics),
    };
    let manifest = stored.manifest;
    if let Err(corrupt) = restore(stored, hub, revocations).await {
        return refuse(&corrupt.into(), metrics);
    }
    let took = clock::now().instant - started;
    let Manifest { written_at_ms, bytes, bookmark, .. } = manifest;
    metrics.checkpoint_load(CheckpointLoad::Loaded);
    metrics.checkpoint_loaded(took);
    metrics.checkpoint_newest(written_at_ms, bytes);
    metrics.checkpoint_tasks(hub.len());
    let age_seconds = clock::now().unix_ms.saturating_sub(written_at_ms) / 1_000;
    let position = bookmark.cursor.position;
    let took_ms = took.as_millis();
    tracing::info!(tasks = hub.len(), bytes, age_seconds, took_ms, %position, "a checkpoint is loaded");
    Some(bookmark)
}

fn refuse(error: &CheckpointError, metrics: &Metrics) -> Option<Bookmark> {
    metrics.checkpoint_load(match error {
        CheckpointError::Corrupt(_) => CheckpointLoad::Corrupt,
        CheckpointError::Newer(_) => CheckpointLoad::Newer,
        CheckpointError::TooLarge(_) => CheckpointLoad::TooLarge,
        CheckpointError::Broker(_) => CheckpointLoad::Failed,
    });
    tracing::warn!(reason = %error, "the checkpoint is not used; the whole log is read instead");
    None
}

/// All or nothing: the hub is touched once everything has been read. Revocations are kept also if the rest is broken.
async fn restore(stored: Stored, hub: &Hub, revocations: &Revocations) -> Result<(), Corrupt> {
    let mut reader = hub.image_reader();
    for chunk in stored.chunks {
        // A version that knows none takes such a chunk for a broken one, and reads the whole log instead.
        if chunk.first() == Some(&REVOCATIONS_CHUNK) {
            revocations.import(&chunk, clock::now().unix_ms)?;
        } else {
            reader.chunk(&chunk)?;
        }
        // The listeners of operators are open by now.
        tokio::task::yield_now().await;
    }
    let restored = reader.finish()?;
    if restored.cursor() != stored.manifest.bookmark.cursor {
        return Err(Corrupt("the manifest belongs to another state"));
    }
    hub.import(restored);
    Ok(())
}

/// Writes checkpoints until `stop` is cancelled.
pub(super) async fn run(
    checkpoints: Checkpoints,
    requests: mpsc::Sender<ExportRequest>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let interval = checkpoints.settings.interval;
    let mut complaint = None;
    // Replicas that start together do not look together.
    let mut wait = interval.mul_f64(1.0 - DUE_SHARE) + clock::jitter(interval.mul_f64(DUE_SHARE));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = interval;
        let writing = tokio::time::timeout(WRITE_TIMEOUT, write(&checkpoints, &requests, &metrics));
        let written = tokio::select! {
            () = stop.cancelled() => return,
            written = writing => written,
        };
        let outcome = written.unwrap_or_else(|_| {
            Err(CheckpointError::Broker(format!("it was not written within {} s", WRITE_TIMEOUT.as_secs())))
        });
        metrics.checkpoint_write(match &outcome {
            Ok(outcome) => *outcome,
            Err(CheckpointError::TooLarge(_)) => CheckpointWrite::TooLarge,
            Err(_) => CheckpointWrite::Failed,
        });
        // The same reason is told once, until it is gone.
        let reason = outcome.err().map(|error| error.to_string());
        if let Some(reason) = reason.as_ref().filter(|reason| complaint.as_ref() != Some(*reason)) {
            tracing::warn!(reason, "no checkpoint is written; a start will have to read more of the log");
        }
        complaint = reason;
    }
}

async fn write(
    checkpoints: &Checkpoints,
    requests: &mpsc::Sender<ExportRequest>,
    metrics: &Metrics,
) -> Result<CheckpointWrite, CheckpointError> {
    let Some(mut writer) = checkpoints.writer().await? else { return Ok(CheckpointWrite::Busy) };
    let written = replace(&mut writer, checkpoints.settings.interval, requests, metrics).await;
    match written {
        Ok(Ok((bookmark, started))) => {
            let manifest = writer.finish(bookmark, started.unix_ms).await?;
            metrics.checkpoint_newest(manifest.written_at_ms, manifest.bytes);
            metrics.checkpoint_written(clock::now().instant - started.instant);
            tracing::debug!(bytes = manifest.bytes, chunks = manifest.chunks, "a checkpoint is written");
            Ok(CheckpointWrite::Written)
        }
        Ok(Err(outcome)) => {
            writer.release().await;
            Ok(outcome)
        }
        Err(error) => {
            writer.release().await;
            Err(error)
        }
    }
}

/// Writes all chunks, if it is time to; else says why not.
async fn replace(
    writer: &mut CheckpointWriter,
    interval: Duration,
    requests: &mpsc::Sender<ExportRequest>,
    metrics: &Metrics,
) -> Result<Result<(Bookmark, clock::Now), CheckpointWrite>, CheckpointError> {
    let now = clock::now();
    let newest = writer.newest().await?;
    if let Some(newest) = &newest {
        metrics.checkpoint_newest(newest.written_at_ms, newest.bytes);
        // One from the future is the work of a wrong clock, and no reason to wait for that moment.
        let age_ms = now.unix_ms.checked_sub(newest.written_at_ms).map_or(f64::INFINITY, |age_ms| age_ms as f64);
        if age_ms < interval.mul_f64(DUE_SHARE).as_secs_f64() * 1_000.0 {
            return Ok(Err(CheckpointWrite::NotDue));
        }
    }
    let (request, answer) = oneshot::channel();
    if requests.send(request).await.is_err() {
        return Ok(Err(CheckpointWrite::NotReady));
    }
    let Ok(Exported { mut image, revocations, bookmark }) = answer.await else {
        return Ok(Err(CheckpointWrite::NotReady));
    };
    if newest.is_some_and(|newest| newest.bookmark.cursor == bookmark.cursor) {
        return Ok(Err(CheckpointWrite::NotDue));
    }
    metrics.checkpoint_tasks(image.len());
    // First: a reader that runs into its limits later knows them.
    for chunk in &revocations {
        writer.chunk(chunk).await?;
    }
    let (chunks, mut encoded) = mpsc::channel(CHUNKS_AHEAD);
    let encoding = tokio::task::spawn_blocking(move || image.encode(|chunk| chunks.blocking_send(chunk)).is_ok());
    while let Some(chunk) = encoded.recv().await {
        writer.chunk(&chunk).await?;
    }
    match encoding.await {
        Ok(true) => Ok(Ok((bookmark, now))),
        _ => Err(CheckpointError::Broker("the state could not be encoded".to_owned())),
    }
}

/// Counts the events that are read until the hub is up to date.
pub(super) struct Replay {
    /// `None` once it is.
    events: Option<u64>,
    /// It began with a checkpoint, and the log has not been proven to be that of the checkpoint.
    from_checkpoint: bool,
}

impl Replay {
    pub(super) fn new(from_checkpoint: bool) -> Self {
        Self { events: Some(0), from_checkpoint }
    }

    pub(super) fn count(&mut self, item: &TailItem, metrics: &Metrics) {
        match item {
            TailItem::Records(records) => self.events = self.events.map(|events| events + records.len() as u64),
            TailItem::Restarted(reason) => {
                self.events = Some(0);
                if std::mem::take(&mut self.from_checkpoint) {
                    metrics.checkpoint_load(match reason {
                        RestartReason::Trimmed => CheckpointLoad::Trimmed,
                        RestartReason::Replaced => CheckpointLoad::AnotherLog,
                    });
                }
            }
        }
    }

    pub(super) fn ended(&mut self, metrics: &Metrics) {
        if let Some(events) = self.events.take() {
            self.from_checkpoint = false;
            metrics.replayed(events);
        }
    }
}
