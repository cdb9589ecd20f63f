//! Whether the server lives, whether it can serve, and what it measures: for orchestrators and Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
use crate::measurements::{self, Measurements};
use crate::mqtt::Connections;
use crate::store::audit;
use crate::tls::operator::OperatorTls;
use crate::tls::{ExpiryAlarms, Perishable, VehicleTls};

/// The store must have committed by then.
const STORE_TIME: Duration = Duration::from_secs(5);
/// Anybody may ask; the store is not asked more often than this.
const KEPT: Duration = Duration::from_secs(2);

/// The certificates and lists by which vehicles and operators are served.
#[derive(Clone)]
pub(crate) struct Trust {
    pub(crate) vehicles: Arc<VehicleTls>,
    pub(crate) operators: Option<Arc<OperatorTls>>,
    pub(crate) alarms: ExpiryAlarms,
}

impl Trust {
    /// What ends soon or has ended, each kind once.
    fn alarms(&self, now: UnixMillis) -> BTreeSet<&'static str> {
        let operators = self.operators.iter().flat_map(|tls| tls.alarms(now, &self.alarms));
        let alarms = self.vehicles.alarms(now, &self.alarms).into_iter().chain(operators);
        alarms.map(|alarm| alarm.of.name()).collect()
    }

    /// What ends soon or has ended, and when.
    fn ending(&self, now: UnixMillis) -> Vec<(&'static str, UnixMillis)> {
        let (alarms, ends) = (self.alarms(now), self.ends());
        let ending = ends.into_iter().map(|(of, at)| (of.name(), at));
        ending.filter(|(name, _)| alarms.contains(name)).collect()
    }

    /// When each kind ends.
    fn ends(&self) -> BTreeMap<Perishable, UnixMillis> {
        let mut ends = self.vehicles.ends();
        ends.extend(self.operators.iter().flat_map(|tls| tls.ends()));
        ends
    }
}

/// What is looked at besides the store.
#[derive(Clone)]
pub(crate) struct Vitals {
    pub(crate) connections: Arc<Connections>,
    pub(crate) measurements: Measurements,
    pub(crate) trust: Trust,
    /// Whether this server is at its broker; `None` where vehicles connect to it.
    pub(crate) broker: Option<Arc<AtomicBool>>,
    /// Cancelled when the server stops.
    pub(crate) stopping: CancellationToken,
    pub(crate) metrics_without_token: bool,
    /// When this server started.
    pub(crate) since: Instant,
    last: Arc<Mutex<Option<(Instant, Readiness)>>>,
}

impl Vitals {
    /// Certificates and lists that end soon or have ended, and when.
    pub(crate) fn ending(&self, now: UnixMillis) -> Vec<(&'static str, UnixMillis)> {
        self.trust.ending(now)
    }

    /// When each kind of certificate or list ends, and whether that is soon or over.
    pub(crate) fn ends(&self, now: UnixMillis) -> Vec<(Perishable, UnixMillis, bool)> {
        let alarms = self.trust.alarms(now);
        self.trust.ends().into_iter().map(|(of, at)| (of, at, alarms.contains(of.name()))).collect()
    }

    pub(crate) fn new(
        connections: Arc<Connections>,
        trust: Trust,
        broker: Option<Arc<AtomicBool>>,
        stopping: CancellationToken,
        metrics_without_token: bool,
    ) -> Self {
        let measurements = Measurements::of_this_process();
        Self {
            connections,
            measurements,
            trust,
            broker,
            stopping,
            metrics_without_token,
            since: Instant::now(),
            last: Arc::default(),
        }
    }
}

/// Whether the server can serve, and what of it can.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Readiness {
    status: &'static str,
    pub(crate) checks: BTreeMap<&'static str, &'static str>,
    /// Certificates and lists that end soon or have ended.
    alarms: BTreeSet<&'static str>,
}

impl Readiness {
    pub(crate) fn is_ready(&self) -> bool {
        self.status == "ready"
    }
}

/// `GET /healthz`: the process answers and its store can be read.
pub(super) async fn healthz(State(api): State<Api>) -> Result<Response, Problem> {
    api.read(|tx| Ok(audit::head(tx)?)).await?;
    Ok(Json(serde_json::json!({"status": "ok"})).into_response())
}

/// `GET /readyz`: vehicles and operators can be sent here.
pub(super) async fn readyz(State(api): State<Api>) -> Response {
    let readiness = readiness(&api).await;
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

/// How the server is, looked at no more often than every two seconds.
pub(crate) async fn readiness(api: &Api) -> Readiness {
    let mut last = api.vitals.last.lock().await;
    match last.as_ref() {
        Some((at, readiness)) if at.elapsed() < KEPT && !api.vitals.stopping.is_cancelled() => {
            readiness.clone()
        }
        Some(_) | None => {
            let readiness = look(api).await;
            *last = Some((Instant::now(), readiness.clone()));
            readiness
        }
    }
}

async fn look(api: &Api) -> Readiness {
    let (trust, now) = (&api.vitals.trust, api.now());
    let commits = timeout(STORE_TIME, api.write(|tx, _, _| Ok(audit::touch(tx)?))).await;
    let mut checks = vec![
        ("store", matches!(commits, Ok(Ok(())))),
        ("certificates", trust.vehicles.lets_vehicles_in(now)),
        ("listeners", !api.vitals.stopping.is_cancelled()),
    ];
    checks.extend(api.vitals.broker.iter().map(|broker| ("broker", broker.load(Ordering::Relaxed))));
    let failed: Vec<_> = checks.iter().filter(|(_, holds)| !holds).map(|(name, _)| *name).collect();
    if !failed.is_empty() {
        tracing::warn!(failed = failed.join(", "), "The server is not ready.");
    }
    Readiness {
        status: if failed.is_empty() { "ready" } else { "not_ready" },
        checks: checks.iter().map(|&(name, holds)| (name, if holds { "ok" } else { "failed" })).collect(),
        alarms: trust.alarms(now),
    }
}

/// `GET /metrics`, with a token unless the settings let everybody in.
pub(super) async fn metrics(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    if !api.vitals.metrics_without_token {
        request::usable_token(&api, request.headers()).await?;
    }
    let vitals = &api.vitals;
    measurements::perishables(vitals.trust.ends(), api.now());
    let text = vitals.measurements.text(&api.store, vitals.connections.number(), api.now()).await?;
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((content_type, text).into_response())
}
