//! How tokens are checked: every field has a key in the configuration's `[auth]` table. Nothing here prints a secret.
//!
//! Refuses to know: how any of it is done.

use std::{fmt, path::PathBuf, time::Duration};

use url::Url;

use crate::{client::ClientSettings, proto::UserId};

/// How tokens are checked.
#[derive(Clone, Debug)]
pub enum Settings {
    /// One issuer.
    Jwt(Box<JwtSettings>),
    /// Several. A token goes to the one that its `iss` names among the `issuer` of each; to the one without any, if
    /// there is one, when none does.
    Issuers(Vec<JwtSettings>),
    /// Opaque tokens: a provider is asked about each.
    Introspection(Box<IntrospectionSettings>),
    /// Development only: everyone is this user and may do everything; without one, everyone is refused.
    None { user: Option<UserId> },
}

/// One issuer of JSON Web Tokens.
#[derive(Clone, Debug)]
pub struct JwtSettings {
    pub key: Key,
    /// Names as in RFC 7518: `HS256`, `HS384`, `HS512`, `RS256`, `ES256`, `EdDSA`. All of one family, but for keys from a
    /// key set, each of which says what it is.
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

/// Where the keys are.
#[derive(Clone)]
pub enum Key {
    /// For HS256, HS384, HS512.
    Secret(Vec<u8>),
    /// The same, with the one before it, while tokens signed with that are about. Those in files are read again.
    Secrets { current: Secret, previous: Option<Secret> },
    /// PEM, of one key or several: for RS256, ES256, `EdDSA`. Read again when it changes.
    PublicKeyFile(PathBuf),
    /// A JSON Web Key Set (RFC 7517): for RS256, ES256, `EdDSA`.
    KeySet(Box<KeySetSettings>),
}

impl Key {
    /// What new tokens are signed with, if it is here.
    #[must_use]
    pub fn signing_secret(&self) -> Option<&[u8]> {
        match self {
            Self::Secret(bytes) => Some(bytes),
            Self::Secrets { current, .. } => Some(&current.bytes),
            Self::PublicKeyFile(_) | Self::KeySet(_) => None,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(_) => f.write_str("Secret(…)"),
            Self::Secrets { .. } => f.write_str("Secrets(…)"),
            Self::PublicKeyFile(_) => f.write_str("PublicKeyFile(…)"),
            Self::KeySet(settings) => f.debug_tuple("KeySet").field(settings).finish(),
        }
    }
}

/// An address that is asked. What may be a secret in it is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(pub Url);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0.origin().ascii_serialization(), self.0.path())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// A secret, and the file that it is in.
#[derive(Clone)]
pub struct Secret {
    /// As it was when the configuration was read.
    pub bytes: Vec<u8>,
    pub file: Option<PathBuf>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Keys that an issuer publishes.
#[derive(Clone, Debug)]
pub struct KeySetSettings {
    pub place: KeySetPlace,
    /// How often they are fetched where the issuer's `Cache-Control` does not say.
    pub refresh: Duration,
    /// How long they are used while they cannot be fetched again.
    pub keep: Duration,
    pub client: ClientSettings,
}

/// Where a key set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySetPlace {
    Url(Address),
    File(PathBuf),
}

/// Opaque tokens: who knows them, and how they are asked.
#[derive(Clone, Debug)]
pub struct IntrospectionSettings {
    pub url: Address,
    pub question: Question,
    /// The claim that names the user. `None`: `sub`, else `user_id`, else, of a plain answer, `id`. With a `/` in front it
    /// is a JSON Pointer (RFC 6901).
    pub user_claim: Option<String>,
    /// As in [`JwtSettings`], of answers that say.
    pub audience: Vec<String>,
    pub issuer: Vec<String>,
    pub leeway: Duration,
    pub answers: AnswerSettings,
    /// Questions under way at most.
    pub concurrency_max: usize,
    pub client: ClientSettings,
}

impl IntrospectionSettings {
    /// With which this service signs in there.
    pub(super) fn own_secret(&self) -> Option<&Secret> {
        match &self.question {
            Question::Introspect(Credentials::Basic { secret, .. } | Credentials::Bearer(secret)) => Some(secret),
            Question::Introspect(Credentials::None) | Question::Present { .. } => None,
        }
    }
}

/// What the provider is asked.
#[derive(Clone, Debug)]
pub enum Question {
    /// RFC 7662: `POST` with the token as a form, in this service's own name.
    Introspect(Credentials),
    /// `GET` in the name of the token: `Authorization: <scheme> <token>`. 200 says that it is good and whose it is.
    Present { scheme: String },
}

/// How this service signs in to an introspection endpoint.
#[derive(Clone, Debug)]
pub enum Credentials {
    None,
    Basic { id: String, secret: Secret },
    Bearer(Secret),
}

/// How long, and how many, answers are remembered.
#[derive(Clone, Copy, Debug)]
pub struct AnswerSettings {
    /// That a token is good; so long a revoked one may still be used.
    pub good_for: Duration,
    /// That it is not.
    pub bad_for: Duration,
    /// Answers of either kind at most.
    pub max: usize,
}
