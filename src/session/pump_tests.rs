//! How slowly a client may read. Over a pipe of a few bytes, as the kernel's buffers would hide it; in real time, as the
//! pump reads the clock itself.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, DuplexStream};

use super::*;
use crate::{
    auth::{Settings as AuthSettings, Verifier},
    session::{Settings, test_world::*},
};

const WRITE_TIMEOUT: Duration = Duration::from_millis(400);

/// A client of somebody whose snapshot has some 300 kB, and the connection's end.
fn connect() -> (DuplexStream, tokio::task::JoinHandle<()>, Sessions) {
    let mut world = World::new();
    for n in 0..600 {
        world.event(&format!("t{n}"), "u1", Some(1.0), None);
    }
    let mut sessions = world.shared.clone();
    sessions.verifier = Verifier::new(AuthSettings::None { user: Some(user("u1")) }).unwrap();
    sessions.settings = Arc::new(Settings { write_timeout: WRITE_TIMEOUT, ..(*sessions.settings).clone() });
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
    let (mut client, mut served, sessions) = connect();
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
    let (mut client, served, sessions) = connect();
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
    let (mut client, served, sessions) = connect();
    let began = clock::now().instant;
    let mut gulp = vec![0; TAKEN_MIN_BYTES * 5 / 4];
    while clock::now().instant < began + 5 * WRITE_TIMEOUT / 2 {
        client.read_exact(&mut gulp).await.unwrap();
        tokio::time::sleep(WRITE_TIMEOUT / 2).await;
    }
    assert!(!served.is_finished() && !dropped(&sessions));
}
