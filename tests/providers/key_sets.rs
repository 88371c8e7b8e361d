//! Key sets: fetched, rotated, away, and asked for by strangers.

use std::time::Duration;

use taskcast::{
    auth::{Key, Settings},
    clock,
};

use crate::{
    harness::{Pair, Running, issuer, key_set, outcome, published, set, until},
    support::{
        self,
        brokers::{Certificates, free_port},
        identity_provider::{IdentityProvider, Reply},
    },
};

const FETCHED: &str = "taskcast_key_refreshes_total{outcome=\"ok\",source=\"url\"}";
const FAILED: &str = "taskcast_key_refreshes_total{outcome=\"failed\",source=\"url\"}";

#[tokio::test]
async fn a_key_that_comes_into_use_is_fetched_when_a_token_names_it_and_a_withdrawn_one_is_refused() {
    let (old, new) = (Pair::edwards(), Pair::rsa());
    let provider = IdentityProvider::start(set(&[old.jwk("old")])).await;
    let running = Running::start(published(&provider.url("/jwks")));
    assert_eq!(running.outcome(&old.token("old")).await, "u1");
    provider.reply(set(&[new.jwk("new")]));
    assert_eq!(running.outcome(&new.token("new")).await, "u1", "the caller waits for the fetch");
    assert_eq!(running.outcome(&old.token("old")).await, "INVALID_TOKEN");
    assert!(provider.count() >= 3 && running.metric(FETCHED) >= 3);
    assert!(running.metric("taskcast_keys_fetched_timestamp_seconds{") > 1_700_000_000);
}

#[tokio::test]
async fn a_flood_of_tokens_with_unknown_keys_brings_one_fetch_at_a_time_and_few() {
    let pair = Pair::edwards();
    let provider = IdentityProvider::start(set(&[pair.jwk("a")])).await;
    let running = Running::start(published(&provider.url("/jwks")));
    assert_eq!(running.outcome(&pair.token("a")).await, "u1");
    let began = clock::now().instant;
    let mut flood = tokio::task::JoinSet::new();
    for number in 0..3000 {
        let (verifier, token) = (running.verifier.clone(), pair.token(&format!("unknown-{number}")));
        flood.spawn(async move { outcome(&verifier.identify(Some(&token), clock::now()).await) });
    }
    // Meanwhile known keys need no fetch.
    assert_eq!(running.outcome(&pair.token("a")).await, "u1");
    let outcomes = flood.join_all().await;
    assert!(outcomes.iter().all(|outcome| outcome == "INVALID_TOKEN" || outcome == "later"), "none gets in");
    assert!(outcomes.iter().filter(|outcome| *outcome == "INVALID_TOKEN").count() >= 1000, "who waits hears for sure");
    let most = 2 + began.elapsed().as_secs() as usize / 5;
    assert!(provider.count() <= most, "{} fetches in {:?}", provider.count(), began.elapsed());
    assert_eq!(provider.most_under_way(), 1);
}

#[tokio::test]
async fn until_the_issuer_answers_callers_are_put_off_and_then_let_in() {
    let pair = Pair::elliptic();
    let mut provider = IdentityProvider::away(set(&[pair.jwk("a")]));
    let running = Running::start(published(&provider.url("/jwks")));
    let token = pair.token("a");
    assert_eq!(running.outcome(&token).await, "later");
    assert!(!running.verifier.health().ok && running.metric(FAILED) >= 1);
    assert!(running.metric("taskcast_authentication_unavailable_total") >= 1);
    provider.come().await;
    running.until(&token, "u1").await;
    assert!(running.verifier.health().ok);
}

#[tokio::test]
async fn keys_from_before_are_used_while_the_issuer_is_away_but_not_for_ever() {
    let (pair, other) = (Pair::edwards(), Pair::edwards());
    let mut provider = IdentityProvider::start(set(&[pair.jwk("a")])).await;
    let mut key = key_set(&provider.url("/jwks"));
    let Key::KeySet(settings) = &mut key else { panic!("a key set") };
    (settings.refresh, settings.keep) = (Duration::from_secs(1), Duration::from_secs(10));
    let running = Running::start(Settings::Jwt(Box::new(issuer(key))));
    running.until(&pair.token("a"), "u1").await;
    provider.leave().await;
    until("a fetch failed", async || running.metric(FAILED) >= 1).await;
    assert_eq!(running.outcome(&pair.token("a")).await, "u1");
    assert_eq!(running.outcome(&other.token("b")).await, "later", "b may have been published since");
    running.until(&pair.token("a"), "later").await;
    assert!(!running.verifier.health().ok);
    provider.come().await;
    running.until(&pair.token("a"), "u1").await;
}

#[tokio::test]
async fn the_interval_and_the_issuers_own_max_age_bring_new_keys_without_a_token_that_asks() {
    let (first, second) = (Pair::edwards(), Pair::edwards());
    let provider = IdentityProvider::start(set(&[first.jwk("a")])).await;
    let mut key = key_set(&provider.url("/jwks"));
    let Key::KeySet(settings) = &mut key else { panic!("a key set") };
    settings.refresh = Duration::from_secs(1);
    let running = Running::start(Settings::Jwt(Box::new(issuer(key))));
    until("it is fetched again", async || provider.count() >= 3).await;
    // No sooner than in a minute: what an issuer says is heeded within bounds.
    let held = set(&[first.jwk("a"), second.jwk("b")]).with_head("Cache-Control: public, max-age=1");
    provider.reply(held);
    let before = provider.count();
    until("the next fetch", async || provider.count() > before).await;
    running.until(&second.token("b"), "u1").await;
    let after = provider.count();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(provider.count(), after);
}

#[tokio::test]
async fn an_answer_that_is_no_key_set_leaves_the_keys_as_they_are() {
    let (pair, attacker) = (Pair::edwards(), Pair::edwards());
    let elsewhere = IdentityProvider::start(set(&[attacker.jwk("b")])).await;
    let redirect = Reply::status(302).with_head(&format!("Location: {}", elsewhere.url("/jwks")));
    let html = Reply { body: "<html>".to_owned(), ..Reply::status(200) };
    let long = Reply { body: " ".repeat(600 * 1024), ..Reply::status(200) };
    let many: Vec<_> = (0..65).map(|number| attacker.jwk(&number.to_string())).collect();
    let stalled = set(&[attacker.jwk("b")]).after(Duration::from_secs(60));
    for (what, bad) in [
        ("a redirect", redirect),
        ("HTML", html),
        ("half a megabyte", long),
        ("too many keys", set(&many)),
        ("no key", set(&[])),
        ("an error", Reply::status(500)),
        ("nothing in time", stalled),
    ] {
        let provider = IdentityProvider::start(set(&[pair.jwk("a")])).await;
        let mut key = key_set(&provider.url("/jwks"));
        let Key::KeySet(settings) = &mut key else { panic!("a key set") };
        settings.refresh = Duration::from_millis(200);
        settings.client.timeout = Duration::from_millis(500);
        let running = Running::start(Settings::Jwt(Box::new(issuer(key))));
        running.until(&pair.token("a"), "u1").await;
        provider.reply(bad);
        until(what, async || running.metric(FAILED) >= 1).await;
        assert_eq!(running.outcome(&pair.token("a")).await, "u1", "{what}");
        assert_eq!(running.outcome(&attacker.token("b")).await, "later", "{what}");
    }
    assert_eq!(elsewhere.count(), 0, "a redirect is not followed");
}

#[tokio::test]
async fn keys_are_fetched_over_tls_from_a_server_that_is_trusted_and_from_no_other() {
    support::install_crypto();
    let pair = Pair::edwards();
    let certificates = Certificates::make();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("jwks"), serde_json::json!({"keys": [pair.jwk("a")]}).to_string()).unwrap();
    let port = free_port();
    let mut server = tokio::process::Command::new("openssl");
    server.args(["s_server", "-WWW", "-quiet", "-accept", &format!("127.0.0.1:{port}")]);
    server.arg("-cert").arg(&certificates.certificate).arg("-key").arg(&certificates.key).current_dir(folder.path());
    let _server = server.stdin(std::process::Stdio::null()).kill_on_drop(true).spawn().unwrap();
    until("the server listens", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await;
    let with_authority = |authority| {
        let mut key = key_set(&format!("https://localhost:{port}/jwks"));
        let Key::KeySet(settings) = &mut key else { panic!("a key set") };
        settings.client.tls_ca_file = authority;
        Running::start(Settings::Jwt(Box::new(issuer(key))))
    };
    with_authority(Some(certificates.authority.clone())).until(&pair.token("a"), "u1").await;
    let distrustful = with_authority(None);
    until("it is refused", async || distrustful.metric(FAILED) >= 1).await;
    assert_eq!(distrustful.outcome(&pair.token("a")).await, "later");
}
