//! The state machine of a session, with the time as an argument and no socket in sight.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::{
    auth::{Rights, Settings as AuthSettings, Verifier},
    clock,
    hub::{Arrival, Hub, Settings as HubSettings},
    input::Publisher,
    log::{Backend, Log, Settings as LogSettings},
    metrics::Metrics,
    proto::{Status, TaskId, UserId, payload},
    session::{Scope, Settings},
};

/// A hub, a session on it, and a clock that only moves when told.
struct World {
    shared: Sessions,
    now: Now,
    at: u64,
}

fn sessions() -> Sessions {
    let metrics = Arc::new(Metrics::new("memory"));
    let log = LogSettings {
        backend: Backend::Memory,
        key: "taskcast:events".into(),
        exchange: "taskcast.events".into(),
        max_events: 1000,
        max_age_seconds: 3600,
        max_bytes: 1 << 30,
        read_batch: 100,
        append_timeout: Duration::from_secs(1),
        reconnect_max: Duration::from_secs(1),
        tls_ca_file: None,
    };
    let hub = HubSettings {
        max: 1000,
        ring_frames: 16,
        retain_ended: Duration::from_secs(60),
        retain_idle: Duration::from_secs(3600),
        resume_window: 1000,
    };
    let settings = Settings {
        heartbeat_interval: Duration::from_secs(25),
        dead_peer_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(20),
        first_frame_timeout: Duration::from_secs(3),
        message_max_bytes: 65_536,
        bad_messages_max: 3,
        subscriptions_max: 4,
        page_max_bytes: 2_000,
        reconnect_min: Duration::from_millis(500),
        reconnect_max: Duration::from_secs(30),
    };
    let log = Log::open(log, metrics.clone()).unwrap();
    let hub = Hub::new(hub, metrics.clone());
    hub.set_replayed(true);
    Sessions {
        hub,
        verifier: Verifier::new(AuthSettings::None { user: None }).unwrap(),
        publisher: Publisher::new(log, metrics.clone()),
        metrics,
        settings: Arc::new(settings),
        draining: tokio_util::sync::CancellationToken::new(),
    }
}

fn task_id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

fn user(text: &str) -> UserId {
    UserId::parse(text).unwrap()
}

fn identity(name: &str) -> Identity {
    Identity { user: Some(user(name)), rights: Rights { own: true, ..Rights::default() }, expires_at_ms: None }
}

fn mine() -> Request {
    Request {
        scope: Scope::Mine { everything: false },
        token: None,
        encoding: Encoding::Json,
        deliver: Deliver::Latest,
        throttle: Duration::ZERO,
        cursor: None,
    }
}

impl World {
    fn new() -> Self {
        Self { shared: sessions(), now: clock::now(), at: 0 }
    }

    fn event(&mut self, task: &str, owner: &str, percent: Option<f64>, status: Option<Status>) {
        let mut event = Event::new(task_id(task));
        event.user_id = Some(user(owner));
        event.progress = percent;
        event.status = status;
        self.at += 1;
        let cursor = Cursor { position: Position { major: self.at, minor: 0 }, proof: self.at as u32 };
        let appended_at_ms = Some(self.now.unix_ms);
        self.shared.hub.apply(&[Arrival { cursor, appended_at_ms, event: Some(event) }], self.now.unix_ms);
    }

    fn open(&self, who: &str, request: &Request) -> Session {
        Session::open(&self.shared, identity(who), request, self.now)
    }

    fn say(&self, session: &mut Session, message: &Value) {
        session.on_inbound(Inbound::Text(message.to_string()), self.now);
    }

    /// Everything that the session has to send now.
    fn frames(&self, session: &mut Session) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let output = session.output(self.now);
            let none = output.frames.is_empty();
            // A ping has no payload; everything else is JSON here.
            let payloads = output.frames.iter().map(payload).filter(|bytes| !bytes.is_empty());
            all.extend(payloads.map(|bytes| serde_json::from_slice(&bytes).unwrap_or(Value::Null)));
            if none && !session.has_more() {
                return all;
            }
        }
    }
}

fn types(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap_or("?")).collect()
}

fn last_cursor(frames: &[Value]) -> String {
    frames.iter().rev().find_map(|frame| frame["cursor"].as_str()).unwrap().to_owned()
}

#[test]
fn a_session_begins_with_the_greeting_then_the_snapshot_then_lives() {
    let mut world = World::new();
    world.event("t1", "u1", Some(10.0), None);
    let mut session = world.open("u1", &mine());
    let frames = world.frames(&mut session);
    assert_eq!(types(&frames), ["connection_established", "active_tasks"]);
    assert_eq!(frames[0]["resumed"], false);
    assert_eq!(frames[1]["tasks"][0]["progress"], 10);
    world.event("t1", "u1", Some(20.0), None);
    world.event("t1", "u1", None, Some(Status::Failed));
    let frames = world.frames(&mut session);
    assert_eq!(types(&frames), ["task_completed"], "the progress before the end was folded into it");
    assert_eq!(frames[0]["status"], "failed");
}

#[test]
fn another_user_sees_nothing_whatever_they_subscribe_to() {
    let mut world = World::new();
    world.event("t1", "u1", Some(10.0), None);
    let mut session = world.open("u2", &Request { scope: Scope::Topic(Topic::Task(task_id("t1"))), ..mine() });
    for wish in [json!({"task_id": "t1"}), json!({"root_id": "t1"}), json!({"task_id": "*"})] {
        let mut message = wish.clone();
        message["type"] = json!("subscribe");
        world.say(&mut session, &message);
    }
    world.say(&mut session, &json!({"type": "get_task_status", "task_id": "t1"}));
    world.say(&mut session, &json!({"type": "get_task_status", "task_id": "never"}));
    world.event("t1", "u1", Some(20.0), None);
    let frames = world.frames(&mut session);
    assert!(frames.iter().all(|f| f["tasks"].as_array().is_none_or(Vec::is_empty)), "{frames:?}");
    assert!(!types(&frames).contains(&"task_progress"), "{frames:?}");
    let statuses: Vec<_> = frames.iter().filter(|f| f["type"] == "task_status").collect();
    assert_eq!((&statuses[0]["task"], &statuses[1]["task"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_subscription_to_a_task_that_does_not_exist_yet_gets_its_first_event() {
    let mut world = World::new();
    let mut session = world.open("u1", &mine());
    world.say(&mut session, &json!({"type": "unsubscribe", "task_id": "*"}));
    world.say(&mut session, &json!({"type": "subscribe", "task_id": "later", "id": 7}));
    let frames = world.frames(&mut session);
    assert_eq!(frames.last().unwrap()["type"], "subscribed");
    assert_eq!(frames.last().unwrap()["id"], 7);
    world.event("other", "u1", Some(1.0), None);
    world.event("later", "u1", Some(1.0), None);
    let frames = world.frames(&mut session);
    assert_eq!(frames.iter().map(|f| f["task_id"].as_str().unwrap()).collect::<Vec<_>>(), ["later"]);
}

#[test]
fn a_subscription_in_mid_session_starts_with_the_state_that_there_is() {
    let mut world = World::new();
    world.event("t1", "u1", None, Some(Status::Succeeded));
    let elsewhere = Request { scope: Scope::Topic(Topic::Task(task_id("t2"))), ..mine() };
    let mut session = world.open("u1", &elsewhere);
    world.frames(&mut session);
    world.say(&mut session, &json!({"type": "subscribe", "task_id": "t1"}));
    let frames = world.frames(&mut session);
    assert_eq!(types(&frames), ["subscribed", "active_tasks"]);
    assert_eq!(frames[1]["tasks"][0]["status"], "succeeded");
}

#[test]
fn a_snapshot_can_be_resumed_from_the_middle() {
    let mut world = World::new();
    for number in 0..20 {
        world.event(&format!("t{number}"), "u1", Some(1.0), None);
    }
    let mut session = world.open("u1", &mine());
    let first = session.output(world.now);
    let page: Value = serde_json::from_slice(&payload(&first.frames[1])).unwrap();
    assert_eq!(page["more"], true);
    let got = page["tasks"].as_array().unwrap().len();
    drop(session);
    let again = Request { cursor: page["cursor"].as_str().map(ToOwned::to_owned), ..mine() };
    let frames = world.frames(&mut world.open("u1", &again));
    assert_eq!(frames[0]["resumed"], true);
    assert_eq!(frames.len() - 1, 20 - got, "exactly what was not sent");
    assert!(frames[1..].iter().all(|frame| frame["type"] == "task_progress"));
}

#[test]
fn a_resumed_session_gets_what_it_missed_and_no_snapshot() {
    let mut world = World::new();
    world.event("t1", "u1", Some(10.0), None);
    let cursor = last_cursor(&world.frames(&mut world.open("u1", &mine())));
    world.event("t1", "u1", Some(20.0), None);
    world.event("t2", "u2", Some(20.0), None);
    world.event("t3", "u1", None, Some(Status::Cancelled));
    let mut session = world.open("u1", &Request { cursor: Some(cursor), ..mine() });
    let frames = world.frames(&mut session);
    assert_eq!(types(&frames), ["connection_established", "task_progress", "task_completed"]);
    assert_eq!(frames[0]["resumed"], true);
    world.event("t1", "u1", Some(30.0), None);
    assert_eq!(types(&world.frames(&mut session)), ["task_progress"]);
}

#[test]
fn a_cursor_that_cannot_be_honoured_brings_the_reason_and_a_snapshot() {
    let mut world = World::new();
    world.event("t1", "u1", Some(10.0), None);
    let bad = [("nonsense", "malformed"), ("1.1.0.00000009", "another_log"), ("1.0.0.00000000", "trimmed")];
    for (cursor, reason) in bad {
        let request = Request { cursor: Some(cursor.into()), ..mine() };
        let frames = world.frames(&mut world.open("u1", &request));
        assert_eq!(types(&frames), ["connection_established", "active_tasks"]);
        assert_eq!((&frames[0]["resumed"], &frames[0]["resume_failure"]), (&json!(false), &json!(reason)));
        assert_eq!(frames[1]["tasks"][0]["progress"], 10);
    }
}

#[test]
fn a_log_that_is_read_anew_brings_a_new_snapshot_that_says_so() {
    let mut world = World::new();
    world.event("t1", "u1", Some(10.0), None);
    let mut session = world.open("u1", &mine());
    world.frames(&mut session);
    world.shared.hub.reset(ResumeFailure::AnotherLog);
    assert!(world.frames(&mut session).is_empty(), "until the log has been read");
    world.event("t9", "u1", Some(1.0), None);
    world.shared.hub.set_replayed(true);
    let frames = world.frames(&mut session);
    assert_eq!(types(&frames), ["active_tasks"]);
    assert_eq!(frames[0]["reset"], "another_log");
    assert_eq!(frames[0]["tasks"][0]["task_id"], "t9");
}

#[test]
fn marks_and_listings_from_before_a_reset_do_not_outlive_it() {
    let mut world = World::new();
    let mut session = world.open("u1", &mine());
    world.frames(&mut session);
    for percent in [10.0, 20.0, 30.0] {
        world.event("old", "u1", Some(percent), None);
    }
    world.say(&mut session, &json!({"type": "get_active_tasks", "id": 1}));
    world.shared.hub.reset(ResumeFailure::AnotherLog);
    // A recreated log counts from its start again, so old positions lie ahead of new ones.
    world.at = 0;
    world.event("new", "u1", Some(1.0), None);
    world.shared.hub.set_replayed(true);
    let frames = world.frames(&mut session);
    assert!(!Value::from(frames.clone()).to_string().contains("old"), "{frames:?}");
    world.event("new", "u1", Some(2.0), None);
    assert_eq!(types(&world.frames(&mut session)), ["task_progress"]);
}

#[test]
fn a_throttled_session_waits_but_not_with_an_end() {
    let mut world = World::new();
    let mut session = world.open("u1", &Request { throttle: Duration::from_secs(5), ..mine() });
    world.frames(&mut session);
    world.event("t1", "u1", Some(10.0), None);
    assert_eq!(types(&world.frames(&mut session)), ["task_progress"]);
    world.event("t1", "u1", Some(20.0), None);
    assert!(world.frames(&mut session).is_empty());
    assert_eq!(session.deadline(world.now), world.now.instant + Duration::from_secs(5));
    world.event("t2", "u1", None, Some(Status::Failed));
    assert_eq!(types(&world.frames(&mut session)), ["task_progress", "task_completed"]);
    world.event("t1", "u1", Some(30.0), None);
    world.now = world.now.after(Duration::from_secs(5));
    assert_eq!(types(&world.frames(&mut session)), ["task_progress"]);
}

#[test]
fn every_delivers_what_the_ring_holds() {
    let mut world = World::new();
    let mut session = world.open("u1", &Request { deliver: Deliver::Every, ..mine() });
    world.frames(&mut session);
    for percent in 1..=10 {
        world.event("t1", "u1", Some(f64::from(percent)), None);
    }
    assert_eq!(world.frames(&mut session).len(), 10);
}

#[test]
fn bad_messages_are_answered_and_only_many_in_a_row_close() {
    let world = World::new();
    let mut session = world.open("u1", &mine());
    world.frames(&mut session);
    for _ in 0..2 {
        world.say(&mut session, &json!({"type": "no_such_thing"}));
    }
    world.say(&mut session, &json!({"type": "ping", "id": "p"}));
    session.on_inbound(Inbound::TooLong(1_000_000), world.now);
    let frames = world.frames(&mut session);
    assert_eq!(types(&frames), ["error", "error", "pong", "error"]);
    assert_eq!(frames[0]["error_code"], "UNKNOWN_TYPE");
    assert!(session.closing().is_none());
    for _ in 0..2 {
        session.on_inbound(Inbound::Text("{".into()), world.now);
    }
    assert_eq!(session.closing().map(|(code, _)| code), Some(CloseCode::Policy));
}

#[test]
fn a_token_that_expires_ends_the_session_with_a_word() {
    let world = World::new();
    let mut expiring = identity("u1");
    expiring.expires_at_ms = Some(world.now.unix_ms + 1_000);
    let mut session = Session::open(&world.shared, expiring, &mine(), world.now);
    world.frames(&mut session);
    assert_eq!(session.deadline(world.now), world.now.instant + Duration::from_secs(1));
    assert!(session.on_time(world.now.after(Duration::from_secs(1))));
    let frames = world.frames(&mut session);
    assert_eq!((types(&frames), &frames[0]["error_code"]), (vec!["authentication_error"], &json!("EXPIRED_TOKEN")));
    assert_eq!(session.closing().map(|(code, _)| code), Some(CloseCode::Authentication));
}

#[test]
fn a_peer_is_pinged_and_given_up_when_it_stays_silent() {
    let world = World::new();
    let mut session = world.open("u1", &mine());
    world.frames(&mut session);
    assert!(session.on_time(world.now.after(Duration::from_secs(25))));
    assert_eq!(&session.output(world.now).frames[..], [frame(Opcode::Ping, b"")]);
    session.on_inbound(Inbound::Pong, world.now.after(Duration::from_secs(26)));
    assert!(session.on_time(world.now.after(Duration::from_secs(85))));
    assert!(!session.on_time(world.now.after(Duration::from_secs(86))));
}

#[test]
fn subscriptions_are_limited_and_undone_with_the_session() {
    let world = World::new();
    let mut session = world.open("u1", &mine());
    for number in 0..4 {
        world.say(&mut session, &json!({"type": "subscribe", "task_id": format!("t{number}")}));
    }
    let frames = world.frames(&mut session);
    assert_eq!(frames.last().unwrap()["error_code"], "LIMIT_REACHED");
    let mailbox = Arc::downgrade(&session.mailbox());
    drop(session);
    assert!(mailbox.upgrade().is_none(), "the hub holds nothing of a session that is gone");
}

#[test]
fn a_flood_without_reading_is_cut_off() {
    let world = World::new();
    let mut session = world.open("u1", &mine());
    for _ in 0..=REPLIES_MAX {
        session.on_inbound(Inbound::Ping(b"x".to_vec()), world.now);
    }
    assert_eq!(session.closing().map(|(code, _)| code), Some(CloseCode::Policy));
}

#[test]
fn only_who_may_cancel_a_live_task_does() {
    let mut world = World::new();
    world.event("t1", "u1", Some(1.0), None);
    let cancel = json!({"type": "cancel_task", "task_id": "t1"});
    let mut session = world.open("u1", &mine());
    world.say(&mut session, &cancel);
    assert!(session.cancels.is_empty(), "the token lacks the right");
    session.identity.rights.cancel = true;
    world.say(&mut session, &cancel);
    assert_eq!(session.cancels.len(), 1);
    let mut stranger = world.open("u2", &mine());
    stranger.identity.rights.cancel = true;
    world.say(&mut stranger, &cancel);
    assert!(stranger.cancels.is_empty());
    assert_eq!(world.frames(&mut stranger).last().unwrap()["success"], false);
}

#[test]
fn a_token_that_may_watch_nothing_is_told_so_and_closed_with_4003() {
    let world = World::new();
    let nobody = Identity { user: None, rights: Rights::default(), expires_at_ms: None };
    let mut session = Session::open(&world.shared, nobody, &mine(), world.now);
    assert_eq!(types(&world.frames(&mut session)), ["error"]);
    assert_eq!(session.closing().map(|(code, _)| code), Some(CloseCode::NotAllowed));
}

#[test]
fn the_celery_dialect_lists_live_tasks_and_tells_ends_apart() {
    let mut world = World::new();
    world.event("done", "u1", None, Some(Status::Succeeded));
    world.event("live", "u1", Some(10.0), None);
    let mut session = world.open("u1", &Request { encoding: Encoding::Celery, ..mine() });
    let frames = world.frames(&mut session);
    let after_greeting = &frames[1..];
    assert_eq!(types(after_greeting), ["active_tasks", "task_completed"]);
    assert_eq!(after_greeting[0]["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(after_greeting[1]["status"], "SUCCESS");
    world.event("live", "u1", Some(50.0), None);
    let frames = world.frames(&mut session);
    assert_eq!((types(&frames), &frames[0]["progress"]), (vec!["task_progress"], &json!(50)));
}

#[test]
fn in_the_celery_dialect_a_list_is_whole_and_a_subscription_never_replaces_one() {
    let mut world = World::new();
    for number in 0..30 {
        world.event(&format!("live{number}"), "u1", Some(1.0), None);
    }
    world.event("ended", "u1", None, Some(Status::Failed));
    let scope = Scope::Topic(Topic::Task(task_id("elsewhere")));
    let mut session = world.open("u1", &Request { encoding: Encoding::Celery, scope, ..mine() });
    world.frames(&mut session);
    world.say(&mut session, &json!({"type": "subscribe", "task_id": "ended"}));
    let frames = world.frames(&mut session);
    assert_eq!(types(&frames), ["subscribed", "task_completed"]);
    world.say(&mut session, &json!({"type": "subscribe", "task_id": "*"}));
    world.frames(&mut session);
    world.say(&mut session, &json!({"type": "get_active_tasks"}));
    let frames = world.frames(&mut session);
    assert_eq!(types(&frames), ["active_tasks"]);
    let tasks = frames[0]["tasks"].as_array().unwrap();
    assert_eq!((tasks.len(), &tasks[0]["task_id"]), (20, &json!("live29")));
}

#[test]
fn a_celery_snapshot_that_was_cut_short_is_resumed_without_a_gap() {
    let mut world = World::new();
    for number in 0..25 {
        world.event(&format!("live{number}"), "u1", Some(1.0), None);
        world.event(&format!("ended{number}"), "u1", None, Some(Status::Failed));
    }
    let celery = Request { encoding: Encoding::Celery, ..mine() };
    let frames = world.frames(&mut world.open("u1", &celery));
    assert!(frames[1]["cursor"].is_null(), "the list promises nothing of what follows it");
    let told = |frames: &[Value]| -> std::collections::BTreeSet<String> {
        let listed = frames.iter().filter_map(|frame| frame["tasks"].as_array()).flatten();
        listed.chain(frames).filter_map(|frame| frame["task_id"].as_str().map(ToOwned::to_owned)).collect()
    };
    assert_eq!(told(&frames).len(), 50);
    let cut = &frames[..10];
    let cursor = Some(last_cursor(cut));
    let rest = world.frames(&mut world.open("u1", &Request { cursor, ..celery }));
    assert_eq!(rest[0]["resumed"], true);
    assert_eq!(told(cut).union(&told(&rest)).count(), 50);
}
