//! Identifiers of what is not one's own (insecure direct object references): whoever guesses one learns nothing, neither
//! from what is answered nor from how long that takes.

use std::time::Duration;

use serde_json::{Value, json};
use taskcast::clock;

use crate::{
    harness::{Client, token_with},
    target::{Target, soon},
    wire::{Wire, exchange, text},
};

/// Somebody else's, nobody's, one that never was, and one that the service keeps for itself. None may be told from the
/// others.
const FOREIGN: &str = "foreign";
const UNKNOWN: &str = "unknown";
const HIDDEN: [&str; 4] = [FOREIGN, "nobodys", "taskcast:canary:0", UNKNOWN];

/// Nothing of the service's own is appended meanwhile: the cursors must be alike, too.
const QUIET: (&str, &str) = ("TASKCAST_CANARY_INTERVAL_SECONDS", "0");

async fn prepare() -> Target {
    let target = Target::start(&[QUIET]).await;
    for (id, user) in [(FOREIGN, Some("u2")), ("nobodys", None), ("own", Some("u1"))] {
        target.has_task(id, user).await;
    }
    target.publish(&json!({"task_id": "own", "tags": ["mine"]})).await;
    let child =
        json!({"task_id": "child", "root_id": FOREIGN, "parent_id": FOREIGN, "user_id": "u2", "tags": [FOREIGN]});
    target.publish(&child).await;
    target.has_task("last", Some("u1")).await;
    target
}

/// Without what must differ: the moment, the number of the connection, and the identifier itself.
fn plain(frame: &Value, id: &str) -> String {
    let mut frame = frame.clone();
    for field in ["timestamp", "connection_id", "updated_at"] {
        if frame.get(field).is_some() {
            frame[field] = json!("…");
        }
    }
    frame.to_string().replace(id, "ID")
}

/// Every REST address that takes an identifier, whole but for the date.
async fn rest_answers(target: &Target, id: &str, token: &str) -> Vec<String> {
    let mut answers = Vec::new();
    for (method, path) in [
        ("GET", format!("/api/v1/tasks/{id}")),
        ("HEAD", format!("/api/v1/tasks/{id}")),
        ("DELETE", format!("/api/v1/tasks/{id}")),
        ("GET", format!("/api/v1/tasks/{id}/frames")),
        ("POST", format!("/api/v1/tasks/{id}/cancel")),
        ("GET", format!("/api/v1/tasks?root={id}")),
        ("GET", format!("/api/v1/tasks?tag={id}")),
        ("GET", format!("/api/v1/tasks?root={id}&status=active&limit=1&page=2")),
        ("GET", format!("/ws/tasks/{id}/")),
    ] {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        let answer = exchange(target.port, request.as_bytes()).await;
        let lines: Vec<&str> = answer.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date:")).collect();
        answers.push(format!("{method} {}", lines.join("\n").replace(id, "ID")));
    }
    answers
}

/// Every WebSocket address and command that takes an identifier.
async fn socket_answers(target: &Target, id: &str, bearer: &str) -> Vec<String> {
    let headers = [("Authorization", bearer)];
    let mut answers = Vec::new();
    for query in ["", "?dialect=celery", "?deliver=every"] {
        for path in [format!("/ws/tasks/{id}/{query}"), format!("/ws/groups/{id}/{query}")] {
            let mut client = Client::connect(target.port, &path, &headers).await;
            client.until("active_tasks").await;
            client.settle().await;
            answers.extend(client.frames.iter().map(|frame| plain(frame, id)));
        }
        let mut client = Client::connect(target.port, &format!("/ws/tasks/{query}"), &headers).await;
        client.until("active_tasks").await;
        let from = client.frames.len();
        for field in ["task_id", "root_id", "tag"] {
            for kind in ["subscribe", "unsubscribe", "subscribe", "get_task_status", "cancel_task", "get_active_tasks"]
            {
                client.say(&json!({"type": kind, field: id, "id": "q"})).await;
                client.settle().await;
            }
        }
        answers.extend(client.frames[from..].iter().map(|frame| plain(frame, id)));
    }
    answers
}

/// Somebody walks through identifiers, with every right but to see: what exists and is not theirs is answered byte for
/// byte as what does not exist, by every address and command that takes an identifier.
#[tokio::test]
async fn foreign_and_unknown_and_forbidden_tasks_are_answered_byte_for_byte_alike() {
    let target = prepare().await;
    // May cancel and publish: only the sight is missing. And what is shared shows that and nothing else.
    for watch in [&["own"][..], &["task:own"], &["root:own"], &["tag:mine"]] {
        let token = token_with("u1", watch, true);
        let bearer = format!("Bearer {token}");
        let mut all = Vec::new();
        for id in HIDDEN {
            let mut answers = rest_answers(&target, id, &token).await;
            answers.extend(socket_answers(&target, id, &bearer).await);
            all.push((id, answers));
        }
        let (_, expected) = all.last().unwrap();
        assert!(expected.len() > 60, "{} answers", expected.len());
        for (id, answers) in &all {
            for (answer, expected) in answers.iter().zip(expected) {
                assert_eq!(answer, expected, "{id} with {watch:?}");
            }
            assert_eq!(answers.len(), expected.len(), "{id} with {watch:?}");
        }
        // What is one's own is answered otherwise: so the above can fail.
        let own = rest_answers(&target, "own", &token).await;
        assert_ne!(own, expected[..own.len()], "{watch:?}");
    }
    target.stays_unharmed().await;
}

/// Somebody subscribes to what they may not see and listens: not a byte comes when it changes, ends, or moves to another
/// owner, group or tag.
#[tokio::test]
async fn what_happens_to_a_foreign_task_is_not_heard_by_who_subscribed_to_it() {
    let target = prepare().await;
    let mut watchers = Vec::new();
    for path in ["/ws/tasks/", "/ws/tasks/foreign/", "/ws/groups/foreign/", "/ws/tasks/?deliver=every"] {
        let mut client = target.attach(path, "u1").await;
        client.say(&json!({"type": "subscribe", "task_id": FOREIGN})).await;
        client.say(&json!({"type": "subscribe", "root_id": FOREIGN})).await;
        client.settle().await;
        watchers.push(client);
    }
    let heard: Vec<usize> = watchers.iter().map(|client| client.frames.len()).collect();
    for event in [
        json!({"task_id": FOREIGN, "user_id": "u2", "progress": 50}),
        json!({"task_id": FOREIGN, "user_id": "u3", "tags": ["x"], "message": "moved"}),
        json!({"task_id": "child", "status": "failed", "error": {"message": "foreign"}}),
        json!({"task_id": "new-child", "root_id": FOREIGN, "user_id": "u2"}),
        json!({"task_id": FOREIGN, "status": "succeeded"}),
    ] {
        target.publish(&event).await;
    }
    target.has_task("settled", None).await;
    for (client, heard) in watchers.iter_mut().zip(heard) {
        client.settle().await;
        assert_eq!(client.frames.len(), heard + 1, "{:?}", &client.frames[heard..]);
    }
    target.stays_unharmed().await;
}

/// How often one of `a` is greater than one of `b`: 0.5 when nothing tells them apart (Mann and Whitney).
fn superiority(a: &[Duration], b: &[Duration]) -> f64 {
    let mut b = b.to_vec();
    b.sort_unstable();
    let below = |value: &Duration| b.partition_point(|other| other < value) as f64;
    let alike = |value: &Duration| b.partition_point(|other| other <= value) as f64 - below(value);
    a.iter().map(|value| below(value) + alike(value) / 2.0).sum::<f64>() / (a.len() * b.len()) as f64
}

fn median(samples: &[Duration]) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// A foreign group, and a tag, of so many tasks.
const CROWDED: &str = "crowded";
const CROWD: usize = 2000;

async fn has_crowd(target: &Target) {
    let task = |n| json!({"task_id": format!("c{n}"), "root_id": CROWDED, "user_id": "u2", "tags": [CROWDED]});
    let crowd: Vec<Value> = (0..CROWD).map(task).collect();
    for part in crowd.chunks(500) {
        target.publish(&json!(part)).await;
    }
}

const PAIRS: usize = 500;

/// By how much the odds may be off one half. Nothing at all comes to 0.05 with so many pairs.
const TOLERANCE: f64 = 0.12;

/// And by how much the medians may differ at the least, so that what is told apart could be told over a network.
const RESOLUTION: Duration = Duration::from_micros(15);

/// Asks for both in turns, in changing order, so that whatever else happens meets both alike.
async fn are_one_class(what: &str, foreign_id: &str, mut ask: impl AsyncFnMut(&str)) {
    for id in [foreign_id, UNKNOWN].iter().cycle().take(100) {
        ask(id).await;
    }
    let mut worst = String::new();
    // A machine that is busy may spoil one try; a difference is there in each.
    for _ in 0..3 {
        let (mut foreign, mut unknown) = (Vec::with_capacity(PAIRS), Vec::with_capacity(PAIRS));
        for pair in 0..2 * PAIRS {
            let is_foreign = (pair + pair / 2) % 2 == 0;
            let began = clock::now().instant;
            ask(if is_foreign { foreign_id } else { UNKNOWN }).await;
            if is_foreign { &mut foreign } else { &mut unknown }.push(began.elapsed());
        }
        let odds = superiority(&foreign, &unknown);
        let (a, b) = (median(&foreign), median(&unknown));
        worst = format!("{what}: foreign {a:?}, unknown {b:?}, odds {odds:.3}");
        println!("{worst}");
        if (odds - 0.5).abs() < TOLERANCE || a.abs_diff(b) < RESOLUTION {
            return;
        }
    }
    panic!("how long it takes tells what exists: {worst}");
}

/// Somebody holds a stopwatch: thousands of questions in turns for what is foreign and for what never was. How long the
/// answer takes does not tell which it is.
#[tokio::test]
async fn how_long_an_answer_takes_does_not_tell_what_exists() {
    let target = Target::start_alone(&[QUIET]).await;
    target.has_task(FOREIGN, Some("u2")).await;
    has_crowd(&target).await;
    target.has_task("own", Some("u1")).await;
    let token = token_with("u1", &["own"], true);
    let mut rest = Wire::connect(target.port).await;
    for (address, id) in
        [("/api/v1/tasks/", FOREIGN), ("/api/v1/tasks?root=", CROWDED), ("/api/v1/tasks?tag=", CROWDED)]
    {
        are_one_class(address, id, async |id| {
            let request =
                format!("GET {address}{id} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
            rest.send(request.as_bytes()).await;
            rest.until(b"}").await;
            rest.received.clear();
        })
        .await;
    }
    for (kind, field, foreign_id) in [
        ("get_task_status", "task_id", FOREIGN),
        ("cancel_task", "task_id", FOREIGN),
        ("subscribe", "task_id", FOREIGN),
        ("subscribe", "root_id", CROWDED),
    ] {
        let mut socket = Wire::open_as(target.port, &token).await;
        are_one_class(&format!("{kind} {field}"), foreign_id, async |id| {
            socket.send(&text(&json!({"type": kind, field: id, "id": "q"}).to_string())).await;
            if kind == "subscribe" {
                socket.send(&text(&json!({"type": "unsubscribe", field: id}).to_string())).await;
            }
            // Whatever the answer brings about comes before this one's.
            socket.send(&text("{\"type\":\"ping\",\"id\":\"end\"}")).await;
            socket.frame_with("\"end\"").await;
        })
        .await;
    }
    target.stays_unharmed().await;
}

/// The same with a whole handshake each time, and the snapshot behind it.
#[tokio::test]
async fn how_long_a_snapshot_takes_does_not_tell_what_exists() {
    let target = Target::start_alone(&[QUIET]).await;
    target.has_task(FOREIGN, Some("u2")).await;
    has_crowd(&target).await;
    let token = token_with("u1", &["own"], false);
    for (address, foreign_id) in [("/ws/tasks/", FOREIGN), ("/ws/groups/", CROWDED)] {
        are_one_class(address, foreign_id, async |id| {
            let path = format!("{address}{id}/");
            let mut wire = Wire::open(target.port, &path, &format!("Authorization: Bearer {token}\r\n")).await;
            soon("a snapshot", wire.until(b"\"active_tasks\"")).await;
        })
        .await;
    }
    target.stays_unharmed().await;
}
