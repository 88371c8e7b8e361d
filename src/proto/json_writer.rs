//! Writes JSON objects by hand: no tree, no reflection, whole numbers without a point.
//!
//! Refuses to know: what is written.

use super::{Cursor, timestamp};

/// Whole numbers below this are written as integers; above it a float no longer holds every integer.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// One object, written into a buffer. Keys are ours, so they need no escaping.
pub(super) struct ObjectWriter<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> ObjectWriter<'a> {
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, is_empty: true }
    }

    pub fn end(self) {
        self.out.push(b'}');
    }

    /// Writes the key and hands out the buffer for the value, which the caller must write.
    pub fn value(&mut self, key: &'static str) -> &mut Vec<u8> {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Text that is JSON already.
    pub fn json(&mut self, key: &'static str, json: &str) {
        self.value(key).extend_from_slice(json.as_bytes());
    }

    pub fn null(&mut self, key: &'static str) {
        self.json(key, "null");
    }

    pub fn boolean(&mut self, key: &'static str, value: bool) {
        self.json(key, if value { "true" } else { "false" });
    }

    pub fn string(&mut self, key: &'static str, text: &str) {
        push_string(self.value(key), text);
    }

    pub fn string_if(&mut self, key: &'static str, text: Option<&str>) {
        if let Some(text) = text {
            self.string(key, text);
        }
    }

    pub fn integer(&mut self, key: &'static str, number: u64) {
        push_integer(self.value(key), number);
    }

    pub fn number(&mut self, key: &'static str, number: f64) {
        push_number(self.value(key), number);
    }

    pub fn number_if(&mut self, key: &'static str, number: Option<f64>) {
        if let Some(number) = number {
            self.number(key, number);
        }
    }

    pub fn moment(&mut self, key: &'static str, unix_ms: u64) {
        let out = self.value(key);
        out.push(b'"');
        out.extend_from_slice(&timestamp::text(unix_ms));
        out.push(b'"');
    }

    pub fn moment_if(&mut self, key: &'static str, unix_ms: Option<u64>) {
        if let Some(unix_ms) = unix_ms {
            self.moment(key, unix_ms);
        }
    }

    pub fn moment_or_null(&mut self, key: &'static str, unix_ms: Option<u64>) {
        match unix_ms {
            Some(unix_ms) => self.moment(key, unix_ms),
            None => self.null(key),
        }
    }

    pub fn cursor(&mut self, key: &'static str, cursor: Cursor) {
        let out = self.value(key);
        out.push(b'"');
        cursor.push_text(out);
        out.push(b'"');
    }

    /// An array, each item written by `write`.
    pub fn array<T>(&mut self, key: &'static str, items: impl Iterator<Item = T>, write: impl Fn(&mut Vec<u8>, T)) {
        let out = self.value(key);
        out.push(b'[');
        for (index, item) in items.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write(out, item);
        }
        out.push(b']');
    }

    /// An object within.
    pub fn object(&mut self, key: &'static str, fill: impl FnOnce(&mut ObjectWriter<'_>)) {
        let mut inner = ObjectWriter::begin(self.value(key));
        fill(&mut inner);
        inner.end();
    }
}

/// Writes a JSON string.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    if !text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    let before = out.len();
    if serde_json::to_writer(&mut *out, text).is_err() {
        // Writing a string into memory cannot fail; a frame must stay JSON all the same.
        out.truncate(before);
        out.extend_from_slice(b"\"\"");
    }
}

fn push_integer(out: &mut Vec<u8>, number: u64) {
    // Writing into memory cannot fail. Not `write!`, which takes three times as long.
    let _ = serde_json::to_writer(out, &number);
}

/// Writes a JSON number, `40` and not `40.0`; what JSON cannot say becomes `null`.
pub(super) fn push_number(out: &mut Vec<u8>, number: f64) {
    let written = if number.fract() == 0.0 && number.abs() < WHOLE_MAX {
        serde_json::to_writer(out, &(number as i64)).is_ok()
    } else {
        serde_json::to_writer(out, &number).is_ok()
    };
    debug_assert!(written, "writing into memory cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_no_point_and_others_come_back_exactly() {
        for (number, text) in
            [(40.0, "40"), (0.0, "0"), (-0.0, "0"), (33.3, "33.3"), (1e300, "1e+300"), (f64::NAN, "null")]
        {
            let mut out = Vec::new();
            push_number(&mut out, number);
            let read: Option<f64> = serde_json::from_slice(&out).unwrap();
            assert_eq!(read.unwrap_or(f64::NAN).total_cmp(&(number + 0.0)), std::cmp::Ordering::Equal, "{text}");
            assert_eq!(String::from_utf8(out).unwrap().replace("e3", "e+3"), text);
        }
    }
}
