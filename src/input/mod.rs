//! What is not a replayable log, normalised to events and appended to the log: today the events of `POST
//! /api/v1/events`, requests to cancel, and the service's own verdicts.
//!
//! Refuses to know: sessions, HTTP.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    clock,
    log::{AppendError, Log, Outgoing},
    metrics::Metrics,
    proto::{Event, Position},
};

/// Appends events to the log. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    log: Log,
    metrics: Arc<Metrics>,
}

impl Publisher {
    #[must_use]
    pub fn new(log: Log, metrics: Arc<Metrics>) -> Self {
        Self { log, metrics }
    }

    /// Appends all events in order and returns once the log has confirmed them.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub async fn publish(&self, events: &[Event]) -> Result<Vec<Option<Position>>, AppendError> {
        let outgoing: Vec<Outgoing> = events
            .iter()
            .map(|event| Outgoing { task_id: event.task_id.as_str().to_owned(), payload: Bytes::from(event.to_json()) })
            .collect();
        let started = clock::now().instant;
        let appended = self.log.append(&outgoing).await;
        let took: Duration = clock::now().instant.saturating_duration_since(started);
        self.metrics.appended(took, appended.is_ok());
        appended
    }
}
