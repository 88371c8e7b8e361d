//! Everything that runs: a broker, replicas of the service as processes, haproxy before them, and breakable networks
//! between. All of it ends with the [`World`], however the test ends.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::Child,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use lapin::{
    options::{BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use taskcast::clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    clients::SECRET,
    network::Network,
    publisher::Road,
    support::brokers::{self, Kennel, RabbitServer, RedisServer, find_program},
};

/// Nothing that is awaited here takes longer unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

const EXCHANGE: &str = "taskcast.events";
const STREAM: &str = "taskcast:events";
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// How often haproxy asks for readiness.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Redis,
    Rabbit,
}

pub enum Broker {
    Redis(RedisServer),
    Rabbit(Box<RabbitServer>),
}

/// Does somebody who reads the stream from its start get something?
async fn delivers(rabbit: &RabbitServer) -> lapin::Result<bool> {
    let connection = rabbit.connect().await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let mut first = FieldTable::default();
    first.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    let mut consumer = channel.basic_consume(STREAM.into(), "".into(), BasicConsumeOptions::default(), first).await?;
    Ok(timeout(Duration::from_secs(1), consumer.next()).await.is_ok_and(|delivery| delivery.is_some_and(|d| d.is_ok())))
}

impl Broker {
    pub async fn start(kind: Kind) -> Self {
        match kind {
            // What was confirmed must be there after a kill.
            Kind::Redis => Self::Redis(RedisServer::start().await),
            Kind::Rabbit => Self::Rabbit(Box::new(RabbitServer::start().await)),
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Redis(redis) => redis.port(),
            Self::Rabbit(rabbit) => rabbit.port(),
        }
    }

    fn url_at(&self, port: u16) -> String {
        match self {
            Self::Redis(_) => format!("redis://127.0.0.1:{port}"),
            Self::Rabbit(_) => format!("amqp://guest:guest@127.0.0.1:{port}"),
        }
    }

    pub fn road(&self) -> Road {
        match self {
            Self::Redis(redis) => Road::Redis { url: redis.url() },
            Self::Rabbit(rabbit) => Road::Rabbit { url: rabbit.url(), exchange: EXCHANGE.to_owned() },
        }
    }

    pub fn kill(&mut self) {
        match self {
            Self::Redis(redis) => redis.kill(),
            Self::Rabbit(rabbit) => rabbit.kill(),
        }
    }

    /// With what it had confirmed.
    pub async fn restart(&mut self) {
        match self {
            Self::Redis(redis) => redis.restart().await,
            Self::Rabbit(rabbit) => rabbit.restart().await,
        }
    }

    /// Waits until it can serve: it answers, and RabbitMQ, which lets clients in before its queues are up, delivers from
    /// the stream.
    pub async fn until_it_serves(&self) {
        let Self::Rabbit(rabbit) = self else { return };
        let serving = async {
            while !delivers(rabbit).await.unwrap_or(false) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, serving).await.expect("a broker that serves again");
    }

    /// As an operator would.
    pub async fn stop(&mut self) {
        match self {
            Self::Redis(redis) => redis.kill(),
            Self::Rabbit(rabbit) => rabbit.stop().await,
        }
    }

    pub fn pause(&self) {
        match self {
            Self::Redis(redis) => redis.pause(),
            Self::Rabbit(rabbit) => rabbit.pause(),
        }
    }

    pub fn resume(&self) {
        match self {
            Self::Redis(redis) => redis.resume(),
            Self::Rabbit(rabbit) => rabbit.resume(),
        }
    }
}

/// A place for a replica: its ports stay when its process changes.
pub struct Place {
    pub port: u16,
    pub operations_port: u16,
    /// Between this replica and the broker.
    pub network: Network,
    pub child: Option<Child>,
}

/// How the proxy knows which places take clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members {
    /// It asks each of them for its readiness.
    Asked,
    /// It is told, as the proxy of an ingress is; see [`Proxy`].
    Told,
}

/// The proxy, to be told who is in.
#[derive(Clone)]
pub struct Proxy(PathBuf);

impl Proxy {
    /// New connections go to this place, or no more of them do; those that are open stay.
    pub async fn tell(&self, place: usize, is_in: bool) {
        let state = if is_in { "ready" } else { "drain" };
        let telling = async {
            let mut socket = loop {
                // It is not there before haproxy has begun.
                match UnixStream::connect(&self.0).await {
                    Ok(socket) => break socket,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            };
            socket.write_all(format!("set server replicas/replica{place} state {state}\n").as_bytes()).await?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = timeout(PATIENCE, telling).await.expect("an answer of haproxy's").expect("haproxy's socket");
        assert_eq!(answer.trim(), "", "haproxy does as it is told");
    }
}

/// How a world is made.
#[derive(Clone)]
pub struct Shape {
    pub kind: Kind,
    /// Replicas that run from the start.
    pub replicas: usize,
    /// Places that haproxy knows of; at least as many.
    pub places: usize,
    pub environment: Vec<(&'static str, String)>,
    pub members: Members,
}

pub struct World {
    pub broker: Broker,
    pub places: Vec<Place>,
    /// What clients connect to.
    pub front: Network,
    /// haproxy itself.
    pub proxy_port: u16,
    pub readiness: Readiness,
    environment: Vec<(&'static str, String)>,
    kennel: Kennel,
    pub proxy: Proxy,
    _proxy: Child,
}

impl World {
    pub async fn start(shape: &Shape) -> Self {
        let mut broker = Broker::start(shape.kind).await;
        let mut places = Vec::new();
        for _ in 0..shape.places {
            let network = Network::to(([127, 0, 0, 1], broker.port()).into()).await;
            places.push(Place { port: port(), operations_port: port(), network, child: None });
        }
        let mut kennel = Kennel::new("faults");
        let proxy_port = port();
        let proxy = Proxy(kennel.folder.join("haproxy.sock"));
        let running = start_proxy(&mut kennel, proxy_port, &places, shape.members, &proxy);
        let front = Network::to(([127, 0, 0, 1], proxy_port).into()).await;
        let readiness = Readiness::watch(places.iter().map(|place| place.operations_port).collect());
        let environment = shape.environment.clone();
        if let Broker::Rabbit(rabbit) = &mut broker {
            remember_the_stream(rabbit, &mut kennel, &environment).await;
        }
        let mut world =
            Self { broker, places, front, proxy_port, readiness, environment, kennel, proxy, _proxy: running };
        for place in 0..shape.replicas {
            world.launch(place);
        }
        for place in 0..shape.replicas {
            world.until_ready(place, true).await;
            if shape.members == Members::Told {
                world.proxy.tell(place, true).await;
            }
        }
        until("the proxy has a back end", async || {
            http(proxy_port, "GET", "/", "", "").await.is_some_and(|(status, _)| status != 503)
        })
        .await;
        world
    }

    /// Starts a replica in its place.
    pub fn launch(&mut self, place: usize) {
        let url = self.broker.url_at(self.places[place].network.port);
        let (port, operations_port) = (self.places[place].port, self.places[place].operations_port);
        let child = launch(&mut self.kennel, place, &url, port, operations_port, &self.environment);
        self.places[place].child = Some(child);
    }

    /// `kill -9`.
    pub fn kill(&mut self, place: usize) {
        if let Some(mut child) = self.places[place].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM; the exit code and how long it took, or nothing if it did not end in this time.
    pub async fn terminate(&mut self, place: usize, within: Duration) -> Option<(Option<i32>, Duration)> {
        let mut child = self.places[place].child.take()?;
        let started = clock::now().instant;
        brokers::signal("-TERM", &child.id().to_string());
        loop {
            let took = clock::now().instant - started;
            if let Ok(Some(status)) = child.try_wait() {
                return Some((status.code(), took));
            }
            if took > within {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn pid(&self, place: usize) -> Option<u32> {
        self.places[place].child.as_ref().map(Child::id)
    }

    pub async fn until_ready(&self, place: usize, ready: bool) {
        let port = self.places[place].operations_port;
        let waited = timeout(PATIENCE, async {
            while is_ready(port).await != ready {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let is_so = waited.await.is_ok();
        assert!(is_so, "never happened: replica {place} is ready: {ready}; its last words:\n{}", self.log(place));
    }

    /// The sum of a metric's series whose text holds `part`; nothing if the replica does not answer.
    pub async fn metric(&self, place: usize, part: &str) -> Option<u64> {
        self.places[place].child.as_ref()?;
        let (_, text) = http(self.places[place].operations_port, "GET", "/metrics", "", "").await?;
        let series = text.lines().filter(|line| !line.starts_with('#') && line.contains(part));
        Some(series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
    }

    /// The last words of a replica.
    pub fn log(&self, place: usize) -> String {
        let log = self.kennel.log(&format!("replica-{place}.log"));
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

fn launch(
    kennel: &mut Kennel,
    place: usize,
    url: &str,
    port: u16,
    operations_port: u16,
    environment: &[(&'static str, String)],
) -> Child {
    kennel.start(Path::new(env!("CARGO_BIN_EXE_taskcast")), &format!("replica-{place}.log"), |command| {
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TASKCAST_")) {
            command.env_remove(name);
        }
        command.arg("serve");
        command.env("TASKCAST_AUTH_SECRET", SECRET).env("TASKCAST_LOG", url).env("TASKCAST_LOG_LEVEL", "info");
        command.env("TASKCAST_SESSIONS_HEARTBEAT_INTERVAL_MS", "5000").env("TASKCAST_DRAIN_SECONDS", "2");
        command.env("TASKCAST_SESSIONS_DEAD_PEER_TIMEOUT_MS", "15000");
        // A few users stand for many, who all come back at once.
        command.env("TASKCAST_LIMITS_HANDSHAKES_PER_MINUTE_PER_USER", "0");
        command.env("TASKCAST_LISTEN", format!("127.0.0.1:{port}"));
        command.env("TASKCAST_OPERATIONS_LISTEN", format!("127.0.0.1:{operations_port}"));
        command.envs(environment.iter().map(|(name, value)| (name, value)));
    })
}

/// RabbitMQ 3.10 forgets a stream when it is killed without ever having been stopped since the stream was made: the
/// stream is made, and the broker stopped once.
async fn remember_the_stream(rabbit: &mut RabbitServer, kennel: &mut Kennel, environment: &[(&'static str, String)]) {
    let (port, operations_port) = (port(), port());
    let mut child = launch(kennel, 99, &rabbit.url(), port, operations_port, environment);
    until("the stream is made", async || is_ready(operations_port).await).await;
    brokers::kill_group(&mut child);
    rabbit.stop().await;
    rabbit.restart().await;
}

fn start_proxy(kennel: &mut Kennel, port: u16, places: &[Place], members: Members, socket: &Proxy) -> Child {
    let socket = socket.0.display();
    let interval = CHECK_INTERVAL.as_millis();
    let server = |check: u16| match members {
        Members::Asked => format!("check inter {interval}ms fall 1 rise 1 port {check}"),
        Members::Told => "disabled".to_owned(),
    };
    let mut configuration = format!(
        "global\n  maxconn 9000\n  nbthread 1\n  stats socket {socket} level admin\n\
         defaults\n  mode http\n  timeout connect 1s\n  timeout client 75s\n  timeout server 75s\n  timeout tunnel 1h\n  \
         timeout check 2s\n  retries 2\n  option redispatch 1\n\
         frontend clients\n  bind 127.0.0.1:{port}\n  default_backend replicas\n\
         backend replicas\n  balance roundrobin\n  option httpchk GET /readyz\n"
    );
    for (index, place) in places.iter().enumerate() {
        let (port, server) = (place.port, server(place.operations_port));
        writeln!(configuration, "  server replica{index} 127.0.0.1:{port} {server}").expect("a string grows");
    }
    let file = kennel.folder.join("haproxy.cfg");
    std::fs::write(&file, configuration).expect("a file of the proxy's");
    let program = find_program(
        &["haproxy", "/usr/sbin/haproxy"],
        "install haproxy (apt-get install --no-install-recommends haproxy)",
    );
    kennel.start(&program, "haproxy.log", |command| {
        command.arg("-db").arg("-f").arg(&file);
    })
}

/// A port that nobody else takes: what is started here listens only after others had time to look for a free one, so this
/// is above the range from which other tests and the system take theirs.
fn port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let candidate = |_| (61_000 + (std::process::id() + NEXT.fetch_add(1, Ordering::Relaxed)) % 4_500) as u16;
    (0..4_500).map(candidate).find(|port| brokers::is_free(*port)).expect("a free port")
}

/// Asks again and again until it is so.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

pub async fn is_ready(operations_port: u16) -> bool {
    http(operations_port, "GET", "/readyz", "", "").await.is_some_and(|(status, _)| status == 200)
}

/// One request over a connection of its own; nothing if no whole answer came. `headers` end with a line break each.
pub async fn http(port: u16, method: &str, path: &str, headers: &str, body: &str) -> Option<(u16, String)> {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(Duration::from_secs(10), exchange).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    // Only small answers and metrics are read here: what a chunk's length stands in between does not matter.
    Some((status, body.to_owned()))
}

/// When a place changed, and to what.
type Changes = Vec<(Instant, bool)>;

/// When each place was ready, as an outsider sees it who asks all the time.
pub struct Readiness {
    changes: Arc<Mutex<Vec<Changes>>>,
    asking: Vec<JoinHandle<()>>,
}

impl Readiness {
    fn watch(ports: Vec<u16>) -> Self {
        let changes = Arc::new(Mutex::new(vec![Vec::new(); ports.len()]));
        let ask = |(index, port): (usize, u16)| {
            let changes = changes.clone();
            tokio::spawn(async move {
                loop {
                    let asked = timeout(Duration::from_secs(1), is_ready(port)).await;
                    let ready = asked.unwrap_or(false);
                    {
                        let mut changes = changes.lock().expect("no panic under the lock");
                        let known: &mut Changes = &mut changes[index];
                        if known.last().is_none_or(|(_, before)| *before != ready) {
                            known.push((clock::now().instant, ready));
                        }
                    }
                    tokio::time::sleep(PROBE_INTERVAL).await;
                }
            })
        };
        let asking = ports.into_iter().enumerate().map(ask).collect();
        Self { changes, asking }
    }

    /// The longest time since `start` in which no replica was ready.
    pub fn longest_outage(&self, start: Instant) -> Duration {
        let changes = self.changes.lock().expect("no panic under the lock");
        let mut moments: Vec<(Instant, usize, bool)> = changes
            .iter()
            .enumerate()
            .flat_map(|(place, changes)| changes.iter().map(move |(at, ready)| (*at, place, *ready)))
            .collect();
        moments.sort_unstable();
        let mut ready = vec![false; changes.len()];
        let (mut dark_since, mut longest) = (Some(start), Duration::ZERO);
        for (at, place, is_ready) in moments {
            ready[place] = is_ready;
            if ready.contains(&true) {
                if let Some(since) = dark_since.take() {
                    longest = longest.max(at.saturating_duration_since(since.max(start)));
                }
            } else {
                dark_since.get_or_insert(at);
            }
        }
        let open = dark_since.map(|since| clock::now().instant.saturating_duration_since(since.max(start)));
        longest.max(open.unwrap_or_default())
    }

    /// How long after `moment` a place was first seen with this readiness; nothing if it has not been.
    pub fn delay(&self, place: usize, ready: bool, moment: Instant) -> Option<Duration> {
        let changes = self.changes.lock().expect("no panic under the lock");
        let before = changes[place].iter().rfind(|(at, _)| *at <= moment);
        if before.is_some_and(|(_, known)| *known == ready) {
            return Some(Duration::ZERO);
        }
        let after = changes[place].iter().find(|(at, known)| *at > moment && *known == ready);
        after.map(|(at, _)| *at - moment)
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        self.asking.iter().for_each(JoinHandle::abort);
    }
}
