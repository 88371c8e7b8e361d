//! A certificate chain and its private key, and whether they belong together. Refuses to know: where they are from, and
//! who believes them.

use rustls::{
    Error, InconsistentKeys,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::Pem;

/// Why a pair cannot be used, and which of the two is to blame. Holds nothing of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    Certificate(String),
    Key(String),
}

impl Unfit {
    /// In words for the operator.
    #[must_use]
    pub fn words(&self) -> &str {
        match self {
            Self::Certificate(words) | Self::Key(words) => words,
        }
    }
}

/// Whether a listener, or a client of a broker, could use this pair.
///
/// # Errors
/// Why not.
pub fn check_identity(pem: &Pem) -> Result<(), Unfit> {
    identity(pem, &aws_lc_rs::default_provider()).map(drop)
}

pub(super) fn identity(pem: &Pem, provider: &CryptoProvider) -> Result<CertifiedKey, Unfit> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem.certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| Unfit::Certificate(format!("the file is not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(Unfit::Certificate("the file holds no certificate (`BEGIN CERTIFICATE`)".to_owned()));
    }
    // The parser's own words could hold what it stumbled over.
    let no_key = "the file holds no private key in PEM that can be read; one with a passphrase cannot";
    let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|_| Unfit::Key(no_key.to_owned()))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            Unfit::Key("the key is not that of the first certificate in the certificate's file".to_owned())
        }
        // What `openssl x509 -req` makes without extensions.
        Error::InvalidCertificate(why) if format!("{why:?}").contains("UnsupportedCertVersion") => Unfit::Certificate(
            "the first certificate is of X.509 version 1; version 3 is needed (`openssl x509 -req … -extfile …`)"
                .to_owned(),
        ),
        Error::InvalidCertificate(why) => Unfit::Certificate(format!("the first certificate cannot be used: {why}")),
        // Of a kind or a size that the library does not take.
        _ => Unfit::Key("the private key cannot be used: RSA of 2048 bits and more, ECDSA and Ed25519 can".to_owned()),
    })
}

/// When the first certificate of a chain ends, in seconds since 1970.
pub(super) fn expires_at_s(key: &CertifiedKey) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(key.end_entity_cert().ok()?).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::acceptor::tests::{pem, pem_of_another};

    #[test]
    fn a_pair_is_judged_and_the_file_to_blame_is_named() {
        let (good, other) = (pem(), pem_of_another());
        assert_eq!(check_identity(&good), Ok(()));
        let with = |certificate: &[u8], key: &[u8]| {
            check_identity(&Pem { certificate: certificate.to_vec(), key: key.to_vec() })
        };
        for (certificate, key, blames_key, part) in [
            (&b""[..], &good.key[..], false, "no certificate"),
            (b"hello", &good.key, false, "no certificate"),
            (b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", &good.key, false, "not PEM"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &good.key, false, "cannot be used"),
            (&good.key, &good.key, false, "no certificate"),
            (&good.certificate, b"", true, "no private key"),
            (&good.certificate, &good.certificate, true, "no private key"),
            (&good.certificate, &other.key, true, "not that of the first"),
            (
                &good.certificate,
                b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                true,
                "cannot be used",
            ),
        ] {
            let unfit = with(certificate, key).unwrap_err();
            assert_eq!(matches!(unfit, Unfit::Key(_)), blames_key, "{unfit:?}");
            assert!(unfit.words().contains(part), "{unfit:?} has no {part:?}");
        }
    }

    #[test]
    fn nothing_of_a_key_is_printed() {
        assert_eq!(format!("{:?}", pem()), "Pem(…)");
    }
}
