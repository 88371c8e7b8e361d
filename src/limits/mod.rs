//! Who may come, how often, and how many at a time: lists of networks, rates, places and bans, by address, by user and by
//! token. Whoever asks says who it is about and what time it is.
//!
//! Everything that is remembered of strangers is bounded (`generations`, `places`). A key is a hash with a secret of this
//! process, so nothing here holds a token or a name.
//!
//! Refuses to know: HTTP, sockets, whether a token is any good.

mod bans;
mod generations;
mod meters;
mod networks;
mod places;
mod rate;

use std::{
    hash::{BuildHasher, Hash, RandomState},
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use self::{bans::Bans, networks::neighbourhood, places::Places, rate::Rate};
pub use self::{meters::Meters, networks::Networks, places::Place};
pub use crate::metrics::Limit;
use crate::{clock::Now, metrics::Metrics, proto::UserId};

/// What a client who finds all its places taken is told to wait.
const PLACE_RETRY_AFTER: Duration = Duration::from_secs(10);

/// The configuration's `[limits]` table. 0 is no limit.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub lists: Lists,
    /// Networks that limits per address do not hold for.
    pub exempt: Networks,
    pub connections_per_ip_max: u32,
    pub connections_per_user_max: u32,
    pub connections_per_link_max: u32,
    pub handshakes_per_minute_per_ip: u32,
    pub handshakes_per_minute_per_user: u32,
    pub failed_authentications_per_minute_per_ip: u32,
    pub ban: Duration,
    pub events_per_minute_per_token: u32,
    pub requests_per_minute_per_ip: u32,
    pub requests_per_minute_per_user: u32,
    pub unread_lists_per_ip_max: u32,
    pub unread_lists_per_user_max: u32,
    /// What each limit remembers at most.
    pub keys_max: usize,
}

/// Who may connect at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Empty: everybody.
    pub allow: Networks,
    /// Wins.
    pub deny: Networks,
}

/// What is counted: an address, a user or a token, as a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key(u64);

/// Somebody who asks for something, by the address that they ask from.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    address: IpAddr,
    /// `None`: limits per address do not hold.
    key: Option<Key>,
}

impl Caller {
    /// IPv4 as IPv4, however it came.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }
}

/// Why somebody has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub limit: Limit,
    /// `None`: for as long as the lists are what they are.
    pub retry_after: Option<Duration>,
}

/// Every limit of this replica. Cheap to clone.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    metrics: Arc<Metrics>,
    hasher: RandomState,
    lists: RwLock<Arc<Lists>>,
    exempt: Networks,
    bans: Option<Bans>,
    connections_per_ip: Option<Arc<Places>>,
    connections_per_user: Option<Arc<Places>>,
    connections_per_link: Option<Arc<Places>>,
    handshakes_per_ip: Option<Rate>,
    handshakes_per_user: Option<Rate>,
    events_per_token: Option<Rate>,
    requests_per_ip: Option<Rate>,
    requests_per_user: Option<Rate>,
    unread_lists_per_ip: Option<Arc<Places>>,
    unread_lists_per_user: Option<Arc<Places>>,
}

impl Limits {
    #[must_use]
    pub fn new(settings: Settings, metrics: Arc<Metrics>, now: Now) -> Self {
        let rate = |per_minute, limit| Rate::new(per_minute, settings.keys_max, limit, &metrics, now.instant);
        let failures = rate(settings.failed_authentications_per_minute_per_ip, Limit::FailedAuthenticationsPerIp);
        let limits = Inner {
            hasher: RandomState::new(),
            lists: RwLock::default(),
            bans: failures.map(|failures| Bans::new(failures, settings.ban, settings.keys_max, now.instant)),
            connections_per_ip: Places::new(settings.connections_per_ip_max, Limit::ConnectionsPerIp, &metrics),
            connections_per_user: Places::new(settings.connections_per_user_max, Limit::ConnectionsPerUser, &metrics),
            connections_per_link: Places::new(settings.connections_per_link_max, Limit::ConnectionsPerLink, &metrics),
            handshakes_per_ip: rate(settings.handshakes_per_minute_per_ip, Limit::HandshakesPerIp),
            handshakes_per_user: rate(settings.handshakes_per_minute_per_user, Limit::HandshakesPerUser),
            events_per_token: rate(settings.events_per_minute_per_token, Limit::EventsPerToken),
            requests_per_ip: rate(settings.requests_per_minute_per_ip, Limit::RequestsPerIp),
            requests_per_user: rate(settings.requests_per_minute_per_user, Limit::RequestsPerUser),
            unread_lists_per_ip: Places::new(settings.unread_lists_per_ip_max, Limit::UnreadListsPerIp, &metrics),
            unread_lists_per_user: Places::new(settings.unread_lists_per_user_max, Limit::UnreadListsPerUser, &metrics),
            exempt: settings.exempt,
            metrics,
        };
        let limits = Self(Arc::new(limits));
        limits.set_lists(settings.lists);
        limits
    }

    /// From now on these hold; who is connected stays.
    pub fn set_lists(&self, lists: Lists) {
        self.0.metrics.networks(lists.allow.len() + lists.deny.len());
        *self.0.lists.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(lists);
    }

    /// Who comes from this address. A trusted proxy is itself never limited: behind it are many.
    #[must_use]
    pub fn caller(&self, address: IpAddr, is_proxy: bool) -> Caller {
        let address = address.to_canonical();
        let is_limited = !is_proxy && !self.0.exempt.contains(address);
        Caller { address, key: is_limited.then(|| self.key(&neighbourhood(address))) }
    }

    fn key(&self, of: &impl Hash) -> Key {
        Key(self.0.hasher.hash_one(of))
    }

    fn refuse(&self, limit: Limit, retry_after: Option<Duration>) -> Refusal {
        self.0.metrics.limit_refused(limit);
        Refusal { limit, retry_after }
    }

    /// Asked for every connection and every request: the lists of networks, and bans.
    ///
    /// # Errors
    /// The address is on the wrong list or not on the right one, or it is banned.
    pub fn admit(&self, caller: &Caller, now: Now) -> Result<(), Refusal> {
        let lists = self.0.lists.read().unwrap_or_else(PoisonError::into_inner);
        let is_allowed = lists.allow.is_empty() || lists.allow.contains(caller.address);
        if !is_allowed || lists.deny.contains(caller.address) {
            return Err(self.refuse(Limit::Networks, None));
        }
        drop(lists);
        let left = self.ban_left(caller, now);
        left.map_or(Ok(()), |left| Err(self.refuse(Limit::FailedAuthenticationsPerIp, Some(left))))
    }

    /// A place for one more connection from this address; `None` when it needs none.
    ///
    /// # Errors
    /// It has as many as it may have.
    pub fn connect(&self, caller: &Caller) -> Result<Option<Place>, Refusal> {
        self.place(self.0.connections_per_ip.as_ref(), caller.key, Limit::ConnectionsPerIp)
    }

    fn place(&self, places: Option<&Arc<Places>>, key: Option<Key>, limit: Limit) -> Result<Option<Place>, Refusal> {
        let Some((places, key)) = places.zip(key) else { return Ok(None) };
        places.take(key).map(Some).ok_or_else(|| self.refuse(limit, Some(PLACE_RETRY_AFTER)))
    }

    fn take(&self, rate: Option<&Rate>, key: Option<Key>, count: u32, limit: Limit, now: Now) -> Result<(), Refusal> {
        let Some((rate, key)) = rate.zip(key) else { return Ok(()) };
        rate.take(key, count, now.instant).map_err(|wait| self.refuse(limit, Some(wait)))
    }

    /// A handshake from this address.
    ///
    /// # Errors
    /// There were too many.
    pub fn handshake(&self, caller: &Caller, now: Now) -> Result<(), Refusal> {
        self.take(self.0.handshakes_per_ip.as_ref(), caller.key, 1, Limit::HandshakesPerIp, now)
    }

    /// A place for one more connection of this user; `None` when it needs none.
    ///
    /// # Errors
    /// They come too often, or have as many as they may have.
    pub fn sign_in(&self, user: &UserId, now: Now) -> Result<Option<Place>, Refusal> {
        let key = Some(self.key(user));
        self.take(self.0.handshakes_per_user.as_ref(), key, 1, Limit::HandshakesPerUser, now)?;
        self.stay(user)
    }

    /// As [`Limits::sign_in`], for somebody who comes as often as there is something to tell.
    ///
    /// # Errors
    /// They have as many as they may have.
    pub fn stay(&self, user: &UserId) -> Result<Option<Place>, Refusal> {
        self.place(self.0.connections_per_user.as_ref(), Some(self.key(user)), Limit::ConnectionsPerUser)
    }

    /// A place for one more connection with a token that names no user; `None` when it needs none. `link` is what tells such
    /// tokens apart.
    ///
    /// # Errors
    /// It is open as often as it may be.
    pub fn open_link(&self, link: &impl Hash) -> Result<Option<Place>, Refusal> {
        self.place(self.0.connections_per_link.as_ref(), Some(self.key(link)), Limit::ConnectionsPerLink)
    }

    /// Somebody at this address brought a token that may be a guess.
    pub fn guessed(&self, caller: &Caller, now: Now) {
        let Some((bans, key)) = self.0.bans.as_ref().zip(caller.key) else { return };
        if bans.failed(key, now.instant) {
            self.0.metrics.banned();
            tracing::warn!(
                address = %caller.address,
                "banned an address for a while: too many tokens from it were refused \
                 (limits.failed_authentications_per_minute_per_ip, limits.ban_seconds)"
            );
        }
    }

    /// A request from this address that weighs as much as `count` of the lightest ones.
    ///
    /// # Errors
    /// There were too many.
    pub fn request(&self, caller: &Caller, count: u32, now: Now) -> Result<(), Refusal> {
        self.take(self.0.requests_per_ip.as_ref(), caller.key, count, Limit::RequestsPerIp, now)
    }

    /// Likewise, by this user.
    ///
    /// # Errors
    /// There were too many.
    pub fn request_by(&self, user: &UserId, count: u32, now: Now) -> Result<(), Refusal> {
        let key = Some(self.key(user));
        self.take(self.0.requests_per_user.as_ref(), key, count, Limit::RequestsPerUser, now)
    }

    /// A place for one more list of tasks that somebody at this address is to read; `None` when it needs none.
    ///
    /// # Errors
    /// They leave as many unread as they may.
    pub fn list_for(&self, caller: &Caller) -> Result<Option<Place>, Refusal> {
        self.place(self.0.unread_lists_per_ip.as_ref(), caller.key, Limit::UnreadListsPerIp)
    }

    /// Likewise for this user, or with this token that names none.
    ///
    /// # Errors
    /// They leave as many unread as they may.
    pub fn list_by(&self, reader: &impl Hash) -> Result<Option<Place>, Refusal> {
        self.place(self.0.unread_lists_per_user.as_ref(), Some(self.key(reader)), Limit::UnreadListsPerUser)
    }

    /// Nothing is heard from this address, but what it has open.
    #[must_use]
    pub fn is_banned(&self, caller: &Caller, now: Now) -> bool {
        self.ban_left(caller, now).is_some()
    }

    fn ban_left(&self, caller: &Caller, now: Now) -> Option<Duration> {
        let (bans, key) = self.0.bans.as_ref().zip(caller.key)?;
        bans.left(key, now.instant)
    }

    /// So many events with this token.
    ///
    /// # Errors
    /// There were too many.
    pub fn publish(&self, token: &str, count: usize, now: Now) -> Result<(), Refusal> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.take(self.0.events_per_token.as_ref(), Some(self.key(&token)), count, Limit::EventsPerToken, now)
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
