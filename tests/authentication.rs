//! Tokens, as strangers bring them: the right answer to each, and never a word of the token in it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::{path::Path, process::Command, time::Duration};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use taskcast::{
    auth::{AuthenticationError, Identity, JwtSettings, Key, NewToken, PublishRight, Settings, Verifier, mint},
    proto::{TaskId, UserId},
};

const SECRET: &[u8] = b"a secret of thirty-two bytes !!!";
const NOW_S: u64 = 1_790_000_000;
const NOW_MS: u64 = NOW_S * 1000;

fn settings() -> JwtSettings {
    JwtSettings {
        key: Key::Secret(SECRET.to_vec()),
        algorithms: vec!["HS256".to_owned()],
        user_claim: None,
        audience: Vec::new(),
        issuer: Vec::new(),
        leeway: Duration::from_secs(30),
        max_age_without_expiry: None,
    }
}

fn with(change: impl FnOnce(&mut JwtSettings)) -> JwtSettings {
    let mut settings = settings();
    change(&mut settings);
    settings
}

fn verify(settings: JwtSettings, token: &str) -> Result<Identity, AuthenticationError> {
    Verifier::new(Settings::Jwt(Box::new(settings))).unwrap().verify(Some(token), NOW_MS)
}

fn sign_with(claims: &Value, secret: &[u8], algorithm: Algorithm) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret)).unwrap()
}

fn sign(claims: &Value) -> String {
    sign_with(claims, SECRET, Algorithm::HS256)
}

/// The code, or who it is.
fn outcome(result: &Result<Identity, AuthenticationError>) -> String {
    match result {
        Ok(identity) => identity.user.as_ref().map_or("nobody".to_owned(), ToString::to_string),
        Err(error) => error.code.as_str().to_owned(),
    }
}

#[test]
fn each_token_gets_its_answer() {
    let later = NOW_S + 600;
    let table = [
        ("a good one", json!({"sub": "u1", "exp": later}), "u1"),
        ("a number for a user", json!({"user_id": 42, "exp": later}), "42"),
        ("a negative number for a user", json!({"user_id": -1, "exp": later}), "-1"),
        ("sub before user_id", json!({"sub": "u1", "user_id": 2, "exp": later}), "u1"),
        ("a null sub is none", json!({"sub": null, "user_id": 2, "exp": later}), "2"),
        ("a float for a user", json!({"sub": 1.5, "exp": later}), "INVALID_TOKEN"),
        ("a list for a user", json!({"sub": ["u1"], "exp": later}), "INVALID_TOKEN"),
        ("an empty user", json!({"sub": "", "exp": later}), "INVALID_TOKEN"),
        ("a null byte in the user", json!({"sub": "u\u{0}1", "exp": later}), "INVALID_TOKEN"),
        ("a user of 300 bytes", json!({"sub": "u".repeat(300), "exp": later}), "INVALID_TOKEN"),
        ("no user", json!({"exp": later}), "INVALID_TOKEN"),
        ("no user, and none needed", json!({"exp": later, "taskcast": {"publish": true}}), "nobody"),
        ("expired", json!({"sub": "u1", "exp": NOW_S - 31}), "EXPIRED_TOKEN"),
        ("expired, within the leeway", json!({"sub": "u1", "exp": NOW_S - 29}), "u1"),
        ("expired at the leeway's very end", json!({"sub": "u1", "exp": NOW_S - 30}), "EXPIRED_TOKEN"),
        ("expired long ago", json!({"sub": "u1", "exp": 0}), "EXPIRED_TOKEN"),
        ("exp as a fraction", json!({"sub": "u1", "exp": later as f64 + 0.5}), "INVALID_TOKEN"),
        ("exp as a string", json!({"sub": "u1", "exp": later.to_string()}), "INVALID_TOKEN"),
        ("exp as null", json!({"sub": "u1", "exp": null}), "INVALID_TOKEN"),
        ("exp below zero", json!({"sub": "u1", "exp": -5}), "INVALID_TOKEN"),
        ("exp beyond all time", json!({"sub": "u1", "exp": u64::MAX}), "u1"),
        ("exp as a huge float", json!({"sub": "u1", "exp": 1e300}), "INVALID_TOKEN"),
        ("exp missing", json!({"sub": "u1"}), "INVALID_TOKEN"),
        ("exp missing, young, but no age is configured", json!({"sub": "u1", "iat": NOW_S}), "INVALID_TOKEN"),
        ("nbf past", json!({"sub": "u1", "exp": later, "nbf": NOW_S - 1}), "u1"),
        ("nbf ahead, within the leeway", json!({"sub": "u1", "exp": later, "nbf": NOW_S + 30}), "u1"),
        ("nbf ahead", json!({"sub": "u1", "exp": later, "nbf": NOW_S + 31}), "INVALID_TOKEN"),
        ("nbf as a string", json!({"sub": "u1", "exp": later, "nbf": "now"}), "INVALID_TOKEN"),
        ("a refresh token", json!({"sub": "u1", "exp": later, "type": "refresh"}), "INVALID_TOKEN"),
        ("a refresh token of Simple JWT", json!({"sub": "u1", "exp": later, "token_type": "refresh"}), "INVALID_TOKEN"),
        ("an access token", json!({"sub": "u1", "exp": later, "type": "access"}), "u1"),
        ("an audience that nobody asks for", json!({"sub": "u1", "exp": later, "aud": "shop"}), "u1"),
        ("claims that are a list", json!(["sub", "u1"]), "INVALID_TOKEN"),
        ("claims that are a number", json!(1), "INVALID_TOKEN"),
    ];
    for (what, claims, expected) in table {
        let token = sign(&claims);
        let result = verify(settings(), &token);
        assert_eq!(outcome(&result), expected, "{what}: {result:?}");
        if let Err(error) = result {
            let parts: Vec<&str> = token.split('.').collect();
            assert!(parts.iter().all(|part| !error.message.contains(part)), "{what}: {error}");
        }
    }
}

#[test]
fn what_is_not_a_token_of_ours_is_refused_alike() {
    let claims = json!({"sub": "u1", "exp": NOW_S + 600});
    let good = sign(&claims);
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1MSIsImV4cCI6MTc5MDAwMDYwMH0.";
    let mut critical = Header::new(Algorithm::HS256);
    critical.crit = Some(vec!["b64".to_owned()]);
    let critical = encode(&critical, &claims, &EncodingKey::from_secret(SECRET)).unwrap();
    let long = sign(&json!({"sub": "u1", "exp": NOW_S + 600, "pad": "x".repeat(7000)}));
    assert!(long.len() > 9000);
    for (what, token) in [
        ("garbage", "garbage".to_owned()),
        ("three dots", "...".to_owned()),
        ("a null byte", "\0".to_owned()),
        ("not ASCII", "ä.ö.ü".to_owned()),
        ("algorithm none", none.to_owned()),
        ("a good one with a null byte", format!("{good}\0")),
        ("a good one with a line end", format!("{good}\n")),
        ("its signature gone", good.rsplit_once('.').unwrap().0.to_owned() + "."),
        ("another secret", sign_with(&claims, b"another", Algorithm::HS256)),
        ("another algorithm of the family", sign_with(&claims, SECRET, Algorithm::HS512)),
        ("a header that must be understood", critical),
        ("9 KiB", long),
    ] {
        let result = verify(settings(), &token);
        assert_eq!(outcome(&result), "INVALID_TOKEN", "{what}");
        assert!(!format!("{result:?}").contains(&token), "{what}");
    }
}

#[test]
fn a_forged_token_is_not_reported_as_expired() {
    let claims = json!({"sub": "u1", "exp": NOW_S - 600});
    assert_eq!(outcome(&verify(settings(), &sign_with(&claims, b"another", Algorithm::HS256))), "INVALID_TOKEN");
    assert_eq!(outcome(&verify(settings(), &sign(&claims))), "EXPIRED_TOKEN");
}

#[test]
fn no_token_and_an_empty_one_ask_for_one() {
    let verifier = Verifier::new(Settings::Jwt(Box::new(settings()))).unwrap();
    assert!(verifier.needs_token());
    assert_eq!(outcome(&verifier.verify(None, NOW_MS)), "AUTH_REQUIRED");
    assert_eq!(outcome(&verifier.verify(Some(""), NOW_MS)), "AUTH_REQUIRED");
}

#[test]
fn without_checks_everyone_is_the_configured_user_and_may_do_everything() {
    let verifier = Verifier::new(Settings::None { user: UserId::parse("dev").ok() }).unwrap();
    let identity = verifier.verify(Some("whatever"), NOW_MS).unwrap();
    assert!(!verifier.needs_token());
    assert_eq!(identity.user, UserId::parse("dev").ok());
    assert!(
        identity.rights.own
            && identity.rights.all
            && identity.rights.publish == PublishRight::everything()
            && identity.rights.cancel
    );
    let nobody = Verifier::new(Settings::None { user: None }).unwrap().verify(None, NOW_MS);
    assert_eq!(outcome(&nobody), "NO_USER_AVAILABLE");
}

#[test]
fn audience_and_issuer_must_fit_when_configured() {
    let asked = || {
        with(|s| {
            s.audience = vec!["taskcast".to_owned(), "tasks".to_owned()];
            s.issuer = vec!["https://id.example.com".to_owned()];
        })
    };
    let iss = "https://id.example.com";
    for (claims, expected) in [
        (json!({"aud": "tasks", "iss": iss}), "u1"),
        (json!({"aud": ["shop", "taskcast"], "iss": iss}), "u1"),
        (json!({"aud": "shop", "iss": iss}), "INVALID_TOKEN"),
        (json!({"aud": [], "iss": iss}), "INVALID_TOKEN"),
        (json!({"aud": 7, "iss": iss}), "INVALID_TOKEN"),
        (json!({"iss": iss}), "INVALID_TOKEN"),
        (json!({"aud": "tasks", "iss": "https://evil.example"}), "INVALID_TOKEN"),
        (json!({"aud": "tasks"}), "INVALID_TOKEN"),
    ] {
        let mut claims = claims;
        claims["sub"] = json!("u1");
        claims["exp"] = json!(NOW_S + 60);
        assert_eq!(outcome(&verify(asked(), &sign(&claims))), expected, "{claims}");
    }
}

#[test]
fn a_token_without_exp_lives_by_its_age_when_that_is_configured() {
    let week = || with(|s| s.max_age_without_expiry = Some(Duration::from_hours(7 * 24)));
    // NOW_S is 2026-09-21T14:13:20Z.
    for (claims, expected) in [
        (json!({"created_at": "2026-09-20 12:00:00 +0000"}), "42"),
        (json!({"created_at": "2026-09-14 14:13:40 +0000"}), "42"),
        (json!({"created_at": "2026-09-14 14:12:00 +0000"}), "EXPIRED_TOKEN"),
        (json!({"created_at": "2026-09-14 14:12:00 -0100"}), "42"),
        (json!({"created_at": "2026-09-20T12:00:00Z"}), "42"),
        (json!({"created_at": "2026-09-20T12:00:00.123456+03:30"}), "42"),
        (json!({"created_at": "2026-09-20 12:00:00+00:00"}), "42"),
        (json!({"created_at": "2026-09-01T12:00:00Z"}), "EXPIRED_TOKEN"),
        (json!({"created_at": NOW_S - 60}), "42"),
        (json!({"created_at": NOW_S - 8 * 86_400}), "EXPIRED_TOKEN"),
        (json!({"created_at": "2027-01-01T00:00:00Z"}), "INVALID_TOKEN"),
        (json!({"created_at": "2026-09-20 12:00:00 "}), "INVALID_TOKEN"),
        (json!({"created_at": "2026-09-20 12:00:00"}), "INVALID_TOKEN"),
        (json!({"created_at": "yesterday"}), "INVALID_TOKEN"),
        (json!({"created_at": "x y +äää"}), "INVALID_TOKEN"),
        (json!({"created_at": true}), "INVALID_TOKEN"),
        (json!({"iat": NOW_S - 60}), "42"),
        (json!({"iat": NOW_S - 8 * 86_400}), "EXPIRED_TOKEN"),
        (json!({}), "INVALID_TOKEN"),
        // `exp` wins where there is one.
        (json!({"created_at": "2026-09-20T12:00:00Z", "exp": NOW_S - 60}), "EXPIRED_TOKEN"),
        (json!({"created_at": "2026-09-20T12:00:00Z", "type": "refresh"}), "INVALID_TOKEN"),
    ] {
        let mut claims = claims;
        claims["user_id"] = json!("42");
        let result = verify(week(), &sign(&claims));
        assert_eq!(outcome(&result), expected, "{claims} {result:?}");
    }
}

#[test]
fn the_end_of_a_token_is_when_it_would_be_refused() {
    let token = sign(&json!({"sub": "u1", "exp": NOW_S + 60}));
    let verifier = Verifier::new(Settings::Jwt(Box::new(settings()))).unwrap();
    let end = verifier.verify(Some(&token), NOW_MS).unwrap().expires_at_ms.unwrap();
    assert_eq!(end, NOW_MS + 90_000);
    assert_eq!(outcome(&verifier.verify(Some(&token), end - 1)), "u1");
    assert_eq!(outcome(&verifier.verify(Some(&token), end)), "EXPIRED_TOKEN");
}

#[test]
fn a_configured_user_claim_is_the_only_one_read() {
    let own = || with(|s| s.user_claim = Some("uid".to_owned()));
    let exp = NOW_S + 60;
    assert_eq!(outcome(&verify(own(), &sign(&json!({"sub": "a", "uid": "b", "exp": exp})))), "b");
    let missing = verify(own(), &sign(&json!({"sub": "a", "exp": exp})));
    assert_eq!(outcome(&missing), "INVALID_TOKEN");
    assert!(missing.unwrap_err().message.contains("`uid`"));
}

#[test]
fn rights_come_from_the_claim_and_nothing_is_guessed() {
    let rights_of = |claim: Value| {
        verify(settings(), &sign(&json!({"sub": "u1", "exp": NOW_S + 60, "taskcast": claim}))).map(|id| id.rights)
    };
    let rights = rights_of(json!({
        "watch": ["own", "task:a", "task:b:c", "root:r", "tag:x", "team:7", "everything"],
        "publish": true
    }))
    .unwrap();
    let id = |text: &str| TaskId::parse(text).unwrap();
    assert!(rights.own && !rights.all && rights.publish == PublishRight::everything() && !rights.cancel);
    assert_eq!(rights.tasks, [id("a"), id("b:c")].into());
    assert_eq!(rights.roots, [id("r")].into());
    assert_eq!(rights.tags, ["x".to_owned()].into());
    assert!(!rights_of(json!({})).unwrap().own);
    assert!(rights_of(json!({"watch": ["all"]})).unwrap().all);
    for wrong in [
        json!(null),
        json!("own"),
        json!(["own"]),
        json!({"watch": "own"}),
        json!({"watch": null}),
        json!({"watch": [1]}),
        json!({"watch": ["task:"]}),
        json!({"watch": ["tag:"]}),
        json!({"watch": [format!("root:{}", "r".repeat(256))]}),
        json!({"publish": "yes"}),
        json!({"publish": {"users": ["u1"], "tags": ["x"]}}),
        json!({"cancel": 1}),
    ] {
        assert_eq!(rights_of(wrong.clone()).unwrap_err().code.as_str(), "INVALID_TOKEN", "{wrong}");
    }
}

#[test]
fn a_minted_token_is_accepted_by_the_same_settings() {
    let settings = with(|s| {
        s.algorithms = vec!["HS512".to_owned(), "HS256".to_owned()];
        s.audience = vec!["taskcast".to_owned()];
        s.issuer = vec!["me".to_owned()];
        s.user_claim = Some("uid".to_owned());
    });
    let new = NewToken {
        user: UserId::parse("u1").ok(),
        watch: vec!["own".to_owned(), "task:x".to_owned()],
        publish: true,
        lifetime: Duration::from_mins(1),
        ..NewToken::default()
    };
    let identity = verify(settings.clone(), &mint(&settings, &new, NOW_MS).unwrap()).unwrap();
    assert_eq!(identity.user, UserId::parse("u1").ok());
    assert_eq!(identity.expires_at_ms, Some(NOW_MS + 90_000));
    assert!(
        identity.rights.own
            && identity.rights.publish == PublishRight::everything()
            && !identity.rights.cancel
            && !identity.rights.all
    );
    assert!(mint(&settings, &NewToken { watch: vec!["owm".to_owned()], ..new.clone() }, NOW_MS).is_err());
    assert!(mint(&settings, &NewToken { user: None, ..new }, NOW_MS).is_err());
}

/// Runs `openssl` in `folder` and expects it to succeed.
fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A key pair `name.pem`, `name.pub.pem`, made by openssl now.
fn key_pair(folder: &Path, name: &str, kind: &str) {
    openssl(folder, &format!("genpkey {kind} -out {name}.pem"));
    openssl(folder, &format!("pkey -in {name}.pem -pubout -out {name}.pub.pem"));
}

#[test]
fn public_keys_of_every_family_verify_and_never_serve_as_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    key_pair(folder.path(), "rsa", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048");
    key_pair(folder.path(), "ec", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256");
    key_pair(folder.path(), "ed", "-algorithm ED25519");
    key_pair(folder.path(), "small", "-algorithm RSA -pkeyopt rsa_keygen_bits:1024");
    key_pair(folder.path(), "p384", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384");
    let public = |name: &str, algorithm: &str| {
        with(|s| {
            s.key = Key::PublicKeyFile(at(name));
            s.algorithms = vec![algorithm.to_owned()];
        })
    };
    let claims = json!({"sub": "u1", "exp": NOW_S + 60});
    let read = |name: &str| std::fs::read(at(name)).unwrap();
    let families = [
        ("rsa", "RS256", Algorithm::RS256, EncodingKey::from_rsa_pem(&read("rsa.pem")).unwrap()),
        ("ec", "ES256", Algorithm::ES256, EncodingKey::from_ec_pem(&read("ec.pem")).unwrap()),
        ("ed", "EdDSA", Algorithm::EdDSA, EncodingKey::from_ed_pem(&read("ed.pem")).unwrap()),
    ];
    for (name, algorithm, header, key) in &families {
        let file = format!("{name}.pub.pem");
        let good = encode(&Header::new(*header), &claims, key).unwrap();
        assert_eq!(outcome(&verify(public(&file, algorithm), &good)), "u1", "{algorithm}");
        // The classic confusion: the public key, which everyone has, as the secret of an HMAC.
        let confused = sign_with(&claims, &read(&file), Algorithm::HS256);
        assert_eq!(outcome(&verify(public(&file, algorithm), &confused)), "INVALID_TOKEN", "{algorithm}");
        for (_, other, _, _) in &families {
            let refused = Verifier::new(Settings::Jwt(Box::new(public(&file, other)))).is_err();
            assert_eq!(refused, other != algorithm, "{file} as {other}");
        }
    }
    for (file, algorithm, why) in [
        ("rsa.pem", "RS256", "private key"),
        ("ed.pem", "EdDSA", "private key"),
        ("small.pub.pem", "RS256", "2048"),
        ("p384.pub.pem", "ES256", "P-256"),
        ("missing.pem", "RS256", "missing.pem"),
        ("rsa.pub.pem", "HS256", "secret"),
    ] {
        let error = Verifier::new(Settings::Jwt(Box::new(public(file, algorithm)))).err().unwrap();
        assert!(error.contains(why), "{file}: {error}");
    }
}

#[test]
fn algorithms_that_do_not_fit_together_or_the_key_are_refused_at_the_start() {
    for (algorithms, why) in [
        (&["HS256", "RS256"][..], "one family"),
        (&["none"], "`none`"),
        (&["hs256"], "`hs256`"),
        (&["RS384"], "`RS384`"),
        (&[], "at least one"),
        (&["RS256"], "public key"),
    ] {
        let settings = with(|s| s.algorithms = algorithms.iter().map(ToString::to_string).collect());
        let error = Verifier::new(Settings::Jwt(Box::new(settings))).err().unwrap();
        assert!(error.contains(why), "{algorithms:?}: {error}");
    }
    assert!(Verifier::new(Settings::Jwt(Box::new(with(|s| s.key = Key::Secret(Vec::new()))))).is_err());
}
