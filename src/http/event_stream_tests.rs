//! What a request for a stream is answered, without a socket.

use super::{
    super::{OriginPolicy, credentials::tests::settings, head::tests::head},
    *,
};

const LISTED: &str = "https://app.test";

fn policy(patterns: &[&str], allow_missing: bool) -> Settings {
    let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
    Settings { origins: OriginPolicy::new(&patterns, allow_missing).unwrap(), ..settings() }
}

#[test]
fn origins_are_those_of_websockets_but_that_a_browser_names_none_for_its_own_page() {
    let own = ("sec-fetch-site", "same-origin");
    let host = ("host", "tasks.test");
    for (settings, headers, allowed) in [
        (policy(&[], true), &[host][..], true),
        (policy(&[], false), &[host], false),
        (policy(&[], false), &[host, own], true),
        (policy(&[], false), &[host, ("sec-fetch-site", "same-site")], false),
        (policy(&[], false), &[host, ("origin", "https://tasks.test")], true),
        (policy(&[], true), &[host, ("origin", LISTED)], false),
        (policy(&[], true), &[host, own, ("origin", LISTED)], false),
        (policy(&[LISTED], false), &[host, ("origin", LISTED)], true),
        (policy(&[LISTED], false), &[host, ("origin", "null")], false),
    ] {
        assert_eq!(check_origin(&settings, &head("", headers)).is_ok(), allowed, "{headers:?}");
    }
}

#[test]
fn what_the_browser_heard_last_comes_before_what_stands_in_the_address() {
    let header = ("last-event-id", "1");
    for (query, headers, cursor) in [
        ("last_event_id=2&cursor=3", &[header][..], Some("1")),
        ("cursor=3&last_event_id=2", &[], Some("2")),
        ("cursor=3", &[], Some("3")),
        ("cursor=3&last_event_id=", &[("last-event-id", "")], Some("3")),
        ("", &[], None),
    ] {
        let request = request(&head(query, headers), &Address::Mine).unwrap();
        assert_eq!((request.cursor.as_deref(), request.encoding), (cursor, Encoding::EventStream), "{query}");
    }
}

#[test]
fn what_passes_is_said_in_a_stream_to_who_would_give_up_and_by_its_status_to_others() {
    let event_source = head("", &[("accept", "text/event-stream")]);
    for (head, error, status) in [
        (&event_source, HttpError::overloaded(), 200),
        (&event_source, HttpError::not_found(), 404),
        (&event_source, forbidden(), 403),
        (&head("", &[("accept", "*/*")]), HttpError::overloaded(), 503),
        (&head("", &[]), HttpError::overloaded(), 503),
    ] {
        let response = refuse(head, error);
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()[header::CONTENT_TYPE] == MEDIA_TYPE, status == 200);
    }
}

#[test]
fn those_who_are_refused_together_do_not_come_back_together_or_too_early() {
    let event_source = head("", &[("accept", MEDIA_TYPE)]);
    let error = HttpError::overloaded();
    let wait_ms = 1_000 * error.retry_after_seconds().unwrap();
    let retries: std::collections::BTreeSet<u64> = (0..20)
        .map(|_| {
            let (_, body) = passing(&event_source, &error).unwrap();
            body.lines().find_map(|line| line.strip_prefix("retry: ")).unwrap().parse().unwrap()
        })
        .collect();
    assert!(retries.len() > 1, "{retries:?}");
    assert!(retries.iter().all(|retry| (wait_ms..=wait_ms * 3 / 2).contains(retry)), "{retries:?}");
}

#[test]
fn a_head_is_whole_and_says_how_its_body_is_framed() {
    let chunked = String::from_utf8(head_of(&begin(), true).to_vec()).unwrap();
    let bare = String::from_utf8(head_of(&begin(), false).to_vec()).unwrap();
    assert!(chunked.starts_with("HTTP/1.1 200 OK\r\n") && chunked.ends_with("\r\ntransfer-encoding: chunked\r\n\r\n"));
    assert_eq!(chunked.replace("transfer-encoding: chunked\r\n", ""), bare);
    assert!(bare.contains("\r\ndate: ") && bare.contains(" GMT\r\n"), "{bare}");
}
