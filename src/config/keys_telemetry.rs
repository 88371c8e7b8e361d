//! The part of the table that is about traces. Refuses to know: what the settings do.

use super::keys::{Key, Kind, number, set, unset, with_example};

pub(super) static TELEMETRY: &[Key] = &[
    unset(
        "telemetry.otlp_endpoint",
        Kind::HttpUrl,
        "http://collector:4318",
        "A collector that takes OTLP over HTTP. Spans of events that carry a sampled traceparent go to /v1/traces below it. Unset: \
         OTEL_EXPORTER_OTLP_TRACES_ENDPOINT (as it is) or OTEL_EXPORTER_OTLP_ENDPOINT, else there are none.",
    ),
    unset(
        "telemetry.otlp_headers",
        Kind::Secret,
        "authorization=Bearer%20…,x-tenant=shop",
        "Sent with each request to the collector: name=value, with commas between them and what is special percent-encoded. \
         Unset: OTEL_EXPORTER_OTLP_TRACES_HEADERS or OTEL_EXPORTER_OTLP_HEADERS.",
    ),
    number("telemetry.otlp_timeout_ms", 1, "10000", 60_000, "How long the collector may take to answer a request."),
    unset(
        "telemetry.tls_ca_file",
        Kind::Path,
        "/etc/taskcast/collector-ca.pem",
        "A PEM file of certificate authorities to trust besides the system's, for an https:// collector.",
    ),
    with_example(
        set(
            "telemetry.service_name",
            Kind::Text,
            "taskcast",
            "How traces call this service (service.name). OTEL_SERVICE_NAME counts where this is not given.",
        ),
        "taskcast-shop",
    ),
];
