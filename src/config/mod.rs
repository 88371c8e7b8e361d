//! The configuration: a TOML file, then `TASKCAST_…` variables, then flags; each later one wins. Whatever is wrong is
//! told at once, each mistake with its key, its value, what was expected and an example. Secrets are never shown.
//!
//! - `keys`: the one table of everything that can be configured
//! - `value`: texts and TOML to values
//! - `layers`, `file`, `environment`, `suggest`: what was given, where, and what of it is unknown
//! - `convert`: from values to the settings of the modules, and the checks that need several keys
//! - `keys_limits`, `limits`: the part of the table, and the conversion, that is about limits
//! - `issuers`, `introspection`: who knows tokens
//! - `tls`: certificates, and the operators' listener
//! - `memory`: how much memory there is, as the container says
//! - `mistake`: what is told, and what of it is hidden
//! - `template`: `taskcast default-config`
//!
//! Refuses to know: the process's environment and its disk (they are arguments), and what becomes of the settings.

mod convert;
mod environment;
mod file;
mod introspection;
mod issuers;
mod keys;
mod keys_auth;
mod keys_limits;
mod keys_telemetry;
mod layers;
mod limits;
mod memory;
mod mistake;
mod suggest;
mod telemetry;
mod template;
mod tls;
mod value;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{auth, http, hub, log, session, tls::Files, traces::TraceSettings};

pub use layers::{Flag, Sources};
pub use mistake::{Mistake, Mistakes, Source};
pub use template::default_config;
pub use value::check_log_level;

pub use limits::{NOBODY, NetworkFiles, read_networks};

use layers::Layers;

/// A configuration that can be run: every value checked. Only [`Config::load`] makes one.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    pub operations_listen: SocketAddr,
    pub log: log::Settings,
    pub checkpoint: log::CheckpointSettings,
    pub auth: auth::Settings,
    pub revocations: auth::RevocationSettings,
    pub tasks: hub::Settings,
    /// Resident memory beyond which nothing new is admitted; `None`: no limit is set and none was found.
    pub memory_max_bytes: Option<u64>,
    pub limits: crate::limits::Settings,
    /// Files with networks, read again when they change.
    pub networks: NetworkFiles,
    pub sessions: session::Settings,
    pub http: http::Settings,
    /// Of the public listener; `None`: plain.
    pub tls: Option<Files>,
    pub operations: http::OperationsSettings,
    pub operations_tls: Option<Files>,
    /// `None`: off.
    pub canary: Option<session::CanarySettings>,
    /// The window over which a stop spreads the closing of connections.
    pub drain: Duration,
    /// A filter of tracing-subscriber: `info`, `taskcast=debug`.
    pub log_level: String,
    /// What it holds counts in place of that, while it is there.
    pub log_level_file: Option<PathBuf>,
    pub log_format: LogFormat,
    /// `None`: no spans are made.
    pub traces: Option<TraceSettings>,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// A configuration, and what an operator should know about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// Not mistakes, but hardly meant.
    pub warnings: Vec<String>,
    /// Every key in the order of the file: what holds, and from where. Holds no secrets.
    pub effective: Vec<Effective>,
}

/// One key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    pub key: &'static str,
    /// Secrets hidden.
    pub value: String,
    pub source: Source,
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// All [`Mistakes`], not just the first.
    pub fn load(sources: &Sources<'_>) -> Result<Loaded, Mistakes> {
        let mut layers = Layers::read(sources);
        let config = convert::config(&mut layers);
        layers.finish()?;
        // Whatever keeps a conversion from succeeding has noted a mistake; this is for the one that forgot.
        let config = config.ok_or_else(|| Mistakes(vec![unexplained()]))?;
        let effective = keys::KEYS.iter().map(|key| {
            let (value, source) = layers.shown(key);
            Effective { key: key.path, value, source }
        });
        Ok(Loaded { config, effective: effective.collect(), warnings: layers.warnings })
    }
}

/// Reads everything but checks only what concerns the log: a publisher needs no tokens' secret.
///
/// # Errors
/// As [`Config::load`].
pub fn load_log(sources: &Sources<'_>) -> Result<log::Settings, Mistakes> {
    load_part(sources, convert::log)
}

/// As [`load_log`], for tokens.
///
/// # Errors
/// As [`Config::load`].
pub fn load_auth(sources: &Sources<'_>) -> Result<auth::Settings, Mistakes> {
    load_part(sources, convert::auth)
}

/// How the operators' listener is reached.
#[derive(Clone, Debug)]
pub struct Operations {
    pub listen: SocketAddr,
    /// It speaks TLS. The certificate is not judged: a running service may hold an older one.
    pub is_encrypted: bool,
    pub settings: http::OperationsSettings,
}

/// As [`load_log`], for whoever asks the operators' listener.
///
/// # Errors
/// As [`Config::load`].
pub fn load_operations(sources: &Sources<'_>) -> Result<Operations, Mistakes> {
    load_part(sources, |layers| {
        let is_encrypted = layers.is_given("operations.tls_certificate_file");
        Some(Operations {
            listen: layers.address("operations_listen")?,
            is_encrypted,
            settings: tls::operations(layers),
        })
    })
}

fn load_part<T>(sources: &Sources<'_>, convert: impl Fn(&mut Layers<'_>) -> Option<T>) -> Result<T, Mistakes> {
    let mut layers = Layers::read(sources);
    let part = convert(&mut layers);
    layers.finish()?;
    part.ok_or_else(|| Mistakes(vec![unexplained()]))
}

fn unexplained() -> Mistake {
    let expected = "a configuration that can be run; that this one cannot is a fault of taskcast".to_owned();
    Mistake {
        key: "configuration".to_owned(),
        value: None,
        source: None,
        expected,
        example: "`taskcast check-config` shows what was read".to_owned(),
    }
}
