//! What becomes of spans while a collector is away, and what the log is told of it. Refuses to know: what a collector that
//! answers is told.

use tokio::net::TcpListener;

use super::{super::FOLLOWED_FOR, *};
use crate::{
    metrics::{Metrics, Outcome},
    proto::{Cursor, Position, TraceContext},
    traces::Taken,
};

/// Nothing that is awaited here takes longer unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

fn traces() -> Traces {
    Traces::new("memory", "taskcast:events".to_owned(), Metrics::new("memory").into())
}

fn settings(port: u16) -> TraceSettings {
    TraceSettings {
        address: format!("http://127.0.0.1:{port}/v1/traces"),
        headers: Vec::new(),
        service_name: "taskcast".to_owned(),
        client: ClientSettings { timeout: PATIENCE, tls_ca_file: None },
    }
}

/// A traced event is applied, and told to one session.
fn deliver(traces: &Traces, minor: u64) {
    let context = TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1, state: None };
    let cursor = Cursor { position: Position { major: 1, minor }, proof: 1 };
    traces.applying(clock::now());
    traces.take(Taken { context: &context, task_id: "t1", cursor, outcome: Outcome::Applied });
    traces.applied(clock::now());
    traces.among([cursor.position].into_iter()).expect("it is followed").written(clock::now().instant);
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "{what}");
}

fn exporting_to(collector: &TcpListener) -> (Traces, CancellationToken, tokio::task::JoinHandle<()>) {
    let (traces, stop) = (traces(), CancellationToken::new());
    let exporting = export(traces.clone(), settings(collector.local_addr().unwrap().port()), stop.clone()).unwrap();
    (traces, stop, tokio::spawn(exporting))
}

#[tokio::test]
async fn deliveries_end_while_a_collector_is_silent() {
    // It takes connections and answers nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (traces, stop, exporting) = exporting_to(&silent);
    deliver(&traces, 1);
    until("the export hangs", || traces.waiting() == 0).await;
    deliver(&traces, 2);
    until("both are over", || traces.written().is_empty()).await;
    assert_eq!(traces.waiting(), 3, "one of the event, two of deliveries");
    stop.cancel();
    exporting.await.unwrap();
}

#[tokio::test]
async fn what_could_not_be_exported_before_the_end_is_counted() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (traces, stop, exporting) = exporting_to(&silent);
    deliver(&traces, 1);
    until("the batch is on its way", || traces.waiting() == 0).await;
    stop.cancel();
    exporting.await.unwrap();
    let shown = traces.0.metrics.render().unwrap();
    assert!(shown.contains("taskcast_spans_dropped_total{reason=\"shutdown\"} 2"), "{shown}");
}

#[test]
fn a_batch_that_is_put_back_is_the_first_again() {
    let traces = traces();
    deliver(&traces, 1);
    deliver(&traces, 2);
    let batch = traces.batch();
    let ids = |batch: &[Span]| batch.iter().map(|span| span.id).collect::<Vec<_>>();
    let before = ids(&batch);
    deliver(&traces, 3);
    traces.put_back(batch);
    assert_eq!((ids(&traces.batch())[..2].to_vec(), traces.waiting()), (before, 0));
}

#[test]
fn a_write_after_the_time_is_not_counted_whenever_the_sweep_comes() {
    let traces = traces();
    deliver(&traces, 1);
    let late = clock::now().after(FOLLOWED_FOR + Duration::from_millis(1)).instant;
    traces.among([Position { major: 1, minor: 1 }].into_iter()).unwrap().written(late);
    assert_eq!(traces.written(), [1]);
}

#[test]
fn trouble_is_told_when_it_changes_and_once_a_minute_at_most() {
    let (mut complaints, now) = (Complaints::default(), clock::now().instant);
    let at = |seconds| now + Duration::from_secs(seconds);
    assert!(complaints.begin(Trouble::Away, at(0)) && !complaints.begin(Trouble::Away, at(90)));
    assert!(complaints.begin(Trouble::Refusing, at(91)), "a change hides behind nothing");
    assert!(complaints.end() && !complaints.end());
    // Whoever alternates is heard once a minute.
    for second in 92..151 {
        assert!(!complaints.begin(Trouble::Refusing, at(second)) && !complaints.end(), "{second}");
    }
    assert!(complaints.begin(Trouble::Refusing, at(151)) && complaints.end());
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let long = "\u{e4}".repeat(60_000);
    assert_eq!((cut(&long).chars().count(), cut("too old")), (REASON_MAX_CHARACTERS, "too old"));
}
