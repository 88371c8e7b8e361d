//! What a provider's answer about a token says.
//!
//! Refuses to know: how it was asked.

use serde_json::{Map, Value, json};

use super::{AuthenticationError, Identity, IntrospectionSettings, JwtSettings, Key, answers::Said, claims};

/// Scopes that mean something here begin so: `taskcast:publish`, `taskcast:cancel`, `taskcast:watch:<entry>`.
const SCOPE_PREFIX: &str = "taskcast:";

/// Claims that mean the same in an answer as in a JSON Web Token.
const CLAIMS: [&str; 7] = ["exp", "nbf", "iat", "jti", "type", "token_type", "taskcast"];

/// Where a plain answer has the user, unless it is configured.
const USER_CLAIMS: [&str; 3] = ["sub", "user_id", "id"];

/// For an answer without `exp`: the token is good until the provider says otherwise.
const NO_EXPIRY_SECONDS: u64 = 10 * 365 * 24 * 3600;

/// Reads one answer.
pub(super) struct Reading<'a> {
    pub settings: &'a IntrospectionSettings,
    pub unix_ms: u64,
}

impl Reading<'_> {
    /// RFC 7662 section 2.2.
    ///
    /// # Errors
    /// The answer is none.
    pub fn introspected(&self, body: &[u8]) -> Result<Said, String> {
        let answer = object(body)?;
        match answer.get("active") {
            Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => return Ok(Err(inactive())),
            _ => return Err("the answer has no `active` that is true or false (RFC 7662)".to_owned()),
        }
        if let Some(refusal) = self.refuse_place(&answer) {
            return Ok(Err(refusal));
        }
        Ok(self.identity(&answer))
    }

    /// A plain answer: whoever gets it is who it names.
    ///
    /// # Errors
    /// The answer is none.
    pub fn presented(&self, body: &[u8]) -> Result<Said, String> {
        let answer = object(body)?;
        if self.user(&answer).is_none() {
            let names = self.settings.user_claim.clone().unwrap_or_else(|| USER_CLAIMS.join(", "));
            return Err(format!("the answer does not say whose the token is: {names} (setting auth.user_claim)"));
        }
        Ok(self.identity(&answer))
    }

    /// A token for another service, or from an issuer that is not expected here.
    fn refuse_place(&self, answer: &Map<String, Value>) -> Option<AuthenticationError> {
        for (name, expected) in [("aud", &self.settings.audience), ("iss", &self.settings.issuer)] {
            let is_expected = |value: &Value| value.as_str().is_some_and(|text| expected.iter().any(|e| e == text));
            let fits = match answer.get(name) {
                Some(Value::Array(values)) if name == "aud" => values.iter().any(is_expected),
                Some(value) => is_expected(value),
                None => false,
            };
            if !expected.is_empty() && !fits {
                let message = format!("the token is for another service or from another issuer: claim `{name}`");
                return Some(AuthenticationError::invalid(message));
            }
        }
        None
    }

    fn user(&self, answer: &Map<String, Value>) -> Option<Value> {
        let found = match self.settings.user_claim.as_deref() {
            Some(pointer) if pointer.starts_with('/') => Value::Object(answer.clone()).pointer(pointer).cloned(),
            Some(name) => answer.get(name).cloned(),
            None => USER_CLAIMS.iter().find_map(|name| answer.get(*name).filter(|value| !value.is_null())).cloned(),
        };
        found.filter(|value| !value.is_null())
    }

    fn identity(&self, answer: &Map<String, Value>) -> Result<Identity, AuthenticationError> {
        let mut claims: Map<String, Value> =
            CLAIMS.iter().filter_map(|name| Some(((*name).to_owned(), answer.get(*name)?.clone()))).collect();
        if let Some(user) = self.user(answer) {
            claims.insert("sub".to_owned(), user);
        }
        if let Some(rights) = rights_of_scope(answer).filter(|_| !claims.contains_key("taskcast")) {
            claims.insert("taskcast".to_owned(), rights);
        }
        let expires = claims.get("exp").is_some_and(|exp| !exp.is_null());
        if !expires {
            claims.insert("exp".to_owned(), json!(self.unix_ms / 1000 + NO_EXPIRY_SECONDS));
        }
        let settings = JwtSettings {
            key: Key::Secret(Vec::new()),
            algorithms: Vec::new(),
            user_claim: Some("sub".to_owned()),
            audience: Vec::new(),
            issuer: Vec::new(),
            leeway: self.settings.leeway,
            max_age_without_expiry: None,
        };
        let identity = claims::identity(&claims, &settings, self.unix_ms)?;
        Ok(Identity { expires_at_ms: identity.expires_at_ms.filter(|_| expires), ..identity })
    }
}

/// What an inactive token's bearer is told. A provider does not say whether it has expired or was revoked, or never was;
/// whichever, a fresh one is the way out. And it may be a guess, for all that is said.
pub(super) fn inactive() -> AuthenticationError {
    let inactive =
        AuthenticationError::expired("the token is not active: it has expired, was revoked, or never was one");
    AuthenticationError { is_guess: true, ..inactive }
}

fn object(body: &[u8]) -> Result<Map<String, Value>, String> {
    serde_json::from_slice(body).map_err(|_| "the answer is not a JSON object".to_owned())
}

/// The claim `taskcast` that scopes amount to; `None` if none of them is for this service.
fn rights_of_scope(answer: &Map<String, Value>) -> Option<Value> {
    let scopes: Vec<&str> = match answer.get("scope")? {
        Value::String(text) => text.split(' ').collect(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let mut own = scopes.iter().filter_map(|scope| scope.strip_prefix(SCOPE_PREFIX)).peekable();
    own.peek()?;
    let (mut watch, mut publish, mut cancel) = (Vec::new(), false, false);
    for scope in own {
        match scope {
            "publish" => publish = true,
            "cancel" => cancel = true,
            other => watch.extend(other.strip_prefix("watch:")),
        }
    }
    Some(json!({ "watch": watch, "publish": publish, "cancel": cancel }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::{Address, AnswerSettings, ClientSettings, Credentials, Question};

    const NOW_MS: u64 = 1_790_000_000_000;

    fn settings(user_claim: Option<&str>) -> IntrospectionSettings {
        IntrospectionSettings {
            url: Address("https://id.example.com/introspect".parse().unwrap()),
            question: Question::Introspect(Credentials::None),
            user_claim: user_claim.map(str::to_owned),
            audience: Vec::new(),
            issuer: Vec::new(),
            leeway: Duration::ZERO,
            answers: AnswerSettings { good_for: Duration::from_secs(60), bad_for: Duration::from_secs(10), max: 10 },
            concurrency_max: 1,
            client: ClientSettings { timeout: Duration::from_secs(1), tls_ca_file: None },
        }
    }

    fn outcome(said: Result<Said, String>) -> String {
        match said {
            Ok(Ok(identity)) => identity.user.map_or("nobody".to_owned(), |user| user.to_string()),
            Ok(Err(error)) => error.code.as_str().to_owned(),
            Err(_) => "no answer".to_owned(),
        }
    }

    #[test]
    fn each_introspection_is_read_as_rfc_7662_says() {
        let settings = IntrospectionSettings { audience: vec!["taskcast".to_owned()], ..settings(None) };
        for (answer, expected) in [
            (json!({"active": true, "sub": "u1", "aud": "taskcast", "exp": 1_790_000_100}), "u1"),
            (json!({"active": true, "sub": "u1", "aud": ["x", "taskcast"]}), "u1"),
            (json!({"active": true, "user_id": 42, "aud": "taskcast"}), "42"),
            (json!({"active": true, "sub": "u1", "aud": "shop"}), "INVALID_TOKEN"),
            (json!({"active": true, "sub": "u1"}), "INVALID_TOKEN"),
            (json!({"active": true, "aud": "taskcast"}), "INVALID_TOKEN"),
            (json!({"active": true, "sub": "u1", "aud": "taskcast", "exp": 1_789_999_999}), "EXPIRED_TOKEN"),
            (json!({"active": true, "sub": "u1", "aud": "taskcast", "token_type": "refresh"}), "INVALID_TOKEN"),
            (json!({"active": false, "sub": "u1", "aud": "taskcast"}), "EXPIRED_TOKEN"),
            (json!({"active": "true", "sub": "u1", "aud": "taskcast"}), "no answer"),
            (json!({"sub": "u1"}), "no answer"),
            (json!([]), "no answer"),
        ] {
            let reading = Reading { settings: &settings, unix_ms: NOW_MS };
            assert_eq!(outcome(reading.introspected(answer.to_string().as_bytes())), expected, "{answer}");
        }
    }

    #[test]
    fn rights_come_from_the_claim_else_from_scopes_of_this_service() {
        let settings = settings(None);
        let rights = |answer: Value| {
            let reading = Reading { settings: &settings, unix_ms: NOW_MS };
            reading.introspected(answer.to_string().as_bytes()).unwrap().unwrap().rights
        };
        let plain = rights(json!({"active": true, "sub": "u1", "scope": "openid profile"}));
        assert!(plain.own && plain.publish.is_nothing() && !plain.all);
        let scoped = rights(json!({"active": true, "scope": "openid taskcast:publish taskcast:watch:tag:night"}));
        assert!(!scoped.publish.is_nothing() && !scoped.own && !scoped.cancel && scoped.tags.contains("night"));
        let claimed =
            rights(json!({"active": true, "sub": "u1", "taskcast": {"watch": ["own"]}, "scope": "taskcast:publish"}));
        assert!(claimed.own && claimed.publish.is_nothing());
    }

    #[test]
    fn a_plain_answer_names_its_user_where_it_is_told_to_look() {
        for (claim, answer, expected) in [
            (None, json!({"id": 7}), "7"),
            (None, json!({"sub": "a", "id": 7}), "a"),
            (Some("pk"), json!({"pk": 3, "id": 7}), "3"),
            (Some("/user/pk"), json!({"user": {"pk": "x"}}), "x"),
            (Some("/user/pk"), json!({"user": {}}), "no answer"),
            (Some("pk"), json!({"id": 7}), "no answer"),
            (None, json!({"id": null}), "no answer"),
            (None, json!({"id": {}}), "INVALID_TOKEN"),
        ] {
            let settings = settings(claim);
            let reading = Reading { settings: &settings, unix_ms: NOW_MS };
            assert_eq!(outcome(reading.presented(answer.to_string().as_bytes())), expected, "{claim:?} {answer}");
        }
    }

    #[test]
    fn a_token_without_an_end_has_none() {
        let settings = settings(None);
        let reading = Reading { settings: &settings, unix_ms: NOW_MS };
        let said = reading.introspected(br#"{"active": true, "sub": "u1"}"#).unwrap().unwrap();
        assert_eq!(said.expires_at_ms, None);
        let said = reading.introspected(br#"{"active": true, "sub": "u1", "exp": 1790000100}"#).unwrap().unwrap();
        assert_eq!(said.expires_at_ms, Some(1_790_000_100_000));
    }
}
