//! Campaigns: made, started, watched; cancelling and rolling back one vehicle.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use farrier_campaign::{Event, Plan, WaitingOn};
use farrier_protocol::{Text, UnixMillis, VehicleId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::{Page, PageQuery, page};
use super::problem::Problem;
use super::request::{Caller, Document, InPath, InQuery};
use super::{Api, dry_run, name, vehicle_id};
use crate::conversation::{advance, take_in};
use crate::store::audit::{self, Change};
use crate::store::campaigns::{self, Aborted, Campaign};
use crate::store::updates::{self, VehicleUpdate};
use crate::store::{StoreError, Tx, packages, releases, vehicles as stored_vehicles};

/// The body of a new campaign.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCampaign {
    /// 1 to 64 characters [A-Za-z0-9._-].
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    name: String,
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    release: String,
    /// Without it: every enrolled vehicle, later ones too.
    #[schemars(length(min = 1))]
    vehicles: Option<Vec<VehicleId>>,
    /// In place of the server's setting.
    #[schemars(range(min = 1, max = 31_536_000))]
    update_deadline_s: Option<u64>,
}

/// The longest deadline of an update: a year, in seconds.
const LONGEST_DEADLINE_S: u64 = 31_536_000;

/// A campaign as operators see it.
#[derive(Serialize, JsonSchema)]
pub(super) struct CampaignAnswer {
    name: Text,
    release: Text,
    /// `draft`, `running`, `paused`, `aborted` or `finished`.
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
    let created = api.write(move |tx, _, now| {
        if releases::by_name(tx, &release)?.is_none() {
            return Err(Problem::not_found("release", release.as_str()));
        }
        if campaigns::by_name(tx, &name)?.is_some() {
            let detail = format!("Campaign {name} exists; choose another name.");
            return Err(Problem::conflict("CAMPAIGN_EXISTS", detail));
        }
        let named = new.vehicles.clone().unwrap_or_default();
        for vehicle_id in &named {
            if stored_vehicles::by_id(tx, vehicle_id)?.is_none() {
                return Err(Problem::not_found("enrolled vehicle", vehicle_id.as_str()));
            }
        }
        let campaign = Campaign {
            name,
            release,
            every_vehicle: new.vehicles.is_none(),
            update_deadline_s: new.update_deadline_s,
            created_at: now,
            started_at: None,
            paused_at: None,
            aborted: None,
        };
        campaigns::create(tx, &campaign, &named)?;
        let whom = match named.len() {
            0 => "every vehicle".to_owned(),
            number => format!("{number} vehicle(s)"),
        };
        let change = Change {
            action: "campaign.created",
            object: format!("campaign/{}", campaign.name),
            detail: Some(format!("release {}, {whom}", campaign.release)),
            before: None,
            after: Some(json!({"campaign": campaign.audited(), "vehicles": named})),
        };
        audit::record(tx, &actor, change, now)?;
        shown(tx, &campaign)
    });
    Ok((StatusCode::CREATED, Json(created.await?)))
}

fn found(tx: &Tx<'_>, name: &Text) -> Result<Campaign, Problem> {
    campaigns::by_name(tx, name)?.ok_or_else(|| Problem::not_found("campaign", name.as_str()))
}

fn shown(tx: &Tx<'_>, campaign: &Campaign) -> Result<CampaignAnswer, Problem> {
    let counts = campaigns::counts(tx, &campaign.name)?;
    let state = match campaign.started_at {
        _ if campaign.aborted.is_some() => "aborted",
        None => "draft",
        // A campaign for every vehicle goes on: there may be later ones.
        Some(_) if !campaign.every_vehicle && counts.ended == counts.total => "finished",
        Some(_) if campaign.paused_at.is_some() => "paused",
        Some(_) => "running",
    };
    let vehicles = match campaign.started_at {
        Some(_) => counts.total,
        None => campaigns::vehicles(tx, campaign)?.len() as u64,
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
    })
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
    let started = api.write(move |tx, rules, now| {
        let campaign = found(tx, &name)?;
        if campaign.aborted.is_some() {
            return Err(is_aborted(&name));
        }
        if campaigns::start(tx, &name, now)? {
            let vehicles = campaigns::vehicles(tx, &campaign)?;
            for vehicle_id in &vehicles {
                stored_vehicles::lock(tx, vehicle_id)?;
                if let Some(vehicle) = stored_vehicles::by_id(tx, vehicle_id)? {
                    take_in(tx, rules, &name, &vehicle, now)?;
                }
            }
            let change = Change {
                action: "campaign.started",
                object: format!("campaign/{name}"),
                detail: Some(format!("release {}, {} vehicle(s)", campaign.release, vehicles.len())),
                before: Some(campaign.audited()),
                after: Some(found(tx, &name)?.audited()),
            };
            audit::record(tx, &actor, change, now)?;
        }
        shown(tx, &found(tx, &name)?)
    });
    Ok(Json(started.await?))
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
        None => campaigns::set_paused(tx, &campaign.name, Some(now)).map(|()| true),
    };
    controlled(&api, &caller, &text, "campaign.paused", control).await
}

/// `POST /campaigns/{name}/resume`: resuming a campaign that is not paused changes nothing.
pub(super) async fn resume(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<CampaignAnswer>, Problem> {
    let control = |tx: &Tx<'_>, campaign: &Campaign, _| match campaign.paused_at {
        Some(_) => campaigns::set_paused(tx, &campaign.name, None).map(|()| true),
        None => Ok(false),
    };
    controlled(&api, &caller, &text, "campaign.resumed", control).await
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
    let controlled = api.write(move |tx, _, now| {
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
        shown(tx, &after)
    });
    Ok(Json(controlled.await?))
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
    let given = api.write(move |tx, rules, now| {
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
        shown_update(tx, &after, now)
    });
    Ok(Json(given.await?))
}

fn selected(tx: &Tx<'_>, campaign: &Text, vehicle_id: &VehicleId) -> Result<VehicleUpdate, Problem> {
    let update = updates::of_vehicle_in(tx, campaign, vehicle_id)?;
    update.ok_or_else(|| {
        Problem::not_found("update", &format!("of vehicle {vehicle_id} in campaign {campaign}"))
    })
}
