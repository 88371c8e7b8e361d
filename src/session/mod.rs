//! One client: its rights, its subscriptions, its cursor and its timers. The state machine (`machine`) does no I/O and
//! is told the time; beside it stand the reader of frames (`websocket`) and the pump that moves bytes (`pump`). The other
//! socket that it has is a stream of events (`event_stream`).
//!
//! Refuses to know: HTTP, brokers.

mod asking;
mod canary;
mod commands;
mod connection;
mod delivery;
mod direct;
mod drain;
#[cfg(test)]
pub(crate) mod echo;
mod errands;
mod event_stream;
#[cfg(fuzzing)]
pub mod fuzzing;
mod limits;
mod long_poll;
mod loopback;
mod machine;
mod notices;
mod opening;
mod paging;
mod pump;
mod refresh;
mod serve;
#[cfg(test)]
mod simulation;
mod term;
#[cfg(test)]
mod test_world;
#[cfg(test)]
mod traced_tests;
mod watches;
mod websocket;

use std::{sync::Arc, time::Duration};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

pub use self::{
    canary::{Canary, CanaryHealth, CanarySettings},
    drain::Drain,
    event_stream::{EventStream, Unopened},
    long_poll::Question,
};
use crate::{
    auth::Verifier,
    hub::Hub,
    input::Publisher,
    limits::{Caller, Limits},
    metrics::{Metrics, Transport},
    proto::{Encoding, Topic},
};

/// Timers and limits of sessions; every field has a key in the configuration's `[sessions]` table.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A WebSocket ping goes out after this long without one.
    pub heartbeat_interval: Duration,
    /// A peer that sent nothing for this long is dead.
    pub dead_peer_timeout: Duration,
    /// A socket that took next to nothing for this long while bytes were waiting is dropped: less than 16 KiB, and not all.
    pub write_timeout: Duration,
    /// How long a connection without a token may take to send one as its first frame.
    pub first_frame_timeout: Duration,
    /// How long before its end a client is told that its token expires. Zero: it is not told.
    pub token_expiring_lead: Duration,
    /// How long after its end a fresh token is waited for. Nothing of a task is sent meanwhile.
    pub token_grace: Duration,
    /// The longest message from a client.
    pub message_max_bytes: usize,
    /// What a connection may send, pings and pongs included. 0: no limit.
    pub messages_per_minute: u32,
    pub bytes_per_minute: u32,
    /// Bad messages in a row before the connection is closed with 1008.
    pub bad_messages_max: u32,
    pub subscriptions_max: usize,
    /// Snapshot pages are cut at about this size.
    pub page_max_bytes: usize,
    /// What clients are told about reconnecting.
    pub reconnect_min: Duration,
    pub reconnect_max: Duration,
}

/// `deliver=`: what a slow reader gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deliver {
    /// The newest state of each task, and every key frame.
    #[default]
    Latest,
    /// Every frame that the ring still holds.
    Every,
}

/// What a connection asks to watch, from its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `/ws/tasks/`, `/events/tasks/`: whatever the token makes of it; `everything` is `?watch=all`.
    Mine { everything: bool },
    /// `/ws/tasks/{task_id}/`, `/ws/groups/{root_id}/`, and the same under `/events/`.
    Topic(Topic),
}

/// Everything that the handshake said.
#[derive(Clone)]
pub struct Request {
    pub scope: Scope,
    pub token: Option<String>,
    pub encoding: Encoding,
    pub deliver: Deliver,
    /// `throttle_ms`: no more than one pull in that time; ends are not delayed.
    pub throttle: Duration,
    /// `cursor`, unparsed: a bad one must not refuse the handshake.
    pub cursor: Option<String>,
    /// From where it came; `None` for this replica itself.
    pub caller: Option<Caller>,
}

impl std::fmt::Debug for Request {
    /// Says nothing of the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("scope", &self.scope).field("encoding", &self.encoding).finish_non_exhaustive()
    }
}

/// What every session shares. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    pub hub: Hub,
    pub verifier: Verifier,
    pub limits: Limits,
    pub publisher: Publisher,
    pub metrics: Arc<Metrics>,
    pub settings: Arc<Settings>,
    /// The end of all connections, when it comes.
    pub drain: Drain,
    /// Holds one token per connection, so that a drain can wait for the last.
    pub open: TaskTracker,
}

impl Sessions {
    /// Serves one upgraded connection until it ends. `early` is what the client sent together with its handshake.
    pub fn serve<S>(
        self: &Arc<Self>,
        socket: S,
        early: bytes::Bytes,
        request: Request,
    ) -> impl Future<Output = ()> + Send
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Boxed, and so gone once the connection is open: what an async function is given it keeps to its end.
        let opening = Box::pin(serve::open(self.clone(), socket, early, request));
        let open = Open::new(self, Transport::WebSocket);
        async move {
            let mut open = open;
            open.code = match opening.await {
                Ok(connection) => connection.converse().await,
                Err(code) => code,
            };
        }
    }
}

/// Counts a connection for as long as it lives, however it ends.
struct Open {
    metrics: Arc<Metrics>,
    transport: Transport,
    code: Option<u16>,
    /// Held, so that a drain waits for it.
    _token: TaskTrackerToken,
}

impl Open {
    fn new(sessions: &Sessions, transport: Transport) -> Self {
        sessions.metrics.connection_opened(transport);
        Self { metrics: sessions.metrics.clone(), transport, code: None, _token: sessions.open.token() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.connection_closed(self.transport, self.code);
        tracing::debug!(transport = ?self.transport, code = self.code, "a connection ended");
    }
}
