//! Identifiers of what is not one's own once more, in the other encoding: `taskcast.v1.proto` has an encoder, and commands,
//! of its own.

use serde_json::json;

use crate::{
    harness::token_with,
    target::{Target, soon},
    wire::{BINARY, FINAL, Frames, Wire, frame},
};

/// Somebody else's, nobody's, one that the service keeps for itself, and one that never was: all equally long, so that what
/// is said of them can be compared as it stands.
const FOREIGN: &str = "foreign-foreign-0";
const UNKNOWN: &str = "unknown-unknown-0";
const HIDDEN: [&str; 4] = [FOREIGN, "nobodys-nobodys-0", "taskcast:canary:0", UNKNOWN];
const OWN: &str = "own-own-own-own-0";

/// A field that is bytes, a text or a message; all here are short.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat()
}

/// A `ClientMessage` with an id.
fn command(number: u8, message: &[u8], id: &str) -> Vec<u8> {
    frame(FINAL | BINARY, &[field(1, id.as_bytes()), field(number, message)].concat())
}

/// Every command that takes an identifier; `subscribe` twice, as it may be answered otherwise then.
fn commands(id: &str) -> Vec<Vec<u8>> {
    let (subscribe, unsubscribe, get_task_status, get_active_tasks, cancel_task) = (2, 3, 4, 5, 6);
    let mut all = Vec::new();
    for kind in [1, 2, 3] {
        let topic = field(1, &field(kind, id.as_bytes()));
        for number in [subscribe, unsubscribe, subscribe, subscribe] {
            all.push(command(number, &topic, "q"));
        }
    }
    for number in [get_task_status, cancel_task] {
        all.push(command(number, &field(1, id.as_bytes()), "q"));
    }
    all.push(command(get_active_tasks, b"", "q"));
    all
}

/// The fields of a message: number, and bytes as they stand.
fn fields(mut rest: &[u8]) -> Vec<(u8, &[u8])> {
    let mut all = Vec::new();
    while let [tag, behind @ ..] = rest {
        assert!(tag & 0x80 == 0, "no message that is expected here has a field beyond 15");
        let ends = behind.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let value = behind[..ends].iter().rev().fold(0_usize, |sum, byte| sum << 7 | usize::from(byte & 0x7f));
        let (value, after) = if tag & 7 == 2 { behind[ends..].split_at(value) } else { behind.split_at(ends) };
        all.push((tag >> 3, value));
        rest = after;
    }
    all
}

/// A `ServerMessage` without what must differ: the moment, the number of the connection and the identifier itself.
fn plain(message: &[u8], id: &str) -> String {
    let mut said = Vec::new();
    for (number, value) in fields(message) {
        match number {
            1 => {}
            // connection_established, and in it connection_id.
            3 => said.extend(fields(value).into_iter().filter(|(number, _)| *number != 2)),
            _ => said.push((number, value)),
        }
    }
    let text = said.iter().map(|(number, value)| format!("{number}:{}", value.escape_ascii())).collect::<Vec<_>>();
    text.join(" ").replace(id, "ID")
}

/// Reads on to the answer with this id, and forgets it; everything until then.
async fn until(wire: &mut Wire, id: &str) -> Vec<Vec<u8>> {
    let reading = async {
        loop {
            let (mut frames, mut before) = (Frames(&wire.received), Vec::new());
            while let Some((_, payload)) = frames.next() {
                if payload.windows(id.len()).any(|window| window == id.as_bytes()) {
                    let rest = frames.0.len();
                    wire.received.drain(..wire.received.len() - rest);
                    return before;
                }
                before.push(payload.to_vec());
            }
            assert!(wire.read().await, "the connection ended");
        }
    };
    soon("an answer", reading).await
}

/// Everything that has been on its way. Lists follow the answers of their turn, so it takes two questions.
async fn settle(wire: &mut Wire) -> Vec<Vec<u8>> {
    let mut before = Vec::new();
    for id in ["settled-1", "settled-2"] {
        wire.send(&command(8, b"", id)).await;
        before.extend(until(wire, id).await);
    }
    before
}

async fn open(target: &Target, path: &str, token: &str) -> Wire {
    let headers = format!("Authorization: Bearer {token}\r\nSec-WebSocket-Protocol: taskcast.v1.proto\r\n");
    Wire::open(target.port, path, &headers).await
}

async fn answers(target: &Target, id: &str, token: &str) -> Vec<String> {
    let mut answers = Vec::new();
    for path in [format!("/ws/tasks/{id}/"), format!("/ws/groups/{id}/"), format!("/ws/tasks/{id}/?deliver=every")] {
        let mut wire = open(target, &path, token).await;
        answers.extend(settle(&mut wire).await);
    }
    let mut wire = open(target, "/ws/tasks/", token).await;
    settle(&mut wire).await;
    for command in commands(id) {
        wire.send(&command).await;
        answers.extend(settle(&mut wire).await);
    }
    answers.iter().map(|message| plain(message, id)).collect()
}

/// Somebody walks through identifiers in protobuf: what exists and is not theirs is answered byte for byte as what does not
/// exist, by every address and command; and what becomes of it is not heard by who subscribed to it.
#[tokio::test]
async fn foreign_and_unknown_tasks_are_answered_byte_for_byte_alike_in_protobuf_too() {
    // Nothing of the service's own is appended meanwhile: the cursors must be alike, too.
    let target = Target::start(&[("TASKCAST_CANARY_INTERVAL_SECONDS", "0")]).await;
    for (id, user) in [(FOREIGN, Some("u2")), (HIDDEN[1], None), (OWN, Some("u1"))] {
        target.has_task(id, user).await;
    }
    target.publish(&json!({"task_id": OWN, "tags": ["mine"]})).await;
    target.publish(&json!({"task_id": "child", "root_id": FOREIGN, "user_id": "u2", "tags": [FOREIGN]})).await;
    target.has_task("last", Some("u3")).await;
    for watch in [&["own"][..], &["task:own-own-own-own-0"], &["root:own-own-own-own-0"], &["tag:mine"]] {
        let token = token_with("u1", watch, true);
        let expected = answers(&target, UNKNOWN, &token).await;
        assert!(expected.len() >= 6 + commands(UNKNOWN).len(), "{} answers", expected.len());
        for id in HIDDEN {
            assert_eq!(answers(&target, id, &token).await, expected, "{id} with {watch:?}");
        }
        assert_ne!(answers(&target, OWN, &token).await, expected, "what is one's own: {watch:?}");
    }
    let mut watcher = open(&target, &format!("/ws/tasks/{FOREIGN}/"), &token_with("u1", &["own"], true)).await;
    for command in commands(FOREIGN) {
        watcher.send(&command).await;
    }
    settle(&mut watcher).await;
    target.publish(&json!({"task_id": FOREIGN, "user_id": "u2", "progress": 50, "message": "secret"})).await;
    target.publish(&json!({"task_id": "child", "status": "succeeded"})).await;
    target.has_task("later", None).await;
    assert_eq!(settle(&mut watcher).await, Vec::<Vec<u8>>::new());
    target.stays_unharmed().await;
}
