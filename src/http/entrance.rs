//! Who stands at the door: the true address of a connection's other end and of each request, and whether it may come in.
//!
//! ```text
//! accept ──► greet (─► introduce, where a proxy says first for whom it comes) ──► each request: client
//! ```
//!
//! Refuses to know: what is asked for.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use warp::http::HeaderMap;

use super::{
    OriginPolicy, Settings,
    forwarded::{self, ForwardedHeader},
    hints::Hints,
    proxy_protocol,
};
use crate::{
    clock::Now,
    limits::{self, Caller, Limits, Networks, Place, Refusal},
    metrics::{Forwarded, Metrics},
};

/// What all connections of a listener share.
pub(super) struct Entrance {
    limits: Limits,
    trusted: Networks,
    header: ForwardedHeader,
    proxy_protocol: bool,
    metrics: Arc<Metrics>,
    hints: Hints,
    origins: OriginPolicy,
}

/// The other end of a connection.
pub(super) struct Visitor {
    pub peer: SocketAddr,
    caller: Caller,
    speaks: Speaks,
    /// It has to say for whom, before anything else.
    pub must_introduce: bool,
    /// Among the connections of its address.
    pub place: Option<Place>,
}

/// For whom a connection brings its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    /// For who opened it.
    Itself,
    /// It is a trusted proxy's: each request says for whom it comes.
    ForOthers,
    /// It is a trusted proxy's, which said in the PROXY protocol that it comes for nobody with an address: a check of its own,
    /// or somebody at its machine. Its requests are not believed either: the proxy passes on bytes and writes no headers.
    ForNobody,
}

impl Entrance {
    pub fn new(settings: &Settings, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            limits,
            trusted: settings.trusted_proxies.clone(),
            header: settings.forwarded_header,
            proxy_protocol: settings.proxy_protocol,
            metrics,
            hints: Hints::default(),
            origins: settings.origins.clone(),
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
            hints: Hints::default(),
            origins: OriginPolicy::default(),
        }
    }

    /// Whose pages may read what is said to those who are not let in.
    pub fn origins(&self) -> &OriginPolicy {
        &self.origins
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
            return Ok(Visitor { peer, caller, speaks: Speaks::ForOthers, must_introduce, place: None });
        }
        if self.trusted.is_empty() {
            self.hints.connected(caller.address());
        }
        self.limits.admit(&caller, now)?;
        let place = self.limits.connect(&caller)?;
        Ok(Visitor { peer, caller, speaks: Speaks::Itself, must_introduce, place })
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
                Ok(Visitor { must_introduce: false, speaks: Speaks::ForNobody, ..visitor })
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
        let caller = match visitor.speaks {
            Speaks::ForOthers => {
                let origin = forwarded::origin(visitor.peer.ip(), headers, self.header, &self.trusted);
                self.metrics.forwarded(origin.outcome);
                self.limits.caller(origin.address, origin.is_proxy)
            }
            Speaks::Itself | Speaks::ForNobody => {
                if forwarded::is_forwarded(headers) {
                    self.metrics.forwarded(Forwarded::Untrusted);
                    // Of a proxy that is known there is nothing to name.
                    if visitor.speaks == Speaks::Itself {
                        self.hints.forwarded(visitor.caller.address(), now);
                    }
                }
                visitor.caller
            }
        };
        self.limits.admit(&caller, now)?;
        Ok(Client { caller, is_forwarded: visitor.speaks == Speaks::ForOthers })
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
        self.stay(limits)
    }

    /// A place among the connections of its address, for something that lasts, unless its connection has one already.
    ///
    /// # Errors
    /// There are too many.
    pub fn stay(&self, limits: &Limits) -> Result<Option<Place>, Refusal> {
        if self.is_forwarded { limits.connect(&self.caller) } else { Ok(None) }
    }
}

#[cfg(test)]
#[path = "entrance_tests.rs"]
mod tests;
