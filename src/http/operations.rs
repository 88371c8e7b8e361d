//! The operators' listener: is the process alive, may it get traffic, what has it counted.
//!
//! Refuses to know: tasks, users.

use serde_json::{Value, json};
use warp::{
    http::{HeaderValue, Method, StatusCode, header},
    reply::Response,
};

use super::{
    Context, RETRY_AFTER_SECONDS,
    head::Head,
    problem::{HttpError, respond},
};
use crate::{clock, log::Health, metrics::Leg, session::CanaryHealth};

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
    let canary = context.canary.as_ref().map(|canary| canary.health(clock::now().instant));
    let mut readiness = readiness(&health, canary.as_ref(), context.draining.is_cancelled());
    // Ready all the same: every replica holds the same tasks, so one after the other would be taken out of service.
    // Ready without keys too: whoever is connected is served, and an issuer that is down must not stop a rollout.
    let authentication = context.verifier.health();
    readiness["authentication"] = json!({ "ok": authentication.ok, "detail": authentication.detail });
    readiness["overloaded"] = json!(*context.overloaded.borrow());
    answer_of(&readiness)
}

/// Ready means: connected to the log, everything in it read, what is appended comes out of a session, and not about to
/// end.
fn readiness(health: &Health, canary: Option<&CanaryHealth>, draining: bool) -> Value {
    let reading = health.connected && health.replayed && health.caught_up;
    let overdue = canary.filter(|canary| !canary.ok);
    // Without a log there is no canary: then the log is what there is to tell of.
    let detail = overdue.filter(|_| reading).map_or(&health.detail, |canary| &canary.detail);
    let canary = canary.map(|canary| {
        let age_seconds = canary.age.map(|age| age.as_secs_f64());
        json!({ "ok": canary.ok, "age_seconds": age_seconds, "suspect": canary.leg.map(Leg::as_str) })
    });
    json!({
        "ready": reading && overdue.is_none() && !draining,
        "connected": health.connected,
        "replayed": health.replayed,
        "caught_up": health.caught_up,
        "draining": draining,
        "canary": canary,
        "detail": detail,
    })
}

fn answer_of(readiness: &Value) -> Response {
    let ready = readiness["ready"] == true;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = respond(status, "application/json", readiness.to_string());
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
    if let Some(canary) = &context.canary {
        context.metrics.canary_age(canary.age(clock::now().instant));
    }
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
    use std::time::Duration;

    use super::*;

    fn reading(connected: bool, replayed: bool) -> Health {
        Health { connected, replayed, caught_up: replayed, detail: "reading".to_owned() }
    }

    fn canary(ok: bool) -> CanaryHealth {
        let leg = (!ok).then_some(Leg::Tail);
        CanaryHealth { ok, age: Some(Duration::from_millis(1500)), leg, detail: "no canary".to_owned() }
    }

    #[test]
    fn ready_is_connected_and_replayed_and_not_draining() {
        for (connected, replayed, draining, status) in
            [(true, true, false, 200), (false, true, false, 503), (true, false, false, 503), (true, true, true, 503)]
        {
            for canary in [None, Some(&canary(true))] {
                let response = answer_of(&readiness(&reading(connected, replayed), canary, draining));
                assert_eq!(response.status(), status);
                assert_eq!(response.headers().contains_key(header::RETRY_AFTER), status == 503);
            }
        }
    }

    #[test]
    fn an_overdue_canary_is_not_ready_and_names_the_leg_that_is_suspect() {
        let answer = readiness(&reading(true, true), Some(&canary(false)), false);
        assert_eq!(answer["ready"], false);
        assert_eq!(answer["canary"], json!({"ok": false, "age_seconds": 1.5, "suspect": "tail"}));
        assert_eq!(answer["detail"], "no canary");
        // While the log is away that is the news.
        assert_eq!(readiness(&reading(false, true), Some(&canary(false)), false)["detail"], "reading");
        let off = readiness(&reading(true, true), None, false);
        assert_eq!((&off["ready"], &off["canary"]), (&json!(true), &Value::Null));
    }
}
