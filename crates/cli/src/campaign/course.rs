//! Where a campaign is on its way to its end, from one look at it. Pure.

use serde_json::Value;

use super::{CampaignAnswer, Wave, counts};
use crate::output::{plain, thousands};

/// States of protocol.md §8 in which a vehicle has failed.
pub(super) const FAILURES: [&str; 3] = ["rolled_back", "inconsistent", "unknown"];

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// That nothing more happens by itself.
    End,
    /// The same, once more waves are open than these, counted from the first.
    EndOfWaveAfter(usize),
    /// That every update of an aborted campaign has ended.
    EndOfAborted,
}

impl Awaited {
    /// The wave that opens next, if there is one.
    pub(super) fn wave_after(campaign: &CampaignAnswer) -> Self {
        let open = open_waves(campaign).count();
        if open < campaign.waves.len() { Self::EndOfWaveAfter(open) } else { Self::End }
    }
}

/// What becomes of a campaign by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    GoesOn,
    /// Every update has ended, none with a failure.
    Done,
    /// Every update has ended, or every one of the open waves and the others need an operator; some failed.
    Failed,
    /// Its rule has stopped it.
    Stopped,
    /// Somebody has aborted it, which was not what was waited for.
    Aborted,
    /// Every update of the open waves has ended, none with a failure; the next wave does not open by itself.
    NeedsOperator,
}

impl Course {
    /// The name for programs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::GoesOn => "goes_on",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Aborted => "aborted",
            Self::NeedsOperator => "needs_operator",
        }
    }
}

pub(super) fn course(campaign: &CampaignAnswer, awaited: &Awaited) -> Course {
    let has_failures = failures(campaign) > 0;
    let ended = |fine| if has_failures { Course::Failed } else { fine };
    match (campaign.state.as_str(), awaited) {
        ("stopped", _) => Course::Stopped,
        ("aborted", _) if campaign.ended < campaign.vehicles => Course::GoesOn,
        // What rolled back was not kept from it: only a mix of software is bad news here.
        ("aborted", Awaited::EndOfAborted) if campaign.states.contains_key("inconsistent") => Course::Failed,
        ("aborted", Awaited::EndOfAborted) => Course::Done,
        ("aborted", Awaited::End | Awaited::EndOfWaveAfter(_)) => Course::Aborted,
        (_, Awaited::EndOfWaveAfter(open)) if open_waves(campaign).count() <= *open => Course::GoesOn,
        _ if campaign.is_done() => ended(Course::Done),
        ("running", _) if needs_operator(campaign) => ended(Course::NeedsOperator),
        _ => Course::GoesOn,
    }
}

/// How many vehicles have failed.
pub(super) fn failures(campaign: &CampaignAnswer) -> u64 {
    FAILURES.iter().filter_map(|state| campaign.states.get(*state)).sum()
}

fn open_waves(campaign: &CampaignAnswer) -> impl Iterator<Item = &Wave> {
    campaign.waves.iter().take_while(|wave| wave.is_open)
}

/// Whether everything that is open is over, and the next wave does not open by itself.
fn needs_operator(campaign: &CampaignAnswer) -> bool {
    let open: Vec<_> = open_waves(campaign).collect();
    let (Some(last), true) = (open.last(), open.len() < campaign.waves.len()) else { return false };
    if open.iter().any(|wave| wave.ended < wave.vehicles) {
        return false;
    }
    match opening(campaign, open.len()) {
        Some(Value::String(opens)) => opens == "by_hand",
        Some(opens) => opens.get("after_success_percent").and_then(Value::as_u64).is_some_and(|percent| {
            let counted = last.vehicles.saturating_sub(last.left_out);
            last.at_release.saturating_mul(100) < counted.saturating_mul(percent)
        }),
        None => false,
    }
}

/// What opens a wave, counted from 0, as the API tells it.
pub(super) fn opening(campaign: &CampaignAnswer, index: usize) -> Option<&Value> {
    campaign.rollout.get("waves")?.get(index)?.get("opens")
}

/// One line: "running: 3 of 10 vehicles done (2 succeeded, 1 rolled_back); wave 1 of 3".
pub(super) fn progress(campaign: &CampaignAnswer) -> String {
    let mut line = format!(
        "{}: {} of {} vehicle(s) done{}",
        plain(&campaign.state),
        thousands(campaign.ended),
        thousands(campaign.vehicles),
        counts(&campaign.states)
    );
    if campaign.waves.len() > 1 {
        line.push_str(&format!("; {} of {} waves open", open_waves(campaign).count(), campaign.waves.len()));
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wave(is_open: bool, vehicles: u64, at_release: u64, failed: u64) -> Value {
        json!({"wave": 1, "is_open": is_open, "vehicles": vehicles, "under_way": 0, "at_release": at_release,
               "failed": failed, "left_out": 0, "ended": at_release + failed})
    }

    fn campaign(state: &str, states: Value, ended: u64, vehicles: u64) -> Value {
        json!({"name": "c", "release": "r", "state": state, "states": states, "vehicles": vehicles,
               "ended": ended, "waves": [wave(true, vehicles, ended, 0)], "rollout": {}})
    }

    fn found(campaign: &Value, awaited: Awaited) -> Course {
        course(&serde_json::from_value(campaign.clone()).unwrap(), &awaited)
    }

    #[test]
    fn a_campaign_is_done_when_every_vehicle_is_and_failed_when_one_of_them_did() {
        for (state, states, ended, expected) in [
            ("running", json!({"downloading": 2}), 0, Course::GoesOn),
            ("paused", json!({"succeeded": 1, "held": 1}), 1, Course::GoesOn),
            ("finished", json!({"succeeded": 2}), 2, Course::Done),
            ("finished", json!({"up_to_date": 1, "ineligible": 1}), 2, Course::Done),
            ("running", json!({"succeeded": 1, "cancelled": 1}), 2, Course::Done),
            ("finished", json!({"succeeded": 1, "rolled_back": 1}), 2, Course::Failed),
            ("finished", json!({"succeeded": 1, "unknown": 1}), 2, Course::Failed),
            ("finished", json!({"inconsistent": 2}), 2, Course::Failed),
            ("stopped", json!({"rolled_back": 1, "downloading": 1}), 1, Course::Stopped),
            ("aborted", json!({"cancelled": 1, "installing": 1}), 1, Course::GoesOn),
            ("aborted", json!({"cancelled": 2}), 2, Course::Aborted),
        ] {
            assert_eq!(
                found(&campaign(state, states.clone(), ended, 2), Awaited::End),
                expected,
                "{state} {states}"
            );
        }
    }

    #[test]
    fn an_abort_is_done_when_every_update_has_ended() {
        for (states, ended, expected) in [
            (json!({"cancelled": 1, "installing": 1}), 1, Course::GoesOn),
            (json!({"cancelled": 1, "rolled_back": 1}), 2, Course::Done),
            (json!({"cancelled": 1, "inconsistent": 1}), 2, Course::Failed),
        ] {
            let campaign = campaign("aborted", states.clone(), ended, 2);
            assert_eq!(found(&campaign, Awaited::EndOfAborted), expected, "{states}");
        }
    }

    #[test]
    fn a_wave_that_does_not_open_by_itself_needs_an_operator_once_the_ones_before_are_over() {
        let percent = |share: u64| json!({"after_success_percent": share});
        for (opens, at_release, failed, expected) in [
            (json!("by_hand"), 10, 0, Course::NeedsOperator),
            (json!("by_hand"), 9, 0, Course::GoesOn),
            (json!("by_hand"), 9, 1, Course::Failed),
            (percent(90), 9, 1, Course::GoesOn),
            (percent(95), 9, 1, Course::Failed),
            (json!({"at": 1_800_000_000_000_i64}), 10, 0, Course::GoesOn),
            (json!("as_a_newer_server_says"), 10, 0, Course::GoesOn),
        ] {
            let mut states = json!({"waiting": 5, "succeeded": at_release});
            if failed > 0 {
                states["rolled_back"] = json!(failed);
            }
            let mut campaign = campaign("running", states, at_release + failed, 15);
            campaign["waves"] = json!([wave(true, 10, at_release, failed), wave(false, 5, 0, 0)]);
            campaign["rollout"] =
                json!({"waves": [{"size": {"vehicles": 10}}, {"size": "rest", "opens": opens}]});
            assert_eq!(found(&campaign, Awaited::End), expected, "{opens} {at_release}");
        }
    }

    #[test]
    fn a_wave_that_was_asked_for_is_waited_for_until_it_is_open() {
        let mut campaign = campaign("running", json!({"succeeded": 10, "waiting": 5}), 10, 15);
        campaign["waves"] = json!([wave(true, 10, 10, 0), wave(false, 5, 0, 0)]);
        campaign["rollout"] =
            json!({"waves": [{"size": {"vehicles": 10}}, {"size": "rest", "opens": "by_hand"}]});
        let awaited = Awaited::wave_after(&serde_json::from_value(campaign.clone()).unwrap());
        assert_eq!(awaited, Awaited::EndOfWaveAfter(1));
        assert_eq!(found(&campaign, awaited), Course::GoesOn);
        campaign["waves"] = json!([wave(true, 10, 10, 0), wave(true, 5, 0, 0)]);
        assert_eq!(found(&campaign, awaited), Course::GoesOn);
        campaign["waves"] = json!([wave(true, 10, 10, 0), wave(true, 5, 5, 0)]);
        campaign["ended"] = json!(15);
        campaign["states"] = json!({"succeeded": 15});
        assert_eq!(found(&campaign, awaited), Course::Done);
        let all_open = Awaited::wave_after(&serde_json::from_value(campaign).unwrap());
        assert_eq!(all_open, Awaited::End);
    }
}
