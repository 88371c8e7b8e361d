//! taskcast as its own users would run it: `taskcast serve` with JSON Web Tokens, reading a Redis or RabbitMQ of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    rc::Rc,
    time::Duration,
};

use taskcast::{
    auth::{self, JwtSettings, Key, NewToken},
    clock,
    proto::UserId,
};

use crate::{
    Outcome, http,
    payload::{owner_name, topic_name},
    place::{EVENTS_WAITING_DEFAULT, Place},
    processes::Processes,
    server::{Handshake, Heard, Instance, Road, Server, Watcher},
    servers::brokers::Broker,
};

const SECRET: &str = "a-secret-of-the-load-harness-of-more-than-32-bytes";
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const EVENTS_TOTAL: &str = "taskcast_events_total{";
const LOG: &str = "taskcast.log";
const READY_PATIENCE: Duration = Duration::from_secs(120);

/// Fed by a Redis, as most are, or by a RabbitMQ.
pub struct Taskcast {
    pub program: PathBuf,
    /// More settings: names in the environment and their values.
    pub settings: Vec<(&'static str, String)>,
}

impl Taskcast {
    pub fn new(program: PathBuf) -> Self {
        Self { program, settings: Vec::new() }
    }

    pub fn version(&self) -> String {
        let output = Command::new(&self.program).arg("--version").output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    }

    /// Starts it on a log that exists, and does not wait until it is ready.
    ///
    /// # Errors
    /// The kernel's, when it cannot be pinned.
    pub fn launch(&self, place: &Place, broker: Rc<Broker>) -> Outcome<Running> {
        let [address, operations] = [(); 2].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, place.port())));
        let mut processes = Processes::new("taskcast");
        broker.pids().into_iter().for_each(|pid| processes.count_broker(pid));
        let settings = [
            ("TASKCAST_LOG", broker.url()),
            ("TASKCAST_AUTH_SECRET", SECRET.to_owned()),
            ("TASKCAST_LISTEN", address.to_string()),
            ("TASKCAST_OPERATIONS_LISTEN", operations.to_string()),
            ("TASKCAST_LOG_LEVEL", "warn".to_owned()),
            ("TASKCAST_HTTP_CONNECTIONS_MAX", (2 * place.watchers_max + 100).to_string()),
            // What waits for a watcher that wants every frame must still be held.
            ("TASKCAST_TASKS_RING_FRAMES", place.events_waiting_max.max(EVENTS_WAITING_DEFAULT).to_string()),
        ];
        processes.start_server(place, &self.program, LOG, |command| {
            for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TASKCAST_")) {
                command.env_remove(name);
            }
            command.arg("serve").envs(settings).envs(self.settings.iter().map(|(name, value)| (name, value)));
        })?;
        Ok(Running { version: self.version(), processes, address, operations, jwt: jwt(), broker })
    }
}

impl Server for Taskcast {
    fn name(&self) -> &'static str {
        "taskcast"
    }

    fn start(&self, place: &Place) -> Outcome<Box<dyn Instance>> {
        let running = self.launch(place, Rc::new(Broker::redis(place)?))?;
        running.until_ready()?;
        Ok(Box::new(running))
    }
}

/// A `taskcast serve`.
pub struct Running {
    version: String,
    pub processes: Processes,
    address: SocketAddr,
    operations: SocketAddr,
    jwt: JwtSettings,
    /// Behind the processes: those end first.
    broker: Rc<Broker>,
}

impl Running {
    /// # Errors
    /// It was not in time, with the last words of its log.
    pub fn until_ready(&self) -> Outcome<()> {
        let is_ready = || http::get(self.operations, "/readyz").is_some_and(|(status, _)| status == 200);
        self.processes.until(READY_PATIENCE, LOG, is_ready)
    }

    /// The log has been read to the end that it had.
    pub fn is_replayed(&self) -> bool {
        http::get(self.operations, "/readyz").is_some_and(|(_, body)| body.contains(r#""replayed":true"#))
    }

    /// The sum of a metric's series whose text holds `part`.
    pub fn metric(&self, part: &str) -> f64 {
        let (_, text) = http::get(self.operations, "/metrics").unwrap_or_default();
        let series = text.lines().filter(|line| !line.starts_with('#') && line.contains(part));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until it has seen to so many events since it started, whatever became of them.
    ///
    /// # Errors
    /// They do not come.
    pub fn until_events(&self, count: f64) -> Outcome<()> {
        let came = || self.metric(EVENTS_TOTAL) >= count;
        self.processes.until(READY_PATIENCE, LOG, came).map_err(|error| format!("{count} events: {error}").into())
    }

    pub fn events(&self) -> f64 {
        self.metric(EVENTS_TOTAL)
    }

    fn token(&self, watcher: &Watcher) -> String {
        let (user, watch) = if owns(watcher) {
            (owner_name(watcher.topic), "own".to_owned())
        } else {
            (format!("guest-{:06}", watcher.number), format!("task:{}", topic_name(watcher.topic)))
        };
        let new = NewToken {
            user: UserId::parse(&user).ok(),
            watch: vec![watch],
            lifetime: TOKEN_LIFETIME,
            ..NewToken::default()
        };
        // These claims are never refused.
        auth::mint(&self.jwt, &new, clock::now().unix_ms).unwrap_or_default()
    }
}

/// The first watcher of each topic owns its task and watches its own; the others may see this one task.
fn owns(watcher: &Watcher) -> bool {
    watcher.number == watcher.topic
}

impl Instance for Running {
    fn version(&self) -> String {
        self.version.clone()
    }

    fn processes(&self) -> &Processes {
        &self.processes
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn handshake(&self, watcher: &Watcher) -> Handshake {
        let page = if owns(watcher) { String::new() } else { format!("{}/", topic_name(watcher.topic)) };
        let cursor = watcher.cursor.as_ref().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        Handshake {
            path: format!("/ws/tasks/{page}?deliver=every{cursor}"),
            headers: vec![("Authorization", format!("Bearer {}", self.token(watcher)))],
        }
    }

    fn opened(&self, _watcher: &Watcher, _out: &mut crate::websocket::Outbox) -> bool {
        false
    }

    /// Watching begins behind the snapshot, or with the greeting of a resumed session. What a snapshot shows was delivered
    /// by no event.
    fn heard(&self, _watcher: &Watcher, message: &[u8], heard: &mut Heard<'_>) {
        let is = |kind: &[u8]| message.starts_with(kind);
        let says = |what: &[u8]| memchr::memmem::find(message, what).is_some();
        let is_last_page = || is(br#"{"type":"active_tasks""#) && says(br#""more":false"#);
        let is_resumed = || is(br#"{"type":"connection_established""#) && says(br#""resumed":true"#);
        if is(br#"{"type":"task_"#) {
            heard.events_in(message);
        } else if !heard.is_ready() && (is_last_page() || is_resumed()) {
            heard.ready();
        }
    }

    fn road(&self) -> Road {
        self.broker.road()
    }

    fn publication(&self, topic: usize, payload: &[u8], out: &mut Vec<u8>) {
        self.broker.publication(topic, payload, out);
    }
}

/// The cursor of a message, if it has one.
pub fn cursor_of(message: &[u8]) -> Option<String> {
    const NAME: &[u8] = br#""cursor":""#;
    let start = memchr::memmem::rfind(message, NAME)? + NAME.len();
    let length = memchr::memchr(b'"', &message[start..])?;
    String::from_utf8(message[start..start + length].to_vec()).ok()
}

fn jwt() -> JwtSettings {
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
