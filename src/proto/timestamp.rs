//! Moments on the wire: RFC 3339 text and numbers in, RFC 3339 in UTC with milliseconds out. Inside the service a moment
//! is milliseconds since the Unix epoch. Reads no clock.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// 9999-12-31T23:59:59.999Z, the last moment that RFC 3339 can write.
pub const TIMESTAMP_MAX_MS: u64 = 253_402_300_799_999;

/// Numbers above this are milliseconds, others seconds: as seconds it is the year 5138, as milliseconds March 1973.
const SECONDS_MAX: f64 = 1e11;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: u64 = 146_097;

/// From March 1st of the year 0, where an era begins, to the Unix epoch.
const EPOCH_DAYS: u64 = 719_468;

/// Reads RFC 3339; digits beyond milliseconds are dropped.
pub(super) fn parse(text: &str) -> Option<u64> {
    parse_utc(text.as_bytes()).or_else(|| {
        let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let ms = u64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
        (ms <= TIMESTAMP_MAX_MS).then_some(ms)
    })
}

/// The form that nearly every worker sends, `2026-01-31T23:59:59.999Z` with any number of digits after the point or
/// none; `None` when it is another. Every event has one, and the library takes several times as long.
fn parse_utc(text: &[u8]) -> Option<u64> {
    let (moment, rest) = text.split_first_chunk::<19>()?;
    for (at, separator) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
        if moment[at] != separator {
            return None;
        }
    }
    let number = |from: usize, to: usize| {
        moment[from..to]
            .iter()
            .try_fold(0_u64, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let is_moment = year >= 1970
        && (1..=12).contains(&month)
        && (1..=days_of_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let ms = milliseconds(rest)?;
    is_moment.then(|| days(year, month, day) * DAY_MS + (hour * 3600 + minute * 60 + second) * 1000 + ms)
}

/// Of what stands behind the seconds: `Z` or `.123Z`.
fn milliseconds(rest: &[u8]) -> Option<u64> {
    let fraction = match rest {
        [b'Z'] => return Some(0),
        [b'.', fraction @ .., b'Z'] => fraction,
        _ => return None,
    };
    let is_number = (1..=9).contains(&fraction.len()) && fraction.iter().all(u8::is_ascii_digit);
    let digit = |place: usize| fraction.get(place).map_or(0, |digit| u64::from(digit - b'0'));
    is_number.then(|| digit(0) * 100 + digit(1) * 10 + digit(2))
}

fn days_of_month(year: u64, month: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 => 28 + u64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from the Unix epoch to a date from 1970 on. Years are counted from March, so that a leap day is the last of its
/// year and 153 days are five months.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * ERA_DAYS + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - EPOCH_DAYS
}

/// The date, so many days from the Unix epoch: the way of [`days`] back.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH_DAYS;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months = (5 * day_of_year + 2) / 153;
    let (month, day) = ((months + 2) % 12 + 1, day_of_year - (153 * months + 2) / 5 + 1);
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
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
    let unix_ms = unix_ms.min(TIMESTAMP_MAX_MS);
    let (year, month, day) = date(unix_ms / DAY_MS);
    let (seconds, ms) = (unix_ms % DAY_MS / 1000, unix_ms % 1000);
    let mut out = *b"0000-00-00T00:00:00.000Z";
    let mut put = |end: usize, digits: usize, number: u64| {
        let mut rest = number;
        for place in out[end - digits..end].iter_mut().rev() {
            *place = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    };
    put(4, 4, year);
    put(7, 2, month);
    put(10, 2, day);
    put(13, 2, seconds / 3600);
    put(16, 2, seconds / 60 % 60);
    put(19, 2, seconds % 60);
    put(23, 3, ms);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the library reads it.
    fn slowly(text: &str) -> Option<u64> {
        let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let ms = u64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
        (ms <= TIMESTAMP_MAX_MS).then_some(ms)
    }

    #[test]
    fn every_day_that_rfc_3339_can_write_is_the_library_s() {
        for day in 0..=TIMESTAMP_MAX_MS / DAY_MS {
            let moment = OffsetDateTime::from_unix_timestamp((day * DAY_MS / 1000).cast_signed()).unwrap();
            let ymd = (moment.year() as u64, u64::from(u8::from(moment.month())), u64::from(moment.day()));
            assert_eq!(date(day), ymd);
            assert_eq!(days(ymd.0, ymd.1, ymd.2), day);
        }
    }

    #[test]
    fn impossible_dates_and_hours_are_refused_and_edges_of_possible_ones_are_not() {
        let same = |text: &str| assert_eq!(parse_utc(text.as_bytes()).or_else(|| slowly(text)), slowly(text), "{text}");
        for year in [1900, 1969, 1970, 1972, 2000, 2023, 2024, 2100, 9999] {
            for (month, day) in (0..14).flat_map(|month| (0..33).map(move |day| (month, day))) {
                same(&format!("{year}-{month:02}-{day:02}T12:30:30Z"));
            }
        }
        for (hour, minute) in (0..26).flat_map(|hour| [0, 59, 60].map(|minute| (hour, minute))) {
            for (second, end) in
                [0, 59, 60, 61].into_iter().flat_map(|s| ["Z", ".1Z", ".Z", ".1234567890Z"].map(|e| (s, e)))
            {
                same(&format!("2026-06-30T{hour:02}:{minute:02}:{second:02}{end}"));
            }
        }
    }

    proptest! {
        /// Also what is no date, no hour or no form that is read here.
        #[test]
        fn the_quick_way_reads_what_the_library_reads(
            (year, month, day) in (1968..2110_u32, 0..14_u32, 0..33_u32),
            (hour, minute, second) in (0..25_u32, 0..61_u32, 0..62_u32),
            end in r"(\.[0-9]{0,10})?(Z|z|\+01:00|-00:00|)",
            middle in "[Tt ]",
        ) {
            let text = format!("{year:04}-{month:02}-{day:02}{middle}{hour:02}:{minute:02}:{second:02}{end}");
            prop_assert_eq!(parse(&text), slowly(&text), "{}", text);
            if let Some(quick) = parse_utc(text.as_bytes()) {
                prop_assert_eq!(Some(quick), slowly(&text), "{}", text);
            }
        }

        #[test]
        fn no_bytes_are_read_as_a_moment_that_the_library_does_not_see(text in "[0-9TZ:. +-]{19,26}") {
            prop_assert_eq!(parse(&text), slowly(&text));
        }
    }

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
