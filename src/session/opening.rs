//! How a session begins: the greeting, then either what a resumed client missed, or the snapshot in pages.
//!
//! Refuses to know: what comes after.

use std::{cell::Cell, sync::Arc};

use super::{
    Request, Scope, Sessions,
    machine::{Session, Stage},
    paging::{Missing, is_listed},
};
use crate::{
    auth::Identity,
    clock::{self, Now},
    hub::Walk,
    proto::{
        ClientLimits, CloseCode, ConnectionEstablished, Cursor, Encoding, ErrorCode, Position, ResumeFailure,
        ServerMessage, Task, TaskFrame, Topic,
    },
};

/// The drop-in contract of the Celery dialect: its list holds no more live tasks than this.
pub(super) const CELERY_LIST_MAX: usize = 20;

impl Session {
    /// Greets an authenticated client and decides between resuming and a snapshot.
    pub(super) fn open(shared: &Arc<Sessions>, identity: Identity, request: &Request, now: Now) -> Self {
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
            session.watches.insert(watch);
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
        if let Some(Ok((cursor, (stage, hidden)))) = resumed {
            session.cursor = Some(cursor);
            let removals = session.removals(hidden, now);
            session.preface.extend(removals);
            session.stage = stage;
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
    fn resume(&self, text: &str, topics: &[Topic]) -> Result<(Cursor, Missing), ResumeFailure> {
        let cursor: Cursor = text.parse().map_err(|_| ResumeFailure::Malformed)?;
        let progress = self.shared.hub.progress();
        let Some(applied) = progress.applied.filter(|_| progress.replayed) else {
            return Err(if progress.replayed { ResumeFailure::AnotherLog } else { ResumeFailure::NotReady });
        };
        Ok((cursor, self.missed(topics.to_vec(), cursor, applied.position)?))
    }

    /// Collects the snapshot: everything under the watched topics as of now.
    pub(super) fn begin_snapshot(&mut self, reset: Option<ResumeFailure>, now: Now) {
        let under = self.under(self.watches.topics());
        let done = self.shared.hub.progress().applied;
        // What is newer is marked, and follows as a live frame.
        let left = Box::new(Walk::new(under, done.map_or(Position::START, |done| done.position)));
        if self.encoding == Encoding::Celery {
            self.celery_snapshot(left, done, now);
        } else {
            self.stage = Stage::Snapshot { left, done, reset, is_first: true, sent: 0 };
        }
    }

    /// One list of live tasks, newest first, as today's front ends expect, then whatever it has no room for: the rest
    /// of the live ones and the ends. The list promises nothing of those, so it has a cursor only if there are none.
    fn celery_snapshot(&mut self, mut left: Box<Walk>, done: Option<Cursor>, now: Now) {
        let under = self.under(self.watches.topics());
        let is_seen = |task: &Task| under.has(task) && self.sees(task);
        let shown = Cell::new(0);
        let wanted = |frame: &TaskFrame| {
            let is_shown = done.is_some_and(|done| frame.position() <= done.position) && is_seen(&frame.task);
            shown.set(shown.get() + usize::from(is_shown));
            is_shown && !frame.task.status.is_terminal()
        };
        let tasks = self.shared.hub.newest(under.sources(), 0, CELERY_LIST_MAX, wanted).frames;
        self.shared.metrics.snapshot(shown.get());
        let rest = |task: &Task| self.sees(task) && !is_listed(&tasks, task);
        let is_whole = self.shared.hub.peek(&mut left, rest).is_none();
        let cursor = done.filter(|_| is_whole);
        let listed = tasks.clone();
        let list = ServerMessage::ActiveTasks { tasks, cursor, more: false, reset: None, id: None };
        self.preface.push_back(list.encode(self.encoding, now.unix_ms));
        self.stage = Stage::Ended { left, listed, done };
    }
}

#[cfg(test)]
#[path = "opening_tests.rs"]
mod tests;
