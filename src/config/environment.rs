//! The environment: `TASKCAST_…` variables, and those that Kubernetes puts there for services of such a name.

use super::{
    keys::{self, KEYS, LATER},
    layers::Layers,
    mistake::{Mistake, Source},
    value::Raw,
};

pub(super) const PREFIX: &str = "TASKCAST_";

/// Names the file, so it is not in it.
pub(super) const CONFIG: &str = "TASKCAST_CONFIG";

/// Takes every `TASKCAST_…` variable. An empty one counts as not set, as Compose files write `${…:-}`.
pub(super) fn read(layers: &mut Layers<'_>) {
    let mut variables: Vec<_> = layers.sources.environment.iter().collect();
    variables.sort();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX) && *name != CONFIG) else { continue };
        let key = KEYS.iter().find(|key| key.variable() == name);
        if key.is_none() && is_of_kubernetes(name) {
            continue;
        }
        let source = Source::Variable(name.to_owned());
        let Some(value) = value.to_str() else {
            layers.mistakes.push(Mistake {
                key: key.map_or(name, |key| key.path).to_owned(),
                value: Some("(not UTF-8)".to_owned()),
                source: Some(source),
                expected: "UTF-8 text".to_owned(),
                example: None,
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

/// The path that an unknown variable may have meant: `TASKCAST_AUTH_SERCET` is `auth.sercet`.
fn path_of(name: &str) -> String {
    let rest = name.trim_start_matches(PREFIX).to_ascii_lowercase();
    let by_rule = KEYS.iter().map(|key| key.path).chain(LATER.iter().map(|(path, _)| *path));
    if let Some(path) = by_rule.into_iter().find(|path| keys::variable_by_rule(path) == name) {
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
/// here, and no setting is named like them.
pub(super) fn is_of_kubernetes(name: &str) -> bool {
    // With the underscore in front, a service's own variables and those of `taskcast-…` look alike.
    let Some(rest) = name.strip_prefix("TASKCAST").filter(|rest| rest.starts_with('_')) else { return false };
    rest.starts_with("_PORT_")
        || ["_PORT", "_SERVICE_HOST", "_SERVICE_PORT"].iter().any(|end| rest.ends_with(end))
        || rest.contains("_SERVICE_PORT_")
        || rest.match_indices("_PORT_").any(|(at, found)| is_port_and_protocol(&rest[at + found.len()..]))
}

/// `6379_TCP`, `6379_TCP_ADDR`.
fn is_port_and_protocol(text: &str) -> bool {
    let Some((port, rest)) = text.split_once('_') else { return false };
    let protocol = rest.split('_').next().unwrap_or_default();
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && ["TCP", "UDP", "SCTP"].contains(&protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_setting_is_named_like_a_variable_of_kubernetes() {
        for key in KEYS {
            assert!(!is_of_kubernetes(&key.variable()), "{}", key.variable());
        }
        assert!(!is_of_kubernetes(CONFIG));
    }

    #[test]
    fn variables_of_services_are_told_from_settings() {
        for name in [
            "TASKCAST_PORT",
            "TASKCAST_PORT_6161_TCP",
            "TASKCAST_PORT_6161_TCP_ADDR",
            "TASKCAST_SERVICE_HOST",
            "TASKCAST_SERVICE_PORT",
            "TASKCAST_SERVICE_PORT_HTTP",
            "TASKCAST_REDIS_SERVICE_HOST",
            "TASKCAST_REDIS_SERVICE_PORT_REDIS",
            "TASKCAST_REDIS_PORT",
            "TASKCAST_REDIS_PORT_6379_TCP_ADDR",
            "TASKCAST_DNS_PORT_53_UDP",
        ] {
            assert!(is_of_kubernetes(name), "{name}");
        }
        for name in ["TASKCAST_PORTS", "TASKCAST_SERVICE", "TASKCAST_LOG_PORT_X_TCP", "TASKCAST_X_PORT_1_HTTP"] {
            assert!(!is_of_kubernetes(name), "{name}");
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
