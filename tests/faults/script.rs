//! What the workers will say, decided before anything is published: every task's events in order, from one seed. So the
//! checker knows how each task must end without asking the service.

use serde_json::{Value, json};

/// A small generator (splitmix64), so that a seed gives the same run on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another stream of numbers for somebody else.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`, which must not be 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// From 0 to 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// One event of a task. Its place in the script travels as its `message`, so that a client can tell which one it sees.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub status: &'static str,
    pub progress: f64,
    pub attempt: u32,
    /// A change of status, a new attempt, an end: must reach whoever watches, and whoever resumes.
    pub is_key: bool,
    pub is_end: bool,
}

/// One task.
#[derive(Clone, Debug)]
pub struct Part {
    pub owner: usize,
    pub lines: Vec<Line>,
}

impl Part {
    pub fn last(&self) -> &Line {
        self.lines.last().expect("a task has events")
    }
}

/// All tasks.
#[derive(Debug)]
pub struct Script {
    /// In the names of tasks and events, so that two scripts never meet in one log.
    pub name: String,
    pub users: usize,
    pub parts: Vec<Part>,
}

/// About as many as it takes for a bar that moves.
const LINES_PER_TASK: usize = 20;

impl Script {
    pub fn new(name: &str, users: usize, events: usize, random: &mut Random) -> Self {
        let mut parts = Vec::new();
        let mut left = events;
        while left > 0 {
            let wanted = (LINES_PER_TASK / 2 + random.below(LINES_PER_TASK as u64) as usize).min(left);
            let part = Part { owner: parts.len() % users, lines: lines(wanted, random) };
            left -= part.lines.len().min(left);
            parts.push(part);
        }
        Self { name: name.to_owned(), users, parts }
    }

    pub fn events(&self) -> usize {
        self.parts.iter().map(|part| part.lines.len()).sum()
    }

    pub fn task_id(&self, task: usize) -> String {
        format!("{}-{task}", self.name)
    }

    /// The other way round.
    pub fn task(&self, task_id: &str) -> Option<usize> {
        let number = task_id.strip_prefix(self.name.as_str())?.strip_prefix('-')?.parse().ok()?;
        (number < self.parts.len()).then_some(number)
    }

    /// The event as a worker sends it.
    pub fn event(&self, task: usize, number: usize) -> Value {
        let part = &self.parts[task];
        let line = &part.lines[number];
        let task_id = self.task_id(task);
        let mut event = json!({
            "task_id": task_id, "event_id": format!("{task_id}-{number}"), "user_id": user_name(part.owner),
            "seq": number + 1, "attempt": line.attempt, "status": line.status, "message": number.to_string(),
        });
        if line.status == "running" {
            event["progress"] = line.progress.into();
        }
        event
    }
}

pub fn user_name(owner: usize) -> String {
    format!("user-{owner}")
}

/// A life of a task: queued, running, now and then a failure and another attempt, and an end for all but a few.
fn lines(wanted: usize, random: &mut Random) -> Vec<Line> {
    let fails_at = (random.below(4) == 0 && wanted > 8).then(|| 3 + random.below(wanted as u64 / 2) as usize);
    let ends = random.below(20) != 0 && wanted > 2;
    let end = ["succeeded", "succeeded", "succeeded", "failed", "cancelled", "timed_out"][random.below(6) as usize];
    let mut lines = vec![Line { status: "queued", progress: 0.0, attempt: 1, is_key: true, is_end: false }];
    let (mut attempt, mut progress) = (1, 0.0);
    while lines.len() < wanted {
        let number = lines.len();
        let status = match number {
            _ if ends && number + 1 == wanted => end,
            _ if fails_at == Some(number) => "failed",
            _ if fails_at.is_some_and(|at| at + 1 == number) => {
                (attempt, progress) = (2, 0.0);
                "running"
            }
            _ => "running",
        };
        if status == "running" {
            progress = f64::min(progress + 1.0 + random.below(6) as f64, 99.0);
        }
        let before = &lines[number - 1];
        let is_key = before.status != status || before.attempt != attempt;
        let is_end = ends && number + 1 == wanted;
        lines.push(Line { status, progress, attempt, is_key, is_end });
    }
    if let Some(last) = lines.last_mut().filter(|last| last.status == "succeeded") {
        last.progress = 100.0;
    }
    lines
}
