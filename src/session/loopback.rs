//! A session that this replica opens to itself, over a pipe in memory: the same pump and the same state machine as for a
//! browser, so what comes out of it has gone the whole way of a delivery. It is in none of the counts of connections:
//! its metrics are its own and nobody reads them, and no drain waits for it or ends it.
//!
//! Refuses to know: when a canary is sent, and what it means that one did not come.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::task::TaskTracker;

use super::{Deliver, Drain, Request, Scope, Sessions, serve};
use crate::{
    auth::{Identity, Rights},
    metrics::Metrics,
    proto::{Encoding, Opcode, TaskId, Topic},
};

/// What the pipe holds in each direction: about a socket's buffer.
const PIPE_BYTES: usize = 16 * 1024;

/// The longest frame that is read: a greeting or a page with one small task has a few hundred bytes.
const FRAME_MAX_BYTES: usize = 64 * 1024;

/// An empty pong, masked as a client must (RFC 6455 section 5.3).
const PONG: [u8; 6] = [0x80 | Opcode::Pong as u8, 0x80, 0, 0, 0, 0];

impl Sessions {
    /// Watches one canary until the session ends; `heard` gets the message of each state that is delivered.
    pub async fn loop_back(self: &Arc<Self>, canary: &TaskId, mut heard: impl FnMut(&str)) {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let rights = Rights { canary: Some(Box::new(canary.clone())), ..Rights::default() };
        let identity = Identity { rights, ..Identity::default() };
        let request = Request {
            scope: Scope::Topic(Topic::Task(canary.clone())),
            token: None,
            encoding: Encoding::Json,
            deliver: Deliver::Latest,
            throttle: Duration::ZERO,
            cursor: None,
            caller: None,
        };
        let uncounted = Arc::new(Self {
            metrics: Arc::new(Metrics::new("loopback")),
            drain: Drain::default(),
            open: TaskTracker::new(),
            ..Self::clone(self)
        });
        let connection = serve::open_as(&uncounted, far, identity, &request);
        tokio::select! {
            _ = connection.converse() => {}
            _ = listen(near, &mut heard) => {}
        }
    }
}

/// The browser's end. `None` when the session is over or says what it should not.
async fn listen(mut pipe: DuplexStream, heard: &mut impl FnMut(&str)) -> Option<()> {
    let mut unread = BytesMut::new();
    loop {
        while let Some((opcode, payload)) = take_frame(&mut unread) {
            match opcode {
                opcode if opcode == Opcode::Ping as u8 => pipe.write_all(&PONG).await.ok()?,
                opcode if opcode == Opcode::Text as u8 => read_message(&payload, heard)?,
                _ => return None,
            }
        }
        if unread.len() > FRAME_MAX_BYTES || pipe.read_buf(&mut unread).await.ok()? == 0 {
            return None;
        }
    }
}

/// The next whole frame: opcode and payload. The service neither masks nor splits what it sends.
fn take_frame(unread: &mut BytesMut) -> Option<(u8, Bytes)> {
    let (head, length) = match unread.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(unread.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(unread.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, usize::from(*short)),
    };
    if unread.len() < head || unread.len() - head < length {
        return None;
    }
    let opcode = unread[0] & 0x0f;
    unread.advance(head);
    Some((opcode, unread.split_to(length).freeze()))
}

/// States stand in live frames and in the pages of a snapshot.
fn read_message(payload: &[u8], heard: &mut impl FnMut(&str)) -> Option<()> {
    let frame: Value = serde_json::from_slice(payload).ok()?;
    let states = match frame["type"].as_str() {
        Some("task_progress") => std::slice::from_ref(&frame),
        Some("active_tasks") => frame["tasks"].as_array().map(Vec::as_slice).unwrap_or_default(),
        _ => return Some(()),
    };
    states.iter().filter_map(|state| state["message"].as_str()).for_each(heard);
    Some(())
}

#[cfg(test)]
#[path = "loopback_tests.rs"]
mod tests;
