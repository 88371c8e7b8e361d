//! The doors for browsers, workers and operators: the accept loop, the WebSocket handshake, REST, the page, probes and
//! metrics. The only module that names warp and hyper.
//!
//! ```text
//! accept ──► routes ──► upgrade ──► session        limits → origin → token → upgrade
//!                  ├──► event_stream ──► session (the socket, taken back from hyper)
//!                  ├──► events, rest, listing      problem+json on every refusal
//!                  └──► page, operations
//! ```
//!
//! warp routes and nothing else. A warp `Rejection` means "try the next route", so no error of ours is one: filters
//! only extract, handlers are plain functions that return a response or a [`problem::HttpError`], and a path that
//! matched never falls through to another route.
//!
//! Refuses to know: the state machine of tasks, what is said over a WebSocket once it is open.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::Verifier,
    clock,
    hub::Hub,
    input::Publisher,
    limits::{Limits, Networks},
    log::Health,
    metrics::{self, Metrics},
    session::{Canary, Sessions},
    tls::Acceptor,
};

mod accept;
mod cors;
mod credentials;
mod crowd;
mod docs;
mod entrance;
mod event_stream;
mod events;
mod forwarded;
mod handshake;
mod head;
mod hints;
mod history;
mod lent;
mod listing;
mod long_poll;
mod operations;
mod options;
mod origin;
mod page;
mod problem;
mod proxy_protocol;
mod refusal;
mod rest;
mod revocations;
mod routes;
mod socket;
mod unchunked;
mod upgrade;

use accept::Room;
use entrance::Entrance;
pub use forwarded::ForwardedHeader;
use handshake::Handshakes;
pub use listing::LISTING_WEIGHT;
pub use operations::{OperationsSettings, OperationsToken};
pub use origin::OriginPolicy;

/// Connections at most on the operators' listener; scrapers and probes need a handful. Beyond it the oldest makes room: whoever
/// reaches this listener and holds connections must not keep the probes out, or the replica is taken for dead.
const OPERATIONS_CONNECTIONS_MAX: usize = 64;

/// What a refused client is told to wait before it tries again, in seconds.
const RETRY_AFTER_SECONDS: u16 = 2;

/// Who may connect and how much they may send. Most fields are keys of the configuration's `[http]` table.
#[derive(Clone)]
pub struct Settings {
    pub origins: OriginPolicy,
    /// `?token=` is read.
    pub query_token: bool,
    /// The cookie that holds a token.
    pub cookie: Option<String>,
    /// Connections at most, WebSocket ones and others together.
    pub connections_max: usize,
    /// Those who may say for whom they come.
    pub trusted_proxies: Networks,
    pub forwarded_header: ForwardedHeader,
    /// They say it in the PROXY protocol, first of all.
    pub proxy_protocol: bool,
    pub header_max_bytes: usize,
    /// For the head of a connection's first request, and for each body.
    pub header_timeout: Duration,
    /// For the head of each later request, the idle time before it included.
    pub keep_alive_timeout: Duration,
    pub body_max_bytes: usize,
    pub events_per_request_max: usize,
    /// Answers only requests whose `Host` is a name of this machine for itself. For a service that lets everyone in who
    /// reaches it: a web site can give its own name the address 127.0.0.1 (DNS rebinding), and is of the same origin
    /// then, as `Origin` and `Host` are both what that site chose.
    pub local_hosts_only: bool,
    /// Only in the demo: the page sets this token as the cookie, so that opening the plain address is enough.
    pub page_token: Option<String>,
}

/// Says whether there is a token for the page, not which.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Taken apart, so that a field that is added later is not forgotten here.
        let Self {
            origins,
            query_token,
            cookie,
            connections_max,
            trusted_proxies,
            forwarded_header,
            proxy_protocol,
            header_max_bytes,
            header_timeout,
            keep_alive_timeout,
            body_max_bytes,
            events_per_request_max,
            local_hosts_only,
            page_token,
        } = self;
        f.debug_struct("Settings")
            .field("origins", origins)
            .field("query_token", query_token)
            .field("cookie", cookie)
            .field("connections_max", connections_max)
            .field("trusted_proxies", trusted_proxies)
            .field("forwarded_header", forwarded_header)
            .field("proxy_protocol", proxy_protocol)
            .field("header_max_bytes", header_max_bytes)
            .field("header_timeout", header_timeout)
            .field("keep_alive_timeout", keep_alive_timeout)
            .field("body_max_bytes", body_max_bytes)
            .field("events_per_request_max", events_per_request_max)
            .field("local_hosts_only", local_hosts_only)
            .field("page_token", &page_token.as_ref().map(|_| "…"))
            .finish()
    }
}

/// What the routes share.
#[derive(Clone)]
pub struct Context {
    pub settings: Arc<Settings>,
    pub operations: Arc<OperationsSettings>,
    pub hub: Hub,
    pub verifier: Verifier,
    pub limits: Limits,
    pub publisher: Publisher,
    pub sessions: Arc<Sessions>,
    pub metrics: Arc<Metrics>,
    pub health: tokio::sync::watch::Receiver<Health>,
    /// Memory is short: what would take more of it is refused with 503.
    pub overloaded: tokio::sync::watch::Receiver<bool>,
    /// `None` when it is off.
    pub canary: Option<Canary>,
    /// Cancelled when new connections are to be refused with 503.
    pub draining: CancellationToken,
}

/// Binds an address, with room for everyone who comes at once. Needs a runtime.
///
/// # Errors
/// The operating system's reason.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    accept::listen(address)
}

/// Serves the public listener until `stop` is cancelled; connections are tracked by `tracker`. Returns at once then:
/// idle connections are closed, requests under way are finished, and upgraded ones end when their sessions do.
pub async fn serve_public(
    listener: TcpListener,
    tls: Option<Acceptor>,
    context: Context,
    tracker: TaskTracker,
    stop: CancellationToken,
) {
    let metrics = context.metrics.clone();
    let entrance = Entrance::new(&context.settings, context.limits.clone(), metrics.clone());
    let limits = limits(&context.settings, Room::Bounded(context.settings.connections_max), entrance);
    let tls = tls.map(|acceptor| Handshakes::new(acceptor, metrics::Listener::Public, metrics.clone()));
    let routes = routes::public(&context, &tracker);
    accept::serve(listener, tls, routes, limits, metrics, tracker, stop).await;
}

/// Serves `/livez`, `/readyz`, `/metrics` until `stop` is cancelled, as [`serve_public`] does.
pub async fn serve_operations(
    listener: TcpListener,
    tls: Option<Acceptor>,
    context: Context,
    tracker: TaskTracker,
    stop: CancellationToken,
) {
    let metrics = context.metrics.clone();
    let entrance = Entrance::open(metrics.clone(), clock::now());
    let limits = limits(&context.settings, Room::OldestLeaves(OPERATIONS_CONNECTIONS_MAX), entrance);
    let tls = tls.map(|acceptor| Handshakes::new(acceptor, metrics::Listener::Operations, metrics.clone()));
    let routes = routes::operations(&context);
    accept::serve(listener, tls, routes, limits, metrics, tracker, stop).await;
}

fn limits(settings: &Settings, room: Room, entrance: Entrance) -> accept::Limits {
    let Settings { header_max_bytes, header_timeout, keep_alive_timeout, .. } = *settings;
    accept::Limits { entrance, room, header_max_bytes, header_timeout, keep_alive_timeout }
}

/// The address of the peer, or of whom it came for in the PROXY protocol, put into each request's extensions by the accept loop.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

#[cfg(test)]
mod tests {
    use super::{Settings, credentials::tests::settings};

    #[test]
    fn the_token_of_the_page_is_not_printed() {
        let printed = format!("{:?}", Settings { page_token: Some("sesame".to_owned()), ..settings() });
        assert!(printed.contains("page_token: Some") && !printed.contains("sesame"), "{printed}");
    }
}
