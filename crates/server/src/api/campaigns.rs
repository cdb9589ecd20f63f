//! Campaigns: made, started, watched; cancelling and rolling back one vehicle.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use farrier_campaign::{
    Event, GateRecord, Plan, Rollout, Selection, Starting, StopReason, WaitingOn, WaveCounts,
};
use farrier_protocol::{Text, UnixMillis, VehicleId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::etag::Resource;
use super::page::{Page, PageQuery, page};
use super::problem::Problem;
use super::request::{Caller, Document, InPath, InQuery};
use super::{Api, dry_run, groups, name, vehicle_id};
use crate::conversation::{self, Rules, advance};
use crate::evidence::Statement;
use crate::store::audit::{self, Change};
use crate::store::campaigns::{self, Aborted, Campaign};
use crate::store::selection as selections;
use crate::store::updates::{self, VehicleUpdate};
use crate::store::{StoreError, Tx, evidence, packages, releases, vehicles as stored_vehicles};

/// The body of a new campaign.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCampaign {
    /// 1 to 64 characters [A-Za-z0-9._-].
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    name: String,
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    release: String,
    /// Without it, `where` and `group`: every enrolled vehicle, later ones too.
    #[schemars(length(min = 1))]
    vehicles: Option<Vec<VehicleId>>,
    /// In place of `vehicles`: those that a query selects when the campaign is made.
    r#where: Option<String>,
    /// In place of `vehicles`: those of a fleet group when the campaign is made.
    group: Option<String>,
    /// In place of the server's setting.
    #[schemars(range(min = 1, max = 31_536_000))]
    update_deadline_s: Option<u64>,
    /// Waves, the rule that stops the campaign, how many vehicles at once. Without it: all at once, until the first vehicle
    /// with a mix of software.
    #[serde(default)]
    rollout: Rollout,
    /// What is stated for the record of its updates (UN R156).
    #[serde(default)]
    statement: Option<Statement>,
}

/// Vehicles of a selection that are read at a time.
const SELECTED_AT_A_TIME: u32 = 1_000;

/// The longest deadline of an update: a year, in seconds.
const LONGEST_DEADLINE_S: u64 = 31_536_000;

/// A campaign as operators see it.
#[derive(Serialize, JsonSchema)]
pub(super) struct CampaignAnswer {
    name: Text,
    release: Text,
    /// `draft`, `starting` while it takes in the vehicles that it starts with, `running`, `paused`, `stopped`, `aborted` or
    /// `finished`.
    state: &'static str,
    /// How many vehicle updates are in which state.
    states: BTreeMap<String, u64>,
    vehicles: u64,
    ended: u64,
    every_vehicle: bool,
    update_deadline_s: Option<u64>,
    created_at_ms: UnixMillis,
    started_at_ms: Option<UnixMillis>,
    /// Since when it is paused.
    paused_at_ms: Option<UnixMillis>,
    aborted_at_ms: Option<UnixMillis>,
    /// The operator's words.
    abort_reason: Option<Text>,
    rollout: Rollout,
    /// From the first.
    waves: Vec<WaveAnswer>,
    /// Since when it has stopped by its rule.
    stopped_at_ms: Option<UnixMillis>,
    stop_reason: Option<StopReason>,
    /// The same for people.
    stop_sentence: Option<String>,
    /// What is stated for the record of its updates.
    statement: Option<Statement>,
}

/// A wave as operators see it.
#[derive(Serialize, JsonSchema)]
pub(super) struct WaveAnswer {
    /// From 1.
    wave: u32,
    is_open: bool,
    #[serde(flatten)]
    counts: WaveCounts,
}

/// A vehicle update as operators see it.
#[derive(Serialize, JsonSchema)]
pub(super) struct UpdateAnswer {
    vehicle_id: VehicleId,
    campaign: Text,
    /// As in docs/protocol.md, section 8.
    state: &'static str,
    /// Why it is there, for people.
    sentence: String,
    /// What is waited for; absent where the update is over.
    waiting_on: Option<WaitingOn>,
    /// Whether it succeeded, though no success was reported in time.
    late: bool,
    bytes_served: u64,
    bytes_total: u64,
    ecu_count: usize,
    created_at_ms: UnixMillis,
    started_at_ms: Option<UnixMillis>,
    updated_at_ms: UnixMillis,
    ended_at_ms: Option<UnixMillis>,
}

/// `POST /campaigns`
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    Document(new): Document<NewCampaign>,
) -> Result<(StatusCode, Json<CampaignAnswer>), Problem> {
    let (name, release, actor) =
        (name(&new.name, "campaign")?, name(&new.release, "release")?, caller.actor());
    if dry_run::PATH.ends_with(&format!("/{name}")) {
        return Err(Problem::invalid(format!("name: expected another name than {name}; choose one.")));
    }
    if new.vehicles.as_ref().is_some_and(Vec::is_empty) {
        return Err(Problem::invalid(
            "vehicles: expected at least one vehicle, or no such key for all of them.",
        ));
    }
    if let Some(found) = new.update_deadline_s.filter(|s| !(1..=LONGEST_DEADLINE_S).contains(s)) {
        let detail = format!("update_deadline_s: expected 1 to {LONGEST_DEADLINE_S}, found {found}.");
        return Err(Problem::invalid(detail));
    }
    if let Err(error) = new.rollout.check() {
        return Err(Problem::invalid(format!("/rollout{error}.")));
    }
    let selected = selection(&new)?;
    let created = api.answer(move |tx, _, now| {
        if releases::by_name(tx, &release)?.is_none() {
            return Err(Problem::not_found("release", release.as_str()));
        }
        if campaigns::by_name(tx, &name)?.is_some() {
            let detail = format!("Campaign {name} exists; choose another name.");
            return Err(Problem::conflict("CAMPAIGN_EXISTS", detail));
        }
        let named = match &selected {
            Some(selected) => selected_vehicles(tx, selected)?,
            None => new.vehicles.clone().unwrap_or_default(),
        };
        for vehicle_id in &named {
            if stored_vehicles::by_id(tx, vehicle_id)?.is_none() {
                return Err(Problem::not_found("enrolled vehicle", vehicle_id.as_str()));
            }
        }
        let campaign = Campaign {
            name,
            release,
            every_vehicle: new.vehicles.is_none() && selected.is_none(),
            update_deadline_s: new.update_deadline_s,
            created_at: now,
            started_at: None,
            paused_at: None,
            aborted: None,
            rollout: new.rollout,
            gate: GateRecord::default(),
            stopped: None,
            starting: None,
        };
        campaigns::create(tx, &campaign, &named)?;
        if let Some(statement) = &new.statement {
            evidence::state(tx, &campaign.name, statement)?;
        }
        let whom = match named.len() {
            0 => "every vehicle".to_owned(),
            number => format!("{number} vehicle(s)"),
        };
        let change = Change {
            action: "campaign.created",
            object: format!("campaign/{}", campaign.name),
            detail: Some(format!("release {}, {whom}", campaign.release)),
            before: None,
            after: Some(
                json!({"campaign": campaign.audited(), "vehicles": named, "statement": new.statement}),
            ),
        };
        audit::record(tx, &actor, change, now)?;
        Ok((StatusCode::CREATED, shown(tx, &campaign)?))
    });
    created.await
}

/// What selects the vehicles of a campaign that names none.
enum Selected {
    Where(Selection),
    Group(Text),
}

fn selection(new: &NewCampaign) -> Result<Option<Selected>, Problem> {
    match (&new.vehicles, &new.r#where, &new.group) {
        (_, None, None) => Ok(None),
        (None, Some(query), None) => Ok(Some(Selected::Where(groups::parsed(query)?))),
        (None, None, Some(group)) => Ok(Some(Selected::Group(groups::group_name(group)?))),
        (Some(_), _, _) | (None, Some(_), Some(_)) => {
            Err(Problem::invalid("Expected one of vehicles, where and group, found several; keep one."))
        }
    }
}

fn selected_vehicles(tx: &Tx<'_>, selected: &Selected) -> Result<Vec<VehicleId>, Problem> {
    let selection = match selected {
        Selected::Where(selection) => selection.clone(),
        Selected::Group(name) => groups::selection_of(tx, name)?,
    };
    let mut vehicles: Vec<VehicleId> = Vec::new();
    loop {
        let after = vehicles.last().map_or("", |last| last.as_str()).to_owned();
        let page = selections::ids(tx, &selection, &after, SELECTED_AT_A_TIME)?;
        let is_last = page.len() < SELECTED_AT_A_TIME as usize;
        vehicles.extend(page);
        if is_last {
            break;
        }
    }
    if vehicles.is_empty() {
        let detail = "Expected a selection with at least one vehicle, found none; see what it has: farrier vehicle list --where QUERY.";
        return Err(Problem::invalid(detail));
    }
    Ok(vehicles)
}

fn found(tx: &Tx<'_>, name: &Text) -> Result<Campaign, Problem> {
    campaigns::by_name(tx, name)?.ok_or_else(|| Problem::not_found("campaign", name.as_str()))
}

/// A campaign as what an ETag is of. Its lock is that of operators alone: what vehicles do goes on meanwhile.
pub(super) const CAMPAIGN: Resource = Resource {
    lock: |tx, name| tx.lock(&format!("campaign {name}")),
    settled: |tx, name| {
        let Ok(name) = name.parse() else { return Ok(None) };
        Ok(campaigns::by_name(tx, &name)?.map(|campaign| campaign.audited()))
    },
};

fn shown(tx: &Tx<'_>, campaign: &Campaign) -> Result<CampaignAnswer, Problem> {
    let counts = campaigns::counts(tx, &campaign.name)?;
    let state = match campaign.started_at {
        _ if campaign.aborted.is_some() => "aborted",
        None => "draft",
        // A campaign for every vehicle goes on: there may be later ones.
        Some(_) if !campaign.every_vehicle && campaign.starting.is_none() && counts.ended == counts.total => {
            "finished"
        }
        Some(_) if campaign.stopped.is_some() => "stopped",
        Some(_) if campaign.paused_at.is_some() => "paused",
        Some(_) if campaign.starting.is_some() => "starting",
        Some(_) => "running",
    };
    let vehicles = match (campaign.started_at, &campaign.starting) {
        (Some(_), None) => counts.total,
        (Some(_), Some(Starting { shares: Some(shares), .. })) => counts.total.max(shares.all()),
        (Some(_), Some(Starting { shares: None, .. })) | (None, _) => campaigns::vehicle_count(tx, campaign)?,
    };
    Ok(CampaignAnswer {
        name: campaign.name.clone(),
        release: campaign.release.clone(),
        state,
        states: counts.by_state,
        vehicles,
        ended: counts.ended,
        every_vehicle: campaign.every_vehicle,
        update_deadline_s: campaign.update_deadline_s,
        created_at_ms: campaign.created_at,
        started_at_ms: campaign.started_at,
        paused_at_ms: campaign.paused_at,
        aborted_at_ms: campaign.aborted.as_ref().map(|aborted| aborted.at),
        abort_reason: campaign.aborted.as_ref().map(|aborted| aborted.reason.clone()),
        waves: waves(tx, campaign)?,
        rollout: campaign.rollout.clone(),
        stopped_at_ms: campaign.stopped.as_ref().map(|stopped| stopped.at),
        stop_reason: campaign.stopped.as_ref().map(|stopped| stopped.reason.clone()),
        stop_sentence: campaign.stopped.as_ref().map(|stopped| stopped.reason.sentence()),
        statement: evidence::statement(tx, &campaign.name)?,
    })
}

fn waves(tx: &Tx<'_>, campaign: &Campaign) -> Result<Vec<WaveAnswer>, StoreError> {
    // Without a gate its one wave is open from the start.
    let open = if campaign.rollout.has_gate() {
        campaign.gate.open
    } else {
        u32::from(campaign.started_at.is_some())
    };
    let waves = (1..).zip(campaigns::wave_counts(tx, campaign)?);
    Ok(waves.map(|(wave, counts)| WaveAnswer { wave, is_open: wave <= open, counts }).collect())
}

/// `GET /campaigns`
pub(super) async fn list(
    State(api): State<Api>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Page<CampaignAnswer>>, Problem> {
    let (limit, after) = (query.limit()?, query.after_name()?);
    let listed = api.read(move |tx| {
        let campaigns = campaigns::page(tx, &after, limit + 1)?;
        page(campaigns, limit, |campaign| campaign.name.clone(), |campaign| shown(tx, campaign))
    });
    Ok(Json(listed.await?))
}

/// `GET /campaigns/{name}`
pub(super) async fn show(
    State(api): State<Api>,
    InPath(text): InPath<String>,
) -> Result<Json<CampaignAnswer>, Problem> {
    let name = name(&text, "campaign")?;
    Ok(Json(api.read(move |tx| shown(tx, &found(tx, &name)?)).await?))
}

/// `POST /campaigns/{name}/start`: starting a running campaign changes nothing.
pub(super) async fn start(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<CampaignAnswer>, Problem> {
    let (name, actor) = (name(&text, "campaign")?, caller.actor());
    let started = api.answer(move |tx, rules, now| {
        let campaign = found(tx, &name)?;
        if campaign.aborted.is_some() {
            return Err(is_aborted(&name));
        }
        if let Some(vehicles) = conversation::start(tx, rules, &campaign, now)? {
            let change = Change {
                action: "campaign.started",
                object: format!("campaign/{name}"),
                detail: Some(format!("release {}, {vehicles} vehicle(s)", campaign.release)),
                before: Some(campaign.audited()),
                after: Some(found(tx, &name)?.audited()),
            };
            audit::record(tx, &actor, change, now)?;
        }
        Ok((StatusCode::OK, shown(tx, &found(tx, &name)?)?))
    });
    Ok(started.await?.1)
}

fn is_aborted(name: &Text) -> Problem {
    let detail =
        format!("Campaign {name} was aborted, which is for good; plan another one with the same release.");
    Problem::conflict("CAMPAIGN_ABORTED", detail)
}

/// `POST /campaigns/{name}/pause`: pausing a paused campaign changes nothing.
pub(super) async fn pause(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<CampaignAnswer>, Problem> {
    let control = |tx: &Tx<'_>, campaign: &Campaign, now| match campaign.paused_at {
        Some(_) => Ok(false),
        None => campaigns::pause(tx, &campaign.name, now).map(|()| true),
    };
    controlled(&api, &caller, &text, "campaign.paused", control).await
}

/// `POST /campaigns/{name}/resume`: a campaign that is paused or has stopped by its rule goes on; the failures that there are
/// now stop it no more. Resuming one that goes on changes nothing.
pub(super) async fn resume(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<CampaignAnswer>, Problem> {
    let control = |tx: &Tx<'_>, campaign: &Campaign, _| match campaign.goes_on() {
        true => Ok(false),
        false => campaigns::resume(tx, campaign).map(|()| true),
    };
    controlled(&api, &caller, &text, "campaign.resumed", control).await
}

/// `POST /campaigns/{name}/open-wave`: opens the next wave, whatever else it waits for; where all are open, it changes nothing.
pub(super) async fn open_wave(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<CampaignAnswer>, Problem> {
    let control = |tx: &Tx<'_>, campaign: &Campaign, _| {
        let record = campaigns::hold_gate(tx, &campaign.name)?;
        let is_last = record.open >= campaign.rollout.wave_count() || !campaign.rollout.has_gate();
        if is_last || record.open_next {
            return Ok(false);
        }
        let record = GateRecord { open_next: true, ..record };
        campaigns::set_gate(tx, &campaign.name, &record).map(|()| true)
    };
    controlled(&api, &caller, &text, "campaign.wave_asked_for", control).await
}

/// `POST /campaigns/{name}/abort`
pub(super) async fn abort(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
    Document(CancelReason { reason }): Document<CancelReason>,
) -> Result<Json<CampaignAnswer>, Problem> {
    let control = move |tx: &Tx<'_>, campaign: &Campaign, at| {
        campaigns::abort(tx, &campaign.name, &Aborted { at, reason }).map(|()| true)
    };
    controlled(&api, &caller, &text, "campaign.aborted", control).await
}

/// Changes how a campaign goes on; `control` says whether it changed anything.
async fn controlled(
    api: &Api,
    caller: &Caller,
    text: &str,
    action: &'static str,
    control: impl FnOnce(&Tx<'_>, &Campaign, UnixMillis) -> Result<bool, StoreError> + Send + 'static,
) -> Result<Json<CampaignAnswer>, Problem> {
    let (name, actor) = (name(text, "campaign")?, caller.actor());
    let controlled = api.answer(move |tx, _, now| {
        let before = found(tx, &name)?;
        if before.aborted.is_some() {
            return Err(is_aborted(&name));
        }
        if before.started_at.is_none() {
            let detail = format!("Campaign {name} has not started; start it first.");
            return Err(Problem::conflict("CAMPAIGN_NOT_STARTED", detail));
        }
        let changed = control(tx, &before, now)?;
        let after = found(tx, &name)?;
        if changed {
            let change = Change {
                action,
                object: format!("campaign/{name}"),
                detail: after.aborted.as_ref().map(|aborted| aborted.reason.to_string()),
                before: Some(before.audited()),
                after: Some(after.audited()),
            };
            audit::record(tx, &actor, change, now)?;
        }
        Ok((StatusCode::OK, shown(tx, &after)?))
    });
    Ok(controlled.await?.1)
}

/// The body of a retry.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Retry {
    /// Why the updates ended: an error code of the vehicle, DEADLINE_PASSED, CANCELLED, a code of ineligibility.
    #[schemars(length(min = 1))]
    codes: Vec<String>,
}

/// How many updates are tried again.
#[derive(Serialize, JsonSchema)]
pub(super) struct Retried {
    retried: u64,
}

/// Updates that are tried again in one transaction.
const RETRIED_AT_A_TIME: u32 = 256;

/// `POST /campaigns/{name}/retry`: tries updates again that ended without a change, by why they ended.
pub(super) async fn retry(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
    Document(Retry { codes }): Document<Retry>,
) -> Result<Json<Retried>, Problem> {
    let (name, actor) = (name(&text, "campaign")?, caller.actor());
    if codes.is_empty() {
        return Err(Problem::invalid("/codes: expected at least one code, found none."));
    }
    let (mut retried, mut after) = (0_u64, Some(String::new()));
    while let Some(from) = after.take() {
        let (name, codes, actor) = (name.clone(), codes.clone(), actor.clone());
        let batch = api.write(move |tx, rules, now| {
            let campaign = found(tx, &name)?;
            if campaign.aborted.is_some() {
                return Err(is_aborted(&name));
            }
            let (number, next) = retry_some(tx, rules, &campaign, &codes, &from, now)?;
            if number > 0 {
                let change = Change {
                    action: "campaign.retried",
                    object: format!("campaign/{name}"),
                    detail: Some(format!("{number} vehicle(s) with {}", codes.join(", "))),
                    before: None,
                    after: None,
                };
                audit::record(tx, &actor, change, now)?;
            }
            Ok((number, next))
        });
        let (number, next) = batch.await?;
        retried = retried.saturating_add(number);
        after = next;
    }
    Ok(Json(Retried { retried }))
}

/// Tries some updates again; gives how many, and after which vehicle there are more.
pub(crate) fn retry_some(
    tx: &Tx<'_>,
    rules: &Rules,
    campaign: &Campaign,
    codes: &[String],
    after: &str,
    now: UnixMillis,
) -> Result<(u64, Option<String>), StoreError> {
    let page = updates::page_without_change(tx, &campaign.name, after, RETRIED_AT_A_TIME)?;
    let is_full = page.len() >= RETRIED_AT_A_TIME as usize;
    let next = page.last().filter(|_| is_full).map(|update| update.vehicle_id.to_string());
    let mut retried = 0_u64;
    for update in page {
        stored_vehicles::lock(tx, &update.vehicle_id)?;
        let update = updates::by_id(tx, &update.id)?;
        let is_meant = |update: &VehicleUpdate| {
            update.state.failure_codes().iter().any(|code| codes.iter().any(|wanted| wanted == code))
        };
        let Some(update) = update.filter(is_meant) else { continue };
        let id = update.id.clone();
        advance(tx, rules, update, Event::RetryAsked, None, now)?;
        if let Some(update) = updates::by_id(tx, &id)? {
            advance(tx, rules, update, Event::LookedAt, None, now)?;
        }
        retried = retried.saturating_add(1);
    }
    Ok((retried, next))
}

/// `GET /campaigns/{name}/vehicles`
pub(super) async fn vehicles(
    State(api): State<Api>,
    InPath(text): InPath<String>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Page<UpdateAnswer>>, Problem> {
    let (limit, after) = (query.limit()?, query.after_name()?);
    let (name, now) = (name(&text, "campaign")?, api.now());
    let listed = api.read(move |tx| {
        found(tx, &name)?;
        let updates = updates::page_of_campaign(tx, &name, &after, limit + 1)?;
        page(updates, limit, |update| update.vehicle_id.clone(), |update| shown_update(tx, update, now))
    });
    Ok(Json(listed.await?))
}

/// A vehicle update as operators see it.
pub(super) fn shown_update(
    tx: &Tx<'_>,
    update: &VehicleUpdate,
    now: UnixMillis,
) -> Result<UpdateAnswer, Problem> {
    let plan = update.state.plan();
    Ok(UpdateAnswer {
        vehicle_id: update.vehicle_id.clone(),
        campaign: update.campaign.clone(),
        state: update.state.name(),
        sentence: update.state.sentence(now),
        waiting_on: update.state.waiting_on(),
        late: matches!(update.state, farrier_campaign::State::Succeeded { late: true, .. }),
        bytes_served: packages::served_bytes(tx, &update.id)?,
        bytes_total: plan.map_or(0, Plan::size_bytes),
        ecu_count: plan.map_or(0, Plan::ecu_count),
        created_at_ms: update.created_at,
        started_at_ms: update.started_at,
        updated_at_ms: update.updated_at,
        ended_at_ms: update.ended_at,
    })
}

/// The body of a cancellation.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CancelReason {
    reason: Text,
}

/// `POST /campaigns/{name}/vehicles/{vehicle_id}/cancel`
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    InPath((campaign, vehicle)): InPath<(String, String)>,
    Document(CancelReason { reason }): Document<CancelReason>,
) -> Result<Json<UpdateAnswer>, Problem> {
    let order = Order {
        action: "update.cancel_asked",
        detail: Some(reason.to_string()),
        event: Event::CancelAsked { reason },
        refused: "The update cannot be cancelled: it is over, its boot flags are swapped, or it is being cancelled.",
    };
    give(&api, &caller, &campaign, &vehicle, order).await
}

/// `POST /campaigns/{name}/vehicles/{vehicle_id}/rollback`
pub(super) async fn rollback(
    State(api): State<Api>,
    caller: Caller,
    InPath((campaign, vehicle)): InPath<(String, String)>,
) -> Result<Json<UpdateAnswer>, Problem> {
    let order = Order {
        action: "update.rollback_asked",
        detail: None,
        event: Event::RollbackAsked,
        refused: "Only a succeeded update of a vehicle with nothing else under way can be rolled back.",
    };
    give(&api, &caller, &campaign, &vehicle, order).await
}

/// What an operator wants of a vehicle update.
struct Order {
    action: &'static str,
    detail: Option<String>,
    event: Event<'static>,
    /// What is answered where it changes nothing.
    refused: &'static str,
}

/// Gives an operator's order to a vehicle update; one that changes nothing is refused.
async fn give(
    api: &Api,
    caller: &Caller,
    campaign: &str,
    vehicle: &str,
    order: Order,
) -> Result<Json<UpdateAnswer>, Problem> {
    let (campaign, vehicle_id, actor) = (name(campaign, "campaign")?, vehicle_id(vehicle)?, caller.actor());
    let given = api.answer(move |tx, rules, now| {
        stored_vehicles::lock(tx, &vehicle_id)?;
        let before = selected(tx, &campaign, &vehicle_id)?;
        let state_before = before.state.clone();
        advance(tx, rules, before, order.event, None, now)?;
        let after = selected(tx, &campaign, &vehicle_id)?;
        if after.state == state_before {
            return Err(Problem::conflict("ORDER_REFUSED", order.refused));
        }
        let change = Change {
            action: order.action,
            object: format!("campaign/{campaign}/vehicle/{vehicle_id}"),
            detail: order.detail,
            before: Some(json!(state_before)),
            after: Some(json!(after.state)),
        };
        audit::record(tx, &actor, change, now)?;
        Ok((StatusCode::OK, shown_update(tx, &after, now)?))
    });
    Ok(given.await?.1)
}

fn selected(tx: &Tx<'_>, campaign: &Text, vehicle_id: &VehicleId) -> Result<VehicleUpdate, Problem> {
    let update = updates::of_vehicle_in(tx, campaign, vehicle_id)?;
    update.ok_or_else(|| {
        Problem::not_found("update", &format!("of vehicle {vehicle_id} in campaign {campaign}"))
    })
}
