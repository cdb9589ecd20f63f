//! The waves of a campaign along the time: since when each is open, how long it took, what opens the next, and when the campaign
//! was paused or had stopped. What is drawn here, `campaign_waves.html` writes as SVG in percent of its width.

mod halts;
mod words;

use std::collections::BTreeMap;

use farrier_campaign::{Wave, WaveCounts, WaveSize};
use farrier_protocol::UnixMillis;

use crate::console::chart::{round_times, tenths};
use crate::console::eta::is_open;
use crate::console::format::number;
use crate::console::texts::{Texts, filled};
use crate::store::campaigns::Campaign;
use crate::store::{StoreError, Tx, samples};
use halts::{Halt, Sign, Why, halts};
pub(in crate::console) use words::windows;
use words::{schedule, when};

/// The width of the drawing, and of the time in it: what is not open yet stands behind. In tenths of a percent.
const WIDTH: i64 = 1_000;
const TIME_ALONE: i64 = 965;
const TIME: i64 = 800;
const LATER: i64 = 845;
/// The least of a bar that is seen.
const LEAST: i64 = 6;
/// So near to the edge a label leans to it.
const NEAR: i64 = 50;
/// Between two labels, so that they do not touch on a narrow screen.
const APART: i64 = 90;
/// A drawing that goes on changes no more often than it has such steps.
const STEPS: i64 = 128;
const SHORTEST_MS: i64 = 60_000;

/// A part of a bar, in percent of the width.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) class: &'static str,
    pub(super) x: String,
    pub(super) width: String,
}

/// A time at the axis.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) x: String,
    pub(super) label: String,
    pub(super) anchor: &'static str,
}

/// How far a wave is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Closed,
    Open,
    Over,
}

impl Stage {
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Closed => "idle",
            Self::Open => "run",
            Self::Over => "ok",
        }
    }

    pub(super) fn text(self, t: &Texts) -> &'static str {
        match self {
            Self::Closed => t.wave_closed,
            Self::Open => t.wave_open,
            Self::Over => t.wave_over,
        }
    }
}

/// One wave.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) number: u32,
    pub(super) stage: Stage,
    /// Not known of one whose vehicles are chosen at the start.
    pub(super) counted: Option<String>,
    /// Since when it is open, how long it took, or what opens it.
    pub(super) when: String,
    /// The whole bar, and what is in it: vehicles first, then when nothing began.
    pub(super) bar: Piece,
    pub(super) vehicles: Vec<Piece>,
    pub(super) halts: Vec<Piece>,
    /// Where it ends, or goes on.
    pub(super) end: String,
}

/// What is counted of a campaign.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waves<'a> {
    pub(super) counts: &'a [WaveCounts],
    /// In all, as far as that is known before the start.
    pub(super) vehicles: u64,
    /// Whether there is anything more to come.
    pub(super) goes_on: bool,
}

#[derive(Debug)]
pub(super) struct TimeLine {
    pub(super) description: String,
    /// Whether it has begun.
    pub(super) has_times: bool,
    pub(super) marks: Vec<Mark>,
    /// Where it is now, of one that goes on.
    pub(super) now: Option<String>,
    pub(super) signs: Vec<Sign>,
    pub(super) rows: Vec<Row>,
    /// When vehicles of open waves may begin.
    pub(super) schedule: Vec<String>,
}

/// When a wave was open.
#[derive(Debug, Clone, Copy)]
struct Opened {
    /// Not known of one that opened before it was kept.
    at: Option<UnixMillis>,
    /// Whether all its vehicles have ended, and when.
    is_over: bool,
    over_at: Option<UnixMillis>,
}

/// Where times lie.
#[derive(Debug, Clone, Copy)]
struct Axis {
    from: UnixMillis,
    until: UnixMillis,
    right: i64,
    goes_on: bool,
}

impl Axis {
    fn x(&self, at: UnixMillis) -> i64 {
        let whole = i128::from(self.until.0.saturating_sub(self.from.0).max(1));
        let part = i128::from(at.0.saturating_sub(self.from.0)).clamp(0, whole);
        i64::try_from(part * i128::from(self.right) / whole).unwrap_or_default()
    }

    fn marks(&self) -> Vec<Mark> {
        let mut all = Vec::new();
        let mut last = i64::MIN;
        for (at, label) in round_times(self.from, self.until) {
            let x = self.x(at);
            // The end has a label of its own.
            let is_free = x.saturating_sub(last) >= APART && !(self.goes_on && self.right - x < APART);
            if is_free {
                last = x;
                let anchor = match x {
                    ..NEAR => "start",
                    x if x > WIDTH - NEAR => "end",
                    _ => "middle",
                };
                all.push(Mark { x: of_width(x), label, anchor });
            }
        }
        all
    }
}

fn of_width(x: i64) -> String {
    tenths(i128::from(x))
}

fn piece(class: &'static str, from: i64, until: i64) -> Piece {
    Piece { class, x: of_width(from), width: of_width(until.saturating_sub(from).max(0)) }
}

impl TimeLine {
    pub(super) fn of(
        tx: &Tx<'_>,
        t: &Texts,
        campaign: &Campaign,
        waves: Waves<'_>,
        now: UnixMillis,
    ) -> Result<Self, StoreError> {
        let halts = match campaign.started_at {
            Some(_) => halts(tx, campaign)?,
            None => Vec::new(),
        };
        let ends = samples::wave_ends(tx, &campaign.name)?;
        Ok(Self::drawn(t, campaign, waves, (&ends, &halts), now))
    }

    fn drawn(
        t: &Texts,
        campaign: &Campaign,
        Waves { counts, vehicles, goes_on }: Waves<'_>,
        (ends, halts): (&BTreeMap<u32, UnixMillis>, &[Halt]),
        now: UnixMillis,
    ) -> Self {
        let waves = (1_u32..).zip(counts);
        let waves = waves
            .map(|(wave, counts)| (wave, counts, opened(campaign, wave, counts, ends.get(&wave).copied())));
        let waves: Vec<Seen<'_>> = waves.collect();
        let closed = waves.iter().filter(|(_, _, opened)| opened.is_none()).count();
        let right = if closed > 0 { TIME } else { TIME_ALONE };
        let axis = axis(campaign, (ends, halts), goes_on, now).map(|axis| Axis { right, ..axis });
        let mut nth_closed = 0_i64;
        let sizes = sizes(campaign, counts, vehicles);
        let rows = waves.iter().zip(sizes).map(|((wave, counts, opened), size)| {
            let (vehicles, bar, end, pieces, stage) = match (opened, &axis) {
                (Some(opened), Some(axis)) => {
                    let from = axis.x(opened.at.unwrap_or(axis.from));
                    let until = match (opened.is_over, opened.over_at) {
                        (true, Some(at)) => axis.x(at),
                        (true, None) | (false, _) => axis.right,
                    };
                    let until = until.max(from.saturating_add(LEAST)).min(axis.right.max(LEAST));
                    let from = from.min(until.saturating_sub(LEAST));
                    let stage = if opened.is_over { Stage::Over } else { Stage::Open };
                    let pieces = crossed(halts, axis, from, until);
                    (shares(counts, from, until), piece("whole", from, until), until, pieces, stage)
                }
                (Some(_), None) | (None, _) => {
                    let (from, until) = place(axis.is_some(), nth_closed, closed);
                    nth_closed = nth_closed.saturating_add(1);
                    (Vec::new(), piece("later", from, until), until, Vec::new(), Stage::Closed)
                }
            };
            Row {
                number: *wave,
                stage,
                counted: match stage {
                    Stage::Closed => size.map(|size| filled(t.so_many_vehicles, &[&number(size)])),
                    Stage::Open | Stage::Over => Some(filled(
                        t.wave_counted,
                        &[
                            &number(counts.ended),
                            &number(counts.vehicles),
                            &number(counts.at_release),
                            &number(counts.failed),
                        ],
                    )),
                },
                when: when(t, campaign, (*wave, *opened), before(&waves, *wave), now),
                bar,
                vehicles,
                halts: pieces,
                end: of_width(end),
            }
        });
        let rows: Vec<_> = rows.collect();
        let signs: Vec<_> =
            axis.iter().flat_map(|axis| halts.iter().map(|halt| halt.sign(t, axis))).collect();
        let told = rows.iter().map(|row| match &row.counted {
            Some(counted) => format!("{} {}: {counted}; {}.", t.wave, row.number, row.when),
            None => format!("{} {}: {}.", t.wave, row.number, row.when),
        });
        let told: Vec<_> = told.chain(signs.iter().map(|sign| format!("{}.", sign.text))).collect();
        Self {
            description: told.join(" "),
            has_times: axis.is_some(),
            marks: axis.as_ref().map(Axis::marks).unwrap_or_default(),
            now: axis.filter(|axis| axis.goes_on).map(|axis| of_width(axis.right)),
            signs,
            rows,
            schedule: schedule(t, &campaign.rollout),
        }
    }

    /// Whether any wave is not open.
    pub(super) fn has_closed(&self) -> bool {
        self.rows.iter().any(|row| row.stage == Stage::Closed)
    }
}

/// How many vehicles each wave has or, before the start, will have as far as that is known.
fn sizes(campaign: &Campaign, counts: &[WaveCounts], vehicles: u64) -> Vec<Option<u64>> {
    if campaign.started_at.is_some() {
        return counts.iter().map(|counts| Some(counts.vehicles)).collect();
    }
    let is_chosen = |wave: &Wave| matches!(wave.size, WaveSize::Where(_) | WaveSize::Group(_));
    if campaign.rollout.waves.iter().any(is_chosen) {
        return counts.iter().map(|_| None).collect();
    }
    let mut before = 0;
    let ends = campaign.rollout.wave_ends(vehicles).into_iter().map(|end| end.min(vehicles));
    ends.map(|end| Some(end.saturating_sub(std::mem::replace(&mut before, end)))).collect()
}

/// A wave, what is counted of it, and when it was open.
type Seen<'a> = (u32, &'a WaveCounts, Option<Opened>);

fn before<'a>(waves: &[Seen<'a>], wave: u32) -> Option<Seen<'a>> {
    waves.iter().find(|(number, _, _)| number.saturating_add(1) == wave).copied()
}

fn opened(campaign: &Campaign, wave: u32, counts: &WaveCounts, end: Option<UnixMillis>) -> Option<Opened> {
    campaign.started_at?;
    if !is_open(campaign, wave) {
        return None;
    }
    let at = match campaign.rollout.has_gate() {
        true => campaign.gate.opened_at(wave),
        false => campaign.started_at,
    };
    let is_over = campaign.starting.is_none() && counts.vehicles > 0 && counts.ended == counts.vehicles;
    // A clock that was set back does not end a wave before it opened.
    let over_at = end.filter(|_| is_over).map(|end| at.map_or(end, |at| end.max(at)));
    Some(Opened { at, is_over, over_at })
}

fn axis(
    campaign: &Campaign,
    (ends, halts): (&BTreeMap<u32, UnixMillis>, &[Halt]),
    goes_on: bool,
    now: UnixMillis,
) -> Option<Axis> {
    let (from, right) = (campaign.started_at?, TIME_ALONE);
    if goes_on {
        return Some(Axis { from, until: edge(from, now), right, goes_on });
    }
    let last = ends.values().copied().chain(campaign.aborted.as_ref().map(|aborted| aborted.at));
    let last = last.chain(halts.iter().filter_map(|halt| halt.until)).max().unwrap_or(now).min(now);
    let until = last.max(from.plus_seconds(SHORTEST_MS.unsigned_abs() / 1_000));
    Some(Axis { from, until, right, goes_on })
}

/// Now, rounded up, so that the drawing of what goes on changes now and then, and not every second.
fn edge(from: UnixMillis, now: UnixMillis) -> UnixMillis {
    let passed = now.0.saturating_sub(from.0).max(SHORTEST_MS);
    let mut step = 1_000_i64;
    while step.saturating_mul(STEPS).saturating_mul(2) <= passed {
        step = step.saturating_mul(2);
    }
    UnixMillis(from.0.saturating_add(passed.saturating_add(step - 1) / step * step))
}

/// Where one of those stands that are not open: each behind the one before.
fn place(has_time: bool, nth: i64, of: usize) -> (i64, i64) {
    let from = if has_time { LATER } else { 0 };
    let of = i64::try_from(of).unwrap_or(i64::MAX).max(1);
    let width = WIDTH - from;
    let at = |nth: i64| from + width.saturating_mul(nth) / of;
    (at(nth), at(nth.saturating_add(1)).max(at(nth).saturating_add(LEAST)).min(WIDTH))
}

/// How its vehicles share a bar.
fn shares(counts: &WaveCounts, from: i64, until: i64) -> Vec<Piece> {
    let (whole, all) = (until.saturating_sub(from), counts.vehicles);
    let mut begun = 0_u64;
    let mut pieces = Vec::new();
    for (class, vehicles) in [("ok", counts.at_release), ("run", counts.under_way), ("bad", counts.failed)] {
        let at = |vehicles: u64| {
            let part =
                u128::from(vehicles.min(all)) * u128::from(whole.unsigned_abs()) / u128::from(all.max(1));
            from.saturating_add(i64::try_from(part).unwrap_or_default())
        };
        let (first, last) = (at(begun), at(begun.saturating_add(vehicles)));
        begun = begun.saturating_add(vehicles);
        if last > first {
            pieces.push(piece(class, first, last));
        }
    }
    pieces
}

/// What of a bar was paused or stopped.
fn crossed(halts: &[Halt], axis: &Axis, from: i64, until: i64) -> Vec<Piece> {
    let crossed = halts.iter().filter(|halt| halt.why != Why::Aborted).filter_map(|halt| {
        let first = axis.x(halt.from).max(from);
        let last = halt.until.map_or(axis.right, |at| axis.x(at)).min(until);
        (last > first).then(|| piece(halt.why.class(), first, last))
    });
    crossed.collect()
}

#[cfg(test)]
mod tests;
