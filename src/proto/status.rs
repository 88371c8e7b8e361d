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

    /// Other names for the states: Celery's, RQ's, BullMQ's, Sidekiq's and common synonyms, in lower case. The same
    /// list stands in `proto/taskcast/v1/contract.json`.
    pub const ALIASES: [(&str, Self); 67] = [
        ("pending", Self::Queued),
        ("received", Self::Queued),
        ("created", Self::Queued),
        ("enqueued", Self::Queued),
        ("submitted", Self::Queued),
        ("scheduled", Self::Queued),
        ("deferred", Self::Queued),
        ("prioritized", Self::Queued),
        ("rate_limited", Self::Queued),
        ("ready_to_enqueue", Self::Queued),
        ("sent", Self::Queued),
        ("new", Self::Queued),
        ("started", Self::Running),
        ("progress", Self::Running),
        ("processing", Self::Running),
        ("in_progress", Self::Running),
        ("in-progress", Self::Running),
        ("active", Self::Running),
        ("working", Self::Running),
        ("executing", Self::Running),
        ("resumed", Self::Running),
        ("paused", Self::Waiting),
        ("delayed", Self::Waiting),
        ("blocked", Self::Waiting),
        ("suspended", Self::Waiting),
        ("on_hold", Self::Waiting),
        ("waiting-children", Self::Waiting),
        ("waiting_children", Self::Waiting),
        ("retry", Self::Retrying),
        ("retried", Self::Retrying),
        ("canceling", Self::Cancelling),
        ("stopping", Self::Cancelling),
        ("revoking", Self::Cancelling),
        ("aborting", Self::Cancelling),
        ("success", Self::Succeeded),
        ("successful", Self::Succeeded),
        ("done", Self::Succeeded),
        ("complete", Self::Succeeded),
        ("completed", Self::Succeeded),
        ("finished", Self::Succeeded),
        ("ok", Self::Succeeded),
        ("failure", Self::Failed),
        ("fail", Self::Failed),
        ("error", Self::Failed),
        ("errored", Self::Failed),
        ("crashed", Self::Failed),
        ("dead", Self::Failed),
        // Celery's: the worker refused the message. Not requeued, as a rule.
        ("rejected", Self::Failed),
        ("canceled", Self::Cancelled),
        ("stopped", Self::Cancelled),
        ("revoked", Self::Cancelled),
        ("aborted", Self::Cancelled),
        ("interrupted", Self::Cancelled),
        ("terminated", Self::Cancelled),
        ("killed", Self::Cancelled),
        ("timeout", Self::TimedOut),
        ("timedout", Self::TimedOut),
        ("timed-out", Self::TimedOut),
        ("time_out", Self::TimedOut),
        ("deadline_exceeded", Self::TimedOut),
        ("soft_time_limit", Self::TimedOut),
        ("time_limit", Self::TimedOut),
        ("ttl_expired", Self::Expired),
        ("outdated", Self::Expired),
        ("stalled", Self::Lost),
        ("worker_lost", Self::Lost),
        ("orphaned", Self::Lost),
    ];

    /// Reads a status by its own name or by any of [`Self::ALIASES`], in any (ASCII) case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let own = Self::ALL.into_iter().find(|status| status.as_str().eq_ignore_ascii_case(text));
        own.or_else(|| {
            Self::ALIASES.into_iter().find(|(alias, _)| alias.eq_ignore_ascii_case(text)).map(|(_, status)| status)
        })
    }

    /// The name that Celery gives to this state, as far as it has one.
    #[must_use]
    pub fn celery_name(self) -> &'static str {
        match self {
            Self::Queued => "PENDING",
            Self::Running | Self::Waiting | Self::Cancelling => "STARTED",
            Self::Retrying => "RETRY",
            Self::Succeeded => "SUCCESS",
            Self::Failed | Self::TimedOut | Self::Lost => "FAILURE",
            Self::Cancelled | Self::Expired => "REVOKED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_in_any_case_and_means_one_status() {
        let own = Status::ALL.into_iter().map(|status| (status.as_str(), status));
        let mut seen = std::collections::HashSet::new();
        for (name, status) in own.chain(Status::ALIASES) {
            assert!(seen.insert(name), "{name} is listed twice");
            assert_eq!(name, name.to_lowercase());
            assert_eq!(Status::parse(&name.to_uppercase()), Some(status), "{name}");
        }
        assert_eq!(Status::parse("در حال اجرا"), None);
        assert_eq!(Status::parse(""), None);
    }
}
