//! Sends the delivery canary and keeps its loopback session open. One is sent at each interval, and at once when the log
//! has become usable; while it is not, none is.
//!
//! Refuses to know: what a canary proves.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    input::Publisher,
    log::Health,
    session::{Canary, Sessions},
};

/// How often it is asked whether one is overdue; and how soon an append that failed is tried again, for readiness must
/// not wait for the next interval.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a loopback session that ended stays closed, so that one that cannot live does not cost a core.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// Runs until `stop` is cancelled.
pub(super) async fn run(
    canary: Canary,
    sessions: Arc<Sessions>,
    health: watch::Receiver<Health>,
    stop: CancellationToken,
) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = listen(&canary, &sessions) => {}
        () = send(&canary, &sessions.publisher, health) => {}
    }
}

async fn listen(canary: &Canary, sessions: &Arc<Sessions>) {
    loop {
        sessions.loop_back(canary.id(), |message| canary.heard(message, clock::now().instant)).await;
        tracing::warn!("the loopback session of the delivery canary ended; opening another");
        tokio::time::sleep(REOPEN_AFTER).await;
    }
}

/// An append under way, which the log bounds in time.
type Appending = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

async fn send(canary: &Canary, publisher: &Publisher, mut health: watch::Receiver<Health>) {
    let interval = canary.settings().interval;
    let mut herald = Herald::default();
    let mut appending: Option<Appending> = None;
    let mut due = clock::now().instant;
    loop {
        let usable = {
            let health = health.borrow_and_update();
            health.connected && health.caught_up
        };
        let now = clock::now().instant;
        if canary.log_is(usable, now) {
            due = now;
        }
        if !usable {
            // What is on its way to a log that went away proves nothing, and must not delay the next.
            appending = None;
        } else if appending.is_none() && due <= now {
            appending = Some(Box::pin(append(publisher.clone(), canary.clone())));
            due = now + interval;
        }
        canary.expire(now);
        herald.tell(canary, now);
        let wake_at = if usable && appending.is_none() { due.min(now + CHECK_INTERVAL) } else { now + CHECK_INTERVAL };
        tokio::select! {
            result = finished(&mut appending) => {
                appending = None;
                if result.is_err() {
                    due = due.min(clock::now().instant + CHECK_INTERVAL);
                }
                canary.appended(result);
            }
            changed = health.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep_until(wake_at.into()) => {}
        }
    }
}

async fn append(publisher: Publisher, canary: Canary) -> Result<(), String> {
    let event = canary.send(clock::now().instant);
    publisher.publish(std::slice::from_ref(&event)).await.map(|_| ()).map_err(|error| error.detail)
}

/// Never, while there is none.
async fn finished(appending: &mut Option<Appending>) -> Result<(), String> {
    match appending {
        Some(appending) => appending.await,
        None => std::future::pending().await,
    }
}

/// Logs what changes, once.
#[derive(Default)]
struct Herald {
    told: Option<String>,
}

impl Herald {
    fn tell(&mut self, canary: &Canary, now: std::time::Instant) {
        let health = canary.health(now);
        match (&self.told, health.leg) {
            (Some(_), _) if health.ok => {
                tracing::info!("the delivery canary comes back again");
                self.told = None;
            }
            (None, Some(leg)) if !health.ok => {
                tracing::error!(
                    leg = leg.as_str(),
                    detail = health.detail,
                    "not ready: the delivery canary is overdue"
                );
                self.told = Some(health.detail);
            }
            _ => {}
        }
    }
}
