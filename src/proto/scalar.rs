//! One JSON value as it stands in the text, read in one step: scalars as they are, arrays and objects skipped.
//!
//! Refuses to know: which values a field allows.

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Malformed, MalformedReason, field::Field};

/// 2 to the 64th.
const INTEGER_LIMIT: f64 = 18_446_744_073_709_551_616.0;

/// A value as it stands in the text.
pub(super) enum Scalar<'a> {
    Null,
    Boolean,
    Integer(u64),
    Negative(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Array,
    Object,
}

impl Scalar<'_> {
    pub fn wrong(&self, field: Field, wanted: &str) -> Malformed {
        let found = match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Integer(_) | Self::Negative(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        };
        let detail = format!("must be {wanted}, not {found}");
        Malformed::new(MalformedReason::Type, Some(field.as_str()), detail)
    }

    pub fn text(&self, field: Field) -> Result<&str, Malformed> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(other.wrong(field, "a string")),
        }
    }

    pub fn number(&self, field: Field) -> Result<f64, Malformed> {
        match self {
            Self::Integer(number) => Ok(*number as f64),
            Self::Negative(number) => Ok(*number as f64),
            Self::Float(number) => Ok(*number),
            other => Err(other.wrong(field, "a number")),
        }
    }

    /// An integer; `1.0` is one.
    pub fn integer(&self, field: Field) -> Result<u64, Malformed> {
        let negative = || Malformed::new(MalformedReason::Value, Some(field.as_str()), "must not be negative");
        match self {
            Self::Integer(number) => Ok(*number),
            Self::Negative(_) => Err(negative()),
            Self::Float(number) if number.fract() == 0.0 && *number < 0.0 => Err(negative()),
            Self::Float(number) if number.fract() == 0.0 && *number < INTEGER_LIMIT => Ok(*number as u64),
            Self::Float(number) if number.fract() == 0.0 => {
                Err(Malformed::new(MalformedReason::Value, Some(field.as_str()), "must fit in 64 bits"))
            }
            other => Err(other.wrong(field, "an integer")),
        }
    }

    pub fn user_id(&self) -> Result<Cow<'_, str>, Malformed> {
        match self {
            Self::Text(text) => Ok(Cow::Borrowed(text)),
            Self::Integer(number) => Ok(Cow::Owned(number.to_string())),
            Self::Negative(number) => Ok(Cow::Owned(number.to_string())),
            other => Err(other.wrong(Field::UserId, "a string or an integer")),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Boolean)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Integer(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Negative(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Float(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar<'de>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Scalar<'de>, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Object)
    }
}
