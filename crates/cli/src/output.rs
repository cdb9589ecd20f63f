//! How answers look: exact numbers with their units, times in UTC, tables without decoration.

use std::io::{IsTerminal, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::{ContentArrangement, Table, presets};
use farrier_protocol::UnixMillis;
use serde_json::Value;

/// The wall clock.
pub(crate) fn now() -> UnixMillis {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}

/// 1,234,567.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// 1,234,567 bytes.
pub(crate) fn bytes(number: u64) -> String {
    format!("{} bytes", thousands(number))
}

/// 12.3 s.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// 2026-11-21 00:29:31 UTC; `never` for a time that is not known.
pub(crate) fn moment(millis: Option<i64>) -> String {
    let moment =
        millis.and_then(|millis| time::OffsetDateTime::from_unix_timestamp(millis.div_euclid(1000)).ok());
    moment.map_or_else(
        || "never".to_owned(),
        |at| {
            let (date, clock) = (at.date(), at.time());
            let (hour, minute, second) = clock.as_hms();
            format!(
                "{:04}-{:02}-{:02} {hour:02}:{minute:02}:{second:02} UTC",
                date.year(),
                u8::from(date.month()),
                date.day()
            )
        },
    )
}

/// 2026-11-21 00:29:31.123, UTC.
pub(crate) fn moment_ms(millis: i64) -> String {
    let seconds = moment(Some(millis));
    format!("{}.{:03}", seconds.trim_end_matches(" UTC"), millis.rem_euclid(1000))
}

/// Text from elsewhere as it may stand in a terminal: without control characters.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// A table with these headings, for people.
pub(crate) fn table<const COLUMNS: usize>(headings: [&str; COLUMNS], rows: Vec<[String; COLUMNS]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings);
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Prints a line for people or programs; an error only if nobody reads any more.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// Prints an answer for programs, in one line.
pub(crate) fn print_json(value: &Value) -> anyhow::Result<()> {
    print(&value.to_string())
}

/// Whether a person watches: then progress may move, else it goes line by line.
pub(crate) fn is_watched() -> bool {
    std::io::stdout().is_terminal() && std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn moments_are_in_utc() {
        assert_eq!(moment(Some(1_761_351_123_999)), "2025-10-25 00:12:03 UTC");
        assert_eq!(moment(None), "never");
    }

    #[test]
    fn a_table_shows_no_control_characters() {
        let text = table(["NAME"], vec![["a\u{1b}[31mb".to_owned()]]);
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
