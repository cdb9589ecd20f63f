//! Maintenance windows: when a vehicle's own clock lets its update begin. Open is a window exactly while a clock in the vehicle's
//! time zone shows a time of it: an hour that a change of the clocks leaves out is missing, one that it repeats comes twice.
//! The tables of the time zones are compiled in.

use std::fmt;
use std::str::FromStr;

use farrier_protocol::UnixMillis;
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Windows of one campaign at most.
pub const WINDOWS_AT_MOST: usize = 21;

/// Days before and after a time in which its window, or the next one, is looked for. A window that a change of the clocks swallows
/// comes again a week later.
const DAYS_BEFORE: i64 = 3;
const DAYS_AFTER: i64 = 15;

const MINUTES_OF_A_DAY: u16 = 24 * 60;

/// A span of the day, by the clock of the vehicle's time zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The days on which it begins; none = every day.
    #[serde(default)]
    #[schemars(length(max = 7))]
    pub days: Vec<Weekday>,
    /// When it begins; before 24:00.
    pub from: LocalTime,
    /// When it is over; on the next day where that is earlier than `from`. Never the same as `from`.
    pub to: LocalTime,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weekday {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// A time of the day to the minute, as `22:00`; `24:00` is the end of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String", extend("pattern" = "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"))]
pub struct LocalTime {
    /// From midnight.
    minutes: u16,
}

/// A text that is no time of the day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a time of the day as 22:00, found {found:?}")]
pub struct InvalidLocalTime {
    /// What is there.
    pub found: String,
}

impl FromStr for LocalTime {
    type Err = InvalidLocalTime;

    fn from_str(text: &str) -> Result<Self, InvalidLocalTime> {
        let two_digits = |text: &str| {
            let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| text.parse::<u16>().ok()).flatten()
        };
        let parts = text.split_once(':').map(|(hours, minutes)| (two_digits(hours), two_digits(minutes)));
        match parts {
            Some((Some(hours), Some(minutes)))
                if minutes < 60 && hours * 60 + minutes <= MINUTES_OF_A_DAY =>
            {
                Ok(Self { minutes: hours * 60 + minutes })
            }
            Some(_) | None => Err(InvalidLocalTime { found: text.chars().take(16).collect() }),
        }
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.minutes / 60, self.minutes % 60)
    }
}

impl Serialize for LocalTime {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LocalTime {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Weekday {
    fn name(self) -> &'static str {
        match self {
            Self::Mon => "Mon",
            Self::Tue => "Tue",
            Self::Wed => "Wed",
            Self::Thu => "Thu",
            Self::Fri => "Fri",
            Self::Sat => "Sat",
            Self::Sun => "Sun",
        }
    }

    fn of(day: jiff::civil::Weekday) -> Self {
        match day {
            jiff::civil::Weekday::Monday => Self::Mon,
            jiff::civil::Weekday::Tuesday => Self::Tue,
            jiff::civil::Weekday::Wednesday => Self::Wed,
            jiff::civil::Weekday::Thursday => Self::Thu,
            jiff::civil::Weekday::Friday => Self::Fri,
            jiff::civil::Weekday::Saturday => Self::Sat,
            jiff::civil::Weekday::Sunday => Self::Sun,
        }
    }
}

impl Window {
    /// What is wrong with it, if anything: where, what is expected, what is found.
    pub(crate) fn fault(&self) -> Option<(&'static str, &'static str, String)> {
        if self.days.len() > 7 {
            return Some(("/days", "at most 7 days", self.days.len().to_string()));
        }
        if self.from.minutes == MINUTES_OF_A_DAY {
            return Some(("/from", "a time before 24:00", self.from.to_string()));
        }
        (self.from == self.to)
            .then(|| ("/to", "another time than from; a whole day is 00:00 to 24:00", self.to.to_string()))
    }

    fn begins_on(&self, day: jiff::civil::Weekday) -> bool {
        self.days.is_empty() || self.days.contains(&Weekday::of(day))
    }

    /// Whether a clock that shows this shows a time of the window.
    fn has(&self, clock: DateTime) -> bool {
        let minute = u16::try_from(i32::from(clock.hour()) * 60 + i32::from(clock.minute())).unwrap_or(0);
        let today = clock.date().weekday();
        if self.from < self.to {
            return self.begins_on(today) && (self.from.minutes..self.to.minutes).contains(&minute);
        }
        (self.begins_on(today) && minute >= self.from.minutes)
            || (self.begins_on(today.previous()) && minute < self.to.minutes)
    }
}

impl fmt::Display for Window {
    /// As `Mon,Tue 22:00-05:00`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<_> = self.days.iter().map(|day| day.name()).collect();
        let gap = if days.is_empty() { "" } else { " " };
        write!(f, "{}{gap}{}-{}", days.join(","), self.from, self.to)
    }
}

/// A time zone of the IANA database.
#[derive(Debug, Clone)]
pub(crate) struct Zone(TimeZone);

impl Zone {
    /// `None` where the database has no such name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        TimeZoneDatabase::bundled().get(name).ok().map(Self)
    }

    pub(crate) fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    fn are_open(&self, windows: &[Window], at: Timestamp) -> bool {
        let clock = self.0.to_datetime(at);
        windows.iter().any(|window| window.has(clock))
    }

    /// All times around this one at which a window may open or close, in their order: when a clock shows a `from` or a `to`, and
    /// when the clocks are changed.
    fn edges(&self, windows: &[Window], around: Timestamp) -> Vec<Timestamp> {
        let today = self.0.to_datetime(around).date();
        let mut edges = Vec::new();
        for day in -DAYS_BEFORE..=DAYS_AFTER {
            let midnight = today.saturating_add(day.days()).at(0, 0, 0, 0);
            for time in windows.iter().flat_map(|window| [window.from, window.to]) {
                let shown =
                    self.0.to_ambiguous_timestamp(midnight.saturating_add(i64::from(time.minutes).minutes()));
                edges.extend(shown.earlier());
                edges.extend(shown.later());
            }
        }
        if let (Some(first), Some(last)) = (edges.iter().min().copied(), edges.iter().max().copied()) {
            let changes = self.0.following(first).map(|change| change.timestamp());
            edges.extend(changes.take_while(|change| *change < last));
        }
        edges.sort_unstable();
        edges.dedup();
        edges
    }
}

/// When windows that touch each other are open: from a time until another one, exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenSpan {
    pub(crate) from: UnixMillis,
    pub(crate) until: UnixMillis,
}

/// When windows are open at this time, else when they are next; `None` where they do not open within two weeks. Of a span that
/// is longer than some days only the days around the time are looked at.
pub(crate) fn open_span(windows: &[Window], zone: &Zone, at: UnixMillis) -> Option<OpenSpan> {
    let at = Timestamp::from_millisecond(at.0).ok()?;
    let edges = zone.edges(windows, at);
    let is_open = |edge: &&Timestamp| zone.are_open(windows, **edge);
    let (before, after) = edges.split_at(edges.partition_point(|edge| *edge <= at));
    let from = if zone.are_open(windows, at) {
        before.iter().rev().take_while(is_open).last().copied().unwrap_or(at)
    } else {
        *after.iter().find(is_open)?
    };
    let until = after.iter().filter(|edge| **edge > from).find(|edge| !zone.are_open(windows, **edge));
    let until = until.or(edges.last())?;
    Some(OpenSpan { from: UnixMillis(from.as_millisecond()), until: UnixMillis(until.as_millisecond()) })
}

/// A time as `2027-01-15T08:00:00Z`.
pub(crate) fn written(time: UnixMillis) -> String {
    Timestamp::from_millisecond(time.0)
        .map_or_else(|_| format!("{} ms since 1970", time.0), |time| time.to_string())
}

#[cfg(test)]
mod tests;
