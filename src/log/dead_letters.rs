//! Dead letters: entries of the log that are no events, kept beside the log with the reason, so that an operator can
//! look at them and append them again. Owns what a dead letter holds, its form in the broker, and how much of it is
//! kept. Refuses to know: brokers, and what an event is.
//!
//! Every replica reads the whole log, and again with every start, so all of them meet the same poison, each many times.
//! It is set aside once: dead letters are kept in the order of the log, so the last one that was set aside is a
//! **watermark** up to which everything has been judged. The watermark proves itself as a cursor does, by position and
//! proof: where other bytes stand in the log, or where the log does not reach, the dead letters are another log's, and
//! say nothing of this one.

use bytes::Bytes;

use super::Record;
use crate::proto::{ContentType, Malformed, Position, proof};

/// The longest payload that is kept. It is as long as an event may be: what is longer is cut, says so, and can be
/// looked at but not replayed.
pub const PAYLOAD_MAX_BYTES: usize = 64 * 1024;
/// Longer names of fields are cut.
const FIELD_MAX_BYTES: usize = 256;
/// Longer details are cut.
const DETAIL_MAX_BYTES: usize = 1024;
/// What is appended to the log's key for the name of the stream of its dead letters, on both brokers.
pub(super) const SUFFIX: &str = ":dead-letters";

/// The fields of an entry, beside its payload.
const POSITION: &str = "position";
const PROOF: &str = "proof";
const APPENDED_AT_MS: &str = "appended_at_ms";
const CONTENT_TYPE: &str = "content_type";
const REASON: &str = "reason";
const FIELD: &str = "field";
const DETAIL: &str = "detail";
const PAYLOAD_BYTES: &str = "payload_bytes";

/// One entry of the log that could not be read as an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it stands in the log. With `proof`, this tells it from all others.
    pub position: Position,
    /// Of the whole payload.
    pub proof: u32,
    /// When the log took it, if the log says: milliseconds since the Unix epoch.
    pub appended_at_ms: Option<u64>,
    pub content_type: ContentType,
    /// The label of the reason; text, since another version may have written it.
    pub reason: String,
    pub field: Option<String>,
    pub detail: String,
    /// At most [`PAYLOAD_MAX_BYTES`].
    pub payload: Bytes,
    /// How long the payload was.
    pub payload_bytes: u64,
}

/// How far a log's poison has been judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watermark {
    pub(super) position: Position,
    pub(super) proof: u32,
}

impl DeadLetter {
    #[must_use]
    pub fn new(record: &Record, malformed: &Malformed) -> Self {
        let payload = match record.payload.get(..PAYLOAD_MAX_BYTES) {
            // A slice would hold on to all of it.
            Some(start) if start.len() < record.payload.len() => Bytes::copy_from_slice(start),
            _ => record.payload.clone(),
        };
        Self {
            position: record.position,
            proof: proof(&record.payload),
            appended_at_ms: record.appended_at_ms,
            content_type: record.content_type,
            reason: malformed.reason.as_str().to_owned(),
            field: malformed.field.as_deref().map(|field| cut(field, FIELD_MAX_BYTES)),
            detail: cut(&malformed.detail, DETAIL_MAX_BYTES),
            payload_bytes: record.payload.len() as u64,
            payload,
        }
    }

    /// Only the start of the payload was kept: it cannot be replayed.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.payload_bytes > self.payload.len() as u64
    }

    /// About what it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.payload.len() + self.detail.len() + self.field.as_ref().map_or(0, String::len)
    }

    pub(super) fn watermark(&self) -> Watermark {
        Watermark { position: self.position, proof: self.proof }
    }

    /// Everything but the payload, as the broker keeps it.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = self.watermark().fields();
        fields.extend([
            (CONTENT_TYPE, self.content_type.as_str().to_owned()),
            (REASON, self.reason.clone()),
            (DETAIL, self.detail.clone()),
            (PAYLOAD_BYTES, self.payload_bytes.to_string()),
        ]);
        fields.extend(self.field.clone().map(|field| (FIELD, field)));
        fields.extend(self.appended_at_ms.map(|ms| (APPENDED_AT_MS, ms.to_string())));
        fields
    }

    /// Reads what [`Self::fields`] gave; `None` when it is something else. What it does not know, it ignores.
    pub(super) fn read(fields: &Fields<'_>, payload: Bytes) -> Option<Self> {
        let Watermark { position, proof } = Watermark::read(fields)?;
        let text = |name| fields.text(name).map(str::to_owned);
        Some(Self {
            position,
            proof,
            appended_at_ms: fields.number(APPENDED_AT_MS),
            content_type: fields.text(CONTENT_TYPE).and_then(ContentType::parse).unwrap_or_default(),
            reason: text(REASON)?,
            field: text(FIELD),
            detail: text(DETAIL).unwrap_or_default(),
            payload_bytes: fields.number(PAYLOAD_BYTES).unwrap_or(payload.len() as u64),
            payload,
        })
    }
}

impl Watermark {
    pub(super) fn fields(self) -> Vec<(&'static str, String)> {
        vec![(POSITION, self.position.to_string()), (PROOF, format!("{:08x}", self.proof))]
    }

    pub(super) fn read(fields: &Fields<'_>) -> Option<Self> {
        let position = fields.text(POSITION)?.parse().ok()?;
        let proof = u32::from_str_radix(fields.text(PROOF)?, 16).ok()?;
        Some(Self { position, proof })
    }
}

/// Names and values of an entry, in no order.
pub(super) struct Fields<'a>(pub(super) Vec<(&'a [u8], &'a [u8])>);

impl Fields<'_> {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| *known == name.as_bytes())?;
        str::from_utf8(value).ok()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

/// The longest beginning whose positions ascend: where they fall, another log begins.
pub(super) fn ascending(letters: &[DeadLetter]) -> usize {
    let ascends = letters.windows(2).take_while(|pair| pair[0].position < pair[1].position).count();
    (ascends + 1).min(letters.len())
}

/// The same letter twice is one; the newest of them stay.
pub(super) fn newest(letters: Vec<DeadLetter>, limit: usize) -> Vec<DeadLetter> {
    let mut seen = std::collections::HashSet::new();
    let mut once: Vec<DeadLetter> =
        letters.into_iter().filter(|letter| seen.insert((letter.position, letter.proof))).collect();
    once.drain(..once.len().saturating_sub(limit));
    once
}

fn cut(text: &str, max_bytes: usize) -> String {
    text[..text.floor_char_boundary(max_bytes)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Event;

    fn letter(payload: impl Into<Bytes>) -> DeadLetter {
        let record = Record {
            position: Position { major: 5, minor: 1 },
            appended_at_ms: Some(5),
            content_type: ContentType::CloudEvents,
            payload: payload.into(),
            trace: None,
        };
        let malformed = Event::decode(record.content_type, &record.payload).unwrap_err();
        DeadLetter::new(&record, &malformed)
    }

    fn reread(letter: &DeadLetter) -> Option<DeadLetter> {
        let fields = letter.fields();
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        DeadLetter::read(&Fields(fields), letter.payload.clone())
    }

    #[test]
    fn a_dead_letter_survives_its_form_in_the_broker() {
        let letter = letter(&b"\xff\x00not an event"[..]);
        assert_eq!((letter.reason.as_str(), letter.is_truncated()), ("syntax", false));
        assert_eq!(reread(&letter), Some(letter));
    }

    #[test]
    fn a_long_payload_is_cut_and_says_so_and_lets_go_of_the_rest() {
        let whole = Bytes::from(vec![b'x'; 5_000_000]);
        let letter = letter(whole.clone());
        assert_eq!((letter.payload.len(), letter.payload_bytes), (PAYLOAD_MAX_BYTES, 5_000_000));
        assert!(letter.is_truncated() && letter.bytes() < 2 * PAYLOAD_MAX_BYTES);
        assert_ne!(letter.payload.as_ptr(), whole.as_ptr(), "its own memory");
        assert_eq!(reread(&letter), Some(letter));
    }

    #[test]
    fn what_strangers_wrote_into_the_stream_is_not_a_dead_letter() {
        for fields in [vec![], vec![(&b"position"[..], &b"5-1"[..])], vec![(b"position", b"x"), (b"proof", b"00")]] {
            assert_eq!(DeadLetter::read(&Fields(fields), Bytes::new()), None);
        }
    }

    #[test]
    fn a_batch_is_cut_where_another_log_begins() {
        let at = |major| DeadLetter { position: Position { major, minor: 0 }, ..letter(&b""[..]) };
        assert_eq!(ascending(&[]), 0);
        assert_eq!(ascending(&[at(3)]), 1);
        assert_eq!(ascending(&[at(3), at(7), at(2), at(9)]), 2);
    }

    #[test]
    fn the_same_letter_twice_is_one_and_the_newest_stay() {
        let at = |major| DeadLetter { position: Position { major, minor: 0 }, ..letter(&b""[..]) };
        let other_log = DeadLetter { proof: 7, ..at(1) };
        let kept = newest(vec![at(1), at(2), other_log.clone(), at(2), at(3)], 3);
        assert_eq!(kept, [at(2), other_log, at(3)]);
    }
}
