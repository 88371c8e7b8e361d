//! stub
use crate::proto::{TaskFrame, TaskId, Topic};
use std::sync::Arc;

/// The tasks. Cheap to clone.
#[derive(Clone)]
pub struct Hub {}

/// Limits and retention of tasks; every field has a key in the configuration's `[tasks]` table.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Tasks held at most; beyond it the longest-ended are let go, then new ones are dropped and counted.
    pub max: usize,
    /// Frames kept per task.
    pub ring_frames: usize,
    /// How long an ended task is kept.
    pub retain_ended: std::time::Duration,
    /// How long a live task without events is kept.
    pub retain_idle: std::time::Duration,
    /// How many recent positions can be resumed from; 16 bytes each.
    pub resume_window: usize,
}

impl Hub {
    /// The current frame of a task, whoever asks; access is the caller's business.
    #[must_use]
    pub fn task(&self, _id: &TaskId) -> Option<Arc<TaskFrame>> {
        todo!("hub")
    }

    /// The current frames of all tasks under these topics, each once, newest position first.
    #[must_use]
    pub fn tasks(&self, _topics: &[Topic]) -> Vec<Arc<TaskFrame>> {
        todo!("hub")
    }
}
