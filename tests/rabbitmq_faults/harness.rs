//! A log that is read all the time, and what its reader has seen.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use lapin::{
    options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use taskcast::{
    clock,
    log::{AppendError, Backend, Health, Log, Outgoing, RestartReason, Settings, TailItem},
    metrics::Metrics,
};
use tokio::{sync::watch, task::JoinHandle};

use crate::support::{brokers::RabbitServer, unique};

/// Nothing here takes so long unless it is broken.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// How soon a fault and its end must show: 2 s, and what a busy machine adds.
pub const PROMPT: Duration = Duration::from_secs(5);

pub async fn soon<T>(what: &str, wanted: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wanted).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

pub fn settings(url: &str) -> Settings {
    Settings {
        backend: Backend::Amqp { url: url.to_owned() },
        key: unique("events"),
        exchange: unique("exchange"),
        max_events: 100_000,
        max_age_seconds: 3_600,
        max_bytes: 100_000_000,
        read_batch: 100,
        append_timeout: Duration::from_secs(5),
        reconnect_max: Duration::from_secs(1),
        wait_replicas: 0,
        tls_ca_file: None,
        tls_client: None,
        dead_letters_max: 1_000,
        dead_letters_max_bytes: 10_000_000,
    }
}

pub fn with_url(settings: &Settings, url: &str) -> Settings {
    Settings { backend: Backend::Amqp { url: url.to_owned() }, ..settings.clone() }
}

pub fn open(settings: &Settings) -> (Log, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new("amqp"));
    (Log::open(settings.clone(), metrics.clone()).unwrap(), metrics)
}

pub fn event(number: usize) -> Outgoing {
    Outgoing { task_id: format!("t{number}"), payload: Bytes::from(format!("{{\"task_id\":\"t{number}\"}}")) }
}

pub fn events(numbers: std::ops::Range<usize>) -> Vec<Outgoing> {
    numbers.map(event).collect()
}

fn number(payload: &[u8]) -> usize {
    let text = str::from_utf8(payload).unwrap();
    text.trim_start_matches("{\"task_id\":\"t").trim_end_matches("\"}").parse().unwrap()
}

/// Appends again until it is confirmed.
pub async fn append_at_last(log: &Log, numbers: std::ops::Range<usize>) -> Vec<AppendError> {
    let mut failures = Vec::new();
    let appending = async {
        while let Err(failed) = log.append(&events(numbers.clone())).await {
            failures.push(failed);
        }
    };
    soon("an append", appending).await;
    failures
}

/// What came since the log was last read from its start.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub numbers: Vec<usize>,
    pub restarts: Vec<RestartReason>,
}

impl Seen {
    pub fn copies(&self) -> BTreeMap<usize, usize> {
        let mut copies = BTreeMap::new();
        for number in &self.numbers {
            *copies.entry(*number).or_default() += 1;
        }
        copies
    }
}

/// Reads on in the background.
pub struct Reader {
    pub health: watch::Receiver<Health>,
    pub seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Reader {
    pub fn of(log: &Log) -> Self {
        let (told, seen) = watch::channel(Seen::default());
        let mut tail = log.tail();
        let task = tokio::spawn(async move {
            loop {
                let item = tail.next().await;
                told.send_modify(|seen| match item {
                    TailItem::Records(records) => {
                        seen.numbers.extend(records.iter().map(|record| number(&record.payload)));
                    }
                    TailItem::Restarted(reason) => {
                        seen.restarts.push(reason);
                        seen.numbers.clear();
                    }
                });
            }
        });
        Self { health: log.health(), seen, task }
    }

    /// Waits for the health to be so, for no longer than `limit`.
    pub async fn health(&self, what: &str, limit: Duration, so: impl Fn(&Health) -> bool) -> Health {
        let began = clock::now().instant;
        let mut health = self.health.clone();
        let found = tokio::time::timeout(limit, health.wait_for(so)).await;
        let found = found.map(|health| health.unwrap().clone());
        found
            .unwrap_or_else(|_| panic!("{what}: not within {limit:?}: {:?}", self.health.borrow().clone()))
            .tap(|_| println!("{what}: {} ms", began.elapsed().as_millis()))
    }

    pub async fn lost(&self, what: &str) -> Health {
        self.health(&format!("{what} is noticed"), PROMPT, |health| !health.connected).await
    }

    pub async fn back(&self, what: &str) {
        self.health(&format!("the end of {what} is noticed"), PROMPT, |health| health.connected).await;
    }

    pub async fn replayed(&self) {
        self.health("the replay", PATIENCE, |health| health.connected && health.replayed).await;
    }

    pub async fn has(&self, numbers: std::ops::Range<usize>) {
        let wanted: Vec<usize> = numbers.collect();
        let mut seen = self.seen.clone();
        let all = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| seen.numbers.len() >= wanted.len())).await;
        all.unwrap_or_else(|_| panic!("waited too long for {wanted:?}: {:?}", self.seen.borrow())).unwrap();
        assert_eq!(self.seen.borrow().numbers, wanted);
    }

    /// Until this number came, however often.
    pub async fn until(&self, number: usize) -> Seen {
        let mut seen = self.seen.clone();
        let found = soon("an event", seen.wait_for(|seen| seen.numbers.contains(&number))).await;
        found.unwrap().clone()
    }

    pub async fn restarts(&self, count: usize) -> Vec<RestartReason> {
        let mut seen = self.seen.clone();
        let found = soon("a restart", seen.wait_for(|seen| seen.restarts.len() >= count)).await;
        found.unwrap().restarts.clone()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

trait Tap: Sized {
    fn tap(self, with: impl FnOnce(&Self)) -> Self {
        with(&self);
        self
    }
}

impl Tap for Health {}

/// Waits until the broker could serve the log: it lets clients in and delivers from the queue, or, when it came back
/// with nothing, has a place for one.
pub async fn serves(server: &RabbitServer, queue: &str) {
    let asked = || async {
        let connection = server.connect().await?;
        let channel = connection.create_channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        if channel.queue_declare(queue.into(), options, FieldTable::default()).await.is_err() {
            return Ok(());
        }
        channel.basic_qos(1, BasicQosOptions::default()).await?;
        let mut first = FieldTable::default();
        first.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
        channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), first).await.map(drop)
    };
    let serving = async {
        while let Err(_closed) = asked().await as lapin::Result<()> {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    };
    soon("the broker", serving).await;
}

/// The sum, in whole numbers, of a metric.
pub fn metric(metrics: &Metrics, name: &str) -> u64 {
    let text = metrics.render().unwrap();
    let series = text.lines().filter(|line| line.starts_with(name));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}
