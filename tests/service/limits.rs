//! Limits as those meet them who are over them, and who is taken for whom behind a proxy.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use taskcast::clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::{
    harness::{Client, SECRET, Service, http_whole, token, token_with, until},
    support::{brokers::free_port, unique},
};

/// This machine is the proxy, and says for whom it comes.
const TRUSTED: (&str, &str) = ("TASKCAST_HTTP_TRUSTED_PROXIES", "127.0.0.0/8");

/// One connection for each request.
async fn get(service: &Service, client: &str, token: &str) -> (u16, String, String) {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("X-Forwarded-For", client)];
    http_whole(service.port, "GET", "/api/v1/tasks", &headers, "").await
}

/// The status of a handshake that is refused, or the client.
async fn connect(service: &Service, client: &str, user: &str) -> Result<Client, (u16, Option<u64>)> {
    let bearer = format!("Bearer {}", token(user));
    let headers = [("Authorization", bearer.as_str()), ("X-Forwarded-For", client)];
    Client::try_connect(service.port, "/ws/tasks/", &headers).await.map_err(|error| match error {
        tungstenite::Error::Http(response) => {
            let wait = response.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
            (response.status().as_u16(), wait)
        }
        other => panic!("{other}"),
    })
}

async fn refusals(service: &Service, limit: &str) -> u64 {
    service.metric(&format!("taskcast_limit_refusals_total{{limit=\"{limit}\"}}")).await
}

#[tokio::test]
async fn handshakes_from_one_address_are_let_through_at_the_rate_for_as_long_as_they_go_on() {
    let service = Service::start(&[TRUSTED, ("TASKCAST_LIMITS_HANDSHAKES_PER_MINUTE_PER_IP", "60")]).await;
    let began = clock::now().instant;
    let (mut accepted, mut refused) = (0, 0);
    while accepted < 60 || began.elapsed() < Duration::from_secs(6) {
        match connect(&service, "2001:db8:0:1::1", "u1").await {
            Ok(_) => accepted += 1,
            Err((429, Some(1))) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let come_back = began.elapsed().as_secs();
    // 60 at once, and one in each second since the first.
    assert!((60 + come_back - 1..=61 + come_back).contains(&accepted), "{accepted} in {come_back} s");
    assert_eq!(refusals(&service, "handshakes_per_minute_per_ip").await, refused);
    assert_eq!(service.metric("taskcast_handshakes_total{outcome=\"limited\"}").await, refused);
    // The rest of a network of 64 bits is the same neighbour, the next one is not.
    assert!(connect(&service, "2001:db8:0:2::1", "u1").await.is_ok());
    while connect(&service, "2001:db8:0:1::1", "u1").await.is_ok() {}
    assert!(connect(&service, "2001:db8:0:1:ffff::1", "u1").await.is_err());
}

#[tokio::test]
async fn an_address_that_guesses_tokens_is_banned_for_a_while_and_nobody_else() {
    let service = Service::start(&[
        TRUSTED,
        ("TASKCAST_LIMITS_FAILED_AUTHENTICATIONS_PER_MINUTE_PER_IP", "5"),
        ("TASKCAST_LIMITS_BAN_SECONDS", "10"),
    ])
    .await;
    let mut before = connect(&service, "192.0.2.1", "u1").await.ok().unwrap();
    before.until("active_tasks").await;
    let silent = [("X-Forwarded-For", "192.0.2.1")];
    let mut silent = Client::try_connect(service.port, "/ws/tasks/", &silent).await.unwrap();
    for _ in 0..3 {
        assert_eq!(get(&service, "192.0.2.1", "a.b.c").await.0, 401);
    }
    // Over WebSockets they count too.
    for _ in 0..3 {
        let headers = [("Authorization", "Bearer a.b.c"), ("X-Forwarded-For", "192.0.2.1")];
        let mut client = Client::try_connect(service.port, "/ws/tasks/", &headers).await.unwrap();
        assert_eq!(client.closed().await, Some(4001));
    }
    let (status, head, body) = get(&service, "192.0.2.1", &token("u1")).await;
    assert_eq!(status, 429, "{body}");
    assert!(head.to_ascii_lowercase().contains("retry-after: "), "{head}");
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["type"], "urn:taskcast:problem:too-many-requests");
    assert_eq!(problem["limit"], "failed_authentications_per_minute_per_ip");
    assert!(matches!(connect(&service, "192.0.2.1", "u1").await, Err((429, Some(1..=10)))));
    assert_eq!(get(&service, "192.0.2.2", &token("u1")).await.0, 200);
    assert_eq!(service.metric("taskcast_bans_total").await, 1);
    // Who came before the ban and says only now who they are is not listened to either.
    silent.say(&json!({"type": "authenticate", "token": token("u1")})).await;
    assert_eq!(silent.closed().await, Some(1013));
    assert_eq!(silent.frames[0]["error_code"], "UNAVAILABLE");
    // What it had open goes on, and when the ban is over it may come again.
    before.settle().await;
    until("the ban is over", async || get(&service, "192.0.2.1", &token("u1")).await.0 == 200).await;
}

#[tokio::test]
async fn connections_are_counted_by_address_and_by_user() {
    let service = Service::start(&[
        TRUSTED,
        ("TASKCAST_LIMITS_CONNECTIONS_PER_IP_MAX", "3"),
        ("TASKCAST_LIMITS_CONNECTIONS_PER_USER_MAX", "2"),
    ])
    .await;
    let mut kept = Vec::new();
    for user in ["u1", "u1", "u2"] {
        let mut client = connect(&service, "192.0.2.1", user).await.ok().unwrap();
        client.until("active_tasks").await;
        kept.push(client);
    }
    assert!(matches!(connect(&service, "192.0.2.1", "u3").await, Err((429, Some(_)))));
    let mut third = connect(&service, "192.0.2.2", "u1").await.ok().unwrap();
    assert_eq!(third.closed().await, Some(1008));
    assert_eq!(third.frames[0]["error_code"], "LIMIT_REACHED");
    assert_eq!(third.frames.len(), 1);
    assert_eq!(refusals(&service, "connections_per_ip_max").await, 1);
    assert_eq!(refusals(&service, "connections_per_user_max").await, 1);
    kept.clear();
    until("the places are free again", async || {
        let Ok(mut client) = connect(&service, "192.0.2.1", "u1").await else { return false };
        client.next().await["type"] == "connection_established"
    })
    .await;
}

#[tokio::test]
async fn a_link_in_public_has_so_many_connections_and_leaves_the_rest_to_others() {
    let service = Service::start(&[("TASKCAST_LIMITS_CONNECTIONS_PER_LINK_MAX", "2")]).await;
    let open = async |claims: Value| {
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let bearer = format!("Bearer {}", encode(&Header::default(), &claims, &key).unwrap());
        Client::connect(service.port, "/ws/tasks/", &[("Authorization", &bearer)]).await
    };
    let end = 4_000_000_000_u64;
    let link = |id: &str| json!({"jti": id, "exp": end, "taskcast": {"watch": ["task:t1"]}});
    // Without an id it is told by what it says, however it was signed.
    let nameless = |task: &str| json!({"iat": 7, "exp": end, "taskcast": {"watch": [task]}});
    for (one, another) in [(link("share-1"), link("share-2")), (nameless("task:t1"), nameless("task:t2"))] {
        let (mut first, mut second) = (open(one.clone()).await, open(one.clone()).await);
        first.until("active_tasks").await;
        second.until("active_tasks").await;
        let mut third = open(one.clone()).await;
        assert_eq!((third.closed().await, third.frames.len()), (Some(1008), 1));
        assert_eq!(third.frames[0]["error_code"], "LIMIT_REACHED");
        open(another).await.until("active_tasks").await;
        first.settle().await;
        drop(first);
        until("a place is free again", async || open(one.clone()).await.next().await["type"] != "error").await;
    }
    assert!(refusals(&service, "connections_per_link_max").await >= 2);
    // A token that names a user counts by the user, whatever its id.
    for _ in 0..3 {
        open(json!({"sub": "u1", "jti": "share-1", "exp": end, "taskcast": {"watch": ["own"]}}))
            .await
            .until("active_tasks")
            .await;
    }
}

#[tokio::test]
async fn a_user_that_connects_too_often_hears_so_and_comes_back_later() {
    let service = Service::start(&[("TASKCAST_LIMITS_HANDSHAKES_PER_MINUTE_PER_USER", "30")]).await;
    let began = clock::now().instant;
    let mut greeted = 0;
    while greeted < 30 || began.elapsed() < Duration::from_secs(6) {
        let mut client = service.connect("/ws/tasks/", "u1").await;
        if client.next().await["type"] == "connection_established" {
            greeted += 1;
        } else {
            assert_eq!(client.closed().await, Some(1008));
        }
    }
    let come_back = began.elapsed().as_secs() / 2;
    assert!((30 + come_back - 1..=32 + come_back).contains(&greeted), "{greeted}, of those {come_back} later");
    assert!(refusals(&service, "handshakes_per_minute_per_user").await > 0);
    service.attach("/ws/tasks/", "u2").await.settle().await;
}

#[tokio::test]
async fn a_client_that_says_too_much_is_told_and_closed_with_1008() {
    let service = Service::start(&[
        ("TASKCAST_SESSIONS_MESSAGES_PER_MINUTE", "50"),
        ("TASKCAST_SESSIONS_BYTES_PER_MINUTE", "100000"),
    ])
    .await;
    let mut bystander = service.attach("/ws/tasks/", "u1").await;
    let mut flood = service.attach("/ws/tasks/", "u1").await;
    for _ in 0..60 {
        flood.send(Message::Ping(Vec::new().into())).await;
    }
    assert_eq!(flood.closed().await, Some(1008));
    assert_eq!(flood.frames.last().unwrap()["error_code"], "LIMIT_REACHED");
    // A million fragments of nothing are one message that never ends; their bytes count.
    let mut fragments = service.attach("/ws/tasks/", "u1").await;
    let mut bytes = vec![0x01, 0x80, 0, 0, 0, 0];
    bytes.extend([0x00, 0x80, 0, 0, 0, 0].repeat(20_000));
    fragments.send_raw(&bytes).await;
    assert_eq!(fragments.closed().await, Some(1008));
    for limit in ["messages_per_minute", "bytes_per_minute"] {
        assert_eq!(refusals(&service, limit).await, 1, "{limit}");
    }
    bystander.settle().await;
}

/// More lists than the kernel takes on one connection that nobody reads; the last one ends it. Back when one is held: nothing
/// more is answered then, however often the service is asked something else.
async fn ask_for_lists(service: &Service, client: &str, user: &str) -> TcpStream {
    let ask = |connection: &str| {
        let bearer = token(user);
        format!(
            "GET /api/v1/tasks?limit=500 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {bearer}\r\nX-Forwarded-For: \
             {client}\r\nConnection: {connection}\r\n\r\n"
        )
    };
    let mut stream = TcpStream::connect(("127.0.0.1", service.port)).await.unwrap();
    let requests = ask("keep-alive").repeat(UNREAD_LISTS - 1) + &ask("close");
    let answers = async || service.metric("taskcast_http_requests_total{route=\"/api/v1/tasks\",status=\"200\"}").await;
    let mut answered = answers().await;
    stream.write_all(requests.as_bytes()).await.unwrap();
    until("the first list is answered", async || answers().await > answered).await;
    let mut unchanged = 0;
    while unchanged < 30 {
        let now = answers().await;
        unchanged = if now == answered { unchanged + 1 } else { 0 };
        answered = now;
    }
    stream
}

const UNREAD_LISTS: usize = 24;

#[tokio::test]
async fn lists_that_are_not_read_have_places_by_user_and_by_address() {
    const BY_USER: &str = "unread_lists_per_user_max";
    const BY_ADDRESS: &str = "unread_lists_per_ip_max";
    let service = Service::start(&[
        TRUSTED,
        ("TASKCAST_LIMITS_UNREAD_LISTS_PER_USER_MAX", "2"),
        ("TASKCAST_LIMITS_UNREAD_LISTS_PER_IP_MAX", "3"),
    ])
    .await;
    let result = "x".repeat(30_000);
    for user in ["u1", "u2"] {
        let task = |n: usize| json!({"task_id": format!("{user}-{n}"), "user_id": user, "result": result});
        service.publish(&json!((0..20).map(task).collect::<Vec<_>>())).await;
        let one = [("X-Forwarded-For", "192.0.2.9"), ("Authorization", &*format!("Bearer {}", token(user)))];
        until("the tasks are there", async || {
            http_whole(service.port, "GET", "/api/v1/tasks", &one, "").await.2.contains("\"total\":20,")
        })
        .await;
    }
    let refused_by = async |client: &str, user: &str, limit: &str| {
        let (status, head, body) = get(&service, client, &token(user)).await;
        let is_refused = status == 429 && body.contains(&format!("\"{limit}\""));
        assert!(is_refused || status == 200, "{status} {head}");
        assert!(!is_refused || head.to_ascii_lowercase().contains("retry-after: "), "{head}");
        is_refused
    };
    let mut read = ask_for_lists(&service, "192.0.2.1", "u1").await;
    let _unread = ask_for_lists(&service, "192.0.2.1", "u1").await;
    assert!(refused_by("192.0.2.1", "u1", BY_USER).await);
    assert!(refused_by("198.51.100.1", "u1", BY_USER).await, "wherever they are");
    assert_eq!(get(&service, "192.0.2.1", &token("u2")).await.0, 200);
    let gone = ask_for_lists(&service, "192.0.2.1", "u2").await;
    assert!(refused_by("192.0.2.1", "u3", BY_ADDRESS).await);
    assert_eq!(get(&service, "198.51.100.1", &token("u2")).await.0, 200);
    assert_eq!((refusals(&service, BY_USER).await, refusals(&service, BY_ADDRESS).await), (2, 1));
    // A connection that ends lets go of its place, and so does one that is read; until then each had one at a time.
    drop(gone);
    until("an address has a place again", async || !refused_by("192.0.2.1", "u3", BY_ADDRESS).await).await;
    let mut answers = String::new();
    read.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), UNREAD_LISTS);
    until("a user has a place again", async || !refused_by("192.0.2.1", "u1", BY_USER).await).await;
}

#[tokio::test]
async fn requests_are_answered_at_the_rate_by_address_and_by_user_and_a_list_counts_as_ten() {
    let service = Service::start(&[
        TRUSTED,
        ("TASKCAST_LIMITS_REQUESTS_PER_MINUTE_PER_IP", "120"),
        ("TASKCAST_LIMITS_REQUESTS_PER_MINUTE_PER_USER", "60"),
    ])
    .await;
    let ask = async |path: &str, client: &str, user: &str| {
        let bearer = format!("Bearer {}", token(user));
        let headers = [("Authorization", bearer.as_str()), ("X-Forwarded-For", client), ("Origin", "https://x.test")];
        http_whole(service.port, "GET", path, &headers, "").await
    };
    // A user who asks from here and there.
    let began = clock::now().instant;
    let (mut answered, mut refused) = (0, 0);
    while answered < 60 || began.elapsed() < Duration::from_secs(5) {
        let client = format!("192.0.2.{}", (answered + refused) % 200);
        match ask("/api/v1/tasks/none", &client, "u1").await {
            (404, ..) => answered += 1,
            (429, head, body) => {
                assert!(head.to_ascii_lowercase().contains("retry-after: 1"), "{head}");
                assert!(body.contains("\"requests_per_minute_per_user\""), "{body}");
                refused += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => panic!("{other:?}"),
        }
    }
    let come_back = began.elapsed().as_secs();
    // 60 at once, and one in each second since the first.
    assert!((60 + come_back - 1..=61 + come_back).contains(&answered), "{answered} in {come_back} s");
    assert_eq!(refusals(&service, "requests_per_minute_per_user").await, refused);
    // Another user has their own: six lists.
    let mut lists = 0;
    while ask("/api/v1/tasks", "198.51.100.1", "u2").await.0 == 200 {
        lists += 1;
    }
    assert_eq!(lists, 6);
    // Many users at one address; also those that are nobody.
    let (mut at_one, mut who) = (0, 0);
    while ask("/api/v1/tasks/none", "203.0.113.1", &format!("u{}", 10 + who % 5)).await.0 == 404 {
        (at_one, who) = (at_one + 1, who + 1);
    }
    assert!((120..150).contains(&at_one), "{at_one}");
    assert_eq!(get(&service, "203.0.113.1", "a.b.c").await.0, 429, "before its token is looked at");
    assert_eq!(get(&service, "203.0.113.2", &token("u20")).await.0, 200);
    assert!(refusals(&service, "requests_per_minute_per_ip").await >= 2);
    // Events have a limit of their own, and handshakes too.
    assert_eq!(service.post(r#"{"task_id":"t","user_id":"u1"}"#, "application/json").await.0, 202);
    connect(&service, "203.0.113.1", "u1").await.ok().unwrap().until("active_tasks").await;
}

#[tokio::test]
async fn a_token_that_publishes_too_much_is_refused_whole_and_for_so_long() {
    let service = Service::start(&[
        ("TASKCAST_LIMITS_EVENTS_PER_MINUTE_PER_TOKEN", "60"),
        ("TASKCAST_HTTP_EVENTS_PER_REQUEST_MAX", "50"),
    ])
    .await;
    let bearer = format!("Bearer {}", token_with("worker", &["own"], true));
    let post = async |count: usize, name: &str| {
        let events: Vec<Value> =
            (0..count).map(|n| json!({"task_id": format!("{name}-{n}"), "user_id": "u1"})).collect();
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        http_whole(service.port, "POST", "/api/v1/events", &headers, &json!(events).to_string()).await
    };
    let began = clock::now().instant;
    assert_eq!(post(50, "first").await.0, 202);
    let (status, head, body) = post(30, "second").await;
    assert_eq!(status, 429, "{body}");
    assert!(head.to_ascii_lowercase().contains("retry-after: "), "{head}");
    let mut published = 50;
    while began.elapsed() < Duration::from_secs(5) {
        published += usize::from(post(1, &format!("later-{published}")).await.0 == 202);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let come_back = began.elapsed().as_secs() as usize;
    // The one that was taken to begin with, of the bundle that was refused, is not given back.
    assert!((58 + come_back..=61 + come_back).contains(&published), "{published}, of those {come_back} later");
    assert_eq!(service.get("/api/v1/tasks/second-0", "u1").await.0, 404, "nothing of it was published");
    assert!(refusals(&service, "events_per_minute_per_token").await > 0);
    // Another token has its own.
    assert_eq!(service.post(r#"{"task_id":"other","user_id":"u1"}"#, "application/json").await.0, 202);
}

#[tokio::test]
async fn lists_of_networks_hold_for_the_client_and_are_read_again_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let deny = folder.path().join("deny.txt");
    std::fs::write(&deny, "192.0.2.0/24\n").unwrap();
    let service = Service::start(&[TRUSTED, ("TASKCAST_LIMITS_DENY_NETWORKS_FILE", deny.to_str().unwrap())]).await;
    let (status, _, body) = get(&service, "192.0.2.9", &token("u1")).await;
    assert!(status == 403 && body.contains("urn:taskcast:problem:network-refused"), "{status} {body}");
    assert!(matches!(connect(&service, "192.0.2.9", "u1").await, Err((403, None))));
    let mut open = connect(&service, "198.51.100.1", "u1").await.ok().unwrap();
    open.until("active_tasks").await;
    std::fs::write(&deny, "198.51.100.0/24\n").unwrap();
    until("the new list holds", async || get(&service, "198.51.100.1", &token("u1")).await.0 == 403).await;
    assert_eq!(get(&service, "192.0.2.9", &token("u1")).await.0, 200);
    open.settle().await;
    assert_eq!(service.metric("taskcast_network_reloads_total{outcome=\"read\"}").await, 1);
    // Whom nobody forwarded is who connects: this machine.
    std::fs::write(&deny, "127.0.0.0/8\n").unwrap();
    until("its own turn", async || service.get("/api/v1/tasks", "u1").await.0 == 403).await;
    assert_eq!(service.operations("/livez").await.0, 200, "operators are not asked");
}

#[tokio::test]
async fn a_refused_connection_is_answered_at_the_door_without_its_request() {
    let service = Service::start(&[("TASKCAST_LIMITS_DENY_NETWORKS", "127.0.0.0/8")]).await;
    let mut stream = TcpStream::connect(("127.0.0.1", service.port)).await.unwrap();
    let mut answer = String::new();
    // Nothing was asked.
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    assert_eq!(refusals(&service, "networks").await, 2, "the harness came by, too");
}

#[tokio::test]
async fn a_page_can_read_why_it_is_refused_at_the_door_and_by_its_request() {
    let service = Service::start(&[
        TRUSTED,
        ("TASKCAST_ORIGINS", "https://app.test"),
        ("TASKCAST_LIMITS_DENY_NETWORKS", "127.0.0.2,192.0.2.0/24"),
    ])
    .await;
    let page = ("Origin", "https://app.test");
    let preflight = [page, ("Access-Control-Request-Method", "GET"), ("X-Forwarded-For", "192.0.2.1")];
    let (status, head, _) = http_whole(service.port, "OPTIONS", "/api/v1/tasks", &preflight, "").await;
    assert!(status == 204 && head.contains("access-control-allow-origin: https://app.test"), "{head}");
    let (status, head, _) =
        http_whole(service.port, "GET", "/api/v1/tasks", &[page, ("X-Forwarded-For", "192.0.2.1")], "").await;
    assert!(status == 403 && head.contains("access-control-allow-origin: https://app.test"), "{head}");
    let foreign = [("Origin", "https://evil.test"), ("X-Forwarded-For", "192.0.2.1")];
    let (status, head, _) = http_whole(service.port, "GET", "/api/v1/tasks", &foreign, "").await;
    assert!(status == 403 && !head.contains("access-control-allow-origin"), "{head}");
    drop(service);
    // At the door, where nobody is a proxy.
    let service =
        Service::start(&[("TASKCAST_ORIGINS", "https://app.test"), ("TASKCAST_LIMITS_DENY_NETWORKS", "127.0.0.0/8")])
            .await;
    let (status, head, body) = http_whole(service.port, "GET", "/api/v1/tasks", &[page], "").await;
    assert!(status == 403 && head.contains("access-control-allow-origin: https://app.test"), "{head}");
    assert!(body.contains("network-refused"), "{body}");
}

#[tokio::test]
async fn what_a_stranger_says_of_where_it_comes_from_is_not_believed() {
    let service = Service::start(&[("TASKCAST_LIMITS_DENY_NETWORKS", "192.0.2.0/24")]).await;
    assert_eq!(get(&service, "192.0.2.9", &token("u1")).await.0, 200);
    assert_eq!(service.metric("taskcast_forwarded_total{outcome=\"untrusted\"}").await, 1);
    // Nor does it get by with the PROXY protocol, which is off.
    let mut stream = TcpStream::connect(("127.0.0.1", service.port)).await.unwrap();
    stream.write_all(b"PROXY TCP4 192.0.2.9 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_long_or_too_slow_is_cut_off_and_counted() {
    let service = Service::start(&[
        ("TASKCAST_HTTP_HEADER_MAX_BYTES", "8192"),
        ("TASKCAST_HTTP_HEADER_TIMEOUT_MS", "300"),
        ("TASKCAST_HTTP_BODY_MAX_BYTES", "2048"),
    ])
    .await;
    let long = "x".repeat(9_000);
    let (status, ..) = http_whole(service.port, "GET", "/", &[("X-Long", &long)], "").await;
    assert_eq!(status, 431);
    // Counted when the connection ends, which is behind the answer.
    until("it is counted", async || refusals(&service, "header_max_bytes").await == 1).await;
    let mut slow = TcpStream::connect(("127.0.0.1", service.port)).await.unwrap();
    slow.write_all(b"GET / HT").await.unwrap();
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.unwrap();
    until("it is counted", async || refusals(&service, "header_timeout_ms").await >= 1).await;
    assert_eq!(service.post(&format!("{{\"task_id\":\"{long}\"}}"), "application/json").await.0, 413);
    assert_eq!(refusals(&service, "body_max_bytes").await, 1);
}

/// haproxy before the service, with this line for its server; gone when it is dropped.
struct Haproxy {
    child: std::process::Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Haproxy {
    async fn start(service: &Service, mode: &str, options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, file) = (free_port(), folder.path().join(unique("haproxy")));
        let configuration = format!(
            "global\n  maxconn 100\n  nbthread 1\n\
             defaults\n  mode {mode}\n  timeout connect 2s\n  timeout client 20s\n  timeout server 20s\n  timeout tunnel 20s\n\
             listen l\n  bind 127.0.0.1:{port}\n  {options}\n",
        )
        .replace("SERVICE", &format!("127.0.0.1:{}", service.port));
        std::fs::write(&file, configuration).unwrap();
        let program = ["/usr/sbin/haproxy", "/usr/bin/haproxy", "/usr/local/sbin/haproxy"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
            .expect("install haproxy (apt-get install --no-install-recommends haproxy)");
        let child = std::process::Command::new(program).arg("-db").arg("-f").arg(&file).spawn().unwrap();
        let proxy = Self { child, port, _folder: folder };
        until("haproxy listens", async || TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await;
        proxy
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn haproxy_is_believed_in_both_versions_of_the_proxy_protocol_and_its_checks_pass() {
    let service = Service::start(&[
        ("TASKCAST_HTTP_TRUSTED_PROXIES", "127.0.0.1"),
        ("TASKCAST_HTTP_PROXY_PROTOCOL", "true"),
        ("TASKCAST_LIMITS_DENY_NETWORKS", "127.0.0.2"),
    ])
    .await;
    for version in ["send-proxy", "send-proxy-v2"] {
        let options = format!("server s SERVICE {version} check inter 100ms");
        let proxy = Haproxy::start(&service, "tcp", &options).await;
        let bearer = format!("Bearer {}", token("u1"));
        let mut client = Client::connect(proxy.port, "/ws/tasks/", &[("Authorization", &bearer)]).await;
        client.until("active_tasks").await;
        client.settle().await;
        // The client of the proxy that is on the list is refused, though the proxy is not.
        let denied = async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind("127.0.0.2:0".parse().unwrap())?;
            let mut stream = socket.connect(([127, 0, 0, 1], proxy.port).into()).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = denied.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{version}: {answer}");
    }
    assert!(service.metric("taskcast_forwarded_total{outcome=\"used\"}").await >= 4);
    // Without it nobody gets in from there.
    let before = service.metric("taskcast_forwarded_total{outcome=\"malformed\"}").await;
    assert_eq!(http_whole(service.port, "GET", "/", &[], "").await.0, 0);
    assert_eq!(service.metric("taskcast_forwarded_total{outcome=\"malformed\"}").await, before + 1);
}

#[tokio::test]
async fn what_a_client_of_haproxy_forges_is_not_what_counts() {
    let service = Service::start(&[TRUSTED, ("TASKCAST_LIMITS_DENY_NETWORKS", "192.0.2.0/24")]).await;
    // The client is 127.0.0.1, which is trusted; so what it says itself is believed, as if it were another proxy.
    let proxy = Haproxy::start(&service, "http", "option forwardfor\n  server s SERVICE").await;
    let ask = async |said: &str| {
        let headers = [("X-Forwarded-For", said), ("Forwarded", "for=192.0.2.9")];
        http_whole(proxy.port, "GET", "/", &headers, "").await.0
    };
    assert_eq!(ask("192.0.2.9").await, 403);
    assert_eq!(ask("198.51.100.1").await, 200);
    // One that is not trusted stands further right, and counts.
    assert_eq!(ask("192.0.2.9, 198.51.100.1").await, 200);
    assert_eq!(ask("198.51.100.1, 192.0.2.9").await, 403);
}
