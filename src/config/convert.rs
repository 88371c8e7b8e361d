//! From checked values to the settings of the modules, and the checks that need more than one key.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Config, LogFormat, introspection, issuers, keys::SECRET_EXAMPLE, layers::Layers, memory, tls};
use crate::{
    auth::{self, Family, PUBLIC_KEY_ALGORITHMS, SECRET_MIN_BYTES},
    http, hub, log,
    proto::UserId,
    session,
};

/// For HS256, and while nobody knows the algorithm.
const SECRET_RECOMMENDED_BYTES: usize = 32;

/// `None` only after a mistake was noted.
pub(super) fn config(layers: &mut Layers<'_>) -> Option<Config> {
    let auth = auth(layers);
    let (listen, operations_listen) = addresses(layers);
    let log = log(layers);
    let sessions = sessions(layers);
    let http = http(layers, listen);
    let limits = super::limits::limits(layers);
    let tls = tls::files(layers, "http.tls_certificate_file", "http.tls_key_file");
    let operations = tls::operations(layers);
    let operations_tls = tls::files(layers, "operations.tls_certificate_file", "operations.tls_key_file");
    let memory_max_bytes = memory::max_bytes(layers);
    let canary = canary(layers);
    let traces = super::telemetry::traces(layers);
    let limits = limits?;
    Some(Config {
        listen: listen?,
        operations_listen: operations_listen?,
        log: log?,
        checkpoint: log::CheckpointSettings {
            interval: seconds(layers, "checkpoint.interval_seconds"),
            max_bytes: layers.number("checkpoint.max_bytes"),
        },
        auth: auth?,
        revocations: auth::RevocationSettings {
            max: layers.number("auth.revocations_max") as usize,
            retain: seconds(layers, "auth.revocations_retain_seconds"),
        },
        tasks: hub::Settings {
            max: layers.number("tasks.max") as usize,
            max_bytes: memory::tasks_max_bytes(layers, memory_max_bytes) as usize,
            max_per_owner: layers.number("tasks.max_per_owner") as usize,
            ring_frames: layers.number("tasks.ring_frames") as usize,
            retain_ended: seconds(layers, "tasks.retain_ended_seconds"),
            retain_idle: seconds(layers, "tasks.retain_idle_seconds"),
            resume_window: layers.number("tasks.resume_window") as usize,
        },
        memory_max_bytes,
        limits: limits.0,
        networks: limits.1,
        sessions,
        http: http?,
        tls,
        operations,
        operations_tls,
        canary,
        drain: seconds(layers, "drain_seconds"),
        log_level: layers.text("log_level")?,
        log_level_file: layers.text("log_level_file").map(PathBuf::from),
        log_format: match layers.text("log_format")?.as_str() {
            "json" => LogFormat::Json,
            _ => LogFormat::Text,
        },
        traces,
    })
}

pub(super) fn seconds(layers: &Layers<'_>, path: &'static str) -> Duration {
    Duration::from_secs(layers.number(path))
}

pub(super) fn milliseconds(layers: &Layers<'_>, path: &'static str) -> Duration {
    Duration::from_millis(layers.number(path))
}

/// Both listeners. Without tokens the public one stays on loopback, unless that is asked for in so many words.
fn addresses(layers: &mut Layers<'_>) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let must_be_local = must_be_local(layers);
    let mut listen = layers.address("listen");
    let is_remote = listen.is_some_and(|address| !address.ip().is_loopback());
    if must_be_local && is_remote {
        if layers.is_given("listen") {
            layers.refuse(
                "listen",
                "a loopback address, as auth.mode is \"none\" (127.0.0.1:6161, [::1]:6161); to let everyone who can \
                 connect do everything, say auth.allow_remote_without_token = true",
            );
        } else {
            listen = listen.map(|address| SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())));
        }
    }
    let operations = layers.address("operations_listen");
    if listen == operations && listen.is_some_and(|address| address.port() != 0) {
        layers.refuse("operations_listen", "another address than listen");
    }
    (listen, operations)
}

/// Without tokens, and not told in so many words that strangers are welcome.
fn must_be_local(layers: &Layers<'_>) -> bool {
    let is_open = layers.text("auth.mode").as_deref() == Some("none") && !layers.is_mistaken("auth.mode");
    is_open && !layers.boolean("auth.allow_remote_without_token")
}

/// `None` only after a mistake was noted.
pub(super) fn auth(layers: &mut Layers<'_>) -> Option<auth::Settings> {
    let mode = layers.text("auth.mode").filter(|_| !layers.is_mistaken("auth.mode"));
    // Each on its own, whatever the mode and the others are: one run tells all that is wrong.
    let several = issuers::of(layers);
    let introspection = introspection::settings(layers, mode.as_deref() == Some("introspection"));
    let is_key_needed = mode.as_deref() == Some("jwt") && several.is_empty() && !layers.is_mistaken("auth.issuers");
    let one = jwt(layers, is_key_needed);
    if mode.as_deref() == Some("none") {
        return open(layers);
    }
    if layers.is_given("auth.user") {
        layers.warnings.push("auth.user has no effect: it is for auth.mode = \"none\"".to_owned());
    }
    if mode.as_deref() == Some("introspection") {
        return introspection.map(|settings| auth::Settings::Introspection(Box::new(settings)));
    }
    if several.is_empty() {
        return one.map(|settings| auth::Settings::Jwt(Box::new(settings)));
    }
    several.into_iter().chain(one.map(Some)).collect::<Option<_>>().map(auth::Settings::Issuers)
}

/// One issuer; `None` without a key, and after a mistake was noted.
pub(super) fn jwt(layers: &mut Layers<'_>, is_key_needed: bool) -> Option<auth::JwtSettings> {
    let algorithms = algorithms(layers);
    let family = family(layers, &algorithms);
    let secrets = issuers::secrets(layers, family);
    let public_key = public_key(layers, family);
    check_fit(layers, family, is_key_needed);
    let mut settings = auth::JwtSettings {
        key: auth::Key::Secret(Vec::new()),
        algorithms,
        user_claim: layers.text("auth.user_claim"),
        audience: layers.list("auth.audience"),
        issuer: layers.list("auth.issuer"),
        leeway: seconds(layers, "auth.leeway_seconds"),
        max_age_without_expiry: layers.integer("auth.max_age_without_expiry_seconds").map(Duration::from_secs),
    };
    let key_set = issuers::key_set(layers, &settings);
    settings.key = secrets.or(public_key).or(key_set)?;
    Some(settings)
}

/// A key set says of each key what it is for, so all that may be are let in unless it is said.
fn algorithms(layers: &Layers<'_>) -> Vec<String> {
    if layers.is_given("auth.jwks") && !layers.is_given("auth.algorithms") {
        return PUBLIC_KEY_ALGORITHMS.map(str::to_owned).to_vec();
    }
    layers.list("auth.algorithms")
}

fn open(layers: &mut Layers<'_>) -> Option<auth::Settings> {
    layers.warnings.push(
        "auth.mode = \"none\": tokens are not checked, whoever can connect may do everything; for development only"
            .to_owned(),
    );
    let Some(user) = layers.text("auth.user") else {
        layers
            .warnings
            .push("auth.mode = \"none\" without auth.user: everyone is refused with NO_USER_AVAILABLE".to_owned());
        return Some(auth::Settings::None { user: None });
    };
    match UserId::parse(&user) {
        Ok(user) => Some(auth::Settings::None { user: Some(user) }),
        Err(why) => {
            layers.refuse("auth.user", format!("the name of a user, which {why}"));
            None
        }
    }
}

/// The family of the algorithms; `None` after a mistake in them was noted, and for a key set, which may mix them.
fn family(layers: &mut Layers<'_>, algorithms: &[String]) -> Option<Family> {
    if layers.is_mistaken("auth.algorithms") {
        return None;
    }
    let is_public = |name: &String| PUBLIC_KEY_ALGORITHMS.contains(&name.as_str());
    if layers.is_given("auth.jwks") && !algorithms.is_empty() && algorithms.iter().all(is_public) {
        return None;
    }
    auth::family(algorithms).map_err(|why| layers.refuse("auth.algorithms", why)).ok()
}

/// Exactly one key, and of the algorithms' family.
fn check_fit(layers: &mut Layers<'_>, family: Option<Family>, is_key_needed: bool) {
    let has_secret = layers.is_given("auth.secret") || layers.is_given("auth.secret_file");
    let has_public_key = layers.is_given("auth.public_key_file");
    if layers.is_given("auth.jwks") {
        return issuers::check_fit(layers, family, has_secret || has_public_key);
    }
    match (has_secret, has_public_key, family) {
        (true, true, _) => {
            layers.refuse("auth.public_key_file", "either a public key or a secret (auth.secret), not both");
        }
        (false, false, _) if !is_key_needed => {}
        (false, false, Some(Family::Secret { .. }) | None) => layers.missing(
            "auth.secret",
            "the secret that tokens are signed with (HS256); or auth.jwks, the key set of who issues them; or \
             auth.public_key_file with auth.algorithms RS256, ES256 or EdDSA; or auth.mode = \"introspection\" for opaque \
             tokens; or auth.mode = \"none\", for development on one machine",
            "TASKCAST_AUTH_SECRET=$(openssl rand -hex 32)",
        ),
        (false, false, Some(_)) => layers.missing(
            "auth.public_key_file",
            "the PEM file with the public key that tokens of auth.algorithms are checked with; or auth.jwks",
            "TASKCAST_AUTH_PUBLIC_KEY_FILE=/etc/taskcast/public.pem",
        ),
        (false, true, Some(Family::Secret { .. })) => {
            layers.refuse("auth.algorithms", "RS256, ES256 or EdDSA, as a public key is configured");
        }
        (true, false, Some(Family::Rsa | Family::EllipticCurve | Family::Edwards)) => {
            layers.refuse("auth.algorithms", "HS256, HS384 or HS512, as a secret is configured");
        }
        (true, false, Some(Family::Secret { .. })) | (false, true, Some(_)) | (_, _, None) => {}
    }
}

/// A secret that tokens are signed with.
pub(super) fn secret(layers: &mut Layers<'_>, path: &'static str, family: Option<Family>) -> Option<Vec<u8>> {
    let secret = layers.text(path)?;
    let recommended_bytes = match family {
        Some(Family::Secret { recommended_bytes }) => recommended_bytes,
        _ => SECRET_RECOMMENDED_BYTES,
    };
    if secret.contains(SECRET_EXAMPLE) {
        layers.refuse(path, format!("what {SECRET_EXAMPLE} prints in a shell, not these very words"));
        return None;
    }
    if secret.len() < SECRET_MIN_BYTES {
        let expected = format!("at least {SECRET_MIN_BYTES} bytes; {recommended_bytes} random ones are recommended");
        layers.refuse(path, expected);
        return None;
    }
    if secret.len() < recommended_bytes {
        layers.warnings.push(format!(
            "{path} has {} bytes: with these algorithms it should have {recommended_bytes} (RFC 7518 section 3.2)",
            secret.len()
        ));
    }
    Some(secret.into_bytes())
}

fn public_key(layers: &mut Layers<'_>, family: Option<Family>) -> Option<auth::Key> {
    let path = PathBuf::from(layers.text("auth.public_key_file")?);
    let pem = read(layers, "auth.public_key_file", &path)?;
    // For algorithms that take none, or that are none, no key would be right.
    if matches!(family, None | Some(Family::Secret { .. })) {
        return None;
    }
    if let Err(why) = auth::check_public_key(&layers.list("auth.algorithms"), &pem) {
        layers.refuse("auth.public_key_file", format!("a public key for auth.algorithms; {why}"));
        return None;
    }
    Some(auth::Key::PublicKeyFile(path))
}

pub(super) fn read(layers: &mut Layers<'_>, key: &'static str, path: &Path) -> Option<Vec<u8>> {
    match (layers.sources.read)(path) {
        Ok(content) => Some(content),
        Err(error) => {
            layers.refuse(key, format!("a file that can be read ({error})"));
            None
        }
    }
}

/// `None` only after a mistake was noted.
pub(super) fn log(layers: &mut Layers<'_>) -> Option<log::Settings> {
    let url = layers.text("log.url")?;
    let backend = match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("redis" | "rediss" | "redis+sentinel" | "rediss+sentinel") => log::Backend::Redis { url },
        Some("amqp" | "amqps") => log::Backend::Amqp { url },
        _ => log::Backend::Memory,
    };
    let tls_ca_file = layers.text("log.tls_ca_file").map(PathBuf::from);
    if let Some(path) = &tls_ca_file {
        let pem = read(layers, "log.tls_ca_file", path)?;
        if !pem.windows(17).any(|window| window == b"BEGIN CERTIFICATE") {
            layers.refuse("log.tls_ca_file", "a PEM file with certificates");
            return None;
        }
    }
    let tls_client = tls::files(layers, "log.tls_client_certificate_file", "log.tls_client_key_file");
    let is_encrypted = layers.text("log.url").is_some_and(|url| url.starts_with("rediss") || url.starts_with("amqps"));
    if !is_encrypted && (tls_ca_file.is_some() || tls_client.is_some()) {
        layers.warnings.push("log.tls_… has no effect: log.url is neither rediss:// nor amqps://".to_owned());
    }
    for name in ["log.key", "log.exchange"] {
        // AMQP's short strings (0-9-1 section 4.2.5.3) are the tighter limit.
        if layers.text(name).is_some_and(|text| text.len() > 255 || text.contains(char::is_control)) {
            layers.refuse(name, "a name of 255 bytes or less without control characters");
        }
    }
    Some(log::Settings {
        backend,
        key: layers.text("log.key")?,
        exchange: layers.text("log.exchange")?,
        max_events: layers.number("log.max_events"),
        max_age_seconds: layers.number("log.max_age_seconds"),
        max_bytes: layers.number("log.max_bytes"),
        dead_letters_max: layers.number("log.dead_letters_max"),
        dead_letters_max_bytes: layers.number("log.dead_letters_max_bytes"),
        read_batch: layers.number("log.read_batch") as u16,
        append_timeout: milliseconds(layers, "log.append_timeout_ms"),
        wait_replicas: layers.number("log.wait_replicas") as u8,
        reconnect_max: milliseconds(layers, "log.reconnect_max_ms"),
        tls_ca_file,
        tls_client,
    })
}

fn sessions(layers: &mut Layers<'_>) -> session::Settings {
    let settings = session::Settings {
        heartbeat_interval: milliseconds(layers, "sessions.heartbeat_interval_ms"),
        dead_peer_timeout: milliseconds(layers, "sessions.dead_peer_timeout_ms"),
        write_timeout: milliseconds(layers, "sessions.write_timeout_ms"),
        first_frame_timeout: milliseconds(layers, "sessions.first_frame_timeout_ms"),
        token_expiring_lead: milliseconds(layers, "sessions.token_expiring_lead_ms"),
        token_grace: milliseconds(layers, "sessions.token_grace_ms"),
        message_max_bytes: layers.number("sessions.message_max_bytes") as usize,
        messages_per_minute: layers.number("sessions.messages_per_minute") as u32,
        bytes_per_minute: layers.number("sessions.bytes_per_minute") as u32,
        bad_messages_max: layers.number("sessions.bad_messages_max") as u32,
        subscriptions_max: layers.number("sessions.subscriptions_max") as usize,
        page_max_bytes: layers.number("sessions.page_max_bytes") as usize,
        reconnect_min: milliseconds(layers, "sessions.reconnect_min_ms"),
        reconnect_max: milliseconds(layers, "sessions.reconnect_max_ms"),
    };
    if settings.dead_peer_timeout <= settings.heartbeat_interval {
        let expected =
            format!("more than sessions.heartbeat_interval_ms ({})", settings.heartbeat_interval.as_millis());
        layers.refuse("sessions.dead_peer_timeout_ms", expected);
    }
    if settings.bytes_per_minute > 0 && (settings.bytes_per_minute as usize) < settings.message_max_bytes {
        let expected = format!("0, or no less than sessions.message_max_bytes ({})", settings.message_max_bytes);
        layers.refuse("sessions.bytes_per_minute", expected);
    }
    if settings.reconnect_max < settings.reconnect_min {
        let expected = format!("no less than sessions.reconnect_min_ms ({})", settings.reconnect_min.as_millis());
        layers.refuse("sessions.reconnect_max_ms", expected);
    }
    settings
}

/// `None`: off.
fn canary(layers: &mut Layers<'_>) -> Option<session::CanarySettings> {
    let interval = seconds(layers, "canary.interval_seconds");
    let timeout = seconds(layers, "canary.timeout_seconds");
    if timeout <= interval {
        let expected = format!("more than canary.interval_seconds ({})", interval.as_secs());
        layers.refuse("canary.timeout_seconds", expected);
    }
    (!interval.is_zero()).then_some(session::CanarySettings { interval, timeout })
}

/// `None` only after a mistake was noted.
fn http(layers: &mut Layers<'_>, listen: Option<SocketAddr>) -> Option<http::Settings> {
    let allow_missing_origin = layers.text("http.missing_origin").as_deref() != Some("deny");
    let origins = match http::OriginPolicy::new(&layers.list("origins"), allow_missing_origin) {
        Ok(origins) if layers.is_given("http.tls_certificate_file") => origins.over_tls(),
        Ok(origins) => origins,
        Err(why) => {
            layers.refuse(
                "origins",
                format!("origins such as https://app.example.com, https://*.example.com or *: {why}"),
            );
            return None;
        }
    };
    let header_timeout = milliseconds(layers, "http.header_timeout_ms");
    let keep_alive_timeout = milliseconds(layers, "http.keep_alive_timeout_ms");
    if keep_alive_timeout < header_timeout {
        // It holds for the first request too, which would be cut short by it.
        let expected = format!("no less than http.header_timeout_ms ({})", header_timeout.as_millis());
        layers.refuse("http.keep_alive_timeout_ms", expected);
    }
    let (trusted_proxies, forwarded_header, proxy_protocol) = super::limits::proxies(layers)?;
    Some(http::Settings {
        origins,
        trusted_proxies,
        forwarded_header,
        proxy_protocol,
        header_max_bytes: layers.number("http.header_max_bytes") as usize,
        query_token: layers.boolean("auth.query_token"),
        cookie: layers.text("auth.cookie"),
        connections_max: layers.number("http.connections_max") as usize,
        header_timeout,
        keep_alive_timeout,
        body_max_bytes: layers.number("http.body_max_bytes") as usize,
        events_per_request_max: layers.number("http.events_per_request_max") as usize,
        local_hosts_only: must_be_local(layers) && listen.is_some_and(|address| address.ip().is_loopback()),
        page_token: None,
    })
}
