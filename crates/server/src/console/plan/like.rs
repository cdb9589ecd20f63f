//! What would have to be typed for a campaign that there is: where another one like it begins.

use farrier_campaign::{Opening, RetryRule, StopRule, WaveSize, Weekday, Window as StoredWindow};
use farrier_protocol::VehicleId;

use super::draft::{Draft, Retry, Wave, Whole, Window};
use crate::console::quantity::{written_instant, written_octets, written_seconds};
use crate::evidence::Statement;
use crate::store::campaigns::Campaign;

impl Draft {
    /// The same, but for its name. The vehicles that it was for are named where no query chose them.
    pub(super) fn like(campaign: &Campaign, named: &[VehicleId], statement: Option<Statement>) -> Self {
        let (rollout, intake) = (&campaign.rollout, &campaign.intake);
        let (query, whom) = match &intake.query {
            Some(query) => (query.clone(), "where"),
            None if campaign.every_vehicle => (String::new(), "all"),
            None => (String::new(), "vehicles"),
        };
        let vehicles: Vec<&str> = match whom {
            "vehicles" => named.iter().map(VehicleId::as_str).collect(),
            _ => Vec::new(),
        };
        let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
        let (stop_failures, stop_failed_percent) = limits(&rollout.stop);
        let whole = Whole {
            name: String::new(),
            release: campaign.release.to_string(),
            whom: whom.to_owned(),
            query,
            vehicles: vehicles.join("\n"),
            follows: intake.follows,
            excludes: intake.excludes.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", "),
            stop_failures,
            stop_failed_percent,
            stop_inconsistent: rollout.stop.inconsistent,
            vehicles_at_once: number(rollout.vehicles_at_once),
            starts_per_minute: number(rollout.starts_per_minute),
            bytes_per_second: rollout.bytes_per_second.map(written_octets).unwrap_or_default(),
            spread_s: rollout.spread_s.map(written_seconds).unwrap_or_default(),
            time_zone: rollout.time_zone.as_ref().map(ToString::to_string).unwrap_or_default(),
            not_before: rollout.not_before.map(written_instant).unwrap_or_default(),
            not_after: rollout.not_after.map(written_instant).unwrap_or_default(),
            update_deadline_s: campaign.update_deadline_s.map(written_seconds).unwrap_or_default(),
            priority: intake.priority.to_string(),
            needs_approval: intake.needs_approval,
            ..stated(statement.unwrap_or_default())
        };
        Self {
            whole,
            waves: rollout.waves.iter().map(wave).collect(),
            windows: rollout.windows.iter().map(window).collect(),
            retries: rollout.retries.iter().map(retry).collect(),
        }
    }
}

fn stated(statement: Statement) -> Whole {
    let text =
        |value: Option<farrier_protocol::LongText>| value.map(|text| text.to_string()).unwrap_or_default();
    Whole {
        purpose: text(statement.purpose),
        functions_affected: text(statement.functions_affected),
        type_approved_systems: text(statement.type_approved_systems),
        effect_on_requirements: text(statement.effect_on_requirements),
        effect_on_parameters: text(statement.effect_on_parameters),
        approval: text(statement.approval),
        execution_conditions: text(statement.execution_conditions),
        safety: text(statement.safety),
        verification: text(statement.verification),
        user_information: text(statement.user_information),
        ..Whole::default()
    }
}

fn limits(stop: &StopRule) -> (String, String) {
    let failures = stop.failures.map(|number| number.to_string()).unwrap_or_default();
    (failures, stop.failed_percent.map(|percent| percent.to_string()).unwrap_or_default())
}

fn wave(stored: &farrier_campaign::Wave) -> Wave {
    let (stop_failures, stop_failed_percent) = limits(&stored.stop);
    let wave = Wave {
        stop_failures,
        stop_failed_percent,
        stop_inconsistent: stored.stop.inconsistent,
        ..Wave::default()
    };
    let sized = match &stored.size {
        WaveSize::Vehicles(number) => {
            Wave { size: "vehicles".to_owned(), size_number: number.to_string(), ..wave }
        }
        WaveSize::Percent(percent) => {
            Wave { size: "percent".to_owned(), size_number: percent.to_string(), ..wave }
        }
        WaveSize::Where(query) => Wave { size: "where".to_owned(), size_where: query.to_string(), ..wave },
        WaveSize::Group(group) => Wave { size: "group".to_owned(), size_group: group.to_string(), ..wave },
        WaveSize::Rest => Wave { size: "rest".to_owned(), ..wave },
    };
    match stored.opens {
        Opening::AtOnce => Wave { opens: "at_once".to_owned(), ..sized },
        Opening::ByHand => Wave { opens: "by_hand".to_owned(), ..sized },
        Opening::ByApproval => Wave { opens: "by_approval".to_owned(), ..sized },
        Opening::At(at) => Wave { opens: "at".to_owned(), opens_at: written_instant(at), ..sized },
        Opening::AfterSuccessPercent(percent) => {
            Wave { opens: "after_success_percent".to_owned(), opens_percent: percent.to_string(), ..sized }
        }
    }
}

fn window(stored: &StoredWindow) -> Window {
    let has = |day| stored.days.contains(&day);
    Window {
        from: stored.from.to_string(),
        to: stored.to.to_string(),
        mon: has(Weekday::Mon),
        tue: has(Weekday::Tue),
        wed: has(Weekday::Wed),
        thu: has(Weekday::Thu),
        fri: has(Weekday::Fri),
        sat: has(Weekday::Sat),
        sun: has(Weekday::Sun),
    }
}

fn retry(stored: &RetryRule) -> Retry {
    Retry {
        code: code_name(stored),
        attempts: stored.attempts.to_string(),
        pause_s: written_seconds(stored.pause_s),
        factor: stored.factor.to_string(),
        longest_pause_s: written_seconds(stored.longest_pause_s),
    }
}

fn code_name(stored: &RetryRule) -> String {
    let name = serde_json::to_value(stored.code).ok();
    name.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}
