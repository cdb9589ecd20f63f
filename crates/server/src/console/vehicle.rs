//! `/vehicles/{id}`: why it is where it is, what it runs, what passed between it and the server, what can be done about it.

pub(super) mod actions;
mod ecus;
mod readiness;
mod talk;

use std::fmt::Display;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use farrier_campaign::Plan;
use farrier_protocol::VehicleId;
use serde::Deserialize;

use self::ecus::Group;
use self::readiness::Readiness;
use self::talk::Exchange;
use super::format::{Fact, Time, bytes, number, time, time_or_never};
use super::page::{Failed, Frame, shown};
use super::session::Visitor;
use super::texts::filled;
use super::{Console, progress, why};
use crate::api::{self, Problem};
use crate::store::sessions::{self, Latest};
use crate::store::timeline::{self, Place};
use crate::store::updates::VehicleUpdate;
use crate::store::vehicles::Vehicle;
use crate::store::{Tx, packages, set_aside, updates, vehicle_certificates, vehicles};

/// Entries of the time line on a page.
const ON_A_PAGE: u32 = 50;
/// Earlier bindings that are shown; the API has all.
const BINDINGS: u32 = 20;

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

/// A release that no campaign begins on the vehicle.
struct AsideRow {
    release: String,
    failures: String,
    code: String,
    since: Time,
}

/// A gateway and certificate that the vehicle had.
struct BindingRow {
    gateway: String,
    thumbprint: String,
    since: Time,
    until: Time,
    reason: String,
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
    certificate: Vec<(&'static str, Fact)>,
    /// That it ends soon or has ended, as a class, in words, and what to do.
    certificate_alarm: Option<(&'static str, &'static str, &'static str)>,
    bindings: Vec<BindingRow>,
    groups: Vec<Group>,
    readiness: Option<Readiness>,
    aside: Vec<AsideRow>,
    updates: Vec<UpdateRow>,
    exchanges: Vec<Exchange>,
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
    let groups = ecus::groups(tx, t, vehicle_id, vci.as_ref(), shown_update)?;
    let mut rows = Vec::new();
    for update in all.iter().rev() {
        rows.push(update_row(tx, &frame, update, now)?);
    }
    let mut entries = timeline::before(tx, vehicle_id, place, ON_A_PAGE + 1)?;
    let has_more = entries.len() > ON_A_PAGE as usize;
    entries.truncate(ON_A_PAGE as usize);
    let next = entries.last().filter(|_| has_more).map(|entry| api::place(&entry.place));
    let aside = set_aside::of_vehicle(tx, vehicle_id)?;
    let aside = aside.into_iter().map(|one| AsideRow {
        release: one.release.to_string(),
        failures: number(one.failures),
        code: one.code,
        since: time(t, one.at, now),
    });
    Ok(VehiclePage {
        vehicle_id: vehicle_id.to_string(),
        is_connected: api.is_connected(tx, &vehicle.binding)?,
        is_quarantined: vehicle.quarantined_at.is_some(),
        sentence,
        state_name: state.map_or(t.no_update, |state| t.state(state)),
        class: state.map_or("idle", progress::class),
        facts: facts(tx, &frame, &vehicle, now)?,
        certificate: certificate(&frame, &vehicle, now),
        certificate_alarm: certificate_alarm(&frame, &vehicle, now),
        bindings: bindings(tx, &frame, vehicle_id, now)?,
        groups,
        readiness: readiness::newest(tx, t, vehicle_id, now)?,
        aside: aside.collect(),
        updates: rows,
        exchanges: talk::exchanges(&frame, entries, now),
        next,
        frame,
    })
}

type Facts = Vec<(&'static str, Fact)>;

fn text(text: &dyn Display) -> Fact {
    Fact::Text(text.to_string())
}

fn facts(
    tx: &Tx<'_>,
    frame: &Frame,
    vehicle: &Vehicle,
    now: farrier_protocol::UnixMillis,
) -> Result<Facts, Problem> {
    let (t, tags) = (frame.t, vehicles::tags(tx, &vehicle.binding.vehicle_id)?);
    let mut facts = vec![
        (t.last_seen, Fact::Time(time_or_never(t, vehicle.last_seen_at, now))),
        (t.gateway, text(&vehicle.binding.gateway_id)),
    ];
    match sessions::latest(tx, &vehicle.binding.client_id())? {
        Some(Latest { came_at, gone: None }) => {
            facts.push((t.connected_since, Fact::Time(time(t, came_at, now))))
        }
        Some(Latest { gone: Some((at, why)), .. }) => {
            facts.push((t.gone_since, Fact::Time(time(t, at, now))));
            facts.push((t.why, Fact::Text(t.why_gone(why.name()).to_owned())));
        }
        None => {}
    }
    facts.extend(vehicle.vin.as_ref().map(|vin| (t.vin, text(vin))));
    facts.extend(vehicle.effective_region().map(|region| (t.region, text(region))));
    facts.extend(vehicle.time_zone.as_ref().map(|zone| (t.time_zone, text(zone))));
    facts.extend(vehicle.vehicle_type.as_ref().map(|kind| (t.vehicle_type, text(kind))));
    if !tags.is_empty() {
        let tags: Vec<_> = tags.iter().map(ToString::to_string).collect();
        facts.push((t.tags, Fact::Text(tags.join(", "))));
    }
    facts.push((t.inventory_received, Fact::Time(time_or_never(t, vehicle.vci_received_at, now))));
    facts.extend(vehicle.boot.as_ref().map(|boot| (t.boot_counter, Fact::Text(number(boot.boot_seq)))));
    facts.extend(vehicle.clock_skew_ms.map(|skew| (t.clock_behind, Fact::Text(format!("{skew} ms")))));
    Ok(facts)
}

/// Its subject is the client id: the endpoint lets nobody else in.
fn certificate(frame: &Frame, vehicle: &Vehicle, now: farrier_protocol::UnixMillis) -> Facts {
    let t = frame.t;
    let mut facts = vec![(t.cert_subject, Fact::Text(format!("CN={}", vehicle.binding.client_id())))];
    facts.push((
        t.thumbprint,
        vehicle.thumbprint.as_ref().map_or_else(|| Fact::Text(t.of_next_wake_up.to_owned()), |one| text(one)),
    ));
    match &vehicle.certificate {
        Some(certificate) => {
            facts.push((t.cert_serial, text(&certificate.serial)));
            facts.push((t.ends, Fact::Time(time(t, certificate.ends_at, now))));
        }
        None => facts.push((t.ends, Fact::Text(t.certificate_end_unknown.to_owned()))),
    }
    facts.push((t.last_seen, Fact::Time(time_or_never(t, vehicle.last_seen_at, now))));
    facts
}

fn certificate_alarm(
    frame: &Frame,
    vehicle: &Vehicle,
    now: farrier_protocol::UnixMillis,
) -> Option<(&'static str, &'static str, &'static str)> {
    let (t, ends_at) = (frame.t, vehicle.certificate.as_ref()?.ends_at);
    match (ends_at < now, ends_at < vehicle_certificates::soon(now)) {
        (true, _) => Some(("bad", t.has_ended, t.renew_vehicle_certificate_late)),
        (false, true) => Some(("warn", t.ends_soon, t.renew_vehicle_certificate)),
        (false, false) => None,
    }
}

fn bindings(
    tx: &Tx<'_>,
    frame: &Frame,
    vehicle_id: &VehicleId,
    now: farrier_protocol::UnixMillis,
) -> Result<Vec<BindingRow>, Problem> {
    let t = frame.t;
    let former = vehicles::former_bindings(tx, vehicle_id, i64::MAX, BINDINGS)?;
    let rows = former.into_iter().map(|one| BindingRow {
        gateway: one.gateway_id.to_string(),
        thumbprint: one.thumbprint.map(|thumbprint| thumbprint.to_string()).unwrap_or_default(),
        since: time(t, one.since, now),
        until: time(t, one.until, now),
        reason: one.reason.to_string(),
    });
    Ok(rows.collect())
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
