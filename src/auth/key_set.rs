//! The keys that an issuer's tokens may be signed with, and the choice among them. A key's own kind bounds what it
//! verifies: the token's header chooses among keys that fit, and decides nothing else.
//!
//! Refuses to know: where keys come from, what verified claims mean.

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    errors::{Error, ErrorKind},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{AuthenticationError, JwtSettings, Secret, files, keys, keys::Family};

/// Keys of one set at most. Large providers publish a dozen.
const KEYS_MAX: usize = 64;

/// How many keys a token that names none is tried with: each try is a signature.
const TRIES_MAX: usize = 4;

/// An RSA modulus of 2048 bits has 342 digits in base64url, one of 8192 bits, the longest that is verified, 1366.
const RSA_MODULUS_DIGITS: std::ops::RangeInclusive<usize> = 342..=1366;

/// What became of a signature.
pub(super) enum Checked {
    Good(Map<String, Value>),
    Refused(AuthenticationError),
    /// The key that it names, or any that would fit, is not here. It may have been published since.
    UnknownKey,
}

/// The keys of one issuer.
pub(super) struct KeySet {
    keys: Vec<VerificationKey>,
    /// Whether tokens say by name (`kid`) which key is theirs.
    is_published: bool,
    /// All that any key of this issuer may be for.
    algorithms: Vec<Algorithm>,
}

struct VerificationKey {
    /// `kid`.
    name: Option<String>,
    key: DecodingKey,
    /// Its algorithms, and what claims must say.
    validation: Validation,
}

impl KeySet {
    /// Nothing is known yet.
    pub fn unknown(settings: &JwtSettings) -> Result<Self, String> {
        Ok(Self { keys: Vec::new(), is_published: true, algorithms: algorithms(&settings.algorithms)? })
    }

    /// Secrets, the one that is in use first.
    pub fn of_secrets(settings: &JwtSettings, secrets: &[&[u8]]) -> Result<Self, String> {
        let Family::Secret { .. } = keys::family(&settings.algorithms)? else {
            return Err(format!("{} needs a public key, not a secret", settings.algorithms.join(", ")));
        };
        if secrets.iter().any(|secret| secret.is_empty()) {
            return Err("the secret is empty".to_owned());
        }
        Self::of_own(settings, secrets.iter().map(|secret| DecodingKey::from_secret(secret)))
    }

    /// A PEM file.
    pub fn of_pem(settings: &JwtSettings, pem: &[u8]) -> Result<Self, String> {
        let family = keys::family(&settings.algorithms)?;
        Self::of_own(settings, keys::public_keys(family, pem)?.into_iter())
    }

    fn of_own(settings: &JwtSettings, keys: impl Iterator<Item = DecodingKey>) -> Result<Self, String> {
        let algorithms = algorithms(&settings.algorithms)?;
        let validation = validation(settings, &algorithms)?;
        let keys = keys.map(|key| VerificationKey { name: None, key, validation: validation.clone() }).collect();
        Ok(Self { keys, is_published: false, algorithms })
    }

    /// A JSON Web Key Set. Keys that are for something else are left out; a set without any for tokens is refused.
    pub fn of_json(settings: &JwtSettings, json: &[u8]) -> Result<Self, String> {
        let algorithms = algorithms(&settings.algorithms)?;
        let set: PublishedSet = serde_json::from_slice(json).map_err(|_| "not a JSON Web Key Set (RFC 7517)")?;
        if set.keys.len() > KEYS_MAX {
            return Err(format!("{} keys; a set has at most {KEYS_MAX}", set.keys.len()));
        }
        let mut keys = Vec::new();
        let mut left_out = Vec::new();
        for key in &set.keys {
            match verification_key(settings, key) {
                Ok(key) => keys.push(key),
                Err(why) => left_out.push(why),
            }
        }
        if keys.is_empty() {
            left_out.dedup();
            let why = if left_out.is_empty() { "it is empty".to_owned() } else { left_out.join("; ") };
            return Err(format!("no key in the set verifies {}: {why}", settings.algorithms.join(", ")));
        }
        Ok(Self { keys, is_published: true, algorithms })
    }

    /// Checks a signature, and the claims that the library checks: `aud` and `iss`.
    pub fn check(&self, token: &str) -> Checked {
        if self.is_published {
            return self.check_published(token);
        }
        Self::try_each(token, self.keys.iter()).unwrap_or_else(|| refused(SIGNATURE))
    }

    /// `None`: the signature is of none of them.
    fn try_each<'a>(token: &str, keys: impl Iterator<Item = &'a VerificationKey>) -> Option<Checked> {
        keys.map(|key| key.check(token)).find_map(|outcome| match outcome {
            Ok(claims) => Some(Checked::Good(claims)),
            Err(Fault::Signature) => None,
            Err(Fault::Other(why)) => Some(refused(why)),
        })
    }

    fn check_published(&self, token: &str) -> Checked {
        let Ok(header) = decode_header(token) else { return refused(UNREADABLE) };
        let fits = |key: &&VerificationKey| key.validation.algorithms.contains(&header.alg);
        let is_named = |key: &&VerificationKey| header.kid.is_some() && key.name == header.kid;
        let mut named = self.keys.iter().filter(is_named).peekable();
        if !self.algorithms.contains(&header.alg) || named.peek().is_some() && !named.clone().any(|key| fits(&key)) {
            return refused(ALGORITHM);
        }
        if named.peek().is_some() {
            return Self::try_each(token, named.filter(fits)).unwrap_or_else(|| refused(SIGNATURE));
        }
        // A token with a name may have been signed by a key without one, and the other way round.
        let may_be = |key: &&VerificationKey| header.kid.is_none() || key.name.is_none();
        let candidates = self.keys.iter().filter(fits).filter(may_be);
        Self::try_each(token, candidates.take(TRIES_MAX)).unwrap_or(Checked::UnknownKey)
    }
}

/// Why a key does not verify a token.
enum Fault {
    Signature,
    Other(&'static str),
}

impl VerificationKey {
    fn check(&self, token: &str) -> Result<Map<String, Value>, Fault> {
        let decoded =
            decode::<Map<String, Value>>(token, &self.key, &self.validation).map_err(|error| fault(&error))?;
        // RFC 7515 section 4.1.11: what must be understood and is not makes a token invalid.
        if decoded.header.crit.is_some() {
            return Err(Fault::Other("the token's header has a `crit` that is not understood"));
        }
        Ok(decoded.claims)
    }
}

/// A secret as it is now: that of its file, if it has one.
pub(super) fn secret_now(secret: &Secret) -> Result<Vec<u8>, String> {
    let Some(path) = &secret.file else { return Ok(secret.bytes.clone()) };
    let content = files::read(path)?;
    keys::secret_of(&content).map(<[u8]>::to_vec).map_err(|why| format!("{}: {why}", path.display()))
}

/// The same, of one that may be none any more: its file is empty then.
pub(super) fn previous_now(secret: &Secret) -> Result<Option<Vec<u8>>, String> {
    if let Some(path) = &secret.file
        && files::read(path)?.trim_ascii().is_empty()
    {
        return Ok(None);
    }
    secret_now(secret).map(Some)
}

/// A secret of this service's own, which others chose.
pub(super) fn secret_of_any_length(secret: &Secret) -> Result<Vec<u8>, String> {
    let Some(path) = &secret.file else { return Ok(secret.bytes.clone()) };
    let content = files::read(path)?.trim_ascii_end().to_vec();
    if content.is_empty() { Err(format!("{}: it is empty", path.display())) } else { Ok(content) }
}

/// Could tokens of these algorithms be checked with this key set?
///
/// # Errors
/// What is wrong, in words for the operator.
pub fn check_key_set(settings: &JwtSettings, json: &[u8]) -> Result<(), String> {
    KeySet::of_json(settings, json).map(drop)
}

#[derive(Deserialize)]
struct PublishedSet {
    keys: Vec<Value>,
}

/// The members of RFC 7517 and RFC 7518 that say what a key is for.
#[derive(Deserialize)]
struct PublishedKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// The private part.
    d: Option<serde::de::IgnoredAny>,
}

/// # Errors
/// Why the key is left out.
fn verification_key(settings: &JwtSettings, key: &Value) -> Result<VerificationKey, &'static str> {
    let key = PublishedKey::deserialize(key).map_err(|_| "a key that cannot be read")?;
    let is_for_signatures = key.usage.as_deref().is_none_or(|usage| usage == "sig")
        && key.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
    if !is_for_signatures {
        return Err("a key that is not for signatures");
    }
    if key.d.is_some() {
        return Err("a private key, which must not be published");
    }
    let (algorithm, decoding_key) = match (key.kty.as_str(), key.crv.as_deref(), &key.n, &key.e, &key.x, &key.y) {
        ("RSA", _, Some(n), Some(e), ..) if RSA_MODULUS_DIGITS.contains(&n.len()) => {
            ("RS256", DecodingKey::from_rsa_components(n, e))
        }
        ("RSA", ..) => return Err("an RSA key that has not 2048 to 8192 bits"),
        ("EC", Some("P-256"), _, _, Some(x), Some(y)) => ("ES256", DecodingKey::from_ec_components(x, y)),
        ("OKP", Some("Ed25519"), _, _, Some(x), _) => ("EdDSA", DecodingKey::from_ed_components(x)),
        // `oct` is a secret: whoever can read the set could sign.
        ("oct", ..) => return Err("a secret, which must not be published"),
        _ => return Err("a key of a kind that is not supported"),
    };
    let is_expected = settings.algorithms.iter().any(|name| name == algorithm);
    if !is_expected || key.alg.as_deref().is_some_and(|alg| alg != algorithm) {
        return Err("a key for another algorithm");
    }
    let decoding_key = decoding_key.map_err(|_| "a key that cannot be read")?;
    let algorithm = keys::algorithm(algorithm).map_err(|_| "a key for another algorithm")?;
    let validation = validation(settings, &[algorithm]).map_err(|_| "a key for another algorithm")?;
    Ok(VerificationKey { name: key.kid, key: decoding_key, validation })
}

fn algorithms(names: &[String]) -> Result<Vec<Algorithm>, String> {
    names.iter().map(|name| keys::algorithm(name)).collect()
}

/// What the library checks: the signature, the algorithm, `aud` and `iss`. Times are checked in `claims`, against the
/// caller's clock: the library would read its own.
fn validation(settings: &JwtSettings, algorithms: &[Algorithm]) -> Result<Validation, String> {
    let mut validation = Validation::new(algorithms.first().copied().ok_or("no algorithm is configured")?);
    validation.algorithms = algorithms.to_vec();
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = !settings.audience.is_empty();
    if !settings.audience.is_empty() {
        validation.set_audience(&settings.audience);
        validation.required_spec_claims.insert("aud".to_owned());
    }
    if !settings.issuer.is_empty() {
        validation.set_issuer(&settings.issuer);
        validation.required_spec_claims.insert("iss".to_owned());
    }
    Ok(validation)
}

const SIGNATURE: &str = "the token's signature does not match";
const ALGORITHM: &str = "the token is signed with an algorithm that this service does not accept";
const UNREADABLE: &str = "this is not a signed JSON Web Token that can be read";

fn refused(why: &'static str) -> Checked {
    Checked::Refused(AuthenticationError::invalid(why))
}

/// The library's own texts can quote the token.
fn fault(error: &Error) -> Fault {
    Fault::Other(match error.kind() {
        ErrorKind::InvalidSignature => return Fault::Signature,
        ErrorKind::InvalidAlgorithm => ALGORITHM,
        ErrorKind::InvalidAudience => "the token is meant for another service: claim `aud`",
        ErrorKind::InvalidIssuer => "the token comes from an issuer that this service does not know: claim `iss`",
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => "the token lacks a readable claim `aud`",
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => "the token lacks a readable claim `iss`",
        _ => UNREADABLE,
    })
}
