//! Who waits for this replica to have read as far as a position of the log: clients that come from another one which is a
//! moment ahead. Kept in the order of the log and woken one by one, each when its position is reached: while a replica
//! catches up, a thousand that wait cost a batch no more than one.
//!
//! Refuses to know: what they wait for it for, and how patient they are.

use std::{
    collections::BTreeMap,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use super::{Hub, Progress, lock};
use crate::proto::Position;

/// Those who wait, by their position and a number of their own. Each is a connection, so their number is bounded.
#[derive(Default)]
pub(super) struct Waiting {
    places: BTreeMap<(Position, u64), oneshot::Sender<()>>,
    next: u64,
}

/// Resolves when a position is reached. Dropped before, it leaves nothing behind.
pub struct Reached {
    hub: Hub,
    place: (Position, u64),
    released: oneshot::Receiver<()>,
}

impl Hub {
    /// Resolves when the log has been read to its end, and to `position`; `None` if it has.
    #[must_use]
    pub fn reached(&self, position: Position) -> Option<Reached> {
        if has_reached(&self.progress(), position) {
            return None;
        }
        let mut waiting = lock(&self.0.waiting);
        // Under the lock: either who moves on has yet to look here, or has moved already.
        if has_reached(&self.progress(), position) {
            return None;
        }
        let place = (position, waiting.next);
        waiting.next += 1;
        let (release, released) = oneshot::channel();
        waiting.places.insert(place, release);
        Some(Reached { hub: self.clone(), place, released })
    }

    /// To be called when there was progress.
    pub(super) fn release_waiting(&self) {
        let mut waiting = lock(&self.0.waiting);
        if waiting.places.is_empty() {
            return;
        }
        let progress = self.progress();
        while let Some(first) = waiting.places.first_entry()
            && has_reached(&progress, first.key().0)
        {
            // Nobody is there any more: just as well.
            let _ = first.remove().send(());
        }
    }
}

fn has_reached(progress: &Progress, position: Position) -> bool {
    progress.replayed && progress.applied.is_some_and(|applied| applied.position >= position)
}

impl Future for Reached {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.released).poll(cx).map(drop)
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        lock(&self.hub.0.waiting).places.remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Wake, Waker},
    };

    use super::{super::tests::*, *};

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Who waits for `position`, and how often that one was woken.
    fn waits(hub: &Hub, position: u64) -> (Pin<Box<Reached>>, Arc<Wakes>) {
        let mut reached = Box::pin(hub.reached(cursor(position).position).expect("not reached yet"));
        let wakes = Arc::new(Wakes::default());
        assert!(is_pending(&mut reached, &wakes));
        (reached, wakes)
    }

    fn is_pending(reached: &mut Pin<Box<Reached>>, wakes: &Arc<Wakes>) -> bool {
        reached.as_mut().poll(&mut Context::from_waker(&Waker::from(wakes.clone()))).is_pending()
    }

    fn apply(hub: &Hub, position: u64) {
        hub.apply(&[arrival(position, progress("t1", "u1", position as f64))], LATE);
    }

    #[test]
    fn each_is_woken_once_and_only_when_its_position_is_reached() {
        let hub = hub_with(settings());
        let (mut second, at_second) = waits(&hub, 2);
        let (mut third, at_third) = waits(&hub, 3);
        apply(&hub, 1);
        apply(&hub, 2);
        assert!(!is_pending(&mut second, &at_second) && is_pending(&mut third, &at_third));
        apply(&hub, 4);
        assert!(!is_pending(&mut third, &at_third), "what lies behind a position has reached it too");
        assert_eq!((at_second.0.load(Ordering::SeqCst), at_third.0.load(Ordering::SeqCst)), (1, 1));
        assert!(hub.reached(cursor(4).position).is_none());
    }

    #[test]
    fn nobody_is_woken_before_the_log_is_read_to_its_end() {
        let hub = hub_with(settings());
        hub.set_replayed(false);
        let (mut first, wakes) = waits(&hub, 1);
        apply(&hub, 2);
        assert!(is_pending(&mut first, &wakes) && wakes.0.load(Ordering::SeqCst) == 0);
        hub.set_replayed(true);
        assert!(!is_pending(&mut first, &wakes));
    }

    #[test]
    fn who_gave_up_leaves_nothing_behind() {
        let hub = hub_with(settings());
        let far = waits(&hub, u64::MAX);
        assert_eq!(lock(&hub.0.waiting).places.len(), 1);
        drop(far);
        assert!(lock(&hub.0.waiting).places.is_empty());
    }
}
