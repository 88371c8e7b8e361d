//! Which events and frames are followed for a trace. Refuses to know: what becomes of the spans.

use std::sync::Arc;

use super::Hub;
use crate::{
    proto::TaskFrame,
    traces::{Taken, Traced, Traces},
};

impl Hub {
    /// From now on traced events leave spans there. Only the first one counts.
    pub fn trace_into(&self, traces: Traces) {
        let _ = self.0.traces.set(traces);
    }

    /// An event that bears a trace context was read, live.
    pub(super) fn trace(&self, taken: Taken<'_>) {
        if let Some(traces) = self.0.traces.get() {
            traces.take(taken);
        }
    }

    /// Of these frames, those that are followed until they are written; nearly always none.
    #[must_use]
    pub fn traced(&self, frames: &[Arc<TaskFrame>]) -> Option<Traced> {
        self.0.traces.get()?.among(frames.iter().map(|frame| frame.position()))
    }
}
