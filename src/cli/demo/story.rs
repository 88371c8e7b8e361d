//! What the demo's workers publish: for each kind of task a story, as events and when they come. Pure.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// One event of a story.
#[derive(Clone, Debug)]
pub(super) struct Beat {
    /// Since the story began.
    pub at: Duration,
    /// Native JSON.
    pub event: Value,
}

/// The ways in which tasks go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Known total, even pace, three steps.
    Steady,
    /// Nothing for a while, then many at once.
    Bursty,
    /// Counts without knowing how many there are.
    UnknownTotal,
    /// A task with three children of different weight.
    Family,
    /// The first attempt fails at 60 %, the second succeeds.
    Retrying,
    /// Fails for good.
    Failing,
    /// Goes silent at 97 %; the service finds it lost.
    Stalling,
    /// Somebody cancels it.
    Cancelled,
}

impl Kind {
    pub(super) const ALL: [Self; 8] = [
        Self::Steady,
        Self::Bursty,
        Self::UnknownTotal,
        Self::Family,
        Self::Retrying,
        Self::Failing,
        Self::Stalling,
        Self::Cancelled,
    ];

    /// A number that differs from kind to kind and run to run, and is the same each time: 0 to 99.
    fn vary(self, run: u64) -> u64 {
        (run.wrapping_mul(37) + 17 * self as u64) % 100
    }

    /// How long the worker waits for its next task. A stalled one must first be found lost.
    pub(super) fn rest(self, run: u64) -> Duration {
        let silence_ms = if self == Self::Stalling { 6_000 } else { 0 };
        Duration::from_millis(2_500 + 30 * self.vary(run) + silence_ms)
    }
}

/// A stretch of work: its name, its line for people, and its share of the whole in percent.
type Step = (&'static str, &'static str, u64);

/// Tells about one task.
struct Teller {
    /// What every event says.
    same: Map<String, Value>,
    /// What only the first one says.
    first: Map<String, Value>,
    beats: Vec<Beat>,
    at_ms: u64,
}

impl Teller {
    fn new(task_id: &str, first: Value) -> Self {
        let same = object(json!({ "task_id": task_id, "user_id": super::USER }));
        Self { same, first: object(first), beats: Vec::new(), at_ms: 0 }
    }

    /// An event `after_ms` after the one before.
    fn say(&mut self, after_ms: u64, fields: Value) {
        self.at_ms += after_ms;
        let mut event = self.same.clone();
        event.append(&mut self.first);
        event.extend(object(fields));
        self.beats.push(Beat { at: Duration::from_millis(self.at_ms), event: Value::Object(event) });
    }

    /// Works through the steps from `from` to `to` percent of `total` in `duration_ms`, telling every `every_ms`.
    fn climb(&mut self, work: &Work, (from, to): (u64, u64), duration_ms: u64, every_ms: u64) {
        let beats = (duration_ms / every_ms).max(1);
        for beat in 1..=beats {
            let percent = from + (to - from) * beat / beats;
            let current = work.total * (from * beats + (to - from) * beat) / (100 * beats);
            let (step, message, _) = work.step_at(percent);
            let mut fields = json!({ "status": "running", "step": step, "message": message });
            if work.unit.is_empty() {
                fields["progress"] = json!(percent);
            } else {
                fields["current"] = json!(current);
                fields["unit"] = json!(work.unit);
            }
            if work.tells_total {
                fields["total"] = json!(work.total);
            }
            self.say(every_ms, fields);
        }
    }
}

/// What there is to do.
struct Work {
    steps: &'static [Step],
    total: u64,
    /// Empty: nothing is counted, progress is told in percent.
    unit: &'static str,
    tells_total: bool,
}

impl Work {
    fn step_at(&self, percent: u64) -> Step {
        let mut end = 0;
        let reached = self.steps.iter().find(|(_, _, share)| {
            end += share;
            percent <= end
        });
        reached.or(self.steps.last()).copied().unwrap_or(("work", "Working", 100))
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn pick(titles: &[&'static str], run: u64) -> &'static str {
    titles.get((run % titles.len().max(1) as u64) as usize).copied().unwrap_or_default()
}

/// The whole story of one task, or family of tasks, in order. `unique` keeps task ids apart.
pub(super) fn story(kind: Kind, run: u64, unique: &str) -> Vec<Beat> {
    let vary = kind.vary(run);
    match kind {
        Kind::Steady => steady(run, vary, unique),
        Kind::Bursty => bursty(run, vary, unique),
        Kind::UnknownTotal => unknown_total(run, vary, unique),
        Kind::Family => family(run, vary, unique),
        Kind::Retrying => retrying(run, vary, unique),
        Kind::Failing => failing(run, vary, unique),
        Kind::Stalling => stalling(run, vary, unique),
        Kind::Cancelled => cancelled(run, vary, unique),
    }
}

fn steady(run: u64, vary: u64, unique: &str) -> Vec<Beat> {
    let title = pick(&["Export invoices 2026-10", "Export invoices 2026-09", "Export orders 2026-10"], run);
    let mut teller = Teller::new(
        &format!("export-{unique}"),
        json!({ "name": "export", "title": title, "tags": ["finance"], "worker": "worker-1" }),
    );
    let steps = &[("collect", "Collecting rows", 20), ("render", "Rendering PDFs", 60), ("upload", "Uploading", 20)];
    let work = Work { steps, total: 180 + 2 * vary, unit: "invoices", tells_total: true };
    teller.say(0, json!({ "status": "running", "progress": 0, "message": "Starting" }));
    teller.climb(&work, (0, 100), 10_000 + 60 * vary, 250);
    let result = json!({ "file": "invoices.zip", "invoices": work.total });
    teller.say(300, json!({ "status": "succeeded", "message": "Exported", "result": result }));
    teller.beats
}

fn bursty(run: u64, vary: u64, unique: &str) -> Vec<Beat> {
    let title = pick(&["Import customers", "Import price list", "Import suppliers"], run);
    let first = json!({ "name": "import", "title": title, "tags": ["crm"], "worker": "worker-2" });
    let mut teller = Teller::new(&format!("import-{unique}"), first);
    let steps = &[("read", "Reading the file", 10), ("check", "Checking addresses", 50), ("store", "Storing", 40)];
    let work = Work { steps, total: 4_000 + 40 * vary, unit: "rows", tells_total: true };
    teller.say(0, json!({ "status": "running", "progress": 0, "message": "Reading the file" }));
    for burst in 0..5 {
        teller.climb(&work, (burst * 20, burst * 20 + 20), 600, 50);
        if burst < 4 {
            teller.say(100, json!({ "status": "waiting", "message": "Waiting for the database" }));
            teller.say(1_200 + 10 * vary, json!({ "status": "running" }));
        }
    }
    teller.say(100, json!({ "status": "succeeded", "message": "Imported", "result": { "rows": work.total } }));
    teller.beats
}

fn unknown_total(run: u64, vary: u64, unique: &str) -> Vec<Beat> {
    let title = pick(&["Crawl the help pages", "Scan the mailbox", "Read the change feed"], run);
    let first = json!({ "name": "crawl", "title": title, "worker": "worker-3" });
    let mut teller = Teller::new(&format!("crawl-{unique}"), first);
    let steps = &[("crawl", "Following links", 80), ("tidy", "Removing duplicates", 20)];
    let work = Work { steps, total: 300 + 5 * vary, unit: "pages", tells_total: false };
    teller.say(0, json!({ "status": "running", "current": 0, "unit": "pages", "message": "Starting" }));
    teller.climb(&work, (0, 100), 9_000 + 80 * vary, 300);
    let message = format!("{} pages found", work.total);
    teller.say(200, json!({ "status": "succeeded", "message": message, "result": { "pages": work.total } }));
    teller.beats
}

fn family(run: u64, vary: u64, unique: &str) -> Vec<Beat> {
    let title = pick(&["Monthly report", "Quarterly report", "Year-end report"], run);
    let root = format!("report-{unique}");
    let mut parent = Teller::new(&root, json!({ "name": "report", "title": title, "worker": "worker-4" }));
    parent.say(0, json!({ "status": "running", "progress": 0, "message": "Three parts" }));
    let mut beats = Vec::new();
    let mut end_ms = 0;
    for (index, (part, weight)) in [("Sales", 5), ("Stock", 3), ("Staff", 2)].into_iter().enumerate() {
        let index = index as u64;
        let links = json!({
            "name": "report.part", "title": format!("{title}: {part}"), "parent_id": root, "root_id": root,
            "weight": weight, "worker": format!("worker-{}", 5 + index),
        });
        let mut child = Teller::new(&format!("{root}-{}", part.to_lowercase()), links);
        let steps = &[("query", "Querying", 50), ("draw", "Drawing charts", 50)];
        let work = Work { steps, total: 20 * weight, unit: "charts", tells_total: true };
        child.say(100 * index, json!({ "status": "queued" }));
        child.say(300 + 700 * index, json!({ "status": "running", "progress": 0 }));
        child.climb(&work, (0, 100), 6_000 + 1_500 * index + 40 * vary, 350);
        child.say(200, json!({ "status": "succeeded", "message": format!("{part} is ready") }));
        end_ms = end_ms.max(child.at_ms);
        beats.append(&mut child.beats);
    }
    let steps = &[("parts", "Waiting for the parts", 90), ("bind", "Binding", 10)];
    let work = Work { steps, total: 100, unit: "", tells_total: false };
    parent.climb(&work, (0, 95), end_ms, 500);
    parent.say(600, json!({ "status": "succeeded", "message": "The report is ready" }));
    beats.append(&mut parent.beats);
    beats.sort_by_key(|beat| beat.at);
    beats
}

fn retrying(run: u64, vary: u64, unique: &str) -> Vec<Beat> {
    let title = pick(&["Synchronise calendars", "Synchronise contacts", "Fetch exchange rates"], run);
    let first = json!({ "name": "sync", "title": title, "worker": "worker-8" });
    let mut teller = Teller::new(&format!("sync-{unique}"), first);
    let steps = &[("connect", "Connecting", 10), ("sync", "Comparing entries", 90)];
    let work = Work { steps, total: 500, unit: "entries", tells_total: true };
    teller.say(0, json!({ "status": "running", "attempt": 1, "progress": 0, "message": "Connecting" }));
    teller.climb(&work, (0, 60), 5_000 + 20 * vary, 350);
    let error =
        json!({ "code": "ETIMEDOUT", "message": "The server did not answer", "type": "Timeout", "retryable": true });
    teller.say(400, json!({ "status": "failed", "attempt": 1, "error": error }));
    teller.same.insert("attempt".to_owned(), json!(2));
    teller.say(1_000, json!({ "status": "retrying", "progress": 0, "message": "Once more in 2 seconds" }));
    teller.say(2_000, json!({ "status": "running", "progress": 0, "message": "Connecting" }));
    teller.climb(&work, (0, 100), 6_000 + 20 * vary, 350);
    teller.say(200, json!({ "status": "succeeded", "message": "Synchronised" }));
    teller.beats
}

fn failing(run: u64, vary: u64, unique: &str) -> Vec<Beat> {
    let title = pick(&["Send newsletter", "Send reminders", "Send receipts"], run);
    let first = json!({ "name": "mail", "title": title, "tags": ["mail"], "worker": "worker-9" });
    let mut teller = Teller::new(&format!("mail-{unique}"), first);
    let steps = &[("render", "Filling in the template", 30), ("send", "Sending", 70)];
    let work = Work { steps, total: 1_200, unit: "mails", tells_total: true };
    teller.say(0, json!({ "status": "running", "progress": 0, "message": "Starting" }));
    teller.climb(&work, (0, 72), 8_000 + 30 * vary, 300);
    let error = json!({
        "code": "SMTP_550", "message": "550 The mailbox is full", "type": "SmtpError", "retryable": false,
    });
    teller.say(400, json!({ "status": "failed", "message": "Stopped after 864 mails", "error": error }));
    teller.beats
}

fn stalling(run: u64, vary: u64, unique: &str) -> Vec<Beat> {
    let title = pick(&["Transcode video", "Resize pictures", "Train the model"], run);
    let first = json!({ "name": "transcode", "title": title, "worker": "worker-10", "heartbeat_timeout_ms": 3_000 });
    let mut teller = Teller::new(&format!("transcode-{unique}"), first);
    let steps = &[("decode", "Decoding", 40), ("encode", "Encoding", 60)];
    let work = Work { steps, total: 3_000, unit: "frames", tells_total: true };
    teller.say(0, json!({ "status": "running", "progress": 0, "message": "Decoding" }));
    // And then nothing: the worker was killed.
    teller.climb(&work, (0, 97), 8_000 + 40 * vary, 250);
    teller.beats
}

fn cancelled(run: u64, vary: u64, unique: &str) -> Vec<Beat> {
    let title = pick(&["Rebuild the search index", "Re-encrypt backups", "Recount stock"], run);
    let first = json!({ "name": "rebuild", "title": title, "worker": "worker-11" });
    let mut teller = Teller::new(&format!("rebuild-{unique}"), first);
    let steps = &[("read", "Reading documents", 50), ("write", "Writing the index", 50)];
    let work = Work { steps, total: 9_000, unit: "documents", tells_total: true };
    teller.say(0, json!({ "status": "queued", "message": "Waiting for a worker" }));
    teller.say(900, json!({ "status": "running", "progress": 0, "message": "Starting" }));
    teller.climb(&work, (0, 45), 7_000 + 20 * vary, 350);
    teller.say(300, json!({ "status": "cancelling", "message": "Somebody pressed cancel" }));
    teller.say(1_500, json!({ "status": "cancelled", "message": "Cancelled, nothing was changed" }));
    teller.beats
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{ContentType, Event};

    #[test]
    fn every_story_begins_at_once_and_lasts_8_to_25_seconds() {
        for kind in Kind::ALL {
            for run in 0..100 {
                let beats = story(kind, run, "x");
                assert_eq!(beats[0].at, Duration::ZERO, "{kind:?}");
                assert!(beats.is_sorted_by_key(|beat| beat.at), "{kind:?}");
                let length = beats.last().unwrap().at;
                assert!((8_000..=25_000).contains(&length.as_millis()), "{kind:?} {run}: {length:?}");
            }
        }
    }

    #[test]
    fn every_event_is_understood_to_its_last_field() {
        for beat in Kind::ALL.into_iter().flat_map(|kind| story(kind, 1, "x")) {
            let event = Event::decode(ContentType::Json, beat.event.to_string().as_bytes()).unwrap();
            assert_eq!(event.unknown_fields, 0, "{}", beat.event);
        }
    }

    #[test]
    fn something_happens_at_least_five_times_a_second_from_the_start() {
        let beats: Vec<Duration> =
            Kind::ALL.into_iter().flat_map(|kind| story(kind, 0, "x")).map(|beat| beat.at).collect();
        for second in 0..8 {
            let (from, to) = (Duration::from_secs(second), Duration::from_secs(second + 1));
            let count = beats.iter().filter(|at| (from..to).contains(*at)).count();
            assert!(count >= 5, "second {second}: {count}");
        }
    }

    #[test]
    fn progress_climbs_and_only_what_succeeds_reaches_the_end() {
        for kind in [Kind::Steady, Kind::Bursty, Kind::UnknownTotal, Kind::Failing, Kind::Stalling, Kind::Cancelled] {
            let beats = story(kind, 3, "x");
            let current: Vec<u64> = beats.iter().filter_map(|beat| beat.event["current"].as_u64()).collect();
            assert!(current.is_sorted(), "{kind:?} {current:?}");
            let total = beats.iter().find_map(|beat| beat.event["total"].as_u64());
            assert_eq!(total.is_none(), kind == Kind::UnknownTotal);
            let succeeded = beats.last().unwrap().event["status"] == "succeeded";
            assert_eq!(total.is_none() || total == current.last().copied(), succeeded, "{kind:?}");
        }
    }
}
