//! taskcast: workers publish progress events to a log, browsers watch tasks over WebSockets.
//!
//! ```text
//! worker ──► log ──► tail ──► hub ┄mark┄► session ──► socket ──► browser
//!              ▲                    ◄┄pull┄┘   ▲
//!    input ────┘                               └── http: limits → origin → token → upgrade
//! ```
//!
//! The broker is the log; a session is a cursor into it. The hub keeps the latest state of each task, marks it in the
//! mailbox of each watcher, and each session pulls what came after its cursor whenever its socket can take it. First
//! snapshot, live delivery, resume and a slow reader are one code path. Start with `ARCHITECTURE.md`; the modules below
//! stand in reading order.

pub mod clock;
pub mod proto;
pub mod settled;

pub mod client;
pub mod metrics;
pub mod tls;

pub mod traces;

pub mod limits;
pub mod log;

pub mod hub;

pub mod auth;

pub mod input;
pub mod session;

pub mod http;

pub mod config;
pub mod lifecycle;
pub mod telemetry;

pub mod app;

pub mod cli;
