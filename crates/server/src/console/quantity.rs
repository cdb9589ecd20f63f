//! Times, spans and sizes as people type them, and as they stand in an input again.

use farrier_protocol::UnixMillis;
use time::{Date, Month, OffsetDateTime};

const SPANS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
const SIZES: [(&str, u64); 4] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1_000), ("B", 1)];

/// Seconds, of `90 s`, `30 min`, `24 h`, `2 d`, or `90`.
pub(super) fn seconds(text: &str) -> Option<u64> {
    with_unit(text, &SPANS)
}

/// Octets, of `500 KB`, `20 MB`, `1 GB`, or `20000000`.
pub(super) fn octets(text: &str) -> Option<u64> {
    with_unit(text, &SIZES)
}

/// Seconds in the largest unit in which they are a whole number.
pub(super) fn written_seconds(seconds: u64) -> String {
    written(seconds, &SPANS)
}

/// The same of octets.
pub(super) fn written_octets(octets: u64) -> String {
    written(octets, &SIZES)
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let unit = match unit.trim() {
        "" => 1,
        unit => units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn written(value: u64, units: &[(&str, u64)]) -> String {
    let unit = units.iter().find(|(_, unit)| value >= *unit && value.is_multiple_of(*unit));
    unit.map_or_else(|| value.to_string(), |(name, unit)| format!("{} {name}", value / unit))
}

/// A time of UTC as the input of a browser gives it: `2027-01-15T22:00`, or with seconds.
pub(super) fn instant(text: &str) -> Option<UnixMillis> {
    let (date, time) = text.trim().trim_end_matches('Z').split_once(['T', ' '])?;
    let date: Vec<&str> = date.split('-').collect();
    let [year, month, day] = date.as_slice() else { return None };
    let month = Month::try_from(two_digits(month)?).ok()?;
    let year = year.parse().ok().filter(|_| year.len() == 4 && year.bytes().all(|b| b.is_ascii_digit()))?;
    let date = Date::from_calendar_date(year, month, two_digits(day)?).ok()?;
    let time: Vec<&str> = time.split(':').collect();
    let (hour, minute, second) = match time.as_slice() {
        [hour, minute] => (two_digits(hour)?, two_digits(minute)?, 0),
        [hour, minute, second] => (two_digits(hour)?, two_digits(minute)?, two_digits(second)?),
        _ => return None,
    };
    let at = date.with_hms(hour, minute, second).ok()?.assume_utc();
    at.unix_timestamp().checked_mul(1_000).map(UnixMillis)
}

fn two_digits(text: &str) -> Option<u8> {
    text.parse().ok().filter(|_| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()))
}

/// The same, for the input.
pub(super) fn written_instant(at: UnixMillis) -> String {
    let Ok(at) = OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1_000)) else { return String::new() };
    let ((year, month, day), (hour, minute, second)) = (at.to_calendar_date(), at.to_hms());
    let month = u8::from(month);
    let seconds = if second == 0 { String::new() } else { format!(":{second:02}") };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}{seconds}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_read_and_nothing_else() {
        assert_eq!(
            [seconds("90"), seconds("90 s"), seconds("30min"), seconds(" 24 H "), seconds("2 d")],
            [Some(90), Some(90), Some(1_800), Some(86_400), Some(172_800)]
        );
        assert_eq!(
            [octets("20 MB"), octets("1gb"), octets("0")],
            [Some(20_000_000), Some(1_000_000_000), Some(0)]
        );
        for wrong in ["", "h", "-1", "1.5 h", "1 h 30 min", "99999999999999999999", "18446744073709551615 d"]
        {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
        assert_eq!(instant("2027-01-15T08:00"), Some(UnixMillis(1_800_000_000_000)));
        assert_eq!(instant("2027-01-15 08:00:01"), Some(UnixMillis(1_800_000_001_000)));
        for wrong in ["", "tomorrow", "2027-02-30T00:00", "2027-01-15"] {
            assert_eq!(instant(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for value in [0, 1, 59, 60, 90, 3_600, 5_400, 86_400, 604_800, u64::MAX] {
            assert_eq!(seconds(&written_seconds(value)), Some(value));
            assert_eq!(octets(&written_octets(value)), Some(value));
        }
        assert_eq!([written_seconds(5_400), written_octets(20_000_000)], ["90 min", "20 MB"]);
        for at in [0, 1_800_000_000_000, 1_800_000_001_000] {
            assert_eq!(instant(&written_instant(UnixMillis(at))), Some(UnixMillis(at)));
        }
    }
}
