//! A traced event counts each session that its frame was written to once: whoever writes it, and however many bytes the socket
//! takes at a time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::{Sessions, test_world::*};
use crate::{
    auth::{Settings as AuthSettings, Verifier},
    clock,
    proto::{Event, TraceContext},
    traces::Traces,
};

/// Nothing that is awaited here takes longer unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// Less than a frame, and what is never full.
const PIPES: [usize; 2] = [100, 1 << 16];

/// Reads until `text` came, and goes on.
fn read_on(sessions: &Arc<Sessions>, pipe: usize, text: &'static str) -> tokio::sync::oneshot::Receiver<()> {
    let (mut client, server) = tokio::io::duplex(pipe);
    let serving = sessions.clone();
    tokio::spawn(async move { serving.serve(server, Bytes::new(), mine()).await });
    let (sender, seen) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut sender, mut told, mut some) = (Some(sender), Vec::new(), [0; 512]);
        while let Ok(read @ 1..) = client.read(&mut some).await {
            told.extend_from_slice(&some[..read]);
            if String::from_utf8_lossy(&told).contains(text) {
                sender.take().map(|sender| sender.send(()));
            }
        }
    });
    seen
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
        for greeted in PIPES.map(|pipe| read_on(&sessions, pipe, "active_tasks")) {
            tokio::time::timeout(PATIENCE, greeted).await.expect("a snapshot").unwrap();
        }
        // An event of somebody else's is followed too, and told to nobody.
        for (owner, task) in [("u2", "t2"), ("u1", "t1")] {
            let context = TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1, state: None };
            traces.applying(clock::now());
            let event = Event::new(task_id(task));
            world.apply(Event { user_id: Some(user(owner)), trace: Some(Box::new(context)), ..event });
            traces.applied(clock::now());
        }
        let counted = async {
            while traces.written() != [0, 2] {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let counted = tokio::time::timeout(PATIENCE, counted).await;
        assert!(counted.is_ok(), "with {workers} workers: {:?}", traces.written());
    }
}
