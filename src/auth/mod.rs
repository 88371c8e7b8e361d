//! Who is this, and may they see this task: a token verifier and a pure access function.
//!
//! - `keys`: algorithms and key files, checked when the service starts
//! - `verifier`: a token's signature, then its claims
//! - `claims`: what a verified token says: user, rights, expiry
//! - `access`: may this caller watch this task; pure
//! - `publish`: may this caller publish this event; pure
//! - `revocations`: which tokens hold no longer; `holders`: who has to be asked again then
//! - `mint`: tokens for development, and share links
//!
//! Refuses to know: sockets, where a token was found, what time it is (a caller says).

mod access;
mod claims;
mod holders;
mod keys;
mod mint;
mod publish;
mod revocations;
mod verifier;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use crate::proto::{AuthenticationErrorCode, TaskId, UserId};

pub use holders::{Holder, Holders, Place};
pub use keys::{ALGORITHMS, Family, check_public_key, family};
pub use mint::{NewToken, mint};
pub use publish::{Forbidden, Limit, PublishRight};
pub use revocations::{Kept, REVOCATIONS_CHUNK, RevocationSettings, Revocations};
pub use verifier::{TOKEN_MAX_BYTES, Verifier};

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

/// What tells a token from its user's others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issued {
    /// `jti`.
    pub token_id: Option<Arc<str>>,
    /// `iat`: milliseconds since the Unix epoch.
    pub at_ms: Option<u64>,
}

/// Why a token was refused. The message is for the front end's developer and never contains the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticationError {
    pub code: AuthenticationErrorCode,
    pub message: String,
}

impl AuthenticationError {
    /// `INVALID_TOKEN`: it was good once, and another like it would not be.
    pub(crate) fn revoked() -> Self {
        Self::invalid("the token has been revoked")
    }

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

/// Where the key is.
#[derive(Clone)]
pub enum Key {
    /// For HS256, HS384, HS512.
    Secret(Vec<u8>),
    /// PEM: for RS256, ES256, `EdDSA`.
    PublicKeyFile(PathBuf),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret(…)",
            Self::PublicKeyFile(_) => "PublicKeyFile(…)",
        })
    }
}

/// How tokens are checked; every field has a key in the configuration's `[auth]` table.
#[derive(Clone, Debug)]
pub enum Settings {
    Jwt(Box<JwtSettings>),
    /// Development only: everyone is this user and may do everything; without one, everyone is refused.
    None {
        user: Option<UserId>,
    },
}

/// The `[auth]` table for `mode = "jwt"`.
#[derive(Clone, Debug)]
pub struct JwtSettings {
    pub key: Key,
    /// Names as in RFC 7518, all of one family: `HS256`, `HS384`, `HS512`, `RS256`, `ES256`, `EdDSA`.
    pub algorithms: Vec<String>,
    /// `None`: `sub`, else `user_id`.
    pub user_claim: Option<String>,
    /// One of these must be in `aud`. Empty: `aud` is not looked at.
    pub audience: Vec<String>,
    /// One of these must be `iss`. Empty: `iss` is not looked at.
    pub issuer: Vec<String>,
    /// How far the clocks of who issued a token and of this service may be apart.
    pub leeway: Duration,
    /// For tokens without `exp`: `created_at` (or `iat`) plus this. `None`: such tokens are refused.
    pub max_age_without_expiry: Option<Duration>,
}
