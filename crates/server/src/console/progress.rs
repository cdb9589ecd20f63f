//! How far campaigns are, as bars and rows.

use std::collections::BTreeMap;

use farrier_protocol::UnixMillis;

use super::eta;
use super::format::{number, percent};
use super::texts::Texts;
use crate::store::campaigns::{self, Campaign};
use crate::store::{StoreError, Tx};

/// States in the order of an update's way, each with the colour that it has everywhere.
pub(super) const STATES: [(&str, &str); 16] = [
    ("waiting", "idle"),
    ("collecting_vci", "run"),
    ("checking_readiness", "run"),
    ("deferred", "warn"),
    ("downloading", "run"),
    ("installing", "run"),
    ("committing", "run"),
    ("verifying", "run"),
    ("rolling_back", "warn"),
    ("succeeded", "ok"),
    ("up_to_date", "ok"),
    ("rolled_back", "bad"),
    ("inconsistent", "bad"),
    ("unknown", "bad"),
    ("ineligible", "idle"),
    ("cancelled", "idle"),
];

/// The colour of a state.
pub(super) fn class(state: &str) -> &'static str {
    STATES.iter().find(|(name, _)| *name == state).map_or("idle", |(_, class)| class)
}

/// How many vehicle updates are in a state.
pub(super) struct Bar {
    pub(super) state: &'static str,
    pub(super) name: &'static str,
    pub(super) class: &'static str,
    pub(super) vehicles: String,
    /// Of the longest bar, in percent, at least 1.
    pub(super) length: u64,
}

/// A bar for each state that some are in.
pub(super) fn bars(t: &'static Texts, by_state: &BTreeMap<String, u64>) -> Vec<Bar> {
    let most = by_state.values().copied().max().unwrap_or_default();
    let there = STATES.iter().filter_map(|(state, class)| {
        let vehicles = by_state.get(*state).copied().filter(|vehicles| *vehicles > 0)?;
        let (name, length) = (t.state(state), percent(vehicles, most).max(1));
        Some(Bar { state, name, class, vehicles: number(vehicles), length })
    });
    there.collect()
}

/// Parts of one bar, in percent from the left.
pub(super) struct Parts {
    pub(super) ok: u64,
    pub(super) run: u64,
    pub(super) run_at: u64,
    pub(super) bad: u64,
    pub(super) bad_at: u64,
}

impl Parts {
    pub(super) fn of(ok: u64, run: u64, bad: u64, all: u64) -> Self {
        let (ok, run, bad) = (percent(ok, all), percent(run, all), percent(bad, all));
        Self { ok, run, run_at: ok, bad, bad_at: ok.saturating_add(run) }
    }
}

/// A campaign in one row.
pub(super) struct CampaignRow {
    pub(super) name: String,
    pub(super) release: String,
    pub(super) state: &'static str,
    pub(super) state_name: &'static str,
    pub(super) class: &'static str,
    pub(super) vehicles: String,
    pub(super) at_release: String,
    pub(super) failed: String,
    pub(super) ended_percent: u64,
    /// Of one that runs, when it will be done.
    pub(super) eta: String,
    pub(super) parts: Parts,
}

impl CampaignRow {
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.state, "starting" | "running" | "paused" | "stopped")
    }
}

/// Colour of a campaign's state.
pub(super) fn campaign_class(state: &str) -> &'static str {
    match state {
        "starting" | "running" => "run",
        "paused" => "warn",
        "stopped" => "bad",
        "finished" => "ok",
        _ => "idle",
    }
}

pub(super) fn row(
    tx: &Tx<'_>,
    t: &'static Texts,
    campaign: &Campaign,
    now: UnixMillis,
) -> Result<CampaignRow, StoreError> {
    let counts = campaigns::counts(tx, &campaign.name)?;
    let of = |states: &[&str]| states.iter().filter_map(|state| counts.by_state.get(*state)).sum::<u64>();
    let (ok, bad) = (of(&["succeeded", "up_to_date"]), of(&["rolled_back", "inconsistent", "unknown"]));
    let run = of(&["downloading", "installing", "committing", "verifying", "rolling_back"]);
    let state = campaign.state_name(&counts);
    Ok(CampaignRow {
        name: campaign.name.to_string(),
        release: campaign.release.to_string(),
        state,
        state_name: t.campaign_state(state),
        class: campaign_class(state),
        vehicles: number(counts.total),
        at_release: number(ok),
        failed: number(bad),
        ended_percent: percent(counts.ended, counts.total),
        eta: match state {
            "starting" | "running" => {
                let waves = campaigns::wave_counts(tx, campaign)?;
                eta::of_open_waves(tx, campaign, &waves, true, now)?.0.short(t)
            }
            _ => String::new(),
        },
        parts: Parts::of(ok, run, bad, counts.total),
    })
}
