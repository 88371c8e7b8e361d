//! `/api/v1/`: who is asking.
//!
//! Refuses to know: where a token is found, what is asked.

use serde_json::json;
use warp::http::{HeaderValue, StatusCode, header};

use super::{Context, RETRY_AFTER_SECONDS, cors, head::Head, problem::HttpError, refusal};
use crate::{
    auth::{AuthenticationError, Identity, Refusal},
    clock,
};

/// What a request counts for that looks at one thing.
pub(super) const REQUEST_WEIGHT: u32 = 1;

/// Who is asking, and may they ask again already? Asked by address first: a token costs more to look at.
///
/// # Errors
/// As [`identify`], and 429 for who asks too often.
pub(super) async fn identify_within_limits(context: &Context, head: &Head, weight: u32) -> Result<Identity, HttpError> {
    let limits = &context.limits;
    let by_address = head.client.map_or(Ok(()), |client| limits.request(&client.caller, weight, clock::now()));
    by_address.map_err(refusal::of)?;
    let (identity, _) = identify(context, head).await?;
    // Where everybody is the same user nobody is one.
    let user = identity.user.as_ref().filter(|_| context.verifier.needs_token());
    user.map_or(Ok(()), |user| limits.request_by(user, weight, clock::now())).map_err(refusal::of)?;
    Ok(identity)
}

/// Who is asking, with the token that said so.
///
/// # Errors
/// 401 without a good token; 403 when another site made the browser ask; 503 when tokens cannot be checked now.
pub(super) async fn identify(context: &Context, head: &Head) -> Result<(Identity, Option<String>), HttpError> {
    let settings = &context.settings;
    let now = clock::now();
    let credential = cors::credential(settings, head, context.verifier.needs_token()).inspect_err(|_| {
        settings.origins.log_refusal(head.origin().as_deref(), head.host().as_deref(), now);
    })?;
    let identified = context.verifier.identify(credential.token.as_deref(), now).await;
    let identity = identified.map_err(|refusal| match refusal {
        Refusal::Token(error) => {
            context.metrics.authentication_failed(error.code);
            if let Some(client) = head.client.filter(|_| error.is_guess) {
                context.limits.guessed(&client.caller, now);
            }
            unauthenticated(&error, credential.token.is_some())
        }
        Refusal::Unavailable => {
            let title = "Tokens cannot be checked";
            HttpError::new(StatusCode::SERVICE_UNAVAILABLE, "authentication-unavailable", title, Refusal::UNAVAILABLE)
                .with_header(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS))
        }
    })?;
    Ok((identity, credential.token))
}

/// 401 as in RFC 6750 section 3: `error` only when there was a token to be wrong.
pub(super) fn unauthenticated(error: &AuthenticationError, had_token: bool) -> HttpError {
    let challenge =
        if had_token { r#"Bearer realm="taskcast", error="invalid_token""# } else { r#"Bearer realm="taskcast""# };
    HttpError::new(StatusCode::UNAUTHORIZED, "unauthenticated", "A valid token is needed", error.message.clone())
        .with_member("error_code", json!(error.code.as_str()))
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::AuthenticationErrorCode;

    #[test]
    fn a_refused_token_is_challenged_with_the_code_that_websockets_hear() {
        let code = AuthenticationErrorCode::ExpiredToken;
        let error = AuthenticationError { code, message: "The token has expired.".to_owned(), is_guess: false };
        let refused = unauthenticated(&error, true);
        assert!(format!("{refused:?}").contains("EXPIRED_TOKEN"));
        let response = refused.into_response();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], r#"Bearer realm="taskcast", error="invalid_token""#);
        let bare = unauthenticated(&error, false).into_response();
        assert_eq!(bare.headers()[header::WWW_AUTHENTICATE], r#"Bearer realm="taskcast""#);
    }
}
