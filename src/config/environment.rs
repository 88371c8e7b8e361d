//! The environment: `TASKCAST_…` variables, and those that Kubernetes puts there for services of such a name.

use super::{
    keys::{self, KEYS, Key},
    layers::Layers,
    mistake::{self, EXAMPLE_OF_NOTHING_KNOWN, Mistake, Source},
    telemetry,
    value::{self, Raw},
};

pub(super) const PREFIX: &str = "TASKCAST_";

/// Names the file, so it is not in it.
pub(super) const CONFIG: &str = "TASKCAST_CONFIG";

/// What OpenTelemetry has everybody call them; they count where nothing else is said, and of two the first.
const OF_OPENTELEMETRY: [(&str, &str); 5] = [
    (OF_TRACES_ALONE, ENDPOINT),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", ENDPOINT),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", HEADERS),
    ("OTEL_EXPORTER_OTLP_HEADERS", HEADERS),
    ("OTEL_SERVICE_NAME", "telemetry.service_name"),
];

/// Which protocol is meant, and the one that is spoken here.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const PROTOCOL: &str = "http/protobuf";

/// The whole address, where the others say what is before `/v1/traces`.
pub(super) const OF_TRACES_ALONE: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

const ENDPOINT: &str = "telemetry.otlp_endpoint";
const HEADERS: &str = "telemetry.otlp_headers";

/// Takes the variables of OpenTelemetry, unless they switch it off or speak of a protocol that is not spoken here. They may be
/// meant for others: what cannot be used is left out, and is no mistake.
fn read_opentelemetry(layers: &mut Layers<'_>) {
    let sources = layers.sources;
    let variable = |name: &str| {
        let found = sources.environment.iter().find(|(given, _)| given.to_str() == Some(name));
        found.and_then(|(_, value)| value.to_str()).map(str::trim).filter(|value| !value.is_empty())
    };
    let is_off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|names| names.split(',').all(|name| name.trim() != "otlp"));
    if is_off {
        return;
    }
    let is_said = |layers: &Layers<'_>, key: &Key| {
        let is_in_flags = sources.flags.iter().any(|flag| flag.key == key.path);
        layers.is_given(key.path) || is_in_flags || variable(&key.variable()).is_some()
    };
    // Of two the first counts, as everywhere.
    let protocol = PROTOCOLS.into_iter().find_map(|name| Some((name, variable(name)?)));
    if let Some((name, _)) = protocol.filter(|(_, protocol)| *protocol != PROTOCOL) {
        let is_endpoint = |(name, path): &(&str, &str)| *path == ENDPOINT && variable(name).is_some();
        let is_wanted = OF_OPENTELEMETRY.iter().any(is_endpoint);
        if is_wanted && !keys::find(ENDPOINT).is_some_and(|endpoint| is_said(layers, endpoint)) {
            layers.warnings.push(format!("OTEL_ variables have no effect here: expected {PROTOCOL} of {name}"));
        }
        return;
    }
    for (name, path) in OF_OPENTELEMETRY {
        let (Some(key), Some(value)) = (keys::find(path), variable(name)) else { continue };
        // Nobody is told anything where there is nobody to tell.
        let is_idle = path == HEADERS && !keys::find(ENDPOINT).is_some_and(|endpoint| is_said(layers, endpoint));
        if is_idle || is_said(layers, key) {
            continue;
        }
        let raw = Raw::Untyped(value.to_owned());
        let fits = value::parse(key.kind, &raw).map(|_| ()).and_then(|()| match path {
            HEADERS => telemetry::check_headers(value),
            _ => Ok(()),
        });
        match fits {
            Ok(()) => layers.take(key, &raw, Source::Variable(name.to_owned())),
            Err(expected) => layers.warnings.push(format!("{name} has no effect here: expected {expected}")),
        }
    }
}

/// Takes every `TASKCAST_…` variable. An empty one counts as not set, as Compose files write `${…:-}`.
pub(super) fn read(layers: &mut Layers<'_>) {
    read_opentelemetry(layers);
    let mut variables: Vec<_> = layers.sources.environment.iter().collect();
    variables.sort();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX) && *name != CONFIG) else { continue };
        let key = KEYS.iter().find(|key| key.variable() == name);
        if key.is_none() && is_of_kubernetes(name, &value.to_string_lossy()) {
            continue;
        }
        let source = Source::Variable(name.to_owned());
        let Some(value) = value.to_str() else {
            layers.mistakes.push(Mistake {
                example: key.map_or(EXAMPLE_OF_NOTHING_KNOWN.to_owned(), |key| mistake::example(key, &source)),
                key: key.map_or(name, |key| key.path).to_owned(),
                value: Some("(not UTF-8)".to_owned()),
                source: Some(source),
                expected: "UTF-8 text".to_owned(),
            });
            continue;
        };
        let raw = Raw::Untyped(value.to_owned());
        match key {
            Some(key) if !value.is_empty() => layers.take(key, &raw, source),
            Some(_) => {}
            None => layers.unknown(&path_of(name), name, &raw, source),
        }
    }
}

/// Names that are likely for a port, where an address is set here: what they mean.
const PORTS: [(&str, &str); 6] = [
    ("PORT", "listen"),
    ("LISTEN_PORT", "listen"),
    ("HTTP_PORT", "listen"),
    ("PUBLIC_PORT", "listen"),
    ("OPERATIONS_PORT", "operations_listen"),
    ("METRICS_PORT", "operations_listen"),
];

/// The path that an unknown variable may have meant: `TASKCAST_AUTH_SERCET` is `auth.sercet`.
fn path_of(name: &str) -> String {
    if let Some((_, path)) = PORTS.iter().find(|(port, _)| name.strip_prefix(PREFIX) == Some(port)) {
        return (*path).to_owned();
    }
    let rest = name.trim_start_matches(PREFIX).to_ascii_lowercase();
    let mut by_rule = KEYS.iter().map(|key| key.path);
    if let Some(path) = by_rule.find(|path| keys::variable_by_rule(path) == name) {
        return path.to_owned();
    }
    let table = keys::TABLES
        .iter()
        .find(|(table, _)| !table.is_empty() && rest.strip_prefix(table).is_some_and(|name| name.starts_with('_')));
    match table {
        Some((table, _)) => format!("{table}.{}", &rest[table.len() + 1..]),
        None => rest,
    }
}

/// Variables that Kubernetes injects for services called `taskcast` or `taskcast-…` (Docker links use the same):
/// `TASKCAST_PORT=tcp://10.0.0.1:6161`, `TASKCAST_SERVICE_HOST`, `TASKCAST_REDIS_PORT_6379_TCP_ADDR`. They mean nothing
/// here, and no setting is named like them. Names that a person could think of count only with a value of Kubernetes:
/// `TASKCAST_PORT=8080` is a mistake that must not pass in silence.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    // With the underscore in front, a service's own variables and those of `taskcast-…` look alike.
    let Some(rest) = name.strip_prefix("TASKCAST").filter(|rest| rest.starts_with('_')) else { return false };
    if rest.ends_with("_SERVICE_HOST") || rest.ends_with("_SERVICE_PORT") || rest.contains("_SERVICE_PORT_") {
        return true;
    }
    let mut ports = rest.match_indices("_PORT_").map(|(at, found)| &rest[at + found.len()..]);
    match ports.find_map(after_port_and_protocol) {
        Some("_PROTO" | "_PORT" | "_ADDR") => true,
        Some("") => is_address(value),
        Some(_) => false,
        None => rest.ends_with("_PORT") && is_address(value),
    }
}

/// `6379_TCP_ADDR`: `_ADDR`.
fn after_port_and_protocol(text: &str) -> Option<&str> {
    let (port, rest) = text.split_once('_')?;
    let is_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    ["TCP", "UDP", "SCTP"].iter().find_map(|protocol| rest.strip_prefix(protocol)).filter(|_| is_port)
}

fn is_address(value: &str) -> bool {
    ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "tcp://10.0.0.1:6161";

    #[test]
    fn no_setting_is_named_like_a_variable_of_kubernetes() {
        for key in KEYS.iter() {
            assert!(!is_of_kubernetes(&key.variable(), ADDRESS), "{}", key.variable());
        }
        assert!(!is_of_kubernetes(CONFIG, ADDRESS));
    }

    #[test]
    fn variables_of_services_are_told_from_settings() {
        for (name, value) in [
            ("TASKCAST_PORT", ADDRESS),
            ("TASKCAST_PORT_6161_TCP", ADDRESS),
            ("TASKCAST_PORT_6161_TCP_PROTO", "tcp"),
            ("TASKCAST_PORT_6161_TCP_PORT", "6161"),
            ("TASKCAST_PORT_6161_TCP_ADDR", "10.0.0.1"),
            ("TASKCAST_SERVICE_HOST", "10.0.0.1"),
            ("TASKCAST_SERVICE_PORT", "6161"),
            ("TASKCAST_SERVICE_PORT_HTTP", "6161"),
            ("TASKCAST_REDIS_SERVICE_HOST", "10.0.0.2"),
            ("TASKCAST_REDIS_SERVICE_PORT_REDIS", "6379"),
            ("TASKCAST_REDIS_PORT", "tcp://10.0.0.2:6379"),
            ("TASKCAST_REDIS_PORT_6379_TCP_ADDR", "10.0.0.2"),
            ("TASKCAST_DNS_PORT_53_UDP", "udp://10.0.0.3:53"),
            ("TASKCAST_SIP_PORT_5060_SCTP", "sctp://10.0.0.4:5060"),
            ("TASKCAST_SIP_PORT_5060_SCTP_PROTO", "sctp"),
        ] {
            assert!(is_of_kubernetes(name, value), "{name}={value}");
        }
        for (name, value) in [
            ("TASKCAST_PORT", "6161"),
            ("TASKCAST_PORT", ""),
            ("TASKCAST_PORT", "http://10.0.0.1"),
            ("TASKCAST_OPERATIONS_PORT", "6162"),
            ("TASKCAST_PORT_6161_TCP", "yes"),
            ("TASKCAST_PORT_NUMBER", ADDRESS),
            ("TASKCAST_PORT_6161_TCP_HOST", ADDRESS),
            ("TASKCAST_PORTS", ADDRESS),
            ("TASKCAST_SERVICE", ADDRESS),
            ("TASKCAST_LOG_PORT_X_TCP", ADDRESS),
            ("TASKCAST_X_PORT_1_HTTP", ADDRESS),
        ] {
            assert!(!is_of_kubernetes(name, value), "{name}={value}");
        }
    }

    #[test]
    fn an_unknown_variable_is_read_as_the_path_it_may_have_meant() {
        assert_eq!(path_of("TASKCAST_LOG_URL"), "log.url");
        assert_eq!(path_of("TASKCAST_AUTH_SERCET"), "auth.sercet");
        assert_eq!(path_of("TASKCAST_LISEN"), "lisen");
        assert_eq!(path_of("TASKCAST_AUTH_JWKS"), "auth.jwks");
    }
}
