//! A place for so many: one more, and the one that has been inside longest makes room. For what honest peers are through with
//! in a moment, so that those who only hold places lose them to those who want one.
//!
//! Refuses to know: what is done inside.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

pub(super) struct Crowd {
    max: usize,
    inside: Mutex<Inside>,
}

/// In the order in which they came.
#[derive(Default)]
struct Inside {
    came: u64,
    members: BTreeMap<u64, oneshot::Sender<()>>,
}

/// Inside until it is dropped, unless it is crowded out.
pub(super) struct Member {
    crowd: Arc<Crowd>,
    number: u64,
    crowded_out: oneshot::Receiver<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.crowd.lock().members.remove(&self.number);
    }
}

impl Member {
    /// Ends when it has to make room.
    pub async fn crowded_out(&mut self) {
        // Nothing is ever sent: the other end is dropped. Asked again it must not be polled again.
        if !self.crowded_out.is_terminated() {
            let _ = (&mut self.crowded_out).await;
        }
    }

    /// Does this unless it has to make room before; then it is dropped where it is, and `None`.
    pub async fn stay<T>(mut self, doing: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = doing => Some(done),
            () = self.crowded_out() => None,
        }
    }
}

impl Crowd {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, inside: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn enter(self: &Arc<Self>) -> Member {
        let (sender, crowded_out) = oneshot::channel();
        let mut inside = self.lock();
        let number = inside.came;
        inside.came += 1;
        inside.members.insert(number, sender);
        if inside.members.len() > self.max {
            inside.members.pop_first();
        }
        drop(inside);
        Member { crowd: self.clone(), number, crowded_out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_been_inside_longest_makes_room_and_who_left_has_made_it() {
        let crowd = Crowd::new(2);
        let (first, mut second) = (crowd.enter(), crowd.enter());
        drop(first);
        let mut third = crowd.enter();
        assert!(second.crowded_out.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        let _fourth = crowd.enter();
        second.crowded_out().await;
        assert!(third.crowded_out.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        assert_eq!(second.stay(std::future::pending::<()>()).await, None);
        assert_eq!(third.stay(std::future::ready(7)).await, Some(7));
        assert_eq!(crowd.lock().members.len(), 1);
    }
}
