//! Opaque tokens of those who hold an identity for long: their provider is asked again at the pace at which its answers are
//! forgotten. So a token that is revoked there ends its connections within about twice that time.
//!
//! Refuses to know: who holds.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;

use super::{Identity, Refusal, Verifier};
use crate::clock;

/// Holders that are looked at in one go; then others have a turn.
const PART: usize = 256;

/// For how many rounds a provider may be silent before holders are told. The first is no reason: nobody new is let in
/// meanwhile, and all who are told come back at once, to a door that is closed.
const SILENT_ROUNDS_MAX: u32 = 5;

/// Since when a provider has not answered.
#[derive(Default)]
struct Silence(Mutex<Option<Instant>>);

impl Silence {
    /// How long it has lasted with this answer.
    fn after(&self, answer: &Result<Identity, Refusal>, now: Instant) -> Duration {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(answer, Err(Refusal::Unavailable)) {
            *since = None;
        } else if since.is_none() {
            *since = Some(now);
        }
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

/// Asks in rounds for as long as it is polled, about so many tokens at a time.
pub(super) async fn run(verifier: Verifier, every: Duration, at_a_time: usize) {
    let silence = Silence::default();
    let ask = async |holder: std::sync::Arc<dyn super::Holder>| {
        let Some(token) = holder.opaque_token() else { return };
        let answer = verifier.identify(Some(token.as_str()), clock::now()).await;
        let silent_for = silence.after(&answer, clock::now().instant);
        if !matches!(answer, Err(Refusal::Unavailable)) || silent_for >= every * SILENT_ROUNDS_MAX {
            holder.on_asked(&token, answer);
        }
    };
    loop {
        tokio::time::sleep(every).await;
        let mut first = 0;
        loop {
            let (holders, more) = verifier.revocations().holders().part(first, PART);
            futures_util::stream::iter(holders).for_each_concurrent(at_a_time, &ask).await;
            first += PART;
            if !more {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}
