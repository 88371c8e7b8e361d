//! The token of an open session: its client is told that it ends, a fresh one takes its place, and one that was revoked
//! ends the session.
//!
//! Refuses to know: how a token is verified.

use super::{
    machine::{Session, Stage},
    term::{Term, Turn},
};
use crate::{
    auth::{AuthenticationError, Identity, Refusal, Revocations},
    clock::Now,
    hub::Grant,
    metrics::Refresh as Outcome,
    proto::{AuthenticationErrorCode, CloseCode, ErrorCode, RequestId, ResumeFailure, ServerMessage},
};

/// A fresh token that waits to be verified, and how to answer.
pub(super) struct Refresh {
    pub(super) token: String,
    pub(super) id: Option<RequestId>,
}

impl Session {
    /// Ends the session the way that a page can understand: the reason in a frame, then 4001.
    pub(super) fn refuse(&mut self, code: AuthenticationErrorCode, message: &str, now: Now) {
        self.shared.metrics.authentication_failed(code);
        self.reply(&ServerMessage::AuthenticationError { error_code: code, message: message.to_owned() }, now);
        self.close(CloseCode::Authentication, code.as_str());
    }

    /// Something about the token is due.
    pub(super) fn on_term(&mut self, now: Now) {
        let Some(expires_at_ms) = self.identity.expires_at_ms else { return };
        let (lead, grace) = (self.shared.settings.token_expiring_lead, self.token_grace());
        if self.closing().is_some() {
            // Nobody is told any more, and a timer in the past would cost a core until the last frames are out.
            self.term = Term::Endless;
            return;
        }
        let was_over = self.term.is_over();
        let mut turn = self.term.turn(expires_at_ms, lead, grace, now);
        if turn == Turn::Tell {
            let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            let refresh_until_ms = expires_at_ms.saturating_add(grace_ms);
            let message = ServerMessage::TokenExpiring { token_expires_at_ms: expires_at_ms, refresh_until_ms };
            self.reply(&message, now);
            turn = self.term.turn(expires_at_ms, lead, grace, now);
        }
        if !was_over
            && self.term.is_over()
            && let Some(own) = self.opaque_token()
        {
            // Its provider may have moved the end since it was asked last; the grace is for the answer, too.
            self.waiting.ask_again(own);
        }
        if turn == Turn::End {
            self.term = Term::Endless;
            self.refuse(AuthenticationErrorCode::ExpiredToken, "the token has expired", now);
        }
    }

    /// The token was verified, or refused. Whatever comes of it, the connection goes on as long as the one before allows.
    pub(super) fn on_verified(&mut self, id: Option<RequestId>, verified: Result<Identity, Refusal>, now: Now) {
        if self.closing().is_some() {
            return;
        }
        let (outcome, why) = match verified {
            Ok(identity) if identity.user != self.identity.user => {
                (Outcome::AnotherUser, "the token is another user's; reconnect to use it".to_owned())
            }
            // Since it was verified.
            Ok(identity) if self.shared.verifier.revocations().is_revoked(&identity) => {
                (Outcome::Refused, "the token has been revoked".to_owned())
            }
            Ok(identity) => return self.adopt(identity, id, now),
            Err(Refusal::Token(error)) => {
                self.shared.metrics.authentication_failed(error.code);
                if error.is_guess {
                    self.on_guess(now);
                }
                (Outcome::Refused, error.message)
            }
            // Of the token nothing is known: the client sends it again.
            Err(Refusal::Unavailable) => {
                let (error_code, message) = (ErrorCode::Unavailable, Refusal::UNAVAILABLE.to_owned());
                self.shared.metrics.token_refresh(Outcome::Unavailable);
                return self.reply(&ServerMessage::Error { error_code, message, id }, now);
            }
        };
        self.shared.metrics.token_refresh(outcome);
        self.reply(&ServerMessage::Error { error_code: ErrorCode::TokenRefused, message: why, id }, now);
    }

    fn adopt(&mut self, identity: Identity, id: Option<RequestId>, now: Now) {
        self.shared.metrics.token_refresh(Outcome::Refreshed);
        let are_rights_others = identity.rights != self.identity.rights;
        let token_expires_at_ms = identity.expires_at_ms;
        self.term = Term::begin(token_expires_at_ms, self.shared.settings.token_expiring_lead, now);
        self.identity = identity;
        self.grant = Grant::default();
        self.say_first(&ServerMessage::TokenRefreshed { token_expires_at_ms, id }, now);
        if are_rights_others {
            self.start_over_with_new_rights(now);
        }
        // What was marked while nothing was sent wakes nobody.
        self.more = true;
    }

    /// Subscriptions of which nothing could come any more end. Of the others some tasks may have come into sight, whose
    /// states were never sent, and some may have left it: only a new snapshot is right about all of them.
    fn start_over_with_new_rights(&mut self, now: Now) {
        let (kept, ended): (Vec<_>, Vec<_>) =
            self.watches.topics().into_iter().partition(|topic| self.identity.may_keep(topic));
        for topic in ended {
            if let Some(watch) = self.watches.remove(&topic) {
                self.shared.hub.unwatch(&watch);
            }
            self.say_first(&ServerMessage::Unsubscribed { topic, id: None }, now);
        }
        self.shared.hub.keep_marks(&self.mailbox, &kept);
        self.forget_what_is_due();
        // A reset that is on its way says already why all is void.
        if !matches!(self.stage, Stage::Waiting { reset: Some(_) }) {
            self.stage = Stage::Waiting { reset: Some(ResumeFailure::RightsChanged) };
        }
    }

    /// Before the snapshot that may follow from it.
    pub(super) fn say_first(&mut self, message: &ServerMessage, now: Now) {
        self.preface.push_back(message.encode(self.encoding, now.unix_ms));
    }

    /// Ends the session if its token holds no longer; true then.
    pub(super) fn end_if_revoked(&mut self, revocations: &Revocations, now: Now) -> bool {
        if self.closing().is_some() || !revocations.is_revoked(&self.identity) {
            return false;
        }
        self.shared.metrics.session_revoked();
        let error = AuthenticationError::revoked();
        self.refuse(error.code, &error.message, now);
        true
    }
}

#[cfg(test)]
#[path = "refresh_tests.rs"]
mod tests;
