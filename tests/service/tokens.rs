//! Tokens beyond the handshake: a fresh one on an open connection, one that is revoked, one that shows a single task.

use std::{
    process::{Command, Output},
    time::Duration,
};

use jsonwebtoken::{EncodingKey, Header};
use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use serde_json::{Value, json};
use taskcast::{auth, clock, proto::UserId};

use crate::{
    harness::{Client, SECRET, Service, binary, http, settings, token_for, token_with, until},
    support::{
        self,
        brokers::{RabbitServer, RedisServer},
        unique,
    },
};

fn now_seconds() -> u64 {
    clock::now().unix_ms / 1000
}

/// A token of these claims.
fn sign(claims: &Value) -> String {
    support::install_crypto();
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// A token with a name of its own.
fn named(user: &str, id: &str) -> String {
    sign(&json!({"sub": user, "jti": id, "iat": now_seconds() - 5, "exp": now_seconds() + 600}))
}

async fn connect(service: &Service, path: &str, token: &str) -> Client {
    Client::connect(service.port, path, &[("Authorization", &format!("Bearer {token}"))]).await
}

async fn attach(service: &Service, token: &str) -> Client {
    let mut client = connect(service, "/ws/tasks/", token).await;
    client.until("active_tasks").await;
    client
}

/// The last word and the close code.
async fn refusal(mut client: Client) -> (String, Option<u16>) {
    let code = client.closed().await;
    let last = client.frames.last().cloned().unwrap_or_default();
    assert_eq!(last["type"], "authentication_error", "{last}");
    (last["error_code"].as_str().unwrap_or_default().to_owned(), code)
}

async fn revoke(service: &Service, body: &Value) -> (u16, Value) {
    let right = sign(&json!({"exp": now_seconds() + 60, "taskcast": {"revoke": true}}));
    let headers = [("Authorization", &*format!("Bearer {right}")), ("Content-Type", "application/json")];
    let (status, answer) = http(service.port, "POST", "/api/v1/revocations", &headers, &body.to_string()).await;
    (status, serde_json::from_str(&answer).unwrap_or(Value::Null))
}

/// Publishes a task and waits until it is there to be seen.
async fn show(service: &Service, task: &str, owner: Option<&str>, parent: Option<&str>) {
    service.publish(&json!({"task_id": task, "user_id": owner, "parent_id": parent, "progress": 10})).await;
    let path = format!("/api/v1/tasks/{task}");
    let all = token_with("all", &["all"], false);
    until("the task is there", async || rest(service, &all, "GET", &path).await.0 == 200).await;
}

const INVALID: &str = "INVALID_TOKEN";

#[tokio::test]
async fn a_fresh_token_keeps_the_connection_beyond_the_end_of_the_first_and_nothing_is_missed() {
    let service = Service::start(&[
        ("TASKCAST_AUTH_LEEWAY_SECONDS", "0"),
        ("TASKCAST_SESSIONS_TOKEN_EXPIRING_LEAD_MS", "1000"),
        ("TASKCAST_SESSIONS_TOKEN_GRACE_MS", "60000"),
    ])
    .await;
    let short = token_for("u1", &["own"], false, Duration::from_secs(3));
    let mut client = attach(&service, &short).await;
    let told = client.until("token_expiring").await;
    let expires_at = told["token_expires_at"].as_str().unwrap().to_owned();
    assert!(told["refresh_until"].as_str().unwrap() > expires_at.as_str());
    // Its own end does it no good, and neither does another's token.
    for (refused, why) in [(short, "expired"), (named("u2", "x"), "another user")] {
        until("the first token is over", async || taskcast::proto::rfc3339(clock::now().unix_ms) > expires_at).await;
        client.say(&json!({"type": "refresh_token", "token": refused, "id": 1})).await;
        let answer = client.next().await;
        assert_eq!((&answer["error_code"], &answer["id"]), (&json!("TOKEN_REFUSED"), &json!(1)), "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(why), "{answer}");
    }
    let mut witness = attach(&service, &named("u1", "witness")).await;
    service.publish(&json!({"task_id": "t1", "user_id": "u1", "progress": 50})).await;
    witness.until("task_progress").await;
    for _ in 0..3 {
        client.settle().await;
    }
    assert!(!client.types().contains(&"task_progress"), "nothing is shown to who has no token");
    client.say(&json!({"type": "refresh_token", "token": named("u1", "fresh"), "id": 2})).await;
    let answer = client.next().await;
    assert_eq!((&answer["type"], &answer["id"]), (&json!("token_refreshed"), &json!(2)), "{answer}");
    assert_eq!(client.until("task_progress").await["task_id"], "t1");
    assert_eq!(service.metric("taskcast_token_refreshes_total{outcome=\"refreshed\"}").await, 1);
    assert_eq!(service.metric("taskcast_token_refreshes_total{outcome=\"refused\"}").await, 1);
    assert_eq!(service.metric("taskcast_token_refreshes_total{outcome=\"another_user\"}").await, 1);
}

#[tokio::test]
async fn who_sends_no_fresh_token_is_closed_with_4001() {
    let service =
        Service::start(&[("TASKCAST_AUTH_LEEWAY_SECONDS", "0"), ("TASKCAST_SESSIONS_TOKEN_GRACE_MS", "100")]).await;
    let short = token_for("u1", &["own"], false, Duration::from_secs(5));
    let client = attach(&service, &short).await;
    assert_eq!(refusal(client).await, ("EXPIRED_TOKEN".to_owned(), Some(4001)));
}

#[tokio::test]
async fn a_token_beyond_the_year_9999_is_as_good_as_any() {
    let service = Service::start(&[]).await;
    for exp in [json!(u64::MAX), json!(9_999_999_999_999_u64), json!(400_000_000_000_u64)] {
        let mut client = connect(&service, "/ws/tasks/", &sign(&json!({"sub": "u1", "exp": exp}))).await;
        assert_eq!(client.next().await["token_expires_at"], "9999-12-31T23:59:59.999Z");
        client.until("active_tasks").await;
        client.settle().await;
    }
}

#[tokio::test]
async fn a_revoked_token_ends_open_connections_on_every_replica_and_opens_none() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let environment = [("TASKCAST_LOG", url.as_str())];
    let (mut one, two) = tokio::join!(Service::start(&environment), Service::start(&environment));
    let (stolen, other) = (named("u1", "stolen"), named("u1", "other"));
    let (on_one, on_two) = (attach(&one, &stolen).await, attach(&two, &stolen).await);
    let mut kept = attach(&two, &other).await;
    let (status, answer) = revoke(&one, &json!({"jti": "stolen"})).await;
    assert_eq!((status, &answer["revoked"]), (202, &json!({"jti": "stolen"})), "{answer}");
    let ended = tokio::time::timeout(Duration::from_secs(5), async { (refusal(on_one).await, refusal(on_two).await) });
    let revoked = (INVALID.to_owned(), Some(4001));
    assert_eq!(ended.await.expect("within seconds"), (revoked.clone(), revoked.clone()));
    kept.settle().await;
    for service in [&one, &two] {
        assert_eq!(service.metric("taskcast_sessions_revoked_total").await, 1);
        assert_eq!(service.metric("taskcast_revocations ").await, 1);
        assert_eq!(refusal(connect(service, "/ws/tasks/", &stolen).await).await, revoked);
        let bearer = format!("Bearer {stolen}");
        let (status, body) = http(service.port, "GET", "/api/v1/tasks", &[("Authorization", &bearer)], "").await;
        assert_eq!(status, 401);
        assert!(body.contains(INVALID) && body.contains("revoked"), "{body}");
    }
    one.kill_and_restart().await;
    assert_eq!(refusal(connect(&one, "/ws/tasks/", &stolen).await).await, revoked);
    attach(&one, &other).await.settle().await;
    assert_eq!(one.metric("outcome=\"malformed\"").await, 0);
}

#[tokio::test]
async fn a_user_can_be_revoked_straight_through_redis_and_sign_in_again() {
    let redis = RedisServer::start().await;
    let service = Service::start(&[("TASKCAST_LOG", &redis.url())]).await;
    let client = attach(&service, &named("u1", "a")).await;
    let mut other = attach(&service, &named("u2", "b")).await;
    redis.cli(&["XADD", "taskcast:events", "*", "event", r#"{"revoke":{"user_id":"u1"}}"#]).await;
    assert_eq!(refusal(client).await, (INVALID.to_owned(), Some(4001)));
    other.settle().await;
    let late = sign(&json!({"sub": "u1", "iat": now_seconds() + 2, "exp": now_seconds() + 60}));
    attach(&service, &late).await.settle().await;
    let says_nothing = sign(&json!({"sub": "u1", "exp": now_seconds() + 60}));
    assert_eq!(refusal(connect(&service, "/ws/tasks/", &says_nothing).await).await.0, INVALID);
}

#[tokio::test]
async fn a_token_can_be_revoked_through_rabbitmq_and_a_user_by_http_there_too() {
    let rabbit = RabbitServer::shared().await;
    let (url, key, exchange) = (rabbit.url(), unique("revocation-queue"), unique("revocation-exchange"));
    let environment = [
        ("TASKCAST_LOG", url.as_str()),
        ("TASKCAST_LOG_KEY", key.as_str()),
        ("TASKCAST_LOG_EXCHANGE", exchange.as_str()),
    ];
    let mut service = Service::start(&environment).await;
    let (first, second) = (attach(&service, &named("u1", "a")).await, attach(&service, &named("u2", "b")).await);
    let connection = rabbit.connect().await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let publish = async |record: &[u8]| {
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        let sent = channel.basic_publish(exchange.as_str().into(), "task.revoke".into(), options, record, properties);
        sent.await.unwrap().await.unwrap();
    };
    publish(br#"{"revoke":{"jti":"a"}}"#).await;
    assert_eq!(refusal(first).await.0, INVALID);
    // RabbitMQ does not say when it took this, so nobody knows which tokens are meant.
    publish(br#"{"revoke":{"user_id":"u2"}}"#).await;
    until("it is malformed", async || service.metric("reason=\"missing\"").await == 1).await;
    assert_eq!(revoke(&service, &json!({"user_id": "u2"})).await.0, 202);
    assert_eq!(refusal(second).await.0, INVALID);
    service.kill_and_restart().await;
    for (user, id) in [("u1", "a"), ("u2", "b")] {
        assert_eq!(refusal(connect(&service, "/ws/tasks/", &named(user, id)).await).await.0, INVALID, "{user}");
    }
}

#[tokio::test]
async fn a_revocation_outlives_the_events_of_the_log_in_the_checkpoint() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let mut service =
        Service::start(&[("TASKCAST_LOG", url.as_str()), ("TASKCAST_CHECKPOINT_INTERVAL_SECONDS", "1")]).await;
    let stolen = named("u1", "stolen");
    let client = attach(&service, &stolen).await;
    assert_eq!(revoke(&service, &json!({"jti": "stolen", "expires_at": now_seconds() + 600})).await.0, 202);
    refusal(client).await;
    let written = "taskcast_checkpoint_writes_total{outcome=\"written\"}";
    let begun = service.metric(written).await;
    until("a checkpoint is written", async || service.metric(written).await > begun + 1).await;
    service.kill();
    redis.cli(&["XTRIM", "taskcast:events", "MAXLEN", "1"]).await;
    service.kill_and_restart().await;
    assert_eq!(service.metric("taskcast_checkpoint_loads_total{outcome=\"loaded\"}").await, 1);
    assert_eq!(refusal(connect(&service, "/ws/tasks/", &stolen).await).await.0, INVALID);
}

#[tokio::test]
async fn only_who_may_revokes_and_what_cannot_be_read_revokes_nothing() {
    let service = Service::start(&[]).await;
    let path = "/api/v1/revocations";
    let body = r#"{"jti":"a"}"#;
    assert_eq!(http(service.port, "POST", path, &[], body).await.0, 401);
    let powerful = format!("Bearer {}", token_with("u1", &["all"], true));
    assert_eq!(http(service.port, "POST", path, &[("Authorization", &powerful)], body).await.0, 403);
    assert_eq!(http(service.port, "GET", path, &[], "").await.0, 405);
    for (bad, field) in [
        (json!({}), json!("revoke")),
        (json!({"jti": 7}), json!("revoke.jti")),
        (json!({"user_id": "u1", "issued_before": now_seconds() + 3_600}), json!("revoke.issued_before")),
        (json!({"jti": "a", "expires_at": now_seconds() - 7_200}), json!("revoke.expires_at")),
        (json!([]), json!(null)),
    ] {
        let (status, answer) = revoke(&service, &bad).await;
        assert_eq!((status, &answer["field"]), (400, &field), "{bad}: {answer}");
    }
    assert_eq!(revoke(&service, &json!({"jti": "x".repeat(5_000)})).await.0, 413);
    assert_eq!(service.metric("taskcast_revocations_total").await, 0);
    // It is no event either.
    let (status, answer) = service.post(r#"{"revoke":{"jti":"a"}}"#, "application/json").await;
    assert_eq!((status, &answer["errors"][0]["field"]), (400, &json!("task_id")));
}

#[tokio::test]
async fn the_command_revokes_over_the_log_and_says_what_is_wrong() {
    let redis = RedisServer::start().await;
    let service = Service::start(&[("TASKCAST_LOG", &redis.url())]).await;
    let (first, second) = (attach(&service, &named("u1", "a")).await, attach(&service, &named("u2", "b")).await);
    let mut kept = attach(&service, &named("u3", "c")).await;
    let revoke = |arguments: &[&str]| {
        let output = binary().env("TASKCAST_LOG", redis.url()).arg("revoke").args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(revoke(&["--jti", "a", "--expires-at", "4000000000"]).0, Some(0));
    assert_eq!(revoke(&["--user", "u2"]).0, Some(0));
    assert_eq!(revoke(&["--user", "u3", "--issued-before", "2026-01-01T00:00:00Z"]).0, Some(0));
    assert_eq!((refusal(first).await.0, refusal(second).await.0), (INVALID.to_owned(), INVALID.to_owned()));
    until("all are read", async || service.metric("taskcast_revocations_total").await == 3).await;
    kept.settle().await;
    let (code, complaint) = revoke(&["--user", "u1", "--issued-before", "yesterday"]);
    assert!(code == Some(1) && complaint.contains("issued_before"), "{code:?} {complaint}");
    // What would do nothing is not taken in silence.
    for (nothing, field) in [
        (&["--jti", "a", "--expires-at", "2020-01-01T00:00:00Z"][..], "expires_at"),
        (&["--user", "u1", "--expires-at", "1600000000"], "expires_at"),
        (&["--user", "u1", "--issued-before", "4000000000"], "issued_before"),
    ] {
        let (code, complaint) = revoke(nothing);
        assert!(code == Some(1) && complaint.contains(field), "{nothing:?} {code:?} {complaint}");
    }
    for wrong in [&[][..], &["--jti", "a", "--user", "u1"], &["--jti", "a", "--issued-before", "1"]] {
        assert_eq!(revoke(wrong).0, Some(64), "{wrong:?}");
    }
    let memory = binary().args(["revoke", "--jti", "a"]).output().unwrap();
    assert!(String::from_utf8_lossy(&memory.stderr).contains("POST /api/v1/revocations"));
}

/// What `taskcast token` prints with these arguments.
fn minted(arguments: &[&str]) -> Output {
    binary().env("TASKCAST_AUTH_SECRET", SECRET).arg("token").args(arguments).output().unwrap()
}

fn link(arguments: &[&str]) -> String {
    let output = minted(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn rest(service: &Service, token: &str, method: &str, path: &str) -> (u16, Value) {
    let body = if method == "POST" { r#"{"task_id":"t1"}"# } else { "" };
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let (status, body) = http(service.port, method, path, &headers, body).await;
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_link_to_a_task_shows_that_task_and_nothing_else_does() {
    let service = Service::start(&[]).await;
    for (task, owner) in [("t1", Some("u1")), ("t2", Some("u1")), ("t3", None)] {
        show(&service, task, owner, None).await;
    }
    let token = link(&["--task", "t1", "--read-only", "--expires", "2h", "--id", "share-1"]);
    for path in ["/ws/tasks/", "/ws/tasks/t1/", "/ws/tasks/?watch=all"] {
        let mut client = connect(&service, path, &token).await;
        assert_eq!(client.next().await["user_id"], Value::Null, "{path}");
        client.until("active_tasks").await;
        assert_eq!(client.bars().into_keys().collect::<Vec<_>>(), ["t1"], "{path}");
    }
    let mut client = connect(&service, "/ws/tasks/t2/", &token).await;
    client.until("active_tasks").await;
    for (message, answer) in [
        (json!({"type": "subscribe", "task_id": "t3"}), "subscribed"),
        (json!({"type": "subscribe", "tag": "x"}), "error"),
        (json!({"type": "get_task_status", "task_id": "t2"}), "task_status"),
        (json!({"type": "cancel_task", "task_id": "t1"}), "task_cancelled"),
    ] {
        client.say(&message).await;
        let frame = client.next().await;
        assert_eq!(frame["type"], answer, "{frame}");
        assert!(frame["task"].is_null() && frame["success"] != true, "{frame}");
    }
    let mut witness = attach(&service, &token_with("u1", &["all"], false)).await;
    for task in ["t2", "t3"] {
        service.publish(&json!({"task_id": task, "progress": 20})).await;
        witness.until("task_progress").await;
    }
    for _ in 0..3 {
        client.settle().await;
    }
    assert!(client.bars().is_empty(), "{:?}", client.bars());
    assert_eq!(rest(&service, &token, "GET", "/api/v1/tasks/t1").await.0, 200);
    assert_eq!(rest(&service, &token, "GET", "/api/v1/tasks/t2").await.0, 404);
    let (_, list) = rest(&service, &token, "GET", "/api/v1/tasks?root=t2").await;
    assert_eq!((&list["total"], &list["tasks"]), (&json!(0), &json!([])));
    assert_eq!(rest(&service, &token, "GET", "/api/v1/tasks").await.1["total"], 1);
    assert_eq!(rest(&service, &token, "POST", "/api/v1/events").await.0, 403);
    assert_eq!(rest(&service, &token, "POST", "/api/v1/revocations").await.0, 403);
    // It can be taken back.
    assert_eq!(revoke(&service, &json!({"jti": "share-1"})).await.0, 202);
    until("the link is dead", async || rest(&service, &token, "GET", "/api/v1/tasks/t1").await.0 == 401).await;
}

#[tokio::test]
async fn a_link_to_a_group_that_any_back_end_mints_shows_the_group() {
    let service = Service::start(&[]).await;
    for (task, parent) in [("g", None), ("g1", Some("g")), ("other", None)] {
        show(&service, task, Some("u1"), parent).await;
    }
    // As the README has it for other languages.
    let by_hand = sign(&json!({"exp": now_seconds() + 60, "taskcast": {"watch": ["root:g"]}}));
    for token in [by_hand, link(&["--group", "g", "--read-only"])] {
        for path in ["/ws/tasks/", "/ws/groups/g/"] {
            let mut client = connect(&service, path, &token).await;
            client.until("active_tasks").await;
            assert_eq!(client.bars().into_keys().collect::<Vec<_>>(), ["g", "g1"], "{path}");
        }
        assert_eq!(rest(&service, &token, "GET", "/api/v1/tasks").await.1["total"], 2);
        assert_eq!(rest(&service, &token, "GET", "/api/v1/tasks/other").await.0, 404);
    }
}

/// The README's way for a shell; the ones for Python and JavaScript make the same claims with a library.
#[tokio::test]
async fn a_token_that_a_shell_signs_as_the_readme_says_shows_the_task() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let script = readme.split("```sh\n").find(|block| block.starts_with("base64url()")).expect("the example");
    let script = script.split("```").next().unwrap();
    let output = Command::new("sh").args(["-c", script]).env("TASKCAST_AUTH_SECRET", SECRET).output().unwrap();
    let token = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let service = Service::start(&[]).await;
    show(&service, "export-42", Some("u1"), None).await;
    let mut client = connect(&service, "/ws/tasks/", &token).await;
    client.until("active_tasks").await;
    assert_eq!(client.bars().into_keys().collect::<Vec<_>>(), ["export-42"]);
}

#[test]
fn a_token_to_share_does_nothing_else_and_has_a_name_to_revoke_it_by() {
    for more in ["--publish", "--cancel", "--revoke"] {
        let refused = minted(&["--task", "t1", "--read-only", more]);
        assert!(!refused.status.success(), "{more}");
    }
    support::install_crypto();
    let verifier = auth::Verifier::new(auth::Settings::Jwt(Box::new(settings()))).unwrap();
    let identity = |arguments: &[&str]| verifier.verify(Some(&link(arguments)), clock::now().unix_ms).unwrap();
    let shared = identity(&["--task", "t1", "--group", "g"]);
    assert_eq!((&shared.user, shared.rights.own, shared.rights.all), (&None, false, false));
    assert_eq!((shared.rights.tasks.len(), shared.rights.roots.len(), shared.rights.tags.len()), (1, 1, 0));
    let issued = shared.issued.unwrap();
    assert!(issued.token_id.is_some_and(|id| id.len() >= 32) && issued.at_ms.is_some());
    assert_eq!(identity(&["--user", "u1", "--id", "mine"]).issued.unwrap().token_id.as_deref(), Some("mine"));
    assert!(identity(&["--revoke"]).rights.revoke);
    assert_eq!(identity(&["--user", "u1", "--task", "t1"]).user, UserId::parse("u1").ok());
    assert!(!minted(&["--task", ""]).status.success());
}
