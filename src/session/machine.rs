//! The state machine of one session, without I/O: messages, wake-ups and the time go in, frames and at last a close
//! code come out. A slow reader costs nothing: nothing is pulled until what was handed out has been written.
//!
//! Refuses to know: sockets, clocks, HTTP, brokers.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Deliver, Request, Sessions, errands::Waiting, limits::Allowance, paging::Listing, term::Term, watches::Watches,
    websocket::Inbound,
};
use crate::{
    auth::Identity,
    clock::Now,
    hub::{Grant, Mailbox, PullOptions, Stale, Under, Walk},
    proto::{
        CloseCode, Command, CommandError, Cursor, Encoding, ErrorCode, Event, Opcode, Position, RequestId,
        ResumeFailure, ServerMessage, Task, TaskFrame, TaskId, Topic, frame,
    },
};

/// Frames per pull: one vectored write takes no more either. Few in tests, so that they meet the limit.
pub(super) const PULL_FRAMES_MAX: usize = if cfg!(test) { 8 } else { 256 };

/// Answers that wait for a slow socket before the connection is closed with 1008: a flood must not grow memory.
pub(super) const REPLIES_MAX: usize = 256;

/// While answers of so many bytes wait for a slow socket, nothing more is read from it.
const REPLIES_MAX_BYTES: usize = 64 * 1024;

/// Requests to cancel that wait for the log.
pub(super) const CANCELS_MAX: usize = 16;

/// Frames to write, and what is known of them for the metrics.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) frames: Vec<Bytes>,
    /// How many of them carry a task, when the oldest of those was applied, and which of them a trace follows.
    pub(super) task_frames: u64,
    pub(super) oldest_ms: Option<u64>,
    pub(super) traced: Option<crate::traces::Traced>,
}

/// A request to cancel a task: the event to append, and how to answer.
pub(super) struct Cancel {
    pub(super) event: Event,
    pub(super) id: Option<RequestId>,
}

/// Where the session is in what it has to send.
pub(super) enum Stage {
    /// The log is not read to its end; the snapshot waits for that.
    Waiting {
        reset: Option<ResumeFailure>,
    },
    /// What is left of the snapshot, ascending, and the cursor that holds once it is out.
    Snapshot {
        /// Boxed, like the other one: an idle session has none.
        left: Box<Walk>,
        done: Option<Cursor>,
        reset: Option<ResumeFailure>,
        is_first: bool,
        /// Tasks that went out.
        sent: usize,
    },
    /// What is left of what a resumed client missed, ascending; as far as it was collected, unless that was all.
    Missed {
        left: VecDeque<Arc<TaskFrame>>,
        topics: Vec<Topic>,
        through: Position,
        is_all: bool,
    },
    /// Celery's dialect only: what its list of live tasks has no room for, ascending; then the cursor holds.
    Ended {
        left: Box<Walk>,
        /// The list.
        listed: Vec<Arc<TaskFrame>>,
        done: Option<Cursor>,
    },
    Live,
}

/// One client. In this order in memory: what nearly every delivery looks at lies together, at the end.
#[repr(C)]
pub(super) struct Session {
    pub(super) identity: Identity,
    pub(super) throttle: Duration,
    pub(super) watches: Watches,
    pub(super) stage: Stage,
    /// What goes out before anything else.
    pub(super) preface: VecDeque<Bytes>,
    /// Answers.
    pub(super) replies: VecDeque<Bytes>,
    reply_bytes: usize,
    /// Topics that were subscribed to before the session was live; their states follow once it is.
    pub(super) late_topics: Vec<Topic>,
    /// States to send that are no step forward: of new subscriptions, and answers to `get_active_tasks`.
    pub(super) listings: VecDeque<Listing>,
    /// What others are to do.
    pub(super) waiting: Waiting,
    /// Boxed: an open connection has none.
    pub(super) closing: Option<Box<(CloseCode, String)>>,
    pulled_at: Option<Instant>,
    heard_at: Instant,
    ping_at: Instant,
    pub(super) term: Term,
    /// When its turn in the drain of this replica comes.
    pub(super) drains_at: Option<Instant>,
    /// What the client was last told of how fresh its states are.
    pub(super) told_stale: Option<Stale>,
    pub(super) allowance: Allowance,
    /// Of a group that an event stream watches, and whose own task has ended: some that have not.
    pub(super) unfinished: Vec<TaskId>,
    bad_in_a_row: u32,
    /// Pull again without being woken.
    pub(super) more: bool,
    /// What is marked was not pulled, because of the throttle.
    pub(super) is_held_back: bool,
    pub(super) encoding: Encoding,
    pub(super) deliver: Deliver,
    pub(super) shared: Arc<Sessions>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) generation: u64,
    /// What [`Session::identity`] was last found to be allowed to see; to be forgotten when that changes.
    pub(super) grant: Grant,
    /// Everything up to here has been handed out.
    pub(super) cursor: Option<Cursor>,
}

impl Drop for Session {
    fn drop(&mut self) {
        for watch in self.watches.iter() {
            self.shared.hub.unwatch(watch);
        }
    }
}

impl Session {
    /// A session that watches nothing yet; `opening` gives it its first words.
    pub(super) fn new(shared: &Arc<Sessions>, identity: Identity, request: &Request, now: Now) -> Self {
        let term = Term::begin(identity.expires_at_ms, shared.settings.token_expiring_lead, now);
        Self {
            shared: shared.clone(),
            identity,
            encoding: request.encoding,
            deliver: request.deliver,
            throttle: request.throttle,
            mailbox: Arc::default(),
            watches: Watches::default(),
            generation: 0,
            grant: Grant::default(),
            cursor: None,
            stage: Stage::Waiting { reset: None },
            preface: VecDeque::new(),
            replies: VecDeque::new(),
            reply_bytes: 0,
            late_topics: Vec::new(),
            listings: VecDeque::new(),
            waiting: Waiting::default(),
            closing: None,
            unfinished: Vec::new(),
            bad_in_a_row: 0,
            more: false,
            pulled_at: None,
            is_held_back: false,
            heard_at: now.instant,
            ping_at: now.instant + shared.settings.heartbeat_interval,
            term,
            drains_at: None,
            told_stale: None,
            allowance: Allowance::new(request.caller),
        }
    }

    pub(super) fn mailbox(&self) -> Arc<Mailbox> {
        self.mailbox.clone()
    }

    /// The code to close with, once it is decided.
    pub(super) fn closing(&self) -> Option<(CloseCode, &str)> {
        self.closing.as_deref().map(|(code, reason)| (*code, reason.as_str()))
    }

    pub(super) fn close(&mut self, code: CloseCode, reason: impl Into<String>) {
        self.closing.get_or_insert_with(|| Box::new((code, reason.into())));
    }

    pub(super) fn reply(&mut self, message: &ServerMessage, now: Now) {
        self.push_reply(message.encode(self.encoding, now.unix_ms));
    }

    pub(super) fn push_reply(&mut self, frame: Bytes) {
        if self.replies.len() >= REPLIES_MAX {
            self.close(CloseCode::Policy, "too many requests without reading the answers");
            return;
        }
        self.reply_bytes += frame.len();
        self.replies.push_back(frame);
    }

    /// The socket cannot keep up with the answers: ask nothing more of this client until it can.
    pub(super) fn is_backed_up(&self) -> bool {
        self.reply_bytes > REPLIES_MAX_BYTES
    }

    /// A message arrived.
    pub(super) fn on_inbound(&mut self, inbound: Inbound, now: Now) {
        self.heard_at = now.instant;
        if self.closing.is_some() || !self.may_speak(now) {
            return;
        }
        let command = match (inbound, self.encoding) {
            (Inbound::Ping(payload), _) => return self.push_reply(frame(Opcode::Pong, &payload)),
            (Inbound::Pong, _) => return,
            (Inbound::Close(code), _) => {
                let echoed = CloseCode::ALL.into_iter().find(|known| Some(known.number()) == code);
                return self.close(echoed.unwrap_or(CloseCode::Normal), "");
            }
            (Inbound::TooLong(bytes), _) => Err(self.too_long(bytes)),
            (Inbound::Binary(bytes), Encoding::Protobuf) => Command::from_protobuf(&bytes),
            (Inbound::Binary(_), _) => {
                return self
                    .close(CloseCode::UnsupportedData, "this connection speaks text; ask for taskcast.v1.proto");
            }
            (Inbound::Text(_), Encoding::Protobuf) => {
                return self.close(CloseCode::UnsupportedData, "this connection speaks taskcast.v1.proto, in binary");
            }
            (Inbound::Text(text), _) => Command::from_json(&text),
        };
        match command {
            Ok(command) => {
                self.bad_in_a_row = 0;
                let outcome = self.on_command(command, now).map_or("ok", ErrorCode::as_str);
                self.shared.metrics.client_message(outcome);
            }
            Err(error) => self.on_bad_message(error, now),
        }
    }

    fn on_bad_message(&mut self, error: CommandError, now: Now) {
        self.shared.metrics.client_message(error.code.as_str());
        self.reply(&ServerMessage::Error { error_code: error.code, message: error.message, id: error.id }, now);
        self.bad_in_a_row += 1;
        if self.bad_in_a_row >= self.shared.settings.bad_messages_max {
            self.close(CloseCode::Policy, "too many bad messages");
        }
    }

    /// The access function of this client.
    pub(super) fn sees(&self, task: &Task) -> bool {
        self.identity.may_watch(task)
    }

    /// What is watched, and where to look for it.
    pub(super) fn under(&self, topics: Vec<Topic>) -> Under {
        let sources = self.identity.sources(&topics);
        Under::among(topics, sources)
    }

    pub(super) fn position(&self) -> Position {
        self.cursor.map_or(Position::START, |cursor| cursor.position)
    }

    /// What may be written now. Empty when there is nothing, or when it is throttled. Whatever a client asks early, it
    /// is greeted first, then gets the first page of its snapshot, then its answers.
    pub(super) fn output(&mut self, now: Now) -> Output {
        let mut output = Output::default();
        // With a token that is over nothing of a task goes out.
        let goes_on = self.closing.is_none() && !self.term.is_over();
        if goes_on {
            self.follow_resets(now);
        }
        output.frames.extend(self.preface.drain(..));
        self.tell_degraded(now);
        let opening = goes_on && !self.is_flowing();
        match &self.stage {
            Stage::Snapshot { .. } if opening => self.snapshot_page(&mut output, now),
            Stage::Missed { .. } if opening => self.send_missed(&mut output, now),
            Stage::Ended { .. } if opening => self.send_ended(&mut output),
            _ => {}
        }
        output.frames.extend(self.replies.drain(..));
        self.reply_bytes = 0;
        if !goes_on || opening || !matches!(self.stage, Stage::Live) {
            return output;
        }
        for topic in std::mem::take(&mut self.late_topics) {
            self.catch_up(&topic);
        }
        if !self.listings.is_empty() && !self.ends_listing() {
            self.listing_page(&mut output, now);
            return output;
        }
        // Asked before the pull: what the log brought until it was back is in it then.
        let progress = self.shared.hub.progress();
        let is_whole = self.pull(&mut output, now);
        if !self.listings.is_empty() {
            self.end_listing(is_whole, progress.marked, &mut output, now);
            return output;
        }
        if !self.more && !self.is_held_back && progress.stale.is_none() {
            self.tell_recovered(&mut output, now);
        }
        self.end_with_what_is_watched();
        output
    }

    /// What it begins with is out, or cannot be told yet.
    fn is_flowing(&self) -> bool {
        matches!(self.stage, Stage::Waiting { .. } | Stage::Live)
    }

    /// Something is left that needs no wake-up.
    pub(super) fn has_more(&self) -> bool {
        let flows = match self.stage {
            _ if self.term.is_over() => false,
            Stage::Waiting { .. } => false,
            Stage::Live => {
                self.more || !self.late_topics.is_empty() || (!self.listings.is_empty() && !self.ends_listing())
            }
            _ => true,
        };
        flows || !self.replies.is_empty()
    }

    /// The log was read anew, or has just been read to its end: start over.
    fn follow_resets(&mut self, now: Now) {
        let progress = self.shared.hub.progress();
        if progress.generation != self.generation {
            self.generation = progress.generation;
            self.grant = Grant::default();
            self.cursor = None;
            // Positions of another log: what was marked before the reset says nothing about the new one, and what is
            // marked from now on is in the snapshot or comes after it.
            self.mailbox.clear();
            self.forget_what_is_due();
            self.stage = Stage::Waiting { reset: progress.reset };
        }
        if let Stage::Waiting { reset } = self.stage
            && progress.replayed
        {
            self.begin_snapshot(reset, now);
        }
    }

    /// What a subscription starts from is in the snapshot to come; what was asked for is answered after it.
    pub(super) fn forget_what_is_due(&mut self) {
        self.listings.retain(|listing| !listing.with_cursor);
        for listing in &mut self.listings {
            (listing.left, listing.end) = (None, None);
        }
        (self.more, self.is_held_back) = (false, false);
        self.late_topics.clear();
    }

    /// What is marked, as far as it may go out; whether every task that was has been told of.
    fn pull(&mut self, output: &mut Output, now: Now) -> bool {
        let (marked, urgent) = self.mailbox.state();
        self.more = false;
        // Pages are not throttled; nor is what their last one waits for.
        let is_throttled = !self.ends_listing() && self.throttled_until().is_some_and(|until| until > now.instant);
        self.is_held_back = marked && !urgent && is_throttled;
        if !marked || self.is_held_back {
            return !marked;
        }
        let options =
            PullOptions { after: self.position(), every: self.deliver == Deliver::Every, frames_max: PULL_FRAMES_MAX };
        let pulled = self.shared.hub.pull(&self.mailbox, options, |task| self.identity.may_watch(task));
        self.more = pulled.more;
        self.shared.metrics.key_frame_gaps(pulled.gaps);
        if !pulled.frames.is_empty() {
            self.pulled_at = Some(now.instant);
            self.shared.metrics.pulled(pulled.frames.len(), pulled.conflated);
        }
        output.frames.extend(self.removals(pulled.hidden, now));
        self.send(&pulled.frames, output);
        output.frames.extend(self.removals(pulled.removed, now));
        !pulled.more && !pulled.passed_over
    }

    /// Hands out shared frames and moves the cursor along.
    pub(super) fn send(&mut self, frames: &[Arc<TaskFrame>], output: &mut Output) {
        output.frames.reserve_exact(frames.len());
        output.frames.extend(frames.iter().map(|frame| frame.bytes(self.encoding)));
        // What a client missed while it was away says nothing of the service's speed.
        if let (Stage::Live, Some(oldest)) = (&self.stage, frames.first()) {
            output.oldest_ms = output.oldest_ms.into_iter().chain([oldest.applied_at_ms]).min();
            output.traced = self.shared.hub.traced(frames);
        }
        output.task_frames += frames.len() as u64;
        if let Some(last) = frames.last() {
            self.cursor = Some(last.cursor);
        }
    }

    fn throttled_until(&self) -> Option<Instant> {
        self.pulled_at.map(|at| at + self.throttle)
    }

    /// When [`Session::on_time`] wants to be called.
    pub(super) fn deadline(&self, now: Now) -> Instant {
        let dead_after = self.shared.settings.dead_peer_timeout;
        let dead_at = if self.is_deaf() { now.instant } else { self.heard_at } + dead_after;
        // Also when that moment has just passed: what is held back wakes nobody any more.
        let throttled = self.throttled_until().filter(|_| self.is_held_back);
        let drains_at = self.drains_at.filter(|_| self.closing.is_none());
        let timers = [Some(self.ping_at), Some(dead_at), self.term.due(), drains_at, throttled];
        timers.into_iter().flatten().min().unwrap_or(dead_at)
    }

    /// A timer fired: ping, expiry, the turn in a drain. False when the peer is dead and the socket is to be dropped.
    pub(super) fn on_time(&mut self, now: Now) -> bool {
        // While nothing is read, nothing can be heard; then progress of the writing is the sign of life.
        if !self.is_deaf() && now.instant >= self.heard_at + self.shared.settings.dead_peer_timeout {
            return false;
        }
        self.on_term(now);
        if self.drains_at.is_some_and(|at| now.instant >= at) {
            self.close(CloseCode::Restart, "the service restarts; reconnect");
        }
        if self.throttled_until().is_some_and(|until| now.instant >= until) {
            // The next output looks, and that comes as soon as the socket can take it.
            self.is_held_back = false;
        }
        if now.instant >= self.ping_at {
            self.ping_at = now.instant + self.shared.settings.heartbeat_interval;
            self.push_reply(self.heartbeat());
        }
        true
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
