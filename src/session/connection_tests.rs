//! How slowly a client may read, and that it makes no difference who takes a session's step. Over a pipe of a few bytes,
//! as the kernel's buffers would hide it; in real time, as the connection reads the clock itself.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, DuplexStream};

use super::*;
use crate::{
    auth::{Identity, Issued, Settings as AuthSettings, Verifier},
    hub::Mailbox,
    proto::{Revocation, Revoked, Status},
    session::{Deliver, Request, Sessions, Settings, pump::TAKEN_MIN_BYTES, test_world::*},
};

const WRITE_TIMEOUT: Duration = Duration::from_millis(400);

/// A client of somebody whose snapshot has some 300 kB in one page, and the connection's end.
fn connect(write_timeout: Duration) -> (DuplexStream, tokio::task::JoinHandle<()>, Arc<Sessions>) {
    let mut world = World::new();
    for n in 0..600 {
        world.event(&format!("t{n}"), "u1", Some(1.0), None);
    }
    let mut sessions = world.shared.clone();
    Arc::make_mut(&mut sessions).verifier = Verifier::new(AuthSettings::None { user: Some(user("u1")) }).unwrap();
    Arc::make_mut(&mut sessions).settings =
        Arc::new(Settings { write_timeout, page_max_bytes: 1 << 20, ..(*sessions.settings).clone() });
    let (client, server) = tokio::io::duplex(64);
    let serving = sessions.clone();
    let connection = tokio::spawn(async move { serving.serve(server, Bytes::new(), mine()).await });
    (client, connection, sessions)
}

fn dropped(sessions: &Sessions) -> bool {
    sessions.metrics.render().unwrap().contains("taskcast_readers_dropped_total 1")
}

#[tokio::test]
async fn a_client_that_takes_a_few_bytes_now_and_then_is_dropped_like_one_that_takes_none() {
    let (mut client, mut served, sessions) = connect(WRITE_TIMEOUT);
    let began = clock::now().instant;
    let sipping = async {
        let mut sip = [0; 16];
        while client.read(&mut sip).await.is_ok_and(|bytes| bytes > 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = sipping => {}
        ended = &mut served => ended.unwrap(),
        () = tokio::time::sleep(10 * WRITE_TIMEOUT) => panic!("not dropped"),
    }
    assert!(clock::now().instant >= began + WRITE_TIMEOUT && dropped(&sessions));
}

#[tokio::test]
async fn a_connection_that_hears_late_of_the_drain_is_closed_within_the_window_all_the_same() {
    let (mut client, served, sessions) = connect(WRITE_TIMEOUT);
    let window = Duration::from_secs(60);
    sessions.drain.begin(window, clock::now().instant.checked_sub(window).unwrap());
    // The first turn is the beginning of the window, whenever that was.
    assert!(sessions.drain.turn().is_some());
    let mut told = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut told));
    closed.await.expect("closed at once").unwrap();
    served.await.unwrap();
    let told = String::from_utf8_lossy(&told);
    assert!(told.contains("\"reconnect_after_ms\":0}") && told.contains("the service restarts"), "{told}");
}

#[tokio::test]
async fn a_client_that_reads_slowly_but_enough_is_kept() {
    // A busy machine may be as slow again.
    let write_timeout = 5 * WRITE_TIMEOUT;
    let (mut client, served, sessions) = connect(write_timeout);
    let began = clock::now().instant;
    let mut gulp = vec![0; TAKEN_MIN_BYTES * 5 / 4];
    while clock::now().instant < began + 5 * write_timeout / 2 {
        client.read_exact(&mut gulp).await.unwrap();
        tokio::time::sleep(write_timeout / 2).await;
    }
    assert!(!served.is_finished() && !dropped(&sessions));
}

/// The percentages that came through the pipe, in order.
fn percentages(bytes: &[u8]) -> Vec<f64> {
    let text = String::from_utf8_lossy(bytes);
    let after = text.split("\"progress\":").skip(1);
    after.map(|rest| rest.split([',', '}']).next().unwrap().parse().unwrap()).collect()
}

/// A live session whose task does not run, and the client's end of its pipe.
async fn at_rest(
    world: &World,
    request: &Request,
    pipe: usize,
) -> (Arc<Connection<DuplexStream>>, Arc<Mailbox>, DuplexStream) {
    let (mut client, server) = tokio::io::duplex(pipe);
    let session = world.open("u1", request);
    let mailbox = session.mailbox();
    let connection = Connection::new(Pump::new(server, 1_000), session);
    let mut greeting = vec![0; 4_096];
    let begin = async {
        while let Some(step) = connection.with(State::step) {
            if matches!(step, Step::Wait { idle: true, .. }) {
                return;
            }
            if matches!(step, Step::Wait { .. }) {
                connection.turn().await;
            }
        }
    };
    let drain = async { while client.read(&mut greeting).await.is_ok() {} };
    tokio::select! {
        () = begin => {}
        () = drain => {}
    }
    while client.read(&mut greeting).now_or_never().is_some() {}
    (connection, mailbox, client)
}

fn deliver(world: &World, connection: &Connection<DuplexStream>) -> bool {
    let mut turn = world.shared.hub.turn(world.now);
    let delivered = connection.deliver(&mut turn);
    turn.tally.hand_over();
    delivered
}

#[tokio::test]
async fn the_end_of_what_a_stream_watches_is_written_in_place_of_its_task_which_is_woken_to_end_it() {
    let mut world = World::new();
    let scope = crate::session::Scope::Topic(crate::proto::Topic::Task(task_id("t1")));
    let request = Request { scope, encoding: crate::proto::Encoding::EventStream, ..mine() };
    let (connection, _mailbox, mut client) = at_rest(&world, &request, 1 << 16).await;
    let mut told = vec![0; 4_096];
    for (status, is_end) in [(Status::Running, false), (Status::Waiting, false), (Status::Succeeded, true)] {
        world.event("t1", "u1", None, Some(status));

        assert_eq!(deliver(&world, &connection), !is_end, "{status:?}");
        let read = client.read(&mut told).await.unwrap();
        assert!(String::from_utf8_lossy(&told[..read]).contains(status.as_str()));
        assert_eq!(connection.with(|state| state.session.closing().is_some()), Some(is_end));
        connection.with(State::step);
    }
}

#[tokio::test]
async fn a_frame_that_is_due_to_a_session_at_rest_is_written_in_place_of_its_task() {
    let mut world = World::new();
    let (connection, _mailbox, mut client) = at_rest(&world, &mine(), 1 << 16).await;
    assert!(deliver(&world, &connection), "there is nothing to do, and so nobody to wake");
    world.event("t1", "u1", Some(1.0), None);
    world.event("t1", "u1", Some(2.0), None);
    assert!(deliver(&world, &connection), "both frames, or the newer one");
    world.event("t1", "u1", Some(3.0), None);
    assert!(deliver(&world, &connection), "the one frame");
    let mut told = vec![0; 4_096];
    let read = client.read(&mut told).await.unwrap();
    assert_eq!(percentages(&told[..read]).last(), Some(&3.0));
    assert!(world.shared.metrics.render().unwrap().contains("taskcast_pull_batch_frames_count 2"));
    world.event("t1", "u1", Some(4.0), None);
    let elsewhere = Arc::new(crate::metrics::Metrics::new("memory"));
    let mut turn = Turn { tally: elsewhere.tally(), ..world.shared.hub.turn(world.now) };
    assert!(connection.deliver(&mut turn));
    turn.tally.hand_over();
    let shown = |metrics: &crate::metrics::Metrics| metrics.render().unwrap();
    assert!(shown(&world.shared.metrics).contains("taskcast_frames_delivered_total 4"), "counted where it belongs");
    assert!(shown(&elsewhere).contains("taskcast_frames_delivered_total 0"));
}

#[tokio::test]
async fn what_a_socket_did_not_take_and_what_needs_a_timer_is_left_to_the_task() {
    let mut world = World::new();
    let (narrow, _mailbox, _client) = at_rest(&world, &mine(), 64).await;
    let throttle = Duration::from_secs(1);
    let (throttled, _other, _its_client) = at_rest(&world, &Request { throttle, ..mine() }, 1 << 16).await;
    world.event("t1", "u1", Some(1.0), None);
    assert!(!deliver(&world, &narrow), "64 bytes are no frame");
    assert!(!deliver(&world, &narrow), "the rest of the frame comes first");
    assert!(!deliver(&world, &throttled), "its task keeps the throttle's time");
    let (busy, _another, _whose_client) = at_rest(&world, &mine(), 1 << 16).await;
    for task in 0..=MARKS_MAX {
        world.event(&format!("b{task}"), "u1", Some(1.0), None);
    }
    assert!(!deliver(&world, &busy), "a long step would keep others waiting");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_takes_a_step_no_frame_comes_twice_or_out_of_order_and_the_end_comes() {
    const EVENTS: u64 = 2_000;
    let mut world = World::new();
    let mut sessions = world.shared.clone();
    Arc::make_mut(&mut sessions).verifier = Verifier::new(AuthSettings::None { user: Some(user("u1")) }).unwrap();
    let workers: Vec<_> = (0..2).map(|_| tokio::spawn(sessions.clone().deliver())).collect();
    let clients: Vec<_> = (0..8)
        .map(|number| {
            // From less than a frame to what is never full.
            let (mut client, server) = tokio::io::duplex(100 << number);
            let serving = sessions.clone();
            let request = Request { deliver: Deliver::Every, ..mine() };
            tokio::spawn(async move { serving.serve(server, Bytes::new(), request).await });
            tokio::spawn(async move {
                let mut told = Vec::new();
                while !String::from_utf8_lossy(&told[told.len().saturating_sub(1_000)..]).contains("task_completed") {
                    assert!(client.read_buf(&mut told).await.unwrap() > 0);
                }
                let mut numbers = percentages(&told);
                // The end has that of the last step.
                numbers.pop();
                let wrong: Vec<_> = numbers.windows(2).filter(|pair| pair[0] >= pair[1]).collect();
                assert!(wrong.is_empty(), "{number}: {wrong:?}");
                numbers.len()
            })
        })
        .collect();
    for number in 0..EVENTS {
        world.event("t1", "u1", Some(number as f64 * 90.0 / EVENTS as f64), None);
        if number % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    world.event("t1", "u1", None, Some(crate::proto::Status::Succeeded));
    for client in clients {
        let took = tokio::time::timeout(Duration::from_secs(20), client).await.expect("the end comes").unwrap();
        assert!(took > 0);
    }
    for worker in workers {
        assert!(!worker.is_finished());
        worker.abort();
    }
}

#[tokio::test]
async fn sessions_are_woken_themselves_when_the_last_worker_has_gone() {
    let mut world = World::new();
    let (connection, mailbox, _client) = at_rest(&world, &mine(), 1 << 16).await;
    mailbox.attend(connection);
    let worker = world.shared.hub.worker();
    world.event("t1", "u1", Some(1.0), None);
    drop(worker);
    tokio::time::timeout(Duration::from_secs(5), mailbox.woken()).await.expect("woken when the worker went");
    mailbox.clear();
    world.event("t1", "u1", Some(2.0), None);
    tokio::time::timeout(Duration::from_secs(5), mailbox.woken()).await.expect("woken at once without a worker");
}

#[test]
#[ignore = "a measurement: cargo test --lib how_long_it_takes_to_ask -- --ignored --nocapture"]
#[expect(clippy::print_stdout, reason = "a measurement")]
fn how_long_it_takes_to_ask_10_000_connections_whether_they_are_revoked() {
    let world = World::new();
    let revocations = world.shared.verifier.revocations().clone();
    let connect = |n: usize| {
        let issued =
            Some(Box::new(Issued { token_id: Some(format!("token-{n}").into()), at_ms: Some(1), opaque: None }));
        let identity = Identity { issued, ..identity(&format!("u{n}")) };
        let pump = Pump::new(tokio::io::duplex(64).0, 1_000);
        Connection::new(pump, Session::open(&world.shared, identity, &mine(), world.now))
    };
    let connections: Vec<_> = (0..10_000).map(connect).collect();
    let _places: Vec<Place> = connections.iter().map(Connection::hold).collect();
    for n in 0..50_000 {
        let revoked = Revoked::Token(format!("other-{n}").into());
        revocations
            .apply(&Revocation { revoked, expires_at_ms: None }, Some(world.now.unix_ms), world.now.unix_ms)
            .unwrap();
    }
    let began = clock::now().instant;
    let (holders, _) = revocations.holders().part(0, connections.len());
    for holder in &holders {
        holder.ask_again(&revocations);
    }
    println!("{} connections, 50,000 revocations: {:?}", holders.len(), clock::now().instant - began);
    assert!(
        connections.iter().all(|connection| connection.with(|state| state.session.closing().is_none()) == Some(true))
    );
}

/// Beside it an idle connection holds its future, its mailbox and its place in a topic. Allocators round up: the next step
/// of most is at 1,280 bytes.
#[test]
fn what_an_open_connection_holds_fits_into_a_kibibyte() {
    let bytes = size_of::<Connection<tokio::net::TcpStream>>() + 2 * size_of::<usize>();
    assert!(bytes <= 1_024, "{bytes}");
    let sessions = sessions();
    let (socket, _) = tokio::io::duplex(64);
    let future = size_of_val(&sessions.serve(socket, Bytes::new(), mine()));
    assert!(future <= 384, "{future}");
}
