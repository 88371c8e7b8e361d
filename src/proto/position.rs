//! Where something stands in the log, and the cursor that a client keeps of it.

use std::{fmt, str::FromStr};

/// A place in the log. Ordered as the log is; opaque otherwise. Redis: the two halves of the stream id. RabbitMQ: the
/// stream offset and 0. Memory: the boot time of the log and a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub major: u64,
    pub minor: u64,
}

impl Position {
    /// Before everything that a log can hold.
    pub const START: Self = Self { major: 0, minor: 0 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.major, self.minor)
    }
}

impl FromStr for Position {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let text = text.as_bytes();
        let dash = text.iter().position(|byte| *byte == b'-').ok_or(CursorError)?;
        Ok(Self { major: decimal(&text[..dash])?, minor: decimal(&text[dash + 1..])? })
    }
}

/// Digits and nothing else. By hand, since every event of the log has a position to read.
fn decimal(digits: &[u8]) -> Result<u64, CursorError> {
    let digit = |digit: u8| digit.is_ascii_digit().then(|| u64::from(digit - b'0'));
    let number = digits.iter().try_fold(0_u64, |number, next| number.checked_mul(10)?.checked_add(digit(*next)?));
    number.filter(|_| !digits.is_empty()).ok_or(CursorError)
}

/// The short hash of an event's bytes by which a cursor proves that it belongs to this log.
#[must_use]
pub fn proof(event: &[u8]) -> u32 {
    crc32fast::hash(event)
}

/// What a client hands back to carry on: a position and the [`proof`] of the event that stands there. Another log, or
/// the same one flushed and refilled, has another event there or none, and the cursor is refused honestly.
///
/// Its text form is opaque to clients: `1.<major>.<minor>.<proof>` in hexadecimal, the leading 1 being the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub position: Position,
    pub proof: u32,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{:x}.{:x}.{:08x}", self.position.major, self.position.minor, self.proof)
    }
}

impl Cursor {
    /// Writes what `Display` writes, for the one place where it counts: every frame has a cursor.
    pub(super) fn push_text(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"1.");
        push_hexadecimal(out, self.position.major, 1);
        out.push(b'.');
        push_hexadecimal(out, self.position.minor, 1);
        out.push(b'.');
        push_hexadecimal(out, u64::from(self.proof), 8);
    }
}

fn push_hexadecimal(out: &mut Vec<u8>, number: u64, digits_min: u32) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(digits_min);
    out.extend((0..digits).rev().map(|place| b"0123456789abcdef"[(number >> (4 * place)) as usize & 0xf]));
}

/// The text is not a cursor, or not one that this version reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorError;

impl fmt::Display for CursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a cursor of this service")
    }
}

impl std::error::Error for CursorError {}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(CursorError);
        if next()? != "1" {
            return Err(CursorError);
        }
        let (major, minor, proof) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(CursorError);
        }
        let hex = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten().ok_or(CursorError)
        };
        Ok(Self {
            position: Position { major: hex(major)?, minor: hex(minor)? },
            proof: u32::try_from(hex(proof)?).map_err(|_| CursorError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_survives_its_text_form() {
        let cursor = Cursor { position: Position { major: u64::MAX, minor: 7 }, proof: 0xdead };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }

    #[test]
    fn a_position_is_two_numbers_and_nothing_else() {
        let read = |text: &str| text.parse::<Position>();
        assert_eq!(read("18446744073709551615-0"), Ok(Position { major: u64::MAX, minor: 0 }));
        assert_eq!(read("007-1"), Ok(Position { major: 7, minor: 1 }));
        for text in ["", "-", "1", "1-", "-1", "1-2-3", "+1-2", "1- 2", "18446744073709551616-0", "1-x"] {
            assert_eq!(read(text), Err(CursorError), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_cursor_is_refused() {
        for text in ["", "1", "1.2.3", "1.2.3.4.5", "2.2.3.4", "1.+2.3.4", "1.2.3.1ffffffff", "1.x.3.4", "1..3.4"] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_cursor_survives_its_text_and_no_two_share_one(a: (u64, u64, u32), b: (u64, u64, u32)) {
            let cursor = |(major, minor, proof)| Cursor { position: Position { major, minor }, proof };
            prop_assert_eq!(cursor(a).to_string().parse(), Ok(cursor(a)));
            let mut written = Vec::new();
            cursor(a).push_text(&mut written);
            prop_assert_eq!(written, cursor(a).to_string().into_bytes());
            prop_assert_eq!(a == b, cursor(a).to_string() == cursor(b).to_string());
            prop_assert_eq!(a.0.cmp(&b.0).then(a.1.cmp(&b.1)), cursor(a).position.cmp(&cursor(b).position));
        }

        /// A digit more, less or changed makes another cursor, or none: never the same one in disguise.
        #[test]
        fn a_cursor_that_was_tampered_with_is_another_or_none(
            (major, minor, proof) in any::<(u64, u64, u32)>(), place in any::<prop::sample::Index>(), character in "[0-9a-fA-F.x+ -]"
        ) {
            let cursor = Cursor { position: Position { major, minor }, proof };
            let text = cursor.to_string();
            let at = place.index(text.len());
            let changed = format!("{}{character}{}", &text[..at], &text[at + 1..]);
            let is_same = changed.eq_ignore_ascii_case(&text);
            prop_assert_eq!(changed.parse() == Ok(cursor), is_same);
            let shorter = format!("{}{}", &text[..at], &text[at + 1..]);
            prop_assert!(shorter.parse::<Cursor>() != Ok(cursor) || text[at..].starts_with('0'));
        }
    }
}
