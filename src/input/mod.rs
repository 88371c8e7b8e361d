//! What is not a replayable log, normalised to events and appended to the log: today the events of `POST
//! /api/v1/events`, requests to cancel, revocations, and the service's own verdicts.
//!
//! Refuses to know: sessions, HTTP.

use bytes::Bytes;

use crate::{
    log::{AppendError, Log, Outgoing},
    proto::{Event, Position, Revocation},
};

/// Stands where the routing key has a task's id. No task of this name is meant, and nothing reads it.
const REVOCATION_KEY: &str = "taskcast:revocation";

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

    /// Appends a revocation and returns once the log has confirmed it.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub async fn revoke(&self, revocation: &Revocation) -> Result<Option<Position>, AppendError> {
        let outgoing = Outgoing { task_id: REVOCATION_KEY.to_owned(), payload: Bytes::from(revocation.to_record()) };
        let positions = self.log.append(std::slice::from_ref(&outgoing)).await?;
        Ok(positions.first().copied().flatten())
    }
}
