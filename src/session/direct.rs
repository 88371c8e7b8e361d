//! What a session can hand out without its task: what came of one task, to somebody who has everything else and reads
//! as fast as things happen. That is nearly every delivery, so it must cost next to nothing.
//!
//! Refuses to know: every other case; it says nothing about those, and the session's output has them all.

use super::{
    Deliver,
    machine::{Session, Stage},
};
use crate::hub::{Progress, Run, Runs, Wanted};

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

    /// What is due to a session that [`Session::is_plain`], where that is of one task and short; the cursor is behind it
    /// then. `None` tells nothing.
    pub(super) fn only_run<'a>(&mut self, progress: &Progress, runs: &'a mut Runs) -> Option<&'a Run> {
        if progress.generation != self.generation || progress.stale.is_some() {
            return None;
        }
        let wanted = Wanted { after: self.position(), every: self.deliver == Deliver::Every, encoding: self.encoding };
        let sees = |task: &_| self.identity.may_watch(task);
        let run = self.shared.hub.pull_run(&self.mailbox, wanted, progress, runs, &mut self.grant, sees)?;
        self.cursor = Some(run.cursor());
        Some(run)
    }

    /// Something is left that only its task can see to: it waits for a moment, or ends.
    pub(super) fn needs_its_task(&self) -> bool {
        self.has_more() || self.is_held_back || self.closing.is_some()
    }
}
