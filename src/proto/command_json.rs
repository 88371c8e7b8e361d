//! Commands in JSON: taskcast's own flat messages, and what today's front ends send by other names or inside an
//! envelope. Every mistake is answered in words; nothing of unbounded length is ever quoted back.
//!
//! Refuses to know: whether a command is allowed.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Command, CommandError, CommandKind, ErrorCode, REQUEST_ID_MAX_BYTES, RequestId, Selector, TaskId, Topic,
    event::TAG_MAX_BYTES, json_text::cut,
};

/// How much of a client's own text an answer quotes.
const QUOTE_MAX_BYTES: usize = 64;

const KNOWN_TYPES: &str =
    "subscribe, unsubscribe, get_task_status, get_active_tasks, cancel_task, refresh_token or ping";

/// The fields that any command may have, at the top or inside `data` or `payload`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    task_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "taskId")]
    task_id_camel: Option<&'a RawValue>,
    #[serde(borrow)]
    root_id: Option<&'a RawValue>,
    #[serde(borrow)]
    tag: Option<&'a RawValue>,
    #[serde(borrow)]
    token: Option<&'a RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// The mistake in a field, named.
pub(super) fn invalid(field: &str, detail: &str, id: Option<RequestId>) -> CommandError {
    CommandError { code: ErrorCode::InvalidField, message: format!("{field} {detail}"), id }
}

fn not_a_message(detail: &str) -> CommandError {
    CommandError { code: ErrorCode::InvalidMessage, message: detail.to_owned(), id: None }
}

/// Reads a command.
pub(super) fn command(text: &str) -> Result<Command, CommandError> {
    if !text.trim_start().starts_with('{') {
        // serde reads an array into a struct as well, field by field.
        return Err(not_a_message("the message must be a JSON object with a \"type\""));
    }
    let fields: Fields<'_> = serde_json::from_str(text).map_err(|error| {
        not_a_message(if error.is_data() { "a key stands twice in the message" } else { "the message is not JSON" })
    })?;
    let id = match fields.id {
        None => None,
        Some(raw) => Some(RequestId::from_json(raw.get()).ok_or_else(|| {
            invalid("id", &format!("must be a string or a number of at most {REQUEST_ID_MAX_BYTES} bytes"), None)
        })?),
    };
    match fields.command_kind() {
        Ok(kind) => Ok(Command { kind, id }),
        Err(error) => Err(CommandError { id, ..error }),
    }
}

impl<'a> Fields<'a> {
    fn command_kind(&self) -> Result<CommandKind, CommandError> {
        let Some(kind) = self.kind else { return Err(not_a_message("the message has no \"type\"")) };
        let Some(kind) = string(kind) else { return Err(not_a_message("\"type\" must be a string")) };
        match kind.as_ref() {
            "subscribe" | "subscribe_task" => self.selector().map(CommandKind::Subscribe),
            "unsubscribe" | "unsubscribe_task" => self.selector().map(CommandKind::Unsubscribe),
            "get_task_status" | "get_status" => self.task_id().map(CommandKind::GetTaskStatus),
            "get_active_tasks" | "list_tasks" => Ok(CommandKind::GetActiveTasks),
            "cancel_task" => self.task_id().map(CommandKind::CancelTask),
            "auth" | "refresh_token" => self.token(),
            "ping" => Ok(self.ping()),
            "pong" | "check_task_completion" => Ok(CommandKind::Ignored),
            unknown => Err(CommandError {
                code: ErrorCode::UnknownType,
                message: format!("unknown type {:?}; known are {KNOWN_TYPES}", cut(unknown, QUOTE_MAX_BYTES)),
                id: None,
            }),
        }
    }

    /// The envelope's inside, when there is one: `data`, else `payload`.
    fn inside(&self) -> Fields<'a> {
        let object = [self.data, self.payload].into_iter().flatten().find(|raw| raw.get().starts_with('{'));
        object.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }

    /// The first of these that is given, at the top before inside.
    fn find(&self, get: impl Fn(&Fields<'a>) -> Option<&'a RawValue>) -> Option<&'a RawValue> {
        get(self).or_else(|| get(&self.inside()))
    }

    fn required(
        &self,
        name: &'static str,
        get: impl Fn(&Fields<'a>) -> Option<&'a RawValue>,
    ) -> Result<Cow<'a, str>, CommandError> {
        let raw = self.find(get).ok_or_else(|| invalid(name, "is required", None))?;
        string(raw).ok_or_else(|| invalid(name, "must be a string", None))
    }

    fn task_id(&self) -> Result<TaskId, CommandError> {
        task_id_of("task_id", &self.required("task_id", |fields| fields.task_id.or(fields.task_id_camel))?)
    }

    fn token(&self) -> Result<CommandKind, CommandError> {
        let token = self.required("token", |fields| fields.token)?;
        if token.is_empty() {
            return Err(invalid("token", "must not be empty", None));
        }
        Ok(CommandKind::Authenticate { token: token.into_owned() })
    }

    fn selector(&self) -> Result<Selector, CommandError> {
        let given: Vec<(&str, &RawValue)> = [
            ("task_id", self.find(|fields| fields.task_id.or(fields.task_id_camel))),
            ("root_id", self.find(|fields| fields.root_id)),
            ("tag", self.find(|fields| fields.tag)),
        ]
        .into_iter()
        .filter_map(|(name, raw)| raw.map(|raw| (name, raw)))
        .collect();
        match given[..] {
            [(name, raw)] => selector_of(name, &string(raw).ok_or_else(|| invalid(name, "must be a string", None))?),
            [] => Err(invalid("task_id", "is required, or root_id, or tag; \"*\" stands for all of yours", None)),
            _ => Err(invalid("task_id", "must stand alone: name one of task_id, root_id and tag", None)),
        }
    }

    /// A ping; but one that carries a subscription of the envelope's `system` channel is not about this service's
    /// tasks, and asks for nothing.
    fn ping(&self) -> CommandKind {
        let is_system = self.channel.and_then(string).is_some_and(|channel| channel == "system");
        if is_system {
            return CommandKind::Ignored;
        }
        // The envelope dates itself and its data; what the client compares is the data's.
        let inside = self.inside().timestamp;
        let timestamp = inside.or(self.timestamp);
        CommandKind::Ping { client_timestamp: timestamp.and_then(|raw| RequestId::from_json(raw.get())) }
    }
}

fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(text).ok().map(Cow::Owned)
}

/// A task's id in a field.
pub(super) fn task_id_of(field: &str, text: &str) -> Result<TaskId, CommandError> {
    TaskId::parse(text).map_err(|error| invalid(field, &error.to_string(), None))
}

/// What a field of a subscription names.
pub(super) fn selector_of(field: &str, text: &str) -> Result<Selector, CommandError> {
    match field {
        "task_id" if text == "*" => Ok(Selector::Mine),
        "task_id" => task_id_of(field, text).map(|id| Selector::Topic(Topic::Task(id))),
        "root_id" => task_id_of(field, text).map(|id| Selector::Topic(Topic::Root(id))),
        _ if text.is_empty() || text.len() > TAG_MAX_BYTES || text.chars().any(char::is_control) => {
            let detail = format!("must have 1 to {TAG_MAX_BYTES} bytes without control characters");
            Err(invalid(field, &detail, None))
        }
        _ => Ok(Selector::Topic(Topic::Tag(text.into()))),
    }
}
