//! When a canary is overdue, and which leg is blamed.

use super::*;
use crate::{
    hub::Arrival,
    proto::{Cursor, Position},
    session::test_world,
};

/// A canary on a hub of its own, ten seconds apart, thirty to come back.
struct World {
    canary: Canary,
    hub: Hub,
    now: Instant,
    at: u64,
}

const SECOND: Duration = Duration::from_secs(1);

impl World {
    fn new() -> Self {
        let shared = test_world::sessions();
        let now = crate::clock::now().instant;
        let settings = CanarySettings { interval: 10 * SECOND, timeout: 30 * SECOND };
        let id = test_world::task_id("taskcast:canary:own");
        let canary = Canary::new(id, settings, shared.hub.clone(), shared.metrics.clone(), now);
        Self { canary, hub: shared.hub.clone(), now, at: 0 }
    }

    /// With a log that can be used, and a canary that came back just now.
    fn well() -> Self {
        let mut world = Self::new();
        assert!(world.canary.log_is(true, world.now));
        world.round_trip();
        assert!(world.health().ok);
        world
    }

    fn pass(&mut self, seconds: u32) {
        self.now += seconds * SECOND;
        self.canary.expire(self.now);
    }

    fn send(&self) -> Event {
        self.canary.send(self.now)
    }

    /// The tail brought it.
    fn apply(&mut self, event: Event) {
        self.at += 1;
        let cursor = Cursor { position: Position { major: self.at, minor: 0 }, proof: 0 };
        self.hub.apply(&[Arrival { cursor, appended_at_ms: None, event: Some(event) }], 1_000);
    }

    fn hear(&self, event: &Event) {
        self.canary.heard(event.message.as_deref().unwrap(), self.now);
    }

    fn round_trip(&mut self) {
        let event = self.send();
        self.canary.appended(Ok(()));
        self.apply(event.clone());
        self.hear(&event);
    }

    fn health(&self) -> CanaryHealth {
        self.canary.health(self.now)
    }

    fn failures(&self, leg: Leg) -> bool {
        let line = format!("taskcast_canary_failures_total{{leg=\"{}\"}} 1", leg.as_str());
        self.canary.0.metrics.render().unwrap().lines().any(|found| found == line)
    }
}

#[test]
fn nothing_is_well_until_the_first_came_back() {
    let mut world = World::new();
    assert!(!world.health().ok);
    world.canary.log_is(true, world.now);
    let event = world.send();
    let health = world.health();
    // It is on its way, which is no reason to suspect anything.
    assert_eq!((health.ok, health.age, health.leg), (false, None, None));
    world.canary.appended(Ok(()));
    world.apply(event.clone());
    world.pass(2);
    world.hear(&event);
    let health = world.health();
    assert_eq!((health.ok, health.age, health.leg), (true, Some(2 * SECOND), None));
    assert!(world.canary.0.metrics.render().unwrap().contains("taskcast_canary_seconds_sum 2"));
}

#[test]
fn it_is_overdue_when_none_that_is_young_enough_came_back() {
    let mut world = World::well();
    world.pass(30);
    assert!(world.health().ok);
    world.pass(1);
    assert!(!world.health().ok);
    assert_eq!(world.canary.age(world.now), 31 * SECOND);
    world.round_trip();
    assert_eq!((world.health().ok, world.canary.age(world.now)), (true, Duration::ZERO));
}

#[test]
fn the_leg_that_is_suspect_is_the_first_that_did_not_happen() {
    for (steps, leg, words) in [
        (0, Leg::Append, "has not confirmed"),
        (1, Leg::Tail, "its reader has not brought it"),
        (2, Leg::Delivery, "no session delivered it"),
    ] {
        let mut world = World::well();
        world.pass(10);
        let event = world.send();
        if steps > 0 {
            world.canary.appended(Ok(()));
        }
        if steps > 1 {
            world.apply(event);
        }
        world.pass(21);
        let health = world.health();
        assert_eq!((health.ok, health.leg), (false, Some(leg)));
        assert!(health.detail.contains(words), "{}", health.detail);
        assert!(!world.failures(leg));
        world.pass(10);
        // Given up and counted; what is suspect stays so.
        assert!(world.failures(leg));
        assert_eq!(world.health().leg, Some(leg));
    }
}

#[test]
fn an_append_that_failed_is_counted_once_and_told_in_the_logs_own_words() {
    let mut world = World::well();
    world.pass(10);
    let _ = world.send();
    world.canary.appended(Err("OOM command not allowed".to_owned()));
    assert!(world.failures(Leg::Append) && world.health().ok);
    world.pass(31);
    let health = world.health();
    assert!(world.failures(Leg::Append));
    assert_eq!((health.ok, health.leg), (false, Some(Leg::Append)));
    assert!(health.detail.contains("OOM command not allowed"), "{}", health.detail);
}

#[test]
fn an_append_that_failed_and_came_back_all_the_same_proves_the_way() {
    let mut world = World::well();
    world.pass(10);
    let event = world.send();
    world.canary.appended(Err("did not confirm".to_owned()));
    world.apply(event.clone());
    world.hear(&event);
    assert_eq!(world.health().age, Some(Duration::ZERO));
}

#[test]
fn what_was_not_sent_proves_nothing() {
    let mut world = World::well();
    world.pass(10);
    let event = world.send();
    for foreign in ["3", "18446744073709551615", "1", "-1", "", "x"] {
        world.canary.heard(foreign, world.now);
    }
    assert_eq!(world.health().age, Some(10 * SECOND));
    world.hear(&event);
    assert_eq!(world.health().age, Some(Duration::ZERO));
}

#[test]
fn a_later_state_stands_for_those_that_were_folded_into_it() {
    let mut world = World::well();
    let _folded = world.send();
    world.canary.appended(Ok(()));
    world.pass(10);
    let event = world.send();
    world.canary.appended(Ok(()));
    world.hear(&event);
    world.pass(25);
    assert!(world.health().ok && !world.failures(Leg::Tail));
}

#[test]
fn an_outage_of_the_log_makes_nobody_overdue_and_excuses_nobody() {
    let mut world = World::well();
    let _under_way = world.send();
    assert!(!world.canary.log_is(false, world.now));
    world.pass(3600);
    assert!(world.health().ok && !world.failures(Leg::Append));
    assert!(world.canary.log_is(true, world.now), "a canary is due at once");
    assert!(world.health().ok);
    world.pass(31);
    assert!(!world.health().ok);
    assert!(!world.canary.log_is(false, world.now));
    assert!(world.canary.log_is(true, world.now));
    assert!(!world.health().ok, "it was overdue before");
}

#[test]
fn canaries_on_their_way_are_bounded() {
    let world = World::well();
    for _ in 0..10 * SENT_MAX {
        let _ = world.send();
    }
    assert_eq!(world.canary.lock().sent.len(), SENT_MAX);
}
