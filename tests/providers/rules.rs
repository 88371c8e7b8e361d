//! What a key may verify, and which issuer's key a token is checked with: the header and the unverified claims of a
//! token choose among what fits, and decide nothing.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use taskcast::{
    auth::{Key, Settings},
    clock,
};

use crate::{
    harness::{Pair, Running, claims, issuer, key_set, published, set},
    support::identity_provider::{IdentityProvider, Reply},
};

fn with(mut jwk: Value, member: &str, value: Value) -> Value {
    jwk[member] = value;
    jwk
}

#[tokio::test]
async fn a_key_verifies_only_what_it_was_published_for() {
    let (rsa, elliptic, edwards, lone) = (Pair::rsa(), Pair::elliptic(), Pair::edwards(), Pair::edwards());
    let secret = b"a secret of thirty-two bytes !!!";
    let oct = json!({"kty": "oct", "kid": "oct", "alg": "HS256", "k": "YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcyAhISE"});
    let provider = IdentityProvider::start(set(&[
        rsa.jwk("rsa"),
        elliptic.jwk("ec"),
        edwards.jwk("ed"),
        oct,
        with(lone.jwk("enc"), "use", json!("enc")),
        with(lone.jwk("ops"), "key_ops", json!(["sign"])),
        with(rsa.jwk("pss"), "alg", json!("PS256")),
        with(lone.jwk("private"), "d", json!("x")),
        json!({"kty": "EC", "crv": "secp256k1", "kid": "odd", "x": "AA", "y": "AA"}),
        json!({"kty": "RSA", "kid": "tiny", "n": "AQAB", "e": "AQAB"}),
        json!("no key at all"),
    ]))
    .await;
    let running = Running::start(published(&provider.url("/jwks")));
    for (name, pair) in [("rsa", &rsa), ("ec", &elliptic), ("ed", &edwards)] {
        assert_eq!(running.outcome(&pair.token(name)).await, "u1", "{name}");
    }
    let hmac = |name: &str, secret: &[u8]| {
        let header = Header { kid: Some(name.to_owned()), ..Header::new(Algorithm::HS256) };
        encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap()
    };
    let fetches = provider.count();
    for (what, token) in [
        ("a published secret", hmac("oct", secret)),
        ("a public key as a secret", hmac("rsa", &rsa.public_pem)),
        ("another kind than the key's", elliptic.token("rsa")),
        ("another key of the same kind", lone.token("ed")),
    ] {
        assert_eq!(running.outcome(&token).await, "INVALID_TOKEN", "{what}");
    }
    assert_eq!(provider.count(), fetches, "none of these is a reason to fetch");
    let unusable = [lone.token("enc"), lone.token("ops"), lone.token("private"), rsa.token("pss")];
    let mut asked = tokio::task::JoinSet::new();
    for token in unusable {
        let verifier = running.verifier.clone();
        asked.spawn(async move { verifier.identify(Some(&token), clock::now()).await.is_err() });
    }
    assert!(asked.join_all().await.into_iter().all(|refused| refused));
}

#[tokio::test]
async fn what_a_header_says_of_keys_is_a_name_and_nothing_else() {
    let (pair, attacker) = (Pair::edwards(), Pair::edwards());
    let provider = IdentityProvider::start(set(&[pair.jwk("a")])).await;
    let elsewhere = IdentityProvider::start(set(&[attacker.jwk("a")])).await;
    let running = Running::start(published(&provider.url("/jwks")));
    assert_eq!(running.outcome(&pair.token("a")).await, "u1");
    let long = "k".repeat(5000);
    let mut tokens: Vec<String> = ["../../../../dev/null", "a\0", "' OR 1=1 --", "", &long, "http://[::1]/a"]
        .iter()
        .map(|name| attacker.token(name))
        .collect();
    let jku = Header { jku: Some(elsewhere.url("/jwks")), kid: Some("b".to_owned()), ..Header::new(Algorithm::EdDSA) };
    tokens.push(encode(&jku, &claims(), &attacker.private).unwrap());
    let own = jsonwebtoken::jwk::Jwk::from_encoding_key(&attacker.private, Algorithm::EdDSA).unwrap();
    tokens.push(
        encode(&Header { jwk: Some(own), ..Header::new(Algorithm::EdDSA) }, &claims(), &attacker.private).unwrap(),
    );
    let mut asked = tokio::task::JoinSet::new();
    for token in tokens {
        let verifier = running.verifier.clone();
        asked.spawn(async move { crate::harness::outcome(&verifier.identify(Some(&token), clock::now()).await) });
    }
    assert!(asked.join_all().await.iter().all(|outcome| outcome == "INVALID_TOKEN"));
    assert_eq!(elsewhere.count(), 0);
    assert!(provider.requests().iter().all(|request| request.starts_with("GET /jwks HTTP/1.1")));
}

#[tokio::test]
async fn a_token_without_a_name_is_tried_with_the_keys_that_fit() {
    let (first, second) = (Pair::edwards(), Pair::edwards());
    let provider = IdentityProvider::start(set(&[first.jwk("a"), second.jwk("b")])).await;
    let running = Running::start(published(&provider.url("/jwks")));
    assert_eq!(running.outcome(&second.sign(None, &claims())).await, "u1");
    let expired = json!({"sub": "u1", "exp": 1000});
    assert_eq!(running.outcome(&second.sign(None, &expired)).await, "EXPIRED_TOKEN");
    let mut nameless = first.jwk("x");
    nameless.as_object_mut().unwrap().remove("kid");
    provider.reply(set(&[nameless]));
    let running = Running::start(published(&provider.url("/jwks")));
    assert_eq!(running.outcome(&first.token("whatever")).await, "u1");
}

#[tokio::test]
async fn each_issuers_tokens_are_checked_with_its_own_keys() {
    let (one, two, local) = (Pair::edwards(), Pair::edwards(), b"a secret of thirty-two bytes !!!");
    let provider = IdentityProvider::start(Reply::status(404)).await;
    // The same name for a key at both.
    let (first, second) = (set(&[one.jwk("k")]), set(&[two.jwk("k")]));
    provider.reply_by(move |request| if request.starts_with("GET /one") { first.clone() } else { second.clone() });
    let of = |name: &str, key: Key| {
        let mut issuer = issuer(key);
        issuer.issuer = vec![name.to_owned()];
        issuer
    };
    let mut rest = issuer(Key::Secret(local.to_vec()));
    rest.algorithms = vec!["HS256".to_owned()];
    let issuers = vec![
        of("https://one", key_set(&provider.url("/one"))),
        of("https://two", key_set(&provider.url("/two"))),
        rest,
    ];
    let running = Running::start(Settings::Issuers(issuers.clone()));
    let claims = |iss: Value| json!({"sub": "u1", "iss": iss, "exp": clock::now().unix_ms / 1000 + 60});
    let hmac =
        |claims: &Value| encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(local)).unwrap();
    for (what, token, expected) in [
        ("one's own", one.sign(Some("k"), &claims(json!("https://one"))), "u1"),
        ("two's own", two.sign(Some("k"), &claims(json!("https://two"))), "u1"),
        ("one's key in two's name", one.sign(Some("k"), &claims(json!("https://two"))), "INVALID_TOKEN"),
        ("two's key in one's name", two.sign(Some("k"), &claims(json!("https://one"))), "INVALID_TOKEN"),
        ("the secret in one's name", hmac(&claims(json!("https://one"))), "INVALID_TOKEN"),
        ("the secret for anybody else", hmac(&claims(json!("https://three"))), "u1"),
        ("the secret without a name", hmac(&json!({"sub": "u1", "exp": 4_000_000_000_u64})), "u1"),
        ("a list of issuers", one.sign(Some("k"), &claims(json!(["https://one"]))), "INVALID_TOKEN"),
    ] {
        assert_eq!(running.outcome(&token).await, expected, "{what}");
    }
    let strict = Running::start(Settings::Issuers(issuers[..2].to_vec()));
    assert_eq!(strict.outcome(&hmac(&claims(json!("https://three")))).await, "INVALID_TOKEN");
    assert_eq!(strict.outcome("garbage").await, "INVALID_TOKEN");
}

#[tokio::test]
async fn a_token_with_a_known_key_is_judged_without_any_wait() {
    let pair = Pair::edwards();
    let mut provider = IdentityProvider::start(set(&[pair.jwk("a")])).await;
    let running = Running::start(published(&provider.url("/jwks")));
    running.until(&pair.token("a"), "u1").await;
    provider.leave().await;
    let token = pair.token("a");
    let mut judged = Box::pin(running.verifier.identify(Some(&token), clock::now()));
    assert!(futures_util::poll!(judged.as_mut()).is_ready());
}
