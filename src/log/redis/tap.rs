//! A connection's stream that turns the answer to XREAD into records itself, as it arrives: the library's parser takes
//! longer over an entry than all that is then done with its event. Owns the shape of that answer in bytes. What begins in
//! another shape, also when it answers XREAD (nothing, a refusal, RESP3), the library gets as it came; what begins in that
//! shape and goes on in another ends the connection.
//!
//! Refuses to know: what is asked, TLS.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::{CONTENT_TYPE, EVENT};
use crate::{
    log::{Record, TRACEPARENT, TRACESTATE, content_type, trace},
    proto::{ContentType, Position},
};

/// Bytes that are read at a time, and held between two answers.
const READ_BYTES: usize = 64 * 1024;
/// What the library gets in place of an answer whose records were taken: that there is none.
const NOTHING: &[u8] = b"*-1\r\n";
/// Room for records before any was seen: a count is only a promise.
const RECORDS_AT_FIRST: usize = 256;

/// Where the records of an answer are left for whoever asked. One question at a time.
#[derive(Default)]
pub(super) struct Harvest(Mutex<Stage>);

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    /// The next answer is one to XREAD.
    Awaited,
    Read(Vec<Record>),
    Foreign,
}

/// An answer began as one with records and went on as something that Redis does not say.
#[derive(Debug)]
pub(super) struct Foreign;

impl Harvest {
    /// To be called before XREAD is asked, on a connection where nothing else is under way.
    pub(super) fn expect(&self) {
        *self.stage() = Stage::Awaited;
    }

    /// The records of the answer; `None` when the library got it.
    pub(super) fn take(&self) -> Option<Result<Vec<Record>, Foreign>> {
        match std::mem::take(&mut *self.stage()) {
            Stage::Read(records) => Some(Ok(records)),
            Stage::Foreign => Some(Err(Foreign)),
            Stage::Idle | Stage::Awaited => None,
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_awaited(&self) -> bool {
        matches!(*self.stage(), Stage::Awaited)
    }
}

pub(super) struct Tap<S> {
    stream: S,
    harvest: Arc<Harvest>,
    /// What was read of the stream and not yet taken is between `start` and `end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Of the answer that is being read.
    answer: Option<Answer>,
    /// For the library, at first.
    instead: &'static [u8],
    /// For the library, then: so many bytes of the buffer.
    passing: usize,
}

/// An answer, as far as it has come.
struct Answer {
    records: Vec<Record>,
    left: usize,
}

/// Why reading stops.
#[derive(Debug, PartialEq, Eq)]
enum Halt {
    /// The rest is not here yet.
    Unfinished,
    /// It has another shape.
    Foreign,
}

impl<S> Tap<S> {
    pub(super) fn new(stream: S, harvest: Arc<Harvest>) -> Self {
        Self { stream, harvest, buffer: Vec::new(), start: 0, end: 0, answer: None, instead: &[], passing: 0 }
    }

    /// Takes as much of the answer as is there.
    fn advance(&mut self) -> Result<(), Halt> {
        let mut answer = if let Some(answer) = self.answer.take() {
            answer
        } else {
            let mut scan = Scan { bytes: &self.buffer[self.start..self.end], at: 0 };
            let left = scan.head()?;
            self.start += scan.at;
            Answer { records: Vec::with_capacity(left.min(RECORDS_AT_FIRST)), left }
        };
        while answer.left > 0 {
            let mut scan = Scan { bytes: &self.buffer[self.start..self.end], at: 0 };
            match scan.entry() {
                Ok(record) => answer.records.push(record),
                Err(halt) => {
                    self.answer = Some(answer);
                    return Err(halt);
                }
            }
            self.start += scan.at;
            answer.left -= 1;
        }
        *self.harvest.stage() = Stage::Read(answer.records);
        self.instead = NOTHING;
        self.pass_on();
        Ok(())
    }

    /// What is left in the buffer is the library's.
    fn pass_on(&mut self) {
        self.passing = self.end - self.start;
    }

    /// Makes room behind `end`. Grows only by what has come: never for a length that was merely announced.
    fn make_room(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == 0 && self.buffer.len() > READ_BYTES {
            self.buffer = Vec::new();
        }
        if self.buffer.len() < self.end + READ_BYTES / 2 {
            self.buffer.resize((2 * self.end).max(READ_BYTES), 0);
        }
    }

    fn give(&mut self, out: &mut ReadBuf<'_>) {
        let replaced = self.instead.len().min(out.remaining());
        let (now, later) = self.instead.split_at(replaced);
        out.put_slice(now);
        self.instead = later;
        let passed = self.passing.min(out.remaining());
        out.put_slice(&self.buffer[self.start..self.start + passed]);
        self.start += passed;
        self.passing -= passed;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let tap = self.get_mut();
        loop {
            if !tap.instead.is_empty() || tap.passing > 0 {
                tap.give(out);
                return Poll::Ready(Ok(()));
            }
            if !tap.harvest.is_awaited() {
                return Pin::new(&mut tap.stream).poll_read(context, out);
            }
            tap.make_room();
            let mut room = ReadBuf::new(&mut tap.buffer[tap.end..]);
            ready!(Pin::new(&mut tap.stream).poll_read(context, &mut room))?;
            let read = room.filled().len();
            tap.end += read;
            match tap.advance() {
                Ok(()) => {}
                Err(Halt::Unfinished) if read > 0 => {}
                Err(Halt::Foreign) if tap.answer.is_some() => {
                    *tap.harvest.stage() = Stage::Foreign;
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                Err(_) => {
                    // Also the end of the stream: the library knows what that means.
                    tap.harvest.take();
                    tap.pass_on();
                    if tap.passing == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A look at bytes of RESP2.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    /// `*1 *2 $… *n`: of one stream, its key and so many entries.
    fn head(&mut self) -> Result<usize, Halt> {
        self.exactly(b"*1\r\n*2\r\n")?;
        self.text()?;
        self.number(b'*')?.ok_or(Halt::Foreign)
    }

    /// `*2 $id *n …`, or without fields: an entry that XDEL removed while it was read, in old versions.
    fn entry(&mut self) -> Result<Record, Halt> {
        self.exactly(b"*2\r\n")?;
        let id = str::from_utf8(self.text()?).map_err(|_| Halt::Foreign)?;
        let position: Position = id.parse().map_err(|_| Halt::Foreign)?;
        let mut payload: &[u8] = &[];
        let mut format = ContentType::Json;
        let (mut traceparent, mut tracestate) = (None, None);
        for _ in 0..self.number(b'*')?.unwrap_or(0) / 2 {
            match (self.text()?, self.text()?) {
                (name, value) if name == EVENT.as_bytes() => payload = value,
                (CONTENT_TYPE, value) => format = content_type(value),
                (name, value) if name == TRACEPARENT.as_bytes() => traceparent = Some(value),
                (name, value) if name == TRACESTATE.as_bytes() => tracestate = Some(value),
                _ => {}
            }
        }
        let appended_at_ms = Some(position.major);
        let (payload, trace) = (Bytes::copy_from_slice(payload), trace(traceparent, tracestate));
        Ok(Record { position, appended_at_ms, content_type: format, payload, trace })
    }

    fn exactly(&mut self, wanted: &[u8]) -> Result<(), Halt> {
        let here = &self.bytes[self.at..];
        if here.starts_with(wanted) {
            self.at += wanted.len();
            return Ok(());
        }
        Err(if wanted.starts_with(here) { Halt::Unfinished } else { Halt::Foreign })
    }

    /// `$n` and n bytes.
    fn text(&mut self) -> Result<&'a [u8], Halt> {
        let length = self.number(b'$')?.ok_or(Halt::Foreign)?;
        let end = self.at.checked_add(length).ok_or(Halt::Foreign)?;
        let text = self.bytes.get(self.at..end).ok_or(Halt::Unfinished)?;
        self.at = end;
        self.exactly(b"\r\n")?;
        Ok(text)
    }

    /// A count or a length; `None` for -1, which is nothing at all.
    fn number(&mut self, kind: u8) -> Result<Option<usize>, Halt> {
        let here = &self.bytes[self.at..];
        if here.first().ok_or(Halt::Unfinished)? != &kind {
            return Err(Halt::Foreign);
        }
        let mut number = 0_usize;
        for (index, byte) in here.iter().enumerate().skip(1) {
            match byte {
                b'0'..=b'9' => {
                    let longer = number.checked_mul(10).and_then(|number| number.checked_add(usize::from(byte - b'0')));
                    number = longer.ok_or(Halt::Foreign)?;
                }
                b'\r' if index > 1 => {
                    self.at += index;
                    return self.exactly(b"\r\n").map(|()| Some(number));
                }
                _ => {
                    self.at += 1;
                    return self.exactly(b"-1\r\n").map(|()| None);
                }
            }
        }
        Err(Halt::Unfinished)
    }
}

#[cfg(test)]
#[path = "tap_tests.rs"]
mod tests;
