//! Too much of everything: what an attacker with one machine can send, and what the others feel of it.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    bystander::{HALF_OPEN, Strikes, feels_nothing, hold_half_open, to_be_answered},
    harness::{token, token_with},
    target::{MB, Target},
    wire::{CONTINUATION, FINAL, PING, TEXT, Wire, frame, handshake, text},
};

/// Sends `bytes` again and again over one connection after the other, and reads what is answered. `strikes` is what the
/// bytes count for.
async fn pour(port: u16, head: &[u8], bytes: &[u8], each: u64, strikes: &Strikes) {
    loop {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
        reset_when_dropped(&stream);
        if stream.write_all(head).await.is_err() {
            continue;
        }
        // What comes before the handshake is answered would be too much for one who is not known yet.
        if !matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {
            continue;
        }
        let (mut answers, mut questions) = stream.split();
        let read = async {
            let mut bytes = vec![0; 65_536];
            while answers.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
        };
        let write = async {
            while questions.write_all(bytes).await.is_ok() {
                strikes.add(each);
            }
        };
        tokio::select! {
            () = read => {}
            () = write => {}
        }
    }
}

/// When an attack is over, what waits in the kernel must not go on with it; and ports must not run out.
fn reset_when_dropped(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

async fn pour_frames(port: u16, strikes: Arc<Strikes>, bytes: Vec<u8>, each: u64) {
    strikes.stand();
    let head = handshake("/ws/tasks/", &format!("Authorization: Bearer {}\r\n", token("attacker")));
    join_all((0..4).map(|_| pour(port, head.as_bytes(), &bytes, each, &strikes))).await;
}

/// Pings without end, as fast as they are taken, over several connections.
#[tokio::test]
async fn a_flood_of_pings_is_not_felt_by_others() {
    const BOUND: u64 = 48 * MB;
    let target = Target::start_alone(&[]).await;
    let attack = async |port, strikes| pour_frames(port, strikes, frame(FINAL | PING, b"ping").repeat(50), 50).await;
    feels_nothing(&target, BOUND, 10_000, attack).await;
    target.stays_unharmed().await;
}

/// A million fragments of one byte and of none: half of them in messages that end, half in one that never does.
#[tokio::test]
async fn a_million_tiny_fragments_are_not_felt_by_others() {
    const BOUND: u64 = 48 * MB;
    const FRAGMENTS: u64 = 4000;
    let target = Target::start_alone(&[]).await;
    let attack = async |port, strikes: Arc<Strikes>| {
        let piece = [frame(CONTINUATION, b" "), frame(CONTINUATION, b"")].concat();
        let begin = frame(TEXT, b"{\"type\":\"ping\"");
        let message = [&*begin, &piece.repeat(FRAGMENTS as usize / 2), &frame(FINAL | CONTINUATION, b"}")].concat();
        let endless = frame(CONTINUATION, b"").repeat(FRAGMENTS as usize);
        strikes.stand();
        let head = handshake("/ws/tasks/", &format!("Authorization: Bearer {}\r\n", token("attacker"))).into_bytes();
        let never_ends = [&*head, &begin].concat();
        tokio::join!(pour(port, &head, &message, 1, &strikes), pour(port, &never_ends, &endless, 1, &strikes));
    };
    feels_nothing(&target, BOUND, 10, attack).await;
    // Of the one that never ends nobody knows how much was read.
    let read = target.metric("taskcast_client_messages_total{outcome=\"ok\"}").await * FRAGMENTS;
    assert!(read > 100_000, "{read} fragments");
    target.stays_unharmed().await;
}

/// Messages that are each a mistake, and one connection after the other when they are closed for it.
#[tokio::test]
async fn a_flood_of_broken_messages_is_not_felt_by_others() {
    const BOUND: u64 = 48 * MB;
    let target = Target::start_alone(&[]).await;
    let attack = async |port, strikes| {
        let deep = format!("{{\"type\":\"subscribe\",\"task_id\":{}", "[".repeat(4000));
        let bytes = [text("{"), text(&deep), text("[]"), text("{\"type\":\"make_coffee\"}")].concat();
        pour_frames(port, strikes, bytes, 4).await;
    };
    feels_nothing(&target, BOUND, 1_000, attack).await;
    target.stays_unharmed().await;
}

/// Subscribe and unsubscribe in turns, to what has many foreign tasks under it: each looks at them all.
#[tokio::test]
async fn subscribing_and_unsubscribing_in_turns_is_not_felt_by_others() {
    const BOUND: u64 = 64 * MB;
    let target = Target::start_alone(&[]).await;
    for part in 0..10 {
        let events: Vec<_> = (0..500)
            .map(|n| json!({"task_id": format!("f{part}-{n}"), "root_id": "crowd", "user_id": "victim", "progress": n % 100}))
            .collect();
        target.publish(&json!(events)).await;
    }
    let attack = async |port, strikes| {
        let topic = |kind: &str| text(&json!({"type": kind, "root_id": "crowd"}).to_string());
        let bytes = [topic("subscribe"), topic("unsubscribe")].concat().repeat(5);
        pour_frames(port, strikes, bytes, 10).await;
    };
    feels_nothing(&target, BOUND, 500, attack).await;
    let obeyed = target.metric("taskcast_client_messages_total{outcome=\"ok\"}").await;
    println!("{obeyed} commands were obeyed");
    assert!(obeyed > 500, "{obeyed} commands were obeyed");
    target.stays_unharmed().await;
}

/// 10,000 handshakes that are begun and not finished: silent connections, heads without an end, WebSockets that never say
/// who they are.
#[tokio::test]
async fn ten_thousand_half_open_handshakes_are_not_felt_by_others() {
    // What hyper reads ahead for a head is most of it.
    const BOUND: u64 = 200 * MB;
    let patient = [("TASKCAST_HTTP_HEADER_TIMEOUT_MS", "60000"), ("TASKCAST_SESSIONS_FIRST_FRAME_TIMEOUT_MS", "60000")];
    let target = Target::start_alone(&patient).await;
    let attack = async |port, strikes: Arc<Strikes>| {
        let mut held = hold_half_open(port, handshake("/ws/tasks/", "").as_bytes(), &strikes).await;
        // Whoever asked has an answer: what is measured is what they hold, not how they came.
        for stream in to_be_answered(&mut held) {
            assert!(matches!(stream.read(&mut [0; 1024]).await, Ok(1..)), "an answer to the handshake");
        }
        strikes.stand();
        std::future::pending::<()>().await;
    };
    feels_nothing(&target, BOUND, HALF_OPEN, attack).await;
    target.stays_unharmed().await;
}

/// Every place of the operators' listener held, by silence and in the middle of a head, so that a kubelet finds none and ends
/// the process, or takes it out of its service.
#[tokio::test]
async fn probes_are_answered_while_somebody_holds_every_place_of_the_operators() {
    let target = Target::start(&[("TASKCAST_HTTP_HEADER_TIMEOUT_MS", "60000")]).await;
    let mut held = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(("127.0.0.1", target.operations_port)).await.unwrap();
        stream.write_all(if n % 2 == 0 { b"" } else { b"GET /livez HT" }).await.unwrap();
        held.push(stream);
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(target.operations(path).await.0, 200, "{path}");
    }
    assert!(target.metric("limit=\"operations_connections_max\"").await >= 136);
    target.stays_unharmed().await;
    drop(held);
}

/// One connection after the other with a token that is none: each costs a handshake and a signature.
#[tokio::test]
async fn a_flood_of_bad_tokens_is_not_felt_by_others() {
    const BOUND: u64 = 48 * MB;
    let target = Target::start_alone(&[]).await;
    let attack = async |port, strikes: Arc<Strikes>| {
        strikes.stand();
        let good = token("attacker");
        // In the middle of the signature, so that it is one that has to be checked.
        let middle = good.len() - 20;
        let other = if good.as_bytes()[middle] == b'A' { "B" } else { "A" };
        let bad = format!("{}{other}{}", &good[..middle], &good[middle + 1..]);
        let request = handshake("/ws/tasks/", &format!("Authorization: Bearer {bad}\r\n"));
        let strike = async || loop {
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
            reset_when_dropped(&stream);
            let mut bytes = [0; 1024];
            let _ = stream.write_all(request.as_bytes()).await;
            let _ = stream.read(&mut bytes).await;
            strikes.add(1);
        };
        tokio::join!(strike(), strike(), strike(), strike());
    };
    feels_nothing(&target, BOUND, 300, attack).await;
    target.stays_unharmed().await;
}

/// A publisher with a good token and bad intentions: new task ids without end, for a few owners. They make room for
/// themselves; the others have theirs. (Who may publish for any owner can fill the table: see `SECURITY.md`.)
#[tokio::test]
async fn a_flood_of_new_tasks_is_not_felt_by_others_and_stays_within_the_limits() {
    const BOUND: u64 = 72 * MB;
    let limits =
        [("TASKCAST_TASKS_MAX", "5000"), ("TASKCAST_TASKS_MAX_PER_OWNER", "400"), ("TASKCAST_LOG_MAX_EVENTS", "20000")];
    let target = Target::start_alone(&limits).await;
    let attack = async |port, strikes: Arc<Strikes>| {
        strikes.stand();
        let head = format!(
            "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n",
            token_with("attacker", &["own"], true)
        );
        let mut wire = Wire::connect(port).await;
        for round in 0_u64.. {
            let user = format!("attacker-{}", round % 10);
            let events: Vec<_> = (0..20)
                .map(|n| json!({"task_id": format!("new-{}-{round}-{n}", clock()), "user_id": user, "title": "x".repeat(200)}))
                .collect();
            let body = json!(events).to_string();
            wire.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
            wire.until(b"\r\n\r\n").await;
            wire.received.clear();
            strikes.add(20);
        }
    };
    feels_nothing(&target, BOUND, 5_000, attack).await;
    let held = target.metric("taskcast_tasks{").await;
    assert!((3_000..=4_100).contains(&held), "{held} tasks");
    target.stays_unharmed().await;
}

fn clock() -> u64 {
    taskcast::clock::now().unix_ms
}

/// Result bombs: tasks with the longest results there are, asked for again and again by clients that do not read.
#[tokio::test]
async fn long_results_that_nobody_reads_are_not_felt_by_others() {
    const BOUND: u64 = 112 * MB;
    let target = Target::start_alone(&[]).await;
    let result = "x".repeat(32_000);
    for part in 0..20 {
        let events: Vec<_> = (0..20)
            .map(|n| json!({"task_id": format!("bomb{part}-{n}"), "user_id": "attacker", "result": result}))
            .collect();
        target.publish(&json!(events)).await;
    }
    let attack = async |port, strikes: Arc<Strikes>| {
        strikes.stand();
        let ask = text("{\"type\":\"get_active_tasks\"}").repeat(20);
        let token = token("attacker");
        loop {
            let mut held = Vec::new();
            for _ in 0..50 {
                let mut wire = Wire::connect(port).await;
                wire.send(handshake("/ws/tasks/", &format!("Authorization: Bearer {token}\r\n")).as_bytes()).await;
                wire.send(&ask).await;
                strikes.add(20);
                held.push(wire);
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        }
    };
    feels_nothing(&target, BOUND, 1_000, attack).await;
    target.stays_unharmed().await;
}
