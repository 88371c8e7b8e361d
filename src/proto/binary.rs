//! Numbers and texts as compact bytes: variable-length integers, differences, length-prefixed texts; and a reader that
//! never reads beyond its end and never believes a length that the bytes do not have. For what the service writes for
//! itself, such as checkpoints.
//!
//! Refuses to know: what is written.

use std::{fmt, sync::Arc};

use super::{Cursor, Position};

/// The bytes are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt(pub &'static str);

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Corrupt {}

/// LEB128: seven bits per byte, the lowest first.
pub fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// `number` as its difference to `base`, small in either direction.
pub fn push_difference(out: &mut Vec<u8>, number: u64, base: u64) {
    let difference = number.wrapping_sub(base).cast_signed();
    push_number(out, ((difference << 1) ^ (difference >> 63)).cast_unsigned());
}

pub fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn push_position(out: &mut Vec<u8>, position: Position, base: Position) {
    push_difference(out, position.major, base.major);
    push_number(out, position.minor);
}

pub fn push_cursor(out: &mut Vec<u8>, cursor: Cursor, base: Position) {
    push_position(out, cursor.position, base);
    out.extend_from_slice(&cursor.proof.to_le_bytes());
}

/// A byte that says whether a value follows, and the value.
pub fn push_option<T>(out: &mut Vec<u8>, value: Option<T>, push: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            push(out, value);
        }
    }
}

/// Reads what the functions above wrote.
#[derive(Clone, Copy, Debug)]
pub struct BinaryReader<'a> {
    rest: &'a [u8],
}

impl<'a> BinaryReader<'a> {
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Corrupt> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Corrupt("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next bytes, as many as asked for.
    ///
    /// # Errors
    /// There are fewer.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Corrupt("it ends too early"))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// There is none.
    pub fn byte(&mut self) -> Result<u8, Corrupt> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// # Errors
    /// Not a number of 64 bits.
    pub fn number(&mut self) -> Result<u64, Corrupt> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Corrupt("a number has too many bytes"))
    }

    /// # Errors
    /// Not a number of 64 bits.
    pub fn difference(&mut self, base: u64) -> Result<u64, Corrupt> {
        let zigzag = self.number()?;
        let difference = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
        Ok(base.wrapping_add(difference))
    }

    /// # Errors
    /// Not a number, or one that does not fit.
    pub fn small<T: TryFrom<u64>>(&mut self) -> Result<T, Corrupt> {
        T::try_from(self.number()?).map_err(|_| Corrupt("a number is too large"))
    }

    /// # Errors
    /// Fewer bytes than their length says.
    pub fn bytes(&mut self) -> Result<&'a [u8], Corrupt> {
        let length = self.small()?;
        self.take(length)
    }

    /// # Errors
    /// Fewer bytes than their length says, or not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Corrupt> {
        str::from_utf8(self.bytes()?).map_err(|_| Corrupt("a text is not UTF-8"))
    }

    /// # Errors
    /// As [`Self::text`].
    pub fn shared_text(&mut self) -> Result<Arc<str>, Corrupt> {
        self.text().map(Into::into)
    }

    /// # Errors
    /// Not a position.
    pub fn position(&mut self, base: Position) -> Result<Position, Corrupt> {
        Ok(Position { major: self.difference(base.major)?, minor: self.number()? })
    }

    /// # Errors
    /// Not a cursor.
    pub fn cursor(&mut self, base: Position) -> Result<Cursor, Corrupt> {
        Ok(Cursor { position: self.position(base)?, proof: u32::from_le_bytes(self.array()?) })
    }

    /// # Errors
    /// Neither there nor absent, or what `read` says.
    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Corrupt>) -> Result<Option<T>, Corrupt> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Corrupt("a flag is neither set nor unset")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_and_differences_come_back_as_they_were(number: u64, base: u64, text in ".{0,20}") {
            let mut out = Vec::new();
            push_number(&mut out, number);
            push_difference(&mut out, number, base);
            push_bytes(&mut out, text.as_bytes());
            push_option(&mut out, Some(number), push_number);
            let mut reader = BinaryReader::new(&out);
            prop_assert_eq!(reader.number(), Ok(number));
            prop_assert_eq!(reader.difference(base), Ok(number));
            prop_assert_eq!(reader.text(), Ok(text.as_str()));
            prop_assert_eq!(reader.option(BinaryReader::number), Ok(Some(number)));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = BinaryReader::new(&bytes);
            while reader.bytes().is_ok() && !reader.is_empty() {}
            let _ = (BinaryReader::new(&bytes).number(), BinaryReader::new(&bytes).cursor(Position::START));
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        assert_eq!(BinaryReader::new(&[5, 1, 2]).bytes(), Err(Corrupt("it ends too early")));
        assert!(BinaryReader::new(&[0xff; 11]).number().is_err());
    }

    #[test]
    fn small_differences_are_short_in_both_directions() {
        let mut out = Vec::new();
        push_difference(&mut out, 1_000_000, 1_000_001);
        push_difference(&mut out, 1_000_001, 1_000_000);
        assert_eq!(out.len(), 2);
    }
}
