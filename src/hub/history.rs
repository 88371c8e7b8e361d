//! How a task came to where it is, as far as its ring still holds it.
//!
//! Refuses to know: who asks, and who may.

use std::sync::Arc;

use super::Hub;
use crate::proto::{TaskFrame, TaskId};

/// What is still held of one task.
#[derive(Debug)]
pub struct History {
    /// Ascending, and never empty; the last one is how the task stands. Between two of them others may have been let go.
    pub frames: Vec<Arc<TaskFrame>>,
    /// The first of them is of the task's first event.
    pub from_start: bool,
    /// A ring holds so many at most.
    pub frames_max: usize,
}

impl Hub {
    /// The frames of a task that are still held, whoever asks; access is the caller's business, frame by frame.
    #[must_use]
    pub fn history(&self, id: &TaskId) -> Option<History> {
        let slot = self.slot(id)?;
        let state = slot.lock();
        let frames: Vec<_> = state.frames.iter().cloned().collect();
        let from_start = frames.first().is_some_and(|first| first.position() == state.born);
        Some(History { frames, from_start, frames_max: self.0.settings.ring_frames.max(1) })
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        hub::{
            Settings,
            tests::{LATE, arrival, hub_with, id, progress, settings, status},
        },
        proto::Status,
    };

    #[test]
    fn what_the_ring_holds_is_told_in_order_and_whether_it_begins_with_the_first_event() {
        let hub = hub_with(Settings { ring_frames: 4, ..settings() });
        assert!(hub.history(&id("t")).is_none());
        let positions = || {
            let history = hub.history(&id("t")).unwrap();
            assert_eq!(history.frames_max, 4);
            (history.frames.iter().map(|frame| frame.position().major).collect::<Vec<_>>(), history.from_start)
        };
        hub.apply(&[arrival(1, status("t", "u1", Status::Queued)), arrival(2, progress("t", "u1", 1.0))], LATE);
        assert_eq!(positions(), (vec![1, 2], true));
        let steps: Vec<_> = (3..9).map(|n| arrival(n, progress("t", "u1", n as f64))).collect();
        hub.apply(&steps, LATE);
        // Changes of status are kept longest: the first event, and the start.
        assert_eq!(positions(), (vec![1, 2, 7, 8], true));
        let turns = [Status::Waiting, Status::Running, Status::Waiting];
        let turns: Vec<_> = (9..).zip(turns).map(|(n, next)| arrival(n, status("t", "u1", next))).collect();
        hub.apply(&turns, LATE);
        assert_eq!(positions(), (vec![2, 9, 10, 11], false));
    }
}
