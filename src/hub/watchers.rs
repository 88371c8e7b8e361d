//! Those who watch one topic, side by side in memory: an event goes through all of them.
//!
//! Refuses to know: the topic, and who locks this.

use std::sync::Arc;

use super::mailbox::Mailbox;

/// Watchers are marked this many at a time with the lock held, so that a crowd around one task delays nobody else for
/// longer than that.
pub(super) const WATCHERS_PER_LOCK: usize = 128;

/// Whoever leaves leaves a gap; when half of the places are gaps, they are closed. So coming and going cost next to
/// nothing, and memory falls with the crowd.
#[derive(Default)]
pub(super) struct Watchers {
    /// Ascending by the number of the watch.
    places: Vec<Place>,
    gaps: usize,
}

pub(super) type Place = (u64, Option<Arc<Mailbox>>);

impl Watchers {
    /// `number` is higher than any before.
    pub(super) fn join(&mut self, number: u64, mailbox: &Arc<Mailbox>) {
        if self.places.is_empty() {
            // Most topics have one watcher.
            self.places.reserve_exact(1);
        }
        self.places.push((number, Some(mailbox.clone())));
    }

    pub(super) fn leave(&mut self, number: u64) {
        let Ok(index) = self.places.binary_search_by_key(&number, |(number, _)| *number) else { return };
        if self.places[index].1.take().is_some() {
            self.gaps += 1;
        }
        if 2 * self.gaps >= self.places.len() {
            self.places.retain(|(_, mailbox)| mailbox.is_some());
            self.places.shrink_to_fit();
            self.gaps = 0;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The next places behind the watch `after`, gaps among them; fewer than [`WATCHERS_PER_LOCK`] only at the end.
    pub(super) fn piece(&self, after: Option<u64>) -> &[Place] {
        let from = after.map_or(0, |after| self.places.partition_point(|(number, _)| *number <= after));
        let rest = &self.places[from..];
        &rest[..rest.len().min(WATCHERS_PER_LOCK)]
    }

    pub(super) fn mailboxes(&self) -> impl Iterator<Item = &Arc<Mailbox>> {
        self.places.iter().filter_map(|(_, mailbox)| mailbox.as_ref())
    }

    /// For how many there is room.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.places.capacity()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whoever_stays_is_met_once_whoever_comes_and_goes_between_pieces(
            first in 0..400_u64,
            leaving in prop::collection::vec(prop::collection::vec(0..600_u64, 0..200), 0..6),
        ) {
            let (mut watchers, mut model) = (Watchers::default(), BTreeMap::new());
            let join = |watchers: &mut Watchers, model: &mut BTreeMap<u64, Arc<Mailbox>>, number| {
                let mailbox = Arc::default();
                watchers.join(number, &mailbox);
                model.insert(number, mailbox);
            };
            (0..first).for_each(|number| join(&mut watchers, &mut model, number));
            let stay = |model: &BTreeMap<u64, Arc<Mailbox>>| model.keys().copied().collect::<Vec<_>>();
            let (at_first, mut after, mut met) = (stay(&model), None, Vec::new());
            let mut rounds = leaving.into_iter();
            loop {
                let piece = watchers.piece(after);
                met.extend(piece.iter().filter(|(_, mailbox)| mailbox.is_some()).map(|(number, _)| *number));
                after = piece.last().map(|(number, _)| *number).or(after);
                let is_last = piece.len() < WATCHERS_PER_LOCK;
                for number in rounds.next().unwrap_or_default() {
                    watchers.leave(number);
                    model.remove(&number);
                }
                let next = model.keys().last().map_or(1_000, |last| last.max(&1_000) + 1);
                join(&mut watchers, &mut model, next);
                if is_last {
                    break;
                }
            }
            prop_assert!(met.is_sorted_by(|a, b| a < b), "each once");
            prop_assert!(at_first.iter().filter(|number| model.contains_key(number)).all(|stays| met.contains(stays)));
            prop_assert_eq!(watchers.mailboxes().count(), model.len());
            prop_assert!(watchers.room() <= 4 * model.len().max(1), "no memory for who left");
        }
    }
}
