//! The operators' API (`/api/v1`): JSON, bearer tokens, problem documents (RFC 9457).

pub(crate) mod approvals;
pub(crate) mod ask_inventory;
mod asked;
mod audit_log;
pub(crate) mod campaigns;
mod docs;
pub(crate) mod dry_run;
mod etag;
mod events;
pub(crate) mod evidence;
pub(crate) mod groups;
pub(crate) mod health;
mod images;
pub(crate) mod import;
mod messages;
pub(crate) mod new_campaign;
mod operation;
mod page;
mod problem;
mod problems;
pub(crate) mod releases;
mod request;
mod routes;
pub(crate) mod set_aside;
mod timeline;
pub(crate) mod tokens;
pub(crate) mod uploads;
pub(crate) mod users;
mod vehicle_bindings;
pub(crate) mod vehicle_changes;
pub(crate) mod vehicles;
pub(crate) mod webhooks;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::get;
use axum::{Json, Router};
use farrier_protocol::{Binding, Text, UnixMillis, VehicleId};
use serde::Serialize;
use serde_json::Value;

use crate::artifacts::Artifacts;
use crate::change_feed::Feed;
use crate::conversation::{self, Rules};
use crate::desk::WallClock;
use crate::release_signature::ReleaseSignature;
use crate::store::{Store, StoreError, Tx};
use crate::webhooks::WebhookSettings;
#[cfg(test)]
pub(crate) use approvals::say;
#[cfg(test)]
pub(crate) use campaigns::{retry_some, start_by};
pub(crate) use evidence::EvidenceDesk;
pub(crate) use health::{Trust, Vitals};
pub(crate) use page::{cursor, place};
pub(crate) use problem::{LineFault, Problem};
#[cfg(test)]
pub(crate) use problems::codes as problem_codes;
pub(crate) use request::{Caller, Document, InPath, InQuery, Lines};
pub(crate) use uploads::keep_uploads_tidy;

/// The largest JSON document that operators may send, in octets.
const MOST_JSON_OCTETS: usize = 1024 * 1024;

/// What the API works with.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) rules: Arc<Rules>,
    pub(crate) artifacts: Artifacts,
    pub(crate) signature: Arc<ReleaseSignature>,
    pub(crate) clock: WallClock,
    pub(crate) vitals: Vitals,
    pub(crate) evidence: EvidenceDesk,
    pub(crate) feed: Arc<Feed>,
    /// What webhooks may do.
    pub(crate) webhooks: Arc<WebhookSettings>,
}

impl Api {
    pub(crate) fn now(&self) -> UnixMillis {
        (self.clock)()
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.store.read(job).await
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>, &Rules, UnixMillis) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.write_as(job).await
    }

    /// The same for jobs with errors of their own.
    async fn write_as<T: Send + 'static, E: From<StoreError> + From<Problem> + Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>, &Rules, UnixMillis) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let (rules, now, asked) = (Arc::clone(&self.rules), self.now(), asked::current());
        asked::write(&self.store, asked, now, move |tx| job(tx, &rules, now), |_| None).await
    }

    /// Changes something, and gives the whole answer: what came with a key is stored in the same transaction.
    async fn answer<A: Serialize + Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>, &Rules, UnixMillis) -> Result<(StatusCode, A), Problem> + Send + 'static,
    ) -> Result<(StatusCode, Json<A>), Problem> {
        let (rules, now, asked) = (Arc::clone(&self.rules), self.now(), asked::current());
        let shown = |(status, answer): &(StatusCode, A)| {
            serde_json::to_string(answer).ok().map(|answer| (*status, answer))
        };
        let (status, answer) =
            asked::write(&self.store, asked, now, move |tx| job(tx, &rules, now), shown).await?;
        Ok((status, Json(answer)))
    }

    pub(crate) fn is_connected(&self, tx: &Tx<'_>, binding: &Binding) -> Result<bool, StoreError> {
        conversation::is_there(tx, &self.rules, binding, self.now())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "The store failed an operator.");
        Self::unavailable()
    }
}

/// The API's routes.
pub(crate) fn router(api: Api) -> Router {
    let operations = routes::operations();
    let document = Arc::new(operation::openapi(&operations));
    let rendered = docs::Rendered::of(&document);
    let mut v1 = Router::new();
    for operation in operations {
        let (path, route) = operation.into_route(&api);
        v1 = v1.route(path, route);
    }
    let v1 = v1
        .layer(axum::Extension(OpenApiDocument(document)))
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .fallback(|| async { Problem::no_such_route() })
        .layer(middleware::from_fn_with_state(api.clone(), request::authenticated));
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route(docs::PATH, get(docs::page))
        .route(docs::STYLE, get(docs::style))
        .route(problems::PATH, get(docs::problems))
        .route(problems::OF_CODE, get(docs::problem))
        .nest("/api/v1", v1)
        .fallback(|| async { Problem::no_such_route() })
        .layer(axum::Extension(rendered))
        .layer(DefaultBodyLimit::max(MOST_JSON_OCTETS))
        .with_state(api)
}

/// What the API says of itself.
#[derive(Clone)]
struct OpenApiDocument(Arc<Value>);

/// `GET /openapi.json`
async fn openapi(axum::Extension(document): axum::Extension<OpenApiDocument>) -> axum::Json<Value> {
    axum::Json(Value::clone(&document.0))
}

/// A name that stands in addresses: as identifiers of the protocol.
pub(crate) fn name(text: &str, of: &str) -> Result<Text, Problem> {
    let is_name = text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    text.parse().ok().filter(|_| is_name).ok_or_else(|| {
        Problem::invalid(format!(
            "Expected a {of} name of 1 to 64 characters [A-Za-z0-9._-] that begins with a letter or digit, found {text:?}."
        ))
    })
}

pub(crate) fn vehicle_id(text: &str) -> Result<VehicleId, Problem> {
    text.parse().map_err(|error| Problem::invalid(format!("vehicle_id: {error}.")))
}

#[cfg(test)]
pub(crate) mod tests;
