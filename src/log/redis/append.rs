//! Appending to the stream. Owns the connection that all appends share, and the rule that nothing is appended twice:
//! an event that was sent and not confirmed is settled first, see [`super::settle`].

use std::time::{Duration, Instant};

use redis::{Cmd, Value, aio::MultiplexedConnection};
use tokio::{sync::Mutex, time::timeout};

use super::{
    RedisLog,
    place::Connected,
    settle::{Client, Doubt, settle},
    wire, words,
};
use crate::{
    clock,
    log::{AppendError, Outgoing, backoff::Backoff, health::Trouble},
    proto::Position,
};

/// A connection that confirmed nothing for so long is asked whether it still lives before an event is trusted to it:
/// to settle what became of an event costs more than to ask.
const RESTED: Duration = Duration::from_millis(1);
/// How long it may take to say that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);
/// An event that is not confirmed for so long is taken to another connection, if that can be had.
const SILENCE: Duration = Duration::from_millis(1_500);
/// The longest wait until a Redis that refused in passing (loading, demoted) is asked again.
const RETRY_MAX: Duration = Duration::from_millis(250);

#[derive(Default)]
pub(super) struct Appender(Mutex<Option<Link>>);

#[derive(Clone)]
pub(super) struct Link {
    pub(super) to: Connected,
    /// What the server calls this connection; `None` when the user may not ask.
    client: Option<Client>,
    confirmed: Instant,
    /// Whatever is sent now gets a position after this.
    newest: Position,
}

/// How far an append has come, for when time runs out.
#[derive(Default)]
struct Progress {
    /// What the last attempt failed of.
    why: Option<Trouble>,
    /// Sent, and not known to be in the log or out of it.
    doubt: Option<Doubt>,
}

impl Appender {
    pub(super) async fn append(
        &self,
        log: &RedisLog,
        events: &[Outgoing],
    ) -> Result<Vec<Option<Position>>, AppendError> {
        let mut progress = Progress::default();
        let limit = log.settings.append_timeout;
        let detail = match timeout(limit, self.send(log, events, &mut progress)).await {
            Ok(Ok(positions)) => return Ok(positions),
            Ok(Err(trouble)) => trouble.words().to_owned(),
            Err(_) => {
                let why = progress.why.take().map(|why| why.words().to_owned());
                let why = why.unwrap_or_else(|| format!("Redis at {} did not confirm", log.place.address()));
                format!("{why} (waited {} ms)", limit.as_millis())
            }
        };
        let doubt = if progress.doubt.is_some() { "; the event may be in the log all the same" } else { "" };
        Err(AppendError::nothing(format!("{detail}{doubt}")))
    }

    async fn send(
        &self,
        log: &RedisLog,
        events: &[Outgoing],
        progress: &mut Progress,
    ) -> Result<Vec<Option<Position>>, Trouble> {
        let mut backoff = Backoff::new(log.settings.reconnect_max.min(RETRY_MAX));
        loop {
            let mut link = self.link(log, progress).await?;
            if let Some(doubt) = &progress.doubt {
                match settle(log, &mut link, doubt, events).await {
                    Ok(Some(positions)) if self.is_replicated(log, &mut link, progress).await? => return Ok(positions),
                    Ok(Some(_)) => continue,
                    Ok(None) => progress.doubt = None,
                    Err(error) if words::is_refusal(&error) && !words::passes(&error) => {
                        return Err(log.trouble(&error));
                    }
                    Err(error) => {
                        progress.why = Some(log.trouble(&error));
                        self.leave(&link);
                        backoff.wait().await;
                        continue;
                    }
                }
            }
            let doubt = Doubt { client: link.client.clone(), after: link.newest };
            // Whoever gives up from here on gives up on something that was sent.
            progress.doubt = Some(doubt.clone());
            let patience = if doubt.client.is_some() { SILENCE } else { log.settings.append_timeout };
            let sent = timeout(patience, transmit(log, &mut link.to.connection, events)).await;
            let trouble = match sent {
                Ok(Ok(positions)) => {
                    self.confirmed(&link, positions.iter().flatten().max());
                    if self.is_replicated(log, &mut link, progress).await? {
                        return Ok(positions);
                    }
                    continue;
                }
                Ok(Err(error)) if words::is_refusal(&error) => {
                    progress.doubt = None;
                    if !words::passes(&error) {
                        return Err(log.trouble(&error));
                    }
                    if words::code(&error) == "READONLY" {
                        self.leave(&link);
                    }
                    progress.why = Some(log.trouble(&error));
                    backoff.wait().await;
                    continue;
                }
                Ok(Err(error)) => log.trouble(&error),
                Err(_) => Trouble::Lost(format!("Redis at {} did not confirm", log.place.address())),
            };
            self.leave(&link);
            if doubt.client.is_none() {
                return Err(trouble);
            }
            progress.why = Some(trouble);
        }
    }

    /// Waits until enough replicas have what this connection appended, or found. `false`: the connection broke.
    async fn is_replicated(&self, log: &RedisLog, link: &mut Link, progress: &mut Progress) -> Result<bool, Trouble> {
        let wanted = u64::from(log.settings.wait_replicas);
        if wanted == 0 {
            return Ok(true);
        }
        let at = format!("Redis at {} has the event, but", log.place.address());
        let words = format!("{at} fewer than log.wait_replicas = {wanted} of its replicas have it");
        progress.why = Some(Trouble::Lost(words.clone()));
        let mut wait = redis::cmd("WAIT");
        wait.arg(wanted).arg(log.settings.append_timeout.as_millis() as u64);
        match wait.query_async::<u64>(&mut link.to.connection).await {
            Ok(have) if have >= wanted => Ok(true),
            Ok(_) => Err(Trouble::Lost(words)),
            Err(error) if words::is_refusal(&error) => Err(log.trouble(&error)),
            Err(error) => {
                progress.why = Some(log.trouble(&error));
                self.leave(link);
                Ok(false)
            }
        }
    }

    async fn link(&self, log: &RedisLog, progress: &mut Progress) -> Result<Link, Trouble> {
        let mut held = self.0.lock().await;
        if let Some(link) = held.as_mut()
            && log.place.is_current(&link.to.address)
        {
            // Whoever waited for the lock behind a sign of life has its answer already.
            let is_fresh = clock::now().instant.saturating_duration_since(link.confirmed) < RESTED;
            if is_fresh || link.lives().await {
                return Ok(link.clone());
            }
        }
        *held = None;
        let mut backoff = Backoff::new(log.settings.reconnect_max);
        loop {
            match log.connect().await {
                Ok(to) => {
                    if let Some(link) = Link::over(to).await {
                        return Ok(held.insert(link).clone());
                    }
                    let words = format!("Redis at {} does not answer", log.place.address());
                    progress.why = Some(Trouble::Lost(words));
                }
                Err(misfit @ Trouble::Misfit(_)) => return Err(misfit),
                Err(lost) => progress.why = Some(lost),
            }
            backoff.wait().await;
        }
    }

    fn confirmed(&self, link: &Link, newest: Option<&Position>) {
        // Whoever holds it makes sure of the connection, or makes another one.
        let Ok(mut held) = self.0.try_lock() else { return };
        if let Some(held) = held.as_mut().filter(|held| held.is(link)) {
            held.confirmed = clock::now().instant;
            held.newest = held.newest.max(newest.copied().unwrap_or_default());
        }
    }

    /// Whoever comes next starts with another connection; those who wait on this one go on.
    fn leave(&self, link: &Link) {
        let Ok(mut held) = self.0.try_lock() else { return };
        if held.as_ref().is_some_and(|held| held.is(link)) {
            *held = None;
        }
    }
}

impl Link {
    /// `None` when the connection is of no use after all.
    async fn over(to: Connected) -> Option<Self> {
        let mut link = Self { to, client: None, confirmed: clock::now().instant, newest: Position::START };
        if !link.lives().await {
            return None;
        }
        link.client = timeout(SIGN_OF_LIFE, Client::ask(&mut link.to.connection)).await.ok()?.ok()?;
        Some(link)
    }

    fn is(&self, other: &Self) -> bool {
        self.to.address == other.to.address && self.client == other.client
    }

    /// Asks the server for the time: it answers, and what is appended now will not be dated before.
    async fn lives(&mut self) -> bool {
        let time = redis::cmd("TIME");
        let asked = timeout(SIGN_OF_LIFE, time.query_async::<(u64, u64)>(&mut self.to.connection)).await;
        match asked {
            Ok(Ok((seconds, micros))) => {
                let before = (seconds * 1_000 + micros / 1_000).saturating_sub(1);
                self.newest = self.newest.max(Position { major: before, minor: u64::MAX });
            }
            // Whoever may not ask for the time is answered too.
            Ok(Err(error)) if words::is_refusal(&error) => {}
            _ => return false,
        }
        self.confirmed = clock::now().instant.max(self.confirmed);
        true
    }
}

async fn transmit(
    log: &RedisLog,
    connection: &mut MultiplexedConnection,
    events: &[Outgoing],
) -> redis::RedisResult<Vec<Option<Position>>> {
    if let [event] = events {
        let id = xadd(log, event).query_async::<Value>(connection).await?;
        return Ok(vec![wire::position(&id)]);
    }
    let mut batch = redis::pipe();
    batch.atomic();
    for event in events {
        batch.add_command(xadd(log, event));
    }
    let ids = batch.query_async::<Vec<Value>>(connection).await?;
    Ok(ids.iter().map(wire::position).collect())
}

fn xadd(log: &RedisLog, event: &Outgoing) -> Cmd {
    let mut command = redis::cmd("XADD");
    command.arg(&log.settings.key).arg("MAXLEN").arg("~").arg(log.settings.max_events);
    command.arg("*").arg(wire::EVENT).arg(event.payload.as_ref());
    command
}
