//! A reader in the background that writes down all that it is given and every change of its health.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use taskcast::{
    log::{Backend, Health, Log, Outgoing, RestartReason, Settings, TailItem},
    metrics::Metrics,
    proto::Position,
};
use tokio::{sync::watch, task::JoinHandle};

use crate::support::{brokers::RedisServer, unique};

/// How long the health may take to tell the truth, both ways: 2 s, and what a busy machine adds.
pub const NOTICE: Duration = Duration::from_secs(5);
/// Nothing here takes so long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn now() -> Instant {
    taskcast::clock::now().instant
}

pub fn settings(url: &str) -> Settings {
    Settings {
        backend: Backend::Redis { url: url.to_owned() },
        key: unique("events"),
        exchange: String::new(),
        max_events: 100_000,
        max_age_seconds: 3_600,
        max_bytes: 100_000_000,
        read_batch: 100,
        append_timeout: Duration::from_secs(5),
        reconnect_max: Duration::from_secs(1),
        wait_replicas: 0,
        dead_letters_max: 1_000,
        dead_letters_max_bytes: 1_000_000,
        tls_ca_file: None,
        tls_client: None,
    }
}

pub fn event(number: usize) -> Outgoing {
    Outgoing { task_id: format!("t{number}"), payload: Bytes::from(format!("{{\"task_id\":\"t{number}\"}}")) }
}

pub fn events(numbers: Range<usize>) -> Vec<Outgoing> {
    numbers.map(event).collect()
}

pub fn payloads(numbers: Range<usize>) -> Vec<Bytes> {
    numbers.map(|number| event(number).payload).collect()
}

/// Appends past taskcast, as a worker does.
pub async fn xadd(server: &RedisServer, key: &str, number: usize) {
    let payload = String::from_utf8(event(number).payload.to_vec()).unwrap();
    server.cli(&["XADD", key, "*", "event", &payload]).await;
}

/// All that the stream holds.
pub async fn stored(server: &RedisServer, key: &str) -> Vec<String> {
    let printed = server.cli(&["XRANGE", key, "-", "+"]).await;
    printed.lines().map(str::trim).filter(|line| line.starts_with('{')).map(str::to_owned).collect()
}

/// What a reader was given since the last restart of the log, and what happened.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub payloads: Vec<Bytes>,
    pub last: Position,
    pub restarts: Vec<RestartReason>,
    /// Each change of the health, the first state included.
    pub healths: Vec<(Instant, Health)>,
}

impl Seen {
    fn take(&mut self, item: TailItem) {
        match item {
            TailItem::Restarted(reason) => {
                self.payloads.clear();
                self.last = Position::START;
                self.restarts.push(reason);
            }
            TailItem::Records(records) => {
                for record in records {
                    assert!(record.position > self.last, "{} came after {}", record.position, self.last);
                    self.last = record.position;
                    self.payloads.push(record.payload);
                }
            }
        }
    }

    pub fn health(&self) -> &Health {
        &self.healths.last().unwrap().1
    }
}

pub struct Watcher {
    pub log: Log,
    pub metrics: Arc<Metrics>,
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Watcher {
    pub fn of(settings: &Settings) -> Self {
        crate::support::install_crypto();
        let metrics = Arc::new(Metrics::new("redis"));
        let log = Log::open(settings.clone(), metrics.clone()).unwrap();
        let (mut tail, mut health) = (log.tail(), log.health());
        let mut first = Seen::default();
        first.healths.push((now(), health.borrow_and_update().clone()));
        let (seen, watched) = watch::channel(first);
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    item = tail.next() => seen.send_modify(|seen| seen.take(item)),
                    changed = health.changed() => {
                        changed.unwrap();
                        let changed = health.borrow_and_update().clone();
                        seen.send_modify(|seen| seen.healths.push((now(), changed)));
                    }
                }
            }
        });
        Self { log, metrics, seen: watched, task }
    }

    /// Appends, reads and is well.
    pub async fn well(settings: &Settings, numbers: Range<usize>) -> Self {
        let watcher = Self::of(settings);
        watcher.until("the first replay", |seen| seen.health().connected && seen.health().replayed).await;
        watcher.log.append(&events(numbers.clone())).await.unwrap();
        watcher.reads(numbers).await;
        watcher
    }

    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    pub async fn until(&self, what: &str, condition: impl Fn(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.clone();
        let found = tokio::time::timeout(PATIENCE, seen.wait_for(condition)).await;
        let found = found.unwrap_or_else(|_| panic!("waited too long for {what}: {:?}", self.seen()));
        found.unwrap().clone()
    }

    /// The health changes to this within [`NOTICE`] of `since`.
    pub async fn turns(&self, connected: bool, since: Instant) -> Health {
        let what = if connected { "being well" } else { "the fault" };
        let seen = self.until(what, |seen| seen.health().connected == connected).await;
        let (at, health) =
            seen.healths.iter().rev().take_while(|(_, health)| health.connected == connected).last().unwrap();
        let took = at.saturating_duration_since(since);
        println!("{what} was noticed after {} ms: {}", took.as_millis(), health.detail);
        assert!(took < NOTICE, "{what} was noticed after {took:?}");
        seen.health().clone()
    }

    /// Exactly these have been given, in this order, and then nothing else yet.
    pub async fn reads(&self, numbers: Range<usize>) {
        let wanted = payloads(numbers);
        let seen = self.until("the events", |seen| seen.payloads.len() >= wanted.len()).await;
        assert_eq!(seen.payloads, wanted);
    }

    /// How often the health said that it is well, and then that it is not.
    pub fn losses(&self) -> usize {
        let seen = self.seen();
        seen.healths.windows(2).filter(|pair| pair[0].1.connected && !pair[1].1.connected).count()
    }

    /// In whole units, rounded down.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value: f64 = line.unwrap_or_else(|| panic!("{name} is missing")).parse().unwrap();
        value as u64
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}
