//! The account of what was published and what arrived: losses, doubles, order, and how long it took.
//!
//! Refuses to know: sockets, servers.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::payload::Stamp;

/// Longer is counted as this long.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// That one crowd publishes: a thousand crowds have numbers of 32 bits.
const EVENTS_PER_TOPIC_MAX: u32 = 4_000_000;

/// Between two resets: what a scenario measured.
pub struct Tally {
    /// Frames that arrived for the first time.
    pub delivered: u64,
    /// Of these frames, WebSocket headers included, and whatever else came.
    pub bytes: u64,
    /// Frames that were skipped, or did not arrive in the end.
    pub lost: u64,
    /// Frames that came twice or too late, behind a newer one.
    pub repeated: u64,
    /// Frames of another topic than the watcher's: must not be.
    pub foreign: u64,
    pub published: u64,
    /// Events that every watcher of their topic has.
    pub completed: u64,
    /// Connections that ended, which nobody asked for.
    pub ended: u64,
    /// From publishing to each watcher.
    pub each: Histogram<u32>,
    /// From publishing to the last of its watchers.
    pub last: Histogram<u32>,
}

impl Tally {
    pub fn new() -> Self {
        let histogram = || {
            // From a microsecond on, within 1 %: never refused for these bounds.
            let made = Histogram::new_with_bounds(1_000, LATENCY_MAX_NS, 2);
            made.unwrap_or_else(|_| unreachable!("constant bounds"))
        };
        Self {
            delivered: 0,
            bytes: 0,
            lost: 0,
            repeated: 0,
            foreign: 0,
            published: 0,
            completed: 0,
            ended: 0,
            each: histogram(),
            last: histogram(),
        }
    }

    /// Whether every frame came exactly once, in order, on a connection that stayed.
    pub fn is_whole(&self) -> bool {
        self.mistakes_total() == 0
    }

    pub fn mistakes_total(&self) -> u64 {
        self.lost + self.repeated + self.foreign + self.ended
    }

    pub fn mistakes(&self) -> String {
        format!("{} lost, {} repeated, {} foreign, {} ended", self.lost, self.repeated, self.foreign, self.ended)
    }
}

pub fn quantile(histogram: &Histogram<u32>, quantile: f64) -> Duration {
    Duration::from_nanos(histogram.value_at_quantile(quantile))
}

/// A topic and its events that are under way.
#[derive(Debug, Default)]
struct Topic {
    watchers: u32,
    /// Of the next event to be published.
    next: u32,
    /// For each event from `next - waiting.len()` on: how many watchers do not have it.
    waiting: VecDeque<u32>,
}

/// All topics.
#[derive(Debug)]
pub struct Topics {
    all: Vec<Topic>,
    /// Of the first event of each.
    first: u32,
    /// Events that some watcher does not have.
    pub under_way: usize,
}

impl Topics {
    /// With higher numbers than all before: a server that knows the order of events takes lower ones for late.
    pub fn new() -> Self {
        static CROWDS: AtomicU32 = AtomicU32::new(0);
        let first = 1 + CROWDS.fetch_add(1, Ordering::Relaxed) * EVENTS_PER_TOPIC_MAX;
        Self { all: Vec::new(), first, under_way: 0 }
    }

    fn topic(&mut self, topic: usize) -> &mut Topic {
        if self.all.len() <= topic {
            let first = self.first;
            self.all.resize_with(topic + 1, || Topic { next: first, ..Topic::default() });
        }
        &mut self.all[topic]
    }

    pub fn watch(&mut self, topic: usize) {
        self.topic(topic).watchers += 1;
    }

    /// The number that the next event of a watcher that comes now will have.
    pub fn next(&self, topic: usize) -> u32 {
        self.all.get(topic).map_or(self.first, |topic| topic.next)
    }

    /// Numbers a new event.
    pub fn publish(&mut self, topic: usize) -> u32 {
        let topic = self.topic(topic);
        let number = topic.next;
        topic.next += 1;
        if topic.watchers > 0 {
            topic.waiting.push_back(topic.watchers);
            self.under_way += 1;
        }
        number
    }

    /// One watcher has the event of this number, or will never get it. Is it the last one?
    fn settle(&mut self, topic: usize, number: u32) -> bool {
        let topic = &mut self.all[topic];
        let first = topic.next - topic.waiting.len() as u32;
        let Some(waiting) = number.checked_sub(first).and_then(|index| topic.waiting.get_mut(index as usize)) else {
            return false;
        };
        *waiting = waiting.saturating_sub(1);
        let is_last = *waiting == 0;
        if is_last {
            self.under_way -= 1;
            while topic.waiting.front() == Some(&0) {
                topic.waiting.pop_front();
            }
        }
        is_last
    }

    /// A watcher that expects `expected` next got this.
    pub fn arrived(&mut self, stamp: Stamp, topic: usize, expected: &mut u32, now_ns: u64, tally: &mut Tally) {
        if stamp.topic as usize != topic {
            tally.foreign += 1;
            return;
        }
        if stamp.number < *expected {
            tally.repeated += 1;
            return;
        }
        for skipped in *expected..stamp.number {
            tally.lost += 1;
            self.settle(topic, skipped);
        }
        *expected = stamp.number + 1;
        tally.delivered += 1;
        let took = now_ns.saturating_sub(stamp.sent_ns);
        tally.each.saturating_record(took);
        if self.settle(topic, stamp.number) {
            tally.completed += 1;
            tally.last.saturating_record(took);
        }
    }

    /// A watcher is gone: it waits for nothing more.
    pub fn unwatch(&mut self, topic: usize, expected: u32) {
        let next = self.all[topic].next;
        for number in expected..next {
            self.settle(topic, number);
        }
        self.all[topic].watchers -= 1;
    }

    /// Nothing more will come: what is under way counts as lost.
    pub fn give_up(&mut self, tally: &mut Tally) {
        for topic in &mut self.all {
            tally.lost += topic.waiting.drain(..).map(u64::from).sum::<u64>();
        }
        self.under_way = 0;
    }
}
