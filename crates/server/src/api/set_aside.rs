//! Vehicles that are set aside for a release since they failed it too often: listed, and taken back.

use axum::Json;
use axum::extract::State;
use farrier_protocol::{Text, UnixMillis, VehicleId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::page::{Page, PageQuery, page};
use super::problem::Problem;
use super::request::{Caller, InPath, InQuery};
use super::{Api, name, vehicle_id};
use crate::conversation;
use crate::store::set_aside::{self, SetAside};
use crate::store::vehicles;

/// Which part of the list.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetAsideQuery {
    /// How many at most; 100 where it is absent.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// The `next` of the page before; the first page where it is absent.
    after: Option<String>,
    /// Only those of this release.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    release: Option<String>,
}

/// A vehicle that is set aside for a release.
#[derive(Serialize, JsonSchema)]
pub(crate) struct SetAsideAnswer {
    vehicle_id: VehicleId,
    release: Text,
    /// How many of its attempts failed, in all campaigns of the release.
    failures: u32,
    /// The campaign of the last of them.
    campaign: Text,
    /// Why the last of them failed.
    code: String,
    since_ms: UnixMillis,
}

impl From<&SetAside> for SetAsideAnswer {
    fn from(set_aside: &SetAside) -> Self {
        Self {
            vehicle_id: set_aside.vehicle_id.clone(),
            release: set_aside.release.clone(),
            failures: set_aside.failures,
            campaign: set_aside.campaign.clone(),
            code: set_aside.code.clone(),
            since_ms: set_aside.at,
        }
    }
}

/// `GET /set-aside`
pub(super) async fn list(
    State(api): State<Api>,
    InQuery(query): InQuery<SetAsideQuery>,
) -> Result<Json<Page<SetAsideAnswer>>, Problem> {
    let part = PageQuery::of(query.limit, query.after);
    let limit = part.limit()?;
    let (vehicle, release): (String, String) = part.after()?.unwrap_or_default();
    let only = query.release.map(|only| name(&only, "release")).transpose()?;
    let listed = api.read(move |tx| {
        let found = match only {
            Some(only) => set_aside::page_of_release(tx, &only, &vehicle, limit + 1)?,
            None => set_aside::page(tx, (&vehicle, &release), limit + 1)?,
        };
        let key = |one: &SetAside| (one.vehicle_id.clone(), one.release.clone());
        page(found, limit, key, |one| Ok(SetAsideAnswer::from(one)))
    });
    Ok(Json(listed.await?))
}

/// `DELETE /vehicles/{vehicle_id}/set-aside/{release}`: updates that ended since the vehicle was set aside do not begin again
/// by themselves.
pub(crate) async fn take_back(
    State(api): State<Api>,
    caller: Caller,
    InPath((vehicle, release)): InPath<(String, String)>,
) -> Result<Json<SetAsideAnswer>, Problem> {
    let (vehicle_id, release, actor) = (vehicle_id(&vehicle)?, name(&release, "release")?, caller.actor());
    let taken = api.write(move |tx, _, now| {
        vehicles::lock(tx, &vehicle_id)?;
        let detail = || format!("release {release}");
        let before = conversation::take_back(tx, &actor, &vehicle_id, &release, detail, now)?;
        let before = before.ok_or_else(|| {
            Problem::not_found("set-aside vehicle", &format!("{vehicle_id} with release {release}"))
        })?;
        Ok(SetAsideAnswer::from(&before))
    });
    Ok(Json(taken.await?))
}
