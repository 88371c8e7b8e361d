//! Delivers: takes the mailboxes whose turn has come, a few at a time, and has each session's next frame written. One
//! worker per core shares a crowd around a task; between two pieces everybody else gets a turn.
//!
//! Refuses to know: how a session takes its step.

use std::sync::Arc;

use super::Sessions;
use crate::clock;

/// Sessions that are served in a row: hardly more than a system call each, some hundred microseconds in all. What takes
/// longer is left to the session's task.
const PIECE: usize = 64;

/// After so many the clock is read again.
const CLOCK_EVERY: usize = 16;

impl Sessions {
    /// Runs until it is dropped. Any number may run side by side.
    pub async fn deliver(self: Arc<Self>) {
        let worker = self.hub.worker();
        let mut turn = self.hub.turn(clock::now());
        let mut due = Vec::with_capacity(PIECE);
        loop {
            worker.due().await;
            while worker.take(PIECE, &mut due) {
                turn.now = clock::now();
                for few in due.chunks(CLOCK_EVERY) {
                    worker.deliver(few, &mut turn);
                    let now = clock::now();
                    turn.tally.written_by(now.unix_ms);
                    turn.traced.drain(..).for_each(|traced| traced.written(now.instant));
                    turn.now = now;
                }
                due.clear();
                turn.tally.hand_over();
                tokio::task::yield_now().await;
            }
            turn.runs.clear();
        }
    }
}
