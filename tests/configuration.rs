//! The configuration: three layers, every mistake told at once, secrets never.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use taskcast::{
    auth, clock,
    config::{self, Config, Flag, Loaded, LogFormat, Mistake, Mistakes, Source, Sources},
    log::Backend,
    proto::UserId,
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A machine: its files, its environment, and a command line.
#[derive(Clone, Default)]
struct Given {
    files: BTreeMap<PathBuf, Vec<u8>>,
    config: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    flags: Vec<Flag>,
}

impl Given {
    fn new() -> Self {
        Self::default()
    }

    /// With what every configuration needs.
    fn valid() -> Self {
        Self::new().variable("TASKCAST_AUTH_SECRET", SECRET)
    }

    fn file(mut self, toml: &str) -> Self {
        self.config = Some("taskcast.toml".into());
        self.with_file("taskcast.toml", toml.as_bytes())
    }

    fn with_file(mut self, path: &str, content: &[u8]) -> Self {
        self.files.insert(path.into(), content.to_vec());
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn set(mut self, key: &str, value: &str) -> Self {
        self.flags.push(Flag { name: "--set".to_owned(), key: key.to_owned(), value: Some(value.to_owned()) });
        self
    }

    fn with_sources<T>(&self, use_them: impl FnOnce(&Sources<'_>) -> T) -> T {
        let read = |path: &Path| self.files.get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        use_them(&Sources {
            file: self.config.clone(),
            environment: self.environment.clone(),
            flags: self.flags.clone(),
            read: &read,
        })
    }

    fn load(&self) -> Result<Loaded, Mistakes> {
        self.with_sources(Config::load)
    }

    fn config(&self) -> Config {
        self.load().unwrap().config
    }

    /// All mistakes, of which there must be some.
    fn mistakes(&self) -> Vec<Mistake> {
        self.load().unwrap_err().0
    }

    /// The one mistake that there must be.
    fn mistake(&self) -> Mistake {
        let mut mistakes = self.mistakes();
        assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
        mistakes.remove(0)
    }
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let given = Given::valid().file("[tasks]\nmax = 1\nring_frames = 2\n[log]\nkey = \"from-file\"\n");
    assert_eq!(given.config().tasks.max, 1);
    let given = given.variable("TASKCAST_TASKS_MAX", "3").variable("TASKCAST_LOG_KEY", "from-environment");
    assert_eq!(given.config().tasks.max, 3);
    let given = given.set("tasks.max", "4");
    let config = given.config();
    assert_eq!((config.tasks.max, config.tasks.ring_frames), (4, 2));
    assert_eq!(config.log.key, "from-environment");
}

#[test]
fn the_file_is_named_by_a_variable_too_and_the_flag_wins() {
    let by_variable = Given::valid().with_file("a.toml", b"drain_seconds = 1").variable("TASKCAST_CONFIG", "a.toml");
    assert_eq!(by_variable.config().drain, Duration::from_secs(1));
    assert_eq!(by_variable.file("drain_seconds = 2").config().drain, Duration::from_secs(2));
}

#[test]
fn the_fixed_names_of_the_environment_work() {
    let given = Given::new()
        .variable("TASKCAST_LISTEN", "127.0.0.1:1")
        .variable("TASKCAST_OPERATIONS_LISTEN", "localhost:2")
        .variable("TASKCAST_LOG", "rediss://user:hunter2@redis:6380/1")
        .variable("TASKCAST_LOG_KEY", "k")
        .variable("TASKCAST_LOG_EXCHANGE", "x")
        .variable("TASKCAST_LOG_LEVEL", "warn,taskcast=debug")
        .variable("TASKCAST_LOG_FORMAT", "json")
        .variable("TASKCAST_AUTH_MODE", "jwt")
        .variable("TASKCAST_AUTH_ALGORITHMS", "HS512, HS256")
        .variable("TASKCAST_AUTH_SECRET", SECRET)
        .variable("TASKCAST_AUTH_USER_CLAIM", "uid")
        .variable("TASKCAST_AUTH_AUDIENCE", "a,b")
        .variable("TASKCAST_AUTH_ISSUER", "i")
        .variable("TASKCAST_AUTH_COOKIE", "c")
        .variable("TASKCAST_AUTH_QUERY_TOKEN", "false")
        .variable("TASKCAST_AUTH_MAX_AGE_WITHOUT_EXPIRY_SECONDS", "604800")
        .variable("TASKCAST_ORIGINS", "https://a.example,https://*.b.example")
        .variable("TASKCAST_DRAIN_SECONDS", "7");
    let config = given.config();
    assert_eq!(config.listen.to_string(), "127.0.0.1:1");
    assert_eq!(config.operations_listen.to_string(), "127.0.0.1:2");
    assert!(matches!(&config.log.backend, Backend::Redis { url } if url == "rediss://user:hunter2@redis:6380/1"));
    assert_eq!((config.log.key.as_str(), config.log.exchange.as_str()), ("k", "x"));
    assert_eq!((config.log_level.as_str(), config.log_format), ("warn,taskcast=debug", LogFormat::Json));
    assert_eq!((config.http.cookie.as_deref(), config.http.query_token), (Some("c"), false));
    assert_eq!(config.drain, Duration::from_secs(7));
    let auth::Settings::Jwt(jwt) = config.auth else { panic!("not jwt") };
    assert_eq!(jwt.algorithms, ["HS512", "HS256"]);
    assert_eq!((jwt.user_claim.as_deref(), &jwt.audience[..]), (Some("uid"), &["a".to_owned(), "b".to_owned()][..]));
    assert_eq!(jwt.issuer, ["i"]);
    assert_eq!(jwt.max_age_without_expiry, Some(Duration::from_hours(7 * 24)));
    assert!(jwt.key.signing_secret() == Some(SECRET.as_bytes()));
}

#[test]
fn lists_are_arrays_in_the_file_and_text_elsewhere() {
    let of = |toml: &str| match Given::valid().file(toml).config().auth {
        auth::Settings::Jwt(jwt) => jwt.audience,
        _ => panic!("not one issuer"),
    };
    assert_eq!(of("[auth]\naudience = [\"a\", \"b\"]"), ["a", "b"]);
    assert_eq!(of("[auth]\naudience = \"a, b\""), ["a", "b"]);
    assert_eq!(of("[auth]\naudience = []"), Vec::<String>::new());
}

#[test]
fn all_mistakes_are_told_at_once_each_with_key_value_expectation_and_example() {
    let toml = "\
log = 100
lisen = \"0.0.0.0:1\"
[tasks]
max = \"many\"
ring_frames = 0
resume_window = 1.5
[session]
heartbeat_interval_ms = 1
[http]
missing_origin = \"maybe\"
connections_max = [1]
";
    let given = Given::new()
        .file(toml)
        .variable("TASKCAST_LOG", "kafka://broker")
        .variable("TASKCAST_LOG_LEVEL", "inof")
        .variable("TASKCAST_TASKS_MAXX", "7")
        .variable("TASKCAST_DRAIN_SECONDS", "-1")
        .set("operations_listen", "6162")
        .set("sessions.bad_messages_max", "0x10");
    let mistakes = given.mistakes();
    let expected: [(&str, Option<&str>, &str, &str); 14] = [
        ("log", Some("100"), "a table [log], not a number", "url = "),
        ("lisen", Some("\"0.0.0.0:1\""), "did you mean listen?", "listen = "),
        ("tasks.max", Some("\"many\""), "a whole number from 1", "max = 100000"),
        ("tasks.ring_frames", Some("0"), "a whole number from 1 to 1024", "ring_frames = 16"),
        ("tasks.resume_window", Some("1.5"), "not a number with a fraction", "resume_window = 500000"),
        ("[session]", Some("{…}"), "did you mean [sessions]?", "[sessions]"),
        ("http.missing_origin", Some("\"maybe\""), "one of allow, deny", "missing_origin = "),
        ("http.connections_max", Some("[1]"), "not a list", "connections_max = 20000"),
        ("drain_seconds", Some("-1"), "a whole number from 0 to 3600", "TASKCAST_DRAIN_SECONDS=20"),
        ("log.url", Some("kafka://broker/"), "redis://", "TASKCAST_LOG=redis://localhost:6379/0"),
        ("log_level", Some("inof"), "trace", "TASKCAST_LOG_LEVEL=info"),
        ("TASKCAST_TASKS_MAXX", Some("7"), "did you mean TASKCAST_TASKS_MAX?", "TASKCAST_TASKS_MAX=100000"),
        ("operations_listen", Some("6162"), "an IP address and a port", "--set operations_listen=0.0.0.0:6162"),
        ("sessions.bad_messages_max", Some("0x10"), "a whole number", "--set sessions.bad_messages_max=20"),
    ];
    let expected_of_secret = ("auth.secret", None, "the secret that tokens are signed with", "TASKCAST_AUTH_SECRET=");
    let all: Vec<_> = expected.into_iter().chain([expected_of_secret]).collect();
    for (key, value, expectation, example) in &all {
        let found = mistakes.iter().find(|mistake| mistake.key == *key);
        let mistake = found.unwrap_or_else(|| panic!("{key} is missing in {mistakes:#?}"));
        // The path of an address that is no URL of ours may be shown with or without its slash.
        let shown = mistake.value.as_deref().map(|value| value.trim_end_matches('/'));
        assert_eq!(shown, value.map(|value| value.trim_end_matches('/')), "{mistake:?}");
        assert!(mistake.expected.contains(expectation), "{mistake:?}");
        assert!(mistake.example.contains(example), "{mistake:?}");
    }
    assert_eq!(mistakes.len(), all.len(), "{mistakes:#?}");
    let line = |key: &str| mistakes.iter().find(|m| m.key == key).and_then(|m| m.source.clone());
    assert_eq!(line("http.missing_origin"), Some(Source::File { path: "taskcast.toml".into(), line: 10 }));
    assert_eq!(line("log_level"), Some(Source::Variable("TASKCAST_LOG_LEVEL".to_owned())));
    assert_eq!(line("operations_listen"), Some(Source::Flag("--set".to_owned())));
}

#[test]
fn every_mistake_has_an_example_near_to_what_was_meant() {
    let any = "`taskcast default-config` lists every key";
    let file = |toml: &str| Given::valid().file(toml);
    for (given, key, expected, example) in [
        (file("channel_capacity = 100"), "channel_capacity", "known", any),
        (file("[nope]"), "[nope]", "one of the tables [auth]", any),
        (Given::new().file("[auth]\njwks = \"http://x\""), "auth.jwks", "https://", "jwks = "),
        (file("[log]\nurl = \"amqp://\""), "log.url", "amqp://", "url = \"amqp://user"),
        (file("[log]\nurl = \"amqp://a:1,b:x,c:y\""), "log.url", "host 2: ", "url = \"amqp://user"),
        (file("[log]\nurl = \"amqp://a:1,b:x,c:y\""), "log.url", "host 3: ", "url = \"amqp://user"),
        (file("[log]\nurl = \"amqp://a,b,a\""), "log.url", "host 3 is named twice", "url = \"amqp://user"),
        (file("[log]\nurl = \"rediss://\""), "log.url", "rediss://", "url = \"rediss://"),
        (file("[log]\nurl = \"redis+sentinel://h\""), "log.url", "name of the primary", "url = \"redis+sentinel://"),
        (file("[tasks]\nmax = 1O0"), "configuration file", "TOML", "[tasks]\nmax = 100000"),
        (file("listen = 127.0.0.1:1"), "configuration file", "TOML", "listen = \"0.0.0.0:6161\""),
        (file("what is = this"), "configuration file", "TOML", any),
        (Given::valid().variable("TASKCAST_CONFIG", "no"), "configuration file", "can be read", "TASKCAST_CONFIG="),
        (Given::valid().variable("TASKCAST_LOGG", "x"), "TASKCAST_LOGG", "mean TASKCAST_LOG?", "TASKCAST_LOG=redis://"),
        (Given::valid().variable("TASKCAST_WHATEVER", "x"), "TASKCAST_WHATEVER", "known", any),
        (
            Given::valid().variable("TASKCAST_SESSIONS", "100"),
            "TASKCAST_SESSIONS",
            "a table, whose settings are TASKCAST_SESSIONS_…",
            "TASKCAST_SESSIONS_HEARTBEAT_INTERVAL_MS=25000",
        ),
        (Given::valid().set("sessions", "100"), "sessions", "settings are sessions.…", "--set sessions.heartbeat"),
    ] {
        for mistake in given.mistakes() {
            assert_eq!(mistake.key, key, "{mistake:?}");
            assert!(mistake.value.is_some(), "{mistake:?}");
            assert!(mistake.expected.contains(expected), "{mistake:?}");
            assert!(mistake.example.contains(example), "{mistake:?}");
        }
    }
}

#[test]
fn the_example_of_a_secret_is_none_where_no_shell_reads_it() {
    let toml = config::default_config();
    let secret = toml.lines().find(|line| line.starts_with("#secret = ")).unwrap();
    let mistake = Given::new().file(&format!("[auth]\n{}", &secret[1..])).mistake();
    assert_eq!((mistake.key.as_str(), mistake.value.as_deref()), ("auth.secret", Some("(hidden)")));
    assert!(mistake.expected.contains("in a shell"), "{mistake:?}");
    assert!(toml.contains("at least 16 bytes; 32 random ones are recommended"));
    let short = Given::new().set("auth.secret", "short").mistake().expected;
    assert_eq!(short, "at least 16 bytes; 32 random ones are recommended");
}

#[test]
fn each_example_of_a_mistake_is_one_that_works() {
    for effective in &Given::valid().load().unwrap().effective {
        // An empty text is wrong for every key but the lists, for which nothing is.
        let given = Given::valid().file("").set(effective.key, " ");
        let Err(mistakes) = given.load() else { continue };
        let example = mistakes.0[0].example.clone();
        let (key, value) = example.strip_prefix("--set ").unwrap().split_once('=').unwrap();
        let again = Given::valid().set(key, value).load();
        let still_wrong = again.err().into_iter().flat_map(|mistakes| mistakes.0);
        // Files named by examples do not exist here, and a second key does not fit the first.
        let own: Vec<_> = still_wrong.filter(|mistake| !mistake.key.ends_with("_file")).collect();
        let is_secret =
            ["auth.secret", "auth.previous_secret", "auth.public_key_file", "auth.jwks", "operations.token"]
                .contains(&effective.key);
        assert!(own.is_empty() || is_secret, "{example}: {own:?}");
    }
}

#[test]
fn checks_that_need_several_keys() {
    let valid = Given::valid;
    for (given, key, expected) in [
        (Given::new(), "auth.secret", "auth.public_key_file"),
        (Given::new().set("auth.algorithms", "RS256"), "auth.public_key_file", "public key"),
        (valid().set("auth.algorithms", "HS256,RS256"), "auth.algorithms", "one family"),
        (valid().set("auth.algorithms", "HS265"), "auth.algorithms", "`HS265` is none of HS256"),
        (valid().set("auth.algorithms", "RS256"), "auth.algorithms", "as a secret is configured"),
        (valid().set("auth.algorithms", ""), "auth.algorithms", "at least one"),
        (valid().set("auth.secret", "short"), "auth.secret", "16 bytes"),
        (valid().with_file("k", b"").set("auth.public_key_file", "k"), "auth.public_key_file", "not both"),
        (Given::new().with_file("k", b"").set("auth.public_key_file", "k"), "auth.algorithms", "RS256"),
        (
            Given::new().set("auth.public_key_file", "k").set("auth.algorithms", "RS256"),
            "auth.public_key_file",
            "can be read",
        ),
        (
            Given::new().with_file("k", b"no").set("auth.public_key_file", "k").set("auth.algorithms", "ES256"),
            "auth.public_key_file",
            "P-256",
        ),
        (valid().set("auth.mode", "introspection"), "auth.introspection_url", "is asked about tokens"),
        (valid().variable("TASKCAST_AUTH_JWKS", "https://x"), "auth.jwks", "not several"),
        (Given::new().set("auth.jwks", "http://id.example.com/keys"), "auth.jwks", "https://"),
        (Given::new().set("auth.jwks", "https://u:p@id.example.com/keys"), "auth.jwks", "without user and password"),
        (Given::new().set("auth.jwks", "ftp://id.example.com/keys"), "auth.jwks", "https://"),
        (Given::new().set("auth.jwks", "/no/such/file"), "auth.jwks", "can be read"),
        (Given::new().set("auth.jwks", "https://x").set("auth.algorithms", "HS256"), "auth.algorithms", "key set"),
        (Given::new().set("auth.issuers", "[{ issuer = \"a\" }]"), "auth.issuers[0].secret", "secret"),
        (Given::new().set("auth.issuers", "[{ jwks = \"https://x\" }]"), "auth.issuers[0].issuer", "`iss`"),
        (
            Given::new().set("auth.issuers", "[{ issuer = \"a\", jwks = \"https://x\", mode = 1 }]"),
            "auth.issuers[0].mode",
            "one of",
        ),
        (
            Given::new().set("auth.issuers", "[{ issuer = \"a\", jwks = \"http://x\" }]"),
            "auth.issuers[0].jwks",
            "https://",
        ),
        (Given::new().set("auth.issuers", "issuer"), "auth.issuers", "a list of tables"),
        (valid().set("listen", "0.0.0.0:6162"), "operations_listen", "another address"),
        (valid().set("sessions.dead_peer_timeout_ms", "25000"), "sessions.dead_peer_timeout_ms", "more than"),
        (valid().set("sessions.reconnect_max_ms", "499"), "sessions.reconnect_max_ms", "no less than"),
        (
            valid().set("canary.timeout_seconds", "10"),
            "canary.timeout_seconds",
            "more than canary.interval_seconds (10)",
        ),
        (valid().set("http.keep_alive_timeout_ms", "9999"), "http.keep_alive_timeout_ms", "no less than"),
        (valid().set("log.tls_ca_file", "ca"), "log.tls_ca_file", "can be read"),
        (valid().with_file("ca", b"hello").set("log.tls_ca_file", "ca"), "log.tls_ca_file", "certificates"),
        (valid().set("log.key", &"k".repeat(256)), "log.key", "255 bytes"),
        (valid().set("log.url", "redis+sentinel://u:hunter2@h:26379"), "log.url", "name of the primary is missing"),
        (valid().set("log.url", "redis+sentinel://h:0,i:1/primary"), "log.url", "a port is a number"),
        (valid().set("log.url", "redis+sentinel://h/primary/zero"), "log.url", "number of a database"),
        (valid().set("log.url", "redis://h/zero"), "log.url", "number of a database"),
        (valid().set("auth.mode", "none").set("listen", "0.0.0.0:6161"), "listen", "loopback"),
        (valid().set("auth.mode", "none").set("auth.user", "a\u{7}"), "auth.user", "control characters"),
    ] {
        let mistake = given.mistake();
        assert_eq!(mistake.key, key, "{mistake:?}");
        assert!(mistake.expected.contains(expected), "{mistake:?}");
    }
}

/// A certificate and its key, in PEM.
fn identity() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[test]
fn a_certificate_and_its_key_are_read_and_judged_wherever_they_are_used() {
    let ((certificate, key), (_, other_key)) = (identity(), identity());
    let given = || {
        let given = Given::valid().with_file("c", certificate.as_bytes()).with_file("k", key.as_bytes());
        given.with_file("other", other_key.as_bytes()).with_file("text", b"hello").set("log.url", "rediss://h")
    };
    for [first, second] in [
        ["http.tls_certificate_file", "http.tls_key_file"],
        ["operations.tls_certificate_file", "operations.tls_key_file"],
        ["log.tls_client_certificate_file", "log.tls_client_key_file"],
    ] {
        assert!(given().set(first, "c").set(second, "k").load().unwrap().warnings.is_empty());
        for (files, key, expected) in [
            ([Some("c"), None], first, second),
            ([None, Some("k")], second, first),
            ([Some("nowhere"), Some("k")], first, "can be read"),
            ([Some("c"), Some("nowhere")], second, "can be read"),
            ([Some("text"), Some("k")], first, "no certificate"),
            ([Some("k"), Some("k")], first, "no certificate"),
            ([Some("c"), Some("text")], second, "no private key"),
            ([Some("c"), Some("other")], second, "not that of the first certificate"),
        ] {
            let set = |given: Given, (key, file): (&str, Option<&str>)| match file {
                Some(file) => given.set(key, file),
                None => given,
            };
            let mistake = [(first, files[0]), (second, files[1])].into_iter().fold(given(), set).mistake();
            assert_eq!(mistake.key, key, "{mistake:?}");
            assert!(mistake.expected.contains(expected), "{mistake:?}");
        }
        let both = given().set(first, "nowhere").set(second, "nowhere").mistakes();
        assert_eq!(both.len(), 2, "{both:?}");
    }
    let config = given().set("http.tls_certificate_file", "c").set("http.tls_key_file", "k").config();
    assert!(config.tls.is_some() && config.operations_tls.is_none() && config.log.tls_client.is_none());
}

#[test]
fn what_is_for_tls_to_a_broker_without_it_is_warned_about() {
    let (certificate, key) = identity();
    let given = Given::valid().with_file("c", certificate.as_bytes()).with_file("k", key.as_bytes());
    let given = given.set("log.tls_client_certificate_file", "c").set("log.tls_client_key_file", "k");
    for url in ["memory", "redis://h", "redis+sentinel://h/m", "amqp://h"] {
        let warnings = given.clone().set("log.url", url).load().unwrap().warnings;
        assert!(warnings.iter().any(|warning| warning.contains("log.tls_… has no effect")), "{url}: {warnings:?}");
    }
    for url in ["rediss://h", "rediss+sentinel://h/m", "amqps://h"] {
        assert!(given.clone().set("log.url", url).load().unwrap().warnings.is_empty(), "{url}");
    }
}

#[test]
fn the_token_of_the_operators_is_a_secret_that_fits_a_header() {
    let of = |token: &str| Given::valid().set("operations.token", token);
    let revealed = |given: &Given| given.config().operations.token.unwrap().reveal();
    assert_eq!(revealed(&of("0123456789abcdef")), "0123456789abcdef");
    let from_file = Given::valid().with_file("t", b"0123456789abcdef\n").set("operations.token_file", "t");
    assert_eq!(revealed(&from_file), "0123456789abcdef");
    assert_eq!(from_file.config().operations.token_file, Some("t".into()));
    for token in ["hunter2", "hunter2 hunter2 hunter2", "hunter2-hunter2-hünter2", "hunter2-hunter2-\u{7}"] {
        let mistake = of(token).mistake();
        assert_eq!(mistake.key, "operations.token");
        assert!(mistake.expected.contains("16 visible") && !format!("{mistake:?}").contains("unter2"), "{mistake:?}");
    }
    let alone = Given::valid().set("operations.token_for_probes", "true").mistake();
    assert!(alone.key == "operations.token_for_probes" && alone.expected.contains("operations.token"), "{alone:?}");
    let printed = format!("{:?}", of("0123456789abcdef").load().unwrap());
    assert!(!printed.contains("0123456789abcdef\""), "{printed}");
}

#[test]
fn no_mistake_in_how_tokens_are_checked_hides_another() {
    let short = Given::new().set("auth.secret", "short");
    for (given, expected) in [
        (
            Given::new().file("[auth]\nmode = \"jwks\"\nalgorithms = [\"HS256\", \"RS256\"]\nsecret = \"short\""),
            &[("auth.mode", "introspection"), ("auth.algorithms", "one family"), ("auth.secret", "16 bytes")][..],
        ),
        (Given::new().set("auth.mode", "none").set("auth.algorithms", "x"), &[("auth.algorithms", "`x` is none of")]),
        (
            short.clone().set("auth.public_key_file", "nowhere"),
            &[
                ("auth.secret", "16 bytes"),
                ("auth.public_key_file", "can be read"),
                ("auth.public_key_file", "not both"),
            ],
        ),
        (short.set("auth.algorithms", "RS256"), &[("auth.secret", "16 bytes"), ("auth.algorithms", "as a secret is")]),
        // What is needed depends on the mode, so that nothing is missing while that is wrong.
        (Given::new().set("auth.mode", "jwks"), &[("auth.mode", "one of jwt, introspection, none")]),
        (
            Given::new().with_file("k", b"no").set("auth.public_key_file", "k").set("auth.algorithms", "x"),
            &[("auth.algorithms", "`x` is none of")],
        ),
    ] {
        let mistakes = given.mistakes();
        assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
        for (mistake, (key, text)) in mistakes.iter().zip(expected) {
            assert_eq!(mistake.key, *key, "{mistakes:#?}");
            assert!(mistake.expected.contains(text), "{mistakes:#?}");
        }
    }
}

#[test]
fn without_tokens_the_service_stays_on_loopback_unless_told_otherwise() {
    let open = Given::new().set("auth.mode", "none").set("auth.user", "dev");
    let loaded = open.load().unwrap();
    assert_eq!(loaded.config.listen.to_string(), "127.0.0.1:6161");
    assert!(loaded.warnings.iter().any(|warning| warning.contains("tokens are not checked")));
    assert!(matches!(loaded.config.auth, auth::Settings::None { user } if user == UserId::parse("dev").ok()));
    assert_eq!(open.clone().set("listen", "[::1]:7000").config().listen.to_string(), "[::1]:7000");
    let remote = open.set("auth.allow_remote_without_token", "true");
    assert_eq!(remote.config().listen.to_string(), "0.0.0.0:6161");
    assert_eq!(remote.set("listen", "0.0.0.0:7000").config().listen.to_string(), "0.0.0.0:7000");
}

#[test]
fn without_tokens_a_service_on_loopback_answers_only_to_names_of_loopback() {
    let open = Given::new().set("auth.mode", "none").set("auth.user", "dev");
    assert!(open.config().http.local_hosts_only);
    assert!(open.clone().set("listen", "[::1]:7000").config().http.local_hosts_only);
    assert!(!open.set("auth.allow_remote_without_token", "true").config().http.local_hosts_only);
    assert!(!Given::valid().set("listen", "127.0.0.1:7000").config().http.local_hosts_only, "tokens are proof enough");
}

#[test]
fn a_weak_secret_is_a_warning() {
    let warnings = |given: Given| given.load().unwrap().warnings;
    assert_eq!(warnings(Given::valid()), Vec::<String>::new());
    assert!(warnings(Given::valid().set("auth.secret", "0123456789abcdef"))[0].contains("16 bytes"));
    assert!(warnings(Given::valid().set("auth.algorithms", "HS512"))[0].contains("64"));
}

#[test]
fn variables_that_kubernetes_injects_are_ignored_and_other_unknown_ones_are_not() {
    let mut given = Given::valid();
    for (name, value) in [
        ("TASKCAST_PORT", "tcp://10.0.0.1:6161"),
        ("TASKCAST_PORT_6161_TCP", "tcp://10.0.0.1:6161"),
        ("TASKCAST_PORT_6161_TCP_ADDR", "10.0.0.1"),
        ("TASKCAST_PORT_6161_TCP_PORT", "6161"),
        ("TASKCAST_PORT_6161_TCP_PROTO", "tcp"),
        ("TASKCAST_SERVICE_HOST", "10.0.0.1"),
        ("TASKCAST_SERVICE_PORT", "6161"),
        ("TASKCAST_SERVICE_PORT_HTTP", "6161"),
        ("TASKCAST_REDIS_SERVICE_HOST", "10.0.0.2"),
        ("TASKCAST_REDIS_SERVICE_PORT", "6379"),
        ("TASKCAST_REDIS_PORT", "tcp://10.0.0.2:6379"),
        ("TASKCAST_REDIS_PORT_6379_TCP_ADDR", "10.0.0.2"),
        ("TASKCAST_OPERATIONS_PORT_6162_TCP", "tcp://10.0.0.3:6162"),
    ] {
        given = given.variable(name, value);
    }
    assert!(given.load().is_ok());
    assert!(given.clone().variable("OTHER_THING", "1").variable("TASKCAST", "1").load().is_ok());
    let mistake = given.variable("TASKCAST_WHATEVER", "1").mistake();
    assert_eq!(mistake.key, "TASKCAST_WHATEVER");
}

#[test]
fn a_port_that_a_person_set_is_a_mistake_that_names_the_setting_it_meant() {
    for (name, meant) in [
        ("TASKCAST_PORT", "did you mean TASKCAST_LISTEN?"),
        ("TASKCAST_HTTP_PORT", "did you mean TASKCAST_LISTEN?"),
        ("TASKCAST_OPERATIONS_PORT", "did you mean TASKCAST_OPERATIONS_LISTEN?"),
        ("TASKCAST_REDIS_PORT", "a name that is known"),
        ("TASKCAST_PORT_6161_TCP", "a name that is known"),
    ] {
        let mistake = Given::valid().variable(name, "8080").mistake();
        assert_eq!(mistake.key, name);
        assert!(mistake.expected.contains(meant), "{mistake:?}");
    }
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let given = Given::valid().variable("TASKCAST_LOG", "").variable("TASKCAST_CONFIG", "");
    assert!(matches!(given.config().log.backend, Backend::Memory));
}

#[test]
fn secrets_can_be_in_files() {
    let given = Given::new()
        .with_file("secret", format!("{SECRET}\r\n").as_bytes())
        .with_file("url", b"amqp://guest:hunter2@rabbit/%2f\n")
        .variable("TASKCAST_AUTH_SECRET_FILE", "secret")
        .variable("TASKCAST_LOG_FILE", "url");
    let config = given.config();
    assert!(matches!(&config.log.backend, Backend::Amqp { url } if url == "amqp://guest:hunter2@rabbit/%2f"));
    let auth::Settings::Jwt(jwt) = config.auth else { panic!("not jwt") };
    assert!(jwt.key.signing_secret() == Some(SECRET.as_bytes()));
    for (given, key) in [
        (given.clone().variable("TASKCAST_AUTH_SECRET", SECRET), "auth.secret_file"),
        (given.clone().set("log.url", "memory"), "log.url_file"),
        (given.clone().set("log.url_file", "nowhere"), "log.url_file"),
        (given.clone().with_file("secret", b"\n"), "auth.secret"),
        (given.clone().with_file("secret", &[0xff; 40]), "auth.secret_file"),
        (given.clone().with_file("url", b"hunter2-hunter2-hunter2"), "log.url"),
    ] {
        let mistake = given.mistake();
        assert_eq!(mistake.key, key, "{mistake:?}");
        assert!(!format!("{mistake:?}").contains("hunter2"), "{mistake:?}");
    }
}

#[test]
fn secrets_are_in_no_error_no_debug_output_and_no_list_of_settings() {
    let hush = "hunter2-hunter2-hunter2-hunter2-hunter2";
    let url = format!("redis://user:{hush}@h/0");
    let loaded = Given::new().set("auth.secret", hush).set("log.url", &url).load().unwrap();
    assert!(!format!("{loaded:?}").contains("hunter2"), "{loaded:?}");
    assert!(loaded.effective.iter().any(|e| e.key == "auth.secret" && e.value == "(hidden)"));
    assert!(loaded.effective.iter().any(|e| e.key == "log.url" && e.value == "redis://(hidden)@h/0"));
    for toml in [
        format!("auth = \"{hush}\""),
        format!("auth = [\"{hush}\"]"),
        format!("log = \"{url}\""),
        format!("secret = \"{hush}\""),
        format!("password = \"{hush}\""),
        format!("[auth]\nsercet = \"{hush}\""),
        format!("[auth]\nsecret = [\"{hush}\"]"),
        format!("[auth]\nsecret = {{ value = \"{hush}\" }}"),
        format!("[auth]\nsecret_key = \"{hush}\""),
        format!("[auth]\ntoken = \"{hush}\""),
        format!("[auth]\nsecret = \"{hush}\"\nsecret = \"{hush}\""),
        format!("[auth]\nsecret = {hush}"),
        format!("[log]\nurl = \"amqp://a:{hush}@\""),
        format!("[log]\nurl = \"amqp://a:{hush}@b,,c:x\""),
        format!("[log]\nurl = \"redis:{hush}\""),
        format!("[log]\nur = \"{url}\""),
        format!("[{hush}"),
    ] {
        let text = Given::new().file(&toml).load().unwrap_err().to_string();
        assert!(!text.contains("hunter2"), "{toml}\n{text}");
    }
    for (name, value) in [("TASKCAST_SECRET", hush), ("TASKCAST_AUTH_SERCET", hush), ("TASKCAST_LOG_URL", &url)] {
        let text = Given::valid().variable(name, value).load().unwrap_err().to_string();
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_secret_before_the_other_needs_the_other() {
    let previous = Given::new().set("auth.previous_secret", SECRET);
    assert_eq!(previous.mistakes()[0].key, "auth.previous_secret");
    let both = Given::valid().set("auth.previous_secret", "another secret of thirty-two bytes");
    let auth::Settings::Jwt(jwt) = both.config().auth else { panic!("not one issuer") };
    assert!(matches!(jwt.key, auth::Key::Secrets { previous: Some(_), .. }), "{:?}", jwt.key);
    // An empty file says that there is none any more; a missing one is a mistake.
    let file = Given::valid().set("auth.previous_secret_file", "old");
    assert!(matches!(file.clone().with_file("old", b"\n").config().auth, auth::Settings::Jwt(_)));
    assert_eq!(file.clone().with_file("old", b"short").mistake().key, "auth.previous_secret");
    assert_eq!(file.mistake().key, "auth.previous_secret_file");
}

#[test]
fn each_issuer_has_a_key_of_its_own_and_what_holds_for_all_unless_it_says() {
    let toml = "[auth]\naudience = [\"taskcast\"]\n\
                [[auth.issuers]]\nissuer = \"https://a\"\njwks = \"https://a/jwks\"\n\
                [[auth.issuers]]\nissuer = [\"b\", \"c\"]\nsecret = \"a secret of thirty-two bytes !!!\"\naudience = [\"b\"]\n";
    let issuers = |given: &Given| match given.config().auth {
        auth::Settings::Issuers(issuers) => issuers,
        other => panic!("{other:?}"),
    };
    let two = issuers(&Given::new().file(toml));
    assert_eq!(
        (two[0].issuer.clone(), two[1].issuer.clone()),
        (vec!["https://a".into()], vec!["b".into(), "c".into()])
    );
    assert_eq!((two[0].audience.clone(), two[1].audience.clone()), (vec!["taskcast".into()], vec!["b".into()]));
    assert_eq!(
        (two[0].algorithms.join(" "), two[1].algorithms.join(" ")),
        ("RS256 ES256 EdDSA".into(), "HS256".into())
    );
    assert_eq!(issuers(&Given::valid().file(toml)).len(), 3, "the key of [auth] itself is for others");
    let twice = Given::new().file(&format!("{toml}[[auth.issuers]]\nissuer = \"c\"\njwks = \"https://c/jwks\"\n"));
    assert!(twice.mistake().expected.contains("differ"));
    let variable = "[{ issuer = \"a\", jwks = \"https://a/jwks\" }]";
    assert_eq!(issuers(&Given::new().variable("TASKCAST_AUTH_ISSUERS", variable)).len(), 1);
    for text in ["[1]", "[{", "{}", "[]\nlisten = 1"] {
        assert_eq!(Given::new().variable("TASKCAST_AUTH_ISSUERS", text).mistakes()[0].key, "auth.issuers", "{text}");
    }
    let hidden = Given::new().file(toml).load().unwrap();
    assert!(!format!("{hidden:?}").contains("thirty-two") && !format!("{hidden:?}").contains("https://a/jwks?"));
}

#[test]
fn opaque_tokens_need_somebody_who_knows_them() {
    let given =
        || Given::new().set("auth.mode", "introspection").set("auth.introspection_url", "https://id/x?key=hunter2");
    let asked = |given: Given| match given.config().auth {
        auth::Settings::Introspection(settings) => settings.question,
        other => panic!("{other:?}"),
    };
    assert!(matches!(asked(given()), auth::Question::Introspect(auth::Credentials::None)));
    let secret = given().with_file("s", b"hunter2\n").set("auth.introspection_client_secret_file", "s");
    assert!(matches!(asked(secret.clone()), auth::Question::Introspect(auth::Credentials::Bearer(_))));
    let basic = secret.set("auth.introspection_client_id", "taskcast");
    assert!(matches!(asked(basic.clone()), auth::Question::Introspect(auth::Credentials::Basic { .. })));
    let plain = given().set("auth.introspection_style", "bearer").set("auth.introspection_scheme", "Token");
    assert!(matches!(asked(plain.clone()), auth::Question::Present { scheme } if scheme == "Token"));
    assert_eq!(plain.set("auth.introspection_scheme", "a b").mistake().key, "auth.introspection_scheme");
    assert_eq!(given().set("auth.introspection_client_id", "x").mistake().key, "auth.introspection_client_secret");
    assert_eq!(given().set("auth.tls_ca_file", "nowhere").mistake().key, "auth.tls_ca_file");
    let loaded = format!("{:?}", basic.load().unwrap());
    assert!(!loaded.contains("hunter2"), "{loaded}");
}

#[test]
fn a_file_that_cannot_be_read_is_one_mistake_not_many() {
    let mut missing = Given::new();
    missing.config = Some("missing.toml".into());
    assert!(missing.mistake().expected.contains("can be read"));
    let broken = Given::new().file("listen = \"127.0.0.1:1\"\n[auth\nsecret = 1\n").mistakes();
    assert!(broken.iter().all(|mistake| mistake.key == "configuration file"), "{broken:?}");
    assert_eq!(broken[0].source, Some(Source::File { path: "taskcast.toml".into(), line: 2 }));
    assert!(
        Given::new()
            .with_file("taskcast.toml", &[0xff])
            .variable("TASKCAST_CONFIG", "taskcast.toml")
            .mistake()
            .expected
            .contains("UTF-8")
    );
}

#[test]
fn the_default_file_lists_every_key_and_means_the_defaults() {
    let toml = config::default_config();
    let defaults = Given::valid().load().unwrap();
    assert_eq!(format!("{:?}", Given::valid().file(&toml).config()), format!("{:?}", defaults.config));
    // With every comment sign taken away that has no space after it, each key is there with its default.
    let is_setting = |line: &&str| line.starts_with('#') && !line.starts_with("# ");
    assert_eq!(toml.lines().filter(is_setting).count(), defaults.effective.len());
    let live: Vec<&str> = toml.lines().map(|line| if is_setting(&line) { &line[1..] } else { line }).collect();
    let read: toml::Table = live.join("\n").parse().unwrap();
    for effective in &defaults.effective {
        let (table, name) = effective.key.split_once('.').unwrap_or(("", effective.key));
        let table = if table.is_empty() { &read } else { read[table].as_table().unwrap() };
        let value = table.get(name).unwrap_or_else(|| panic!("{} is missing", effective.key));
        if !["(not set)", "(hidden)"].contains(&effective.value.as_str()) {
            assert_eq!(value.to_string(), effective.value, "{}", effective.key);
        }
    }
}

#[test]
fn spans_go_where_the_variables_of_opentelemetry_say_unless_something_else_is_said() {
    let address = |given: Given| given.config().traces.map(|traces| (traces.address, traces.service_name));
    let standard = || Given::valid().variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://standard:4318");
    let told = |before: &str, name: &str| Some((format!("{before}/v1/traces"), name.to_owned()));
    assert_eq!(address(Given::valid()), None);
    assert_eq!(address(standard()), told("http://standard:4318", "taskcast"));
    assert_eq!(address(standard().variable("OTEL_SERVICE_NAME", "shop")), told("http://standard:4318", "shop"));
    let own = standard().variable("TASKCAST_TELEMETRY_OTLP_ENDPOINT", "https://own/");
    assert_eq!(address(own), told("https://own", "taskcast"));
    assert_eq!(
        address(standard().file("[telemetry]\notlp_endpoint = \"http://file\"")),
        told("http://file", "taskcast")
    );
    // The one for traces alone is the whole address.
    let whole = standard().variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://whole/spans");
    assert_eq!(address(whole), Some(("http://whole/spans".to_owned(), "taskcast".to_owned())));
    for (name, value) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
    ] {
        assert_eq!(address(standard().variable(name, value)), None, "{name}");
    }
    assert_eq!(address(standard().variable("OTEL_TRACES_EXPORTER", "otlp")), told("http://standard:4318", "taskcast"));
}

#[test]
fn headers_of_the_collector_are_checked_and_not_shown() {
    let standard = || Given::valid().variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://standard:4318");
    let headers = |text: &str| standard().variable("TASKCAST_TELEMETRY_OTLP_HEADERS", text).load();
    assert_eq!(headers("a=b%20c").unwrap().config.traces.unwrap().headers, [("a".to_owned(), "b c".to_owned())]);
    for bad in ["Bearer hunter2", "content-length=hunter2"] {
        let mistakes = headers(bad).unwrap_err().to_string();
        assert!(mistakes.contains("telemetry.otlp_headers") && !mistakes.contains("hunter2"), "{mistakes}");
    }
    let of_traces = standard().variable("OTEL_EXPORTER_OTLP_HEADERS", "a=b");
    let of_traces = of_traces.variable("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "c=d").config().traces.unwrap();
    assert_eq!(of_traces.headers, [("c".to_owned(), "d".to_owned())]);
}

#[test]
fn what_opentelemetrys_variables_say_to_others_stops_no_start() {
    let warned = |given: Given| {
        let loaded = given.load().unwrap();
        let warnings: Vec<_> = loaded.warnings.into_iter().filter(|warning| warning.contains("OTEL_")).collect();
        assert!(!warnings.concat().contains("hunter2"), "{warnings:?}");
        (loaded.config.traces.map(|traces| traces.address), warnings.len())
    };
    let grpc = || Given::valid().variable("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317");
    assert_eq!(warned(grpc()), (None, 1));
    // Whoever said something here is not told about it.
    let own = grpc().variable("TASKCAST_TELEMETRY_OTLP_ENDPOINT", "http://own");
    assert_eq!(warned(own), (Some("http://own/v1/traces".to_owned()), 0));
    let headers = |given: Given| given.variable("OTEL_EXPORTER_OTLP_HEADERS", "hunter2");
    assert_eq!(warned(headers(Given::valid())), (None, 0));
    let standard = Given::valid().variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://standard:4318");
    assert_eq!(warned(headers(standard)), (Some("http://standard:4318/v1/traces".to_owned()), 1));
    let other = |given: Given| given.variable("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    assert_eq!(warned(other(grpc())), (None, 1));
    assert_eq!(warned(other(Given::valid())), (None, 0), "nothing was to be exported");
    let own = grpc().variable("TASKCAST_TELEMETRY_OTLP_ENDPOINT", "http://own");
    assert_eq!(warned(other(own)), (Some("http://own/v1/traces".to_owned()), 0));
    assert_eq!(warned(other(grpc()).variable("OTEL_TRACES_EXPORTER", "none")), (None, 0));
}

#[test]
fn the_defaults_are_these() {
    let config = Given::valid().config();
    assert_eq!(config.listen.to_string(), "0.0.0.0:6161");
    assert_eq!(config.operations_listen.to_string(), "0.0.0.0:6162");
    assert_eq!(
        (config.drain, config.log_level.as_str(), config.log_format),
        (Duration::from_secs(20), "info", LogFormat::Text)
    );
    let log = &config.log;
    assert!(matches!(log.backend, Backend::Memory));
    assert_eq!((log.key.as_str(), log.exchange.as_str()), ("taskcast:events", "taskcast.events"));
    assert_eq!((log.max_events, log.max_age_seconds, log.max_bytes, log.read_batch), (1_000_000, 86_400, 2 << 30, 256));
    assert_eq!((log.dead_letters_max, log.dead_letters_max_bytes), (10_000, 64 << 20));
    assert_eq!((log.append_timeout, log.reconnect_max), (Duration::from_secs(5), Duration::from_secs(1)));
    let tasks = &config.tasks;
    assert_eq!((tasks.max, tasks.ring_frames, tasks.resume_window), (100_000, 16, 500_000));
    assert_eq!((tasks.retain_ended.as_secs(), tasks.retain_idle.as_secs()), (900, 86_400));
    let sessions = &config.sessions;
    assert_eq!((sessions.heartbeat_interval.as_secs(), sessions.dead_peer_timeout.as_secs()), (25, 60));
    assert_eq!((sessions.write_timeout.as_secs(), sessions.first_frame_timeout.as_secs()), (20, 3));
    assert_eq!((sessions.message_max_bytes, sessions.page_max_bytes), (65_536, 65_536));
    assert_eq!((sessions.bad_messages_max, sessions.subscriptions_max), (20, 256));
    assert_eq!((sessions.reconnect_min.as_millis(), sessions.reconnect_max.as_millis()), (500, 30_000));
    let http = &config.http;
    assert_eq!((http.query_token, http.cookie.as_deref(), http.connections_max), (true, None, 20_000));
    assert_eq!((http.header_timeout.as_secs(), http.keep_alive_timeout.as_secs()), (10, 75));
    assert!(!http.local_hosts_only);
    assert_eq!((http.body_max_bytes, http.events_per_request_max), (1 << 20, 1000));
    let canary = config.canary.unwrap();
    assert_eq!((canary.interval.as_secs(), canary.timeout.as_secs()), (10, 30));
}

#[test]
fn each_key_reaches_the_setting_of_its_name() {
    let listening = |given: Given| given.set("listen", "127.0.0.1:7001").set("operations_listen", "127.0.0.1:7002");
    // Some numbers mean something in one mode only.
    let is_of = |key: &str, parts: &[&str]| parts.iter().any(|part| key.starts_with(part));
    let special = ["auth.introspection_", "auth.jwks_", "auth.request_"];
    let url = "https://id.example.com/x";
    let introspection = Given::new().set("auth.mode", "introspection").set("auth.introspection_url", url);
    let traced = Given::valid().set("telemetry.otlp_endpoint", "http://collector:4318");
    each_number_reaches_its_setting(listening(traced), |key| !is_of(key, &special));
    each_number_reaches_its_setting(listening(introspection), |key| {
        is_of(key, &["auth.introspection_", "auth.request_"])
    });
    let key_set = Given::new().set("auth.jwks", url);
    each_number_reaches_its_setting(listening(key_set), |key| is_of(key, &["auth.jwks_", "auth.request_"]));
}

/// Every number set to another value than its default and than all others: a key read for another would show.
fn each_number_reaches_its_setting(mut given: Given, is_meant: impl Fn(&str) -> bool) {
    let defaults = given.load().unwrap();
    let before = format!("{:?}", defaults.config);
    let mut integers = 0;
    for effective in defaults.effective.iter().filter(|effective| is_meant(effective.key)) {
        let Ok(default) = effective.value.parse::<u64>() else { continue };
        given = given.set(effective.key, &(default + 1).to_string());
        integers += 1;
    }
    let after = format!("{:?}", given.config());
    let numbers = |text: &str| {
        let parts = text.split(|c: char| !c.is_ascii_digit() && c != '.').filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect::<Vec<_>>()
    };
    let (before, after) = (numbers(&before), numbers(&after));
    assert_eq!(before.len(), after.len());
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert_eq!(changed, integers);
}

#[test]
fn a_publisher_needs_no_secret_and_a_token_no_log() {
    let given = Given::new().set("log.url", "redis://h");
    assert!(given.with_sources(config::load_log).is_ok());
    assert!(given.with_sources(config::load_operations).is_ok());
    assert!(given.with_sources(config::load_auth).is_err());
    assert!(given.set("tasks.max", "x").with_sources(config::load_log).is_err());
}

/// Runs the binary with these arguments and variables only.
fn taskcast(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskcast"));
    command.args(arguments).env_clear().envs(variables.iter().copied());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_binary_exits_64_with_the_whole_list_on_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("taskcast.toml");
    std::fs::write(&path, "log = 100\n[tasks]\nmaximum = 5\n").unwrap();
    for command in ["serve", "check-config"] {
        let output = taskcast(
            &[command, "--config", path.to_str().unwrap(), "--listen", "nowhere", "--set", "drain_seconds"],
            &[("TASKCAST_LOG_LEVEL", "loud"), ("TASKCAST_PORT", "tcp://10.0.0.1:6161")],
        );
        assert_eq!(output.status.code(), Some(64), "{command}");
        let stderr = text(&output.stderr);
        for part in [
            "6 mistakes in the configuration:",
            "log = 100",
            "a table [log], not a number",
            "tasks.maximum = 5",
            "taskcast.toml, line 3",
            "listen = nowhere",
            "flag --listen",
            "drain_seconds",
            "log_level = loud",
            "environment variable TASKCAST_LOG_LEVEL",
            "auth.secret",
        ] {
            assert!(stderr.contains(part), "{part} is missing in:\n{stderr}");
        }
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn the_binary_checks_prints_defaults_and_mints_tokens() {
    let secret = ("TASKCAST_AUTH_SECRET", SECRET);
    let checked = taskcast(&["check-config", "--log", "redis://u:hunter2@h"], &[secret]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    assert!(text(&checked.stdout).contains("log.url = redis://(hidden)@h"), "{}", text(&checked.stdout));
    assert!(!text(&checked.stdout).contains(SECRET));

    let defaults = taskcast(&["default-config"], &[]);
    assert_eq!(text(&defaults.stdout), config::default_config());

    let minted = taskcast(&["token", "--user", "u1", "--watch", "task:x", "--publish", "--expires", "2h"], &[secret]);
    assert_eq!(minted.status.code(), Some(0), "{}", text(&minted.stderr));
    let verifier = auth::Verifier::new(Given::valid().config().auth).unwrap();
    let now = clock::now().unix_ms;
    let identity = verifier.verify(Some(text(&minted.stdout).trim()), now).unwrap();
    assert_eq!(identity.user, UserId::parse("u1").ok());
    assert!(
        identity.rights.publish == auth::PublishRight::everything() && !identity.rights.own && !identity.rights.cancel
    );
    assert!(identity.expires_at_ms.unwrap() > now + 7_000_000);

    assert_eq!(taskcast(&["token", "--user", "u1"], &[]).status.code(), Some(64));
    assert_eq!(taskcast(&["token", "--watch", "owm"], &[secret]).status.code(), Some(1));
    assert_eq!(taskcast(&["serve", "--no-such-flag"], &[]).status.code(), Some(64));
    // A port that nothing listens on: port 1 needs rights that no test has.
    assert_eq!(taskcast(&["healthcheck", "--operations-listen", "127.0.0.1:1"], &[]).status.code(), Some(1));
    let memory = taskcast(&["publish", "t1", "--progress", "40"], &[]);
    assert_eq!(memory.status.code(), Some(1));
    assert!(text(&memory.stderr).contains("POST /api/v1/events"));
    for number in ["nan", "inf", "-inf"] {
        for flag in ["--progress", "--current", "--total"] {
            let output = taskcast(&["publish", "t1", &format!("{flag}={number}")], &[]);
            assert_eq!(output.status.code(), Some(64), "{flag}={number}");
        }
    }
}

#[test]
fn a_token_is_minted_for_an_issuer_whose_secret_is_here_and_else_it_is_said_who_can_make_one() {
    const A: &str = "{ issuer = [\"a\", \"aa\"], secret = \"the secret of a, which is long\" }";
    const B: &str = "{ issuer = \"b\", secret = \"the secret of b, which is long\", user_claim = \"uid\" }";
    const PUBLISHED: &str = "{ issuer = \"https://id\", jwks = \"https://id/keys\" }";
    let mint = |variables: &[(&str, &str)], arguments: &[&str]| {
        let output = taskcast(&[&["token", "--user", "u1"], arguments].concat(), variables);
        let (printed, complaint) = (text(&output.stdout).trim().to_owned(), text(&output.stderr).to_owned());
        if output.status.success() { Ok(printed) } else { Err(complaint) }
    };
    let issuers = |tables: &[&str]| format!("[{}]", tables.join(", "));
    for (tables, own, arguments, taken) in [
        (&[A, PUBLISHED][..], "", &[][..], true),
        (&[A, B], "", &["--issuer", "b"], true),
        (&[A, B], "", &["--issuer", "aa"], true),
        (&[A, B], SECRET, &[], true),
        (&[A, B], "", &[], false),
        (&[A], "", &["--issuer", "b"], false),
        (&[PUBLISHED], "", &[], false),
        (&[A, PUBLISHED], "", &["--issuer", "https://id"], false),
    ] {
        let list = issuers(tables);
        let mut variables = vec![("TASKCAST_AUTH_ISSUERS", list.as_str())];
        let mut given = Given::new().variable("TASKCAST_AUTH_ISSUERS", &list);
        if !own.is_empty() {
            variables.push(("TASKCAST_AUTH_SECRET", own));
            given = given.variable("TASKCAST_AUTH_SECRET", own);
        }
        let minted = mint(&variables, arguments);
        assert_eq!(minted.is_ok(), taken, "{list} {arguments:?}: {minted:?}");
        if let Ok(token) = minted {
            let verifier = auth::Verifier::new(given.config().auth).unwrap();
            let identity = verifier.verify(Some(&token), clock::now().unix_ms).unwrap();
            assert_eq!(identity.user, UserId::parse("u1").ok(), "{list} {arguments:?}");
        }
    }
    let complaint = |variables: &[(&str, &str)], arguments: &[&str]| mint(variables, arguments).unwrap_err();
    let (two, published) = (issuers(&[A, B]), issuers(&[PUBLISHED]));
    let said = complaint(&[("TASKCAST_AUTH_ISSUERS", &two)], &[]);
    assert!(said.contains("--issuer with one of a, b"), "{said}");
    let said = complaint(&[("TASKCAST_AUTH_ISSUERS", &two)], &["--issuer", "c"]);
    assert!(said.contains("a, aa, b"), "{said}");
    let said = complaint(&[("TASKCAST_AUTH_ISSUERS", &published)], &[]);
    assert!(said.contains("`https://id`") && said.contains("private key"), "{said}");
    let asked = [
        ("TASKCAST_AUTH_MODE", "introspection"),
        ("TASKCAST_AUTH_INTROSPECTION_URL", "https://id/introspect?key=hunter2"),
        ("TASKCAST_AUTH_INTROSPECTION_CLIENT_ID", "taskcast"),
        ("TASKCAST_AUTH_INTROSPECTION_CLIENT_SECRET", "hunter2"),
    ];
    let said = complaint(&asked, &[]);
    assert!(said.contains("https://id/introspect says") && !said.contains("hunter2"), "{said}");
    let said = complaint(&[("TASKCAST_AUTH_MODE", "none")], &[]);
    assert!(said.contains("no token is needed"), "{said}");
}

#[test]
fn a_wrong_command_line_exits_64_and_help_0() {
    for wrong in [&[][..], &["sreve"], &["serve", "--no-such-flag"], &["publish"], &["publish", "t", "--result", "{"]] {
        let output = taskcast(wrong, &[]);
        assert_eq!(output.status.code(), Some(64), "{wrong:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{wrong:?}");
    }
    for asked in [&["--help"][..], &["--version"], &["help", "serve"], &["publish", "--help"]] {
        let output = taskcast(asked, &[]);
        assert_eq!(output.status.code(), Some(0), "{asked:?}");
        assert!(output.stderr.is_empty() && !output.stdout.is_empty(), "{asked:?}");
    }
}

#[test]
fn a_misspelt_status_is_refused_and_the_names_are_listed() {
    let output = taskcast(&["publish", "t", "--status", "succeded"], &[]);
    assert_eq!(output.status.code(), Some(64));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("queued, running") && stderr.contains("succeeded") && !stderr.contains("lost"), "{stderr}");
    let alias = taskcast(&["publish", "t", "--status", "SUCCESS", "--error", "x", "--result", "[1]"], &[]);
    assert_eq!(alias.status.code(), Some(1), "only the log in memory is in the way");
}

#[test]
fn the_demo_offers_only_what_it_heeds() {
    let help = taskcast(&["demo", "--help"], &[]);
    let shown = text(&help.stdout);
    assert!(shown.contains("--operations-listen") && shown.contains("127.0.0.1:6161"), "{shown}");
    assert!(!shown.contains("TASKCAST_"), "{shown}");
    assert_eq!(taskcast(&["demo", "--config", "taskcast.toml"], &[]).status.code(), Some(64));
}

#[test]
fn the_limit_of_memory_is_a_share_of_the_containers_unless_it_is_given() {
    let limits = |given: &Given| {
        let config = given.config();
        (config.memory_max_bytes, config.tasks.max_bytes)
    };
    let bare = Given::valid();
    assert_eq!(limits(&bare), (None, 1 << 30));
    let modern = bare.clone().with_file("/sys/fs/cgroup/memory.max", b"1000000000\n");
    assert_eq!(limits(&modern), (Some(800_000_000), 400_000_000));
    let older = bare.clone().with_file("/sys/fs/cgroup/memory/memory.limit_in_bytes", b"500000000\n");
    assert_eq!(limits(&older), (Some(400_000_000), 200_000_000));
    for unlimited in ["max\n", "9223372036854771712\n", "0", ""] {
        let given = bare.clone().with_file("/sys/fs/cgroup/memory.max", unlimited.as_bytes());
        assert_eq!(limits(&given), (None, 1 << 30), "{unlimited:?}");
    }
    assert_eq!(limits(&modern.clone().set("memory.max_bytes", "600")), (Some(600), 300));
    assert_eq!(limits(&modern.clone().set("memory.max_bytes", "0")), (None, 1 << 30));
    assert_eq!(limits(&modern.set("tasks.max_bytes", "0")), (Some(800_000_000), 0));
    assert_eq!(bare.set("tasks.max_per_owner", "7").config().tasks.max_per_owner, 7);
}

#[test]
fn limits_and_proxies_are_read_with_the_files_that_networks_are_listed_in() {
    let given = Given::valid()
        .variable("TASKCAST_LIMITS_DENY_NETWORKS", "192.0.2.0/24")
        .variable("TASKCAST_LIMITS_DENY_NETWORKS_FILE", "deny.txt")
        .with_file("deny.txt", b"# ours\n198.51.100.7\n")
        .variable("TASKCAST_HTTP_TRUSTED_PROXIES", "10.0.0.0/8, 2001:db8::/32")
        .variable("TASKCAST_HTTP_FORWARDED_HEADER", "forwarded")
        .variable("TASKCAST_HTTP_PROXY_PROTOCOL", "true");
    let config = given.config();
    let is_denied = |address: &str| config.limits.lists.deny.contains(address.parse().unwrap());
    assert!(is_denied("192.0.2.9") && is_denied("198.51.100.7") && !is_denied("198.51.100.8"));
    assert!(config.limits.exempt.contains("127.0.0.1".parse().unwrap()));
    assert!(config.limits.lists.allow.is_empty());
    assert!(config.http.trusted_proxies.contains("10.1.2.3".parse().unwrap()) && config.http.proxy_protocol);
    assert_eq!(config.http.forwarded_header, taskcast::http::ForwardedHeader::Forwarded);
    assert_eq!(config.networks.deny.unwrap().0, PathBuf::from("deny.txt"));
}

#[test]
fn a_limit_that_would_refuse_everybody_or_nobody_is_a_mistake() {
    for (variable, value, expected) in [
        ("TASKCAST_LIMITS_ALLOW_NETWORKS", "10.0.0.0/33", "networks such as 10.0.0.0/8"),
        ("TASKCAST_LIMITS_EXEMPT_NETWORKS", "localhost", "`localhost` is no network"),
        ("TASKCAST_HTTP_TRUSTED_PROXIES", "proxy.example.com", "`proxy.example.com` is no network"),
        ("TASKCAST_LIMITS_DENY_NETWORKS_FILE", "missing.txt", "a file with a network in each line"),
        ("TASKCAST_LIMITS_ALLOW_NETWORKS_FILE", "bad.txt", "line 2: `nowhere` is no network"),
        ("TASKCAST_HTTP_PROXY_PROTOCOL", "true", "http.trusted_proxies beside it"),
        ("TASKCAST_LIMITS_EVENTS_PER_MINUTE_PER_TOKEN", "999", "no less than http.events_per_request_max (1000)"),
        ("TASKCAST_LIMITS_REQUESTS_PER_MINUTE_PER_IP", "9", "0, or no less than 10"),
        ("TASKCAST_LIMITS_REQUESTS_PER_MINUTE_PER_USER", "1", "0, or no less than 10"),
        ("TASKCAST_SESSIONS_BYTES_PER_MINUTE", "60000", "no less than sessions.message_max_bytes (65536)"),
        ("TASKCAST_LIMITS_KEYS_MAX", "0", "a whole number from 1000"),
        ("TASKCAST_LIMITS_BAN_SECONDS", "0", "a whole number from 1"),
    ] {
        let given = Given::valid().with_file("bad.txt", b"10.0.0.0/8\nnowhere\n").variable(variable, value);
        let mistake = given.mistake();
        assert!(mistake.expected.contains(expected), "{variable}: {}", mistake.expected);
    }
}
