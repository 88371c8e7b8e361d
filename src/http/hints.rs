//! What an operator is told who seems to have a proxy in front of the service and has not named it. Strangers choose what they
//! send and from where, so each of the two hints has its own memory, in which nobody else's hint can be used up.
//!
//! Refuses to know: who is let in.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::clock::Now;

/// Connections of a round, and how many of them have to come from one address to look like those of a proxy: a stranger
/// among them hides nothing.
const ROUND: u32 = 100;
const ALIKE_MIN: u32 = 90;

/// After so many rounds in which clients came from here and there it is known that they do.
const ROUNDS_MAX: u32 = 10;

/// No more often is it told that requests say that they were forwarded, however many say so.
const PAUSE: Duration = Duration::from_mins(10);

/// Addresses of which that was told, and is not again.
const TOLD_MAX: usize = 64;

#[derive(Default)]
pub(super) struct Hints {
    /// From where connections come is known, or was told.
    is_settled: AtomicBool,
    round: Mutex<Round>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Round {
    number: u32,
    connections: u32,
    /// Who came first in this round, and how often since.
    first: Option<IpAddr>,
    alike: u32,
}

#[derive(Default)]
struct Told {
    addresses: VecDeque<IpAddr>,
    last: Option<Instant>,
}

impl Hints {
    /// A connection came from there, and no proxy is named.
    pub fn connected(&self, from: IpAddr) {
        if self.are_alike(from) {
            tracing::warn!(
                address = %from,
                "nearly all connections come from one address. If that is a reverse proxy, name its network in \
                 http.trusted_proxies: else all clients share the limits of one address (limits.…_per_ip)"
            );
        }
    }

    /// A request from there says that it was forwarded, and is not believed.
    pub fn forwarded(&self, from: IpAddr, now: Now) {
        if self.is_news(from, now) {
            tracing::warn!(
                address = %from,
                "a request says that it was forwarded (X-Forwarded-For or Forwarded), but comes from no trusted proxy, so \
                 this is not believed. If it is a reverse proxy of yours, name its network in http.trusted_proxies"
            );
        }
    }

    /// True once, at the end of a round. From this machine's own addresses nothing follows.
    fn are_alike(&self, from: IpAddr) -> bool {
        if self.is_settled.load(Ordering::Relaxed) || from.is_loopback() {
            return false;
        }
        let mut round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        round.connections += 1;
        round.alike += u32::from(*round.first.get_or_insert(from) == from);
        if round.connections < ROUND {
            return false;
        }
        let is_alike = round.alike >= ALIKE_MIN && round.first == Some(from);
        let number = round.number + 1;
        *round = Round { number, ..Round::default() };
        if is_alike || number >= ROUNDS_MAX {
            // Whoever waited for the lock meanwhile must not tell it again.
            return !self.is_settled.swap(true, Ordering::Relaxed) && is_alike;
        }
        false
    }

    /// Of each address once, and of any seldom.
    fn is_news(&self, from: IpAddr, now: Now) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_soon = told.last.is_some_and(|last| now.instant.saturating_duration_since(last) < PAUSE);
        if is_soon || told.addresses.contains(&from) {
            return false;
        }
        if told.addresses.len() >= TOLD_MAX {
            told.addresses.pop_front();
        }
        told.addresses.push_back(from);
        told.last = Some(now.instant);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_operator_is_told_once_that_nearly_all_seem_to_come_through_one_proxy() {
        let hints = Hints::default();
        let told: Vec<u32> = (1..=5_000).filter(|_| hints.are_alike(address("10.0.0.1"))).collect();
        assert_eq!(told, [ROUND]);
        // This machine's own addresses say nothing.
        let hints = Hints::default();
        assert!((0..5_000).all(|_| !hints.are_alike(address("127.0.0.1")) && !hints.are_alike(address("::1"))));
    }

    #[test]
    fn a_stranger_among_the_first_does_not_hide_the_proxy() {
        let hints = Hints::default();
        assert!(!hints.are_alike(address("192.0.2.1")), "a stranger comes first");
        let told = (0..5_000).filter(|n| hints.are_alike(address(if n % 20 == 7 { "192.0.2.1" } else { "10.0.0.1" })));
        assert_eq!(told.count(), 1);
    }

    #[test]
    fn clients_that_come_from_here_and_there_are_no_proxy_and_are_looked_at_no_longer() {
        let hints = Hints::default();
        assert!((0..10_000_u32).all(|n| !hints.are_alike(IpAddr::from((n % 7 + 0x0a00_0000).to_be_bytes()))));
        assert!((0..10_000).all(|_| !hints.are_alike(address("10.0.0.1"))));
    }

    #[test]
    fn a_stranger_who_claims_to_be_forwarded_uses_up_no_other_hint() {
        let (hints, now) = (Hints::default(), clock::now());
        let (stranger, proxy) = (address("192.0.2.1"), address("10.0.0.1"));
        assert!(hints.is_news(stranger, now));
        // However long they go on.
        let later = |minutes| now.after(Duration::from_mins(minutes));
        assert!((0..1_000).all(|minutes| !hints.is_news(stranger, later(minutes))));
        assert!(!hints.is_news(proxy, later(9)), "seldom");
        assert!(hints.is_news(proxy, later(10)) && !hints.is_news(proxy, later(20)));
        assert_eq!((0..ROUND).filter(|_| hints.are_alike(proxy)).count(), 1, "the other hint is still there");
    }

    #[test]
    fn a_million_forged_addresses_are_told_of_seldom_and_take_no_room() {
        let (hints, now) = (Hints::default(), clock::now());
        let told = (0..1_000_000_u32).filter(|n| {
            hints.is_news(IpAddr::from(n.to_be_bytes()), now.after(Duration::from_millis(6 * u64::from(*n))))
        });
        assert_eq!(told.count(), 10, "one in ten minutes of these hundred");
        assert!(hints.told.lock().unwrap().addresses.len() <= TOLD_MAX);
    }
}
