//! A session and its socket. Both belong to the connection's task, which reads, waits and finishes what a slow socket
//! leaves over; whoever delivers may take the session's next step in its place when nothing stands in the way, so that
//! a delivered frame costs its system call and no scheduling.
//!
//! Refuses to know: HTTP, brokers.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Drain,
    errands::Errands,
    machine::Session,
    pump::{Event, Pump},
    websocket::{Inbound, Violation},
};
use crate::{
    auth::{Holder, Identity, OpaqueToken, Place, Refusal, Revocations},
    clock::{self, Now},
    hub::{Attendant, Run, Turn},
    metrics::Tally,
    traces::Traced,
};

/// Of a session with more marks than this the next step may take a while.
const MARKS_MAX: usize = 64;

/// One open connection. In this order in memory: a delivery looks at the two ends of what is locked.
#[repr(C)]
pub(super) struct Connection<S> {
    /// `None` once it is over, but for the farewell.
    state: Mutex<Option<State<S>>>,
    drain: Drain,
    revocations: Revocations,
}

/// What only one may touch at a time. In this order in memory.
#[repr(C)]
struct State<S> {
    /// What is due to the session is a frame, if anything: as it was when the session was looked at last.
    is_plain: bool,
    pump: Pump<S>,
    /// Of what was handed to the pump and is not all written: how many frames carry a task, and when the oldest of those
    /// was applied.
    task_frames: u64,
    oldest_ms: Option<u64>,
    /// Those among them that a trace follows.
    traced: Option<Traced>,
    session: Session,
}

/// However the conversation ends: nobody delivers any more, and the socket is gone.
struct Over<'a, S> {
    connection: &'a Connection<S>,
    place: Option<Place>,
}

impl<S> Drop for Over<'_, S> {
    fn drop(&mut self) {
        let state = self.connection.lock().take();
        drop(state);
        if let Some(place) = self.place.take() {
            self.connection.revocations.let_go_of(place);
        }
    }
}

/// What the task does next.
enum Step {
    /// Says goodbye.
    Close,
    /// There is more to hand out.
    Again,
    /// Waits for something to happen: to the session too if it is idle, until the deadline at most.
    Wait { idle: bool, is_draining: bool, deadline: Instant },
}

impl<S> Connection<S> {
    /// Nothing that runs under this lock waits.
    fn lock(&self) -> MutexGuard<'_, Option<State<S>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<S> {
    pub(super) fn new(pump: Pump<S>, session: Session) -> Arc<Self> {
        let drain = session.shared.drain.clone();
        let revocations = session.shared.verifier.revocations().clone();
        let state = State { pump, session, task_frames: 0, oldest_ms: None, traced: None, is_plain: false };
        Arc::new(Self { drain, revocations, state: Mutex::new(Some(state)) })
    }

    fn with<R>(&self, look: impl FnOnce(&mut State<S>) -> R) -> Option<R> {
        self.lock().as_mut().map(|state| {
            state.is_plain = false;
            look(state)
        })
    }

    /// Runs until the connection ends; the close code, if one was agreed.
    pub(super) async fn converse(self: Arc<Self>) -> Option<u16> {
        let mailbox = self.with(|state| state.session.mailbox())?;
        let _over = Over { connection: &self, place: Some(self.hold()) };
        mailbox.attend(self.clone());
        let mut errands = Errands::default();
        let mut timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        let mut armed_for = None;
        let mut has_read = false;
        loop {
            if std::mem::take(&mut has_read) {
                // What arrives may have no end and make no message: others have their turn in between.
                tokio::task::yield_now().await;
            }
            self.listen().await?;
            self.with(|state| errands.send(&mut state.session))?;
            let (idle, is_draining, deadline) = match self.with(State::step)? {
                // Large, and rare.
                Step::Close => return Box::pin(self.close()).await,
                Step::Again => {
                    // A session that has more and gives nothing would be a mistake; it must not cost others their
                    // thread.
                    tokio::task::yield_now().await;
                    continue;
                }
                Step::Wait { idle, is_draining, deadline } => (idle, is_draining, deadline),
            };
            if armed_for.replace(deadline) != Some(deadline) {
                timer.as_mut().reset(deadline.into());
            }
            tokio::select! {
                event = self.turn() => match event {
                    Event::Read => has_read = true,
                    Event::Flushed => {}
                    Event::Gone => return None,
                    Event::Violated(Violation(code, reason)) => self.with(|state| state.session.close(code, reason))?,
                },
                () = mailbox.woken(), if idle => {}
                done = errands.done() => self.with(|state| state.session.on_done(done, clock::now()))?,
                () = &mut timer => {
                    armed_for = None;
                    if !self.with(|state| state.on_time(clock::now()))? {
                        return None;
                    }
                }
                () = self.drain.begun().cancelled(), if !is_draining => {
                    let now = clock::now();
                    let turn = self.drain.turn().unwrap_or(now.instant);
                    self.with(|state| state.session.on_draining(turn, now))?;
                }
            }
        }
    }

    /// What was revoked since its token was verified ends it here, what is from now on later.
    fn hold(self: &Arc<Self>) -> Place {
        let holder: Weak<Self> = Arc::downgrade(self);
        let place = self.revocations.hold(holder);
        self.ask_again(&self.revocations);
        place
    }

    /// Hands what the peer said to the session, as long as it can keep up with the answers.
    async fn listen(&self) -> Option<()> {
        while self.with(State::hear)? {
            // One read can hold many commands, and each may look at many tasks.
            tokio::task::yield_now().await;
        }
        Some(())
    }

    /// Writes what waits, then reads. Cancel safe.
    async fn turn(&self) -> Event {
        let poll = |cx: &mut Context<'_>| self.lock().as_mut().map(|state| state.poll_turn(cx));
        poll_fn(|cx| poll(cx).unwrap_or(Poll::Ready(Event::Gone))).await
    }

    /// Nobody delivers any more: the session is gone, and the socket is the task's alone.
    async fn close(&self) -> Option<u16> {
        let State { mut pump, session, .. } = self.lock().take()?;
        let (code, farewell) = session.closing().map(|(code, reason)| (code, session.farewell(code, reason)))?;
        drop(session);
        pump.close(farewell).await;
        pump.peer_code.or(Some(code.number()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> State<S> {
    /// One thing that the peer said; false when there is none, or when it must wait.
    fn hear(&mut self) -> bool {
        if self.session.is_backed_up() {
            return false;
        }
        let read = std::mem::take(&mut self.pump.read);
        if read > 0 {
            self.session.on_bytes(read, clock::now());
        }
        let Some(inbound) = self.pump.inbox.pop_front() else { return false };
        if let Inbound::Close(code) = inbound {
            self.pump.peer_closed = true;
            self.pump.peer_code = code;
        }
        self.session.on_inbound(inbound, clock::now());
        true
    }

    fn step(&mut self) -> Step {
        let now = clock::now();
        if self.pump.is_idle() {
            self.hand_out(now);
        }
        let idle = self.pump.is_idle();
        if idle && self.session.closing().is_some() {
            return Step::Close;
        }
        if idle && self.session.has_more() {
            return Step::Again;
        }
        self.is_plain = idle && self.session.is_plain();
        self.pump.reads = !self.session.is_backed_up();
        let deadline = self.session.deadline(now);
        let deadline = if idle { deadline } else { deadline.min(self.stalled_at()) };
        Step::Wait { idle, is_draining: self.session.is_draining(), deadline }
    }

    /// Gives the pump what is due.
    fn hand_out(&mut self, now: Now) {
        let output = self.session.output(now);
        (self.task_frames, self.oldest_ms, self.traced) = (output.task_frames, output.oldest_ms, output.traced);
        self.pump.queue(output.frames, now.instant);
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let turned = self.pump.poll_turn(cx);
        if matches!(turned, Poll::Ready(Event::Flushed)) {
            self.flushed(clock::now());
        }
        turned
    }

    fn flushed(&mut self, now: Now) {
        let metrics = &self.session.shared.metrics;
        metrics.written(std::mem::take(&mut self.pump.written));
        let waited = self.oldest_ms.map(|oldest_ms| Duration::from_millis(now.unix_ms.saturating_sub(oldest_ms)));
        metrics.frames_delivered(self.task_frames, waited);
        if let Some(traced) = self.traced.take() {
            traced.written(now.instant);
        }
    }

    fn stalled_at(&self) -> Instant {
        self.pump.progress_at + self.session.shared.settings.write_timeout
    }

    /// False when the socket is to be dropped.
    fn on_time(&mut self, now: Now) -> bool {
        // It may have taken something since the timer was set.
        let stalled = !self.pump.is_idle() && now.instant >= self.stalled_at();
        if stalled {
            self.session.shared.metrics.reader_dropped();
        }
        !stalled && self.session.on_time(now)
    }

    fn deliver(&mut self, turn: &mut Turn) -> bool {
        if !self.is_plain || !self.pump.is_idle() {
            return false;
        }
        // What the socket does not take now is its task's to finish, which asks the socket again.
        let mut cx = Context::from_waker(Waker::noop());
        if let Some(run) = self.session.only_run(&turn.progress, &mut turn.runs) {
            if self.pump.write_run(&mut cx, run, turn.now.instant) {
                self.delivered(run, &mut turn.tally);
                turn.traced.extend(run.traced().cloned());
                return true;
            }
            self.session.shared.metrics.pulled(run.frames(), run.conflated());
            (self.task_frames, self.oldest_ms) = (run.frames() as u64, Some(run.oldest_ms()));
            self.traced = run.traced().cloned();
            return false;
        }
        // A long step is its task's, which others can run beside.
        if self.session.mailbox.len() > MARKS_MAX {
            return false;
        }
        self.hand_out(turn.now);
        if !self.pump.is_idle() && matches!(self.pump.poll_write(&mut cx), Poll::Ready(Ok(()))) {
            self.flushed(clock::now());
        }
        self.is_plain = self.pump.is_idle() && self.session.is_plain();
        self.pump.is_idle() && !self.session.needs_its_task()
    }
}

impl<S> State<S> {
    fn delivered(&self, run: &Run, tally: &mut Tally) {
        let metrics = &self.session.shared.metrics;
        if tally.is_of(metrics) {
            tally.delivered(run.frames(), run.bytes().len(), run.conflated(), run.oldest_ms());
            return;
        }
        // A session that is counted elsewhere, such as this replica's to itself.
        metrics.pulled(run.frames(), run.conflated());
        metrics.written(run.bytes().len() as u64);
        let waited = Duration::from_millis(clock::now().unix_ms.saturating_sub(run.oldest_ms()));
        metrics.frames_delivered(run.frames() as u64, Some(waited));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Attendant for Connection<S> {
    fn prefetch(&self) {
        // They lie before and behind what is looked at under the lock.
        std::hint::black_box((self.state.is_poisoned(), std::ptr::from_ref(self.drain.begun()).addr()));
    }

    fn deliver(&self, turn: &mut Turn) -> bool {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Its task is at it.
            Err(TryLockError::WouldBlock) => return false,
        };
        state.as_mut().is_none_or(|state| state.deliver(turn))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Holder for Connection<S> {
    fn ask_again(&self, revocations: &Revocations) {
        let mut state = self.lock();
        if let Some(state) = state.as_mut()
            && state.session.end_if_revoked(revocations, clock::now())
        {
            state.is_plain = false;
            state.session.mailbox.wake();
        }
    }

    fn opaque_token(&self) -> Option<OpaqueToken> {
        self.lock().as_ref().and_then(|state| state.session.opaque_token())
    }

    fn on_asked(&self, token: &OpaqueToken, answer: Result<Identity, Refusal>) {
        let mut state = self.lock();
        if let Some(state) = state.as_mut() {
            state.is_plain = false;
            state.session.on_asked(token, answer, clock::now());
        }
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
