//! The HTTPS endpoint for vehicles: serves package bytes and their signatures, whole or in ranges
//! (protocol.md §5). Who may fetch what, the desk decides; who asks, the certificate says.

mod blocks;
mod downloads;
mod pace;
mod package;
mod problem;
mod range;
mod source;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::routing::get;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::desk::{PackageDesk, PeerIdentity};
use crate::stall::StallGuard;
use crate::tls::VehicleTls;
use crate::tls::listener::{ListenerLimits, VehicleListener, accept_vehicles};
use blocks::Blocks;
use downloads::Downloads;
use pace::Paces;
#[doc(hidden)]
#[cfg(any(test, fuzzing))]
pub use package::fuzzing::http_ranges;
use problem::Problem;
use source::LastSource;

/// Times and numbers that bound what a vehicle can hold.
#[derive(Debug, Clone)]
pub struct HttpsLimits {
    /// Connections at a time; more wait in the listen queue.
    pub connections: usize,
    /// TLS handshakes at a time; more wait.
    pub handshakes: usize,
    /// For the TLS handshake, with its wait.
    pub handshake: Duration,
    /// For a request's header.
    pub header: Duration,
    /// For a vehicle to take the next octets of an answer, or to send any where none are due.
    pub stall: Duration,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
    /// For requests under way, once the server stops.
    pub drain: Duration,
    /// Bytes of packages that leave in a second, at most; `None` = as many as can.
    pub bytes_per_second: Option<u64>,
}

impl Default for HttpsLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            handshakes: 256,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            stall: Duration::from_secs(60),
            streams: 8,
            drain: Duration::from_secs(10),
            bytes_per_second: None,
        }
    }
}

/// The largest header of a request, in octets.
const MOST_HEADER_OCTETS: u32 = 16 * 1024;
/// Octets of TLS records that are handed to the system in one call.
const TLS_BUFFER: usize = 256 * 1024;
/// Octets of one HTTP/2 answer that wait for the connection.
const STREAM_BUFFER: usize = 512 * 1024;

/// What all connections share.
#[derive(Debug, Default)]
struct Endpoint {
    blocks: Arc<Blocks>,
    downloads: Downloads,
    paces: Paces,
}

/// What the requests of one connection share.
#[derive(Debug)]
struct Connection {
    peer: PeerIdentity,
    endpoint: Arc<Endpoint>,
    last_source: LastSource,
}

/// Serves vehicles until `shutdown` is cancelled; then lets requests under way finish, and resolves
/// when they have, or their time to do so is over.
pub async fn serve<D: PackageDesk>(
    listener: TcpListener,
    tls: Arc<VehicleTls>,
    desk: Arc<D>,
    limits: HttpsLimits,
    shutdown: CancellationToken,
) {
    let listener_limits = ListenerLimits {
        connections: limits.connections,
        handshakes: limits.handshakes,
        handshake: limits.handshake,
    };
    let drain = limits.drain;
    let (router, stopping) = (router(Arc::clone(&desk)), shutdown.clone());
    let (endpoint, drained) = (
        Arc::new(Endpoint { paces: Paces::new(limits.bytes_per_second), ..Endpoint::default() }),
        CancellationToken::new(),
    );
    let of_connections = Arc::clone(&endpoint);
    let accepting = async {
        let mut tasks = accept_vehicles(listener, tls, VehicleListener::Https, listener_limits, &shutdown, {
            move |stream, peer| {
                let endpoint = Arc::clone(&of_connections);
                let connection = Arc::new(Connection { peer, endpoint, last_source: LastSource::default() });
                serve_connection(stream, connection, router.clone(), limits.clone(), stopping.clone())
            }
        })
        .await;
        if timeout(drain, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!("Some downloads did not end in time and are cut; the vehicles will resume them.");
        }
        tasks.shutdown().await;
        drained.cancel();
    };
    tokio::join!(accepting, endpoint.downloads.keep_telling(&*desk, drained.clone()));
}

fn router<D: PackageDesk>(desk: Arc<D>) -> Router {
    Router::new()
        .route("/v1/packages/{pkg_id}/{file}", get(package::serve::<D>))
        .method_not_allowed_fallback(|| async { Problem::METHOD_NOT_ALLOWED })
        .fallback(|| async { Problem::NOT_FOUND })
        .with_state(desk)
}

async fn serve_connection(
    mut stream: TlsStream<TcpStream>,
    connection: Arc<Connection>,
    router: Router,
    limits: HttpsLimits,
    stopping: CancellationToken,
) {
    stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
    let client_id = connection.peer.common_name.clone();
    let service = tower::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&connection));
        router.clone().oneshot(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header).max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(MOST_HEADER_OCTETS)
        .max_send_buf_size(STREAM_BUFFER)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let stream = TokioIo::new(StallGuard::new(stream, limits.stall));
    let connection = builder.serve_connection(stream, TowerToHyperService::new(service));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(client_id, error, "A vehicle's HTTPS connection broke.");
    }
}

#[cfg(test)]
mod tests;
