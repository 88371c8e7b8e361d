//! Streams on a hub of their own, and a clock that only moves when told.

use std::time::Duration;

use super::{
    super::{
        Settings,
        test_world::{World, identity, mine, task_id, user},
    },
    *,
};
use crate::proto::Event;

fn of(topic: Topic) -> Request {
    Request { scope: crate::session::Scope::Topic(topic), encoding: Encoding::EventStream, ..mine() }
}

fn of_task(id: &str) -> Request {
    of(Topic::Task(task_id(id)))
}

/// Everything that the session has to send now, as it goes out.
fn said(world: &World, session: &mut Session) -> String {
    let mut said = String::new();
    loop {
        let output = session.output(world.now);
        let none = output.frames.is_empty();
        said.extend(output.frames.iter().map(|frame| String::from_utf8(frame.to_vec()).unwrap()));
        if none && !session.has_more() {
            return said;
        }
    }
}

#[tokio::test]
async fn a_stream_ends_behind_the_end_of_its_task_and_not_before() {
    let mut world = World::new();
    let mut session = world.open("u1", &of_task("t1"));
    said(&world, &mut session);
    for (status, ends) in
        [(Status::Running, false), (Status::Lost, false), (Status::Running, false), (Status::Succeeded, true)]
    {
        world.event("t1", "u1", None, Some(status));
        assert_eq!(session.closing(), None, "nothing of it was told yet");
        let told = said(&world, &mut session);
        assert!(told.contains(&format!("\"status\":\"{}\"", status.as_str())), "{told}");
        assert_eq!(session.closing().map(|(code, _)| code), ends.then_some(CloseCode::Normal), "{status:?}");
    }
    assert_eq!(session.farewell(CloseCode::Normal, "reason"), "0\r\n\r\n");
}

#[test]
fn a_websocket_stays_open_when_its_task_has_ended() {
    let mut world = World::new();
    world.event("t1", "u1", None, Some(Status::Succeeded));
    let mut session = world.open("u1", &Request { encoding: Encoding::Json, ..of_task("t1") });
    world.frames(&mut session);
    assert!(session.closing().is_none() && !session.has_more());
}

#[test]
fn a_throttled_stream_does_not_end_above_what_it_has_not_told() {
    let mut world = World::new();
    let request = Request { throttle: Duration::from_secs(1), ..of(Topic::Root(task_id("r1"))) };
    let mut session = world.open("u1", &request);
    said(&world, &mut session);
    let mut child = Event::new(task_id("c1"));
    (child.user_id, child.root_id) = (Some(user("u1")), Some(task_id("r1")));
    world.apply(child.clone());
    world.event("r1", "u1", None, Some(Status::Succeeded));
    assert!(said(&world, &mut session).contains("\"task_id\":\"r1\""));
    assert!(session.closing().is_none(), "another one of the group is not over");
    child.status = Some(Status::Failed);
    world.apply(child);
    assert!(said(&world, &mut session).contains("\"status\":\"failed\""), "ends are not delayed");
    assert!(session.closing().is_some());
}

#[test]
fn a_stream_of_a_large_group_ends_with_the_last_of_its_tasks_and_remembers_a_few_of_them() {
    let mut world = World::new();
    let mut session = world.open("u1", &of(Topic::Root(task_id("r1"))));
    let child = |n: usize, status| {
        let mut child = Event::new(task_id(&format!("c{n}")));
        (child.user_id, child.root_id, child.status) = (Some(user("u1")), Some(task_id("r1")), Some(status));
        child
    };
    for n in 0..200 {
        world.apply(child(n, Status::Running));
    }
    world.event("r1", "u1", None, Some(Status::Succeeded));
    said(&world, &mut session);
    assert_eq!(session.unfinished.len(), UNFINISHED_MAX);
    // Neither as they came nor backwards.
    for n in (0..200).map(|n| n * 77 % 200) {
        assert!(session.closing().is_none(), "c{n} is not over");
        world.apply(child(n, Status::Succeeded));
        said(&world, &mut session);
        assert!(session.unfinished.len() <= UNFINISHED_MAX);
    }
    assert!(session.closing().is_some());
}

#[tokio::test]
async fn who_knows_of_the_end_gets_no_stream_and_who_does_not_does() {
    let mut world = World::new();
    world.event("t1", "u1", Some(50.0), None);
    let opened = |request: Request| {
        let shared = world.shared.clone();
        async move { shared.open_stream(identity("u1"), &request).await.map(|stream| stream.session) }
    };
    let mut session = opened(of_task("t1")).await.unwrap();
    said(&world, &mut session);
    let halfway = session.cursor.unwrap().to_string();
    drop(session);
    world.event("t1", "u1", None, Some(Status::Succeeded));
    let opened = |request: Request| {
        let shared = world.shared.clone();
        async move { shared.open_stream(identity("u1"), &request).await.map(|stream| stream.session) }
    };
    let with = |cursor: &str| Request { cursor: Some(cursor.to_owned()), ..of_task("t1") };
    let mut session = opened(with(&halfway)).await.unwrap();
    assert!(said(&world, &mut session).contains("task_completed"));
    let end = session.cursor.unwrap().to_string();
    assert_eq!(opened(with(&end)).await.err(), Some(Unopened::Ended));
    // A cursor that proves nothing, and none: they get to see the end.
    for request in [with("1.7.0.00000000"), with("nonsense"), of_task("t1")] {
        let mut session = opened(request).await.unwrap();
        assert!(said(&world, &mut session).contains("\"status\":\"succeeded\""));
        assert!(session.closing().is_some());
    }
    let nobody = Identity { user: None, ..Identity::default() };
    let refused = world.shared.open_stream(nobody, &Request { encoding: Encoding::EventStream, ..mine() }).await;
    assert_eq!(refused.err(), Some(Unopened::Forbidden));
}

#[test]
fn what_a_stream_hears_nothing_of_does_not_end_it_and_its_heartbeat_is_a_comment() {
    let world = World::new();
    let mut session = world.open("u1", &of_task("t1"));
    said(&world, &mut session);
    let mut now = world.now;
    for _ in 0..100 {
        let due = session.deadline(now);
        assert!(due > now.instant, "a timer in the past would cost a core");
        now = now.after(due - now.instant);
        assert!(session.on_time(now));
        let beats = session.output(now).frames;
        assert_eq!(beats, ["d\r\n: heartbeat\n\n\r\n".as_bytes()]);
    }
    assert!(now.instant - world.now.instant > 10 * world.shared.settings.dead_peer_timeout);
}

#[test]
fn retries_are_spread_between_the_shortest_wait_and_ten_times_that() {
    let mut world = World::new();
    let drawn = |world: &World| (0..200).map(|_| first_retry_ms(&world.shared)).collect::<Vec<_>>();
    let all = drawn(&world);
    assert!(all.iter().all(|ms| (500..=5_000).contains(ms)), "{all:?}");
    assert!(all.iter().any(|ms| *ms < 2_000) && all.iter().any(|ms| *ms > 3_500), "{all:?}");
    let mut settings = Settings::clone(&world.shared.settings);
    settings.reconnect_max = Duration::from_millis(600);
    Arc::make_mut(&mut world.shared).settings = Arc::new(settings);
    assert!(drawn(&world).iter().all(|ms| (500..=600).contains(ms)));
}

#[test]
fn a_drain_says_how_soon_to_come_back() {
    let world = World::new();
    let mut session = world.open("u1", &of_task("t1"));
    said(&world, &mut session);
    session.on_draining(world.now.instant + Duration::from_secs(7), world.now);
    let told = said(&world, &mut session);
    assert!(told.contains("\"reconnect_after_ms\":7000") && told.ends_with("retry: 500\n\n\r\n"), "{told}");
}

#[test]
fn no_fresh_token_is_waited_for_where_none_can_come() {
    let mut world = World::new();
    let expires_at_ms = Some(world.now.unix_ms + 1_000);
    let somebody = Identity { expires_at_ms, ..identity("u1") };
    let mut session = Session::open(&world.shared, somebody, &of_task("t1"), world.now);
    said(&world, &mut session);
    world.now = world.now.after(Duration::from_secs(1));
    assert!(session.on_time(world.now));
    assert_eq!(session.closing().map(|(code, _)| code), Some(CloseCode::Authentication));
    assert!(said(&world, &mut session).contains("EXPIRED_TOKEN"));
}
