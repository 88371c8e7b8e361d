//! Issuers: their secrets and key sets, and several of them in one list of tables.
//!
//! Refuses to know: how tokens are checked.

use std::path::{Path, PathBuf};

use url::{Host, Url};

use super::{convert, layers::Layers, mistake::Mistake, value::Raw};
use crate::auth::{self, Address, ClientSettings, Family, Key, KeySetPlace, KeySetSettings, Secret};

/// Issuers in the list at most.
const ISSUERS_MAX: usize = 32;

/// What the table of an issuer may say.
const FIELDS: [&str; 10] = [
    "issuer",
    "jwks",
    "public_key_file",
    "secret",
    "secret_file",
    "previous_secret",
    "previous_secret_file",
    "algorithms",
    "audience",
    "user_claim",
];

/// What holds for every issuer unless its table says otherwise.
const INHERITED: [&str; 9] = [
    "auth.audience",
    "auth.user_claim",
    "auth.leeway_seconds",
    "auth.max_age_without_expiry_seconds",
    "auth.jwks_refresh_seconds",
    "auth.jwks_keep_seconds",
    "auth.request_timeout_ms",
    "auth.tls_ca_file",
    "auth.allow_http",
];

/// The issuers of the list; `None` for each of which a mistake was noted.
pub(super) fn of(layers: &mut Layers<'_>) -> Vec<Option<auth::JwtSettings>> {
    let tables = layers.tables("auth.issuers");
    if tables.len() > ISSUERS_MAX {
        layers.refuse("auth.issuers", format!("at most {ISSUERS_MAX} tables"));
        return vec![None];
    }
    let settings: Vec<_> = tables.iter().enumerate().map(|(index, table)| issuer(layers, index, table)).collect();
    let mut names: Vec<&String> = settings.iter().flatten().flat_map(|one| &one.issuer).collect();
    names.sort();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        layers.refuse("auth.issuers", "issuers that differ: a token's `iss` says which one's key it is checked with");
    }
    settings
}

fn issuer(layers: &mut Layers<'_>, index: usize, table: &[(String, Raw)]) -> Option<auth::JwtSettings> {
    let (known, unknown): (Vec<_>, Vec<_>) =
        table.iter().cloned().partition(|(name, _)| FIELDS.contains(&name.as_str()));
    let mut part = layers.of_issuer(&known, &INHERITED);
    let settings = convert::jwt(&mut part, true);
    let has_name = !part.list("auth.issuer").is_empty() || part.is_mistaken("auth.issuer");
    if !has_name {
        let expected = "what `iss` says in this issuer's tokens";
        part.missing("auth.issuer", expected, "issuer = \"https://id.example.com\"");
    }
    let place = |path: &str| path.replacen("auth.", &format!("auth.issuers[{index}]."), 1);
    for mistake in part.mistakes {
        let example = mistake.example.replace("[auth]", "[[auth.issuers]]").replace("TASKCAST_AUTH_ISSUERS", "issuers");
        layers.mistakes.push(Mistake { key: place(&mistake.key), example, ..mistake });
    }
    layers.warnings.extend(part.warnings.iter().map(|warning| place(warning)));
    for (name, _) in &unknown {
        layers.mistakes.push(Mistake {
            key: format!("auth.issuers[{index}].{name}"),
            value: Some("(hidden)".to_owned()),
            source: None,
            expected: format!("one of {}", FIELDS.join(", ")),
            example: "[[auth.issuers]]\nissuer = \"https://id.example.com\"".to_owned(),
        });
    }
    settings.filter(|_| has_name && unknown.is_empty())
}

/// The secret, and the one before it.
pub(super) fn secrets(layers: &mut Layers<'_>, family: Option<Family>) -> Option<Key> {
    let previous = convert::secret(layers, "auth.previous_secret", family);
    let previous_file = layers.text("auth.previous_secret_file").map(PathBuf::from);
    let current = convert::secret(layers, "auth.secret", family);
    let has_previous = previous.is_some() || previous_file.is_some();
    if has_previous && !layers.is_given("auth.secret") && !layers.is_given("auth.secret_file") {
        let path = if previous_file.is_some() { "auth.previous_secret_file" } else { "auth.previous_secret" };
        layers.refuse(path, "none without auth.secret: it is the one before that");
    }
    let file = layers.text("auth.secret_file").map(PathBuf::from);
    let bytes = current?;
    if file.is_none() && !has_previous {
        return Some(Key::Secret(bytes));
    }
    let previous = has_previous.then(|| Secret { bytes: previous.unwrap_or_default(), file: previous_file });
    Some(Key::Secrets { current: Secret { bytes, file }, previous })
}

/// The key set; `None` without one, and after a mistake was noted. `settings` is the rest of its issuer.
pub(super) fn key_set(layers: &mut Layers<'_>, settings: &auth::JwtSettings) -> Option<Key> {
    let text = layers.text("auth.jwks")?;
    let refresh = convert::seconds(layers, "auth.jwks_refresh_seconds");
    let keep = convert::seconds(layers, "auth.jwks_keep_seconds");
    let client = client(layers);
    let place = if text.contains("://") {
        KeySetPlace::Url(url(layers, "auth.jwks")?)
    } else {
        let path = PathBuf::from(text);
        let json = convert::read(layers, "auth.jwks", &path)?;
        let is_usable = !layers.is_mistaken("auth.algorithms");
        if is_usable && let Err(why) = auth::check_key_set(settings, &json) {
            layers.refuse("auth.jwks", format!("a key set for auth.algorithms; {why}"));
            return None;
        }
        KeySetPlace::File(path)
    };
    Some(Key::KeySet(Box::new(KeySetSettings { place, refresh, keep, client: client? })))
}

/// One key, and of a family that may be published.
pub(super) fn check_fit(layers: &mut Layers<'_>, family: Option<Family>, has_other_key: bool) {
    if has_other_key {
        layers.refuse("auth.jwks", "one of auth.jwks, auth.secret and auth.public_key_file, not several");
    } else if family.is_some() {
        layers.refuse("auth.algorithms", "RS256, ES256 or EdDSA, as a key set is configured");
    }
}

/// How issuers and providers are spoken to.
pub(super) fn client(layers: &mut Layers<'_>) -> Option<ClientSettings> {
    let tls_ca_file = layers.text("auth.tls_ca_file").map(PathBuf::from);
    if let Some(path) = &tls_ca_file {
        let pem = convert::read(layers, "auth.tls_ca_file", Path::new(path))?;
        if !pem.windows(17).any(|window| window == b"BEGIN CERTIFICATE") {
            layers.refuse("auth.tls_ca_file", "a PEM file with certificates");
            return None;
        }
    }
    Some(ClientSettings { timeout: convert::milliseconds(layers, "auth.request_timeout_ms"), tls_ca_file })
}

/// An address that may be asked.
pub(super) fn url(layers: &mut Layers<'_>, path: &'static str) -> Option<Address> {
    let url = Url::parse(&layers.text(path)?).ok()?;
    let is_local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() != "https" && !is_local && !layers.boolean("auth.allow_http") {
        layers.refuse(
            path,
            "an address that begins with https://: whoever is between could let anyone in; where that is no danger, say \
             auth.allow_http = true",
        );
        return None;
    }
    Some(Address(url))
}
