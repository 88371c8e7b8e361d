//! The way from a reader's task to whoever calls [`super::Tail::next`]. Owns the task and the small channel between
//! them, which makes `next` cancel safe and lets the next batch be fetched while this one is applied. Refuses to know:
//! brokers.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    Bookmark, Record, RestartReason, TailItem,
    health::{Reporter, Trouble},
};

/// Batches that wait. Beside them one is applied, one is on its way here and one is being fetched: more would only hide
/// lag.
const BATCHES_AHEAD: usize = 1;
/// How often the lag is told anew while the log is away.
const TICK: Duration = Duration::from_millis(500);

enum Signal {
    /// With where it ends.
    Item(TailItem, Option<Bookmark>),
    /// In the same order as the records, so that it is true when it is seen; and the connection it was found out in.
    Replayed(bool, u64),
}

/// The receiving end; ends the reader when dropped.
pub(super) struct Feed {
    signals: mpsc::Receiver<Signal>,
    reporter: Arc<Reporter>,
    reader: JoinHandle<()>,
    bookmark: Option<Bookmark>,
    tick: Interval,
}

/// The reader's end.
pub(super) struct Out {
    signals: mpsc::Sender<Signal>,
    reporter: Arc<Reporter>,
}

impl Feed {
    fn spawn<F, Reading>(reporter: Arc<Reporter>, read: F) -> Self
    where
        F: FnOnce(Out) -> Reading,
        Reading: Future<Output = ()> + Send + 'static,
    {
        let (ahead, signals) = mpsc::channel(BATCHES_AHEAD);
        let out = Out { signals: ahead, reporter: reporter.clone() };
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { signals, reporter, reader: tokio::spawn(read(out)), bookmark: None, tick }
    }

    /// `None` when the reader's task ended, which only a panic in it can do.
    async fn next(&mut self) -> Option<TailItem> {
        loop {
            let signal = tokio::select! {
                signal = self.signals.recv() => signal?,
                _ = self.tick.tick() => {
                    self.reporter.tick();
                    continue;
                }
            };
            match signal {
                Signal::Replayed(replayed, connection) => self.reporter.replayed(replayed, connection),
                Signal::Item(item, bookmark) => {
                    self.bookmark = bookmark;
                    if let TailItem::Restarted(reason) = &item {
                        self.reporter.restarted(*reason);
                    }
                    return Some(item);
                }
            }
        }
    }
}

/// Where the items that were returned end.
pub(super) fn bookmark(feed: Option<&Feed>) -> Option<Bookmark> {
    feed.and_then(|feed| feed.bookmark)
}

/// The next item of a reader that is started with the first call.
pub(super) async fn next<F, Reading>(feed: &mut Option<Feed>, reporter: &Arc<Reporter>, read: F) -> TailItem
where
    F: FnOnce(Out) -> Reading,
    Reading: Future<Output = ()> + Send + 'static,
{
    let running = feed.get_or_insert_with(|| Feed::spawn(reporter.clone(), read));
    if let Some(item) = running.next().await {
        return item;
    }
    // Only a panic ends a reader. A new one starts with the next call, and reads all over again.
    *feed = None;
    reporter.trouble(&Trouble::Misfit("the reader of the log broke; starting it anew".to_owned()));
    reporter.restarted(RestartReason::Replaced);
    TailItem::Restarted(RestartReason::Replaced)
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Out {
    pub(super) async fn records(&self, records: Vec<Record>, end: Option<Bookmark>) {
        if !records.is_empty() {
            self.send(Signal::Item(TailItem::Records(records), end)).await;
        }
    }

    pub(super) async fn restarted(&self, reason: RestartReason) {
        self.send(Signal::Item(TailItem::Restarted(reason), None)).await;
    }

    pub(super) async fn replayed(&self, replayed: bool) {
        self.send(Signal::Replayed(replayed, self.reporter.connection())).await;
    }

    async fn send(&self, signal: Signal) {
        // Nobody receives any more only while this task is being aborted.
        let _ = self.signals.send(signal).await;
    }
}
