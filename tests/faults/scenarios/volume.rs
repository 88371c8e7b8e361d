//! A day of events at 1,000 a second, through one hub at full speed: its memory is what its limits allow, and flat. Runs
//! in a process of its own, so that nothing else is measured.

use std::{fmt::Write, process::Stdio, sync::Arc, time::Duration};

use serde_json::{Value, json};
use taskcast::{
    clock,
    hub::{self, Arrival, Hub, Mailbox, PullOptions},
    metrics::Metrics,
    proto::{ContentType, Cursor, Event, Position, Topic, UserId, proof},
};

use super::Settings;
use crate::table::Row;

/// Events of one virtual second.
const RATE: u64 = 1_000;
/// Tasks that are live at the same time, and the events of each.
const LIVE: u64 = 2_000;
const LINES: u64 = 20;
const USERS: u64 = 1_000;
const BATCH: u64 = 250;
/// Virtual seconds between two sweeps.
const SWEEP_SECONDS: u64 = 10;
const WATCHERS: u64 = 50;
const SAMPLES: u64 = 400;
/// What the second half may use more than the end of the first: an allocator is not a ruler.
const GROWTH: f64 = 1.05;
const SLACK_BYTES: u64 = 8 << 20;
/// `tasks.max_bytes` as it is by default, and what the process may have beside its tasks.
const TASKS_BYTES: u64 = 1 << 30;
const OTHER_BYTES: u64 = 64 << 20;

pub async fn run(settings: Settings) -> Row {
    // Without optimisation it takes 20 times as long and says the same.
    let small = if cfg!(debug_assertions) { 300_000 } else { 2_000_000 };
    let (events, retained) = settings.pick((small, 60), (86_400_000, 900));
    let program = std::env::current_exe().expect("this program");
    let mut command = tokio::process::Command::new(program);
    command.args(["--volume-inside", &events.to_string(), &retained.to_string()]);
    let output = command.stdout(Stdio::piped()).kill_on_drop(true).output().await.expect("this program runs");
    let found: Value = serde_json::from_slice(&output.stdout).expect("what the other process found");
    let number = |name: &str| found[name].as_u64().unwrap_or_default();
    let megabytes = |name: &str| format!("{:.1} MB", number(name) as f64 / 1e6);

    let mut row = Row { events: events as usize, ..Row::default() };
    row.measure("events a second", &number("events_per_second"));
    row.measure("resident at half time", &megabytes("half_bytes"));
    row.measure("at most in the second half", &megabytes("second_half_max_bytes"));
    row.measure("at the end", &megabytes("end_bytes"));
    row.measure("tasks held at most", &number("tasks_max"));
    row.measure("applied", &number("applied"));
    row.measure("frames pulled by watchers", &number("pulled"));
    let limit = (number("half_bytes") as f64 * GROWTH) as u64 + SLACK_BYTES;
    row.promise(number("applied") == events, || format!("{} events were applied", number("applied")));
    row.promise(number("second_half_max_bytes") <= limit, || "memory grew in the second half".to_owned());
    let most = number("second_half_max_bytes");
    row.promise(most <= TASKS_BYTES + OTHER_BYTES, || format!("{most} bytes are more than the limits allow"));
    // Those that live, and those that ended within the retention and the time between two sweeps.
    let tasks = LIVE + (retained + 2 * SWEEP_SECONDS) * RATE / LINES;
    row.promise(number("tasks_max") <= tasks, || format!("more tasks are held than {tasks}"));
    row
}

/// The process of its own: prints what it found as JSON.
pub fn inside(events: u64, retained_seconds: u64) -> Value {
    let settings = hub::Settings {
        max: 100_000,
        max_bytes: TASKS_BYTES as usize,
        max_per_owner: 50_000,
        ring_frames: 16,
        retain_ended: Duration::from_secs(retained_seconds),
        retain_idle: Duration::from_secs(86_400),
        resume_window: 500 * retained_seconds as usize,
    };
    let metrics = Arc::new(Metrics::new("memory"));
    let hub = Hub::new(settings, metrics.clone());
    hub.set_replayed(true);
    let mut watchers = Watchers::new(&hub);
    let began = clock::now();
    let (mut half, mut second_half_max, mut tasks_max) = (0, 0, 0);
    let mut batch = Vec::with_capacity(BATCH as usize);
    let mut text = String::new();
    for number in 0..events {
        let now_ms = began.unix_ms + number;
        batch.push(arrival(number, now_ms, &mut text));
        if batch.len() as u64 == BATCH || number + 1 == events {
            hub.apply(&batch, now_ms);
            batch.clear();
            watchers.pull(&hub);
        }
        if number % (SWEEP_SECONDS * RATE) == 0 {
            while hub.is_sweep_due(now_ms) {
                let verdicts = hub.sweep(now_ms, began.unix_ms);
                assert!(verdicts.is_empty(), "no worker was silent");
            }
            tasks_max = tasks_max.max(hub.len());
        }
        if number % (events / SAMPLES).max(1) == 0 {
            if number < events / 2 {
                half = resident_bytes();
            } else {
                second_half_max = second_half_max.max(resident_bytes());
            }
        }
    }
    let took = (clock::now().instant - began.instant).as_secs_f64();
    let text = metrics.render().expect("metrics");
    let applied = text
        .lines()
        .find(|line| line.contains("outcome=\"applied\""))
        .and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    json!({
        "events_per_second": (events as f64 / took) as u64, "half_bytes": half, "tasks_max": tasks_max,
        "second_half_max_bytes": second_half_max, "end_bytes": resident_bytes(),
        "applied": applied.unwrap_or_default() as u64, "pulled": watchers.pulled,
    })
}

/// The next event, through the decoder that the service uses. A millisecond is one event, so positions ascend.
fn arrival(number: u64, now_ms: u64, text: &mut String) -> Arrival {
    let (slot, round) = (number % LIVE, number / LIVE);
    // Tasks begin and end at different times.
    let (generation, line) = ((round + slot) / LINES, (round + slot) % LINES);
    let task = generation * LIVE + slot;
    let status = if line + 1 == LINES { "succeeded" } else { "running" };
    text.clear();
    let written = write!(
        text,
        r#"{{"task_id":"task-{task}","user_id":"user-{}","event_id":"{number}","seq":{line},"status":"{status}","progress":{},"title":"Export of invoices {task}","message":"Row {line} of {LINES}","tags":["export"],"timestamp":{now_ms}}}"#,
        task % USERS,
        line * 5,
    );
    written.expect("a string grows");
    let event = Event::decode(ContentType::Json, text.as_bytes()).expect("a good event");
    let cursor = Cursor { position: Position { major: now_ms, minor: 0 }, proof: proof(text.as_bytes()) };
    Arrival { cursor, appended_at_ms: Some(now_ms), event: Some(event) }
}

/// Some who watch, as sessions do.
struct Watchers {
    mailboxes: Vec<(Arc<Mailbox>, Position)>,
    pulled: u64,
}

impl Watchers {
    fn new(hub: &Hub) -> Self {
        let watch = |user: u64| {
            let mailbox = Arc::<Mailbox>::default();
            let owner = UserId::parse(&format!("user-{user}")).expect("a legal name");
            drop(hub.watch(Topic::Owner(owner), &mailbox));
            (mailbox, Position::START)
        };
        Self { mailboxes: (0..WATCHERS).map(watch).collect(), pulled: 0 }
    }

    fn pull(&mut self, hub: &Hub) {
        for (mailbox, after) in &mut self.mailboxes {
            let options = PullOptions { after: *after, every: false, frames_max: 256 };
            let pulled = hub.pull(mailbox, options, |_| true);
            self.pulled += pulled.frames.len() as u64;
            *after = pulled.frames.last().map_or(*after, |frame| frame.cursor.position);
        }
    }
}

fn resident_bytes() -> u64 {
    super::soak::resident_bytes("self")
}
