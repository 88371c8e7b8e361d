//! One task in the hub: its current frame, the bounded ring of those before it, and what the rules remember.
//!
//! Refuses to know: who watches.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    deadlines::NEVER,
    names::is_listed_alike,
    rules::{self, Memory},
    weight,
};
use crate::{
    metrics::Outcome,
    proto::{Cursor, Event, Position, Status, Task, TaskFrame, TaskId},
};

/// How many moves of a task are remembered. Whoever is further behind counts as one who saw it before the oldest.
pub(super) const MOVES_MAX: usize = 8;

/// A task's place in the hub. Shared by the indexes and by the mailboxes that have it marked.
pub(super) struct Slot {
    pub(super) id: TaskId,
    state: Mutex<State>,
}

/// The frames of a task. Shared with an image of the hub for as long as one is written; copied when it changes meanwhile.
pub(super) type Ring = Arc<VecDeque<Arc<TaskFrame>>>;

/// The changes of a task's owner, group or tags: where, and the frame before.
pub(super) type Moves = VecDeque<(Position, Arc<TaskFrame>)>;

/// What stands behind the lock. The ring is never empty and ascends; its last frame is the current state.
pub(super) struct State {
    pub(super) frames: Ring,
    pub(super) memory: Memory,
    /// The newest key frame that the ring had to let go.
    pub(super) key_floor: Position,
    /// Where its first event stands.
    pub(super) born: Position,
    /// Where its owner, group or tags changed, and the frame before: who may see it depends on nothing else.
    pub(super) moves: Moves,
    /// When its worker was last heard: the basis of retention and of silence.
    pub(super) heard_at_ms: u64,
    /// Of the last verdict that was asked for, so that it is not asked for at every sweep.
    pub(super) judged_at_ms: Option<u64>,
    /// When a sweep looks at it next, at the latest; kept with [`super::deadlines`].
    pub(super) due_ms: u64,
    /// No longer in the hub.
    pub(super) removed: bool,
    /// Of the frames, and of the slot around them.
    frames_bytes: usize,
    slot_bytes: usize,
}

/// What a task remembers beside its frames.
pub(super) struct Past {
    pub(super) memory: Memory,
    pub(super) key_floor: Position,
    pub(super) born: Position,
    pub(super) moves: Moves,
}

/// The times of an event, in milliseconds since the Unix epoch.
#[derive(Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "units come last in a name")]
pub(super) struct Dates {
    /// When the log took it, as far as anybody says.
    pub(super) at_ms: u64,
    /// When the service may count it as heard.
    pub(super) heard_ms: u64,
    pub(super) now_ms: u64,
}

/// What a session gets out of a slot.
pub(super) struct Collected {
    /// Frames passed over because a newer one of the task stood behind them.
    pub(super) conflated: u64,
    /// There is something newer than the caller may have yet.
    pub(super) pending: bool,
}

impl Slot {
    /// A task's first event.
    pub(super) fn new(event: &Event, cursor: Cursor, dates: Dates) -> Self {
        let step = rules::first(event, dates.at_ms);
        let mut memory = Memory::default();
        memory.remember(event, &step);
        let frame = Arc::new(TaskFrame::new(step.task, cursor, step.is_key, dates.now_ms));
        let state = State {
            judged_at_ms: None,
            due_ms: NEVER,
            removed: false,
            frames_bytes: weight::of_frame(&frame, None),
            slot_bytes: weight::of_slot(&frame.task, memory.event_ids_bytes()),
            frames: Arc::new(VecDeque::from([frame])),
            memory,
            key_floor: Position::START,
            born: cursor.position,
            moves: VecDeque::new(),
            heard_at_ms: dates.heard_ms,
        };
        Self { id: event.task_id.clone(), state: Mutex::new(state) }
    }

    /// A task as a checkpoint had it, with the first frame of its ring; the others follow by [`Self::restore`].
    pub(super) fn restored(frame: TaskFrame, past: Past, heard_at_ms: u64) -> Self {
        let Past { memory, key_floor, born, moves } = past;
        let id = frame.task.task_id.clone();
        let state = State {
            judged_at_ms: None,
            due_ms: NEVER,
            removed: false,
            frames_bytes: weight::of_frame(&frame, None),
            slot_bytes: weight::of_slot(&frame.task, memory.event_ids_bytes()),
            frames: Arc::new(VecDeque::from([Arc::new(frame)])),
            memory,
            key_floor,
            born,
            moves,
            heard_at_ms,
        };
        Self { id, state: Mutex::new(state) }
    }

    /// Adds the next frame of its ring.
    pub(super) fn restore(&mut self, frame: TaskFrame, ring_frames: usize) {
        let state = self.restoring();
        state.slot_bytes = weight::of_slot(&frame.task, state.memory.event_ids_bytes());
        state.push(Arc::new(frame), ring_frames);
    }

    /// While nobody shares it yet.
    pub(super) fn restoring(&mut self) -> &mut State {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under this lock can panic between two of its writes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current frame.
    pub(super) fn current(&self) -> Arc<TaskFrame> {
        self.lock().current().clone()
    }
}

impl State {
    #[expect(clippy::expect_used, reason = "the ring is made with one frame and never shrinks below it")]
    pub(super) fn current(&self) -> &Arc<TaskFrame> {
        self.frames.back().expect("a ring with a frame")
    }

    /// Applies an event; the new current frame, or why not.
    pub(super) fn apply(
        &mut self,
        event: &Event,
        cursor: Cursor,
        dates: Dates,
        ring_frames: usize,
    ) -> Result<Arc<TaskFrame>, Outcome> {
        let current = self.current();
        // The service's own verdict holds only if nothing of the task came after what it judged by.
        if event.observed.is_some_and(|observed| observed != current.position()) {
            return Err(Outcome::Stale);
        }
        let step = rules::next(&current.task, &self.memory, event, dates.at_ms);
        // Even what is refused was said by somebody who is alive; only the service's own verdict was not.
        if event.observed.is_none() {
            self.heard_at_ms = self.heard_at_ms.max(dates.heard_ms);
        }
        let step = step?;
        self.memory.remember(event, &step);
        self.judged_at_ms = None;
        let frame = Arc::new(TaskFrame::new(step.task, cursor, step.is_key, dates.now_ms));
        self.note_move(&frame);
        self.push(frame.clone(), ring_frames);
        self.slot_bytes = weight::of_slot(&frame.task, self.memory.event_ids_bytes());
        Ok(frame)
    }

    fn note_move(&mut self, next: &TaskFrame) {
        if is_listed_alike(&self.current().task, &next.task) {
            return;
        }
        let current = self.current().clone();
        if self.moves.len() == MOVES_MAX {
            self.moves.pop_front();
        }
        self.moves.push_back((next.position(), current));
    }

    /// Could a client that has everything up to `after` see the task then?
    pub(super) fn was_seen(&self, after: Position, sees: impl Fn(&Task) -> bool) -> bool {
        let then = self.moves.iter().find(|(moved_at, _)| *moved_at > after).map_or(self.current(), |(_, frame)| frame);
        self.born <= after && sees(&then.task)
    }

    /// What the task takes in memory, about.
    pub(super) fn weight(&self) -> usize {
        self.frames_bytes + self.slot_bytes
    }

    /// Lets go of every older frame that may be folded.
    pub(super) fn fold(&mut self) {
        while let Some(index) = self.oldest_foldable().filter(|index| index + 1 < self.frames.len()) {
            self.let_go(index);
        }
    }

    fn oldest_foldable(&self) -> Option<usize> {
        self.frames.iter().position(|held| !held.is_key)
    }

    /// Takes a frame out of the ring. What its successor shared with it is the successor's own from then on.
    fn let_go(&mut self, index: usize) {
        let before = index.checked_sub(1).and_then(|index| self.frames.get(index)).cloned();
        let Some(gone) = Arc::make_mut(&mut self.frames).remove(index) else { return };
        self.frames_bytes -= weight::of_frame(&gone, before.as_deref());
        if let Some(after) = self.frames.get(index) {
            self.frames_bytes -= weight::of_frame(after, Some(&gone));
            self.frames_bytes += weight::of_frame(after, before.as_deref());
        }
        if gone.is_key {
            self.key_floor = self.key_floor.max(gone.position());
        }
    }

    /// Makes room by letting go of the oldest frame that may be folded, else of the oldest.
    fn push(&mut self, frame: Arc<TaskFrame>, ring_frames: usize) {
        if self.frames.len() >= ring_frames.max(1) {
            self.let_go(self.oldest_foldable().unwrap_or(0));
        }
        self.frames_bytes += weight::of_frame(&frame, self.frames.back().map(|last| &**last));
        Arc::make_mut(&mut self.frames).push_back(frame);
    }

    /// Adds what came after `after`, up to and including `through`, to `frames`. With `every`, all that the ring
    /// holds; else the newest and every key frame.
    pub(super) fn collect(
        &self,
        after: Position,
        through: Position,
        every: bool,
        frames: &mut Vec<Arc<TaskFrame>>,
    ) -> Collected {
        let newest = self.current().position();
        let mut conflated = 0;
        let mut last_in_range = true;
        let first = frames.len();
        for frame in
            self.frames.iter().rev().skip_while(|f| f.position() > through).take_while(|f| f.position() > after)
        {
            if every || last_in_range || frame.is_key {
                frames.push(frame.clone());
            } else {
                conflated += 1;
            }
            last_in_range = false;
        }
        frames[first..].reverse();
        Collected { conflated, pending: newest > through }
    }

    /// Something came after `after`, all of it is announced, and nothing but frames is to be told.
    pub(super) fn is_due(&self, after: Position, through: Position) -> bool {
        let newest = self.current().position();
        newest > after && newest <= through && self.is_whole_after(after) && !self.removed
    }

    /// The current frame is the only one after `after` that is still held.
    pub(super) fn is_next(&self, after: Position) -> bool {
        self.frames.iter().rev().nth(1).is_none_or(|before| before.position() <= after)
    }

    /// Where its owner, group and tags became what they are. No other task began or was moved there.
    pub(super) fn listed_at(&self) -> Position {
        self.moves.back().map_or(self.born, |(moved_at, _)| *moved_at)
    }

    /// Its owner, group or tags changed.
    pub(super) fn has_moved_since(&self, after: Position) -> bool {
        self.moves.back().is_some_and(|(moved_at, _)| *moved_at > after)
    }

    /// Nothing that must not be folded away is missing between `after` and now.
    pub(super) fn is_whole_after(&self, after: Position) -> bool {
        self.key_floor <= after
    }

    pub(super) fn status(&self) -> Status {
        self.current().task.status
    }

    /// As [`State::weight`], from scratch.
    #[cfg(test)]
    pub(super) fn weight_anew(&self) -> usize {
        let mut before: Option<&TaskFrame> = None;
        let mut bytes = weight::of_slot(&self.current().task, self.memory.event_ids_bytes());
        for frame in self.frames.iter() {
            bytes += weight::of_frame(frame, before);
            before = Some(frame);
        }
        bytes
    }

    #[cfg(test)]
    pub(super) fn frames_held(&self) -> usize {
        self.frames.len()
    }
}
