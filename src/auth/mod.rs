//! Who is this, and may they see this task: a token verifier and a pure access function.
//!
//! Refuses to know: sockets, where a token was found.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use crate::proto::{AuthenticationErrorCode, Task, TaskId, Topic, UserId};

/// What a token allows: the claim `taskcast`, or just one's own tasks without it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    pub own: bool,
    pub all: bool,
    pub tasks: BTreeSet<TaskId>,
    pub roots: BTreeSet<TaskId>,
    pub tags: BTreeSet<String>,
    pub publish: bool,
    pub cancel: bool,
}

/// A verified caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `None` only for tokens whose rights do not need one.
    pub user: Option<UserId>,
    pub rights: Rights,
    /// Milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
}

impl Identity {
    /// The access function: may this caller watch this task? Asked for every task before every delivery.
    #[must_use]
    pub fn may_watch(&self, _task: &Task) -> bool {
        todo!("auth helper")
    }

    /// May this caller subscribe to this topic? Naming a task or a group is always allowed, lest the answer tell
    /// whether it exists; what is delivered is decided per task by [`Identity::may_watch`]. `Owner` of another and
    /// `All` need the right to everything, a tag needs the right to it.
    #[must_use]
    pub fn may_subscribe(&self, _topic: &Topic) -> bool {
        todo!("auth helper")
    }

    /// What `/ws/tasks/` means to this caller: their own tasks; or, for a token without `own`, everything that it
    /// names.
    #[must_use]
    pub fn default_topics(&self) -> Vec<Topic> {
        todo!("auth helper")
    }

    /// May this caller ask to cancel this task?
    #[must_use]
    pub fn may_cancel(&self, task: &Task) -> bool {
        self.rights.cancel && self.may_watch(task)
    }
}

/// Why a token was refused. The message is for the front end's developer and never contains the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticationError {
    pub code: AuthenticationErrorCode,
    pub message: String,
}

/// Where the key is.
#[derive(Clone)]
pub enum Key {
    /// For HS256, HS384, HS512.
    Secret(Vec<u8>),
    /// PEM: for RS256, ES256, EdDSA.
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
    pub audience: Vec<String>,
    pub issuer: Vec<String>,
    pub leeway: Duration,
    /// For tokens without `exp`: `created_at` (or `iat`) plus this. `None`: such tokens are refused.
    pub max_age_without_expiry: Option<Duration>,
}

/// Checks tokens. Cheap to clone.
#[derive(Clone)]
pub struct Verifier {}

impl Verifier {
    /// # Errors
    /// An algorithm, key or combination that cannot be used, in words for the operator.
    pub fn new(_settings: Settings) -> Result<Self, String> {
        todo!("auth helper")
    }

    /// Who is this? `token` is `None` when the client brought none.
    ///
    /// # Errors
    /// [`AuthenticationError`] with the code for the client.
    pub fn verify(&self, _token: Option<&str>, _unix_ms: u64) -> Result<Identity, AuthenticationError> {
        todo!("auth helper")
    }

    /// A caller without a token would be let in (mode `none`), or could not bring one later.
    #[must_use]
    pub fn needs_token(&self) -> bool {
        todo!("auth helper")
    }
}
