//! Which tasks left which topic of late, so that a client that was away can be told: on the topic's list they stand no
//! more.
//!
//! Refuses to know: who watches, and what they may see.

use std::{collections::VecDeque, sync::Arc};

use super::slot::Slot;
use crate::proto::{Position, ResumeFailure, Topic};

/// Departures remembered at most. Tasks leave a tag, and rarely; whoever was away for more of them gets a snapshot.
const DEPARTURES_MAX: usize = 10_000;

/// Ascending by position; the oldest are forgotten first.
#[derive(Default)]
pub(super) struct Departures {
    entries: VecDeque<(Position, Topic, Arc<Slot>)>,
    forgotten_through: Position,
}

impl Departures {
    /// The event at `position` took a task off `topic`.
    pub(super) fn push(&mut self, position: Position, topic: Topic, slot: Arc<Slot>) {
        if self.entries.len() == DEPARTURES_MAX
            && let Some((forgotten, ..)) = self.entries.pop_front()
        {
            self.forgotten_through = forgotten;
        }
        self.entries.push_back((position, topic, slot));
    }

    /// The tasks that left one of `topics` after `after`.
    ///
    /// # Errors
    /// [`ResumeFailure::Trimmed`] when that is no longer known.
    pub(super) fn since(&self, after: Position, topics: &[Topic]) -> Result<Vec<Arc<Slot>>, ResumeFailure> {
        // Owners and groups stay.
        if !topics.iter().any(|topic| matches!(topic, Topic::Tag(_))) {
            return Ok(Vec::new());
        }
        if after < self.forgotten_through {
            return Err(ResumeFailure::Trimmed);
        }
        let recent = self.entries.iter().rev().take_while(|(position, ..)| *position > after);
        Ok(recent.filter(|(_, topic, _)| topics.contains(topic)).map(|(.., slot)| slot.clone()).collect())
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Nothing is known of what left up to there: an image does not tell.
    pub(super) fn unknown_through(position: Position) -> Self {
        Self { entries: VecDeque::new(), forgotten_through: position }
    }
}
