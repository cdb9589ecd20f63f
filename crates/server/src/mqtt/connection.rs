//! One connection of a vehicle, from CONNECT to the last octet: carries out what the session decides.
//! An idle connection holds no buffers.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use farrier_protocol::{Binding, MsgId, Topics};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use futures_util::{FutureExt, StreamExt};
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, DisconnectReasonCode, PubackReasonCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout};

use super::MqttLimits;
use super::connections::{Connections, Ending, Registration};
use super::frame::{Frame, FrameBuffer, FrameError};
use super::packet::{self, NoConnect, Version};
use super::session::{
    COMMAND_WINDOW, MAXIMUM_CONNECT_SIZE, MAXIMUM_PACKET_SIZE, RECEIVE_MAXIMUM, Received, Refused, Session,
    Step, Violation,
};
use crate::desk::{DeskUnavailable, Inbound, MessageDesk, PeerIdentity, PendingCommand, Receipt, WallClock};

/// What all connections share.
pub(super) struct Shared<D> {
    pub(super) desk: Arc<D>,
    pub(super) connections: Arc<Connections>,
    pub(super) topics: Arc<Topics>,
    pub(super) clock: WallClock,
    pub(super) limits: MqttLimits,
}

/// Messages that are being taken may hold so many octets together; beyond that nothing is read.
const MOST_OCTETS_BEING_TAKEN: usize = 1024 * 1024;
const READ_SIZE: usize = 16 * 1024;
const CONNECT_LIMIT: usize = MAXIMUM_CONNECT_SIZE;
const PACKET_LIMIT: usize = MAXIMUM_PACKET_SIZE as usize;

thread_local! {
    /// Read buffers are borrowed for the moment of a read, so that idle connections own none.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// It left, or the network broke.
    Gone,
    Violated(Violation),
    Silent,
    Ordered(Ending),
    DeskFailed(DeskUnavailable),
    /// It does not read what it is sent.
    Stalled,
}

impl From<Violation> for End {
    fn from(violation: Violation) -> Self {
        Self::Violated(violation)
    }
}

/// A message that the desk has answered.
struct Taken {
    packet_id: Option<u16>,
    reason: PubackReasonCode,
    octets: usize,
}

struct Connection<S, D> {
    stream: S,
    shared: Arc<Shared<D>>,
    peer: PeerIdentity,
    registration: Registration,
    session: Session,
    frames: FrameBuffer,
    /// Acknowledged in the order of arrival, as MQTT asks.
    being_taken: FuturesOrdered<BoxFuture<'static, Result<Taken, DeskUnavailable>>>,
    octets_being_taken: usize,
    deliveries: FuturesUnordered<BoxFuture<'static, Result<MsgId, DeskUnavailable>>>,
    look: Option<BoxFuture<'static, Result<Vec<PendingCommand>, DeskUnavailable>>>,
    look_wanted: bool,
    output: Vec<u8>,
    last_heard: Instant,
}

/// Serves a connection whose peer TLS has proved, until it ends.
pub(super) async fn serve<S, D>(mut stream: S, peer: PeerIdentity, shared: Arc<Shared<D>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    D: MessageDesk,
{
    let mut frames = FrameBuffer::default();
    let first = timeout(shared.limits.first_packet, first_frame(&mut stream, &mut frames)).await;
    let Ok(Ok(frame)) = first else {
        tracing::debug!(client_id = peer.common_name, "A connection ended before it sent a CONNECT.");
        return;
    };
    let (session, connack) = match open(&frame, &peer, &shared.topics) {
        Ok(opened) => opened,
        Err(answer) => return refuse(stream, &answer, &shared.limits).await,
    };
    let registration = shared.connections.register(session.client_id(), &peer.thumbprint);
    tracing::info!(client_id = peer.common_name, version = ?session.version(), "A vehicle connected.");
    let connection = Connection {
        stream,
        shared,
        peer,
        registration,
        session,
        frames,
        being_taken: FuturesOrdered::new(),
        octets_being_taken: 0,
        deliveries: FuturesUnordered::new(),
        look: None,
        look_wanted: false,
        output: connack,
        last_heard: Instant::now(),
    };
    connection.run().await;
}

async fn first_frame<S: AsyncRead + Unpin>(stream: &mut S, frames: &mut FrameBuffer) -> io::Result<Frame> {
    loop {
        match frames.next(CONNECT_LIMIT) {
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

/// Judges the first packet; the error is what to answer, nothing for what is no MQTT.
fn open(frame: &Frame, peer: &PeerIdentity, topics: &Arc<Topics>) -> Result<(Session, Vec<u8>), Vec<u8>> {
    let (version, reason, what) = match packet::decode_connect(frame) {
        Ok(connect) => {
            let version = connect.version;
            let claimed = connect.client_id.clone();
            match Session::open(connect, peer, topics) {
                Ok(opened) => return Ok(opened),
                Err(Refused { reason, what }) => {
                    if claimed != peer.common_name {
                        tracing::warn!(
                            security_event = "foreign_client_id",
                            common_name = peer.common_name,
                            claimed_length = claimed.len(),
                            "A vehicle claimed a client id that is not its own."
                        );
                    }
                    (version, reason, what)
                }
            }
        }
        Err(NoConnect::UnknownVersion) => (
            Version::V5_0,
            ConnectReasonCode::UnsupportedProtocolVersion,
            "it speaks neither MQTT 5.0 nor 3.1.1",
        ),
        Err(NoConnect::Malformed(Some(Version::V5_0))) => {
            (Version::V5_0, ConnectReasonCode::MalformedPacket, "its CONNECT is malformed")
        }
        Err(NoConnect::Malformed(Some(Version::V3_1_1) | None)) => return Err(Vec::new()),
    };
    tracing::warn!(client_id = peer.common_name, "A vehicle's connection was refused: {what}.");
    Err(packet::refusing_connack(version, reason).unwrap_or_default())
}

async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: &[u8], limits: &MqttLimits) {
    if !answer.is_empty() && matches!(timeout(limits.write, send(&mut stream, answer)).await, Ok(Ok(()))) {
        close(&mut stream, limits).await;
    }
}

impl<S, D> Connection<S, D>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    D: MessageDesk,
{
    async fn run(mut self) {
        let end = loop {
            if let Err(end) = self.turn().await {
                break end;
            }
        };
        self.log(&end);
        self.finish(end).await;
    }

    /// Handles what is there, sends what is due, waits for one thing to happen.
    async fn turn(&mut self) -> Result<(), End> {
        self.handle_frames()?;
        self.start_look();
        self.write_output().await?;
        let reading = self.has_room();
        if !reading {
            // Its silence is ours: nothing is read until the desk has answered.
            self.last_heard = Instant::now();
        }
        let silence_ends = self.last_heard + self.session.longest_silence();
        let signal = Arc::clone(self.registration.signal());
        tokio::select! {
            biased;
            () = signal.notified() => {
                if let Some(ending) = signal.ending() {
                    return Err(End::Ordered(ending));
                }
                self.look_wanted |= signal.take_wake();
            }
            Some(taken) = self.being_taken.next() => {
                self.acknowledge(taken)?;
                // What is ready by now goes out in the same write.
                while let Some(Some(taken)) = self.being_taken.next().now_or_never() {
                    self.acknowledge(taken)?;
                }
            }
            // A look may have seen the command before it was delivered: until that look is over, the command stays
            // in flight, and so is not sent again.
            Some(delivered) = self.deliveries.next(), if self.look.is_none() => {
                self.look_wanted |= self.session.forget(&delivered.map_err(End::DeskFailed)?);
            }
            waiting = looked(&mut self.look), if self.look.is_some() => {
                self.look = None;
                let commands = self.session.commands(&waiting.map_err(End::DeskFailed)?, (self.shared.clock)())?;
                self.output.extend_from_slice(&commands);
            }
            read = read_some(&mut self.stream, &mut self.frames), if reading => match read {
                Ok(0) | Err(_) => return Err(End::Gone),
                Ok(_) => self.last_heard = Instant::now(),
            },
            () = sleep_until(silence_ends), if reading => return Err(End::Silent),
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.being_taken.len() < usize::from(RECEIVE_MAXIMUM)
            && self.octets_being_taken < MOST_OCTETS_BEING_TAKEN
    }

    fn handle_frames(&mut self) -> Result<(), End> {
        while self.has_room() {
            let violation = |reason, what| End::Violated(Violation { reason, what });
            let frame = match self.frames.next(PACKET_LIMIT) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(FrameError::TooLarge) => {
                    return Err(violation(
                        DisconnectReasonCode::PacketTooLarge,
                        "sent a packet above the limit",
                    ));
                }
                Err(FrameError::Malformed) => {
                    return Err(violation(DisconnectReasonCode::MalformedPacket, "sent no MQTT packet"));
                }
            };
            let packet = packet::decode(self.session.version(), &frame)
                .map_err(|reason| violation(reason, "sent a packet that is not allowed"))?;
            let step = self.session.handle(packet)?;
            self.carry_out(step)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, step: Step) -> Result<(), End> {
        match step {
            Step::Nothing => {}
            Step::Send(octets) => self.output.extend_from_slice(&octets),
            Step::Subscribed(octets) => {
                self.output.extend_from_slice(&octets);
                self.look_wanted = true;
            }
            Step::Receive(received) => self.receive(received),
            Step::Acknowledge { packet_id, reason } => {
                let taken = Taken { packet_id: Some(packet_id), reason, octets: 0 };
                self.being_taken.push_back(std::future::ready(Ok(taken)).boxed());
            }
            Step::Delivered { binding, msg_id } => self.deliver(binding, msg_id),
            Step::Leave => return Err(End::Gone),
        }
        Ok(())
    }

    fn receive(&mut self, received: Received) {
        let Received { packet_id, binding, topic, payload } = received;
        let octets = payload.len();
        self.octets_being_taken += octets;
        let inbound =
            Inbound { peer: self.peer.clone(), binding, topic, payload, received_at: (self.shared.clock)() };
        let desk = Arc::clone(&self.shared.desk);
        self.being_taken.push_back(
            async move {
                let reason = reason_of(desk.receive(inbound).await?);
                Ok(Taken { packet_id, reason, octets })
            }
            .boxed(),
        );
    }

    fn deliver(&mut self, binding: Binding, msg_id: MsgId) {
        let desk = Arc::clone(&self.shared.desk);
        self.deliveries.push(
            async move {
                desk.delivered(&binding, &msg_id).await?;
                Ok(msg_id)
            }
            .boxed(),
        );
    }

    /// One look at a time: a wake during a look makes another one afterwards.
    fn start_look(&mut self) {
        if !self.look_wanted || self.look.is_some() {
            return;
        }
        self.look_wanted = false;
        let Some(binding) = self.session.subscriber().cloned() else { return };
        let desk = Arc::clone(&self.shared.desk);
        self.look = Some(async move { desk.pending(&binding, COMMAND_WINDOW).await }.boxed());
    }

    fn acknowledge(&mut self, taken: Result<Taken, DeskUnavailable>) -> Result<(), End> {
        let Taken { packet_id, reason, octets } = taken.map_err(End::DeskFailed)?;
        self.octets_being_taken = self.octets_being_taken.saturating_sub(octets);
        if let Some(packet_id) = packet_id {
            let puback =
                packet::puback_for(self.session.version(), packet_id, reason).map_err(Violation::from)?;
            self.output.extend_from_slice(&puback);
        }
        Ok(())
    }

    async fn write_output(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let output = std::mem::take(&mut self.output);
        match timeout(self.shared.limits.write, send(&mut self.stream, &output)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::Stalled),
        }
    }

    fn log(&self, end: &End) {
        let client_id = self.session.client_id();
        match end {
            End::Gone => tracing::info!(client_id, "A vehicle disconnected."),
            End::Violated(violation) => tracing::warn!(
                client_id,
                reason = %violation.reason,
                "A vehicle's connection is closed: it {}.", violation.what
            ),
            End::Silent => {
                tracing::info!(client_id, "A vehicle's connection is closed: its keep alive is over.")
            }
            End::Ordered(ending) => {
                tracing::info!(client_id, ?ending, "A vehicle's connection is closed by the server.")
            }
            End::DeskFailed(error) => tracing::error!(
                client_id,
                error = error as &dyn std::error::Error,
                "A vehicle's connection is closed without acknowledgement, because the store failed."
            ),
            End::Stalled => tracing::info!(client_id, "A vehicle's connection is closed: it does not read."),
        }
    }

    /// Lets the desk finish what it has begun, acknowledges it where the vehicle is still there, and
    /// says why the connection ends.
    async fn finish(mut self, end: End) {
        let reason = match end {
            End::Gone | End::Stalled => None,
            End::Violated(violation) => Some(violation.reason),
            End::Silent => Some(DisconnectReasonCode::KeepAliveTimeout),
            End::Ordered(Ending::TakenOver) => Some(DisconnectReasonCode::SessionTakenOver),
            End::Ordered(Ending::CertificateRevoked) => Some(DisconnectReasonCode::NotAuthorized),
            End::Ordered(Ending::ShuttingDown) => Some(DisconnectReasonCode::ServerShuttingDown),
            End::DeskFailed(_) => Some(DisconnectReasonCode::ServerBusy),
        };
        // Acknowledgements are in order: after one that failed there are no more.
        let desk_works = !matches!(end, End::DeskFailed(_));
        if desk_works && timeout(self.shared.limits.drain, self.drain()).await.is_err() {
            tracing::warn!(
                client_id = self.session.client_id(),
                "A vehicle's last messages were not taken in time; it will send them again."
            );
        }
        let Some(reason) = reason else { return };
        self.output.extend(packet::disconnect(self.session.version(), reason).unwrap_or_default());
        if self.write_output().await.is_ok() {
            close(&mut self.stream, &self.shared.limits).await;
        }
    }

    async fn drain(&mut self) {
        while let Some(taken) = self.being_taken.next().await {
            if self.acknowledge(taken).is_err() {
                break;
            }
        }
        while self.deliveries.next().await.is_some() {}
    }
}

fn reason_of(receipt: Receipt) -> PubackReasonCode {
    match receipt {
        Receipt::Accepted | Receipt::Refused => PubackReasonCode::Success,
        Receipt::RefusedUnparsable => PubackReasonCode::PayloadFormatInvalid,
        Receipt::RefusedIdentity => PubackReasonCode::NotAuthorized,
        Receipt::RefusedRate => PubackReasonCode::QuotaExceeded,
    }
}

async fn looked<T>(look: &mut Option<BoxFuture<'static, T>>) -> T {
    match look {
        Some(look) => look.await,
        None => std::future::pending().await,
    }
}

/// Reads what is there into the frames; zero at the end of the stream. Cancel-safe.
async fn read_some<S: AsyncRead + Unpin>(stream: &mut S, frames: &mut FrameBuffer) -> io::Result<usize> {
    poll_fn(|context| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            frames.extend(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    })
    .await
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, octets: &[u8]) -> io::Result<()> {
    stream.write_all(octets).await?;
    stream.flush().await
}

/// Closes in a way that the last packet arrives: a socket that is closed with unread input would
/// take back what it has sent. Reads on for a moment, and not for ever.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, limits: &MqttLimits) {
    let lingering = async {
        stream.shutdown().await?;
        let mut rest = stream.take(u64::from(MAXIMUM_PACKET_SIZE) * 2);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // Whether the peer was polite does not matter any more.
    let _ = timeout(limits.linger, lingering).await;
}
