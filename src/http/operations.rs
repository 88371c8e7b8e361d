//! The operators' listener: is the process alive, may it get traffic, what has it counted.
//!
//! Refuses to know: tasks, users.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use warp::{
    http::{HeaderValue, Method, StatusCode, header},
    reply::Response,
};

use super::{
    Context, RETRY_AFTER_SECONDS,
    credentials::bearer,
    head::Head,
    problem::{HttpError, respond},
};
use crate::{clock, log::Health, metrics::Leg, proto::AuthenticationErrorCode, session::CanaryHealth};

/// Fewer characters can be guessed.
const TOKEN_MIN_BYTES: usize = 16;

/// Who may ask. Keys of the configuration's `[operations]` table.
#[derive(Clone, Debug, Default)]
pub struct OperationsSettings {
    /// What `Authorization: Bearer` must bring. `None`: whoever reaches this listener may ask.
    pub token: Option<OperationsToken>,
    /// Where it came from, if it was a file.
    pub token_file: Option<PathBuf>,
    /// Also of those who ask whether the process lives and is ready, which a kubelet does without any.
    pub token_for_probes: bool,
}

/// The operators' token, which may be replaced. Cheap to clone; clones change together.
#[derive(Clone)]
pub struct OperationsToken(Arc<RwLock<String>>);

/// Says nothing of it.
impl fmt::Debug for OperationsToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperationsToken(…)")
    }
}

impl OperationsToken {
    /// # Errors
    /// What was expected instead.
    pub fn new(text: String) -> Result<Self, String> {
        check_token(&text)?;
        Ok(Self(Arc::new(RwLock::new(text))))
    }

    /// Puts another one in its place; the same again is no change.
    ///
    /// # Errors
    /// What was expected instead; the one before stays.
    pub fn replace(&self, text: &str) -> Result<bool, String> {
        check_token(text)?;
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut *held, text.to_owned()) != text)
    }

    /// As it is now.
    #[must_use]
    pub fn reveal(&self) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// However much of it is right, the answer takes as long.
    fn is(&self, given: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).as_bytes().ct_eq(given.as_bytes()).into()
    }
}

fn check_token(text: &str) -> Result<(), String> {
    if text.len() >= TOKEN_MIN_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(format!("at least {TOKEN_MIN_BYTES} visible ASCII characters without spaces"))
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Two words that say nothing of tasks or users.
    Probe,
    Operator,
}

/// Answers one of this listener's addresses, for `GET` and `HEAD` only.
///
/// # Errors
/// 405; 401 for whoever lacks the token.
pub(super) fn reply(
    context: &Context,
    head: &Head,
    access: Access,
    answer: impl FnOnce() -> Result<Response, HttpError>,
) -> Result<Response, HttpError> {
    if ![Method::GET, Method::HEAD].contains(&head.method) {
        return Err(HttpError::method_not_allowed("GET, HEAD"));
    }
    authorise(&context.operations, head, access)
        .inspect_err(|_| context.metrics.authentication_failed(AuthenticationErrorCode::InvalidToken))?;
    answer()
}

/// Lets an operator in, and a probe if probes need no token.
///
/// # Errors
/// 401.
pub(super) fn authorise(settings: &OperationsSettings, head: &Head, access: Access) -> Result<(), HttpError> {
    let Some(expected) = &settings.token else { return Ok(()) };
    if access == Access::Probe && !settings.token_for_probes {
        return Ok(());
    }
    let given = bearer(head);
    if given.is_some_and(|given| expected.is(given)) {
        return Ok(());
    }
    let challenge = if given.is_some() {
        r#"Bearer realm="taskcast operations", error="invalid_token""#
    } else {
        r#"Bearer realm="taskcast operations""#
    };
    let detail = "This listener wants `Authorization: Bearer` with the token of `operations.token`.";
    Err(HttpError::new(StatusCode::UNAUTHORIZED, "unauthenticated", "A valid token is needed", detail)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge)))
}

/// `/livez`: whoever can answer is alive. A broker that is away is no reason to restart.
pub(super) fn live() -> Response {
    respond(StatusCode::OK, "application/json", r#"{"alive":true}"#)
}

/// `/readyz`.
pub(super) fn ready(context: &Context) -> Response {
    let mut readiness = readiness_of(context);
    // Ready all the same: every replica holds the same tasks, so one after the other would be taken out of service.
    // Ready without keys too: whoever is connected is served, and an issuer that is down must not stop a rollout.
    let authentication = context.verifier.health();
    readiness["authentication"] = json!({ "ok": authentication.ok, "detail": authentication.detail });
    readiness["overloaded"] = json!(*context.overloaded.borrow());
    answer_of(&readiness)
}

fn readiness_of(context: &Context) -> Value {
    let health = context.health.borrow().clone();
    let canary = context.canary.as_ref().map(|canary| canary.health(clock::now().instant));
    readiness(&health, canary.as_ref(), context.draining.is_cancelled())
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
    context.metrics.ready(readiness_of(context)["ready"] == true);
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

    use super::{super::head::tests::head, *};

    fn reading(connected: bool, replayed: bool) -> Health {
        Health { connected, replayed, caught_up: replayed, detail: "reading".to_owned() }
    }

    fn canary(ok: bool) -> CanaryHealth {
        let leg = (!ok).then_some(Leg::Tail);
        CanaryHealth { ok, age: Some(Duration::from_millis(1500)), leg, detail: "no canary".to_owned() }
    }

    #[test]
    fn an_operator_brings_the_token_and_a_probe_only_where_it_must() {
        let token = OperationsToken::new("0123456789abcdef".to_owned()).unwrap();
        let settings = OperationsSettings { token: Some(token.clone()), ..OperationsSettings::default() };
        let asks = |settings: &OperationsSettings, given: &str, access| {
            authorise(settings, &head("", &[("authorization", given)]), access).is_ok()
        };
        for (given, may) in [
            ("Bearer 0123456789abcdef", true),
            ("bearer 0123456789abcdef", true),
            ("Bearer 0123456789abcdeF", false),
            ("Bearer 0123456789abcde", false),
            ("Bearer 0123456789abcdef0", false),
            ("Bearer ", false),
            ("Basic 0123456789abcdef", false),
            ("0123456789abcdef", false),
        ] {
            assert_eq!(asks(&settings, given, Access::Operator), may, "{given}");
            assert!(asks(&settings, given, Access::Probe));
            assert!(asks(&OperationsSettings::default(), given, Access::Operator));
            let strict = OperationsSettings { token_for_probes: true, ..settings.clone() };
            assert_eq!(asks(&strict, given, Access::Probe), may, "{given}");
        }
        assert_eq!(token.replace("0123456789abcdef"), Ok(false));
        assert!(token.replace("short").is_err());
        assert_eq!(token.replace("another-0123456789"), Ok(true));
        assert!(asks(&settings, "Bearer another-0123456789", Access::Operator));
        assert!(!asks(&settings, "Bearer 0123456789abcdef", Access::Operator));
        assert_eq!(format!("{:?}", settings.token), "Some(OperationsToken(…))");
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
