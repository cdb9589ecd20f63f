//! The listener for operators: HTTPS, or plain HTTP where the settings say so; HTTP/1.1 and HTTP/2, each connection
//! bounded in time and number. What is answered, the API says.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::lingering::Lingering;
use crate::stall::StallGuard;
use crate::tls::operator::OperatorTls;

/// Connections at a time; more wait in the listen queue.
const CONNECTIONS: usize = 1_000;
/// For the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For a request's header.
const HEADER: Duration = Duration::from_secs(10);
/// For an operator to take the next octets of an answer, or to send any where none are due. What follows something
/// for longer must say now and then that it is still there.
const STALL: Duration = Duration::from_secs(120);
/// The largest header of a request, in octets.
const MOST_HEADER_OCTETS: usize = 32 * 1024;
/// Requests at a time on one HTTP/2 connection.
const STREAMS: u32 = 64;
/// For requests under way, once the server stops.
const DRAIN: Duration = Duration::from_secs(10);
/// Out of file descriptors or the like: trying again at once would only burn the processor.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// What every answer says to browsers, unless it says otherwise itself: nothing in it is a page, and nothing of it
/// is kept.
const ANSWER_HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];
/// Only where TLS is spoken: a year.
const STRICT_TRANSPORT: (HeaderName, HeaderValue) =
    (header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));

/// Serves operators until `shutdown`; then lets requests under way finish, within their time.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<OperatorTls>>,
    app: Router,
    shutdown: CancellationToken,
) {
    let app = app
        .layer(tower_http::catch_panic::CatchPanicLayer::new())
        .layer(middleware::from_fn_with_state(tls.is_some(), with_headers));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = JoinSet::new();
    loop {
        // Finished tasks are let go of as new connections come.
        while tasks.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (listener.accept().await, place)
            } => accepted,
        };
        let (stream, address) = match accepted.0 {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "An operator's connection could not be accepted.");
                sleep(AFTER_FAILED_ACCEPT).await;
                continue;
            }
        };
        let (place, tls, app, stopping) = (accepted.1, tls.clone(), app.clone(), shutdown.clone());
        tasks.spawn(async move {
            let _place = place;
            if let Err(error) = serve_connection(stream, address, tls, app, stopping).await {
                tracing::debug!(%address, error, "An operator's connection broke.");
            }
        });
    }
    if timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!("Some operators' requests did not end in time and are cut.");
    }
    tasks.shutdown().await;
}

async fn with_headers(State(is_tls): State<bool>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in ANSWER_HEADERS.into_iter().chain(is_tls.then_some(STRICT_TRANSPORT)) {
        headers.entry(name).or_insert(value);
    }
    response
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

async fn serve_connection(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<Arc<OperatorTls>>,
    app: Router,
    stopping: CancellationToken,
) -> Result<(), Broken> {
    stream.set_nodelay(true)?;
    match tls {
        None => serve_http(stream, address, app, stopping).await,
        Some(tls) => {
            let handshake = timeout(HANDSHAKE, TlsAcceptor::from(tls.config()).accept(stream)).await;
            let stream = handshake.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            serve_http(stream, address, app, stopping).await
        }
    }
}

async fn serve_http<S>(
    stream: S,
    address: SocketAddr,
    app: Router,
    stopping: CancellationToken,
) -> Result<(), Broken>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = tower::service_fn(move |mut request: axum::http::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        app.clone().oneshot(request)
    });
    let stream = TokioIo::new(Lingering::new(StallGuard::new(stream, STALL)));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER).max_buf_size(MOST_HEADER_OCTETS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(MOST_HEADER_OCTETS).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let connection = builder.serve_connection(stream, TowerToHyperService::new(service));
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

#[cfg(test)]
mod tests;
