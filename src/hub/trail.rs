//! The recent positions of the log and the proof of each, against which a client's cursor is checked; and how far back
//! what is held here is whole.
//!
//! Refuses to know: tasks.

use std::collections::VecDeque;

use crate::proto::{Cursor, Position, ResumeFailure};

/// 16 bytes per position.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) major: u64,
    pub(super) minor: u32,
    pub(super) proof: u32,
}

impl Entry {
    pub(super) fn position(self) -> Position {
        Position { major: self.major, minor: u64::from(self.minor) }
    }
}

/// Bounded; the oldest positions are forgotten first.
pub(super) struct Trail {
    entries: VecDeque<Entry>,
    max: usize,
    /// The position of the newest task state that was let go: whoever has not seen it may miss an end.
    evicted_through: Position,
}

impl Trail {
    pub(super) fn new(max: usize) -> Self {
        Self { entries: VecDeque::new(), max, evicted_through: Position::START }
    }

    /// The next position of the log, ascending.
    pub(super) fn push(&mut self, cursor: Cursor) {
        if self.max == 0 {
            return;
        }
        // A minor half beyond 32 bits is legal in Redis and never seen; such a position just cannot be resumed from.
        let Ok(minor) = u32::try_from(cursor.position.minor) else { return };
        if self.entries.len() == self.max {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { major: cursor.position.major, minor, proof: cursor.proof });
    }

    /// As a checkpoint had it, at most `max` entries.
    pub(super) fn restored(entries: VecDeque<Entry>, max: usize, evicted_through: Position) -> Self {
        Self { entries, max, evicted_through }
    }

    /// What a checkpoint keeps of it.
    pub(super) fn parts(&self) -> (VecDeque<Entry>, Position) {
        (self.entries.clone(), self.evicted_through)
    }

    /// A task whose last event stands at `position` was let go.
    pub(super) fn evicted(&mut self, position: Position) {
        self.evicted_through = self.evicted_through.max(position);
    }

    /// May a client carry on after this cursor?
    pub(super) fn check(&self, cursor: Cursor) -> Result<(), ResumeFailure> {
        let (Some(first), Some(last)) = (self.entries.front(), self.entries.back()) else {
            return Err(ResumeFailure::AnotherLog);
        };
        if cursor.position > last.position() {
            return Err(ResumeFailure::AnotherLog);
        }
        if cursor.position < first.position() {
            return Err(ResumeFailure::Trimmed);
        }
        match self.entries.binary_search_by(|entry| entry.position().cmp(&cursor.position)) {
            Ok(index) if self.entries[index].proof == cursor.proof => {}
            _ => return Err(ResumeFailure::AnotherLog),
        }
        if cursor.position < self.evicted_through { Err(ResumeFailure::Trimmed) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(major: u64, proof: u32) -> Cursor {
        Cursor { position: Position { major, minor: 0 }, proof }
    }

    fn trail() -> Trail {
        let mut trail = Trail::new(3);
        for major in [10, 20, 30, 40] {
            trail.push(at(major, major as u32));
        }
        trail
    }

    #[test]
    fn a_cursor_that_stands_in_the_trail_is_good() {
        assert_eq!(trail().check(at(20, 20)), Ok(()));
        assert_eq!(trail().check(at(40, 40)), Ok(()));
    }

    #[test]
    fn a_cursor_from_before_the_trail_was_trimmed() {
        assert_eq!(trail().check(at(10, 10)), Err(ResumeFailure::Trimmed));
    }

    #[test]
    fn a_cursor_with_other_bytes_or_no_event_behind_it_is_of_another_log() {
        assert_eq!(trail().check(at(20, 21)), Err(ResumeFailure::AnotherLog));
        assert_eq!(trail().check(at(25, 25)), Err(ResumeFailure::AnotherLog));
        assert_eq!(trail().check(at(50, 50)), Err(ResumeFailure::AnotherLog));
        assert_eq!(Trail::new(3).check(at(1, 1)), Err(ResumeFailure::AnotherLog));
    }

    #[test]
    fn a_cursor_from_before_an_eviction_may_miss_an_end() {
        let mut trail = trail();
        trail.evicted(at(30, 0).position);
        assert_eq!(trail.check(at(20, 20)), Err(ResumeFailure::Trimmed));
        assert_eq!(trail.check(at(30, 30)), Ok(()));
    }

    proptest! {
        /// The log's positions with gaps, what was let go, and a cursor that may be anything near them.
        #[test]
        fn a_cursor_is_good_only_if_it_stands_in_what_is_remembered(
            gaps in prop::collection::vec(1..4_u64, 0..12),
            max in 0..8_usize,
            evicted in 0..30_u64,
            (major, minor, proof) in (0..30_u64, 0..2_u64, 0..30_u32),
        ) {
            let mut trail = Trail::new(max);
            let mut all = Vec::new();
            for gap in gaps {
                let next = all.last().map_or(0, |cursor: &Cursor| cursor.position.major) + gap;
                all.push(at(next, next as u32));
                trail.push(at(next, next as u32));
            }
            trail.evicted(Position { major: evicted, minor: 0 });
            let cursor = Cursor { position: Position { major, minor }, proof };
            let known = &all[all.len().saturating_sub(max)..];
            let expected = match (known.first(), known.last()) {
                (Some(_), Some(last)) if cursor.position > last.position => Err(ResumeFailure::AnotherLog),
                (Some(first), Some(_)) if cursor.position < first.position => Err(ResumeFailure::Trimmed),
                (Some(_), Some(_)) if !known.contains(&cursor) => Err(ResumeFailure::AnotherLog),
                (Some(_), Some(_)) if major < evicted => Err(ResumeFailure::Trimmed),
                (Some(_), Some(_)) => Ok(()),
                _ => Err(ResumeFailure::AnotherLog),
            };
            prop_assert_eq!(trail.check(cursor), expected);
        }
    }
}
