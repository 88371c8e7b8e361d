//! The state of the hub as of one position, and its form in bytes: self-contained chunks, each of whole records, in an
//! order of their own. Reading believes nothing: every length is checked against the bytes that are there, every count
//! against a limit, so that a broken or forged image is refused and costs no more memory than the hub may have.
//!
//! Refuses to know: where images are kept, and what proves that the chunks are all there.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Settings,
    rules::{EVENT_IDS_MAX, Memory},
    slot::{MOVES_MAX, Moves, Past, Ring, Slot},
    trail::Entry,
};
use crate::proto::{
    BinaryReader, Corrupt, Cursor, Position, TaskFrame, TaskId, push_bytes, push_cursor, push_difference, push_number,
    push_option, push_position, push_task, read_task, read_task_id,
};

/// A chunk is closed beyond this many bytes, between two records.
const CHUNK_BYTES: usize = 256 * 1024;
const TOO_MANY_TASKS: Corrupt = Corrupt("it holds more tasks than tasks.max allows");

/// The first byte of a chunk says what its records are.
const HEAD: u8 = 1;
const TRAIL: u8 = 2;
const TASKS: u8 = 3;

/// A task in an image.
pub(super) struct Held {
    pub(super) frames: Ring,
    pub(super) memory: Memory,
    pub(super) key_floor: Position,
    pub(super) born: Position,
    pub(super) moves: Moves,
    pub(super) heard_at_ms: u64,
}

/// All that the hub holds, as of one position.
pub struct Image {
    pub(super) cursor: Cursor,
    pub(super) trail: VecDeque<Entry>,
    pub(super) evicted_through: Position,
    pub(super) tasks: Vec<Held>,
}

impl Image {
    pub(super) fn new(cursor: Cursor, trail: VecDeque<Entry>, evicted_through: Position, tasks: usize) -> Self {
        Self { cursor, trail, evicted_through, tasks: Vec::with_capacity(tasks) }
    }

    /// The last event that it knows.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// How many tasks are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// No task is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Hands out the chunks, in order. The same state gives the same bytes.
    ///
    /// # Errors
    /// What `emit` says, at once.
    pub fn encode<E>(&mut self, mut emit: impl FnMut(Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let mut head = vec![HEAD];
        push_cursor(&mut head, self.cursor, Position::START);
        push_position(&mut head, self.evicted_through, Position::START);
        push_number(&mut head, self.trail.len() as u64);
        push_number(&mut head, self.tasks.len() as u64);
        emit(head)?;
        let mut chunk = Vec::new();
        let mut before = Position::START;
        for entry in &self.trail {
            if chunk.is_empty() {
                chunk.push(TRAIL);
                before = Position::START;
            }
            push_entry(&mut chunk, *entry, before);
            before = entry.position();
            flush_full(&mut chunk, &mut emit)?;
        }
        flush(&mut chunk, &mut emit)?;
        self.tasks.sort_by_cached_key(|held| held.frames.back().map(|frame| frame.position()));
        for held in &self.tasks {
            if chunk.is_empty() {
                chunk.push(TASKS);
            }
            push_held(&mut chunk, held);
            flush_full(&mut chunk, &mut emit)?;
        }
        flush(&mut chunk, &mut emit)
    }
}

fn push_held(out: &mut Vec<u8>, held: &Held) {
    let Held { frames, memory, key_floor, born, moves, heard_at_ms } = held;
    let Some(first) = frames.front() else { return };
    push_bytes(out, first.task.task_id.as_str().as_bytes());
    push_option(out, memory.seq, push_number);
    push_option(out, memory.timestamp_ms, push_number);
    push_position(out, *key_floor, Position::START);
    push_position(out, *born, Position::START);
    push_number(out, *heard_at_ms);
    let event_ids = memory.event_ids.iter().flat_map(|ids| ids.iter());
    push_number(out, memory.event_ids.as_ref().map_or(0, |ids| ids.len()) as u64);
    for id in event_ids {
        push_bytes(out, id.as_bytes());
    }
    push_number(out, moves.len() as u64);
    for (moved_at, frame) in moves {
        push_position(out, *moved_at, Position::START);
        push_frame(out, frame, None);
    }
    push_number(out, frames.len() as u64);
    let mut before: Option<&Arc<TaskFrame>> = None;
    for frame in frames.iter() {
        push_frame(out, frame, before);
        before = Some(frame);
    }
}

fn push_frame(out: &mut Vec<u8>, frame: &TaskFrame, before: Option<&Arc<TaskFrame>>) {
    push_cursor(out, frame.cursor, before.map_or(Position::START, |before| before.position()));
    out.push(u8::from(frame.is_key));
    push_task(out, &frame.task, before.map(|before| &before.task));
    push_difference(out, frame.applied_at_ms, frame.task.updated_at_ms);
}

fn flush_full<E>(chunk: &mut Vec<u8>, emit: &mut impl FnMut(Vec<u8>) -> Result<(), E>) -> Result<(), E> {
    if chunk.len() >= CHUNK_BYTES { flush(chunk, emit) } else { Ok(()) }
}

fn flush<E>(chunk: &mut Vec<u8>, emit: &mut impl FnMut(Vec<u8>) -> Result<(), E>) -> Result<(), E> {
    if chunk.is_empty() { Ok(()) } else { emit(std::mem::take(chunk)) }
}

/// A proof has no pattern, so what can be saved is the position: mostly the same moment or one soon after.
fn push_entry(out: &mut Vec<u8>, entry: Entry, before: Position) {
    push_number(out, entry.major.wrapping_sub(before.major));
    push_difference(out, u64::from(entry.minor), expected_minor(entry.major, before));
    out.extend_from_slice(&entry.proof.to_le_bytes());
}

fn read_entry(reader: &mut BinaryReader<'_>, before: Position) -> Result<Entry, Corrupt> {
    let major = before.major.wrapping_add(reader.number()?);
    let minor = reader.difference(expected_minor(major, before))?;
    Ok(Entry {
        major,
        minor: u32::try_from(minor).map_err(|_| Corrupt("a position is too large"))?,
        proof: u32::from_le_bytes(reader.array()?),
    })
}

/// The next one at the same moment, the first one at another.
fn expected_minor(major: u64, before: Position) -> u64 {
    if major == before.major { before.minor.wrapping_add(1) } else { 0 }
}

/// What the head promises of the chunks after it.
struct Promise {
    trail: usize,
    tasks: usize,
}

/// An image that was read.
pub struct Restored {
    pub(super) cursor: Cursor,
    pub(super) trail: VecDeque<Entry>,
    pub(super) evicted_through: Position,
    pub(super) slots: Vec<Slot>,
}

impl Restored {
    /// The last event that it knows.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }
}

/// Puts an image together again, chunk by chunk.
pub struct ImageReader {
    tasks_max: usize,
    ring_frames: usize,
    resume_window: usize,
    promise: Option<Promise>,
    restored: Restored,
    /// The last position of the trail, and how many there were.
    last: Position,
    trail: usize,
}

impl ImageReader {
    pub(super) fn new(settings: &Settings) -> Self {
        let cursor = Cursor { position: Position::START, proof: 0 };
        let restored = Restored { cursor, trail: VecDeque::new(), evicted_through: Position::START, slots: Vec::new() };
        Self {
            tasks_max: settings.max,
            ring_frames: settings.ring_frames,
            resume_window: settings.resume_window,
            promise: None,
            restored,
            last: Position::START,
            trail: 0,
        }
    }

    /// The next chunk.
    ///
    /// # Errors
    /// Not a chunk of an image, or one that exceeds a limit. The reader is of no use any more then.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        let mut reader = BinaryReader::new(bytes);
        match (reader.byte()?, &self.promise) {
            (HEAD, None) => self.head(&mut reader)?,
            (TRAIL, Some(_)) => self.trail(&mut reader)?,
            (TASKS, Some(_)) => self.tasks(&mut reader)?,
            _ => return Err(Corrupt("a chunk is of an unknown kind or at the wrong place")),
        }
        if reader.is_empty() { Ok(()) } else { Err(Corrupt("a chunk is too long")) }
    }

    /// The image, if it is whole.
    ///
    /// # Errors
    /// Something is missing.
    pub fn finish(self) -> Result<Restored, Corrupt> {
        let Some(promise) = self.promise else { return Err(Corrupt("the head is missing")) };
        if promise.trail != self.trail || promise.tasks != self.restored.slots.len() {
            return Err(Corrupt("it does not hold what its head says"));
        }
        Ok(self.restored)
    }

    fn head(&mut self, reader: &mut BinaryReader<'_>) -> Result<(), Corrupt> {
        self.restored.cursor = reader.cursor(Position::START)?;
        self.restored.evicted_through = reader.position(Position::START)?;
        let (trail, tasks) = (reader.small()?, reader.small()?);
        if tasks > self.tasks_max {
            return Err(TOO_MANY_TASKS);
        }
        self.promise = Some(Promise { trail, tasks });
        Ok(())
    }

    fn trail(&mut self, reader: &mut BinaryReader<'_>) -> Result<(), Corrupt> {
        let mut before = Position::START;
        while !reader.is_empty() {
            let entry = read_entry(reader, before)?;
            before = entry.position();
            // Sought by halving, so they must ascend.
            if before <= self.last || before > self.restored.cursor.position {
                return Err(Corrupt("a position is at the wrong place"));
            }
            self.last = before;
            self.trail += 1;
            self.restored.trail.push_back(entry);
            if self.restored.trail.len() > self.resume_window {
                self.restored.trail.pop_front();
            }
        }
        Ok(())
    }

    fn tasks(&mut self, reader: &mut BinaryReader<'_>) -> Result<(), Corrupt> {
        while !reader.is_empty() {
            if self.restored.slots.len() >= self.tasks_max {
                return Err(TOO_MANY_TASKS);
            }
            let slot = self.slot(reader)?;
            self.restored.slots.push(slot);
        }
        Ok(())
    }

    fn slot(&self, reader: &mut BinaryReader<'_>) -> Result<Slot, Corrupt> {
        let id = read_task_id(reader)?;
        let seq = reader.option(BinaryReader::number)?;
        let timestamp_ms = reader.option(BinaryReader::number)?;
        let key_floor = reader.position(Position::START)?;
        let born = reader.position(Position::START)?;
        let heard_at_ms = reader.number()?;
        let count: usize = reader.small()?;
        if count > EVENT_IDS_MAX {
            return Err(Corrupt("a task has too many event ids"));
        }
        let event_ids = (0..count).map(|_| reader.shared_text()).collect::<Result<VecDeque<_>, _>>()?;
        let memory = Memory::restored(seq, timestamp_ms, event_ids);
        let moves = self.moves(reader, &id)?;
        let count: usize = reader.small()?;
        if count == 0 {
            return Err(Corrupt("a task has no frame"));
        }
        let mut slot =
            Slot::restored(self.frame(reader, &id, None)?, Past { memory, key_floor, born, moves }, heard_at_ms);
        for _ in 1..count {
            let frame = self.frame(reader, &id, Some(slot.restoring().current()))?;
            // The ring may have been a longer one; at no time is there more of it than the hub may hold.
            slot.restore(frame, self.ring_frames);
        }
        Ok(slot)
    }

    fn moves(&self, reader: &mut BinaryReader<'_>, id: &TaskId) -> Result<Moves, Corrupt> {
        let count: usize = reader.small()?;
        if count > MOVES_MAX {
            return Err(Corrupt("a task has too many moves"));
        }
        let mut moves = Moves::new();
        for _ in 0..count {
            let moved_at = reader.position(Position::START)?;
            moves.push_back((moved_at, Arc::new(self.frame(reader, id, None)?)));
        }
        Ok(moves)
    }

    fn frame(
        &self,
        reader: &mut BinaryReader<'_>,
        id: &TaskId,
        before: Option<&Arc<TaskFrame>>,
    ) -> Result<TaskFrame, Corrupt> {
        let known = before.map_or(Position::START, |before| before.position());
        let cursor = reader.cursor(known)?;
        if cursor.position <= known || cursor.position > self.restored.cursor.position {
            return Err(Corrupt("a frame is at the wrong place"));
        }
        let is_key = reader.byte()? != 0;
        let task = read_task(reader, id, before.map(|before| &before.task))?;
        let applied_at_ms = reader.difference(task.updated_at_ms)?;
        Ok(TaskFrame::new(task, cursor, is_key, applied_at_ms))
    }
}
