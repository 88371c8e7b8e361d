//! Clients as the contract wants them: they keep the last cursor, come back with it after a random and growing time,
//! obey close codes, `Retry-After` and told delays, and replace what they show when they are told to. Each keeps an
//! account of what it was sent, for the checker.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use serde::Deserialize;
use taskcast::{
    auth::{self, JwtSettings, Key, NewToken},
    clock,
    proto::{Cursor, Position},
};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, Message, client::IntoClientRequest, protocol::WebSocketConfig},
};
use tokio_util::sync::CancellationToken;

use crate::script::{Random, Script, user_name};

pub const SECRET: &str = "a-secret-of-the-tests-32-bytes-long-or-more";

/// From the first byte to the greeting; then a client takes the connection for dead.
const GREETING_TIMEOUT: Duration = Duration::from_secs(15);

/// Nothing heard for so many heartbeats: the connection is dead, although nobody has said so.
const HEARTBEATS_MISSED: f64 = 2.5;

/// Small, so that thousands of clients fit into one process.
const SOCKET_BUFFER_BYTES: usize = 4096;

/// What a client watches, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watches {
    /// The newest state of its own tasks.
    Own,
    /// Every frame of its own tasks.
    Every,
    /// Everybody's tasks.
    All,
}

/// A mistake that is put into a client's decoder on purpose, to see that the checker finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    None,
    /// Some ends are not heard.
    DropsEnds,
    /// What came first on a resumed connection is heard twice.
    RepeatsAfterResume,
    /// A change of status that came first on a resumed connection is not heard.
    SkipsAfterResume,
    /// A bar is shown with another number than it was sent with.
    Misreads,
}

/// What changed while a snapshot was taken follows within this.
const SNAPSHOT_SETTLES: Duration = Duration::from_secs(1);

/// A task as a client shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    /// Its place in the script.
    pub number: usize,
    pub status: String,
    pub attempt: u32,
    pub progress: Option<f64>,
}

/// How a client was sent away by a replica that drains.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    pub heard: Instant,
    /// After this it was to come back.
    pub told: Duration,
    pub closed: Option<Instant>,
    /// Greeted by another replica.
    pub back: Option<Instant>,
}

/// What a client has been through, and where it ended.
#[derive(Debug, Default)]
pub struct Account {
    pub shown: HashMap<usize, Shown>,
    pub greetings: u32,
    pub resumed: u32,
    pub resume_failures: BTreeMap<String, u32>,
    pub duplicates: u32,
    pub wrong_resumed: u32,
    pub key_frames_missed: u32,
    /// Ends of connections by close code, or by "none".
    pub closes: BTreeMap<String, u32>,
    pub refusals: u32,
    /// Tasks that are no longer kept; they stay shown, for the checker.
    pub removed: u32,
    pub degraded: u32,
    pub recovered: u32,
    /// From the loss of a connection to the next greeting, without all that it was told to wait.
    pub longest_gap: Duration,
    /// The same without only the first of these.
    pub longest_wait: Duration,
    pub odd: Vec<String>,
    /// When the first connection ended, how, and how long after `server_draining` it was told to come back.
    pub first_close: Option<(Instant, Option<u16>)>,
    pub told: Option<Duration>,
    pub departures: Vec<Departure>,
    pub is_resumed: bool,
    /// Since when all that is watched was in a whole snapshot once.
    complete: Option<Instant>,
    position: Position,
}

impl Account {
    fn odd(&mut self, what: String) {
        if self.odd.len() < 5 {
            self.odd.push(what);
        }
    }
}

#[derive(Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    kind: String,
    cursor: Option<String>,
    resumed: Option<bool>,
    resume_failure: Option<String>,
    reset: Option<String>,
    #[serde(default)]
    more: bool,
    #[serde(default)]
    tasks: Vec<Task>,
    reconnect: Option<Reconnect>,
    reconnect_after_ms: Option<u64>,
    heartbeat_interval_ms: Option<u64>,
    task_id: Option<String>,
    status: Option<String>,
    message: Option<String>,
    attempt: Option<u32>,
    progress: Option<f64>,
}

#[derive(Deserialize)]
struct Task {
    #[serde(rename = "task_id")]
    id: String,
    status: String,
    message: Option<String>,
    attempt: u32,
    progress: Option<f64>,
}

#[derive(Clone, Copy, Deserialize)]
struct Reconnect {
    min_ms: u64,
    max_ms: u64,
}

pub fn settings() -> JwtSettings {
    JwtSettings {
        key: Key::Secret(SECRET.into()),
        algorithms: vec!["HS256".into()],
        user_claim: None,
        audience: vec![],
        issuer: vec![],
        leeway: Duration::ZERO,
        max_age_without_expiry: None,
    }
}

pub fn token(user: &str, watch: &str, publish: bool) -> String {
    let new = NewToken {
        user: taskcast::proto::UserId::parse(user).ok(),
        watch: vec![watch.to_owned()],
        publish,
        lifetime: Duration::from_secs(24 * 3600),
        ..NewToken::default()
    };
    auth::mint(&settings(), &new, clock::now().unix_ms).expect("a token")
}

/// What a client is to do.
#[derive(Clone)]
pub struct Plan {
    pub port: u16,
    pub script: Arc<Script>,
    pub owner: usize,
    pub watches: Watches,
    pub mutation: Mutation,
    /// Come back after a close? Otherwise the first connection that is greeted is the only one.
    pub returns: bool,
}

/// A client that runs until dropped or stopped.
pub struct Client {
    pub plan: Plan,
    pub account: Arc<Mutex<Account>>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Client {
    pub fn start(plan: Plan, random: Random) -> Self {
        let account = Arc::<Mutex<Account>>::default();
        let stop = CancellationToken::new();
        let mut runner = Runner::new(plan.clone(), account.clone(), random);
        let stopped = stop.clone();
        let running = tokio::spawn(async move {
            tokio::select! {
                () = runner.run() => {}
                () = stopped.cancelled() => {}
            }
        });
        Self { plan, account, stop, running }
    }

    pub fn has_ended(&self) -> bool {
        self.running.is_finished()
    }

    /// Does it show every task that it may see as the script leaves it?
    pub fn is_settled(&self) -> bool {
        let account = self.account.lock().expect("no panic under the lock");
        self.visible().all(|task| {
            account.shown.get(&task).is_some_and(|shown| shown.number + 1 == self.plan.script.parts[task].lines.len())
        })
    }

    /// The tasks that it may see.
    pub fn visible(&self) -> impl Iterator<Item = usize> {
        let (script, all, owner) = (&self.plan.script, self.plan.watches == Watches::All, self.plan.owner);
        (0..script.parts.len()).filter(move |task| all || script.parts[*task].owner == owner)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// How a connection ended.
struct Ended {
    code: Option<u16>,
    /// What is left of what it was told to wait.
    wait: Option<Duration>,
}

struct Runner {
    plan: Plan,
    account: Arc<Mutex<Account>>,
    random: Random,
    bearer: String,
    cursor: Option<String>,
    reconnect: Reconnect,
    heartbeat: Duration,
    failures: u32,
    lost: Option<Lost>,
    /// The next page replaces what is shown.
    replaces: bool,
    /// The next frame is the first one of a resumed connection.
    fresh: bool,
    gap_counted: bool,
}

struct Lost {
    at: Instant,
    told: Duration,
    told_first: Option<Duration>,
}

impl Runner {
    fn new(plan: Plan, account: Arc<Mutex<Account>>, random: Random) -> Self {
        let watch = if plan.watches == Watches::All { "all" } else { "own" };
        let bearer = format!("Bearer {}", token(&user_name(plan.owner), watch, false));
        Self {
            plan,
            account,
            random,
            bearer,
            cursor: None,
            reconnect: Reconnect { min_ms: 500, max_ms: 30_000 },
            heartbeat: Duration::from_secs(25),
            failures: 0,
            lost: None,
            replaces: true,
            fresh: false,
            gap_counted: false,
        }
    }

    fn account<T>(&self, change: impl FnOnce(&mut Account) -> T) -> T {
        change(&mut self.account.lock().expect("no panic under the lock"))
    }

    async fn run(&mut self) {
        loop {
            let outcome = timeout(GREETING_TIMEOUT, self.connect()).await;
            let ended = match outcome {
                Ok(Ok(socket)) => self.converse(socket).await,
                Ok(Err(retry_after)) => Ended { code: None, wait: retry_after },
                Err(_) => Ended { code: None, wait: None },
            };
            let now = clock::now().instant;
            let lost = self.lost.get_or_insert(Lost { at: now, told: Duration::ZERO, told_first: None });
            self.failures = (self.failures + 1).min(16);
            let wait = ended.wait.unwrap_or_else(|| {
                let most = self.reconnect.max_ms.min(self.reconnect.min_ms << self.failures);
                let spread = most.saturating_sub(self.reconnect.min_ms) + 1;
                Duration::from_millis(self.reconnect.min_ms + self.random.below(spread))
            });
            lost.told += wait;
            lost.told_first.get_or_insert(wait);
            let stops = matches!(ended.code, Some(1000 | 1002 | 1003 | 1007 | 1009 | 4001 | 4003));
            if stops {
                self.account(|account| account.odd(format!("closed with {:?}, which ends it", ended.code)));
            }
            let was_in = self.account(|account| account.greetings > 0);
            if stops || (was_in && !self.plan.returns) {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// A socket that has been upgraded; or, of a refusal, how long to wait.
    async fn connect(&mut self) -> Result<WebSocketStream<TcpStream>, Option<Duration>> {
        let mut query = Vec::new();
        query.extend(self.cursor.as_ref().map(|cursor| format!("cursor={cursor}")));
        match self.plan.watches {
            Watches::Own => {}
            Watches::Every => query.push("deliver=every".to_owned()),
            Watches::All => query.push("watch=all".to_owned()),
        }
        let address = format!("ws://127.0.0.1:{}/ws/tasks/?{}", self.plan.port, query.join("&"));
        let mut request = address.into_client_request().expect("a legal address");
        request.headers_mut().insert("Authorization", self.bearer.parse().expect("a legal header"));
        let config = WebSocketConfig::default().read_buffer_size(SOCKET_BUFFER_BYTES).write_buffer_size(0);
        let stream = TcpStream::connect(("127.0.0.1", self.plan.port)).await.map_err(|_| None)?;
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(response)) => {
                self.account(|account| {
                    account.refusals += 1;
                    if response.status() != 503 {
                        account.odd(format!("a handshake was answered with {}", response.status()));
                    }
                });
                let seconds = response.headers().get("Retry-After").and_then(|value| value.to_str().ok()?.parse().ok());
                let jitter = Duration::from_millis(self.random.below(self.reconnect.min_ms + 1));
                Err(seconds.map(|seconds| Duration::from_secs(seconds) + jitter))
            }
            Err(_) => Err(None),
        }
    }

    async fn converse(&mut self, mut socket: WebSocketStream<TcpStream>) -> Ended {
        let mut back_at: Option<Instant> = None;
        let mut patience = GREETING_TIMEOUT;
        let code = loop {
            match timeout(patience, socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => match serde_json::from_str::<Frame>(&text) {
                    Ok(frame) => back_at = self.on_frame(frame).or(back_at),
                    Err(error) => self.account(|account| account.odd(format!("{error} in {text}"))),
                },
                Ok(Some(Ok(Message::Close(frame)))) => {
                    // Reading on sends the answer.
                    let _ = timeout(Duration::from_secs(1), socket.next()).await;
                    break frame.map(|frame| u16::from(frame.code));
                }
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(_)) | None) | Err(_) => break None,
            }
            patience = self.heartbeat.mul_f64(HEARTBEATS_MISSED);
        };
        let now = clock::now().instant;
        let name = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        self.account(|account| {
            *account.closes.entry(name).or_default() += 1;
            if account.greetings > 0 {
                account.first_close.get_or_insert((now, code));
            }
            if let Some(departure) = account.departures.last_mut() {
                departure.closed.get_or_insert(now);
            }
        });
        if self.failures == 0 {
            self.lost = Some(Lost { at: now, told: Duration::ZERO, told_first: None });
        }
        // The turns are spread already.
        let jitter = Duration::from_millis(self.random.below(self.reconnect.min_ms + 1));
        Ended { code, wait: back_at.map(|at| at.saturating_duration_since(now) + jitter) }
    }

    /// When to come back, if that was told.
    fn on_frame(&mut self, frame: Frame) -> Option<Instant> {
        let now = clock::now().instant;
        match frame.kind.as_str() {
            "connection_established" => self.on_greeting(&frame, now),
            "active_tasks" => self.on_page(&frame),
            "task_progress" | "task_completed" => self.on_task(&frame),
            "server_draining" => {
                let after = frame.reconnect_after_ms.map(Duration::from_millis);
                self.account(|account| {
                    account.told = after;
                    let departure = after.map(|told| Departure { heard: now, told, closed: None, back: None });
                    account.departures.extend(departure);
                });
                return after.map(|after| now + after);
            }
            "task_removed" => self.account(|account| account.removed += 1),
            "source_degraded" => self.account(|account| account.degraded += 1),
            "source_recovered" => self.account(|account| account.recovered += 1),
            other => {
                let detail = frame.task_id.or(frame.message).unwrap_or_default();
                self.account(|account| account.odd(format!("{other}: {detail}")));
            }
        }
        None
    }

    fn on_greeting(&mut self, frame: &Frame, now: Instant) {
        let resumed = frame.resumed == Some(true);
        let asked = self.cursor.is_some();
        let lost = self.lost.take();
        self.account(|account| {
            account.greetings += 1;
            account.is_resumed = resumed;
            if let Some(departure) = account.departures.last_mut() {
                departure.back.get_or_insert(now);
            }
            if resumed {
                account.resumed += 1;
            } else if asked {
                let reason = frame.resume_failure.clone().unwrap_or_else(|| "without a reason".to_owned());
                *account.resume_failures.entry(reason).or_default() += 1;
            }
            if let Some(lost) = lost {
                let waited = now.saturating_duration_since(lost.at);
                account.longest_gap = account.longest_gap.max(waited.saturating_sub(lost.told));
                let first = lost.told_first.unwrap_or_default();
                account.longest_wait = account.longest_wait.max(waited.saturating_sub(first));
            }
        });
        self.replaces = !resumed;
        self.fresh = resumed;
        self.gap_counted = false;
        self.failures = 0;
        self.reconnect = frame.reconnect.unwrap_or(self.reconnect);
        self.heartbeat = frame.heartbeat_interval_ms.map_or(self.heartbeat, Duration::from_millis);
    }

    fn on_page(&mut self, frame: &Frame) {
        let replaces = std::mem::take(&mut self.replaces) || frame.reset.is_some();
        let now = clock::now().instant;
        let shown: Vec<(usize, Shown)> = frame.tasks.iter().filter_map(|task| self.read(task)).collect();
        self.account(|account| {
            if replaces {
                account.shown.clear();
                account.complete = None;
                account.is_resumed = false;
                account.position = Position::START;
            }
            account.shown.extend(shown);
            if !frame.more {
                account.complete.get_or_insert(now);
            }
            account.position = account.position.max(position(frame.cursor.as_deref()));
        });
        self.cursor = frame.cursor.clone().or(self.cursor.take());
    }

    fn read(&self, task: &Task) -> Option<(usize, Shown)> {
        let index = self.plan.script.task(&task.id)?;
        let number = task.message.as_ref()?.parse().ok()?;
        let shown = Shown { number, status: task.status.clone(), attempt: task.attempt, progress: task.progress };
        Some((index, shown))
    }

    fn on_task(&mut self, frame: &Frame) {
        let task = Task {
            id: frame.task_id.clone().unwrap_or_default(),
            status: frame.status.clone().unwrap_or_default(),
            message: frame.message.clone(),
            attempt: frame.attempt.unwrap_or_default(),
            progress: frame.progress,
        };
        self.cursor = frame.cursor.clone().or(self.cursor.take());
        let Some((index, mut shown)) = self.read(&task) else {
            return self.account(|account| account.odd(format!("a task that nobody published: {}", task.id)));
        };
        let line = &self.plan.script.parts[index].lines[shown.number];
        let is_first = std::mem::take(&mut self.fresh);
        match self.plan.mutation {
            Mutation::DropsEnds if line.is_end && index.is_multiple_of(3) => return,
            Mutation::SkipsAfterResume if is_first && line.is_key => {
                return;
            }
            Mutation::Misreads => shown.progress = shown.progress.map(|progress| progress + 1.0),
            _ => {}
        }
        let times = if is_first && self.plan.mutation == Mutation::RepeatsAfterResume { 2 } else { 1 };
        for _ in 0..times {
            self.show(index, shown.clone(), position(frame.cursor.as_deref()));
        }
    }

    /// A step of a task, which must be a step forward.
    fn show(&mut self, index: usize, shown: Shown, position: Position) {
        let script = self.plan.script.clone();
        let (counted, now) = (self.gap_counted, clock::now().instant);
        let gap = self.account(|account| {
            let known = account.shown.get(&index).map(|shown| shown.number);
            let again = known.is_some_and(|known| shown.number <= known);
            if again || position <= account.position {
                account.duplicates += 1;
                let number = shown.number;
                account.odd(format!("{} again: {number} after {known:?}", script.task_id(index)));
                return false;
            }
            account.position = position;
            let from = known.map_or(0, |known| known + 1);
            let skipped = &script.parts[index].lines[from..shown.number];
            // A task that changes while the snapshot is taken is not in it but follows as it is now; what it was before
            // the snapshot is owed to nobody.
            let is_owed = account.complete.is_some_and(|since| now > since + SNAPSHOT_SETTLES);
            let gap = (known.is_some() || is_owed) && skipped.iter().any(|line| line.is_key);
            if gap {
                account.key_frames_missed += 1;
                account.wrong_resumed += u32::from(account.is_resumed && !counted);
                let (number, resumed) = (shown.number, account.is_resumed);
                account.odd(format!("{}: {number} after {known:?} (resumed: {resumed})", script.task_id(index)));
            }
            account.shown.insert(index, shown);
            gap
        });
        self.gap_counted |= gap;
    }
}

fn position(cursor: Option<&str>) -> Position {
    cursor.and_then(|cursor| cursor.parse::<Cursor>().ok()).map_or(Position::START, |cursor| cursor.position)
}
