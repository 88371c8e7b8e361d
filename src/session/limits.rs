//! What a client may send, and what becomes of one that sends more, or whose user may have no more connections.
//!
//! Refuses to know: how limits are counted.

use std::sync::Arc;

use super::{Request, Sessions, machine::Session};
use crate::{
    auth::Identity,
    clock::Now,
    limits::{Caller, Limit, Meters, Place, Refusal},
    proto::{CloseCode, CommandError, ErrorCode, ServerMessage},
};

/// After so many tokens on one connection that may be guesses it is closed with 1008.
pub(super) const GUESSES_MAX: u32 = 10;

/// What a session holds of limits.
pub(super) struct Allowance {
    /// `None` until the client says something.
    meters: Option<Box<Meters>>,
    /// Boxed: nothing of it is needed for a delivery.
    guest: Box<Guest>,
}

/// Whose connection it is to the limits.
struct Guest {
    caller: Option<Caller>,
    /// Held: among the connections of its user, or of its link.
    place: Option<Place>,
    guesses: u32,
}

impl Allowance {
    pub(super) fn new(caller: Option<Caller>) -> Self {
        Self { meters: None, guest: Box::new(Guest { caller, place: None, guesses: 0 }) }
    }

    pub(super) fn hold(&mut self, place: Option<Place>) {
        self.guest.place = place;
    }
}

impl Sessions {
    /// A place among the connections of a user, or of a link that names none; `None` when none is needed. Where everybody is
    /// the same user nobody is one.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn sign_in(&self, identity: &Identity, now: Now) -> Result<Option<Place>, Refusal> {
        match &identity.user {
            _ if !self.verifier.needs_token() => Ok(None),
            Some(user) => self.limits.sign_in(user, now),
            None => self.limits.open_link(&identity.link()),
        }
    }
}

impl Session {
    /// A session that only says that its user, or its link, comes too often, or too many times.
    pub(super) fn refused(
        shared: &Arc<Sessions>,
        identity: Identity,
        request: &Request,
        refusal: Refusal,
        now: Now,
    ) -> Self {
        let mut session = Self::new(shared, identity, request, now);
        let what = match refusal.limit {
            Limit::ConnectionsPerUser => "this user has as many connections as one may have",
            Limit::ConnectionsPerLink => "this link is open as often as one may be",
            _ => "this user connects too often",
        };
        session.limited(refusal.limit, &format!("{what} ({})", refusal.limit.as_str()), now);
        session
    }

    /// A token that may be a guess was refused on the open connection: it counts as at the door, and neither somebody who is
    /// not let in there any more nor one connection goes on for long.
    pub(super) fn on_guess(&mut self, now: Now) {
        let guest = &mut self.allowance.guest;
        guest.guesses += 1;
        let limits = &self.shared.limits;
        let is_banned = guest.caller.as_ref().is_some_and(|caller| {
            limits.guessed(caller, now);
            limits.is_banned(caller, now)
        });
        if is_banned || guest.guesses >= GUESSES_MAX {
            self.close(CloseCode::Policy, "too many tokens that are no good");
        }
    }

    /// A message that was skipped.
    pub(super) fn too_long(&self, bytes: u64) -> CommandError {
        self.shared.metrics.limit_refused(Limit::MessageBytes);
        let most = self.shared.settings.message_max_bytes;
        let message = format!("the message has {bytes} bytes, more than {most} (message_max_bytes)");
        CommandError { code: ErrorCode::InvalidMessage, message, id: None }
    }

    fn limited(&mut self, limit: Limit, message: &str, now: Now) {
        let message = message.to_owned();
        self.reply(&ServerMessage::Error { error_code: ErrorCode::LimitReached, message, id: None }, now);
        self.close(CloseCode::Policy, limit.as_str());
    }

    /// So many bytes were read from the client.
    pub(super) fn on_bytes(&mut self, count: usize, now: Now) {
        let outcome = self.meters(now).bytes(count, now.instant);
        self.judge(outcome, now);
    }

    /// Whether the client may say one thing more.
    pub(super) fn may_speak(&mut self, now: Now) -> bool {
        let outcome = self.meters(now).message(now.instant);
        self.judge(outcome, now)
    }

    fn meters(&mut self, now: Now) -> &Meters {
        let settings = &self.shared.settings;
        let meters = || Box::new(Meters::new(settings.messages_per_minute, settings.bytes_per_minute, now.instant));
        self.allowance.meters.get_or_insert_with(meters)
    }

    fn judge(&mut self, outcome: Result<(), Limit>, now: Now) -> bool {
        let Err(limit) = outcome else { return true };
        if self.closing().is_none() {
            self.shared.metrics.limit_refused(limit);
            let most = match limit {
                Limit::Bytes => self.shared.settings.bytes_per_minute,
                _ => self.shared.settings.messages_per_minute,
            };
            self.limited(limit, &format!("a connection may send {most} per minute ({})", limit.as_str()), now);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::{
        super::{
            Settings,
            test_world::{World, identity, mine},
            websocket::Inbound,
        },
        *,
    };

    fn world(change: impl FnOnce(&mut Settings)) -> World {
        let mut world = World::new();
        let mut settings = Settings::clone(&world.shared.settings);
        change(&mut settings);
        Arc::make_mut(&mut world.shared).settings = Arc::new(settings);
        world
    }

    /// Beside the connection itself, which has a limit of its own.
    #[test]
    fn what_limits_hold_of_an_idle_connection_is_little() {
        let (inline, boxed) = (size_of::<Allowance>(), size_of::<Guest>());
        assert!(inline <= 16 && boxed <= 72, "{inline} and {boxed} bytes");
    }

    #[test]
    fn an_hour_of_messages_at_the_rate_is_heard_and_one_more_at_a_time_is_not() {
        let mut world = world(|settings| settings.messages_per_minute = 60);
        let mut session = world.open("u1", &mine());
        for second in 0..3_600 {
            world.now = world.now.after(Duration::from_secs(1));
            world.say(&mut session, &json!({"type": "ping"}));
            // Who reads no answers is closed for that.
            world.frames(&mut session);
            assert_eq!(session.closing(), None, "after {second} s");
        }
        for _ in 0..60 {
            session.on_inbound(Inbound::Pong, world.now);
        }
        assert_eq!(session.closing(), Some((CloseCode::Policy, "messages_per_minute")));
        let frames = world.frames(&mut session);
        assert_eq!(frames.last().unwrap()["error_code"], "LIMIT_REACHED");
        let text = world.shared.metrics.render().unwrap();
        assert!(text.contains("taskcast_limit_refusals_total{limit=\"messages_per_minute\"} 1"), "{text}");
    }

    #[test]
    fn bytes_count_whatever_is_in_them() {
        let mut world = world(|settings| settings.bytes_per_minute = 100_000);
        let mut session = world.open("u1", &mine());
        for _ in 0..3_600 {
            world.now = world.now.after(Duration::from_secs(1));
            session.on_bytes(1_600, world.now);
            assert!(session.closing().is_none());
        }
        for _ in 0..25 {
            session.on_bytes(4_096, world.now);
        }
        assert_eq!(session.closing(), Some((CloseCode::Policy, "bytes_per_minute")));
    }

    #[test]
    fn a_user_with_too_many_connections_hears_so_and_is_closed_with_1008() {
        let world = world(|_| ());
        let nobody = identity("u1");
        let refusal = Refusal { limit: Limit::ConnectionsPerUser, retry_after: None };
        let mut session = Session::refused(&world.shared, nobody, &mine(), refusal, world.now);
        let frames = world.frames(&mut session);
        assert_eq!((frames.len(), &frames[0]["type"]), (1, &json!("error")));
        assert_eq!(frames[0]["error_code"], "LIMIT_REACHED");
        assert_eq!(session.closing(), Some((CloseCode::Policy, "connections_per_user_max")));
    }
}
