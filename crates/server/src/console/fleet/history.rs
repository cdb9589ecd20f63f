//! The fleet over time, from its samples: which releases its vehicles have, and how many are connected.

use std::collections::BTreeMap;

use farrier_protocol::UnixMillis;
use serde::Deserialize;

use crate::console::chart::{Chart, Plot, Series, Unit};
use crate::console::texts::Texts;
use crate::store::samples::{self, History};
use crate::store::{StoreError, Tx};

/// Samples that are read.
const MOST: i64 = 200;
/// Releases with a line of their own; the others are one.
const LINES: usize = 5;
/// Their colours.
const CLASSES: [&str; LINES] = ["run", "ok", "warn", "violet", "teal"];

/// How far back a chart goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    Day,
    Week,
    Month,
    Year,
}

impl Span {
    pub(super) const ALL: [Self; 4] = [Self::Day, Self::Week, Self::Month, Self::Year];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    pub(super) fn text(self, t: &Texts) -> &'static str {
        match self {
            Self::Day => t.last_day,
            Self::Week => t.last_week,
            Self::Month => t.last_month,
            Self::Year => t.last_year,
        }
    }

    fn since(self, now: UnixMillis) -> UnixMillis {
        let days = match self {
            Self::Day => 1,
            Self::Week => 7,
            Self::Month => 30,
            Self::Year => 366,
        };
        UnixMillis(now.0.saturating_sub(days * 86_400_000))
    }
}

#[derive(Deserialize)]
pub(in crate::console) struct Asked {
    #[serde(default)]
    span: String,
}

impl Asked {
    /// What is not known is as if nothing was asked for.
    pub(super) fn span(&self) -> Option<Span> {
        Span::ALL.into_iter().find(|span| span.name() == self.span)
    }
}

/// Adoption over a month and connections over a day, unless a span is chosen.
pub(super) fn charts(
    tx: &Tx<'_>,
    t: &'static Texts,
    span: Option<Span>,
    now: UnixMillis,
) -> Result<Vec<Chart>, StoreError> {
    let history = |span: Span| samples::of_fleet(tx, span.since(now), now, MOST);
    let adoption = adoption(t, &history(span.unwrap_or(Span::Month))?);
    let connected = history(span.unwrap_or(Span::Day))?.fleet;
    let series = |name: &str, class, is_filled, value: fn(&(UnixMillis, u64, u64)) -> u64| Series {
        name: name.to_owned(),
        class,
        is_filled,
        values: connected.iter().map(|sample| Some(value(sample))).collect(),
    };
    let connected = Plot {
        id: "connected-chart",
        title: t.connected_over_time,
        note: t.connected_note,
        unit: Unit::Number,
        times: connected.iter().map(|(at, _, _)| *at).collect(),
        series: vec![
            series(t.connected, "run", true, |(_, _, connected)| *connected),
            series(t.enrolled, "idle", false, |(_, vehicles, _)| *vehicles),
        ],
    };
    Ok([adoption, connected].into_iter().filter_map(|plot| plot.drawn(t)).collect())
}

/// The releases that most vehicles have now, those of the others as one line, and those that have none.
fn adoption(t: &'static Texts, history: &History) -> Plot {
    let mut by_time: BTreeMap<UnixMillis, BTreeMap<&str, u64>> = BTreeMap::new();
    let mut latest: BTreeMap<&str, (UnixMillis, u64)> = BTreeMap::new();
    for (at, release, vehicles) in &history.releases {
        by_time.entry(*at).or_default().insert(release.as_str(), *vehicles);
        latest.insert(release.as_str(), (*at, *vehicles));
    }
    let mut shown: Vec<_> = latest.into_iter().collect();
    shown.sort_by_key(|(name, (at, vehicles))| (std::cmp::Reverse((*at, *vehicles)), *name));
    let shown: Vec<_> = shown.into_iter().take(LINES).map(|(name, _)| name).collect();
    let nothing = BTreeMap::new();
    let at = |time: &UnixMillis| by_time.get(time).unwrap_or(&nothing);
    let values = |value: &dyn Fn(&BTreeMap<&str, u64>, u64) -> u64| {
        let of_sample = |(time, vehicles, _): &(UnixMillis, u64, u64)| Some(value(at(time), *vehicles));
        history.fleet.iter().map(of_sample).collect::<Vec<_>>()
    };
    let mut series: Vec<_> = shown
        .iter()
        .zip(CLASSES)
        .map(|(name, class)| Series {
            name: (*name).to_owned(),
            class,
            is_filled: false,
            values: values(&|releases, _| releases.get(name).copied().unwrap_or(0)),
        })
        .collect();
    let sum_of_others = |releases: &BTreeMap<&str, u64>| -> u64 {
        releases.iter().filter(|(name, _)| !shown.contains(name)).map(|(_, vehicles)| *vehicles).sum()
    };
    let others = values(&|releases, _| sum_of_others(releases));
    if others.iter().flatten().any(|vehicles| *vehicles > 0) {
        series.push(Series {
            name: t.other_releases.to_owned(),
            class: "bad",
            is_filled: false,
            values: others,
        });
    }
    series.push(Series {
        name: t.no_release_yet.to_owned(),
        class: "idle",
        is_filled: false,
        values: values(&|releases, vehicles| vehicles.saturating_sub(releases.values().sum())),
    });
    Plot {
        id: "adoption-chart",
        title: t.adoption,
        note: t.adoption_note,
        unit: Unit::Number,
        times: history.fleet.iter().map(|(at, _, _)| *at).collect(),
        series,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::texts::ENGLISH;
    use crate::testbed::text;

    #[test]
    fn vehicles_with_a_release_that_is_not_shown_and_with_none_are_counted_too() {
        let at = |number: i64| UnixMillis(number * 60_000);
        let mut history = History {
            fleet: vec![(at(1), 100, 5), (at(2), 120, 6)],
            releases: vec![(at(1), text("R0"), 10)],
        };
        for (number, vehicles) in (0..7_u64).zip([40, 30, 20, 5, 3, 2, 1]) {
            history.releases.push((at(2), text(&format!("R{number}")), vehicles));
        }
        let plot = adoption(&ENGLISH, &history);
        let series: Vec<_> =
            plot.series.iter().map(|series| (series.name.as_str(), series.values.clone())).collect();
        assert_eq!(series[0], ("R0", vec![Some(10), Some(40)]));
        assert_eq!(series[4], ("R4", vec![Some(0), Some(3)]));
        assert_eq!(series[5], ("other releases", vec![Some(0), Some(3)]));
        assert_eq!(series[6], ("no release yet", vec![Some(90), Some(19)]));
        assert_eq!(series.len(), 7);
    }
}
