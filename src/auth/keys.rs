//! Algorithms and keys, checked before any token meets them, so that none meets a key that cannot work.
//!
//! Refuses to know: tokens, and where keys come from.

use jsonwebtoken::{Algorithm, DecodingKey};

/// The names of RFC 7518 that may be configured.
pub const ALGORITHMS: [&str; 6] = ["HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA"];

/// Those whose keys anyone may know; the others take a secret.
pub const PUBLIC_KEY_ALGORITHMS: [&str; 3] = ["RS256", "ES256", "EdDSA"];

/// A shorter secret can be guessed; RFC 7518 section 3.2 asks for as many bytes as the hash has.
pub const SECRET_MIN_BYTES: usize = 16;

/// Keys in one PEM file at most: the one in use and those around a rotation.
const PEM_KEYS_MAX: usize = 8;

/// What kind of key the algorithms need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A shared secret, best as long as the longest hash of the algorithms: 32, 48 or 64 bytes (RFC 7518 section 3.2).
    Secret {
        recommended_bytes: usize,
    },
    Rsa,
    EllipticCurve,
    Edwards,
}

/// The one family that all these algorithms belong to.
///
/// # Errors
/// No algorithm, an unknown one, or more than one family, in words for the operator.
pub fn family(algorithms: &[String]) -> Result<Family, String> {
    let mut found: Option<Family> = None;
    for name in algorithms {
        let next = match name.as_str() {
            "HS256" => Family::Secret { recommended_bytes: 32 },
            "HS384" => Family::Secret { recommended_bytes: 48 },
            "HS512" => Family::Secret { recommended_bytes: 64 },
            "RS256" => Family::Rsa,
            "ES256" => Family::EllipticCurve,
            "EdDSA" => Family::Edwards,
            _ => return Err(format!("`{name}` is none of {}", ALGORITHMS.join(", "))),
        };
        found = match (found, next) {
            (Some(Family::Secret { recommended_bytes: a }), Family::Secret { recommended_bytes: b }) => {
                Some(Family::Secret { recommended_bytes: a.max(b) })
            }
            // A public key read as a secret lets anyone who has it sign: the families never mix.
            (Some(before), _) if before != next => {
                return Err("algorithms of one family only: HS256/HS384/HS512, or RS256, or ES256, or EdDSA".to_owned());
            }
            _ => Some(next),
        };
    }
    found.ok_or_else(|| format!("at least one of {}", ALGORITHMS.join(", ")))
}

/// Could tokens of these algorithms be checked with this PEM text?
///
/// # Errors
/// What is wrong, in words for the operator.
pub fn check_public_key(algorithms: &[String], pem: &[u8]) -> Result<(), String> {
    public_keys(family(algorithms)?, pem).map(drop)
}

/// The secret in a file, which an editor may have ended with a line.
pub(super) fn secret_of(content: &[u8]) -> Result<&[u8], String> {
    let text = std::str::from_utf8(content).map_err(|_| "not UTF-8 text".to_owned())?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.len() < SECRET_MIN_BYTES {
        return Err(format!("a secret has at least {SECRET_MIN_BYTES} bytes"));
    }
    Ok(secret.as_bytes())
}

/// An RSA public key of 2048 bits has a modulus of 256 bytes; the cryptography refuses shorter ones at each token.
const RSA_DER_MIN_BYTES: usize = 256;

/// An uncompressed point of the curve P-256.
const P256_POINT_BYTES: usize = 65;

/// Every key of a PEM file, in its order.
pub(super) fn public_keys(family: Family, pem: &[u8]) -> Result<Vec<DecodingKey>, String> {
    let begins = b"-----BEGIN ";
    let starts: Vec<usize> =
        pem.windows(begins.len()).enumerate().filter(|(_, w)| w == begins).map(|(at, _)| at).collect();
    if starts.len() > PEM_KEYS_MAX {
        return Err(format!("more than {PEM_KEYS_MAX} keys in one file"));
    }
    let ends = starts.iter().skip(1).copied().chain([pem.len()]);
    let parts: Vec<&[u8]> = starts.iter().zip(ends).map(|(&start, end)| &pem[start..end]).collect();
    // What has no such line is no PEM, and told so.
    let parts = if parts.is_empty() { vec![pem] } else { parts };
    parts.into_iter().map(|part| public_key(family, part)).collect()
}

fn public_key(family: Family, pem: &[u8]) -> Result<DecodingKey, String> {
    if pem.windows(11).any(|window| window == b"PRIVATE KEY") {
        return Err("this is a private key; the service needs, and should have, only the public one".to_owned());
    }
    let (key, what) = match family {
        Family::Secret { .. } => return Err("HS256, HS384 and HS512 take a secret, not a public key".to_owned()),
        Family::Rsa => (DecodingKey::from_rsa_pem(pem), "an RSA public key of 2048 bits or more"),
        Family::EllipticCurve => (DecodingKey::from_ec_pem(pem), "a public key on the curve P-256"),
        Family::Edwards => (DecodingKey::from_ed_pem(pem), "an Ed25519 public key"),
    };
    let fits = |key: &DecodingKey| match (family, key.try_get_as_bytes()) {
        (Family::Rsa, Ok(der)) => der.len() >= RSA_DER_MIN_BYTES,
        (Family::EllipticCurve, Ok(point)) => point.len() == P256_POINT_BYTES,
        _ => true,
    };
    key.ok().filter(fits).ok_or_else(|| format!("not a PEM file with {what}"))
}

/// The library's name of an algorithm that [`family`] has accepted.
pub(super) fn algorithm(name: &str) -> Result<Algorithm, String> {
    name.parse().map_err(|_| format!("`{name}` is none of {}", ALGORITHMS.join(", ")))
}
