//! The event that every server is given: 250 bytes of JSON, with a stamp in it that survives any wrapping.
//!
//! The stamp is `~TTTTTT.NNNNNNNN.SSSSSSSSSSSSSSSS~` in hexadecimal digits: topic, number within the topic, and when it was
//! published, in nanoseconds of the machine's monotonic clock. Nothing in it has to be escaped in JSON.

use std::io::Write;

use rustix::time::{ClockId, clock_gettime};

pub const PAYLOAD_BYTES: usize = 250;

const STAMP_BYTES: usize = 34;

/// What is found in a delivered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub topic: u32,
    pub number: u32,
    pub sent_ns: u64,
}

/// Monotonic, and the same in every process of this machine.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The name of a topic: a task's id, a channel's name.
pub fn topic_name(topic: usize) -> String {
    format!("task-{topic:06}")
}

/// Who owns the task of this topic.
pub fn owner_name(topic: usize) -> String {
    format!("user-{topic:06}")
}

/// Writes the event `stamp` into `out`, over what is there.
pub fn write(stamp: Stamp, out: &mut Vec<u8>) {
    out.clear();
    let Stamp { topic, number, sent_ns } = stamp;
    let progress = number % 100;
    // Writing to a vector does not fail.
    let _ = write!(
        out,
        "{{\"task_id\":\"task-{topic:06}\",\"user_id\":\"user-{topic:06}\",\"status\":\"running\",\"progress\":{progress},\
         \"seq\":{number},\"message\":\"~{topic:06x}.{number:08x}.{sent_ns:016x}~\",\"step\":\""
    );
    let end = PAYLOAD_BYTES - 2;
    while out.len() < end {
        out.push(b"Reading invoices of the quarter "[out.len() % 32]);
    }
    out.truncate(end);
    out.extend_from_slice(b"\"}");
}

/// Finds every stamp in these bytes.
pub fn stamps_in(bytes: &[u8], stamps: &mut Vec<Stamp>) {
    let mut rest = bytes;
    while let Some(start) = memchr::memchr(b'~', rest) {
        match rest.get(start..start + STAMP_BYTES).and_then(stamp_of) {
            Some(stamp) => {
                stamps.push(stamp);
                rest = &rest[start + STAMP_BYTES..];
            }
            None => rest = &rest[start + 1..],
        }
    }
}

fn stamp_of(text: &[u8]) -> Option<Stamp> {
    let is_stamp = text[7] == b'.' && text[16] == b'.' && text[STAMP_BYTES - 1] == b'~';
    if !is_stamp {
        return None;
    }
    let topic = hexadecimal(&text[1..7])?;
    let number = hexadecimal(&text[8..16])?;
    Some(Stamp { topic: topic as u32, number: number as u32, sent_ns: hexadecimal(&text[17..33])? })
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | u64::from(char::from(*digit).to_digit(16)?)))
}
