//! The keys of certificates and of the operators' listener: files are read and judged, so that one run tells what is wrong
//! with them. Refuses to know: what is encrypted with them.

use std::path::{Path, PathBuf};

use super::layers::Layers;
use crate::{
    http,
    tls::{self, Files, Pem, Unfit},
};

/// A certificate and its key; `None` when neither is configured, or after a mistake was noted.
pub(super) fn files(layers: &mut Layers<'_>, certificate: &'static str, key: &'static str) -> Option<Files> {
    let given = [certificate, key].map(|path| layers.text(path).map(PathBuf::from));
    let files = match given {
        [None, None] => return None,
        [Some(_), None] => {
            layers.refuse(certificate, format!("{key} beside it, the private key of this certificate"));
            return None;
        }
        [None, Some(_)] => {
            layers.refuse(key, format!("{certificate} beside it, the certificate of this key"));
            return None;
        }
        [Some(certificate), Some(key)] => Files { certificate, key },
    };
    let read = [read(layers, certificate, &files.certificate), read(layers, key, &files.key)];
    let [Some(certificate_pem), Some(key_pem)] = read else { return None };
    match tls::check_identity(&Pem { certificate: certificate_pem, key: key_pem }) {
        Ok(()) => Some(files),
        Err(unfit) => {
            let path = if matches!(unfit, Unfit::Key(_)) { key } else { certificate };
            layers.refuse(path, format!("a PEM file that can be used: {}", unfit.words()));
            None
        }
    }
}

fn read(layers: &mut Layers<'_>, key: &'static str, path: &Path) -> Option<Vec<u8>> {
    let content = (layers.sources.read)(path);
    content.map_err(|error| layers.refuse(key, format!("a file that can be read ({error})"))).ok()
}

/// Who may ask the operators' listener for what.
pub(super) fn operations(layers: &mut Layers<'_>) -> http::OperationsSettings {
    let token = layers.text("operations.token").map(http::OperationsToken::new);
    let token = token.and_then(|token| token.map_err(|why| layers.refuse("operations.token", why)).ok());
    let token_for_probes = layers.boolean("operations.token_for_probes");
    if token_for_probes && !layers.is_given("operations.token") {
        layers.refuse("operations.token_for_probes", "operations.token beside it, the token that probes bring");
    }
    let token_file = layers.text("operations.token_file").map(PathBuf::from);
    http::OperationsSettings { token, token_file, token_for_probes }
}
