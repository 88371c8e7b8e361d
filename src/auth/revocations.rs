//! Which tokens hold no longer: by their id, or by their user and when they were issued. Bounded; what is kept least long
//! makes room. Also who has to be asked again when one is added.
//!
//! Refuses to know: where revocations come from, what a holder does about one.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{Identity, holders::Holders};
use crate::proto::{
    BinaryReader, Corrupt, Malformed, MalformedReason, Revocation, Revoked, UserId, push_bytes, push_number,
};

/// The first byte of a chunk of a checkpoint that holds revocations; those of tasks begin with others.
pub const REVOCATIONS_CHUNK: u8 = 4;

/// A chunk is closed beyond this many bytes.
const CHUNK_BYTES: usize = 256 * 1024;

/// In a chunk, which kind of subject follows.
const TOKEN: u8 = 0;
const USER: u8 = 1;

/// How many revocations are kept, and for how long; both have a key in the configuration's `[auth]` table.
#[derive(Clone, Copy, Debug)]
pub struct RevocationSettings {
    pub max: usize,
    /// How long one is kept that does not say when its tokens expire: as long as a token may live.
    pub retain: Duration,
}

impl Default for RevocationSettings {
    fn default() -> Self {
        Self { max: 100_000, retain: Duration::from_secs(30 * 24 * 3600) }
    }
}

/// What became of a revocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Revocations that are kept now.
    pub held: usize,
    /// Others that had to make room although they still meant something.
    pub dropped: usize,
}

/// The tokens that hold no longer. Cheap to clone.
#[derive(Clone, Default)]
pub struct Revocations(Arc<Inner>);

#[derive(Default)]
struct Inner {
    settings: RevocationSettings,
    list: RwLock<List>,
    /// As long as the list, so that nobody takes its lock for an empty one.
    held: AtomicUsize,
    holders: Holders,
    changed: Notify,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Subject {
    Token(Arc<str>),
    User(UserId),
}

#[derive(Clone, Copy)]
struct Term {
    /// Of a user's tokens, those issued before this moment.
    issued_before_ms: u64,
    until_ms: u64,
}

#[derive(Default)]
struct List {
    terms: HashMap<Subject, Term>,
    /// What is let go of first comes first.
    order: BTreeSet<(u64, Subject)>,
}

impl Revocations {
    #[must_use]
    pub fn new(settings: RevocationSettings) -> Self {
        Self(Arc::new(Inner { settings, ..Inner::default() }))
    }

    /// Takes a revocation that the log took at `appended_at_ms`, if it says when. Twice is as good as once.
    ///
    /// # Errors
    /// [`Malformed`]: nobody can say which of a user's tokens are meant.
    pub fn apply(&self, revocation: &Revocation, appended_at_ms: Option<u64>, now_ms: u64) -> Result<Kept, Malformed> {
        // Nothing is said after the log took it: a moment in the future would refuse tokens that are issued after it.
        let latest_ms = appended_at_ms.unwrap_or(now_ms).min(now_ms);
        let (subject, issued_before_ms) = match &revocation.revoked {
            Revoked::Token(id) => (Subject::Token(id.clone()), u64::MAX),
            Revoked::User { user_id, issued_before_ms } => {
                let issued_before_ms = issued_before_ms.or(appended_at_ms).ok_or_else(undated)?;
                (Subject::User(user_id.clone()), issued_before_ms.min(latest_ms))
            }
        };
        let from_ms =
            if appended_at_ms.is_none() && issued_before_ms != u64::MAX { issued_before_ms } else { latest_ms };
        let retain_ms = u64::try_from(self.0.settings.retain.as_millis()).unwrap_or(u64::MAX);
        let until_ms = revocation.holds_until_ms().unwrap_or_else(|| from_ms.saturating_add(retain_ms));
        let mut list = self.0.list.write().unwrap_or_else(PoisonError::into_inner);
        list.let_go(now_ms);
        if until_ms > now_ms {
            list.put(subject, Term { issued_before_ms, until_ms });
        }
        let dropped = list.make_room(self.0.settings.max);
        let kept = self.noted(&list, dropped);
        // Who is asked now has to find it.
        self.0.changed.notify_one();
        Ok(kept)
    }

    /// Lets go of what means nothing any more; how many are kept.
    pub fn let_go(&self, now_ms: u64) -> usize {
        let mut list = self.0.list.write().unwrap_or_else(PoisonError::into_inner);
        list.let_go(now_ms);
        self.noted(&list, 0).held
    }

    fn noted(&self, list: &List, dropped: usize) -> Kept {
        let held = list.terms.len();
        self.0.held.store(held, Ordering::Release);
        Kept { held, dropped }
    }

    /// Does this caller's token hold no longer?
    #[must_use]
    pub fn is_revoked(&self, identity: &Identity) -> bool {
        if self.0.held.load(Ordering::Acquire) == 0 {
            return false;
        }
        let list = self.0.list.read().unwrap_or_else(PoisonError::into_inner);
        let holds = |subject: Subject| list.terms.get(&subject).copied();
        let issued = identity.issued.as_deref();
        let by_id = issued.and_then(|issued| holds(Subject::Token(issued.token_id.clone()?)));
        // A token that does not say when it was issued cannot show that it came after.
        let issued_at_ms = issued.and_then(|issued| issued.at_ms).unwrap_or(0);
        let by_user = identity.user.clone().and_then(|user| holds(Subject::User(user)));
        by_id.is_some() || by_user.is_some_and(|term| issued_at_ms < term.issued_before_ms)
    }

    /// Resolves once a revocation has come that holders have not been asked about. For one caller. Cancel safe.
    pub fn changed(&self) -> impl Future<Output = ()> {
        self.0.changed.notified()
    }

    /// Those who are asked again when a token is revoked.
    #[must_use]
    pub fn holders(&self) -> &Holders {
        &self.0.holders
    }

    /// Everything that is kept, in chunks for a checkpoint; none when nothing is.
    #[must_use]
    pub fn export(&self) -> Vec<Vec<u8>> {
        let list = self.0.list.read().unwrap_or_else(PoisonError::into_inner);
        let mut chunks: Vec<Vec<u8>> = Vec::new();
        // In their order: the same state gives the same bytes.
        for (until_ms, subject) in &list.order {
            let Some(term) = list.terms.get(subject) else { continue };
            if chunks.last().is_none_or(|chunk| chunk.len() >= CHUNK_BYTES) {
                chunks.push(vec![REVOCATIONS_CHUNK]);
            }
            let Some(chunk) = chunks.last_mut() else { continue };
            push_number(chunk, *until_ms);
            match subject {
                Subject::Token(id) => {
                    chunk.push(TOKEN);
                    push_bytes(chunk, id.as_bytes());
                }
                Subject::User(user) => {
                    chunk.push(USER);
                    push_bytes(chunk, user.as_str().as_bytes());
                    push_number(chunk, term.issued_before_ms);
                }
            }
        }
        chunks
    }

    /// Takes over one chunk of an export, within the limit of this list.
    ///
    /// # Errors
    /// Not such a chunk. What was read before the mistake is kept: to refuse a token too many does no harm.
    pub fn import(&self, chunk: &[u8], now_ms: u64) -> Result<(), Corrupt> {
        let mut reader = BinaryReader::new(chunk);
        if reader.byte()? != REVOCATIONS_CHUNK {
            return Err(Corrupt("it holds no revocations"));
        }
        let mut list = self.0.list.write().unwrap_or_else(PoisonError::into_inner);
        let read = list.read(&mut reader, self.0.settings.max);
        list.let_go(now_ms);
        self.noted(&list, 0);
        read
    }
}

fn undated() -> Malformed {
    Malformed {
        reason: MalformedReason::Missing,
        field: Some("revoke.issued_before".to_owned()),
        detail: "is required where the log does not say when it took the record (RabbitMQ without `timestamp`)"
            .to_owned(),
    }
}

impl List {
    /// Of two revocations for one subject what reaches further holds.
    fn put(&mut self, subject: Subject, term: Term) {
        let known = self.terms.get(&subject).copied();
        if let Some(known) = known {
            self.order.remove(&(known.until_ms, subject.clone()));
        }
        let term = known.map_or(term, |known| Term {
            issued_before_ms: known.issued_before_ms.max(term.issued_before_ms),
            until_ms: known.until_ms.max(term.until_ms),
        });
        self.order.insert((term.until_ms, subject.clone()));
        self.terms.insert(subject, term);
    }

    fn let_go(&mut self, now_ms: u64) {
        while self.order.first().is_some_and(|(until_ms, _)| *until_ms <= now_ms) {
            self.pop();
        }
        if self.terms.is_empty() {
            self.terms.shrink_to_fit();
        }
    }

    fn pop(&mut self) {
        if let Some((_, subject)) = self.order.pop_first() {
            self.terms.remove(&subject);
        }
    }

    /// How many had to go.
    fn make_room(&mut self, max: usize) -> usize {
        let beyond = self.terms.len().saturating_sub(max);
        (0..beyond).for_each(|_| self.pop());
        beyond
    }

    fn read(&mut self, reader: &mut BinaryReader<'_>, max: usize) -> Result<(), Corrupt> {
        while !reader.is_empty() {
            let until_ms = reader.number()?;
            let (subject, issued_before_ms) = match reader.byte()? {
                TOKEN => (Subject::Token(reader.shared_text()?), u64::MAX),
                USER => {
                    let user = UserId::parse(reader.text()?).map_err(|_| Corrupt("a user's name is none"))?;
                    (Subject::User(user), reader.number()?)
                }
                _ => return Err(Corrupt("a revocation is of an unknown kind")),
            };
            self.put(subject, Term { issued_before_ms, until_ms });
            self.make_room(max);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "revocations_tests.rs"]
mod tests;
