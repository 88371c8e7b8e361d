//! The log in a RabbitMQ stream queue, over AMQP 0.9.1: workers publish to a durable topic exchange, the queue bound to
//! it keeps what they published, and every replica consumes all of it. Owns the connections and the words for what can
//! be wrong with them. Refuses to know: tasks.
//!
//! A position's `major` is the stream's offset plus 1, since offsets start at 0 and [`Position::START`] must stand
//! before all of them; its `minor` is 0.

mod append;
mod dead_letters;
mod declare;
mod end;
mod reader;

use std::{sync::Arc, sync::atomic::AtomicBool, time::Duration};

use lapin::{Connection, ConnectionProperties, ErrorKind, tcp::OwnedTLSConfig, types::ShortString, uri::AMQPUri};
use tokio::{sync::watch, time::timeout};

use self::append::Appender;
use super::{
    AppendError, Health, Outgoing, Settings, TailItem,
    feed::Feed,
    health::{Reporter, Trouble},
    settings::certificate_authorities,
};
use crate::{metrics::Metrics, proto::Position};

/// When an event was appended, in milliseconds. The name is RabbitMQ's own, for brokers that stamp what they receive;
/// AMQP's `timestamp` property has whole seconds only.
const TIMESTAMP_HEADER: &str = "timestamp_in_ms";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Unless the URL says otherwise. A broker that stopped without closing the socket is noticed after about two of them.
const HEARTBEAT_SECONDS: u16 = 10;

/// The log itself. Appends share one connection; each tail has its own, so that a flood of one does not hold up the
/// other.
pub struct AmqpLog {
    uri: AMQPUri,
    tls: OwnedTLSConfig,
    /// Where the log is, for people: no credentials.
    address: String,
    queue: ShortString,
    exchange: ShortString,
    settings: Settings,
    reporter: Arc<Reporter>,
    appender: Appender,
    /// Whether the dead letters' queue was found to be a stream.
    dead_letters_declared: AtomicBool,
    /// Whether it was said that the queue has another retention than configured; once is enough.
    retention_told: AtomicBool,
}

impl AmqpLog {
    pub(super) fn open(url: &str, settings: Settings, metrics: Arc<Metrics>) -> Result<Self, String> {
        let uri = parse(url)?;
        let name = |what: &str, name: &str| match ShortString::try_new(name) {
            Ok(short) if !name.is_empty() => Ok(short),
            _ => Err(format!("the name of the {what} must have 1 to 255 bytes")),
        };
        let queue = name("queue", &settings.key)?;
        if settings.dead_letters_max > 0 {
            dead_letters::names(&settings.key)?;
        }
        Ok(Self {
            tls: OwnedTLSConfig { identity: None, cert_chain: certificate_authorities(&settings)? },
            address: format!("{}:{} (vhost {})", uri.authority.host, uri.authority.port, uri.vhost),
            queue,
            exchange: name("exchange", &settings.exchange)?,
            uri,
            settings,
            reporter: Arc::new(Reporter::new(metrics)),
            appender: Appender::default(),
            dead_letters_declared: AtomicBool::new(false),
            retention_told: AtomicBool::new(false),
        })
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

    /// A new connection on which exchange, queue and binding exist. Automatic recovery stays off: it would consume
    /// again from where the consumer once began.
    async fn connect(&self) -> Result<Connection, Trouble> {
        let everything = async {
            let connection = self.dial().await?;
            declare::declare(self, &connection).await?;
            Ok(connection)
        };
        match timeout(CONNECT_TIMEOUT, everything).await {
            Ok(connected) => connected,
            Err(_) => Err(Trouble::Lost(format!("RabbitMQ at {} does not answer", self.address))),
        }
    }

    /// A new connection, and nothing else.
    async fn dial(&self) -> Result<Connection, Trouble> {
        let connecting = async {
            let runtime = lapin::runtime::default_runtime()?;
            let properties = ConnectionProperties::default().with_connection_name("taskcast".into());
            Connection::connect_uri_with_config(self.uri.clone(), properties, self.tls.clone(), runtime).await
        };
        connecting.await.map_err(|error| self.trouble(&error))
    }

    /// What an error means for the operator. RabbitMQ never repeats a password in its errors.
    fn trouble(&self, error: &lapin::Error) -> Trouble {
        let address = &self.address;
        let ErrorKind::ProtocolError(said) = error.kind() else {
            return Trouble::Lost(format!("RabbitMQ at {address}: {error}"));
        };
        let words = said.get_message();
        match said.get_id() {
            403 if words.as_str().contains("Login was refused") => {
                Trouble::Misfit(format!("RabbitMQ at {address} refuses the user or password in the log's URL: {words}"))
            }
            403 => Trouble::Misfit(format!(
                "RabbitMQ at {address} does not allow the user in the log's URL what the log needs: {words}"
            )),
            530 => Trouble::Misfit(format!("RabbitMQ at {address} does not let this user in: {words}")),
            405 => Trouble::Misfit(format!("RabbitMQ at {address}: something else owns that name: {words}")),
            _ => Trouble::Lost(format!("RabbitMQ at {address}: {words}")),
        }
    }
}

/// Reads the URL. No path and a bare slash both mean the vhost `/`, as most clients have it.
fn parse(url: &str) -> Result<AMQPUri, String> {
    let unusable = |why: &str| format!("the AMQP URL cannot be used: {why}");
    let parsed = url::Url::parse(url).map_err(|error| unusable(&error.to_string()))?;
    // The library's error would repeat the URL, which holds a password.
    let host = parsed.host_str().filter(|host| !host.is_empty()).ok_or_else(|| unusable("it names no host"))?;
    let mut uri: AMQPUri = url.parse().map_err(|error: String| unusable(&error))?;
    // The library reads an IPv6 address as "localhost".
    host.trim_matches(['[', ']']).clone_into(&mut uri.authority.host);
    if uri.vhost.is_empty() {
        "/".clone_into(&mut uri.vhost);
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    Ok(uri)
}

/// A reader of the stream.
pub struct AmqpTail {
    log: Arc<AmqpLog>,
    feed: Option<Feed>,
}

impl AmqpTail {
    pub(super) fn new(log: Arc<AmqpLog>) -> Self {
        Self { log, feed: None }
    }

    pub(super) async fn next(&mut self) -> TailItem {
        let log = &self.log;
        super::feed::next(&mut self.feed, &log.reporter, |out| reader::read(log.clone(), out)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_and_a_bare_slash_mean_the_default_vhost() {
        assert_eq!(parse("amqp://localhost").unwrap().vhost, "/");
        assert_eq!(parse("amqp://localhost/").unwrap().vhost, "/");
        assert_eq!(parse("amqp://localhost/%2f").unwrap().vhost, "/");
        assert_eq!(parse("amqp://localhost/jobs").unwrap().vhost, "jobs");
    }

    #[test]
    fn an_ipv6_address_is_not_taken_for_localhost() {
        assert_eq!(parse("amqp://u:p@[::1]:5673").unwrap().authority.host, "::1");
    }

    #[test]
    fn a_heartbeat_in_the_url_wins_over_the_default() {
        assert_eq!(parse("amqp://localhost").unwrap().query.heartbeat, Some(HEARTBEAT_SECONDS));
        assert_eq!(parse("amqp://localhost?heartbeat=3").unwrap().query.heartbeat, Some(3));
    }

    #[test]
    fn a_mistake_in_the_url_is_said_without_the_password() {
        for url in ["amqp:u:hunter2@x", "http://u:hunter2@x", "amqp://u:hunter2@:1", "amqp://u:hunter2@x:99999"] {
            let said = parse(url).unwrap_err();
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
