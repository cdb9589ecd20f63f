//! Charts over time: figures become lines with ticks at round numbers, a legend that does not live by colour alone, and a table
//! of the same figures. What is drawn here, `chart.html` writes as SVG.

use farrier_protocol::UnixMillis;

use super::format::{absolute, bytes, number};
use super::texts::{Texts, filled};

/// The drawing, in its own units; the page scales it.
const WIDTH: i64 = 480;
const HEIGHT: i64 = 210;
const LEFT: i64 = 60;
const RIGHT: i64 = WIDTH - 14;
const TOP: i64 = 12;
const BOTTOM: i64 = HEIGHT - 26;
/// Times in a chart and its table.
const MOST_TIMES: usize = 120;
/// Lines at round values, beside the one at nothing.
const VALUE_TICKS: u64 = 4;
const TIME_TICKS: i64 = 5;
/// Between two ticks of time, in minutes.
const TIME_STEPS: [i64; 17] =
    [1, 5, 10, 15, 30, 60, 180, 360, 720, 1_440, 2_880, 10_080, 20_160, 43_200, 129_600, 259_200, 525_600];
const MINUTE_MS: i64 = 60_000;
const DAY_MIN: i64 = 1_440;
/// How lines are told apart without their colour: dashes along them, and a mark at their end.
const DASHES: [&str; 8] = ["none", "7 3", "2 3", "9 3 2 3", "14 4", "4 4", "1 5", "12 3 2 3 2 3"];
const MARKS: [&str; 8] = [
    "M-3.5,0a3.5,3.5 0 1,0 7,0a3.5,3.5 0 1,0 -7,0z",
    "M-3,-3h6v6h-6z",
    "M0,-4.5L4.5,0L0,4.5L-4.5,0z",
    "M0,-4L4,3.2H-4z",
    "M0,4L4,-3.2H-4z",
    "M-1.2,-4h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8v-2.4h2.8z",
    "M-4,-1.5h8v3h-8z",
    "M-1.5,-4h3v8h-3z",
];

/// What the values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Number,
    Bytes,
}

impl Unit {
    fn text(self, value: u64) -> String {
        match self {
            Self::Number => number(value),
            Self::Bytes => bytes(value),
        }
    }

    /// Short enough for an axis.
    fn short(self, value: u64) -> String {
        let tenths = |of: u64, unit: &str| match value % of / (of / 10) {
            0 => format!("{}{unit}", value / of),
            tenth => format!("{}.{tenth}{unit}", value / of),
        };
        match (self, value) {
            (Self::Bytes, _) => bytes(value).replace(".0 ", " "),
            (Self::Number, ..10_000) => number(value),
            (Self::Number, ..1_000_000) => tenths(1_000, "k"),
            (Self::Number, ..1_000_000_000) => tenths(1_000_000, "M"),
            (Self::Number, _) => tenths(1_000_000_000, "G"),
        }
    }
}

/// One line: a value for each time, where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Series {
    pub(super) name: String,
    /// Its colour.
    pub(super) class: &'static str,
    /// Whether what is below the line is filled.
    pub(super) is_filled: bool,
    pub(super) values: Vec<Option<u64>>,
}

/// What is to be drawn.
#[derive(Debug, Clone)]
pub(super) struct Plot {
    /// Unique on its page.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// What the figures are and where they come from.
    pub(super) note: &'static str,
    pub(super) unit: Unit,
    /// In their order.
    pub(super) times: Vec<UnixMillis>,
    pub(super) series: Vec<Series>,
}

/// A line as it is drawn.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) class: &'static str,
    pub(super) dash: &'static str,
    pub(super) mark: &'static str,
    pub(super) path: String,
    pub(super) area: Option<String>,
    /// Where its mark is.
    pub(super) end: (String, String),
    /// The value there.
    pub(super) latest: String,
}

/// A round value or time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tick {
    pub(super) at: String,
    pub(super) label: String,
    /// How its label stands to it.
    pub(super) anchor: &'static str,
}

/// A drawing with its words.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) note: &'static str,
    pub(super) description: String,
    pub(super) lines: Vec<Line>,
    pub(super) values: Vec<Tick>,
    pub(super) times: Vec<Tick>,
    pub(super) rows: Vec<(String, Vec<String>)>,
}

impl Plot {
    /// Draws it; `None` where there are not two times yet.
    pub(super) fn drawn(mut self, t: &Texts) -> Option<Chart> {
        self.thin_out();
        self.series.retain(|series| series.values.iter().any(Option::is_some));
        let (from, until) = (*self.times.first()?, *self.times.last()?);
        if from >= until {
            return None;
        }
        let most = self.series.iter().flat_map(|of| &of.values).flatten().copied().max().unwrap_or(0);
        let step = value_step(most);
        let top = most.div_ceil(step).max(1).saturating_mul(step);
        let scale = Scale { from, until, top };
        let lines = self.series.iter().zip(DASHES.into_iter().zip(MARKS).cycle());
        let lines: Vec<_> =
            lines.filter_map(|(series, (dash, mark))| self.line(series, &scale, dash, mark)).collect();
        let latest: Vec<_> = lines.iter().map(|line| format!("{} {}", line.name, line.latest)).collect();
        let period = [absolute(from), absolute(until)];
        Some(Chart {
            id: self.id,
            title: self.title,
            note: self.note,
            description: filled(
                t.chart_description,
                &[&period[0], &period[1], &latest.join(", "), &self.unit.text(most)],
            ),
            values: (0..=top / step).map(|number| value_tick(self.unit, number * step, &scale)).collect(),
            times: time_ticks(&scale),
            rows: self.rows(),
            lines,
        })
    }

    /// Of too many times, some that are as far apart as can be, and the last.
    fn thin_out(&mut self) {
        let number = self.times.len();
        if number <= MOST_TIMES {
            return;
        }
        let is_kept = |index: usize| {
            index + 1 == number || index * MOST_TIMES / number != (index + 1) * MOST_TIMES / number
        };
        let mut keep = (0..number).map(is_kept);
        self.times.retain(|_| keep.next().unwrap_or(false));
        for series in &mut self.series {
            let mut keep = (0..number).map(is_kept);
            series.values.retain(|_| keep.next().unwrap_or(false));
        }
    }

    fn line(&self, series: &Series, scale: &Scale, dash: &'static str, mark: &'static str) -> Option<Line> {
        let (mut path, mut is_begun) = (String::new(), false);
        let mut area = String::new();
        let mut end = None;
        for (at, value) in self.times.iter().zip(&series.values) {
            let Some(value) = value else {
                is_begun = false;
                continue;
            };
            let (x, y) = (scale.x(*at), scale.y(*value));
            let letter = if is_begun { 'L' } else { 'M' };
            path.push_str(&format!("{letter}{x},{y}"));
            if area.is_empty() {
                area.push_str(&format!("M{x},{BOTTOM}"));
            }
            area.push_str(&format!("L{x},{y}"));
            is_begun = true;
            end = Some(((x, y), *value));
        }
        let ((x, y), latest) = end?;
        area.push_str(&format!("L{x},{BOTTOM}z"));
        Some(Line {
            name: series.name.clone(),
            class: series.class,
            dash,
            mark,
            path,
            area: series.is_filled.then_some(area),
            end: (x, y),
            latest: self.unit.text(latest),
        })
    }

    /// The newest first, as they are read.
    fn rows(&self) -> Vec<(String, Vec<String>)> {
        let rows = self.times.iter().enumerate().rev().map(|(index, at)| {
            let value = |series: &Series| series.values.get(index).copied().flatten();
            let text = |value: Option<u64>| value.map_or_else(String::new, |value| self.unit.text(value));
            (absolute(*at), self.series.iter().map(|series| text(value(series))).collect())
        });
        rows.collect()
    }
}

/// Where times and values lie in the drawing.
struct Scale {
    from: UnixMillis,
    until: UnixMillis,
    top: u64,
}

impl Scale {
    fn x(&self, at: UnixMillis) -> String {
        let part = i128::from(at.0.saturating_sub(self.from.0));
        let whole = i128::from(self.until.0.saturating_sub(self.from.0).max(1));
        tenths(i128::from(LEFT) * 10 + part * i128::from(RIGHT - LEFT) * 10 / whole)
    }

    fn y(&self, value: u64) -> String {
        let height = i128::from(BOTTOM - TOP) * 10;
        tenths(i128::from(BOTTOM) * 10 - i128::from(value) * height / i128::from(self.top.max(1)))
    }
}

/// So many tenths as a decimal.
pub(super) fn tenths(value: i128) -> String {
    match value % 10 {
        0 => (value / 10).to_string(),
        tenth => format!("{}.{tenth}", value / 10),
    }
}

/// 1, 2 or 5 times a power of ten, so that few of them reach so far.
fn value_step(most: u64) -> u64 {
    let mut power = 1_u64;
    loop {
        for times in [1, 2, 5] {
            let step = power.saturating_mul(times);
            if most.div_ceil(step) <= VALUE_TICKS {
                return step;
            }
        }
        power = power.saturating_mul(10);
    }
}

fn value_tick(unit: Unit, value: u64, scale: &Scale) -> Tick {
    Tick { at: scale.y(value), label: unit.short(value), anchor: "end" }
}

/// Round times between two, each with its label: no more than a few.
pub(super) fn round_times(from: UnixMillis, until: UnixMillis) -> Vec<(UnixMillis, String)> {
    let span_min = until.0.saturating_sub(from.0) / MINUTE_MS;
    let step = TIME_STEPS.into_iter().find(|step| span_min / step <= TIME_TICKS).unwrap_or(10 * 525_600);
    let step_ms = step.saturating_mul(MINUTE_MS);
    let first = from.0.div_euclid(step_ms).saturating_add(1).saturating_mul(step_ms);
    let times = (0..=TIME_TICKS).map(|number| first.saturating_add(number.saturating_mul(step_ms)));
    let there = times.take_while(|at| *at <= until.0).map(UnixMillis);
    there.map(|at| (at, time_label(at, step))).collect()
}

fn time_ticks(scale: &Scale) -> Vec<Tick> {
    let ticks = round_times(scale.from, scale.until).into_iter().map(|(at, label)| {
        // So near to the edge its label would be cut off.
        let is_near_edge = i128::from(scale.until.0.saturating_sub(at.0)) * 20
            < i128::from(scale.until.0.saturating_sub(scale.from.0));
        Tick { at: scale.x(at), label, anchor: if is_near_edge { "end" } else { "middle" } }
    });
    ticks.collect()
}

/// `14:30`, at midnight and between days `11-26`, between long times `2026-11`.
fn time_label(at: UnixMillis, step_min: i64) -> String {
    let text = absolute(at);
    let part = |from: usize, until: usize| text.get(from..until).unwrap_or_default().to_owned();
    match step_min {
        129_600.. => part(0, 7),
        DAY_MIN.. => part(5, 10),
        _ if at.0.rem_euclid(DAY_MIN * MINUTE_MS) == 0 => part(5, 10),
        _ => part(11, 16),
    }
}

#[cfg(test)]
mod tests;
