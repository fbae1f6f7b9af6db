//! Dates, times and durations as PostgreSQL reads them. In: JSON numbers with their unit, and texts. Out: a
//! text that has one meaning, or why there is none. Pure.
//!
//! PostgreSQL reads many texts that nobody meant as a date: 1712340115 is a day of the year 171234. So a
//! number needs a unit, and a text of digits has to be an ISO 8601 date or time.

use std::borrow::Cow;

use crds::spec::EpochUnit;
use jiff::{Timestamp, tz::TimeZone};

use super::table::Temporal;

const MICROSECONDS_PER_DAY: i128 = 86_400_000_000;

/// The text of a JSON number.
pub(super) fn number(raw: &str, kind: Temporal, unit: Option<EpochUnit>) -> Result<String, &'static str> {
    let Some(unit) = unit else {
        return Err(
            "is a number, but its column has a date or time type: set postgres.epoch to the unit of \
                    such numbers (Seconds, Milliseconds or Microseconds), or make it a text in a transform",
        );
    };
    let too_large = "is a number outside of what its column can hold: check that postgres.epoch is its unit";
    let microseconds = microseconds(raw, unit).ok_or(too_large)?;
    match kind {
        Temporal::Interval => Ok(duration(microseconds)),
        Temporal::Time | Temporal::TimeTz => {
            let zone = if kind == Temporal::TimeTz { "+00" } else { "" };
            match microseconds {
                0..=MICROSECONDS_PER_DAY => Ok(format!("{}{zone}", duration(microseconds))),
                _ => Err(too_large),
            }
        }
        Temporal::Date | Temporal::Timestamp | Temporal::TimestampTz => {
            let timestamp = i64::try_from(microseconds)
                .ok()
                .and_then(|microseconds| Timestamp::from_microsecond(microseconds).ok())
                .ok_or(too_large)?;
            let moment = TimeZone::UTC.to_datetime(timestamp);
            if moment.year() < 1 {
                return Err(too_large);
            }
            let (date, time) = (moment.date(), moment.time());
            Ok(format!("{date} {time}+00"))
        }
    }
}

/// `hours:minutes:seconds.fraction`, of any number of hours.
fn duration(microseconds: i128) -> String {
    let sign = if microseconds < 0 { "-" } else { "" };
    let all = microseconds.unsigned_abs();
    let (seconds, fraction) = (all / 1_000_000, all % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{sign}{hours:02}:{minutes:02}:{seconds:02}.{fraction:06}")
}

/// A JSON number in microseconds, rounded to the nearest. `None` if it is beyond all types.
fn microseconds(raw: &str, unit: EpochUnit) -> Option<i128> {
    let (negative, raw) = match raw.strip_prefix('-') {
        Some(raw) => (true, raw),
        None => (false, raw),
    };
    let (mantissa, exponent) = match raw.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (raw, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let shift = match unit {
        EpochUnit::Seconds => 6,
        EpochUnit::Milliseconds => 3,
        EpochUnit::Microseconds => 0,
    };
    // The value is 0.digits * 10^point.
    let leading = i64::try_from(digits.len()).ok()? - i64::try_from(fraction.len()).ok()?;
    let point = leading + i64::from(exponent) + shift;
    if point > 30 {
        return None;
    }
    let kept = usize::try_from(point).unwrap_or(0);
    let mut value: i128 = 0;
    for digit in digits.bytes().chain(std::iter::repeat(b'0')).take(kept) {
        value = value * 10 + i128::from(digit - b'0');
    }
    let next = digits.as_bytes().get(kept).filter(|_| point >= 0);
    if next.is_some_and(|digit| *digit >= b'5') {
        value += 1;
    }
    Some(if negative { -value } else { value })
}

/// Checks a text.
pub(super) fn text(text: Cow<'_, str>, kind: Temporal) -> Result<Cow<'_, str>, &'static str> {
    check(&text, kind)?;
    Ok(text)
}

fn check(text: &str, kind: Temporal) -> Result<(), &'static str> {
    let text = text.trim();
    if is_number_as_text(text, kind) {
        return Err(
            "is a number as text, which a date or time column would read as something else: write \
                    ISO 8601, or make it a number and set postgres.epoch to its unit",
        );
    }
    if kind == Temporal::Time && has_zone(text) {
        return Err(
            "has a time zone, but its column (time without time zone) cannot keep it: convert it in a \
                    transform, or make the column timetz",
        );
    }
    Ok(())
}

/// Checks a text with several values: an array or a range.
pub(super) fn literal(text: &str, kind: Option<Temporal>) -> Result<(), &'static str> {
    let values = text.split(['{', '}', '[', ']', '(', ')', ',', '"']);
    for value in values.map(str::trim).filter(|value| !value.is_empty()) {
        match kind {
            Some(kind) => check(value, kind)?,
            None => check(value, Temporal::Timestamp)?,
        }
        let loses_zone = match kind {
            None => has_zone(value),
            Some(_) => false,
        };
        if loses_zone {
            return Err(
                "has a time zone, but its column (a range without time zone) cannot keep it: convert \
                        it to UTC in a transform, or make the column tstzrange",
            );
        }
    }
    Ok(())
}

/// True for a number, also with punctuation around it or a zone behind it, which PostgreSQL skips.
fn is_number_as_text(text: &str, kind: Temporal) -> bool {
    let skipped = |c: char| c.is_whitespace() || (c.is_ascii_punctuation() && !matches!(c, '+' | '-' | '.'));
    let text = text.trim_matches(skipped);
    (is_number(text) && !is_basic_format(text, kind))
        // In an interval, a unit may follow any number.
        || (kind != Temporal::Interval && has_long_run(text))
}

/// True if there are 9 or more digits in one run that is not the fraction of a time.
fn has_long_run(text: &str) -> bool {
    let is_fraction = |before: &str| before.ends_with('.') && before.contains([':', 'T', 't']);
    let mut start = 0;
    text.split(|c: char| !c.is_ascii_digit()).any(|run| {
        let before = &text[..start];
        // Every separator is one character.
        let end = start + run.len();
        start = end + text[end..].chars().next().map_or(0, char::len_utf8);
        run.len() >= 9 && !is_fraction(before)
    })
}

fn is_number(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    text.starts_with(|c: char| c.is_ascii_digit() || c == '.') && text.parse::<f64>().is_ok()
}

/// ISO 8601 without separators: `20260131`, `1030`, `103000`, `103000.5`.
fn is_basic_format(text: &str, kind: Temporal) -> bool {
    let (digits, fraction) = match text.split_once('.') {
        Some((digits, fraction)) => (digits, Some(fraction)),
        None => (text, None),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    match kind {
        Temporal::Date | Temporal::Timestamp | Temporal::TimestampTz => {
            digits.len() == 8 && fraction.is_none()
        }
        Temporal::Time | Temporal::TimeTz => match digits.len() {
            4 => fraction.is_none(),
            6 => fraction.is_none_or(|fraction| fraction.bytes().all(|byte| byte.is_ascii_digit())),
            _ => false,
        },
        Temporal::Interval => false,
    }
}

/// True if a text has a zone after its time of day: an offset, a `Z`, or a name.
fn has_zone(text: &str) -> bool {
    // Without a colon, the first sign or letter ends the time, except for the T between date and time.
    let time = match text.find(':') {
        Some(colon) => &text[colon..],
        None if text.starts_with(|c: char| c.is_ascii_digit()) => {
            let time = text.rsplit_once(['T', 't']).map_or(text, |(_, time)| time);
            // A date alone has no time, so it cannot have a zone.
            if time.matches('-').count() > 1 {
                return false;
            }
            time
        }
        None => return false,
    };
    let upper = time.to_ascii_uppercase();
    let rest = upper.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, ':' | '.' | ' '));
    let rest = rest
        .strip_prefix("AM")
        .or_else(|| rest.strip_prefix("PM"))
        .unwrap_or(rest);
    let rest = rest.trim();
    !rest.is_empty() && !matches!(rest, "BC" | "AD")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_needs_a_unit_and_has_one_meaning_with_it() {
        use EpochUnit::{Microseconds, Milliseconds, Seconds};
        for (raw, kind, unit, expected) in [
            (
                "1712340115",
                Temporal::Timestamp,
                Seconds,
                "2024-04-05 18:01:55+00",
            ),
            (
                "1712340115123",
                Temporal::TimestampTz,
                Milliseconds,
                "2024-04-05 18:01:55.123+00",
            ),
            (
                "1712340115123456",
                Temporal::TimestampTz,
                Microseconds,
                "2024-04-05 18:01:55.123456+00",
            ),
            (
                "1712340115.1234567",
                Temporal::Timestamp,
                Seconds,
                "2024-04-05 18:01:55.123457+00",
            ),
            ("1.712340115e9", Temporal::Date, Seconds, "2024-04-05 18:01:55+00"),
            ("-0.5", Temporal::Timestamp, Seconds, "1969-12-31 23:59:59.5+00"),
            ("0", Temporal::Timestamp, Milliseconds, "1970-01-01 00:00:00+00"),
            (
                "0.00000004",
                Temporal::Timestamp,
                Seconds,
                "1970-01-01 00:00:00+00",
            ),
            ("86399999", Temporal::Time, Milliseconds, "23:59:59.999000"),
            ("3600", Temporal::TimeTz, Seconds, "01:00:00.000000+00"),
            ("-90061", Temporal::Interval, Seconds, "-25:01:01.000000"),
        ] {
            assert_eq!(number(raw, kind, Some(unit)).as_deref(), Ok(expected), "{raw}");
            assert!(number(raw, kind, None).unwrap_err().contains("postgres.epoch"));
        }
        for (raw, kind) in [
            ("1712340115000", Temporal::Timestamp),
            ("-1e300", Temporal::Date),
            ("1e99999999999", Temporal::Date),
            ("86401", Temporal::Time),
            ("-1", Temporal::TimeTz),
        ] {
            let error = number(raw, kind, Some(Seconds)).unwrap_err();
            assert!(error.contains("outside"), "{error}");
        }
    }

    #[test]
    fn digits_alone_are_no_date_unless_in_iso_format() {
        for (value, kind) in [
            ("20260131", Temporal::Date),
            ("20260131", Temporal::TimestampTz),
            ("103000", Temporal::Time),
            ("103000.25", Temporal::TimeTz),
            ("1030", Temporal::Time),
            ("2026-01-31", Temporal::Date),
            ("2026-01-31T10:00:00Z", Temporal::Timestamp),
            ("infinity", Temporal::Timestamp),
            ("P1D", Temporal::Interval),
            ("5 s", Temporal::Interval),
            ("1000000000 us", Temporal::Interval),
            ("20260131Z", Temporal::TimestampTz),
            ("2026-01-31T10:00:00.123456789Z", Temporal::TimestampTz),
            ("20260131T100000.123456789+02", Temporal::TimestampTz),
            ("10:00:00.123456789", Temporal::Time),
            ("Sat Jan 31 10:00:00 2026 Europe/Berlin", Temporal::TimestampTz),
        ] {
            assert_eq!(check(value, kind), Ok(()), "{value}");
        }
        for (value, kind) in [
            ("1712340115", Temporal::Timestamp),
            (" 1712340115 ", Temporal::Date),
            ("1712340115123", Temporal::TimestampTz),
            ("1712340115.5", Temporal::Timestamp),
            ("-5", Temporal::Date),
            ("1e9", Temporal::Date),
            ("260131", Temporal::Date),
            ("12345", Temporal::Time),
            ("5", Temporal::Interval),
            ("5,", Temporal::Interval),
            ("1712340115,", Temporal::TimestampTz),
            ("(1712340115)", Temporal::TimestampTz),
            ("[ 1712340115 ]", Temporal::Interval),
            ("1712340115Z", Temporal::Timestamp),
            ("1712340115 +02", Temporal::TimestampTz),
            ("1712340115 Europe/Berlin", Temporal::Date),
            ("1712340115 10:00:00.5", Temporal::TimestampTz),
            ("1712340115.123456789Z", Temporal::TimestampTz),
        ] {
            assert!(
                check(value, kind).unwrap_err().contains("number as text"),
                "{value}"
            );
        }
    }

    #[test]
    fn a_time_without_zone_cannot_keep_one() {
        for value in [
            "12:00",
            "12:00:00.5",
            "12:00 PM",
            "2026-01-31T12:00:00",
            "T12:00",
            "24:00:00",
            "allballs",
        ] {
            assert_eq!(check(value, Temporal::Time), Ok(()), "{value}");
        }
        for value in [
            "12:00+05:00",
            "12:00-05",
            "12:00Z",
            "12:00 UTC",
            "2026-01-31T12:00:00Z",
            "120000+05",
            "120000Z",
        ] {
            assert!(check(value, Temporal::Time).is_err(), "{value}");
            assert_eq!(check(value, Temporal::TimeTz), Ok(()), "{value}");
        }
    }

    #[test]
    fn arrays_and_ranges_as_text_are_checked_value_by_value() {
        assert_eq!(
            literal("{\"2026-01-31 10:00\",NULL}", Some(Temporal::Timestamp)),
            Ok(())
        );
        assert!(literal("{1712340115}", Some(Temporal::Timestamp)).is_err());
        assert_eq!(literal("[2026-01-31 10:00,)", None), Ok(()));
        assert_eq!(literal("[2026-01-31,2026-02-01)", None), Ok(()));
        assert!(literal("[\"2026-01-31 10:00+05\",)", None).is_err());
    }
}
