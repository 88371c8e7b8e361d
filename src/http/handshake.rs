//! TLS handshakes: how many at a time, and which of them is given up for another. Each takes a turn for its dear part, the
//! signature; those who then let one wait are bounded in number and in time.
//!
//! Refuses to know: certificates, what comes inside.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

use super::{accept::behind_others, crowd::Crowd};
use crate::{
    metrics::{Listener, Metrics, TlsHandshake},
    tls::{Acceptor, Encrypted},
};

/// Handshakes under way at most. One more, and the one that has been waiting longest is dropped: a peer that means it is
/// through after a round trip or two, so those who only hold places lose them to those who want one.
const UNDER_WAY_MAX: usize = 2048;

/// The first byte of every TLS connection: a record of type `handshake` (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// How long somebody who does not speak TLS may take to read so.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// What is said to somebody who does not speak TLS.
const REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 45\r\n\
    cache-control: no-store\r\nconnection: close\r\n\r\nThis port speaks TLS: use https:// or wss://.";

/// The TLS of one listener.
pub(super) struct Handshakes {
    acceptor: Acceptor,
    listener: Listener,
    metrics: Arc<Metrics>,
    under_way: Arc<Crowd>,
}

impl Handshakes {
    pub fn new(acceptor: Acceptor, listener: Listener, metrics: Arc<Metrics>) -> Self {
        Self { acceptor, listener, metrics, under_way: Crowd::new(UNDER_WAY_MAX) }
    }

    /// From a connection whose first byte is there to one whose first byte inside TLS is there, unless `given_up` ends
    /// before.
    pub async fn shake_hands(
        &self,
        stream: TcpStream,
        first_byte: u8,
        turns: &Semaphore,
        mut given_up: Pin<&mut impl Future<Output = ()>>,
    ) -> Option<Encrypted> {
        if first_byte != HANDSHAKE_RECORD {
            self.metrics.tls_handshake(self.listener, TlsHandshake::NotTls);
            // A peer that does not even read its refusal is no loss.
            let _ = timeout(REFUSAL_TIMEOUT, refuse(stream)).await;
            return None;
        }
        let turn = turns.acquire().await;
        let mut place = self.under_way.enter();
        let mut shaking = Box::pin(self.acceptor.accept(stream));
        let first = poll_fn(|cx| Poll::Ready(shaking.as_mut().poll(cx))).await;
        behind_others().await;
        drop(turn);
        let shaken = match first {
            Poll::Ready(shaken) => Some(shaken),
            Poll::Pending => tokio::select! {
                biased;
                shaken = shaking => Some(shaken),
                () = place.crowded_out() => {
                    self.metrics.tls_handshake(self.listener, TlsHandshake::CrowdedOut);
                    return None;
                }
                () = given_up.as_mut() => None,
            },
        };
        drop(place);
        let (outcome, stream) = match shaken {
            Some(Ok(stream)) => (TlsHandshake::Accepted, Some(stream)),
            Some(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                (TlsHandshake::Failed, None)
            }
            None => (TlsHandshake::TimedOut, None),
        };
        self.metrics.tls_handshake(self.listener, outcome);
        let mut stream = stream?;
        let has_begun = tokio::select! {
            biased;
            bytes = stream.fill_buf() => bytes.is_ok_and(|bytes| !bytes.is_empty()),
            () = given_up => false,
        };
        has_begun.then_some(stream)
    }
}

/// Reading what the peer sent comes first of closing, or the kernel would answer it with a reset that overtakes the
/// refusal.
async fn refuse(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(REFUSAL).await?;
    stream.shutdown().await?;
    let mut unread = [0; 512];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
