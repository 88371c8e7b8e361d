//! What a session can hand out without its task: the one frame that is due to somebody who has everything else and
//! reads as fast as things happen. That is nearly every delivery, so it must cost next to nothing.
//!
//! Refuses to know: every other case; it says nothing about those, and the session's output has them all.

use std::sync::Arc;

use super::machine::{Session, Stage};
use crate::{hub::Hub, proto::TaskFrame};

impl Session {
    /// Nothing but frames can be due, until the session is told something or the hub starts over.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.stage, Stage::Live)
            && self.closing.is_none()
            && self.told_stale.is_none()
            && !self.term.is_over()
            && !self.more
            && self.throttle.is_zero()
            && self.preface.is_empty()
            && self.replies.is_empty()
            && self.late_topics.is_empty()
            && self.listings.is_empty()
    }

    /// The one frame that is due to a session that [`Session::is_plain`]; the cursor is behind it then. `None` tells
    /// nothing.
    pub(super) fn only_frame(&mut self) -> Option<Arc<TaskFrame>> {
        let progress = self.shared.hub.progress();
        if progress.generation != self.generation || progress.stale.is_some() {
            return None;
        }
        let sees = |task: &_| self.identity.may_watch(task);
        let frame = Hub::pull_one(&self.mailbox, self.position(), progress.marked, sees)?;
        self.cursor = Some(frame.cursor);
        Some(frame)
    }

    /// Something is left that only its task can see to: it waits for a moment, or ends.
    pub(super) fn needs_its_task(&self) -> bool {
        self.has_more() || self.is_held_back || self.closing.is_some()
    }
}
