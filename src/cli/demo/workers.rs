//! The demo's workers: each tells its kind of story again and again, about a fresh task each time.

use std::time::Duration;

use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::story::{Kind, story};
use crate::{
    clock,
    input::Publisher,
    proto::{ContentType, Event},
};

/// Works until `stop` is cancelled.
pub(super) async fn run(publisher: Publisher, stop: CancellationToken) {
    let mut workers = JoinSet::new();
    for kind in Kind::ALL {
        workers.spawn(stop.clone().run_until_cancelled_owned(work(kind, publisher.clone())));
    }
    while workers.join_next().await.is_some() {}
}

async fn work(kind: Kind, publisher: Publisher) {
    for run in 0.. {
        // The end of an identifier is its random part; the task shall be another after each restart.
        let unique = clock::unique_id().simple().to_string();
        let mut told = Duration::ZERO;
        for beat in story(kind, run, &unique[unique.len() - 8..]) {
            sleep(beat.at.saturating_sub(told)).await;
            told = beat.at;
            publish(&publisher, &beat.event).await;
        }
        sleep(kind.rest(run)).await;
    }
}

async fn publish(publisher: &Publisher, event: &serde_json::Value) {
    match Event::decode(ContentType::Json, event.to_string().as_bytes()) {
        Ok(event) => {
            if let Err(error) = publisher.publish(&[event]).await {
                warn!(error = error.detail, "a simulated worker could not publish");
            }
        }
        Err(malformed) => warn!(?malformed, "a simulated worker made an event that is none"),
    }
}
