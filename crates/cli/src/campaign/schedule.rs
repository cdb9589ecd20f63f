//! When updates may begin and how quickly packages leave, as it is said on the command line.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

#[derive(Args)]
pub(crate) struct ScheduleArgs {
    /// Let updates begin only in this window by the vehicle's own clock; can be given several times.
    /// `22:00-05:00`, `Mon-Fri 22:00-05:00`, `Sat,Sun 00:00-24:00`.
    #[arg(long = "window", value_name = "WINDOW", value_parser = window)]
    windows: Vec<Value>,
    /// Time zone of vehicles that have none, as Europe/Berlin; without it UTC.
    #[arg(long, value_name = "ZONE")]
    window_zone: Option<String>,
    /// Let no update begin before this time, as 2027-01-15T22:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    not_before: Option<i64>,
    /// Let no update begin from this time on, as 2027-02-01T05:00:00+01:00.
    #[arg(long, value_name = "TIME", value_parser = time)]
    not_after: Option<i64>,
    /// Spread the vehicles over so long after their wave or their window opens: 90s, 10m, 2h.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    spread: Option<u64>,
    /// Let all vehicles together fetch so many bytes in a second of a server, at most: 20MB, 512KiB.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    bytes_per_second: Option<u64>,
}

impl ScheduleArgs {
    /// The keys of the rollout, and what is said of them.
    pub(crate) fn body(&self) -> [(&'static str, Option<Value>); 6] {
        [
            ("windows", (!self.windows.is_empty()).then(|| json!(self.windows))),
            ("time_zone", self.window_zone.as_ref().map(|zone| json!(zone))),
            ("not_before", self.not_before.map(Value::from)),
            ("not_after", self.not_after.map(Value::from)),
            ("spread_s", self.spread.map(Value::from)),
            ("bytes_per_second", self.bytes_per_second.map(Value::from)),
        ]
    }
}

/// A window as the API takes it, which checks the times.
fn window(text: &str) -> Result<Value, String> {
    let refused = || {
        format!(
            "expected a window such as 22:00-05:00, Mon-Fri 22:00-05:00 or Sat,Sun 00:00-24:00; found {text:?}"
        )
    };
    let (days, span) = text.trim().rsplit_once(' ').unwrap_or(("", text));
    let is_time = |text: &str| text.split_once(':').is_some();
    let (from, to) =
        span.split_once('-').filter(|(from, to)| is_time(from) && is_time(to)).ok_or_else(refused)?;
    let mut named: Vec<&str> = Vec::new();
    for part in days.split(',').map(str::trim).filter(|_| !days.trim().is_empty()) {
        let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name.trim()));
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = day(first).zip(day(last)).ok_or_else(refused)?;
        // `Fri-Mon` goes past the end of the week.
        let number = (last + DAYS.len() - first) % DAYS.len();
        named.extend(DAYS.iter().cycle().skip(first).take(number + 1).copied());
    }
    named.sort_unstable_by_key(|name| DAYS.iter().position(|day| day == name));
    named.dedup();
    Ok(json!({ "days": named, "from": from, "to": to }))
}

fn time(text: &str) -> Result<i64, String> {
    let time: Result<Timestamp, _> = text.parse();
    time.map(Timestamp::as_millisecond)
        .map_err(|_| format!("expected a time with its zone, as 2027-01-15T22:00:00Z; found {text:?}"))
}

/// A number and its unit.
fn measured(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn duration(text: &str) -> Result<u64, String> {
    measured(text, &[("s", 1), ("m", 60), ("h", 3_600)])
        .ok_or_else(|| format!("expected a duration such as 90s, 10m or 2h; found {text:?}"))
}

fn bytes(text: &str) -> Result<u64, String> {
    let units = [
        ("", 1),
        ("B", 1),
        ("kB", 1_000),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    measured(text, &units).ok_or_else(|| format!("expected bytes such as 20MB or 512KiB; found {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_said_as_people_say_it() {
        let span = |days: Value| json!({"days": days, "from": "22:00", "to": "05:00"});
        for (text, days) in [
            ("22:00-05:00", json!([])),
            ("Mon-Fri 22:00-05:00", json!(["mon", "tue", "wed", "thu", "fri"])),
            ("Sat,Sun 22:00-05:00", json!(["sat", "sun"])),
            ("Fri-Mon, Sat 22:00-05:00", json!(["mon", "fri", "sat", "sun"])),
        ] {
            assert_eq!(window(text), Ok(span(days)), "{text}");
        }
        for text in ["", "Mon", "Mon-Fri", "Someday 22:00-05:00", "Mon- 22:00-05:00", "22:00"] {
            assert!(window(text).unwrap_err().contains("expected"), "{text}");
        }
    }

    #[test]
    fn times_durations_and_bytes_are_said_with_their_units() {
        assert_eq!(time("2027-01-15T09:00:00+01:00"), Ok(1_800_000_000_000));
        assert!(time("2027-01-15 09:00").is_err());
        assert_eq!((duration("90s"), duration("10m"), duration("2h")), (Ok(90), Ok(600), Ok(7_200)));
        assert_eq!((bytes("20MB"), bytes("1KiB"), bytes("4096")), (Ok(20_000_000), Ok(1_024), Ok(4_096)));
        for text in ["", "m", "10", "10 m", "-1s", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(bytes("20Mb").is_err() && bytes("99999999999999GB").is_err());
    }
}
