//! Questions about one task, to a hub of their own.

use std::time::Duration;

use super::{
    super::test_world::{World, identity, task_id},
    *,
};
use crate::proto::Position;

async fn ask(world: &World, after: Option<Cursor>, wait: Duration) -> Option<Arc<TaskFrame>> {
    let identity = identity("u1");
    let until = clock::now().instant + wait;
    let question = Question { identity: &identity, task_id: task_id("t1"), after, until };
    world.shared.answer(question).await.unwrap()
}

#[tokio::test]
async fn the_tasks_own_cursor_is_believed_also_where_no_proof_is_kept_any_more() {
    let mut world = World::new();
    world.event("t1", "u1", Some(1.0), None);
    let own = ask(&world, None, Duration::ZERO).await.unwrap().cursor;
    // The trail of this hub holds 10,000.
    for n in 0..10_001 {
        world.event(
            "t2",
            "u1",
            None,
            Some(if n % 2 == 0 { crate::proto::Status::Running } else { crate::proto::Status::Waiting }),
        );
    }
    assert!(world.shared.hub.check(own).is_err());
    // Else a script would be answered the same at once, again and again.
    assert!(ask(&world, Some(own), Duration::ZERO).await.is_none());
    let forged = Cursor { proof: !own.proof, ..own };
    assert!(ask(&world, Some(forged), Duration::ZERO).await.is_some());
    let trimmed = Cursor { position: Position { minor: 1, ..own.position }, ..own };
    assert!(ask(&world, Some(trimmed), Duration::ZERO).await.is_some());
}

#[tokio::test]
async fn a_later_cursor_of_the_same_log_covers_the_task() {
    let mut world = World::new();
    world.event("t1", "u1", Some(1.0), None);
    world.event("t2", "u1", Some(1.0), None);
    let later = world.shared.hub.progress().applied;
    assert!(ask(&world, later, Duration::ZERO).await.is_none());
    world.event("t1", "u1", Some(2.0), None);
    assert!(ask(&world, later, Duration::ZERO).await.is_some());
}

#[tokio::test]
async fn nothing_is_left_of_whoever_leaves() {
    let world = World::new();
    let gave_up = tokio::time::timeout(Duration::from_millis(20), ask(&world, None, Duration::from_secs(60))).await;
    assert!(gave_up.is_err());
    let text = world.shared.metrics.render().unwrap();
    assert!(text.contains("taskcast_transport_connections{transport=\"long_poll\"} 0"));
    assert!(text.contains("taskcast_transport_connections_total{transport=\"long_poll\"} 1"));
    assert!(world.shared.open.is_empty());
}
