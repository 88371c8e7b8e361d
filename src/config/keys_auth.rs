//! The part `[auth]` of the table of everything that can be configured.
//!
//! Refuses to know: what the settings do.

use super::keys::{Key, Kind, SECRET_EXAMPLE, YEAR_SECONDS, number, set, unset, with_example};

pub(super) static AUTH: &[Key] = &[
    set(
        "auth.mode",
        Kind::Choice(&["jwt", "introspection", "none"]),
        "jwt",
        "jwt: every caller brings a JSON Web Token. introspection: an opaque token, which auth.introspection_url is asked \
         about. none: for development only, everyone is auth.user and may do everything.",
    ),
    with_example(
        set(
            "auth.algorithms",
            Kind::List,
            "HS256",
            "Algorithms that tokens may be signed with, all of one family: HS256, HS384, HS512; RS256; ES256; EdDSA. With \
             auth.jwks any of RS256, ES256 and EdDSA, and all three unless it is set.",
        ),
        "HS256,HS512",
    ),
    unset(
        "auth.secret",
        Kind::Secret,
        SECRET_EXAMPLE,
        "The secret of HS256, HS384 and HS512: at least 16 bytes; 32 random ones are recommended (HS384: 48, HS512: 64).",
    ),
    unset(
        "auth.secret_file",
        Kind::Path,
        "/run/secrets/taskcast-auth",
        "A file with the secret, instead of auth.secret. It is read again when it changes.",
    ),
    unset(
        "auth.previous_secret",
        Kind::Secret,
        SECRET_EXAMPLE,
        "The secret before auth.secret: accepted too, for as long as tokens signed with it are about.",
    ),
    unset(
        "auth.previous_secret_file",
        Kind::Path,
        "/run/secrets/taskcast-auth-previous",
        "A file with it, instead of auth.previous_secret. It is read again when it changes; empty: there is none any more.",
    ),
    unset(
        "auth.public_key_file",
        Kind::Path,
        "/etc/taskcast/public.pem",
        "A PEM file with the public key, or several, for RS256, ES256 or EdDSA. It is read again when it changes.",
    ),
    unset(
        "auth.jwks",
        Kind::HttpUrlOrPath,
        "https://id.example.com/.well-known/jwks.json",
        "The address or the file of the key set (RFC 7517) that the issuer publishes.",
    ),
    number(
        "auth.jwks_refresh_seconds",
        1,
        "900",
        86_400,
        "How often key sets are fetched where their Cache-Control does not say (which counts from 60 s to an hour).",
    ),
    number(
        "auth.jwks_keep_seconds",
        1,
        "86400",
        YEAR_SECONDS,
        "How long keys are used while their key set cannot be fetched; callers are put off then.",
    ),
    unset(
        "auth.issuers",
        Kind::Tables,
        "[{ issuer = \"https://id.example.com\", jwks = \"https://id.example.com/.well-known/jwks.json\" }]",
        "Several issuers, each with a key of its own: issuer (what `iss` says), one of jwks, public_key_file, secret, \
         secret_file, and what else is different from [auth]: algorithms, audience, user_claim, previous_secret(_file). A key \
         of [auth] itself is for tokens of other issuers. In a file best as [[auth.issuers]].",
    ),
    unset("auth.user_claim", Kind::Text, "user_id", "The claim that names the user. Unset: `sub`, else `user_id`."),
    with_example(
        set("auth.audience", Kind::List, "", "One of these must be in a token's `aud`. Empty: `aud` is not looked at."),
        "taskcast",
    ),
    with_example(
        set("auth.issuer", Kind::List, "", "One of these must be a token's `iss`. Empty: `iss` is not looked at."),
        "https://id.example.com",
    ),
    number(
        "auth.leeway_seconds",
        0,
        "30",
        3600,
        "How far the clocks of the tokens' issuer and of this service may differ.",
    ),
    with_example(
        unset(
            "auth.max_age_without_expiry_seconds",
            Kind::Integer { min: 1, max: 10 * YEAR_SECONDS },
            "604800",
            "How long a token without `exp` is good for after its `created_at` or `iat`. Unset: it is refused.",
        ),
        "604800",
    ),
    unset(
        "auth.introspection_url",
        Kind::HttpUrl,
        "https://id.example.com/oauth2/introspect",
        "With auth.mode = \"introspection\": who knows tokens.",
    ),
    with_example(
        set(
            "auth.introspection_style",
            Kind::Choice(&["rfc7662", "bearer"]),
            "rfc7662",
            "rfc7662: token introspection. bearer: GET with the token as its Authorization; 200 and a JSON object that names \
             the user, else 401 or 403.",
        ),
        "bearer",
    ),
    with_example(
        set("auth.introspection_scheme", Kind::Text, "Bearer", "The word before the token, with the style bearer."),
        "Token",
    ),
    unset(
        "auth.introspection_client_id",
        Kind::Text,
        "taskcast",
        "Who asks, with the style rfc7662: sent with the secret as HTTP Basic. Unset: the secret is sent as a bearer token.",
    ),
    unset(
        "auth.introspection_client_secret",
        Kind::Secret,
        "the-secret-that-the-provider-gave",
        "This service's own secret at the provider.",
    ),
    unset(
        "auth.introspection_client_secret_file",
        Kind::Path,
        "/run/secrets/taskcast-client",
        "A file with it, instead of auth.introspection_client_secret. It is read again when it changes.",
    ),
    number(
        "auth.introspection_cache_seconds",
        1,
        "60",
        86_400,
        "How long it is remembered that a token is good. A revoked one is refused after that, and its open connections end \
         within about twice that time.",
    ),
    number(
        "auth.introspection_negative_cache_seconds",
        1,
        "10",
        86_400,
        "How long it is remembered that a token is not good.",
    ),
    number("auth.introspection_cache_max", 1, "10000", 10_000_000, "How many answers of either kind are remembered."),
    number("auth.introspection_concurrency_max", 1, "16", 10_000, "Questions to the provider at a time."),
    number(
        "auth.request_timeout_ms",
        10,
        "3000",
        60_000,
        "How long an issuer may take to bring its key set, and a provider to answer.",
    ),
    unset(
        "auth.tls_ca_file",
        Kind::Path,
        "/etc/taskcast/ca.pem",
        "A PEM file of certificate authorities to trust besides the system's, for auth.jwks and auth.introspection_url.",
    ),
    set(
        "auth.allow_http",
        Kind::Boolean,
        "false",
        "Ask other machines without TLS too. Whoever is between may then let anyone in.",
    ),
    unset("auth.user", Kind::Text, "dev", "Who everyone is with auth.mode = \"none\"."),
    set(
        "auth.allow_remote_without_token",
        Kind::Boolean,
        "false",
        "With auth.mode = \"none\": listen on other addresses than loopback and answer to other names than localhost too. \
         Whoever can connect may do everything.",
    ),
    unset("auth.cookie", Kind::Text, "taskcast_token", "The cookie that a token may come in. Unset: none is read."),
    set("auth.query_token", Kind::Boolean, "true", "Read a token from `?token=` of the address too."),
    number("auth.revocations_max", 1, "100000", 10_000_000, "Revoked tokens and users remembered at most."),
    number(
        "auth.revocations_retain_seconds",
        1,
        "2592000",
        10 * YEAR_SECONDS,
        "How long a revocation is remembered that does not say when its tokens expire: as long as any token may live.",
    ),
];
