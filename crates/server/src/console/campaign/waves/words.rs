//! What is said of waves: since when one is open, how long it took, what opens the next.

use farrier_campaign::{Opening, Rollout, Weekday, Window};
use farrier_protocol::{Text, UnixMillis};

use super::{Opened, Seen};
use crate::console::campaign::view::opens;
use crate::console::eta::rounded;
use crate::console::format::{absolute, percent};
use crate::console::texts::{Texts, filled};
use crate::store::campaigns::Campaign;

pub(super) fn when(
    t: &Texts,
    campaign: &Campaign,
    (wave, opened): (u32, Option<Opened>),
    before: Option<Seen<'_>>,
    now: UnixMillis,
) -> String {
    match opened {
        Some(Opened { at: None, .. }) => t.wave_open_unknown.to_owned(),
        Some(Opened { at: Some(at), is_over: true, over_at: Some(over) }) => {
            let took = rounded(t, over.0.saturating_sub(at.0));
            filled(t.wave_took, &[&took, &absolute(at), &absolute(over)])
        }
        Some(Opened { at: Some(at), is_over: true, over_at: None }) => {
            format!("{} {}", t.opened, absolute(at))
        }
        Some(Opened { at: Some(at), is_over: false, .. }) => {
            let passed = rounded(t, now.0.saturating_sub(at.0));
            filled(t.wave_open_since, &[&absolute(at), &passed])
        }
        None if campaign.aborted.is_some() => t.wave_never_opened.to_owned(),
        None => awaited(t, campaign, wave, before),
    }
}

/// What opens a wave; of the next one also how far it is to it.
fn awaited(t: &Texts, campaign: &Campaign, wave: u32, before: Option<Seen<'_>>) -> String {
    let index = usize::try_from(wave).unwrap_or(usize::MAX).saturating_sub(1);
    let opening = campaign.rollout.opening(index);
    let mut text = filled(t.wave_opens, &[&opens(t, opening)]);
    let is_next = campaign.started_at.is_some() && wave == campaign.gate.open.saturating_add(1);
    if !is_next {
        return text;
    }
    if let (Opening::AfterSuccessPercent(_), Some((_, before, _))) = (opening, before) {
        let share = percent(before.at_release, before.vehicles.saturating_sub(before.left_out));
        text = format!("{text}; {}", filled(t.wave_share_now, &[&share.to_string()]));
    }
    if !campaign.goes_on() {
        text = format!("{text}; {}", t.wave_not_before_resumed);
    }
    text
}

/// What else keeps vehicles of open waves from beginning.
pub(super) fn schedule(t: &Texts, rollout: &Rollout) -> Vec<String> {
    let mut all = Vec::new();
    all.extend(windows(t, rollout).map(|windows| format!("{}: {windows}", t.windows)));
    all.extend(rollout.not_before.map(|at| format!("{}: {}", t.not_before, absolute(at))));
    all.extend(rollout.not_after.map(|at| format!("{}: {}", t.not_after, absolute(at))));
    all
}

/// The windows of a rollout in one line.
pub(in crate::console) fn windows(t: &Texts, rollout: &Rollout) -> Option<String> {
    if rollout.windows.is_empty() {
        return None;
    }
    let windows: Vec<_> = rollout.windows.iter().map(|one| window(t, one)).collect();
    let zone = rollout.time_zone.as_ref().map_or("UTC", Text::as_str);
    Some(format!("{} ({zone})", windows.join("; ")))
}

/// As `Window` is written, with the days in the visitor's language.
fn window(t: &Texts, window: &Window) -> String {
    let day = |day: &Weekday| {
        let name = serde_json::to_value(day).unwrap_or_default();
        t.weekday(name.as_str().unwrap_or_default())
    };
    let days: Vec<_> = window.days.iter().map(day).collect();
    let gap = if days.is_empty() { "" } else { " " };
    format!("{}{gap}{}-{}", days.join(","), window.from, window.to)
}
