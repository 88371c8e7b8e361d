//! What a session says of the service itself: that the log is out of reach, that it is back, that this replica is about
//! to end.
//!
//! Refuses to know: tasks.

use std::time::Instant;

use super::machine::{Output, Session};
use crate::{
    clock::Now,
    proto::{CloseCode, ErrorCode, ServerMessage},
};

impl Session {
    /// This replica is about to end: the client is told when its turn comes, and served until then.
    pub(super) fn on_draining(&mut self, turn: Instant, now: Now) {
        self.drains_at = Some(turn);
        let left = turn.saturating_duration_since(now.instant);
        let reconnect_after_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        self.reply(&ServerMessage::ServerDraining { reconnect_after_ms }, now);
        self.tell_retry();
    }

    /// Nobody can tell now whether the token is good. The client keeps it and comes back, so this is no
    /// `authentication_error`, at which a page may sign its user out.
    pub(super) fn put_off(&mut self, message: &str, now: Now) {
        let error = ServerMessage::Error { error_code: ErrorCode::Unavailable, message: message.to_owned(), id: None };
        self.reply(&error, now);
        self.close(CloseCode::TryAgainLater, message);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drains_at.is_some()
    }

    pub(super) fn tell_degraded(&mut self, now: Now) {
        if self.told_stale.is_none()
            && self.closing().is_none()
            && let Some(stale) = self.shared.hub.progress().stale
        {
            self.told_stale = Some(stale);
            self.reply(&ServerMessage::SourceDegraded { fresh_until_ms: stale.fresh_until_ms }, now);
        }
    }

    /// Behind what was read meanwhile, never before it.
    pub(super) fn tell_recovered(&mut self, output: &mut Output, now: Now) {
        if let Some(stale) = self.told_stale.take() {
            let degraded_ms = now.unix_ms.saturating_sub(stale.since_ms);
            let message = ServerMessage::SourceRecovered { degraded_ms };
            output.frames.push(message.encode(self.encoding, now.unix_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use crate::{
        hub::Stale,
        proto::CloseCode,
        session::{
            Request,
            test_world::{World, mine, types},
        },
    };

    fn stale(world: &World) -> Stale {
        Stale { fresh_until_ms: Some(world.now.unix_ms), since_ms: world.now.unix_ms }
    }

    #[test]
    fn a_client_hears_that_the_log_is_away_and_that_it_is_back_behind_what_it_missed() {
        let mut world = World::new();
        world.event("t1", "u1", Some(1.0), None);
        let mut session = world.open("u1", &mine());
        world.frames(&mut session);
        world.shared.hub.set_stale(Some(stale(&world)));
        let told = world.frames(&mut session);
        assert_eq!(types(&told), ["source_degraded"]);
        assert!(told[0]["fresh_until"].is_string());
        world.shared.hub.set_stale(Some(stale(&world)));
        assert!(world.frames(&mut session).is_empty(), "once is enough");
        world.event("t1", "u1", Some(2.0), None);
        world.shared.hub.set_stale(None);
        world.now = world.now.after(Duration::from_secs(60));
        let told = world.frames(&mut session);
        assert_eq!(types(&told), ["task_progress", "source_recovered"]);
        assert_eq!(told[1]["degraded_ms"], json!(60_000));
    }

    #[test]
    fn a_throttled_client_is_not_told_that_the_log_is_back_above_what_it_was_not_shown_yet() {
        let mut world = World::new();
        let throttle = Duration::from_secs(1);
        let mut session = world.open("u1", &Request { throttle, ..mine() });
        world.frames(&mut session);
        world.event("t1", "u1", Some(1.0), None);
        assert_eq!(types(&world.frames(&mut session)), ["task_progress"]);
        world.shared.hub.set_stale(Some(stale(&world)));
        assert_eq!(types(&world.frames(&mut session)), ["source_degraded"]);
        world.event("t1", "u1", Some(2.0), None);
        world.shared.hub.set_stale(None);
        assert!(world.frames(&mut session).is_empty());
        world.now = world.now.after(throttle);
        assert_eq!(types(&world.frames(&mut session)), ["task_progress", "source_recovered"]);
    }

    #[test]
    fn who_connects_meanwhile_is_greeted_first_and_told_at_once() {
        let world = World::new();
        world.shared.hub.set_stale(Some(stale(&world)));
        let mut session = world.open("u1", &mine());
        assert_eq!(types(&world.frames(&mut session)), ["connection_established", "active_tasks", "source_degraded"]);
    }

    #[test]
    fn everything_goes_on_until_the_turn_of_a_session_in_the_drain_has_come() {
        let mut world = World::new();
        let mut session = world.open("u1", &mine());
        world.frames(&mut session);
        session.on_draining(world.now.instant + Duration::from_secs(7), world.now);
        let told = world.frames(&mut session);
        assert_eq!((types(&told), &told[0]["reconnect_after_ms"]), (vec!["server_draining"], &json!(7_000)));
        assert_eq!(session.deadline(world.now), world.now.instant + Duration::from_secs(7));
        world.event("t1", "u1", None, None);
        assert_eq!(types(&world.frames(&mut session)), ["task_progress"]);
        assert!(session.on_time(world.now.after(Duration::from_millis(6_999))) && session.closing().is_none());
        assert!(session.on_time(world.now.after(Duration::from_secs(7))));
        assert_eq!(session.closing().map(|(code, _)| code), Some(CloseCode::Restart));
        // The last frames may take a slow socket a while: a timer in the past would cost a core until then.
        let now = world.now.after(Duration::from_secs(8));
        assert!(session.deadline(now) > now.instant);
    }
}
