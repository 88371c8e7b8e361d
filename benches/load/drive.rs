//! The ways in which a crowd is put to work: connected at once, kept saturated, paced; and what that cost the server.

use std::time::Duration;

use crate::{
    Outcome,
    crowd::Crowd,
    payload::now_ns,
    processes::CpuTime,
    server::{Instance, Watcher},
    tally::Tally,
};

/// Handshakes under way at a time: less than the backlog that any server listens with.
pub const HANDSHAKES_AT_ONCE: usize = 256;

/// Nothing moved for so long: what is under way is lost.
const SILENCE: Duration = Duration::from_secs(5);

const CONNECT_PATIENCE: Duration = Duration::from_secs(120);

/// The longest that one turn sleeps, so that deadlines are seen.
pub const TURN: Duration = Duration::from_millis(20);

/// What a publisher may have ahead of the server's broker, when nobody watches who could slow it down.
pub const UNWRITTEN_MAX_BYTES: usize = 256 * 1024;

/// Between two looks at a server that winds down.
const WIND_DOWN: Duration = Duration::from_millis(200);
const WIND_DOWN_LOOKS: usize = 50;

/// What a while of work took, and the crowd's account of it.
pub struct Measured {
    pub cpu: CpuTime,
    pub wall: Duration,
    pub tally: Tally,
}

impl Measured {
    /// The server's CPU time, user and system, for each frame that a watcher got.
    pub fn cpu_us_per_frame(&self) -> f64 {
        self.cpu.server.as_secs_f64() * 1e6 / self.tally.delivered.max(1) as f64
    }

    pub fn frames_per_second(&self) -> f64 {
        self.tally.delivered as f64 / self.wall.as_secs_f64()
    }
}

pub fn since(start_ns: u64) -> Duration {
    Duration::from_nanos(now_ns().saturating_sub(start_ns))
}

/// Watchers of this many topics, evenly.
pub fn watchers(count: usize, topics: usize) -> Vec<Watcher> {
    (0..count).map(|number| Watcher { number, topic: number % topics, cursor: None }).collect()
}

/// Connects everybody who is away and waits until all watch.
///
/// # Errors
/// Some did not come in, with the reason of the last one.
pub fn connect_all(crowd: &mut Crowd<'_>) -> Outcome<Duration> {
    let start = now_ns();
    let count = crowd.len();
    connect(crowd, 0..count, |_| Ok(()))?;
    Ok(since(start))
}

/// Connects these, who are away, and does `meanwhile` at every turn.
///
/// # Errors
/// As above, or those of `meanwhile`.
pub fn connect(
    crowd: &mut Crowd<'_>,
    numbers: std::ops::Range<usize>,
    mut meanwhile: impl FnMut(&mut Crowd<'_>) -> Outcome<()>,
) -> Outcome<()> {
    let start = now_ns();
    let (already, wanted) = (crowd.ready_count, crowd.ready_count + numbers.len());
    let mut next = numbers.start;
    while crowd.ready_count < wanted {
        let came = crowd.ready_count - already;
        while next < numbers.end && next - numbers.start < came + HANDSHAKES_AT_ONCE {
            crowd.begin(next)?;
            next += 1;
        }
        crowd.turn(TURN)?;
        meanwhile(crowd)?;
        let (refused, reason) = &crowd.refused;
        if *refused > 0 {
            return Err(format!("{refused} of {} watchers were refused: {reason}", crowd.len()).into());
        }
        if since(start) > CONNECT_PATIENCE {
            return Err(format!("{} of {wanted} watchers came within {CONNECT_PATIENCE:?}", crowd.ready_count).into());
        }
    }
    Ok(())
}

/// When something last moved: a frame arrived, or the server took more of what is published.
struct Silence {
    since_ns: u64,
    before: (u64, usize),
}

impl Silence {
    fn new(crowd: &Crowd<'_>) -> Self {
        Self { since_ns: now_ns(), before: Self::account(crowd) }
    }

    fn account(crowd: &Crowd<'_>) -> (u64, usize) {
        (crowd.tally.delivered, crowd.unwritten_bytes())
    }

    /// True when nothing has moved for too long; then it begins anew.
    fn is_over(&mut self, crowd: &Crowd<'_>) -> bool {
        let is_silent = Self::account(crowd) == self.before;
        let is_over = is_silent && since(self.since_ns) > SILENCE;
        if is_over || !is_silent {
            *self = Self::new(crowd);
        }
        is_over
    }
}

/// Waits until everybody has everything, or nothing comes any more.
pub fn settle(crowd: &mut Crowd<'_>) -> Outcome<()> {
    let mut silence = Silence::new(crowd);
    while crowd.topics.under_way > 0 {
        crowd.turn(TURN)?;
        if silence.is_over(crowd) {
            crowd.give_up();
        }
    }
    Ok(())
}

/// A closed loop: keeps `window` events under way, spread over the topics in turn.
pub fn saturate(crowd: &mut Crowd<'_>, topics: usize, window: usize, lasting: Duration) -> Outcome<()> {
    let start = now_ns();
    let mut turn = 0;
    let mut silence = Silence::new(crowd);
    while since(start) < lasting {
        while crowd.topics.under_way < window {
            crowd.publish(turn % topics)?;
            turn += 1;
        }
        crowd.turn(TURN)?;
        if silence.is_over(crowd) {
            crowd.give_up();
        }
    }
    settle(crowd)
}

/// So many events, spread over the topics in turn, at most `window` of them under way.
///
/// # Errors
/// The crowd's, or nothing is taken or delivered any more.
pub fn publish(crowd: &mut Crowd<'_>, topics: usize, window: usize, events: usize) -> Outcome<()> {
    let mut silence = Silence::new(crowd);
    let mut gave_up_at = None;
    for turn in 0..events {
        while crowd.topics.under_way >= window || crowd.unwritten_bytes() > UNWRITTEN_MAX_BYTES {
            crowd.turn(TURN)?;
            if silence.is_over(crowd) {
                // Some may be lost; when none arrives after that, the others would take the same time each.
                if gave_up_at.replace(crowd.tally.delivered) == Some(crowd.tally.delivered) {
                    return Err(format!("events stopped: two times {SILENCE:?} without any").into());
                }
                crowd.give_up();
            }
        }
        crowd.publish(turn % topics)?;
    }
    settle(crowd)
}

/// Lets time pass, and answers pings.
///
/// # Errors
/// The crowd's.
pub fn rest(crowd: &mut Crowd<'_>, lasting: Duration) -> Outcome<()> {
    let start = now_ns();
    while since(start) < lasting {
        crowd.turn(TURN)?;
    }
    Ok(())
}

/// Waits until the server does nothing any more: it has seen to connections that ended.
pub fn until_idle(instance: &dyn Instance) {
    let mut before = instance.processes().cpu().server;
    for _ in 0..WIND_DOWN_LOOKS {
        std::thread::sleep(WIND_DOWN);
        let now = instance.processes().cpu().server;
        // One tick of the clock is as good as nothing.
        if now.saturating_sub(before) <= Duration::from_millis(10) {
            return;
        }
        before = now;
    }
}

/// An open loop: so many events a second, whether they are delivered or not, spread over the topics in turn.
pub fn pace(crowd: &mut Crowd<'_>, topics: usize, events_per_second: f64, lasting: Duration) -> Outcome<()> {
    let start = now_ns();
    let mut pacer = Pacer::new(events_per_second);
    while since(start) < lasting {
        pacer.publish_due(crowd, topics)?;
        crowd.turn(pacer.until_next().min(TURN))?;
    }
    settle(crowd)
}

/// Says when the next event is due.
pub struct Pacer {
    start_ns: u64,
    interval_ns: f64,
    published: u64,
}

impl Pacer {
    pub fn new(events_per_second: f64) -> Self {
        Self { start_ns: now_ns(), interval_ns: 1e9 / events_per_second, published: 0 }
    }

    pub fn publish_due(&mut self, crowd: &mut Crowd<'_>, topics: usize) -> Outcome<()> {
        while self.next_ns() <= now_ns() {
            crowd.publish(self.published as usize % topics)?;
            self.published += 1;
        }
        Ok(())
    }

    pub fn until_next(&self) -> Duration {
        Duration::from_nanos(self.next_ns().saturating_sub(now_ns()))
    }

    fn next_ns(&self) -> u64 {
        self.start_ns + (self.published as f64 * self.interval_ns) as u64
    }
}

/// Forgets what was counted so far, does `work`, and says what it cost.
pub fn measure(
    instance: &dyn Instance,
    crowd: &mut Crowd<'_>,
    work: impl FnOnce(&mut Crowd<'_>) -> Outcome<()>,
) -> Outcome<Measured> {
    crowd.tally = Tally::new();
    let (before, start) = (instance.processes().cpu(), now_ns());
    work(crowd)?;
    let (wall, cpu) = (since(start), instance.processes().cpu() - before);
    let tally = std::mem::replace(&mut crowd.tally, Tally::new());
    Ok(Measured { cpu, wall, tally })
}
