//! Algorithms and keys, checked once when the service starts, so that no token meets a key that cannot work.

use jsonwebtoken::{Algorithm, DecodingKey};

/// The names of RFC 7518 that may be configured.
pub const ALGORITHMS: [&str; 6] = ["HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA"];

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
    public_key(family(algorithms)?, pem).map(drop)
}

/// An RSA public key of 2048 bits has a modulus of 256 bytes; the cryptography refuses shorter ones at each token.
const RSA_DER_MIN_BYTES: usize = 256;

/// An uncompressed point of the curve P-256.
const P256_POINT_BYTES: usize = 65;

pub(super) fn public_key(family: Family, pem: &[u8]) -> Result<DecodingKey, String> {
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
