//! A hub, sessions on it, and a clock that only moves when told: what the tests of a session share.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use super::{Deliver, Request, Scope, Sessions, Settings, machine::Session, websocket::Inbound};
use crate::{
    auth::{Identity, Rights, Settings as AuthSettings, Verifier},
    clock::{self, Now},
    hub::{Arrival, Hub, Settings as HubSettings},
    input::Publisher,
    limits::{Limits, Settings as LimitSettings},
    log::{Backend, Log, Settings as LogSettings},
    metrics::Metrics,
    proto::{Cursor, Encoding, Event, Position, Status, TaskId, UserId, payload},
};

/// A hub, a session on it, and a clock that only moves when told.
pub(super) struct World {
    pub(super) shared: Arc<Sessions>,
    pub(super) now: Now,
    pub(super) at: u64,
}

pub(super) fn sessions() -> Arc<Sessions> {
    let metrics = Arc::new(Metrics::new("memory"));
    let log = LogSettings {
        backend: Backend::Memory,
        key: "taskcast:events".into(),
        exchange: "taskcast.events".into(),
        max_events: 1000,
        max_age_seconds: 3600,
        max_bytes: 1 << 30,
        dead_letters_max: 1_000,
        dead_letters_max_bytes: 1_000_000,
        read_batch: 100,
        append_timeout: Duration::from_secs(1),
        wait_replicas: 0,
        reconnect_max: Duration::from_secs(1),
        tls_ca_file: None,
        tls_client: None,
    };
    let hub = HubSettings {
        max: 1000,
        max_bytes: 0,
        max_per_owner: 0,
        ring_frames: 16,
        retain_ended: Duration::from_secs(60),
        retain_idle: Duration::from_secs(3600),
        resume_window: 10_000,
    };
    let settings = Settings {
        heartbeat_interval: Duration::from_secs(25),
        dead_peer_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(20),
        first_frame_timeout: Duration::from_secs(3),
        token_expiring_lead: Duration::from_secs(60),
        token_grace: Duration::from_secs(10),
        message_max_bytes: 65_536,
        messages_per_minute: 0,
        bytes_per_minute: 0,
        bad_messages_max: 3,
        subscriptions_max: 4,
        page_max_bytes: 2_000,
        reconnect_min: Duration::from_millis(500),
        reconnect_max: Duration::from_secs(30),
    };
    let log = Log::open(log, metrics.clone()).unwrap();
    let hub = Hub::new(hub, metrics.clone());
    hub.set_replayed(true);
    Arc::new(Sessions {
        hub,
        verifier: Verifier::new(AuthSettings::None { user: None }).unwrap(),
        publisher: Publisher::new(log),
        limits: Limits::new(LimitSettings::default(), metrics.clone(), clock::now()),
        metrics,
        settings: Arc::new(settings),
        drain: super::Drain::default(),
        open: tokio_util::task::TaskTracker::new(),
    })
}

pub(super) fn task_id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

pub(super) fn user(text: &str) -> UserId {
    UserId::parse(text).unwrap()
}

pub(super) fn identity(name: &str) -> Identity {
    Identity { user: Some(user(name)), rights: Rights { own: true, ..Rights::default() }, ..Identity::default() }
}

pub(super) fn mine() -> Request {
    Request {
        scope: Scope::Mine { everything: false },
        token: None,
        encoding: Encoding::Json,
        deliver: Deliver::Latest,
        throttle: Duration::ZERO,
        cursor: None,
        caller: None,
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self { shared: sessions(), now: clock::now(), at: 0 }
    }

    pub(super) fn event(&mut self, task: &str, owner: &str, percent: Option<f64>, status: Option<Status>) {
        let mut event = Event::new(task_id(task));
        event.user_id = Some(user(owner));
        event.progress = percent;
        event.status = status;
        self.apply(event);
    }

    pub(super) fn apply(&mut self, event: Event) {
        self.at += 1;
        let cursor = Cursor { position: Position { major: self.at, minor: 0 }, proof: self.at as u32 };
        let appended_at_ms = Some(self.now.unix_ms);
        self.shared.hub.apply(&[Arrival { cursor, appended_at_ms, event: Some(event) }], self.now.unix_ms);
    }

    pub(super) fn open(&self, who: &str, request: &Request) -> Session {
        Session::open(&self.shared, identity(who), request, self.now)
    }

    pub(super) fn say(&self, session: &mut Session, message: &Value) {
        session.on_inbound(Inbound::Text(message.to_string()), self.now);
    }

    /// Everything that the session has to send now.
    pub(super) fn frames(&self, session: &mut Session) -> Vec<Value> {
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

pub(super) fn types(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap_or("?")).collect()
}

pub(super) fn last_cursor(frames: &[Value]) -> String {
    frames.iter().rev().find_map(|frame| frame["cursor"].as_str()).unwrap().to_owned()
}
