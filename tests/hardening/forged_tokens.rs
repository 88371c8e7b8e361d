//! Tokens that are none, or not for here, or not any more: each through every place that a token may come in.

use std::{path::Path, process::Command};

use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign, jwk::Jwk};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use taskcast::clock;

use crate::{
    harness::SECRET,
    target::{Target, soon},
    wire::{Frames, Wire, exchange, handshake, statuses, text},
};

const ACCEPTED: &str = "accepted";
const INVALID: &str = "INVALID_TOKEN";
const EXPIRED: &str = "EXPIRED_TOKEN";

/// Where a token can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Header,
    Subprotocol,
    Cookie,
    Query,
    FirstFrame,
    RestHeader,
    RestCookie,
    RestQuery,
    PublishHeader,
    /// Of a connection that is open with a good one.
    Refresh,
}

const PLACES: [Place; 10] = [
    Place::Header,
    Place::Subprotocol,
    Place::Cookie,
    Place::Query,
    Place::FirstFrame,
    Place::RestHeader,
    Place::RestCookie,
    Place::RestQuery,
    Place::PublishHeader,
    Place::Refresh,
];

impl Place {
    /// Header values are bytes of a line: what has a line end or a zero in it is not even HTTP.
    fn is_a_line(self) -> bool {
        !matches!(self, Self::Query | Self::FirstFrame | Self::RestQuery | Self::Refresh)
    }

    /// What is made of a token in this place: [`ACCEPTED`], the code of its refusal, or `HTTP 400`.
    async fn verdict(self, port: u16, good: &str, token: &str) -> String {
        let query = utf8_percent_encode(token, NON_ALPHANUMERIC);
        match self {
            Self::Header => socket(port, "/ws/tasks/", &format!("Authorization: Bearer {token}\r\n"), None).await,
            Self::Subprotocol => {
                socket(port, "/ws/tasks/", &format!("Sec-WebSocket-Protocol: bearer.{token}\r\n"), None).await
            }
            Self::Cookie => socket(port, "/ws/tasks/", &format!("Cookie: session={token}\r\n"), None).await,
            Self::Query => socket(port, &format!("/ws/tasks/?token={query}"), "", None).await,
            Self::FirstFrame => socket(port, "/ws/tasks/", "", Some(token)).await,
            Self::RestHeader => rest(port, "GET /api/v1/tasks", &format!("Authorization: Bearer {token}\r\n")).await,
            Self::RestCookie => rest(port, "GET /api/v1/tasks", &format!("Cookie: session={token}\r\n")).await,
            Self::RestQuery => rest(port, &format!("GET /api/v1/tasks?token={query}"), "").await,
            Self::Refresh => refresh(port, good, token).await,
            Self::PublishHeader => {
                rest(port, "POST /api/v1/events", &format!("Authorization: Bearer {token}\r\n")).await
            }
        }
    }
}

/// Opens a WebSocket and says what became of it. A refusal is a frame with the reason, then 4001.
async fn socket(port: u16, path: &str, headers: &str, first_frame: Option<&str>) -> String {
    let mut wire = Wire::connect(port).await;
    wire.send(handshake(path, headers).as_bytes()).await;
    if let Some(token) = first_frame {
        wire.send(&text(&json!({"type": "auth", "token": token}).to_string())).await;
    }
    let head = wire.until(b"\r\n\r\n").await;
    let status = statuses(&String::from_utf8_lossy(&head))[0];
    if status != 101 {
        return format!("HTTP {status}");
    }
    let first = soon("the first frame", async {
        loop {
            if let Some((_, payload)) = Frames(&wire.received).next() {
                return serde_json::from_slice::<Value>(payload).expect("JSON");
            }
            assert!(wire.read().await, "the connection ended without a word");
        }
    })
    .await;
    if first["type"] == "connection_established" {
        return ACCEPTED.to_owned();
    }
    assert_eq!(first["type"], "authentication_error", "{first}");
    assert_eq!(wire.close_code().await, Some(4001), "{first}");
    first["error_code"].as_str().unwrap().to_owned()
}

/// A fresh token on an open connection. A refusal says why in words, has one code, and leaves the connection open.
async fn refresh(port: u16, good: &str, token: &str) -> String {
    let mut wire = Wire::open_as(port, good).await;
    wire.send(&text(&json!({"type": "refresh_token", "token": token, "id": "r"}).to_string())).await;
    let answer = wire.frame_with("\"id\":\"r\"").await;
    wire.send(&text("{\"type\":\"ping\",\"id\":\"p\"}")).await;
    wire.frame_with("\"id\":\"p\"").await;
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    if answer["type"] == "token_refreshed" {
        ACCEPTED.to_owned()
    } else {
        answer["error_code"].as_str().unwrap().to_owned()
    }
}

async fn rest(port: u16, line: &str, headers: &str) -> String {
    let request = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n"
    );
    let answer = exchange(port, request.as_bytes()).await;
    match statuses(&answer)[0] {
        // Who may not publish is known, and 400 is what the empty body gets.
        200 | 403 => ACCEPTED.to_owned(),
        400 if answer.contains("malformed-event") => ACCEPTED.to_owned(),
        401 => {
            let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
            body["error_code"].as_str().unwrap().to_owned()
        }
        status => format!("HTTP {status}"),
    }
}

/// Base64 as tokens have it: for URLs, without padding.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).map(move |place| char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63]))
    });
    digits.collect()
}

/// Signs with HMAC whatever the header says.
fn forge(header: &str, claims: &str, key: &[u8]) -> String {
    let message = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    let signature = sign(message.as_bytes(), &EncodingKey::from_secret(key), Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

fn in_seconds(seconds: i64) -> i64 {
    (clock::now().unix_ms / 1000).cast_signed() + seconds
}

/// Good claims for [`settings`], with these in their place.
fn claims(changes: &Value) -> String {
    let mut claims = json!({"sub": "u1", "exp": in_seconds(600), "aud": "taskcast", "iss": "https://id.example.com"});
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.to_string()
}

/// Signed as it should be.
fn signed(changes: &Value) -> String {
    forge(HEADER, &claims(changes), SECRET.as_bytes())
}

const SETTINGS: [(&str, &str); 4] = [
    ("TASKCAST_AUTH_COOKIE", "session"),
    ("TASKCAST_AUTH_AUDIENCE", "taskcast"),
    ("TASKCAST_AUTH_ISSUER", "https://id.example.com"),
    ("TASKCAST_AUTH_LEEWAY_SECONDS", "0"),
];

/// Every token through every place.
async fn judge(mut target: Target, table: &[(&str, String, &str)]) {
    let (_, good, _) = &table[0];
    for (what, token, expected) in table {
        for place in PLACES {
            let is_no_line = token.contains(|c: char| c.is_control()) && place.is_a_line();
            let expected = match *expected {
                _ if is_no_line => "HTTP 400",
                ACCEPTED => ACCEPTED,
                _ if place == Place::Refresh => "TOKEN_REFUSED",
                code => code,
            };
            assert_eq!(place.verdict(target.port, good, token).await, expected, "{what}, in {place:?}");
        }
    }
    for (_, token, _) in table {
        target.must_not_tell(token.rsplit('.').find(|part| part.len() > 20).unwrap_or_default());
    }
    target.stands().await;
    assert_eq!(Place::Header.verdict(target.port, good, good).await, ACCEPTED);
}

/// A token that says of itself that nobody signed it (`alg: none`, RFC 7519 section 6), in the spellings that libraries
/// fell for, with and without a signature.
#[tokio::test]
async fn a_token_that_claims_to_need_no_signature_is_refused_everywhere() {
    let mut table = vec![("a good one", signed(&json!({})), ACCEPTED)];
    for algorithm in ["none", "None", "NONE", "nOnE", ""] {
        let header = json!({"alg": algorithm}).to_string();
        let unsigned = format!("{}.{}.", base64url(header.as_bytes()), base64url(claims(&json!({})).as_bytes()));
        table.push(("unsigned", unsigned, INVALID));
        table.push(("signed all the same", forge(&header, &claims(&json!({})), SECRET.as_bytes()), INVALID));
    }
    let missing = forge(r#"{"typ":"JWT"}"#, &claims(&json!({})), SECRET.as_bytes());
    table.push(("no algorithm at all", missing, INVALID));
    judge(Target::start(&SETTINGS).await, &table).await;
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// HS/RS confusion: the public key, which everybody may have, used as the secret of an HMAC, with the header saying
/// either algorithm.
#[tokio::test]
async fn a_public_key_is_never_taken_for_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    openssl(folder.path(), "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem");
    openssl(folder.path(), "pkey -in rsa.pem -pubout -out public.pem");
    openssl(folder.path(), "pkey -in rsa.pem -pubout -outform DER -out public.der");
    let public = folder.path().join("public.pem");
    let pem = std::fs::read(&public).unwrap();
    let der = std::fs::read(folder.path().join("public.der")).unwrap();
    let private = EncodingKey::from_rsa_pem(&std::fs::read(folder.path().join("rsa.pem")).unwrap()).unwrap();
    let rs256 = |claims: &str| {
        let message = format!("{}.{}", base64url(br#"{"alg":"RS256"}"#), base64url(claims.as_bytes()));
        format!("{message}.{}", sign(message.as_bytes(), &private, Algorithm::RS256).unwrap())
    };
    let good = claims(&json!({}));
    let mut table =
        vec![("a good one", rs256(&good), ACCEPTED), ("expired", rs256(&claims(&json!({"exp": 1}))), EXPIRED)];
    let trimmed = String::from_utf8(pem.clone()).unwrap().trim_end().as_bytes().to_vec();
    for key in [pem, trimmed, der, SECRET.as_bytes().to_vec(), Vec::new()] {
        table.push(("HMAC with what is public, and says so", forge(HEADER, &good, &key), INVALID));
        table.push(("HMAC that calls itself RSA", forge(r#"{"alg":"RS256"}"#, &good, &key), INVALID));
    }
    let settings = [("TASKCAST_AUTH_ALGORITHMS", "RS256"), ("TASKCAST_AUTH_PUBLIC_KEY_FILE", public.to_str().unwrap())];
    let settings = [&SETTINGS[..], &settings].concat();
    let target = Target::start(&settings).await;
    judge(target, &table).await;
}

/// Keys of a published set (JWKS) used for what they are not for: a public key as a secret, a secret that stands there by
/// mistake, a key for encryption, one key in the name of another, a name that leads elsewhere.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one table")]
async fn a_key_of_a_published_set_verifies_what_it_is_for_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    openssl(folder.path(), "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem");
    openssl(folder.path(), "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out encryption.pem");
    openssl(folder.path(), "genpkey -algorithm ED25519 -out ed.pem");
    openssl(folder.path(), "pkey -in rsa.pem -pubout -out public.pem");
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let rsa = EncodingKey::from_rsa_pem(&read("rsa.pem")).unwrap();
    let encryption = EncodingKey::from_rsa_pem(&read("encryption.pem")).unwrap();
    let edwards = EncodingKey::from_ed_pem(&read("ed.pem")).unwrap();
    let published = |key: &EncodingKey, algorithm, name: &str, usage: &str| {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(name);
        jwk["use"] = json!(usage);
        jwk
    };
    let modulus = published(&rsa, Algorithm::RS256, "rsa", "sig")["n"].as_str().unwrap().as_bytes().to_vec();
    let set = json!({"keys": [
        published(&rsa, Algorithm::RS256, "rsa", "sig"),
        published(&edwards, Algorithm::EdDSA, "ed", "sig"),
        published(&encryption, Algorithm::RS256, "encryption", "enc"),
        {"kty": "oct", "kid": "oct", "k": base64url(SECRET.as_bytes()), "alg": "HS256", "use": "sig"},
    ]});
    let file = folder.path().join("keys.json");
    std::fs::write(&file, set.to_string()).unwrap();
    let good = claims(&json!({}));
    let sign_with = |key: &EncodingKey, algorithm: Algorithm, header: &Value| {
        let message = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(good.as_bytes()));
        format!("{message}.{}", sign(message.as_bytes(), key, algorithm).unwrap())
    };
    let hmac = |name: &str, key: &[u8]| forge(&json!({"alg": "HS256", "kid": name}).to_string(), &good, key);
    let unsigned = base64url(br#"{"alg":"none","kid":"rsa"}"#);
    let table = [
        ("a good one", sign_with(&rsa, Algorithm::RS256, &json!({"alg": "RS256", "kid": "rsa"})), ACCEPTED),
        (
            "a good one by another key",
            sign_with(&edwards, Algorithm::EdDSA, &json!({"alg": "EdDSA", "kid": "ed"})),
            ACCEPTED,
        ),
        ("a good one without a name", sign_with(&rsa, Algorithm::RS256, &json!({"alg": "RS256"})), ACCEPTED),
        ("the secret that stands there", hmac("oct", SECRET.as_bytes()), INVALID),
        ("the public key as a secret", hmac("rsa", &read("public.pem")), INVALID),
        ("its modulus as a secret", hmac("rsa", &modulus), INVALID),
        ("the whole set as a secret", hmac("rsa", set.to_string().as_bytes()), INVALID),
        ("unsigned", format!("{unsigned}.{}.", base64url(good.as_bytes())), INVALID),
        (
            "a key for encryption",
            sign_with(&encryption, Algorithm::RS256, &json!({"alg": "RS256", "kid": "encryption"})),
            INVALID,
        ),
        (
            "in the name of another",
            sign_with(&encryption, Algorithm::RS256, &json!({"alg": "RS256", "kid": "rsa"})),
            INVALID,
        ),
        (
            "one kind in the name of another",
            sign_with(&edwards, Algorithm::EdDSA, &json!({"alg": "EdDSA", "kid": "rsa"})),
            INVALID,
        ),
        (
            "another algorithm of the key",
            sign_with(&rsa, Algorithm::RS512, &json!({"alg": "RS512", "kid": "rsa"})),
            INVALID,
        ),
        (
            "a name that is a path",
            sign_with(&encryption, Algorithm::RS256, &json!({"alg": "RS256", "kid": "../rsa"})),
            INVALID,
        ),
        (
            "a name that is an address",
            sign_with(&encryption, Algorithm::RS256, &json!({"alg": "RS256", "kid": "http://127.0.0.1:1/"})),
            INVALID,
        ),
        ("no name", sign_with(&encryption, Algorithm::RS256, &json!({"alg": "RS256", "kid": ""})), INVALID),
    ];
    let settings = [&SETTINGS[..], &[("TASKCAST_AUTH_JWKS", file.to_str().unwrap())]].concat();
    judge(Target::start(&settings).await, &table).await;
}

/// `kid`, `jku`, `x5u` and `jwk` in a token's header: a path to a file whose content is known (`/dev/null`), a piece of
/// SQL, an address to fetch a key from, a key of the forger's own. Nothing of it is opened, asked or believed.
#[tokio::test]
async fn a_token_cannot_choose_the_key_that_it_is_checked_with() {
    // Whoever connected here would have been talked into it.
    let trap = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys.json", trap.local_addr().unwrap());
    let own = json!({"kty": "oct", "k": base64url(b"forger"), "alg": "HS256"});
    let good = claims(&json!({}));
    let mut table = vec![("a good one", signed(&json!({})), ACCEPTED)];
    for (what, header) in [
        ("an empty file", json!({"alg": "HS256", "kid": "/dev/null"})),
        ("a way up", json!({"alg": "HS256", "kid": "../../../../../../dev/null"})),
        ("a way up, encoded", json!({"alg": "HS256", "kid": "..%2f..%2f..%2fdev%2fnull"})),
        ("a file of the process", json!({"alg": "HS256", "kid": "/proc/self/environ"})),
        ("a command", json!({"alg": "HS256", "kid": "|id"})),
        ("SQL", json!({"alg": "HS256", "kid": "x' UNION SELECT 'forger';--"})),
        ("a zero", json!({"alg": "HS256", "kid": "key\u{0}.pem"})),
        ("a very long one", json!({"alg": "HS256", "kid": "k".repeat(5000)})),
        ("an object", json!({"alg": "HS256", "kid": {"a": 1}})),
        ("an address of keys", json!({"alg": "HS256", "jku": url})),
        ("an address of certificates", json!({"alg": "HS256", "x5u": url})),
        ("a key of its own", json!({"alg": "HS256", "jwk": own})),
        ("a certificate of its own", json!({"alg": "HS256", "x5c": ["MIIB"]})),
    ] {
        for key in [&b""[..], b"\0", b"forger"] {
            table.push((what, forge(&header.to_string(), &good, key), INVALID));
        }
    }
    judge(Target::start(&SETTINGS).await, &table).await;
    let asked = tokio::time::timeout(crate::target::A_WHILE, trap.accept()).await;
    assert!(asked.is_err(), "the service fetched what a token told it to");
}

/// Genuine tokens of the same issuer that are for another service, from another issuer, or for another time.
#[tokio::test]
async fn a_genuine_token_for_elsewhere_or_another_time_is_refused_everywhere() {
    let table = [
        ("a good one", signed(&json!({})), ACCEPTED),
        ("one of several audiences", signed(&json!({"aud": ["shop", "taskcast"]})), ACCEPTED),
        ("another audience", signed(&json!({"aud": "shop"})), INVALID),
        ("an audience that begins alike", signed(&json!({"aud": "taskcast.evil.test"})), INVALID),
        ("an audience in other case", signed(&json!({"aud": "Taskcast"})), INVALID),
        ("no audience", signed(&json!({"aud": null})), INVALID),
        ("an audience that is an object", signed(&json!({"aud": {"taskcast": true}})), INVALID),
        ("another issuer", signed(&json!({"iss": "https://evil.test"})), INVALID),
        ("an issuer that begins alike", signed(&json!({"iss": "https://id.example.com.evil.test"})), INVALID),
        ("no issuer", signed(&json!({"iss": null})), INVALID),
        ("not yet", signed(&json!({"nbf": in_seconds(3600)})), INVALID),
        ("not yet, in words", signed(&json!({"nbf": "tomorrow"})), INVALID),
        ("not for a very long time", signed(&json!({"nbf": u64::MAX})), INVALID),
        ("no more", signed(&json!({"exp": in_seconds(-1)})), EXPIRED),
        ("a refresh token", signed(&json!({"type": "refresh"})), INVALID),
        ("another secret", forge(HEADER, &claims(&json!({})), b"another secret of more than 32 bytes"), INVALID),
        ("nobody's", signed(&json!({"sub": null})), INVALID),
        ("whose name has a control character", signed(&json!({"sub": "u1\n"})), INVALID),
        ("whose name is too long", signed(&json!({"sub": "u".repeat(256)})), INVALID),
    ];
    judge(Target::start(&SETTINGS).await, &table).await;
}

/// `exp` as something that a careless check takes for "for ever", or that overflows where dates are computed.
#[tokio::test]
async fn an_expiry_that_is_no_date_is_refused_and_a_far_one_breaks_nothing() {
    let raw = |exp: &str| {
        let claims = claims(&json!({"exp": "EXP"})).replace("\"EXP\"", exp);
        forge(HEADER, &claims, SECRET.as_bytes())
    };
    let table = [
        ("a good one", signed(&json!({})), ACCEPTED),
        ("a string", raw(&format!("\"{}\"", in_seconds(600))), INVALID),
        ("true", raw("true"), INVALID),
        ("null", raw("null"), INVALID),
        ("a list", raw(&format!("[{}]", in_seconds(600))), INVALID),
        ("an object", raw("{}"), INVALID),
        ("below zero", raw("-1"), INVALID),
        ("far below zero", raw("-1e300"), INVALID),
        ("more than a number can be", raw("1e999"), INVALID),
        ("a number of 400 digits", raw(&"9".repeat(400)), INVALID),
        ("twice", raw(&format!("1,\"exp\":{}", in_seconds(600))), INVALID),
        ("a fraction that is over", raw("1.5"), INVALID),
        ("a fraction", raw(&format!("{}.5", in_seconds(600))), INVALID),
        ("a whole number written as a fraction", raw(&format!("{}.0", in_seconds(600))), INVALID),
        ("the year 10000", raw("253402300800"), ACCEPTED),
        ("milliseconds taken for seconds", raw("1790000000000"), ACCEPTED),
        ("all time", raw(&u64::MAX.to_string()), ACCEPTED),
        ("more than all time", raw("1e300"), INVALID),
    ];
    judge(Target::start(&SETTINGS).await, &table).await;
}

/// What is no token at all: too long, with a zero or a line end in it, in pieces, nested, in another alphabet.
#[tokio::test]
async fn what_is_no_token_is_refused_everywhere_and_never_told() {
    let good = signed(&json!({}));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let long = signed(&json!({"pad": "x".repeat(8 * 1024)}));
    let nested = format!("{{\"alg\":\"HS256\",\"x\":{}{}}}", "[".repeat(3000), "]".repeat(3000));
    let critical = r#"{"alg":"HS256","crit":["b64"],"b64":false}"#;
    let table = [
        ("a good one", good.clone(), ACCEPTED),
        ("8 KB and more", long, INVALID),
        ("60 KB of one letter", "a".repeat(50_000), INVALID),
        ("a zero behind it", format!("{good}\0"), INVALID),
        ("a zero before it", format!("\0{good}"), INVALID),
        ("a zero within", format!("{message}\0.{signature}"), INVALID),
        ("a line end within", format!("{message}.\r\n{signature}"), INVALID),
        ("no signature", format!("{message}."), INVALID),
        ("no dots", "garbage".to_owned(), INVALID),
        ("dots only", "....".to_owned(), INVALID),
        ("a piece too many", format!("{good}.{signature}"), INVALID),
        ("padding", format!("{good}="), INVALID),
        ("the other alphabet", good.replace(['-', '_'], "+") + "/", INVALID),
        ("a signature with its last bits changed", format!("{message}.{}", tamper(signature)), INVALID),
        ("a header as deep as it is long", forge(&nested, &claims(&json!({})), SECRET.as_bytes()), INVALID),
        ("claims that are a list", forge(HEADER, "[]", SECRET.as_bytes()), INVALID),
        ("claims that are no JSON", forge(HEADER, "{\"sub\":", SECRET.as_bytes()), INVALID),
        ("what must be understood", forge(critical, &claims(&json!({})), SECRET.as_bytes()), INVALID),
        ("rights that are none", signed(&json!({"taskcast": {"watch": "all"}})), INVALID),
    ];
    judge(Target::start(&SETTINGS).await, &table).await;
}

/// Another signature in base64's clothes: the last digit carries bits that a careless decoder drops.
fn tamper(signature: &str) -> String {
    let last = signature.chars().last().unwrap();
    let other = if last == 'A' { 'B' } else { char::from(last as u8 ^ 1) };
    let other = if other.is_ascii_alphanumeric() { other } else { 'A' };
    format!("{}{other}", &signature[..signature.len() - 1])
}
