//! Opaque tokens: from values to the settings of who is asked about them.
//!
//! Refuses to know: how they are asked.

use std::path::PathBuf;

use super::{convert, issuers, layers::Layers};
use crate::auth::{AnswerSettings, Credentials, IntrospectionSettings, Question, Secret};

/// What has no effect with opaque tokens.
const OF_JWT: [&str; 4] = ["auth.secret", "auth.public_key_file", "auth.jwks", "auth.issuers"];

/// `None` without an address, and after a mistake was noted.
pub(super) fn settings(layers: &mut Layers<'_>, is_mode: bool) -> Option<IntrospectionSettings> {
    if is_mode {
        let idle: Vec<&str> = OF_JWT.into_iter().filter(|path| layers.is_given(path)).collect();
        for path in idle {
            layers.warnings.push(format!("{path} has no effect: it is for auth.mode = \"jwt\""));
        }
        if !layers.is_given("auth.introspection_url") {
            let expected = "the address that is asked about tokens, as auth.mode is \"introspection\"";
            let example = "TASKCAST_AUTH_INTROSPECTION_URL=https://id.example.com/oauth2/introspect";
            layers.missing("auth.introspection_url", expected, example);
        }
    } else if layers.is_given("auth.introspection_url") {
        layers
            .warnings
            .push("auth.introspection_url has no effect: it is for auth.mode = \"introspection\"".to_owned());
    }
    let question = question(layers, is_mode);
    let url = issuers::url(layers, "auth.introspection_url");
    let client = url.is_some().then(|| issuers::client(layers)).flatten();
    Some(IntrospectionSettings {
        url: url?,
        question: question?,
        user_claim: layers.text("auth.user_claim"),
        audience: layers.list("auth.audience"),
        issuer: layers.list("auth.issuer"),
        leeway: convert::seconds(layers, "auth.leeway_seconds"),
        answers: AnswerSettings {
            good_for: convert::seconds(layers, "auth.introspection_cache_seconds"),
            bad_for: convert::seconds(layers, "auth.introspection_negative_cache_seconds"),
            max: layers.number("auth.introspection_cache_max") as usize,
        },
        concurrency_max: layers.number("auth.introspection_concurrency_max") as usize,
        client: client?,
    })
}

fn question(layers: &mut Layers<'_>, is_mode: bool) -> Option<Question> {
    if layers.text("auth.introspection_style")? == "bearer" {
        let scheme = layers.text("auth.introspection_scheme")?;
        if !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            layers.refuse("auth.introspection_scheme", "one word, such as Bearer or Token");
            return None;
        }
        return Some(Question::Present { scheme });
    }
    let id = layers.text("auth.introspection_client_id");
    let file = layers.text("auth.introspection_client_secret_file").map(PathBuf::from);
    let secret = layers.text("auth.introspection_client_secret").map(|text| Secret { bytes: text.into_bytes(), file });
    if is_mode && id.is_some() && secret.is_none() && !layers.is_mistaken("auth.introspection_client_secret_file") {
        let expected = "the secret of auth.introspection_client_id";
        let example = "TASKCAST_AUTH_INTROSPECTION_CLIENT_SECRET_FILE=/run/secrets/taskcast-client";
        layers.missing("auth.introspection_client_secret", expected, example);
        return None;
    }
    Some(Question::Introspect(match (id, secret) {
        (Some(id), Some(secret)) => Credentials::Basic { id, secret },
        (None, Some(secret)) => Credentials::Bearer(secret),
        (_, None) => Credentials::None,
    }))
}
