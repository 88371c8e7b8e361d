//! Sends every message back, framed as a session's are: what a suite of conformance tests expects of a server. It is there
//! only for the test in `http` that brings one.
//!
//! Refuses to know: sessions.

use std::{io, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::websocket::{Inbound, Reader, Violation};
use crate::proto::{CloseCode, Opcode, close_frame, frame};

/// How long the peer may take to hang up.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves one upgraded connection until it ends.
pub(crate) async fn echo<S>(mut socket: S, early: &[u8], message_max: usize) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut reader = Reader::new(message_max);
    let mut bytes = early.to_vec();
    loop {
        let (answers, is_over) = answers(&mut reader, &bytes);
        socket.write_all(&answers).await?;
        if is_over {
            break;
        }
        bytes.resize(4096, 0);
        let taken = socket.read(&mut bytes).await?;
        if taken == 0 {
            return Ok(());
        }
        bytes.truncate(taken);
    }
    socket.shutdown().await?;
    // What still comes is read: closing over unread bytes would be a reset, and the peer might lose the close frame.
    let mut nowhere = tokio::io::sink();
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, tokio::io::copy(&mut socket, &mut nowhere)).await;
    Ok(())
}

/// What is said to these bytes, and whether it is the last that is said.
fn answers(reader: &mut Reader, mut input: &[u8]) -> (Vec<u8>, bool) {
    let mut answers = Vec::new();
    loop {
        let (answer, is_over) = match reader.read(&mut input) {
            Ok(None) => return (answers, false),
            Ok(Some(Inbound::Pong)) => continue,
            Ok(Some(Inbound::Text(text))) => (frame(Opcode::Text, text.as_bytes()), false),
            Ok(Some(Inbound::Binary(bytes))) => (frame(Opcode::Binary, &bytes), false),
            Ok(Some(Inbound::Ping(payload))) => (frame(Opcode::Pong, &payload), false),
            Ok(Some(Inbound::TooLong(_))) => (frame(Opcode::Text, b"too long"), false),
            // As a session does: the code comes back if it is one of ours.
            Ok(Some(Inbound::Close(code))) => {
                let known = CloseCode::ALL.into_iter().find(|known| Some(known.number()) == code);
                (close_frame(known.unwrap_or(CloseCode::Normal), ""), true)
            }
            Err(Violation(code, reason)) => (close_frame(code, reason), true),
        };
        answers.extend_from_slice(&answer);
        if is_over {
            return (answers, true);
        }
    }
}
