//! Revocations: from the log to the list of what is revoked, and from there to open connections; into checkpoints and out
//! of them.
//!
//! Refuses to know: tokens, sessions.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    auth::Revocations,
    clock,
    log::Record,
    metrics::Metrics,
    proto::{ContentType, Malformed, MalformedReason, Revocation},
};

/// Connections that are asked in one go; then others have a turn.
const ASKED_AT_ONCE: usize = 256;

/// Between two rounds, so that a flood of revocations is asked about together.
const PAUSE: Duration = Duration::from_millis(100);

/// How often those that mean nothing any more are let go of.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Takes a record that is no event, if it is a revocation; what is wrong with it otherwise. Only what names no task can
/// be one, so events cost nothing.
pub(super) fn take(
    record: &Record,
    no_event: Malformed,
    revocations: &Revocations,
    metrics: &Metrics,
) -> Result<(), Malformed> {
    let names_no_task = no_event.reason == MalformedReason::Missing && no_event.field.as_deref() == Some("task_id");
    if record.content_type != ContentType::Json || !names_no_task {
        return Err(no_event);
    }
    let revocation = Revocation::from_record(&record.payload).ok_or(no_event)??;
    let kept = revocations.apply(&revocation, record.appended_at_ms, clock::now().unix_ms)?;
    metrics.revocation(kept.held, kept.dropped);
    if kept.dropped > 0 {
        tracing::error!(
            dropped = kept.dropped,
            "too many revocations: some tokens hold again; raise auth.revocations_max"
        );
    }
    Ok(())
}

/// Asks open connections after each revocation, until `stop` is cancelled.
pub(super) async fn run(revocations: Revocations, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            // However many came since: whoever is asked looks at all of them.
            () = revocations.changed() => {
                ask(&revocations).await;
                // Time is what is wanted: what comes meanwhile is asked about in one go.
                stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
            }
            _ = sweep.tick() => metrics.revocations_held(revocations.let_go(clock::now().unix_ms)),
        }
    }
}

/// Who comes while this runs looks by itself.
async fn ask(revocations: &Revocations) {
    for first in (0..).step_by(ASKED_AT_ONCE) {
        let (holders, more) = revocations.holders().part(first, ASKED_AT_ONCE);
        for holder in holders {
            holder.ask_again(revocations);
        }
        if !more {
            return;
        }
        tokio::task::yield_now().await;
    }
}
