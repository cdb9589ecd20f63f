//! Campaigns: started, steered, watched; cancelling and rolling back one vehicle.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use farrier_campaign::{Event, GateRecord, Plan, Rollout, StopReason, WaitingOn, WaveCounts};
use farrier_protocol::{Text, UnixMillis, VehicleId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::approvals::{self, ApprovalAnswer};
use super::etag::Resource;
use super::page::{Page, PageQuery, page};
use super::problem::Problem;
use super::request::{Caller, Document, InPath, InQuery};
use super::{Api, name, vehicle_id};
use crate::conversation::{self, Rules, advance};
use crate::evidence::Statement;
use crate::store::audit::{self, Actor, Change};
use crate::store::campaigns::{self, Aborted, Campaign};
use crate::store::set_aside as stored_set_aside;
use crate::store::updates::{self, VehicleUpdate};
use crate::store::{StoreError, Tx, evidence, intake, packages, vehicles as stored_vehicles};

/// A campaign as operators see it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct CampaignAnswer {
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
    /// The query that chose its vehicles.
    query: Option<String>,
    /// Whether it takes in vehicles that the query comes to have later.
    follows: bool,
    priority: u16,
    /// Campaigns whose vehicles it leaves alone.
    excludes: Vec<Text>,
    /// Who planned it; absent of one that an earlier version made.
    made_by: Option<String>,
    started_by: Option<String>,
    approval: ApprovalAnswer,
    rollout: Rollout,
    /// When updates begin and how quickly packages leave, for people; absent where the rollout says nothing of it.
    schedule_sentence: Option<String>,
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
pub(crate) struct UpdateAnswer {
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
    /// How many of its attempts have failed, since an operator last asked for one.
    failed_attempts: u32,
}

pub(super) fn found(tx: &Tx<'_>, name: &Text) -> Result<Campaign, Problem> {
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

pub(super) fn shown(tx: &Tx<'_>, rules: &Rules, campaign: &Campaign) -> Result<CampaignAnswer, Problem> {
    let counts = campaigns::counts(tx, &campaign.name)?;
    let state = campaign.state_name(&counts);
    let vehicles = intake::vehicles_in_all(tx, campaign, &counts)?;
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
        query: campaign.intake.query.clone(),
        follows: campaign.intake.follows,
        priority: campaign.intake.priority,
        excludes: campaign.intake.excludes.clone(),
        made_by: campaign.intake.made_by.clone(),
        started_by: campaign.intake.started_by.clone(),
        approval: approvals::shown(tx, rules, campaign)?,
        waves: waves(tx, campaign)?,
        rollout: campaign.rollout.clone(),
        schedule_sentence: campaign.rollout.schedule_sentence(),
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
    let rules = Arc::clone(&api.rules);
    let listed = api.read(move |tx| {
        let campaigns = campaigns::page(tx, &after, limit + 1)?;
        page(campaigns, limit, |campaign| campaign.name.clone(), |campaign| shown(tx, &rules, campaign))
    });
    Ok(Json(listed.await?))
}

/// `GET /campaigns/{name}`
pub(super) async fn show(
    State(api): State<Api>,
    InPath(text): InPath<String>,
) -> Result<Json<CampaignAnswer>, Problem> {
    let name = name(&text, "campaign")?;
    let rules = Arc::clone(&api.rules);
    Ok(Json(api.read(move |tx| shown(tx, &rules, &found(tx, &name)?)).await?))
}

/// `POST /campaigns/{name}/start`: starting a running campaign changes nothing.
pub(crate) async fn start(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<CampaignAnswer>, Problem> {
    let (name, actor) = (name(&text, "campaign")?, caller.actor());
    let started = name.clone();
    api.write(move |tx, rules, now| start_by(tx, rules, &actor, &name, now)).await?;
    let with_vehicles = api.answer(move |tx, rules, now| {
        conversation::take_in_first(tx, rules, &started, now)?;
        Ok((StatusCode::OK, shown(tx, rules, &found(tx, &started)?)?))
    });
    Ok(with_vehicles.await?.1)
}

/// Starts a campaign for somebody, unless it runs already.
pub(crate) fn start_by(
    tx: &Tx<'_>,
    rules: &Rules,
    actor: &Actor,
    name: &Text,
    now: UnixMillis,
) -> Result<(), Problem> {
    // In the order of those whose vehicles a campaign takes in later.
    tx.lock(stored_vehicles::ENROLMENT)?;
    // A rejection that comes at the same time is before this or after it.
    campaigns::hold_gate(tx, name)?;
    let campaign = found(tx, name)?;
    if campaign.aborted.is_some() {
        return Err(is_aborted(name));
    }
    if campaign.started_at.is_none() {
        approvals::check_start(tx, rules, &campaign)?;
    }
    if let Some(vehicles) = conversation::start(tx, &campaign, now)? {
        intake::set_started_by(tx, name, actor.name())?;
        let change = Change {
            action: "campaign.started",
            object: format!("campaign/{name}"),
            detail: Some(format!("release {}, {vehicles} vehicle(s)", campaign.release)),
            before: Some(campaign.audited()),
            after: Some(found(tx, name)?.audited()),
        };
        audit::record(tx, actor, change, now)?;
    }
    Ok(())
}

pub(super) fn is_aborted(name: &Text) -> Problem {
    let detail =
        format!("Campaign {name} was aborted, which is for good; plan another one with the same release.");
    Problem::conflict("CAMPAIGN_ABORTED", detail)
}

/// `POST /campaigns/{name}/pause`: pausing a paused campaign changes nothing.
pub(crate) async fn pause(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<CampaignAnswer>, Problem> {
    let control = |tx: &Tx<'_>, campaign: &Campaign, now| match campaign.paused_at {
        Some(_) => Ok(false),
        None => Ok(campaigns::pause(tx, &campaign.name, now).map(|()| true)?),
    };
    controlled(&api, &caller, &text, "campaign.paused", control).await
}

/// `POST /campaigns/{name}/resume`: a campaign that is paused or has stopped by its rule goes on; the failures that there are
/// now stop it no more. Resuming one that goes on changes nothing.
pub(crate) async fn resume(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<CampaignAnswer>, Problem> {
    let control = |tx: &Tx<'_>, campaign: &Campaign, _| match campaign.goes_on() {
        true => Ok(false),
        false => Ok(campaigns::resume(tx, campaign).map(|()| true)?),
    };
    controlled(&api, &caller, &text, "campaign.resumed", control).await
}

/// `POST /campaigns/{name}/open-wave`: opens the next wave, whatever else it waits for but an approval; where all are open, it changes nothing.
pub(crate) async fn open_wave(
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
        approvals::check_open_wave(campaign, &record)?;
        let record = GateRecord { open_next: true, ..record };
        campaigns::set_gate(tx, &campaign.name, &record)?;
        Ok(true)
    };
    controlled(&api, &caller, &text, "campaign.wave_asked_for", control).await
}

/// `POST /campaigns/{name}/abort`
pub(crate) async fn abort(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
    Document(CancelReason { reason }): Document<CancelReason>,
) -> Result<Json<CampaignAnswer>, Problem> {
    let control = move |tx: &Tx<'_>, campaign: &Campaign, at| {
        campaigns::abort(tx, &campaign.name, &Aborted { at, reason })?;
        Ok(true)
    };
    controlled(&api, &caller, &text, "campaign.aborted", control).await
}

/// Changes how a campaign goes on; `control` says whether it changed anything.
async fn controlled(
    api: &Api,
    caller: &Caller,
    text: &str,
    action: &'static str,
    control: impl FnOnce(&Tx<'_>, &Campaign, UnixMillis) -> Result<bool, Problem> + Send + 'static,
) -> Result<Json<CampaignAnswer>, Problem> {
    let (name, actor) = (name(text, "campaign")?, caller.actor());
    let controlled = api.answer(move |tx, rules, now| {
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
        Ok((StatusCode::OK, shown(tx, rules, &after)?))
    });
    Ok(controlled.await?.1)
}

/// The body of a retry.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retry {
    /// Why the updates ended: an error code of the vehicle, DEADLINE_PASSED, CANCELLED, a code of ineligibility.
    #[schemars(length(min = 1))]
    pub(crate) codes: Vec<String>,
}

/// How many updates are tried again.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Retried {
    retried: u64,
    /// Of those that ended so, how many are not tried again since they are set aside for the release: see `GET /set-aside`.
    set_aside: u64,
}

/// Updates that are tried again in one transaction.
const RETRIED_AT_A_TIME: u32 = 256;

/// `POST /campaigns/{name}/retry`: tries updates again that ended without a change, by why they ended.
pub(crate) async fn retry(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
    Document(Retry { codes }): Document<Retry>,
) -> Result<Json<Retried>, Problem> {
    let (name, actor) = (name(&text, "campaign")?, caller.actor());
    if codes.is_empty() {
        return Err(Problem::invalid("/codes: expected at least one code, found none."));
    }
    let (mut retried, mut set_aside, mut after) = (0_u64, 0_u64, Some(String::new()));
    while let Some(from) = after.take() {
        let (name, codes, actor) = (name.clone(), codes.clone(), actor.clone());
        let batch = api.write(move |tx, rules, now| {
            let campaign = found(tx, &name)?;
            if campaign.aborted.is_some() {
                return Err(is_aborted(&name));
            }
            let batch = retry_some(tx, rules, &campaign, &codes, &from, now)?;
            if batch.retried > 0 {
                let change = Change {
                    action: "campaign.retried",
                    object: format!("campaign/{name}"),
                    detail: Some(format!("{} vehicle(s) with {}", batch.retried, codes.join(", "))),
                    before: None,
                    after: None,
                };
                audit::record(tx, &actor, change, now)?;
            }
            Ok(batch)
        });
        let batch = batch.await?;
        retried = retried.saturating_add(batch.retried);
        set_aside = set_aside.saturating_add(batch.set_aside);
        after = batch.next;
    }
    Ok(Json(Retried { retried, set_aside }))
}

/// What became of some updates that were to be tried again.
pub(crate) struct RetriedBatch {
    pub(crate) retried: u64,
    /// Not tried again, since their vehicles are set aside for the release.
    pub(crate) set_aside: u64,
    /// After which vehicle there are more.
    pub(crate) next: Option<String>,
}

/// Tries some updates again. A vehicle that is set aside for the release stays as it is: it is taken back one by one.
pub(crate) fn retry_some(
    tx: &Tx<'_>,
    rules: &Rules,
    campaign: &Campaign,
    codes: &[String],
    after: &str,
    now: UnixMillis,
) -> Result<RetriedBatch, StoreError> {
    let page = updates::page_without_change(tx, &campaign.name, after, RETRIED_AT_A_TIME)?;
    let is_full = page.len() >= RETRIED_AT_A_TIME as usize;
    let next = page.last().filter(|_| is_full).map(|update| update.vehicle_id.to_string());
    let (mut retried, mut set_aside) = (0_u64, 0_u64);
    for update in page {
        stored_vehicles::lock(tx, &update.vehicle_id)?;
        let update = updates::by_id(tx, &update.id)?;
        let is_meant = |update: &VehicleUpdate| {
            update.state.failure_codes().iter().any(|code| codes.iter().any(|wanted| wanted == code))
        };
        let Some(update) = update.filter(is_meant) else { continue };
        if stored_set_aside::of(tx, &update.vehicle_id, &campaign.release)?.is_some() {
            set_aside = set_aside.saturating_add(1);
            continue;
        }
        let id = update.id.clone();
        advance(tx, rules, update, Event::RetryAsked, None, now)?;
        if let Some(update) = updates::by_id(tx, &id)? {
            advance(tx, rules, update, Event::LookedAt, None, now)?;
        }
        retried = retried.saturating_add(1);
    }
    Ok(RetriedBatch { retried, set_aside, next })
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
        failed_attempts: update.attempts.failed,
    })
}

/// The body of a cancellation.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelReason {
    pub(crate) reason: Text,
}

/// `POST /campaigns/{name}/vehicles/{vehicle_id}/cancel`
pub(crate) async fn cancel(
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
pub(crate) async fn rollback(
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
