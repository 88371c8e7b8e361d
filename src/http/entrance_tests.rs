//! Who is taken for whom, and who is let in.

use tokio::{io::AsyncWriteExt, net::TcpListener};

use super::{super::credentials::tests::settings, *};
use crate::{clock, limits::Limit};

fn networks(texts: &[&str]) -> Networks {
    Networks::parse(texts.iter().copied()).unwrap()
}

/// An entrance that trusts 10.0.0.0/8 and lets two connections in from each address.
fn entrance(change: impl FnOnce(&mut Settings, &mut limits::Settings)) -> Entrance {
    let mut settings = Settings { trusted_proxies: networks(&["10.0.0.0/8"]), ..settings() };
    let mut limits = limits::Settings { connections_per_ip_max: 2, keys_max: 100, ..limits::Settings::default() };
    change(&mut settings, &mut limits);
    let metrics = Arc::new(Metrics::new("memory"));
    Entrance::new(&settings, Limits::new(limits, metrics.clone(), clock::now()), metrics)
}

fn peer(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), 4711)
}

fn forwarded_for(value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-forwarded-for", value.parse().unwrap());
    headers
}

/// How many series of this text there are, at which count.
fn counted(entrance: &Entrance, series: &str) -> bool {
    entrance.metrics.render().unwrap().contains(series)
}

#[test]
fn a_connection_is_counted_by_its_address_and_a_proxys_is_not() {
    let entrance = entrance(|_, _| ());
    let now = clock::now();
    let _kept =
        [entrance.greet(peer("192.0.2.1"), now).unwrap(), entrance.greet(peer("::ffff:192.0.2.1"), now).unwrap()];
    assert_eq!(entrance.greet(peer("192.0.2.1"), now).err().unwrap().limit, Limit::ConnectionsPerIp);
    assert!(entrance.greet(peer("192.0.2.2"), now).is_ok());
    let proxied: Vec<Visitor> = (0..50).map(|_| entrance.greet(peer("10.0.0.1"), now).unwrap()).collect();
    assert!(proxied.iter().all(|visitor| visitor.place.is_none()));
}

#[test]
fn what_a_trusted_proxy_says_is_believed_and_what_others_say_is_counted() {
    let entrance = entrance(|_, _| ());
    let now = clock::now();
    let proxy = entrance.greet(peer("10.0.0.1"), now).unwrap();
    let client = entrance.client(&proxy, &forwarded_for("192.0.2.9"), now).unwrap();
    assert_eq!(client.caller.address(), peer("192.0.2.9").ip());
    let stranger = entrance.greet(peer("192.0.2.1"), now).unwrap();
    let client = entrance.client(&stranger, &forwarded_for("192.0.2.9"), now).unwrap();
    assert_eq!(client.caller.address(), peer("192.0.2.1").ip());
    for outcome in ["used", "untrusted"] {
        assert!(counted(&entrance, &format!("taskcast_forwarded_total{{outcome=\"{outcome}\"}} 1")), "{outcome}");
    }
}

#[test]
fn websockets_through_a_proxy_are_counted_by_the_address_of_their_client() {
    let entrance = entrance(|_, _| ());
    let now = clock::now();
    let proxy = entrance.greet(peer("10.0.0.1"), now).unwrap();
    let place = |address: &str| {
        let client = entrance.client(&proxy, &forwarded_for(address), now).unwrap();
        client.handshake(&entrance.limits, now)
    };
    let kept = [place("192.0.2.9").unwrap(), place("192.0.2.9").unwrap()];
    assert!(kept.iter().all(Option::is_some));
    assert_eq!(place("192.0.2.9").unwrap_err().limit, Limit::ConnectionsPerIp);
    assert!(place("192.0.2.8").is_ok());
    drop(kept);
    assert!(place("192.0.2.9").is_ok());
    // Who connects directly has a place from the start, and takes no second.
    let direct = entrance.greet(peer("198.51.100.1"), now).unwrap();
    assert!(direct.place.is_some());
    let client = entrance.client(&direct, &HeaderMap::new(), now).unwrap();
    assert!(client.handshake(&entrance.limits, now).unwrap().is_none());
}

#[test]
fn a_client_on_the_wrong_list_is_refused_at_the_door_and_through_a_proxy() {
    let entrance = entrance(|_, limits| limits.lists.deny = networks(&["192.0.2.0/24"]));
    let now = clock::now();
    assert_eq!(entrance.greet(peer("192.0.2.1"), now).err().unwrap().limit, Limit::Networks);
    let proxy = entrance.greet(peer("10.0.0.1"), now).unwrap();
    assert_eq!(entrance.client(&proxy, &forwarded_for("192.0.2.1"), now).unwrap_err().limit, Limit::Networks);
    assert!(entrance.client(&proxy, &forwarded_for("198.51.100.1"), now).is_ok());
}

#[test]
fn a_client_who_is_banned_meanwhile_is_heard_no_more_on_the_connection_that_it_has() {
    let entrance = entrance(|_, limits| {
        limits.failed_authentications_per_minute_per_ip = 1;
        limits.ban = Duration::from_mins(1);
    });
    let now = clock::now();
    let visitor = entrance.greet(peer("192.0.2.1"), now).unwrap();
    let client = entrance.client(&visitor, &HeaderMap::new(), now).unwrap();
    for _ in 0..2 {
        entrance.limits.guessed(&client.caller, now);
    }
    let refused = entrance.client(&visitor, &HeaderMap::new(), now).unwrap_err();
    assert_eq!((refused.limit, refused.retry_after), (Limit::FailedAuthenticationsPerIp, Some(Duration::from_mins(1))));
    assert!(entrance.greet(peer("192.0.2.1"), now).is_err());
}

/// Greets a proxy and lets it say these bytes.
async fn introduced(entrance: &Entrance, bytes: &[u8]) -> Result<Visitor, Option<Refusal>> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    near.write_all(bytes).await.unwrap();
    let visitor = entrance.greet(peer("10.0.0.1"), clock::now()).unwrap();
    assert!(visitor.must_introduce);
    entrance.introduce(&mut far, visitor, Duration::from_millis(200), clock::now).await
}

#[tokio::test]
async fn a_proxy_that_introduces_somebody_is_that_one_from_then_on() {
    let entrance = entrance(|settings, limits| {
        settings.proxy_protocol = true;
        limits.lists.deny = networks(&["203.0.113.0/24"]);
    });
    let now = clock::now();
    let visitor = introduced(&entrance, b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n").await.unwrap();
    assert!(visitor.place.is_some() && !visitor.must_introduce);
    // It is no proxy: what its requests say of others is not believed.
    let client = entrance.client(&visitor, &forwarded_for("198.51.100.1"), now).unwrap();
    assert_eq!(client.caller.address(), peer("192.0.2.1").ip());
    // A proxy behind the proxy is.
    let chained = introduced(&entrance, b"PROXY TCP4 10.7.7.7 10.0.0.1 4711 443\r\n").await.unwrap();
    let client = entrance.client(&chained, &forwarded_for("198.51.100.1"), now).unwrap();
    assert_eq!(client.caller.address(), peer("198.51.100.1").ip());
    let denied = introduced(&entrance, b"PROXY TCP4 203.0.113.1 10.0.0.1 4711 443\r\n").await;
    assert_eq!(denied.err().unwrap().unwrap().limit, Limit::Networks);
    for bytes in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], b"PROXY TCP4 192.0.2.1"] {
        assert!(introduced(&entrance, bytes).await.is_err_and(|refusal| refusal.is_none()));
    }
    assert!(counted(&entrance, "taskcast_forwarded_total{outcome=\"malformed\"} 2"));
    // Nobody else is waited for, whatever is on.
    assert!(!entrance.greet(peer("192.0.2.2"), now).unwrap().must_introduce);
}

/// `LOCAL` and `UNKNOWN`: who then stands at the other end is the proxy itself, and what is written in the request is not its
/// word.
#[tokio::test]
async fn a_proxy_that_introduces_nobody_is_itself_whatever_the_request_says() {
    let entrance = entrance(|settings, limits| {
        settings.proxy_protocol = true;
        limits.lists.deny = networks(&["203.0.113.0/24"]);
    });
    let now = clock::now();
    let version_2 = |command: u8, family: u8| [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family, 0, 0]].concat();
    let introductions = [b"PROXY UNKNOWN\r\n".to_vec(), version_2(0x20, 0), version_2(0x20, 0x11), version_2(0x21, 0)];
    let count = introductions.len();
    for introduction in introductions {
        let own = introduced(&entrance, &introduction).await.unwrap();
        for said in ["192.0.2.9", "203.0.113.1", "10.9.9.9"] {
            let client = entrance.client(&own, &forwarded_for(said), now).unwrap();
            assert_eq!(client.caller.address(), peer("10.0.0.1").ip(), "{said}");
            assert!(client.handshake(&entrance.limits, now).unwrap().is_none());
        }
    }
    let untrusted = 3 * count;
    assert!(counted(&entrance, &format!("taskcast_forwarded_total{{outcome=\"untrusted\"}} {untrusted}")));
    // Without the protocol a proxy's headers are its word.
    let plain = Entrance { proxy_protocol: false, ..entrance };
    let visitor = plain.greet(peer("10.0.0.1"), now).unwrap();
    assert_eq!(plain.client(&visitor, &forwarded_for("203.0.113.1"), now).unwrap_err().limit, Limit::Networks);
}
