//! Who is this, and may they see this task: a token verifier and a pure access function.
//!
//! - `keys`: algorithms and keys; `key_set`: the keys that an issuer's tokens may be signed with
//! - `issuer`: one issuer, its keys and what its tokens must say; `published`: keys that it publishes (JWKS)
//! - `verifier`: a token's signature, then its claims; of opaque tokens, the provider's word
//! - `provider`: asks about opaque tokens (RFC 7662); `answers`: what was answered, for a while; `breaker`; `asking`:
//!   again, while somebody holds what was answered
//! - `claims`: what a verified token says: user, rights, expiry
//! - `access`: may this caller watch this task; pure
//! - `publish`: may this caller publish this event; pure
//! - `revocations`: which tokens hold no longer; `holders`: who has to be asked again then
//! - `mint`: tokens for development, and share links
//! - `client`: the way out, to issuers and providers; `files`: keys in files that change
//!
//! Refuses to know: who connects and how, where a token was found. Checking a token with a key that is known reads no
//! clock (a caller says what time it is) and waits for nothing.

mod access;
mod answers;
mod asking;
mod breaker;
mod claims;
mod files;
mod holders;
mod issuer;
mod key_set;
mod keys;
mod mint;
mod provider;
mod publish;
mod published;
mod reading;
mod revocations;
mod settings;
mod verifier;

use std::{collections::BTreeSet, sync::Arc};

pub use crate::client::ClientSettings;
use crate::proto::{AuthenticationErrorCode, TaskId, UserId};

pub use holders::{Holder, Holders, Place};
pub use key_set::check_key_set;
pub use keys::{ALGORITHMS, Family, PUBLIC_KEY_ALGORITHMS, SECRET_MIN_BYTES, check_public_key, family};
pub use mint::{NewToken, mint};
pub use publish::{Forbidden, Limit, PublishRight};
pub use revocations::{Kept, REVOCATIONS_CHUNK, RevocationSettings, Revocations};
pub use settings::{
    Address, AnswerSettings, Credentials, IntrospectionSettings, JwtSettings, Key, KeySetPlace, KeySetSettings,
    Question, Secret, Settings,
};
pub use verifier::{Health, TOKEN_MAX_BYTES, Verifier};

/// What a token allows: the claim `taskcast`, or just one's own tasks without it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
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
    /// What events it may publish over HTTP.
    pub publish: PublishRight,
    /// May ask to cancel whatever it may watch.
    pub cancel: bool,
    /// May revoke tokens, its own and others'.
    pub revoke: bool,
    /// This delivery canary. No token says so: it is for the one session that each replica opens to itself.
    pub canary: Option<Box<TaskId>>,
}

/// A verified caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `None` only for tokens whose rights do not need one.
    pub user: Option<UserId>,
    pub rights: Rights,
    /// From when on the token is refused, the configured leeway included: milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
    /// What its token can be revoked by. Boxed: every open connection holds an identity.
    pub issued: Option<Box<Issued>>,
}

/// What tells a token that names no user, such as a link to share, from others like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link<'a> {
    /// `jti`.
    TokenId(&'a str),
    /// The token itself, where it says nothing.
    Opaque(&'a str),
    /// All that it says: one that is signed anew and says the same is the same.
    Claims { rights: &'a Rights, expires_at_ms: Option<u64>, issued_at_ms: Option<u64> },
}

impl Identity {
    #[must_use]
    pub fn link(&self) -> Link<'_> {
        let issued = self.issued.as_deref();
        let token_id = issued.and_then(|issued| issued.token_id.as_deref()).map(Link::TokenId);
        let opaque = || issued.and_then(|issued| issued.opaque.as_ref()).map(|token| Link::Opaque(token.as_str()));
        token_id.or_else(opaque).unwrap_or(Link::Claims {
            rights: &self.rights,
            expires_at_ms: self.expires_at_ms,
            issued_at_ms: issued.and_then(|issued| issued.at_ms),
        })
    }
}

/// What tells a token from its user's others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issued {
    /// `jti`.
    pub token_id: Option<Arc<str>>,
    /// `iat`: milliseconds since the Unix epoch.
    pub at_ms: Option<u64>,
    /// The token itself, if its provider has to be asked about it again.
    pub opaque: Option<OpaqueToken>,
}

/// A token that means something to its provider alone. It is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct OpaqueToken(Arc<str>);

impl OpaqueToken {
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for OpaqueToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpaqueToken(…)")
    }
}

/// Why a token was refused. The message is for the front end's developer and never contains the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticationError {
    pub code: AuthenticationErrorCode,
    pub message: String,
    /// Nothing shows that it ever was a token, so its bearer may be guessing.
    pub is_guess: bool,
}

impl AuthenticationError {
    /// `INVALID_TOKEN`: it was good once, and another like it would not be.
    pub(crate) fn revoked() -> Self {
        let message = "the token has been revoked".to_owned();
        Self { code: AuthenticationErrorCode::InvalidToken, message, is_guess: false }
    }

    /// All that its provider says is that it does not hold.
    fn was_inactive(&self) -> bool {
        self.is_guess && self.code == AuthenticationErrorCode::ExpiredToken
    }

    /// `EXPIRED_TOKEN`: it was good once, and another like it would be.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self { code: AuthenticationErrorCode::ExpiredToken, message: message.into(), is_guess: false }
    }

    /// `INVALID_TOKEN`, with the reason. It may have been made up.
    fn invalid(message: impl Into<String>) -> Self {
        Self { code: AuthenticationErrorCode::InvalidToken, message: message.into(), is_guess: true }
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
