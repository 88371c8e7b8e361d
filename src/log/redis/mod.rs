//! The log in a Redis Stream: one entry per event, the JSON in its field `event`, its stream id the position. Owns the
//! connections and the words for what can be wrong with them. Refuses to know: tasks.
//!
//! Redis 6.2 is enough; from 7.0 on the stream counts what was ever added, which makes lost records provable.

mod append;
mod dead_letters;
mod reader;
mod tally;
mod wire;

use std::{sync::Arc, time::Duration};

use redis::{AsyncConnectionConfig, Client, ConnectionAddr, TlsCertificates, aio::MultiplexedConnection};
use tokio::sync::watch;

use self::append::Appender;
use super::{
    AppendError, Health, Outgoing, Settings, TailItem,
    feed::Feed,
    health::{Reporter, Trouble},
    settings::certificate_authorities,
};
use crate::{metrics::Metrics, proto::Position};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The log itself. Appends share one connection; each tail has its own, because a blocking read blocks everybody
/// behind it.
pub struct RedisLog {
    client: Client,
    /// Where the log is, for people: no credentials.
    address: String,
    settings: Settings,
    reporter: Arc<Reporter>,
    appender: Appender,
}

impl RedisLog {
    pub(super) fn open(url: &str, settings: Settings, metrics: Arc<Metrics>) -> Result<Self, String> {
        if settings.key.is_empty() {
            return Err("the key of the Redis stream must not be empty".to_owned());
        }
        // The library's words name the mistake and never repeat the URL.
        let unusable = |error: redis::RedisError| format!("the Redis URL cannot be used: {error}");
        let client = match certificate_authorities(&settings)? {
            Some(pem) if url.starts_with("rediss:") => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem.into_bytes()) };
                Client::build_with_tls(url, certificates).map_err(unusable)?
            }
            _ => Client::open(url).map_err(unusable)?,
        };
        let address = match client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => format!("{host}:{port}"),
            ConnectionAddr::Unix(path) => path.display().to_string(),
            _ => "its address".to_owned(),
        };
        let reporter = Arc::new(Reporter::new(metrics));
        Ok(Self { client, address, settings, reporter, appender: Appender::default() })
    }

    pub(super) async fn append(&self, events: &[Outgoing]) -> Result<Vec<Option<Position>>, AppendError> {
        self.appender.append(self, events).await
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn metrics(&self) -> &Metrics {
        self.reporter.metrics()
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.reporter.watch()
    }

    /// A new connection. Its own response timeout is off, since it would break blocking reads; callers set theirs.
    async fn connect(&self) -> Result<MultiplexedConnection, Trouble> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(1_024);
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error| self.trouble(&error)),
            Err(_) => Err(Trouble::Lost(format!("Redis at {} does not answer", self.address))),
        }
    }

    /// What an error means for the operator. Redis never repeats a password in its errors.
    fn trouble(&self, error: &redis::RedisError) -> Trouble {
        let (address, key) = (&self.address, &self.settings.key);
        let code = error.code().unwrap_or_default();
        let refused =
            matches!(code, "NOAUTH" | "WRONGPASS" | "NOPERM") || error.kind() == redis::ErrorKind::AuthenticationFailed;
        if code == "NOPERM" {
            return Trouble::Misfit(format!("Redis at {address} refuses a command that the log needs: {error}"));
        }
        if refused {
            return Trouble::Misfit(format!(
                "Redis at {address} refuses the user or password in the log's URL: {error}"
            ));
        }
        if code == "WRONGTYPE" {
            return Trouble::Misfit(format!(
                "key {key} at {address} holds something else, not a stream; rename it or choose another log key"
            ));
        }
        Trouble::Lost(format!("Redis at {address}: {error}"))
    }
}

/// A reader of the stream.
pub struct RedisTail {
    log: Arc<RedisLog>,
    feed: Option<Feed>,
}

impl RedisTail {
    pub(super) fn new(log: Arc<RedisLog>) -> Self {
        Self { log, feed: None }
    }

    pub(super) async fn next(&mut self) -> TailItem {
        let log = &self.log;
        super::feed::next(&mut self.feed, &log.reporter, |out| reader::read(log.clone(), out)).await
    }
}
