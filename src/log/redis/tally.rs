//! The bookkeeping by which the reader of a stream knows that it is still the same one and that nothing was lost.
//! Owns the place where reading stands. Pure: refuses to know connections.
//!
//! From Redis 7 on a stream counts every entry ever added, so the entries that are gone from its head are
//! `added - length` many. The reader counts along: `seen` entries were added up to where it stands. More gone than
//! seen: something was trimmed unread. Fewer added than seen: it is another stream.

use super::wire::Info;
use crate::{
    log::{Bookmark, Record, RestartReason},
    proto::{Cursor, Position, proof},
};

/// Where reading stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// The last record handed over, and the proof of its bytes.
    last: Option<(Position, u32)>,
    /// How many entries were added up to `last`, when the stream says so.
    seen: Option<u64>,
}

impl Tally {
    /// At the start of a stream in which `info` was true at the moment of the first read.
    pub(super) fn at_start(info: Option<&Info>) -> Self {
        let seen = info.map_or(Some(0), |info| info.added.map(|added| added.saturating_sub(info.length)));
        Self { last: None, seen }
    }

    /// Where another reader stood.
    pub(super) fn at_bookmark(bookmark: Bookmark) -> Self {
        let Cursor { position, proof } = bookmark.cursor;
        Self { last: Some((position, proof)), seen: bookmark.added }
    }

    pub(super) fn bookmark(&self) -> Option<Bookmark> {
        let (position, proof) = self.last?;
        Some(Bookmark { cursor: Cursor { position, proof }, added: self.seen })
    }

    pub(super) fn last(&self) -> Option<(Position, u32)> {
        self.last
    }

    /// Read after this.
    pub(super) fn position(&self) -> Position {
        self.last.map_or(Position::START, |(position, _)| position)
    }

    pub(super) fn read(&mut self, records: &[Record]) {
        if let Some(record) = records.last() {
            self.last = Some((record.position, proof(&record.payload)));
            self.seen = self.seen.map(|seen| seen + records.len() as u64);
        }
    }

    /// Whether everything that stood in the stream has been read.
    pub(super) fn caught_up(&self, info: &Info) -> bool {
        info.last_entry.is_none_or(|last| last <= self.position())
    }

    /// How many entries are still to be read, about.
    pub(super) fn behind(&self, info: &Info) -> u64 {
        if self.caught_up(info) {
            return 0;
        }
        let counted = info.added.zip(self.seen).map(|(added, seen)| added.saturating_sub(seen));
        counted.unwrap_or(info.length).max(1)
    }

    /// Compares with what the stream says of itself; `info` is `None` when there is no stream.
    pub(super) fn check(&mut self, info: Option<&Info>) -> Result<(), RestartReason> {
        let Some(info) = info else {
            return if self.last.is_some() { Err(RestartReason::Replaced) } else { Ok(()) };
        };
        if info.last_generated < self.position() {
            return Err(RestartReason::Replaced);
        }
        let (Some(added), Some(seen)) = (info.added, self.seen) else {
            // Without the counter, or after the service saw the stream with another version of Redis.
            self.seen = info.added.filter(|_| self.caught_up(info));
            return Ok(());
        };
        if added < seen {
            return Err(RestartReason::Replaced);
        }
        let gone = added.saturating_sub(info.length);
        // At the end of the stream everything ever added has been seen, or something was trimmed in between.
        if gone > seen || (self.caught_up(info) && info.length > 0 && added > seen) {
            return Err(RestartReason::Trimmed);
        }
        Ok(())
    }

    /// What it means that the last record was looked for after a reconnect and is not there.
    pub(super) fn missing(&self, info: &Info) -> Result<(), RestartReason> {
        if info.first_entry.is_some_and(|first| first < self.position()) {
            // Older ones are still there: trimming cannot have taken it.
            return Err(RestartReason::Replaced);
        }
        match (info.added, self.seen) {
            (Some(added), Some(seen)) => match added.saturating_sub(info.length).cmp(&seen) {
                // Exactly what had been read is gone, and nothing after it.
                std::cmp::Ordering::Equal => Ok(()),
                std::cmp::Ordering::Greater => Err(RestartReason::Trimmed),
                // Trimming would have taken at least as many as were read.
                std::cmp::Ordering::Less => Err(RestartReason::Replaced),
            },
            _ => Err(RestartReason::Trimmed),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::proto::ContentType;

    fn at(major: u64) -> Position {
        Position { major, minor: 0 }
    }

    /// A stream with the entries `first..=last`, all that were ever added being `1..=last`.
    fn stream(first: u64, last: u64) -> Info {
        Info {
            length: (last + 1).saturating_sub(first),
            last_generated: at(last),
            first_entry: (first <= last).then(|| at(first)),
            last_entry: (first <= last).then(|| at(last)),
            added: Some(last),
        }
    }

    fn records(range: std::ops::RangeInclusive<u64>) -> Vec<Record> {
        let record = |major| Record {
            position: at(major),
            appended_at_ms: None,
            content_type: ContentType::Json,
            payload: Bytes::from_static(b"{}"),
            trace: None,
        };
        range.map(record).collect()
    }

    fn having_read(range: std::ops::RangeInclusive<u64>, of: &Info) -> Tally {
        let mut tally = Tally::at_start(Some(of));
        tally.read(&records(range));
        tally
    }

    #[test]
    fn trimming_what_had_been_read_is_no_loss() {
        let mut tally = having_read(1..=10, &stream(1, 10));
        assert_eq!(tally.check(Some(&stream(9, 12))), Ok(()));
        assert_eq!(tally.check(Some(&stream(11, 12))), Ok(()));
        assert_eq!(tally.missing(&stream(11, 12)), Ok(()));
        assert_eq!(tally.behind(&stream(9, 12)), 2);
    }

    #[test]
    fn trimming_one_unread_record_is_a_restart() {
        let mut tally = having_read(1..=10, &stream(1, 10));
        assert_eq!(tally.check(Some(&stream(12, 20))), Err(RestartReason::Trimmed));
        assert_eq!(tally.missing(&stream(12, 20)), Err(RestartReason::Trimmed));
    }

    #[test]
    fn a_gap_that_was_read_across_shows_at_the_end_of_the_stream() {
        let mut tally = having_read(1..=10, &stream(1, 10));
        tally.read(&records(15..=20));
        assert_eq!(tally.check(Some(&stream(15, 20))), Err(RestartReason::Trimmed));
    }

    #[test]
    fn a_stream_that_lost_its_head_long_ago_is_read_without_a_restart() {
        let mut tally = having_read(500..=600, &stream(500, 600));
        assert_eq!(tally.check(Some(&stream(550, 600))), Ok(()));
    }

    #[test]
    fn a_refilled_stream_is_another_one() {
        let mut tally = having_read(1..=10, &stream(1, 10));
        let refilled =
            Info { first_entry: Some(at(30)), last_entry: Some(at(40)), length: 3, added: Some(3), ..stream(1, 40) };
        assert_eq!(tally.check(Some(&refilled)), Err(RestartReason::Replaced));
        let longer = Info { length: 30, added: Some(30), ..refilled };
        assert_eq!(tally.missing(&longer), Err(RestartReason::Replaced));
        assert_eq!(tally.check(None), Err(RestartReason::Replaced));
    }

    #[test]
    fn a_missing_record_between_older_and_newer_ones_means_another_stream() {
        let tally = having_read(1..=10, &stream(1, 10));
        assert_eq!(tally.missing(&stream(3, 20)), Err(RestartReason::Replaced));
    }

    #[test]
    fn without_the_counter_a_later_first_entry_counts_as_trimmed() {
        let old = |info: Info| Info { added: None, ..info };
        let mut tally = having_read(1..=10, &old(stream(1, 10)));
        assert_eq!(tally.check(Some(&old(stream(5, 20)))), Ok(()));
        assert_eq!(tally.missing(&old(stream(11, 20))), Err(RestartReason::Trimmed));
    }
}
