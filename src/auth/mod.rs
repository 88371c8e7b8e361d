//! Who is this, and may they see this task: a token verifier and a pure access function.
//!
//! - `keys`: algorithms and keys; `key_set`: the keys that an issuer's tokens may be signed with
//! - `issuer`: one issuer, its keys and what its tokens must say; `published`: keys that it publishes (JWKS)
//! - `verifier`: a token's signature, then its claims; of opaque tokens, the provider's word
//! - `provider`: asks about opaque tokens (RFC 7662); `answers`: what was answered, for a while; `breaker`
//! - `claims`: what a verified token says: user, rights, expiry
//! - `access`: may this caller watch this task; pure
//! - `mint`: tokens for development
//! - `client`: the way out, to issuers and providers; `files`: keys in files that change
//!
//! Refuses to know: who connects and how, where a token was found. Checking a token with a key that is known reads no
//! clock (a caller says what time it is) and waits for nothing.

mod access;
mod answers;
mod breaker;
mod claims;
mod client;
mod files;
mod issuer;
mod key_set;
mod keys;
mod mint;
mod provider;
mod published;
mod reading;
mod settings;
mod verifier;

use std::collections::BTreeSet;

use crate::proto::{AuthenticationErrorCode, TaskId, UserId};

pub use key_set::check_key_set;
pub use keys::{ALGORITHMS, Family, PUBLIC_KEY_ALGORITHMS, SECRET_MIN_BYTES, check_public_key, family};
pub use mint::{NewToken, mint};
pub use settings::{
    Address, AnswerSettings, ClientSettings, Credentials, IntrospectionSettings, JwtSettings, Key, KeySetPlace,
    KeySetSettings, Question, Secret, Settings,
};
pub use verifier::{Health, TOKEN_MAX_BYTES, Verifier};

/// What a token allows: the claim `taskcast`, or just one's own tasks without it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a right of its own, named as in the claim")]
pub struct Rights {
    /// `own`: tasks whose `user_id` is the caller's.
    pub own: bool,
    /// `all`: every task, those without an owner too.
    pub all: bool,
    /// `task:<id>`.
    pub tasks: BTreeSet<TaskId>,
    /// `root:<id>`: the task of that id and the tasks of its group.
    pub roots: BTreeSet<TaskId>,
    /// `tag:<name>`.
    pub tags: BTreeSet<String>,
    /// May publish events over HTTP.
    pub publish: bool,
    /// May ask to cancel whatever it may watch.
    pub cancel: bool,
    /// This delivery canary. No token says so: it is for the one session that each replica opens to itself.
    pub canary: Option<TaskId>,
}

/// A verified caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `None` only for tokens whose rights do not need one.
    pub user: Option<UserId>,
    pub rights: Rights,
    /// From when on the token is refused, the configured leeway included: milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
}

/// Why a token was refused. The message is for the front end's developer and never contains the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticationError {
    pub code: AuthenticationErrorCode,
    pub message: String,
}

impl AuthenticationError {
    /// `INVALID_TOKEN`, with the reason.
    fn invalid(message: impl Into<String>) -> Self {
        Self { code: AuthenticationErrorCode::InvalidToken, message: message.into() }
    }
}

impl std::fmt::Display for AuthenticationError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for AuthenticationError {}

/// Why a caller was not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The token is not good; the same one will not be later either.
    Token(AuthenticationError),
    /// Nobody can tell now whether it is: the issuer's keys, or the provider that knows, are out of reach. The caller
    /// shall come back.
    Unavailable,
}

impl Refusal {
    /// For the caller, who need not know what is out of reach; the log says it to the operator.
    pub const UNAVAILABLE: &str = "tokens cannot be checked at the moment; try again";
}

impl From<AuthenticationError> for Refusal {
    fn from(error: AuthenticationError) -> Self {
        Self::Token(error)
    }
}
