//! What a body of events may look like, and what is said about one that cannot be read.

use futures_util::stream;
use warp::hyper::body::Bytes;

use super::{super::head::tests::head, *};

fn metrics() -> Metrics {
    Metrics::new("memory")
}

fn layout_of(content_type: &str) -> Result<Layout, HttpError> {
    layout(&head("", &[("content-type", content_type)]))
}

fn chunks(chunks: &[&'static str]) -> impl Stream<Item = Result<Bytes, warp::Error>> {
    stream::iter(chunks.iter().map(|&chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect::<Vec<_>>())
}

#[test]
fn the_content_type_says_how_a_body_is_read() {
    for (content_type, expected) in [
        ("application/json", Layout::Json(ContentType::Json)),
        ("Application/JSON; charset=utf-8", Layout::Json(ContentType::Json)),
        ("application/cloudevents+json", Layout::Json(ContentType::CloudEvents)),
        ("application/cloudevents-batch+json", Layout::Json(ContentType::CloudEvents)),
        ("application/x-ndjson", Layout::Lines),
        ("text/json", Layout::Json(ContentType::Json)),
        ("application/protobuf", Layout::Protobuf),
        ("application/vnd.google.protobuf", Layout::Protobuf),
        ("application/x-protobuf", Layout::Protobuf),
    ] {
        assert_eq!(layout_of(content_type).unwrap(), expected, "{content_type}");
    }
    assert_eq!(layout(&head("", &[])).unwrap(), Layout::Json(ContentType::Json));
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
        assert_eq!(layout_of(content_type).unwrap_err().status(), 415, "{content_type}");
    }
}

#[test]
fn a_body_is_cut_into_events() {
    let json = Layout::Json(ContentType::Json);
    let cut = |layout, body: &'static str| {
        let parts = parts(layout, body.as_bytes(), &metrics()).unwrap();
        parts.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(cut(json, r#"{"task_id":"a"}"#), [r#"{"task_id":"a"}"#]);
    assert_eq!(cut(json, " [{\"a\":[1]},\n 2 ]"), [r#"{"a":[1]}"#, "2"]);
    assert_eq!(cut(json, "[]"), [""; 0]);
    assert_eq!(cut(Layout::Lines, "{}\r\n\n{\"a\":1}\n"), ["{}", "{\"a\":1}"]);
    assert_eq!(cut(Layout::Protobuf, "[x"), ["[x"]);
    for broken in ["[", "[{}", "[{},]", "[]x", "[\"\u{0}\"]"] {
        assert_eq!(parts(json, broken.as_bytes(), &metrics()).unwrap_err().status(), 400, "{broken}");
    }
    assert_eq!(parts(json, &b"[".repeat(100_000), &metrics()).unwrap_err().status(), 400);
}

#[test]
fn every_bad_event_is_named_and_none_is_let_through() {
    let odd = |part: &[u8]| match part {
        [digit] => Ok(*digit),
        _ => Err(Malformed {
            reason: MalformedReason::Value,
            field: Some("progress".to_owned()),
            detail: "`progress` must be a number.".to_owned(),
        }),
    };
    assert_eq!(all_or_errors(&[b"1", b"2"], odd).unwrap(), [b'1', b'2']);
    let error = all_or_errors(&[b"xx", b"1", b"yy"], odd).unwrap_err();
    assert_eq!(error.status(), 400);
    let shown = format!("{error:?}");
    for expected in [r#""index": Number(0)"#, r#""index": Number(2)"#, "progress", "`progress` must be a number."] {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    assert!(!shown.contains(r#""index": Number(1)"#), "{shown}");
}

#[test]
fn what_is_odd_about_events_is_counted_once_they_are_accepted_or_refused() {
    let metrics = metrics();
    let counted = |line: &str| metrics.render().unwrap().lines().any(|found| found == line);
    let json = Layout::Json(ContentType::Json);
    decode(json, br#"[{"task_id":"a","colour":1},{"task_id":"b","size":2}]"#, 9, &metrics).unwrap();
    assert!(counted("taskcast_event_unknown_fields_total 2"), "{:?}", metrics.render());
    decode(json, br#"[{"task_id":"a","colour":1},{"task_id":7},[]]"#, 9, &metrics).unwrap_err();
    decode(json, b"[{]", 9, &metrics).unwrap_err();
    assert!(counted("taskcast_event_unknown_fields_total 2"), "{:?}", metrics.render());
    let text = metrics.render().unwrap();
    let malformed = text.lines().filter(|line| line.contains("outcome=\"malformed\""));
    let count: u64 = malformed.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
    assert_eq!(count, 3, "{text}");
}

#[test]
fn too_many_events_are_refused_before_any_is_read() {
    let error = decode(Layout::Json(ContentType::Json), b"[1,2,3,4]", 3, &metrics()).unwrap_err();
    assert_eq!(error.status(), 413);
}

#[test]
fn an_event_that_would_be_too_large_in_the_log_is_refused_with_its_reason() {
    let control = "\u{1}".repeat(4096);
    let result = "x".repeat(30_000);
    let mut event =
        Event::decode(ContentType::Json, format!(r#"{{"task_id":"t","result":"{result}"}}"#).as_bytes()).unwrap();
    event.message = Some(control.as_str().into());
    assert!(decode(Layout::Protobuf, &event.to_protobuf(), 1, &metrics()).is_ok());
    event.error =
        Some(std::sync::Arc::new(crate::proto::TaskError { message: event.message.clone(), ..Default::default() }));
    let error = decode(Layout::Protobuf, &event.to_protobuf(), 1, &metrics()).unwrap_err();
    assert_eq!(error.status(), 400);
    assert!(format!("{error:?}").contains("too_large"), "{error:?}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_it_says_so_or_not() {
    let honest = head("", &[("content-length", "11")]);
    let silent = head("", &[]);
    let liar = head("", &[("content-length", "1")]);
    assert_eq!(read(&honest, chunks(&[]), 10).await.unwrap_err().status(), 413);
    for head in [&silent, &liar] {
        assert_eq!(read(head, chunks(&["12345", "678901"]), 10).await.unwrap_err().status(), 413);
        assert_eq!(read(head, chunks(&["12345", "67890"]), 10).await.unwrap(), b"1234567890");
    }
}

#[test]
fn a_failed_append_says_how_many_events_are_in_the_log() {
    let error = AppendError { appended: 2, detail: "broker at 10.0.0.1 refused".to_owned() };
    let response = unavailable(&error, 5);
    let shown = format!("{response:?}");
    assert!(shown.contains(r#""appended": Number(2)"#) && !shown.contains("10.0.0.1"), "{shown}");
    let response = response.into_response();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
}

#[test]
fn several_lines_of_a_trace_state_are_one_and_several_parents_are_none() {
    let parent = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let state = |headers: &[(&'static str, &str)]| trace_context(&head("", headers)).map(|context| context.state);
    let joined = state(&[parent, ("tracestate", "a=b"), ("tracestate", "c=d")]).unwrap();
    assert_eq!(joined.as_deref(), Some("a=b,c=d"));
    assert_eq!(state(&[parent]), Some(None));
    assert_eq!(state(&[parent, parent]), None);
}
