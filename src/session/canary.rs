//! The delivery canary: which were sent, which came back through the loopback session, when one is overdue and which leg
//! of the way is suspect. Whoever sends them says what happens; this draws the conclusions, without I/O.
//!
//! Refuses to know: clocks, timers, how a canary travels.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    hub::Hub,
    metrics::{Leg, Metrics},
    proto::{Event, TaskId},
};

/// Canaries on their way at most; of more, the oldest is given up.
const SENT_MAX: usize = 64;

/// The configuration's `[canary]` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanarySettings {
    /// One is sent this often.
    pub interval: Duration,
    /// Readiness fails when none that is younger than this came back.
    pub timeout: Duration,
}

/// What readiness and metrics ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryHealth {
    pub ok: bool,
    /// Since the newest that came back was sent. `None`: none came back yet.
    pub age: Option<Duration>,
    /// Which leg is suspect, when it is not ok and that can be told.
    pub leg: Option<Leg>,
    /// For a person: why it is not ok. Holds no credentials.
    pub detail: String,
}

/// This replica's canary. Cheap to clone.
#[derive(Clone)]
pub struct Canary(Arc<Inner>);

struct Inner {
    id: TaskId,
    settings: CanarySettings,
    hub: Hub,
    metrics: Arc<Metrics>,
    began_at: Instant,
    state: Mutex<State>,
}

struct Sent {
    number: u64,
    at: Instant,
    append: Append,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Append {
    UnderWay,
    Confirmed,
    Failed,
}

#[derive(Default)]
struct State {
    last_number: u64,
    /// On their way, oldest first.
    sent: VecDeque<Sent>,
    /// When the newest that came back was sent.
    back: Option<Instant>,
    /// When the log came back from its last outage, if the canary was well before.
    grace_from: Option<Instant>,
    /// The log can be used. While it cannot, nothing is sent and nobody gets worse.
    log_usable: bool,
    /// What held when the log went away.
    ok_before: bool,
    /// The leg that lost the last one that was given up.
    lost_on: Option<Leg>,
    /// Why the last append failed, unless a later one was confirmed.
    append_error: Option<String>,
}

impl Canary {
    /// To be called before the hub applies anything. The log counts as away.
    #[must_use]
    pub fn new(id: TaskId, settings: CanarySettings, hub: Hub, metrics: Arc<Metrics>, now: Instant) -> Self {
        hub.keep_canary(id.clone());
        Self(Arc::new(Inner { id, settings, hub, metrics, began_at: now, state: Mutex::default() }))
    }

    #[must_use]
    pub fn id(&self) -> &TaskId {
        &self.0.id
    }

    #[must_use]
    pub fn settings(&self) -> CanarySettings {
        self.0.settings
    }

    /// The next one, to be appended now.
    #[must_use]
    pub fn send(&self, now: Instant) -> Event {
        let mut state = self.lock();
        if state.sent.len() >= SENT_MAX {
            self.give_up_oldest(&mut state);
        }
        state.last_number += 1;
        let number = state.last_number;
        state.sent.push_back(Sent { number, at: now, append: Append::UnderWay });
        let mut event = Event::new(self.0.id.clone());
        event.message = Some(number.to_string().into());
        event
    }

    /// The log confirmed the newest, or did not; the words say why.
    pub fn appended(&self, result: Result<(), String>) {
        let mut state = self.lock();
        let succeeded = result.is_ok();
        state.append_error = result.err();
        let Some(newest) = state.sent.back_mut().filter(|sent| sent.append == Append::UnderWay) else { return };
        newest.append = if succeeded { Append::Confirmed } else { Append::Failed };
        if !succeeded {
            self.0.metrics.canary_failed(Leg::Append);
        }
    }

    /// A session delivered the canary with these words.
    pub fn heard(&self, message: &str, now: Instant) {
        let mut state = self.lock();
        // What was not sent proves nothing: others can write to the log too.
        let Ok(number) = message.parse::<u64>() else { return };
        let Some(index) = state.sent.iter().position(|sent| sent.number == number) else { return };
        // A later state stands for those before it.
        let sent_at = state.sent[index].at;
        state.sent.drain(..=index);
        state.back = Some(sent_at);
        self.0.metrics.canary_came_back(now.saturating_duration_since(sent_at));
    }

    /// Whether the log is connected and read to its end. True when it has just become so: a canary is due then.
    pub fn log_is(&self, usable: bool, now: Instant) -> bool {
        let mut state = self.lock();
        if usable == state.log_usable {
            return false;
        }
        if usable {
            // Who was overdue before is not excused by an outage.
            state.grace_from = state.ok_before.then_some(now);
        } else {
            state.ok_before = self.is_ok(&state, now);
            // What was under way proves nothing.
            state.sent.clear();
        }
        state.log_usable = usable;
        usable
    }

    /// Gives up what has been on its way for too long.
    pub fn expire(&self, now: Instant) {
        let mut state = self.lock();
        let is_late = |sent: &Sent| now.saturating_duration_since(sent.at) > self.0.settings.timeout;
        while state.sent.front().is_some_and(is_late) {
            self.give_up_oldest(&mut state);
        }
    }

    fn give_up_oldest(&self, state: &mut State) {
        let Some(oldest) = state.sent.pop_front() else { return };
        let leg = self.leg_of(&oldest);
        // A failed append was counted when it failed.
        if oldest.append != Append::Failed {
            self.0.metrics.canary_failed(leg);
        }
        state.lost_on = Some(leg);
    }

    /// How it is doing.
    #[must_use]
    pub fn health(&self, now: Instant) -> CanaryHealth {
        let state = self.lock();
        let age = state.back.map(|at| now.saturating_duration_since(at));
        if self.is_ok(&state, now) {
            return CanaryHealth { ok: true, age, leg: None, detail: String::new() };
        }
        // The first one is not suspect for being on its way.
        let is_suspect = age.is_some() || state.append_error.is_some() || state.lost_on.is_some();
        let leg = state.sent.front().filter(|_| is_suspect).map(|oldest| self.leg_of(oldest)).or(state.lost_on);
        let since = match age {
            Some(_) => format!("no delivery canary came back within {} s", self.0.settings.timeout.as_secs()),
            None => "no delivery canary has come back yet".to_owned(),
        };
        let why = match (leg, &state.append_error) {
            (Some(Leg::Append), Some(error)) => format!(": it could not be appended: {error}"),
            (Some(Leg::Append), None) => ": the log has not confirmed it".to_owned(),
            (Some(Leg::Tail), _) => ": the log confirmed it, but its reader has not brought it".to_owned(),
            (Some(Leg::Delivery), _) => ": the reader brought it, but no session delivered it".to_owned(),
            (None, _) => String::new(),
        };
        CanaryHealth { ok: false, age, leg, detail: since + &why }
    }

    /// For the metric: a canary that never came back is as old as the service.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.lock().back.unwrap_or(self.0.began_at))
    }

    fn is_ok(&self, state: &State, now: Instant) -> bool {
        let Some(back) = state.back else { return false };
        if !state.log_usable {
            return state.ok_before;
        }
        let since = state.grace_from.map_or(back, |from| from.max(back));
        now.saturating_duration_since(since) <= self.0.settings.timeout
    }

    fn leg_of(&self, sent: &Sent) -> Leg {
        let applied = self.0.hub.canary().and_then(|frame| frame.task.message.as_ref()?.parse::<u64>().ok());
        match sent.append {
            _ if applied.is_some_and(|applied| applied >= sent.number) => Leg::Delivery,
            Append::UnderWay | Append::Failed => Leg::Append,
            Append::Confirmed => Leg::Tail,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic halfway through a change.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "canary_tests.rs"]
mod tests;
