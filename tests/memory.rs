//! What the hub says its tasks weigh, beside what the process really takes. Alone in its process, as others would be
//! measured too.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests fail the test, and say what they measured"
)]
#![cfg(target_os = "linux")]

use std::{sync::Arc, time::Duration};

use taskcast::{
    hub::{Arrival, Hub, Mailbox, PullOptions, Settings},
    metrics::Metrics,
    proto::{Cursor, Encoding, Event, JsonText, Position, Status, TaskId, Topic, UserId},
};

/// How far the estimate may be from what is measured, either way.
const FACTOR_MAX: f64 = 1.35;

fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}

struct World {
    hub: Hub,
    mailbox: Arc<Mailbox>,
    at: u64,
}

impl World {
    fn new(ring_frames: usize) -> Self {
        let settings = Settings {
            max: 1_000_000,
            max_bytes: 0,
            max_per_owner: 500_000,
            ring_frames,
            retain_ended: Duration::from_secs(60),
            retain_idle: Duration::from_secs(60),
            resume_window: 0,
        };
        let hub = Hub::new(settings, Arc::new(Metrics::new("memory")));
        hub.set_replayed(true);
        let mailbox = Arc::new(Mailbox::default());
        let _ = hub.watch(Topic::All, &mailbox);
        Self { hub, mailbox, at: 0 }
    }

    /// Applies one event and, if watched, encodes its frame as a session would.
    fn event(&mut self, event: Event, watched: bool) {
        let after = Position { major: self.at, minor: 0 };
        self.at += 1;
        let cursor = Cursor { position: Position { major: self.at, minor: 0 }, proof: 0 };
        self.hub.apply(&[Arrival { cursor, appended_at_ms: None, event: Some(event) }], 1_000);
        let pulled = self.hub.pull(&self.mailbox, PullOptions { after, every: true, frames_max: 10 }, |_| true);
        if watched {
            for frame in pulled.frames {
                let _ = frame.bytes(Encoding::Json);
            }
        }
    }
}

/// A task like those of the README.
fn event(task: usize, step: usize) -> Event {
    let mut event = Event::new(TaskId::parse(&format!("0192f3c4-task-{task:08}-export")).unwrap());
    event.user_id = Some(UserId::parse(&format!("user-{}", task % 1_000)).unwrap());
    event.event_id = Some(format!("0192f3c4-7a00-event-{task:08}-{step:04}").into());
    event.title = Some("Export invoices of the last quarter".into());
    event.step = Some(format!("Reading part {}", step / 4).into());
    event.message = Some(format!("Row {step} of 120, of which none is wrong so far").into());
    event.tags = Some(vec![Arc::from("export"), Arc::from(format!("tenant-{}", task % 50))].into());
    event.progress = Some(step as f64);
    event.metadata = JsonText::parse("{\"file\":\"invoices.csv\",\"queue\":\"default\"}");
    event.status = Some(if step == 0 { Status::Running } else { Status::Waiting }).filter(|_| step.is_multiple_of(5));
    event
}

fn ratio(tasks: usize, events: usize, ring_frames: usize, watched: bool) -> f64 {
    let mut world = World::new(ring_frames);
    let before = resident_bytes();
    for step in 0..events {
        for task in 0..tasks {
            world.event(event(task, step), watched);
        }
    }
    let measured = resident_bytes() - before;
    let counted = world.hub.bytes() as f64;
    eprintln!(
        "{tasks} tasks, {events} events each, ring {ring_frames}, watched {watched}: counted {:.1} MB, measured {:.1} MB",
        counted / 1e6,
        measured / 1e6
    );
    // Kept, so that what follows is measured in fresh memory.
    std::mem::forget(world);
    counted / measured
}

#[test]
fn what_tasks_are_said_to_weigh_is_what_they_take() {
    for (tasks, events, ring_frames) in [(20_000, 1, 16), (3_000, 20, 16), (10_000, 6, 4)] {
        let ratio = ratio(tasks, events, ring_frames, true);
        assert!((1.0 / FACTOR_MAX..FACTOR_MAX).contains(&ratio), "counted {ratio:.2} of what was measured");
    }
    // Of what nobody watches nothing is encoded, but it counts all the same: it may be watched at any time.
    let unwatched = ratio(3_000, 20, 16, false);
    assert!((1.0..3.0).contains(&unwatched), "counted {unwatched:.2} of what was measured");
}
