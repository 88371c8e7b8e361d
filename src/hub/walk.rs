//! A walk over the tasks under some topics, ascending, collected a piece at a time and read when it is sent: what a
//! client that connects makes the service hold is bounded, however many tasks there are and however slowly it reads.
//!
//! Refuses to know: what is sent, and how large a page is.

use std::{collections::VecDeque, sync::Arc};

use super::{Hub, Under, names::is_heard_under, select::has_reserved, slot::Slot};
use crate::proto::{Position, Task, TaskFrame, Topic};

/// Tasks that a walk holds at most: 24 bytes each.
/// Few in tests of this crate, so that all of them walk from piece to piece.
pub(super) const PIECE_TASKS: usize = if cfg!(test) { 64 } else { 2048 };

/// Places that are looked at in one go where few of them are wanted; then others have their turn.
const PLACES_LOOKED_AT_MAX: usize = if cfg!(test) { 32 } else { 8192 };

/// What comes next in a walk.
pub enum Next {
    Task(Arc<TaskFrame>),
    /// Nothing was found yet, and it has looked at enough for now.
    Later,
    End,
}

/// The tasks whose newest frame is not beyond a position. One that moves on meanwhile is passed over: it is marked in
/// the mailbox of whoever watched it when the walk began.
pub struct Walk {
    under: Under,
    /// Collected up to here; all there is when it is `through`.
    after: Position,
    through: Position,
    piece: VecDeque<(Position, Arc<Slot>)>,
}

impl Walk {
    #[must_use]
    pub fn new(under: impl Into<Under>, through: Position) -> Self {
        Self { under: under.into(), after: Position::START, through, piece: VecDeque::new() }
    }

    #[must_use]
    pub fn through(&self) -> Position {
        self.through
    }

    /// Goes no further.
    pub fn end(&mut self) {
        self.piece = VecDeque::new();
        self.after = self.through;
    }

    /// Shows no more what is under `topic` and under nothing of the `rest`.
    pub fn give_up(&mut self, topic: &Topic, rest: &[Topic]) {
        self.under.give_up(topic);
        self.piece.retain(|(_, slot)| !Hub::is_given_up(&slot.current().task, topic, rest));
    }

    /// Past what [`Hub::next`] showed.
    pub fn advance(&mut self) {
        self.piece.pop_front();
    }
}

impl Hub {
    /// As [`Hub::next`], however much has to be looked at.
    pub fn peek(&self, walk: &mut Walk, sees: impl Fn(&Task) -> bool) -> Option<Arc<TaskFrame>> {
        loop {
            match self.next(walk, &sees) {
                Next::Task(frame) => return Some(frame),
                Next::Later => {}
                Next::End => return None,
            }
        }
    }

    /// The next task of a walk that `sees` lets pass, as it is now.
    pub fn next(&self, walk: &mut Walk, sees: impl Fn(&Task) -> bool) -> Next {
        for is_collected in [false, true] {
            while let Some((_, slot)) = walk.piece.front() {
                let frame = slot.current();
                if frame.position() <= walk.through && sees(&frame.task) {
                    return Next::Task(frame);
                }
                walk.piece.pop_front();
            }
            if walk.after >= walk.through {
                walk.piece = VecDeque::new();
                return Next::End;
            }
            if !is_collected {
                self.collect_piece(walk, &sees);
            }
        }
        Next::Later
    }

    fn collect_piece(&self, walk: &mut Walk, sees: impl Fn(&Task) -> bool) {
        if self.is_better_in_order(walk.under.sources()) {
            return self.collect_in_order(walk, sees);
        }
        let mut piece: Vec<(Position, Arc<Slot>)> = Vec::new();
        let mut through = walk.through;
        let is_wanted = |task: &Task| walk.under.has(task) && sees(task);
        self.each_under(walk.under.sources(), |slot| {
            let at = {
                let state = slot.lock();
                let frame = state.current();
                Some(frame.position()).filter(|at| *at > walk.after && *at <= through && is_wanted(&frame.task))
            };
            piece.extend(at.map(|at| (at, slot.clone())));
            if piece.len() == 2 * PIECE_TASKS {
                through = cut(&mut piece).unwrap_or(through);
            }
        });
        walk.after = cut(&mut piece).unwrap_or(through);
        piece.shrink_to_fit();
        walk.piece = piece.into();
    }

    /// Each piece costs a look at every task under the topics, or at those of all tasks that come next: whichever is
    /// less, to the end of the walk.
    fn is_better_in_order(&self, topics: &[Topic]) -> bool {
        if has_reserved(topics) {
            return false;
        }
        let listed = self.count_under(topics);
        topics.contains(&Topic::All) || listed.saturating_mul(listed / PIECE_TASKS) > self.len()
    }

    /// Of all tasks, in the order of the log, the next that are under the topics; perhaps none yet.
    fn collect_in_order(&self, walk: &mut Walk, sees: impl Fn(&Task) -> bool) {
        let (mut piece, mut looked_at) = (VecDeque::new(), 0);
        while piece.is_empty() && looked_at < PLACES_LOOKED_AT_MAX && walk.after < walk.through {
            let places = self.0.order.piece(walk.after, walk.through);
            walk.after = places.last().map_or(walk.through, |(last, _)| *last);
            looked_at += places.len();
            let wanted = |(position, slot): &(Position, Arc<Slot>)| {
                let frame = slot.current();
                frame.position() == *position && is_heard_under(&frame.task, &walk.under.topics) && sees(&frame.task)
            };
            piece.extend(places.into_iter().filter(wanted));
        }
        walk.piece = piece;
    }
}

/// Keeps the first of what was collected, ascending; the last position kept, if there was more.
fn cut(piece: &mut Vec<(Position, Arc<Slot>)>) -> Option<Position> {
    // Two topics may bring the same task; a position is of one task alone.
    piece.sort_unstable_by_key(|(position, _)| *position);
    piece.dedup_by_key(|(position, _)| *position);
    if piece.len() <= PIECE_TASKS {
        return None;
    }
    piece.truncate(PIECE_TASKS);
    piece.last().map(|(position, _)| *position)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::{super::tests::*, *};
    use crate::{hub::Settings, proto::Event};

    const TASKS: u64 = 3 * PIECE_TASKS as u64;

    fn large_hub() -> Hub {
        hub_of(TASKS)
    }

    fn hub_of(tasks: u64) -> Hub {
        let hub = hub_with(Settings { max: 100_000, ..settings() });
        let event = |n: u64| Event {
            tags: Some(["tagged".into()].into()),
            ..progress(&format!("t{n}"), &format!("u{}", n % 2), 1.0)
        };
        let batch: Vec<_> = (1..=tasks).map(|n| arrival(n, event(n))).collect();
        hub.apply(&batch, LATE);
        hub
    }

    fn rest(hub: &Hub, walk: &mut Walk, sees: fn(&Task) -> bool) -> Vec<u64> {
        let mut positions = Vec::new();
        while let Some(frame) = hub.peek(walk, sees) {
            assert!(walk.piece.len() <= PIECE_TASKS && walk.piece.capacity() <= 2 * PIECE_TASKS, "a bounded piece");
            positions.push(frame.position().major);
            walk.advance();
        }
        positions
    }

    #[test]
    fn a_walk_shows_every_task_once_and_ascending_whatever_topics_overlap() {
        let hub = large_hub();
        let through = cursor(TASKS - 5).position;
        let mut walk = Walk::new(vec![Topic::All], through);
        assert_eq!(rest(&hub, &mut walk, ALL), (1..=TASKS - 5).collect::<Vec<_>>());
        let tag = vec![Topic::Tag("tagged".into())];
        assert_eq!(rest(&hub, &mut Walk::new(tag, through), ALL), (1..=TASKS - 5).collect::<Vec<_>>());
        let topics = vec![Topic::Owner(user("u0")), Topic::All, Topic::Owner(user("u1")), Topic::Task(id("t7"))];
        assert_eq!(rest(&hub, &mut Walk::new(topics, through), ALL), (1..=TASKS - 5).collect::<Vec<_>>());
        let mine = |task: &Task| task.user_id == Some(user("u1"));
        let odd: Vec<u64> = (1..=TASKS - 5).step_by(2).collect();
        assert_eq!(rest(&hub, &mut Walk::new(vec![Topic::All], through), mine), odd);
    }

    #[test]
    fn a_task_that_moves_on_is_passed_over_wherever_the_walk_is() {
        let hub = large_hub();
        let mut walk = Walk::new(vec![Topic::All], cursor(TASKS).position);
        assert_eq!(hub.peek(&mut walk, ALL).unwrap().position().major, 1);
        // One of the piece that is collected, the one that is shown, and one of a later piece.
        for (n, task) in ["t3", "t1", "t151"].into_iter().enumerate() {
            hub.apply(&[arrival(TASKS + 1 + n as u64, progress(task, "u1", 2.0))], LATE);
        }
        let expected: Vec<u64> = (1..=TASKS).filter(|n| ![1, 3, 151].contains(n)).collect();
        assert_eq!(rest(&hub, &mut walk, ALL), expected);
    }

    #[test]
    fn a_subscription_that_waits_for_its_turn_holds_no_places_of_tasks() {
        let hub = large_hub();
        let after = cursor(TASKS).position;
        let mut walk = hub.catch_up(vec![Topic::All], after, &Arc::default(), ALL).expect("something to show");
        assert_eq!((walk.piece.capacity(), rest(&hub, &mut walk, ALL).len()), (0, TASKS as usize));
        assert!(hub.catch_up(vec![Topic::All], after, &Arc::default(), |_| false).is_none(), "nothing of others");
    }

    #[test]
    fn a_walk_over_all_or_over_a_list_of_nearly_all_looks_at_each_task_once() {
        let tag = Topic::Tag("tagged".into());
        for (tasks, topic) in [(TASKS, Topic::All), (TASKS, tag), (TASKS / 2, Topic::All)] {
            let hub = hub_of(tasks);
            let looks = Cell::new(0);
            let sees = |_: &Task| {
                looks.set(looks.get() + 1);
                true
            };
            let mut walk = Walk::new(vec![topic], cursor(tasks).position);
            while hub.peek(&mut walk, sees).is_some() {
                walk.advance();
            }
            assert_eq!(looks.get(), 2 * tasks, "one when it is collected, one when it is shown");
        }
    }

    #[test]
    fn a_walk_that_finds_little_looks_at_so_many_in_one_go_and_goes_on_later() {
        let hub = large_hub();
        let (last, looks) = (Cell::new(0), Cell::new(0));
        let sees = |task: &Task| {
            looks.set(looks.get() + 1);
            task.task_id == id(&format!("t{TASKS}"))
        };
        let mut walk = Walk::new(vec![Topic::All], cursor(TASKS).position);
        let mut turns = 0;
        let found = loop {
            let next = hub.next(&mut walk, sees);
            let most = looks.get() - last.replace(looks.get());
            assert!(most <= 2 * PLACES_LOOKED_AT_MAX + 1, "{most} in one go");
            match next {
                Next::Task(frame) => break frame,
                Next::Later => turns += 1,
                Next::End => panic!("it is not there"),
            }
        };
        assert_eq!(found.position().major, TASKS);
        assert!(turns > 1 && turns >= TASKS / (2 * PLACES_LOOKED_AT_MAX as u64), "{turns} turns");
    }

    #[test]
    fn a_walk_that_was_ended_shows_nothing_more() {
        let hub = large_hub();
        let mut walk = Walk::new(vec![Topic::All], cursor(TASKS).position);
        assert!(hub.peek(&mut walk, ALL).is_some());
        walk.end();
        assert!(hub.peek(&mut walk, ALL).is_none());
    }
}
