//! A revocation: tokens that hold no longer. It stands in the log as an object whose one key is `revoke`, among the
//! events, so every replica reads it in its place and reads it again.
//!
//! Refuses to know: tokens, and how long a revocation is kept.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Malformed, MalformedReason, UserId, json_writer::ObjectWriter, timestamp};

/// The longest `jti` that can be revoked, in bytes.
pub const TOKEN_ID_MAX_BYTES: usize = 255;

/// The key of a revocation in the log.
const KEY: &str = "revoke";

/// Which tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// The one with this `jti`.
    Token(Arc<str>),
    /// Those of a user that were issued before a moment. `None`: before the log took the revocation.
    User { user_id: UserId, issued_before_ms: Option<u64> },
}

/// A record of the log that is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub revoked: Revoked,
    /// When the last of these tokens expires, if that is known: after it the revocation means nothing.
    pub expires_at_ms: Option<u64>,
}

/// A token is taken for a while after it has ended, by whoever's clock is behind; no service may be told to wait longer.
const LEEWAY_MAX_MS: u64 = 3_600_000;

/// How far the clock of whoever revokes may be ahead.
const AHEAD_MAX_MS: u64 = 60_000;

impl Revocation {
    /// Until when it may matter, if it says: its tokens are refused by everybody from then on.
    #[must_use]
    pub fn holds_until_ms(&self) -> Option<u64> {
        self.expires_at_ms.map(|at_ms| at_ms.saturating_add(LEEWAY_MAX_MS))
    }

    /// As it goes into the log: a user's always gets its moment here, as not every log says when it took what.
    ///
    /// # Errors
    /// It would mean nothing: its tokens have all ended, or do not exist yet.
    pub fn dated(mut self, now_ms: u64) -> Result<Self, Malformed> {
        if let Revoked::User { issued_before_ms, .. } = &mut self.revoked {
            let before_ms = *issued_before_ms.get_or_insert(now_ms);
            if before_ms > now_ms.saturating_add(AHEAD_MAX_MS) {
                let detail = "must not be in the future: tokens that do not exist yet cannot be revoked";
                return Err(wrong(MalformedReason::Value, "issued_before", detail));
            }
        }
        if self.holds_until_ms().is_some_and(|until_ms| until_ms <= now_ms) {
            let detail = "must not be past: what has ended needs no revocation";
            return Err(wrong(MalformedReason::Value, "expires_at", detail));
        }
        Ok(self)
    }

    /// Reads a record of the log that is no event; `None` when it is no revocation either.
    #[must_use]
    pub fn from_record(bytes: &[u8]) -> Option<Result<Self, Malformed>> {
        let record: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
        let object = record.get(KEY)?;
        Some(match object {
            Value::Object(object) => read(object),
            _ => Err(wrong(MalformedReason::Type, "", "must be an object")),
        })
    }

    /// Reads the object by itself.
    ///
    /// # Errors
    /// [`Malformed`] names the first rule that is broken.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Malformed> {
        let object: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|_| Malformed::new(MalformedReason::Syntax, None, "the body is not a JSON object"))?;
        read(&object)
    }

    /// The object by itself.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let mut object = ObjectWriter::begin(&mut out);
        self.write(&mut object);
        object.end();
        out
    }

    /// As it stands in the log.
    #[must_use]
    pub fn to_record(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let mut object = ObjectWriter::begin(&mut out);
        object.object(KEY, |object| self.write(object));
        object.end();
        out
    }

    fn write(&self, object: &mut ObjectWriter<'_>) {
        match &self.revoked {
            Revoked::Token(id) => object.string("jti", id),
            Revoked::User { user_id, issued_before_ms } => {
                object.string("user_id", user_id.as_str());
                object.moment_if("issued_before", *issued_before_ms);
            }
        }
        object.moment_if("expires_at", self.expires_at_ms);
    }
}

fn wrong(reason: MalformedReason, field: &str, detail: impl Into<String>) -> Malformed {
    let field = if field.is_empty() { KEY.to_owned() } else { format!("{KEY}.{field}") };
    Malformed::new(reason, Some(&field), detail)
}

/// Unknown fields are ignored: a later version that adds one must still be obeyed.
fn read(object: &Map<String, Value>) -> Result<Revocation, Malformed> {
    let given = |name: &str| object.get(name).filter(|value| !value.is_null());
    let revoked = match (given("jti"), given("user_id")) {
        (Some(id), None) => {
            if given("issued_before").is_some() {
                return Err(wrong(MalformedReason::Value, "issued_before", "goes with user_id"));
            }
            Revoked::Token(token_id(id)?)
        }
        (None, Some(user)) => Revoked::User {
            user_id: user_id(user)?,
            issued_before_ms: moment("issued_before", given("issued_before"))?,
        },
        (Some(_), Some(_)) => return Err(wrong(MalformedReason::Value, "", "names either jti or user_id, not both")),
        (None, None) => return Err(wrong(MalformedReason::Missing, "", "needs jti or user_id")),
    };
    Ok(Revocation { revoked, expires_at_ms: moment("expires_at", given("expires_at"))? })
}

fn token_id(value: &Value) -> Result<Arc<str>, Malformed> {
    let Some(id) = value.as_str() else { return Err(wrong(MalformedReason::Type, "jti", "must be a string")) };
    if id.len() > TOKEN_ID_MAX_BYTES {
        let detail = format!("has {} bytes, more than {TOKEN_ID_MAX_BYTES}", id.len());
        return Err(wrong(MalformedReason::TooLarge, "jti", detail));
    }
    if id.is_empty() {
        return Err(wrong(MalformedReason::Value, "jti", "must not be empty"));
    }
    Ok(id.into())
}

fn user_id(value: &Value) -> Result<UserId, Malformed> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        _ => return Err(wrong(MalformedReason::Type, "user_id", "must be a string or an integer")),
    };
    UserId::parse(&text).map_err(|error| wrong(MalformedReason::Value, "user_id", error.to_string()))
}

/// Unlike an event's, a date that cannot be read is a mistake: guessing would let tokens live.
fn moment(field: &str, value: Option<&Value>) -> Result<Option<u64>, Malformed> {
    let Some(value) = value else { return Ok(None) };
    let read = match value {
        Value::String(text) => timestamp::parse(text),
        Value::Number(number) => number.as_f64().and_then(timestamp::from_number),
        _ => None,
    };
    let detail = "must be RFC 3339 with an offset, or seconds or milliseconds since 1970";
    read.map(Some).ok_or_else(|| wrong(MalformedReason::Value, field, detail))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW_MS: u64 = 1_790_000_000_000;

    fn dated(body: &str) -> Result<Revocation, Malformed> {
        Revocation::from_json(body.as_bytes())?.dated(NOW_MS)
    }

    #[test]
    fn a_user_is_revoked_up_to_now_unless_another_moment_is_named() {
        let before = |body: &str| match dated(body).unwrap().revoked {
            Revoked::User { issued_before_ms, .. } => issued_before_ms,
            Revoked::Token(_) => None,
        };
        assert_eq!(before(r#"{"user_id":"u1"}"#), Some(NOW_MS));
        assert_eq!(before(r#"{"user_id":"u1","issued_before":1789999999}"#), Some(1_789_999_999_000));
        assert_eq!(before(r#"{"jti":"a"}"#), None);
    }

    #[test]
    fn the_future_cannot_be_revoked_but_for_a_clock_that_is_ahead() {
        let of = |ms: u64| dated(&json!({"user_id": "u1", "issued_before": ms}).to_string());
        assert!(of(NOW_MS + AHEAD_MAX_MS).is_ok());
        let refused = of(NOW_MS + AHEAD_MAX_MS + 1).unwrap_err();
        assert_eq!(refused.field.as_deref(), Some("revoke.issued_before"));
    }

    #[test]
    fn a_revocation_that_would_mean_nothing_is_refused_and_one_within_the_leeway_is_not() {
        let of = |ms: u64| dated(&json!({"jti": "a", "expires_at": ms / 1000}).to_string());
        assert!(of(NOW_MS - 60_000).is_ok(), "until then some still take the token");
        assert_eq!(of(1_000).unwrap_err().field.as_deref(), Some("revoke.expires_at"));
    }
}
