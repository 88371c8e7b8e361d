//! One question about one task that waits for its answer: a watch without a session.
//!
//! Refuses to know: HTTP, how long anybody may wait.

use std::{future, sync::Arc, time::Instant};

use super::{Sessions, serve};
use crate::{
    auth::Identity,
    clock,
    hub::{Hub, Mailbox, Watch},
    limits::{Place, Refusal},
    metrics::{Metrics, Transport},
    proto::{Cursor, Task, TaskFrame, TaskId, Topic},
};

/// What somebody wants to know.
pub struct Question<'a> {
    pub identity: &'a Identity,
    pub task_id: TaskId,
    /// What they have.
    pub after: Option<Cursor>,
    pub until: Instant,
}

/// Held for as long as somebody waits.
struct Waiting<'a> {
    hub: &'a Hub,
    metrics: &'a Metrics,
    watch: Watch,
    _place: Option<Place>,
    /// A drain waits for it.
    _token: tokio_util::task::task_tracker::TaskTrackerToken,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.hub.unwatch(&self.watch);
        self.metrics.transport_closed(Transport::LongPoll);
    }
}

impl Sessions {
    /// The task as soon as there is something about it that somebody has not; `None` when nothing came in time, or when
    /// this replica is about to end.
    ///
    /// # Errors
    /// Their user has as many connections as one may have.
    pub async fn answer(&self, question: Question<'_>) -> Result<Option<Arc<TaskFrame>>, Refusal> {
        if let Some(after) = question.after {
            // They may come from a replica that is a moment ahead.
            let caught_up = serve::wait_for_position(self, after.position);
            let _ = tokio::time::timeout_at(question.until.into(), caught_up).await;
        }
        if let Some(frame) = self.news(&question) {
            return Ok(Some(frame));
        }
        if question.until <= clock::now().instant {
            return Ok(None);
        }
        let mailbox = Arc::<Mailbox>::default();
        let waiting = self.wait(&question, &mailbox)?;
        let frame = self.first_news(&question, &mailbox).await;
        drop(waiting);
        Ok(frame)
    }

    fn wait(&self, question: &Question<'_>, mailbox: &Arc<Mailbox>) -> Result<Waiting<'_>, Refusal> {
        let place = match &question.identity.user {
            _ if !self.verifier.needs_token() => None,
            Some(user) => self.limits.stay(user)?,
            None => self.limits.open_link(&question.identity.link())?,
        };
        self.metrics.transport_opened(Transport::LongPoll);
        Ok(Waiting {
            hub: &self.hub,
            metrics: &self.metrics,
            watch: self.hub.watch(Topic::Task(question.task_id.clone()), mailbox),
            _place: place,
            _token: self.open.token(),
        })
    }

    async fn first_news(&self, question: &Question<'_>, mailbox: &Mailbox) -> Option<Arc<TaskFrame>> {
        let over = async {
            tokio::select! {
                () = tokio::time::sleep_until(question.until.into()) => {}
                () = self.turn_to_end() => {}
            }
        };
        let news = async {
            loop {
                // It was watched before it is looked at, so nothing can come in between.
                if let Some(frame) = self.news(question) {
                    return frame;
                }
                mailbox.woken().await;
                mailbox.clear();
            }
        };
        tokio::select! {
            biased;
            frame = news => Some(frame),
            () = over => None,
        }
    }

    /// Comes when a drain has begun and its turn is there.
    async fn turn_to_end(&self) {
        self.drain.begun().cancelled().await;
        match self.drain.turn() {
            Some(turn) => tokio::time::sleep_until(turn.into()).await,
            None => future::pending().await,
        }
    }

    /// What is beyond a cursor that proves itself; else whatever there is. The task's own cursor needs no proof, and must not
    /// need one: it may be older than what proofs are kept of.
    fn news(&self, question: &Question<'_>) -> Option<Arc<TaskFrame>> {
        let sees = |task: &Task| question.identity.may_watch(task);
        let frame = self.hub.task(&question.task_id).filter(|frame| sees(&frame.task))?;
        let is_known = question.after.is_some_and(|after| {
            frame.cursor == after || (frame.position() < after.position && self.hub.check(after).is_ok())
        });
        (!is_known).then_some(frame)
    }
}

#[cfg(test)]
#[path = "long_poll_tests.rs"]
mod tests;
