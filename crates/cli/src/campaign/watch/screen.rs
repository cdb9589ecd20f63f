//! What the screen of `farrier campaign watch` shows, as lines of text. Pure: a view and a size in, lines out.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::super::course::{Awaited, Course, course, failures, opening};
use super::super::{CampaignAnswer, VehicleUpdate, Wave};
use super::pace::Pace;
use crate::output::{plain, thousands};

/// Smaller terminals get what fits in.
const LEAST_VEHICLES: usize = 3;

/// Waves that are shown at most: those around the one that opened last.
const WAVES: usize = 4;

/// The states in which a vehicle update goes, in the order in which it goes through them, and in which it ends.
const ON_THE_WAY: [&str; 9] = [
    "waiting",
    "collecting_vci",
    "checking_readiness",
    "deferred",
    "downloading",
    "installing",
    "committing",
    "verifying",
    "rolling_back",
];

/// Everything that the screen shows.
pub(super) struct View<'a> {
    pub(super) campaign: &'a CampaignAnswer,
    /// A page of the campaign's vehicles.
    pub(super) updates: &'a [VehicleUpdate],
    /// Vehicles on the pages before.
    pub(super) vehicles_before: u64,
    /// Vehicles of this page that are above the first one shown.
    pub(super) above: usize,
    /// Whether there are pages after this one.
    pub(super) has_more: bool,
    /// Newest last.
    pub(super) events: &'a [String],
    pub(super) pace: Option<Pace>,
    pub(super) trouble: Option<&'a str>,
    pub(super) question: Option<&'a str>,
    /// The time, for people.
    pub(super) at: String,
    pub(super) has_colour: bool,
}

/// How a line looks; what it means stands in its text too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Strong,
    Reverse,
    Good,
    Bad,
    Warning,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) style: Style,
}

/// At most `height` lines of at most `width` characters.
pub(super) fn lines(view: &View<'_>, width: usize, height: usize) -> Vec<Line> {
    let mut lines = head(view, width);
    lines.extend(waves(view.campaign, width));
    lines.extend(stages(view.campaign));
    lines.extend(waits(view).map(|text| said(Style::Plain, text)));
    let footer = footer(view);
    let left = height.saturating_sub(lines.len() + footer.len());
    let events = events(view, left);
    // One line for the heading, one before it.
    let vehicles = left.saturating_sub(events.len() + 2);
    if vehicles > 0 {
        lines.push(said(Style::Plain, String::new()));
        lines.extend(table(view, vehicles));
    }
    lines.extend(events);
    lines.truncate(height.saturating_sub(footer.len()));
    while lines.len() + footer.len() < height {
        lines.push(said(Style::Plain, String::new()));
    }
    lines.extend(footer);
    lines.truncate(height);
    let is_plain = |style| matches!(style, Style::Good | Style::Bad | Style::Warning) && !view.has_colour;
    for line in &mut lines {
        line.text = fitted(&line.text, width);
        if is_plain(line.style) {
            line.style = Style::Plain;
        }
    }
    lines
}

fn said(style: Style, text: impl Into<String>) -> Line {
    Line { text: text.into(), style }
}

fn head(view: &View<'_>, width: usize) -> Vec<Line> {
    let campaign = view.campaign;
    let title = format!("Campaign {}  release {}", plain(&campaign.name), plain(&campaign.release));
    let blanks = width.saturating_sub(title.chars().count() + view.at.chars().count()).max(2);
    let failed = failures(campaign);
    let done = format!(
        "{} {} of {} vehicle(s) done, {} failed",
        bar(campaign.ended, campaign.vehicles, 20),
        thousands(campaign.ended),
        thousands(campaign.vehicles),
        thousands(failed)
    );
    let done_style = if failed > 0 { Style::Bad } else { Style::Plain };
    vec![
        said(Style::Strong, format!("{title}{}{}", " ".repeat(blanks), view.at)),
        state(campaign),
        said(done_style, done),
        said(Style::Plain, pace(view)),
        said(Style::Plain, stop_rule(campaign)),
    ]
}

/// What state it is in, and what that means.
fn state(campaign: &CampaignAnswer) -> Line {
    let name = plain(&campaign.state);
    let (style, more) = match course(campaign, &Awaited::End) {
        Course::Done => (Style::Good, "every vehicle is done, none failed".to_owned()),
        Course::Failed => (Style::Bad, "what is open is done; look at what failed".to_owned()),
        Course::Stopped => (
            Style::Bad,
            format!("by its rule: {}", plain(campaign.stop_sentence.as_deref().unwrap_or_default())),
        ),
        Course::Aborted => {
            (Style::Warning, plain(campaign.abort_reason.as_deref().unwrap_or("every update has ended")))
        }
        Course::NeedsOperator => {
            let next = format!(
                "the open waves are done; next: farrier campaign open-wave {}",
                plain(&campaign.name)
            );
            (Style::Warning, next)
        }
        Course::GoesOn => match campaign.state.as_str() {
            "draft" => {
                (Style::Warning, format!("starts with: farrier campaign start {}", plain(&campaign.name)))
            }
            "paused" => (Style::Warning, "no further vehicle begins to download; p lets it go on".to_owned()),
            "aborted" => (Style::Warning, "its updates end one after the other".to_owned()),
            _ => (Style::Plain, String::new()),
        },
    };
    let more = if more.is_empty() { more } else { format!("; {more}") };
    said(style, format!("State: {name}{more}"))
}

fn pace(view: &View<'_>) -> String {
    let Some(pace) = view.pace else { return "Pace: not known yet".to_owned() };
    let (open, closed): (Vec<&Wave>, Vec<&Wave>) = view.campaign.waves.iter().partition(|wave| wave.is_open);
    let left: u64 = open.iter().map(|wave| wave.vehicles.saturating_sub(wave.ended)).sum();
    let of_what = if closed.is_empty() { "" } else { " of the open waves" };
    let eta = match pace.left(left) {
        _ if left == 0 => String::new(),
        Some(time) => format!("; at this pace {} left{of_what}", span(time)),
        None => "; nobody can say how long".to_owned(),
    };
    format!("Pace: {:.1} a minute over {}{eta}", pace.per_minute(), span(pace.within))
}

/// How far the campaign is from stopping by the rule for all of it.
fn stop_rule(campaign: &CampaignAnswer) -> String {
    let failed: u64 = campaign.waves.iter().map(|wave| wave.failed).sum();
    let rule = campaign.rollout.get("stop");
    let limit = |key| rule.and_then(|rule| rule.get(key)).and_then(Value::as_u64);
    let mut limits = Vec::new();
    if let Some(failures) = limit("failures") {
        limits.push(format!("{} of {} failures", thousands(failed), thousands(failures)));
    }
    if let Some(percent) = limit("failed_percent") {
        let of_thousand = failed.saturating_mul(1000).checked_div(campaign.vehicles).unwrap_or(0);
        limits.push(format!("{}.{} % of {percent} % failed", of_thousand / 10, of_thousand % 10));
    }
    let inconsistent = rule.and_then(|rule| rule.get("inconsistent")).and_then(Value::as_bool);
    if inconsistent.unwrap_or(true) {
        limits.push("or any mix of software".to_owned());
    }
    if limits.is_empty() { "Stop rule: none".to_owned() } else { format!("Stop rule: {}", limits.join("; ")) }
}

/// Nothing where there is one wave only.
fn waves(campaign: &CampaignAnswer, width: usize) -> Vec<Line> {
    if campaign.waves.len() < 2 {
        return Vec::new();
    }
    let open = campaign.waves.iter().filter(|wave| wave.is_open).count();
    let first = open.saturating_sub(2).min(campaign.waves.len().saturating_sub(WAVES));
    let bar_width = width.saturating_sub(65).clamp(10, 30);
    let mut lines = vec![said(
        Style::Strong,
        format!(
            "{:<5}{:<9}{:<blank$}{:>9}{:>10}{:>11}{:>8}",
            "WAVE",
            "STATE",
            "",
            "VEHICLES",
            "UNDER WAY",
            "AT RELEASE",
            "FAILED",
            blank = bar_width + 3
        ),
    )];
    for (index, wave) in campaign.waves.iter().enumerate().skip(first).take(WAVES) {
        let state = match (wave.is_open, opening(campaign, index).and_then(Value::as_str)) {
            (true, _) => "open",
            (false, Some("by_hand")) => "by hand",
            (false, _) => "not open",
        };
        let style = if wave.failed > 0 { Style::Bad } else { Style::Plain };
        lines.push(said(
            style,
            format!(
                "{:<5}{state:<9}{} {:>9}{:>10}{:>11}{:>8}",
                wave.wave,
                bar(wave.ended, wave.vehicles, bar_width),
                thousands(wave.vehicles),
                thousands(wave.under_way),
                thousands(wave.at_release),
                thousands(wave.failed)
            ),
        ));
    }
    let shown = campaign.waves.len().min(WAVES);
    if shown < campaign.waves.len() {
        lines.push(said(
            Style::Plain,
            format!("     {} of {} waves; all: farrier campaign show", shown, campaign.waves.len()),
        ));
    }
    lines
}

/// Where the vehicles are, in the order of an update; and how they ended.
fn stages(campaign: &CampaignAnswer) -> Vec<Line> {
    let count =
        |state: &&str| campaign.states.get(*state).map(|count| format!("{state} {}", thousands(*count)));
    let on_the_way: Vec<_> = ON_THE_WAY.iter().filter_map(count).collect();
    let ended = campaign.states.iter().filter(|(state, _)| !ON_THE_WAY.contains(&state.as_str()));
    let ended: Vec<_> =
        ended.map(|(state, count)| format!("{} {}", plain(state), thousands(*count))).collect();
    let parts = [("Stages", on_the_way.join(" > ")), ("Ended", ended.join(", "))];
    let told = parts.into_iter().filter(|(_, part)| !part.is_empty());
    told.map(|(name, part)| said(Style::Plain, format!("{name}: {part}"))).collect()
}

/// What the vehicles of the page wait for, by kind; nothing where none waits.
fn waits(view: &View<'_>) -> Option<String> {
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for update in view.updates {
        let kind = update.waiting_on.as_ref().and_then(|waiting| waiting.get("kind")).and_then(Value::as_str);
        if let Some(kind) = kind {
            *kinds.entry(kind).or_default() += 1;
        }
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let is_all = view.vehicles_before == 0 && !view.has_more;
    let of_whom = if is_all { String::new() } else { format!(" (of the {} listed)", view.updates.len()) };
    let kinds: Vec<_> = kinds.iter().map(|(kind, count)| format!("{} {count}", plain(kind))).collect();
    (!kinds.is_empty()).then(|| format!("They wait for{of_whom}: {}", kinds.join(", ")))
}

/// The newest changes, as many as leave room for vehicles.
fn events(view: &View<'_>, left: usize) -> Vec<Line> {
    let most = left.saturating_sub(LEAST_VEHICLES + 3).min(if left > 20 { 6 } else { 2 });
    let shown = view.events.iter().skip(view.events.len().saturating_sub(most));
    let lines: Vec<Line> = shown.map(|event| said(Style::Plain, plain(event))).collect();
    if lines.is_empty() {
        return lines;
    }
    [said(Style::Strong, "LAST CHANGES (audit log)")].into_iter().chain(lines).collect()
}

fn table(view: &View<'_>, room: usize) -> Vec<Line> {
    let shown: Vec<&VehicleUpdate> = view.updates.iter().skip(view.above).take(room).collect();
    let widest = |of: fn(&VehicleUpdate) -> &str, least: usize| {
        shown.iter().map(|update| of(update).chars().count()).max().unwrap_or(0).clamp(least, 24)
    };
    let (id, state) = (widest(|update| &update.vehicle_id, 7), widest(|update| &update.state, 5));
    let first = view.vehicles_before + view.above as u64 + 1;
    let last = (first + shown.len() as u64).saturating_sub(1);
    let place = if shown.is_empty() {
        "no vehicle is taken in yet".to_owned()
    } else {
        format!("{} to {} of {}", thousands(first), thousands(last), thousands(view.campaign.vehicles))
    };
    let mut lines =
        vec![said(Style::Strong, format!("{:<id$}  {:<state$}  WHY ({place})", "VEHICLE", "STATE"))];
    lines.extend(shown.iter().map(|update| {
        let style = match update.state.as_str() {
            "succeeded" => Style::Good,
            "rolled_back" | "inconsistent" | "unknown" => Style::Bad,
            _ => Style::Plain,
        };
        let text = format!(
            "{:<id$}  {:<state$}  {}",
            fitted(&plain(&update.vehicle_id), id),
            plain(&update.state),
            plain(&update.sentence)
        );
        said(style, text)
    }));
    lines
}

fn footer(view: &View<'_>) -> Vec<Line> {
    let trouble = view.trouble.map(|trouble| said(Style::Bad, format!("! {}", plain(trouble))));
    let keys = match view.question {
        Some(question) => question.to_owned(),
        None => "q leave  p pause or go on  up/down vehicles  PgUp/PgDn/Home pages".to_owned(),
    };
    trouble.into_iter().chain([said(Style::Reverse, keys)]).collect()
}

/// `[#####.....]`.
fn bar(part: u64, whole: u64, width: usize) -> String {
    let filled = (part.min(whole) as u128 * width as u128).checked_div(u128::from(whole)).unwrap_or(0);
    let filled = usize::try_from(filled).unwrap_or(width);
    format!("[{}{}]", "#".repeat(filled), ".".repeat(width.saturating_sub(filled)))
}

/// 45 s, 12 min, 3 h 5 min, 4 d 2 h.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) if seconds.is_multiple_of(60) => format!("{minutes} min"),
        (0, 0, _) if minutes < 10 => format!("{minutes} min {} s", seconds % 60),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        (_, _, _) => format!("{days} d {} h", hours % 24),
    }
}

/// Cut where it does not fit in; `~` tells that something is missing.
fn fitted(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        cut.push('~');
    }
    cut
}

#[cfg(test)]
mod tests;
