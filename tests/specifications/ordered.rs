//! JSON whose objects keep the order that somebody gave them, and how this repository writes it: what fits into a line
//! stands in one.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

const LINE_MAX: usize = 120;

#[derive(Clone, Debug, PartialEq)]
pub enum Ordered {
    Object(Vec<(String, Ordered)>),
    Array(Vec<Ordered>),
    Leaf(Value),
}

impl Ordered {
    pub fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap()
    }

    pub fn text(text: &str) -> Self {
        Self::Leaf(Value::from(text))
    }

    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Self::Leaf(value) = self { value.as_str() } else { None }
    }

    /// Puts it where the key is, or behind the others.
    pub fn set(&mut self, key: &str, value: Self) {
        let Self::Object(members) = self else { panic!("{self:?} is no object") };
        match members.iter_mut().find(|(name, _)| name == key) {
            Some((_, held)) => *held = value,
            None => members.push((key.to_owned(), value)),
        }
    }

    /// Follows a JSON pointer.
    pub fn at(&self, pointer: &str) -> Option<&Self> {
        let mut parts = pointer.split('/').skip(1);
        parts.try_fold(self, |value, part| match value {
            Self::Array(items) => items.get(part.parse::<usize>().ok()?),
            _ => value.get(part),
        })
    }

    /// The whole file.
    pub fn to_file(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0, 0);
        out.push('\n');
        out
    }

    /// `used`: what of its first line is taken.
    fn write(&self, out: &mut String, depth: usize, used: usize) {
        let short = self.to_line();
        // One for the comma.
        if 2 * depth + used + short.chars().count() < LINE_MAX {
            return out.push_str(&short);
        }
        let inner = "  ".repeat(depth + 1);
        let items: Vec<(String, &Self)> = match self {
            Self::Object(members) => members.iter().map(|(key, value)| (format!("{}: ", quoted(key)), value)).collect(),
            Self::Array(items) => items.iter().map(|item| (String::new(), item)).collect(),
            Self::Leaf(_) => return out.push_str(&short),
        };
        let (open, close) = if matches!(self, Self::Object(_)) { ('{', '}') } else { ('[', ']') };
        out.push(open);
        for (index, (label, value)) in items.iter().enumerate() {
            out.push_str(if index > 0 { ",\n" } else { "\n" });
            out.extend([inner.as_str(), label.as_str()]);
            value.write(out, depth + 1, label.chars().count());
        }
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
        out.push(close);
    }

    fn to_line(&self) -> String {
        let joined = |parts: Vec<String>| parts.join(", ");
        match self {
            Self::Object(members) => {
                let member = |(key, value): &(String, Self)| format!("{}: {}", quoted(key), value.to_line());
                format!("{{{}}}", joined(members.iter().map(member).collect()))
            }
            Self::Array(items) => format!("[{}]", joined(items.iter().map(Self::to_line).collect())),
            Self::Leaf(value) => value.to_string(),
        }
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Ordered;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Ordered::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Ordered, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Ordered::Array(array))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Ordered, E> {
        Ok(Ordered::Leaf(Value::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Ordered, E> {
        Ok(Ordered::Leaf(Value::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Ordered, E> {
        Ok(Ordered::Leaf(Value::from(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Ordered, E> {
        Ok(Ordered::Leaf(Value::from(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Ordered, E> {
        Ok(Ordered::text(value))
    }

    fn visit_unit<E>(self) -> Result<Ordered, E> {
        Ok(Ordered::Leaf(Value::Null))
    }
}
