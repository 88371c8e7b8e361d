//! The log in a RabbitMQ stream queue, over AMQP 0.9.1: workers publish to a durable topic exchange, the queue bound to
//! it keeps what they published, and every replica consumes all of it. Owns the connections and the words for what can
//! be wrong with them. Refuses to know: tasks.
//!
//! A position's `major` is the stream's offset plus 1, since offsets start at 0 and [`Position::START`] must stand
//! before all of them; its `minor` is 0.

mod address;
mod append;
mod checkpoint;
mod dead_letters;
mod declare;
mod end;
mod link;
mod pulse;
mod reader;
mod verdict;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapin::types::ShortString;
use tokio::{
    sync::{Mutex, watch},
    time::{sleep, timeout},
};

pub use self::address::addresses;
pub(super) use self::checkpoint::CheckpointStore;
use self::{address::Node, append::Appender, link::Link};
use super::{
    AppendError, Bookmark, Health, Outgoing, Settings, TailItem,
    feed::{self, Feed},
    health::{Reporter, Trouble},
    settings::TlsPaths,
};
use crate::{clock, metrics::Metrics, proto::Position};

/// When an event was appended, in milliseconds. The name is RabbitMQ's own, for brokers that stamp what they receive;
/// AMQP's `timestamp` property has whole seconds only.
const TIMESTAMP_HEADER: &str = "timestamp_in_ms";
/// How long a node may take until everything is there that the log needs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A node that takes longer than this may be slow, and may be dead: another attempt is made beside the first.
const CONNECT_SLOW: Duration = Duration::from_secs(1);
/// Between two attempts beside one that hangs, when they fail at once.
const CONNECT_PAUSE: Duration = Duration::from_millis(250);
/// How long one connection waits for another to have declared; that one may hang.
const DECLARE_TURN: Duration = Duration::from_millis(500);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Everything that the log needs is made first.
    Log,
    Other,
}

/// The log itself. Appends share one connection; each tail has its own, so that a broker that holds up whoever publishes
/// does not hold up whoever reads.
pub struct AmqpLog {
    /// Not empty.
    nodes: Vec<Node>,
    /// Which node is tried next.
    next_node: AtomicUsize,
    tls: TlsPaths,
    queue: ShortString,
    exchange: ShortString,
    settings: Settings,
    reporter: Arc<Reporter>,
    appender: Appender,
    declaring: Mutex<()>,
    /// Whether the dead letters' queue was found to be a stream.
    dead_letters_declared: AtomicBool,
    /// Whether it was said that the queue has another retention than configured; once is enough.
    retention_told: AtomicBool,
}

impl AmqpLog {
    pub(super) fn open(url: &str, settings: Settings, metrics: Arc<Metrics>) -> Result<Self, String> {
        let nodes = address::nodes(url)?;
        let tls = TlsPaths::of(&settings);
        tls.read()?;
        let name = |what: &str, name: &str| match ShortString::try_new(name) {
            Ok(short) if !name.is_empty() => Ok(short),
            _ => Err(format!("the name of the {what} must have 1 to 255 bytes")),
        };
        let queue = name("queue", &settings.key)?;
        if settings.dead_letters_max > 0 {
            dead_letters::names(&settings.key)?;
        }
        Ok(Self {
            tls,
            queue,
            exchange: name("exchange", &settings.exchange)?,
            // Anywhere, so that replicas do not all begin with the first node.
            next_node: AtomicUsize::new(clock::unique_id().as_u128() as usize % nodes.len()),
            nodes,
            settings,
            reporter: Arc::new(Reporter::new(metrics)),
            appender: Appender::default(),
            declaring: Mutex::new(()),
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

    pub(super) fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    pub(super) fn reconnect_max(&self) -> Duration {
        self.settings.reconnect_max
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.reporter.watch()
    }

    /// A new connection on which exchange, queue and binding exist.
    async fn connect(&self) -> Result<Link, Trouble> {
        self.whichever(Purpose::Log).await
    }

    /// A new connection, and nothing else.
    async fn dial(&self) -> Result<Link, Trouble> {
        self.whichever(Purpose::Other).await
    }

    /// A connection to whichever node answers first.
    ///
    /// Two ways at once: a patient one for a broker that is slow, and beside it, once that takes long, short attempts one
    /// after the other. A node that hung when the patient one began does not hide that it, or another, is back.
    async fn whichever(&self, purpose: Purpose) -> Result<Link, Trouble> {
        let beside = async {
            sleep(CONNECT_SLOW).await;
            loop {
                match timeout(CONNECT_SLOW, self.attempt(purpose)).await {
                    Ok(Ok(link)) => return link,
                    // The patient one will say it.
                    Ok(Err(_)) => sleep(CONNECT_PAUSE).await,
                    Err(_) => {}
                }
            }
        };
        tokio::select! {
            connected = self.connect_patiently(purpose) => connected,
            link = beside => Ok(link),
        }
    }

    /// Each node once.
    async fn connect_patiently(&self, purpose: Purpose) -> Result<Link, Trouble> {
        let mut said = Vec::new();
        let mut is_misfit = false;
        for _ in 0..self.nodes.len() {
            match timeout(CONNECT_TIMEOUT, self.attempt(purpose)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(trouble)) => {
                    is_misfit |= matches!(trouble, Trouble::Misfit(_));
                    said.push(trouble.words().to_owned());
                }
                Err(_) => said.push("RabbitMQ does not answer".to_owned()),
            }
        }
        let said = said.join("; ");
        Err(if is_misfit { Trouble::Misfit(said) } else { Trouble::Lost(said) })
    }

    async fn attempt(&self, purpose: Purpose) -> Result<Link, Trouble> {
        let turn = self.next_node.fetch_add(1, Ordering::Relaxed);
        let link = Link::open(&self.nodes[turn % self.nodes.len()], &self.tls).await?;
        if purpose == Purpose::Log {
            // A stream queue can be seen before it takes events: whoever connects beside the one that makes it waits.
            let _first = timeout(DECLARE_TURN, self.declaring.lock()).await;
            declare::declare(self, &link).await?;
        }
        Ok(link)
    }
}

/// A reader of the stream.
pub struct AmqpTail {
    log: Arc<AmqpLog>,
    feed: Option<Feed>,
    /// For the first reader; one that is started anew begins at the start.
    begin: Option<Bookmark>,
}

impl AmqpTail {
    pub(super) fn new(log: Arc<AmqpLog>, begin: Option<Bookmark>) -> Self {
        Self { log, feed: None, begin }
    }

    pub(super) fn bookmark(&self) -> Option<Bookmark> {
        feed::bookmark(self.feed.as_ref())
    }

    pub(super) async fn next(&mut self) -> TailItem {
        let (log, begin) = (&self.log, &mut self.begin);
        feed::next(&mut self.feed, &log.reporter, |out| reader::read(log.clone(), out, begin.take())).await
    }
}
