//! Opaque tokens of those who hold an identity for long: their provider is asked again at the pace at which its answers are
//! forgotten. So a token that is revoked there ends its connections within about twice that time.
//!
//! Refuses to know: who holds.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;

use super::{Identity, Refusal, Verifier, answers::TokenDigest};
use crate::clock;

/// Holders that are looked at in one go; then others have a turn.
const PART: usize = 256;

/// For how many rounds a provider may be silent before holders are told. The first is no reason: nobody new is let in
/// meanwhile, and all who are told come back at once, to a door that is closed.
const SILENT_ROUNDS_MAX: u32 = 5;

/// Of which tokens a provider says nothing, and since when. It may be silent about one, and answer for all others.
#[derive(Default)]
struct Silence(Mutex<Rounds>);

#[derive(Default)]
struct Rounds {
    /// As of the round before.
    before: HashMap<TokenDigest, Instant>,
    /// As of this one: who is not asked about any more is forgotten with it.
    now: HashMap<TokenDigest, Instant>,
}

impl Silence {
    fn lock(&self) -> MutexGuard<'_, Rounds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it has lasted, with this answer.
    fn after(&self, token: &str, answer: &Result<Identity, Refusal>, now: Instant) -> Duration {
        if !matches!(answer, Err(Refusal::Unavailable)) {
            return Duration::ZERO;
        }
        let mut rounds = self.lock();
        let token = TokenDigest::of(token);
        let since = rounds.before.get(&token).copied().unwrap_or(now);
        now.saturating_duration_since(*rounds.now.entry(token).or_insert(since))
    }

    fn end_round(&self) {
        let mut rounds = self.lock();
        rounds.before = std::mem::take(&mut rounds.now);
    }
}

/// Asks in rounds for as long as it is polled, about so many tokens at a time.
pub(super) async fn run(verifier: Verifier, every: Duration, at_a_time: usize) {
    let silence = Silence::default();
    let ask = async |holder: std::sync::Arc<dyn super::Holder>| {
        let Some(token) = holder.opaque_token() else { return };
        let answer = verifier.identify(Some(token.as_str()), clock::now()).await;
        let silent_for = silence.after(token.as_str(), &answer, clock::now().instant);
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
        silence.end_round();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_may_be_silent_about_one_token_and_answer_for_others() {
        let silence = Silence::default();
        let round = Duration::from_secs(60);
        let (good, none) = (Ok(Identity::default()), Err(Refusal::Unavailable));
        let began = clock::now().instant;
        for number in 0..4 {
            let now = began + round * number;
            assert_eq!(silence.after("dead", &none, now), round * number);
            // Two connections with one token.
            assert_eq!(silence.after("dead", &none, now), round * number);
            assert_eq!(silence.after("other", &good, now), Duration::ZERO);
            silence.end_round();
        }
        assert_eq!(silence.after("dead", &good, began + round * 4), Duration::ZERO);
        silence.end_round();
        assert_eq!(silence.after("dead", &none, began + round * 5), Duration::ZERO, "it has answered meanwhile");
        silence.end_round();
        silence.end_round();
        let rounds = silence.lock();
        assert!(rounds.before.is_empty() && rounds.now.is_empty(), "who left is forgotten");
    }
}
