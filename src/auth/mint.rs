//! Tokens signed with the configured secret: for development, and share links. In production an application's own
//! back end signs its users' tokens.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Map, Value, json};

use super::{JwtSettings, claims, keys};
use crate::proto::UserId;

/// What a token shall say.
#[derive(Clone, Debug, Default)]
pub struct NewToken {
    pub user: Option<UserId>,
    /// `own`, `task:<id>`, `root:<id>`, `tag:<name>`, `all`.
    pub watch: Vec<String>,
    pub publish: bool,
    pub cancel: bool,
    pub revoke: bool,
    /// Its `jti`, by which it can be revoked.
    pub id: Option<String>,
    /// From now to `exp`, in whole seconds.
    pub lifetime: Duration,
}

/// Signs a token, issued at `unix_ms`, that a verifier with the same settings accepts.
///
/// # Errors
/// Settings without a secret, a watch entry that means nothing, or `own` without a user, in words for the caller.
pub fn mint(settings: &JwtSettings, token: &NewToken, unix_ms: u64) -> Result<String, String> {
    let Some(secret) = settings.key.signing_secret() else {
        let whose = settings.issuer.first().map_or("this service's issuer".to_owned(), |name| format!("`{name}`"));
        return Err(format!(
            "a token can be signed here with a secret only (HS256, HS384, HS512), and of {whose} there are public keys: \
             whoever holds the private key must sign"
        ));
    };
    for entry in &token.watch {
        if !claims::is_watch_entry(entry) {
            return Err(format!("`{entry}` is none of own, all, task:<id>, root:<id>, tag:<name>"));
        }
    }
    if token.user.is_none() && token.watch.iter().any(|entry| entry == "own") {
        return Err("a token that may watch its `own` tasks needs a user".to_owned());
    }
    let name = settings.algorithms.first().ok_or("no algorithm is configured")?;
    let claims = claims_of(settings, token, unix_ms / 1000);
    encode(&Header::new(keys::algorithm(name)?), &claims, &EncodingKey::from_secret(secret))
        .map_err(|error| format!("could not sign: {error}"))
}

fn claims_of(settings: &JwtSettings, token: &NewToken, unix_seconds: u64) -> Map<String, Value> {
    let mut claims = Map::new();
    if let Some(user) = &token.user {
        claims.insert(settings.user_claim.as_deref().unwrap_or("sub").to_owned(), json!(user));
    }
    if let Some(audience) = settings.audience.first() {
        claims.insert("aud".to_owned(), json!(audience));
    }
    if let Some(issuer) = settings.issuer.first() {
        claims.insert("iss".to_owned(), json!(issuer));
    }
    claims.insert("iat".to_owned(), json!(unix_seconds));
    claims.insert("exp".to_owned(), json!(unix_seconds.saturating_add(token.lifetime.as_secs())));
    claims.insert(
        "taskcast".to_owned(),
        json!({ "watch": token.watch, "publish": token.publish, "cancel": token.cancel, "revoke": token.revoke }),
    );
    if let Some(id) = &token.id {
        claims.insert("jti".to_owned(), json!(id));
    }
    claims
}
