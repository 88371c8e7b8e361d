//! The state machine of a task: what an event makes of it. Pure functions of the task, what is remembered beside it,
//! and the event.
//!
//! Refuses to know: other tasks, watchers, positions.

use std::{collections::VecDeque, sync::Arc};

use super::weight;
use crate::{
    metrics::Outcome,
    proto::{Event, Status, Task},
};

/// A live task never shows more than this, in percent: 100 is for `succeeded`.
pub(super) const LIVE_PROGRESS_MAX: f64 = 99.0;

/// How many recent `event_id`s of a task are recognised as duplicates.
pub(super) const EVENT_IDS_MAX: usize = 16;

/// What the rules need to remember besides what clients see.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    pub(super) seq: Option<u64>,
    pub(super) timestamp_ms: Option<u64>,
    /// Shared as the frames are; `None` while there are none, which is common.
    pub(super) event_ids: Option<Arc<VecDeque<Arc<str>>>>,
    event_ids_bytes: usize,
}

impl Memory {
    /// To be called with every event that was applied, and what it made of the task.
    pub(super) fn remember(&mut self, event: &Event, step: &Step) {
        if step.new_attempt {
            self.seq = None;
        }
        // Who queues a task and who runs it are rarely one machine, and their clocks are not compared.
        if step.new_attempt || step.began {
            self.timestamp_ms = None;
        }
        self.seq = event.seq.max(self.seq);
        self.timestamp_ms = event.timestamp_ms.max(self.timestamp_ms);
        if let Some(id) = &event.event_id {
            let event_ids = Arc::make_mut(self.event_ids.get_or_insert_default());
            if event_ids.len() == EVENT_IDS_MAX
                && let Some(gone) = event_ids.pop_front()
            {
                self.event_ids_bytes -= weight::text(&gone);
            }
            self.event_ids_bytes += weight::text(id);
            event_ids.push_back(id.clone());
        }
    }

    /// As a checkpoint had it.
    pub(super) fn restored(seq: Option<u64>, timestamp_ms: Option<u64>, event_ids: VecDeque<Arc<str>>) -> Self {
        let event_ids_bytes = event_ids.iter().map(|id| weight::text(id)).sum();
        let event_ids = (!event_ids.is_empty()).then(|| Arc::new(event_ids));
        Self { seq, timestamp_ms, event_ids, event_ids_bytes }
    }

    /// What the identifiers of events take.
    pub(super) fn event_ids_bytes(&self) -> usize {
        self.event_ids_bytes
    }

    fn order_of(&self, event: &Event) -> Order {
        match (event.seq, self.seq) {
            (Some(new), Some(known)) if new == known => return Order::Same,
            (Some(new), Some(known)) if new < known => return Order::Older,
            (Some(_), Some(_)) => return Order::Newer,
            _ => {}
        }
        match (event.timestamp_ms, self.timestamp_ms) {
            (Some(new), Some(known)) if new < known => Order::Earlier,
            (Some(new), Some(known)) if new > known => Order::Newer,
            _ => Order::Unknown,
        }
    }
}

/// What `seq` and `timestamp` say of an event beside the newest one applied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Newer,
    /// The same `seq`.
    Same,
    /// A lower `seq`: proof.
    Older,
    /// A lower `timestamp`: a hint only, for clocks of different machines differ.
    Earlier,
    Unknown,
}

/// A task after an event.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) task: Task,
    /// A change of status, a new attempt, an end: never folded away.
    pub(super) is_key: bool,
    pub(super) new_attempt: bool,
    /// It left the queue.
    pub(super) began: bool,
}

/// The task that its first event makes.
pub(super) fn first(event: &Event, at_ms: u64) -> Step {
    let blank = Task {
        task_id: event.task_id.clone(),
        user_id: None,
        name: None,
        title: None,
        status: Status::Queued,
        progress: None,
        current: None,
        total: None,
        unit: None,
        step: None,
        message: None,
        attempt: event.attempt.unwrap_or(1),
        parent_id: None,
        root_id: None,
        weight: None,
        tags: None,
        result: None,
        error: None,
        metadata: None,
        worker: None,
        heartbeat_timeout_ms: None,
        created_at_ms: event.timestamp_ms.unwrap_or(at_ms),
        started_at_ms: None,
        updated_at_ms: 0,
        completed_at_ms: None,
    };
    let status = event.status.unwrap_or(if shows_work(event) { Status::Running } else { Status::Queued });
    Step { task: merge(blank, event, status, false, at_ms), is_key: true, new_attempt: false, began: false }
}

/// The task after another event.
///
/// # Errors
/// Why the event must not be applied.
pub(super) fn next(task: &Task, memory: &Memory, event: &Event, at_ms: u64) -> Result<Step, Outcome> {
    if memory.event_ids.as_ref().zip(event.event_id.as_ref()).is_some_and(|(known, id)| known.contains(id)) {
        return Err(Outcome::Duplicate);
    }
    if matches!((&task.user_id, &event.user_id), (Some(owner), Some(other)) if owner != other) {
        return Err(Outcome::IllegalOwner);
    }
    let attempt = event.attempt.unwrap_or(task.attempt);
    if attempt < task.attempt {
        return Err(Outcome::Stale);
    }
    let new_attempt = attempt > task.attempt;
    check_end(task, event, new_attempt)?;
    let order = if new_attempt { Order::Newer } else { memory.order_of(event) };
    match order {
        Order::Same => return Err(Outcome::Duplicate),
        Order::Older => return Err(Outcome::Stale),
        _ => {}
    }
    let status = next_status(task, event, new_attempt)?;
    if !new_attempt {
        check_order(task, event, status, order)?;
    }
    let is_key = new_attempt || status != task.status;
    let began = task.status == Status::Queued && status != Status::Queued;
    let mut base = task.clone();
    if new_attempt {
        begin_attempt(&mut base, attempt);
    }
    Ok(Step { task: merge(base, event, status, !new_attempt, at_ms), is_key, new_attempt, began })
}

/// After an end nothing changes within the attempt; a higher attempt re-opens what can be tried again, and anything
/// newer re-opens `lost`, which was only a verdict.
fn check_end(task: &Task, event: &Event, new_attempt: bool) -> Result<(), Outcome> {
    if !task.status.is_terminal() {
        return Ok(());
    }
    if !new_attempt && event.status == Some(task.status) {
        return Err(Outcome::Duplicate);
    }
    let reopens = match task.status {
        Status::Lost => true,
        Status::Failed | Status::TimedOut => new_attempt,
        _ => false,
    };
    if reopens { Ok(()) } else { Err(Outcome::IllegalEnded) }
}

fn shows_work(event: &Event) -> bool {
    event.progress.is_some() || event.current.is_some() || event.step.is_some()
}

fn next_status(task: &Task, event: &Event, new_attempt: bool) -> Result<Status, Outcome> {
    let reopened = new_attempt || task.status == Status::Lost;
    let Some(named) = event.status else {
        let starts = reopened
            || (shows_work(event) && matches!(task.status, Status::Queued | Status::Waiting | Status::Retrying));
        return Ok(if starts { Status::Running } else { task.status });
    };
    match (task.status, named) {
        _ if reopened => Ok(named),
        // A late "queued" after the work has begun says nothing new; between two attempts it does.
        (Status::Running | Status::Waiting | Status::Cancelling, Status::Queued) => Err(Outcome::Stale),
        // A worker that has not noticed the request to cancel goes on saying "running".
        (Status::Cancelling, Status::Running | Status::Waiting) => Ok(Status::Cancelling),
        _ => Ok(named),
    }
}

/// Refuses what is late within an attempt. An end is never late, and neither is what moves the task forward: clocks of
/// different machines differ, so an earlier timestamp alone proves nothing.
fn check_order(task: &Task, event: &Event, status: Status, order: Order) -> Result<(), Outcome> {
    if status.is_terminal() || (task.status == Status::Queued && status != Status::Queued) {
        return Ok(());
    }
    let new_step = event.step.is_some() && event.step != task.step;
    let counts_up = matches!((event.current, task.current), (Some(new), Some(known)) if new > known);
    let rises = !new_step
        && (counts_up
            || matches!((event.progress, task.progress), (Some(new), Some(known)) if capped(new, status) > known));
    if order == Order::Earlier && !rises {
        return Err(Outcome::Stale);
    }
    let falls = !new_step
        && matches!((event.progress, task.progress), (Some(new), Some(known)) if capped(new, status) < known)
        && !counts_up;
    if falls && order != Order::Newer && status == task.status {
        return Err(Outcome::Stale);
    }
    Ok(())
}

fn begin_attempt(task: &mut Task, attempt: u32) {
    task.attempt = attempt;
    task.progress = task.progress.map(|_| 0.0);
    task.current = None;
    task.step = None;
    task.message = None;
    task.result = None;
    task.error = None;
    task.completed_at_ms = None;
}

fn capped(progress: f64, status: Status) -> f64 {
    if status == Status::Succeeded { 100.0 } else { progress.min(LIVE_PROGRESS_MAX) }
}

/// Writes the event's fields over the task's. `same_attempt`: progress must not fall while the step stays.
fn merge(mut task: Task, event: &Event, status: Status, same_attempt: bool, at_ms: u64) -> Task {
    let new_step = event.step.is_some() && event.step != task.step;
    let keeps_rising = same_attempt && !new_step;
    if status == Status::Succeeded {
        task.progress = Some(100.0);
    }
    if let Some(current) = event.current {
        let same_count = event.total.is_none_or(|total| task.total == Some(total));
        task.current = Some(match task.current {
            Some(known) if keeps_rising && same_count => current.max(known),
            _ => current,
        });
    }
    set(&mut task.user_id, event.user_id.as_ref());
    set(&mut task.name, event.name.as_ref());
    set(&mut task.title, event.title.as_ref());
    set(&mut task.total, event.total.as_ref());
    set(&mut task.unit, event.unit.as_ref());
    set(&mut task.step, event.step.as_ref());
    set(&mut task.message, event.message.as_ref());
    set(&mut task.weight, event.weight.as_ref());
    set(&mut task.tags, event.tags.as_ref());
    set(&mut task.metadata, event.metadata.as_ref());
    set(&mut task.worker, event.worker.as_ref());
    set(&mut task.heartbeat_timeout_ms, event.heartbeat_timeout_ms.as_ref());
    set(&mut task.result, event.result.as_ref());
    set(&mut task.error, event.error.as_ref());
    // A task does not move between groups: whoever watches one must be able to trust that it is whole.
    if task.parent_id.is_none() && task.root_id.is_none() {
        task.parent_id.clone_from(&event.parent_id);
        task.root_id.clone_from(&event.root_id);
    }
    if status == Status::Succeeded {
        task.error = None;
    } else if let Some(progress) = event.progress.or_else(|| derived(&task, event)) {
        let progress = capped(progress, status);
        task.progress = Some(if keeps_rising { progress.max(task.progress.unwrap_or(0.0)) } else { progress });
    }
    let moment_ms = event.timestamp_ms.unwrap_or(at_ms);
    task.status = status;
    task.updated_at_ms = moment_ms.max(task.updated_at_ms);
    if status == Status::Running && task.started_at_ms.is_none() {
        task.started_at_ms = Some(moment_ms);
    }
    task.completed_at_ms = status.is_terminal().then_some(moment_ms);
    task
}

/// The percentage of an event that brings one half of it, where the other one is known from before.
fn derived(task: &Task, event: &Event) -> Option<f64> {
    let (current, total) = task.current.zip(task.total)?;
    (event.current.is_some() || event.total.is_some()).then(|| (current / total * 100.0).min(100.0))
}

/// What is said again is not kept twice: frames share what they have in common.
fn set<T: Clone + PartialEq>(field: &mut Option<T>, value: Option<&T>) {
    if let Some(value) = value
        && field.as_ref() != Some(value)
    {
        *field = Some(value.clone());
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
