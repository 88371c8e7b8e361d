//! What a session answers to each command.
//!
//! Refuses to know: how a command was written.

use super::{
    machine::{Cancel, Listing, Session},
    opening::CELERY_LIST_MAX,
};
use crate::{
    clock::Now,
    proto::{
        Command, CommandKind, Encoding, ErrorCode, Event, RequestId, Selector, ServerMessage, Status, TaskId, Topic,
    },
};

impl Session {
    pub(super) fn on_command(&mut self, command: Command, now: Now) {
        let id = command.id;
        match command.kind {
            CommandKind::Subscribe(selector) => self.subscribe(&selector, id.as_ref(), now),
            CommandKind::Unsubscribe(selector) => self.unsubscribe(&selector, id.as_ref(), now),
            CommandKind::GetTaskStatus(task_id) => self.task_status(task_id, id, now),
            CommandKind::GetActiveTasks => self.active_tasks(id, now),
            CommandKind::CancelTask(task_id) => self.cancel(task_id, id, now),
            CommandKind::Ping { client_timestamp } => self.reply(&ServerMessage::Pong { client_timestamp, id }, now),
            CommandKind::Authenticate { .. } => {
                let message = "this connection is authenticated; reconnect to use another token";
                self.error(ErrorCode::Unavailable, message, id, now);
            }
            CommandKind::Ignored => {}
        }
    }

    fn error(&mut self, error_code: ErrorCode, message: impl Into<String>, id: Option<RequestId>, now: Now) {
        self.shared.metrics.client_message(error_code.as_str());
        self.reply(&ServerMessage::Error { error_code, message: message.into(), id }, now);
    }

    /// The topics that a selector means to this client.
    fn topics(&self, selector: &Selector) -> Vec<Topic> {
        match selector {
            Selector::Topic(topic) => vec![topic.clone()],
            Selector::Mine if self.identity.may_subscribe(&Topic::All) => vec![Topic::All],
            Selector::Mine => self.identity.default_topics(),
        }
    }

    fn subscribe(&mut self, selector: &Selector, id: Option<&RequestId>, now: Now) {
        for topic in self.topics(selector) {
            if !self.identity.may_subscribe(&topic) {
                self.error(ErrorCode::Forbidden, "the token does not allow this subscription", id.cloned(), now);
                continue;
            }
            let is_new = !self.watches.contains_key(&topic);
            let limit = self.shared.settings.subscriptions_max;
            if is_new && self.watches.len() >= limit {
                let message = format!("a connection may hold {limit} subscriptions (subscriptions_max)");
                self.error(ErrorCode::LimitReached, message, id.cloned(), now);
                return;
            }
            if is_new {
                let watch = self.shared.hub.watch(topic.clone(), &self.mailbox);
                self.watches.insert(topic.clone(), watch);
            }
            self.reply(&ServerMessage::Subscribed { topic: topic.clone(), id: id.cloned() }, now);
            self.catch_up(&topic);
        }
    }

    /// The states that a new subscription starts from. What is beyond the session's cursor is marked and comes as live
    /// frames; the rest is sent here, under the cursor that the client has already.
    fn catch_up(&mut self, topic: &Topic) {
        let mut known = self.shared.hub.catch_up(topic, self.position(), &self.mailbox);
        known.retain(|frame| self.sees(&frame.task));
        if !known.is_empty() {
            self.list(Listing { left: known.into(), with_cursor: true, id: None });
        }
    }

    fn unsubscribe(&mut self, selector: &Selector, id: Option<&RequestId>, now: Now) {
        for topic in self.topics(selector) {
            if let Some(watch) = self.watches.remove(&topic) {
                self.shared.hub.unwatch(&watch);
            }
            self.reply(&ServerMessage::Unsubscribed { topic, id: id.cloned() }, now);
        }
    }

    fn task_status(&mut self, task_id: TaskId, id: Option<RequestId>, now: Now) {
        let task = self.shared.hub.task(&task_id).filter(|frame| self.sees(&frame.task));
        self.reply(&ServerMessage::TaskStatus { task_id, task, id }, now);
    }

    /// Live tasks under the subscriptions, in pages without a cursor: an answer, not a step forward.
    fn active_tasks(&mut self, id: Option<RequestId>, now: Now) {
        let topics: Vec<Topic> = self.watches.keys().cloned().collect();
        let mut tasks = self.shared.hub.tasks(&topics);
        tasks.retain(|frame| !frame.task.status.is_terminal() && self.sees(&frame.task));
        if self.encoding == Encoding::Celery {
            tasks.truncate(CELERY_LIST_MAX);
            return self.reply(&ServerMessage::ActiveTasks { tasks, cursor: None, more: false, reset: None, id }, now);
        }
        self.list(Listing { left: tasks.into(), with_cursor: false, id });
    }

    /// A task that may not be cancelled is answered like one that does not exist.
    fn cancel(&mut self, task_id: TaskId, id: Option<RequestId>, now: Now) {
        let task = self.shared.hub.task(&task_id);
        let allowed = task.is_some_and(|f| !f.task.status.is_terminal() && self.identity.may_cancel(&f.task));
        if !allowed {
            return self.reply(&ServerMessage::TaskCancelled { task_id, success: false, id }, now);
        }
        let mut event = Event::new(task_id);
        event.status = Some(Status::Cancelling);
        self.cancels.push_back(Cancel { event, id });
    }

    /// The log took the request to cancel, or did not.
    pub(super) fn on_cancelled(&mut self, cancel: Cancel, success: bool, now: Now) {
        self.reply(&ServerMessage::TaskCancelled { task_id: cancel.event.task_id, success, id: cancel.id }, now);
    }
}
