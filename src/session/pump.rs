//! Moves bytes between one socket and its session: one task, one loop, one vectored write per wake-up.
//!
//! Refuses to know: what the bytes mean; HTTP; brokers.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Request, Sessions,
    machine::{Output, Session},
    websocket::{Inbound, Reader, Violation},
};
use crate::{
    auth::{AuthenticationError, Identity},
    clock,
    proto::{CloseCode, Command, CommandKind, Encoding, close_frame},
};

/// How long the peer may take to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection with a cursor waits for this replica to have read as far as the cursor.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes per read; on the stack of a poll, so an idle connection holds none.
const READ_BYTES: usize = 4096;

/// Slices per vectored write.
const SLICES_MAX: usize = 64;

/// What the socket did.
enum Event {
    /// Bytes arrived; what they said is in the inbox.
    Read,
    /// Everything handed over has been written.
    Flushed,
    /// The peer is gone.
    Gone,
    /// The peer broke the protocol.
    Violated(Violation),
}

/// A socket with what is still to be written to it.
struct Pump<S> {
    socket: S,
    reader: Reader,
    inbox: VecDeque<Inbound>,
    outbox: VecDeque<Bytes>,
    written: u64,
    /// When the oldest unwritten byte last had company that moved.
    progress_at: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pump<S> {
    fn new(socket: S, message_max: usize) -> Self {
        Self {
            socket,
            reader: Reader::new(message_max),
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            written: 0,
            progress_at: clock::now().instant,
        }
    }

    fn queue(&mut self, frames: impl IntoIterator<Item = Bytes>) {
        if self.outbox.is_empty() {
            self.progress_at = clock::now().instant;
        }
        self.outbox.extend(frames);
    }

    /// Writes what waits, then reads. Cancel safe.
    async fn turn(&mut self) -> Event {
        poll_fn(|cx| self.poll_turn(cx)).await
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if !self.outbox.is_empty() {
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Event::Flushed),
                Poll::Ready(Err(_)) => return Poll::Ready(Event::Gone),
                Poll::Pending => {}
            }
        }
        self.poll_read(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.outbox.len().min(SLICES_MAX);
            for (slice, frame) in slices.iter_mut().zip(&self.outbox) {
                *slice = IoSlice::new(frame);
            }
            let written = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.progress_at = clock::now().instant;
            self.written += written as u64;
            self.consume(written);
        }
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        // A burst's room is given back; an idle connection keeps none.
        self.outbox = VecDeque::new();
        Poll::Ready(Ok(()))
    }

    fn consume(&mut self, mut written: usize) {
        while let Some(front) = self.outbox.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.outbox.pop_front();
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let mut bytes = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        if ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer)).is_err() || buffer.filled().is_empty() {
            return Poll::Ready(Event::Gone);
        }
        Poll::Ready(self.feed(buffer.filled()))
    }

    fn feed(&mut self, mut input: &[u8]) -> Event {
        loop {
            match self.reader.read(&mut input) {
                Ok(Some(inbound)) => self.inbox.push_back(inbound),
                Ok(None) => return Event::Read,
                Err(violation) => return Event::Violated(violation),
            }
        }
    }

    /// Sends a close frame after what waits and gives the peer a moment to answer, so that it reads the code and not a
    /// reset.
    async fn close(&mut self, code: CloseCode, reason: &str, peer_closed: bool) {
        self.queue([close_frame(code, reason)]);
        let farewell = async {
            while !matches!(self.turn().await, Event::Flushed | Event::Gone) {}
            let _ = poll_fn(|cx| Pin::new(&mut self.socket).poll_shutdown(cx)).await;
            while !peer_closed && !self.inbox.drain(..).any(|inbound| matches!(inbound, Inbound::Close(_))) {
                if !matches!(self.turn().await, Event::Read) {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, farewell).await;
    }
}

/// Serves a connection until it ends; the close code, if one was agreed.
pub(super) async fn run<S>(sessions: &Sessions, socket: S, early: &[u8], request: Request) -> Option<u16>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut pump = Pump::new(socket, sessions.settings.message_max_bytes);
    if let Event::Violated(Violation(code, reason)) = pump.feed(early) {
        pump.close(code, reason, false).await;
        return Some(code.number());
    }
    let mut session = match authenticate(sessions, &mut pump, &request).await {
        Ok(identity) => {
            wait_for_cursor(sessions, request.cursor.as_deref()).await;
            Session::open(sessions, identity, &request, clock::now())
        }
        Err(refusal) => {
            let now = clock::now();
            let nobody = Identity { user: None, rights: crate::auth::Rights::default(), expires_at_ms: None };
            let mut session = Session::new(sessions, nobody, &request, now);
            session.refuse(refusal.code, &refusal.message, now);
            session
        }
    };
    converse(sessions, &mut pump, &mut session).await
}

/// Verifies the handshake's token, or the one in the first frame when the handshake brought none.
async fn authenticate<S>(
    sessions: &Sessions,
    pump: &mut Pump<S>,
    request: &Request,
) -> Result<Identity, AuthenticationError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let first_frame;
    let mut token = request.token.as_deref();
    if token.is_none() && sessions.verifier.needs_token() {
        let waited = tokio::time::timeout(sessions.settings.first_frame_timeout, first_token(pump, request.encoding));
        first_frame = waited.await.ok().flatten();
        token = first_frame.as_deref();
    }
    sessions.verifier.verify(token, clock::now().unix_ms)
}

async fn first_token<S>(pump: &mut Pump<S>, encoding: Encoding) -> Option<String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        while let Some(inbound) = pump.inbox.pop_front() {
            let command = match inbound {
                Inbound::Text(text) => Command::from_json(&text),
                Inbound::Binary(bytes) if encoding == Encoding::Protobuf => Command::from_protobuf(&bytes),
                Inbound::Ping(_) | Inbound::Pong => continue,
                _ => return None,
            };
            return match command.map(|command| command.kind) {
                Ok(CommandKind::Authenticate { token }) => Some(token),
                _ => None,
            };
        }
        if !matches!(pump.turn().await, Event::Read) {
            return None;
        }
    }
}

/// A client that comes from a replica that is a moment ahead must not be told that its cursor is of another log.
async fn wait_for_cursor(sessions: &Sessions, cursor: Option<&str>) {
    let wanted = cursor.and_then(|text| text.parse::<crate::proto::Cursor>().ok()).map(|cursor| cursor.position);
    let Some(wanted) = wanted else { return };
    let mut progress = sessions.hub.watch_progress();
    let reached = progress
        .wait_for(|progress| progress.replayed && progress.applied.is_some_and(|applied| applied.position >= wanted));
    // Not reached in time is an answer too: the session finds out which.
    let _ = tokio::time::timeout(CATCH_UP_TIMEOUT, reached).await.is_ok();
}

/// The loop of a connection.
async fn converse<S>(sessions: &Sessions, pump: &mut Pump<S>, session: &mut Session) -> Option<u16>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mailbox = session.mailbox();
    let mut in_flight = Output::default();
    let mut timer = Box::pin(tokio::time::sleep(Duration::ZERO));
    let mut armed_for = None;
    let mut peer_closed = false;
    loop {
        while let Some(inbound) = pump.inbox.pop_front() {
            peer_closed |= matches!(inbound, Inbound::Close(_));
            session.on_inbound(inbound, clock::now());
        }
        run_cancels(sessions, session).await;
        if pump.outbox.is_empty() {
            in_flight = session.output(clock::now());
            pump.queue(std::mem::take(&mut in_flight.frames));
        }
        if pump.outbox.is_empty()
            && let Some((code, reason)) = session.closing()
        {
            let (code, reason) = (code, reason.to_owned());
            pump.close(code, &reason, peer_closed).await;
            return Some(code.number());
        }
        let now = clock::now();
        let stalled_at = pump.progress_at + sessions.settings.write_timeout;
        let deadline =
            if pump.outbox.is_empty() { session.deadline(now) } else { stalled_at.min(session.deadline(now)) };
        if armed_for.replace(deadline) != Some(deadline) {
            timer.as_mut().reset(deadline.into());
        }
        let idle = pump.outbox.is_empty();
        if idle && session.has_more() {
            continue;
        }
        tokio::select! {
            event = pump.turn() => match event {
                Event::Read => {}
                Event::Flushed => flushed(sessions, pump, &in_flight),
                Event::Gone => return None,
                Event::Violated(Violation(code, reason)) => session.close(code, reason),
            },
            () = mailbox.woken(), if idle => {}
            () = &mut timer => {
                armed_for = None;
                let now = clock::now();
                let stalled = !idle && now.instant >= stalled_at;
                if stalled || !session.on_time(now) {
                    return None;
                }
            }
            () = sessions.draining.cancelled(), if session.closing().is_none() => session.close(CloseCode::Restart, "the service restarts; reconnect"),
        }
    }
}

fn flushed<S>(sessions: &Sessions, pump: &mut Pump<S>, output: &Output) {
    sessions.metrics.written(std::mem::take(&mut pump.written));
    let now_ms = clock::now().unix_ms;
    let waited = output.oldest_ms.map(|oldest_ms| Duration::from_millis(now_ms.saturating_sub(oldest_ms)));
    sessions.metrics.frames_delivered(output.task_frames, waited);
}

/// Appends requests to cancel, one after the other; the log's own time limit bounds the wait.
async fn run_cancels(sessions: &Sessions, session: &mut Session) {
    while let Some(cancel) = session.cancels.pop_front() {
        let appended = sessions.publisher.publish(std::slice::from_ref(&cancel.event)).await;
        session.on_cancelled(cancel, appended.is_ok(), clock::now());
    }
}
