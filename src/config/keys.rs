//! The one table of everything that can be configured. Parsing, unknown keys, names in the environment, the default
//! file and the texts of mistakes are all read from it. Its part `[auth]` is in
//! `keys_auth`, that about limits in `keys_limits`, that about traces in `keys_telemetry`.
//!
//! Refuses to know: what the settings do.

use std::sync::LazyLock;

/// What a key holds, and so how it is read and what is expected of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    /// Never shown.
    Secret,
    /// `memory` or a broker's address, whose credentials are never shown.
    LogUrl,
    /// An address and a port.
    Address,
    Integer {
        min: u64,
        max: u64,
    },
    Boolean,
    /// A TOML array; comma separated elsewhere.
    List,
    Choice(&'static [&'static str]),
    Path,
    /// An address that begins with `https://` or `http://`; what may be a secret in it is never shown.
    HttpUrl,
    /// The same, or the path of a file.
    HttpUrlOrPath,
    /// A TOML array of tables, elsewhere too. Never shown: secrets may be in them.
    Tables,
    /// A level or a filter of tracing-subscriber.
    LogLevel,
}

/// One thing that can be configured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Dotted, as in the TOML file.
    pub path: &'static str,
    pub kind: Kind,
    /// In the form of the environment. `None`: not set.
    pub default: Option<&'static str>,
    /// In the form of the environment.
    pub example: &'static str,
    pub doc: &'static str,
}

/// The tables of the file, in its order. The first is the top level.
pub(super) const TABLES: [(&str, &str); 12] = [
    ("", ""),
    (
        "auth",
        "Who may connect: JSON Web Tokens, checked with a secret, a public key or an issuer's key set; or opaque tokens.",
    ),
    ("log", "Where events are kept and read from."),
    ("checkpoint", "The state of all tasks, kept beside the log, so that a start need not read the whole log."),
    ("tasks", "How many tasks are held, and for how long."),
    ("memory", "When the service refuses what is new, before it runs out of memory."),
    ("sessions", "Timers and limits of WebSockets and event streams."),
    ("http", "TLS and limits of the public listener."),
    ("limits", "Who may come, how often, and how many at a time. Each replica counts for itself."),
    ("operations", "TLS and the token of the operators' listener."),
    ("telemetry", "Spans of traced events, for a collector of OpenTelemetry."),
    ("canary", "An event of the service's own, which proves that what is published is delivered."),
];

impl Key {
    /// The table and the name within it.
    pub(super) fn split(&self) -> (&'static str, &'static str) {
        self.path.split_once('.').unwrap_or(("", self.path))
    }

    /// Its environment variable: `TASKCAST_` and the path, but for the log's address, which is just `TASKCAST_LOG`.
    pub(super) fn variable(&self) -> String {
        match self.path {
            "log.url" => "TASKCAST_LOG".to_owned(),
            "log.url_file" => "TASKCAST_LOG_FILE".to_owned(),
            path => variable_by_rule(path),
        }
    }
}

/// `auth.secret`: `TASKCAST_AUTH_SECRET`.
pub(super) fn variable_by_rule(path: &str) -> String {
    format!("TASKCAST_{}", path.replace('.', "_").to_ascii_uppercase())
}

pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

pub(super) const fn set(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default: Some(default), example: default, doc }
}

pub(super) const fn unset(path: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default: None, example, doc }
}

pub(super) const fn with_example(mut key: Key, example: &'static str) -> Key {
    key.example = example;
    key
}

pub(super) const fn number(path: &'static str, min: u64, default: &'static str, max: u64, doc: &'static str) -> Key {
    set(path, Kind::Integer { min, max }, default, doc)
}

/// Makes a secret where a shell reads it; a place that takes it literally has to refuse it, as everybody knows it.
pub(super) const SECRET_EXAMPLE: &str = "$(openssl rand -hex 32)";

pub(super) const YEAR_SECONDS: u64 = 366 * 24 * 3600;
pub(super) const HOUR_MS: u64 = 3_600_000;

/// All of it, in the order of the file.
pub(super) static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut keys =
        [TOP, super::keys_auth::AUTH, REST, super::keys_limits::LIMITS, super::keys_telemetry::TELEMETRY].concat();
    keys.sort_by_key(|key| TABLES.iter().position(|(table, _)| *table == key.split().0));
    keys
});

/// The top level.
static TOP: &[Key] = &[
    set(
        "listen",
        Kind::Address,
        "0.0.0.0:6161",
        "Where clients connect: WebSockets, event streams, REST, the page. With auth.mode = \"none\" the default is \
         127.0.0.1:6161, unless auth.allow_remote_without_token.",
    ),
    set("operations_listen", Kind::Address, "0.0.0.0:6162", "Where operators connect: /livez, /readyz, /metrics."),
    with_example(
        set(
            "origins",
            Kind::List,
            "",
            "Origins that browsers may come from. Empty: the service's own only. A list replaces that: name the service's own besides, for its \
             dashboard and links to share.",
        ),
        "https://app.example.com,https://*.example.com",
    ),
    number(
        "drain_seconds",
        0,
        "20",
        3600,
        "The window over which a stop spreads the closing of connections; the process ends within 5 s after it.",
    ),
    with_example(
        set(
            "log_level",
            Kind::LogLevel,
            "info",
            "How much is logged: a level, or a filter per module. RabbitMQ's library logs only where it is named: info,lapin=warn.",
        ),
        "info,taskcast=debug",
    ),
    unset(
        "log_level_file",
        Kind::Path,
        "/etc/taskcast/log-level/log_level",
        "A file that may hold another log_level. It is read again when it changes, and counts for as long as it is there.",
    ),
    with_example(
        set("log_format", Kind::Choice(&["text", "json"]), "text", "The form of log lines on stderr."),
        "json",
    ),
];

/// The tables behind `[auth]`.
static REST: &[Key] = &[
    // [log]
    with_example(
        set(
            "log.url",
            Kind::LogUrl,
            "memory",
            "memory (one replica, events are gone with it), redis://, rediss://, \
             redis+sentinel://host:port,host:port/name-of-the-primary, rediss+sentinel://, amqp:// or amqps://. Nodes of a \
             RabbitMQ cluster with commas between them: amqp://user:password@one:5672,two:5672/vhost.",
        ),
        "redis://localhost:6379/0",
    ),
    unset("log.url_file", Kind::Path, "/run/secrets/taskcast-log", "A file with the address, instead of log.url."),
    set("log.key", Kind::Text, "taskcast:events", "Redis: the stream's key. RabbitMQ: the stream queue's name."),
    set("log.exchange", Kind::Text, "taskcast.events", "RabbitMQ: the durable topic exchange that workers publish to."),
    number("log.max_events", 1, "1000000", 1_000_000_000, "Redis and memory: how many events are kept, about."),
    number(
        "log.max_age_seconds",
        1,
        "86400",
        YEAR_SECONDS,
        "RabbitMQ: how long events are kept, if the queue is made here.",
    ),
    number(
        "log.max_bytes",
        1_000_000,
        "2147483648",
        1 << 50,
        "RabbitMQ: how many bytes of events are kept, if the queue is made here.",
    ),
    number(
        "log.dead_letters_max",
        0,
        "10000",
        100_000,
        "How many malformed events are set aside with their reasons, about (Redis). 0: none, on both brokers.",
    ),
    number(
        "log.dead_letters_max_bytes",
        1_000_000,
        "67108864",
        1 << 40,
        "How many bytes of malformed events are set aside, about.",
    ),
    number("log.read_batch", 1, "256", 10_000, "Events per read (Redis), or unacknowledged at a time (RabbitMQ)."),
    number("log.append_timeout_ms", 1, "5000", HOUR_MS, "How long the log may take to confirm an event."),
    number(
        "log.wait_replicas",
        0,
        "0",
        16,
        "Redis: how many replicas must have an event before it is confirmed to its publisher (WAIT).",
    ),
    number("log.reconnect_max_ms", 1, "1000", HOUR_MS, "The longest wait between two attempts to connect."),
    unset(
        "log.tls_ca_file",
        Kind::Path,
        "/etc/taskcast/ca.pem",
        "A PEM file of certificate authorities: trusted instead of the system's for rediss://, besides them for amqps://.",
    ),
    unset(
        "log.tls_client_certificate_file",
        Kind::Path,
        "/etc/taskcast/client.crt",
        "A PEM file with the certificate to show to a broker that asks for one, and its chain. Read anew with every connection.",
    ),
    unset(
        "log.tls_client_key_file",
        Kind::Path,
        "/etc/taskcast/client.key",
        "A PEM file with the private key of log.tls_client_certificate_file.",
    ),
    // [checkpoint]
    number(
        "checkpoint.interval_seconds",
        0,
        "60",
        86_400,
        "How often the state of all tasks is written beside the log, by one replica at a time. 0: never, and none is read.",
    ),
    number(
        "checkpoint.max_bytes",
        1_000_000,
        "268435456",
        1 << 40,
        "The largest checkpoint that is written or read. RabbitMQ keeps about three of this size on its disk.",
    ),
    // [tasks]
    number("tasks.max", 1, "100000", 10_000_000, "Tasks held at most; beyond it the longest-ended are let go."),
    unset(
        "tasks.max_bytes",
        Kind::Integer { min: 0, max: 1 << 50 },
        "1073741824",
        "What the tasks held may take in memory, by estimate. Beyond it the longest-ended are let go, then older updates \
         of tasks that change, then new tasks are dropped. Unset: half of memory.max_bytes, else 1 GiB. 0: no limit.",
    ),
    number(
        "tasks.max_per_owner",
        0,
        "50000",
        10_000_000,
        "Tasks of one owner held at most; beyond it that owner's longest-ended are let go, then its new ones are dropped. \
         0: no limit.",
    ),
    number("tasks.ring_frames", 1, "16", 1024, "Recent updates kept per task."),
    number("tasks.retain_ended_seconds", 0, "900", YEAR_SECONDS, "How long an ended task is kept."),
    number("tasks.retain_idle_seconds", 1, "86400", YEAR_SECONDS, "How long a live task without events is kept."),
    number(
        "tasks.resume_window",
        0,
        "500000",
        100_000_000,
        "How many recent events a client may have missed and still resume; 16 bytes each.",
    ),
    // [memory]
    unset(
        "memory.max_bytes",
        Kind::Integer { min: 0, max: 1 << 50 },
        "429496729",
        "Resident memory beyond which new WebSockets, event streams, lists of tasks, the frames of a task and POST /api/v1/events are answered \
         with 503. Unset: 80 % of the container's limit, if there is one. 0: no limit. On Linux only.",
    ),
    // [sessions]
    number("sessions.heartbeat_interval_ms", 10, "25000", HOUR_MS, "How often a silent connection is pinged."),
    number("sessions.dead_peer_timeout_ms", 20, "60000", HOUR_MS, "A client silent for this long is dropped."),
    number(
        "sessions.write_timeout_ms",
        10,
        "20000",
        HOUR_MS,
        "A client that takes less than 16 KiB in this time, and not all that waits, is dropped.",
    ),
    number(
        "sessions.first_frame_timeout_ms",
        10,
        "3000",
        HOUR_MS,
        "How long a client that connects without a token may take to send one.",
    ),
    number(
        "sessions.token_expiring_lead_ms",
        0,
        "60000",
        HOUR_MS,
        "How long before its token's end a client is told to send a fresh one (token_expiring). 0: it is not told.",
    ),
    number(
        "sessions.token_grace_ms",
        0,
        "10000",
        HOUR_MS,
        "How long after its token's end a connection waits for a fresh one. No task is shown meanwhile.",
    ),
    number("sessions.message_max_bytes", 1024, "65536", 16 << 20, "The longest message from a client."),
    number("sessions.bad_messages_max", 1, "20", 1_000_000, "Bad messages in a row until the connection is closed."),
    number("sessions.subscriptions_max", 1, "256", 100_000, "Subscriptions of one connection at most."),
    number("sessions.page_max_bytes", 1024, "65536", 16 << 20, "Snapshots are cut into pages of about this size."),
    number("sessions.reconnect_min_ms", 0, "500", HOUR_MS, "Told to clients: the shortest wait before a reconnect."),
    number("sessions.reconnect_max_ms", 1, "30000", HOUR_MS, "Told to clients: the longest wait before a reconnect."),
    // [http]
    unset(
        "http.tls_certificate_file",
        Kind::Path,
        "/etc/taskcast/tls/tls.crt",
        "A PEM file with the certificate of the public listener and its chain: it speaks TLS then, and nothing else. Read \
         again when it changes.",
    ),
    unset(
        "http.tls_key_file",
        Kind::Path,
        "/etc/taskcast/tls/tls.key",
        "A PEM file with the private key of http.tls_certificate_file.",
    ),
    with_example(
        set(
            "http.missing_origin",
            Kind::Choice(&["allow", "deny"]),
            "allow",
            "What becomes of WebSocket handshakes without an Origin, which browsers never make, and of event streams without one \
             that no page of the service asks for (Sec-Fetch-Site). REST lets them pass.",
        ),
        "deny",
    ),
    // [operations]
    unset(
        "operations.token",
        Kind::Secret,
        SECRET_EXAMPLE,
        "What `Authorization: Bearer` brings to the operators' listener for /metrics. At least 16 characters. Unset: none is \
         needed.",
    ),
    unset(
        "operations.token_file",
        Kind::Path,
        "/run/secrets/taskcast-operations",
        "A file with the token, instead of operations.token.",
    ),
    set(
        "operations.token_for_probes",
        Kind::Boolean,
        "false",
        "Ask for the token at /livez and /readyz too, which a kubelet can bring only as a header written in its manifest.",
    ),
    unset(
        "operations.tls_certificate_file",
        Kind::Path,
        "/etc/taskcast/tls/tls.crt",
        "As http.tls_certificate_file, for the operators' listener. The two may be the same file.",
    ),
    unset(
        "operations.tls_key_file",
        Kind::Path,
        "/etc/taskcast/tls/tls.key",
        "A PEM file with the private key of operations.tls_certificate_file.",
    ),
    // [canary]
    number(
        "canary.interval_seconds",
        0,
        "10",
        3600,
        "How often each replica appends one and waits for it on a session of its own. 0: never, for a broker's user that \
         may only read.",
    ),
    number(
        "canary.timeout_seconds",
        1,
        "30",
        3600,
        "Readiness fails when none that was sent within this time has come back.",
    ),
];
