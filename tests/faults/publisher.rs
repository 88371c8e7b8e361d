//! Workers: they publish what the script says, in order, and go on with a batch until it is confirmed. What was not
//! confirmed may have arrived; it is sent again with the same `event_id`s.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use redis::aio::MultiplexedConnection;
use taskcast::clock;
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    clients::token,
    script::{Random, Script},
    world::http,
};

const TICK: Duration = Duration::from_millis(50);
const BATCH_MAX: usize = 200;
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(200);
/// Longer than the service's own limit of an append, so that it is the service that says no.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How events reach the log.
#[derive(Clone, Debug)]
pub enum Road {
    Redis { url: String },
    Rabbit { url: String, exchange: String },
    Post { port: u16 },
}

/// How the publishing goes.
#[derive(Debug, Default)]
pub struct Tally {
    pub confirmed: AtomicUsize,
    /// Batches of which nobody knows whether they arrived, and which were sent again.
    pub unknown: AtomicUsize,
    /// Batches that were refused.
    pub refused: AtomicUsize,
}

/// Workers of one road.
pub struct Publisher {
    pub tally: Arc<Tally>,
    running: JoinHandle<()>,
}

impl Publisher {
    /// Publishes the tasks of the script, spread evenly over this time.
    pub fn start(road: Road, script: Arc<Script>, tasks: Vec<usize>, over: Duration, mut random: Random) -> Self {
        let tally = Arc::<Tally>::default();
        let ours = tally.clone();
        let running = tokio::spawn(async move {
            let order = interleave(&script, tasks, &mut random);
            let mut sender = Sender { road, link: Link::None };
            let started = clock::now().instant;
            let mut sent = 0;
            while sent < order.len() {
                let due = due(started, over, order.len());
                if due <= sent {
                    tokio::time::sleep(TICK).await;
                    continue;
                }
                let until = due.min(sent + BATCH_MAX);
                let batch: Vec<String> =
                    order[sent..until].iter().map(|(task, number)| script.event(*task, *number).to_string()).collect();
                while let Err(failure) = sender.send(&batch).await {
                    let counter = if failure == Failure::Refused { &ours.refused } else { &ours.unknown };
                    counter.fetch_add(1, Ordering::Relaxed);
                    sender.link = Link::None;
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                }
                ours.confirmed.fetch_add(batch.len(), Ordering::Relaxed);
                sent = until;
            }
        });
        Self { tally, running }
    }

    pub fn has_ended(&self) -> bool {
        self.running.is_finished()
    }

    /// Everything has been confirmed.
    pub async fn finish(mut self) -> Arc<Tally> {
        (&mut self.running).await.expect("the publisher ends in order");
        self.tally.clone()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn due(started: Instant, over: Duration, all: usize) -> usize {
    let share = clock::now().instant.duration_since(started).as_secs_f64() / over.as_secs_f64().max(0.001);
    ((all as f64 * share) as usize + 1).min(all)
}

/// Several tasks at a time, each in its own order.
fn interleave(script: &Script, tasks: Vec<usize>, random: &mut Random) -> Vec<(usize, usize)> {
    let width = (tasks.len() / 8).clamp(1, 400);
    let mut waiting = tasks.into_iter();
    let mut open: Vec<(usize, usize)> = waiting.by_ref().take(width).map(|task| (task, 0)).collect();
    let mut order = Vec::new();
    while !open.is_empty() {
        let chosen = random.below(open.len() as u64) as usize;
        let (task, number) = open[chosen];
        order.push((task, number));
        if number + 1 < script.parts[task].lines.len() {
            open[chosen].1 += 1;
        } else if let Some(next) = waiting.next() {
            open[chosen] = (next, 0);
        } else {
            open.swap_remove(chosen);
        }
    }
    order
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Refused,
    Unknown,
}

enum Link {
    None,
    Redis(MultiplexedConnection),
    Rabbit { channel: Box<Channel>, _connection: Box<Connection> },
}

struct Sender {
    road: Road,
    link: Link,
}

impl Sender {
    async fn send(&mut self, batch: &[String]) -> Result<(), Failure> {
        let sending = async {
            match &self.road.clone() {
                Road::Redis { url } => self.xadd(url, batch).await,
                Road::Rabbit { url, exchange } => self.publish(url, exchange, batch).await,
                Road::Post { port } => post(*port, batch).await,
            }
        };
        timeout(ANSWER_TIMEOUT, sending).await.unwrap_or(Err(Failure::Unknown))
    }

    async fn xadd(&mut self, url: &str, batch: &[String]) -> Result<(), Failure> {
        if !matches!(self.link, Link::Redis(_)) {
            let client = redis::Client::open(url).map_err(|_| Failure::Refused)?;
            let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER_TIMEOUT));
            let connected = client.get_multiplexed_async_connection_with_config(&config).await;
            self.link = Link::Redis(connected.map_err(|_| Failure::Refused)?);
        }
        let Link::Redis(connection) = &mut self.link else { return Err(Failure::Refused) };
        let mut pipe = redis::pipe();
        for event in batch {
            pipe.cmd("XADD").arg("taskcast:events").arg("*").arg("event").arg(event);
        }
        pipe.query_async::<Vec<String>>(connection).await.map(drop).map_err(|_| Failure::Unknown)
    }

    async fn publish(&mut self, url: &str, exchange: &str, batch: &[String]) -> Result<(), Failure> {
        if !matches!(self.link, Link::Rabbit { .. }) {
            let refused = |_| Failure::Refused;
            let connection = Connection::connect(url, ConnectionProperties::default()).await.map_err(refused)?;
            let channel = connection.create_channel().await.map_err(refused)?;
            channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(refused)?;
            self.link = Link::Rabbit { channel: Box::new(channel), _connection: Box::new(connection) };
        }
        let Link::Rabbit { channel, .. } = &self.link else { return Err(Failure::Refused) };
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let mut confirms = Vec::with_capacity(batch.len());
        for event in batch {
            let properties = BasicProperties::default().with_delivery_mode(2);
            let sent =
                channel.basic_publish(exchange.into(), "task.fault".into(), options, event.as_bytes(), properties);
            confirms.push(sent.await.map_err(|_| Failure::Unknown)?);
        }
        for confirm in confirms {
            match confirm.await {
                Ok(Confirmation::Ack(None)) => {}
                Ok(_) => return Err(Failure::Refused),
                Err(_) => return Err(Failure::Unknown),
            }
        }
        Ok(())
    }
}

async fn post(port: u16, batch: &[String]) -> Result<(), Failure> {
    let bearer = format!("Authorization: Bearer {}\r\nContent-Type: application/json\r\n", token("w", "own", true));
    match http(port, "POST", "/api/v1/events", &bearer, &format!("[{}]", batch.join(","))).await {
        Some((202, _)) => Ok(()),
        Some((503, _)) => Err(Failure::Refused),
        _ => Err(Failure::Unknown),
    }
}
