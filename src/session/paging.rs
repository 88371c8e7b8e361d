//! What is larger than a write: snapshots, what a resumed client missed, listings. Collected a piece at a time, and only
//! when the socket has taken what was before it.
//!
//! Refuses to know: why it is sent.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Deliver,
    machine::{Output, PULL_FRAMES_MAX, REPLIES_MAX, Session, Stage},
};
use crate::{
    clock::Now,
    hub::{Hub, Mailbox, Next, Under, Walk},
    proto::{
        CloseCode, Cursor, Encoding, Position, RequestId, ResumeFailure, ServerMessage, Task, TaskFrame, TaskId, Topic,
    },
};

/// What a task takes in a page besides its texts, in bytes: for cutting pages, so about right is right enough.
const TASK_BYTES: usize = 400;

/// Frames that a resumed client missed and that are held for it at a time.
const MISSED_FRAMES_MAX: usize = if cfg!(test) { 32 } else { 2048 };

/// Frames that are told before the last page of a list although more move all the time, beside what had moved when it was walked.
const ENDING_FRAMES_MIN: usize = 4 * PULL_FRAMES_MAX;

/// What is to be sent of what a client missed, and the tasks that it can see no more.
pub(super) type Missing = (Stage, Vec<TaskId>);

/// States that go out in pages beside the flow of events.
pub(super) struct Listing {
    /// What is left of it; `None`: all live tasks that are watched, up to the session's cursor when its turn comes. Were
    /// they newer, what follows would take the client back.
    pub(super) left: Option<Walk>,
    /// Whether its pages carry the session's cursor.
    pub(super) with_cursor: bool,
    pub(super) id: Option<RequestId>,
    pub(super) is_begun: bool,
    pub(super) end: Option<End>,
}

/// What a list waits for that is walked to its end: what moved on meanwhile was passed over.
#[derive(Clone, Copy)]
pub(super) struct End {
    /// All is told when everything up to here is.
    behind: Position,
    /// Who reads more slowly than things move would wait for ever: so many frames are told before the last page at most.
    frames_left: usize,
}

impl Listing {
    pub(super) fn new(left: Option<Walk>, with_cursor: bool, id: Option<RequestId>) -> Self {
        Self { left, with_cursor, id, is_begun: false, end: None }
    }
}

impl Session {
    /// The first piece of what a client missed.
    pub(super) fn missed(
        &self,
        topics: Vec<Topic>,
        after: Cursor,
        through: Position,
    ) -> Result<Missing, ResumeFailure> {
        let every = self.deliver == Deliver::Every;
        let sees = |task: &Task| self.sees(task);
        let under = self.under(topics);
        let missed = self.shared.hub.missed(&under, after, through, every, MISSED_FRAMES_MAX, sees)?;
        let (left, is_all) = (missed.frames.into(), !missed.more);
        Ok((Stage::Missed { left, topics: under.into_topics(), through, is_all }, missed.hidden))
    }

    pub(super) fn send_missed(&mut self, output: &mut Output, now: Now) {
        let Stage::Missed { left, topics, through, is_all } = &mut self.stage else { return };
        let taken: Vec<_> = left.drain(..left.len().min(PULL_FRAMES_MAX)).collect();
        let next = left.is_empty().then(|| (std::mem::take(topics), *through, *is_all));
        self.send(&taken, output);
        match (next, self.cursor) {
            (None, _) => {}
            (Some((topics, through, false)), Some(cursor)) => match self.missed(topics, cursor, through) {
                Ok((stage, hidden)) => {
                    self.stage = stage;
                    output.frames.extend(self.removals(hidden, now));
                }
                // So slowly did it read that some of the rest is no longer held.
                Err(failure) => self.begin_snapshot(Some(failure), now),
            },
            (Some(_), _) => {
                self.stage = Stage::Live;
                self.more = true;
            }
        }
    }

    /// Celery's dialect: what its list had no room for.
    pub(super) fn send_ended(&mut self, output: &mut Output) {
        let Stage::Ended { left, listed, done } = &mut self.stage else { return };
        let rest = |task: &Task| self.identity.may_watch(task) && !is_listed(listed, task);
        let (taken, more) = page(&self.shared.hub, left, usize::MAX, PULL_FRAMES_MAX, rest);
        let done = *done;
        self.send(&taken, output);
        if !more {
            self.cursor = done.or(self.cursor);
            self.stage = Stage::Live;
            self.more = true;
        }
    }

    /// States to send in pages, when the socket can take them.
    pub(super) fn list(&mut self, listing: Listing) {
        if self.listings.len() >= REPLIES_MAX {
            self.close(CloseCode::Policy, "too many requests without reading the answers");
            return;
        }
        self.listings.push_back(listing);
    }

    /// The first listing is walked, and waits for what it passed over.
    pub(super) fn ends_listing(&self) -> bool {
        self.listings.front().is_some_and(|listing| listing.end.is_some())
    }

    /// Writes the next page of the first listing.
    pub(super) fn listing_page(&mut self, output: &mut Output, now: Now) {
        let hub = &self.shared.hub;
        let Some(listing) = self.listings.front_mut() else { return };
        let live_only = !listing.with_cursor;
        let walk = listing.left.get_or_insert_with(|| {
            let through = self.cursor.map_or(Position::START, |cursor| cursor.position);
            let topics = self.watches.topics();
            let sources = self.identity.sources(&topics);
            Walk::new(Under::among(topics, sources), through)
        });
        let wanted = |task: &Task| self.identity.may_watch(task) && !(live_only && task.status.is_terminal());
        if self.encoding == Encoding::Celery {
            // There a list replaces what the page had, so what is new to it comes task by task.
            let (tasks, more) = page(hub, walk, usize::MAX, PULL_FRAMES_MAX, wanted);
            output.frames.extend(tasks.iter().map(|frame| frame.bytes(Encoding::Celery)));
            if !more {
                self.listings.pop_front();
            }
            return;
        }
        let (tasks, more) = page(hub, walk, self.shared.settings.page_max_bytes, usize::MAX, wanted);
        // Whoever asks something next takes a list under a subscription that has not begun for one that there is not.
        if tasks.is_empty() && more && (!listing.with_cursor || listing.is_begun) {
            return;
        }
        listing.is_begun = true;
        listing.end = (!more).then(|| untold(hub, &self.mailbox, walk.through())).flatten();
        let (with_cursor, id, more) = (listing.with_cursor, listing.id.clone(), more || listing.end.is_some());
        if !more {
            self.listings.pop_front();
        }
        self.more |= self.ends_listing();
        self.send_list(tasks, more, with_cursor, id, output, now);
    }

    /// The last page of what was walked, when what moved on meanwhile has been told too: whatever was in no page and in no
    /// frame before this one is not there. Behind a pull up to `marked`.
    pub(super) fn end_listing(&mut self, is_whole: bool, marked: Position, output: &mut Output, now: Now) {
        let Some(end) = self.listings.front_mut().and_then(|listing| listing.end.as_mut()) else { return };
        end.frames_left = end.frames_left.saturating_sub(output.frames.len());
        if is_whole && marked < end.behind {
            return self.shared.hub.wake_after(marked, &self.mailbox);
        }
        if !is_whole && end.frames_left > 0 {
            return;
        }
        let Some(Listing { with_cursor, id, .. }) = self.listings.pop_front() else { return };
        // Others may be due now.
        self.more = true;
        self.send_list(Vec::new(), false, with_cursor, id, output, now);
    }

    /// Pages under subscriptions bear no name: whoever waits for the last one has to wait for that of the last list.
    fn send_list(
        &self,
        tasks: Vec<Arc<TaskFrame>>,
        more: bool,
        with_cursor: bool,
        id: Option<RequestId>,
        output: &mut Output,
        now: Now,
    ) {
        let more = more || with_cursor && self.listings.iter().any(|listing| listing.with_cursor);
        let cursor = self.cursor.filter(|_| with_cursor);
        let message = ServerMessage::ActiveTasks { tasks, cursor, more, reset: None, id };
        output.frames.push(message.encode(self.encoding, now.unix_ms));
    }

    /// Writes the next page. Its cursor is that of its last task, so a client may drop in the middle and resume.
    pub(super) fn snapshot_page(&mut self, output: &mut Output, now: Now) {
        let Stage::Snapshot { left, done, reset, is_first, sent } = &mut self.stage else { return };
        let sees = |task: &Task| self.identity.may_watch(task);
        let (tasks, more) = page(&self.shared.hub, left, self.shared.settings.page_max_bytes, usize::MAX, sees);
        if tasks.is_empty() && more {
            return;
        }
        let (done, reset) = (*done, reset.filter(|_| *is_first));
        *is_first = false;
        *sent += tasks.len();
        let cursor = if more { tasks.last().map(|frame| frame.cursor) } else { done };
        let end = (!more).then(|| untold(&self.shared.hub, &self.mailbox, left.through())).flatten();
        if !more {
            self.shared.metrics.snapshot(*sent);
            self.stage = Stage::Live;
            self.more = true;
        }
        let more = more || end.is_some();
        if end.is_some() {
            self.listings.push_front(Listing { end, ..Listing::new(None, true, None) });
        }
        let message = ServerMessage::ActiveTasks { tasks, cursor, more, reset, id: None };
        output.frames.push(message.encode(self.encoding, now.unix_ms));
        self.cursor = cursor.or(self.cursor);
    }

    /// What tells that these tasks are no longer there, as far as this client may know.
    pub(super) fn removals(&self, gone: Vec<TaskId>, now: Now) -> impl Iterator<Item = Bytes> + use<> {
        let encoding = self.encoding;
        gone.into_iter().map(move |task_id| ServerMessage::TaskRemoved { task_id }.encode(encoding, now.unix_ms))
    }
}

/// What moved beyond `through` during a walk to there was passed over; it is marked, or will be. What must be told before the
/// walk is whole? `None`: it is.
fn untold(hub: &Hub, mailbox: &Mailbox, through: Position) -> Option<End> {
    let behind = hub.begun();
    let is_untold = behind > through && (hub.progress().marked < behind || mailbox.has_beyond(through));
    is_untold.then(|| End { behind, frames_left: ENDING_FRAMES_MIN + 2 * mailbox.len() })
}

/// Is it in the list that this client got, whatever has happened to it since?
pub(super) fn is_listed(listed: &[Arc<TaskFrame>], task: &Task) -> bool {
    listed.iter().any(|frame| frame.task.task_id == task.task_id)
}

/// The next tasks of a walk that make a page of about `max_bytes`; and whether there are more. None, and more, where one
/// has to be looked for so long that others come first.
fn page(
    hub: &Hub,
    walk: &mut Walk,
    max_bytes: usize,
    tasks_max: usize,
    wanted: impl Fn(&Task) -> bool,
) -> (Vec<Arc<TaskFrame>>, bool) {
    let mut bytes = 0;
    let mut tasks = Vec::new();
    loop {
        let frame = match hub.next(walk, &wanted) {
            Next::Task(frame) => frame,
            Next::Later => return (tasks, true),
            Next::End => return (tasks, false),
        };
        let task = &frame.task;
        bytes += TASK_BYTES
            + [&task.result, &task.metadata].into_iter().flatten().map(|json| json.as_str().len()).sum::<usize>()
            + [&task.message, &task.title].into_iter().flatten().map(|text| text.len()).sum::<usize>()
            + task.error.as_ref().and_then(|error| error.message.as_ref()).map_or(0, |message| message.len());
        if !tasks.is_empty() && (bytes > max_bytes || tasks.len() >= tasks_max) {
            return (tasks, true);
        }
        walk.advance();
        tasks.push(frame);
    }
}

#[cfg(test)]
#[path = "paging_tests.rs"]
mod tests;
