//! The closed sets of label values, and the lag of the log.
//!
//! Refuses to know: the library that counts.

/// How an HTTP request for a WebSocket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    Accepted,
    BadRequest,
    OriginRefused,
    OverCapacity,
    /// By a limit of its address; `taskcast_limit_refusals_total` says which.
    Limited,
    /// Memory is short.
    Overloaded,
    Draining,
}

impl Handshake {
    pub(super) const ALL: [Self; 7] = [
        Self::Accepted,
        Self::BadRequest,
        Self::OriginRefused,
        Self::OverCapacity,
        Self::Limited,
        Self::Overloaded,
        Self::Draining,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::BadRequest => "bad_request",
            Self::OriginRefused => "origin_refused",
            Self::OverCapacity => "over_capacity",
            Self::Limited => "limited",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
        }
    }
}

/// What became of an event that could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Applied,
    /// Seen before: same position, same `event_id`, same `seq`, or the same end again.
    Duplicate,
    /// Older than what is known.
    Stale,
    /// The task has ended in this attempt, or in one that cannot be re-opened.
    IllegalEnded,
    /// Names another owner than the task's.
    IllegalOwner,
    /// The limit of tasks was reached; the task is not kept.
    Dropped,
    /// The limit of bytes was.
    DroppedBytes,
    /// The limit of its owner was.
    DroppedOwner,
    /// A delivery canary: this replica's, another's, or what a stranger wrote under a reserved id.
    Canary,
}

impl Outcome {
    pub(super) const ALL: [Self; 9] = [
        Self::Applied,
        Self::Duplicate,
        Self::Stale,
        Self::IllegalEnded,
        Self::IllegalOwner,
        Self::Dropped,
        Self::DroppedBytes,
        Self::DroppedOwner,
        Self::Canary,
    ];

    #[must_use]
    pub fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::Applied => ("applied", ""),
            Self::Duplicate => ("duplicate", ""),
            Self::Stale => ("stale", ""),
            Self::IllegalEnded => ("illegal", "ended"),
            Self::IllegalOwner => ("illegal", "owner"),
            Self::Dropped => ("dropped", "limit"),
            Self::DroppedBytes => ("dropped", "bytes"),
            Self::DroppedOwner => ("dropped", "owner_limit"),
            Self::Canary => ("canary", ""),
        }
    }
}

/// Why a task is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    Ended,
    Idle,
    Limit,
    Bytes,
    OwnerLimit,
}

impl Eviction {
    pub(super) const ALL: [Self; 5] = [Self::Ended, Self::Idle, Self::Limit, Self::Bytes, Self::OwnerLimit];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Idle => "idle",
            Self::Limit => "limit",
            Self::Bytes => "bytes",
            Self::OwnerLimit => "owner_limit",
        }
    }
}

/// How the reader stands to the end of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    pub events: u64,
    pub seconds: f64,
}
