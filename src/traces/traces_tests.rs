//! What becomes of a traced event, as a collector would see it. Refuses to know: HTTP.

use std::time::Duration;

use prost::Message as _;

use super::{
    followed::FOLLOWED_MAX,
    otlp::{ExportTraceServiceRequest, OneValue, WireSpan},
    *,
};
use crate::clock;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn traces() -> (Traces, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new("memory"));
    (Traces::new("redis", "taskcast:events".to_owned(), metrics.clone()), metrics)
}

fn context() -> TraceContext {
    TraceContext::parse(PARENT).unwrap().with_state("congo=t61rcWkgMzE")
}

fn at(minor: u64) -> Position {
    Position { major: 7, minor }
}

fn take(traces: &Traces, context: &TraceContext, minor: u64, outcome: Outcome) {
    let cursor = Cursor { position: at(minor), proof: 1 };
    traces.take(Taken { context, task_id: "t1", cursor, outcome });
}

/// All spans that wait, as a collector gets them.
fn exported(traces: &Traces) -> Vec<WireSpan> {
    let body = otlp::request(&[("service.name", "taskcast".to_owned())], &traces.batch());
    let mut request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
    request.resource_spans.remove(0).scope_spans.remove(0).spans
}

fn attribute(span: &WireSpan, key: &str) -> Option<OneValue> {
    let pair = span.attributes.iter().find(|pair| pair.key == key)?;
    pair.value.clone()?.value
}

fn text(text: &str) -> OneValue {
    OneValue::Text(text.to_owned())
}

#[test]
fn an_event_has_a_span_below_its_workers_and_its_delivery_one_below_that() {
    let (traces, _) = traces();
    let began = clock::now();
    traces.applying(began);
    take(&traces, &context(), 1, Outcome::Applied);
    traces.applied(began.after(Duration::from_millis(3)));
    let followed = traces.among([at(0), at(1), at(2)].into_iter()).unwrap();
    for ms in [9, 5, 7] {
        followed.written(began.after(Duration::from_millis(ms)).instant);
    }
    traces.sweep(began.after(FOLLOWED_FOR).instant, false);
    let [process, deliver] = exported(&traces).try_into().unwrap();
    assert_eq!((process.trace_id.len(), &process.trace_id), (16, &deliver.trace_id));
    assert_eq!((process.trace_id[0], &process.parent_span_id[..]), (0x0a, &context().span_id[..]));
    assert_eq!((&deliver.parent_span_id, process.name.as_str()), (&process.span_id, "process taskcast:events"));
    assert!(deliver.span_id != process.span_id && deliver.span_id != [0; 8]);
    assert_eq!((process.kind, deliver.kind), (5, 1));
    assert_eq!((process.flags, deliver.flags), (0x301, 0x101));
    assert_eq!(
        (process.trace_state.as_str(), deliver.trace_state.as_str()),
        ("congo=t61rcWkgMzE", "congo=t61rcWkgMzE")
    );
    for (key, value) in [
        ("messaging.system", "redis"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "taskcast:events"),
        ("messaging.message.id", "7-1"),
        ("taskcast.task_id", "t1"),
        ("taskcast.outcome", "applied"),
    ] {
        assert_eq!(attribute(&process, key), Some(text(value)), "{key}");
    }
    let took = |span: &WireSpan| span.end_time_unix_nano - span.start_time_unix_nano;
    assert_eq!((took(&process), took(&deliver)), (3_000_000, 9_000_000));
    assert_eq!(deliver.start_time_unix_nano, began.unix_ms * 1_000_000);
    assert_eq!(deliver.events[0].time_unix_nano - deliver.start_time_unix_nano, 5_000_000);
    assert_eq!(attribute(&deliver, "taskcast.sessions"), Some(OneValue::Number(3)));
}

#[test]
fn what_is_not_sampled_or_not_live_leaves_nothing() {
    let (traces, _) = traces();
    take(&traces, &context(), 1, Outcome::Applied);
    traces.applying(clock::now());
    let unsampled = TraceContext { flags: 0, ..context() };
    take(&traces, &unsampled, 2, Outcome::Applied);
    traces.applied(clock::now());
    assert!(traces.among([at(1), at(2)].into_iter()).is_none());
    traces.sweep(clock::now().instant, true);
    assert_eq!(exported(&traces), []);
}

#[test]
fn what_changed_nothing_says_why_and_what_nobody_watched_has_no_delivery() {
    let (traces, _) = traces();
    traces.applying(clock::now());
    take(&traces, &context(), 1, Outcome::IllegalEnded);
    take(&traces, &context(), 2, Outcome::Applied);
    traces.applied(clock::now());
    assert!(traces.among([at(1)].into_iter()).is_none() && traces.among([at(2)].into_iter()).is_some());
    traces.sweep(clock::now().instant, true);
    assert!(traces.among([at(2)].into_iter()).is_none(), "nothing is kept");
    let [refused, applied] = exported(&traces).try_into().unwrap();
    assert_eq!(attribute(&refused, "taskcast.outcome"), Some(text("illegal")));
    assert_eq!(attribute(&refused, "taskcast.outcome.reason"), Some(text("ended")));
    assert_eq!(attribute(&applied, "taskcast.outcome.reason"), None);
}

#[test]
fn what_finds_no_room_is_dropped_and_counted() {
    let (traces, metrics) = traces();
    let now = clock::now();
    for batch in 0..FOLLOWED_MAX as u64 / 64 + 2 {
        traces.applying(now);
        for minor in 0..64 {
            take(&traces, &context(), batch * 64 + minor, Outcome::Applied);
        }
        traces.applied(now);
    }
    let shown = metrics.render().unwrap();
    // Of each kind two batches too many: events to follow, and spans of events.
    assert!(shown.contains("taskcast_spans_dropped_total{reason=\"full\"} 256"), "{shown}");
    let mut exported = 0;
    loop {
        match traces.batch().len() {
            0 => break,
            count => exported += count,
        }
    }
    assert_eq!(exported, WAITING_MAX);
}

#[test]
fn a_collectors_answer_says_how_many_it_has_not_taken() {
    let refusal = otlp::ExportTraceServiceResponse {
        partial_success: Some(otlp::PartialSuccess { rejected_spans: 2, error_message: "too old".to_owned() }),
    };
    assert_eq!(otlp::rejected(&refusal.encode_to_vec()), (2, "too old".to_owned()));
    for other in [&b""[..], b"{}", b"\xff\xff"] {
        assert_eq!(otlp::rejected(other).0, 0);
    }
}
