//! Opaque tokens of open connections: what their provider says of them when it is asked again.
//!
//! Refuses to know: when and how it is asked.

use super::{machine::Session, term::Term};
use crate::{
    auth::{AuthenticationError, Identity, OpaqueToken, Refusal},
    clock::Now,
    proto::{AuthenticationErrorCode, CloseCode, ServerMessage},
};

impl Session {
    /// The token that it was let in with, if its provider has to be asked about it again.
    pub(super) fn opaque_token(&self) -> Option<OpaqueToken> {
        self.identity.issued.as_ref()?.opaque.clone()
    }

    /// The provider was asked again, or has been silent for too long.
    pub(super) fn on_asked(&mut self, token: &OpaqueToken, answer: Result<Identity, Refusal>, now: Now) {
        // Another one may have come meanwhile.
        if self.closing().is_some() || self.opaque_token().as_ref() != Some(token) {
            return;
        }
        match answer {
            Ok(identity) if identity.user == self.identity.user && identity.rights == self.identity.rights => {
                if identity.expires_at_ms == self.identity.expires_at_ms {
                    return;
                }
                self.move_end(identity.expires_at_ms, now);
            }
            // The client comes back, and gets what it allows now as anybody else does.
            Ok(_) => self.close(CloseCode::TryAgainLater, "what the token allows has changed; reconnect"),
            // It has ended already. What the grace is for is a fresh one.
            Err(
                Refusal::Unavailable
                | Refusal::Token(AuthenticationError { code: AuthenticationErrorCode::ExpiredToken, .. }),
            ) if self.term.is_over() => return,
            Err(Refusal::Token(error)) => self.refuse(error.code, &error.message, now),
            Err(Refusal::Unavailable) => self.put_off(Refusal::UNAVAILABLE, now),
        }
        self.mailbox.wake();
    }

    /// The token ends at another moment than was told: a provider may let its tokens live for as long as they are used.
    /// Only who was told that it ends has to hear that it does not.
    fn move_end(&mut self, expires_at_ms: Option<u64>, now: Now) {
        let lead = self.shared.settings.token_expiring_lead;
        let was_told = self.term.is_told(lead);
        self.identity.expires_at_ms = expires_at_ms;
        self.term = Term::begin(expires_at_ms, lead, now);
        if was_told {
            self.say_first(&ServerMessage::TokenRefreshed { token_expires_at_ms: expires_at_ms, id: None }, now);
        }
        // What was marked while it was over wakes nobody.
        self.more = true;
    }
}

#[cfg(test)]
#[path = "asking_tests.rs"]
mod tests;
