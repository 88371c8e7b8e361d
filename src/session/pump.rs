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
    machine::{Cancel, Output, Session},
    websocket::{Inbound, Reader, Violation},
};
use crate::{
    auth::{AuthenticationError, Identity},
    clock,
    input::Publisher,
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

/// What a client must take within a `write_timeout`, unless it takes everything that waits: who takes a byte now and then
/// keeps its frames in memory as surely as who takes none. With the default timeout that is 800 bytes per second.
pub(super) const TAKEN_MIN_BYTES: usize = 16 * 1024;

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
    /// Whether to read at all: not while the peer does not take its answers.
    reads: bool,
    /// The peer sent a close frame, and the code that was in it.
    peer_closed: bool,
    peer_code: Option<u16>,
    written: u64,
    /// When the peer last had taken enough, or everything; and what it has taken since.
    progress_at: Instant,
    taken: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pump<S> {
    fn new(socket: S, message_max: usize) -> Self {
        Self {
            socket,
            reader: Reader::new(message_max),
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            reads: true,
            peer_closed: false,
            peer_code: None,
            written: 0,
            progress_at: clock::now().instant,
            taken: 0,
        }
    }

    fn queue(&mut self, frames: impl IntoIterator<Item = Bytes>) {
        if self.outbox.is_empty() {
            self.progress_at = clock::now().instant;
            self.taken = 0;
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
        if self.reads { self.poll_read(cx) } else { Poll::Pending }
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
            self.taken += written;
            if self.taken >= TAKEN_MIN_BYTES {
                self.progress_at = clock::now().instant;
                self.taken = 0;
            }
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

    /// Empties the inbox; was there a close frame in it?
    fn heard_close(&mut self) -> bool {
        self.inbox.drain(..).any(|inbound| matches!(inbound, Inbound::Close(_)))
    }

    /// Sends a close frame after what waits and gives the peer a moment to answer, so that it reads the code and not a
    /// reset.
    async fn close(&mut self, code: CloseCode, reason: &str) {
        self.queue([close_frame(code, reason)]);
        self.reads = true;
        let farewell = async {
            let mut answered = self.peer_closed;
            loop {
                match self.turn().await {
                    Event::Flushed | Event::Gone => break,
                    // What still comes is not kept.
                    Event::Read | Event::Violated(_) => answered |= self.heard_close(),
                }
            }
            let _ = poll_fn(|cx| Pin::new(&mut self.socket).poll_shutdown(cx)).await;
            answered |= self.heard_close();
            while !answered && matches!(self.turn().await, Event::Read) {
                answered |= self.heard_close();
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
        pump.close(code, reason).await;
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

/// As [`run`], for somebody who is known already.
pub(super) async fn run_as<S>(sessions: &Sessions, socket: S, identity: Identity, request: Request) -> Option<u16>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut pump = Pump::new(socket, sessions.settings.message_max_bytes);
    let mut session = Session::open(sessions, identity, &request, clock::now());
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
    let Some(reached) = sessions.hub.reached(wanted) else { return };
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
    let mut cancelling: Option<Cancelling> = None;
    let mut timer = Box::pin(tokio::time::sleep(Duration::ZERO));
    let mut armed_for = None;
    loop {
        listen(pump, session).await;
        if cancelling.is_none()
            && let Some(cancel) = session.cancels.pop_front()
        {
            cancelling = Some(Box::pin(append(sessions.publisher.clone(), cancel)));
        }
        if pump.outbox.is_empty() {
            in_flight = session.output(clock::now());
            pump.queue(std::mem::take(&mut in_flight.frames));
        }
        let idle = pump.outbox.is_empty();
        if idle && let Some((code, reason)) = session.closing() {
            let (code, reason) = (code, reason.to_owned());
            pump.close(code, &reason).await;
            return pump.peer_code.or(Some(code.number()));
        }
        if idle && session.has_more() {
            // A session that has more and gives nothing would be a mistake; it must not cost others their thread.
            tokio::task::yield_now().await;
            continue;
        }
        pump.reads = !session.is_backed_up();
        let stalled_at = pump.progress_at + sessions.settings.write_timeout;
        let deadline = session.deadline(clock::now());
        let deadline = if idle { deadline } else { deadline.min(stalled_at) };
        if armed_for.replace(deadline) != Some(deadline) {
            timer.as_mut().reset(deadline.into());
        }
        tokio::select! {
            event = pump.turn() => match event {
                Event::Read => {}
                Event::Flushed => flushed(sessions, pump, &in_flight),
                Event::Gone => return None,
                Event::Violated(Violation(code, reason)) => session.close(code, reason),
            },
            () = mailbox.woken(), if idle => {}
            (cancel, done) = finished(&mut cancelling) => {
                cancelling = None;
                session.on_cancelled(cancel, done, clock::now());
            }
            () = &mut timer => {
                armed_for = None;
                let now = clock::now();
                // It may have taken something since the timer was set.
                let stalled = !idle && now.instant >= pump.progress_at + sessions.settings.write_timeout;
                if stalled {
                    sessions.metrics.reader_dropped();
                }
                if stalled || !session.on_time(now) {
                    return None;
                }
            }
            () = sessions.drain.begun().cancelled(), if !session.is_draining() => {
                let now = clock::now();
                session.on_draining(sessions.drain.turn().unwrap_or(now.instant), now);
            }
        }
    }
}

/// Hands what the peer said to the session, as long as it can keep up with the answers.
async fn listen<S>(pump: &mut Pump<S>, session: &mut Session) {
    while !session.is_backed_up()
        && let Some(inbound) = pump.inbox.pop_front()
    {
        if let Inbound::Close(code) = inbound {
            pump.peer_closed = true;
            pump.peer_code = code;
        }
        session.on_inbound(inbound, clock::now());
        // One read can hold many commands, and each may look at many tasks.
        tokio::task::yield_now().await;
    }
}

/// A request to cancel on its way to the log, which bounds how long that takes.
type Cancelling = Pin<Box<dyn Future<Output = (Cancel, bool)> + Send>>;

async fn append(publisher: Publisher, cancel: Cancel) -> (Cancel, bool) {
    let appended = publisher.publish(std::slice::from_ref(&cancel.event)).await;
    (cancel, appended.is_ok())
}

/// Never, while there is none.
async fn finished(cancelling: &mut Option<Cancelling>) -> (Cancel, bool) {
    match cancelling {
        Some(appending) => appending.await,
        None => std::future::pending().await,
    }
}

fn flushed<S>(sessions: &Sessions, pump: &mut Pump<S>, output: &Output) {
    sessions.metrics.written(std::mem::take(&mut pump.written));
    let now_ms = clock::now().unix_ms;
    let waited = output.oldest_ms.map(|oldest_ms| Duration::from_millis(now_ms.saturating_sub(oldest_ms)));
    sessions.metrics.frames_delivered(output.task_frames, waited);
}

#[cfg(test)]
#[path = "pump_tests.rs"]
mod tests;
