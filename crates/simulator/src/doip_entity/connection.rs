//! One tester's TCP connection to a DoIP entity.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use farrier_diagnostics::doip::{
    self, ActivationTypeCode, DiagnosticNackCode, Frame, LogicalAddress, Message, MessageError, NackCode,
    OwnedDiagnosticMessage, OwnedMessage, OwnedPayload, Payload, RoutingActivationRequest,
    RoutingActivationResponseCode as Activation,
};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::codec::FramedRead;

use super::Entity;
use crate::ecu::{EcuAnswer, EcuRequest};

/// How long a tester has to answer an alive check (ISO 13400-2, T_TCP_Alive_Check).
const ALIVE_CHECK: Duration = Duration::from_millis(500);

/// How long the last frames may take to leave when the connection ends.
const LAST_FRAMES: Duration = Duration::from_secs(1);

/// Frames that wait for a tester that does not read; further ones are lost.
const OUTGOING: usize = 64;

/// One whole block fits into the read buffer.
const READ_BUFFER: usize = 80 * 1024;

/// An activated connection, as the entity's other connections see it.
#[derive(Debug, Clone)]
pub(super) struct TesterHandle {
    frames: mpsc::Sender<BytesMut>,
    alive: Arc<Notify>,
    replaced: Arc<Notify>,
}

/// Serves a tester until it goes, breaks the rules or is silent for too long.
pub(super) async fn serve(
    entity: Arc<Entity>,
    reader: impl AsyncRead + Send + Unpin,
    writer: impl AsyncWrite + Send + Unpin,
    encrypted: bool,
) {
    let (frames, frames_to_send) = mpsc::channel(OUTGOING);
    let (answers, answers_to_send) = mpsc::channel(OUTGOING);
    let handle = TesterHandle { frames, alive: Arc::default(), replaced: Arc::default() };
    let replaced = Arc::clone(&handle.replaced);
    let mut connection = Connection { entity, encrypted, handle, answers, tester: None };
    let finished = Notify::new();
    let reading = async {
        tokio::select! {
            () = connection.read(reader) => {}
            () = replaced.notified() => {}
        }
        finished.notify_one();
        sleep(LAST_FRAMES).await;
    };
    // The writer ends after the reader, so that a refusal still reaches the tester.
    tokio::select! {
        () = write(writer, frames_to_send, answers_to_send, &finished) => {}
        () = reading => {}
    }
    connection.leave();
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut frames: mpsc::Receiver<BytesMut>,
    mut answers: mpsc::Receiver<EcuAnswer>,
    finished: &Notify,
) {
    let mut batch = BytesMut::new();
    loop {
        // Frames go first: the acknowledgement of a request stands in this queue before the ECU has it.
        tokio::select! {
            biased;
            Some(frame) = frames.recv() => batch.extend_from_slice(&frame),
            Some(answer) = answers.recv() => append_answer(&mut batch, &answer),
            () = finished.notified() => return,
        }
        while let Ok(frame) = frames.try_recv() {
            batch.extend_from_slice(&frame);
        }
        // TLS keeps what the socket did not take at once.
        if writer.write_all(&batch).await.is_err() || writer.flush().await.is_err() {
            return;
        }
        batch.clear();
    }
}

fn append_answer(batch: &mut BytesMut, answer: &EcuAnswer) {
    let (ecu, tester) = (LogicalAddress(answer.from), LogicalAddress(answer.to));
    let message = Message::diagnostic_message(doip::VERSION, ecu, tester, &answer.data);
    if let Err(error) = doip::append_frame(batch, &message) {
        tracing::error!(ecu = answer.from, %error, "An answer does not fit into a DoIP frame.");
    }
}

/// The reading side.
struct Connection {
    entity: Arc<Entity>,
    encrypted: bool,
    handle: TesterHandle,
    answers: mpsc::Sender<EcuAnswer>,
    /// The tester's logical address, once routing is activated.
    tester: Option<u16>,
}

impl Connection {
    async fn read(&mut self, reader: impl AsyncRead + Unpin) {
        let mut frames = FramedRead::with_capacity(reader, doip::codec(), READ_BUFFER);
        loop {
            let config = &self.entity.config;
            let limit = match self.tester {
                Some(_) => config.general_inactivity_ms,
                None => config.initial_inactivity_ms,
            };
            let frame = match timeout(Duration::from_millis(limit), frames.next()).await {
                Ok(Some(Ok(frame))) => frame,
                // Some testers end TLS without saying so: that is a closed connection like any other.
                Ok(Some(Err(MessageError::Std(_)))) => return,
                Ok(Some(Err(_))) => return self.send(Payload::DoIPNack(NackCode::IncorrectPatternFormat)),
                Ok(None) | Err(_) => return,
            };
            let next = match frame {
                Frame::Message(message) => self.take(message).await,
                Frame::Undecoded { .. } => self.refuse_frame(NackCode::UnknownPayloadType),
                Frame::TooLarge { .. } => self.refuse_frame(NackCode::MessageTooLarge),
                // The enum may grow; an unknown kind of frame is an unknown payload.
                _ => self.refuse_frame(NackCode::UnknownPayloadType),
            };
            if next.is_break() {
                return;
            }
        }
    }

    fn refuse_frame(&self, code: NackCode) -> ControlFlow<()> {
        self.send(Payload::DoIPNack(code));
        ControlFlow::Continue(())
    }

    async fn take(&mut self, message: OwnedMessage) -> ControlFlow<()> {
        match message.payload {
            OwnedPayload::RoutingActivationRequest(request) => self.activate(request).await,
            OwnedPayload::DiagnosticMessage(message) => self.route(message),
            OwnedPayload::AliveCheckResponse(_) => {
                self.handle.alive.notify_waiters();
                ControlFlow::Continue(())
            }
            OwnedPayload::AliveCheckRequest => {
                let source_address = self.entity.address();
                self.send(Payload::AliveCheckResponse(doip::AliveCheckResponse { source_address }));
                ControlFlow::Continue(())
            }
            OwnedPayload::DoIPNack(_)
            | OwnedPayload::DiagnosticMessageAck(_)
            | OwnedPayload::DiagnosticMessageNack(_)
            | OwnedPayload::EntityStatusRequest
            | OwnedPayload::EntityStatusResponse(_)
            | OwnedPayload::PowerModeInfoRequest
            | OwnedPayload::PowerModeInfoResponse(_)
            | OwnedPayload::RoutingActivationResponse(_)
            | OwnedPayload::VehicleAnnouncement(_)
            | OwnedPayload::VehicleIdentificationRequest
            | OwnedPayload::VehicleIdentificationRequestWithEid(_)
            | OwnedPayload::VehicleIdentificationRequestWithVin(_)
            | OwnedPayload::VehicleIdentificationResponse(_) => {
                self.refuse_frame(NackCode::UnknownPayloadType)
            }
            // The enum may grow.
            _ => self.refuse_frame(NackCode::UnknownPayloadType),
        }
    }

    async fn activate(&mut self, request: RoutingActivationRequest) -> ControlFlow<()> {
        let tester = request.source_address;
        let code = self.activation(tester.0, request.activation_type).await;
        let entity = self.entity.address();
        let response =
            Message::routing_activation_response(doip::VERSION, tester, entity, code, [0; 4], None);
        self.send(response.payload);
        if code == Activation::RoutingSuccessfullyActivated {
            self.tester = Some(tester.0);
            self.entity.testers().insert(tester.0, self.handle.clone());
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(())
    }

    async fn activation(&self, tester: u16, kind: ActivationTypeCode) -> Activation {
        let addresses = LogicalAddress::MIN_CLIENT_ADDRESS.0..=LogicalAddress::MAX_CLIENT_ADDRESS.0;
        if !addresses.contains(&tester) {
            return Activation::DeniedUnknownSourceAddress;
        }
        if !matches!(kind, ActivationTypeCode::Default | ActivationTypeCode::RegulationRequired) {
            return Activation::DeniedUnsupportedRoutingActivationType;
        }
        if self.entity.secured && !self.encrypted {
            return Activation::DeniedEncryptedConnectionViaTLSRequired;
        }
        match self.tester {
            Some(active) if active == tester => return Activation::RoutingSuccessfullyActivated,
            Some(_) => return Activation::DeniedSourceAddressAlreadyActivated,
            None => {}
        }
        let earlier = self.entity.testers().get(&tester).cloned();
        if let Some(earlier) = earlier {
            if is_alive(&earlier).await {
                return Activation::DeniedSourceAddressAlreadyRegistered;
            }
            earlier.replaced.notify_one();
        }
        Activation::RoutingSuccessfullyActivated
    }

    fn route(&self, message: OwnedDiagnosticMessage) -> ControlFlow<()> {
        let (tester, target) = (message.source_address, message.target_address);
        if self.tester != Some(tester.0) {
            self.refuse_message(tester, target, DiagnosticNackCode::InvalidSourceAddress);
            return ControlFlow::Break(());
        }
        let place = match self.entity.ecus.get(&target.0).map(mpsc::Sender::try_reserve) {
            Some(Ok(place)) => Ok(place),
            Some(Err(TrySendError::Full(()))) => Err(DiagnosticNackCode::OutOfMemory),
            Some(Err(TrySendError::Closed(()))) => Err(DiagnosticNackCode::TargetUnreachable),
            None => Err(DiagnosticNackCode::UnknownTargetAddress),
        };
        match place {
            Ok(place) => {
                // The acknowledgement is queued first: the answer must not overtake it.
                self.send(Message::diagnostic_message_ack(doip::VERSION, target, tester, &[]).payload);
                let answers = self.answers.clone();
                place.send(EcuRequest { data: message.user_data, tester: tester.0, answers });
            }
            Err(code) => self.refuse_message(tester, target, code),
        }
        ControlFlow::Continue(())
    }

    fn refuse_message(&self, tester: LogicalAddress, target: LogicalAddress, code: DiagnosticNackCode) {
        self.send(Message::diagnostic_message_nack(doip::VERSION, target, tester, code, &[]).payload);
    }

    fn send(&self, payload: Payload<'_>) {
        send(&self.handle.frames, payload);
    }

    /// Takes this connection out of the entity's list, if it is not another's by now.
    fn leave(&self) {
        let Some(tester) = self.tester else { return };
        let mut testers = self.entity.testers();
        if testers.get(&tester).is_some_and(|handle| Arc::ptr_eq(&handle.alive, &self.handle.alive)) {
            testers.remove(&tester);
        }
    }
}

/// Queues a frame; a tester that does not read loses it.
fn send(frames: &mpsc::Sender<BytesMut>, payload: Payload<'_>) {
    let mut frame = BytesMut::new();
    let message = Message { protocol_version: doip::VERSION, payload };
    if doip::append_frame(&mut frame, &message).is_ok() {
        let _ = frames.try_send(frame);
    }
}

async fn is_alive(tester: &TesterHandle) -> bool {
    let answered = tester.alive.notified();
    tokio::pin!(answered);
    // The wait begins before the question, so that a quick answer is not missed.
    answered.as_mut().enable();
    send(&tester.frames, Payload::AliveCheckRequest);
    timeout(ALIVE_CHECK, answered).await.is_ok()
}
