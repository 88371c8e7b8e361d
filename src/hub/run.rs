//! What came of one task, in one piece of bytes. Nearly everybody in a crowd around a task stands at the same place, so the
//! piece is made once for all who do, however many frames are in it.
//!
//! Refuses to know: sockets, and what is due of more than one task.

use std::sync::{Arc, atomic::Ordering};

use bytes::{Bytes, BytesMut};

use super::{
    Hub, Mailbox, Progress,
    slot::{Slot, State},
};
use crate::{
    proto::{Cursor, Encoding, Position, Task, TaskFrame},
    traces::Traced,
};

/// Pieces remembered by each who delivers: for the encodings, and for readers that are a little apart.
const REMEMBERED: usize = 4;

/// What is longer is not put together, and so cannot be kept in memory by a piece that is remembered.
const PIECE_MAX_BYTES: usize = 64 * 1024;

/// Frames of one task in a row.
pub struct Run {
    slot: Arc<Slot>,
    wanted: Wanted,
    /// The last frame.
    newest: Arc<TaskFrame>,
    bytes: Bytes,
    /// The frames in `bytes` one by one, as they are shared with everybody else; empty where there is only one.
    parts: Vec<Bytes>,
    oldest_ms: u64,
    conflated: u64,
    /// Those of the frames that are followed until they are written.
    traced: Option<Traced>,
}

/// From where on, and how, a session wants frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub after: Position,
    /// All that the ring holds, not just the newest and the key frames.
    pub every: bool,
    pub encoding: Encoding,
}

/// The task that somebody was last found to be allowed to see. What the access function goes by has not changed since
/// the task stands where it does, so it need not be asked again.
#[derive(Default)]
pub struct Grant(Option<Position>);

impl Grant {
    fn covers(&mut self, state: &State, sees: impl Fn(&Task) -> bool) -> bool {
        let listed_at = Some(state.listed_at());
        if self.0 == listed_at {
            return true;
        }
        let is_seen = sees(&state.current().task);
        if is_seen {
            self.0 = listed_at;
        }
        is_seen
    }
}

/// The last few pieces, of one who delivers.
#[derive(Default)]
pub struct Runs {
    recent: [Option<Run>; REMEMBERED],
    next: usize,
}

impl Run {
    /// Of the last frame.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.newest.cursor
    }

    /// All frames, one behind the other.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What is left of the frames behind the first `written` bytes. Whoever keeps these keeps nothing but what the others
    /// have too.
    #[must_use]
    pub fn rest(&self, mut written: usize) -> Vec<Bytes> {
        let mut rest = Vec::new();
        for part in if self.parts.is_empty() { std::slice::from_ref(&self.bytes) } else { &self.parts } {
            if written < part.len() {
                rest.push(part.slice(written..));
            }
            written = written.saturating_sub(part.len());
        }
        rest
    }

    #[must_use]
    pub fn frames(&self) -> usize {
        self.parts.len().max(1)
    }

    /// Frames that were passed over for a newer one.
    #[must_use]
    pub fn conflated(&self) -> u64 {
        self.conflated
    }

    /// When the first of the frames was applied: milliseconds since the Unix epoch.
    #[must_use]
    pub fn oldest_ms(&self) -> u64 {
        self.oldest_ms
    }

    /// Those of the frames that a trace follows.
    #[must_use]
    pub fn traced(&self) -> Option<&Traced> {
        self.traced.as_ref()
    }

    /// All that is due of `slot` to somebody who can see it, and wants this; `None` where more than frames is to be told.
    fn new(hub: &Hub, slot: &Arc<Slot>, state: &State, wanted: Wanted) -> Option<Self> {
        let newest = state.current().clone();
        let (frames, conflated) = if state.is_next(wanted.after) {
            (Vec::new(), 0)
        } else {
            // Who may see it must be the same for all of them.
            if state.has_moved_since(wanted.after) {
                return None;
            }
            let mut frames = Vec::new();
            let collected = state.collect(wanted.after, newest.position(), wanted.every, &mut frames);
            (frames, collected.conflated)
        };
        let traced = hub.traced(if frames.is_empty() { std::slice::from_ref(&newest) } else { &frames });
        let oldest_ms = frames.first().unwrap_or(&newest).applied_at_ms;
        let run = Self {
            slot: slot.clone(),
            wanted,
            bytes: newest.bytes(wanted.encoding),
            newest,
            parts: Vec::new(),
            oldest_ms,
            conflated,
            traced,
        };
        if frames.len() < 2 { Some(run) } else { run.of(&frames) }
    }

    fn of(mut self, frames: &[Arc<TaskFrame>]) -> Option<Self> {
        self.parts = frames.iter().map(|frame| frame.bytes(self.wanted.encoding)).collect();
        let length = self.parts.iter().map(Bytes::len).sum();
        let mut bytes = BytesMut::with_capacity(length);
        self.parts.iter().for_each(|part| bytes.extend_from_slice(part));
        self.bytes = bytes.freeze();
        (length <= PIECE_MAX_BYTES).then_some(self)
    }

    /// Is this what is due of `slot` now?
    fn is_of(&self, slot: &Arc<Slot>, state: &State, wanted: Wanted) -> bool {
        Arc::ptr_eq(&self.slot, slot) && self.wanted == wanted && Arc::ptr_eq(&self.newest, state.current())
    }
}

impl Runs {
    /// Forgets all, so that nothing is kept in memory while there is nothing to do.
    pub fn clear(&mut self) {
        self.recent = Default::default();
    }

    fn find(&mut self, hub: &Hub, slot: &Arc<Slot>, state: &State, wanted: Wanted) -> Option<&Run> {
        let known = self.recent.iter().position(|run| run.as_ref().is_some_and(|run| run.is_of(slot, state, wanted)));
        let at = match known {
            Some(at) => at,
            None => self.remember(Run::new(hub, slot, state, wanted)?),
        };
        self.recent[at].as_ref()
    }

    fn remember(&mut self, run: Run) -> usize {
        let at = self.next;
        self.next = (at + 1) % REMEMBERED;
        self.recent[at] = Some(run);
        at
    }
}

impl Hub {
    /// As [`Hub::pull`], for the most frequent case, and cheaper: what came for the one task that is marked, when that is
    /// nothing but frames. `None` tells nothing: there may be none, or more. `progress` may be a moment old.
    #[must_use]
    pub fn pull_run<'a>(
        &self,
        mailbox: &Arc<Mailbox>,
        wanted: Wanted,
        progress: &Progress,
        runs: &'a mut Runs,
        grant: &mut Grant,
        sees: impl Fn(&Task) -> bool,
    ) -> Option<&'a Run> {
        let (slot, urgent) = mailbox.take_only()?;
        let run = {
            let state = slot.lock();
            // Whatever was applied to the task under another generation was so before this lock.
            // An end may be the end of a stream as well, which its session has to see to.
            let may_end = urgent && wanted.encoding == Encoding::EventStream;
            let is_due = !may_end
                && self.0.generation.load(Ordering::Relaxed) == progress.generation
                && state.is_due(wanted.after, progress.marked)
                && grant.covers(&state, sees);
            if is_due { runs.find(self, &slot, &state, wanted) } else { None }
        };
        if run.is_none() {
            mailbox.mark(&slot, urgent);
        }
        run
    }
}
