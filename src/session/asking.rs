//! Opaque tokens of open connections: what their provider says of them when it is asked again.
//!
//! Refuses to know: when and how it is asked.

use super::machine::Session;
use crate::{
    auth::{Identity, OpaqueToken, Refusal},
    clock::Now,
    proto::CloseCode,
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
            Ok(identity) if identity.user == self.identity.user && identity.rights == self.identity.rights => return,
            // The client comes back, and gets what it allows now as anybody else does.
            Ok(_) => self.close(CloseCode::TryAgainLater, "what the token allows has changed; reconnect"),
            Err(Refusal::Token(error)) => self.refuse(error.code, &error.message, now),
            Err(Refusal::Unavailable) => self.put_off(Refusal::UNAVAILABLE, now),
        }
        self.mailbox.wake();
    }
}
