//! A door for `fuzz/`, which is there only when the crate is built for it: the reader of frames.
//!
//! Refuses to know: sessions.

use super::websocket::Reader;

/// What the reader makes of `bytes` when they come in pieces of `piece`: each message, then what broke the protocol.
#[must_use]
pub fn read_frames(bytes: &[u8], piece: usize, message_max: usize) -> Vec<String> {
    let mut reader = Reader::new(message_max);
    let mut said = Vec::new();
    for mut input in bytes.chunks(piece) {
        loop {
            match reader.read(&mut input) {
                Ok(Some(inbound)) => said.push(format!("{inbound:?}")),
                Ok(None) => break,
                Err(violation) => {
                    said.push(format!("{violation:?}"));
                    return said;
                }
            }
        }
    }
    said
}
