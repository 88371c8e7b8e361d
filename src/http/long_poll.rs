//! `GET /api/v1/tasks/{id}`, with or without waiting for it: `?wait=30s&after=<cursor>`, for scripts.
//!
//! Refuses to know: how a change is noticed.

use std::{future, str::FromStr, time::Duration};

use warp::{
    http::{HeaderValue, StatusCode, header},
    reply::Response,
};

use super::{
    Context,
    event_stream::Lending,
    head::Head,
    problem::{HttpError, respond},
    refusal, rest,
    upgrade::{draining_error, task_id},
};
use crate::{
    auth::{AuthenticationError, Identity},
    clock,
    proto::{Cursor, Encoding, payload},
    session::Question,
};

/// Where these addresses begin.
pub(super) const PATHS: &str = "/api/v1/tasks/";

/// The longest `wait`: what proxies allow a response to take.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// Answers one request. Who closes their connection meanwhile waits no longer.
///
/// # Errors
/// 401, or 403, for somebody who is not known; 400 for an option with an impossible value; 404, the same for a task that
/// does not exist and for one that the caller may not see; 429 when too many of a user or an address wait; 503 for who waited
/// for a task to begin at a replica that ends first.
pub(super) async fn task(
    context: &Context,
    head: &Head,
    segment: &str,
    lending: Option<Lending>,
) -> Result<Response, HttpError> {
    let identity = rest::identify_within_limits(context, head, rest::REQUEST_WEIGHT).await?;
    let task_id = task_id(segment)?;
    let (wait, after) = (wait(head)?, after(head)?);
    let now = clock::now();
    let waits = !wait.is_zero();
    // Who comes to a replica that ends has been told to come elsewhere, and need not be held up.
    let wait = if context.draining.is_cancelled() { Duration::ZERO } else { wait };
    let ends = identity.expires_at_ms.map_or(now.instant + wait, |at_ms| now.instant_at(at_ms));
    let question = Question { identity: &identity, task_id, after, until: ends.min(now.instant + wait) };
    let _place = match head.client {
        Some(client) if !wait.is_zero() => client.stay(&context.limits).map_err(refusal::of)?,
        _ => None,
    };
    let answer = tokio::select! {
        biased;
        answer = context.sessions.answer(question) => answer.map_err(refusal::of)?,
        () = left(lending) => return Ok(nothing_new(true)),
    };
    still_holds(context, &identity)?;
    match (answer, after) {
        (Some(frame), _) => Ok(respond(StatusCode::OK, "application/json", payload(&frame.bytes(Encoding::Json)))),
        (None, Some(_)) => Ok(nothing_new(context.draining.is_cancelled())),
        // It may begin within the time that was asked for, and another replica sees it.
        (None, None) if waits && context.draining.is_cancelled() => Err(draining_error()),
        (None, None) => Err(HttpError::not_found()),
    }
}

/// A token may have ended while something was waited for.
fn still_holds(context: &Context, identity: &Identity) -> Result<(), HttpError> {
    let error = if context.verifier.revocations().is_revoked(identity) {
        AuthenticationError::revoked()
    } else if identity.expires_at_ms.is_some_and(|at_ms| at_ms <= clock::now().unix_ms) {
        AuthenticationError::expired("the token has expired")
    } else {
        return Ok(());
    };
    context.metrics.authentication_failed(error.code);
    Err(rest::unauthenticated(&error, true))
}

/// Comes when nobody is there any more to be answered.
async fn left(lending: Option<Lending>) {
    match lending {
        Some(lending) => lending.lender.left().await,
        None => future::pending().await,
    }
}

fn nothing_new(is_last: bool) -> Response {
    let mut response = respond(StatusCode::NO_CONTENT, "application/json", "");
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    if is_last {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn wait(head: &Head) -> Result<Duration, HttpError> {
    let Some(text) = head.option("wait") else { return Ok(Duration::ZERO) };
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => Some(Duration::from_secs(1)),
        "ms" => Some(Duration::from_millis(1)),
        _ => None,
    };
    let wait = unit.zip(u32::from_str(digits).ok()).and_then(|(unit, count)| unit.checked_mul(count));
    wait.filter(|wait| *wait <= WAIT_MAX).ok_or_else(|| {
        let most = WAIT_MAX.as_secs();
        HttpError::bad_option("wait", format!("`wait` is a time such as `30s` or `1500ms`, at most {most} seconds."))
    })
}

fn after(head: &Head) -> Result<Option<Cursor>, HttpError> {
    let cursor = head.option("after").map(|text| text.parse()).transpose();
    cursor.map_err(|_| HttpError::bad_option("after", "`after` is the `cursor` of an answer."))
}

#[cfg(test)]
mod tests {
    use super::{super::head::tests::head, *};

    #[test]
    fn a_wait_has_a_unit_or_is_in_seconds_and_is_a_minute_at_most() {
        let read = |query: &str| wait(&head(query, &[])).map(|wait| wait.as_millis()).ok();
        for (query, milliseconds) in [
            ("", Some(0)),
            ("wait=", Some(0)),
            ("wait=30s", Some(30_000)),
            ("wait=60", Some(60_000)),
            ("wait=1500ms", Some(1_500)),
            ("wait=61", None),
            ("wait=60001ms", None),
            ("wait=1m", None),
            ("wait=-1s", None),
            ("wait=1.5s", None),
            ("wait=s", None),
            ("wait=99999999999s", None),
            ("wait=30%20s", None),
            ("wait=3%C3%BCs", None),
        ] {
            assert_eq!(read(query), milliseconds, "{query}");
        }
    }

    #[test]
    fn what_comes_behind_after_is_a_cursor_or_a_mistake() {
        assert_eq!(after(&head("after=", &[])).unwrap(), None);
        assert_eq!(after(&head("after=1.2a.0.1234abcd", &[])).unwrap().unwrap().to_string(), "1.2a.0.1234abcd");
        assert_eq!(after(&head("after=7", &[])).unwrap_err().status(), 400);
    }
}
