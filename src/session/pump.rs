//! Moves bytes between one socket and a queue of finished frames: one vectored write for all that waits, what was not
//! taken is kept, and what arrives is read frame by frame.
//!
//! Refuses to know: sessions, and what the bytes mean.

#[cfg(target_os = "linux")]
use std::any::Any;
use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
#[cfg(target_os = "linux")]
use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(target_os = "linux")]
use tokio::net::TcpStream;

use super::websocket::{Inbound, Reader, Violation};
use crate::{clock, hub::Run};

/// How long the peer may take to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes per read; on the stack of a poll, so an idle connection holds none.
const READ_BYTES: usize = 4096;

/// Slices per vectored write.
const SLICES_MAX: usize = 64;

/// What a client must take within a `write_timeout`, unless it takes everything that waits: who takes a byte now and then
/// keeps its frames in memory as surely as who takes none. With the default timeout that is 800 bytes per second.
pub(super) const TAKEN_MIN_BYTES: usize = 16 * 1024;

/// What the socket did.
pub(super) enum Event {
    /// Bytes arrived; what they said is in the inbox.
    Read,
    /// Everything handed over has been written.
    Flushed,
    /// The peer is gone.
    Gone,
    /// The peer broke the protocol.
    Violated(Violation),
}

/// A socket with what is still to be written to it. In this order in memory: what every delivery looks at comes first.
#[repr(C)]
pub(super) struct Pump<S> {
    outbox: VecDeque<Bytes>,
    /// The socket took bytes that it may still hold back.
    unflushed: bool,
    /// Whether to read at all: not while the peer does not take its answers.
    pub(super) reads: bool,
    /// The peer sent a close frame, and the code that was in it.
    pub(super) peer_closed: bool,
    pub(super) peer_code: Option<u16>,
    socket: S,
    pub(super) written: u64,
    /// When the peer last had taken enough, or everything; and what it has taken since.
    pub(super) progress_at: Instant,
    taken: usize,
    /// Bytes that were read and not accounted for.
    pub(super) read: usize,
    reader: Reader,
    pub(super) inbox: VecDeque<Inbound>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Pump<S> {
    pub(super) fn new(socket: S, message_max: usize) -> Self {
        Self {
            socket,
            reader: Reader::new(message_max),
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            unflushed: false,
            reads: true,
            peer_closed: false,
            peer_code: None,
            written: 0,
            read: 0,
            progress_at: clock::now().instant,
            taken: 0,
        }
    }

    /// Whatever its peer says is read, so that its end is seen, and means nothing.
    pub(super) fn deaf(socket: S) -> Self {
        Self { reader: Reader::deaf(), ..Self::new(socket, 0) }
    }

    pub(super) fn queue(&mut self, frames: Vec<Bytes>, now: Instant) {
        if !self.outbox.is_empty() {
            self.outbox.extend(frames);
            return;
        }
        self.progress_at = now;
        self.taken = 0;
        // The list itself, as it is.
        self.outbox = frames.into();
    }

    /// Everything that was handed over is written.
    pub(super) fn is_idle(&self) -> bool {
        self.outbox.is_empty() && !self.unflushed
    }

    /// Writes frames past the empty queue; true when the socket took them whole. What it did not take is queued.
    pub(super) fn write_run(&mut self, cx: &mut Context<'_>, run: &Run, now: Instant) -> bool {
        let bytes = run.bytes();
        let written = match self.poll_send(cx, bytes) {
            Poll::Ready(Ok(written)) => written,
            // Its task meets the error too.
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        if written < bytes.len() {
            self.queue(run.rest(written), now);
        } else if Pin::new(&mut self.socket).poll_flush(cx).is_ready() {
            return true;
        }
        self.unflushed = written > 0;
        self.written += written as u64;
        false
    }

    /// A write that nobody waits for. TCP is asked without detours: what the runtime keeps about a socket lies elsewhere in
    /// memory and is for those who wait, and the C library's `send` is a point at which a thread may be cancelled.
    #[cfg(target_os = "linux")]
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match (&self.socket as &dyn Any).downcast_ref::<TcpStream>() {
            Some(socket) => Poll::Ready(rustix::net::send(socket, bytes, SendFlags::NOSIGNAL).map_err(Into::into)),
            None => Pin::new(&mut self.socket).poll_write(cx, bytes),
        }
    }

    /// A write that nobody waits for.
    #[cfg(not(target_os = "linux"))]
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    /// Writes what waits, then reads. Cancel safe.
    pub(super) async fn turn(&mut self) -> Event {
        poll_fn(|cx| self.poll_turn(cx)).await
    }

    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if !self.is_idle() {
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Event::Flushed),
                Poll::Ready(Err(_)) => return Poll::Ready(Event::Gone),
                Poll::Pending => {}
            }
        }
        if self.reads { self.poll_read(cx) } else { Poll::Pending }
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
            self.unflushed = true;
            self.consume(written);
        }
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.unflushed = false;
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

    pub(super) fn feed(&mut self, mut input: &[u8]) -> Event {
        self.read += input.len();
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

    /// Sends the last word after what waits and gives the peer a moment to answer, so that it reads that and not a
    /// reset.
    pub(super) async fn close(&mut self, farewell: Bytes) {
        self.queue(vec![farewell], clock::now().instant);
        self.reads = true;
        let farewell = async {
            let mut answered = self.peer_closed;
            loop {
                match self.turn().await {
                    Event::Flushed | Event::Gone => break,
                    // What still comes is not kept, and may have no end.
                    Event::Read | Event::Violated(_) => {
                        answered |= self.heard_close();
                        tokio::task::yield_now().await;
                    }
                }
            }
            let _ = poll_fn(|cx| Pin::new(&mut self.socket).poll_shutdown(cx)).await;
            answered |= self.heard_close();
            while !answered && matches!(self.turn().await, Event::Read) {
                answered |= self.heard_close();
                tokio::task::yield_now().await;
            }
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, farewell).await;
    }
}
