//! From an upgraded socket to a conversation: who is it, and has this replica read as far as they have?
//!
//! Refuses to know: what is said then.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Request, Sessions,
    connection::Connection,
    machine::Session,
    pump::{Event, Pump},
    websocket::{Inbound, Violation},
};
use crate::{
    auth::{AuthenticationError, Identity, Refusal},
    clock,
    proto::{Command, CommandKind, Cursor, Encoding, Position, close_frame},
};

/// How long a connection with a cursor waits for this replica to have read as far as the cursor.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// What a connection may send until its first frame, the one with the token, is there; pings, for one.
const BEFORE_TOKEN_MAX_BYTES: usize = 64 * 1024;

/// Lets somebody in; or the code that the connection was closed with. `early` is what came behind the handshake.
pub(super) async fn open<S>(
    sessions: Arc<Sessions>,
    socket: S,
    early: Bytes,
    request: Request,
) -> Result<Arc<Connection<S>>, Option<u16>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut pump = Pump::new(socket, sessions.settings.message_max_bytes);
    if let Event::Violated(Violation(code, reason)) = pump.feed(&early) {
        pump.close(close_frame(code, reason)).await;
        return Err(Some(code.number()));
    }
    let authenticated = authenticate(&sessions, &mut pump, &request).await;
    pump.read = 0;
    let session = match authenticated {
        Ok(identity) => match sessions.sign_in(&identity, clock::now()) {
            Ok(place) => {
                wait_for_cursor(&sessions, request.cursor.as_deref()).await;
                tracing::debug!(user_id = ?identity.user, scope = ?request.scope, "a client is let in");
                let mut session = Session::open(&sessions, identity, &request, clock::now());
                session.allowance.hold(place);
                session
            }
            Err(refusal) => Session::refused(&sessions, identity, &request, refusal, clock::now()),
        },
        Err(refusal) => {
            let now = clock::now();
            if let (Some(caller), Refusal::Token(AuthenticationError { is_guess: true, .. })) =
                (&request.caller, &refusal)
            {
                sessions.limits.guessed(caller, now);
            }
            let mut session = Session::new(&sessions, Identity::default(), &request, now);
            match refusal {
                Refusal::Token(error) => session.refuse(error.code, &error.message, now),
                Refusal::Unavailable => session.put_off(Refusal::UNAVAILABLE, now),
            }
            session
        }
    };
    Ok(Connection::new(pump, session))
}

/// Somebody who is known already.
pub(super) fn open_as<S>(
    sessions: &Arc<Sessions>,
    socket: S,
    identity: Identity,
    request: &Request,
) -> Arc<Connection<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let pump = Pump::new(socket, sessions.settings.message_max_bytes);
    Connection::new(pump, Session::open(sessions, identity, request, clock::now()))
}

/// Verifies the handshake's token, or the one in the first frame when the handshake brought none.
async fn authenticate<S>(sessions: &Sessions, pump: &mut Pump<S>, request: &Request) -> Result<Identity, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let first_frame;
    let mut token = request.token.as_deref();
    if token.is_none() && sessions.verifier.needs_token() {
        let waited = tokio::time::timeout(sessions.settings.first_frame_timeout, first_token(pump, request.encoding));
        first_frame = waited.await.ok().flatten();
        token = first_frame.as_deref();
        // Whose address was banned while this one said nothing may not go on guessing.
        if request.caller.as_ref().is_some_and(|caller| sessions.limits.admit(caller, clock::now()).is_err()) {
            return Err(Refusal::Unavailable);
        }
    }
    sessions.verifier.identify(token, clock::now()).await
}

async fn first_token<S>(pump: &mut Pump<S>, encoding: Encoding) -> Option<String>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    loop {
        while let Some(inbound) = pump.inbox.pop_front() {
            let command = match inbound {
                Inbound::Text(text) => Command::from_json(&text),
                Inbound::Binary(bytes) if encoding == Encoding::Protobuf => Command::from_protobuf(&bytes),
                Inbound::Ping(_) | Inbound::Pong => continue,
                _ => return None,
            };
            return match command.map(|command| command.kind) {
                Ok(CommandKind::Authenticate { token }) => Some(token),
                _ => None,
            };
        }
        if pump.read > BEFORE_TOKEN_MAX_BYTES || !matches!(pump.turn().await, Event::Read) {
            return None;
        }
    }
}

/// A client that comes from a replica that is a moment ahead must not be told that its cursor is of another log.
pub(super) async fn wait_for_cursor(sessions: &Sessions, cursor: Option<&str>) {
    if let Some(cursor) = cursor.and_then(|text| text.parse::<Cursor>().ok()) {
        wait_for_position(sessions, cursor.position).await;
    }
}

pub(super) async fn wait_for_position(sessions: &Sessions, wanted: Position) {
    let Some(reached) = sessions.hub.reached(wanted) else { return };
    // Not reached in time is an answer too: the session finds out which.
    let _ = tokio::time::timeout(CATCH_UP_TIMEOUT, reached).await.is_ok();
}
