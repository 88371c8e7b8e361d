//! A log in a vector, and the workers that write into it: late, twice, malformed, in either form. It loses its beginning
//! and is replaced by another under the same name.
//!
//! Refuses to know: who reads it.

use bytes::Bytes;

use super::random::Random;
use crate::{
    proto::{ContentType, Event, Position, Status, TaskId, UserId},
    session::test_world::{task_id, user},
};

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) position: Position,
    pub(super) appended_ms: u64,
    pub(super) form: ContentType,
    pub(super) payload: Bytes,
}

/// What a worker remembers of its task.
#[derive(Clone, Default)]
struct Work {
    seq: u64,
    attempt: u32,
    percent: f64,
}

pub(super) struct SimulatedLog {
    /// Counts replacements.
    pub(super) identity: u32,
    pub(super) entries: Vec<Entry>,
    /// Entries before this one were trimmed.
    pub(super) first: usize,
    work: Vec<Work>,
    /// Events on their way, which others overtake.
    late: Vec<Event>,
    marks: u64,
    next: u64,
}

const STATUSES: [Status; 13] = [
    Status::Queued,
    Status::Running,
    Status::Running,
    Status::Running,
    Status::Waiting,
    Status::Waiting,
    Status::Retrying,
    Status::Cancelling,
    Status::Succeeded,
    Status::Failed,
    Status::Failed,
    Status::TimedOut,
    Status::Cancelled,
];

impl SimulatedLog {
    pub(super) fn new(tasks: usize) -> Self {
        let work = vec![Work { attempt: 1, ..Work::default() }; tasks];
        Self { identity: 0, entries: Vec::new(), first: 0, work, late: Vec::new(), marks: 0, next: 1 }
    }

    /// Workers say something.
    pub(super) fn produce(&mut self, random: &mut Random, now_ms: u64) {
        let event = self.event(random);
        match random.below(20) {
            0..=2 => self.late.push(event),
            3 | 4 => {
                self.append(&event, random, now_ms);
                self.append(&event, random, now_ms);
            }
            5 => self.push(Bytes::from_static(b"{\"task_id\":"), ContentType::Json, now_ms, random),
            _ => self.append(&event, random, now_ms),
        }
        if !self.late.is_empty() && random.chance(15) {
            let index = random.below(self.late.len());
            let event = self.late.swap_remove(index);
            self.append(&event, random, now_ms);
        }
    }

    fn event(&mut self, random: &mut Random) -> Event {
        let number = random.below(self.work.len());
        let mut event = Event::new(id(number));
        let work = &mut self.work[number];
        work.percent = (work.percent + random.below(8) as f64).min(100.0);
        if random.chance(6) {
            (work.attempt, work.percent) = (work.attempt + 1, 0.0);
        }
        event.progress = random.chance(75).then_some(work.percent);
        event.status = random.maybe(25, &STATUSES);
        event.step = random.maybe(10, &["load", "save"]).map(Into::into);
        event.attempt = (work.attempt > 1 || random.chance(20)).then_some(work.attempt);
        if number.is_multiple_of(2) {
            work.seq += 1;
            event.seq = Some(work.seq);
        }
        event.event_id = random.chance(30).then(|| format!("e{}", random.next()).into());
        event.user_id = random.chance(60).then(|| owner(if random.chance(3) { number + 1 } else { number }));
        event.root_id = (number % 3 == 1 && random.chance(70)).then(|| id(0));
        event.tags =
            random.chance(12).then(|| ["x", "y"].into_iter().filter(|_| random.chance(50)).map(Into::into).collect());
        event.heartbeat_timeout_ms = random.chance(10).then_some(3_000);
        event
    }

    /// An event is on its way into the log: a worker's, or a replica's verdict. Every entry has a text of its own, so
    /// that each state says which one made it.
    pub(super) fn append(&mut self, event: &Event, random: &mut Random, now_ms: u64) {
        self.marks += 1;
        let event = Event { message: Some(format!("m{}", self.marks).into()), ..event.clone() };
        if random.chance(30) {
            self.push(event.to_protobuf().into(), ContentType::Protobuf, now_ms, random);
        } else {
            self.push(event.to_json().into(), ContentType::Json, now_ms, random);
        }
    }

    fn push(&mut self, payload: Bytes, form: ContentType, appended_ms: u64, random: &mut Random) {
        let position = Position { major: self.next, minor: random.below(3) as u64 };
        self.next += 1 + random.below(2) as u64;
        self.entries.push(Entry { position, appended_ms, form, payload });
    }

    /// Retention takes the beginning.
    pub(super) fn trim(&mut self, random: &mut Random) {
        self.first += random.below(self.entries.len() - self.first + 1);
    }

    /// Another log stands under the name, with positions that overlap the old one's.
    pub(super) fn replace(&mut self, random: &mut Random) {
        self.identity += 1;
        self.entries.clear();
        self.first = 0;
        self.next = 1 + random.below(5) as u64;
    }
}

pub(super) fn id(number: usize) -> TaskId {
    task_id(&format!("t{number}"))
}

pub(super) fn owner(number: usize) -> UserId {
    user(&format!("u{}", number % 3))
}
