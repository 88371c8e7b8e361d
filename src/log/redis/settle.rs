//! What became of an append that was sent and never confirmed. Owns the one way to find out for sure: the server ends
//! the connection that it was sent on, so that nothing more of it can be executed, and then the stream is looked
//! through for it. Refuses to know: when to give up.
//!
//! Example: an XADD is sent, and the connection breaks before the answer. Sending it again might append it twice,
//! failing might tell a worker that an event is lost which all can see. On another connection: `CLIENT KILL` of the one
//! before, then `XRANGE` from the moment of sending on. It is there: that was its answer. It is not: it is sent again.

use std::collections::VecDeque;

use redis::{RedisResult, aio::MultiplexedConnection};

use super::{RedisLog, append::Link, wire, words};
use crate::{
    log::{Outgoing, Record},
    proto::Position,
};

/// Entries per read while looking through the stream.
const PAGE: usize = 1_000;

/// What the server calls a connection. The address tells it from one that has the same number after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    id: u64,
    address: String,
}

impl Client {
    /// `None` when the user may not ask, or the server is older than 6.2.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) async fn ask(connection: &mut MultiplexedConnection) -> RedisResult<Option<Self>> {
        match redis::cmd("CLIENT").arg("INFO").query_async::<String>(connection).await {
            Ok(told) => Ok(Self::read(&told)),
            Err(error) if words::is_refusal(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `id=3 addr=127.0.0.1:60188 laddr=…`
    fn read(told: &str) -> Option<Self> {
        let field = |wanted: &str| told.split_whitespace().find_map(|field| field.strip_prefix(wanted));
        Some(Self { id: field("id=")?.parse().ok()?, address: field("addr=")?.to_owned() })
    }
}

/// Events that were sent and not confirmed.
#[derive(Clone, Debug)]
pub(super) struct Doubt {
    /// On this connection; `None`: nobody can tell.
    pub(super) client: Option<Client>,
    /// They have later positions than this, if they have any.
    pub(super) after: Position,
}

/// Where the events are in the log; `None`: they are not, and never will be unless they are sent again.
///
/// # Errors
/// It could not be found out.
pub(super) async fn settle(
    log: &RedisLog,
    link: &mut Link,
    doubt: &Doubt,
    events: &[Outgoing],
) -> RedisResult<Option<Vec<Option<Position>>>> {
    let connection = &mut link.to.connection;
    if let Some(client) = &doubt.client {
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("ID").arg(client.id).arg("ADDR").arg(&client.address);
        kill.query_async::<u64>(connection).await?;
    }
    let mut after = doubt.after;
    // They went in together, so they stand together.
    let mut latest: VecDeque<Record> = VecDeque::with_capacity(events.len());
    loop {
        let mut range = redis::cmd("XRANGE");
        range.arg(&log.settings.key).arg(format!("({after}")).arg("+").arg("COUNT").arg(PAGE);
        let records = wire::entries(range.query_async(connection).await?).unwrap_or_default();
        let is_full = records.len() == PAGE;
        for record in records {
            after = record.position;
            if latest.len() == events.len() {
                latest.pop_front();
            }
            latest.push_back(record);
            let mut pairs = latest.iter().zip(events);
            if latest.len() == events.len() && pairs.all(|(record, event)| record.payload == event.payload) {
                return Ok(Some(latest.iter().map(|record| Some(record.position)).collect()));
            }
        }
        if !is_full {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_s_words_for_a_connection_are_read() {
        let told = "id=12 addr=127.0.0.1:60188 laddr=127.0.0.1:6379 fd=8 name= db=0\n";
        assert_eq!(Client::read(told), Some(Client { id: 12, address: "127.0.0.1:60188".to_owned() }));
        assert_eq!(Client::read("nonsense"), None);
    }
}
