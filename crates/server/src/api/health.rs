//! Whether the server lives, whether it can serve, and what it measures: for orchestrators and Prometheus.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use farrier_protocol::UnixMillis;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Api;
use super::problem::Problem;
use super::request;
use crate::measurements::Measurements;
use crate::mqtt::Connections;
use crate::store::audit;

/// The store must have committed by then.
const STORE_TIME: Duration = Duration::from_secs(5);
/// Anybody may ask; the store is not asked more often than this.
const KEPT: Duration = Duration::from_secs(2);

/// Says whether certificates and lists of revoked certificates are such that vehicles can come.
pub(crate) type CanTrust = Arc<dyn Fn(UnixMillis) -> bool + Send + Sync>;

/// What is looked at besides the store.
#[derive(Clone)]
pub(crate) struct Vitals {
    pub(crate) connections: Arc<Connections>,
    pub(crate) measurements: Measurements,
    pub(crate) can_trust: CanTrust,
    /// Cancelled when the server stops.
    pub(crate) stopping: CancellationToken,
    pub(crate) metrics_without_token: bool,
    last: Arc<Mutex<Option<(Instant, Readiness)>>>,
}

impl Vitals {
    pub(crate) fn new(
        connections: Arc<Connections>,
        can_trust: CanTrust,
        stopping: CancellationToken,
        metrics_without_token: bool,
    ) -> Self {
        let measurements = Measurements::of_this_process();
        Self { connections, measurements, can_trust, stopping, metrics_without_token, last: Arc::default() }
    }
}

/// Whether the server can serve, and what of it can.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Readiness {
    status: &'static str,
    checks: BTreeMap<&'static str, &'static str>,
}

/// `GET /healthz`: the process answers and its store can be read.
pub(super) async fn healthz(State(api): State<Api>) -> Result<Response, Problem> {
    api.read(|tx| Ok(audit::head(tx)?)).await?;
    Ok(Json(serde_json::json!({"status": "ok"})).into_response())
}

/// `GET /readyz`: vehicles and operators can be sent here.
pub(super) async fn readyz(State(api): State<Api>) -> Response {
    let mut last = api.vitals.last.lock().await;
    let readiness = match last.as_ref() {
        Some((at, readiness)) if at.elapsed() < KEPT && !api.vitals.stopping.is_cancelled() => {
            readiness.clone()
        }
        Some(_) | None => {
            let readiness = look(&api).await;
            *last = Some((Instant::now(), readiness.clone()));
            readiness
        }
    };
    let status = if readiness.status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn look(api: &Api) -> Readiness {
    let (can_trust, now) = (Arc::clone(&api.vitals.can_trust), api.now());
    let trusts = tokio::task::spawn_blocking(move || can_trust(now)).await.unwrap_or(false);
    let commits = timeout(STORE_TIME, api.write(|tx, _, _| Ok(audit::touch(tx)?))).await;
    let checks = [
        ("store", matches!(commits, Ok(Ok(())))),
        ("certificates", trusts),
        ("listeners", !api.vitals.stopping.is_cancelled()),
    ];
    let failed: Vec<_> = checks.iter().filter(|(_, holds)| !holds).map(|(name, _)| *name).collect();
    if !failed.is_empty() {
        tracing::warn!(failed = failed.join(", "), "The server is not ready.");
    }
    Readiness {
        status: if failed.is_empty() { "ready" } else { "not_ready" },
        checks: checks.map(|(name, holds)| (name, if holds { "ok" } else { "failed" })).into(),
    }
}

/// `GET /metrics`, with a token unless the settings let everybody in.
pub(super) async fn metrics(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    if !api.vitals.metrics_without_token {
        request::usable_token(&api, request.headers()).await?;
    }
    let vitals = &api.vitals;
    let text = vitals.measurements.text(&api.store, vitals.connections.number(), api.now()).await?;
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((content_type, text).into_response())
}
