//! What a planned campaign comes to: who would get what, wave by wave, and what is said of it in one place before it is made.

use farrier_campaign::{Selection, StopRule, WaveSize};
use farrier_protocol::{Text, VehicleId};

use super::document::Fault;
use super::draft::input_of;
use crate::api::dry_run::{DryRun, DryRunAnswer, DryRunOutcome, DryRunVehicle, DryRunVerdict};
use crate::api::new_campaign::Prepared;
use crate::api::{self, Api, Document, Problem};
use crate::console::campaign::{opens, windows};
use crate::console::format::{bytes, number, percent, span};
use crate::console::objection::Objection;
use crate::console::texts::{Texts, filled};
use crate::console::{endings, query};
use crate::store::{Tx, fleet, groups, selection};

/// Vehicles that are listed at a time.
const LISTED: u32 = 50;

/// A wave of the plan.
pub(super) struct WaveRow {
    pub(super) number: usize,
    pub(super) vehicles: String,
    pub(super) opens: String,
    pub(super) stop: String,
}

/// The plan in words.
pub(super) struct Outlook {
    pub(super) name: String,
    pub(super) needs_approval: bool,
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) waves: Vec<WaveRow>,
    /// Whether it is meant.
    pub(super) question: String,
    /// What happens when it starts.
    pub(super) at_start: Vec<String>,
}

/// How many vehicles would come to one verdict.
pub(super) struct Verdict {
    pub(super) name: &'static str,
    pub(super) words: &'static str,
    pub(super) class: &'static str,
    pub(super) vehicles: String,
    pub(super) length: u64,
    pub(super) is_none: bool,
}

pub(super) struct Reason {
    pub(super) code: &'static str,
    pub(super) sentence: String,
    pub(super) vehicles: String,
    pub(super) example: String,
}

/// What a dry run found.
pub(super) struct Dry {
    pub(super) vehicles: String,
    pub(super) verdicts: Vec<Verdict>,
    pub(super) reasons: Vec<Reason>,
    pub(super) ecus: String,
    pub(super) bytes: String,
    pub(super) bytes_without_deltas: String,
    pub(super) saved_percent: u64,
    /// The verdict whose vehicles are listed.
    pub(super) listed: Option<(&'static str, &'static str)>,
    pub(super) list: Vec<(String, String)>,
    pub(super) next: Option<String>,
}

/// What the API refuses, at the input that it points at.
pub(super) fn refused(t: &Texts, problem: &Problem) -> Fault {
    let input = problem.pointer().map(input_of).unwrap_or_default();
    Fault { input, objection: Objection::of(t, problem), mark: None }
}

/// How many vehicles there are for what was typed, or what is wrong with it.
pub(super) fn selected(
    tx: &Tx<'_>,
    t: &'static Texts,
    whole: &super::draft::Whole,
) -> Result<query::Selected, Problem> {
    match whole.whom.as_str() {
        "where" if whole.query.trim().is_empty() => Ok(query::Selected::Nothing(t.type_a_query.to_owned())),
        "where" => query::Selected::of(tx, t, query::read(t, &whole.query)),
        "group" => {
            let name: Option<Text> = whole.group.parse().ok();
            let group = name.map(|name| groups::by_name(tx, &name)).transpose()?.flatten();
            match group {
                Some(group) => query::Selected::of(tx, t, Ok(group.selection)),
                None => Ok(query::Selected::Nothing(t.choose_group.to_owned())),
            }
        }
        "vehicles" => {
            let typed = whole.vehicles.split([',', ' ', '\n', '\t']).filter(|text| !text.is_empty());
            let vehicles: Vec<Option<VehicleId>> = typed.map(|text| text.parse().ok()).collect();
            match vehicles.is_empty() {
                true => Ok(query::Selected::Nothing(t.type_vehicles.to_owned())),
                false => Ok(query::Selected::Vehicles(number(vehicles.len()), None)),
            }
        }
        _ => Ok(query::Selected::Vehicles(number(fleet::vehicles(tx)?), None)),
    }
}

/// What would be created, in words.
pub(super) fn outlook(tx: &Tx<'_>, t: &'static Texts, prepared: &Prepared) -> Result<Outlook, Problem> {
    let Prepared { campaign, vehicles: named } = prepared;
    let (rollout, intake) = (&campaign.rollout, &campaign.intake);
    let query: Option<Selection> = intake.query.as_deref().and_then(|query| query.parse().ok());
    let total = match (&query, named.len()) {
        (Some(query), _) => selection::count(tx, query)?,
        (None, 0) => fleet::vehicles(tx)?,
        (None, number) => number.try_into().unwrap_or(u64::MAX),
    };
    let mut facts = vec![(t.release, campaign.release.to_string())];
    facts.push((
        t.whom,
        match &query {
            Some(query) => query.to_string(),
            None if campaign.every_vehicle => t.whom_all.to_owned(),
            None => t.whom_vehicles.to_owned(),
        },
    ));
    if intake.follows {
        facts.push((t.follows, t.yes.to_owned()));
    }
    if !intake.excludes.is_empty() {
        let names: Vec<_> = intake.excludes.iter().map(Text::as_str).collect();
        facts.push((t.excludes, names.join(", ")));
    }
    facts.push((t.stop_of_all, stop(t, &rollout.stop)));
    facts.extend(rollout.vehicles_at_once.map(|limit| (t.vehicles_at_once, number(limit))));
    facts.extend(rollout.starts_per_minute.map(|limit| (t.starts_per_minute, number(limit))));
    facts.extend(rollout.bytes_per_second.map(|limit| (t.bytes_per_second, bytes(limit))));
    let seconds = |s: u64| span(t, i64::try_from(s).unwrap_or(i64::MAX).saturating_mul(1_000));
    facts.extend(rollout.spread_s.map(|s| (t.spread, seconds(s))));
    facts.extend(windows(t, rollout).map(|windows| (t.windows, windows)));
    let absolute = crate::console::format::absolute;
    facts.extend(rollout.not_before.map(|at| (t.not_before, absolute(at))));
    facts.extend(rollout.not_after.map(|at| (t.not_after, absolute(at))));
    facts.extend(campaign.update_deadline_s.map(|s| (t.update_deadline, seconds(s))));
    facts.push((t.priority, intake.priority.to_string()));
    for retry in &rollout.retries {
        let code = serde_json::to_value(retry.code).unwrap_or_default();
        let code = code.as_str().filter(|code| *code != "*").unwrap_or(t.any_failure).to_owned();
        let attempts = retry.attempts.to_string();
        facts.push((t.retries, filled(t.retry_in_words, &[&code, &attempts, &seconds(retry.pause_s)])));
    }
    if intake.needs_approval {
        facts.push((t.needs_approval, t.yes.to_owned()));
    }
    let waves = wave_rows(tx, t, rollout, query.as_ref(), total)?;
    Ok(Outlook {
        name: campaign.name.to_string(),
        needs_approval: intake.needs_approval,
        question: filled(t.start_campaign, &[campaign.name.as_str()]),
        at_start: at_start(t, prepared, total, &waves),
        facts,
        waves,
    })
}

/// What happens at the start, sentence by sentence.
fn at_start(t: &Texts, prepared: &Prepared, total: u64, waves: &[WaveRow]) -> Vec<String> {
    let campaign = &prepared.campaign;
    let mut all = vec![filled(t.will_start, &[&number(total), campaign.release.as_str()])];
    match (campaign.rollout.waves.first(), waves.first()) {
        (Some(wave), Some(row)) => match wave.opens {
            farrier_campaign::Opening::AtOnce => {
                all.push(filled(t.first_wave_at_once, &[&row.vehicles]));
            }
            opening @ (farrier_campaign::Opening::ByHand
            | farrier_campaign::Opening::ByApproval
            | farrier_campaign::Opening::At(_)
            | farrier_campaign::Opening::AfterSuccessPercent(_)) => {
                all.push(filled(t.first_wave_waits, &[&opens(t, opening)]));
            }
        },
        (_, _) => all.push(t.no_waves_at_start.to_owned()),
    }
    if campaign.rollout.not_before.is_some() || !campaign.rollout.windows.is_empty() {
        all.push(t.windows_at_start.to_owned());
    }
    if !campaign.intake.excludes.is_empty() {
        all.push(t.excludes_at_start.to_owned());
    }
    all
}

fn stop(t: &Texts, rule: &StopRule) -> String {
    let mut parts = Vec::new();
    parts.extend(rule.failed_percent.map(|limit| filled(t.stops_at_percent, &[&limit.to_string()])));
    parts.extend(rule.failures.map(|limit| filled(t.stops_at_failures, &[&number(limit)])));
    if rule.inconsistent {
        parts.push(t.stops_at_mix.to_owned());
    }
    if parts.is_empty() { t.stops_never.to_owned() } else { parts.join(", ") }
}

fn wave_rows(
    tx: &Tx<'_>,
    t: &Texts,
    rollout: &farrier_campaign::Rollout,
    query: Option<&Selection>,
    total: u64,
) -> Result<Vec<WaveRow>, Problem> {
    // Those that a query chooses take no place among those that are counted off.
    let mut chosen = 0_u64;
    let mut of_queries = Vec::new();
    for wave in &rollout.waves {
        let WaveSize::Where(own) = &wave.size else {
            of_queries.push(None);
            continue;
        };
        let both = match query {
            Some(query) if *query != Selection::All => Selection::And(vec![query.clone(), own.clone()]),
            Some(_) | None => own.clone(),
        };
        let count = selection::count(tx, &both)?.min(total);
        chosen = chosen.saturating_add(count);
        of_queries.push(Some(count));
    }
    let counted = total.saturating_sub(chosen);
    let mut before = 0_u64;
    let ends = rollout.wave_ends(total);
    let rows = rollout.waves.iter().zip(ends).zip(of_queries).enumerate();
    let rows = rows.map(|(index, ((wave, end), of_query))| {
        let end = end.min(counted);
        let vehicles = of_query.unwrap_or_else(|| end.saturating_sub(before));
        before = before.max(end);
        WaveRow {
            number: index.saturating_add(1),
            vehicles: number(vehicles),
            opens: opens(t, wave.opens),
            stop: stop(t, &wave.stop),
        }
    });
    Ok(rows.collect())
}

/// Looks what the campaign would do; lists the vehicles of one verdict where it is asked for.
pub(super) async fn dry(
    api: &Api,
    t: &'static Texts,
    asked: DryRun,
    listed: Option<(DryRunVerdict, Option<String>)>,
) -> Result<Dry, Problem> {
    let run = |asked: DryRun| api::dry_run::dry_run(axum::extract::State(api.clone()), Document(asked));
    let DryRunAnswer { outcome, .. } = run(DryRun { limit: Some(1), ..asked.clone() }).await?.0;
    let outcome = outcome.unwrap_or_default();
    let list = match &listed {
        Some((verdict, after)) => {
            let part = DryRun { verdict: Some(*verdict), limit: Some(LISTED), after: after.clone(), ..asked };
            Some(run(part).await?.0.page)
        }
        None => None,
    };
    let (items, next) = list.map_or((Vec::new(), None), |page| (page.items, page.next));
    let verdicts = verdicts(t, &outcome);
    let name_of = |verdict: DryRunVerdict| VERDICTS.iter().find(|(known, ..)| *known == verdict);
    Ok(Dry {
        vehicles: number(outcome.vehicles),
        verdicts,
        reasons: outcome
            .reasons
            .iter()
            .map(|reason| Reason {
                code: reason.code,
                sentence: endings::reason(t, &reason.reason),
                vehicles: number(reason.vehicles),
                example: reason.example.to_string(),
            })
            .collect(),
        ecus: number(outcome.ecus),
        bytes: bytes(outcome.bytes),
        bytes_without_deltas: bytes(outcome.bytes_without_deltas),
        saved_percent: percent(
            outcome.bytes_without_deltas.saturating_sub(outcome.bytes),
            outcome.bytes_without_deltas,
        ),
        listed: listed.and_then(|(verdict, _)| name_of(verdict)).map(|(_, name, _)| (*name, t.verdict(name))),
        list: items
            .iter()
            .map(|one: &DryRunVehicle| (one.vehicle_id.to_string(), endings::foreseen(t, &one.outlook)))
            .collect(),
        next,
    })
}

/// Each with its name in forms, and its colour.
static VERDICTS: [(DryRunVerdict, &str, &str); 6] = [
    (DryRunVerdict::WouldUpdate, "would_update", "run"),
    (DryRunVerdict::UpToDate, "up_to_date", "ok"),
    (DryRunVerdict::InventoryUnknown, "inventory_unknown", "warn"),
    (DryRunVerdict::InAnotherUpdate, "in_another_update", "warn"),
    (DryRunVerdict::Quarantined, "quarantined", "bad"),
    (DryRunVerdict::Ineligible, "ineligible", "idle"),
];

/// The verdict of a name in forms.
pub(super) fn verdict(name: &str) -> Option<DryRunVerdict> {
    VERDICTS.iter().find(|(_, known, _)| *known == name).map(|(verdict, ..)| *verdict)
}

fn verdicts(t: &'static Texts, outcome: &DryRunOutcome) -> Vec<Verdict> {
    let all = VERDICTS.map(|(verdict, name, class)| {
        let vehicles = match verdict {
            DryRunVerdict::WouldUpdate => outcome.would_update,
            DryRunVerdict::UpToDate => outcome.up_to_date,
            DryRunVerdict::Ineligible => outcome.ineligible,
            DryRunVerdict::InventoryUnknown => outcome.inventory_unknown,
            DryRunVerdict::Quarantined => outcome.quarantined,
            DryRunVerdict::InAnotherUpdate => outcome.in_another_update,
        };
        Verdict {
            name,
            words: t.verdict(name),
            class,
            vehicles: number(vehicles),
            length: percent(vehicles, outcome.vehicles),
            is_none: vehicles == 0,
        }
    });
    all.into()
}
