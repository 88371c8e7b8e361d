//! A session's second socket: an event stream of HTTP, which nothing is read from, and which ends when everything that is
//! watched has ended. Who it is for is known before it begins, so what is wrong with them can be said by a status.
//!
//! Refuses to know: HTTP's heads, where the socket comes from.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Open, Request, Sessions, connection::Connection, machine::Session, pump::Pump, serve};
use crate::{
    auth::Identity,
    clock,
    hub::{Walk, Watch},
    limits,
    metrics::Transport,
    proto::{
        CloseCode, Encoding, Opcode, Position, Status, Task, TaskFrame, TaskId, Topic, close_frame, frame,
        stream_chunk, stream_end, stream_heartbeat, stream_retry,
    },
};

/// Beyond every position.
const EVERYTHING: Position = Position { major: u64::MAX, minor: u64::MAX };

/// How many times the shortest wait before a reconnect the longest one is, that a client is given at the start.
const RETRY_SPREAD: u32 = 10;

/// Of a group whose own task has ended: so many of the others are waited for before it is looked at as a whole again.
const UNFINISHED_MAX: usize = 64;

/// A session that has yet to get its socket.
pub struct EventStream {
    session: Session,
}

/// Why there is no stream for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unopened {
    /// Their user comes too often, or too many times.
    Limited(limits::Refusal),
    /// They may watch nothing.
    Forbidden,
    /// Everything that they watch has ended, and they know.
    Ended,
}

impl Sessions {
    /// Begins a session for somebody who is known, as soon as this replica has read as far as they have.
    ///
    /// # Errors
    /// Why there is nothing to begin.
    pub async fn open_stream(self: &Arc<Self>, identity: Identity, request: &Request) -> Result<EventStream, Unopened> {
        let place = self.sign_in(&identity, clock::now()).map_err(Unopened::Limited)?;
        serve::wait_for_cursor(self, request.cursor.as_deref()).await;
        let mut session = Session::open(self, identity, request, clock::now());
        session.allowance.hold(place);
        if session.closing().is_some() {
            return Err(Unopened::Forbidden);
        }
        // Resumed, with nothing to be told but the greeting.
        if session.cursor.is_some() && session.preface.len() == 1 && session.has_ended() {
            return Err(Unopened::Ended);
        }
        Ok(EventStream { session })
    }
}

impl EventStream {
    /// Serves the stream until it ends; `head` is what comes before its first chunk.
    pub fn serve<S>(self, socket: S, head: Bytes) -> impl Future<Output = ()> + Send
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { mut session } = self;
        let sessions = session.shared.clone();
        session.preface.push_front(stream_chunk(&stream_retry(first_retry_ms(&sessions))));
        session.preface.push_front(head);
        let connection = Connection::new(Pump::deaf(socket), session);
        let open = Open::new(&sessions, Transport::EventStream);
        async move {
            let mut open = open;
            open.code = connection.converse().await;
        }
    }
}

/// Spread, so that those who lose a replica do not all come back at once: `EventSource` draws nothing itself.
fn first_retry_ms(sessions: &Sessions) -> u64 {
    let (min, max) = (sessions.settings.reconnect_min, sessions.settings.reconnect_max);
    let longest = (min * RETRY_SPREAD).min(max).max(min);
    let drawn = min + clock::jitter(longest.saturating_sub(min));
    u64::try_from(drawn.as_millis()).unwrap_or(u64::MAX)
}

/// Such a task has nothing more to tell. `lost` is only what the service thinks.
fn has_ended_for_good(task: &Task) -> bool {
    task.status.is_terminal() && task.status != Status::Lost
}

impl Session {
    pub(super) fn is_event_stream(&self) -> bool {
        self.encoding == Encoding::EventStream
    }

    /// Nothing can be heard of the client, neither now nor within the time that its silence may last: progress of the
    /// writing is its sign of life then.
    pub(super) fn is_deaf(&self) -> bool {
        self.is_event_stream() || self.is_backed_up()
    }

    pub(super) fn heartbeat(&self) -> Bytes {
        if self.is_event_stream() { stream_heartbeat() } else { frame(Opcode::Ping, b"") }
    }

    /// The last bytes of a connection.
    pub(super) fn farewell(&self, code: CloseCode, reason: &str) -> Bytes {
        if self.is_event_stream() { stream_end() } else { close_frame(code, reason) }
    }

    /// No fresh token can come over a stream.
    pub(super) fn token_grace(&self) -> Duration {
        if self.is_event_stream() { Duration::ZERO } else { self.shared.settings.token_grace }
    }

    /// From now on a stream that ends is to come back soon: the ends are spread already.
    pub(super) fn tell_retry(&mut self) {
        if self.is_event_stream() {
            let min = u64::try_from(self.shared.settings.reconnect_min.as_millis()).unwrap_or(u64::MAX);
            self.push_reply(stream_chunk(&stream_retry(min)));
        }
    }

    /// A stream ends behind the last word of what it watches; a WebSocket's client may have more to say.
    pub(super) fn end_with_what_is_watched(&mut self) {
        if self.is_event_stream() && !self.more && self.has_ended() {
            self.close(CloseCode::Normal, "everything watched has ended");
        }
    }

    /// Everything that is watched is a task or a group, has ended, and was told of.
    fn has_ended(&mut self) -> bool {
        let is_over = |topic: &Topic| match topic {
            // Others may join a group for as long as its own task runs.
            Topic::Task(id) | Topic::Root(id) => self.is_over(id),
            Topic::Tag(_) | Topic::Owner(_) | Topic::All => false,
        };
        if self.watches.len() == 0 || !self.watches.iter().all(|watch| is_over(watch.topic())) {
            return false;
        }
        let is_group = |topic: &&Topic| matches!(topic, Topic::Root(_));
        let groups: Vec<Topic> = self.watches.iter().map(Watch::topic).filter(is_group).cloned().collect();
        groups.is_empty() || self.are_over(groups)
    }

    fn is_over(&self, id: &TaskId) -> bool {
        let frame = self.shared.hub.task(id);
        frame.is_some_and(|frame| self.sees(&frame.task) && self.is_told_to_its_end(&frame))
    }

    /// Whether all tasks of these groups have ended. Looking at all of them takes its time, and is asked for at every
    /// step of the session: so a few that have not are remembered, and all are looked at when these have.
    fn are_over(&mut self, groups: Vec<Topic>) -> bool {
        let runs = |id: &TaskId| {
            let frame = self.shared.hub.task(id);
            frame.is_some_and(|frame| self.sees(&frame.task) && !self.is_told_to_its_end(&frame))
        };
        let ended = self.unfinished.iter().rev().take_while(|id| !runs(id)).count();
        self.unfinished.truncate(self.unfinished.len() - ended);
        if self.unfinished.is_empty() {
            self.unfinished = self.look_for_unfinished(groups);
        }
        self.unfinished.is_empty()
    }

    fn look_for_unfinished(&self, groups: Vec<Topic>) -> Vec<TaskId> {
        let mut unfinished = Vec::new();
        let mut walk = Walk::new(self.under(groups), EVERYTHING);
        while unfinished.len() < UNFINISHED_MAX
            && let Some(frame) = self.shared.hub.peek(&mut walk, |task| self.sees(task))
        {
            unfinished.extend((!self.is_told_to_its_end(&frame)).then(|| frame.task.task_id.clone()));
            walk.advance();
        }
        unfinished
    }

    fn is_told_to_its_end(&self, frame: &TaskFrame) -> bool {
        has_ended_for_good(&frame.task) && frame.position() <= self.position()
    }
}

#[cfg(test)]
#[path = "event_stream_tests.rs"]
mod tests;
