//! Appending to the stream. Owns the connection that all appends share, and the rule that nothing is sent twice.

use std::time::{Duration, Instant};

use redis::{Cmd, Value, aio::MultiplexedConnection};
use tokio::{sync::Mutex, time::timeout};

use super::{RedisLog, wire};
use crate::{
    clock,
    log::{AppendError, Outgoing, backoff::Backoff, health::Trouble},
    proto::Position,
};

/// A connection that confirmed nothing for so long is asked whether it still lives before an event is trusted to it: an
/// event that was sent is never sent again, since nobody could tell whether the first one arrived.
const RESTED: Duration = Duration::from_millis(1);
/// How long it may take to say that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct Appender(Mutex<Option<Link>>);

struct Link {
    connection: MultiplexedConnection,
    confirmed: Instant,
}

impl Appender {
    pub(super) async fn append(
        &self,
        log: &RedisLog,
        events: &[Outgoing],
    ) -> Result<Vec<Option<Position>>, AppendError> {
        // What the last attempt to connect failed of, for when time runs out.
        let mut why = None;
        let Ok(done) = timeout(log.settings.append_timeout, self.send(log, events, &mut why)).await else {
            // Whoever comes next starts with a fresh connection; what others wait for on this one is theirs.
            if let Ok(mut link) = self.0.try_lock() {
                *link = None;
            }
            let why = why.map_or_else(
                || format!("Redis at {} did not confirm", log.address),
                |why: Trouble| why.words().to_owned(),
            );
            let limit_ms = log.settings.append_timeout.as_millis();
            return Err(AppendError::nothing(format!("{why} (waited {limit_ms} ms)")));
        };
        done
    }

    async fn send(
        &self,
        log: &RedisLog,
        events: &[Outgoing],
        why: &mut Option<Trouble>,
    ) -> Result<Vec<Option<Position>>, AppendError> {
        let mut connection = self.connection(log, why).await?;
        let sent = match events {
            [event] => xadd(log, event).query_async::<Value>(&mut connection).await.map(|id| vec![id]),
            events => {
                let mut batch = redis::pipe();
                batch.atomic();
                for event in events {
                    batch.add_command(xadd(log, event));
                }
                batch.query_async::<Vec<Value>>(&mut connection).await
            }
        };
        let ids = match sent {
            Ok(ids) => ids,
            Err(error) => {
                if error.is_unrecoverable_error() || error.code() == Some("READONLY") {
                    *self.0.lock().await = None;
                }
                return Err(AppendError::nothing(log.trouble(&error).words()));
            }
        };
        if let Ok(mut link) = self.0.try_lock()
            && let Some(link) = link.as_mut()
        {
            link.confirmed = clock::now().instant;
        }
        Ok(ids.iter().map(wire::position).collect())
    }

    async fn connection(
        &self,
        log: &RedisLog,
        why: &mut Option<Trouble>,
    ) -> Result<MultiplexedConnection, AppendError> {
        let mut link = self.0.lock().await;
        let now = clock::now().instant;
        if let Some(link) = link.as_mut() {
            let ping = redis::cmd("PING");
            // Whoever waited for the lock behind a PING has its answer already.
            let lives = now.saturating_duration_since(link.confirmed) < RESTED
                || timeout(SIGN_OF_LIFE, ping.query_async::<Value>(&mut link.connection))
                    .await
                    .is_ok_and(|pong| pong.is_ok());
            if lives {
                link.confirmed = clock::now().instant.max(link.confirmed);
                return Ok(link.connection.clone());
            }
        }
        let mut backoff = Backoff::new(log.settings.reconnect_max);
        loop {
            match log.connect().await {
                Ok(connection) => {
                    *link = Some(Link { connection: connection.clone(), confirmed: now });
                    return Ok(connection);
                }
                Err(Trouble::Misfit(words)) => return Err(AppendError::nothing(words)),
                Err(lost) => *why = Some(lost),
            }
            backoff.wait().await;
        }
    }
}

fn xadd(log: &RedisLog, event: &Outgoing) -> Cmd {
    let mut command = redis::cmd("XADD");
    command.arg(&log.settings.key).arg("MAXLEN").arg("~").arg(log.settings.max_events);
    command.arg("*").arg(wire::EVENT).arg(event.payload.as_ref());
    command
}
