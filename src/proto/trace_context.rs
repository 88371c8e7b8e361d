//! W3C Trace Context: which trace an event belongs to, and which span of it published the event.
//!
//! What cannot be read is as good as absent, as the specification has it: no event is lost over it.
//! Refuses to know: who carries it, and what becomes of the trace.

use std::{fmt::Write as _, sync::Arc};

/// The longest `tracestate` that is carried on; a longer one is left out, as the specification allows.
pub const TRACESTATE_MAX_BYTES: usize = 512;

/// Members of a `tracestate` at most.
const MEMBERS_MAX: usize = 32;

/// Of a `traceparent` of version 00: its version, two ids and the flags, with hyphens between them.
const TRACEPARENT_BYTES: usize = 55;

const SAMPLED: u8 = 1;

/// What may stand around the members of a `tracestate`: no other white space, which a header could not carry on.
const BLANKS: [char; 2] = [' ', '\t'];

/// Where an event was published, as far as tracing goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Not all zeros, like the id below.
    pub trace_id: [u8; 16],
    /// The span of whoever published: the parent of what follows.
    pub span_id: [u8; 8],
    pub flags: u8,
    /// What tracing systems say to each other. Empty: nothing.
    pub state: Option<Arc<str>>,
}

impl TraceContext {
    /// Reads a `traceparent`. `None` when it is none; of a later version, what this one knows of it.
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<Self> {
        let bytes = traceparent.as_bytes();
        let [version] = hex(bytes.get(..2)?)?;
        let fits = match version {
            0 => bytes.len() == TRACEPARENT_BYTES,
            0xff => false,
            _ => bytes.get(TRACEPARENT_BYTES).is_none_or(|next| *next == b'-'),
        };
        let hyphens_stand = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        if !fits || !hyphens_stand {
            return None;
        }
        let (trace_id, span_id) = (hex(bytes.get(3..35)?)?, hex(bytes.get(36..52)?)?);
        let [flags] = hex(bytes.get(53..TRACEPARENT_BYTES)?)?;
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Self { trace_id, span_id, flags, state: None })
    }

    /// With its `tracestate`, if that can be read.
    #[must_use]
    pub fn with_state(mut self, tracestate: &str) -> Self {
        self.state = is_state(tracestate).then(|| tracestate.trim_matches(BLANKS).into());
        self
    }

    /// Whoever published records this trace.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// As version 00 has it.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let mut out = String::with_capacity(TRACEPARENT_BYTES);
        out.push_str("00-");
        push_hex(&mut out, &self.trace_id);
        out.push('-');
        push_hex(&mut out, &self.span_id);
        out.push('-');
        push_hex(&mut out, &[self.flags]);
        out
    }
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing into a text cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
}

/// In lower case only, as the specification has it.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn is_state(text: &str) -> bool {
    let is_member = |member: &str| {
        let is_of_a_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
        let is_of_a_value = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'=';
        member.split_once('=').is_some_and(|(key, value)| {
            !key.is_empty() && !value.is_empty() && key.bytes().all(is_of_a_key) && value.bytes().all(is_of_a_value)
        })
    };
    let members = || text.split(',').map(|member| member.trim_matches(BLANKS)).filter(|member| !member.is_empty());
    text.len() <= TRACESTATE_MAX_BYTES && (1..=MEMBERS_MAX).contains(&members().count()) && members().all(is_member)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_read_and_written_as_it_was() {
        let context = TraceContext::parse(PARENT).unwrap();
        assert_eq!((context.trace_id[0], context.span_id[7], context.is_sampled()), (0x0a, 0x31, true));
        assert_eq!(context.traceparent(), PARENT);
        assert!(!TraceContext::parse(&PARENT.replace("-01", "-00")).unwrap().is_sampled());
        // Other flags are nobody's business here, and are kept.
        assert_eq!(TraceContext::parse(&PARENT.replace("-01", "-ff")).unwrap().flags, 0xff);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for later in [PARENT.replacen("00", "01", 1), format!("{}-what-follows", PARENT.replacen("00", "cc", 1))] {
            assert_eq!(TraceContext::parse(&later).unwrap().traceparent(), PARENT, "{later}");
        }
    }

    #[test]
    fn what_is_no_context_is_none() {
        for bad in [
            "",
            "00",
            &PARENT[..54],
            &format!("{PARENT}-"),
            &format!("{PARENT}0"),
            &format!(" {PARENT}"),
            &PARENT.to_uppercase(),
            &PARENT.replacen("00", "ff", 1),
            &PARENT.replacen("00", "0g", 1),
            &PARENT.replace('-', "_"),
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
            &format!("{}x", PARENT.replacen("00", "01", 1)),
            &PARENT.replace("0af7", "äa7"),
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_state_that_cannot_be_read_is_left_out_and_the_context_stays() {
        let state = |text: &str| TraceContext::parse(PARENT).unwrap().with_state(text).state;
        for good in ["congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61", "a@b=1, c=d", "a=b,\t,c=d"] {
            assert_eq!(state(good).as_deref(), Some(good));
        }
        let many = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(state("\ta=b ").as_deref(), Some("a=b"));
        for bad in ["a=b,\r\nc=d", "a=b\n", "a=b,\u{2003}c=d", "a=b,\u{a0},c=d", "a=b,\u{b}c=d"] {
            assert_eq!(state(bad), None, "{bad:?}");
        }
        for bad in ["", ",", "novalue", "=v", "k=", "K=v", "k=a=b", "k=\u{e4}", "k=\u{7}", &many, &"k=v,".repeat(200)] {
            assert_eq!(state(bad), None, "{bad}");
        }
    }
}
