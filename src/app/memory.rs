//! Admission control: reads the resident memory of this process once a second and says when it is too much for anything
//! new. What is connected goes on.
//!
//! Refuses to know: what is refused then, and how.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

const READ_INTERVAL: Duration = Duration::from_secs(1);

/// Once it has refused, it admits again below this share of the limit, in percent: near the limit it would flutter.
const ADMIT_BELOW_PERCENT: u64 = 95;

/// The size of a page where Linux says nothing else; `/proc/self/statm` counts in pages.
const PAGE_BYTES: u64 = 4096;

/// Runs until `stop` is cancelled; at once back where there is nothing to do.
pub(super) async fn run(
    max_bytes: Option<u64>,
    overloaded: watch::Sender<bool>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let max_bytes = max_bytes.filter(|_| resident_bytes().is_some());
    let mut interval = tokio::time::interval(READ_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        let bytes = resident_bytes().unwrap_or_default();
        metrics.memory(bytes, max_bytes.unwrap_or_default());
        let Some(max_bytes) = max_bytes else { continue };
        let before = *overloaded.borrow();
        let now = is_overloaded(before, bytes, max_bytes);
        if now == before {
            continue;
        }
        overloaded.send_replace(now);
        metrics.overloaded(now);
        if now {
            tracing::warn!(
                bytes,
                max_bytes,
                "memory is short: new WebSockets and events over HTTP are refused with 503. Lower tasks.max_bytes or \
                 http.connections_max, or give the service more memory (memory.max_bytes)"
            );
        } else {
            tracing::info!(bytes, max_bytes, "there is memory again: everything is admitted");
        }
    }
}

fn is_overloaded(before: bool, bytes: u64, max_bytes: u64) -> bool {
    bytes > if before { max_bytes / 100 * ADMIT_BELOW_PERCENT } else { max_bytes }
}

/// `None` where the system does not say.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    parse(&statm)
}

fn parse(statm: &str) -> Option<u64> {
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_refuses_above_the_limit_and_admits_only_well_below_it() {
        let mut overloaded = false;
        let mut answers = Vec::new();
        for bytes in [900, 1_000, 1_001, 990, 951, 950, 990, 1_000, 1_001] {
            overloaded = is_overloaded(overloaded, bytes, 1_000);
            answers.push(overloaded);
        }
        assert_eq!(answers, [false, false, true, true, true, false, false, false, true]);
    }

    #[test]
    fn the_second_number_is_resident_pages() {
        assert_eq!(parse("1234 25 3 4 5 6 7\n"), Some(25 * PAGE_BYTES));
        assert_eq!(parse(""), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_below_what_is_used_is_noticed_within_a_second_and_none_never() {
        let metrics = Arc::new(Metrics::new("memory"));
        for (max_bytes, expected) in [(Some(1), cfg!(target_os = "linux")), (None, false)] {
            let (sender, receiver) = watch::channel(false);
            let stop = CancellationToken::new();
            let running = tokio::spawn(run(max_bytes, sender, metrics.clone(), stop.clone()));
            tokio::time::sleep(READ_INTERVAL).await;
            assert_eq!(*receiver.borrow(), expected);
            stop.cancel();
            running.await.unwrap();
        }
    }
}
