//! Every limit over an hour, and what it refuses whom.

use super::*;
use crate::clock;

const SECOND: Duration = Duration::from_secs(1);

fn limits(change: impl FnOnce(&mut Settings)) -> (Limits, Now) {
    let now = clock::now();
    let mut settings = Settings { keys_max: 1_000, ban: 300 * SECOND, ..Settings::default() };
    change(&mut settings);
    (Limits::new(settings, Arc::new(Metrics::new("memory")), now), now)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn networks(texts: &[&str]) -> Networks {
    Networks::parse(texts.iter().copied()).unwrap()
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

/// How many of an hour's attempts, one every 100 ms, are let through.
fn in_an_hour(start: Now, mut attempt: impl FnMut(Now) -> bool) -> u32 {
    (0..36_000).map(|tick| u32::from(attempt(start.after(Duration::from_millis(100 * tick))))).sum()
}

#[test]
fn an_hour_of_handshakes_from_one_address_is_let_through_at_the_rate() {
    let (limits, now) = limits(|settings| settings.handshakes_per_minute_per_ip = 60);
    let caller = limits.caller(ip("192.0.2.1"), false);
    let count = in_an_hour(now, |now| limits.handshake(&caller, now).is_ok());
    assert!(count.abs_diff(60 + 3_600) <= 1, "{count}");
    let refusal = limits.handshake(&caller, now).unwrap_err();
    assert_eq!(refusal.limit, Limit::HandshakesPerIp);
    assert!(refusal.retry_after.is_some_and(|wait| wait <= SECOND), "{refusal:?}");
    assert!(limits.handshake(&limits.caller(ip("192.0.2.2"), false), now).is_ok());
}

#[test]
fn a_network_of_64_bits_shares_one_rate_and_its_neighbour_has_another() {
    let (limits, now) = limits(|settings| settings.handshakes_per_minute_per_ip = 10);
    let hop = |host: u64| limits.caller(ip(&format!("2001:db8:0:1::{host:x}")), false);
    assert_eq!((0..1_000).filter(|host| limits.handshake(&hop(*host), now).is_ok()).count(), 10);
    let neighbour = limits.caller(ip("2001:db8:0:2::1"), false);
    assert!(limits.handshake(&neighbour, now).is_ok());
    let (v4, mapped) = (limits.caller(ip("192.0.2.1"), false), limits.caller(ip("::ffff:192.0.2.1"), false));
    assert_eq!(v4.key, mapped.key);
    assert_eq!(mapped.address(), ip("192.0.2.1"));
}

#[test]
fn an_hour_of_sign_ins_of_one_user_is_let_through_at_the_rate() {
    let (limits, now) = limits(|settings| settings.handshakes_per_minute_per_user = 30);
    let count = in_an_hour(now, |now| limits.sign_in(&user("u1"), now).is_ok());
    assert!(count.abs_diff(30 + 1_800) <= 1, "{count}");
    assert_eq!(limits.sign_in(&user("u1"), now).unwrap_err().limit, Limit::HandshakesPerUser);
    assert!(limits.sign_in(&user("u2"), now).is_ok());
}

#[test]
fn an_hour_of_events_with_one_token_is_let_through_at_the_rate_however_they_are_bundled() {
    for bundle in [1, 7, 100] {
        let (limits, now) = limits(|settings| settings.events_per_minute_per_token = 300);
        let events = bundle as u32 * in_an_hour(now, |now| limits.publish("a.b.c", bundle, now).is_ok());
        // What is left in the end is less than a bundle.
        assert!((300 + 18_000_u32).abs_diff(events) <= 100, "{events} in bundles of {bundle}");
        assert_eq!(limits.publish("a.b.c", 300, now).unwrap_err().limit, Limit::EventsPerToken);
        assert!(limits.publish("d.e.f", 300, now).is_ok());
    }
}

#[test]
fn an_hour_of_requests_is_let_through_at_the_rate_and_heavy_ones_count_for_as_many() {
    for weight in [1, 10] {
        let (limits, now) = limits(|settings| {
            settings.requests_per_minute_per_ip = 120;
            settings.requests_per_minute_per_user = 60;
        });
        let caller = limits.caller(ip("192.0.2.1"), false);
        let by_address = weight * in_an_hour(now, |now| limits.request(&caller, weight, now).is_ok());
        let by_user = weight * in_an_hour(now, |now| limits.request_by(&user("u1"), weight, now).is_ok());
        assert!(by_address.abs_diff(120 + 7_200) <= weight, "{by_address} from one address");
        assert!(by_user.abs_diff(60 + 3_600) <= weight, "{by_user} by one user");
        let end = now.after(3_600 * SECOND);
        assert_eq!(limits.request_by(&user("u1"), 60, end).unwrap_err().limit, Limit::RequestsPerUser);
        assert!(limits.request_by(&user("u2"), 60, end).is_ok());
        assert_eq!(limits.request(&caller, 120, end).unwrap_err().limit, Limit::RequestsPerIp);
        assert!(limits.request(&limits.caller(ip("192.0.2.2"), false), 120, end).is_ok());
    }
}

#[test]
fn an_hour_of_bad_tokens_from_one_address_is_a_few_and_a_ban_again_and_again() {
    let (limits, now) = limits(|settings| settings.failed_authentications_per_minute_per_ip = 30);
    let caller = limits.caller(ip("192.0.2.1"), false);
    let heard = in_an_hour(now, |now| {
        let is_heard = limits.admit(&caller, now).is_ok();
        if is_heard {
            limits.guessed(&caller, now);
        }
        is_heard
    });
    assert!((12 * 31..12 * 34).contains(&heard), "{heard}");
    let text = limits.0.metrics.render().unwrap();
    assert!(text.contains("taskcast_bans_total 12"), "{text}");
    assert!(limits.admit(&limits.caller(ip("192.0.2.2"), false), now).is_ok());
}

#[test]
fn a_banned_address_is_told_how_long_and_is_welcome_again_then() {
    let (limits, now) = limits(|settings| settings.failed_authentications_per_minute_per_ip = 1);
    let caller = limits.caller(ip("192.0.2.1"), false);
    limits.guessed(&caller, now);
    assert_eq!(limits.admit(&caller, now), Ok(()));
    limits.guessed(&caller, now);
    let banned = Refusal { limit: Limit::FailedAuthenticationsPerIp, retry_after: Some(300 * SECOND) };
    assert_eq!(limits.admit(&caller, now), Err(banned));
    assert!(limits.is_banned(&caller, now) && !limits.is_banned(&caller, now.after(300 * SECOND)));
    assert!(!limits.is_banned(&limits.caller(ip("192.0.2.2"), false), now));
    assert!(limits.admit(&caller, now.after(299 * SECOND)).is_err());
    assert!(limits.admit(&caller, now.after(300 * SECOND)).is_ok());
}

#[test]
fn places_are_counted_by_address_by_user_and_by_link_for_an_hour_of_coming_and_going() {
    let (limits, now) = limits(|settings| {
        settings.connections_per_ip_max = 3;
        settings.connections_per_user_max = 2;
        settings.connections_per_link_max = 4;
    });
    let caller = limits.caller(ip("192.0.2.1"), false);
    let _kept = (limits.connect(&caller).unwrap(), limits.connect(&caller).unwrap());
    let _mine = limits.sign_in(&user("u1"), now).unwrap();
    let _shared: Vec<_> = (0..3).map(|_| limits.open_link(&"share-42").unwrap()).collect();
    let count = in_an_hour(now, |now| {
        let (place, sign_in) = (limits.connect(&caller), limits.sign_in(&user("u1"), now));
        let link = limits.open_link(&"share-42");
        assert_eq!(limits.open_link(&"share-42").unwrap_err().limit, Limit::ConnectionsPerLink);
        assert!(limits.open_link(&"share-43").unwrap().is_some(), "links do not share");
        assert_eq!(limits.connect(&caller).unwrap_err().limit, Limit::ConnectionsPerIp);
        assert_eq!(limits.sign_in(&user("u1"), now).unwrap_err().limit, Limit::ConnectionsPerUser);
        [place, sign_in, link].into_iter().all(|taken| taken.is_ok_and(|place| place.is_some()))
    });
    assert_eq!(count, 36_000);
}

#[test]
fn who_may_come_is_said_by_two_lists_and_the_one_that_denies_wins() {
    for (allow, deny, welcome, refused) in [
        (&[][..], &[][..], &["192.0.2.1", "::1"][..], &[][..]),
        (&[], &["192.0.2.0/24"], &["198.51.100.1"], &["192.0.2.1", "::ffff:192.0.2.1"]),
        (&["192.0.2.0/24"], &[], &["192.0.2.1"], &["198.51.100.1", "::1", "127.0.0.1"]),
        (&["192.0.2.0/24"], &["192.0.2.7"], &["192.0.2.8"], &["192.0.2.7", "198.51.100.1"]),
    ] {
        let lists = Lists { allow: networks(allow), deny: networks(deny) };
        let (limits, now) = limits(|settings| settings.lists = lists);
        for address in welcome {
            assert_eq!(limits.admit(&limits.caller(ip(address), false), now), Ok(()), "{address}");
        }
        for address in refused {
            // Also through a proxy, and from where limits do not hold.
            let refusal = Refusal { limit: Limit::Networks, retry_after: None };
            assert_eq!(limits.admit(&limits.caller(ip(address), true), now), Err(refusal), "{address}");
        }
    }
}

#[test]
fn lists_can_be_changed_while_it_runs() {
    let (limits, now) = limits(|_| ());
    let caller = limits.caller(ip("192.0.2.1"), false);
    assert!(limits.admit(&caller, now).is_ok());
    limits.set_lists(Lists { allow: Networks::default(), deny: networks(&["192.0.2.1", "10.0.0.0/8"]) });
    assert!(limits.admit(&caller, now).is_err());
    assert!(limits.0.metrics.render().unwrap().contains("taskcast_networks 2"));
    limits.set_lists(Lists::default());
    assert!(limits.admit(&caller, now).is_ok());
}

#[test]
fn trusted_proxies_and_exempt_networks_are_not_limited_by_address() {
    let (limits, now) = limits(|settings| {
        settings.exempt = networks(&["127.0.0.0/8", "::1"]);
        settings.connections_per_ip_max = 1;
        settings.handshakes_per_minute_per_ip = 1;
        settings.failed_authentications_per_minute_per_ip = 1;
    });
    for (address, is_proxy, is_limited) in
        [("127.0.0.1", false, false), ("::1", false, false), ("192.0.2.1", true, false), ("192.0.2.1", false, true)]
    {
        let caller = limits.caller(ip(address), is_proxy);
        let places: Vec<_> = (0..9).map(|_| limits.connect(&caller)).collect();
        let handshakes = (0..9).filter(|_| limits.handshake(&caller, now).is_ok()).count();
        (0..9).for_each(|_| limits.guessed(&caller, now));
        let expected = if is_limited { (1, 1, false) } else { (9, 9, true) };
        let found = (places.iter().flatten().count(), handshakes, limits.admit(&caller, now).is_ok());
        assert_eq!(found, expected, "{address}");
    }
}

#[test]
fn without_limits_nobody_is_refused_and_nothing_is_remembered() {
    let (limits, now) = limits(|_| ());
    let caller = limits.caller(ip("192.0.2.1"), false);
    for _ in 0..10_000 {
        limits.guessed(&caller, now);
        assert!(limits.handshake(&caller, now).is_ok() && limits.publish("t", 1_000_000, now).is_ok());
        assert!(limits.connect(&caller).unwrap().is_none() && limits.sign_in(&user("u"), now).unwrap().is_none());
        assert!(limits.open_link(&"share-42").unwrap().is_none() && !limits.is_banned(&caller, now));
    }
    assert!(limits.admit(&caller, now).is_ok());
}

#[test]
fn a_connections_meters_refuse_by_name() {
    let now = clock::now().instant;
    let meters = Meters::new(3, 1_000, now);
    assert_eq!([(); 4].map(|()| meters.message(now)), [Ok(()), Ok(()), Ok(()), Err(Limit::Messages)]);
    assert_eq!([600, 600].map(|count| meters.bytes(count, now)), [Ok(()), Err(Limit::Bytes)]);
    let without = Meters::new(0, 0, now);
    assert!((0..10_000).all(|_| without.message(now).is_ok() && without.bytes(usize::MAX, now).is_ok()));
}
