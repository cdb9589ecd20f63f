//! One connection of a vehicle, from CONNECT to the last octet: carries out what the session decides.
//! An idle connection holds no buffers.

use std::sync::Arc;
use std::time::Duration;

use farrier_protocol::{Binding, MsgId, Topics};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use futures_util::{FutureExt, StreamExt};
use mqtt_protocol_core::mqtt::result_code::{DisconnectReasonCode, PubackReasonCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use super::MqttLimits;
use super::connections::{Connections, Ending, Registration};
use super::frame::{Announced, FrameBuffer, FrameError};
use super::meter::{Meter, Meters, Rate};
use super::noted::Noted;
use super::opening::{self, Opened};
use super::packet::{self, Packet, Version};
use super::session::{COMMAND_WINDOW, Received, Session, Step, Violation};
use super::wire::{close, read_some, send};
use crate::desk::{
    DeskUnavailable, Inbound, MessageDesk, PeerEvent, PeerIdentity, PendingCommand, Receipt, WallClock,
    WhyGone,
};

/// What all connections share.
pub(super) struct Shared<D> {
    pub(super) desk: Arc<D>,
    pub(super) connections: Arc<Connections>,
    pub(super) topics: Arc<Topics>,
    pub(super) clock: WallClock,
    pub(super) limits: MqttLimits,
    pub(super) meters: Meters,
    /// Places for the messages of all connections that are arriving or being taken, each of [`PLACE`].
    pub(super) places: Arc<Semaphore>,
}

/// Octets that one place stands for. A smaller packet needs its place only once it is whole, so that an idle
/// or slow connection takes none; a larger one before it is read on.
const PLACE: usize = 16 * 1024;
/// Messages that are being taken may hold so many octets together; beyond that nothing is read.
const MOST_OCTETS_BEING_TAKEN: usize = 1024 * 1024;

impl<D: MessageDesk> Shared<D> {
    pub(super) fn new(
        desk: Arc<D>,
        connections: Arc<Connections>,
        topics: Topics,
        clock: WallClock,
        limits: MqttLimits,
    ) -> Self {
        let places = (limits.in_flight_mib as usize).saturating_mul(1024 * 1024) / PLACE;
        Self {
            desk,
            connections,
            topics: Arc::new(topics),
            clock,
            meters: Meters::new(&limits),
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            limits,
        }
    }

    /// Tells operators what a peer did, without making anybody wait for it.
    pub(super) fn report(&self, peer: &PeerIdentity, event: PeerEvent, detail: String) {
        tracing::warn!(security_event = event.name(), client_id = peer.common_name, "{detail}");
        let (desk, peer) = (Arc::clone(&self.desk), peer.clone());
        tokio::spawn(async move {
            if let Err(error) = desk.report(&peer, event, detail).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "A security event could not be stored; it is in the log only."
                );
            }
        });
    }
}

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// It said that it goes.
    Left,
    /// The network broke.
    Gone,
    Violated(Violation),
    Silent,
    Ordered(Ending),
    DeskFailed(DeskUnavailable),
    /// It does not read what it is sent.
    Stalled,
    /// It takes too long over a packet that it has begun.
    Slow,
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

/// A packet whose header is there.
#[derive(Debug, Clone, Copy)]
struct Arriving {
    began: Instant,
    whole_at: Option<Instant>,
}

struct Connection<S, D: MessageDesk> {
    stream: S,
    shared: Arc<Shared<D>>,
    peer: Arc<PeerIdentity>,
    registration: Registration,
    noted: Noted<D>,
    session: Session,
    meter: Arc<Meter>,
    frames: FrameBuffer,
    arriving: Option<Arriving>,
    /// For the packet that is arriving.
    place: Option<OwnedSemaphorePermit>,
    place_wanted: Option<BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>>,
    /// The vehicle has sent more than its share: nothing is read before.
    paused_until: Option<Instant>,
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
    // Boxed, so that an idle connection does not keep the room that its beginning needed.
    let Some(opened) = Box::pin(opening::open(&mut stream, &peer, &shared)).await else { return };
    let Opened { session, connack, registration, meter, frames } = opened;
    tracing::info!(client_id = peer.common_name, version = ?session.version(), "A vehicle connected.");
    let noted = Noted::begin(&shared, &peer.common_name);
    let mut connection = Connection {
        stream,
        shared,
        peer: Arc::new(peer),
        registration,
        noted,
        session,
        meter,
        frames,
        arriving: None,
        place: None,
        place_wanted: None,
        paused_until: None,
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

impl<S, D> Connection<S, D>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    D: MessageDesk,
{
    /// By reference, as all below it: a future keeps a place for everything that is moved into it.
    async fn run(&mut self) {
        let end = loop {
            if let Err(end) = self.turn().await {
                break end;
            }
        };
        self.log(&end);
        let (why, detail) = why_gone(&end);
        self.noted.end(why, detail);
        // Boxed, so that an idle connection does not keep the room that its end needs.
        Box::pin(self.finish(end)).await;
    }

    /// Handles what is there, sends what is due, waits for one thing to happen.
    async fn turn(&mut self) -> Result<(), End> {
        self.handle_frames()?;
        self.start_look();
        self.write_output().await?;
        let reading = self.reads();
        let silence_ends = self.last_heard + self.session.longest_silence();
        let packet_ends = self.arriving.map_or(silence_ends, |arriving| {
            arriving.began + Duration::from_secs(self.shared.limits.packet_s)
        });
        let pause_ends = self.paused_until;
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
            waiting = outcome(&mut self.look), if self.look.is_some() => {
                self.look = None;
                let commands = self.session.commands(&waiting.map_err(End::DeskFailed)?, (self.shared.clock)())?;
                self.output.extend_from_slice(&commands);
            }
            place = outcome(&mut self.place_wanted), if self.place_wanted.is_some() => {
                self.place_wanted = None;
                self.place = Some(place.map_err(|_| End::Gone)?);
            }
            () = sleep_until(pause_ends.unwrap_or(silence_ends)), if pause_ends.is_some() => self.paused_until = None,
            read = read_some(&mut self.stream, &mut self.frames), if reading => match read {
                Ok(0) | Err(_) => return Err(End::Gone),
                Ok(octets) => {
                    self.last_heard = Instant::now();
                    self.pause(self.meter.octets(octets, self.last_heard));
                }
            },
            () = sleep_until(silence_ends), if reading => return Err(End::Silent),
            () = sleep_until(packet_ends), if reading && self.arriving.is_some() => return Err(End::Slow),
        }
        if !reading {
            // Its silence was ours: nothing was read for want of room.
            self.last_heard = Instant::now();
            let began = self.last_heard;
            self.arriving = self.arriving.map(|arriving| Arriving { began, ..arriving });
        }
        Ok(())
    }

    /// Whether another packet may be handled.
    fn has_room(&self) -> bool {
        self.being_taken.len() < usize::from(self.shared.limits.unacknowledged)
            && self.octets_being_taken < MOST_OCTETS_BEING_TAKEN
            && self.paused_until.is_none()
            && self.place_wanted.is_none()
    }

    /// Whether anything is read: a packet that is whole waits for room, not for octets.
    fn reads(&self) -> bool {
        self.has_room() && self.arriving.is_none_or(|arriving| arriving.whole_at.is_none())
    }

    fn pause(&mut self, pause: Duration) {
        if !pause.is_zero() {
            self.paused_until = Some(Instant::now() + pause);
        }
    }

    fn handle_frames(&mut self) -> Result<(), End> {
        let limit = self.shared.limits.packet_octets() as usize;
        while self.has_room() {
            let Some(announced) = self.frames.announced(limit).map_err(framing_violation)? else { break };
            let now = Instant::now();
            let mut arriving = self.arriving.unwrap_or(Arriving { began: now, whole_at: None });
            if announced.is_complete {
                arriving.whole_at = arriving.whole_at.or(Some(now));
            }
            self.arriving = Some(arriving);
            if !self.has_place(announced) || !announced.is_complete {
                break;
            }
            let Some(frame) = self.frames.next(limit).map_err(framing_violation)? else { break };
            self.arriving = None;
            let waited = arriving.whole_at.map_or(Duration::ZERO, |whole_at| now - whole_at);
            let packet = packet::decode(self.session.version(), &frame)
                .map_err(|reason| Violation { reason, what: "sent a packet that is not allowed" })?;
            self.handle(packet, waited, now)?;
            self.place = None;
        }
        Ok(())
    }

    /// Takes places for a message before it is handled, and for whatever is large before it is read.
    fn has_place(&mut self, announced: Announced) -> bool {
        let needs_one = announced.total_octets > PLACE || announced.is_complete && announced.is_message();
        if !needs_one || self.place.is_some() {
            return true;
        }
        let places = u32::try_from(announced.total_octets.div_ceil(PLACE)).unwrap_or(u32::MAX);
        let all = Arc::clone(&self.shared.places);
        self.place = Arc::clone(&all).try_acquire_many_owned(places).ok();
        if self.place.is_none() {
            self.place_wanted = Some(all.acquire_many_owned(places).boxed());
        }
        self.place.is_some()
    }

    fn handle(&mut self, packet: Packet, waited: Duration, now: Instant) -> Result<(), End> {
        let rate = self.rate_of(&packet, now);
        let step = self.session.handle(packet)?;
        if let Some(topic) = self.session.take_foreign_topic() {
            self.report(PeerEvent::ForeignTopic, || {
                format!("A vehicle {topic}, which is not its own; nothing of it was processed.")
            });
        }
        match (rate, step) {
            (Rate::Kept, step) => self.carry_out(step, waited),
            (Rate::Exceeded { told }, Step::Receive(received)) => {
                self.refuse_for_rate(received, told);
                Ok(())
            }
            (Rate::Exceeded { .. } | Rate::Ignored, _) => {
                self.report(PeerEvent::RateIgnored, || {
                    "A vehicle went on sending more than it may, and its connection was closed.".to_owned()
                });
                let what = "sends more packets than it may";
                Err(Violation { reason: DisconnectReasonCode::MessageRateTooHigh, what }.into())
            }
        }
    }

    /// In 3.1.1 a message cannot be refused without being lost, so the server reads slower instead.
    fn rate_of(&mut self, packet: &Packet, now: Instant) -> Rate {
        match (packet, self.session.version()) {
            (Packet::Publish(_), Version::V3_1_1) => {
                self.pause(self.meter.message_that_must_be_taken(now));
                Rate::Kept
            }
            (Packet::Publish(_), Version::V5_0)
            | (Packet::Subscribe { .. } | Packet::Unsubscribe { .. }, _) => self.meter.message(now),
            (Packet::Puback { .. } | Packet::Pingreq | Packet::Disconnect, _) => Rate::Kept,
        }
    }

    fn report(&self, event: PeerEvent, detail: impl FnOnce() -> String) {
        if self.meter.may_report(Instant::now()) {
            self.shared.report(&self.peer, event, detail());
        }
    }

    fn carry_out(&mut self, step: Step, waited: Duration) -> Result<(), End> {
        match step {
            Step::Nothing => {}
            Step::Send(octets) => self.output.extend_from_slice(&octets),
            Step::Subscribed(octets) => {
                self.output.extend_from_slice(&octets);
                self.look_wanted = true;
            }
            Step::Receive(received) if received.worth.is_some_and(|worth| waited > worth) => {
                tracing::info!(
                    client_id = self.session.client_id(),
                    waited_ms = waited.as_millis(),
                    "A vehicle's message expired while it waited to be taken; it was not."
                );
                self.answer_without_desk(received.packet_id, PubackReasonCode::ImplementationSpecificError);
            }
            Step::Receive(received) => self.receive(received),
            Step::Acknowledge { packet_id, reason } => self.answer_without_desk(Some(packet_id), reason),
            Step::Delivered { binding, msg_id } => self.deliver(binding, msg_id),
            Step::Leave => return Err(End::Left),
        }
        Ok(())
    }

    /// Acknowledges in its turn what the desk does not get to see.
    fn answer_without_desk(&mut self, packet_id: Option<u16>, reason: PubackReasonCode) {
        let taken = Taken { packet_id, reason, octets: 0 };
        self.being_taken.push_back(std::future::ready(Ok(taken)).boxed());
    }

    fn receive(&mut self, received: Received) {
        let (packet_id, octets) = (received.packet_id, received.payload.len());
        self.octets_being_taken += octets;
        let inbound = self.inbound(received);
        let (desk, place) = (Arc::clone(&self.shared.desk), self.place.take());
        self.being_taken.push_back(
            async move {
                let reason = reason_of(desk.receive(inbound).await?);
                drop(place);
                Ok(Taken { packet_id, reason, octets })
            }
            .boxed(),
        );
    }

    /// Refuses a message unread; only now and then is that stored and the vehicle told why.
    fn refuse_for_rate(&mut self, received: Received, told: bool) {
        let (packet_id, reason) = (received.packet_id, reason_of(Receipt::RefusedRate));
        if !told {
            return self.answer_without_desk(packet_id, reason);
        }
        let octets = received.payload.len();
        self.octets_being_taken += octets;
        let inbound = self.inbound(received);
        let (desk, place) = (Arc::clone(&self.shared.desk), self.place.take());
        self.being_taken.push_back(
            async move {
                desk.refuse_for_rate(inbound).await?;
                drop(place);
                Ok(Taken { packet_id, reason, octets })
            }
            .boxed(),
        );
    }

    fn inbound(&self, received: Received) -> Inbound {
        let Received { packet_id: _, binding, topic, payload, worth: _ } = received;
        Inbound {
            peer: Some(Arc::clone(&self.peer)),
            binding,
            topic,
            payload,
            received_at: (self.shared.clock)(),
        }
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
        let patience = Duration::from_secs(self.shared.limits.write_s);
        match timeout(patience, send(&mut self.stream, &output)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::Stalled),
        }
    }

    fn log(&self, end: &End) {
        let client_id = self.session.client_id();
        match end {
            End::Left => tracing::info!(client_id, "A vehicle disconnected."),
            End::Gone => tracing::info!(client_id, "A vehicle's connection broke."),
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
            End::Slow => {
                tracing::info!(client_id, "A vehicle's connection is closed: it left a packet unfinished.")
            }
        }
    }

    /// Lets the desk finish what it has begun, acknowledges it where the vehicle is still there, and
    /// says why the connection ends.
    async fn finish(&mut self, end: End) {
        let reason = match end {
            End::Left | End::Gone | End::Stalled => None,
            End::Violated(violation) => Some(violation.reason),
            End::Silent => Some(DisconnectReasonCode::KeepAliveTimeout),
            End::Slow => Some(DisconnectReasonCode::ImplementationSpecificError),
            End::Ordered(Ending::TakenOver) => Some(DisconnectReasonCode::SessionTakenOver),
            End::Ordered(Ending::CertificateRevoked | Ending::Rebound) => {
                Some(DisconnectReasonCode::NotAuthorized)
            }
            End::Ordered(Ending::ShuttingDown) => Some(DisconnectReasonCode::ServerShuttingDown),
            End::DeskFailed(_) => Some(DisconnectReasonCode::ServerBusy),
        };
        // Acknowledgements are in order: after one that failed there are no more.
        let desk_works = !matches!(end, End::DeskFailed(_));
        let drain = Duration::from_secs(self.shared.limits.drain_s);
        if desk_works && timeout(drain, self.drain()).await.is_err() {
            tracing::warn!(
                client_id = self.session.client_id(),
                "A vehicle's last messages were not taken in time; it will send them again."
            );
        }
        let Some(reason) = reason else { return };
        self.output.extend(packet::disconnect(self.session.version(), reason).unwrap_or_default());
        if self.write_output().await.is_ok() {
            close(&mut self.stream, Duration::from_secs(self.shared.limits.linger_s)).await;
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

/// As operators are told it.
fn why_gone(end: &End) -> (WhyGone, Option<&'static str>) {
    let why = match end {
        End::Violated(violation) => return (WhyGone::Violation, Some(violation.what)),
        End::Left => WhyGone::Left,
        End::Gone => WhyGone::Lost,
        End::Silent => WhyGone::KeepAlive,
        End::Ordered(Ending::TakenOver) => WhyGone::TakenOver,
        End::Ordered(Ending::CertificateRevoked) => WhyGone::Revoked,
        End::Ordered(Ending::Rebound) => WhyGone::Rebound,
        End::Ordered(Ending::ShuttingDown) => WhyGone::ServerStopped,
        End::DeskFailed(_) => WhyGone::StoreFailed,
        End::Stalled => WhyGone::NotReading,
        End::Slow => WhyGone::Unfinished,
    };
    (why, None)
}

fn reason_of(receipt: Receipt) -> PubackReasonCode {
    match receipt {
        Receipt::Accepted | Receipt::Refused => PubackReasonCode::Success,
        Receipt::RefusedUnparsable => PubackReasonCode::PayloadFormatInvalid,
        Receipt::RefusedIdentity => PubackReasonCode::NotAuthorized,
        Receipt::RefusedRate => PubackReasonCode::QuotaExceeded,
    }
}

/// The outcome of what is under way.
async fn outcome<T>(under_way: &mut Option<BoxFuture<'static, T>>) -> T {
    match under_way {
        Some(under_way) => under_way.await,
        None => std::future::pending().await,
    }
}

fn framing_violation(error: FrameError) -> Violation {
    match error {
        FrameError::TooLarge => {
            Violation { reason: DisconnectReasonCode::PacketTooLarge, what: "sent a packet above the limit" }
        }
        FrameError::Malformed => {
            Violation { reason: DisconnectReasonCode::MalformedPacket, what: "sent no MQTT packet" }
        }
    }
}
