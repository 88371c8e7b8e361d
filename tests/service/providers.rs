//! The service and those who know tokens: keys that rotate under open connections, issuers that are away when it starts,
//! opaque tokens, secrets in files.

use std::process::Stdio;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use serde_json::{Value, json};
use taskcast::clock;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{
    harness::{Client, PATIENCE, SECRET, Service, binary, http, http_whole, until},
    support::{
        brokers::free_port,
        identity_provider::{IdentityProvider, Reply},
    },
};

/// A key pair of an issuer.
struct Pair(EncodingKey);

impl Pair {
    fn new() -> Self {
        let made = std::process::Command::new("openssl").args(["genpkey", "-algorithm", "ED25519"]).output().unwrap();
        Self(EncodingKey::from_ed_pem(&made.stdout).unwrap())
    }

    fn jwk(&self, name: &str) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.0, Algorithm::EdDSA).unwrap()).unwrap();
        jwk["kid"] = json!(name);
        jwk
    }

    fn bearer(&self, name: &str, user: &str) -> String {
        let header = Header { kid: Some(name.to_owned()), ..Header::new(Algorithm::EdDSA) };
        let claims = json!({"sub": user, "exp": clock::now().unix_ms / 1000 + 600});
        format!("Bearer {}", encode(&header, &claims, &self.0).unwrap())
    }
}

async fn status(service: &Service, bearer: &str) -> u16 {
    http(service.port, "GET", "/api/v1/tasks", &[("Authorization", bearer)], "").await.0
}

/// A client with this token, once the service has answered.
async fn connect(service: &Service, bearer: &str) -> Client {
    Client::connect(service.port, "/ws/tasks/", &[("Authorization", bearer)]).await
}

#[tokio::test]
async fn a_rotation_of_an_issuers_keys_leaves_open_connections_alone_and_lets_new_tokens_in() {
    let (old, new) = (Pair::new(), Pair::new());
    let provider = IdentityProvider::start(Reply::json(&json!({"keys": [old.jwk("old")]}))).await;
    let jwks = provider.url("/jwks");
    let service = Service::start(&[("TASKCAST_AUTH_SECRET", ""), ("TASKCAST_AUTH_JWKS", &jwks)]).await;
    let mut before = connect(&service, &old.bearer("old", "u1")).await;
    before.until("active_tasks").await;
    provider.reply(Reply::json(&json!({"keys": [new.jwk("new")]})));
    let mut after = connect(&service, &new.bearer("new", "u2")).await;
    assert_eq!(after.until("connection_established").await["user_id"], "u2");
    before.settle().await;
    let mut late = connect(&service, &old.bearer("old", "u1")).await;
    assert_eq!(late.next().await["error_code"], "INVALID_TOKEN");
    assert_eq!(late.closed().await, Some(4001));
}

#[tokio::test]
async fn a_service_starts_without_its_issuer_puts_callers_off_and_lets_them_in_when_it_is_there() {
    let pair = Pair::new();
    let mut provider = IdentityProvider::away(Reply::json(&json!({"keys": [pair.jwk("a")]})));
    let jwks = provider.url("/jwks");
    let service = Service::start(&[("TASKCAST_AUTH_SECRET", ""), ("TASKCAST_AUTH_JWKS", &jwks)]).await;
    let bearer = pair.bearer("a", "u1");
    let (_, readiness) = service.operations("/readyz").await;
    let readiness: Value = serde_json::from_str(&readiness).unwrap();
    assert_eq!((&readiness["ready"], &readiness["authentication"]["ok"]), (&json!(true), &json!(false)));
    let mut client = connect(&service, &bearer).await;
    assert_eq!(client.next().await["error_code"], "UNAVAILABLE", "no authentication_error: the token may be good");
    assert_eq!(client.closed().await, Some(1013));
    let (code, head, body) = http_whole(service.port, "GET", "/api/v1/tasks", &[("Authorization", &bearer)], "").await;
    assert!(
        code == 503
            && head.to_ascii_lowercase().contains("retry-after: ")
            && body.contains("authentication-unavailable")
    );
    // Whoever is refused for sure is told so all the same.
    assert_eq!(status(&service, "Bearer garbage").await, 401);
    provider.come().await;
    until("the token is good", async || status(&service, &bearer).await == 200).await;
    connect(&service, &bearer).await.until("active_tasks").await;
    assert!(service.metric("taskcast_authentication_unavailable_total").await >= 2);
}

#[tokio::test]
async fn opaque_tokens_open_every_door_and_a_provider_that_is_down_opens_none() {
    let mut provider = IdentityProvider::start(Reply::status(500)).await;
    provider.reply_by(|request| {
        let is_worker = request.contains("token=worker&");
        let user = ["u1", "u2"].into_iter().find(|user| request.contains(&format!("token={user}&")));
        Reply::json(&match user {
            Some(user) => json!({"active": true, "sub": user}),
            None if is_worker => json!({"active": true, "scope": "taskcast:publish"}),
            None => json!({"active": false}),
        })
    });
    let url = provider.url("/introspect");
    let service = Service::start(&[
        ("TASKCAST_AUTH_SECRET", ""),
        ("TASKCAST_AUTH_MODE", "introspection"),
        ("TASKCAST_AUTH_INTROSPECTION_URL", &url),
    ])
    .await;
    let mut client = connect(&service, "Bearer u1").await;
    client.until("active_tasks").await;
    let event = json!({"task_id": "t1", "user_id": "u1", "progress": 40}).to_string();
    let headers = [("Authorization", "Bearer worker"), ("Content-Type", "application/json")];
    assert_eq!(http(service.port, "POST", "/api/v1/events", &headers, &event).await.0, 202);
    assert_eq!(client.until("task_progress").await["task_id"], "t1");
    let mut nobody = connect(&service, "Bearer nobody").await;
    assert_eq!(
        (nobody.next().await["error_code"].clone(), nobody.closed().await),
        (json!("EXPIRED_TOKEN"), Some(4001))
    );
    let mut first_frame = Client::connect(service.port, "/ws/tasks/", &[]).await;
    first_frame.say(&json!({"type": "auth", "token": "u2"})).await;
    assert_eq!(first_frame.until("connection_established").await["user_id"], "u2");
    provider.leave().await;
    assert_eq!((status(&service, "Bearer u1").await, status(&service, "Bearer u3").await), (200, 503));
}

/// `serve` with everything logged; the lines as they come.
async fn lines_of(environment: &[(&str, &str)], mut each: impl FnMut(&str) -> bool) {
    let mut command = tokio::process::Command::from(binary());
    command.arg("serve").env("TASKCAST_LOG_LEVEL", "trace").envs(environment.iter().copied());
    command.env("TASKCAST_LISTEN", format!("127.0.0.1:{}", free_port()));
    command.env("TASKCAST_OPERATIONS_LISTEN", format!("127.0.0.1:{}", free_port()));
    let mut service = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(service.stderr.take().unwrap()).lines();
    let read = async { while !each(&lines.next_line().await.unwrap().expect("it runs")) {} };
    tokio::time::timeout(PATIENCE, read).await.expect("the line that was waited for");
}

#[tokio::test]
async fn no_level_of_the_log_shows_a_secret_that_is_read_again_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, SECRET).unwrap();
    let file = path.to_str().unwrap();
    let mut has_begun = false;
    let mut refusals = 0;
    lines_of(&[("TASKCAST_AUTH_SECRET_FILE", file)], |line| {
        assert!(!line.contains(SECRET) && !line.contains("hunter2"), "{line}");
        if !has_begun && line.contains("listening") {
            has_begun = true;
            std::fs::write(&path, "hunter2").unwrap();
        }
        if line.contains("cannot be used") {
            refusals += 1;
            std::fs::write(&path, "hunter2-hunter2-hunter2-hunter2-hunter2").unwrap();
        }
        refusals == 1 && line.contains("the new ones are in use")
    })
    .await;
}

#[tokio::test]
async fn no_level_of_the_log_shows_what_a_provider_is_asked() {
    let provider = IdentityProvider::start(Reply::status(401)).await;
    let url = provider.url("/introspect?key=hunter2");
    let (port, operations) = (free_port(), free_port());
    let mut command = tokio::process::Command::from(binary());
    command.arg("serve").env("TASKCAST_LOG_LEVEL", "trace").env("TASKCAST_AUTH_MODE", "introspection");
    command.env("TASKCAST_AUTH_INTROSPECTION_URL", &url).env("TASKCAST_AUTH_INTROSPECTION_CLIENT_ID", "taskcast");
    command.env("TASKCAST_AUTH_INTROSPECTION_CLIENT_SECRET", "hunter2-client");
    command.env("TASKCAST_LISTEN", format!("127.0.0.1:{port}"));
    command.env("TASKCAST_OPERATIONS_LISTEN", format!("127.0.0.1:{operations}"));
    let mut service = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(service.stderr.take().unwrap()).lines();
    let mut asking = None;
    loop {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().expect("it runs");
        // The password as HTTP Basic writes it, too.
        assert!(!line.contains("hunter2") && !line.contains("dGFza2Nhc3Q6"), "{line}");
        if line.contains("listening") {
            asking = Some(tokio::spawn(async move {
                http(port, "GET", "/api/v1/tasks", &[("Authorization", "Bearer hunter2-token")], "").await.0
            }));
        }
        if line.contains("own credentials") {
            break;
        }
    }
    assert_eq!(asking.expect("it was asked").await.unwrap(), 503);
}

#[tokio::test]
async fn a_token_that_its_provider_revokes_ends_its_open_connection_and_an_outage_does_not() {
    let mut provider = IdentityProvider::start(Reply::status(500)).await;
    let knows = |good: &'static [&'static str]| {
        move |request: &str| {
            let token = good.iter().find(|token| request.contains(&format!("token={token}&")));
            Reply::json(&token.map_or(json!({"active": false}), |_| json!({"active": true, "sub": "u1"})))
        }
    };
    provider.reply_by(knows(&["first", "other", "fresh"]));
    let url = provider.url("/introspect");
    let service = Service::start(&[
        ("TASKCAST_AUTH_SECRET", ""),
        ("TASKCAST_AUTH_MODE", "introspection"),
        ("TASKCAST_AUTH_INTROSPECTION_URL", &url),
        ("TASKCAST_AUTH_INTROSPECTION_CACHE_SECONDS", "1"),
    ])
    .await;
    let mut revoked = connect(&service, "Bearer first").await;
    let mut other = connect(&service, "Bearer other").await;
    let mut refreshed = connect(&service, "Bearer first").await;
    for client in [&mut revoked, &mut other, &mut refreshed] {
        client.until("active_tasks").await;
    }
    refreshed.say(&json!({"type": "refresh_token", "token": "fresh"})).await;
    refreshed.until("token_refreshed").await;
    provider.leave().await;
    let failed = "taskcast_introspections_total{outcome=\"failed\"}";
    until("it was asked in vain", async || service.metric(failed).await >= 3).await;
    for client in [&mut revoked, &mut other, &mut refreshed] {
        client.settle().await;
    }
    provider.reply_by(knows(&["other", "fresh"]));
    provider.come().await;
    assert_eq!(revoked.until("authentication_error").await["error_code"], "EXPIRED_TOKEN");
    assert_eq!(revoked.closed().await, Some(4001));
    other.settle().await;
    refreshed.settle().await;
    provider.leave().await;
    assert_eq!(other.until("error").await["error_code"], "UNAVAILABLE", "not for ever");
    assert_eq!(other.closed().await, Some(1013));
}

#[tokio::test]
async fn a_token_whose_end_moves_while_it_is_used_keeps_its_connection_and_ends_when_it_moves_no_more() {
    let provider = IdentityProvider::start(Reply::status(500)).await;
    let seconds = || clock::now().unix_ms / 1000;
    provider.reply_by(move |_| Reply::json(&json!({"active": true, "sub": "u1", "exp": seconds() + 3})));
    let url = provider.url("/introspect");
    let service = Service::start(&[
        ("TASKCAST_AUTH_SECRET", ""),
        ("TASKCAST_AUTH_MODE", "introspection"),
        ("TASKCAST_AUTH_INTROSPECTION_URL", &url),
        ("TASKCAST_AUTH_LEEWAY_SECONDS", "0"),
        ("TASKCAST_AUTH_INTROSPECTION_NEGATIVE_CACHE_SECONDS", "1"),
        // So that only its end is a reason to ask again.
        ("TASKCAST_AUTH_INTROSPECTION_CACHE_SECONDS", "3600"),
    ])
    .await;
    let mut client = connect(&service, "Bearer own").await;
    client.until("active_tasks").await;
    let mut ends = Vec::new();
    for _ in 0..3 {
        ends.push(client.until("token_expiring").await["token_expires_at"].clone());
        ends.push(client.until("token_refreshed").await["token_expires_at"].clone());
    }
    assert!(ends.is_sorted_by_key(|end| end.as_str().map(str::to_owned)) && ends[0] != ends[5], "{ends:?}");
    client.settle().await;
    let end = seconds() + 1;
    provider.reply_by(move |_| Reply::json(&json!({"active": seconds() < end, "sub": "u1", "exp": end})));
    assert_eq!(client.until("authentication_error").await["error_code"], "EXPIRED_TOKEN");
    assert_eq!(client.closed().await, Some(4001));
    // The same token opens a door as long as its provider says so, whatever it said before.
    provider.reply_by(move |_| Reply::json(&json!({"active": true, "sub": "u1", "exp": seconds() + 3})));
    let asked = provider.count();
    until("it was asked again", async || status(&service, "Bearer own").await == 200 && provider.count() >= asked + 2)
        .await;
}
