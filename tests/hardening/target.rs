//! The service as an attacker's target: a process whose log, memory and death are watched.

use std::{fs, path::PathBuf, process::Child, time::Duration};

use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use crate::{
    harness::{self, Client, SECRET, binary, http, token, token_with, until},
    support::brokers::{Kennel, free_port},
};

/// Limits that are off, unless a test turns them on.
const WITHOUT: [&str; 6] = [
    "TASKCAST_SESSIONS_MESSAGES_PER_MINUTE",
    "TASKCAST_SESSIONS_BYTES_PER_MINUTE",
    "TASKCAST_LIMITS_HANDSHAKES_PER_MINUTE_PER_USER",
    "TASKCAST_LIMITS_EVENTS_PER_MINUTE_PER_TOKEN",
    "TASKCAST_LIMITS_REQUESTS_PER_MINUTE_PER_USER",
    "TASKCAST_LIMITS_UNREAD_LISTS_PER_USER_MAX",
];

pub const MB: u64 = 1_000_000;

/// Settings beside which a secret has no place.
const OTHER_KEYS: [&str; 3] =
    ["TASKCAST_AUTH_PUBLIC_KEY_FILE", "TASKCAST_AUTH_JWKS", "TASKCAST_AUTH_INTROSPECTION_URL"];

/// Tests that measure have the machine for themselves; the others run side by side.
static MACHINE: RwLock<()> = RwLock::const_new(());

enum Turn {
    Shared(#[expect(dead_code, reason = "held until dropped")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held until dropped")] RwLockWriteGuard<'static, ()>),
}

/// A running `taskcast serve`, killed on drop or with the test.
pub struct Target {
    child: Child,
    pub port: u16,
    pub operations_port: u16,
    /// What must be in no line of the log and of the metrics.
    secrets: Vec<String>,
    kennel: Kennel,
    _turn: Turn,
}

const LOG: &str = "service.log";

impl Target {
    /// With these settings, and a log that tells everything.
    pub async fn start(environment: &[(&str, &str)]) -> Self {
        let turn = Turn::Shared(MACHINE.read().await);
        let chatty = [&[("TASKCAST_LOG_LEVEL", "debug")], environment].concat();
        Self::start_in_turn(&chatty, turn).await
    }

    /// While nothing else is tested; logs as in production.
    pub async fn start_alone(environment: &[(&str, &str)]) -> Self {
        let turn = Turn::Alone(MACHINE.write().await);
        Self::start_in_turn(environment, turn).await
    }

    async fn start_in_turn(environment: &[(&str, &str)], turn: Turn) -> Self {
        let (port, operations_port) = (free_port(), free_port());
        let mut kennel = Kennel::new("target");
        let child = kennel.start(&PathBuf::from(binary().get_program()), LOG, |command| {
            for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TASKCAST_")) {
                command.env_remove(name);
            }
            command.arg("serve").env("TASKCAST_DRAIN_SECONDS", "0");
            // What holds must hold without the limits that would end an attack early; those have tests of their own.
            for limit in WITHOUT {
                command.env(limit, "0");
            }
            if !environment.iter().any(|(name, _)| OTHER_KEYS.contains(name)) {
                command.env("TASKCAST_AUTH_SECRET", SECRET);
            }
            command.env("TASKCAST_LOG_LEVEL", "warn").env("TASKCAST_LISTEN", format!("127.0.0.1:{port}"));
            command.env("TASKCAST_OPERATIONS_LISTEN", format!("127.0.0.1:{operations_port}"));
            // An attacker with many addresses and tokens meets none of these.
            for limit in
                ["LIMITS_HANDSHAKES_PER_MINUTE_PER_USER", "SESSIONS_MESSAGES_PER_MINUTE", "SESSIONS_BYTES_PER_MINUTE"]
            {
                command.env(format!("TASKCAST_{limit}"), "0");
            }
            command.envs(environment.iter().copied());
        });
        let secrets = vec![SECRET.to_owned()];
        let target = Self { child, port, operations_port, secrets, kennel, _turn: turn };
        until("the service is ready", async || {
            TcpStream::connect(("127.0.0.1", operations_port)).await.is_ok()
                && target.operations("/readyz").await.0 == 200
        })
        .await;
        target
    }

    /// Of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// From now on this text is a secret too.
    pub fn must_not_tell(&mut self, secret: &str) {
        if !secret.is_empty() {
            self.secrets.push(secret.to_owned());
        }
    }

    pub async fn operations(&self, path: &str) -> (u16, String) {
        http(self.operations_port, "GET", path, &[], "").await
    }

    /// The sum of a metric's series whose text holds `part`.
    pub async fn metric(&self, part: &str) -> u64 {
        let (_, text) = self.operations("/metrics").await;
        crate::support::metric(&text, part)
    }

    pub async fn publish(&self, events: &Value) {
        let bearer = format!("Bearer {}", token_with("worker", &["own"], true));
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let (status, answer) = http(self.port, "POST", "/api/v1/events", &headers, &events.to_string()).await;
        assert_eq!(status, 202, "{answer}");
    }

    /// Publishes a task of `user` and waits until it is there.
    pub async fn has_task(&self, id: &str, user: Option<&str>) {
        let mut event = json!({"task_id": id, "progress": 1});
        if let Some(user) = user {
            event["user_id"] = json!(user);
        }
        self.publish(&event).await;
        let bearer = format!("Bearer {}", token_with("reader", &["all"], false));
        let path = format!("/api/v1/tasks/{id}");
        until("the task is there", async || {
            http(self.port, "GET", &path, &[("Authorization", &bearer)], "").await.0 == 200
        })
        .await;
    }

    /// A client of `user` that has read its greeting and its snapshot.
    pub async fn attach(&self, path: &str, user: &str) -> Client {
        let mut client =
            Client::connect(self.port, path, &[("Authorization", &format!("Bearer {}", token(user)))]).await;
        client.until("active_tasks").await;
        client
    }

    fn status_bytes(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        let kilobytes = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>();
        kilobytes.unwrap_or_else(|_| panic!("the service is dead:\n{}", self.log())) * 1024
    }

    /// What the process holds in memory, in bytes.
    pub fn resident(&self) -> u64 {
        self.status_bytes("VmRSS")
    }

    /// The most that it ever held.
    pub fn peak(&self) -> u64 {
        self.status_bytes("VmHWM")
    }

    pub fn log(&self) -> String {
        self.kennel.log(LOG)
    }

    /// What a hostile publisher brings grows neither memory nor log, and writes nothing into it that a terminal obeys.
    pub fn stays_small(&self, memory_max: u64) {
        println!("at most {} MB", self.peak() / MB);
        assert!(self.peak() < memory_max, "{} MB", self.peak() / MB);
        let log = self.log();
        assert!(log.len() < 4_000_000, "the log has {} bytes", log.len());
        assert!(!log.contains('\u{1b}') && !log.contains('\0'), "raw control characters in the log");
    }

    /// The end of every attack: the service lives and serves others, nothing panicked, and nothing secret was told.
    pub async fn stays_unharmed(mut self) {
        let mut other = self.attach("/ws/tasks/", "somebody-else").await;
        self.publish(&json!({"task_id": "afterwards", "user_id": "somebody-else", "status": "succeeded"})).await;
        other.until_end_of("afterwards").await;
        self.stands().await;
    }

    /// The process lives and is ready, nothing in it panicked, and it told nothing secret.
    pub async fn stands(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "the service is dead:\n{}", self.log());
        assert_eq!(self.operations("/readyz").await.0, 200);
        let (_, metrics) = self.operations("/metrics").await;
        let log = self.log();
        assert!(!log.contains("panicked at"), "{log}");
        for secret in &self.secrets {
            assert!(!metrics.contains(secret.as_str()), "{secret:?} is in the metrics");
            let line = log.lines().find(|line| line.contains(secret.as_str()));
            assert!(line.is_none(), "{secret:?} is in the log: {line:?}");
        }
    }
}

/// A user's own token, of which the log must not have a trace.
pub fn secret_token(target: &mut Target, user: &str) -> String {
    let token = token(user);
    // The signature is what makes it one.
    target.must_not_tell(token.rsplit('.').next().unwrap_or_default());
    token
}

/// Waits for what must come soon; what it is, for the panic.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(harness::PATIENCE, future).await.unwrap_or_else(|_| panic!("never came: {what}"))
}

/// For what must not come: long enough to see it if it did.
pub const A_WHILE: Duration = Duration::from_millis(300);
