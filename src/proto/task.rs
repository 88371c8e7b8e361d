//! A task as clients see it: the state that the events so far add up to. Pure data; the rules are the hub's.

use std::sync::Arc;

use super::{JsonText, Status, TaskError, TaskId, UserId, native};

/// The whole current state of a task. Cloning costs reference counts, not text.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub task_id: TaskId,
    pub user_id: Option<UserId>,
    pub name: Option<Arc<str>>,
    pub title: Option<Arc<str>>,
    pub status: Status,
    /// Percent, 0 to 100; 100 only when succeeded.
    pub progress: Option<f64>,
    pub current: Option<f64>,
    pub total: Option<f64>,
    pub unit: Option<Arc<str>>,
    pub step: Option<Arc<str>>,
    pub message: Option<Arc<str>>,
    pub attempt: u32,
    pub parent_id: Option<TaskId>,
    pub root_id: Option<TaskId>,
    pub weight: Option<f64>,
    pub tags: Option<Arc<[Arc<str>]>>,
    pub result: Option<JsonText>,
    pub error: Option<Arc<TaskError>>,
    pub metadata: Option<JsonText>,
    pub worker: Option<Arc<str>>,
    pub heartbeat_timeout_ms: Option<u64>,
    /// Milliseconds since the Unix epoch, like those below: of the first event.
    pub created_at_ms: u64,
    /// When it first ran.
    pub started_at_ms: Option<u64>,
    /// Of the latest event.
    pub updated_at_ms: u64,
    /// When it ended; `None` while live. `completed_at` on the wire.
    pub completed_at_ms: Option<u64>,
}

impl Task {
    /// The group that the task belongs to: its root, else its parent, else itself.
    #[must_use]
    pub fn group(&self) -> &TaskId {
        self.root_id.as_ref().or(self.parent_id.as_ref()).unwrap_or(&self.task_id)
    }

    /// The task as one object of native JSON, without a cursor: an item of `active_tasks`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        native::push_task(&mut out, self);
        out
    }
}
