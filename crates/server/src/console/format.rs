//! Numbers, sizes and times as people read them.

use std::fmt;

use askama::filters::HtmlSafe;
use farrier_protocol::UnixMillis;
use time::OffsetDateTime;

use super::texts::{Texts, filled};

/// `1,234,567`
pub(super) fn number(value: impl TryInto<u64>) -> String {
    let digits = value.try_into().unwrap_or(u64::MAX).to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `512 B`, `36.9 KB`, `1.2 GB`: by thousands.
pub(super) fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["KB", "MB", "GB", "TB", "PB"];
    if value < 1_000 {
        return format!("{value} B");
    }
    // In tenths of the unit, so that nothing is computed in fractions.
    let mut tenths = u128::from(value) / 100;
    let mut unit = "KB";
    for next in UNITS {
        unit = next;
        if tenths < 10_000 {
            break;
        }
        tenths /= 1_000;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// So many of a hundred, rounded down so that 100 means all.
pub(super) fn percent(part: u64, of: u64) -> u64 {
    if of == 0 { 0 } else { (u128::from(part) * 100 / u128::from(of)).try_into().unwrap_or(100) }
}

/// The same for people to whom a few of many matter: `0.4`, `< 0.1`, `12`.
pub(super) fn share(part: u64, of: u64) -> String {
    let tenths = percent(part.saturating_mul(10), of);
    match tenths {
        0 if part == 0 || of == 0 => "0".to_owned(),
        0 => "< 0.1".to_owned(),
        1..100 if !tenths.is_multiple_of(10) => format!("{}.{}", tenths / 10, tenths % 10),
        _ => (tenths / 10).to_string(),
    }
}

/// `2026-11-26 01:45:09 UTC`
pub(super) fn absolute(at: UnixMillis) -> String {
    match OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1_000)) {
        Ok(at) => {
            let (year, month, day) = at.to_calendar_date();
            let (hour, minute, second) = at.to_hms();
            format!("{year:04}-{:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC", u8::from(month))
        }
        Err(_) => at.0.to_string(),
    }
}

/// How long, in its two largest units: `4 min 10 s`.
pub(super) fn span(t: &Texts, ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    let (days, hours) = (seconds / 86_400, seconds % 86_400 / 3_600);
    let (minutes, rest) = (seconds % 3_600 / 60, seconds % 60);
    let one = |value: i64, unit: &str| format!("{value}{}{unit}", t.before_units);
    let parts = match (days, hours, minutes) {
        (0, 0, 0) => vec![one(rest, t.seconds)],
        (0, 0, 1..10) => vec![one(minutes, t.minutes), one(rest, t.seconds)],
        (0, 0, _) => vec![one(minutes, t.minutes)],
        (0, _, _) => vec![one(hours, t.hours), one(minutes, t.minutes)],
        (_, _, _) => vec![one(days, t.days), one(hours, t.hours)],
    };
    parts.join(" ")
}

/// `4 min ago`, `in 2 h`.
fn relative(t: &Texts, at: UnixMillis, now: UnixMillis) -> String {
    let ms = now.0.saturating_sub(at.0);
    match ms {
        -999..=4_999 => t.just_now.to_owned(),
        5_000.. => filled(t.ago, &[&span(t, ms)]),
        _ => filled(t.from_now, &[&span(t, ms.saturating_neg())]),
    }
}

/// A time as an element of HTML, made of nothing but digits and the console's own texts; so it alone goes out as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Time(String);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HtmlSafe for Time {}

/// What is known of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    /// From anywhere.
    Text(String),
    Time(Time),
}

/// Relative, and absolute for whoever points at it or reaches it by the keyboard.
pub(super) fn time(t: &Texts, at: UnixMillis, now: UnixMillis) -> Time {
    let absolute = absolute(at);
    Time(format!(
        "<time datetime=\"{}\" title=\"{absolute}\" tabindex=\"0\">{}</time>",
        absolute.trim_end_matches(" UTC").replace(' ', "T") + "Z",
        relative(t, at, now)
    ))
}

/// The same where there may be none.
pub(super) fn time_or_never(t: &Texts, at: Option<UnixMillis>, now: UnixMillis) -> Time {
    at.map_or_else(|| Time(t.never.to_owned()), |at| time(t, at, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::texts::{ENGLISH, KOREAN};

    #[test]
    fn numbers_have_separators_and_units() {
        assert_eq!(
            [number(0_u64), number(999_u64), number(1_000_u64), number(12_345_678_u64)],
            ["0", "999", "1,000", "12,345,678"]
        );
        assert_eq!(
            [bytes(999), bytes(1_000), bytes(36_940), bytes(999_999), bytes(1_250_000_000)],
            ["999 B", "1.0 KB", "36.9 KB", "999.9 KB", "1.2 GB"]
        );
        assert_eq!([percent(999, 1_000), percent(1_000, 1_000), percent(1, 0)], [99, 100, 0]);
        let shares =
            [(0, 1_000), (1, 100_000), (5, 1_003), (20, 1_000), (99, 1_000), (128, 1_000), (9, 9), (1, 0)];
        let told = shares.map(|(part, of)| share(part, of));
        assert_eq!(told, ["0", "< 0.1", "0.4", "2", "9.9", "12", "100", "0"]);
    }

    #[test]
    fn times_are_told_from_now_and_in_full() {
        let now = UnixMillis(1_764_121_509_000);
        assert_eq!(absolute(now), "2025-11-26 01:45:09 UTC");
        let told = |ms: i64| relative(&ENGLISH, UnixMillis(now.0 - ms), now);
        assert_eq!([told(0), told(8_000), told(250_000)], ["just now", "8 s ago", "4 min 10 s ago"]);
        assert_eq!(
            [told(3_600_000 * 5), told(86_400_000 * 3), told(-7_200_000)],
            ["5 h 0 min ago", "3 d 0 h ago", "in 2 h 0 min"]
        );
        assert_eq!(relative(&KOREAN, UnixMillis(now.0 - 250_000), now), "4분 10초 전");
    }
}
