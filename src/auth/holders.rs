//! Who holds a caller's identity for longer than a request: open connections, which are asked again when a token is
//! revoked. One word in a list each, and nothing at all while nobody revokes anything.
//!
//! Refuses to know: what a holder is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{Identity, OpaqueToken, Refusal, Revocations};

/// Somebody with an identity that may have been revoked meanwhile.
pub trait Holder: Send + Sync {
    /// Looks whether its token still holds.
    fn ask_again(&self, revocations: &Revocations);

    /// Its token, if the provider that knows it is to be asked about it again.
    fn opaque_token(&self) -> Option<OpaqueToken> {
        None
    }

    /// The provider was asked again, or has been silent for too long.
    fn on_asked(&self, _token: &OpaqueToken, _answer: Result<Identity, Refusal>) {}
}

/// The list of all holders.
#[derive(Default)]
pub struct Holders(Mutex<Places>);

#[derive(Default)]
struct Places {
    taken: Vec<Option<Weak<dyn Holder>>>,
    free: Vec<u32>,
}

/// A place in the list. Whoever has it gives it back: a guard would be larger, and every open connection has one.
#[derive(Debug)]
#[must_use]
pub struct Place(u32);

impl Revocations {
    /// From now on `holder` is asked again after each revocation. What came before is for the caller to look at, behind
    /// this.
    pub fn hold(&self, holder: Weak<dyn Holder>) -> Place {
        let mut places = self.holders().lock();
        let place = places.free.pop().unwrap_or(places.taken.len() as u32);
        match places.taken.get_mut(place as usize) {
            Some(free) => *free = Some(holder),
            None => places.taken.push(Some(holder)),
        }
        Place(place)
    }

    /// Whoever had this place is gone.
    pub fn let_go_of(&self, Place(place): Place) {
        let mut places = self.holders().lock();
        if let Some(taken) = places.taken.get_mut(place as usize) {
            *taken = None;
            places.free.push(place);
        }
        if places.free.len() == places.taken.len() {
            // Nobody is left: memory falls with the crowd.
            *places = Places::default();
        }
    }
}

impl Holders {
    /// Those in up to `count` places from `first` on, and whether there are more places behind.
    #[must_use]
    pub fn part(&self, first: usize, count: usize) -> (Vec<Arc<dyn Holder>>, bool) {
        let places = self.lock();
        let part = places.taken.iter().skip(first).take(count);
        let holders = part.filter_map(|place| place.as_ref()?.upgrade()).collect();
        (holders, first.saturating_add(count) < places.taken.len())
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Nothing can panic while it is held but for want of memory.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Asked(AtomicUsize);

    impl Holder for Asked {
        fn ask_again(&self, _: &Revocations) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ask_all(revocations: &Revocations) {
        let mut first = 0;
        loop {
            let (holders, more) = revocations.holders().part(first, 2);
            for holder in holders {
                holder.ask_again(revocations);
            }
            first += 2;
            if !more {
                return;
            }
        }
    }

    fn hold(revocations: &Revocations, holder: &Arc<Asked>) -> Place {
        let weak: Weak<Asked> = Arc::downgrade(holder);
        revocations.hold(weak)
    }

    #[test]
    fn everyone_who_holds_is_asked_once_and_who_let_go_is_not() {
        let revocations = Revocations::default();
        let holders: Vec<Arc<Asked>> = (0..5).map(|_| Arc::default()).collect();
        let mut places: Vec<Place> = holders.iter().map(|holder| hold(&revocations, holder)).collect();
        revocations.let_go_of(places.remove(1));
        ask_all(&revocations);
        let asked = |holders: &[Arc<Asked>]| -> Vec<usize> {
            holders.iter().map(|holder| holder.0.load(Ordering::Relaxed)).collect()
        };
        assert_eq!(asked(&holders), [1, 0, 1, 1, 1]);
        // The free place is taken again.
        let late = Arc::default();
        let _place = hold(&revocations, &late);
        assert_eq!(revocations.holders().lock().taken.len(), 5);
        ask_all(&revocations);
        assert_eq!((asked(&holders), asked(&[late])), (vec![2, 0, 2, 2, 2], vec![1]));
    }

    #[test]
    fn the_list_is_gone_with_the_last_of_a_crowd() {
        let revocations = Revocations::default();
        let holder = Arc::default();
        let places: Vec<Place> = (0..1_000).map(|_| hold(&revocations, &holder)).collect();
        assert!(revocations.holders().lock().taken.capacity() >= 1_000);
        for place in places {
            revocations.let_go_of(place);
        }
        assert_eq!(revocations.holders().lock().taken.capacity(), 0);
    }
}
