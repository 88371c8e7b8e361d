//! How a session begins: the greeting, then either what a resumed client missed, or the snapshot in pages.
//!
//! Refuses to know: what comes after.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Deliver, Request, Scope, Sessions,
    machine::{Output, PULL_FRAMES_MAX, Session, Stage},
};
use crate::{
    auth::Identity,
    clock::{self, Now},
    hub::Missed,
    proto::{
        ClientLimits, CloseCode, ConnectionEstablished, Cursor, Encoding, ErrorCode, ResumeFailure, ServerMessage,
        Task, TaskFrame, Topic,
    },
};

/// The drop-in contract of the Celery dialect: its list holds no more live tasks than this.
pub(super) const CELERY_LIST_MAX: usize = 20;

/// What a task takes in a page besides its texts, in bytes: for cutting pages, so about right is right enough.
const TASK_BYTES: usize = 400;

impl Session {
    /// Greets an authenticated client and decides between resuming and a snapshot.
    pub(super) fn open(shared: &Sessions, identity: Identity, request: &Request, now: Now) -> Self {
        let mut session = Self::new(shared, identity, request, now);
        let topics = session.topics_of(&request.scope);
        if topics.is_empty() {
            let message = "this token allows watching nothing; it needs the claim taskcast.watch".to_owned();
            session.reply(&ServerMessage::Error { error_code: ErrorCode::Forbidden, message, id: None }, now);
            session.close(CloseCode::NotAllowed, "not allowed to watch this");
            return session;
        }
        for topic in &topics {
            let watch = shared.hub.watch(topic.clone(), &session.mailbox);
            session.watches.insert(topic.clone(), watch);
        }
        let progress = shared.hub.progress();
        session.generation = progress.generation;
        let resumed = request.cursor.as_deref().map(|text| session.resume(text, &topics));
        if let Some(outcome) = &resumed {
            shared.metrics.resume(outcome.as_ref().map(|_| ()).map_err(|failure| *failure));
        }
        let cursor = resumed.as_ref().and_then(|outcome| outcome.as_ref().ok()).map(|(cursor, _)| *cursor);
        let failure = resumed.as_ref().and_then(|outcome| outcome.as_ref().err()).copied();
        session.greet(cursor, failure, now);
        if let Some(Ok((cursor, missed))) = resumed {
            session.cursor = Some(cursor);
            let removals = session.removals(missed.hidden, now);
            session.preface.extend(removals);
            session.stage = Stage::Missed { left: missed.frames.into() };
        }
        session
    }

    fn topics_of(&self, scope: &Scope) -> Vec<Topic> {
        match scope {
            Scope::Topic(topic) if self.identity.may_subscribe(topic) => vec![topic.clone()],
            Scope::Topic(_) => Vec::new(),
            Scope::Mine { everything: true } if self.identity.may_subscribe(&Topic::All) => vec![Topic::All],
            Scope::Mine { .. } => self.identity.default_topics(),
        }
    }

    fn greet(&mut self, cursor: Option<Cursor>, resume_failure: Option<ResumeFailure>, now: Now) {
        let settings = &self.shared.settings;
        let greeting = ConnectionEstablished {
            connection_id: clock::unique_id().to_string(),
            user_id: self.identity.user.clone(),
            cursor,
            resumed: cursor.is_some(),
            resume_failure,
            heartbeat_interval_ms: settings.heartbeat_interval.as_millis() as u64,
            token_expires_at_ms: self.identity.expires_at_ms,
            limits: ClientLimits {
                message_max_bytes: settings.message_max_bytes as u32,
                subscriptions_max: settings.subscriptions_max as u32,
            },
            reconnect_min_ms: settings.reconnect_min.as_millis() as u64,
            reconnect_max_ms: settings.reconnect_max.as_millis() as u64,
        };
        let greeting = ServerMessage::ConnectionEstablished(Box::new(greeting));
        self.preface.push_back(greeting.encode(self.encoding, now.unix_ms));
    }

    /// Proves the cursor and collects what came after it.
    fn resume(&self, text: &str, topics: &[Topic]) -> Result<(Cursor, Missed), ResumeFailure> {
        let cursor: Cursor = text.parse().map_err(|_| ResumeFailure::Malformed)?;
        let progress = self.shared.hub.progress();
        let Some(applied) = progress.applied.filter(|_| progress.replayed) else {
            return Err(if progress.replayed { ResumeFailure::AnotherLog } else { ResumeFailure::NotReady });
        };
        let every = self.deliver == Deliver::Every;
        let sees = |task: &Task| self.sees(task);
        let missed = self.shared.hub.missed(topics, cursor, applied.position, every, sees)?;
        Ok((cursor, missed))
    }

    /// Collects the snapshot: everything under the watched topics as of now.
    pub(super) fn begin_snapshot(&mut self, reset: Option<ResumeFailure>, now: Now) {
        let topics: Vec<Topic> = self.watches.keys().cloned().collect();
        let done = self.shared.hub.progress().applied;
        let mut tasks = self.shared.hub.tasks(&topics);
        // What is newer is marked, and follows as a live frame.
        tasks.retain(|frame| done.is_some_and(|done| frame.position() <= done.position) && self.sees(&frame.task));
        self.shared.metrics.snapshot(tasks.len());
        if self.encoding == Encoding::Celery {
            self.celery_snapshot(&tasks, done, now);
            return;
        }
        tasks.reverse();
        self.stage = Stage::Snapshot { left: tasks.into(), done, reset, is_first: true };
    }

    /// One list of live tasks, newest first, as today's front ends expect, then whatever it has no room for: the rest
    /// of the live ones and the ends. The list promises nothing of those, so it has a cursor only if there are none.
    fn celery_snapshot(&mut self, newest_first: &[Arc<TaskFrame>], done: Option<Cursor>, now: Now) {
        let is_live = |frame: &&Arc<TaskFrame>| !frame.task.status.is_terminal();
        let tasks: Vec<_> = newest_first.iter().filter(is_live).take(CELERY_LIST_MAX).cloned().collect();
        let is_listed = |frame: &Arc<TaskFrame>| tasks.iter().any(|listed| Arc::ptr_eq(listed, frame));
        let left: VecDeque<_> = newest_first.iter().rev().filter(|frame| !is_listed(frame)).cloned().collect();
        let cursor = done.filter(|_| left.is_empty());
        let list = ServerMessage::ActiveTasks { tasks, cursor, more: false, reset: None, id: None };
        self.preface.push_back(list.encode(self.encoding, now.unix_ms));
        self.stage = Stage::Ended { left, done };
    }

    /// Writes the next page of the first listing.
    pub(super) fn listing_page(&mut self, output: &mut Output, now: Now) {
        let live = self.listings.front().filter(|listing| listing.left.is_none()).map(|_| self.live_tasks());
        let Some(listing) = self.listings.front_mut() else { return };
        let left = listing.left.get_or_insert_with(|| live.unwrap_or_default());
        if self.encoding == Encoding::Celery {
            // There a list replaces what the page had, so what is new to it comes task by task.
            let count = left.len().min(PULL_FRAMES_MAX);
            output.frames.extend(left.drain(..count).map(|frame| frame.bytes(Encoding::Celery)));
            if left.is_empty() {
                self.listings.pop_front();
            }
            return;
        }
        let count = page_length(left.iter(), self.shared.settings.page_max_bytes);
        let tasks = left.drain(..count).collect();
        let more = !left.is_empty();
        let cursor = self.cursor.filter(|_| listing.with_cursor);
        let message = ServerMessage::ActiveTasks { tasks, cursor, more, reset: None, id: listing.id.clone() };
        output.frames.push(message.encode(self.encoding, now.unix_ms));
        if !more {
            self.listings.pop_front();
        }
    }

    /// Live tasks under the subscriptions, newest first. What is beyond the session's cursor is marked, and follows.
    fn live_tasks(&self) -> VecDeque<Arc<TaskFrame>> {
        let topics: Vec<Topic> = self.watches.keys().cloned().collect();
        let is_listed = |frame: &Arc<TaskFrame>| !frame.task.status.is_terminal() && self.sees(&frame.task);
        let mut tasks = self.shared.hub.tasks(&topics);
        tasks.retain(|frame| frame.position() <= self.position() && is_listed(frame));
        tasks.into()
    }

    /// Writes the next page. Its cursor is that of its last task, so a client may drop in the middle and resume.
    pub(super) fn snapshot_page(&mut self, output: &mut Output, now: Now) {
        let Stage::Snapshot { left, done, reset, is_first } = &mut self.stage else { return };
        let (done, reset) = (*done, reset.filter(|_| *is_first));
        *is_first = false;
        let count = page_length(left.iter(), self.shared.settings.page_max_bytes);
        let tasks: Vec<_> = left.drain(..count).collect();
        let more = !left.is_empty();
        let cursor = if more { tasks.last().map(|frame| frame.cursor) } else { done };
        let message = ServerMessage::ActiveTasks { tasks, cursor, more, reset, id: None };
        output.frames.push(message.encode(self.encoding, now.unix_ms));
        self.cursor = cursor.or(self.cursor);
        if !more {
            self.stage = Stage::Live;
        }
    }
}

/// How many of these tasks make a page of about `max_bytes`; at least one, if there is one.
fn page_length<'a>(tasks: impl IntoIterator<Item = &'a Arc<TaskFrame>>, max_bytes: usize) -> usize {
    let mut bytes = 0;
    let mut count = 0;
    for frame in tasks {
        let task = &frame.task;
        bytes += TASK_BYTES
            + [&task.result, &task.metadata].into_iter().flatten().map(|json| json.as_str().len()).sum::<usize>()
            + [&task.message, &task.title].into_iter().flatten().map(|text| text.len()).sum::<usize>()
            + task.error.as_ref().and_then(|error| error.message.as_ref()).map_or(0, |message| message.len());
        if count > 0 && bytes > max_bytes {
            break;
        }
        count += 1;
    }
    count
}

#[cfg(test)]
#[path = "opening_tests.rs"]
mod tests;
