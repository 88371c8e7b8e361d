//! RFC 6455 from the outside: whom the handshake lets in, and how a session hangs up. What the frames between may look
//! like the Autobahn|Testsuite asks (`tests/run conformance`).

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{Service, token};

const PATIENCE: Duration = Duration::from_secs(20);

/// The key and its answer of RFC 6455 section 1.3.
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=";

const VERSION: &str = "Sec-WebSocket-Version: 13";
const UPGRADE: &str = "Upgrade: websocket";
const CONNECTION: &str = "Connection: Upgrade";
const HOST: &str = "Host: taskcast.test";

/// A handshake of somebody who may come in.
fn handshake() -> String {
    let token = token("u1");
    format!(
        "GET /ws/tasks/ HTTP/1.1\r\n{HOST}\r\n{UPGRADE}\r\n{CONNECTION}\r\n{VERSION}\r\n{KEY}\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    )
}

/// Sends this and reads the head of the answer, in lower case.
async fn ask(service: &Service, request: &str) -> (String, TcpStream) {
    let mut socket = TcpStream::connect(("127.0.0.1", service.port)).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let reading = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match socket.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&head).to_lowercase()
    };
    let head = tokio::time::timeout(PATIENCE, reading).await.expect("an answer");
    (head, socket)
}

#[tokio::test]
async fn the_handshake_is_decided_as_section_4_2_has_it() {
    let service = Service::start(&[]).await;
    let twice = |line: &str| format!("{line}\r\n{line}");
    // What is replaced in a good handshake by what, the status, and what the head of the answer says besides.
    for (line, instead, status, says) in [
        (HOST, HOST, 101, ACCEPT),
        (HOST, "hOST:taskcast.test", 101, ACCEPT),
        (HOST, "X-Other: header", 400, ""),
        (HOST, &twice(HOST), 400, ""),
        ("GET", "POST", 405, "allow: get"),
        ("HTTP/1.1", "HTTP/1.0", 426, "upgrade: websocket"),
        (UPGRADE, "uPGRADE:  WebSocket ", 101, ACCEPT),
        (UPGRADE, "Upgrade: h2c, websocket", 101, "upgrade: websocket\r\n"),
        (UPGRADE, "Upgrade: h2c\r\nUpgrade: websocket", 101, ""),
        (UPGRADE, "Upgrade: websockets", 426, "upgrade: websocket\r\n"),
        (UPGRADE, "X-Other: header", 426, "upgrade: websocket\r\n"),
        (CONNECTION, "Connection: keep-alive, upgrade", 101, "connection: upgrade\r\n"),
        (CONNECTION, "Connection: keep-alive\r\nconnection: UPGRADE", 101, ""),
        (CONNECTION, "Connection: upgraded", 426, ""),
        (CONNECTION, "Connection: close", 426, ""),
        (VERSION, "Sec-WebSocket-Version: 8", 426, "sec-websocket-version: 13\r\n"),
        (VERSION, "Sec-WebSocket-Version: 25", 426, "sec-websocket-version: 13\r\n"),
        (VERSION, "Sec-WebSocket-Version: 013", 426, "sec-websocket-version: 13\r\n"),
        // A list is what a server answers with; a client speaks one version.
        (VERSION, "Sec-WebSocket-Version: 13, 8", 426, "sec-websocket-version: 13\r\n"),
        (VERSION, &twice(VERSION), 426, "sec-websocket-version: 13\r\n"),
        (VERSION, "X-Other: header", 426, "sec-websocket-version: 13\r\n"),
        (KEY, "sec-websocket-key:dGhlIHNhbXBsZSBub25jZQ== ", 101, ACCEPT),
        (KEY, &twice(KEY), 400, ""),
        (KEY, "Sec-WebSocket-Key: ", 400, ""),
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j", 400, ""),
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==, x", 400, ""),
        (KEY, &format!("{KEY}\r\nContent-Length: 0"), 101, ACCEPT),
        (KEY, &format!("{KEY}\r\nContent-Length: 5"), 400, ""),
        (KEY, &format!("{KEY}\r\nTransfer-Encoding: chunked"), 400, ""),
        (KEY, &format!("{KEY}\r\nSec-WebSocket-Protocol: soap, taskcast.v1.proto, taskcast.v1.json"), 101, "v1.proto"),
        (KEY, &format!("{KEY}\r\nSec-WebSocket-Protocol: taskcast.v1.json, taskcast.v1.proto"), 101, "v1.json\r\n"),
        (
            KEY,
            &format!("{KEY}\r\nSec-WebSocket-Protocol: soap\r\nSec-WebSocket-Protocol: taskcast.v1.json"),
            101,
            "json",
        ),
    ] {
        let (head, _socket) = ask(&service, &handshake().replacen(line, instead, 1)).await;
        assert!(head.split(' ').nth(1) == Some(&status.to_string()) && head.contains(says), "{instead:?} → {head}");
    }
    // What is not agreed to is not answered; neither are names of protocols that are not spoken.
    for offered in [
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99, ;;,",
        "Sec-WebSocket-Protocol: soap",
        "Sec-WebSocket-Protocol: TASKCAST.V1.JSON",
    ] {
        let (head, _socket) = ask(&service, &handshake().replacen(KEY, &format!("{KEY}\r\n{offered}"), 1)).await;
        assert!(head.starts_with("http/1.1 101 "), "{offered} → {head}");
        assert!(!head.contains("sec-websocket-extensions") && !head.contains("sec-websocket-protocol"), "{head}");
    }
}

/// A client's frame.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126, "not needed here");
    let mask = [1, 2, 3, 4];
    let masked = payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]);
    [first, 0x80 | payload.len() as u8].into_iter().chain(mask).chain(masked).collect()
}

/// The first byte and the payload of each frame; panics over half a frame.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        let (length, rest) = match (length, rest) {
            (126, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            (short, rest) => (usize::from(*short), rest),
        };
        let (payload, rest) = rest.split_at(length);
        frames.push((*first, payload.to_vec()));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half a header");
    frames
}

#[tokio::test]
async fn a_session_hangs_up_as_section_7_has_it() {
    const PONG: u8 = 0x8a;
    const CLOSE: u8 = 0x88;
    let service = Service::start(&[]).await;
    let close = |code: u16| masked(CLOSE, &code.to_be_bytes());
    let (ping, other_ping) = (masked(0x89, b"one"), masked(0x89, b"two"));
    let half = masked(0x01, br#"{"type":"ping","#);
    let other_half = masked(0x80, br#""id":"p"}"#);
    for (what, sent, pongs, code) in [
        ("a good end", close(1000), vec![], 1000_u16),
        ("a code that means nothing here is answered with 1000", close(1001), vec![], 1000),
        ("one that does comes back", close(1003), vec![], 1003),
        ("a close without a code", masked(CLOSE, b""), vec![], 1000),
        ("a code of the client's own", close(4999), vec![], 1000),
        (
            "answers keep their order",
            [ping.clone(), other_ping.clone(), close(1000)].concat(),
            vec!["one", "two"],
            1000,
        ),
        ("nothing is answered behind a close", [close(1000), ping.clone(), close(1001)].concat(), vec![], 1000),
        ("nor is what breaks the protocol", [close(1000), vec![0xff; 10]].concat(), vec![], 1000),
        ("what breaks the protocol is told so", vec![0xff; 10], vec![], 1002),
        ("control frames go between fragments", [half, ping, other_half, close(1000)].concat(), vec!["one", "p"], 1000),
    ] {
        for piece in [1, sent.len()] {
            let (head, mut socket) = ask(&service, &handshake()).await;
            assert!(head.starts_with("http/1.1 101 "), "{head}");
            for bytes in sent.chunks(piece) {
                // Who has hung up may not hear the rest.
                let _ = socket.write_all(bytes).await;
            }
            let mut answer = Vec::new();
            let reading = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer));
            reading.await.expect("the end of the connection").unwrap_or_else(|error| panic!("{what}: {error}"));
            let frames = frames(&answer);
            let answered: Vec<String> = frames
                .iter()
                .filter(|(first, payload)| *first == PONG || String::from_utf8_lossy(payload).contains("\"pong\""))
                .map(
                    |(first, payload)| {
                        if *first == PONG { String::from_utf8_lossy(payload).into() } else { "p".into() }
                    },
                )
                .collect();
            assert_eq!(answered, pongs, "{what}, in pieces of {piece}");
            let closes: Vec<usize> = (0..frames.len()).filter(|&at| frames[at].0 == CLOSE).collect();
            assert_eq!(closes, [frames.len() - 1], "{what}: one close frame, and nothing behind it");
            assert_eq!(frames[frames.len() - 1].1[..2], code.to_be_bytes(), "{what}, in pieces of {piece}");
        }
    }
}
