//! Keys that an issuer publishes under an address (JWKS): fetched when the service starts, at an interval that the issuer
//! may name, and when a token names a key that is not here. However many such tokens come, one fetch is under way at a
//! time, and two begin no closer than [`BETWEEN_FETCHES`].
//!
//! Refuses to know: what is in a key set.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Uri, header};
use tokio::sync::{Notify, Semaphore, watch};

use super::{Address, KeySetSettings, Refusal, issuer::Issuer};
use crate::{
    client::{Client, Failure},
    clock,
    metrics::{KeyRefresh, KeySource, Metrics},
};

/// The least time from one fetch to the next that tokens with unknown keys bring about.
const BETWEEN_FETCHES: Duration = Duration::from_secs(5);

/// What an issuer's `max-age` may say.
const MAX_AGE_LEAST: Duration = Duration::from_secs(60);
const MAX_AGE_MOST: Duration = Duration::from_secs(3600);

/// Between attempts while none succeeds.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// Callers that wait for a fetch at most, and how long each does.
const WAITING_MAX: usize = 1024;
const WAIT_MAX: Duration = Duration::from_secs(12);

/// A key set of 64 keys of 8192 bits has a quarter of this.
const KEY_SET_MAX_BYTES: usize = 512 * 1024;

/// Where one issuer publishes its keys.
pub(super) struct Published {
    uri: Uri,
    /// For the log.
    place: String,
    client: Client,
    refresh: Duration,
    keep: Duration,
    progress: watch::Sender<Progress>,
    wanted: Notify,
    waiting: Semaphore,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    begun: u64,
    ended: u64,
    /// The last fetch failed.
    is_failing: bool,
    has_keys: bool,
}

impl Published {
    pub fn new(address: &Address, settings: &KeySetSettings) -> Result<Self, String> {
        Ok(Self {
            uri: address.0.as_str().parse().map_err(|error| format!("{address}: {error}"))?,
            place: address.to_string(),
            client: Client::new(&settings.client)?,
            refresh: settings.refresh,
            keep: settings.keep,
            progress: watch::channel(Progress::default()).0,
            wanted: Notify::new(),
            waiting: Semaphore::new(WAITING_MAX),
        })
    }

    /// Whether keys are here, however old.
    pub fn has_keys(&self) -> bool {
        self.progress.borrow().has_keys
    }

    pub fn place(&self) -> &str {
        &self.place
    }

    /// Waits for a fetch that begins from now on, so that it tells of every key that a token of now can name.
    ///
    /// # Errors
    /// It failed, the last one did and the next is not due, or too many wait already.
    pub async fn refreshed(&self) -> Result<(), Refusal> {
        let Ok(_place) = self.waiting.try_acquire() else { return Err(Refusal::Unavailable) };
        let mut progress = self.progress.subscribe();
        let awaited = {
            let now = progress.borrow_and_update();
            if now.is_failing {
                return Err(Refusal::Unavailable);
            }
            // Without any keys the one that is under way brings news.
            if now.has_keys { now.begun + 1 } else { now.ended + 1 }
        };
        self.wanted.notify_one();
        let ended = progress.wait_for(|now| now.ended >= awaited || now.is_failing);
        match tokio::time::timeout(WAIT_MAX, ended).await {
            Ok(Ok(now)) if !now.is_failing => Ok(()),
            _ => Err(Refusal::Unavailable),
        }
    }

    /// Keeps the keys of `issuer` fresh for as long as it is polled.
    pub async fn run(&self, issuer: &Issuer, metrics: &Metrics) {
        let mut retry = RETRY_FIRST;
        let mut fetched_at: Option<Instant> = None;
        loop {
            self.progress.send_modify(|progress| progress.begun += 1);
            let began = clock::now();
            let outcome = self.fetch(issuer).await;
            let next = match &outcome {
                Ok(max_age) => {
                    metrics.keys_refreshed(KeySource::Url, KeyRefresh::Changed);
                    metrics.keys_fetched(&self.place, clock::now().unix_ms);
                    fetched_at = Some(began.instant);
                    retry = RETRY_FIRST;
                    max_age.map_or(self.refresh, |age| age.clamp(MAX_AGE_LEAST, MAX_AGE_MOST))
                }
                Err(why) => {
                    tracing::warn!(
                        keys = self.place,
                        reason = why,
                        "an issuer's keys cannot be fetched; those from before are kept"
                    );
                    metrics.keys_refreshed(KeySource::Url, KeyRefresh::Failed);
                    let wait = retry / 2 + clock::jitter(retry / 2);
                    retry = (retry * 2).min(RETRY_MOST);
                    wait
                }
            };
            let is_too_old = outcome.is_err() && fetched_at.is_some_and(|at| at + self.keep <= clock::now().instant);
            if is_too_old {
                tracing::error!(
                    keys = self.place,
                    "an issuer's keys have not been fetched for too long; its tokens are put off"
                );
                fetched_at = None;
                issuer.forget();
            }
            self.progress.send_modify(|progress| {
                progress.ended += 1;
                progress.is_failing = outcome.is_err();
                progress.has_keys = fetched_at.is_some();
            });
            self.wait(next, outcome.is_ok(), began.instant).await;
        }
    }

    /// Until the next fetch is due, or until a caller wants one and may have it.
    async fn wait(&self, next: Duration, may_be_wanted: bool, began: Instant) {
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = self.wanted.notified(), if may_be_wanted => {
                tokio::time::sleep_until((began + BETWEEN_FETCHES).into()).await;
            }
        }
    }

    /// One fetch; what the issuer says of how long the keys are good for.
    async fn fetch(&self, issuer: &Issuer) -> Result<Option<Duration>, String> {
        let request = Request::get(&self.uri).header(header::ACCEPT, "application/jwk-set+json, application/json");
        let request = request.body(Full::<Bytes>::default()).map_err(|error| error.to_string())?;
        let answer =
            self.client.ask(request, KEY_SET_MAX_BYTES).await.map_err(|failure: Failure| failure.to_string())?;
        if answer.status != 200 {
            return Err(format!("the answer's status is {}, not 200", answer.status));
        }
        issuer.take_published(&answer.body)?;
        Ok(answer.max_age)
    }
}

/// Keeps one issuer's published keys fresh, if it publishes any.
pub(super) async fn run(issuer: Arc<Issuer>, metrics: Arc<Metrics>) {
    if let Some(published) = &issuer.published {
        published.run(&issuer, &metrics).await;
    }
}
