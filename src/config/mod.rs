//! stub
use crate::{auth, http, hub, log, session};
use std::{net::SocketAddr, time::Duration};

/// A configuration that can be run: every value checked. Only [`Config::load`] makes one.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    pub operations_listen: SocketAddr,
    pub log: log::Settings,
    pub auth: auth::Settings,
    pub tasks: hub::Settings,
    pub sessions: session::Settings,
    pub http: http::Settings,
    pub drain: Duration,
    /// A filter of tracing-subscriber: `info`, `taskcast=debug`.
    pub log_level: String,
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}
