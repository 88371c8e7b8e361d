//! JSON as text: kept as it came, made compact and bounded in depth, and written back without a tree in between.
//!
//! Refuses to know: what the JSON says.

use std::sync::Arc;

use serde_json::value::RawValue;

/// How deep arrays and objects may nest: what every client's parser can take (Python's gives up at about 1,000).
pub const JSON_DEPTH_MAX: usize = 64;

/// JSON text that is known to be valid and compact; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText(Arc<str>);

impl JsonText {
    /// Checks that the text is one JSON value, at most [`JSON_DEPTH_MAX`] deep, and takes the spaces out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let raw: &RawValue = serde_json::from_str(text).ok()?;
        Self::from_raw(raw)
    }

    /// As [`Self::parse`], of text that serde has checked already.
    pub(super) fn from_raw(raw: &RawValue) -> Option<Self> {
        let text = raw.get();
        let survey = Survey::of(text);
        if survey.depth > JSON_DEPTH_MAX {
            return None;
        }
        Some(Self(if survey.has_spaces { without_spaces(text).into() } else { text.into() }))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }
}

struct Survey {
    depth: usize,
    has_spaces: bool,
}

impl Survey {
    fn of(text: &str) -> Self {
        let mut survey = Self { depth: 0, has_spaces: false };
        let mut depth: usize = 0;
        outside_strings(text, |byte, is_outside| match byte {
            b'[' | b'{' if is_outside => {
                depth += 1;
                survey.depth = survey.depth.max(depth);
            }
            b']' | b'}' if is_outside => depth = depth.saturating_sub(1),
            b' ' | b'\t' | b'\r' | b'\n' if is_outside => survey.has_spaces = true,
            _ => {}
        });
        survey
    }
}

fn without_spaces(text: &str) -> String {
    let mut kept = Vec::with_capacity(text.len());
    outside_strings(text, |byte, is_outside| {
        if !(is_outside && matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
            kept.push(byte);
        }
    });
    String::from_utf8(kept).unwrap_or_default()
}

/// Visits every byte of valid JSON, saying whether it stands outside of strings.
fn outside_strings(text: &str, mut visit: impl FnMut(u8, bool)) {
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        visit(byte, !in_string);
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ => {}
        }
    }
}

/// Cuts a text between characters so that it has at most `max_bytes`, an ellipsis included.
pub(super) fn cut(text: &str, max_bytes: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let mut end = max_bytes.saturating_sub(ELLIPSIS.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ELLIPSIS}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_go_but_not_those_in_strings() {
        let text = JsonText::parse(" { \"a b\" : [ 1 ,\n\"\\\" x \" ] } ").unwrap();
        assert_eq!(text.as_str(), r#"{"a b":[1,"\" x "]}"#);
    }

    #[test]
    fn deep_nesting_is_refused_and_brackets_in_strings_do_not_count() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(JsonText::parse(&nested(JSON_DEPTH_MAX)).is_some());
        assert!(JsonText::parse(&nested(JSON_DEPTH_MAX + 1)).is_none());
        assert!(JsonText::parse(&nested(20_000)).is_none());
        assert!(JsonText::parse(&format!("\"{}\"", "[".repeat(1000))).is_some());
    }

    #[test]
    fn what_is_not_one_json_value_is_refused() {
        for text in ["", "{", "1 2", "NaN", "{'a':1}", "\u{feff}1"] {
            assert!(JsonText::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_cut_text_ends_between_characters_with_an_ellipsis() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("ääää", 7), "ää…");
        assert_eq!(cut("ääää", 6), "ä…");
    }
}
