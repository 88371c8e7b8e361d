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
    proto::{Malformed, Revocation},
};

/// A revocation has two short texts and two dates.
const BODY_MAX_BYTES: usize = 4096;

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
    let revocation = Revocation::from_json(&body).and_then(|revocation| revocation.dated(clock::now().unix_ms));
    let revocation = revocation.map_err(|error| malformed(&error))?;
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

fn malformed(error: &Malformed) -> HttpError {
    let detail = "Nothing was revoked; `field` and `reason` say why.";
    HttpError::new(StatusCode::BAD_REQUEST, "malformed-revocation", "The revocation is malformed", detail)
        .with_member("field", json!(error.field))
        .with_member("reason", json!(error.reason.as_str()))
        .with_member("error", json!(error.detail))
}
