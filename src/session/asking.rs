//! Opaque tokens of open connections: what their provider said of them holds for a while, then it is asked again. So a
//! token that is revoked there ends its connection within that time.
//!
//! Refuses to know: how a provider is asked.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::AbortHandle,
};

use super::{connection::Connection, machine::Session};
use crate::{
    auth::{Identity, OpaqueToken, Refusal, Verifier},
    clock::{self, Now},
};

/// How many answers in a row may be missing before a connection ends. The first is no reason: nobody new is let in
/// meanwhile, and ending all connections at once would bring them all back at once.
const UNANSWERED_MAX: u32 = 5;

/// Asks again for as long as it is held.
pub(super) struct Asking(AbortHandle);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Begins to ask about this connection's token; `None` where tokens speak for themselves.
pub(super) fn begin<S>(verifier: &Verifier, connection: &Arc<Connection<S>>) -> Option<Asking>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let every = verifier.asks_again_after()?;
    let asking = ask_on(verifier.clone(), Arc::downgrade(connection), every);
    Some(Asking(tokio::spawn(asking).abort_handle()))
}

async fn ask_on<S>(verifier: Verifier, connection: Weak<Connection<S>>, every: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut unanswered = 0;
    loop {
        // A little later than the answer holds, and not all at the same moment.
        tokio::time::sleep(every + clock::jitter(every / 4)).await;
        let token = connection.upgrade().and_then(|open| open.with_session(|session| session.opaque_token())).flatten();
        let Some(token) = token else { return };
        let answer = verifier.identify(Some(token.as_str()), clock::now()).await;
        unanswered = if matches!(answer, Err(Refusal::Unavailable)) { unanswered + 1 } else { 0 };
        let Some(open) = connection.upgrade() else { return };
        open.with_session(|session| session.on_asked(&token, answer, unanswered >= UNANSWERED_MAX, clock::now()));
    }
}

impl Session {
    /// The token that it was let in with, if its provider has to be asked about it again.
    fn opaque_token(&self) -> Option<OpaqueToken> {
        self.identity.issued.as_ref()?.opaque.clone()
    }

    /// The provider was asked again; `is_patience_over` when it has been silent for too long.
    fn on_asked(&mut self, token: &OpaqueToken, answer: Result<Identity, Refusal>, is_patience_over: bool, now: Now) {
        // Another one may have come meanwhile.
        if self.closing().is_some() || self.opaque_token().as_ref() != Some(token) {
            return;
        }
        match answer {
            Ok(identity) if identity.user == self.identity.user && identity.rights == self.identity.rights => return,
            // What it allows has changed, or whose it is: the client comes back, and is told so as anybody else.
            Ok(_) => self.close(crate::proto::CloseCode::TryAgainLater, "what the token allows has changed; reconnect"),
            Err(Refusal::Token(error)) => self.refuse(error.code, &error.message, now),
            Err(Refusal::Unavailable) if is_patience_over => self.put_off(Refusal::UNAVAILABLE, now),
            Err(Refusal::Unavailable) => return,
        }
        self.mailbox.wake();
    }
}
