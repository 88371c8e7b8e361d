//! What one event costs on its way through the service, a part at a time: read from its bytes, applied to the hub,
//! written as a frame, marked for and pulled by those who watch. `cargo bench --bench micro`; a name behind `--` picks
//! some of them.
//!
//! Refuses to know: brokers, sockets. What they add is the load harness's to measure.

#![expect(clippy::expect_used, reason = "what cannot be set up cannot be measured")]

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use taskcast::{
    hub::{Arrival, Hub, Mailbox, PullOptions, Settings},
    metrics::Metrics,
    proto::{ContentType, Cursor, Encoding, Event, Position, TaskFrame, TaskId, Topic, UserId, proof},
};

/// When everything here happens: 2026 in milliseconds since the Unix epoch.
const NOW_MS: u64 = 1_790_000_000_000;

/// Who owns every task here.
const OWNER: &str = "user-042";

criterion_group!(benches, decode, apply, encode, mark_and_pull);
criterion_main!(benches);

/// 250 bytes, as a worker in the middle of its task writes them.
fn native_json(task: usize, seq: u64) -> String {
    let begin = format!(
        r#"{{"task_id":"task-{task:06}","user_id":"{OWNER}","name":"reports.import","status":"running","progress":{}.5,"#,
        seq % 99
    );
    let end = format!(
        r#""current":{seq},"total":1000000000,"step":"Loading rows","seq":{seq},"timestamp":"2026-09-21T12:00:00.250Z","#
    );
    let bytes = begin.len() + end.len() + r#""message":""}"#.len();
    let message = "row after row ".chars().cycle().take(250_usize.saturating_sub(bytes)).collect::<String>();
    format!(r#"{begin}{end}"message":"{message}"}}"#)
}

/// The same, with the names that Celery's front ends and BullMQ's workers have for it.
fn aliased_json() -> String {
    format!(
        r#"{{"uuid":"task-000001","userId":"{OWNER}","state":"PROGRESS","percent":40.5,"processed_items":405,"total_items":1000,"current_step":"Loading rows","msg":"row after row row after row row after row row after row ro","hostname":"celery@worker-1","timestamp":1790000000.25}}"#
    )
}

/// With everything that a task can end with.
fn ended_json() -> String {
    format!(
        r#"{{"task_id":"task-000001","user_id":"{OWNER}","status":"failed","attempt":2,"seq":77,"tags":["import","nightly"],"error":{{"type":"ValueError","message":"line 7 has no date","retryable":true}},"metadata":{{"file":"a.csv","rows":1000}},"result":{{"rows":999}},"worker":"celery@worker-1"}}"#
    )
}

fn event(text: &str) -> Event {
    Event::decode(ContentType::Json, text.as_bytes()).expect("an event that can be read")
}

fn decode(c: &mut Criterion) {
    let native = native_json(1, 40);
    let cloud = format!(r#"{{"specversion":"1.0","id":"1","source":"/w","type":"task","data":{native}}}"#);
    let inputs = [
        ("native", ContentType::Json, native.clone().into_bytes()),
        ("aliased", ContentType::Json, aliased_json().into_bytes()),
        ("ended", ContentType::Json, ended_json().into_bytes()),
        ("smallest", ContentType::Json, br#"{"task_id":"t1","progress":40}"#.to_vec()),
        ("cloudevents", ContentType::CloudEvents, cloud.into_bytes()),
        ("protobuf", ContentType::Protobuf, event(&native).to_protobuf()),
    ];
    let mut group = c.benchmark_group("decode");
    for (name, content_type, bytes) in &inputs {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(*name, |b| b.iter(|| Event::decode(*content_type, black_box(bytes))));
    }
    group.throughput(Throughput::Bytes(native.len() as u64));
    group.bench_function("proof", |b| b.iter(|| proof(black_box(native.as_bytes()))));
    group.finish();
}

/// A hub and the log that it reads: events of `tasks` tasks, each in its turn, for as long as somebody asks.
struct Log {
    hub: Hub,
    tasks: usize,
    next: u64,
}

impl Log {
    fn new(tasks: usize) -> Self {
        let settings = Settings {
            max: 1_000_000,
            max_bytes: 0,
            max_per_owner: 0,
            ring_frames: 16,
            retain_ended: Duration::from_secs(900),
            retain_idle: Duration::from_secs(86_400),
            resume_window: 500_000,
        };
        let hub = Hub::new(settings, Arc::new(Metrics::new("memory")));
        hub.set_replayed(true);
        let mut log = Self { hub, tasks, next: 0 };
        for _ in 0..tasks.div_ceil(256) {
            let batch = log.batch(256);
            log.hub.apply(&batch, NOW_MS);
        }
        log
    }

    fn batch(&mut self, events: usize) -> Vec<Arrival> {
        (0..events).map(|_| self.arrival()).collect()
    }

    fn arrival(&mut self) -> Arrival {
        let task = self.next as usize % self.tasks;
        self.next += 1;
        let text = native_json(task, self.next);
        let cursor = Cursor { position: Position { major: self.next, minor: 0 }, proof: proof(text.as_bytes()) };
        Arrival { cursor, appended_at_ms: Some(NOW_MS), event: Some(event(&text)) }
    }
}

/// Nobody watches: what replay pays.
fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply");
    for tasks in [1, 1_000, 100_000] {
        let mut log = Log::new(tasks);
        for batch in [1, 16, 256] {
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(BenchmarkId::new(format!("{tasks}_tasks"), format!("batch_{batch}")), |b| {
                let hub = log.hub.clone();
                b.iter_batched(
                    || log.batch(batch),
                    |arrivals| {
                        hub.apply(&arrivals, NOW_MS);
                        arrivals
                    },
                    BatchSize::LargeInput,
                );
            });
        }
    }
    group.finish();
}

/// A frame is encoded once, by whoever asks first.
fn encode(c: &mut Criterion) {
    let mut log = Log::new(1);
    let arrivals = log.batch(1);
    log.hub.apply(&arrivals, NOW_MS);
    let id = TaskId::parse("task-000000").expect("an id");
    let shown = log.hub.task(&id).expect("it was applied");
    let fresh = || TaskFrame::new(shown.task.clone(), shown.cursor, false, NOW_MS);
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    for (name, encoding) in [("json", Encoding::Json), ("celery", Encoding::Celery), ("protobuf", Encoding::Protobuf)] {
        group.bench_function(name, |b| {
            b.iter_batched(fresh, |frame| (frame.bytes(encoding), frame), BatchSize::SmallInput);
        });
    }
    group.bench_function("shared", |b| b.iter(|| black_box(&shown).bytes(Encoding::Json)));
    group.finish();
}

/// A batch of as many events as there are marks, each of another task of one owner, whom all watch; then everyone pulls.
fn mark_and_pull(c: &mut Criterion) {
    let mut group = c.benchmark_group("mark_and_pull");
    for watchers in [1, 1_000] {
        for marks in [1, 32] {
            let mut log = Log::new(marks);
            let hub = log.hub.clone();
            let owner = UserId::parse(OWNER).expect("an id");
            let mailboxes: Vec<Arc<Mailbox>> = (0..watchers).map(|_| Arc::new(Mailbox::default())).collect();
            let watches: Vec<_> =
                mailboxes.iter().map(|mailbox| hub.watch(Topic::Owner(owner.clone()), mailbox)).collect();
            group.throughput(Throughput::Elements((watchers * marks) as u64));
            group.bench_function(BenchmarkId::new(format!("{watchers}_watchers"), format!("{marks}_marks")), |b| {
                b.iter_batched(
                    || log.batch(marks),
                    |arrivals| {
                        let after = hub.progress().marked;
                        hub.apply(&arrivals, NOW_MS);
                        let options = PullOptions { after, every: false, frames_max: 1_000 };
                        for mailbox in &mailboxes {
                            assert_eq!(hub.pull(mailbox, options, |_| true).frames.len(), marks);
                        }
                        arrivals
                    },
                    BatchSize::LargeInput,
                );
            });
            for watch in &watches {
                hub.unwatch(watch);
            }
        }
    }
    group.finish();
}
