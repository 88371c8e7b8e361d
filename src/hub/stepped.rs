//! For tests only: [`Hub::apply`] with room between its steps, in which others run as threads would.

use super::{Arrival, Hub};

impl Hub {
    /// As [`Hub::apply`]; `between` is called after each step, and after each task whose watchers were marked.
    pub(crate) fn apply_in_steps(&self, batch: &[Arrival], now_ms: u64, mut between: impl FnMut()) {
        let changed = self.change(batch, now_ms);
        between();
        let mut to_wake = Vec::new();
        for one in &changed {
            self.mark(std::slice::from_ref(one), &mut to_wake);
            between();
        }
        self.announce(to_wake);
    }
}
