//! taskcast's own JSON of tasks and messages: what `proto/taskcast/v1/server-message.schema.json` describes. Fields
//! without a value are left out.
//!
//! Refuses to know: dialects, frames.

use super::{
    ConnectionEstablished, Encoding, RequestId, ServerMessage, Task, TaskError, TaskFrame, TaskId, Topic, UserId,
    json_writer::{ObjectWriter, push_string},
};

/// The human line of `connection_established`.
pub(super) const GREETING: &str = "Connected to task progress updates";

/// The human lines of the messages about the service itself.
pub(super) const DEGRADED: &str = "Updates are delayed: the service waits for its event log";
pub(super) const RECOVERED: &str = "Updates are live again";
pub(super) const DRAINING: &str = "The service restarts; the connection will be closed, reconnect then";
pub(super) const EXPIRING: &str = "The token expires soon; send a fresh one in refresh_token";
/// Where nothing can be sent.
const STREAM_EXPIRING: &str = "The token expires soon; connect again with a fresh one";

/// Writes `error` of an event or a task.
pub(super) fn write_error(object: &mut ObjectWriter<'_>, error: &TaskError) {
    object.object("error", |object| {
        object.string_if("code", error.code.as_deref());
        object.string_if("message", error.message.as_deref());
        object.string_if("type", error.kind.as_deref());
        if let Some(retryable) = error.retryable {
            object.boolean("retryable", retryable);
        }
    });
}

/// Writes the fields of a task.
pub(super) fn write_task(object: &mut ObjectWriter<'_>, task: &Task) {
    object.string("task_id", task.task_id.as_str());
    object.string_if("user_id", task.user_id.as_ref().map(UserId::as_str));
    object.string_if("name", task.name.as_deref());
    object.string_if("title", task.title.as_deref());
    object.string("status", task.status.as_str());
    object.number_if("progress", task.progress);
    object.number_if("current", task.current);
    object.number_if("total", task.total);
    object.string_if("unit", task.unit.as_deref());
    object.string_if("step", task.step.as_deref());
    object.string_if("message", task.message.as_deref());
    object.integer("attempt", u64::from(task.attempt));
    object.string_if("parent_id", task.parent_id.as_ref().map(TaskId::as_str));
    object.string_if("root_id", task.root_id.as_ref().map(TaskId::as_str));
    object.number_if("weight", task.weight);
    if let Some(tags) = &task.tags {
        object.array("tags", tags.iter(), |out, tag| push_string(out, tag));
    }
    if let Some(result) = &task.result {
        object.json("result", result.as_str());
    }
    if let Some(error) = &task.error {
        write_error(object, error);
    }
    if let Some(metadata) = &task.metadata {
        object.json("metadata", metadata.as_str());
    }
    object.string_if("worker", task.worker.as_deref());
    object.moment("created_at", task.created_at_ms);
    object.moment_if("started_at", task.started_at_ms);
    object.moment("updated_at", task.updated_at_ms);
    object.moment_if("completed_at", task.completed_at_ms);
}

/// A task as one JSON object.
pub(super) fn push_task(out: &mut Vec<u8>, task: &Task) {
    let mut object = ObjectWriter::begin(out);
    write_task(&mut object, task);
    object.end();
}

/// `task_progress` or `task_completed`.
pub(super) fn task_frame(frame: &TaskFrame) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let mut object = ObjectWriter::begin(&mut out);
    object.string("type", frame.type_name());
    object.moment("timestamp", frame.applied_at_ms);
    write_task(&mut object, &frame.task);
    object.cursor("cursor", frame.cursor);
    object.end();
    out
}

/// Any message to one client, over a WebSocket or in an event stream.
pub(super) fn message(message: &ServerMessage, encoding: Encoding, unix_ms: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut object = ObjectWriter::begin(&mut out);
    object.string("type", message.type_name());
    object.moment("timestamp", unix_ms);
    write_message(&mut object, message, encoding);
    object.end();
    out
}

/// Writes the id of the request that a message answers.
pub(super) fn write_id(object: &mut ObjectWriter<'_>, id: Option<&RequestId>) {
    if let Some(id) = id {
        object.json("id", id.as_json());
    }
}

/// Writes what follows `type` and `timestamp`.
pub(super) fn write_message(object: &mut ObjectWriter<'_>, message: &ServerMessage, encoding: Encoding) {
    match message {
        ServerMessage::ConnectionEstablished(established) => write_established(object, established, encoding),
        ServerMessage::ActiveTasks { tasks, cursor, more, reset, .. } => {
            object.array("tasks", tasks.iter(), |out, frame| push_task(out, &frame.task));
            match cursor {
                Some(cursor) => object.cursor("cursor", *cursor),
                None => object.null("cursor"),
            }
            object.boolean("more", *more);
            object.string_if("reset", reset.map(super::ResumeFailure::as_str));
        }
        ServerMessage::TaskRemoved { task_id } => object.string("task_id", task_id.as_str()),
        ServerMessage::TaskStatus { task_id, task, .. } => {
            object.string("task_id", task_id.as_str());
            match task {
                Some(frame) => push_task(object.value("task"), &frame.task),
                None => object.null("task"),
            }
        }
        ServerMessage::TaskCancelled { task_id, success, .. } => {
            object.string("task_id", task_id.as_str());
            object.boolean("success", *success);
        }
        ServerMessage::Subscribed { topic, .. } | ServerMessage::Unsubscribed { topic, .. } => {
            write_topic(object, topic);
        }
        ServerMessage::Pong { client_timestamp, .. } => {
            if let Some(echo) = client_timestamp {
                object.json("client_timestamp", echo.as_json());
            }
        }
        ServerMessage::SourceDegraded { fresh_until_ms } => {
            object.string("message", DEGRADED);
            match fresh_until_ms {
                Some(moment) => object.moment("fresh_until", *moment),
                None => object.null("fresh_until"),
            }
        }
        ServerMessage::SourceRecovered { degraded_ms } => {
            object.string("message", RECOVERED);
            object.integer("degraded_ms", *degraded_ms);
        }
        ServerMessage::ServerDraining { reconnect_after_ms } => {
            object.string("message", DRAINING);
            object.integer("reconnect_after_ms", *reconnect_after_ms);
        }
        ServerMessage::TokenExpiring { token_expires_at_ms, refresh_until_ms } => {
            object.string("message", if encoding == Encoding::EventStream { STREAM_EXPIRING } else { EXPIRING });
            object.moment("token_expires_at", *token_expires_at_ms);
            object.moment("refresh_until", *refresh_until_ms);
        }
        ServerMessage::TokenRefreshed { token_expires_at_ms, .. } => {
            object.moment_if("token_expires_at", *token_expires_at_ms);
        }
        ServerMessage::Error { error_code, message, .. } => {
            object.string("error_code", error_code.as_str());
            object.string("message", message);
        }
        ServerMessage::AuthenticationError { error_code, message } => {
            object.string("error_code", error_code.as_str());
            object.string("message", message);
        }
    }
    write_id(object, message.id());
}

fn write_topic(object: &mut ObjectWriter<'_>, topic: &Topic) {
    match topic {
        Topic::Task(id) => object.string("task_id", id.as_str()),
        Topic::Root(id) => object.string("root_id", id.as_str()),
        Topic::Tag(tag) => object.string("tag", tag),
        Topic::Owner(id) => object.string("user_id", id.as_str()),
        Topic::All => object.boolean("all", true),
    }
}

fn write_established(object: &mut ObjectWriter<'_>, established: &ConnectionEstablished, encoding: Encoding) {
    object.string("message", GREETING);
    object.string("connection_id", &established.connection_id);
    match &established.user_id {
        Some(id) => object.string("user_id", id.as_str()),
        None => object.null("user_id"),
    }
    object.string("protocol", encoding.protocol());
    match &established.cursor {
        Some(cursor) => object.cursor("cursor", *cursor),
        None => object.null("cursor"),
    }
    object.boolean("resumed", established.resumed);
    object.string_if("resume_failure", established.resume_failure.map(super::ResumeFailure::as_str));
    object.integer("heartbeat_interval_ms", established.heartbeat_interval_ms);
    object.moment_if("token_expires_at", established.token_expires_at_ms);
    object.object("limits", |object| {
        object.integer("message_max_bytes", u64::from(established.limits.message_max_bytes));
        object.integer("subscriptions_max", u64::from(established.limits.subscriptions_max));
    });
    object.object("reconnect", |object| {
        object.integer("min_ms", established.reconnect_min_ms);
        object.integer("max_ms", established.reconnect_max_ms);
    });
}
