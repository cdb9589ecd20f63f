//! Vehicles: enrolled, shown, explained, released from quarantine.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use farrier_campaign::{IneligibleReason, WaitingOn};
use farrier_protocol::{Binding, GatewayId, SendVci, Sha256, Text, Thumbprint, UnixMillis, VehicleId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::campaigns::{UpdateAnswer, shown_update};
use super::messages::{RefusedAnswer, SecurityEventAnswer};
use super::page::{Page, PageQuery, page};
use super::problem::Problem;
use super::request::{Caller, Document, InPath, InQuery};
use super::{Api, vehicle_id};
use crate::conversation::{look_at_waiting, release_from_quarantine, take_into_open_campaigns};
use crate::store::audit::{self, Change};
use crate::store::updates::VehicleUpdate;
use crate::store::vehicles::{self, EnrolledBy, Vehicle};
use crate::store::{Tx, messages, security_events, updates};

/// Refused messages and security events that are shown with a vehicle; the lists of them have all.
const SHOWN: u32 = 100;

/// The body of an enrolment.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewVehicle {
    vehicle_id: VehicleId,
    gateway_id: GatewayId,
    /// Of the certificate that the vehicle must use; without it, that of its next WakeUp counts.
    thumbprint: Option<Thumbprint>,
}

/// A vehicle in a few words.
#[derive(Serialize, JsonSchema)]
pub(super) struct VehicleSummary {
    vehicle_id: VehicleId,
    gateway_id: GatewayId,
    connected: bool,
    /// Of the certificate that it is bound to.
    thumbprint: Option<Thumbprint>,
    enrolled_at_ms: UnixMillis,
    /// `operator` or `wakeup`.
    enrolled_by: &'static str,
    last_seen_at_ms: Option<UnixMillis>,
    /// By how much its clock is behind the server's, at the last message.
    clock_skew_ms: Option<i64>,
    quarantined_at_ms: Option<UnixMillis>,
    boot_seq: Option<u64>,
    vci_received_at_ms: Option<UnixMillis>,
    vci_digest: Option<Sha256>,
    ecu_count: Option<usize>,
}

/// A vehicle with all that is known of it.
#[derive(Serialize, JsonSchema)]
pub(super) struct VehicleDetails {
    #[serde(flatten)]
    summary: VehicleSummary,
    inventory: Option<Inventory>,
    /// Oldest first.
    updates: Vec<UpdateWithSteps>,
    /// The newest 100.
    refused_messages: Vec<RefusedAnswer>,
    /// The newest 100.
    security_events: Vec<SecurityEventAnswer>,
}

/// What the vehicle last said that it runs.
#[derive(Serialize, JsonSchema)]
pub(super) struct Inventory {
    region: Option<Text>,
    fw_sw_version: Text,
    bootloader_ver: Option<Text>,
    /// As the vehicle sent them (SendVCI in docs/protocol.md).
    ecus: Value,
}

/// An update and the states that it went through.
#[derive(Serialize, JsonSchema)]
pub(super) struct UpdateWithSteps {
    #[serde(flatten)]
    update: UpdateAnswer,
    steps: Vec<Step>,
}

/// When an update came into a state.
#[derive(Serialize, JsonSchema)]
pub(super) struct Step {
    state: String,
    at_ms: UnixMillis,
}

/// Why a vehicle is where it is.
#[derive(Serialize, JsonSchema)]
pub(super) struct Why {
    vehicle_id: VehicleId,
    /// Of the update that is spoken of, if there is one.
    campaign: Option<Text>,
    /// Its state; `no_update` where there is none.
    state: &'static str,
    /// The whole answer for people.
    sentence: String,
    /// The codes of why it cannot get the release; empty where it can.
    reasons: Vec<&'static str>,
    /// What is waited for; absent where the update is over.
    waiting_on: Option<WaitingOn>,
    /// When the server does something by itself, if nothing happens before.
    due_at_ms: Option<UnixMillis>,
    connected: bool,
    last_seen_at_ms: Option<UnixMillis>,
}

/// `POST /vehicles`: enrols a vehicle; one that is enrolled may come with a new certificate from now on.
pub(super) async fn enrol(
    State(api): State<Api>,
    caller: Caller,
    Document(new): Document<NewVehicle>,
) -> Result<(StatusCode, Json<VehicleSummary>), Problem> {
    let NewVehicle { vehicle_id, gateway_id, thumbprint } = new;
    let (binding, actor) = (Binding { vehicle_id, gateway_id }, caller.actor());
    let shown_by = api.clone();
    let enrolled = api.write(move |tx, rules, now| {
        vehicles::lock(tx, &binding.vehicle_id)?;
        let before = vehicles::by_id(tx, &binding.vehicle_id)?;
        let (status, action) = match &before {
            Some(vehicle) if vehicle.binding == binding => (StatusCode::OK, "vehicle.certificate_allowed"),
            Some(vehicle) => return Err(taken(vehicle, "vehicle")),
            None => {
                if let Some(other) = vehicles::by_client_id(tx, &binding.client_id())? {
                    return Err(taken(&other, "client id"));
                }
                vehicles::enrol(tx, &binding, EnrolledBy::Operator, now)?;
                (StatusCode::CREATED, "vehicle.enrolled")
            }
        };
        vehicles::set_thumbprint(tx, &binding.vehicle_id, thumbprint.as_ref())?;
        let vehicle = found(tx, &binding.vehicle_id)?;
        take_into_open_campaigns(tx, &vehicle, now)?;
        look_at_waiting(tx, rules, &binding, now)?;
        let change = Change {
            action,
            object: format!("vehicle/{}", binding.vehicle_id),
            detail: Some(match &thumbprint {
                Some(thumbprint) => format!("gateway {}, certificate {thumbprint}", binding.gateway_id),
                None => format!("gateway {}, certificate of the next WakeUp", binding.gateway_id),
            }),
            before: before.as_ref().map(Vehicle::audited),
            after: Some(vehicle.audited()),
        };
        audit::record(tx, &actor, change, now)?;
        Ok((status, summary(tx, &shown_by, &vehicle, None)?))
    });
    let (status, shown) = enrolled.await?;
    Ok((status, Json(shown)))
}

fn taken(vehicle: &Vehicle, what: &str) -> Problem {
    let detail = format!("The {what} belongs to {} already; choose other ids.", vehicle.binding);
    Problem::conflict("VEHICLE_EXISTS", detail)
}

fn found(tx: &Tx<'_>, vehicle_id: &VehicleId) -> Result<Vehicle, Problem> {
    vehicles::by_id(tx, vehicle_id)?.ok_or_else(|| Problem::not_found("vehicle", vehicle_id.as_str()))
}

fn summary(
    tx: &Tx<'_>,
    api: &Api,
    vehicle: &Vehicle,
    vci: Option<&SendVci>,
) -> Result<VehicleSummary, Problem> {
    Ok(VehicleSummary {
        vehicle_id: vehicle.binding.vehicle_id.clone(),
        gateway_id: vehicle.binding.gateway_id.clone(),
        connected: api.is_connected(tx, &vehicle.binding)?,
        thumbprint: vehicle.thumbprint.clone(),
        enrolled_at_ms: vehicle.enrolled_at,
        enrolled_by: vehicle.enrolled_by.name(),
        last_seen_at_ms: vehicle.last_seen_at,
        clock_skew_ms: vehicle.clock_skew_ms,
        quarantined_at_ms: vehicle.quarantined_at,
        boot_seq: vehicle.boot.as_ref().map(|boot| boot.boot_seq),
        vci_received_at_ms: vehicle.vci_received_at,
        vci_digest: vehicle.vci_digest,
        ecu_count: vci.map(|vci| vci.ecu_inventory.len()),
    })
}

/// `GET /vehicles`
pub(super) async fn list(
    State(api): State<Api>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Page<VehicleSummary>>, Problem> {
    let (limit, after) = (query.limit()?, query.after_name()?);
    let shown_by = api.clone();
    let listed = api.read(move |tx| {
        let vehicles = vehicles::page(tx, &after, limit + 1)?;
        let key = |vehicle: &Vehicle| vehicle.binding.vehicle_id.clone();
        page(vehicles, limit, key, |vehicle| {
            let vci = vehicles::vci(tx, &vehicle.binding.vehicle_id)?;
            summary(tx, &shown_by, vehicle, vci.as_ref())
        })
    });
    Ok(Json(listed.await?))
}

/// `GET /vehicles/{vehicle_id}`
pub(super) async fn show(
    State(api): State<Api>,
    InPath(text): InPath<String>,
) -> Result<Json<VehicleDetails>, Problem> {
    let (vehicle_id, now, shown_by) = (vehicle_id(&text)?, api.now(), api.clone());
    let shown = api.read(move |tx| {
        let vehicle = found(tx, &vehicle_id)?;
        let vci = vehicles::vci(tx, &vehicle_id)?;
        let updates = updates::of_vehicle(tx, &vehicle_id)?;
        let refused = messages::refused_of(tx, &vehicle_id, SHOWN)?;
        let events = security_events::of_vehicle(tx, &vehicle_id, SHOWN)?;
        Ok(VehicleDetails {
            summary: summary(tx, &shown_by, &vehicle, vci.as_ref())?,
            inventory: vci.map(inventory),
            updates: updates.iter().map(|update| with_steps(tx, update, now)).collect::<Result<_, _>>()?,
            refused_messages: refused.iter().map(RefusedAnswer::from).collect(),
            security_events: events.iter().map(SecurityEventAnswer::from).collect(),
        })
    });
    Ok(Json(shown.await?))
}

fn inventory(vci: SendVci) -> Inventory {
    Inventory {
        ecus: json!(vci.ecu_inventory),
        region: vci.region,
        fw_sw_version: vci.fw_sw_version,
        bootloader_ver: vci.bootloader_ver,
    }
}

fn with_steps(tx: &Tx<'_>, update: &VehicleUpdate, now: UnixMillis) -> Result<UpdateWithSteps, Problem> {
    let steps = updates::steps(tx, &update.id)?;
    let steps = steps.into_iter().map(|(state, at_ms)| Step { state, at_ms }).collect();
    Ok(UpdateWithSteps { update: shown_update(tx, update, now)?, steps })
}

/// `GET /vehicles/{vehicle_id}/why`: of several updates the one under way, else the oldest that waits, else
/// the newest that is over.
pub(super) async fn why(State(api): State<Api>, InPath(text): InPath<String>) -> Result<Json<Why>, Problem> {
    let (vehicle_id, now, asked) = (vehicle_id(&text)?, api.now(), api.clone());
    let why = api.read(move |tx| {
        let vehicle = found(tx, &vehicle_id)?;
        let all = updates::of_vehicle(tx, &vehicle_id)?;
        let under_way = all.iter().find(|update| update.state.is_active());
        let waiting = all.iter().find(|update| !update.state.is_final());
        let over = all.iter().max_by_key(|update| update.ended_at);
        let update = under_way.or(waiting).or(over);
        let state = update.map(|update| &update.state);
        Ok(Why {
            campaign: update.map(|update| update.campaign.clone()),
            state: state.map_or("no_update", farrier_campaign::State::name),
            sentence: state.map_or_else(|| without_update(&vehicle).to_owned(), |state| state.sentence(now)),
            reasons: reasons(state),
            waiting_on: state.and_then(farrier_campaign::State::waiting_on),
            due_at_ms: state.and_then(farrier_campaign::State::due_at),
            connected: asked.is_connected(tx, &vehicle.binding)?,
            last_seen_at_ms: vehicle.last_seen_at,
            vehicle_id,
        })
    });
    Ok(Json(why.await?))
}

fn reasons(state: Option<&farrier_campaign::State>) -> Vec<&'static str> {
    if let Some(farrier_campaign::State::Ineligible { reasons }) = state {
        return reasons.iter().map(IneligibleReason::code).collect();
    }
    Vec::new()
}

fn without_update(vehicle: &Vehicle) -> &'static str {
    match (vehicle.last_seen_at, vehicle.quarantined_at) {
        (_, Some(_)) => "The vehicle is quarantined for a boot loop, and no campaign has selected it.",
        (None, None) => "The vehicle is enrolled, has not been seen yet, and no campaign has selected it.",
        (Some(_), None) => "No campaign has selected the vehicle.",
    }
}

/// `POST /vehicles/{vehicle_id}/release`: ends its quarantine.
pub(super) async fn release(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<VehicleSummary>, Problem> {
    let (vehicle_id, actor) = (vehicle_id(&text)?, caller.actor());
    let shown_by = api.clone();
    let released = api.write(move |tx, rules, now| {
        vehicles::lock(tx, &vehicle_id)?;
        let vehicle = found(tx, &vehicle_id)?;
        if vehicle.quarantined_at.is_none() {
            let detail = format!("Vehicle {vehicle_id} is not quarantined.");
            return Err(Problem::conflict("NOT_QUARANTINED", detail));
        }
        release_from_quarantine(tx, rules, &vehicle, &actor, now)?;
        summary(tx, &shown_by, &found(tx, &vehicle_id)?, None)
    });
    Ok(Json(released.await?))
}
