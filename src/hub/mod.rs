//! The hub: every task's state, a bounded ring of its recent frames, the indexes by owner, group and tag, and the
//! mailboxes of those who watch. It never queues a message for a client: it marks a task in the mailbox of each
//! watcher, and the session pulls what came after its cursor when it can.
//!
//! Refuses to know: tokens, HTTP, brokers.
//!
//! **Why a pull misses nothing.** One caller applies events, in the order of the log, a batch at a time, in four steps:
//! states change; `applied` moves; watchers are looked up and marked; `marked` moves and those marked are woken.
//! - A pull sends what is not beyond `marked`. Every event up to there has been marked in every mailbox that watched
//!   when its turn came, so sending in ascending position and moving the cursor along skips nothing.
//! - A new watcher first watches, then reads `applied`, then collects everything up to it. What is not beyond `applied`
//!   is collected; what is beyond is looked up later, and so is marked.
//! - A pull that meets a newer state than `marked` marks the task again and is woken once `marked` has moved.
//! - A watch that begins in a live session marks what is beyond the session's cursor itself and is handed the rest. Before
//!   a session is live its cursor still moves over what would be marked, so such a watch waits until it is.

mod apply;
mod canary;
mod checkpoint;
mod deadlines;
mod deliveries;
mod departures;
mod history;
mod image;
mod limits;
mod listings;
mod mailbox;
mod names;
mod order;
mod retention;
mod rules;
mod run;
mod select;
mod slot;
mod small_map;
#[cfg(test)]
mod stepped;
mod topics;
mod traced;
mod trail;
mod under;
mod view;
mod waiting;
mod walk;
mod watchers;
mod weight;

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use self::{
    canary::Kept, deadlines::Deadlines, deliveries::Deliveries, departures::Departures, limits::Owned,
    listings::Listings, order::Order, slot::Slot, topics::Topics, trail::Trail, waiting::Waiting,
};
pub use self::{
    deliveries::{Turn, Worker},
    history::History,
    image::{Image, ImageReader, Restored},
    mailbox::{Attendant, Mailbox},
    run::{Grant, Run, Runs, Wanted},
    select::Newest,
    under::Under,
    view::{Missed, PullOptions, Pulled, Watch},
    waiting::Reached,
    walk::{Next, Walk},
};
use crate::{
    metrics::Metrics,
    proto::{Cursor, Event, Position, ResumeFailure, TaskId, UserId},
    traces::Traces,
};

/// Limits and retention of tasks; every field has a key in the configuration's `[tasks]` table.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Tasks held at most; beyond it the longest-ended are let go, then new ones are dropped and counted.
    pub max: usize,
    /// What they may take in memory, by estimate; 0 is no limit. Beyond it the longest-ended are let go, then older
    /// frames of tasks that change, then new tasks are dropped and counted.
    pub max_bytes: usize,
    /// Tasks of one owner held at most; 0 is no limit. Beyond it that owner's longest-ended are let go, then new ones of
    /// that owner are dropped and counted.
    pub max_per_owner: usize,
    /// Frames kept per task.
    pub ring_frames: usize,
    /// How long an ended task is kept.
    pub retain_ended: Duration,
    /// How long a live task without events is kept.
    pub retain_idle: Duration,
    /// How many recent positions can be resumed from; 16 bytes each.
    pub resume_window: usize,
}

/// A record of the log, read.
#[derive(Debug)]
pub struct Arrival {
    pub cursor: Cursor,
    /// When the log took it, if it says: milliseconds since the Unix epoch. Without it the event's own `timestamp`
    /// stands in, else the time of reading.
    pub appended_at_ms: Option<u64>,
    /// `None` for a malformed one: it only has a position.
    pub event: Option<Event>,
}

/// How far the hub is. Changes are announced.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Counts resets; a session that sees it change starts over.
    pub generation: u64,
    /// Why the last reset was.
    pub reset: Option<ResumeFailure>,
    /// The newest event whose effect is visible.
    pub applied: Option<Cursor>,
    /// The newest event that all its watchers have been told of.
    pub marked: Position,
    /// The log has been read to the end that it had when the reader connected.
    pub replayed: bool,
    /// While the log cannot be read, or not to its end.
    pub stale: Option<Stale>,
}

/// What is held is what was true a while ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// When everything in the log had been read, last: milliseconds since the Unix epoch. `None`: never.
    pub fresh_until_ms: Option<u64>,
    /// Since when that is known, likewise.
    pub since_ms: u64,
}

/// A part of the table of tasks.
type Shard = HashMap<TaskId, Arc<Slot>>;

/// The tasks. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    settings: Settings,
    metrics: Arc<Metrics>,
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    topics: Topics,
    listings: Listings,
    trail: Mutex<Trail>,
    departures: Mutex<Departures>,
    progress: watch::Sender<Progress>,
    /// The last event of the batch that is being applied, or was: some of its effects may be visible before `applied` moves.
    begun: Mutex<Position>,
    /// Of `progress`; moves before anything is applied under the new one.
    generation: AtomicU64,
    /// Mailboxes to wake once `marked` has moved.
    stragglers: Mutex<Vec<Arc<Mailbox>>>,
    deliveries: Deliveries,
    waiting: Mutex<Waiting>,
    held: AtomicUsize,
    /// What the tasks weigh.
    bytes: AtomicUsize,
    order: Order,
    deadlines: Mutex<Deadlines>,
    /// Kept only where owners have a limit.
    owners: Mutex<HashMap<UserId, Owned>>,
    /// This replica's delivery canary, which is in no table and on no list.
    canary: OnceLock<Kept>,
    /// Where the spans of traced events go; empty: nobody wants them.
    traces: OnceLock<Traces>,
}

/// So many that copying one, which is done with its lock held, is short work.
const SHARDS: usize = if cfg!(test) { 16 } else { 1024 };

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    #[must_use]
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Self {
        let trail = Mutex::new(Trail::new(settings.resume_window));
        Self(Arc::new(Inner {
            settings,
            metrics,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            topics: Topics::new(),
            listings: Listings::new(),
            trail,
            departures: Mutex::default(),
            progress: watch::Sender::default(),
            begun: Mutex::new(Position::START),
            generation: AtomicU64::new(0),
            stragglers: Mutex::default(),
            deliveries: Deliveries::default(),
            waiting: Mutex::default(),
            held: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            order: Order::default(),
            deadlines: Mutex::default(),
            owners: Mutex::default(),
            canary: OnceLock::new(),
            traces: OnceLock::new(),
        }))
    }

    /// Beyond this no event has had any effect; `marked` gets there.
    #[must_use]
    pub fn begun(&self) -> Position {
        *lock(&self.0.begun)
    }

    /// As if the events up to `through` were being applied.
    #[cfg(test)]
    pub fn begin(&self, through: Position) {
        *lock(&self.0.begun) = through;
    }

    /// How far the hub is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        *self.0.progress.borrow()
    }

    fn next_generation(&self) -> u64 {
        self.0.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn shard(&self, id: &TaskId) -> MutexGuard<'_, Shard> {
        lock(&self.0.shards[self.0.hasher.hash_one(id.as_str()) as usize % SHARDS])
    }

    fn slot(&self, id: &TaskId) -> Option<Arc<Slot>> {
        self.shard(id).get(id.as_str()).cloned()
    }

    /// All tasks, each once, with no lock held.
    fn slots(&self) -> impl Iterator<Item = Arc<Slot>> {
        self.0.shards.iter().flat_map(|shard| lock(shard).values().cloned().collect::<Vec<_>>())
    }

    /// Tasks held now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// What the tasks held now take in memory, by estimate.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// No task is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod checkpoint_tests;

#[cfg(test)]
#[path = "crowd_tests.rs"]
mod crowd_tests;

#[cfg(test)]
#[path = "model_tests.rs"]
mod model_tests;

#[cfg(test)]
#[path = "run_tests.rs"]
mod run_tests;
