//! What is counted of TLS on the listeners: handshakes, and certificates that were read again.
//!
//! Refuses to know: keys, and what is sent inside.

use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use super::{
    Metrics,
    register::{counters, gauges},
};

/// Which listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    Public,
    Operations,
}

impl Listener {
    const ALL: [Self; 2] = [Self::Public, Self::Operations];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Operations => "operations",
        }
    }
}

/// What became of a TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsHandshake {
    Accepted,
    /// The two could not agree, or the peer left.
    Failed,
    TimedOut,
    /// Too many were under way, and this one was the oldest.
    CrowdedOut,
    /// The peer does not speak TLS.
    NotTls,
}

impl TlsHandshake {
    const ALL: [Self; 5] = [Self::Accepted, Self::Failed, Self::TimedOut, Self::CrowdedOut, Self::NotTls];

    fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::CrowdedOut => "crowded_out",
            Self::NotTls => "not_tls",
        }
    }
}

pub(super) struct TlsMetrics {
    handshakes: IntCounterVec,
    certificate_reloads: IntCounterVec,
    certificate_expires: IntGaugeVec,
}

impl TlsMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let labels = &["listener", "outcome"];
        let metrics = Self {
            handshakes: counters(registry, "taskcast_tls_handshakes_total", "TLS handshakes, by outcome.", labels),
            certificate_reloads: counters(
                registry,
                "taskcast_tls_certificate_reloads_total",
                "Certificates whose files changed, by whether the new one is used.",
                labels,
            ),
            certificate_expires: gauges(
                registry,
                "taskcast_tls_certificate_expires_timestamp_seconds",
                "When the certificate that is used ends, in seconds since 1970; 0 without TLS.",
                &["listener"],
            ),
        };
        for listener in Listener::ALL {
            for outcome in TlsHandshake::ALL {
                metrics.handshakes.with_label_values(&[listener.as_str(), outcome.label()]).inc_by(0);
            }
            metrics.certificate_expires.with_label_values(&[listener.as_str()]).set(0);
            for outcome in ["replaced", "refused"] {
                metrics.certificate_reloads.with_label_values(&[listener.as_str(), outcome]).inc_by(0);
            }
        }
        metrics
    }
}

impl Metrics {
    pub fn tls_handshake(&self, listener: Listener, outcome: TlsHandshake) {
        self.tls.handshakes.with_label_values(&[listener.as_str(), outcome.label()]).inc();
    }

    pub fn tls_certificate_used(&self, listener: Listener, expires_at_s: i64) {
        self.tls.certificate_expires.with_label_values(&[listener.as_str()]).set(expires_at_s);
    }

    pub fn tls_certificate_reloaded(&self, listener: Listener, is_used: bool) {
        let outcome = if is_used { "replaced" } else { "refused" };
        self.tls.certificate_reloads.with_label_values(&[listener.as_str(), outcome]).inc();
    }
}
