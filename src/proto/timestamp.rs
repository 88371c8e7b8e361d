//! Moments on the wire: RFC 3339 text and numbers in, RFC 3339 in UTC with milliseconds out. Inside the service a moment
//! is milliseconds since the Unix epoch. Reads no clock.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// 9999-12-31T23:59:59.999Z, the last moment that RFC 3339 can write.
pub(super) const TIMESTAMP_MAX_MS: u64 = 253_402_300_799_999;

/// Numbers above this are milliseconds, others seconds: as seconds it is the year 5138, as milliseconds March 1973.
const SECONDS_MAX: f64 = 1e11;

/// Reads RFC 3339; digits beyond milliseconds are dropped.
pub(super) fn parse(text: &str) -> Option<u64> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let ms = u64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
    (ms <= TIMESTAMP_MAX_MS).then_some(ms)
}

/// Reads a number of seconds (with fractions, as Celery sends) or of milliseconds (as JavaScript has them).
pub(super) fn from_number(number: f64) -> Option<u64> {
    let ms = if number > SECONDS_MAX { number } else { number * 1000.0 };
    let is_moment = ms >= 0.0 && ms <= TIMESTAMP_MAX_MS as f64;
    is_moment.then(|| ms.round() as u64)
}

/// A moment for people: RFC 3339 in UTC with milliseconds.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    String::from_utf8_lossy(&text(unix_ms)).into_owned()
}

/// Writes RFC 3339 in UTC with milliseconds. By hand, because every frame has up to five of them: `format!` took half of
/// a frame's time.
pub(super) fn text(unix_ms: u64) -> [u8; 24] {
    let nanos = i128::from(unix_ms.min(TIMESTAMP_MAX_MS)) * 1_000_000;
    let moment = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (hour, minute, second, ms) = moment.to_hms_milli();
    let mut out = *b"0000-00-00T00:00:00.000Z";
    let mut put = |end: usize, digits: usize, number: u32| {
        let mut rest = number;
        for place in out[end - digits..end].iter_mut().rev() {
            *place = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    };
    put(4, 4, moment.year().unsigned_abs());
    put(7, 2, u32::from(u8::from(moment.month())));
    put(10, 2, u32::from(moment.day()));
    put(13, 2, u32::from(hour));
    put(16, 2, u32::from(minute));
    put(19, 2, u32::from(second));
    put(23, 3, u32::from(ms));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_survives_its_text_form() {
        for ms in [0, 1, 1_700_000_000_123, TIMESTAMP_MAX_MS] {
            assert_eq!(parse(std::str::from_utf8(&text(ms)).unwrap()), Some(ms));
        }
        assert_eq!(text(1_700_000_000_007), *b"2023-11-14T22:13:20.007Z");
        assert_eq!(text(u64::MAX), *b"9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn offsets_are_honoured_and_texts_without_one_are_refused() {
        assert_eq!(parse("2023-11-14T23:13:20.1239+01:00"), Some(1_700_000_000_123));
        for text in ["2023-11-14T22:13:20", "1969-12-31T23:59:59Z", "yesterday", "", "2023-11-14"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_seconds_until_they_are_too_large_for_that() {
        assert_eq!(from_number(1_700_000_000.5), Some(1_700_000_000_500));
        assert_eq!(from_number(1_700_000_000_500.0), Some(1_700_000_000_500));
        assert_eq!(from_number(-1.0), None);
        assert_eq!(from_number(1e300), None);
    }
}
