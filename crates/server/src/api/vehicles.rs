//! Vehicles: enrolled, shown, explained, released from quarantine; refused messages.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use farrier_protocol::{Binding, GatewayId, SendVci, Thumbprint, UnixMillis, VehicleId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::campaigns::shown_update;
use super::problem::Problem;
use super::{Api, document, vehicle_id};
use crate::conversation::{look_at_waiting, release_from_quarantine, take_into_open_campaigns};
use crate::store::messages::{RefusedMessage, SecurityEvent};
use crate::store::updates::VehicleUpdate;
use crate::store::vehicles::{self, EnrolledBy, Vehicle};
use crate::store::{Tx, messages, updates};

/// Refused messages and security events that are shown.
const SHOWN: u32 = 100;

/// The body of an enrolment.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewVehicle {
    vehicle_id: VehicleId,
    gateway_id: GatewayId,
    /// Of the certificate that the vehicle must use; without it, that of its next WakeUp counts.
    thumbprint: Option<Thumbprint>,
}

/// `POST /vehicles`: enrols a vehicle; one that is enrolled may come with a new certificate from now on.
pub(super) async fn enrol(State(api): State<Api>, body: Bytes) -> Result<(StatusCode, Json<Value>), Problem> {
    let NewVehicle { vehicle_id, gateway_id, thumbprint } = document(&body)?;
    let binding = Binding { vehicle_id, gateway_id };
    let shown_by = api.clone();
    let enrolled = api.write(move |tx, rules, now| {
        vehicles::lock(tx, &binding.vehicle_id)?;
        let status = match vehicles::by_id(tx, &binding.vehicle_id)? {
            Some(vehicle) if vehicle.binding == binding => StatusCode::OK,
            Some(vehicle) => return Err(taken(&vehicle, "vehicle")),
            None => {
                if let Some(other) = vehicles::by_client_id(tx, &binding.client_id())? {
                    return Err(taken(&other, "client id"));
                }
                vehicles::enrol(tx, &binding, EnrolledBy::Operator, now)?;
                StatusCode::CREATED
            }
        };
        vehicles::set_thumbprint(tx, &binding.vehicle_id, thumbprint.as_ref())?;
        let vehicle = found(tx, &binding.vehicle_id)?;
        take_into_open_campaigns(tx, &vehicle, now)?;
        look_at_waiting(tx, rules, &binding, now)?;
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

fn summary(tx: &Tx<'_>, api: &Api, vehicle: &Vehicle, vci: Option<&SendVci>) -> Result<Value, Problem> {
    Ok(json!({
        "vehicle_id": vehicle.binding.vehicle_id,
        "gateway_id": vehicle.binding.gateway_id,
        "connected": api.is_connected(tx, &vehicle.binding)?,
        "thumbprint": vehicle.thumbprint,
        "enrolled_at_ms": vehicle.enrolled_at,
        "enrolled_by": vehicle.enrolled_by.name(),
        "last_seen_at_ms": vehicle.last_seen_at,
        "clock_skew_ms": vehicle.clock_skew_ms,
        "quarantined_at_ms": vehicle.quarantined_at,
        "boot_seq": vehicle.boot.as_ref().map(|boot| boot.boot_seq),
        "vci_received_at_ms": vehicle.vci_received_at,
        "vci_digest": vehicle.vci_digest,
        "ecu_count": vci.map(|vci| vci.ecu_inventory.len()),
    }))
}

/// `GET /vehicles`
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let shown_by = api.clone();
    let all = api.read(move |tx| {
        let mut all = Vec::new();
        for vehicle in vehicles::all(tx)? {
            let vci = vehicles::vci(tx, &vehicle.binding.vehicle_id)?;
            all.push(summary(tx, &shown_by, &vehicle, vci.as_ref())?);
        }
        Ok(all)
    });
    Ok(Json(Value::Array(all.await?)))
}

/// `GET /vehicles/{vehicle_id}`
pub(super) async fn show(State(api): State<Api>, Path(text): Path<String>) -> Result<Json<Value>, Problem> {
    let (vehicle_id, now, shown_by) = (vehicle_id(&text)?, api.now(), api.clone());
    let shown = api.read(move |tx| {
        let vehicle = found(tx, &vehicle_id)?;
        let vci = vehicles::vci(tx, &vehicle_id)?;
        let all_updates: Vec<_> = updates::of_vehicle(tx, &vehicle_id)?
            .iter()
            .map(|update| update_with_steps(tx, update, now))
            .collect::<Result<_, _>>()?;
        let refused = messages::refused_of(tx, &vehicle_id, SHOWN)?;
        let events = messages::security_events_of(tx, &vehicle_id, SHOWN)?;
        let shown_event =
            |event: &SecurityEvent| json!({"kind": event.kind, "detail": event.detail, "at_ms": event.at});
        Ok(extended(
            summary(tx, &shown_by, &vehicle, vci.as_ref())?,
            [
                ("inventory", vci.as_ref().map_or(Value::Null, inventory)),
                ("updates", Value::Array(all_updates)),
                ("refused_messages", refused.iter().map(shown_refused).collect()),
                ("security_events", events.iter().map(shown_event).collect()),
            ],
        ))
    });
    Ok(Json(shown.await?))
}

/// A JSON object with more keys.
fn extended<const N: usize>(mut object: Value, more: [(&str, Value); N]) -> Value {
    if let Value::Object(keys) = &mut object {
        keys.extend(more.map(|(key, value)| (key.to_owned(), value)));
    }
    object
}

fn inventory(vci: &SendVci) -> Value {
    json!({
        "region": vci.region,
        "fw_sw_version": vci.fw_sw_version,
        "bootloader_ver": vci.bootloader_ver,
        "ecus": vci.ecu_inventory,
    })
}

fn update_with_steps(tx: &Tx<'_>, update: &VehicleUpdate, now: UnixMillis) -> Result<Value, Problem> {
    let steps = updates::steps(tx, &update.id)?;
    let steps = steps.iter().map(|(state, at)| json!({"state": state, "at_ms": at})).collect();
    Ok(extended(shown_update(tx, update, now)?, [("steps", steps)]))
}

/// `GET /vehicles/{vehicle_id}/why`: of several updates the one under way, else the oldest that waits, else
/// the newest that is over.
pub(super) async fn why(State(api): State<Api>, Path(text): Path<String>) -> Result<Json<Value>, Problem> {
    let (vehicle_id, now) = (vehicle_id(&text)?, api.now());
    let why = api.read(move |tx| {
        let vehicle = found(tx, &vehicle_id)?;
        let all = updates::of_vehicle(tx, &vehicle_id)?;
        let under_way = all.iter().find(|update| update.state.is_active());
        let waiting = all.iter().find(|update| !update.state.is_final());
        let over = all.iter().max_by_key(|update| update.ended_at);
        Ok(match under_way.or(waiting).or(over) {
            Some(update) => json!({
                "vehicle_id": vehicle_id,
                "campaign": update.campaign,
                "state": update.state.name(),
                "sentence": update.state.sentence(now),
                "waiting_on": update.state.waiting_on(),
            }),
            None => json!({
                "vehicle_id": vehicle_id,
                "campaign": null,
                "state": "no_update",
                "sentence": without_update(&vehicle),
                "waiting_on": null,
            }),
        })
    });
    Ok(Json(why.await?))
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
    Path(text): Path<String>,
) -> Result<Json<Value>, Problem> {
    let vehicle_id = vehicle_id(&text)?;
    let shown_by = api.clone();
    let released = api.write(move |tx, rules, now| {
        vehicles::lock(tx, &vehicle_id)?;
        let vehicle = found(tx, &vehicle_id)?;
        if vehicle.quarantined_at.is_none() {
            let detail = format!("Vehicle {vehicle_id} is not quarantined.");
            return Err(Problem::conflict("NOT_QUARANTINED", detail));
        }
        release_from_quarantine(tx, rules, &vehicle, now)?;
        summary(tx, &shown_by, &found(tx, &vehicle_id)?, None)
    });
    Ok(Json(released.await?))
}

/// `GET /refused-messages`
pub(super) async fn refused_messages(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let refused = api.read(|tx| Ok(messages::refused(tx, SHOWN)?)).await?;
    Ok(Json(refused.iter().map(shown_refused).collect()))
}

fn shown_refused(refused: &RefusedMessage) -> Value {
    json!({
        "vehicle_id": refused.binding.vehicle_id,
        "gateway_id": refused.binding.gateway_id,
        "topic": refused.topic,
        "code": refused.refusal.code,
        "pointer": refused.refusal.pointer,
        "expected": refused.refusal.expected,
        "found": refused.refusal.found,
        "msg_id": refused.msg_id,
        "payload": refused.payload,
        "first_at_ms": refused.first_at,
        "last_at_ms": refused.last_at,
        "times": refused.times,
    })
}
