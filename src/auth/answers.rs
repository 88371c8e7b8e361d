//! What a provider said of tokens, for a while: so many answers of each kind at most, and so many bytes. A token is kept
//! as its SHA-256 only. Good and bad answers have room of their own, so that a flood of bad tokens costs no good one its
//! place. So have, for longer, the tokens that were good once: who brings one of them again does not guess.
//!
//! Refuses to know: clocks, how a provider is asked.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};

use super::{AnswerSettings, AuthenticationError, Identity};

/// How long it is remembered that a token was good once: a page that was left open over night has one that is no more.
const ONCE_GOOD_FOR: Duration = Duration::from_secs(24 * 3600);

/// Good answers take no more, by the size of what the provider sent.
const GOOD_MAX_BYTES: usize = 32 << 20;

/// Which token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }
}

/// What a provider said.
pub(super) type Said = Result<Identity, AuthenticationError>;

/// Answers, by token.
pub(super) struct Answers {
    settings: AnswerSettings,
    good: Shelf<Identity>,
    bad: Shelf<AuthenticationError>,
    once_good: Shelf<()>,
}

impl Answers {
    pub fn new(settings: AnswerSettings) -> Self {
        Self { settings, good: Shelf::default(), bad: Shelf::default(), once_good: Shelf::default() }
    }

    pub fn get(&self, token: &TokenDigest, now: Instant) -> Option<Said> {
        let good = self.good.get(token, now).map(|identity| Ok(identity.clone()));
        good.or_else(|| self.bad.get(token, now).map(|error| Err(error.clone())))
    }

    /// `bytes` is what the answer took on the wire.
    pub fn put(&mut self, token: TokenDigest, said: &Said, bytes: usize, now: Instant) {
        let AnswerSettings { good_for, bad_for, max } = self.settings;
        match said {
            Ok(identity) => {
                self.bad.remove(&token);
                self.good.put(token, identity.clone(), bytes, now + good_for);
                // Not each time anew: that would push out those that nobody asks about any more.
                if !self.was_good(&token, now) {
                    self.once_good.put(token, (), 0, now + ONCE_GOOD_FOR);
                }
            }
            Err(error) => {
                self.good.remove(&token);
                // The same guess again is none.
                let again = AuthenticationError { is_guess: !error.was_inactive(), ..error.clone() };
                self.bad.put(token, again, 0, now + bad_for);
            }
        }
        self.good.tidy(max, now);
        self.bad.tidy(max, now);
        self.once_good.tidy(max, now);
    }

    /// Whether it was ever told that the token is good, as far as that is remembered.
    pub fn was_good(&self, token: &TokenDigest, now: Instant) -> bool {
        self.once_good.get(token, now).is_some()
    }

    pub fn len(&self) -> usize {
        self.good.entries.len() + self.bad.entries.len()
    }
}

/// Answers of one kind, all of which last equally long: so the oldest is the first to go.
struct Shelf<T> {
    entries: HashMap<TokenDigest, Entry<T>>,
    /// Oldest first; some of these are no more, or have been put anew.
    order: VecDeque<(TokenDigest, Instant)>,
    bytes: usize,
}

struct Entry<T> {
    value: T,
    bytes: usize,
    until: Instant,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }
}

impl<T> Shelf<T> {
    fn get(&self, token: &TokenDigest, now: Instant) -> Option<&T> {
        self.entries.get(token).filter(|entry| now < entry.until).map(|entry| &entry.value)
    }

    fn put(&mut self, token: TokenDigest, value: T, bytes: usize, until: Instant) {
        self.remove(&token);
        self.entries.insert(token, Entry { value, bytes, until });
        self.bytes += bytes;
        self.order.push_back((token, until));
    }

    fn remove(&mut self, token: &TokenDigest) {
        if let Some(entry) = self.entries.remove(token) {
            self.bytes -= entry.bytes;
        }
    }

    /// Lets go of what has lasted long enough, and of the oldest where there is too much.
    fn tidy(&mut self, max: usize, now: Instant) {
        while let Some(&(token, until)) = self.order.front() {
            let is_current = self.entries.get(&token).is_some_and(|entry| entry.until == until);
            // Places in the order that mean nothing any more are bounded too.
            let is_too_much = self.entries.len() > max || self.bytes > GOOD_MAX_BYTES || self.order.len() > 2 * max;
            if is_current && now < until && !is_too_much {
                break;
            }
            if is_current {
                self.remove(&token);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    const GOOD_FOR: Duration = Duration::from_secs(60);
    const BAD_FOR: Duration = Duration::from_secs(10);

    fn answers(max: usize) -> Answers {
        Answers::new(AnswerSettings { good_for: GOOD_FOR, bad_for: BAD_FOR, max })
    }

    fn token(number: usize) -> TokenDigest {
        TokenDigest::of(&number.to_string())
    }

    const GOOD: fn() -> Said = || Ok(Identity::default());

    const BAD: fn() -> Said = || Err(AuthenticationError::invalid("no"));

    #[test]
    fn answers_last_as_long_as_their_kind() {
        let (mut answers, now) = (answers(10), clock::now().instant);
        answers.put(token(1), &GOOD(), 10, now);
        answers.put(token(2), &BAD(), 10, now);
        assert!(answers.get(&token(1), now).unwrap().is_ok() && answers.get(&token(2), now).unwrap().is_err());
        assert!(answers.get(&token(3), now).is_none());
        assert!(answers.get(&token(2), now + BAD_FOR).is_none() && answers.get(&token(1), now + BAD_FOR).is_some());
        assert!(answers.get(&token(1), now + GOOD_FOR).is_none());
        answers.put(token(1), &BAD(), 10, now);
        assert!(answers.get(&token(1), now).unwrap().is_err(), "the last word counts");
        answers.put(token(9), &GOOD(), 10, now + GOOD_FOR);
        assert_eq!(answers.len(), 1, "what has lasted long enough is let go");
    }

    #[test]
    fn a_token_that_was_good_once_is_known_for_a_day_whatever_else_is_asked_about() {
        let (mut answers, now) = (answers(100), clock::now().instant);
        let hour = Duration::from_secs(3600);
        answers.put(token(0), &GOOD(), 10, now);
        answers.put(token(0), &BAD(), 10, now + hour);
        for number in 1..10_000 {
            answers.put(token(number), &BAD(), 10, now + hour);
            // Of those who stay connected it is told again and again.
            answers.put(token(10_000 + number % 50), &GOOD(), 10, now + hour);
        }
        assert!(answers.was_good(&token(0), now + 23 * hour) && !answers.was_good(&token(0), now + 24 * hour));
        assert!(!answers.was_good(&token(1), now + hour));
        for number in 20_000..30_000 {
            answers.put(token(number), &GOOD(), 10, now + hour);
        }
        assert!(answers.once_good.entries.len() <= 100 && answers.once_good.order.len() <= 200);
    }

    #[test]
    fn a_guess_is_one_when_it_is_told_and_none_when_it_is_remembered() {
        let (mut answers, now) = (answers(10), clock::now().instant);
        let inactive = crate::auth::reading::inactive();
        assert!(inactive.is_guess);
        answers.put(token(1), &Err(inactive), 10, now);
        answers.put(token(2), &BAD(), 10, now);
        assert!(!answers.get(&token(1), now).unwrap().unwrap_err().is_guess);
        assert!(answers.get(&token(2), now).unwrap().unwrap_err().is_guess, "a made-up one stays one");
    }

    #[test]
    fn there_are_no_more_than_the_limit_and_bad_ones_do_not_push_out_good_ones() {
        let (mut answers, now) = (answers(100), clock::now().instant);
        answers.put(token(0), &GOOD(), 10, now);
        for number in 1..10_000 {
            answers.put(token(number), &BAD(), 10, now);
            assert!(answers.len() <= 101);
        }
        assert!(answers.get(&token(0), now).is_some() && answers.get(&token(9_999), now).is_some());
        for _ in 0..10_000 {
            answers.put(token(0), &GOOD(), 10, now);
        }
        assert!(answers.good.order.len() <= 200 && answers.get(&token(0), now).is_some());
        let large = GOOD_MAX_BYTES / 4;
        for number in 20_000..20_010 {
            answers.put(token(number), &GOOD(), large, now);
        }
        assert!(answers.good.bytes <= GOOD_MAX_BYTES && answers.get(&token(20_009), now).is_some());
    }
}
