//! Where the log's Redis is, and connecting to it. Owns addresses, and what is asked of a Redis before it is trusted.
//! Refuses to know: streams.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::select_ok, stream::FuturesUnordered};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, RedisError, TlsCertificates, Value,
    aio::MultiplexedConnection,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::{TcpStream, lookup_host},
    task::JoinHandle,
    time::{interval, sleep, timeout},
};

use super::{
    sentinel::Sentinels,
    tap::{Harvest, Tap},
    words,
};
use crate::log::{
    Settings,
    health::Trouble,
    settings::{TlsFiles, TlsPaths},
};

/// An attempt to connect fails after this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Another attempt joins those under way after this long: the first packet of one that began while the network was
/// gone comes again late, or never, and whoever waits for it alone does not notice that the network is back.
const NEXT_ATTEMPT: Duration = Duration::from_secs(1);
/// How often the sentinels are asked whether the primary is still the same: what is appended to one that has been
/// replaced meanwhile is lost.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// How long somebody is listened to who may have something to say unasked, and how much of it, in bytes.
const UNASKED_TIMEOUT: Duration = Duration::from_millis(150);
const UNASKED_MAX: u64 = 1_024;

/// Whether the configuration may have this address of a single Redis.
///
/// # Errors
/// The library's words for what is wrong. Repeats nothing of the address.
pub fn check_redis_address(url: &str) -> Result<(), String> {
    let words = |error: RedisError| error.to_string().split(" - ").next().unwrap_or_default().to_owned();
    Client::open(url).map(|_| ()).map_err(words)
}

/// One Redis.
pub(super) struct Node {
    client: Client,
    /// With files whose content the client has to be made of, and the URL that it is made for.
    tls: Option<(String, TlsPaths)>,
    /// For people: no credentials.
    pub(super) address: String,
}

impl Node {
    /// # Errors
    /// An address, or files for TLS, that cannot be used, without the credentials.
    pub(super) fn open(url: &str, tls: &TlsPaths) -> Result<Self, String> {
        // The library's words name the mistake and never repeat the URL.
        let client = Client::open(url).map_err(|error| format!("the Redis URL cannot be used: {error}"))?;
        let address = match client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => format!("{host}:{port}"),
            ConnectionAddr::Unix(path) => path.display().to_string(),
            _ => "its address".to_owned(),
        };
        let has_files = url.starts_with("rediss:") && !tls.is_empty();
        let node = Self { client, tls: has_files.then(|| (url.to_owned(), tls.clone())), address };
        node.client().map_err(|error| error.to_string())?;
        Ok(node)
    }

    /// With the certificates that are in the files now.
    fn client(&self) -> io::Result<Client> {
        let Some((url, paths)) = &self.tls else { return Ok(self.client.clone()) };
        let TlsFiles { authorities, client } = paths.read().map_err(io::Error::other)?;
        let client_tls = client.map(|pem| ClientTlsConfig { client_cert: pem.certificate, client_key: pem.key });
        let certificates = TlsCertificates { client_tls, root_cert: authorities.map(String::into_bytes) };
        Client::build_with_tls(url.as_str(), certificates).map_err(io::Error::other)
    }

    pub(super) async fn connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        self.client()?.get_multiplexed_async_connection_with_config(&configuration()).await
    }

    /// A connection for XREAD. Over TLS and to sockets the library reads all answers: it alone knows how to connect there.
    async fn connect_to_read(&self) -> redis::RedisResult<(MultiplexedConnection, Option<Tapped>)> {
        let info = self.client.get_connection_info();
        let ConnectionAddr::Tcp(host, port) = info.addr() else { return Ok((self.connect().await?, None)) };
        let stream = connect_any(lookup_host((host.as_str(), *port)).await?).await?;
        stream.set_nodelay(true)?;
        let harvest = Arc::<Harvest>::default();
        let tap = Tap::new(stream, harvest.clone());
        let connecting = MultiplexedConnection::new_with_config(info.redis_settings(), tap, configuration());
        let (connection, driver) = connecting.await?;
        Ok((connection, Some(Tapped { harvest, driver: tokio::spawn(driver) })))
    }

    /// Why a connection broke at its beginning, if Redis says it. One that turns everybody away says why before it is asked
    /// anything, and closes: whoever is just asking meets the end instead of the words.
    async fn turned_away(&self, error: &RedisError) -> Option<Trouble> {
        if !error.is_io_error() || error.is_connection_refusal() {
            return None;
        }
        let ConnectionAddr::Tcp(host, port) = self.client.get_connection_info().addr() else { return None };
        let listening = async {
            let stream = connect_any(lookup_host((host.as_str(), *port)).await?).await?;
            let mut words = String::new();
            BufReader::new(stream.take(UNASKED_MAX)).read_line(&mut words).await?;
            io::Result::Ok(words)
        };
        let words = timeout(UNASKED_TIMEOUT, listening).await.ok()?.ok()?;
        words::turned_away(&self.address, &words)
    }
}

/// Whoever answers first: an address that swallows packets must not take the time of those that work.
async fn connect_any(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let attempts: Vec<_> = addresses.map(|address| Box::pin(TcpStream::connect(address))).collect();
    if attempts.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no address belongs to its name"));
    }
    Ok(select_ok(attempts).await?.0)
}

/// The library's own response timeout is off, since it would break blocking reads; callers set theirs.
fn configuration() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(1_024)
}

/// What is a connection for?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Read,
    Other,
}

/// A connection, and where it leads.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) connection: MultiplexedConnection,
    pub(super) address: Arc<str>,
    /// Of one for [`Purpose::Read`], where that is possible.
    pub(super) tapped: Option<Arc<Tapped>>,
}

/// The stream of a connection that is read here; ends it when dropped.
pub(super) struct Tapped {
    pub(super) harvest: Arc<Harvest>,
    driver: JoinHandle<()>,
}

impl Drop for Tapped {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Where to connect.
pub(super) enum Place {
    Fixed(Node),
    Sentinels(Sentinels),
}

impl Place {
    pub(super) fn open(url: &str, settings: &Settings) -> Result<Self, String> {
        let tls = TlsPaths::of(settings);
        if let Some(address) = super::sentinel::Address::read(url) {
            let address = address.map_err(|mistake| format!("the log's URL is not {mistake}"))?;
            return Ok(Self::Sentinels(Sentinels::open(address, tls)?));
        }
        Node::open(url, &tls).map(Self::Fixed)
    }

    /// For people: no credentials.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Fixed(node) => node.address.clone(),
            Self::Sentinels(sentinels) => sentinels.described(),
        }
    }

    /// A new connection to a Redis that can hold the log.
    pub(super) async fn connect(&self, key: &str, purpose: Purpose) -> Result<Connected, Trouble> {
        let mut attempts = FuturesUnordered::new();
        let mut next = interval(NEXT_ATTEMPT);
        loop {
            tokio::select! {
                biased;
                Some(connected) = attempts.next() => return connected,
                _ = next.tick() => attempts.push(self.attempt(key, purpose)),
            }
        }
    }

    async fn attempt(&self, key: &str, purpose: Purpose) -> Result<Connected, Trouble> {
        match timeout(CONNECT_TIMEOUT, self.reach(key, purpose)).await {
            Ok(connected) => connected,
            Err(_) => Err(Trouble::Lost(format!("Redis at {} does not answer", self.address()))),
        }
    }

    async fn reach(&self, key: &str, purpose: Purpose) -> Result<Connected, Trouble> {
        let sentinels = match self {
            Self::Fixed(node) => return open(node, key, purpose).await,
            Self::Sentinels(sentinels) => sentinels,
        };
        let node = sentinels.primary().await?;
        let mut connected = open(&node, key, purpose).await?;
        let role = redis::cmd("ROLE").query_async::<Value>(&mut connected.connection).await;
        let role = role.map_err(|error| words::trouble(&node.address, key, &error))?;
        if !is_primary(&role) {
            let (address, name) = (&node.address, sentinels.name());
            return Err(Trouble::Lost(format!("Redis at {address} is not yet the primary {name} that it will be")));
        }
        // One that was away does not know yet that another has taken its place; the sentinels do.
        if sentinels.primary().await?.address != node.address {
            return Err(Trouble::Lost(format!("Redis at {} is no longer the primary", node.address)));
        }
        Ok(connected)
    }

    /// Whether a connection to this address leads where the log is, as far as is known.
    pub(super) fn is_current(&self, address: &str) -> bool {
        match self {
            Self::Fixed(_) => true,
            Self::Sentinels(sentinels) => sentinels.known().is_none_or(|known| known == address),
        }
    }

    /// Ends when the log is no longer at this address: the sentinels have made another Redis the primary.
    pub(super) async fn moved(&self, address: &str) -> Trouble {
        let Self::Sentinels(sentinels) = self else { return std::future::pending().await };
        loop {
            sleep(WATCH_EVERY).await;
            // Sentinels that are away have made nobody the primary.
            if let Ok(node) = sentinels.primary().await
                && node.address != address
            {
                return Trouble::Lost(format!(
                    "Redis at {address} is no longer the primary {}, {} is",
                    sentinels.name(),
                    node.address
                ));
            }
        }
    }
}

async fn open(node: &Node, key: &str, purpose: Purpose) -> Result<Connected, Trouble> {
    let trouble = |error: &RedisError| words::trouble(&node.address, key, error);
    let connected = match purpose {
        Purpose::Read => node.connect_to_read().await,
        Purpose::Other => node.connect().await.map(|connection| (connection, None)),
    };
    let (mut connection, tapped) = match connected {
        Ok(connected) => connected,
        Err(error) => return Err(node.turned_away(&error).await.unwrap_or_else(|| trouble(&error))),
    };
    let asked = redis::cmd("INFO").arg("cluster").query_async::<String>(&mut connection).await;
    match asked {
        Ok(info) if info.contains("cluster_enabled:1") => Err(words::cluster(&node.address)),
        Err(error) if !words::is_refusal(&error) => Err(trouble(&error)),
        // Whoever may not ask this may still read and append.
        Ok(_) | Err(_) => {
            let address = node.address.as_str().into();
            Ok(Connected { connection, address, tapped: tapped.map(Arc::new) })
        }
    }
}

fn is_primary(role: &Value) -> bool {
    let Value::Array(parts) = role else { return false };
    matches!(parts.first(), Some(Value::BulkString(name)) if name == b"master")
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// A listener whose queue is full: who comes now hears nothing.
    async fn silent() -> (TcpListener, Vec<std::net::TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) =
            timeout(Duration::from_millis(200), TcpStream::connect(listener.local_addr().unwrap())).await
        {
            waiting.push(stream.into_std().unwrap());
        }
        (listener, waiting)
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_holds_up_none_that_does() {
        let (silent, _waiting) = silent().await;
        let works = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = "127.0.0.1:1".parse().unwrap();
        let addresses = [silent.local_addr().unwrap(), nobody, works.local_addr().unwrap()];
        let connected = timeout(CONNECT_TIMEOUT / 2, connect_any(addresses.into_iter())).await;
        let stream = connected.expect("the one that works is not waited for").unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addresses[2]);
    }

    #[tokio::test]
    async fn a_name_without_addresses_is_told_in_words() {
        let error = connect_any(std::iter::empty()).await.unwrap_err();
        assert!(error.to_string().contains("no address"), "{error}");
        let refused = connect_any(["127.0.0.1:1".parse().unwrap()].into_iter()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
