//! What is read again and again because it may change: files of keys, certificates, lists. It counts once two looks in a row
//! saw the same, since it may have been met while it was being written.
//!
//! Refuses to know: what is read, and when.

/// A thing as it is now, as far as it has settled.
#[derive(Debug)]
pub struct Settled<T> {
    taken: T,
    seen: T,
}

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    Same,
    /// It is another one than was taken, and may still be changing.
    Changing,
    /// Another one was taken.
    Taken,
}

impl<T: Clone + PartialEq> Settled<T> {
    /// What the first look saw counts at once.
    pub fn new(first: T) -> Self {
        Self { taken: first.clone(), seen: first }
    }

    pub fn look(&mut self, now: T) -> Sight {
        let is_still = now == self.seen;
        self.seen = now;
        if self.seen == self.taken {
            return Sight::Same;
        }
        if !is_still {
            return Sight::Changing;
        }
        self.taken = self.seen.clone();
        Sight::Taken
    }

    /// What was taken last.
    pub fn taken(&self) -> &T {
        &self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_when_two_looks_saw_the_same_and_then_once() {
        let mut settled = Settled::new("one");
        assert_eq!(settled.look("one"), Sight::Same);
        assert_eq!(settled.look("tw"), Sight::Changing);
        assert_eq!((settled.look("two"), *settled.taken()), (Sight::Changing, "one"));
        assert_eq!((settled.look("two"), *settled.taken()), (Sight::Taken, "two"));
        assert_eq!(settled.look("two"), Sight::Same);
    }

    #[test]
    fn what_comes_back_before_it_counted_was_never_gone() {
        let mut settled = Settled::new("one");
        assert_eq!(settled.look(""), Sight::Changing);
        assert_eq!(settled.look("one"), Sight::Same);
        assert_eq!(settled.look(""), Sight::Changing);
    }
}
