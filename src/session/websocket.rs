//! Reads what a client sends, frame by frame, as RFC 6455 has it; does no I/O. A message is kept only while it is being
//! put together, an idle reader holds no buffer, and one that is too long is skipped without being kept.
//!
//! Refuses to know: what a message means.

use crate::proto::{CONTROL_PAYLOAD_MAX_BYTES, CloseCode, Opcode};

/// A message that is too long is skipped, and the client told, up to this size in bytes; beyond it the connection ends
/// with 1009.
pub(super) const SKIP_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Something that a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inbound {
    Text(String),
    Binary(Vec<u8>),
    /// Longer than the limit, in bytes; it was skipped.
    TooLong(u64),
    Ping(Vec<u8>),
    Pong,
    /// The peer's code, if it gave one.
    Close(Option<u16>),
}

/// The peer broke the protocol; the connection must be failed with this code (RFC 6455 section 7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Violation(pub(super) CloseCode, pub(super) &'static str);

const NOT_UTF8: Violation = Violation(CloseCode::InvalidPayload, "text is not UTF-8");

const MASKED: u8 = 0x80;
const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;

/// A frame whose header was read.
struct Current {
    opcode: Opcode,
    is_final: bool,
    mask: [u8; 4],
    mask_at: usize,
    left: u64,
}

/// The reader of one connection.
pub(super) struct Reader {
    message_max: usize,
    /// Bytes of a header that has not arrived whole.
    header: Vec<u8>,
    current: Option<Current>,
    control: Vec<u8>,
    message: Vec<u8>,
    /// How much of `message` is known to be UTF-8, if it is text.
    valid: usize,
    /// Text or binary while a message is under way.
    kind: Option<Opcode>,
    /// All bytes of the message under way, those skipped included.
    message_bytes: u64,
    /// There was a close frame; whatever is behind it is discarded (RFC 6455 section 1.4).
    closed: bool,
}

impl Reader {
    pub(super) fn new(message_max: usize) -> Self {
        Self {
            message_max,
            header: Vec::new(),
            current: None,
            control: Vec::new(),
            message: Vec::new(),
            valid: 0,
            kind: None,
            message_bytes: 0,
            closed: false,
        }
    }

    /// Reads nothing out of whatever comes.
    pub(super) fn deaf() -> Self {
        Self { closed: true, ..Self::new(0) }
    }

    /// Reads on from `input`, advancing it; `None` when it is used up. To be called until it is.
    pub(super) fn read(&mut self, input: &mut &[u8]) -> Result<Option<Inbound>, Violation> {
        if self.closed {
            *input = &[];
        }
        loop {
            if self.current.is_none() && !self.read_header(input)? {
                return Ok(None);
            }
            let Some(current) = &mut self.current else { return Ok(None) };
            let take = usize::try_from(current.left).unwrap_or(usize::MAX).min(input.len());
            let (chunk, rest) = input.split_at(take);
            *input = rest;
            current.left -= take as u64;
            let is_control = is_control(current.opcode);
            let target = if is_control { &mut self.control } else { &mut self.message };
            if is_control || self.message_bytes <= self.message_max as u64 {
                let from = target.len();
                target.extend_from_slice(chunk);
                unmask(&mut target[from..], current.mask, current.mask_at);
            }
            current.mask_at += take;
            let (opcode, is_final, is_whole) = (current.opcode, current.is_final, current.left == 0);
            let ends_message = is_final && is_whole;
            if !(is_control || ends_message) {
                self.check_text()?;
            }
            if !is_whole {
                return Ok(None);
            }
            self.current = None;
            if is_control {
                self.closed = opcode == Opcode::Close;
                return control(opcode, &std::mem::take(&mut self.control)).map(Some);
            }
            if is_final {
                return self.finish_message().map(Some);
            }
        }
    }

    /// True when `current` was filled.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<bool, Violation> {
        loop {
            let needed = match self.header.get(1).map(|second| second & !MASKED) {
                None => 2,
                Some(126) => 2 + 2 + 4,
                Some(127) => 2 + 8 + 4,
                Some(_) => 2 + 4,
            };
            if self.header.len() == needed && needed > 2 {
                self.begin_frame()?;
                self.header = Vec::new();
                return Ok(true);
            }
            let take = (needed - self.header.len()).min(input.len());
            if take == 0 {
                return Ok(false);
            }
            let (chunk, rest) = input.split_at(take);
            *input = rest;
            self.header.extend_from_slice(chunk);
            if let [first, second] = self.header[..] {
                self.check_start(first, second)?;
            }
        }
    }

    fn check_start(&self, first: u8, second: u8) -> Result<(), Violation> {
        let bad = |what| Err(Violation(CloseCode::ProtocolError, what));
        if first & RESERVED != 0 {
            return bad("reserved bits are set and no extension was agreed");
        }
        if second & MASKED == 0 {
            return bad("a client must mask its frames");
        }
        let Some(opcode) = opcode(first & 0x0f) else { return bad("unknown opcode") };
        if is_control(opcode) {
            if first & FINAL == 0 {
                return bad("a control frame must not be fragmented");
            }
            if usize::from(second & !MASKED) > CONTROL_PAYLOAD_MAX_BYTES {
                return bad("a control frame is too long");
            }
            return Ok(());
        }
        match (opcode, self.kind) {
            (Opcode::Continuation, None) => bad("nothing to continue"),
            (Opcode::Text | Opcode::Binary, Some(_)) => bad("a message is not finished"),
            _ => Ok(()),
        }
    }

    fn begin_frame(&mut self) -> Result<(), Violation> {
        let header = &self.header;
        let (length, mask) = header[1..].split_at(header.len() - 1 - 4);
        let left = match length {
            [short] => u64::from(short & !MASKED),
            long => long[1..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        // Every header passed `check_start`, so its opcode is known.
        let opcode = opcode(header[0] & 0x0f).unwrap_or(Opcode::Continuation);
        let is_final = header[0] & FINAL != 0;
        let mask = [mask[0], mask[1], mask[2], mask[3]];
        if !is_control(opcode) {
            if opcode != Opcode::Continuation {
                self.kind = Some(opcode);
                self.message_bytes = 0;
            }
            self.message_bytes = self.message_bytes.saturating_add(left);
            if self.message_bytes > SKIP_MAX_BYTES {
                return Err(Violation(CloseCode::TooLarge, "message too large"));
            }
            if self.message_bytes > self.message_max as u64 {
                self.message = Vec::new();
            }
        }
        self.current = Some(Current { opcode, is_final, mask, mask_at: 0, left });
        Ok(())
    }

    /// Text that cannot become UTF-8 any more is refused before the rest of it arrives. Looks at each byte once, but for a
    /// character that is cut.
    fn check_text(&mut self) -> Result<(), Violation> {
        if self.kind != Some(Opcode::Text) {
            return Ok(());
        }
        match std::str::from_utf8(self.message.get(self.valid..).unwrap_or_default()) {
            Ok(text) => self.valid += text.len(),
            Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
            Err(_) => return Err(NOT_UTF8),
        }
        Ok(())
    }

    fn finish_message(&mut self) -> Result<Inbound, Violation> {
        let message = std::mem::take(&mut self.message);
        self.valid = 0;
        let kind = self.kind.take();
        if self.message_bytes > self.message_max as u64 {
            return Ok(Inbound::TooLong(self.message_bytes));
        }
        if kind == Some(Opcode::Binary) {
            return Ok(Inbound::Binary(message));
        }
        String::from_utf8(message).map(Inbound::Text).map_err(|_| NOT_UTF8)
    }
}

fn opcode(number: u8) -> Option<Opcode> {
    use Opcode::{Binary, Close, Continuation, Ping, Pong, Text};
    [Continuation, Text, Binary, Close, Ping, Pong].into_iter().find(|known| *known as u8 == number)
}

fn is_control(opcode: Opcode) -> bool {
    matches!(opcode, Opcode::Close | Opcode::Ping | Opcode::Pong)
}

fn unmask(bytes: &mut [u8], mask: [u8; 4], from: usize) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte ^= mask[(from + index) % 4];
    }
}

fn control(opcode: Opcode, payload: &[u8]) -> Result<Inbound, Violation> {
    match opcode {
        Opcode::Ping => Ok(Inbound::Ping(payload.to_vec())),
        Opcode::Pong => Ok(Inbound::Pong),
        _ => close_code(payload).map(Inbound::Close),
    }
}

/// RFC 6455 section 7.4: which codes may stand in a close frame.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Violation(CloseCode::ProtocolError, "a close code has two bytes")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if std::str::from_utf8(reason).is_err() {
        return Err(Violation(CloseCode::InvalidPayload, "the close reason is not UTF-8"));
    }
    match code {
        1000..=1003 | 1007..=1014 | 3000..=4999 => Ok(Some(code)),
        _ => Err(Violation(CloseCode::ProtocolError, "a close code that must not be sent")),
    }
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
