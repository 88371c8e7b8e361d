//! States out: watching, pulling, resuming, listing.
//!
//! Refuses to know: how a state came to be.

use std::{collections::HashSet, sync::Arc};

use super::{Hub, Mailbox, Under, lock, names::is_heard_under, slot::Slot};
use crate::proto::{Cursor, Position, ResumeFailure, Task, TaskFrame, TaskId, Topic};

/// A watched topic; hand it back to [`Hub::unwatch`].
#[derive(Debug)]
pub struct Watch {
    topic: Topic,
    number: u64,
}

impl Watch {
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }
}

/// What a pull found.
#[derive(Debug, Default)]
pub struct Pulled {
    /// Ascending by position.
    pub frames: Vec<Arc<TaskFrame>>,
    /// Frames that were passed over.
    pub conflated: u64,
    /// Tasks whose ring had to let go of a change of status since `after`.
    pub gaps: u64,
    /// Tasks that are no longer to be seen. To be told before the frames, whose cursors say that it was.
    pub hidden: Vec<TaskId>,
    /// Tasks that are no longer kept. To be told after the frames, which have their last states.
    pub removed: Vec<TaskId>,
    /// There was more than the limit; pull again.
    pub more: bool,
    /// A task moves so fast that its ring holds nothing any more that has been announced: it is told of later.
    pub passed_over: bool,
}

/// What a client missed.
#[derive(Debug, Default)]
pub struct Missed {
    /// Ascending by position.
    pub frames: Vec<Arc<TaskFrame>>,
    /// Tasks that it could see and can no more.
    pub hidden: Vec<TaskId>,
    /// There was more than the limit; ask again from the last frame on.
    pub more: bool,
}

/// What a pull is to bring.
#[derive(Clone, Copy, Debug)]
pub struct PullOptions {
    pub after: Position,
    /// All that the rings hold, not just the newest and the key frames.
    pub every: bool,
    pub frames_max: usize,
}

/// A task that a pull looked at.
struct Source {
    slot: Arc<Slot>,
    /// The newest position that the pull may send of it.
    newest: Position,
    conflated: u64,
    gap: bool,
    /// It is no longer kept.
    removed: bool,
}

impl Hub {
    /// From now on, what happens under `topic` is marked in `mailbox`.
    #[must_use]
    pub fn watch(&self, topic: Topic, mailbox: &Arc<Mailbox>) -> Watch {
        let number = self.0.topics.watch(&topic, mailbox);
        Watch { topic, number }
    }

    pub fn unwatch(&self, watch: &Watch) {
        self.0.topics.unwatch(&watch.topic, watch.number);
    }

    /// May a client that saw everything up to `cursor` carry on from there?
    ///
    /// # Errors
    /// Why not; a full snapshot is due then.
    pub fn check(&self, cursor: Cursor) -> Result<(), ResumeFailure> {
        lock(&self.0.trail).check(cursor)
    }

    /// The first `frames_max` frames that a client missed of what it watches since `after`, ascending up to `through`; and
    /// whether there are more.
    ///
    /// # Errors
    /// As [`Hub::check`]; and [`ResumeFailure::Trimmed`] when a frame that must not be folded away is no longer held.
    pub fn missed(
        &self,
        under: &Under,
        after: Cursor,
        through: Position,
        every: bool,
        frames_max: usize,
        sees: impl Fn(&Task) -> bool,
    ) -> Result<Missed, ResumeFailure> {
        self.check(after)?;
        let mut missed = Missed::default();
        let departed = lock(&self.0.departures).since(after.position, &under.topics)?;
        let changed = self.changed(under.sources(), after.position).into_iter();
        let changed = changed.filter(|slot| under.has(&slot.current().task));
        for slot in each_once(changed.chain(departed).collect()) {
            let state = slot.lock();
            // Whether a task exists that was never seen must not show in the answer.
            if !sees(&state.current().task) {
                missed.hidden.extend(state.was_seen(after.position, &sees).then(|| slot.id.clone()));
                continue;
            }
            if state.current().position() > after.position && !state.is_whole_after(after.position) {
                return Err(ResumeFailure::Trimmed);
            }
            state.collect(after.position, through, every, &mut missed.frames);
        }
        missed.frames.retain(|frame| sees(&frame.task));
        missed.hidden.sort_unstable();
        // Something may have been let go while this looked.
        self.check(after)?;
        missed.frames.sort_unstable_by_key(|frame| frame.position());
        missed.more = missed.frames.len() > frames_max;
        missed.frames.truncate(frames_max);
        missed.frames.shrink_to_fit();
        Ok(missed)
    }

    /// The current frame of a task, whoever asks; access is the caller's business.
    #[must_use]
    pub fn task(&self, id: &TaskId) -> Option<Arc<TaskFrame>> {
        self.slot(id).map(|slot| slot.current())
    }

    /// What came for the tasks marked in `mailbox`, as far as every watcher has been told. `sees` is the access
    /// function. What exceeds the limit stays marked.
    pub fn pull(&self, mailbox: &Arc<Mailbox>, options: PullOptions, sees: impl Fn(&Task) -> bool) -> Pulled {
        let marked = self.progress().marked;
        let mut pulled = Pulled::default();
        let mut sources: Vec<Source> = Vec::new();
        let mut early = false;
        for slot in mailbox.take() {
            let state = slot.lock();
            let current = state.current();
            if !sees(&current.task) {
                // It was moved out of this client's sight, which must not look as if it stood still.
                pulled.hidden.extend(state.was_seen(options.after, &sees).then(|| slot.id.clone()));
                continue;
            }
            let told = pulled.frames.len();
            let collected = state.collect(options.after, marked, options.every, &mut pulled.frames);
            if collected.pending {
                early = true;
                pulled.passed_over |= pulled.frames.len() == told;
                mailbox.mark(&slot, current.task.status.is_terminal());
            }
            // Until what is newer has been announced, the removal is not told either.
            let gap = !state.is_whole_after(options.after);
            let removed = state.removed && !collected.pending;
            let newest = current.position().min(marked);
            drop(state);
            sources.push(Source { slot, newest, conflated: collected.conflated, gap, removed });
        }
        // A task that may be seen now may have been hidden when an older frame was made.
        pulled.frames.retain(|frame| sees(&frame.task));
        pulled.frames.sort_unstable_by_key(|frame| frame.position());
        let mut through = marked;
        if pulled.frames.len() > options.frames_max {
            pulled.more = true;
            pulled.frames.truncate(options.frames_max);
            through = pulled.frames.last().map_or(options.after, |frame| frame.position());
        }
        for source in sources {
            if source.newest > through {
                let urgent = source.slot.lock().status().is_terminal();
                mailbox.mark(&source.slot, urgent);
            } else {
                pulled.conflated += source.conflated;
                pulled.gaps += u64::from(source.gap);
                pulled.removed.extend(source.removed.then(|| source.slot.id.clone()));
            }
        }
        // A task that was let go and has been heard of again is alive.
        let is_gone = |id: &TaskId| self.task(id).is_none_or(|frame| !sees(&frame.task));
        for gone in [&mut pulled.hidden, &mut pulled.removed] {
            gone.retain(is_gone);
            gone.sort_unstable();
        }
        if early {
            self.wake_after(marked, mailbox);
        }
        pulled
    }

    /// Drops the marks of tasks that are under none of `topics`: for a watch that ends in the middle of a session.
    pub fn keep_marks(&self, mailbox: &Arc<Mailbox>, topics: &[Topic]) {
        for slot in mailbox.take() {
            let current = slot.current();
            if is_heard_under(&current.task, topics) {
                mailbox.mark(&slot, current.task.status.is_terminal());
            }
        }
    }

    /// Is a task watched no more, when `topic` is given up and the `rest` is kept?
    #[must_use]
    pub fn is_given_up(task: &Task, topic: &Topic, rest: &[Topic]) -> bool {
        is_heard_under(task, std::slice::from_ref(topic)) && !is_heard_under(task, rest)
    }

    /// Wakes `mailbox` once `marked` has moved beyond `through`.
    pub fn wake_after(&self, through: Position, mailbox: &Arc<Mailbox>) {
        let mut stragglers = lock(&self.0.stragglers);
        // Under the lock: either the mover of `marked` has yet to take the list, or it has moved already.
        if self.progress().marked > through {
            mailbox.wake();
        } else {
            stragglers.push(mailbox.clone());
        }
    }
}

fn each_once(mut slots: Vec<Arc<Slot>>) -> Vec<Arc<Slot>> {
    let mut seen = HashSet::with_capacity(slots.len());
    slots.retain(|slot| seen.insert(Arc::as_ptr(slot).addr()));
    slots
}
