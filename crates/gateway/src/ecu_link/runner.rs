//! Carries out what a sequence asks for: sends, waits, reads blocks, keeps the session open.

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farrier_diagnostics::doip::DiagnosticNackCode;
use farrier_diagnostics::uds::TESTER_PRESENT_WITHOUT_ANSWER;
use farrier_diagnostics::{Failure, RestartCause, Sequence, Step};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::can_link::CanChannel;
use super::connection::{ConnectError, DoIpChannel, FromEcu};
use super::image::ImageReader;
use super::{EcuError, Way};

/// How often "tester present" is sent while a session is open: S3 is 5 s.
const TESTER_PRESENT_EVERY: Duration = Duration::from_secs(2);

/// The service byte of a block.
const TRANSFER_DATA: u8 = 0x36;

/// One conversation with one ECU.
pub(super) struct Conversation<'a, P> {
    way: Way<'a>,
    /// Places for blocks in the buffers of the ECU's controller.
    blocks: &'a Semaphore,
    image: Option<&'a mut ImageReader>,
    progress: P,
    started: Instant,
    tester_present: Interval,
    channel: Option<EcuChannel>,
    /// Why the last connection could not be made.
    refused: Option<ConnectError>,
    /// The last request, for repeats; its memory is used for the one after the next.
    sent: Bytes,
}

/// The way to one ECU and back, once there is a connection.
#[derive(Debug)]
enum EcuChannel {
    DoIp(DoIpChannel),
    Can(CanChannel),
}

impl Way<'_> {
    async fn channel(self) -> Result<EcuChannel, ConnectError> {
        match self {
            Self::DoIp(link, address) => link.channel(address).await.map(EcuChannel::DoIp),
            Self::Can(link, ids) => link.channel(ids).await.map(EcuChannel::Can),
        }
    }
}

impl EcuChannel {
    /// Sends a UDS message; if the connection is lost, [`EcuChannel::receive`] says so.
    async fn send(&self, uds: Bytes) {
        match self {
            Self::DoIp(channel) => channel.send(uds).await,
            Self::Can(channel) => channel.send(uds).await,
        }
    }

    /// What comes from the ECU; nothing once the connection is lost. Can be dropped at any time.
    async fn receive(&mut self) -> Option<FromEcu> {
        match self {
            Self::DoIp(channel) => channel.receive().await,
            Self::Can(channel) => channel.receive().await,
        }
    }
}

/// What ends a wait.
enum Event {
    Answer(Vec<u8>),
    Time,
    Lost,
}

impl<'a, P: FnMut(u64) + Send> Conversation<'a, P> {
    pub(super) fn new(
        way: Way<'a>,
        blocks: &'a Semaphore,
        image: Option<&'a mut ImageReader>,
        progress: P,
    ) -> Self {
        let started = Instant::now();
        let mut tester_present = interval_at(started + TESTER_PRESENT_EVERY, TESTER_PRESENT_EVERY);
        tester_present.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            way,
            blocks,
            image,
            progress,
            started,
            tester_present,
            channel: None,
            refused: None,
            sent: Bytes::new(),
        }
    }

    /// Runs a sequence to its end.
    pub(super) async fn run(mut self, sequence: &mut Sequence) -> Result<(), EcuError> {
        let mut out = BytesMut::new();
        let mut step = sequence.start(self.now(), &mut out);
        loop {
            step = match step {
                Step::Send { answer_by } => {
                    let before = std::mem::take(&mut self.sent);
                    self.sent = out.freeze();
                    out = before.try_into_mut().unwrap_or_default();
                    out.clear();
                    self.send_and_wait(sequence, answer_by, &mut out).await?
                }
                Step::Repeat { answer_by } => self.send_and_wait(sequence, answer_by, &mut out).await?,
                Step::Await { answer_by } => self.wait_for_answer(sequence, answer_by, &mut out).await?,
                Step::Pause { until } => {
                    self.pause(sequence.session_is_open(), until).await;
                    sequence.on_time(self.now(), &mut out)
                }
                Step::AppendBlock { offset, length } => {
                    (self.progress)(sequence.bytes_written());
                    if let Some(image) = self.image.as_mut() {
                        image.append(offset, length, &mut out).await?;
                    }
                    sequence.on_block(self.now(), &out)
                }
                Step::Finished => {
                    (self.progress)(sequence.bytes_written());
                    return Ok(());
                }
                Step::Failed(failure) => return Err(self.explained(failure)),
            };
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// A connection that never came is a better reason than the restarts that it caused.
    fn explained(&mut self, failure: Failure) -> EcuError {
        let lost = matches!(failure, Failure::GaveUp { cause: RestartCause::ConnectionLost, .. });
        match self.refused.take().filter(|_| lost) {
            Some(source) => EcuError::Connect { controller: self.way.controller(), source },
            None => failure.into(),
        }
    }

    async fn send_and_wait(
        &mut self,
        sequence: &mut Sequence,
        answer_by: Duration,
        out: &mut BytesMut,
    ) -> Result<Step, EcuError> {
        if self.channel.is_none() {
            match self.way.channel().await {
                Ok(channel) => self.channel = Some(channel),
                Err(error) => {
                    self.refused = Some(error);
                    return Ok(sequence.on_connection_lost(self.now()));
                }
            }
        }
        let before = self.now();
        let _place = match self.sent.first() {
            Some(service) if *service == TRANSFER_DATA => self.place(sequence.session_is_open()).await,
            Some(_) | None => None,
        };
        send(self.channel.as_ref(), self.sent.clone()).await;
        // A block waits for its place, and on CAN it takes a while to get there: the ECU's time begins after that.
        let answer_by = answer_by + (self.now() - before);
        self.wait_for_answer(sequence, answer_by, out).await
    }

    async fn wait_for_answer(
        &mut self,
        sequence: &mut Sequence,
        answer_by: Duration,
        out: &mut BytesMut,
    ) -> Result<Step, EcuError> {
        let event = self.event(sequence.session_is_open(), answer_by).await?;
        let now = self.now();
        Ok(match event {
            Event::Answer(answer) => sequence.on_answer(now, &answer, out),
            Event::Time => sequence.on_time(now, out),
            Event::Lost => {
                self.channel = None;
                self.refused = None;
                sequence.on_connection_lost(now)
            }
        })
    }

    async fn event(&mut self, session_is_open: bool, until: Duration) -> Result<Event, EcuError> {
        let until = self.started + until;
        loop {
            let Some(channel) = self.channel.as_mut() else { return Ok(Event::Lost) };
            tokio::select! {
                received = channel.receive() => match received {
                    Some(FromEcu::Answer(answer)) => return Ok(Event::Answer(answer)),
                    // The ECU may be back, and the queue shorter, when the request is repeated.
                    Some(FromEcu::Refused(
                        DiagnosticNackCode::OutOfMemory | DiagnosticNackCode::TargetUnreachable,
                    )) => {}
                    Some(FromEcu::Refused(code)) => {
                        return Err(EcuError::NotRouted { controller: self.way.controller(), code });
                    }
                    None => return Ok(Event::Lost),
                },
                () = sleep_until(until) => return Ok(Event::Time),
                _ = self.tester_present.tick(), if session_is_open => {
                    send(self.channel.as_ref(), Bytes::from_static(&TESTER_PRESENT_WITHOUT_ANSWER)).await;
                }
            }
        }
    }

    /// Waits until the controller has room for a block. An ECU takes a place only while a block of its own is on
    /// the way, so that one that erases, waits or does not answer keeps no other from being written.
    async fn place(&mut self, session_is_open: bool) -> Option<SemaphorePermit<'a>> {
        let mut place = pin!(self.blocks.acquire());
        loop {
            tokio::select! {
                // Nobody closes the semaphore; without a place the block would go out all the same.
                place = &mut place => return place.ok(),
                _ = self.tester_present.tick(), if session_is_open => {
                    send(self.channel.as_ref(), Bytes::from_static(&TESTER_PRESENT_WITHOUT_ANSWER)).await;
                }
            }
        }
    }

    async fn pause(&mut self, session_is_open: bool, until: Duration) {
        let until = self.started + until;
        loop {
            tokio::select! {
                () = sleep_until(until) => return,
                _ = self.tester_present.tick(), if session_is_open => {
                    send(self.channel.as_ref(), Bytes::from_static(&TESTER_PRESENT_WITHOUT_ANSWER)).await;
                }
            }
        }
    }
}

/// Sends a message; if the connection is lost, the wait for its answer finds out.
async fn send(channel: Option<&EcuChannel>, uds: Bytes) {
    if let Some(channel) = channel {
        channel.send(uds).await;
    }
}
