//! The table of origins: what is let in by which list.

use super::*;
use crate::clock;

fn policy(patterns: &[&str]) -> OriginPolicy {
    let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
    OriginPolicy::new(&patterns, false).unwrap()
}

#[test]
fn an_origin_is_let_in_by_what_the_list_says_and_by_nothing_else() {
    let exact = "https://app.example.com";
    let below = "https://*.example.com";
    for (pattern, origin, expected) in [
        (exact, "https://app.example.com", true),
        (exact, "HTTPS://App.Example.COM", true),
        (exact, "https://app.example.com:443", true),
        ("https://app.example.com:443", "https://app.example.com", true),
        ("https://APP.example.com", "https://app.example.com", true),
        (exact, "http://app.example.com", false),
        (exact, "https://app.example.com:8443", false),
        (exact, "https://app.example.com.evil.test", false),
        (exact, "https://evil.test/https://app.example.com", false),
        (exact, "https://evil-app.example.com", false),
        (exact, "https://xapp.example.com", false),
        (exact, "https://app.example.com.", false),
        (exact, "https://app.example.com/", false),
        (exact, "https://app.example.com/path", false),
        (exact, "https://app.example.com?x", false),
        (exact, "https://app.example.com#x", false),
        (exact, "https://user@app.example.com", false),
        (exact, "https://app.example.com@evil.test", false),
        (exact, "https://evil.test\\app.example.com", false),
        (exact, "https://app%2eexample.com", false),
        (exact, "https://app.example.com, https://evil.test", false),
        (exact, "app.example.com", false),
        (exact, "//app.example.com", false),
        (exact, "", false),
        (exact, "null", false),
        ("https://app.example.com:8443", "https://app.example.com:8443", true),
        ("https://app.example.com:8443", "https://app.example.com", false),
        ("https://app.example.com:8443", "https://app.example.com:08443", true),
        (below, "https://a.example.com", true),
        (below, "https://a.b.example.com", true),
        (below, "https://A.EXAMPLE.com:443", true),
        (below, "https://example.com", false),
        (below, "https://.example.com", false),
        (below, "https://a..example.com", false),
        (below, "https://badexample.com", false),
        (below, "https://a.example.com.", false),
        (below, "https://a.example.com.evil.test", false),
        (below, "http://a.example.com", false),
        (below, "https://a.example.com:8443", false),
        (below, "null", false),
        ("http://localhost:5173", "http://localhost:5173", true),
        ("http://localhost:5173", "http://localhost:51730", false),
        ("http://127.0.0.1:5173", "http://127.0.0.1:5173", true),
        ("http://[::1]:5173", "http://[::1]:5173", true),
        ("http://[::1]", "http://[::1]:80", true),
        ("https://bücher.example", "https://xn--bcher-kva.example", true),
        ("https://*.bücher.example", "https://a.xn--bcher-kva.example", true),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example", true),
        ("https://bücher.example", "https://bucher.example", false),
        ("capacitor://localhost", "capacitor://localhost", true),
        ("capacitor://localhost", "http://localhost", false),
        ("*", "https://anything.test", true),
        ("*", "null", true),
    ] {
        let allowed = policy(&[pattern]).check(Some(origin), Some("progress.example.com"));
        assert_eq!(allowed.is_ok(), expected, "{pattern} {origin}");
    }
}

#[test]
fn names_in_other_scripts_ports_and_dots_are_what_a_browser_takes_them_for() {
    let exact = "https://app.example.com";
    for (pattern, origin, expected) in [
        ("https://bücher.example", "https://XN--BCHER-KVA.example", true),
        ("https://bücher.example", "https://bücher.example", false),
        ("https://bücher.example", "https://xn--bcher-kva.example.", false),
        ("https://bücher.example", "https://xn--bcher-kva.example.evil.test", false),
        // Cyrillic letters that look like Latin ones: as a browser writes them, and as nobody may.
        (exact, "https://xn--pp-6kc.example.com", false),
        (exact, "https://аpp.example.com", false),
        // Full stops and letters that IDNA takes for ASCII ones.
        (exact, "https://app。example.com", false),
        (exact, "https://ａpp.example.com", false),
        (exact, "https://app.example.com:0443", true),
        (exact, "https://app.example.com:80", false),
        (exact, "https://app.example.com:", false),
        (exact, "https://app.example.com:443:443", false),
        (exact, "https://app.example.com:65979", false),
        (exact, "http://app.example.com:443", false),
        (exact, "https:app.example.com", false),
        (exact, "https:///app.example.com", false),
        (exact, "https://https://app.example.com", false),
        (exact, " https://app.example.com", false),
        (exact, "https://app.example.com\t", false),
        (exact, "https://app.example.com\0", false),
        (exact, "wss://app.example.com", false),
        (exact, "file://", false),
        (exact, "NULL", false),
        ("https://app.example.com.", "https://app.example.com.", true),
        ("https://app.example.com.", "https://app.example.com", false),
        ("http://app.example.com", "http://app.example.com:80", true),
        ("http://app.example.com", "http://app.example.com:443", false),
    ] {
        let allowed = policy(&[pattern]).check(Some(origin), Some("progress.example.com"));
        assert_eq!(allowed.is_ok(), expected, "{pattern} {origin:?}");
    }
}

#[test]
fn without_a_list_only_the_own_host_and_port_are_let_in() {
    for (origin, host, expected) in [
        ("http://localhost:6161", Some("localhost:6161"), true),
        ("https://progress.example.com", Some("progress.example.com"), true),
        ("https://progress.example.com", Some("Progress.Example.com:443"), true),
        ("http://progress.example.com:80", Some("progress.example.com"), true),
        ("http://[::1]:6161", Some("[::1]:6161"), true),
        ("https://progress.example.com", Some("progress.example.com:80"), false),
        ("http://localhost:6162", Some("localhost:6161"), false),
        ("http://evil.test", Some("localhost:6161"), false),
        ("http://localhost:6161.evil.test", Some("localhost:6161"), false),
        ("null", Some("localhost:6161"), false),
        ("null", Some("null"), false),
        ("HTTPS://PROGRESS.example.com", Some("progress.example.com"), true),
        ("https://progress.example.com.", Some("progress.example.com."), true),
        ("https://progress.example.com.", Some("progress.example.com"), false),
        ("https://progress.example.com", Some("progress.example.com."), false),
        ("https://progress.example.com.evil.test", Some("progress.example.com"), false),
        ("https://xn--bcher-kva.example", Some("xn--bcher-kva.example"), true),
        ("https://bücher.example", Some("bücher.example"), false),
        ("https://progress.example.com", Some("progress.example.com, evil.test"), false),
        ("https://evil.test", Some("evil.test@progress.example.com"), false),
        ("http://localhost:6161", None, false),
        ("http://localhost:6161", Some(""), false),
    ] {
        let allowed = policy(&[]).check(Some(origin), host);
        assert_eq!(allowed, if expected { Ok(Allowed::Same) } else { Err(Refused) }, "{origin} {host:?}");
    }
}

#[test]
fn where_the_service_speaks_tls_itself_a_page_without_it_is_of_another_origin() {
    let encrypted = policy(&[]).over_tls();
    assert_eq!(encrypted.check(Some("https://progress.test"), Some("progress.test")), Ok(Allowed::Same));
    assert_eq!(encrypted.check(Some("http://progress.test"), Some("progress.test")), Err(Refused));
    assert_eq!(encrypted.check(Some("http://progress.test:443"), Some("progress.test:443")), Err(Refused));
}

#[test]
fn a_list_replaces_same_origin() {
    let policy = policy(&["https://app.example.com"]);
    assert_eq!(policy.check(Some("http://localhost:6161"), Some("localhost:6161")), Err(Refused));
}

#[test]
fn a_missing_origin_is_a_matter_of_its_own_setting() {
    assert_eq!(policy(&["*"]).check(None, None), Err(Refused));
    let lenient = OriginPolicy::new(&[], true).unwrap();
    assert_eq!(lenient.check(None, None), Ok(Allowed::Missing));
    assert_eq!(lenient.check(Some(""), Some("localhost")), Err(Refused));
}

#[test]
fn an_explicit_entry_counts_for_more_than_the_star_beside_it() {
    let policy = policy(&["*", "https://app.example.com"]);
    assert_eq!(policy.listed("https://app.example.com"), Some(Allowed::Listed));
    assert_eq!(policy.listed("https://other.test"), Some(Allowed::Anyone));
}

#[test]
fn a_pattern_that_is_no_origin_is_refused_with_its_text() {
    for pattern in [
        "",
        "example.com",
        "*.example.com",
        "https://",
        "https://example.com/",
        "https://example.com/path",
        "https://user@example.com",
        "https://example.com:0",
        "https://example.com:65536",
        "https://example.com:http",
        "https://app.*.com",
        "https://*.*.com",
        "https://*example.com",
        "https://*.10.0.0.1",
        "https://exa mple.com",
        "1http://example.com",
        "null",
    ] {
        let error = OriginPolicy::new(&[pattern.to_owned()], false).unwrap_err();
        assert!(error.starts_with(&format!("{pattern:?}")), "{error}");
    }
}

#[test]
fn the_list_is_shown_as_it_was_understood() {
    let shown = policy(&["https://App.example.com:443", "http://*.localhost:5173", "*"]).to_string();
    assert_eq!(shown, "https://app.example.com, http://*.localhost:5173, *");
    assert_eq!(policy(&[]).to_string(), "same origin");
}

#[test]
fn a_refused_origin_is_news_once_a_minute_and_strangers_cannot_fill_the_log() {
    let policy = policy(&[]);
    let start = clock::now();
    assert!(policy.is_news("https://evil.test", start));
    assert!(!policy.is_news("https://evil.test", start.after(Duration::from_secs(59))));
    assert!(policy.is_news("https://evil.test", start.after(LOGGED_FOR)));
    let logged = (0..10_000).filter(|number| policy.is_news(&number.to_string(), start.after(LOGGED_FOR))).count();
    assert_eq!(logged, LOGGED_MAX - 1);
}

#[test]
fn only_names_of_loopback_are_local() {
    for host in [
        "localhost",
        "LocalHost:6161",
        "localhost.",
        "app.localhost:80",
        "127.0.0.1",
        "127.0.0.1:6161",
        "127.255.0.9:1",
        "[::1]",
        "[::1]:6161",
    ] {
        assert!(is_local(Some(host)), "{host}");
    }
    for host in [
        "",
        "evil.test",
        "localhost.evil.test",
        "evil-localhost",
        "127.0.0.1.evil.test",
        "10.0.0.1:6161",
        "0.0.0.0:6161",
        "[::]:6161",
        "[::2]",
        "localhost:6161, evil.test",
        "evil.test@localhost",
        "localhost:x",
    ] {
        assert!(!is_local(Some(host)), "{host}");
    }
    assert!(!is_local(None));
}
