//! The states of a task and every name by which workers call them.

/// What a task is doing, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    Queued,
    Running,
    Waiting,
    Retrying,
    Cancelling,
    Succeeded,
    Failed,
    Cancelled,
    TimedOut,
    Expired,
    /// A verdict of the service: the worker has gone silent. A newer event re-opens the task.
    Lost,
}

impl Status {
    pub const ALL: [Self; 11] = [
        Self::Queued,
        Self::Running,
        Self::Waiting,
        Self::Retrying,
        Self::Cancelling,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::Expired,
        Self::Lost,
    ];

    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Retrying => "retrying",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Expired => "expired",
            Self::Lost => "lost",
        }
    }

    /// The task is over (`lost` included: over until proven otherwise).
    #[must_use]
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Running | Self::Waiting | Self::Retrying | Self::Cancelling)
    }

    /// Reads a status by its own name or by any alias of `proto/taskcast/v1/contract.json`, in any case.
    #[must_use]
    pub fn parse(_text: &str) -> Option<Self> {
        todo!("proto helper")
    }

    /// The name that Celery gives to this state.
    #[must_use]
    pub fn celery_name(self) -> &'static str {
        todo!("proto helper")
    }
}
