//! What is counted of limits: who was refused by which, bans, what the limiters remember, and what was read of the lists
//! of networks and of the headers that proxies write.
//!
//! Refuses to know: what the limits are.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::{
    Metrics,
    register::{counter, counters, gauge, gauges},
};

/// A limit, by the name of its key in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The lists of networks.
    Networks,
    FailedAuthenticationsPerIp,
    HandshakesPerIp,
    HandshakesPerUser,
    Connections,
    OperationsConnections,
    ConnectionsPerIp,
    ConnectionsPerUser,
    ConnectionsPerLink,
    EventsPerToken,
    RequestsPerIp,
    RequestsPerUser,
    UnreadListsPerIp,
    UnreadListsPerUser,
    EventsPerRequest,
    BodyBytes,
    HeaderBytes,
    HeaderTime,
    Messages,
    Bytes,
    MessageBytes,
    Subscriptions,
}

impl Limit {
    pub const ALL: [Self; 22] = [
        Self::Networks,
        Self::FailedAuthenticationsPerIp,
        Self::HandshakesPerIp,
        Self::HandshakesPerUser,
        Self::Connections,
        Self::OperationsConnections,
        Self::ConnectionsPerIp,
        Self::ConnectionsPerUser,
        Self::ConnectionsPerLink,
        Self::EventsPerToken,
        Self::RequestsPerIp,
        Self::RequestsPerUser,
        Self::UnreadListsPerIp,
        Self::UnreadListsPerUser,
        Self::EventsPerRequest,
        Self::BodyBytes,
        Self::HeaderBytes,
        Self::HeaderTime,
        Self::Messages,
        Self::Bytes,
        Self::MessageBytes,
        Self::Subscriptions,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Networks => "networks",
            Self::FailedAuthenticationsPerIp => "failed_authentications_per_minute_per_ip",
            Self::HandshakesPerIp => "handshakes_per_minute_per_ip",
            Self::HandshakesPerUser => "handshakes_per_minute_per_user",
            Self::Connections => "connections_max",
            Self::OperationsConnections => "operations_connections_max",
            Self::ConnectionsPerIp => "connections_per_ip_max",
            Self::ConnectionsPerUser => "connections_per_user_max",
            Self::ConnectionsPerLink => "connections_per_link_max",
            Self::EventsPerToken => "events_per_minute_per_token",
            Self::RequestsPerIp => "requests_per_minute_per_ip",
            Self::RequestsPerUser => "requests_per_minute_per_user",
            Self::UnreadListsPerIp => "unread_lists_per_ip_max",
            Self::UnreadListsPerUser => "unread_lists_per_user_max",
            Self::EventsPerRequest => "events_per_request_max",
            Self::BodyBytes => "body_max_bytes",
            Self::HeaderBytes => "header_max_bytes",
            Self::HeaderTime => "header_timeout_ms",
            Self::Messages => "messages_per_minute",
            Self::Bytes => "bytes_per_minute",
            Self::MessageBytes => "message_max_bytes",
            Self::Subscriptions => "subscriptions_max",
        }
    }

    /// Those that remember whom they count.
    const KEYED: [Self; 11] = [
        Self::FailedAuthenticationsPerIp,
        Self::HandshakesPerIp,
        Self::HandshakesPerUser,
        Self::ConnectionsPerIp,
        Self::ConnectionsPerUser,
        Self::ConnectionsPerLink,
        Self::EventsPerToken,
        Self::RequestsPerIp,
        Self::RequestsPerUser,
        Self::UnreadListsPerIp,
        Self::UnreadListsPerUser,
    ];
}

/// What a trusted proxy said of where a request or a connection came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// Believed.
    Used,
    /// Not there, or nothing about a client: a check of the proxy's own.
    Absent,
    /// No address, where one was due.
    Malformed,
    /// From somebody who is not a trusted proxy.
    Untrusted,
}

impl Forwarded {
    const ALL: [Self; 4] = [Self::Used, Self::Absent, Self::Malformed, Self::Untrusted];

    fn label(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Absent => "absent",
            Self::Malformed => "malformed",
            Self::Untrusted => "untrusted",
        }
    }
}

pub(super) struct LimitMetrics {
    /// In the order of [`Limit::ALL`].
    refusals: Vec<IntCounter>,
    /// Likewise, empty where nothing is remembered.
    keys: Vec<Option<(IntGauge, IntCounter)>>,
    bans: IntCounter,
    networks: IntGauge,
    reloads: IntCounterVec,
    forwarded: IntCounterVec,
}

impl LimitMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let r = registry;
        let refusals = counters(r, "taskcast_limit_refusals_total", "What was refused, by limit.", &["limit"]);
        let keys = gauges(
            r,
            "taskcast_limit_keys",
            "Addresses (IPv6: networks of 64 bits), users or tokens that a limit remembers now.",
            &["limit"],
        );
        let forgotten = counters(
            r,
            "taskcast_limit_keys_forgotten_total",
            "Those that a limit forgot before their time, because there were more than limits.keys_max.",
            &["limit"],
        );
        let keyed = |limit: &Limit| {
            let label = [limit.as_str()];
            let is_keyed = Limit::KEYED.contains(limit);
            is_keyed.then(|| (keys.with_label_values(&label), forgotten.with_label_values(&label)))
        };
        let metrics = Self {
            refusals: Limit::ALL.iter().map(|limit| refusals.with_label_values(&[limit.as_str()])).collect(),
            keys: Limit::ALL.iter().map(keyed).collect(),
            bans: counter(r, "taskcast_bans_total", "Addresses that were banned for failed authentications."),
            networks: gauge(r, "taskcast_networks", "Networks on the lists of who may connect and who may not."),
            reloads: counters(
                r,
                "taskcast_network_reloads_total",
                "Times that a changed list of networks was read, by outcome; after a failed one the last good list holds.",
                &["outcome"],
            ),
            forwarded: counters(
                r,
                "taskcast_forwarded_total",
                "What was made of the headers in which proxies say where a client is (PROXY protocol included).",
                &["outcome"],
            ),
        };
        for outcome in ["read", "failed"] {
            metrics.reloads.with_label_values(&[outcome]).inc_by(0);
        }
        for outcome in Forwarded::ALL {
            metrics.forwarded.with_label_values(&[outcome.label()]).inc_by(0);
        }
        metrics
    }
}

impl Metrics {
    /// Somebody was refused something by this limit.
    pub fn limit_refused(&self, limit: Limit) {
        if let Some(counter) = self.limits.refusals.get(limit as usize) {
            counter.inc();
        }
    }

    /// So many are remembered now; and so many had to be forgotten for that.
    pub fn limit_keys(&self, limit: Limit, keys: usize, forgotten: u64) {
        if let Some(Some((gauge, counter))) = self.limits.keys.get(limit as usize) {
            gauge.set(i64::try_from(keys).unwrap_or(i64::MAX));
            counter.inc_by(forgotten);
        }
    }

    pub fn banned(&self) {
        self.limits.bans.inc();
    }

    /// So many networks are on the lists.
    pub fn networks(&self, count: usize) {
        self.limits.networks.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A list of networks changed and was read, or could not be.
    pub fn networks_reloaded(&self, succeeded: bool) {
        self.limits.reloads.with_label_values(&[if succeeded { "read" } else { "failed" }]).inc();
    }

    pub fn forwarded(&self, outcome: Forwarded) {
        self.limits.forwarded.with_label_values(&[outcome.label()]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_a_series_of_its_own_from_the_start() {
        let metrics = Metrics::new("memory");
        for (place, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, place);
            let series = format!("taskcast_limit_refusals_total{{limit=\"{}\"}}", limit.as_str());
            assert!(metrics.render().unwrap().contains(&format!("{series} 0")), "{series}");
            metrics.limit_refused(limit);
            assert!(metrics.render().unwrap().contains(&format!("{series} 1")), "{series}");
        }
        metrics.limit_keys(Limit::HandshakesPerIp, 7, 3);
        let text = metrics.render().unwrap();
        assert!(text.contains("taskcast_limit_keys{limit=\"handshakes_per_minute_per_ip\"} 7"), "{text}");
        assert!(text.contains("taskcast_limit_keys_forgotten_total{limit=\"handshakes_per_minute_per_ip\"} 3"));
    }
}
