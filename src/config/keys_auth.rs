//! The part of the table of keys about tokens: `[auth]`.
//!
//! Refuses to know: what is done with them.

use super::keys::{Key, Kind, SECRET_EXAMPLE, YEAR_SECONDS, number, set, unset, with_example};

pub(super) static AUTH: &[Key] = &[
    set(
        "auth.mode",
        Kind::Choice(&["jwt", "none"]),
        "jwt",
        "jwt: every caller brings a token. none: for development only, everyone is auth.user and may do everything.",
    ),
    with_example(
        set(
            "auth.algorithms",
            Kind::List,
            "HS256",
            "Algorithms that tokens may be signed with, all of one family: HS256, HS384, HS512; RS256; ES256; EdDSA.",
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
        "A file with the secret, instead of auth.secret.",
    ),
    unset(
        "auth.public_key_file",
        Kind::Path,
        "/etc/taskcast/public.pem",
        "A PEM file with the public key for RS256, ES256 or EdDSA.",
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
