//! stub
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use crate::{auth::Verifier, hub::Hub, input::Publisher, log::Health, metrics::Metrics, session::Sessions};

/// Who may connect and how much they may send; every field has a key in the configuration's `[http]` table, but
/// `origins` and `allow_missing_origin`, which are `origins` and `[http] missing_origin`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub origins: OriginPolicy,
    /// `?token=` is read.
    pub query_token: bool,
    /// The cookie that holds a token.
    pub cookie: Option<String>,
    /// Connections at most, WebSockets and others together.
    pub connections_max: usize,
    pub header_timeout: Duration,
    pub body_max_bytes: usize,
    pub events_per_request_max: usize,
    /// Only in the demo: the page sets this token as the cookie, so that opening the plain address is enough.
    pub page_token: Option<String>,
}

/// Which `Origin`s a browser may come from.
#[derive(Clone, Debug, Default)]
pub struct OriginPolicy { /* http helper */ }

impl OriginPolicy {
    /// `patterns`: `https://app.example.com`, `https://app.example.com:8443`, `https://*.example.com`, or `*`. Empty:
    /// same origin only.
    ///
    /// # Errors
    /// The first pattern that is none of these, with what is wrong.
    pub fn new(_patterns: &[String], _allow_missing: bool) -> Result<Self, String> {
        Ok(Self::default())
    }
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

/// Serves the public listener until `stop` is cancelled; connections are tracked by `tracker`.
pub async fn serve_public(_listener: TcpListener, _context: Context, _tracker: TaskTracker, _stop: CancellationToken) {
    todo!("http helper")
}

/// Serves `/livez`, `/readyz`, `/metrics`.
pub async fn serve_operations(_listener: TcpListener, _context: Context, _tracker: TaskTracker, _stop: CancellationToken) {
    todo!("http helper")
}

/// The address of the peer, put into each request's extensions by the accept loop.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);
