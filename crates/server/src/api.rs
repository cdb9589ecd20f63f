//! The operators' API (`/api/v1`): JSON, bearer tokens, problem documents (RFC 9457).

mod campaigns;
mod images;
mod problem;
mod releases;
mod vehicles;

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post, put};
use farrier_protocol::{Binding, Sha256, Text, UnixMillis, VehicleId};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::artifacts::Artifacts;
use crate::conversation::{self, Rules};
use crate::desk::WallClock;
use crate::release_signature::ReleaseSignature;
use crate::store::{Store, StoreError, Tx};
use problem::Problem;

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
    /// Digests of the operators' tokens.
    pub(crate) tokens: Arc<Vec<Sha256>>,
}

impl Api {
    fn now(&self) -> UnixMillis {
        (self.clock)()
    }

    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.store.read(job).await
    }

    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>, &Rules, UnixMillis) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let (rules, now) = (Arc::clone(&self.rules), self.now());
        self.store.write(move |tx| job(tx, &rules, now)).await
    }

    fn is_connected(&self, tx: &Tx<'_>, binding: &Binding) -> Result<bool, StoreError> {
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
    let v1 = Router::new()
        .route("/vehicles", get(vehicles::list).post(vehicles::enrol))
        .route("/vehicles/{vehicle_id}", get(vehicles::show))
        .route("/vehicles/{vehicle_id}/why", get(vehicles::why))
        .route("/vehicles/{vehicle_id}/release", post(vehicles::release))
        .route("/images/{sha256}", put(images::put).layer(DefaultBodyLimit::disable()))
        .route("/releases", get(releases::list).post(releases::create))
        .route("/releases/{name}", get(releases::show))
        .route("/campaigns", get(campaigns::list).post(campaigns::create))
        .route("/campaigns/{name}", get(campaigns::show))
        .route("/campaigns/{name}/start", post(campaigns::start))
        .route("/campaigns/{name}/vehicles", get(campaigns::vehicles))
        .route("/campaigns/{name}/vehicles/{vehicle_id}/cancel", post(campaigns::cancel))
        .route("/campaigns/{name}/vehicles/{vehicle_id}/rollback", post(campaigns::rollback))
        .route("/refused-messages", get(vehicles::refused_messages))
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .fallback(|| async { Problem::no_such_route() })
        .layer(middleware::from_fn_with_state(api.clone(), authenticated));
    Router::new()
        .route("/healthz", get(healthz))
        .nest("/api/v1", v1)
        .fallback(|| async { Problem::no_such_route() })
        .layer(DefaultBodyLimit::max(MOST_JSON_OCTETS))
        .with_state(api)
}

/// Whether the store can be read.
async fn healthz(State(api): State<Api>) -> Result<axum::Json<Value>, Problem> {
    api.read(|tx| Ok(crate::store::releases::names(tx)?)).await?;
    Ok(axum::Json(json!({"status": "ok"})))
}

async fn authenticated(State(api): State<Api>, request: Request, next: Next) -> Result<Response, Problem> {
    if is_authorised(&api.tokens, request.headers()) {
        Ok(next.run(request).await)
    } else {
        Err(Problem::unauthorised())
    }
}

/// All tokens are compared, each in constant time, so that time tells nothing.
fn is_authorised(tokens: &[Sha256], headers: &HeaderMap) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = given.and_then(|value| value.strip_prefix("Bearer ")) else { return false };
    let digest = Sha256::of(token.trim().as_bytes());
    tokens.iter().fold(false, |found, known| {
        verify_slices_are_equal(known.as_bytes(), digest.as_bytes()).is_ok() | found
    })
}

/// Reads a JSON document strictly; unknown keys are refused by its type.
fn document<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        Problem::invalid(format!(
            "The body cannot be used: {error}. Send one JSON object with the documented keys."
        ))
    })
}

/// A name that stands in addresses: as identifiers of the protocol.
fn name(text: &str, of: &str) -> Result<Text, Problem> {
    let is_name = text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    text.parse().ok().filter(|_| is_name).ok_or_else(|| {
        Problem::invalid(format!(
            "Expected a {of} name of 1 to 64 characters [A-Za-z0-9._-] that begins with a letter or digit, found {text:?}."
        ))
    })
}

fn vehicle_id(text: &str) -> Result<VehicleId, Problem> {
    text.parse().map_err(|error| Problem::invalid(format!("vehicle_id: {error}.")))
}

#[cfg(test)]
mod tests;
