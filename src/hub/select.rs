//! Which tasks are under some topics: all of them, the newest, or those that changed since. Lists are read in pieces with
//! no lock held in between, and none is read for tasks that did not change.
//!
//! Refuses to know: what is sent of them.

use std::{cmp::Reverse, sync::Arc};

use super::{Hub, Mailbox, Under, Walk, names::is_heard_under, slot::Slot, walk::PIECE_TASKS};
use crate::proto::{Position, Task, TaskFrame, Topic};

/// Frames that are held at most to find the newest. Whoever asks for older ones pays with another look at all.
/// Few in tests of this crate, so that they look again.
const NEWEST_AT_ONCE: usize = if cfg!(test) { 4 } else { 16_384 };

/// Behind everything that a log can hold.
const END: Position = Position { major: u64::MAX, minor: u64::MAX };

/// Some of the newest tasks under some topics.
#[derive(Debug, Default)]
pub struct Newest {
    /// Descending by position.
    pub frames: Vec<Arc<TaskFrame>>,
    /// How many tasks there are in all.
    pub total: usize,
}

impl Hub {
    /// Shows each task under `topics` once, in no order, with no lock held.
    pub(super) fn each_under(&self, topics: &[Topic], mut show: impl FnMut(&Arc<Slot>)) {
        for (index, topic) in topics.iter().enumerate() {
            let before = &topics[..index];
            let mut show = |slot: &Arc<Slot>| {
                if before.is_empty() || !is_heard_under(&slot.current().task, before) {
                    show(slot);
                }
            };
            match topic {
                Topic::All => self.slots().for_each(|slot| show(&slot)),
                Topic::Task(id) if id.is_reserved() => self.canary_slot(id).iter().for_each(show),
                Topic::Task(id) => self.slot(id).iter().for_each(show),
                Topic::Root(id) => {
                    self.slot(id).iter().for_each(&mut show);
                    self.0.listings.each(topic.into(), |slot| {
                        if slot.id != *id {
                            show(slot);
                        }
                    });
                }
                Topic::Owner(_) | Topic::Tag(_) => self.0.listings.each(topic.into(), show),
            }
        }
    }

    /// About how many tasks are under `topics`, at most.
    pub(super) fn count_under(&self, topics: &[Topic]) -> usize {
        let count = |topic: &Topic| match topic {
            Topic::All => self.len(),
            Topic::Task(_) => 1,
            Topic::Root(_) => 1 + self.0.listings.len(topic.into()),
            Topic::Owner(_) | Topic::Tag(_) => self.0.listings.len(topic.into()),
        };
        topics.iter().map(count).sum()
    }

    /// The newest tasks under `topics` that are `wanted`: `limit` at most, behind the first `skip`.
    #[must_use]
    pub fn newest(
        &self,
        topics: &[Topic],
        mut skip: usize,
        limit: usize,
        wanted: impl Fn(&TaskFrame) -> bool,
    ) -> Newest {
        let (mut newest, mut below) = (Newest::default(), END);
        for round in 0.. {
            let room = skip.saturating_add(limit - newest.frames.len()).min(NEWEST_AT_ONCE);
            let mut found: Vec<Arc<TaskFrame>> = Vec::new();
            let mut floor = Position::START;
            self.each_under(topics, |slot| {
                let frame = slot.current();
                if frame.position() >= below || !wanted(&frame) {
                    return;
                }
                newest.total += usize::from(round == 0);
                if room > 0 && frame.position() >= floor {
                    found.push(frame);
                }
                if found.len() > 2 * room {
                    keep_newest(&mut found, room);
                    floor = found.last().map_or(floor, |last| last.position());
                }
            });
            keep_newest(&mut found, room);
            let is_all = found.len() < room || skip >= newest.total;
            below = found.last().map_or(below, |last| last.position());
            let passed = skip.min(found.len());
            skip -= passed;
            newest.frames.extend(found.into_iter().skip(passed));
            if is_all || newest.frames.len() >= limit {
                break;
            }
        }
        newest
    }

    /// The tasks under `topics` whose newest frame is beyond `after`, some perhaps twice.
    pub(super) fn changed(&self, topics: &[Topic], after: Position) -> Vec<Arc<Slot>> {
        let listed = self.count_under(topics);
        let is_long = listed > PIECE_TASKS || topics.contains(&Topic::All);
        if is_long
            && !has_reserved(topics)
            && let Some(changed) = self.changed_in_order(topics, after, listed)
        {
            return changed;
        }
        let mut changed = Vec::new();
        self.each_under(topics, |slot| {
            if slot.lock().current().position() > after {
                changed.push(slot.clone());
            }
        });
        changed
    }

    /// As [`Hub::changed`], from what changed of all tasks; `None` if that is more than `listed`. A task that changes
    /// meanwhile moves to the end, so it is met all the same.
    fn changed_in_order(&self, topics: &[Topic], mut after: Position, listed: usize) -> Option<Vec<Arc<Slot>>> {
        let (mut changed, mut looked_at) = (Vec::new(), 0);
        loop {
            let piece = self.0.order.piece(after, END);
            let Some((last, _)) = piece.last() else { return Some(changed) };
            after = *last;
            looked_at += piece.len();
            if looked_at > listed && !topics.contains(&Topic::All) {
                return None;
            }
            changed.extend(piece.into_iter().map(|(_, slot)| slot).filter(|slot| slot.is_under(topics)));
        }
    }

    /// Marks the tasks of `under` whose newest frame is beyond `after` in `mailbox`, and returns a walk over the
    /// others, unless there are none at all: for a watch that begins in the middle of a session.
    #[must_use]
    pub fn catch_up(
        &self,
        under: impl Into<Under>,
        after: Position,
        mailbox: &Arc<Mailbox>,
        sees: impl Fn(&Task) -> bool,
    ) -> Option<Walk> {
        let under = under.into();
        // What this finds is looked for again when it is sent: until then no places are held.
        let walk = || Walk::new(under.clone(), after);
        // First, so that a task which moves on in between is found by the other way.
        let mut is_any = self.peek(&mut walk(), &sees).is_some();
        for slot in self.changed(under.sources(), after) {
            let current = slot.current();
            if under.has(&current.task) && sees(&current.task) {
                mailbox.mark(&slot, current.task.status.is_terminal());
                is_any = true;
            }
        }
        mailbox.wake();
        is_any.then(walk)
    }

    /// All tasks under `topics`, newest first.
    #[cfg(test)]
    pub(crate) fn tasks(&self, topics: &[Topic]) -> Vec<Arc<TaskFrame>> {
        self.newest(topics, 0, usize::MAX, |_| true).frames
    }
}

impl Slot {
    pub(super) fn is_under(&self, topics: &[Topic]) -> bool {
        is_heard_under(&self.current().task, topics)
    }
}

/// A canary has no place among the tasks.
pub(super) fn has_reserved(topics: &[Topic]) -> bool {
    topics.iter().any(|topic| matches!(topic, Topic::Task(id) if id.is_reserved()))
}

/// Descending, `room` at most.
fn keep_newest(found: &mut Vec<Arc<TaskFrame>>, room: usize) {
    found.sort_unstable_by_key(|frame| Reverse(frame.position()));
    found.truncate(room);
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
