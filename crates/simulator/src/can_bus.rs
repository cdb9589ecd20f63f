//! A CAN bus in memory with simulated ECUs on it, and a socketcand server by which others get onto the bus.
//! Frames reach everybody but their sender, in one order; nothing here takes the time that a real bus takes.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farrier_diagnostics::can::{CanFrame, SocketcandMessage};
use farrier_diagnostics::isotp::{IsoTp, MAX_MESSAGE_LENGTH};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::ecu::{Ecu, EcuAnswer, EcuConfig, EcuHandle, EcuRequest, StateError};

/// Frames that a node may be behind before it loses some: a dozen of the longest messages.
const BEHIND: usize = 8_192;

/// Answers of an ECU on their way to the bus.
const ANSWERS: usize = 16;

/// An ECU on a CAN bus has no tester's address: there is one connection.
const TESTER: u16 = 0;

/// A bus as a configuration file describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanBusConfig {
    /// The name of the interface that socketcand clients open.
    pub interface: String,
    /// Where the socketcand server listens; port 0 takes a free one.
    pub listen: SocketAddr,
}

/// An ECU on a bus.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanEcuConfig {
    /// Identifier of what is sent to it; above 0x7FF of the extended format.
    pub request_id: u32,
    /// Identifier of what it sends.
    pub response_id: u32,
    /// The ECU; its `logical_address` means nothing here, its blocks have at most 4,095 bytes.
    pub ecu: EcuConfig,
}

/// Why a bus did not start.
#[derive(Debug, thiserror::Error)]
pub enum CanBusError {
    /// Its address could not be taken.
    #[error("expected to listen on {address} as socketcand; choose another address or port 0")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// An identifier that two share, or with more than 29 bits.
    #[error("expected each CAN identifier once and up to 0x1FFFFFFF, found {id:#X} at ECU {ecu_id}")]
    Identifier {
        /// The identifier.
        id: u32,
        /// The ECU.
        ecu_id: String,
    },
    /// An ECU's state could not be read.
    #[error("expected ECU {ecu_id} to power up")]
    Ecu {
        /// The ECU.
        ecu_id: String,
        /// What happened.
        #[source]
        source: StateError,
    },
}

/// A running bus with its ECUs; all of it stops when this is dropped.
#[derive(Debug)]
pub struct CanBus {
    address: SocketAddr,
    handles: HashMap<String, EcuHandle>,
    tasks: JoinSet<()>,
}

/// A frame on the bus, and the number of the node that sent it.
type Sent = (u64, CanFrame);

impl CanBus {
    /// Powers up the ECUs, each with its state in `state_folder/{ecu_id}`, and listens.
    ///
    /// # Errors
    /// An address that is taken, identifiers that cannot be, state that cannot be read.
    pub async fn start(
        config: CanBusConfig,
        ecus: Vec<CanEcuConfig>,
        state_folder: &Path,
    ) -> Result<Self, CanBusError> {
        check_identifiers(&ecus)?;
        let failed = |source| CanBusError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (bus, _) = broadcast::channel(BEHIND);
        let mut tasks = JoinSet::new();
        let mut handles = HashMap::new();
        let mut nodes = 0;
        for CanEcuConfig { request_id, response_id, mut ecu } in ecus {
            let ecu_id = ecu.ecu_id.clone();
            let longest = u16::try_from(MAX_MESSAGE_LENGTH).unwrap_or(u16::MAX);
            ecu.timing.max_block_length = ecu.timing.max_block_length.min(longest);
            let ecu = Ecu::power_up(ecu, &state_folder.join(&ecu_id))
                .map_err(|source| CanBusError::Ecu { ecu_id: ecu_id.clone(), source })?;
            let (requests, handle, task) = ecu.run();
            nodes += 1;
            let node = Node { number: nodes, bus: bus.clone(), request_id, response_id };
            tasks.spawn(task);
            // On the bus from now on, not from the task's first turn on.
            tasks.spawn(node.run(bus.subscribe(), requests));
            handles.insert(ecu_id, handle);
        }
        tasks.spawn(accept(listener, config.interface, bus, nodes));
        Ok(Self { address, handles, tasks })
    }

    /// Where socketcand clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The faults and the power of one of its ECUs.
    pub fn ecu(&self, ecu_id: &str) -> Option<EcuHandle> {
        self.handles.get(ecu_id).cloned()
    }

    /// Cuts the power of all: all tasks end here, what was not saved is lost.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

fn check_identifiers(ecus: &[CanEcuConfig]) -> Result<(), CanBusError> {
    let mut taken = HashSet::new();
    for config in ecus {
        for id in [config.request_id, config.response_id] {
            if CanFrame::new(id, &[]).is_none() || !taken.insert(id) {
                return Err(CanBusError::Identifier { id, ecu_id: config.ecu.ecu_id.clone() });
            }
        }
    }
    Ok(())
}

/// An ECU's connection to the bus.
struct Node {
    number: u64,
    bus: broadcast::Sender<Sent>,
    request_id: u32,
    response_id: u32,
}

impl Node {
    async fn run(self, mut bus: broadcast::Receiver<Sent>, requests: mpsc::Sender<EcuRequest>) {
        let (answers, mut to_send) = mpsc::channel::<EcuAnswer>(ANSWERS);
        let start = Instant::now();
        let mut end = IsoTp::default();
        loop {
            while let Some(frame) = end.next_frame(start.elapsed()) {
                if let Some(frame) = CanFrame::new(self.response_id, &frame) {
                    let _ = self.bus.send((self.number, frame));
                }
            }
            let wake_at = start + end.wake_at().unwrap_or(Duration::ZERO);
            tokio::select! {
                frame = next_frame(&mut bus, self.number) => {
                    let Some(frame) = frame else { return };
                    if frame.id() != self.request_id {
                        continue;
                    }
                    if let Some(data) = end.on_frame(start.elapsed(), frame.data()) {
                        // An ECU that is busy with too many requests loses the rest.
                        let _ = requests.try_send(EcuRequest { data, tester: TESTER, answers: answers.clone() });
                    }
                }
                answer = to_send.recv(), if !end.is_sending() => {
                    let Some(answer) = answer else { return };
                    if let Err(error) = end.send(Bytes::from(answer.data)) {
                        tracing::error!(%error, "An answer does not fit on CAN.");
                    }
                }
                () = sleep_until(wake_at), if end.is_sending() => {}
            }
        }
    }
}

/// The next frame of another node; nothing once the bus is gone.
async fn next_frame(bus: &mut broadcast::Receiver<Sent>, own: u64) -> Option<CanFrame> {
    loop {
        match bus.recv().await {
            Ok((sender, frame)) if sender != own => return Some(frame),
            Ok(_) => {}
            Err(RecvError::Lagged(frames)) => tracing::warn!(frames, "A node on a CAN bus was too slow."),
            Err(RecvError::Closed) => return None,
        }
    }
}

async fn accept(listener: TcpListener, interface: String, bus: broadcast::Sender<Sent>, nodes: u64) {
    let mut clients = JoinSet::new();
    let mut number = nodes;
    loop {
        while clients.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                number += 1;
                clients.spawn(serve(stream, interface.clone(), bus.clone(), number));
            }
            Err(error) => {
                tracing::warn!(%error, "A socketcand client could not be accepted.");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A socketcand client, until it goes or asks for what there is not.
async fn serve(stream: TcpStream, interface: String, bus: broadcast::Sender<Sent>, number: u64) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let (mut reader, mut writer) = stream.into_split();
    let mut received = BytesMut::new();
    if greet(&mut reader, &mut writer, &mut received, &interface).await.is_none() {
        return;
    }
    let from_bus = bus.subscribe();
    if say(&mut writer, &SocketcandMessage::Ok).await.is_none() {
        return;
    }
    tokio::select! {
        () = hand_on(writer, from_bus, number) => {}
        () = take(reader, received, bus, number) => {}
    }
}

/// Up to the request for raw mode.
async fn greet(
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    received: &mut BytesMut,
    interface: &str,
) -> Option<()> {
    say(writer, &SocketcandMessage::Hi).await?;
    let opened = next_message(reader, received).await?;
    if opened != SocketcandMessage::Open(interface.to_owned()) {
        tracing::info!(?opened, interface, "A socketcand client asked for another bus.");
        return None;
    }
    say(writer, &SocketcandMessage::Ok).await?;
    (next_message(reader, received).await? == SocketcandMessage::RawMode).then_some(())
}

async fn hand_on(mut writer: OwnedWriteHalf, mut bus: broadcast::Receiver<Sent>, number: u64) {
    while let Some(frame) = next_frame(&mut bus, number).await {
        if say(&mut writer, &SocketcandMessage::Frame(frame)).await.is_none() {
            return;
        }
    }
}

async fn take(mut reader: OwnedReadHalf, mut received: BytesMut, bus: broadcast::Sender<Sent>, number: u64) {
    while let Some(message) = next_message(&mut reader, &mut received).await {
        if let SocketcandMessage::Send(frame) = message {
            // Without any other node nobody hears it.
            let _ = bus.send((number, frame));
        }
    }
}

async fn say(writer: &mut OwnedWriteHalf, message: &SocketcandMessage) -> Option<()> {
    writer.write_all(message.to_string().as_bytes()).await.ok()
}

async fn next_message(reader: &mut OwnedReadHalf, received: &mut BytesMut) -> Option<SocketcandMessage> {
    loop {
        if let Some(message) = SocketcandMessage::take(received).ok()? {
            return Some(message);
        }
        if reader.read_buf(received).await.ok()? == 0 {
            return None;
        }
    }
}
