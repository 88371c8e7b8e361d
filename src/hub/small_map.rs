//! An ordered map that is read a piece at a time, so that nobody has to hold a lock for all of it. Of one entry, which is
//! common, it is made without an allocation; when entries go, so does their memory.
//!
//! Refuses to know: what its keys mean, and who locks it.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

/// Ascending by key.
pub(super) enum SmallMap<K, V> {
    Few(Option<(K, V)>),
    Many(BTreeMap<K, V>),
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self::Few(None)
    }
}

impl<K: Ord + Copy, V> SmallMap<K, V> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(one) => usize::from(one.is_some()),
            Self::Many(many) => many.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts `value` at `key`, in the place of what may be there.
    pub(super) fn insert(&mut self, key: K, value: V) {
        match self {
            Self::Few(one) => match one.take() {
                Some((other, kept)) if other != key => {
                    *self = Self::Many(BTreeMap::from([(other, kept), (key, value)]));
                }
                _ => *one = Some((key, value)),
            },
            Self::Many(many) => {
                many.insert(key, value);
            }
        }
    }

    pub(super) fn remove(&mut self, key: K) {
        match self {
            Self::Few(one) => *one = one.take().filter(|(held, _)| *held != key),
            Self::Many(many) => {
                many.remove(&key);
                if many.len() <= 1 {
                    *self = Self::Few(many.pop_first());
                }
            }
        }
    }

    /// The entries behind `after`; all, without it.
    pub(super) fn after(&self, after: Option<K>) -> impl Iterator<Item = (K, &V)> {
        let (one, many) = match self {
            Self::Few(one) => (one.as_ref(), None),
            Self::Many(many) => (None, Some(many.range((after.map_or(Unbounded, Excluded), Unbounded)))),
        };
        let one = one.filter(move |(key, _)| after.is_none_or(|after| *key > after));
        let many = many.into_iter().flatten().map(|(key, value)| (*key, value));
        one.map(|(key, value)| (*key, value)).into_iter().chain(many)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_an_ordered_map_would_and_can_be_read_from_anywhere(
            acts in prop::collection::vec((0..6_u64, any::<bool>()), 0..40),
            from in prop::option::of(0..7_u64),
        ) {
            let (mut small, mut model) = (SmallMap::default(), BTreeMap::new());
            for (number, (key, is_insert)) in acts.into_iter().enumerate() {
                if is_insert {
                    small.insert(key, number);
                    model.insert(key, number);
                } else {
                    small.remove(key);
                    model.remove(&key);
                }
                prop_assert_eq!((small.len(), small.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(matches!(small, SmallMap::Few(_)), model.len() <= 1, "no memory for what is gone");
                let read: Vec<_> = small.after(from).map(|(key, value)| (key, *value)).collect();
                let expected: Vec<_> =
                    model.iter().filter(|(key, _)| from.is_none_or(|from| **key > from)).map(|(k, v)| (*k, *v)).collect();
                prop_assert_eq!(read, expected);
            }
        }
    }
}
