//! A traced event counts each session that its frame was written to once: whoever writes it, and however many bytes the socket
//! takes at a time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{io::AsyncReadExt, sync::watch};

use super::{Sessions, test_world::*};
use crate::{
    auth::{Settings as AuthSettings, Verifier},
    clock,
    proto::{Event, TraceContext},
    traces::{FOLLOWED_FOR, Traces},
};

/// Nothing that is awaited here takes longer unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// Less than a frame, somewhat more, and what is never full.
const PIPES: [usize; 3] = [100, 1000, 1 << 16];

/// Reads on, and shows all that came.
fn read_on(sessions: &Arc<Sessions>, pipe: usize) -> watch::Receiver<String> {
    let (mut client, server) = tokio::io::duplex(pipe);
    let serving = sessions.clone();
    tokio::spawn(async move { serving.serve(server, Bytes::new(), mine()).await });
    let (sender, told) = watch::channel(String::new());
    tokio::spawn(async move {
        let mut some = [0; 512];
        while let Ok(read @ 1..) = client.read(&mut some).await {
            sender.send_modify(|told| told.push_str(&String::from_utf8_lossy(&some[..read])));
        }
    });
    told
}

async fn all_read(readers: &mut [watch::Receiver<String>], text: &str) {
    for reader in readers {
        let seen = tokio::time::timeout(PATIENCE, reader.wait_for(|told| told.contains(text))).await;
        assert!(seen.is_ok_and(|seen| seen.is_ok()), "{text}");
    }
}

#[tokio::test]
async fn each_session_is_counted_once_whoever_writes_the_frame() {
    for workers in [0, 1] {
        let mut world = World::new();
        let mut sessions = world.shared.clone();
        Arc::make_mut(&mut sessions).verifier = Verifier::new(AuthSettings::None { user: Some(user("u1")) }).unwrap();
        let traces = Traces::new("memory", "taskcast:events".to_owned(), sessions.metrics.clone());
        sessions.hub.trace_into(traces.clone());
        for _ in 0..workers {
            tokio::spawn(sessions.clone().deliver());
        }
        let mut readers = PIPES.map(|pipe| read_on(&sessions, pipe));
        all_read(&mut readers, "active_tasks").await;
        // On a machine that stood still for so long that nobody counts, once more.
        for attempt in 0.. {
            assert!(attempt < 20, "the machine stands still");
            let began = clock::now();
            // An event of somebody else's is followed too, and told to nobody.
            for (owner, task) in [("u2", format!("t{attempt}-other")), ("u1", format!("t{attempt}-mine"))] {
                let context = TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1, state: None };
                traces.applying(clock::now());
                let event = Event::new(task_id(&task));
                world.apply(Event { user_id: Some(user(owner)), trace: Some(Box::new(context)), ..event });
                traces.applied(clock::now());
            }
            all_read(&mut readers, &format!("t{attempt}-mine")).await;
            // Whoever would count twice has done so when the next frame is there.
            let event = Event::new(task_id(&format!("t{attempt}-next")));
            world.apply(Event { user_id: Some(user("u1")), ..event });
            all_read(&mut readers, &format!("t{attempt}-next")).await;
            if clock::now().instant.duration_since(began.instant) < FOLLOWED_FOR {
                assert_eq!(traces.written()[2 * attempt..], [0, PIPES.len() as u64], "with {workers} workers");
                break;
            }
        }
    }
}
