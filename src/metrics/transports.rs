//! What is counted of connections by what they are: a session's two sockets, and requests that wait.
//!
//! Refuses to know: what goes over them.

use prometheus::{IntCounter, IntGauge, Registry};

use super::{
    Metrics,
    register::{counters, gauges},
};

/// How a client is told of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    WebSocket,
    /// `text/event-stream`.
    EventStream,
    /// A request for one task that waits for it to change.
    LongPoll,
}

impl Transport {
    const ALL: [Self; 3] = [Self::WebSocket, Self::EventStream, Self::LongPoll];

    fn label(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::EventStream => "event_stream",
            Self::LongPoll => "long_poll",
        }
    }
}

/// In the order of [`Transport::ALL`].
pub(super) struct Transports([(IntGauge, IntCounter); Transport::ALL.len()]);

impl Transports {
    pub(super) fn new(registry: &Registry) -> Self {
        let now = gauges(
            registry,
            "taskcast_transport_connections",
            "Connections over which clients are told of tasks now, by transport.",
            &["transport"],
        );
        let ever = counters(
            registry,
            "taskcast_transport_connections_total",
            "Connections over which clients were told of tasks, by transport.",
            &["transport"],
        );
        Self(Transport::ALL.map(|transport| {
            let labels = &[transport.label()];
            (now.with_label_values(labels), ever.with_label_values(labels))
        }))
    }
}

impl Metrics {
    pub fn transport_opened(&self, transport: Transport) {
        let (now, ever) = &self.transports.0[transport as usize];
        now.inc();
        ever.inc();
    }

    pub fn transport_closed(&self, transport: Transport) {
        self.transports.0[transport as usize].0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_transport_is_counted_by_itself_and_begins_at_zero() {
        let metrics = Metrics::new("memory");
        metrics.transport_opened(Transport::EventStream);
        metrics.transport_opened(Transport::LongPoll);
        metrics.transport_closed(Transport::LongPoll);
        let text = metrics.render().unwrap();
        for line in [
            "taskcast_transport_connections{transport=\"websocket\"} 0",
            "taskcast_transport_connections{transport=\"event_stream\"} 1",
            "taskcast_transport_connections{transport=\"long_poll\"} 0",
            "taskcast_transport_connections_total{transport=\"websocket\"} 0",
            "taskcast_transport_connections_total{transport=\"long_poll\"} 1",
        ] {
            assert!(text.contains(line), "{line}");
        }
    }
}
