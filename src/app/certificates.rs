//! Has the listeners' certificates follow their files: Kubernetes, cert-manager and certbot replace them while the service
//! runs.
//!
//! Refuses to know: what is in the files.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    metrics::{Listener, Metrics},
    tls::{Certificate, Files, Look},
};

/// How often the files are looked at. They are a few kilobytes, and some mounts tell nobody of a change.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// # Errors
/// Why there is nothing to begin with, in words for the operator.
pub(super) fn open(files: Files, listener: Listener) -> Result<Certificate, String> {
    let table = match listener {
        Listener::Public => "http",
        Listener::Operations => "operations",
    };
    Certificate::open(files)
        .map_err(|why| format!("`{table}.tls_certificate_file` and `{table}.tls_key_file` cannot be used: {why}"))
}

/// Runs until `stop`.
pub(super) async fn run(
    mut certificate: Certificate,
    listener: Listener,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    use_from_now_on(&certificate, listener, &metrics);
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // A mount that hangs must not hang a thread of the runtime.
        let looked = tokio::task::spawn_blocking(move || {
            let look = certificate.look();
            (certificate, look)
        });
        let Some(Ok((returned, look))) = stop.run_until_cancelled(looked).await else { return };
        certificate = returned;
        tell(&look, listener, &metrics);
        if look == Look::Replaced {
            use_from_now_on(&certificate, listener, &metrics);
        }
    }
}

/// One that has expired is used all the same: another one is not there.
fn use_from_now_on(certificate: &Certificate, listener: Listener, metrics: &Metrics) {
    let expires_at_s = certificate.expires_at_s().unwrap_or_default();
    metrics.tls_certificate_used(listener, expires_at_s);
    if u64::try_from(expires_at_s).unwrap_or_default() <= clock::now().unix_ms / 1000 {
        tracing::error!(listener = listener.as_str(), "the listener's certificate has expired, clients will refuse it");
    }
}

fn tell(look: &Look, listener: Listener, metrics: &Metrics) {
    let listener_name = listener.as_str();
    match look {
        Look::Same | Look::Changing => {}
        Look::Replaced => {
            metrics.tls_certificate_reloaded(listener, true);
            tracing::info!(listener = listener_name, "the listener's new certificate is used");
        }
        Look::Refused(why) => {
            metrics.tls_certificate_reloaded(listener, false);
            tracing::error!(
                listener = listener_name,
                reason = why,
                "the listener's new certificate cannot be used; the old one is kept"
            );
        }
    }
}
