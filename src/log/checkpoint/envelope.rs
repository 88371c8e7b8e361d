//! What proves a checkpoint: every chunk says which checkpoint it belongs to, which of its chunks it is, and its own
//! checksum; the manifest says how many there are, how long they are together, and the checksum of all. Versioned. Pure.
//!
//! Refuses to know: brokers, and what the chunks mean.

use super::CheckpointError;
use crate::{
    clock,
    log::Bookmark,
    proto::{BinaryReader, Corrupt, Position, push_cursor, push_number, push_option},
};

/// Raised by whatever makes older versions misread a checkpoint: of this envelope, or of what the chunks hold.
const FORMAT: u16 = 1;
const CHUNK: [u8; 4] = *b"TCkc";
const MANIFEST: [u8; 4] = *b"TCkm";
/// No manifest is longer.
pub(in crate::log) const MANIFEST_BYTES_MAX: usize = 128;

/// Tells one checkpoint from another.
pub type CheckpointId = [u8; 16];

/// What is known of a checkpoint without reading its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub id: CheckpointId,
    pub chunks: u32,
    /// Of all chunks together, without their headers.
    pub bytes: u64,
    /// CRC-32 of all chunks, one behind the other.
    pub checksum: u32,
    /// Milliseconds since the Unix epoch, by the clock of the replica that wrote it.
    pub written_at_ms: u64,
    /// Where the reader of the log goes on.
    pub bookmark: Bookmark,
}

/// One chunk, as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::log) struct Chunk {
    pub(in crate::log) id: CheckpointId,
    pub(in crate::log) index: u32,
    pub(in crate::log) payload: Vec<u8>,
}

/// What stands in one message or element.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::log) enum Parsed {
    Chunk(Chunk),
    Manifest(Manifest),
}

/// A header, the body, and the checksum of both.
fn sealed(magic: [u8; 4], body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&magic);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    body(&mut out);
    let checksum = crc32fast::hash(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// Reads a chunk or a manifest.
pub(in crate::log) fn parse(bytes: &[u8]) -> Result<Parsed, CheckpointError> {
    let mut reader = BinaryReader::new(bytes);
    let magic: [u8; 4] = reader.array()?;
    if magic != CHUNK && magic != MANIFEST {
        return Err(Corrupt("it is not taskcast's").into());
    }
    // Before the checksum: a later version may put that elsewhere.
    let format = u16::from_le_bytes(reader.array()?);
    if format > FORMAT {
        return Err(CheckpointError::Newer(format));
    }
    let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(Corrupt("it ends too early"))?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return Err(Corrupt("a checksum differs").into());
    }
    let mut reader = BinaryReader::new(body);
    reader.take(magic.len() + size_of::<u16>())?;
    let id = reader.array()?;
    if magic == CHUNK {
        let index = reader.small()?;
        let payload = reader.take(reader.len())?.to_vec();
        return Ok(Parsed::Chunk(Chunk { id, index, payload }));
    }
    let manifest = Manifest {
        id,
        chunks: reader.small()?,
        bytes: reader.number()?,
        checksum: u32::from_le_bytes(reader.array()?),
        written_at_ms: reader.number()?,
        bookmark: Bookmark { cursor: reader.cursor(Position::START)?, added: reader.option(BinaryReader::number)? },
    };
    if reader.is_empty() { Ok(Parsed::Manifest(manifest)) } else { Err(Corrupt("a manifest is too long").into()) }
}

impl Manifest {
    pub(in crate::log) fn encode(&self) -> Vec<u8> {
        sealed(MANIFEST, |out| {
            out.extend_from_slice(&self.id);
            push_number(out, u64::from(self.chunks));
            push_number(out, self.bytes);
            out.extend_from_slice(&self.checksum.to_le_bytes());
            push_number(out, self.written_at_ms);
            push_cursor(out, self.bookmark.cursor, Position::START);
            push_option(out, self.bookmark.added, push_number);
        })
    }
}

/// Counts and sums up chunks: while they are written, and again while they are read.
pub(in crate::log) struct Assembly {
    id: CheckpointId,
    chunks: u32,
    bytes: u64,
    hasher: crc32fast::Hasher,
}

impl Default for Assembly {
    fn default() -> Self {
        Self::of(*clock::unique_id().as_bytes())
    }
}

impl Assembly {
    /// For the chunks of a checkpoint that was written before.
    pub(in crate::log) fn of(id: CheckpointId) -> Self {
        Self { id, chunks: 0, bytes: 0, hasher: crc32fast::Hasher::new() }
    }

    pub(in crate::log) fn id(&self) -> CheckpointId {
        self.id
    }

    pub(in crate::log) fn chunks(&self) -> u32 {
        self.chunks
    }

    pub(in crate::log) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn count(&mut self, payload: &[u8]) {
        self.chunks += 1;
        self.bytes += payload.len() as u64;
        self.hasher.update(payload);
    }

    /// The next chunk to write.
    pub(in crate::log) fn add(&mut self, payload: &[u8]) -> Vec<u8> {
        let (id, index) = (self.id, self.chunks);
        self.count(payload);
        sealed(CHUNK, |out| {
            out.reserve(payload.len() + 32);
            out.extend_from_slice(&id);
            push_number(out, u64::from(index));
            out.extend_from_slice(payload);
        })
    }

    /// The next chunk that was read: it must be the one whose turn it is.
    pub(in crate::log) fn accept(&mut self, chunk: &Chunk, manifest: &Manifest) -> Result<(), CheckpointError> {
        if chunk.id != self.id || chunk.index != self.chunks {
            return Err(Corrupt("a chunk is missing or at the wrong place").into());
        }
        self.count(&chunk.payload);
        if self.bytes > manifest.bytes {
            return Err(Corrupt("it is longer than its manifest says").into());
        }
        Ok(())
    }

    /// All chunks were read.
    pub(in crate::log) fn verify(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let is_whole = self.chunks == manifest.chunks
            && self.bytes == manifest.bytes
            && self.hasher.clone().finalize() == manifest.checksum;
        if is_whole { Ok(()) } else { Err(Corrupt("it is not whole").into()) }
    }

    pub(in crate::log) fn manifest(&self, bookmark: Bookmark, written_at_ms: u64) -> Manifest {
        Manifest {
            id: self.id,
            chunks: self.chunks,
            bytes: self.bytes,
            checksum: self.hasher.clone().finalize(),
            written_at_ms,
            bookmark,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Cursor;

    fn bookmark() -> Bookmark {
        let position = Position { major: 1_700_000_000_000, minor: 3 };
        Bookmark { cursor: Cursor { position, proof: 0xdead_beef }, added: Some(77) }
    }

    fn written() -> (Vec<Vec<u8>>, Manifest) {
        let mut assembly = Assembly::default();
        let chunks = [b"first".as_slice(), b"", b"third"].map(|payload| assembly.add(payload));
        (chunks.to_vec(), assembly.manifest(bookmark(), 1_700_000_000_123))
    }

    fn read(chunks: &[Vec<u8>], manifest: &[u8]) -> Result<(Vec<Vec<u8>>, Manifest), CheckpointError> {
        let Parsed::Manifest(manifest) = parse(manifest)? else { return Err(Corrupt("no manifest").into()) };
        let mut assembly = Assembly::of(manifest.id);
        let mut payloads = Vec::new();
        for chunk in chunks {
            let Parsed::Chunk(chunk) = parse(chunk)? else { return Err(Corrupt("no chunk").into()) };
            assembly.accept(&chunk, &manifest)?;
            payloads.push(chunk.payload);
        }
        assembly.verify(&manifest)?;
        Ok((payloads, manifest))
    }

    #[test]
    fn what_was_written_is_read_as_it_was() {
        let (chunks, manifest) = written();
        let (payloads, read) = read(&chunks, &manifest.encode()).unwrap();
        assert_eq!(payloads, [b"first".to_vec(), b"".to_vec(), b"third".to_vec()]);
        assert_eq!(read, manifest);
        assert!(manifest.encode().len() < MANIFEST_BYTES_MAX);
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let (chunks, manifest) = written();
        let manifest = manifest.encode();
        let all: Vec<_> = chunks.iter().chain([&manifest]).collect();
        for (number, part) in all.iter().enumerate() {
            for at in 0..part.len() {
                for bit in 0..8 {
                    let mut parts: Vec<Vec<u8>> = all.iter().map(|part| (*part).clone()).collect();
                    parts[number][at] ^= 1 << bit;
                    assert!(read(&parts[..3], &parts[3]).is_err(), "part {number}, byte {at}, bit {bit}");
                    parts[number].truncate(at);
                    assert!(read(&parts[..3], &parts[3]).is_err(), "part {number} cut to {at} bytes");
                }
            }
        }
    }

    #[test]
    fn chunks_that_are_missing_swapped_or_of_another_checkpoint_are_noticed() {
        let (chunks, manifest) = written();
        let encoded = manifest.encode();
        let [a, b, c] = [0, 1, 2].map(|n: usize| chunks[n].clone());
        assert!(read(&[a.clone(), b.clone()], &encoded).is_err());
        assert!(read(&[a.clone(), c.clone(), b.clone()], &encoded).is_err());
        assert!(read(&[a.clone(), a.clone(), b.clone(), c.clone()], &encoded).is_err());
        let (others, _) = written();
        assert!(read(&[a, b, others[2].clone()], &encoded).is_err());
    }

    #[test]
    fn a_later_format_is_told_from_a_corrupt_one() {
        let mut manifest = written().1.encode();
        manifest[4] = 2;
        assert_eq!(parse(&manifest), Err(CheckpointError::Newer(2)));
        assert!(matches!(parse(b"something else"), Err(CheckpointError::Corrupt(_))));
        assert!(matches!(parse(b""), Err(CheckpointError::Corrupt(_))));
    }
}
