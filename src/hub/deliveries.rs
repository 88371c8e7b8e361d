//! The mailboxes whose turn has come, in order, for those who deliver. Where nobody delivers, or nobody attends a mailbox,
//! its session is woken instead.
//!
//! Refuses to know: how something is delivered.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::sync::Notify;

use super::{Hub, Mailbox, Progress, Runs, lock};
use crate::{clock::Now, metrics::Tally, traces::Traced};

#[derive(Default)]
pub(super) struct Deliveries {
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    due: VecDeque<Arc<Mailbox>>,
    workers: usize,
}

impl Deliveries {
    pub(super) fn hand_out(&self, mailboxes: Vec<Arc<Mailbox>>) {
        let mut has_due = false;
        {
            let mut queue = lock(&self.queue);
            for mailbox in mailboxes {
                if queue.workers == 0 || !mailbox.is_attended() {
                    mailbox.wake();
                } else if !mailbox.set_due(true) {
                    queue.due.push_back(mailbox);
                    has_due = true;
                }
            }
        }
        if has_due {
            self.filled.notify_one();
        }
    }
}

/// What those who are delivered to share for a moment.
pub struct Turn {
    pub now: Now,
    /// As it was when the turn began: at most a few deliveries old.
    pub progress: Progress,
    pub runs: Runs,
    pub tally: Tally,
    /// Written since the clock was read last, and followed by a trace.
    pub traced: Vec<Traced>,
}

/// Somebody who delivers. Any number may work side by side.
pub struct Worker(Hub);

impl Hub {
    /// The first turn of a worker.
    #[must_use]
    pub fn turn(&self, now: Now) -> Turn {
        Turn {
            now,
            progress: self.progress(),
            runs: Runs::default(),
            tally: self.0.metrics.tally(),
            traced: Vec::new(),
        }
    }

    /// A new worker; while there is one, mailboxes that are attended wait for it.
    #[must_use]
    pub fn worker(&self) -> Worker {
        lock(&self.0.deliveries.queue).workers += 1;
        Worker(self.clone())
    }
}

impl Worker {
    /// Resolves when there may be something to deliver. Cancel safe.
    pub fn due(&self) -> impl Future<Output = ()> {
        self.0.0.deliveries.filled.notified()
    }

    /// Moves the next `max` mailboxes to `due`; false when there are none. Wakes another worker if there are more.
    pub fn take(&self, max: usize, due: &mut Vec<Arc<Mailbox>>) -> bool {
        let deliveries = &self.0.0.deliveries;
        let mut queue = lock(&deliveries.queue);
        let count = queue.due.len().min(max);
        due.extend(queue.due.drain(..count).inspect(|mailbox| {
            mailbox.set_due(false);
        }));
        let (has_more, has_help) = (!queue.due.is_empty(), queue.workers > 1);
        if !has_more {
            // What a crowd took is given back.
            queue.due.shrink_to(max);
        }
        drop(queue);
        if has_more && has_help {
            deliveries.filled.notify_one();
        }
        count > 0
    }

    /// Delivers what is due to a few sessions, or wakes them.
    pub fn deliver(&self, due: &[Arc<Mailbox>], turn: &mut Turn) {
        turn.progress = self.0.progress();
        for mailbox in due {
            mailbox.prefetch();
        }
        for attendant in due.iter().filter_map(|mailbox| mailbox.attendant()) {
            attendant.prefetch();
        }
        for mailbox in due {
            if !mailbox.attendant().is_some_and(|attendant| attendant.deliver(turn)) {
                mailbox.wake();
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.0.deliveries.queue);
        queue.workers -= 1;
        if queue.workers == 0 {
            for mailbox in queue.due.drain(..) {
                mailbox.set_due(false);
                mailbox.wake();
            }
        }
    }
}
