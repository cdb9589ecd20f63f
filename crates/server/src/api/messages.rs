//! What vehicles said and what was refused; security events.

use axum::Json;
use axum::extract::State;
use farrier_protocol::{GatewayId, RefusalCode, UnixMillis, VehicleId};
use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use super::page::{Page, PageQuery, page};
use super::problem::Problem;
use super::request::InQuery;
use crate::store::messages::{self, RefusedMessage};
use crate::store::security_events::{self, SecurityEvent};

/// A message that was refused, with its reason.
#[derive(Serialize, JsonSchema)]
pub(super) struct RefusedAnswer {
    vehicle_id: VehicleId,
    gateway_id: GatewayId,
    topic: String,
    code: RefusalCode,
    /// The JSON pointer of what is wrong.
    pointer: String,
    expected: String,
    found: String,
    msg_id: Option<String>,
    /// The first 16 KiB; what is not UTF-8 is replaced.
    payload: String,
    first_at_ms: UnixMillis,
    last_at_ms: UnixMillis,
    /// How often the same was refused.
    times: u64,
}

impl From<&RefusedMessage> for RefusedAnswer {
    fn from(refused: &RefusedMessage) -> Self {
        Self {
            vehicle_id: refused.binding.vehicle_id.clone(),
            gateway_id: refused.binding.gateway_id.clone(),
            topic: refused.topic.clone(),
            code: refused.refusal.code,
            pointer: refused.refusal.pointer.clone(),
            expected: refused.refusal.expected.clone(),
            found: refused.refusal.found.clone(),
            msg_id: refused.msg_id.clone(),
            payload: refused.payload.clone(),
            first_at_ms: refused.first_at,
            last_at_ms: refused.last_at,
            times: refused.times,
        }
    }
}

/// `GET /refused-messages`, newest first.
pub(super) async fn refused(
    State(api): State<Api>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Page<RefusedAnswer>>, Problem> {
    let (limit, before) = (query.limit()?, query.before_time()?);
    let refused = api.read(move |tx| Ok(messages::refused(tx, &before, limit + 1)?)).await?;
    page(refused, limit, |one| (one.last_at, one.id.clone()), |one| Ok(one.into())).map(Json)
}

/// Something that tells whether a sender can be trusted.
#[derive(Serialize, JsonSchema)]
pub(super) struct SecurityEventAnswer {
    /// As `BOOT_SEQ_REGRESSION`; docs/operations.md lists them.
    kind: String,
    /// Who: a vehicle with its gateway, a certificate's common name, or an address.
    subject: String,
    vehicle_id: Option<VehicleId>,
    /// Of the last time.
    detail: String,
    first_at_ms: UnixMillis,
    last_at_ms: UnixMillis,
    /// How often in one hour.
    times: u64,
}

impl From<&SecurityEvent> for SecurityEventAnswer {
    fn from(event: &SecurityEvent) -> Self {
        Self {
            kind: event.kind.clone(),
            subject: event.subject.clone(),
            vehicle_id: event.vehicle_id.clone(),
            detail: event.detail.clone(),
            first_at_ms: event.first_at,
            last_at_ms: event.last_at,
            times: event.times,
        }
    }
}

/// `GET /security-events`, newest first.
pub(super) async fn security_events(
    State(api): State<Api>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Page<SecurityEventAnswer>>, Problem> {
    let (limit, before) = (query.limit()?, query.before_time()?);
    let events = api.read(move |tx| Ok(security_events::page(tx, &before, limit + 1)?)).await?;
    page(events, limit, |event| (event.last_at, event.id.clone()), |event| Ok(event.into())).map(Json)
}
