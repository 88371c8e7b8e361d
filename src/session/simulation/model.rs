//! What should be: every state that each task ever had, by position, kept in plain maps. Written from the contract, and
//! from nothing that the hub does: no ring, no mailbox, no index, no watermark.
//!
//! Refuses to know: the hub, sessions, bytes.

use std::collections::{BTreeMap, BTreeSet};

use crate::proto::{Event, Position, Status, Topic};

/// What is compared of a task. `mark` names the event that made it: every event of a run has a `message` of its own.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Facts {
    pub(super) task_id: String,
    pub(super) mark: String,
    pub(super) status: Status,
    pub(super) progress: Option<f64>,
    pub(super) step: Option<String>,
    pub(super) attempt: u32,
    pub(super) user: Option<String>,
    pub(super) root: Option<String>,
    pub(super) tags: Vec<String>,
}

impl Facts {
    pub(super) fn has_ended(&self) -> bool {
        self.status.is_terminal()
    }

    pub(super) fn is_under(&self, topic: &Topic) -> bool {
        match topic {
            Topic::All => true,
            Topic::Task(id) => self.task_id == id.as_str(),
            Topic::Owner(user) => self.user.as_deref() == Some(user.as_str()),
            Topic::Root(root) => self.task_id == root.as_str() || self.root.as_deref() == Some(root.as_str()),
            Topic::Tag(tag) => self.tags.iter().any(|own| **own == **tag),
        }
    }
}

/// Who may see what, said plainly.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight {
    pub(super) user: Option<String>,
    pub(super) all: bool,
    pub(super) tag: Option<String>,
    pub(super) root: Option<String>,
}

impl Sight {
    pub(super) fn sees(&self, facts: &Facts) -> bool {
        let owns = self.user.is_some() && self.user == facts.user;
        let tagged = self.tag.as_ref().is_some_and(|tag| facts.tags.contains(tag));
        let in_group = self.root.is_some() && (facts.root == self.root || Some(&facts.task_id) == self.root.as_ref());
        self.all || owns || tagged || in_group
    }
}

/// A state of a task, the event that made it, and whether it must not be folded away.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) position: Position,
    pub(super) facts: Facts,
    pub(super) is_key: bool,
}

/// A task that is held.
struct Held {
    facts: Facts,
    at: Position,
    seq: Option<u64>,
    ids: Vec<String>,
    heard_ms: u64,
}

/// When an event arrived.
#[derive(Clone, Copy)]
pub(super) struct Arrived {
    pub(super) position: Position,
    pub(super) appended_ms: u64,
    pub(super) now_ms: u64,
    /// The replica had read the log to its end before.
    pub(super) live: bool,
}

/// What one replica should hold, from where it began to read.
pub(super) struct Model {
    tasks_max: usize,
    held: BTreeMap<String, Held>,
    /// Everything that ever was, evicted or not.
    pub(super) moments: BTreeMap<Position, Moment>,
    by_mark: BTreeMap<String, Position>,
    /// Tasks that were let go at least once.
    pub(super) let_go: BTreeSet<String>,
    /// Events that changed something.
    pub(super) applied: u64,
    /// Events that were read, the malformed and the repeated ones left out.
    pub(super) read: u64,
}

impl Model {
    pub(super) fn new(tasks_max: usize) -> Self {
        Self {
            tasks_max,
            held: BTreeMap::new(),
            moments: BTreeMap::new(),
            by_mark: BTreeMap::new(),
            let_go: BTreeSet::new(),
            applied: 0,
            read: 0,
        }
    }

    pub(super) fn current(&self) -> impl Iterator<Item = (&Facts, Position)> {
        self.held.values().map(|held| (&held.facts, held.at))
    }

    pub(super) fn holds(&self, task_id: &str) -> Option<(&Facts, Position)> {
        self.held.get(task_id).map(|held| (&held.facts, held.at))
    }

    /// The newest state of a task, held or let go.
    pub(super) fn last_of(&self, task_id: &str) -> Option<&Facts> {
        self.moments.values().rev().map(|moment| &moment.facts).find(|facts| facts.task_id == task_id)
    }

    /// The moment that the event with this mark made.
    pub(super) fn made_by(&self, mark: &str) -> Option<&Moment> {
        self.by_mark.get(mark).and_then(|position| self.moments.get(position))
    }

    pub(super) fn apply(&mut self, event: &Event, arrived: Arrived) {
        self.read += 1;
        let id = event.task_id.to_string();
        let at_ms = arrived.appended_ms.min(arrived.now_ms);
        let heard_ms = if arrived.live { arrived.now_ms } else { at_ms };
        let (facts, is_key) = match self.held.get_mut(&id) {
            None if event.observed.is_some() => return,
            None => {
                if self.held.len() >= self.tasks_max && !self.make_room() {
                    return;
                }
                (first(event), true)
            }
            Some(held) => {
                if event.observed.is_some_and(|observed| observed != held.at) {
                    return;
                }
                if event.observed.is_none() {
                    held.heard_ms = held.heard_ms.max(heard_ms);
                }
                let Some(facts) = next(held, event) else { return };
                let is_key = facts.status != held.facts.status || facts.attempt != held.facts.attempt;
                (facts, is_key)
            }
        };
        let position = arrived.position;
        let held = self.held.entry(id).or_insert_with(|| Held {
            facts: facts.clone(),
            at: position,
            seq: None,
            ids: Vec::new(),
            heard_ms,
        });
        let kept_seq = held.seq.filter(|_| facts.attempt == held.facts.attempt);
        held.seq = event.seq.max(kept_seq);
        held.ids.extend(event.event_id.as_deref().map(str::to_owned));
        held.at = position;
        held.facts = facts.clone();
        self.applied += 1;
        self.by_mark.insert(facts.mark.clone(), position);
        self.moments.insert(position, Moment { position, facts, is_key });
    }

    /// The table is full: the one that ended first goes, by the hundredth part of the table at least one.
    fn make_room(&mut self) -> bool {
        let share = self.tasks_max.div_ceil(100);
        let mut ended: Vec<(Position, String)> = self
            .held
            .iter()
            .filter(|(_, held)| held.facts.has_ended())
            .map(|(id, held)| (held.at, id.clone()))
            .collect();
        ended.sort();
        for (_, id) in ended.iter().take(share) {
            self.held.remove(id);
            self.let_go.insert(id.clone());
        }
        !ended.is_empty()
    }

    /// Retention.
    pub(super) fn sweep(&mut self, now_ms: u64, ended_ms: u64, idle_ms: u64) {
        let is_over = |held: &Held| {
            let limit = if held.facts.has_ended() { ended_ms } else { idle_ms };
            now_ms.saturating_sub(held.heard_ms) > limit
        };
        let over: Vec<String> = self.held.iter().filter(|(_, held)| is_over(held)).map(|(id, _)| id.clone()).collect();
        for id in over {
            self.held.remove(&id);
            self.let_go.insert(id);
        }
    }
}

fn does_work(event: &Event) -> bool {
    event.progress.is_some() || event.step.is_some()
}

/// 100 is for success.
fn shown(percent: f64, status: Status) -> f64 {
    if status == Status::Succeeded { 100.0 } else { percent.min(99.0) }
}

fn first(event: &Event) -> Facts {
    let idle = if does_work(event) { Status::Running } else { Status::Queued };
    let status = event.status.unwrap_or(idle);
    let blank = Facts {
        task_id: event.task_id.to_string(),
        mark: String::new(),
        status,
        progress: event.progress.map(|percent| shown(percent, status)),
        step: None,
        attempt: event.attempt.unwrap_or(1),
        user: None,
        root: None,
        tags: Vec::new(),
    };
    written(blank, event)
}

/// The fields that an event simply writes over.
fn written(mut facts: Facts, event: &Event) -> Facts {
    if let Some(message) = &event.message {
        facts.mark = message.to_string();
    }
    if let Some(step) = &event.step {
        facts.step = Some(step.to_string());
    }
    if let Some(user) = &event.user_id {
        facts.user = Some(user.to_string());
    }
    if let Some(tags) = &event.tags {
        facts.tags = tags.iter().map(ToString::to_string).collect();
    }
    if facts.root.is_none() {
        facts.root = event.root_id.as_ref().map(ToString::to_string);
    }
    if facts.status == Status::Succeeded {
        facts.progress = Some(100.0);
    }
    facts
}

/// The task after another event; `None` when the event is refused.
fn next(held: &Held, event: &Event) -> Option<Facts> {
    use Status::{Cancelling, Failed, Lost, Queued, Retrying, Running, TimedOut, Waiting};
    let before = &held.facts;
    let attempt = event.attempt.unwrap_or(before.attempt);
    let again = attempt > before.attempt;
    let repeated = event.event_id.as_deref().is_some_and(|id| held.ids.iter().rev().take(16).any(|known| known == id));
    let foreign = matches!((&before.user, &event.user_id), (Some(own), Some(other)) if own != other.as_str());
    let old =
        attempt < before.attempt || (!again && event.seq.is_some() && held.seq.is_some() && event.seq <= held.seq);
    let reopens = match before.status {
        Lost => again || event.status != Some(Lost),
        Failed | TimedOut => again,
        ended => !ended.is_terminal(),
    };
    if repeated || foreign || old || !reopens {
        return None;
    }
    let fresh = again || before.status == Lost;
    let starts = fresh || (does_work(event) && matches!(before.status, Queued | Waiting | Retrying));
    let status = match (before.status, event.status) {
        (_, None) if starts => Running,
        (same, None) => same,
        (_, Some(named)) if fresh => named,
        (Running | Waiting | Cancelling, Some(Queued)) => return None,
        (Cancelling, Some(Running | Waiting)) => Cancelling,
        (_, Some(named)) => named,
    };
    let mut facts = before.clone();
    let new_step = event.step.is_some() && event.step.as_deref() != before.step.as_deref();
    if again {
        (facts.progress, facts.step, facts.attempt) = (before.progress.map(|_| 0.0), None, attempt);
    }
    if let Some(percent) = event.progress.map(|percent| shown(percent, status)) {
        let rises = before.progress.is_none_or(|known| percent >= known);
        let left_queue = before.status == Queued && status != Queued;
        let newer = event.seq.is_some() && held.seq.is_some();
        let must_rise = !again && !new_step;
        if must_rise && !rises && !newer && status == before.status && !status.is_terminal() && !left_queue {
            return None;
        }
        facts.progress = if must_rise && !rises { before.progress } else { Some(percent) };
    }
    facts.status = status;
    Some(written(facts, event))
}
