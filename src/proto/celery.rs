//! `?dialect=celery`: the same messages with Celery's names, for front ends written against Django Channels consumers.
//! They read flat frames and ignore what they do not know, so `timestamp` and `cursor` are there too; whatever those
//! consumers never sent keeps its native form.
//!
//! Refuses to know: frames, sessions; in particular which tasks a page holds.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Encoding, ServerMessage, Status, Task, TaskFrame,
    json_writer::{ObjectWriter, push_string},
    native,
};

/// `task_progress` or `task_completed`.
pub(super) fn task_frame(frame: &TaskFrame) -> Vec<u8> {
    let task = &frame.task;
    let mut out = Vec::with_capacity(256);
    let mut object = ObjectWriter::begin(&mut out);
    object.string("type", frame.type_name());
    object.string("task_id", task.task_id.as_str());
    object.string("status", status(task));
    if task.status.is_terminal() {
        write_end(&mut object, task);
    } else {
        write_progress(&mut object, task);
    }
    object.moment("timestamp", frame.applied_at_ms);
    object.cursor("cursor", frame.cursor);
    object.end();
    out
}

/// Any message to one client.
pub(super) fn message(message: &ServerMessage, unix_ms: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut object = ObjectWriter::begin(&mut out);
    object.string("type", message.type_name());
    match message {
        ServerMessage::ActiveTasks { tasks, cursor, more, reset, id } => {
            object.moment("timestamp", unix_ms);
            let mut live: Vec<&Arc<TaskFrame>> =
                tasks.iter().filter(|frame| !frame.task.status.is_terminal()).collect();
            live.sort_by_key(|frame| std::cmp::Reverse(frame.task.created_at_ms));
            object.array("tasks", live.into_iter(), |out, frame| push_task(out, &frame.task, false));
            match cursor {
                Some(cursor) => object.cursor("cursor", *cursor),
                None => object.null("cursor"),
            }
            object.boolean("more", *more);
            object.string_if("reset", reset.map(super::ResumeFailure::as_str));
            native::write_id(&mut object, id.as_ref());
        }
        ServerMessage::TaskStatus { task_id, task, id } => {
            object.moment("timestamp", unix_ms);
            object.string("task_id", task_id.as_str());
            match task {
                Some(frame) => push_task(object.value("status"), &frame.task, true),
                None => object.null("status"),
            }
            native::write_id(&mut object, id.as_ref());
        }
        // Those consumers echo the client's own `timestamp`, if it sent one.
        ServerMessage::Pong { client_timestamp: Some(echo), id } => {
            object.json("timestamp", echo.as_json());
            native::write_id(&mut object, id.as_ref());
        }
        _ => {
            object.moment("timestamp", unix_ms);
            native::write_message(&mut object, message, Encoding::Celery);
        }
    }
    object.end();
    out
}

/// Celery's name of the state. A task that reports progress is in PROGRESS, which Celery's set has besides STARTED.
fn status(task: &Task) -> &'static str {
    let reports = task.progress.is_some() || task.current.is_some();
    match task.status.celery_name() {
        "STARTED" if reports => "PROGRESS",
        name => name,
    }
}

fn write_progress(object: &mut ObjectWriter<'_>, task: &Task) {
    object.integer("progress", task.progress.map_or(0, whole));
    object.string("current_step", task.step.as_deref().or(task.message.as_deref()).unwrap_or_default());
    object.integer("processed_items", task.current.map_or(0, whole));
    object.integer("total_items", task.total.map_or(0, whole));
}

/// Items and percents are whole numbers there, rounded down: never done before it is done.
fn whole(number: f64) -> u64 {
    number.floor() as u64
}

fn write_end(object: &mut ObjectWriter<'_>, task: &Task) {
    match &task.result {
        None => object.json("result_data", "{}"),
        Some(result) if result.is_object() => object.json("result_data", result.as_str()),
        Some(result) => object.object("result_data", |object| object.json("result", result.as_str())),
    }
    object.string("error_message", error_message(task));
}

fn error_message(task: &Task) -> &str {
    if let Some(message) = task.error.as_ref().and_then(|error| error.message.as_deref()) {
        return message;
    }
    match task.status {
        Status::Failed | Status::TimedOut | Status::Lost => task.message.as_deref().unwrap_or(match task.status {
            Status::TimedOut => "The task took too long",
            Status::Lost => "The task's worker has gone silent",
            _ => "The task failed",
        }),
        _ => "",
    }
}

/// A task as those consumers' `active_tasks` lists it; in `task_status` with how it ended.
fn push_task(out: &mut Vec<u8>, task: &Task, with_end: bool) {
    let name = task.name.as_deref();
    let mut object = ObjectWriter::begin(out);
    object.string("task_id", task.task_id.as_str());
    object.string("task_name", name.or(task.title.as_deref()).unwrap_or_else(|| task.task_id.as_str()));
    let category = category(task);
    push_string(object.value("category"), category.as_deref().or(name).unwrap_or("general"));
    object.string("status", status(task));
    write_progress(&mut object, task);
    object.moment("created_at", task.created_at_ms);
    object.moment_or_null("started_at", task.started_at_ms);
    object.moment_or_null("estimated_completion", estimated_completion_ms(task));
    if with_end {
        write_end(&mut object, task);
        object.moment_or_null("completed_at", task.completed_at_ms);
        let begun_ms = task.started_at_ms.unwrap_or(task.created_at_ms);
        match task.completed_at_ms {
            Some(ended_ms) => object.number("duration", ended_ms.saturating_sub(begun_ms) as f64 / 1000.0),
            None => object.null("duration"),
        }
    }
    object.end();
}

/// `metadata.category`, if it is a text.
fn category(task: &Task) -> Option<String> {
    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow)]
        category: Option<&'a RawValue>,
    }
    let metadata: Metadata<'_> = serde_json::from_str(task.metadata.as_ref()?.as_str()).ok()?;
    serde_json::from_str(metadata.category?.get()).ok()
}

/// Where a straight line from the start through the latest event reaches 100 %.
fn estimated_completion_ms(task: &Task) -> Option<u64> {
    let progress = task.progress.filter(|progress| *progress > 0.0 && !task.status.is_terminal())?;
    let begun_ms = task.started_at_ms.unwrap_or(task.created_at_ms);
    let elapsed_ms = task.updated_at_ms.checked_sub(begun_ms).filter(|ms| *ms > 0)?;
    // A float to integer cast saturates, and so does the text form of a moment.
    Some(begun_ms.saturating_add((elapsed_ms as f64 / progress * 100.0) as u64))
}
