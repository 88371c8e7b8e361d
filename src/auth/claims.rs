//! What a verified token says: user, rights, from when and until when.

use std::sync::Arc;

use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{AuthenticationError, Identity, Issued, JwtSettings, PublishRight, Rights};
use crate::proto::{TIMESTAMP_MAX_MS, TOKEN_ID_MAX_BYTES, TaskId, UserId};

type Claims = Map<String, Value>;

/// The claim that holds a token's rights.
const RIGHTS_CLAIM: &str = "taskcast";

/// Where the kind of a token is said: `type` by hand-made tokens, `token_type` by Django's Simple JWT.
const KIND_CLAIMS: [&str; 2] = ["type", "token_type"];

/// Reads the claims of a token whose signature has been checked. What is wrong with a token for ever is said before
/// what time has done to it: another token like it would not help.
pub(super) fn identity(claims: &Claims, settings: &JwtSettings, unix_ms: u64) -> Result<Identity, AuthenticationError> {
    if KIND_CLAIMS.iter().any(|kind| claims.get(*kind).and_then(Value::as_str) == Some("refresh")) {
        return Err(AuthenticationError::invalid("a refresh token cannot be used here"));
    }
    let rights = rights(claims)?;
    let user = user(claims, settings.user_claim.as_deref())?;
    if rights.own && user.is_none() {
        let claim = settings.user_claim.as_deref().map_or("`sub` or `user_id`".to_owned(), |name| format!("`{name}`"));
        return Err(AuthenticationError::invalid(format!("the token lacks the claim {claim}, which says whose it is")));
    }
    let leeway_ms = u64::try_from(settings.leeway.as_millis()).unwrap_or(u64::MAX);
    let valid_from_ms = numeric_date(claims, "nbf")?;
    if valid_from_ms.is_some_and(|from| from > unix_ms.saturating_add(leeway_ms)) {
        return Err(AuthenticationError::invalid("the token is not valid yet: claim `nbf`"));
    }
    // A later moment has no text, and is as good as never.
    let expires_at_ms = expiry(claims, settings, unix_ms, leeway_ms)?.saturating_add(leeway_ms).min(TIMESTAMP_MAX_MS);
    if expires_at_ms <= unix_ms {
        return Err(AuthenticationError::expired("the token has expired"));
    }
    let issued = Issued { token_id: token_id(claims)?, at_ms: issued_at(claims), opaque: None };
    let issued = (issued != Issued::default()).then(|| Box::new(issued));
    Ok(Identity { user, rights, expires_at_ms: Some(expires_at_ms), issued })
}

/// Is this an entry that `watch` knows, with an identifier that can be one?
pub(super) fn is_watch_entry(entry: &str) -> bool {
    grant(&mut Rights::default(), entry) == Ok(true)
}

fn rights(claims: &Claims) -> Result<Rights, AuthenticationError> {
    let Some(claim) = claims.get(RIGHTS_CLAIM) else {
        return Ok(Rights { own: true, ..Rights::default() });
    };
    let wrong = |what: &str| AuthenticationError::invalid(format!("claim `{RIGHTS_CLAIM}`{what}"));
    let claim = claim.as_object().ok_or_else(|| wrong(" must be an object"))?;
    let flag = |name: &str| match claim.get(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(wrong(&format!(": `{name}` must be true or false"))),
    };
    let publish = PublishRight::of(claim.get("publish")).map_err(|why| wrong(&format!(": `publish` {why}")))?;
    let (cancel, revoke) = (flag("cancel")?, flag("revoke")?);
    let mut rights = Rights { publish, cancel, revoke, ..Rights::default() };
    let not_a_list = || wrong(": `watch` must be an array of strings");
    // With the claim but without `watch` nothing may be watched: a worker's token only publishes.
    let watch = claim.get("watch").map_or(Ok(&[][..]), |w| w.as_array().map(Vec::as_slice).ok_or_else(not_a_list))?;
    for (index, entry) in watch.iter().enumerate() {
        let entry = entry.as_str().ok_or_else(not_a_list)?;
        // An entry that is not known here grants nothing; a later version may know it.
        grant(&mut rights, entry).map_err(|why| wrong(&format!(": `watch[{index}]`: the identifier {why}")))?;
    }
    Ok(rights)
}

/// Adds what one entry of `watch` allows. `Ok(false)`: an entry of a kind that is not known.
fn grant(rights: &mut Rights, entry: &str) -> Result<bool, String> {
    let id = |text: &str| TaskId::parse(text).map_err(|why| why.to_string());
    match entry.split_once(':') {
        None if entry == "own" => rights.own = true,
        None if entry == "all" => rights.all = true,
        Some(("task", task)) => drop(rights.tasks.insert(id(task)?)),
        Some(("root", root)) => drop(rights.roots.insert(id(root)?)),
        Some(("tag", "")) => return Err("must not be empty".to_owned()),
        Some(("tag", tag)) => drop(rights.tags.insert(tag.to_owned())),
        _ => return Ok(false),
    }
    Ok(true)
}

/// `jti`. One that is too long cannot be revoked by it, only with its user.
fn token_id(claims: &Claims) -> Result<Option<Arc<str>>, AuthenticationError> {
    let text = match claims.get("jti") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => Arc::from(text.as_str()),
        Some(Value::Number(number)) => number.to_string().into(),
        Some(_) => return Err(AuthenticationError::invalid("claim `jti` must be a string")),
    };
    Ok(Some(text).filter(|text: &Arc<str>| text.len() <= TOKEN_ID_MAX_BYTES))
}

/// What cannot be read is as good as absent: a token with `exp` needs it for revocations only.
fn issued_at(claims: &Claims) -> Option<u64> {
    numeric_date(claims, "iat").ok().flatten().or_else(|| created_at(claims).ok().flatten())
}

fn user(claims: &Claims, configured: Option<&str>) -> Result<Option<UserId>, AuthenticationError> {
    let present = |name: &&str| claims.get(*name).is_some_and(|value| !value.is_null());
    let Some(name) =
        configured.into_iter().chain(["sub", "user_id"].into_iter().filter(|_| configured.is_none())).find(present)
    else {
        return Ok(None);
    };
    let wrong = |what: &str| AuthenticationError::invalid(format!("claim `{name}` {what}"));
    let text = match claims.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if number.is_u64() || number.is_i64() => number.to_string(),
        _ => return Err(wrong("must be a string or an integer")),
    };
    UserId::parse(&text).map(Some).map_err(|why| wrong(&why.to_string()))
}

/// `exp`, or what stands in for it, in milliseconds and without leeway.
fn expiry(claims: &Claims, settings: &JwtSettings, unix_ms: u64, leeway_ms: u64) -> Result<u64, AuthenticationError> {
    // RFC 7519 allows a fraction; but when a token ends must not depend on how somebody rounds.
    if claims.get("exp").is_some_and(serde_json::Value::is_f64) {
        return Err(AuthenticationError::invalid("claim `exp` must be a whole number of seconds since 1970"));
    }
    if let Some(expires) = numeric_date(claims, "exp")? {
        return Ok(expires);
    }
    let Some(max_age) = settings.max_age_without_expiry else {
        return Err(AuthenticationError::invalid("the token never expires: claim `exp` is missing"));
    };
    let Some(issued) = created_at(claims)?.map_or_else(|| numeric_date(claims, "iat"), |at| Ok(Some(at)))? else {
        return Err(AuthenticationError::invalid(
            "the token has neither `exp`, nor `created_at` or `iat` to judge its age by",
        ));
    };
    // Otherwise a clock gone wrong at the issuer's would make tokens that live for years.
    if issued > unix_ms.saturating_add(leeway_ms) {
        return Err(AuthenticationError::invalid("the token was issued in the future: claim `created_at` or `iat`"));
    }
    Ok(issued.saturating_add(u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX)))
}

/// A `NumericDate` of RFC 7519 in milliseconds: seconds, fractions allowed.
fn numeric_date(claims: &Claims, name: &str) -> Result<Option<u64>, AuthenticationError> {
    match claims.get(name) {
        None => return Ok(None),
        Some(Value::Number(number)) => seconds_to_ms(number).map(Some),
        Some(_) => None,
    }
    .ok_or_else(|| AuthenticationError::invalid(format!("claim `{name}` must be a number of seconds since 1970")))
}

fn seconds_to_ms(number: &serde_json::Number) -> Option<u64> {
    if let Some(whole) = number.as_u64() {
        return Some(whole.saturating_mul(1000));
    }
    // The cast saturates; what is not below it is not a date.
    number.as_f64().filter(|seconds| seconds.is_finite() && *seconds >= 0.0).map(|seconds| (seconds * 1000.0) as u64)
}

/// `created_at` in milliseconds: RFC 3339, Python's `%Y-%m-%d %H:%M:%S %z`, or seconds since 1970. A text without an
/// offset could mean any zone and is refused.
fn created_at(claims: &Claims) -> Result<Option<u64>, AuthenticationError> {
    let parsed = match claims.get("created_at") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => seconds_to_ms(number),
        Some(Value::String(text)) => text_date(text),
        Some(_) => None,
    };
    parsed.map(Some).ok_or_else(|| {
        AuthenticationError::invalid(
            "claim `created_at` must be like 2026-10-01T12:00:00Z or 2026-10-01 12:00:00 +0000",
        )
    })
}

fn text_date(text: &str) -> Option<u64> {
    let rfc3339 = match text.split(' ').collect::<Vec<_>>()[..] {
        [whole] => whole.to_owned(),
        [date, time] => format!("{date}T{time}"),
        [date, time, offset] if offset.is_ascii() && offset.len() == 5 => {
            format!("{date}T{time}{}:{}", &offset[..3], &offset[3..])
        }
        [date, time, offset] => format!("{date}T{time}{offset}"),
        _ => return None,
    };
    let at = OffsetDateTime::parse(&rfc3339, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}
