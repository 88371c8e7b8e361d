//! `text/event-stream`, as WHATWG's HTML standard has it ("server-sent events"): a message's JSON is the data of one event,
//! its cursor the event's id. What goes to a socket is in chunks of HTTP/1.1, so that what was cut off and what was ended
//! can be told apart.
//!
//! Refuses to know: what the JSON says, how a stream begins.

use std::io::Write;

use bytes::Bytes;

use super::Cursor;

/// A comment: nothing that a page hears of.
const HEARTBEAT: &[u8] = b": heartbeat\n\n";

/// The last chunk, and no trailers.
const END: &[u8] = b"0\r\n\r\n";

/// One event. The JSON has no line breaks, since what strangers write is compact or escaped; were there one, each line
/// would have to be a field of its own.
#[must_use]
pub fn stream_event(json: &[u8], cursor: Option<Cursor>) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + 64);
    if let Some(cursor) = cursor {
        out.extend_from_slice(b"id: ");
        cursor.push_text(&mut out);
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(json);
    out.extend_from_slice(b"\n\n");
    out
}

/// How long a client waits before it connects again, from now on.
#[must_use]
pub fn stream_retry(milliseconds: u64) -> Vec<u8> {
    format!("retry: {milliseconds}\n\n").into_bytes()
}

/// One chunk of a body (RFC 9112 section 7.1).
#[must_use]
pub fn stream_chunk(content: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(content.len() + 16);
    // Writing to memory does not fail.
    let _ = write!(out, "{:x}\r\n", content.len());
    out.extend_from_slice(content);
    out.extend_from_slice(b"\r\n");
    out.into()
}

/// What keeps a silent connection open, as a chunk.
#[must_use]
pub fn stream_heartbeat() -> Bytes {
    stream_chunk(HEARTBEAT)
}

/// The end of the body.
#[must_use]
pub fn stream_end() -> Bytes {
    Bytes::from_static(END)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Position;

    #[test]
    fn an_event_has_its_cursor_as_id_and_its_json_as_data() {
        let cursor = Cursor { position: Position { major: 0x2a, minor: 0 }, proof: 0x1234_abcd };
        assert_eq!(stream_event(b"{}", Some(cursor)), b"id: 1.2a.0.1234abcd\ndata: {}\n\n");
        assert_eq!(stream_event(b"{}", None), b"data: {}\n\n", "the id that the client has stays");
    }

    #[test]
    fn a_chunk_says_its_length_in_hexadecimal() {
        assert_eq!(stream_chunk(&[b'x'; 26]), [b"1a\r\n".as_slice(), &[b'x'; 26], b"\r\n"].concat());
        assert_eq!(stream_heartbeat(), b"d\r\n: heartbeat\n\n\r\n".as_slice());
        assert_eq!(stream_retry(1_500), b"retry: 1500\n\n");
    }
}
