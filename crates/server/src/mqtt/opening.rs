//! The beginning of a connection, from the handshake to CONNACK: who may come in, and what whoever may not is
//! told. Once a connection is open, it is the connection's.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mqtt_protocol_core::mqtt::result_code::ConnectReasonCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use super::connection::Shared;
use super::connections::{NotRegistered, Registration};
use super::frame::{Frame, FrameBuffer, FrameError};
use super::meter::{Connecting, Meter};
use super::packet::{self, Connect, NoConnect, Version};
use super::session::{MAXIMUM_CONNECT_SIZE, Refused, Session, shortened};
use super::wire::{close, read_some, send};
use crate::desk::{MessageDesk, PeerEvent, PeerIdentity};

/// When whoever finds the server busy may try again.
const BUSY_FOR: Duration = Duration::from_secs(30);

/// A connection that came in.
pub(super) struct Opened {
    pub(super) session: Session,
    /// The packet that says so.
    pub(super) connack: Vec<u8>,
    pub(super) registration: Registration,
    pub(super) meter: Arc<Meter>,
    /// With what came after CONNECT.
    pub(super) frames: FrameBuffer,
}

/// Reads CONNECT and judges it; whoever does not come in is told why, and is gone when this resolves.
pub(super) async fn open<S, D>(stream: &mut S, peer: &PeerIdentity, shared: &Arc<Shared<D>>) -> Option<Opened>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    D: MessageDesk,
{
    let meter = shared.meters.of(&peer.thumbprint, Instant::now());
    // Whoever connects and never says CONNECT counts too.
    let connecting = meter.connecting(Instant::now());
    if let Connecting::BannedNow { remaining } = connecting {
        let times = shared.limits.connects_per_minute;
        let detail = format!(
            "The certificate connected more than {times} times in a minute; it is shut out for {} s.",
            remaining.as_secs()
        );
        shared.report(peer, PeerEvent::Banned, detail);
    }
    let mut frames = FrameBuffer::default();
    let patience = Duration::from_secs(shared.limits.first_packet_s);
    let Ok(Ok(frame)) = timeout(patience, first_frame(stream, &mut frames)).await else {
        tracing::debug!(client_id = peer.common_name, "A connection ended before it sent a CONNECT.");
        return None;
    };
    let answer = match packet::decode_connect(&frame) {
        Ok(connect) => {
            let (version, largest) = (connect.version, connect.maximum_packet_size);
            match admit(connect, connecting, peer, &meter, shared) {
                Ok((session, connack, registration)) => {
                    return Some(Opened { session, connack, registration, meter, frames });
                }
                Err(refused) => refusal(version, largest, &refused, peer),
            }
        }
        Err(no_connect) => answer_to_no_connect(no_connect, peer),
    };
    refuse(stream, &answer, shared).await;
    None
}

async fn first_frame<S: AsyncRead + Unpin>(stream: &mut S, frames: &mut FrameBuffer) -> io::Result<Frame> {
    loop {
        match frames.next(MAXIMUM_CONNECT_SIZE) {
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) => {}
            Err(FrameError::TooLarge | FrameError::Malformed) => {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        if read_some(stream, frames).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The checks of a CONNECT: the peer's rate, the packet itself, the server's load, other connections.
fn admit<D: MessageDesk>(
    connect: Connect,
    connecting: Connecting,
    peer: &PeerIdentity,
    meter: &Meter,
    shared: &Arc<Shared<D>>,
) -> Result<(Session, Vec<u8>, Registration), Refused> {
    let refused = |reason, what, retry_after| Refused { reason, what, retry_after };
    match connecting {
        Connecting::Allowed => {}
        Connecting::BannedNow { remaining } | Connecting::Banned { remaining } => {
            let what = "its certificate connects too often";
            return Err(refused(ConnectReasonCode::QuotaExceeded, what, Some(remaining)));
        }
    }
    let claimed = connect.client_id.clone();
    let opened = Session::open(connect, peer, &shared.topics, &shared.limits);
    if claimed != peer.common_name && meter.may_report(Instant::now()) {
        let detail =
            format!("A vehicle claimed the client id {}, which is not its own.", shortened(&claimed));
        shared.report(peer, PeerEvent::ForeignClientId, detail);
    }
    let (session, connack) = opened?;
    let busy = |what| refused(ConnectReasonCode::ServerBusy, what, Some(BUSY_FOR));
    if shared.places.available_permits() == 0 {
        return Err(busy("the server has as many messages to take as it can"));
    }
    let most = shared.limits.connections;
    match shared.connections.register(session.client_id(), &peer.thumbprint, most) {
        Ok(registration) => Ok((session, connack, registration)),
        Err(NotRegistered::Full) => Err(busy("the server has as many connections as it takes")),
        Err(NotRegistered::OtherCertificate) => {
            if meter.may_report(Instant::now()) {
                let detail = "A second certificate came for a client that is connected with another one; it was refused.";
                shared.report(peer, PeerEvent::OtherCertificate, detail.to_owned());
            }
            let what = "its client is connected with another certificate";
            Err(refused(ConnectReasonCode::NotAuthorized, what, None))
        }
    }
}

fn refusal(version: Version, largest: u32, refused: &Refused, peer: &PeerIdentity) -> Vec<u8> {
    let Refused { reason, what, retry_after } = refused;
    tracing::warn!(client_id = peer.common_name, "A vehicle's connection was refused: {what}.");
    let hint = match retry_after {
        Some(after) => format!("{what}; try again in {} s", after.as_secs().max(1)),
        None => (*what).to_owned(),
    };
    let told = packet::refusing_connack(version, *reason, Some(&hint)).unwrap_or_default();
    // The words are left out where the vehicle takes no packet as large.
    if u32::try_from(told.len()).is_ok_and(|octets| octets <= largest) {
        return told;
    }
    packet::refusing_connack(version, *reason, None).unwrap_or_default()
}

/// What is answered to a first packet that cannot be judged; nothing to what is no MQTT.
fn answer_to_no_connect(no_connect: NoConnect, peer: &PeerIdentity) -> Vec<u8> {
    let (reason, what) = match no_connect {
        NoConnect::UnknownVersion => {
            (ConnectReasonCode::UnsupportedProtocolVersion, "it speaks neither MQTT 5.0 nor 3.1.1")
        }
        NoConnect::Malformed(Some(Version::V5_0)) => {
            (ConnectReasonCode::MalformedPacket, "its CONNECT is malformed")
        }
        NoConnect::Malformed(Some(Version::V3_1_1) | None) => return Vec::new(),
    };
    tracing::warn!(client_id = peer.common_name, "A vehicle's connection was refused: {what}.");
    packet::refusing_connack(Version::V5_0, reason, None).unwrap_or_default()
}

async fn refuse<S, D>(stream: &mut S, answer: &[u8], shared: &Shared<D>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let patience = Duration::from_secs(shared.limits.write_s);
    if !answer.is_empty() && matches!(timeout(patience, send(stream, answer)).await, Ok(Ok(()))) {
        close(stream, Duration::from_secs(shared.limits.linger_s)).await;
    }
}
