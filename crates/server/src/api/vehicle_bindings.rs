//! Which gateways and certificates a vehicle had.

use axum::Json;
use axum::extract::State;
use farrier_protocol::{GatewayId, Text, Thumbprint, UnixMillis};
use schemars::JsonSchema;
use serde::Serialize;

use super::page::{Page, PageQuery, page};
use super::problem::Problem;
use super::request::{InPath, InQuery};
use super::vehicles::found;
use super::{Api, vehicle_id};
use crate::store::vehicles::{self, FormerBinding, Vehicle};

/// A binding of a vehicle.
#[derive(Clone, Serialize, JsonSchema)]
pub(super) struct BindingAnswer {
    /// From 1.
    number: i64,
    gateway_id: GatewayId,
    /// Of its certificate; absent where no WakeUp came with one.
    thumbprint: Option<Thumbprint>,
    since_ms: UnixMillis,
    /// Absent for the one that it has.
    until_ms: Option<UnixMillis>,
    /// Why it was replaced.
    reason: Option<Text>,
}

impl From<FormerBinding> for BindingAnswer {
    fn from(former: FormerBinding) -> Self {
        Self {
            number: former.number,
            gateway_id: former.gateway_id,
            thumbprint: former.thumbprint,
            since_ms: former.since,
            until_ms: Some(former.until),
            reason: Some(former.reason),
        }
    }
}

/// The binding that a vehicle has, after the last of those that it had.
fn current(vehicle: Vehicle, last: Option<&FormerBinding>) -> BindingAnswer {
    BindingAnswer {
        number: last.map_or(0, |last| last.number).saturating_add(1),
        gateway_id: vehicle.binding.gateway_id,
        thumbprint: vehicle.thumbprint,
        since_ms: last.map_or(vehicle.enrolled_at, |last| last.until),
        until_ms: None,
        reason: None,
    }
}

/// `GET /vehicles/{vehicle_id}/bindings`, newest first.
pub(super) async fn list(
    State(api): State<Api>,
    InPath(text): InPath<String>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Page<BindingAnswer>>, Problem> {
    let (vehicle_id, limit) = (vehicle_id(&text)?, query.limit()?);
    let before: Option<i64> = query.after()?;
    let listed = api.read(move |tx| {
        let vehicle = found(tx, &vehicle_id)?;
        let former = vehicles::former_bindings(tx, &vehicle_id, before.unwrap_or(i64::MAX), limit + 1)?;
        let first = before.is_none().then(|| current(vehicle, former.first()));
        let bindings: Vec<_> = first.into_iter().chain(former.into_iter().map(BindingAnswer::from)).collect();
        page(bindings, limit, |one| one.number, |one| Ok(one.clone()))
    });
    Ok(Json(listed.await?))
}
