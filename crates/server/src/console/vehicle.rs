//! `/vehicles/{id}`: why it is where it is, what it runs, what passed between it and the server.

use std::fmt::Display;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use farrier_campaign::Plan;
use farrier_protocol::{Placement, Text, VehicleId, Zone};
use serde::Deserialize;

use super::format::{Fact, Time, bytes, number, time, time_or_never};
use super::page::{Failed, Frame, shown};
use super::session::Visitor;
use super::texts::filled;
use super::{Console, progress, why};
use crate::access::Permission;
use crate::api::{self, Problem};
use crate::store::timeline::{self, Kind, Place};
use crate::store::updates::VehicleUpdate;
use crate::store::{Tx, packages, updates, vehicles};

/// Entries of the time line on a page.
const ON_A_PAGE: u32 = 50;

struct EcuRow {
    ecu_id: String,
    /// Which controller it stands behind.
    place: String,
    hw_part_no: String,
    sw_version: String,
    /// Of the update that is under way, or was last.
    target: String,
    is_changed: bool,
}

struct UpdateRow {
    campaign: String,
    state: &'static str,
    state_name: &'static str,
    class: &'static str,
    sentence: String,
    bytes: String,
    since: Time,
    steps: Vec<(&'static str, Time)>,
    can_cancel: bool,
    can_roll_back: bool,
}

struct Entry {
    at: Time,
    kind: &'static str,
    class: &'static str,
    what: String,
    detail: String,
    correlation: String,
    payload: Option<String>,
}

#[derive(Template)]
#[template(path = "vehicle.html")]
struct VehiclePage {
    frame: Frame,
    vehicle_id: String,
    is_connected: bool,
    is_quarantined: bool,
    sentence: String,
    state_name: &'static str,
    class: &'static str,
    facts: Vec<(&'static str, Fact)>,
    ecus: Vec<EcuRow>,
    updates: Vec<UpdateRow>,
    entries: Vec<Entry>,
    next: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    before: String,
}

/// `GET /vehicles/{id}`
pub(super) async fn page(
    State(console): State<Console>,
    visitor: Visitor,
    Path(text): Path<String>,
    Query(Asked { before }): Query<Asked>,
) -> Result<Response, Failed> {
    let failed = |problem| visitor.failed(problem);
    let vehicle_id = api::vehicle_id(&text).map_err(failed)?;
    let place = match before.as_str() {
        "" => Place::end(),
        before => api::cursor(before, "before").map_err(failed)?,
    };
    let (frame, api) = (visitor.frame(), console.api.clone());
    let page =
        console.api.read(move |tx| look(tx, &api, frame, &vehicle_id, &place)).await.map_err(failed)?;
    Ok(shown(&page))
}

fn look(
    tx: &Tx<'_>,
    api: &api::Api,
    frame: Frame,
    vehicle_id: &VehicleId,
    place: &Place,
) -> Result<VehiclePage, Problem> {
    let (t, language, now) = (frame.t, frame.language, api.now());
    let vehicle =
        vehicles::by_id(tx, vehicle_id)?.ok_or_else(|| Problem::not_found("vehicle", vehicle_id.as_str()))?;
    let all = updates::of_vehicle(tx, vehicle_id)?;
    let shown_update = api::vehicles::spoken_of(&all);
    let sentence = match shown_update {
        Some(update) => why::sentence(language, &update.state, now),
        None => t.no_campaign_selected.to_owned(),
    };
    let state = shown_update.map(|update| update.state.name());
    let vci = vehicles::vci(tx, vehicle_id)?;
    let plan = shown_update.and_then(|update| update.state.plan());
    let ecus = vci.iter().flat_map(|vci| &vci.ecu_inventory).map(|ecu| {
        let planned = plan.and_then(|plan| plan.packages.iter().find(|package| package.ecu_id == ecu.ecu_id));
        let text = |value: &Option<Text>| value.as_ref().map(ToString::to_string).unwrap_or_default();
        EcuRow {
            ecu_id: ecu.ecu_id.to_string(),
            place: placed(&ecu.functional_group.placement),
            hw_part_no: text(&ecu.hw_part_no),
            sw_version: text(&ecu.sw_version),
            is_changed: planned.is_some_and(|package| Some(&package.version) != ecu.sw_version.as_ref()),
            target: planned.map(|package| package.version.to_string()).unwrap_or_default(),
        }
    });
    let ecus = ecus.collect();
    let mut rows = Vec::new();
    for update in all.iter().rev() {
        rows.push(update_row(tx, &frame, update, now)?);
    }
    let mut entries = timeline::before(tx, vehicle_id, place, ON_A_PAGE + 1)?;
    let has_more = entries.len() > ON_A_PAGE as usize;
    entries.truncate(ON_A_PAGE as usize);
    let next = entries.last().filter(|_| has_more).map(|entry| api::place(&entry.place));
    let (text, tags) = (|text: &dyn Display| Fact::Text(text.to_string()), vehicles::tags(tx, vehicle_id)?);
    let mut facts = vec![
        (t.last_seen, Fact::Time(time_or_never(t, vehicle.last_seen_at, now))),
        (t.gateway, text(&vehicle.binding.gateway_id)),
    ];
    facts.extend(vehicle.vin.as_ref().map(|vin| (t.vin, text(vin))));
    facts.extend(vehicle.effective_region().map(|region| (t.region, text(region))));
    facts.extend(vehicle.time_zone.as_ref().map(|zone| (t.time_zone, text(zone))));
    if !tags.is_empty() {
        let tags: Vec<_> = tags.iter().map(ToString::to_string).collect();
        facts.push((t.tags, Fact::Text(tags.join(", "))));
    }
    facts.push((t.inventory_received, Fact::Time(time_or_never(t, vehicle.vci_received_at, now))));
    facts.extend(vehicle.boot.as_ref().map(|boot| (t.boot_counter, Fact::Text(number(boot.boot_seq)))));
    facts.extend(vehicle.clock_skew_ms.map(|skew| (t.clock_behind, Fact::Text(format!("{skew} ms")))));
    facts.extend(vehicle.thumbprint.as_ref().map(|thumbprint| (t.certificate, text(thumbprint))));
    Ok(VehiclePage {
        vehicle_id: vehicle_id.to_string(),
        is_connected: api.is_connected(tx, &vehicle.binding)?,
        is_quarantined: vehicle.quarantined_at.is_some(),
        sentence,
        state_name: state.map_or(t.no_update, |state| t.state(state)),
        class: state.map_or("idle", progress::class),
        facts,
        ecus,
        updates: rows,
        entries: entries.into_iter().map(|entry| told(&frame, entry, now)).collect(),
        next,
        frame,
    })
}

/// The name or number of the domain or zone.
fn placed(placement: &Placement) -> String {
    match placement {
        Placement::Domain(name) => name.to_string(),
        Placement::Zone(Zone::Name(name)) => name.to_string(),
        Placement::Zone(Zone::Number(number)) => number.to_string(),
    }
}

fn update_row(
    tx: &Tx<'_>,
    frame: &Frame,
    update: &VehicleUpdate,
    now: farrier_protocol::UnixMillis,
) -> Result<UpdateRow, Problem> {
    let (t, state) = (frame.t, update.state.name());
    let served = packages::served_bytes(tx, &update.id)?;
    let total = update.state.plan().map_or(0, Plan::size_bytes);
    let steps = updates::steps(tx, &update.id)?;
    Ok(UpdateRow {
        campaign: update.campaign.to_string(),
        state,
        state_name: t.state(state),
        class: progress::class(state),
        sentence: why::sentence(frame.language, &update.state, now),
        bytes: if total > 0 { filled(t.bytes_of, &[&bytes(served), &bytes(total)]) } else { String::new() },
        since: time(t, update.updated_at, now),
        steps: steps.into_iter().map(|(state, at)| (t.state(&state), time(t, at, now))).collect(),
        can_cancel: !update.state.is_final() && state != "verifying" && state != "rolling_back",
        can_roll_back: state == "succeeded",
    })
}

fn told(frame: &Frame, entry: timeline::Entry, now: farrier_protocol::UnixMillis) -> Entry {
    let t = frame.t;
    let (kind, class) = match entry.kind {
        Kind::Received => (t.entry_received, "ok"),
        Kind::Refused => (t.entry_refused, "bad"),
        Kind::Command => (t.entry_command, "run"),
        Kind::Acknowledged => (t.entry_acknowledged, "idle"),
        Kind::Step => (t.entry_step, "idle"),
        Kind::SecurityEvent => (t.entry_security, "bad"),
    };
    let what = match entry.kind {
        Kind::Step => {
            let from = entry.from_state.as_deref().map_or("", |state| t.state(state));
            let to = entry.to_state.as_deref().map_or("", |state| t.state(state));
            format!("{from} → {to}")
        }
        Kind::Received | Kind::Refused | Kind::Command | Kind::Acknowledged | Kind::SecurityEvent => {
            entry.message.clone().or_else(|| entry.code.clone()).unwrap_or_default()
        }
    };
    let detail = [entry.code, entry.detail, entry.campaign].into_iter().flatten().collect::<Vec<_>>();
    Entry {
        at: time(t, entry.place.0, now),
        kind,
        class,
        what,
        detail: detail.join(" · "),
        correlation: entry.correlation_id.or(entry.msg_id).unwrap_or_default(),
        payload: entry.payload.map(|payload| readable(&payload)),
    }
}

/// JSON with line breaks; what is none stays as it is.
fn readable(payload: &str) -> String {
    let value: Option<serde_json::Value> = serde_json::from_str(payload).ok();
    value.and_then(|value| serde_json::to_string_pretty(&value).ok()).unwrap_or_else(|| payload.to_owned())
}

#[derive(Deserialize)]
pub(super) struct Confirmed {
    #[serde(default)]
    reason: String,
}

/// `POST /vehicles/{id}/release`: ends a quarantine.
pub(super) async fn release(
    State(console): State<Console>,
    visitor: Visitor,
    Path(text): Path<String>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Operate)?;
    let path = api::InPath(text.clone());
    let released = api::vehicles::release(State(console.api), visitor.caller(), path).await;
    let _ = released.map_err(|problem| visitor.failed(problem))?;
    Ok(Redirect::to(&format!("/vehicles/{text}")).into_response())
}

/// `POST /vehicles/{id}/{campaign}/cancel`
pub(super) async fn cancel(
    State(console): State<Console>,
    visitor: Visitor,
    Path((vehicle, campaign)): Path<(String, String)>,
    axum::Form(Confirmed { reason }): axum::Form<Confirmed>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Operate)?;
    let failed = |problem| visitor.failed(problem);
    let t = visitor.guest.language.texts();
    let reason = reason.trim().parse();
    let reason = reason.map_err(|error| failed(Problem::invalid(format!("{}: {error}.", t.reason))))?;
    let path = api::InPath((campaign, vehicle.clone()));
    let body = api::Document(api::campaigns::CancelReason { reason });
    let _ = api::campaigns::cancel(State(console.api), visitor.caller(), path, body).await.map_err(failed)?;
    Ok(Redirect::to(&format!("/vehicles/{vehicle}")).into_response())
}

/// `POST /vehicles/{id}/{campaign}/rollback`
pub(super) async fn roll_back(
    State(console): State<Console>,
    visitor: Visitor,
    Path((vehicle, campaign)): Path<(String, String)>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Operate)?;
    let path = api::InPath((campaign, vehicle.clone()));
    let asked = api::campaigns::rollback(State(console.api), visitor.caller(), path).await;
    let _ = asked.map_err(|problem| visitor.failed(problem))?;
    Ok(Redirect::to(&format!("/vehicles/{vehicle}")).into_response())
}
