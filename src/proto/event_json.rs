//! Events in native JSON, both ways. One pass over the text: a key is looked up, its value read as what it is, and
//! checked at once. Keys are never kept, unknown values never built.
//!
//! Refuses to know: CloudEvents' envelope, protobuf.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    Event, JsonText, Malformed, MalformedReason, Status, TaskError, TaskId, UserId,
    draft::{self, Draft},
    field::{Field, Name},
    json_writer::{ObjectWriter, push_string},
    native,
    scalar::Scalar,
    timestamp,
};

/// Reads an event from its bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Event, Malformed> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Malformed::new(MalformedReason::Syntax, None, "the event is not UTF-8"))?;
    decode_text(text)
}

/// Reads an event from JSON text.
pub(super) fn decode_text(text: &str) -> Result<Event, Malformed> {
    let mut reader = Reader::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer.deserialize_map(&mut reader).and_then(|()| deserializer.end());
    if let Some(malformed) = reader.failure {
        return Err(malformed);
    }
    read.map_err(|error| syntax(&error))?;
    reader.draft.finish()
}

/// Says where JSON ends to be JSON, without quoting it.
pub(super) fn syntax(error: &serde_json::Error) -> Malformed {
    let detail = if error.is_data() {
        "not a JSON object as expected".to_owned()
    } else if (error.line(), error.column()) == (1, 0) {
        "the event is empty".to_owned()
    } else {
        format!("not JSON: wrong at line {}, column {}", error.line(), error.column())
    };
    Malformed::new(MalformedReason::Syntax, None, detail)
}

/// A key of the event, looked up without being kept.
struct Key(Option<Name>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E>(self, key: &str) -> Result<Key, E> {
                Ok(Key(Name::parse(key)))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

#[derive(Default)]
struct Reader {
    draft: Draft,
    /// Bits of fields that came by their own name, and by an alias.
    own: u32,
    aliased: u32,
    failure: Option<Malformed>,
}

impl<'de> Visitor<'de> for &mut Reader {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(Key(name)) = entries.next_key()? {
            let taken = match name {
                None => {
                    entries.next_value::<IgnoredAny>()?;
                    self.count_unknown();
                    Ok(())
                }
                Some(name) if matches!(name.field, Field::Result | Field::Metadata | Field::Error | Field::Tags) => {
                    let raw: &RawValue = entries.next_value()?;
                    self.take(name, raw.get() == "null", |reader| reader.set_raw(name.field, raw))
                }
                Some(name) => {
                    let value: Scalar<'_> = entries.next_value()?;
                    let is_null = matches!(value, Scalar::Null);
                    self.take(name, is_null, |reader| reader.set(name.field, &value))
                }
            };
            if let Err(malformed) = taken {
                self.failure = Some(malformed);
                return Err(A::Error::custom("malformed"));
            }
        }
        Ok(())
    }
}

impl Reader {
    fn count_unknown(&mut self) {
        self.draft.unknown_fields = self.draft.unknown_fields.saturating_add(1);
    }

    /// Applies one key's value. `null` is as good as absent. A field's own name wins over its aliases, whichever comes
    /// first; and since an alias is a guess about what a stranger means, one with a value of another type is an unknown
    /// field, not a mistake. Only the one field that nothing can do without is never guessed away.
    fn take(
        &mut self,
        name: Name,
        is_null: bool,
        set: impl FnOnce(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if is_null {
            return Ok(());
        }
        let bit = 1_u32 << name.field as u32;
        if !name.is_own && (self.own | self.aliased) & bit != 0 {
            self.count_unknown();
            return Ok(());
        }
        match set(self) {
            Ok(()) if name.is_own => {
                if self.aliased & bit != 0 {
                    self.count_unknown();
                }
                self.aliased &= !bit;
                self.own |= bit;
                Ok(())
            }
            Ok(()) => {
                self.aliased |= bit;
                Ok(())
            }
            Err(malformed)
                if malformed.reason == MalformedReason::Type && !name.is_own && name.field != Field::TaskId =>
            {
                self.count_unknown();
                Ok(())
            }
            Err(malformed) => Err(malformed),
        }
    }

    fn set(&mut self, field: Field, value: &Scalar<'_>) -> Result<(), Malformed> {
        let short = || draft::text(field.as_str(), value.text(field)?).map(Some);
        let task_id = || draft::task_id(field.as_str(), value.text(field)?).map(Some);
        let draft = &mut self.draft;
        match field {
            Field::TaskId => draft.task_id = task_id()?,
            Field::EventId => draft.event_id = short()?.filter(|id| !id.is_empty()),
            Field::UserId => draft.user_id = Some(draft::user_id(&value.user_id()?)?),
            Field::Name => draft.name = short()?,
            Field::Title => draft.title = short()?,
            Field::Status => draft.set_status(value.text(field)?),
            Field::Progress => draft.progress = Some(draft::percent(value.number(field)?)?),
            Field::Current => draft.current = Some(draft::amount("current", value.number(field)?)?),
            Field::Total => draft.total = draft::total(value.number(field)?)?,
            Field::Unit => draft.unit = short()?,
            Field::Step => draft.step = short()?,
            Field::Message => draft.message = Some(draft::message(value.text(field)?)),
            Field::Attempt => draft.attempt = Some(draft::attempt(value.integer(field)?)?),
            Field::Seq => draft.seq = Some(value.integer(field)?),
            Field::ParentId => draft.parent_id = task_id()?,
            Field::RootId => draft.root_id = task_id()?,
            Field::Weight => draft.weight = Some(draft::amount("weight", value.number(field)?)?),
            Field::Worker => draft.worker = short()?,
            Field::HeartbeatTimeoutMs => {
                draft.heartbeat_timeout_ms = Some(draft::heartbeat_timeout_ms(value.integer(field)?)?);
            }
            Field::Timestamp => {
                let moment = match value {
                    Scalar::Text(text) => timestamp::parse(text),
                    other => timestamp::from_number(other.number(field)?),
                };
                draft.timestamp_ms = draft::timestamp_ms(moment, &mut draft.unknown_fields);
            }
            Field::Observed => draft.observed = Some(draft::observed(value.text(field)?)?),
            Field::Traceparent => draft.set_trace(value.text(field).ok()),
            Field::Tracestate => draft.tracestate = value.text(field).ok().map(Into::into),
            // Old workers send an empty `error_message` with every success.
            Field::ErrorMessage => {
                draft.error_message = Some(draft::message(value.text(field)?)).filter(|text| !text.is_empty());
            }
            Field::ErrorCode => draft.error_code = short()?.filter(|code| !code.is_empty()),
            Field::Result | Field::Metadata | Field::Error | Field::Tags => {}
        }
        Ok(())
    }

    fn set_raw(&mut self, field: Field, raw: &RawValue) -> Result<(), Malformed> {
        match field {
            Field::Result => self.draft.result = Some(draft::result(JsonText::from_raw(raw))?),
            Field::Metadata => self.draft.metadata = Some(draft::metadata(JsonText::from_raw(raw))?),
            Field::Tags => self.set_tags(raw)?,
            Field::Error => self.set_error(raw)?,
            _ => {}
        }
        Ok(())
    }

    fn set_tags(&mut self, raw: &RawValue) -> Result<(), Malformed> {
        let wrong = |_| Malformed::new(MalformedReason::Type, Some("tags"), "must be an array of strings");
        let tags: Vec<Cow<'_, str>> = serde_json::from_str(raw.get()).map_err(wrong)?;
        self.draft.tags.clear();
        tags.iter().try_for_each(|tag| draft::push_tag(&mut self.draft.tags, tag))
    }

    /// A string is the message; an object has parts.
    fn set_error(&mut self, raw: &RawValue) -> Result<(), Malformed> {
        let wrong =
            |field: &str, wanted: &str| Malformed::new(MalformedReason::Type, Some(field), format!("must be {wanted}"));
        self.draft.error = TaskError::default();
        if raw.get().starts_with('"') {
            let text: String = serde_json::from_str(raw.get()).map_err(|error| syntax(&error))?;
            self.draft.error.message = (!text.is_empty()).then(|| draft::message(&text));
            return Ok(());
        }
        let parts: BTreeMap<String, &RawValue> =
            serde_json::from_str(raw.get()).map_err(|_| wrong("error", "an object or a string"))?;
        for (key, value) in &parts {
            let text =
                |field| serde_json::from_str::<Option<String>>(value.get()).map_err(|_| wrong(field, "a string"));
            let short = |field| text(field)?.map(|text| draft::text(field, &text)).transpose();
            match key.as_str() {
                "code" => self.draft.error.code = short("error.code")?,
                "type" => self.draft.error.kind = short("error.type")?,
                "message" => self.draft.error.message = text("error.message")?.map(|text| draft::message(&text)),
                "retryable" => {
                    let read = serde_json::from_str(value.get());
                    self.draft.error.retryable = read.map_err(|_| wrong("error.retryable", "a boolean"))?;
                }
                _ => self.count_unknown(),
            }
        }
        Ok(())
    }
}

/// Writes an event; fields that it does not have are left out.
pub(super) fn encode(event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut object = ObjectWriter::begin(&mut out);
    object.string("task_id", event.task_id.as_str());
    object.string_if("event_id", event.event_id.as_deref());
    object.string_if("user_id", event.user_id.as_ref().map(UserId::as_str));
    object.string_if("name", event.name.as_deref());
    object.string_if("title", event.title.as_deref());
    object.string_if("status", event.status.map(Status::as_str));
    object.number_if("progress", event.progress);
    object.number_if("current", event.current);
    object.number_if("total", event.total);
    object.string_if("unit", event.unit.as_deref());
    object.string_if("step", event.step.as_deref());
    object.string_if("message", event.message.as_deref());
    if let Some(attempt) = event.attempt {
        object.integer("attempt", u64::from(attempt));
    }
    if let Some(seq) = event.seq {
        object.integer("seq", seq);
    }
    object.string_if("parent_id", event.parent_id.as_ref().map(TaskId::as_str));
    object.string_if("root_id", event.root_id.as_ref().map(TaskId::as_str));
    object.number_if("weight", event.weight);
    if let Some(tags) = &event.tags {
        object.array("tags", tags.iter(), |out, tag| push_string(out, tag));
    }
    if let Some(result) = &event.result {
        object.json("result", result.as_str());
    }
    if let Some(error) = &event.error {
        native::write_error(&mut object, error);
    }
    if let Some(metadata) = &event.metadata {
        object.json("metadata", metadata.as_str());
    }
    object.string_if("worker", event.worker.as_deref());
    if let Some(timeout) = event.heartbeat_timeout_ms {
        object.integer("heartbeat_timeout_ms", timeout);
    }
    object.moment_if("timestamp", event.timestamp_ms);
    object.string_if("observed", event.observed.map(|position| position.to_string()).as_deref());
    if let Some(context) = &event.trace {
        object.string("traceparent", &context.traceparent());
        object.string_if("tracestate", context.state.as_deref());
    }
    object.end();
    out
}
