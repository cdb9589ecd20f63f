//! Accepts vehicles: the TCP connection, the TLS handshake, the identity in the certificate.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::revocation::{CertificateKey, Presence};
use super::{VehicleTls, peer_identity, refused};
use crate::desk::PeerIdentity;
use crate::measurements::{self, Handshake};

/// Out of file descriptors or the like: trying again at once would only burn the processor.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// Which of the vehicles' listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VehicleListener {
    Mqtt,
    Https,
}

impl VehicleListener {
    fn config(self, tls: &VehicleTls) -> Arc<ServerConfig> {
        match self {
            Self::Mqtt => tls.mqtt(),
            Self::Https => tls.https(),
        }
    }

    /// How long a connection may take to end by itself when its certificate is revoked: MQTT says why.
    fn farewell(self) -> Duration {
        match self {
            Self::Mqtt => Duration::from_secs(5),
            Self::Https => Duration::ZERO,
        }
    }
}

pub(crate) struct ListenerLimits {
    /// Connections at a time, with those that are still in their handshake.
    pub(crate) connections: usize,
    /// Handshakes at a time; a connection that has sent nothing yet is not in its handshake.
    pub(crate) handshakes: usize,
    pub(crate) handshake: Duration,
}

/// Accepts until `shutdown`; each connection gets a task. Gives back those that still run.
/// Each handshake takes the TLS settings that are current at its time; a connection whose certificate is revoked
/// later is cut.
pub(crate) async fn accept_vehicles<F, Served>(
    listener: TcpListener,
    tls: Arc<VehicleTls>,
    which: VehicleListener,
    limits: ListenerLimits,
    shutdown: &CancellationToken,
    serve: F,
) -> JoinSet<()>
where
    F: Fn(TlsStream<TcpStream>, PeerIdentity) -> Served + Clone + Send + 'static,
    Served: Future<Output = ()> + Send,
{
    let places = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    let handshakes = Arc::new(Semaphore::new(limits.handshakes.min(Semaphore::MAX_PERMITS)));
    let mut tasks = JoinSet::new();
    loop {
        // Finished tasks are let go of as new connections come.
        while tasks.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return tasks,
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (listener.accept().await, place)
            } => accepted,
        };
        let ((stream, address), place) = match accepted {
            (Ok(connection), Ok(place)) => (connection, place),
            (Err(error), _) => {
                tracing::warn!(%error, "A connection could not be accepted.");
                sleep(AFTER_FAILED_ACCEPT).await;
                continue;
            }
            (Ok(_), Err(_)) => return tasks,
        };
        let (tls, serve, handshake) = (Arc::clone(&tls), serve.clone(), limits.handshake);
        let handshakes = Arc::clone(&handshakes);
        tasks.spawn(async move {
            let _place = place;
            // Boxed, so that the handshake's memory is given back before the connection is served.
            let shaking = shake_hands(stream, &tls, which, handshakes);
            match Box::pin(timeout(handshake, shaking)).await {
                Ok(Ok((stream, peer, presence))) => {
                    measurements::handshake(Handshake::Done);
                    let mut serving = Box::pin(serve(stream, peer));
                    tokio::select! {
                        () = &mut serving => {}
                        () = presence.revoked() => {
                            tracing::info!(%address, "A connection is cut: its certificate was revoked.");
                            // Whether it took its leave in time does not matter: it ends.
                            let _ = timeout(which.farewell(), serving).await;
                        }
                    }
                }
                Ok(Err(NotLetIn { error, revoked })) => {
                    measurements::handshake(Handshake::Refused);
                    tracing::info!(%address, %error, "A TLS handshake was refused.");
                    if let Some(peer) = revoked {
                        tls.refused.note(peer, address.ip());
                    }
                }
                Err(_) => {
                    measurements::handshake(Handshake::TooSlow);
                    tracing::debug!(%address, "A TLS handshake took too long.");
                }
            }
        });
    }
}

/// Why a handshake let nobody in.
struct NotLetIn {
    error: std::io::Error,
    /// Whose certificate is revoked, where that is why.
    revoked: Option<PeerIdentity>,
}

impl From<std::io::Error> for NotLetIn {
    fn from(error: std::io::Error) -> Self {
        Self { error, revoked: None }
    }
}

async fn shake_hands(
    stream: TcpStream,
    tls: &VehicleTls,
    which: VehicleListener,
    handshakes: Arc<Semaphore>,
) -> Result<(TlsStream<TcpStream>, PeerIdentity, Presence), NotLetIn> {
    // Without it, each small packet could wait for the acknowledgement of the one before.
    stream.set_nodelay(true)?;
    // Whoever connects and says nothing keeps nobody else from a handshake.
    stream.peek(&mut [0]).await?;
    let _one_of_them = handshakes.acquire().await.map_err(std::io::Error::other)?;
    let (accepted, revoked) = refused::noting(TlsAcceptor::from(which.config(tls)).accept(stream)).await;
    let stream = accepted.map_err(|error| NotLetIn { error, revoked })?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| std::io::Error::other("the peer has no certificate"))?;
    let peer = peer_identity(certificate).map_err(std::io::Error::other)?;
    let key = CertificateKey::of_certificate(certificate)
        .ok_or_else(|| std::io::Error::other("it is no certificate"))?;
    match tls.live.enter(key, &peer) {
        Some(presence) => Ok((stream, peer, presence)),
        None => {
            let error = std::io::Error::other("its certificate was revoked during the handshake");
            Err(NotLetIn { error, revoked: Some(peer) })
        }
    }
}
