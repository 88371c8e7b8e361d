//! The doors for browsers, workers and operators: the accept loop, the WebSocket handshake, REST, the page, probes and
//! metrics. The only module that names warp and hyper.
//!
//! ```text
//! accept ──► routes ──► upgrade ──► session        limits → origin → token → upgrade
//!                  ├──► events, rest, listing      problem+json on every refusal
//!                  └──► page, operations
//! ```
//!
//! warp routes and nothing else. A warp `Rejection` means "try the next route", so no error of ours is one: filters
//! only extract, handlers are plain functions that return a response or a [`problem::HttpError`], and a path that
//! matched never falls through to another route.
//!
//! Refuses to know: the state machine of tasks, what is said over a WebSocket once it is open.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{auth::Verifier, hub::Hub, input::Publisher, log::Health, metrics::Metrics, session::Sessions};

mod accept;
mod cors;
mod credentials;
mod events;
mod head;
mod listing;
mod operations;
mod options;
mod origin;
mod page;
mod problem;
mod rest;
mod routes;
mod upgrade;

pub use origin::OriginPolicy;

/// Connections at most on the operators' listener; scrapers and probes need a handful.
const OPERATIONS_CONNECTIONS_MAX: usize = 64;

/// What a refused client is told to wait before it tries again, in seconds.
const RETRY_AFTER_SECONDS: u16 = 2;

/// Who may connect and how much they may send; every field has a key in the configuration's `[http]` table, but
/// `origins` and `allow_missing_origin`, which are `origins` and `[http] missing_origin`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub origins: OriginPolicy,
    /// `?token=` is read.
    pub query_token: bool,
    /// The cookie that holds a token.
    pub cookie: Option<String>,
    /// Connections at most, WebSocket ones and others together.
    pub connections_max: usize,
    /// For the head of a request, and again for its body. It ends an idle keep-alive connection as well.
    pub header_timeout: Duration,
    pub body_max_bytes: usize,
    pub events_per_request_max: usize,
    /// Only in the demo: the page sets this token as the cookie, so that opening the plain address is enough.
    pub page_token: Option<String>,
}

/// What the routes share.
#[derive(Clone)]
pub struct Context {
    pub settings: Arc<Settings>,
    pub hub: Hub,
    pub verifier: Verifier,
    pub publisher: Publisher,
    pub sessions: Sessions,
    pub metrics: Arc<Metrics>,
    pub health: tokio::sync::watch::Receiver<Health>,
    /// Cancelled when new connections are to be refused with 503.
    pub draining: CancellationToken,
}

/// Serves the public listener until `stop` is cancelled; connections are tracked by `tracker`. Returns at once then:
/// idle connections are closed, requests under way are finished, and upgraded ones end when their sessions do.
pub async fn serve_public(listener: TcpListener, context: Context, tracker: TaskTracker, stop: CancellationToken) {
    let limits = accept::Limits {
        connections_max: context.settings.connections_max,
        header_timeout: context.settings.header_timeout,
    };
    let metrics = context.metrics.clone();
    let routes = routes::public(&context, &tracker);
    accept::serve(listener, routes, limits, metrics, tracker, stop).await;
}

/// Serves `/livez`, `/readyz`, `/metrics` until `stop` is cancelled, as [`serve_public`] does.
pub async fn serve_operations(listener: TcpListener, context: Context, tracker: TaskTracker, stop: CancellationToken) {
    let limits =
        accept::Limits { connections_max: OPERATIONS_CONNECTIONS_MAX, header_timeout: context.settings.header_timeout };
    let metrics = context.metrics.clone();
    let routes = routes::operations(&context);
    accept::serve(listener, routes, limits, metrics, tracker, stop).await;
}

/// The address of the peer, put into each request's extensions by the accept loop.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);
