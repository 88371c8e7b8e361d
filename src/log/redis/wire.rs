//! Redis' replies, read by hand: the library's typed replies build a hash map per entry, which costs half of the
//! replay's speed. Owns the shapes of XREAD, XRANGE and XINFO STREAM. Refuses to know: connections.

use bytes::Bytes;
use redis::Value;

use crate::{
    log::{Record, TRACEPARENT, TRACESTATE, content_type, trace},
    proto::{ContentType, Position},
};

/// The field that holds the event.
pub(super) const EVENT: &str = "event";
/// The field that says how to read it; JSON when absent.
pub(super) const CONTENT_TYPE: &[u8] = b"content_type";

/// What XINFO STREAM says that the log needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) length: u64,
    pub(super) last_generated: Position,
    /// The entries that are there now; `None` when there are none.
    pub(super) first_entry: Option<Position>,
    pub(super) last_entry: Option<Position>,
    /// How many were ever added; from Redis 7 on.
    pub(super) added: Option<u64>,
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        other => str::from_utf8(bytes(other)?).ok()?.parse().ok(),
    }
}

/// A stream id.
pub(super) fn position(value: &Value) -> Option<Position> {
    str::from_utf8(bytes(value)?).ok()?.parse().ok()
}

/// The entries of an XRANGE reply. `None` when it is not one.
pub(super) fn entries(reply: Value) -> Option<Vec<Record>> {
    match reply {
        Value::Array(entries) => entries.into_iter().map(entry).collect(),
        Value::Nil => Some(Vec::new()),
        _ => None,
    }
}

/// The entries of an XREAD reply about one stream; none when it ran into its time limit.
pub(super) fn read(reply: Value) -> Option<Vec<Record>> {
    match reply {
        Value::Nil => Some(Vec::new()),
        Value::Array(mut streams) => match streams.pop()? {
            Value::Array(mut stream) => entries(stream.pop()?),
            _ => None,
        },
        // RESP3, should the URL ask for it.
        Value::Map(mut streams) => entries(streams.pop()?.1),
        _ => None,
    }
}

fn entry(value: Value) -> Option<Record> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let position = position(&parts.next()?)?;
    let mut payload = Bytes::new();
    let mut format = ContentType::Json;
    let (mut traceparent, mut tracestate) = (None, None);
    // Without fields: an entry that XDEL removed while it was read, in old versions.
    if let Some(Value::Array(fields)) = parts.next() {
        let mut fields = fields.into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            let Value::BulkString(value) = value else { continue };
            match bytes(&name)? {
                name if name == EVENT.as_bytes() => payload = Bytes::from(value),
                CONTENT_TYPE => format = content_type(&value),
                name if name == TRACEPARENT.as_bytes() => traceparent = Some(value),
                name if name == TRACESTATE.as_bytes() => tracestate = Some(value),
                _ => {}
            }
        }
    }
    let trace = trace(traceparent.as_deref(), tracestate.as_deref());
    Some(Record { position, appended_at_ms: Some(position.major), content_type: format, payload, trace })
}

/// The reply of XINFO STREAM. `None` when it is not one.
pub(super) fn info(reply: &Value) -> Option<Info> {
    let mut info = Info::default();
    let mut found = false;
    let mut field = |name: &Value, value: &Value| {
        let first_of = |value: &Value| match value {
            Value::Array(entry) => entry.first().and_then(position),
            _ => None,
        };
        match bytes(name) {
            Some(b"length") => info.length = number(value).unwrap_or(0),
            Some(b"last-generated-id") => {
                found = true;
                info.last_generated = position(value).unwrap_or_default();
            }
            Some(b"entries-added") => info.added = number(value),
            Some(b"first-entry") => info.first_entry = first_of(value),
            Some(b"last-entry") => info.last_entry = first_of(value),
            _ => {}
        }
    };
    match reply {
        Value::Array(fields) => fields.chunks_exact(2).for_each(|pair| field(&pair[0], &pair[1])),
        Value::Map(fields) => fields.iter().for_each(|(name, value)| field(name, value)),
        _ => {}
    }
    found.then_some(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn entry_of(id: &str, fields: &[&str]) -> Value {
        Value::Array(vec![text(id), Value::Array(fields.iter().map(|field| text(field)).collect())])
    }

    #[test]
    fn an_entry_gives_its_event_whatever_stands_beside_it() {
        let reply = Value::Array(vec![Value::Array(vec![
            text("key"),
            Value::Array(vec![entry_of("5-1", &["source", "x", "event", "{}"]), entry_of("6-0", &["other", "y"])]),
        ])]);
        let records = read(reply).unwrap();
        assert_eq!(records[0].position, Position { major: 5, minor: 1 });
        assert_eq!(records[0].payload, "{}");
        assert_eq!(records[0].appended_at_ms, Some(5));
        assert!(records[1].payload.is_empty(), "an entry without an event has an empty payload");
    }

    #[test]
    fn a_read_that_ran_into_its_limit_has_no_entries() {
        assert!(read(Value::Nil).unwrap().is_empty());
    }

    #[test]
    fn the_stream_information_is_read_with_and_without_the_counter_of_redis_7() {
        let mut fields = vec![
            text("length"),
            Value::Int(2),
            text("last-generated-id"),
            text("9-0"),
            text("first-entry"),
            entry_of("7-0", &["event", "{}"]),
            text("last-entry"),
            entry_of("8-0", &["event", "{}"]),
        ];
        let old = info(&Value::Array(fields.clone())).unwrap();
        assert_eq!((old.length, old.added), (2, None));
        assert_eq!(old.last_entry, Some(Position { major: 8, minor: 0 }));
        fields.extend([text("entries-added"), Value::Int(40)]);
        assert_eq!(info(&Value::Array(fields)).unwrap().added, Some(40));
        assert_eq!(info(&Value::Nil), None);
    }
}
