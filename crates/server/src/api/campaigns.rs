//! Campaigns: made, started, watched; cancelling and rolling back one vehicle.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use farrier_campaign::{Event, Plan};
use farrier_protocol::{Text, UnixMillis, VehicleId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use super::{Api, document, name, vehicle_id};
use crate::conversation::{self, Rules, advance, take_in};
use crate::store::campaigns::{self, Campaign};
use crate::store::updates::{self, VehicleUpdate};
use crate::store::{Tx, packages, releases, vehicles as stored_vehicles};

/// The body of a new campaign.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCampaign {
    name: String,
    release: String,
    /// Without it: every enrolled vehicle, later ones too.
    vehicles: Option<Vec<VehicleId>>,
    update_deadline_s: Option<u64>,
}

/// `POST /campaigns`
pub(super) async fn create(
    State(api): State<Api>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let new: NewCampaign = document(&body)?;
    let (name, release) = (name(&new.name, "campaign")?, name(&new.release, "release")?);
    if new.vehicles.as_ref().is_some_and(Vec::is_empty) {
        return Err(Problem::invalid(
            "vehicles: expected at least one vehicle, or no such key for all of them.",
        ));
    }
    if new.update_deadline_s == Some(0) {
        return Err(Problem::invalid("update_deadline_s: expected at least 1, found 0."));
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
        };
        campaigns::create(tx, &campaign, &named)?;
        shown(tx, &campaign)
    });
    Ok((StatusCode::CREATED, Json(created.await?)))
}

fn found(tx: &Tx<'_>, name: &Text) -> Result<Campaign, Problem> {
    campaigns::by_name(tx, name)?.ok_or_else(|| Problem::not_found("campaign", name.as_str()))
}

fn shown(tx: &Tx<'_>, campaign: &Campaign) -> Result<Value, Problem> {
    let counts = campaigns::counts(tx, &campaign.name)?;
    let state = match campaign.started_at {
        None => "draft",
        // A campaign for every vehicle goes on: there may be later ones.
        Some(_) if !campaign.every_vehicle && counts.ended == counts.total => "finished",
        Some(_) => "running",
    };
    let vehicles = match campaign.started_at {
        Some(_) => counts.total,
        None => campaigns::vehicles(tx, campaign)?.len() as u64,
    };
    Ok(json!({
        "name": campaign.name,
        "release": campaign.release,
        "state": state,
        "states": counts.by_state,
        "vehicles": vehicles,
        "ended": counts.ended,
        "every_vehicle": campaign.every_vehicle,
        "update_deadline_s": campaign.update_deadline_s,
        "created_at_ms": campaign.created_at,
        "started_at_ms": campaign.started_at,
    }))
}

/// `GET /campaigns`
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let campaigns = api.read(|tx| campaigns::all(tx)?.iter().map(|campaign| shown(tx, campaign)).collect());
    Ok(Json(Value::Array(campaigns.await?)))
}

/// `GET /campaigns/{name}`
pub(super) async fn show(State(api): State<Api>, Path(text): Path<String>) -> Result<Json<Value>, Problem> {
    let name = name(&text, "campaign")?;
    Ok(Json(api.read(move |tx| shown(tx, &found(tx, &name)?)).await?))
}

/// `POST /campaigns/{name}/start`: starting a running campaign changes nothing.
pub(super) async fn start(State(api): State<Api>, Path(text): Path<String>) -> Result<Json<Value>, Problem> {
    let name = name(&text, "campaign")?;
    let started = api.write(move |tx, rules, now| {
        let campaign = found(tx, &name)?;
        if campaigns::start(tx, &name, now)? {
            for vehicle_id in campaigns::vehicles(tx, &campaign)? {
                stored_vehicles::lock(tx, &vehicle_id)?;
                if let Some(vehicle) = stored_vehicles::by_id(tx, &vehicle_id)? {
                    take_in(tx, rules, &name, &vehicle, now)?;
                }
            }
        }
        shown(tx, &found(tx, &name)?)
    });
    Ok(Json(started.await?))
}

/// `GET /campaigns/{name}/vehicles`
pub(super) async fn vehicles(
    State(api): State<Api>,
    Path(text): Path<String>,
) -> Result<Json<Value>, Problem> {
    let (name, now) = (name(&text, "campaign")?, api.now());
    let updates = api.read(move |tx| {
        found(tx, &name)?;
        let updates = updates::of_campaign(tx, &name)?;
        updates.iter().map(|update| shown_update(tx, update, now)).collect()
    });
    Ok(Json(Value::Array(updates.await?)))
}

/// A vehicle update as operators see it.
pub(super) fn shown_update(tx: &Tx<'_>, update: &VehicleUpdate, now: UnixMillis) -> Result<Value, Problem> {
    let plan = update.state.plan();
    Ok(json!({
        "vehicle_id": update.vehicle_id,
        "campaign": update.campaign,
        "state": update.state.name(),
        "sentence": update.state.sentence(now),
        "waiting_on": update.state.waiting_on(),
        "late": matches!(update.state, farrier_campaign::State::Succeeded { late: true, .. }),
        "bytes_served": packages::served_bytes(tx, &update.id)?,
        "bytes_total": plan.map_or(0, Plan::size_bytes),
        "ecu_count": plan.map_or(0, Plan::ecu_count),
        "created_at_ms": update.created_at,
        "started_at_ms": update.started_at,
        "updated_at_ms": update.updated_at,
        "ended_at_ms": update.ended_at,
    }))
}

/// The body of a cancellation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CancelReason {
    reason: Text,
}

/// `POST /campaigns/{name}/vehicles/{vehicle_id}/cancel`
pub(super) async fn cancel(
    State(api): State<Api>,
    Path((campaign, vehicle)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let CancelReason { reason } = document(&body)?;
    let refused =
        "The update cannot be cancelled: it is over, its boot flags are swapped, or it is being cancelled.";
    order(&api, &campaign, &vehicle, Event::CancelAsked { reason }, refused).await
}

/// `POST /campaigns/{name}/vehicles/{vehicle_id}/rollback`
pub(super) async fn rollback(
    State(api): State<Api>,
    Path((campaign, vehicle)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let refused = "Only a succeeded update of a vehicle with nothing else under way can be rolled back.";
    order(&api, &campaign, &vehicle, Event::RollbackAsked, refused).await
}

/// Gives an operator's order to a vehicle update; one that changes nothing is refused.
async fn order(
    api: &Api,
    campaign: &str,
    vehicle: &str,
    event: Event<'static>,
    refused: &'static str,
) -> Result<Json<Value>, Problem> {
    let (campaign, vehicle_id) = (name(campaign, "campaign")?, vehicle_id(vehicle)?);
    let ordered = api.write(move |tx, rules, now| {
        stored_vehicles::lock(tx, &vehicle_id)?;
        let before = selected(tx, &campaign, &vehicle_id)?;
        let state_before = before.state.clone();
        let there = is_there(tx, rules, &vehicle_id, now)?;
        advance(tx, rules, before, event, None, there, now)?;
        let after = selected(tx, &campaign, &vehicle_id)?;
        if after.state == state_before {
            return Err(Problem::conflict("ORDER_REFUSED", refused));
        }
        shown_update(tx, &after, now)
    });
    Ok(Json(ordered.await?))
}

fn selected(tx: &Tx<'_>, campaign: &Text, vehicle_id: &VehicleId) -> Result<VehicleUpdate, Problem> {
    let update = updates::of_vehicle_in(tx, campaign, vehicle_id)?;
    update.ok_or_else(|| {
        Problem::not_found("update", &format!("of vehicle {vehicle_id} in campaign {campaign}"))
    })
}

fn is_there(tx: &Tx<'_>, rules: &Rules, vehicle_id: &VehicleId, now: UnixMillis) -> Result<bool, Problem> {
    match stored_vehicles::by_id(tx, vehicle_id)? {
        Some(vehicle) => Ok(conversation::is_there(tx, rules, &vehicle.binding, now)?),
        None => Ok(false),
    }
}
