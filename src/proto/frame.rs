//! RFC 6455 framing of what the server sends: never masked, never fragmented.

use bytes::{BufMut, Bytes, BytesMut};

use super::CloseCode;

/// Frame types of RFC 6455 section 5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

/// The longest payload of a control frame (RFC 6455 section 5.5).
pub const CONTROL_PAYLOAD_MAX_BYTES: usize = 125;

/// Header and payload of one unmasked, final frame.
#[must_use]
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + 10);
    out.put_u8(0x80 | opcode as u8);
    match payload.len() {
        short @ 0..=125 => out.put_u8(short as u8),
        medium @ 126..=0xffff => {
            out.put_u8(126);
            out.put_u16(medium as u16);
        }
        long => {
            out.put_u8(127);
            out.put_u64(long as u64);
        }
    }
    out.put_slice(payload);
    out.freeze()
}

/// The payload of a frame made by [`frame`].
#[must_use]
pub fn payload(frame: &Bytes) -> Bytes {
    let header = match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    frame.slice(header.min(frame.len())..)
}

/// A close frame. The reason is cut to what a control frame can hold.
#[must_use]
pub fn close_frame(code: CloseCode, reason: &str) -> Bytes {
    let room = CONTROL_PAYLOAD_MAX_BYTES - 2;
    let mut end = reason.len().min(room);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = Vec::with_capacity(2 + end);
    payload.extend_from_slice(&code.number().to_be_bytes());
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    frame(Opcode::Close, &payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_comes_back_out_of_its_frame_at_every_header_size() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let bytes = vec![7; length];
            let framed = frame(Opcode::Text, &bytes);
            assert_eq!(payload(&framed), bytes);
        }
    }

    #[test]
    fn a_close_reason_is_cut_between_characters() {
        let framed = close_frame(CloseCode::Policy, &"ä".repeat(200));
        let body = payload(&framed);
        assert!(body.len() <= CONTROL_PAYLOAD_MAX_BYTES);
        assert!(std::str::from_utf8(&body[2..]).is_ok());
    }
}
