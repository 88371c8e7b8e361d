//! Signature first, claims after: what a forged token claims, its expiry included, is never believed or reported.

use std::sync::Arc;

use jsonwebtoken::{DecodingKey, Validation, decode, errors::ErrorKind};
use serde_json::{Map, Value};

use super::{
    AuthenticationError, Identity, Issued, JwtSettings, Key, PublishRight, Revocations, Rights, Settings, claims, keys,
};
use crate::proto::{AuthenticationErrorCode, UserId};

/// A longer token is refused unread. Headers and cookies that carry one end at about this size anyway.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;

/// Checks tokens. Cheap to clone.
#[derive(Clone)]
pub struct Verifier(Arc<Parts>);

struct Parts {
    inner: Arc<Inner>,
    revocations: Revocations,
}

enum Inner {
    Jwt(Box<Jwt>),
    Open(Option<UserId>),
}

struct Jwt {
    key: DecodingKey,
    validation: Validation,
    settings: JwtSettings,
}

impl Verifier {
    /// Reads the key file, if there is one.
    ///
    /// # Errors
    /// An algorithm, key or combination that cannot be used, in words for the operator.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let settings = match settings {
            Settings::None { user } => return Ok(Self::of(Inner::Open(user))),
            Settings::Jwt(settings) => *settings,
        };
        let family = keys::family(&settings.algorithms)?;
        let key = match (&settings.key, family) {
            (Key::Secret(secret), keys::Family::Secret { .. }) if !secret.is_empty() => {
                DecodingKey::from_secret(secret)
            }
            (Key::Secret(_), keys::Family::Secret { .. }) => return Err("the secret is empty".to_owned()),
            (Key::Secret(_), _) => {
                return Err(format!("{} needs a public key, not a secret", settings.algorithms.join(", ")));
            }
            (Key::PublicKeyFile(path), family) => {
                let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
                keys::public_key(family, &pem).map_err(|why| format!("{}: {why}", path.display()))?
            }
        };
        let validation = validation(&settings)?;
        Ok(Self::of(Inner::Jwt(Box::new(Jwt { key, validation, settings }))))
    }

    fn of(inner: Inner) -> Self {
        Self(Arc::new(Parts { inner: Arc::new(inner), revocations: Revocations::default() }))
    }

    /// The same, which refuses what is revoked there.
    #[must_use]
    pub fn with_revocations(self, revocations: Revocations) -> Self {
        Self(Arc::new(Parts { inner: self.0.inner.clone(), revocations }))
    }

    /// What it refuses although the token is good otherwise.
    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.0.revocations
    }

    /// Who is this? `token` is `None` when the client brought none; `unix_ms` is now, in milliseconds.
    ///
    /// # Errors
    /// [`AuthenticationError`] with the code for the client.
    pub fn verify(&self, token: Option<&str>, unix_ms: u64) -> Result<Identity, AuthenticationError> {
        let identity = match &*self.0.inner {
            Inner::Open(user) => everything_for(user.as_ref()),
            Inner::Jwt(jwt) => jwt.verify(token, unix_ms),
        }?;
        if self.0.revocations.is_revoked(&identity) { Err(AuthenticationError::revoked()) } else { Ok(identity) }
    }

    /// A caller without a token is refused. Not so in mode `none`, where a token would not be looked at.
    #[must_use]
    pub fn needs_token(&self) -> bool {
        matches!(*self.0.inner, Inner::Jwt(_))
    }
}

impl Jwt {
    fn verify(&self, token: Option<&str>, unix_ms: u64) -> Result<Identity, AuthenticationError> {
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            return Err(AuthenticationError {
                code: AuthenticationErrorCode::AuthRequired,
                message: "no token was provided".to_owned(),
            });
        };
        if token.len() > TOKEN_MAX_BYTES {
            return Err(AuthenticationError::invalid(format!("the token is longer than {TOKEN_MAX_BYTES} bytes")));
        }
        let decoded = decode::<Map<String, Value>>(token, &self.key, &self.validation)
            .map_err(|error| AuthenticationError::invalid(refusal(error.kind())))?;
        // RFC 7515 section 4.1.11: what must be understood and is not makes a token invalid.
        if decoded.header.crit.is_some() {
            return Err(AuthenticationError::invalid("the token's header has a `crit` that is not understood"));
        }
        claims::identity(&decoded.claims, &self.settings, unix_ms)
    }
}

/// What the library checks: the signature, the algorithm, `aud` and `iss`. Times are checked in `claims`, against the
/// caller's clock: the library would read its own.
fn validation(settings: &JwtSettings) -> Result<Validation, String> {
    let algorithms = settings.algorithms.iter().map(|name| keys::algorithm(name)).collect::<Result<Vec<_>, _>>()?;
    let mut validation = Validation::new(algorithms.first().copied().ok_or("no algorithm is configured")?);
    validation.algorithms = algorithms;
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = !settings.audience.is_empty();
    if !settings.audience.is_empty() {
        validation.set_audience(&settings.audience);
        validation.required_spec_claims.insert("aud".to_owned());
    }
    if !settings.issuer.is_empty() {
        validation.set_issuer(&settings.issuer);
        validation.required_spec_claims.insert("iss".to_owned());
    }
    Ok(validation)
}

/// The library's own texts can quote the token.
fn refusal(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSignature => "the token's signature does not match",
        ErrorKind::InvalidAlgorithm => "the token is signed with an algorithm that this service does not accept",
        ErrorKind::InvalidAudience => "the token is meant for another service: claim `aud`",
        ErrorKind::InvalidIssuer => "the token comes from an issuer that this service does not know: claim `iss`",
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => "the token lacks a readable claim `aud`",
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => "the token lacks a readable claim `iss`",
        _ => "this is not a signed JSON Web Token that can be read",
    }
}

/// Mode `none`: everyone is the configured user and may do everything.
fn everything_for(user: Option<&UserId>) -> Result<Identity, AuthenticationError> {
    let Some(user) = user else {
        return Err(AuthenticationError {
            code: AuthenticationErrorCode::NoUserAvailable,
            message: "tokens are not checked (auth.mode = \"none\") and no development user is configured: set \
                      auth.user (TASKCAST_AUTH_USER)"
                .to_owned(),
        });
    };
    let publish = PublishRight::everything();
    let rights = Rights { own: true, all: true, publish, cancel: true, revoke: true, ..Rights::default() };
    // Without a token there is none that could be revoked.
    let issued = Some(Box::new(Issued { token_id: None, at_ms: Some(u64::MAX) }));
    Ok(Identity { user: Some(user.clone()), rights, expires_at_ms: None, issued })
}
