//! The link to the ECUs of one CAN bus: ISO-TP for each of them over the shared bus.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use farrier_diagnostics::can::CanFrame;
use farrier_diagnostics::isotp::IsoTp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::can_bus::CanBus;
use super::connection::{ConnectError, FromEcu};
use crate::topology::{CanIds, CanInterface};

/// Frames on their way to the bus.
const OUTGOING: usize = 16;

/// Frames of one ECU that nobody has looked at: more than the longest message has.
const UNREAD_FRAMES: usize = 1_024;

/// Answers of one ECU that nobody has looked at; one request is outstanding, so the rest is late.
const UNREAD_ANSWERS: usize = 16;

/// One bus: opened when it is needed, again when it was lost.
#[derive(Debug)]
pub(super) struct CanLink {
    name: String,
    can: CanInterface,
    connection: tokio::sync::Mutex<Option<Connection>>,
}

impl CanLink {
    pub(super) fn new(name: String, can: CanInterface) -> Self {
        Self { name, can, connection: tokio::sync::Mutex::new(None) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A channel to one ECU on this bus.
    pub(super) async fn channel(&self, ids: CanIds) -> Result<CanChannel, ConnectError> {
        let mut connection = self.connection.lock().await;
        if let Some(channel) = connection.as_ref().and_then(|open| open.channel(ids)) {
            return Ok(channel);
        }
        *connection = None;
        let fresh = Connection::open(&self.can).await?;
        tracing::debug!(controller = self.name, interface = self.can.interface, "The CAN bus is open.");
        let channel = fresh.channel(ids);
        *connection = Some(fresh);
        channel.ok_or_else(|| ConnectError::Can {
            interface: self.can.interface.clone(),
            source: std::io::ErrorKind::ConnectionReset.into(),
        })
    }
}

/// Who waits for the frames of each ECU, by their identifier.
type Waiting = HashMap<u32, mpsc::Sender<CanFrame>>;

/// Where the frames of each ECU go; nothing once the bus is lost.
#[derive(Debug, Clone)]
struct Routes(Arc<Mutex<Option<Waiting>>>);

impl Routes {
    fn lock(&self) -> MutexGuard<'_, Option<Waiting>> {
        // The map is never left half changed, so it is good even after a panic elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames that nobody waits for are not for us.
    fn deliver(&self, frame: CanFrame) {
        if let Some(ecu) = self.lock().as_ref().and_then(|routes| routes.get(&frame.id())) {
            let _ = ecu.try_send(frame);
        }
    }
}

/// An open bus; ends when this is dropped.
#[derive(Debug)]
struct Connection {
    outgoing: mpsc::Sender<CanFrame>,
    routes: Routes,
    _task: JoinSet<()>,
}

impl Connection {
    async fn open(can: &CanInterface) -> Result<Self, ConnectError> {
        let bus = CanBus::open(can).await?;
        let (outgoing, to_bus) = mpsc::channel(OUTGOING);
        let routes = Routes(Arc::new(Mutex::new(Some(HashMap::new()))));
        let mut task = JoinSet::new();
        let serving = routes.clone();
        task.spawn(async move {
            bus.carry(to_bus, |frame| serving.deliver(frame)).await;
            *serving.lock() = None;
        });
        Ok(Self { outgoing, routes, _task: task })
    }

    /// A channel to an ECU; nothing if the bus is lost.
    fn channel(&self, ids: CanIds) -> Option<CanChannel> {
        let (frames, incoming) = mpsc::channel(UNREAD_FRAMES);
        self.routes.lock().as_mut()?.insert(ids.response_id, frames);
        let (requests, to_send) = mpsc::channel(1);
        let (answers, unread) = mpsc::channel(UNREAD_ANSWERS);
        let mut task = JoinSet::new();
        task.spawn(converse(ids.request_id, to_send, incoming, self.outgoing.clone(), answers));
        Some(CanChannel { ids, requests, unread, routes: self.routes.clone(), _task: task })
    }
}

/// A message to an ECU, and whom to tell when it is on the bus as a whole.
struct Outgoing {
    message: Bytes,
    sent: oneshot::Sender<()>,
}

/// One end of ISO-TP, until the bus is lost or the channel dropped.
async fn converse(
    request_id: u32,
    mut requests: mpsc::Receiver<Outgoing>,
    mut incoming: mpsc::Receiver<CanFrame>,
    outgoing: mpsc::Sender<CanFrame>,
    answers: mpsc::Sender<FromEcu>,
) {
    let start = Instant::now();
    let mut end = IsoTp::default();
    let mut on_its_way = None;
    loop {
        while let Some(frame) = end.next_frame(start.elapsed()) {
            let Some(frame) = CanFrame::new(request_id, &frame) else { return };
            if outgoing.send(frame).await.is_err() {
                return;
            }
        }
        // Sent or given up: whether the ECU has it, its answer says.
        if !end.is_sending() {
            on_its_way = None;
        }
        let wake_at = start + end.wake_at().unwrap_or(Duration::ZERO);
        tokio::select! {
            request = requests.recv(), if on_its_way.is_none() => {
                let Some(Outgoing { message, sent }) = request else { return };
                if let Err(error) = end.send(message) {
                    tracing::error!(%error, "A message does not fit on CAN.");
                }
                on_its_way = Some(sent);
            }
            frame = incoming.recv() => {
                let Some(frame) = frame else { return };
                if let Some(message) = end.on_frame(start.elapsed(), frame.data()) {
                    // Late answers that nobody reads are dropped.
                    let _ = answers.try_send(FromEcu::Answer(message));
                }
            }
            () = sleep_until(wake_at), if end.is_sending() => {}
        }
    }
}

/// The way to one ECU and back.
#[derive(Debug)]
pub(super) struct CanChannel {
    ids: CanIds,
    requests: mpsc::Sender<Outgoing>,
    unread: mpsc::Receiver<FromEcu>,
    routes: Routes,
    _task: JoinSet<()>,
}

impl CanChannel {
    /// Sends a UDS message of at most 4,095 bytes and waits until it is on the bus; if that is lost,
    /// [`CanChannel::receive`] says so.
    pub(super) async fn send(&self, message: Bytes) {
        let (sent, is_sent) = oneshot::channel();
        if self.requests.send(Outgoing { message, sent }).await.is_ok() {
            // The other half is dropped when the message is sent or given up.
            let _ = is_sent.await;
        }
    }

    /// What comes from the ECU; nothing once the bus is lost. Can be dropped at any time.
    pub(super) async fn receive(&mut self) -> Option<FromEcu> {
        self.unread.recv().await
    }
}

impl Drop for CanChannel {
    fn drop(&mut self) {
        if let Some(routes) = self.routes.lock().as_mut() {
            routes.remove(&self.ids.response_id);
        }
    }
}
