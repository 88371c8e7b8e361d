//! What is not a replayable log, normalised to events and appended to the log: today the events of `POST
//! /api/v1/events`, requests to cancel, and the service's own verdicts.
//!
//! Refuses to know: sessions, HTTP.

use bytes::Bytes;

use crate::{
    log::{AppendError, Log, Outgoing},
    proto::{Event, Position},
};

/// Appends events to the log. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    log: Log,
}

impl Publisher {
    #[must_use]
    pub fn new(log: Log) -> Self {
        Self { log }
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
        self.log.append(&outgoing).await
    }
}
