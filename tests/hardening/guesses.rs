//! Tokens that are guessed one by one: over a connection that is open, or of a kind that tells nothing by itself.

use serde_json::json;
use tokio_tungstenite::tungstenite;

use crate::{
    harness::{Client, http, token, until},
    support::identity_provider::{IdentityProvider, Reply},
    target::Target,
};

/// This machine is the proxy, and says for whom it comes.
const TRUSTED: (&str, &str) = ("TASKCAST_HTTP_TRUSTED_PROXIES", "127.0.0.0/8");
const GUESSES: (&str, &str) = ("TASKCAST_LIMITS_FAILED_AUTHENTICATIONS_PER_MINUTE_PER_IP", "2");

/// One request from that address with this token.
async fn ask(target: &Target, address: &str, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("X-Forwarded-For", address)];
    http(target.port, "GET", "/api/v1/tasks", &headers, "").await.0
}

/// A client that has its snapshot, or the status of the refusal.
async fn connect(target: &Target, address: &str, token: &str) -> Result<Client, u16> {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("X-Forwarded-For", address)];
    match Client::try_connect(target.port, "/ws/tasks/", &headers).await {
        Ok(mut client) => {
            client.until("active_tasks").await;
            Ok(client)
        }
        Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(other) => panic!("{other}"),
    }
}

/// So many guesses on an open connection, each of which is answered; the code that it is closed with behind the last.
async fn guess(client: &mut Client, made_up: &str, count: usize) -> Option<u16> {
    for number in 0..count {
        client.say(&json!({"type": "refresh_token", "token": format!("{made_up}{number}"), "id": number})).await;
        let answer = client.next().await;
        assert_eq!((&answer["error_code"], &answer["id"]), (&json!("TOKEN_REFUSED"), &json!(number)), "{answer}");
    }
    let heard = client.frames.len();
    let code = client.closed().await;
    assert_eq!(client.frames.len(), heard);
    code
}

/// Somebody with a token of their own tries others' in `refresh_token`, where no handshake is counted: it counts as at the
/// door. Their address is banned as soon as there, the connection is closed, and others there keep what they have open.
#[tokio::test]
async fn guesses_on_an_open_connection_get_their_address_banned() {
    let target = Target::start(&[TRUSTED, GUESSES]).await;
    let mut neighbour = connect(&target, "192.0.2.1", &token("u2")).await.unwrap();
    let mut guesser = connect(&target, "192.0.2.1", &token("u1")).await.unwrap();
    let mut second = connect(&target, "192.0.2.1", &token("u1")).await.unwrap();
    assert_eq!(guess(&mut guesser, "a.b.c", 3).await, Some(1008));
    assert_eq!(target.metric("taskcast_bans_total").await, 1);
    assert_eq!(ask(&target, "192.0.2.1", &token("u1")).await, 429);
    assert_eq!(connect(&target, "192.0.2.1", &token("u1")).await.err(), Some(429));
    // On each connection that was opened before, one more.
    assert_eq!(guess(&mut second, "d.e.f", 1).await, Some(1008));
    neighbour.say(&json!({"type": "refresh_token", "token": token("u2")})).await;
    neighbour.until("token_refreshed").await;
    assert_eq!(ask(&target, "192.0.2.2", &token("u1")).await, 200);
    target.stays_unharmed().await;
}

/// The same from where no limit per address holds, as from behind a proxy that nobody named: ten guesses on a connection.
#[tokio::test]
async fn a_connection_has_a_few_guesses_wherever_it_comes_from() {
    let target = Target::start(&[GUESSES]).await;
    for _ in 0..3 {
        let mut guesser = target.attach("/ws/tasks/", "u1").await;
        assert_eq!(guess(&mut guesser, "a.b.c", 10).await, Some(1008));
    }
    assert_eq!(target.metric("taskcast_bans_total").await, 0);
    target.stays_unharmed().await;
}

/// A provider that calls these tokens active, and a service that asks it.
async fn asking(active: &'static [&'static str], forgets: &str) -> (IdentityProvider, Target) {
    let provider = IdentityProvider::start(Reply::status(500)).await;
    knows(&provider, active);
    let url = provider.url("/introspect");
    let settings = [
        TRUSTED,
        GUESSES,
        ("TASKCAST_AUTH_MODE", "introspection"),
        ("TASKCAST_AUTH_INTROSPECTION_URL", &*url),
        ("TASKCAST_AUTH_INTROSPECTION_CACHE_SECONDS", "1"),
        ("TASKCAST_AUTH_INTROSPECTION_NEGATIVE_CACHE_SECONDS", forgets),
    ];
    let target = Target::start(&settings).await;
    (provider, target)
}

fn knows(provider: &IdentityProvider, active: &'static [&'static str]) {
    provider.reply_by(move |request| {
        let is_active = active.iter().any(|name| request.contains(&format!("token={name}&")));
        Reply::json(&json!({"active": is_active, "sub": "u1"}))
    });
}

/// Opaque tokens are guessed, of which a provider only says that they are not active: each counts that it never called
/// active, at every door. The same one over and over, as from the many tabs of one page, is one.
#[tokio::test]
async fn guesses_at_opaque_tokens_get_an_address_banned() {
    let (_provider, mut target) = asking(&["guesser"], "60").await;
    let mut guesser = connect(&target, "192.0.2.3", "guesser").await.unwrap();
    let same = (0..20).map(|_| ask(&target, "192.0.2.1", "ended-long-ago"));
    assert!(futures_util::future::join_all(same).await.iter().all(|status| *status == 401));
    assert_eq!(target.metric("taskcast_bans_total").await, 0);
    let mut statuses = Vec::new();
    for number in 0..5 {
        statuses.push(ask(&target, "192.0.2.2", &format!("guess-{number}")).await);
    }
    assert_eq!(statuses, [401, 401, 401, 429, 429]);
    assert_eq!(guess(&mut guesser, "other-guess-", 3).await, Some(1008));
    assert_eq!(target.metric("taskcast_bans_total").await, 2);
    assert_eq!(ask(&target, "192.0.2.4", "guesser").await, 200);
    target.stands().await;
}

/// The other side of it: a page that goes on with a token that was good once is no attacker, however often it is refused.
#[tokio::test]
async fn a_page_that_goes_on_with_a_token_that_has_ended_is_not_taken_for_a_guesser() {
    let (provider, mut target) = asking(&["own"], "1").await;
    let mut page = connect(&target, "192.0.2.1", "own").await.unwrap();
    knows(&provider, &[]);
    // The provider is asked again about those who stay; what it says then is no guess of theirs.
    assert_eq!(page.until("authentication_error").await["error_code"], "EXPIRED_TOKEN");
    let asked = provider.count();
    until("it was asked again and again", async || {
        assert_eq!(ask(&target, "192.0.2.1", "own").await, 401);
        provider.count() >= asked + 4
    })
    .await;
    assert_eq!(target.metric("taskcast_bans_total").await, 0);
    target.stands().await;
}
