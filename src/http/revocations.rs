//! `POST /api/v1/revocations`: tokens that hold no longer, into the log, from which every replica learns of them.
//!
//! Refuses to know: what becomes of open connections.

use futures_util::Stream;
use serde_json::{Value, json};
use tokio::time::timeout;
use warp::{
    Buf,
    http::{HeaderValue, StatusCode, header},
    reply::Response,
};

use super::{
    Context, RETRY_AFTER_SECONDS, events,
    head::Head,
    problem::{HttpError, respond},
    rest,
};
use crate::{
    clock,
    proto::{Malformed, MalformedReason, Revocation, Revoked},
};

/// A revocation has two short texts and two dates.
const BODY_MAX_BYTES: usize = 4096;

/// How far the clock of who asks may be ahead.
const AHEAD_MAX_MS: u64 = 60_000;

/// Answers one request.
///
/// # Errors
/// 401 and 403 for callers without the right to revoke, 400 and 413 for what cannot be read; 503 when the log did not
/// take it.
pub(super) async fn revoke<S, B>(context: &Context, head: &Head, body: S) -> Result<Response, HttpError>
where
    S: Stream<Item = Result<B, warp::Error>>,
    B: Buf,
{
    let identity = rest::identify_within_limits(context, head, rest::REQUEST_WEIGHT).await?;
    if !identity.rights.revoke {
        let detail = "The token does not allow to revoke; it lacks \"revoke\": true in its claim `taskcast`.";
        return Err(HttpError::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail));
    }
    let limit = BODY_MAX_BYTES.min(context.settings.body_max_bytes);
    let body = timeout(context.settings.header_timeout, events::read(head, body, limit)).await;
    let body = body.map_err(|_| events::body_timed_out())??;
    let revocation = dated(&body, clock::now().unix_ms).map_err(|error| malformed(&error))?;
    match context.publisher.revoke(&revocation).await {
        Ok(position) => {
            let revoked: Value = serde_json::from_slice(&revocation.to_json()).unwrap_or_default();
            let body = json!({ "revoked": revoked, "position": position.map(|position| position.to_string()) });
            Ok(respond(StatusCode::ACCEPTED, "application/json", body.to_string()))
        }
        Err(error) => {
            tracing::warn!(detail = error.detail, "a revocation was not appended");
            let detail = "The log has not confirmed the revocation; ask again.";
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Err(HttpError::new(status, "log-unavailable", "The log did not take the revocation", detail)
                .with_header(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS)))
        }
    }
}

/// A user's always gets its moment here: not every log says when it took what.
fn dated(body: &[u8], now_ms: u64) -> Result<Revocation, Malformed> {
    let mut revocation = Revocation::from_json(body)?;
    if let Revoked::User { issued_before_ms, .. } = &mut revocation.revoked {
        let before_ms = *issued_before_ms.get_or_insert(now_ms);
        if before_ms > now_ms.saturating_add(AHEAD_MAX_MS) {
            return Err(Malformed {
                reason: MalformedReason::Value,
                field: Some("revoke.issued_before".to_owned()),
                detail: "must not be in the future: tokens that do not exist yet cannot be revoked".to_owned(),
            });
        }
    }
    if revocation.holds_until_ms().is_some_and(|until_ms| until_ms <= now_ms) {
        return Err(Malformed {
            reason: MalformedReason::Value,
            field: Some("revoke.expires_at".to_owned()),
            detail: "must not be past: what has ended needs no revocation".to_owned(),
        });
    }
    Ok(revocation)
}

fn malformed(error: &Malformed) -> HttpError {
    let detail = "Nothing was revoked; `field` and `reason` say why.";
    HttpError::new(StatusCode::BAD_REQUEST, "malformed-revocation", "The revocation is malformed", detail)
        .with_member("field", json!(error.field))
        .with_member("reason", json!(error.reason.as_str()))
        .with_member("error", json!(error.detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_790_000_000_000;

    #[test]
    fn a_user_is_revoked_up_to_now_unless_another_moment_is_named() {
        let before = |body: &str| match dated(body.as_bytes(), NOW_MS).unwrap().revoked {
            Revoked::User { issued_before_ms, .. } => issued_before_ms,
            Revoked::Token(_) => None,
        };
        assert_eq!(before(r#"{"user_id":"u1"}"#), Some(NOW_MS));
        assert_eq!(before(r#"{"user_id":"u1","issued_before":1789999999}"#), Some(1_789_999_999_000));
        assert_eq!(before(r#"{"jti":"a"}"#), None);
    }

    #[test]
    fn the_future_cannot_be_revoked_but_for_a_clock_that_is_ahead() {
        let of = |ms: u64| dated(json!({"user_id": "u1", "issued_before": ms}).to_string().as_bytes(), NOW_MS);
        assert!(of(NOW_MS + AHEAD_MAX_MS).is_ok());
        let refused = of(NOW_MS + AHEAD_MAX_MS + 1).unwrap_err();
        assert_eq!(refused.field.as_deref(), Some("revoke.issued_before"));
    }

    #[test]
    fn a_revocation_that_would_mean_nothing_is_refused_and_one_within_the_leeway_is_not() {
        let of = |ms: u64| dated(json!({"jti": "a", "expires_at": ms / 1000}).to_string().as_bytes(), NOW_MS);
        assert!(of(NOW_MS - 60_000).is_ok(), "until then some still take the token");
        assert_eq!(of(1_000).unwrap_err().field.as_deref(), Some("revoke.expires_at"));
    }
}
