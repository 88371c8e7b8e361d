//! What one connection may send: messages and bytes, each at a rate.
//!
//! Refuses to know: what is in them.

use std::time::Instant;

use super::rate::Meter;
use crate::metrics::Limit;

/// Both meters of one connection. Made with its first bytes: an idle one has none.
pub struct Meters {
    messages: Option<Meter>,
    bytes: Option<Meter>,
}

impl Meters {
    /// 0 is no limit.
    #[must_use]
    pub fn new(messages_per_minute: u32, bytes_per_minute: u32, now: Instant) -> Self {
        Self { messages: Meter::new(messages_per_minute, now), bytes: Meter::new(bytes_per_minute, now) }
    }

    /// So many bytes came.
    ///
    /// # Errors
    /// The limit that they are over.
    pub fn bytes(&self, count: usize, now: Instant) -> Result<(), Limit> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let is_within = self.bytes.as_ref().is_none_or(|meter| meter.take(count, now));
        if is_within { Ok(()) } else { Err(Limit::Bytes) }
    }

    /// A message came, or a ping or a pong.
    ///
    /// # Errors
    /// The limit that it is over.
    pub fn message(&self, now: Instant) -> Result<(), Limit> {
        let is_within = self.messages.as_ref().is_none_or(|meter| meter.take(1, now));
        if is_within { Ok(()) } else { Err(Limit::Messages) }
    }
}
