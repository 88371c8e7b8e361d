//! WebSocket frames and messages as no browser sends them.

use std::{io::Write, time::Duration};

use serde_json::{Value, json};

use crate::{
    harness::token,
    target::{A_WHILE, MB, Target, soon},
    wire::{BINARY, CLOSE, CONTINUATION, FINAL, Frames, PING, TEXT, Wire, frame, handshake, text},
};

/// The head of a frame that announces so many bytes, in eight of them.
fn announced(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat()
}

/// Frames against RFC 6455: without a mask (a proxy's cache could be poisoned by what a page chose), with reserved bits,
/// unknown opcodes, control frames in pieces or too long, pieces of nothing, lengths beyond reason, text that is none,
/// close codes that must not be sent. Each ends its own connection, with the right code.
#[tokio::test]
async fn a_frame_against_the_protocol_ends_its_connection_with_the_right_code() {
    let target = Target::start(&[]).await;
    let mut bystander = target.attach("/ws/tasks/", "u2").await;
    let token = token("u1");
    let ten = vec![b'x'; 10];
    for (what, bytes, code) in [
        ("no mask", vec![FINAL | TEXT, 2, b'h', b'i'], 1002),
        ("the first reserved bit, as of compression", frame(FINAL | 0x40 | TEXT, &ten), 1002),
        ("the second reserved bit", frame(FINAL | 0x20 | TEXT, &ten), 1002),
        ("the third reserved bit", frame(FINAL | 0x10 | TEXT, &ten), 1002),
        ("an unknown opcode", frame(FINAL | 3, &ten), 1002),
        ("an unknown control opcode", frame(FINAL | 0xb, &ten), 1002),
        ("a ping in pieces", frame(PING, &ten), 1002),
        ("a long ping", frame(FINAL | PING, &[0; 126]), 1002),
        ("a ping longer than all numbers", announced(FINAL | PING, u64::MAX), 1002),
        ("a continuation of nothing", frame(FINAL | CONTINUATION, &ten), 1002),
        ("a message within a message", [frame(TEXT, &ten), frame(FINAL | TEXT, &ten)].concat(), 1002),
        ("binary where text is spoken", frame(FINAL | BINARY, &ten), 1003),
        ("bytes that are no text", frame(FINAL | TEXT, b"\xff\xfe"), 1007),
        ("half a surrogate", frame(FINAL | TEXT, b"\"\xed\xa0\x80\""), 1007),
        ("an overlong slash", frame(FINAL | TEXT, b"\xc0\xaf"), 1007),
        ("a character cut by the end", frame(FINAL | TEXT, b"\xe2\x82"), 1007),
        ("a character cut by a piece, never finished", [frame(TEXT, b"\xe2"), frame(FINAL, b"x")].concat(), 1007),
        ("2 GB", announced(FINAL | TEXT, 1 << 31), 1009),
        ("the highest bit of a length", announced(FINAL | TEXT, 1 << 63), 1009),
        ("more than all memory", announced(FINAL | TEXT, u64::MAX), 1009),
        ("more than all memory, in two pieces", [frame(TEXT, &ten), announced(FINAL, u64::MAX)].concat(), 1009),
        ("a close code that must not be sent", frame(FINAL | CLOSE, &1005_u16.to_be_bytes()), 1002),
        ("a close code of another world", frame(FINAL | CLOSE, &65_535_u16.to_be_bytes()), 1002),
        ("half a close code", frame(FINAL | CLOSE, &[3]), 1002),
        ("a close reason that is no text", frame(FINAL | CLOSE, b"\x03\xe8\xff"), 1007),
    ] {
        let mut wire = Wire::open_as(target.port, &token).await;
        wire.send(&bytes).await;
        assert_eq!(wire.close_code().await, Some(code), "{what}");
    }
    bystander.settle().await;
    target.stays_unharmed().await;
}

/// A compression bomb: a megabyte of one letter in a kilobyte, offered with every extension that browsers know. None is
/// taken, so what is compressed breaks the protocol before anything is inflated.
#[tokio::test]
async fn an_offer_to_compress_is_not_taken() {
    let target = Target::start(&[]).await;
    for offer in
        ["permessage-deflate; client_max_window_bits", "x-webkit-deflate-frame", "permessage-bzip2, permessage-deflate"]
    {
        let mut wire = Wire::connect(target.port).await;
        let headers = format!("Authorization: Bearer {}\r\nSec-WebSocket-Extensions: {offer}\r\n", token("u1"));
        wire.send(handshake("/ws/tasks/", &headers).as_bytes()).await;
        let head = String::from_utf8_lossy(&wire.until(b"\r\n\r\n").await).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 ") && !head.contains("sec-websocket-extensions"), "{head}");
        let mut deflated = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        deflated.write_all(&vec![b'a'; 1_000_000]).unwrap();
        wire.send(&frame(FINAL | 0x40 | TEXT, &deflated.finish().unwrap())).await;
        assert_eq!(wire.close_code().await, Some(1002), "{offer}");
    }
    target.stays_unharmed().await;
}

/// The answer to one message.
async fn answer(wire: &mut Wire, message: &[u8]) -> Value {
    wire.received.clear();
    wire.send(message).await;
    soon("an answer", async {
        loop {
            let answer = Frames(&wire.received).find(|(opcode, _)| *opcode == TEXT);
            if let Some((_, payload)) = answer {
                return serde_json::from_slice(payload).expect("JSON");
            }
            assert!(wire.read().await, "the connection ended");
        }
    })
    .await
}

/// JSON that is deeper than a stack, numbers of thousands of digits, keys without end, keys twice, escapes of half
/// characters: an error in words, and the connection goes on.
#[tokio::test]
async fn json_that_would_break_a_parser_is_answered_in_words() {
    let target = Target::start(&[("TASKCAST_SESSIONS_BAD_MESSAGES_MAX", "1000")]).await;
    let mut wire = Wire::open_as(target.port, &token("u1")).await;
    let deep = 30_000;
    let digits = "9".repeat(60_000);
    for (what, message) in [
        ("deep lists", "[".repeat(deep)),
        ("deep objects", "{\"a\":".repeat(deep / 5)),
        ("a deep field", format!("{{\"type\":\"subscribe\",\"task_id\":{}{}}}", "[".repeat(deep), "]".repeat(deep))),
        ("a deep envelope", format!("{}{}", "{\"data\":".repeat(3000), "}".repeat(3000))),
        (
            "a deep unknown field",
            format!("{{\"type\":\"make_coffee\",\"x\":{}{}}}", "[".repeat(deep), "]".repeat(deep)),
        ),
        ("a long number", format!("{{\"type\":\"subscribe\",\"task_id\":{digits}}}")),
        ("a number beyond all numbers", "{\"type\":\"get_task_status\",\"task_id\":1e999999999}".to_owned()),
        ("a long number as the id", format!("{{\"type\":\"get_active_tasks\",\"id\":{digits}}}")),
        ("a type without end", format!("{{\"type\":\"{}\"}}", "x".repeat(60_000))),
        ("a key twice", "{\"type\":\"ping\",\"type\":\"cancel_task\",\"task_id\":\"t\"}".to_owned()),
        ("half a character", "{\"type\":\"subscribe\",\"task_id\":\"\\ud800\"}".to_owned()),
        ("a zero", "{\"type\":\"subscribe\",\"task_id\":\"a\\u0000b\"}".to_owned()),
        ("a line end", "{\"type\":\"subscribe\",\"task_id\":\"a\\r\\nb\"}".to_owned()),
        ("a terminal's escape", "{\"type\":\"subscribe\",\"tag\":\"\\u001b[31m\"}".to_owned()),
        ("a name of many bytes", json!({"type": "subscribe", "task_id": "ä".repeat(128)}).to_string()),
        ("nothing", String::new()),
        ("a zero alone", "\0".to_owned()),
    ] {
        let answer = answer(&mut wire, &text(&message)).await;
        assert_eq!(answer["type"], "error", "{what}: {answer}");
        assert!(answer.to_string().len() < 1000, "{what}: an answer that grows with the question");
    }
    let pong = answer(&mut wire, &text("{\"type\":\"ping\",\"id\":1}")).await;
    assert_eq!(pong["type"], "pong");
    target.stays_unharmed().await;
}

/// One message in as many pieces as it has bytes, and pieces without a byte in between: it is put together, or refused,
/// and costs no more memory than its text.
#[tokio::test]
async fn a_message_in_ever_so_many_pieces_is_one_message() {
    const BOUND: u64 = 16 * MB;
    let target = Target::start(&[]).await;
    let mut wire = Wire::open_as(target.port, &token("u1")).await;
    let before = target.resident();
    let message = json!({"type": "ping", "id": 7, "pad": "x".repeat(60_000)}).to_string();
    let mut bytes = frame(TEXT, b"");
    for byte in message.as_bytes() {
        bytes.extend(frame(CONTINUATION, &[*byte]));
        bytes.extend(frame(CONTINUATION, b""));
    }
    bytes.extend(frame(FINAL | CONTINUATION, b""));
    assert_eq!(answer(&mut wire, &bytes).await["type"], "pong");
    let grown = target.peak().saturating_sub(before);
    assert!(grown < BOUND, "{} MB more", grown / MB);
    target.stays_unharmed().await;
}

/// A frame that is begun and never finished, with the connection held open for nothing: it ends with the dead, as nothing
/// whole was ever heard.
#[tokio::test]
async fn who_sends_a_frame_slowly_is_taken_for_dead() {
    let times = [("TASKCAST_SESSIONS_DEAD_PEER_TIMEOUT_MS", "800"), ("TASKCAST_SESSIONS_HEARTBEAT_INTERVAL_MS", "200")];
    let target = Target::start(&times).await;
    let mut wire = Wire::open_as(target.port, &token("u1")).await;
    wire.send(&announced(FINAL | TEXT, 60_000)).await;
    soon("the end of the connection", async {
        while wire.within(Duration::from_millis(50)).await {
            wire.send(b"x").await;
        }
    })
    .await;
    target.stays_unharmed().await;
}

/// Before anybody knows who it is: megabytes, pings without end, or silence instead of a token. Nothing of it is kept, and
/// the place is free again in time.
#[tokio::test]
async fn who_never_says_who_they_are_is_let_go_in_time() {
    const BOUND: u64 = 32 * MB;
    let target = Target::start(&[("TASKCAST_SESSIONS_FIRST_FRAME_TIMEOUT_MS", "700")]).await;
    let before = target.resident();
    let pings = frame(FINAL | PING, b"").repeat(1000);
    let pieces = [frame(TEXT, b""), frame(CONTINUATION, b"").repeat(1000)].concat();
    for bytes in
        [Vec::new(), pings, pieces, frame(FINAL | TEXT, &vec![b'x'; 3_000_000]), frame(TEXT, &vec![b'x'; 60_000])]
    {
        let mut wire = Wire::open(target.port, "/ws/tasks/", "").await;
        let end = async {
            while wire.within(Duration::from_millis(20)).await {
                if !wire.send(&bytes).await {
                    break;
                }
            }
        };
        soon("the end of the connection", end).await;
        let told = String::from_utf8_lossy(&wire.received).into_owned();
        assert!(!told.contains("connection_established"), "{told}");
    }
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(target.metric("taskcast_connections ").await, 0);
    let grown = target.peak().saturating_sub(before);
    assert!(grown < BOUND, "{} MB more", grown / MB);
    target.stays_unharmed().await;
}
