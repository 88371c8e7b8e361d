//! The loopback session on a real pump, and that it leaves no trace in what is counted of clients.

use std::{cell::RefCell, rc::Rc, time::Duration};

use super::*;
use crate::{
    proto::{ResumeFailure, frame},
    session::{
        test_world::{World, task_id},
        websocket::{Inbound, Reader},
    },
};

const CANARY: &str = "taskcast:canary:own";

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(10);

fn world() -> World {
    let world = World::new();
    world.shared.hub.keep_canary(task_id(CANARY));
    world
}

impl World {
    fn say_as(&mut self, task: &str, message: &str) {
        let mut event = crate::proto::Event::new(task_id(task));
        event.message = Some(message.into());
        self.at += 1;
        let position = crate::proto::Position { major: self.at, minor: 0 };
        let cursor = crate::proto::Cursor { position, proof: self.at as u32 };
        let now_ms = self.now.unix_ms;
        self.shared.hub.apply(&[crate::hub::Arrival { cursor, appended_at_ms: None, event: Some(event) }], now_ms);
    }
}

/// Runs the loopback session beside `steps`, which waits for messages by asking for the newest.
async fn beside<Steps>(world: World, steps: impl FnOnce(World, Rc<RefCell<Vec<String>>>) -> Steps) -> World
where
    Steps: Future<Output = World>,
{
    let heard = Rc::new(RefCell::new(Vec::new()));
    let (sessions, id, sink) = (world.shared.clone(), task_id(CANARY), heard.clone());
    tokio::select! {
        () = sessions.loop_back(&id, |message| sink.borrow_mut().push(message.to_owned())) => panic!("it ended"),
        world = steps(world, heard) => world,
    }
}

async fn until_heard(heard: &RefCell<Vec<String>>, message: &str) {
    let asked = async {
        while heard.borrow().last().is_none_or(|last| last != message) {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, asked).await;
    waited.unwrap_or_else(|_| panic!("{message} did not come: {:?}", heard.borrow()));
}

#[tokio::test]
async fn it_hears_its_canary_and_nothing_else_and_is_not_counted() {
    let before = world().shared.metrics.render().unwrap();
    let world = beside(world(), |mut world, heard| async move {
        world.say_as(CANARY, "1");
        until_heard(&heard, "1").await;
        world.say_as("taskcast:canary:another", "x");
        world.say_as("t1", "y");
        world.say_as(CANARY, "2");
        until_heard(&heard, "2").await;
        assert_eq!(*heard.borrow(), ["1", "2"]);
        world
    })
    .await;
    assert!(world.shared.open.is_empty());
    let text = world.shared.metrics.render().unwrap();
    // Of all that is counted only the events have moved.
    let moved = |line: &&str| {
        !before.contains(*line) && !line.starts_with("process_") && !line.starts_with("taskcast_tasks_bytes")
    };
    let moved: Vec<&str> = text.lines().filter(moved).collect();
    assert_eq!(
        moved,
        [
            "taskcast_events_total{log=\"memory\",outcome=\"applied\",reason=\"\"} 1",
            "taskcast_events_total{log=\"memory\",outcome=\"canary\",reason=\"\"} 3",
            "taskcast_tasks{status=\"queued\"} 1",
        ]
    );
}

#[tokio::test]
async fn it_hears_in_its_snapshot_what_came_before_it() {
    let mut world = world();
    world.say_as(CANARY, "1");
    beside(world, |world, heard| async move {
        until_heard(&heard, "1").await;
        world
    })
    .await;
}

#[tokio::test]
async fn a_reset_and_a_drain_do_not_end_it() {
    beside(world(), |mut world, heard| async move {
        world.say_as(CANARY, "1");
        until_heard(&heard, "1").await;
        world.shared.drain.begin(Duration::ZERO, world.now.instant);
        world.shared.hub.reset(ResumeFailure::AnotherLog);
        world.shared.hub.set_replayed(true);
        world.say_as(CANARY, "2");
        until_heard(&heard, "2").await;
        world
    })
    .await;
}

#[tokio::test]
async fn it_answers_pings_so_that_it_is_not_taken_for_dead() {
    let (near, mut far) = tokio::io::duplex(PIPE_BYTES);
    let mut answer = [0; PONG.len()];
    let asked = async {
        far.write_all(&frame(Opcode::Ping, b"")).await.unwrap();
        far.read_exact(&mut answer).await.unwrap();
    };
    let mut unheard = |_: &str| {};
    tokio::select! {
        _ = listen(near, &mut unheard) => panic!("it ended"),
        asked = tokio::time::timeout(PATIENCE, asked) => asked.expect("an answer"),
    }
    assert_eq!(Reader::new(0).read(&mut &answer[..]), Ok(Some(Inbound::Pong)));
}

#[test]
fn a_frame_is_taken_when_it_is_whole() {
    for length in [0, 1, 125, 126, 65_535, 65_536] {
        let whole = crate::proto::frame(Opcode::Text, &vec![7; length]);
        let mut unread = BytesMut::from(&whole[..whole.len() - 1]);
        assert!(take_frame(&mut unread).is_none());
        unread.extend_from_slice(&whole[whole.len() - 1..]);
        unread.extend_from_slice(b"rest");
        assert_eq!(take_frame(&mut unread), Some((Opcode::Text as u8, Bytes::from(vec![7; length]))));
        assert_eq!(unread, b"rest"[..]);
    }
}
