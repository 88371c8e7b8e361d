//! TLS as listeners speak it: 1.2 and 1.3, HTTP/1.1 inside, no client certificates, and a certificate that changes when
//! its files do, without a restart and without a look at open connections.
//!
//! Refuses to know: when to look at the files, how long a handshake may take.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::net::TcpStream;
use tokio_rustls::{Accept, TlsAcceptor, server::TlsStream};

use super::{
    Files, Pem,
    identity::{Unfit, expires_at_s, identity},
};
use crate::settled::{Settled, Sight};

/// Plain bytes that wait to be encrypted, and as many encrypted ones that wait for the kernel, about: what a connection
/// whose peer does not read may hold here. The library's own limit is 64 KiB.
const BUFFER_MAX_BYTES: usize = 16 * 1024;

/// A connection after its handshake.
pub type Encrypted = TlsStream<TcpStream>;

/// A certificate that is held, and its files.
pub struct Certificate {
    files: Files,
    held: Arc<Held>,
    /// What was judged last, good or not.
    judged: Settled<Pem>,
}

/// Speaks the listener's part. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

/// What a look at the files came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    Same,
    /// They have changed and may still be changing: two files are not written at once.
    Changing,
    /// New connections get the new certificate.
    Replaced,
    /// The one that was held is kept, for this reason.
    Refused(String),
}

struct Held(RwLock<Arc<CertifiedKey>>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held(…)")
    }
}

impl ResolvesServerCert for Held {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Certificate {
    /// Reads the files and judges what is in them.
    ///
    /// # Errors
    /// Why there is nothing to start with, in words for the operator.
    pub fn open(files: Files) -> Result<Self, String> {
        let pem = files.read()?;
        let key = identity(&pem, &aws_lc_rs::default_provider()).map_err(|unfit| in_words(&files, &unfit))?;
        let held = Arc::new(Held(RwLock::new(Arc::new(key))));
        Ok(Self { files, held, judged: Settled::new(pem) })
    }

    /// For a listener. It follows this certificate.
    ///
    /// # Errors
    /// The library's, which it has no reason for.
    pub fn acceptor(&self) -> Result<Acceptor, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let versions = versions.map_err(|error| error.to_string())?;
        let mut config = versions.with_no_client_auth().with_cert_resolver(self.held.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Whoever comes back spares both sides the signature; nothing is kept here for it.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
        config.send_tls13_tickets = 1;
        Ok(Acceptor(TlsAcceptor::from(Arc::new(config))))
    }

    /// When the certificate that is held ends, in seconds since 1970. `None`: it does not say so readably.
    #[must_use]
    pub fn expires_at_s(&self) -> Option<i64> {
        expires_at_s(&self.held.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks whether the files have changed, and takes what is in them if it is good. Reads files.
    pub fn look(&mut self) -> Look {
        let pem = match self.files.read() {
            Ok(pem) => pem,
            // In the middle of being replaced, or gone: told once, as everything that is refused.
            Err(why) => return self.settle(Pem { certificate: Vec::new(), key: Vec::new() }, |_| Err(why)),
        };
        let files = self.files.clone();
        self.settle(pem, |pem| identity(pem, &aws_lc_rs::default_provider()).map_err(|unfit| in_words(&files, &unfit)))
    }

    /// Judges what has not been judged yet, once it has settled.
    fn settle(&mut self, pem: Pem, judge: impl FnOnce(&Pem) -> Result<CertifiedKey, String>) -> Look {
        match self.judged.look(pem) {
            Sight::Same => return Look::Same,
            Sight::Changing => return Look::Changing,
            Sight::Taken => {}
        }
        match judge(self.judged.taken()) {
            Ok(key) => {
                *self.held.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                Look::Replaced
            }
            Err(why) => Look::Refused(why),
        }
    }
}

fn in_words(files: &Files, unfit: &Unfit) -> String {
    let path = match unfit {
        Unfit::Certificate(_) => &files.certificate,
        Unfit::Key(_) => &files.key,
    };
    format!("{}: {}", path.display(), unfit.words())
}

impl Acceptor {
    /// A handshake over this stream.
    pub fn accept(&self, stream: TcpStream) -> Accept<TcpStream> {
        self.0.accept_with(stream, |connection| connection.set_buffer_limit(Some(BUFFER_MAX_BYTES)))
    }
}

#[cfg(test)]
#[path = "acceptor_tests.rs"]
pub(super) mod tests;
