//! The DoIP connection to one controller, shared by the ECUs behind it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use farrier_diagnostics::doip::{
    self, ActivationTypeCode, DIAGNOSTIC_PREFIX_LENGTH, DiagnosticNackCode, Frame, LogicalAddress, Message,
    MessageCodec, MessageError, OwnedMessage, OwnedPayload, RoutingActivationResponseCode,
};
use farrier_protocol::MacAddress;
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::codec::FramedRead;

use super::discovery;
use crate::topology::{ControllerTls, DoIpEntity, EntityAddress};

/// How long a controller may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How long the TLS handshake may take: small controllers need a second for a signature.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long it may take to answer the routing activation (ISO 13400-2, A_DoIP_Ctrl).
const ACTIVATION: Duration = Duration::from_secs(2);

/// Frames on their way to a controller: about one for each ECU that is being written.
const OUTGOING: usize = 32;

/// Answers of one ECU that nobody has looked at; one request is outstanding, so the rest is late.
const UNREAD_ANSWERS: usize = 16;

/// Answers are short.
const READ_BUFFER: usize = 4 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody there.
    #[error("expected a DoIP entity at {address}; check its address and the network")]
    Tcp {
        /// Where.
        address: SocketAddr,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The entity is not the one that the certificates say.
    #[error("expected TLS with {address}; check the certificates on both sides")]
    Tls {
        /// Where.
        address: SocketAddr,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// Nobody of this EID there.
    #[error(
        "expected the DoIP entity with EID {eid} to answer at {asked} (UDP); check that it is powered and its eid"
    )]
    NotFound {
        /// The EID.
        eid: MacAddress,
        /// Where it was asked for.
        asked: SocketAddr,
    },
    /// Nobody there in time.
    #[error("expected {what} from {address} within {}s", .limit.as_secs())]
    Timeout {
        /// Where.
        address: SocketAddr,
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// The entity does not speak DoIP as we do.
    #[error("expected DoIP frames from {address}")]
    Frame {
        /// Where.
        address: SocketAddr,
        /// What happened.
        #[source]
        source: MessageError,
    },
    /// The CAN interface cannot be used.
    #[error("expected CAN interface {interface}; see whether it is up (`ip link`)")]
    Can {
        /// Its name.
        interface: String,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// Whoever listens there is no socketcand server, or does not have the interface.
    #[error("expected socketcand at {address} to agree to {request}, it closed the connection")]
    Socketcand {
        /// Where.
        address: SocketAddr,
        /// What it was asked.
        request: String,
    },
    /// The entity closed the connection before routing was activated.
    #[error("expected {address} to activate routing, it closed the connection")]
    Closed {
        /// Where.
        address: SocketAddr,
    },
    /// The entity does not want this tester.
    #[error("expected {address} to activate routing for this tester, it answered {code:?}")]
    Denied {
        /// Where.
        address: SocketAddr,
        /// Its answer.
        code: RoutingActivationResponseCode,
    },
}

/// What comes from an ECU.
#[derive(Debug)]
pub(super) enum FromEcu {
    /// A UDS message.
    Answer(Vec<u8>),
    /// Its controller did not take a message for it.
    Refused(DiagnosticNackCode),
}

/// A frame on its way out.
#[derive(Debug)]
enum ToController {
    Diagnostic { prefix: [u8; DIAGNOSTIC_PREFIX_LENGTH], uds: Bytes },
    Control(BytesMut),
}

/// One controller: connects when it is needed, again when the connection was lost.
#[derive(Debug)]
pub(super) struct ControllerLink {
    name: String,
    entity: DoIpEntity,
    tester: LogicalAddress,
    connection: tokio::sync::Mutex<Option<Connection>>,
}

impl ControllerLink {
    pub(super) fn new(name: String, entity: &DoIpEntity, tester: LogicalAddress) -> Self {
        Self { name, entity: entity.clone(), tester, connection: tokio::sync::Mutex::new(None) }
    }

    /// Where the controller listens: as the topology file says, or as its EID answers now.
    pub(super) async fn locate(&self) -> Result<SocketAddr, ConnectError> {
        match &self.entity.address {
            EntityAddress::Fixed(address) => Ok(*address),
            EntityAddress::OfEid { eid, port } => {
                let asked = self.entity.discovery;
                let found = discovery::address_of(asked, eid).await;
                let found = found.ok_or_else(|| ConnectError::NotFound { eid: eid.clone(), asked })?;
                Ok(SocketAddr::new(found, *port))
            }
        }
    }

    pub(super) fn is_found_by_eid(&self) -> bool {
        matches!(self.entity.address, EntityAddress::OfEid { .. })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A channel to one ECU behind this controller.
    pub(super) async fn channel(&self, ecu: LogicalAddress) -> Result<DoIpChannel, ConnectError> {
        let mut connection = self.connection.lock().await;
        if let Some(channel) = connection.as_ref().and_then(|open| open.channel(self.tester, ecu)) {
            return Ok(channel);
        }
        // The dead one goes first: the entity may know the tester only once.
        *connection = None;
        let address = self.locate().await?;
        let fresh = Connection::open(address, self.entity.tls.as_ref(), self.tester).await?;
        tracing::debug!(controller = self.name, "Routing to the controller's ECUs is activated.");
        let channel = fresh.channel(self.tester, ecu);
        *connection = Some(fresh);
        channel.ok_or(ConnectError::Closed { address })
    }
}

/// Who waits for the answers of each ECU, by its logical address.
type Waiting = HashMap<u16, mpsc::Sender<FromEcu>>;

/// Where the answers of each ECU go; nothing once the connection is lost.
#[derive(Debug, Clone)]
struct Routes(Arc<Mutex<Option<Waiting>>>);

impl Routes {
    fn lock(&self) -> MutexGuard<'_, Option<Waiting>> {
        // The map is never left half changed, so it is good even after a panic elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what came from an ECU; late answers that nobody waits for are dropped.
    fn deliver(&self, ecu: LogicalAddress, message: FromEcu) {
        if let Some(waiting) = self.lock().as_ref().and_then(|routes| routes.get(&ecu.0)) {
            let _ = waiting.try_send(message);
        }
    }
}

/// Both halves of a connection, encrypted or not.
type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// One connection with activated routing; ends when this is dropped.
#[derive(Debug)]
struct Connection {
    frames: mpsc::Sender<ToController>,
    routes: Routes,
    _task: JoinSet<()>,
}

impl Connection {
    async fn open(
        address: SocketAddr,
        tls: Option<&ControllerTls>,
        tester: LogicalAddress,
    ) -> Result<Self, ConnectError> {
        let tcp = |source| ConnectError::Tcp { address, source };
        let timed_out = |what, limit| ConnectError::Timeout { address, what, limit };
        let stream = timeout(CONNECT, TcpStream::connect(address))
            .await
            .map_err(|_| timed_out("a connection", CONNECT))?
            .map_err(tcp)?;
        // Requests and answers are small and alternate: Nagle's algorithm would delay each.
        stream.set_nodelay(true).map_err(tcp)?;
        let (reader, mut writer): (Reader, Writer) = match tls {
            None => {
                let (reader, writer) = stream.into_split();
                (Box::new(reader), Box::new(writer))
            }
            Some(tls) => {
                let handshake = timeout(HANDSHAKE, tls.connect(stream)).await;
                let stream = handshake.map_err(|_| timed_out("a TLS handshake", HANDSHAKE))?;
                let (reader, writer) =
                    tokio::io::split(stream.map_err(|source| ConnectError::Tls { address, source })?);
                (Box::new(reader), Box::new(writer))
            }
        };
        let mut reader = FramedRead::with_capacity(reader, doip::codec(), READ_BUFFER);
        timeout(ACTIVATION, activate(&mut reader, &mut writer, address, tester))
            .await
            .map_err(|_| timed_out("an answer to the routing activation", ACTIVATION))??;

        let (frames, frames_to_send) = mpsc::channel(OUTGOING);
        let routes = Routes(Arc::new(Mutex::new(Some(HashMap::new()))));
        let mut task = JoinSet::new();
        task.spawn(serve(reader, writer, frames_to_send, frames.clone(), routes.clone(), tester));
        Ok(Self { frames, routes, _task: task })
    }

    /// A channel to an ECU; nothing if the connection is lost.
    fn channel(&self, tester: LogicalAddress, ecu: LogicalAddress) -> Option<DoIpChannel> {
        let (answers, unread) = mpsc::channel(UNREAD_ANSWERS);
        self.routes.lock().as_mut()?.insert(ecu.0, answers);
        let (frames, routes) = (self.frames.clone(), self.routes.clone());
        Some(DoIpChannel { tester, ecu, frames, routes, unread })
    }
}

async fn activate(
    reader: &mut FramedRead<Reader, MessageCodec>,
    writer: &mut Writer,
    address: SocketAddr,
    tester: LogicalAddress,
) -> Result<(), ConnectError> {
    let failed = |source| ConnectError::Frame { address, source };
    let mut frame = BytesMut::new();
    let request =
        Message::routing_activation_request(doip::VERSION, tester, ActivationTypeCode::Default, None);
    doip::append_frame(&mut frame, &request).map_err(failed)?;
    let written = async {
        writer.write_all(&frame).await?;
        writer.flush().await
    };
    written.await.map_err(|source| ConnectError::Tcp { address, source })?;
    while let Some(frame) = reader.next().await {
        let Frame::Message(message) = frame.map_err(failed)? else { continue };
        let OwnedPayload::RoutingActivationResponse(response) = message.payload else { continue };
        let code = response.routing_activation_response_code;
        let activated = code == RoutingActivationResponseCode::RoutingSuccessfullyActivated;
        return if activated { Ok(()) } else { Err(ConnectError::Denied { address, code }) };
    }
    Err(ConnectError::Closed { address })
}

/// Reads and writes until one of them ends; then everybody who waits for an answer learns of it.
async fn serve(
    reader: FramedRead<Reader, MessageCodec>,
    writer: Writer,
    frames_to_send: mpsc::Receiver<ToController>,
    frames: mpsc::Sender<ToController>,
    routes: Routes,
    tester: LogicalAddress,
) {
    tokio::select! {
        () = read(reader, &frames, &routes, tester) => {}
        () = write(writer, frames_to_send) => {}
    }
    *routes.lock() = None;
}

async fn write(mut writer: Writer, mut frames: mpsc::Receiver<ToController>) {
    while let Some(frame) = frames.recv().await {
        let written = match frame {
            // Header and block go out in one vectored write: the block is not copied.
            ToController::Diagnostic { prefix, uds } => {
                writer.write_all_buf(&mut prefix.as_slice().chain(uds)).await
            }
            ToController::Control(frame) => writer.write_all(&frame).await,
        };
        // TLS keeps what the socket did not take at once.
        let flushed = match written {
            Ok(()) => writer.flush().await,
            Err(error) => Err(error),
        };
        if let Err(error) = flushed {
            tracing::debug!(%error, "The connection to a controller was lost.");
            return;
        }
    }
}

async fn read(
    mut reader: FramedRead<Reader, MessageCodec>,
    frames: &mpsc::Sender<ToController>,
    routes: &Routes,
    tester: LogicalAddress,
) {
    while let Some(frame) = reader.next().await {
        match frame {
            Ok(Frame::Message(message)) => take(message, frames, routes, tester),
            // A kind of message that we do not know is not for us.
            Ok(_) => {}
            // Some entities end TLS without saying so: that is a closed connection like any other.
            Err(MessageError::Std(error)) => {
                tracing::debug!(%error, "A controller closed its connection.");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "A controller sent what is no DoIP frame; its connection is closed.");
                return;
            }
        }
    }
}

fn take(message: OwnedMessage, frames: &mpsc::Sender<ToController>, routes: &Routes, tester: LogicalAddress) {
    match message.payload {
        OwnedPayload::DiagnosticMessage(answer) if answer.target_address == tester => {
            routes.deliver(answer.source_address, FromEcu::Answer(answer.user_data));
        }
        OwnedPayload::DiagnosticMessageNack(refusal) => {
            routes.deliver(refusal.source_address, FromEcu::Refused(refusal.nack_code));
        }
        OwnedPayload::AliveCheckRequest => {
            let mut frame = BytesMut::new();
            let response = Message::alive_check_response(doip::VERSION, tester);
            if doip::append_frame(&mut frame, &response).is_ok() {
                // A full queue shows that we are alive.
                let _ = frames.try_send(ToController::Control(frame));
            }
        }
        OwnedPayload::DoIPNack(code) => {
            tracing::warn!(?code, "A controller refused a frame.");
        }
        OwnedPayload::DiagnosticMessage(_)
        | OwnedPayload::DiagnosticMessageAck(_)
        | OwnedPayload::AliveCheckResponse(_)
        | OwnedPayload::EntityStatusRequest
        | OwnedPayload::EntityStatusResponse(_)
        | OwnedPayload::PowerModeInfoRequest
        | OwnedPayload::PowerModeInfoResponse(_)
        | OwnedPayload::RoutingActivationRequest(_)
        | OwnedPayload::RoutingActivationResponse(_)
        | OwnedPayload::VehicleAnnouncement(_)
        | OwnedPayload::VehicleIdentificationRequest
        | OwnedPayload::VehicleIdentificationRequestWithEid(_)
        | OwnedPayload::VehicleIdentificationRequestWithVin(_)
        | OwnedPayload::VehicleIdentificationResponse(_) => {}
        // The enum may grow.
        _ => {}
    }
}

/// The way to one ECU and back.
#[derive(Debug)]
pub(super) struct DoIpChannel {
    tester: LogicalAddress,
    ecu: LogicalAddress,
    frames: mpsc::Sender<ToController>,
    routes: Routes,
    unread: mpsc::Receiver<FromEcu>,
}

impl DoIpChannel {
    /// Sends a UDS message of at most 65,535 bytes; if the connection is lost, [`DoIpChannel::receive`] says so.
    pub(super) async fn send(&self, uds: Bytes) {
        let Ok(length) = u16::try_from(uds.len()) else { return };
        let prefix = doip::diagnostic_message_prefix(self.tester, self.ecu, length);
        let _ = self.frames.send(ToController::Diagnostic { prefix, uds }).await;
    }

    /// What comes from the ECU; nothing once the connection is lost. Can be dropped at any time.
    pub(super) async fn receive(&mut self) -> Option<FromEcu> {
        self.unread.recv().await
    }
}

impl Drop for DoIpChannel {
    fn drop(&mut self) {
        if let Some(routes) = self.routes.lock().as_mut() {
            routes.remove(&self.ecu.0);
        }
    }
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
