//! `/evidence`: the records of UN R156 by campaign, vehicle and RXSWIN, the register of RXSWINs, and the signed archives.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use farrier_protocol::{Text, UnixMillis};
use serde::Deserialize;

use super::Console;
use super::format::{Time, number, time, time_or_never};
use super::page::{Failed, Frame, shown};
use super::progress;
use super::session::Visitor;
use crate::api::{self, InPath, Problem};
use crate::evidence::{self, Fragment, RegisteredSoftware};
use crate::store::evidence::{self as store, Revision, RevisionPlace};
use crate::store::{Tx, campaigns, releases, updates, vehicles};
use crate::vehicle_fields::Vin;

/// Campaigns, records or revisions on a page.
const ON_A_PAGE: u32 = 50;

struct CampaignRow {
    name: String,
    release: String,
    state: &'static str,
    class: &'static str,
    ended: String,
    records: String,
    started: Time,
}

#[derive(Template)]
#[template(path = "evidence.html")]
struct EvidencePage {
    frame: Frame,
    q: String,
    /// That nothing was found under what was typed.
    is_missing: bool,
    campaigns: Vec<CampaignRow>,
    next: Option<String>,
    is_first: bool,
    key_sha256: String,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    /// A campaign, a vehicle's id or VIN, or an RXSWIN.
    #[serde(default)]
    q: String,
    #[serde(default)]
    after: String,
}

/// Where the records are of what was typed.
fn found(tx: &Tx<'_>, typed: &str) -> Result<Option<String>, Problem> {
    if let Ok(name) = api::name(typed, "campaign")
        && campaigns::by_name(tx, &name)?.is_some()
    {
        return Ok(Some(format!("/evidence/campaigns/{name}")));
    }
    let by_id = match typed.parse() {
        Ok(id) => vehicles::by_id(tx, &id)?,
        Err(_) => None,
    };
    let by_vin = match typed.parse::<Vin>() {
        Ok(vin) if by_id.is_none() => vehicles::by_vin(tx, &vin)?,
        Ok(_) | Err(_) => None,
    };
    if let Some(vehicle) = by_id.or(by_vin) {
        return Ok(Some(format!("/evidence/vehicles/{}", vehicle.binding.vehicle_id)));
    }
    let Ok(rxswin) = typed.parse::<Text>() else { return Ok(None) };
    let is_known =
        !store::types_with(tx, &rxswin, 1)?.is_empty() || !releases::with_rxswin(tx, &rxswin, 1)?.is_empty();
    Ok(is_known.then(|| {
        let encoded: String = form_encoded(rxswin.as_str());
        format!("/evidence/rxswins?q={encoded}")
    }))
}

/// A value as it stands in an address.
fn form_encoded(value: &str) -> String {
    let encoded = value.bytes().map(|octet| match octet {
        octet if octet.is_ascii_alphanumeric() => char::from(octet).to_string(),
        octet => format!("%{octet:02X}"),
    });
    encoded.collect()
}

/// `GET /evidence`
pub(super) async fn page(
    State(console): State<Console>,
    visitor: Visitor,
    Query(Asked { q, after }): Query<Asked>,
) -> Result<Response, Failed> {
    let (t, now) = (visitor.guest.language.texts(), console.api.now());
    let failed = |problem| visitor.failed(problem);
    let typed = q.trim().to_owned();
    if !typed.is_empty() {
        let asked = typed.clone();
        if let Some(place) = console.api.read(move |tx| found(tx, &asked)).await.map_err(failed)? {
            return Ok(Redirect::to(&place).into_response());
        }
    }
    let from = after.clone();
    let rows = console.api.read(move |tx| {
        let mut rows = Vec::new();
        for campaign in campaigns::page(tx, &from, ON_A_PAGE + 1)? {
            let counts = campaigns::counts(tx, &campaign.name)?;
            let state = campaign.state_name(&counts);
            rows.push(CampaignRow {
                name: campaign.name.to_string(),
                release: campaign.release.to_string(),
                state: t.campaign_state(state),
                class: progress::campaign_class(state),
                ended: number(counts.ended),
                records: number(counts.total),
                started: time_or_never(t, campaign.started_at, now),
            });
        }
        Ok(rows)
    });
    let mut rows = rows.await.map_err(failed)?;
    let has_more = rows.len() > ON_A_PAGE as usize;
    rows.truncate(ON_A_PAGE as usize);
    let next = rows.last().filter(|_| has_more).map(|row| row.name.clone());
    let key = api::evidence::key(State(console.api)).await;
    Ok(shown(&EvidencePage {
        frame: visitor.frame(),
        is_missing: !typed.is_empty(),
        q: typed,
        campaigns: rows,
        next,
        is_first: after.is_empty(),
        key_sha256: key.sha256.to_string(),
    }))
}

struct RecordRow {
    update_id: String,
    vehicle_id: String,
    campaign: String,
    state: &'static str,
    class: &'static str,
    ended: Time,
}

#[derive(Template)]
#[template(path = "evidence_of.html")]
struct OfPage {
    frame: Frame,
    name: String,
    /// `campaigns` or `vehicles`, as the addresses have it.
    of: &'static str,
    /// The page of the campaign or vehicle itself.
    link: String,
    record: Option<Fragment>,
    rows: Vec<RecordRow>,
    next: Option<String>,
}

fn record_row(
    t: &'static super::texts::Texts,
    update: &updates::VehicleUpdate,
    now: UnixMillis,
) -> RecordRow {
    let state = update.state.name();
    RecordRow {
        update_id: update.id.clone(),
        vehicle_id: update.vehicle_id.to_string(),
        campaign: update.campaign.to_string(),
        state: t.state(state),
        class: progress::class(state),
        ended: time_or_never(t, update.ended_at, now),
    }
}

#[derive(Deserialize)]
pub(super) struct After {
    #[serde(default)]
    after: String,
}

/// `GET /evidence/campaigns/{name}`
pub(super) async fn campaign(
    State(console): State<Console>,
    visitor: Visitor,
    Path(name): Path<String>,
    Query(After { after }): Query<After>,
) -> Result<Response, Failed> {
    let (t, now, frame) = (visitor.guest.language.texts(), console.api.now(), visitor.frame());
    let page = console.api.read(move |tx| {
        let name = api::name(&name, "campaign")?;
        let campaign =
            campaigns::by_name(tx, &name)?.ok_or_else(|| Problem::not_found("campaign", name.as_str()))?;
        let mut found = updates::page_of_campaign(tx, &name, &after, ON_A_PAGE + 1)?;
        let has_more = found.len() > ON_A_PAGE as usize;
        found.truncate(ON_A_PAGE as usize);
        let next = found.last().filter(|_| has_more).map(|update| update.vehicle_id.to_string());
        Ok(OfPage {
            of: "campaigns",
            link: format!("/campaigns/{name}"),
            record: Some(evidence::campaign_for_people(tx, &campaign, now)?),
            rows: found.iter().map(|update| record_row(t, update, now)).collect(),
            next,
            name: name.to_string(),
            frame,
        })
    });
    Ok(shown(&page.await.map_err(|problem| visitor.failed(problem))?))
}

/// `GET /evidence/vehicles/{id}`
pub(super) async fn vehicle(
    State(console): State<Console>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Response, Failed> {
    let (t, now, frame) = (visitor.guest.language.texts(), console.api.now(), visitor.frame());
    let page = console.api.read(move |tx| {
        let id = api::vehicle_id(&id)?;
        if vehicles::by_id(tx, &id)?.is_none() {
            return Err(Problem::not_found("vehicle", id.as_str()));
        }
        let mut found = updates::of_vehicle(tx, &id)?;
        found.reverse();
        Ok(OfPage {
            of: "vehicles",
            link: format!("/vehicles/{id}"),
            record: None,
            rows: found.iter().map(|update| record_row(t, update, now)).collect(),
            next: None,
            name: id.to_string(),
            frame,
        })
    });
    Ok(shown(&page.await.map_err(|problem| visitor.failed(problem))?))
}

#[derive(Template)]
#[template(path = "evidence_record.html")]
struct RecordPage {
    frame: Frame,
    vehicle_id: String,
    campaign: String,
    record: Fragment,
}

/// `GET /evidence/records/{update_id}`
pub(super) async fn record(
    State(console): State<Console>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Response, Failed> {
    let (now, frame) = (console.api.now(), visitor.frame());
    let page = console.api.read(move |tx| {
        let missing = || Problem::not_found("record", &id);
        // Ids are hexadecimal digits and dashes; no database need look for anything else.
        if !id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            return Err(missing());
        }
        let update = updates::by_id(tx, &id)?.ok_or_else(missing)?;
        Ok(RecordPage {
            vehicle_id: update.vehicle_id.to_string(),
            campaign: update.campaign.to_string(),
            record: evidence::update_for_people(tx, &update, now)?,
            frame,
        })
    });
    Ok(shown(&page.await.map_err(|problem| visitor.failed(problem))?))
}

/// `GET /evidence/campaigns/{name}/archive`
pub(super) async fn campaign_archive(
    State(console): State<Console>,
    visitor: Visitor,
    name: InPath<String>,
) -> Result<Response, Failed> {
    api::evidence::campaign(State(console.api), name).await.map_err(|problem| visitor.failed(problem))
}

/// `GET /evidence/vehicles/{id}/archive`
pub(super) async fn vehicle_archive(
    State(console): State<Console>,
    visitor: Visitor,
    id: InPath<String>,
) -> Result<Response, Failed> {
    api::evidence::vehicle(State(console.api), id).await.map_err(|problem| visitor.failed(problem))
}

/// `GET /evidence/key`: the public key, as a file.
pub(super) async fn key(State(console): State<Console>, _: Visitor) -> Response {
    let key = api::evidence::key(State(console.api)).await;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-pem-file")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"evidence.pub.pem\"")),
    ];
    (headers, key.0.public_key_pem).into_response()
}

struct RevisionRow {
    vehicle_type: String,
    rxswin: String,
    revision: String,
    approval: String,
    note: String,
    recorded: Time,
    recorded_by: String,
    software: Vec<SoftwareRow>,
}

struct SoftwareRow {
    hw_part_no: String,
    only_for: String,
    version: String,
    sha256: String,
}

impl From<&RegisteredSoftware> for SoftwareRow {
    fn from(software: &RegisteredSoftware) -> Self {
        let only_for: Vec<_> =
            [&software.supplier, &software.region].into_iter().flatten().map(ToString::to_string).collect();
        Self {
            hw_part_no: software.hw_part_no.to_string(),
            only_for: only_for.join(", "),
            version: software.version.to_string(),
            sha256: software.sha256.to_string(),
        }
    }
}

#[derive(Template)]
#[template(path = "rxswins.html")]
struct RegisterPage {
    frame: Frame,
    q: String,
    rows: Vec<RevisionRow>,
    /// Releases that change what was asked for.
    releases: Vec<String>,
    next: Option<String>,
    is_first: bool,
}

/// `GET /evidence/rxswins`: all revisions, or those of one RXSWIN.
pub(super) async fn register(
    State(console): State<Console>,
    visitor: Visitor,
    Query(Asked { q, after }): Query<Asked>,
) -> Result<Response, Failed> {
    let (t, now, is_first) = (visitor.guest.language.texts(), console.api.now(), after.is_empty());
    let typed = q.trim().to_owned();
    let asked = typed.clone();
    let seen = console.api.read(move |tx| {
        let place: RevisionPlace =
            if after.is_empty() { RevisionPlace::default() } else { api::cursor(&after, "after")? };
        match (asked.is_empty(), asked.parse::<Text>()) {
            (true, _) => Ok((store::revisions(tx, &place, ON_A_PAGE + 1)?, Vec::new())),
            (false, Err(_)) => Ok((Vec::new(), Vec::new())),
            (false, Ok(rxswin)) => {
                let from = (place.0, place.2);
                let until = UnixMillis(i64::MAX);
                let revisions = store::revisions_of(tx, &rxswin, &from, until, ON_A_PAGE + 1)?;
                Ok((revisions, releases::with_rxswin(tx, &rxswin, ON_A_PAGE)?))
            }
        }
    });
    let (mut revisions, changing) = seen.await.map_err(|problem| visitor.failed(problem))?;
    let has_more = revisions.len() > ON_A_PAGE as usize;
    revisions.truncate(ON_A_PAGE as usize);
    let next = revisions.last().filter(|_| has_more).map(|last| {
        let number = i64::try_from(last.revision).unwrap_or(i64::MAX);
        api::place(&(last.vehicle_type.to_string(), last.rxswin.to_string(), number))
    });
    let row = |revision: &Revision| RevisionRow {
        vehicle_type: revision.vehicle_type.to_string(),
        rxswin: revision.rxswin.to_string(),
        revision: number(revision.revision),
        approval: revision.content.approval.as_ref().map(ToString::to_string).unwrap_or_default(),
        note: revision.content.note.as_ref().map(ToString::to_string).unwrap_or_default(),
        recorded: time(t, revision.recorded_at, now),
        recorded_by: revision.recorded_by.clone(),
        software: revision.content.software.iter().map(SoftwareRow::from).collect(),
    };
    Ok(shown(&RegisterPage {
        frame: visitor.frame(),
        q: typed,
        rows: revisions.iter().map(row).collect(),
        releases: changing.iter().map(ToString::to_string).collect(),
        next,
        is_first,
    }))
}
