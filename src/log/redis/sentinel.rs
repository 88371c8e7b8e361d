//! Asking Redis Sentinels where the primary is: `redis+sentinel://[user:password@]host:port,host:port/name[/database]`.
//! Owns that form of address, and whose word counts when the sentinels disagree. Refuses to know: streams.
//!
//! Every failover has a number of its own, which grows (the configuration epoch). A sentinel that was away tells the
//! primary of before with a lower one, so the highest among the answers is the truth, if a majority answers.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{Value, aio::MultiplexedConnection};
use tokio::time::timeout;

use super::{place::Node, words};
use crate::log::{health::Trouble, settings::TlsPaths};

/// How long a sentinel may take to answer. One that is away must not hold up the others for long.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the others are waited for once a majority has answered: one of them may know of a later failover.
const LAST_TIMEOUT: Duration = Duration::from_millis(100);
const PORT: u16 = 26_379;
/// Nobody runs as many; an address that names more has another mistake.
const SENTINELS_MAX: usize = 64;

/// Such an address, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// `redis` or `rediss`.
    scheme: &'static str,
    /// As in the address, percent-encoded, with the `@`; or empty.
    credentials: String,
    /// `host:port`, as in the address.
    sentinels: Vec<String>,
    name: String,
    database: u32,
}

impl Address {
    /// `None` when it is not one that begins as these do.
    ///
    /// # Errors
    /// What was expected instead. Repeats nothing of the address.
    pub(super) fn read(text: &str) -> Option<Result<Self, String>> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = match scheme {
            "redis+sentinel" => "redis",
            "rediss+sentinel" => "rediss",
            _ => return None,
        };
        Some(Self::take_apart(scheme, rest).map_err(|why| {
            format!("an address {scheme}+sentinel://host:port,host:port/name-of-the-primary, which may end in /database; {why}")
        }))
    }

    fn take_apart(scheme: &'static str, rest: &str) -> Result<Self, &'static str> {
        if rest.contains(['?', '#']) {
            return Err("it has no options; `? # @ : /` and `%` in a password are written %3F %23 %40 %3A %2F %25");
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
            None => (String::new(), authority),
        };
        if path.contains('@') || credentials.matches(['@', ',']).count() > 1 {
            return Err("`@ : / , ? #` and `%` in a password are written %40 %3A %2F %2C %3F %23 %25");
        }
        let sentinels: Result<Vec<String>, &'static str> = hosts.split(',').map(host_and_port).collect();
        let sentinels = sentinels?;
        if sentinels.len() > SENTINELS_MAX {
            return Err("64 sentinels are the most");
        }
        let (name, database) = path.split_once('/').unwrap_or((path, ""));
        if name.is_empty() {
            return Err(
                "the name of the primary is missing: the one in the sentinels' line `sentinel monitor <name> …`",
            );
        }
        let name = percent_encoding::percent_decode_str(name).decode_utf8().map_err(|_| "the name is not UTF-8")?;
        let database = if database.is_empty() { Ok(0) } else { database.parse::<u32>() };
        let database = database.map_err(|_| "after the name comes the number of a database, or nothing")?;
        let address = Self { scheme, credentials, sentinels, name: name.into_owned(), database };
        // What only the library can tell, such as a percent sign that encodes nothing.
        let urls = address.sentinels.iter().map(|host| address.url(host, true));
        if urls.chain([address.url("localhost:1", true)]).any(|url| redis::Client::open(url).is_err()) {
            return Err("a host, user or password in it cannot be read");
        }
        Ok(address)
    }

    fn url(&self, host: &str, with_credentials: bool) -> String {
        let credentials = if with_credentials { self.credentials.as_str() } else { "" };
        format!("{}://{credentials}{host}", self.scheme)
    }
}

fn host_and_port(text: &str) -> Result<String, &'static str> {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of a bare IPv6 address in brackets.
        Some((_, port)) if port.ends_with(']') => (text, PORT),
        Some((host, port)) => {
            (host, port.parse().ok().filter(|port| *port > 0).ok_or("a port is a number from 1 to 65535")?)
        }
        None => (text, PORT),
    };
    let is_bare_ipv6 = host.contains(':') && !host.starts_with('[');
    if host.is_empty() || is_bare_ipv6 || host.contains(char::is_whitespace) {
        return Err("each sentinel is a host and a port, with commas and no spaces between them, IPv6 in brackets");
    }
    Ok(format!("{host}:{port}"))
}

/// Whether the configuration may have this address. `None` when it is not one of a sentinel's.
#[must_use]
pub fn check_sentinel_address(text: &str) -> Option<Result<(), String>> {
    Address::read(text).map(|read| read.map(|_| ()))
}

/// An address without user and password, or nothing of it when it cannot be read. `None` when it is not one of a
/// sentinel's.
#[must_use]
pub fn shown_sentinel_address(text: &str) -> Option<String> {
    let (scheme, _) = text.split_once("://")?;
    let Ok(address) = Address::read(text)? else { return Some(format!("{scheme}://(hidden)")) };
    let credentials = if address.credentials.is_empty() { "" } else { "(hidden)@" };
    let Address { sentinels, name, database, .. } = &address;
    Some(format!("{scheme}://{credentials}{}/{name}/{database}", sentinels.join(",")))
}

/// One sentinel, and the connection to it that is kept.
struct Sentinel {
    /// Sentinels often have no password while the primary does; the second one is for those that share it.
    nodes: [Node; 2],
    connection: tokio::sync::Mutex<Option<MultiplexedConnection>>,
}

/// What a sentinel says of the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    epoch: u64,
    host: String,
    port: u16,
}

pub(super) struct Sentinels {
    address: Address,
    tls: TlsPaths,
    members: Vec<Sentinel>,
    /// Where the primary is, as a majority last said.
    known: Mutex<Option<String>>,
}

impl Sentinels {
    pub(super) fn open(address: Address, tls: TlsPaths) -> Result<Self, String> {
        let open = |host: &String| {
            let node = |with_credentials| Node::open(&address.url(host, with_credentials), &tls);
            Ok(Sentinel { nodes: [node(false)?, node(true)?], connection: tokio::sync::Mutex::default() })
        };
        let members = address.sentinels.iter().map(open).collect::<Result<Vec<Sentinel>, String>>()?;
        Ok(Self { address, tls, members, known: Mutex::default() })
    }

    pub(super) fn name(&self) -> &str {
        &self.address.name
    }

    pub(super) fn known(&self) -> Option<String> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For people: no credentials.
    pub(super) fn described(&self) -> String {
        match self.known() {
            Some(known) => format!("{known} (primary {})", self.address.name),
            None => format!("{} (sentinels of {})", self.address.sentinels.join(", "), self.address.name),
        }
    }

    /// Where the primary is now.
    ///
    /// # Errors
    /// Too few sentinels that answer, or that know it.
    pub(super) async fn primary(&self) -> Result<Node, Trouble> {
        let majority = self.members.len() / 2 + 1;
        let mut asked: FuturesUnordered<_> =
            self.members.iter().map(|sentinel| sentinel.ask(&self.address.name)).collect();
        let mut answers: Vec<Answer> = Vec::new();
        let mut trouble = None;
        loop {
            let limit = if answers.len() < majority { ANSWER_TIMEOUT * 2 } else { LAST_TIMEOUT };
            match timeout(limit, asked.next()).await {
                Ok(Some(Ok(answer))) => answers.push(answer),
                Ok(Some(Err(Trouble::Lost(_)))) if trouble.is_some() => {}
                Ok(Some(Err(found))) => trouble = Some(found),
                Ok(None) | Err(_) => break,
            }
        }
        let Some(newest) = answers.iter().max_by_key(|answer| answer.epoch).filter(|_| answers.len() >= majority)
        else {
            let words = trouble.as_ref().map_or("", Trouble::words);
            let (count, of) = (answers.len(), self.members.len());
            let words = format!("only {count} of {of} sentinels tell where the primary is: {words}");
            return Err(match trouble {
                Some(Trouble::Misfit(_)) => Trouble::Misfit(words),
                _ => Trouble::Lost(words),
            });
        };
        let bracketed = newest.host.contains(':').then(|| format!("[{}]", newest.host));
        let host = format!("{}:{}", bracketed.as_ref().unwrap_or(&newest.host), newest.port);
        let url = format!("{}/{}", self.address.url(&host, true), self.address.database);
        let node = Node::open(&url, &self.tls);
        let node = node.map_err(|error| Trouble::Misfit(format!("the sentinels name {host}, but: {error}")))?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(node.address.clone());
        Ok(node)
    }
}

impl Sentinel {
    async fn ask(&self, name: &str) -> Result<Answer, Trouble> {
        let mut held = self.connection.lock().await;
        let answered = timeout(ANSWER_TIMEOUT, self.answer(&mut held, name)).await;
        let address = &self.nodes[0].address;
        match answered {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(trouble)) => {
                *held = None;
                Err(trouble)
            }
            Err(_) => {
                *held = None;
                Err(Trouble::Lost(format!("the sentinel at {address} does not answer")))
            }
        }
    }

    async fn answer(&self, held: &mut Option<MultiplexedConnection>, name: &str) -> Result<Answer, Trouble> {
        let address = &self.nodes[0].address;
        let mut refused = None;
        for node in &self.nodes {
            let connection = match held.as_mut() {
                Some(connection) => Ok(connection),
                None => node.connect().await.map(|connection| held.insert(connection)),
            };
            let asked = match connection {
                Ok(connection) => redis::cmd("SENTINEL").arg("MASTER").arg(name).query_async::<Value>(connection).await,
                Err(error) => Err(error),
            };
            match asked {
                Ok(reply) => {
                    let unreadable = || Trouble::Misfit(format!("{address} answers in a way that a sentinel does not"));
                    return read(&reply).ok_or_else(unreadable);
                }
                Err(error) if matches!(words::code(&error), "NOAUTH" | "NOPERM") => {
                    *held = None;
                    refused = Some(error);
                }
                Err(error) if error.to_string().contains("No such master") => {
                    return Err(Trouble::Misfit(format!(
                        "the sentinel at {address} knows no primary named {name}; its `sentinel monitor` line has the name"
                    )));
                }
                Err(error) if words::is_refusal(&error) => {
                    let words = format!("{address} is not a sentinel, or does not serve: {error}");
                    return Err(Trouble::Misfit(words));
                }
                Err(error) => return Err(Trouble::Lost(format!("the sentinel at {address}: {error}"))),
            }
        }
        let error = refused.map_or_else(String::new, |error| error.to_string());
        Err(Trouble::Misfit(format!(
            "the sentinel at {address} refuses the user or password in the log's URL: {error}"
        )))
    }
}

/// The reply of SENTINEL MASTER: names and values in turns.
fn read(reply: &Value) -> Option<Answer> {
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok().map(str::to_owned),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    };
    let pairs: Vec<(Option<String>, Option<String>)> = match reply {
        Value::Array(parts) => parts.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
        Value::Map(pairs) => pairs.iter().map(|(name, value)| (text(name), text(value))).collect(),
        _ => return None,
    };
    let field = |wanted: &str| pairs.iter().find(|(name, _)| name.as_deref() == Some(wanted))?.1.clone();
    let epoch = field("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    Some(Answer { epoch, host: field("ip")?, port: field("port")?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_sentinels_is_taken_apart() {
        let read = |text| Address::read(text).unwrap().unwrap();
        let full = read("rediss+sentinel://u:p%40ss@one:1,[::1]:2,three/my%20primary/7");
        assert_eq!((full.scheme, full.name.as_str(), full.database), ("rediss", "my primary", 7));
        assert_eq!(full.sentinels, ["one:1", "[::1]:2", "three:26379"]);
        assert_eq!(full.url("h:1", true), "rediss://u:p%40ss@h:1");
        assert_eq!(read("redis+sentinel://one/m").sentinels, ["one:26379"]);
        assert!(Address::read("redis://one/0").is_none());
    }

    #[test]
    fn a_mistake_in_an_address_of_sentinels_is_named_without_the_password() {
        for (text, named) in [
            ("redis+sentinel://u:hunter2@", "a host and a port"),
            ("redis+sentinel://u:hunter2@one:1", "name of the primary is missing"),
            ("redis+sentinel://u:hunter2@one:1/", "name of the primary is missing"),
            ("redis+sentinel://u:hunter2@one:0/m", "a port is a number"),
            ("redis+sentinel://u:hunter2@one:1,/m", "a host and a port"),
            ("redis+sentinel://u:hunter2@one:1, two:2/m", "no spaces"),
            ("redis+sentinel://u:hunter2@::1/m", "IPv6 in brackets"),
            ("redis+sentinel://u:hunter2@one:1/m/zero", "number of a database"),
            ("redis+sentinel://u:hunter2@one:1/m/0/1", "number of a database"),
            ("redis+sentinel://u:hun@ter2@one:1/m", "in a password are written"),
            ("redis+sentinel://u:hun/hunter2@one:1/m", "in a password are written"),
            ("redis+sentinel://one:1/m?password=hunter2", "no options"),
        ] {
            let said = Address::read(text).unwrap().err().unwrap_or_else(|| panic!("{text} must be refused"));
            assert!(said.contains(named), "{text}: {said}");
            assert!(!said.contains("hunter2") && !said.contains("ter2"), "{said}");
            assert!(!shown_sentinel_address(text).unwrap().contains("ter2"), "{text}");
        }
    }

    #[test]
    fn a_shown_address_keeps_the_hosts_and_hides_the_credentials() {
        let shown = shown_sentinel_address("redis+sentinel://u:hunter2@one:1,two:2/m").unwrap();
        assert_eq!(shown, "redis+sentinel://(hidden)@one:1,two:2/m/0");
    }

    #[test]
    fn the_reply_of_a_sentinel_is_read() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let parts = ["name", "m", "ip", "10.0.0.1", "port", "6379", "config-epoch", "3"];
        let reply = Value::Array(parts.iter().map(|part| text(part)).collect());
        assert_eq!(read(&reply), Some(Answer { epoch: 3, host: "10.0.0.1".to_owned(), port: 6379 }));
        assert_eq!(read(&Value::Nil), None);
    }
}
