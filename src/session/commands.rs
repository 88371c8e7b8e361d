//! What a session answers to each command.
//!
//! Refuses to know: how a command was written.

use super::{
    machine::{CANCELS_MAX, Cancel, Session, Stage},
    opening::CELERY_LIST_MAX,
    paging::Listing,
    refresh::Refresh,
};
use crate::{
    clock::Now,
    hub::Hub,
    limits::Limit,
    proto::{
        Command, CommandKind, Encoding, ErrorCode, Event, RequestId, Selector, ServerMessage, Status, Task, TaskFrame,
        TaskId, Topic,
    },
};

/// Answers to `get_active_tasks` that wait at a time: each looks at every task that is watched, however short the question.
const LISTS_MAX: usize = 4;

/// Why a command is not obeyed.
type Refusal = (ErrorCode, String);

impl Session {
    /// Obeys, or says why not; the error's code is for the metric.
    pub(super) fn on_command(&mut self, command: Command, now: Now) -> Option<ErrorCode> {
        let id = command.id;
        if self.term.is_over() && !command.kind.needs_no_token() {
            let message = "the token has expired; send a fresh one in refresh_token".to_owned();
            self.reply(&ServerMessage::Error { error_code: ErrorCode::Forbidden, message, id }, now);
            return Some(ErrorCode::Forbidden);
        }
        let refusal = match command.kind {
            CommandKind::Subscribe(selector) => self.subscribe(&selector, id.as_ref(), now).err(),
            CommandKind::Unsubscribe(selector) => {
                self.unsubscribe(&selector, id.as_ref(), now);
                None
            }
            CommandKind::GetTaskStatus(task_id) => {
                self.task_status(task_id, id.clone(), now);
                None
            }
            CommandKind::GetActiveTasks => self.active_tasks(id.clone(), now).err(),
            CommandKind::CancelTask(task_id) => self.cancel(task_id, id.clone(), now).err(),
            CommandKind::Ping { client_timestamp } => {
                self.reply(&ServerMessage::Pong { client_timestamp, id: id.clone() }, now);
                None
            }
            CommandKind::Authenticate { token } => self.refresh_token(token, id.clone()).err(),
            CommandKind::Ignored => None,
        };
        let (error_code, message) = refusal?;
        self.reply(&ServerMessage::Error { error_code, message, id }, now);
        Some(error_code)
    }

    /// The topics that a selector means to this client.
    fn topics(&self, selector: &Selector) -> Vec<Topic> {
        match selector {
            Selector::Topic(topic) => vec![topic.clone()],
            Selector::Mine if self.identity.may_subscribe(&Topic::All) => vec![Topic::All],
            Selector::Mine => self.identity.default_topics(),
        }
    }

    fn subscribe(&mut self, selector: &Selector, id: Option<&RequestId>, now: Now) -> Result<(), Refusal> {
        for topic in self.topics(selector) {
            if !self.identity.may_subscribe(&topic) {
                return Err((ErrorCode::Forbidden, "the token does not allow this subscription".to_owned()));
            }
            let is_new = !self.watches.contains(&topic);
            let limit = self.shared.settings.subscriptions_max;
            if is_new && self.watches.len() >= limit {
                self.shared.metrics.limit_refused(Limit::Subscriptions);
                let message = format!("a connection may hold {limit} subscriptions (subscriptions_max)");
                return Err((ErrorCode::LimitReached, message));
            }
            self.reply(&ServerMessage::Subscribed { topic: topic.clone(), id: id.cloned() }, now);
            if !is_new {
                continue;
            }
            let watch = self.shared.hub.watch(topic.clone(), &self.mailbox);
            self.watches.insert(watch);
            match self.stage {
                Stage::Live => self.catch_up(&topic),
                // The snapshot to come has it.
                Stage::Waiting { .. } => {}
                _ => self.late_topics.push(topic),
            }
        }
        Ok(())
    }

    /// The states that a new subscription starts from. What is beyond the session's cursor is marked and comes as live
    /// frames; the rest is sent here, under the cursor that the client has already. Only in a live session: while it
    /// is opening, its cursor moves over what would be marked.
    pub(super) fn catch_up(&mut self, topic: &Topic) {
        let under = self.under(vec![topic.clone()]);
        let known = self.shared.hub.catch_up(under, self.position(), &self.mailbox, |task| self.sees(task));
        if known.is_some() {
            self.list(Listing::new(known, true, None));
        }
    }

    fn unsubscribe(&mut self, selector: &Selector, id: Option<&RequestId>, now: Now) {
        for topic in self.topics(selector) {
            if let Some(watch) = self.watches.remove(&topic) {
                self.shared.hub.unwatch(&watch);
                self.late_topics.retain(|late| *late != topic);
                let rest = self.watches.topics();
                self.shared.hub.keep_marks(&self.mailbox, &rest);
                self.give_up(&topic, &rest);
            }
            self.reply(&ServerMessage::Unsubscribed { topic, id: id.cloned() }, now);
        }
    }

    /// What was collected and has not been sent loses what is watched no more.
    fn give_up(&mut self, topic: &Topic, rest: &[Topic]) {
        match &mut self.stage {
            Stage::Snapshot { left, .. } | Stage::Ended { left, .. } => left.give_up(topic, rest),
            Stage::Missed { left, topics, .. } => {
                left.retain(|frame| !Hub::is_given_up(&frame.task, topic, rest));
                topics.retain(|watched| watched != topic);
            }
            Stage::Waiting { .. } | Stage::Live => {}
        }
        for walk in self.listings.iter_mut().filter_map(|listing| listing.left.as_mut()) {
            walk.give_up(topic, rest);
        }
    }

    fn task_status(&mut self, task_id: TaskId, id: Option<RequestId>, now: Now) {
        let task = self.shared.hub.task(&task_id).filter(|frame| self.sees(&frame.task));
        self.reply(&ServerMessage::TaskStatus { task_id, task, id }, now);
    }

    /// Live tasks under the subscriptions, in pages without a cursor: an answer, not a step forward.
    fn active_tasks(&mut self, id: Option<RequestId>, now: Now) -> Result<(), Refusal> {
        if self.encoding == Encoding::Celery {
            let under = self.under(self.watches.topics());
            let is_seen = |task: &Task| under.has(task) && self.sees(task);
            let wanted = |frame: &TaskFrame| !frame.task.status.is_terminal() && is_seen(&frame.task);
            let tasks = self.shared.hub.newest(under.sources(), 0, CELERY_LIST_MAX, wanted).frames;
            self.reply(&ServerMessage::ActiveTasks { tasks, cursor: None, more: false, reset: None, id }, now);
            return Ok(());
        }
        if self.listings.iter().filter(|listing| !listing.with_cursor).count() >= LISTS_MAX {
            return Err((ErrorCode::LimitReached, format!("{LISTS_MAX} lists are on their way already")));
        }
        self.list(Listing::new(None, false, id));
        Ok(())
    }

    /// A task that may not be cancelled is answered like one that does not exist.
    fn cancel(&mut self, task_id: TaskId, id: Option<RequestId>, now: Now) -> Result<(), Refusal> {
        let task = self.shared.hub.task(&task_id);
        let task = task.filter(|f| !f.task.status.is_terminal() && self.identity.may_cancel(&f.task));
        let under_way = task.as_ref().is_some_and(|frame| frame.task.status == Status::Cancelling);
        if task.is_none() || under_way {
            self.reply(&ServerMessage::TaskCancelled { task_id, success: under_way, id }, now);
            return Ok(());
        }
        if self.waiting.cancels() >= CANCELS_MAX {
            return Err((ErrorCode::LimitReached, format!("{CANCELS_MAX} requests to cancel are waiting for the log")));
        }
        let mut event = Event::new(task_id);
        event.status = Some(Status::Cancelling);
        self.waiting.cancel(Cancel { event, id });
        Ok(())
    }

    /// A fresh token is verified beside everything else, one at a time.
    fn refresh_token(&mut self, token: String, id: Option<RequestId>) -> Result<(), Refusal> {
        let is_taken = self.waiting.refresh(Refresh { token, id });
        is_taken.ok_or_else(|| (ErrorCode::LimitReached, "other tokens are being verified".to_owned()))
    }

    /// The log took the request to cancel, or did not.
    pub(super) fn on_cancelled(&mut self, cancel: Cancel, success: bool, now: Now) {
        self.reply(&ServerMessage::TaskCancelled { task_id: cancel.event.task_id, success, id: cancel.id }, now);
    }
}
