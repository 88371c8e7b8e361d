//! One replica: a real hub, the reading that `app/feed.rs` does, and the model beside it.
//!
//! Refuses to know: clients.

use std::{sync::Arc, time::Duration};

use super::{
    log::{Entry, SimulatedLog},
    model::{Arrived, Facts, Model, Moment},
    random::Random,
};
use crate::{
    clock::Now,
    hub::{Arrival, Hub, Settings},
    proto::{Cursor, Event, Position, ResumeFailure, proof},
    session::{Sessions, test_world},
};

/// What differs from run to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) tasks: usize,
    pub(super) tasks_max: usize,
    pub(super) ring_frames: usize,
    pub(super) resume_window: usize,
    pub(super) retain_ended_ms: u64,
    pub(super) retain_idle_ms: u64,
    pub(super) page_max_bytes: usize,
    /// The log may lose its beginning.
    pub(super) trims: bool,
    /// The log may be replaced.
    pub(super) replaces: bool,
}

impl Limits {
    pub(super) fn any(random: &mut Random) -> Self {
        let evicts = random.chance(20);
        Self {
            tasks: 2 + random.below(8),
            tasks_max: if evicts { 2 + random.below(4) } else { 1_000 },
            ring_frames: random.pick(&[2, 4, 16, 1_000, 1_000, 1_000]),
            resume_window: random.pick(&[20, 1_000, 1_000]),
            retain_ended_ms: if evicts { 4_000 } else { u64::MAX >> 20 },
            retain_idle_ms: if evicts { 15_000 } else { u64::MAX >> 20 },
            page_max_bytes: random.pick(&[1, 1_000, 100_000]),
            trims: random.chance(25),
            replaces: random.chance(25),
        }
    }

    /// Replicas may come to hold different things.
    pub(super) fn diverges(&self) -> bool {
        self.trims || self.tasks_max < 1_000
    }

    /// No ring can have let go of a change of status.
    pub(super) fn keeps_everything(&self) -> bool {
        self.ring_frames >= 1_000
    }
}

pub(super) struct Replica {
    pub(super) shared: Arc<Sessions>,
    limits: Limits,
    identity: u32,
    /// The entry of the log that is read next, and where the end was when the reader connected.
    next: usize,
    replay_to: usize,
    listening_ms: Option<u64>,
    /// What it should hold, and what it should have held before each reset.
    pub(super) model: Model,
    pub(super) before: Vec<Model>,
}

/// What a replica read, for the hub.
pub(super) struct Batch {
    pub(super) hub: Hub,
    pub(super) arrivals: Vec<Arrival>,
}

impl Replica {
    pub(super) fn new(limits: Limits) -> Self {
        let mut sessions = test_world::sessions();
        let shared = Arc::make_mut(&mut sessions);
        let settings = Settings {
            max: limits.tasks_max,
            max_bytes: 0,
            max_per_owner: 0,
            ring_frames: limits.ring_frames,
            retain_ended: Duration::from_millis(limits.retain_ended_ms),
            retain_idle: Duration::from_millis(limits.retain_idle_ms),
            resume_window: limits.resume_window,
        };
        shared.hub = Hub::new(settings, shared.metrics.clone());
        let mut of_sessions = (*shared.settings).clone();
        of_sessions.page_max_bytes = limits.page_max_bytes;
        of_sessions.subscriptions_max = 16;
        shared.settings = Arc::new(of_sessions);
        Self {
            shared: sessions,
            limits,
            identity: 0,
            next: 0,
            replay_to: 0,
            listening_ms: None,
            model: Model::new(limits.tasks_max),
            before: Vec::new(),
        }
    }

    /// The connection to the broker broke and is there again: some records may come once more.
    pub(super) fn reconnect(&mut self, log: &SimulatedLog, random: &mut Random) {
        self.shared.hub.set_replayed(false);
        self.listening_ms = None;
        self.replay_to = log.entries.len();
        self.next -= random.below(4).min(self.next);
    }

    /// Reads up to `count` records. None when the log turned out to be another, or to have lost what was not read yet.
    pub(super) fn read(&mut self, log: &SimulatedLog, count: usize, now: Now) -> Option<Batch> {
        let hub = self.shared.hub.clone();
        let replaced = self.identity != log.identity;
        let known = hub.progress().applied.map_or(Position::START, |applied| applied.position);
        let lost = self.next < log.first && log.entries[log.first - 1].position > known;
        if replaced || lost {
            hub.reset(if replaced { ResumeFailure::AnotherLog } else { ResumeFailure::Trimmed });
            let before = std::mem::replace(&mut self.model, Model::new(self.limits.tasks_max));
            self.before.push(before);
            (self.identity, self.next, self.replay_to) = (log.identity, log.first, log.entries.len());
            self.listening_ms = None;
            return None;
        }
        self.next = self.next.max(log.first);
        let live = hub.progress().replayed;
        let entries = &log.entries[self.next..log.entries.len().min(self.next + count)];
        self.next += entries.len();
        let arrivals: Vec<Arrival> = entries.iter().map(arrival).collect();
        for arrival in arrivals.iter().filter(|arrival| arrival.cursor.position > known) {
            let appended_ms = arrival.appended_at_ms.unwrap_or(now.unix_ms);
            let arrived = Arrived { position: arrival.cursor.position, appended_ms, now_ms: now.unix_ms, live };
            if let Some(event) = &arrival.event {
                self.model.apply(event, arrived);
            }
        }
        Some(Batch { hub, arrivals })
    }

    /// After a batch.
    pub(super) fn settle(&mut self, now: Now) {
        if self.next >= self.replay_to {
            self.shared.hub.set_replayed(true);
            self.listening_ms.get_or_insert(now.unix_ms);
        }
    }

    /// Retention, and verdicts to append.
    pub(super) fn sweep(&mut self, now: Now) -> Vec<Event> {
        let Some(listening_ms) = self.listening_ms else { return Vec::new() };
        let mut verdicts = self.shared.hub.sweep(now.unix_ms, listening_ms);
        while self.shared.hub.is_sweep_due(now.unix_ms) {
            verdicts.extend(self.shared.hub.sweep(now.unix_ms, listening_ms));
        }
        self.model.sweep(now.unix_ms, self.limits.retain_ended_ms, self.limits.retain_idle_ms);
        // The hub's tables are in no order.
        verdicts.sort_by(|a, b| a.task_id.cmp(&b.task_id));
        verdicts
    }

    pub(super) fn is_at_end(&self, log: &SimulatedLog) -> bool {
        self.identity == log.identity && self.next == log.entries.len() && self.listening_ms.is_some()
    }

    fn models(&self) -> impl Iterator<Item = &Model> {
        std::iter::once(&self.model).chain(self.before.iter().rev())
    }

    /// What it should hold, or should have held, after so many restarts.
    pub(super) fn after(&self, restarts: usize) -> Option<&Model> {
        if restarts == self.before.len() { Some(&self.model) } else { self.before.get(restarts) }
    }

    /// The moment that a task was shown in, if this replica ever had it so.
    pub(super) fn moment_of(&self, facts: &Facts) -> Option<&Moment> {
        self.models().filter_map(|model| model.made_by(&facts.mark)).find(|moment| moment.facts == *facts)
    }

    /// Was the task ever in such a state?
    pub(super) fn ever_had(&self, task_id: &str, such: impl Fn(&Facts) -> bool) -> bool {
        let mut moments = self.models().flat_map(|model| model.moments.values());
        moments.any(|moment| moment.facts.task_id == task_id && such(&moment.facts))
    }

    /// Did the task go from one of these states to the other, without being forgotten between them?
    pub(super) fn had_both(&self, one: &Facts, other: &Facts) -> bool {
        let had = |model: &Model, facts: &Facts| model.made_by(&facts.mark).is_some();
        self.models().any(|model| had(model, one) && had(model, other) && !model.let_go.contains(&one.task_id))
    }

    /// Is this the last state that the task had, to the knowledge of this replica at any time?
    pub(super) fn ends_with(&self, facts: &Facts) -> bool {
        self.models().any(|model| model.last_of(&facts.task_id) == Some(facts))
    }

    /// Nothing was applied twice, and nothing that should not have been.
    pub(super) fn check_counts(&self) {
        let applied: u64 = self.models().map(|model| model.applied).sum();
        let text = self.shared.metrics.render().unwrap();
        let line = format!("taskcast_events_total{{log=\"memory\",outcome=\"applied\",reason=\"\"}} {applied}\n");
        assert!(text.contains(&line), "{applied} should have been applied:\n{text}");
        if self.limits.keeps_everything() {
            assert!(text.contains("taskcast_key_frame_gaps_total 0\n"), "a ring that keeps everything has no gap");
        }
        assert_eq!(self.shared.hub.len(), self.model.current().count(), "tasks held");
    }
}

/// As the feed makes it.
fn arrival(entry: &Entry) -> Arrival {
    Arrival {
        cursor: Cursor { position: entry.position, proof: proof(&entry.payload) },
        appended_at_ms: Some(entry.appended_ms),
        event: Event::decode(entry.form, &entry.payload).ok(),
    }
}
