//! Where a reader of the log stands, in a form that outlives it. Refuses to know: brokers.

use crate::proto::Cursor;

/// A reader that begins here goes on after the record at the cursor, once that is proven to be the same still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bookmark {
    /// The last record that was read, and the proof of its bytes.
    pub cursor: Cursor,
    /// How many records had ever been added to the log up to there, where the log counts: by this a reader knows later
    /// whether one was trimmed unread.
    pub added: Option<u64>,
}
