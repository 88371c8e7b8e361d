//! What is asked of the kernel for each connection: small frames at once, and nobody who reads slowly or not at all for ever.
//!
//! Refuses to know: what is sent.

use std::time::Duration;

use tokio::net::TcpStream;

/// A peer that takes nothing of a response for this long is dropped.
const RESPONSE_STALL_MAX: Duration = Duration::from_secs(30);

/// Bytes that wait in the kernel for a peer to make room, about. What waits here instead is shared, and folded.
const UNSENT_MAX_BYTES: u32 = 16 * 1024;

/// Small frames go out at once, and a response that is not read does not keep its connection for ever.
pub(super) fn prepare(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    set_write_timeout(stream, Some(RESPONSE_STALL_MAX));
    limit_unsent(stream);
}

/// `TCP_NOTSENT_LOWAT` of tcp(7). Without it the kernel takes megabytes for each client that reads slowly, stale by the
/// time they are read, and takes no more until a third of them is gone, which looks like a client that stands still.
#[cfg(target_os = "linux")]
fn limit_unsent(stream: &TcpStream) {
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_MAX_BYTES) {
        tracing::debug!(%error, "cannot set TCP_NOTSENT_LOWAT");
    }
}

#[cfg(not(target_os = "linux"))]
fn limit_unsent(_: &TcpStream) {}

/// For a socket that leaves HTTP and gets timers of its own; `limit` if its peer says nothing by which it could be known to be
/// alive.
pub(super) fn change_write_timeout(stream: &TcpStream, limit: Option<Duration>) {
    set_write_timeout(stream, limit);
}

/// `TCP_USER_TIMEOUT` of tcp(7): the kernel ends a connection whose peer acknowledges nothing, or keeps its window
/// closed, for this long. hyper has no timer for writes.
#[cfg(target_os = "linux")]
fn set_write_timeout(stream: &TcpStream, limit: Option<Duration>) {
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_user_timeout(limit) {
        tracing::debug!(%error, "cannot set TCP_USER_TIMEOUT");
    }
}

#[cfg(not(target_os = "linux"))]
fn set_write_timeout(_: &TcpStream, _: Option<Duration>) {}
