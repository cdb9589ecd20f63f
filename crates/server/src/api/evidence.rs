//! Evidence for UN R156: the register of RXSWINs, the key, signed archives of campaigns and vehicles. An export changes
//! nothing, so whoever may look may have one, and it leaves no entry in the audit log.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use farrier_protocol::{Sha256, Text, UnixMillis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;

use super::page::{Page, PageQuery, page};
use super::problem::Problem;
use super::request::{Caller, Document, InPath, InQuery};
use super::{Api, name, vehicle_id};
use crate::evidence::{EvidenceKey, Export, RegisteredSoftware, Subject};
use crate::store::audit::{self, Change};
use crate::store::evidence::{self, Revision, RevisionContent, RevisionPlace};
use crate::store::{campaigns, vehicles};
use crate::vehicle_fields::VehicleType;

/// What an archive is sent as.
pub(super) const ARCHIVE: &str = "application/x-tar";
/// Archives that are made at once.
const MOST_EXPORTS: usize = 4;
/// Pieces of software of one revision.
const MOST_SOFTWARE: usize = 512;

/// What evidence is signed with, and how many exports there is room for.
#[derive(Clone)]
pub(crate) struct EvidenceDesk {
    key: Arc<EvidenceKey>,
    places: Arc<Semaphore>,
}

impl EvidenceDesk {
    pub(crate) fn new(key: EvidenceKey) -> Self {
        Self { key: Arc::new(key), places: Arc::new(Semaphore::new(MOST_EXPORTS)) }
    }
}

/// The key that evidence is signed with.
#[derive(Serialize, JsonSchema)]
pub(crate) struct KeyAnswer {
    /// `Ed25519`.
    algorithm: &'static str,
    /// SubjectPublicKeyInfo.
    pub(crate) public_key_pem: String,
    /// Of the SubjectPublicKeyInfo in DER: archives name the key by it.
    pub(crate) sha256: Sha256,
}

/// `GET /evidence/key`
pub(crate) async fn key(State(api): State<Api>) -> Json<KeyAnswer> {
    let public = api.evidence.key.public();
    Json(KeyAnswer { algorithm: "Ed25519", public_key_pem: public.pem(), sha256: public.sha256() })
}

/// `GET /evidence/campaigns/{name}`
pub(crate) async fn campaign(
    State(api): State<Api>,
    InPath(text): InPath<String>,
) -> Result<Response, Problem> {
    let name = name(&text, "campaign")?;
    let asked = name.clone();
    if api.read(move |tx| Ok(campaigns::by_name(tx, &asked)?)).await?.is_none() {
        return Err(Problem::not_found("campaign", name.as_str()));
    }
    export(&api, &format!("evidence-{name}.tar"), Subject::Campaign(name))
}

/// `GET /evidence/vehicles/{vehicle_id}`
pub(crate) async fn vehicle(
    State(api): State<Api>,
    InPath(text): InPath<String>,
) -> Result<Response, Problem> {
    let vehicle_id = vehicle_id(&text)?;
    let asked = vehicle_id.clone();
    if api.read(move |tx| Ok(vehicles::by_id(tx, &asked)?)).await?.is_none() {
        return Err(Problem::not_found("vehicle", vehicle_id.as_str()));
    }
    export(&api, &format!("evidence-{vehicle_id}.tar"), Subject::Vehicle(vehicle_id))
}

fn export(api: &Api, file_name: &str, subject: Subject) -> Result<Response, Problem> {
    let place = Arc::clone(&api.evidence.places).try_acquire_owned().map_err(|_| {
        let detail = format!("{MOST_EXPORTS} archives are being made already; try again when one is done.");
        Problem::conflict("EXPORTS_BUSY", detail)
    })?;
    let export = Export {
        store: api.store.clone(),
        key: Arc::clone(&api.evidence.key),
        server: api.rules.base_url.to_string(),
        subject,
        at: api.now(),
    };
    let octets = export.start(place);
    let stream = futures_util::stream::unfold(octets, |mut octets| async move {
        octets.recv().await.map(|next| (next, octets))
    });
    let mut response = Body::from_stream(stream).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(ARCHIVE));
    // Names and ids have no character that a header cannot carry.
    if let Ok(value) = HeaderValue::try_from(format!("attachment; filename=\"{file_name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// A revision of the register of RXSWINs.
#[derive(Serialize, JsonSchema)]
pub(super) struct RevisionAnswer {
    vehicle_type: VehicleType,
    rxswin: Text,
    /// From 1; earlier ones stay as they are.
    revision: u64,
    /// All software that is relevant to it.
    software: Vec<RegisteredSoftware>,
    approval: Option<Text>,
    note: Option<Text>,
    recorded_at_ms: UnixMillis,
    /// As the audit log names them.
    recorded_by: String,
}

impl From<&Revision> for RevisionAnswer {
    fn from(revision: &Revision) -> Self {
        let Revision { vehicle_type, rxswin, revision, content, recorded_at, recorded_by } = revision.clone();
        let RevisionContent { software, approval, note } = content;
        Self {
            vehicle_type,
            rxswin,
            revision,
            software,
            approval,
            note,
            recorded_at_ms: recorded_at,
            recorded_by,
        }
    }
}

/// The body of a new revision: all software that is relevant to the RXSWIN from now on.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRevision {
    vehicle_type: VehicleType,
    rxswin: Text,
    #[schemars(length(min = 1, max = MOST_SOFTWARE))]
    software: Vec<RegisteredSoftware>,
    /// Of the type approval, as the number of an extension.
    approval: Option<Text>,
    note: Option<Text>,
}

/// `GET /evidence/rxswins`
pub(super) async fn register(
    State(api): State<Api>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Page<RevisionAnswer>>, Problem> {
    let (limit, after) = (query.limit()?, query.after::<RevisionPlace>()?.unwrap_or_default());
    let listed = api.read(move |tx| {
        let revisions = evidence::revisions(tx, &after, limit + 1)?;
        let place = |revision: &Revision| {
            let number = i64::try_from(revision.revision).unwrap_or(i64::MAX);
            (revision.vehicle_type.to_string(), revision.rxswin.to_string(), number)
        };
        page(revisions, limit, place, |revision| Ok(revision.into()))
    });
    Ok(Json(listed.await?))
}

/// `POST /evidence/rxswins`: what is registered already is registered once.
pub(super) async fn set(
    State(api): State<Api>,
    caller: Caller,
    Document(new): Document<NewRevision>,
) -> Result<(StatusCode, Json<RevisionAnswer>), Problem> {
    let actor = caller.actor();
    let mut software = new.software;
    if !(1..=MOST_SOFTWARE).contains(&software.len()) {
        let found = software.len();
        let detail = format!("software: expected 1 to {MOST_SOFTWARE} pieces of software, found {found}.");
        return Err(Problem::invalid(detail));
    }
    software.sort();
    let place = |software: &RegisteredSoftware| {
        (
            software.hw_part_no.clone(),
            software.supplier.clone(),
            software.region.clone(),
            software.sw_part_no.clone(),
        )
    };
    if let Some(twice) = software.windows(2).find_map(|pair| match pair {
        [one, other] if place(one) == place(other) => Some(&one.hw_part_no),
        _ => None,
    }) {
        let detail = format!(
            "software: expected one version for each hardware, supplier, region and software part, found two for {twice}."
        );
        return Err(Problem::invalid(detail));
    }
    let content = RevisionContent { software, approval: new.approval, note: new.note };
    let (vehicle_type, rxswin) = (new.vehicle_type, new.rxswin);
    let set = api.answer(move |tx, _, now| {
        tx.lock(&format!("rxswin/{vehicle_type}/{rxswin}"))?;
        let before = evidence::revision_at(tx, &vehicle_type, &rxswin, UnixMillis(i64::MAX))?;
        if let Some(before) = before.as_ref().filter(|before| before.content == content) {
            return Ok((StatusCode::OK, before.into()));
        }
        let revision = Revision {
            vehicle_type,
            rxswin,
            revision: before.as_ref().map_or(0, |before| before.revision).saturating_add(1),
            content,
            recorded_at: now,
            recorded_by: actor.name().to_owned(),
        };
        evidence::register(tx, &revision)?;
        let change = Change {
            action: "rxswin.registered",
            object: format!("rxswin/{}/{}", revision.vehicle_type, revision.rxswin),
            detail: Some(format!(
                "revision {}, {} piece(s) of software",
                revision.revision,
                revision.content.software.len()
            )),
            before: before.map(|before| json!(before.content)),
            after: Some(json!(revision.content)),
        };
        audit::record(tx, &actor, change, now)?;
        Ok((StatusCode::CREATED, RevisionAnswer::from(&revision)))
    });
    set.await
}
