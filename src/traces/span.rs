//! One span, as it will be exported. Refuses to know: in what form.

use std::sync::Arc;

use crate::{clock, proto::TraceContext};

/// What a span is to its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Internal,
    /// The parent published what this one reads.
    Consumer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Word(&'static str),
    Text(String),
    Number(i64),
}

#[derive(Clone, Debug)]
pub(super) struct Span {
    pub trace_id: [u8; 16],
    pub id: [u8; 8],
    pub parent_id: [u8; 8],
    /// The parent is a span of another process.
    pub is_parent_remote: bool,
    pub flags: u8,
    pub state: Option<Arc<str>>,
    pub name: String,
    pub kind: Kind,
    /// Nanoseconds since the Unix epoch.
    pub start_ns: u64,
    pub end_ns: u64,
    pub attributes: Vec<(&'static str, Value)>,
    /// What happened within it, and when.
    pub notes: Vec<(u64, &'static str)>,
}

impl Span {
    /// A span whose parent is in another process.
    pub fn below(context: &TraceContext, name: String, kind: Kind) -> Self {
        Self {
            trace_id: context.trace_id,
            id: fresh_id(),
            parent_id: context.span_id,
            is_parent_remote: true,
            flags: context.flags,
            state: context.state.clone(),
            name,
            kind,
            start_ns: 0,
            end_ns: 0,
            attributes: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// A span whose parent is another one of this process.
    pub fn within(parent: &Self, name: String, kind: Kind) -> Self {
        let (attributes, notes) = (Vec::new(), Vec::new());
        let (id, parent_id, is_parent_remote) = (fresh_id(), parent.id, false);
        Self { id, parent_id, is_parent_remote, name, kind, attributes, notes, ..parent.clone() }
    }

    pub fn set(&mut self, key: &'static str, value: Value) {
        self.attributes.push((key, value));
    }

    pub fn note(&mut self, at_ns: u64, what: &'static str) {
        self.notes.push((at_ns, what));
    }

    pub fn lasted(self, start_ns: u64, end_ns: u64) -> Self {
        Self { start_ns, end_ns: end_ns.max(start_ns), ..self }
    }
}

/// The random half of an identifier; never all zeros, for two of its bits are set.
fn fresh_id() -> [u8; 8] {
    let mut id = [0; 8];
    id.copy_from_slice(&clock::unique_id().as_bytes()[8..]);
    id
}
