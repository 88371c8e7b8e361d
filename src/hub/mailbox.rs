//! Where the hub leaves marks for one session: which tasks have something new. Never a message, so its size is bounded
//! by the number of tasks watched, however slow the session is.
//!
//! Refuses to know: what is new, and whether the session may see it.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use smallvec::SmallVec;
use tokio::sync::Notify;

use super::{deliveries::Turn, slot::Slot};
use crate::proto::Position;

/// Marks are compacted when there are this many, then at every doubling.
const COMPACT_AT_MIN: usize = 64;

/// Most have one task marked at a time, which then costs no memory of its own.
pub(super) type Slots = SmallVec<[Arc<Slot>; 1]>;

/// Somebody who can look into a mailbox at once, without being scheduled for it.
pub trait Attendant: Send + Sync {
    /// Looks at what [`Attendant::deliver`] begins with, without waiting for it: it lies somewhere in memory.
    fn prefetch(&self);

    /// Takes what is due to its end, if nothing stands in the way. False when its own task must be woken for it.
    fn deliver(&self, turn: &mut Turn) -> bool;
}

/// One session's mailbox.
#[derive(Default)]
pub struct Mailbox {
    marks: Mutex<Marks>,
    wake: Notify,
    /// Holds the mailbox in turn, until it is done.
    attendant: OnceLock<Arc<dyn Attendant>>,
    /// It stands in the list of deliveries; whoever looks or writes holds that list's lock.
    is_due: AtomicBool,
}

#[derive(Default)]
struct Marks {
    slots: Slots,
    compact_at: usize,
    urgent: bool,
}

impl Mailbox {
    /// Notes that a task has something new; `urgent` when it ended. Does not wake the session. True when a wake-up is
    /// due: this is the first mark, or the first that a throttled session must not let wait.
    pub(super) fn mark(&self, slot: &Arc<Slot>, urgent: bool) -> bool {
        let mut marks = self.lock();
        let is_news = marks.slots.is_empty() || (urgent && !marks.urgent);
        marks.urgent |= urgent;
        if marks.slots.last().is_some_and(|last| Arc::ptr_eq(last, slot)) {
            return is_news;
        }
        if marks.slots.len() >= marks.compact_at.max(COMPACT_AT_MIN) {
            compact(&mut marks.slots);
            marks.compact_at = 2 * marks.slots.len();
        }
        marks.slots.push(slot.clone());
        is_news
    }

    /// From now on `attendant` is asked first. Only the first one counts. It must let go of the mailbox in the end.
    pub fn attend(&self, attendant: Arc<dyn Attendant>) {
        let _ = self.attendant.set(attendant);
    }

    pub(super) fn is_attended(&self) -> bool {
        self.attendant.get().is_some()
    }

    /// Notes whether it stands in the list of deliveries; whether it did. With that list's lock held.
    pub(super) fn set_due(&self, is_due: bool) -> bool {
        let was_due = self.is_due.load(Ordering::Relaxed);
        self.is_due.store(is_due, Ordering::Relaxed);
        was_due
    }

    pub(super) fn attendant(&self) -> Option<&dyn Attendant> {
        self.attendant.get().map(|attendant| &**attendant)
    }

    /// Looks at it without waiting for it. A crowd lies all over the memory, and the processor can wait for many places at a
    /// time, but not beyond a lock.
    pub(super) fn prefetch(&self) {
        std::hint::black_box((self.marks.is_poisoned(), self.attendant.get().is_some()));
    }

    /// Lets the session look.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Resolves when there may be something to pull. Cancel safe.
    pub fn woken(&self) -> impl Future<Output = ()> {
        self.wake.notified()
    }

    /// How many marks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().slots.len()
    }

    /// Nothing is marked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Something is marked; and whether a task among it ended.
    #[must_use]
    pub fn state(&self) -> (bool, bool) {
        let marks = self.lock();
        (!marks.slots.is_empty(), marks.urgent)
    }

    /// Among what is marked is something newer than `position`.
    #[must_use]
    pub fn has_beyond(&self, position: Position) -> bool {
        // A task's lock comes before a mailbox's.
        let slots = self.lock().slots.clone();
        slots.iter().any(|slot| slot.current().position() > position)
    }

    /// Forgets all marks.
    pub fn clear(&self) {
        self.take();
    }

    /// Takes all marks, each task once.
    pub(super) fn take(&self) -> Slots {
        let mut slots = std::mem::take(&mut *self.lock()).slots;
        compact(&mut slots);
        slots
    }

    /// Takes the mark, if there is just one; and whether it was urgent.
    pub(super) fn take_only(&self) -> Option<(Arc<Slot>, bool)> {
        let mut marks = self.lock();
        if marks.slots.len() != 1 {
            return None;
        }
        let Marks { mut slots, urgent, .. } = std::mem::take(&mut *marks);
        slots.pop().map(|slot| (slot, urgent))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Marks> {
        // Nothing can panic while it is held; a poisoned list of marks is still a list of marks.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn compact(slots: &mut Slots) {
    if slots.len() > 1 {
        slots.sort_unstable_by_key(|slot| Arc::as_ptr(slot).addr());
        slots.dedup_by(|a, b| Arc::ptr_eq(a, b));
    }
}
