//! TLS from PEM files: a certificate with its key, judged before anybody uses it, and what is made of the two: a listener's
//! side that follows its files, and a client's side that asks this machine itself.
//!
//! - `identity`: a certificate chain and its private key, and whether they belong together
//! - `acceptor`: TLS as listeners speak it, with a certificate that changes when its files do
//! - `loopback`: TLS to a listener of this very machine
//!
//! Refuses to know: HTTP, brokers, what is sent inside.

mod acceptor;
mod identity;
mod loopback;

use std::{
    fmt,
    path::{Path, PathBuf},
};

pub use acceptor::{Acceptor, Certificate, Encrypted, Look};
pub use identity::{Unfit, check_identity};
pub use loopback::connect_to_self;

/// Where a certificate chain and its private key are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What is in [`Files`].
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

/// Says nothing of the key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pem(…)")
    }
}

/// No certificate chain or key is as long. What is named by mistake, such as a device, would have no end.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

impl Files {
    /// Reads both, as they are now.
    ///
    /// # Errors
    /// Which file cannot be read, and why.
    pub fn read(&self) -> Result<Pem, String> {
        let read = |path: &Path| read(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
        Ok(Pem { certificate: read(&self.certificate)?, key: read(&self.key)? })
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_MAX_BYTES {
        return Err(std::io::Error::other("it is longer than any certificate"));
    }
    Ok(content)
}
