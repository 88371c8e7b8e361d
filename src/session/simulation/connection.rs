//! One connection of a client: the real session on one end, on the other a client that reads when it likes; between them
//! bytes. Does what the pump does, without a socket.
//!
//! Refuses to know: what the bytes mean.

use std::{
    cell::RefCell,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
};

use super::random::Random;
use crate::{
    auth::Identity,
    clock::Now,
    hub::Runs,
    proto::Position,
    session::{Request, Sessions, machine::Session, websocket::Inbound},
};

thread_local! {
    /// Of the one worker who delivers to everybody.
    static RUNS: RefCell<Runs> = RefCell::default();
}

pub(super) struct Connection {
    /// The replica's number.
    pub(super) replica: usize,
    session: Session,
    /// Written by the session, not read by the client.
    in_flight: Vec<u8>,
    /// Read by the client, not looked at.
    pub(super) received: Vec<u8>,
    cuts_short: bool,
    is_due: bool,
    pub(super) is_over: bool,
    /// How far the replica was when the session opened.
    pub(super) opened_at: Position,
}

impl Connection {
    pub(super) fn open(
        replica: usize,
        shared: &Arc<Sessions>,
        identity: Identity,
        request: &Request,
        now: Now,
    ) -> Self {
        let applied = shared.hub.progress().applied;
        Self {
            replica,
            session: Session::open(shared, identity, request, now),
            in_flight: Vec::new(),
            received: Vec::new(),
            is_due: true,
            cuts_short: false,
            is_over: false,
            opened_at: applied.map_or(Position::START, |cursor| cursor.position),
        }
    }

    pub(super) fn say(&mut self, inbound: Inbound, now: Now) {
        self.session.on_inbound(inbound, now);
        self.is_due = true;
    }

    /// A round of the pump: only what wakes the pump wakes the session. True when bytes came of it.
    pub(super) fn turn(&mut self, now: Now) -> bool {
        if now.instant >= self.session.deadline(now) {
            self.is_over |= !self.session.on_time(now);
            self.is_due = true;
        }
        if self.is_over || !self.in_flight.is_empty() {
            return false;
        }
        let mailbox = self.session.mailbox();
        let is_woken = pin!(mailbox.woken()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
        if !(self.is_due || is_woken || self.session.has_more()) {
            return false;
        }
        self.is_due = false;
        // Now by a worker's short cut, now the whole way: it must make no difference.
        self.cuts_short = !self.cuts_short;
        let progress = self.session.shared.hub.progress();
        let short_cut = RUNS.with_borrow_mut(|runs| {
            let run =
                if self.cuts_short && self.session.is_plain() { self.session.only_run(&progress, runs) } else { None };
            run.map(|run| run.bytes().to_vec())
        });
        self.in_flight = short_cut.unwrap_or_else(|| self.session.output(now).frames.concat());
        self.is_over |= self.in_flight.is_empty() && self.session.closing().is_some();
        !self.in_flight.is_empty()
    }

    /// The client reads up to `bytes`. True when there were any.
    pub(super) fn carry(&mut self, bytes: usize) -> bool {
        let count = bytes.min(self.in_flight.len());
        self.received.extend(self.in_flight.drain(..count));
        // What was written is out: the pump looks for more.
        self.is_due |= count > 0 && self.in_flight.is_empty();
        count > 0
    }

    /// As much as goes: the client reads all, over and over, until nothing comes.
    pub(super) fn drain(&mut self, now: Now) {
        while self.turn(now) || self.carry(usize::MAX) {}
    }

    /// Some rounds, some bytes.
    pub(super) fn run(&mut self, random: &mut Random, now: Now) {
        for _ in 0..random.below(4) {
            self.turn(now);
            let bytes = random.pick(&[3, 100, 1_000, 10_000, 1_000_000]);
            self.carry(random.below(bytes) + 1);
        }
    }
}
