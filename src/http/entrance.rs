//! Who stands at the door: the true address of a connection's other end and of each request, and whether it may come in.
//!
//! ```text
//! accept ──► greet (─► introduce, where a proxy says first for whom it comes) ──► each request: client
//! ```
//!
//! Refuses to know: what is asked for.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout};
use warp::http::HeaderMap;

use super::{
    Settings,
    forwarded::{self, ForwardedHeader},
    proxy_protocol,
};
use crate::{
    clock::Now,
    limits::{self, Caller, Limits, Networks, Place, Refusal},
    metrics::{Forwarded, Metrics},
};

/// So many connections from one and the same address, the first ones at that, look like those of a proxy.
const ALIKE_MAX: u32 = 100;

/// What all connections of a listener share.
pub(super) struct Entrance {
    limits: Limits,
    trusted: Networks,
    header: ForwardedHeader,
    proxy_protocol: bool,
    metrics: Arc<Metrics>,
    hint: Hint,
}

/// The other end of a connection.
pub(super) struct Visitor {
    pub peer: SocketAddr,
    caller: Caller,
    /// Speaks for others.
    is_proxy: bool,
    /// It has to say for whom, before anything else.
    pub must_introduce: bool,
    /// Among the connections of its address.
    pub place: Option<Place>,
}

impl Entrance {
    pub fn new(settings: &Settings, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            limits,
            trusted: settings.trusted_proxies.clone(),
            header: settings.forwarded_header,
            proxy_protocol: settings.proxy_protocol,
            metrics,
            hint: Hint::default(),
        }
    }

    /// Lets everybody in, from the address that they come from.
    pub fn open(metrics: Arc<Metrics>, now: Now) -> Self {
        Self {
            limits: Limits::new(limits::Settings::default(), metrics.clone(), now),
            trusted: Networks::default(),
            header: ForwardedHeader::default(),
            proxy_protocol: false,
            metrics,
            hint: Hint::default(),
        }
    }

    /// A connection was accepted. Of a proxy nothing is asked: for whom it comes, its requests say, or its introduction.
    ///
    /// # Errors
    /// Why it is not let in.
    pub fn greet(&self, peer: SocketAddr, now: Now) -> Result<Visitor, Refusal> {
        let is_proxy = !self.trusted.is_empty() && self.trusted.contains(peer.ip());
        let caller = self.limits.caller(peer.ip(), is_proxy);
        let must_introduce = is_proxy && self.proxy_protocol;
        if is_proxy {
            return Ok(Visitor { peer, caller, is_proxy, must_introduce, place: None });
        }
        if self.trusted.is_empty() && self.hint.are_all_from(caller.address()) {
            tracing::warn!(
                address = %caller.address(),
                "all connections so far come from one address. If that is a reverse proxy, name its network in \
                 http.trusted_proxies: else all clients share the limits of one address (limits.…_per_ip)"
            );
        }
        self.limits.admit(&caller, now)?;
        let place = self.limits.connect(&caller)?;
        Ok(Visitor { peer, caller, is_proxy, must_introduce, place })
    }

    /// Reads for whom a trusted proxy comes, in the PROXY protocol. From then on it is as if they came themselves; they
    /// may be a trusted proxy, too.
    ///
    /// # Errors
    /// It does not say in time, or not in words that can be understood; or why those that it comes for are not let in.
    pub async fn introduce(
        &self,
        stream: &mut TcpStream,
        visitor: Visitor,
        patience: Duration,
        now: impl Fn() -> Now,
    ) -> Result<Visitor, Option<Refusal>> {
        let read = timeout(patience, proxy_protocol::read(stream)).await;
        match read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(None) => {
                self.metrics.forwarded(Forwarded::Absent);
                Ok(Visitor { must_introduce: false, ..visitor })
            }
            Ok(Some(source)) => {
                self.metrics.forwarded(Forwarded::Used);
                let visitor = self.greet(source, now()).map_err(Some)?;
                Ok(Visitor { must_introduce: false, ..visitor })
            }
            Err(error) => {
                self.metrics.forwarded(Forwarded::Malformed);
                tracing::debug!(%error, peer = %visitor.peer, "a trusted proxy did not begin with the PROXY protocol");
                Err(None)
            }
        }
    }

    /// Who makes this request? And may they?
    ///
    /// # Errors
    /// Why not. Also of somebody whose connection was let in: they may have been banned since.
    pub fn client(&self, visitor: &Visitor, headers: &HeaderMap, now: Now) -> Result<Client, Refusal> {
        let caller = if visitor.is_proxy {
            let origin = forwarded::origin(visitor.peer.ip(), headers, self.header, &self.trusted);
            self.metrics.forwarded(origin.outcome);
            self.limits.caller(origin.address, origin.is_proxy)
        } else {
            if forwarded::is_forwarded(headers) {
                self.not_trusted(visitor);
            }
            visitor.caller
        };
        self.limits.admit(&caller, now)?;
        Ok(Client { caller, is_forwarded: visitor.is_proxy })
    }

    fn not_trusted(&self, visitor: &Visitor) {
        self.metrics.forwarded(Forwarded::Untrusted);
        if self.hint.is_first() {
            tracing::warn!(
                address = %visitor.caller.address(),
                "a request says that it was forwarded (X-Forwarded-For or Forwarded), but comes from no trusted proxy, so \
                 this is not believed. If it is a reverse proxy of yours, name its network in http.trusted_proxies"
            );
        }
    }
}

/// Who makes a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub caller: Caller,
    /// Through a connection of a proxy's.
    is_forwarded: bool,
}

impl Client {
    /// A handshake for a WebSocket; a place among those of its address, unless its connection has one already.
    ///
    /// # Errors
    /// They come too often, or there are too many.
    pub fn handshake(&self, limits: &Limits, now: Now) -> Result<Option<Place>, Refusal> {
        limits.handshake(&self.caller, now)?;
        if self.is_forwarded { limits.connect(&self.caller) } else { Ok(None) }
    }
}

/// What an operator is told once, if at all: that there seems to be a proxy.
#[derive(Default)]
struct Hint {
    was_told: AtomicBool,
    /// Nothing more is to be learned from where connections come.
    is_settled: AtomicBool,
    alike: Mutex<Option<(IpAddr, u32)>>,
}

impl Hint {
    fn is_first(&self) -> bool {
        !self.was_told.load(Ordering::Relaxed) && !self.was_told.swap(true, Ordering::Relaxed)
    }

    /// So many came, and all from there. From this machine's own addresses nothing follows.
    fn are_all_from(&self, peer: IpAddr) -> bool {
        if self.is_settled.load(Ordering::Relaxed) || peer.is_loopback() {
            return false;
        }
        let mut alike = self.alike.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, count) = alike.get_or_insert((peer, 0));
        *count += 1;
        let (is_alike, is_enough) = (*first == peer, *count >= ALIKE_MAX);
        if !is_alike || is_enough {
            self.is_settled.store(true, Ordering::Relaxed);
        }
        is_alike && is_enough && self.is_first()
    }
}

#[cfg(test)]
#[path = "entrance_tests.rs"]
mod tests;
