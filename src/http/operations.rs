//! The operators' listener: is the process alive, may it get traffic, what has it counted.
//!
//! Refuses to know: tasks, users.

use serde_json::json;
use warp::{
    http::{HeaderValue, Method, StatusCode, header},
    reply::Response,
};

use super::{
    Context, RETRY_AFTER_SECONDS,
    head::Head,
    problem::{HttpError, respond},
};
use crate::log::Health;

/// Answers one of this listener's addresses, for `GET` and `HEAD` only.
///
/// # Errors
/// 405.
pub(super) fn probe(head: &Head, answer: impl FnOnce() -> Result<Response, HttpError>) -> Result<Response, HttpError> {
    if [Method::GET, Method::HEAD].contains(&head.method) {
        answer()
    } else {
        Err(HttpError::method_not_allowed("GET, HEAD"))
    }
}

/// `/livez`: whoever can answer is alive. A broker that is away is no reason to restart.
pub(super) fn live() -> Response {
    respond(StatusCode::OK, "application/json", r#"{"alive":true}"#)
}

/// `/readyz`.
pub(super) fn ready(context: &Context) -> Response {
    let health = context.health.borrow().clone();
    readiness(&health, context.draining.is_cancelled())
}

/// Ready means: connected to the log, everything in it read, and not about to end.
fn readiness(health: &Health, draining: bool) -> Response {
    let ready = health.connected && health.replayed && health.caught_up && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": ready,
        "connected": health.connected,
        "replayed": health.replayed,
        "caught_up": health.caught_up,
        "draining": draining,
        "detail": health.detail,
    });
    let mut response = respond(status, "application/json", body.to_string());
    if !ready {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    }
    response
}

/// `/metrics`.
///
/// # Errors
/// 500 when the metrics cannot be written down.
pub(super) fn metrics(context: &Context) -> Result<Response, HttpError> {
    match context.metrics.render() {
        Ok(text) => Ok(respond(StatusCode::OK, "text/plain; version=0.0.4", text)),
        Err(error) => {
            tracing::error!(error, "the metrics cannot be rendered");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Err(HttpError::new(status, "internal", "The service failed", "The metrics cannot be rendered."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_connected_and_replayed_and_not_draining() {
        for (connected, replayed, draining, status) in
            [(true, true, false, 200), (false, true, false, 503), (true, false, false, 503), (true, true, true, 503)]
        {
            let health = Health { connected, replayed, caught_up: replayed, detail: "reading".to_owned() };
            let response = readiness(&health, draining);
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), status == 503);
        }
    }
}
