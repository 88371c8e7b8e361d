//! A socket that is lent to hyper, and can be taken back in the middle of a request: what an event stream is served over has
//! no more of hyper's buffers than a WebSocket has.
//!
//! Refuses to know: what is served.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready},
    net::TcpStream,
    time::sleep,
};

use crate::tls::Encrypted;

/// How often a socket is looked at while something is waited for.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What hyper holds. Once the socket was taken it reads the end, and writes into nowhere.
pub(super) struct Lent<S>(Arc<Mutex<Held<S>>>);

struct Held<S> {
    socket: Option<S>,
    /// The socket did not take all of what it was given last.
    is_full: bool,
}

/// A connection without HTTP.
pub(super) enum Socket {
    Plain(TcpStream),
    Encrypted(Box<Encrypted>),
}

/// Whoever has it may take the socket back.
#[derive(Clone)]
pub(super) enum Lender {
    Plain(Lent<TcpStream>),
    Encrypted(Lent<Encrypted>),
}

impl<S> Clone for Lent<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> Lent<S> {
    pub fn new(socket: S) -> Self {
        Self(Arc::new(Mutex::new(Held { socket: Some(socket), is_full: false })))
    }

    /// `None` when it was taken before, or when something that was said is still to be written: to somebody who sends
    /// requests without reading the answers.
    pub fn take_back(&self) -> Option<S> {
        let mut held = self.lock();
        if held.is_full { None } else { held.socket.take() }
    }

    fn lock(&self) -> MutexGuard<'_, Held<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncWrite + Unpin> Lent<S> {
    fn write(&self, all: usize, write: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let mut held = self.lock();
        let Some(socket) = &mut held.socket else { return Poll::Ready(Ok(all)) };
        let written = write(Pin::new(socket));
        held.is_full = !matches!(written, Poll::Ready(Ok(count)) if count == all);
        written
    }
}

impl Lender {
    /// As [`Lent::take_back`].
    pub fn take_back(&self) -> Option<Socket> {
        match self {
            Self::Plain(lent) => lent.take_back().map(Socket::Plain),
            Self::Encrypted(lent) => lent.take_back().map(|socket| Socket::Encrypted(Box::new(socket))),
        }
    }

    /// Comes within [`LOOK_INTERVAL`] of the peer's end. hyper does not see it behind bytes that it has not used yet, such
    /// as a further request.
    pub async fn left(&self) {
        while !self.has_left() {
            sleep(LOOK_INTERVAL).await;
        }
    }

    fn has_left(&self) -> bool {
        match self {
            Self::Plain(lent) => lent.lock().socket.as_ref().is_none_or(is_ended),
            Self::Encrypted(lent) => lent.lock().socket.as_ref().is_none_or(|socket| is_ended(socket.get_ref().0)),
        }
    }
}

/// The peer says no more, whatever of it is still unread.
fn is_ended(socket: &TcpStream) -> bool {
    let ready = socket.ready(Interest::READABLE).now_or_never();
    ready.is_some_and(|ready| ready.map_or(true, Ready::is_read_closed))
}

impl Socket {
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Encrypted(socket) => socket.get_ref().0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lent<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.lock().socket {
            Some(socket) => Pin::new(socket).poll_read(cx, buffer),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lent<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(bytes.len(), |socket| socket.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = slices.iter().map(|slice| slice.len()).sum();
        self.write(all, |socket| socket.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().socket.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.lock().socket {
            Some(socket) => Pin::new(socket).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.lock().socket {
            Some(socket) => Pin::new(socket).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_socket_that_was_taken_back_is_no_longer_there_for_whom_it_was_lent_to() {
        let (near, mut far) = duplex(64);
        let mut lent = Lent::new(near);
        let kept = lent.clone();
        lent.write_all(b"before").await.unwrap();
        let mut taken = kept.take_back().unwrap();
        lent.write_all(b"lost").await.unwrap();
        lent.shutdown().await.unwrap();
        assert_eq!(lent.read(&mut [0; 8]).await.unwrap(), 0);
        taken.write_all(b", after").await.unwrap();
        drop(taken);
        let mut heard = String::new();
        far.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "before, after");
        assert!(kept.take_back().is_none());
    }

    #[tokio::test]
    async fn a_socket_with_something_left_to_say_is_not_taken() {
        let (near, mut far) = duplex(4);
        let mut lent = Lent::new(near);
        let kept = lent.clone();
        let written = tokio::time::timeout(std::time::Duration::from_millis(10), lent.write_all(b"too much"));
        assert!(written.await.is_err() && kept.take_back().is_none());
        far.read_exact(&mut [0; 4]).await.unwrap();
        lent.write_all(b"uch").await.unwrap();
        assert!(kept.take_back().is_some());
    }
}
