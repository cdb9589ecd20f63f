//! Vehicles: listed, shown, explained, released from quarantine.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use farrier_campaign::{IneligibleReason, Selection, WaitingOn};
use farrier_protocol::{GatewayId, SendVci, Sha256, Text, Thumbprint, UnixMillis, VehicleId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::campaigns::{UpdateAnswer, shown_update};
use super::etag::Resource;
use super::messages::{RefusedAnswer, SecurityEventAnswer};
use super::page::{Page, PageQuery, page};
use super::problem::Problem;
use super::request::{Caller, InPath, InQuery};
use super::{Api, groups, vehicle_id};
use crate::conversation::release_from_quarantine;
use crate::store::updates::VehicleUpdate;
use crate::store::vehicles::{self, Vehicle};
use crate::store::{Tx, inventories, messages, security_events, selection, updates};
use crate::vehicle_fields::{Tag, TimeZone, VehicleType, Vin};

/// Refused messages and security events that are shown with a vehicle; the lists of them have all.
const SHOWN: u32 = 100;

/// Which vehicles are listed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VehicleQuery {
    /// How many at most; 100 where it is absent.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// The `next` of the page before; the first page where it is absent.
    after: Option<String>,
    /// Only those that this query selects.
    r#where: Option<String>,
    /// Only those of this fleet group.
    group: Option<String>,
}

/// A vehicle in a few words.
#[derive(Serialize, JsonSchema)]
pub(crate) struct VehicleSummary {
    vehicle_id: VehicleId,
    gateway_id: GatewayId,
    connected: bool,
    /// Of the certificate that it is bound to.
    thumbprint: Option<Thumbprint>,
    /// The last moment of the certificate that it last came with. Absent where the server has not seen it: before the first
    /// message with it, and always where vehicles connect to a broker.
    certificate_ends_at_ms: Option<UnixMillis>,
    /// The serial number of that certificate, in lower-case hex.
    certificate_serial: Option<String>,
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
    vin: Option<Vin>,
    /// What an operator said, else what the vehicle reported.
    region: Option<Text>,
    reported_region: Option<Text>,
    time_zone: Option<TimeZone>,
    /// The type that it is approved as.
    vehicle_type: Option<VehicleType>,
    /// In their order.
    tags: Vec<Tag>,
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

pub(super) fn found(tx: &Tx<'_>, vehicle_id: &VehicleId) -> Result<Vehicle, Problem> {
    vehicles::by_id(tx, vehicle_id)?.ok_or_else(|| Problem::not_found("vehicle", vehicle_id.as_str()))
}

/// A vehicle as what an ETag is of.
pub(super) const VEHICLE: Resource = Resource {
    lock: |tx, name| name.parse().map_or(Ok(()), |vehicle_id| vehicles::lock(tx, &vehicle_id)),
    settled: |tx, name| {
        let Ok(vehicle_id) = name.parse() else { return Ok(None) };
        let Some(vehicle) = vehicles::by_id(tx, &vehicle_id)? else { return Ok(None) };
        Ok(Some(json!([vehicle.audited(), vehicles::tags(tx, &vehicle_id)?])))
    },
};

pub(super) fn summary(
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
        certificate_ends_at_ms: vehicle.certificate.as_ref().map(|certificate| certificate.ends_at),
        certificate_serial: vehicle.certificate.as_ref().map(|certificate| certificate.serial.clone()),
        enrolled_at_ms: vehicle.enrolled_at,
        enrolled_by: vehicle.enrolled_by.name(),
        last_seen_at_ms: vehicle.last_seen_at,
        clock_skew_ms: vehicle.clock_skew_ms,
        quarantined_at_ms: vehicle.quarantined_at,
        boot_seq: vehicle.boot.as_ref().map(|boot| boot.boot_seq),
        vci_received_at_ms: vehicle.vci_received_at,
        vci_digest: vehicle.vci_digest,
        ecu_count: vci.map(|vci| vci.ecu_inventory.len()),
        vin: vehicle.vin.clone(),
        region: vehicle.effective_region().cloned(),
        reported_region: vehicle.reported_region.clone(),
        time_zone: vehicle.time_zone.clone(),
        vehicle_type: vehicle.vehicle_type.clone(),
        tags: vehicles::tags(tx, &vehicle.binding.vehicle_id)?,
    })
}

/// A vehicle as it is exported.
pub(crate) fn exported(tx: &Tx<'_>, api: &Api, vehicle: &Vehicle) -> Result<Value, Problem> {
    Ok(json!(summary(tx, api, vehicle, None)?))
}

/// `GET /vehicles`
pub(super) async fn list(
    State(api): State<Api>,
    InQuery(query): InQuery<VehicleQuery>,
) -> Result<Json<Page<VehicleSummary>>, Problem> {
    let VehicleQuery { limit, after, r#where, group } = query;
    let selected = r#where.as_deref().map(groups::parsed).transpose()?;
    let group = group.as_deref().map(groups::group_name).transpose()?;
    let pages = PageQuery::of(limit, after);
    let (limit, after, shown_by) = (pages.limit()?, pages.after_name()?, api.clone());
    let listed = api.read(move |tx| {
        let of_group = group.as_ref().map(|name| groups::selection_of(tx, name)).transpose()?;
        let vehicles = match (selected, of_group) {
            (None, None) => vehicles::page(tx, &after, limit + 1)?,
            (Some(selection), None) | (None, Some(selection)) => {
                selection::page(tx, &selection, &after, limit + 1)?
            }
            (Some(one), Some(other)) => {
                selection::page(tx, &Selection::And(vec![one, other]), &after, limit + 1)?
            }
        };
        shown_page(tx, &shown_by, vehicles, limit)
    });
    Ok(Json(listed.await?))
}

/// The page of vehicles that were read with a limit of one more than asked for.
pub(super) fn shown_page(
    tx: &Tx<'_>,
    api: &Api,
    vehicles: Vec<Vehicle>,
    limit: u32,
) -> Result<Page<VehicleSummary>, Problem> {
    let key = |vehicle: &Vehicle| vehicle.binding.vehicle_id.clone();
    page(vehicles, limit, key, |vehicle| {
        let vci = vehicles::vci(tx, &vehicle.binding.vehicle_id)?;
        summary(tx, api, vehicle, vci.as_ref())
    })
}

/// What a vehicle ran at one time.
#[derive(Serialize, JsonSchema)]
pub(super) struct ConfigurationAnswer {
    /// From 1; a vehicle's newest 50 are kept.
    number: u64,
    vci_digest: Sha256,
    first_seen_at_ms: UnixMillis,
    last_seen_at_ms: UnixMillis,
    /// Whether it is what the vehicle last said.
    current: bool,
    inventory: Inventory,
}

/// `GET /vehicles/{vehicle_id}/configurations`, newest first.
pub(super) async fn configurations(
    State(api): State<Api>,
    InPath(text): InPath<String>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Page<ConfigurationAnswer>>, Problem> {
    let (vehicle_id, limit) = (vehicle_id(&text)?, query.limit()?);
    let before = query.after()?.unwrap_or(i64::MAX);
    let listed = api.read(move |tx| {
        let vehicle = found(tx, &vehicle_id)?;
        let configurations = inventories::configurations(tx, &vehicle_id, before, limit + 1)?;
        page(
            configurations,
            limit,
            |one| one.number,
            |one| {
                let latest = vehicle.vci_received_at.unwrap_or(one.first_seen_at);
                Ok(ConfigurationAnswer {
                    number: one.number,
                    vci_digest: one.vci_digest,
                    first_seen_at_ms: one.first_seen_at,
                    last_seen_at_ms: one.last_seen_at.unwrap_or(latest),
                    current: one.last_seen_at.is_none(),
                    inventory: inventory(one.vci.clone()),
                })
            },
        )
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
        let update = spoken_of(&all);
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

/// Of the updates of a vehicle the one that says where the vehicle is: under way, else the oldest that waits, else the newest
/// that is over.
pub(crate) fn spoken_of(all: &[VehicleUpdate]) -> Option<&VehicleUpdate> {
    let under_way = all.iter().find(|update| update.state.is_active());
    let waiting = all.iter().find(|update| !update.state.is_final());
    under_way.or(waiting).or_else(|| all.iter().max_by_key(|update| update.ended_at))
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
pub(crate) async fn release(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<VehicleSummary>, Problem> {
    let (vehicle_id, actor) = (vehicle_id(&text)?, caller.actor());
    let shown_by = api.clone();
    let released = api.answer(move |tx, rules, now| {
        vehicles::lock(tx, &vehicle_id)?;
        let vehicle = found(tx, &vehicle_id)?;
        if vehicle.quarantined_at.is_none() {
            let detail = format!("Vehicle {vehicle_id} is not quarantined.");
            return Err(Problem::conflict("NOT_QUARANTINED", detail));
        }
        release_from_quarantine(tx, rules, &vehicle, &actor, now)?;
        Ok((StatusCode::OK, summary(tx, &shown_by, &found(tx, &vehicle_id)?, None)?))
    });
    Ok(released.await?.1)
}
