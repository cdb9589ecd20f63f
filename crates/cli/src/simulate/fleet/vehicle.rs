//! One light vehicle: its connection, what it has to say until it is acknowledged, and its downloads.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use farrier_protocol::{
    MessageType, RefusalCode, ServerBody, ServerMessage, Sha256, StartDownload, Topics, VehicleMessage,
};
use rustls::ClientConfig;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::gateway::{Gateway, Pause};
use super::inventory::Model;
use super::scoreboard::{Scoreboard, Truth};
use crate::light::http::fetch;
use crate::light::mqtt::{MqttLink, Packet};
use crate::light::tls::{Endpoint, connect_tls};
use crate::output::now;

/// Vehicles that shake hands at a time, far fewer than the server takes.
const HANDSHAKES: usize = 64;
/// Vehicles that download at a time.
const DOWNLOADS: usize = 64;
/// For one handshake, and for one answer of the file server.
const PATIENCE: Duration = Duration::from_secs(30);
/// A vehicle that has said nothing for so long says that it is alive: less than its keep-alive time.
const QUIET: Duration = Duration::from_secs(45);
/// How answers are refused that come too late, which vehicles of a fleet do.
const LATE: [RefusalCode; 2] = [RefusalCode::CorrelationExpired, RefusalCode::CorrelationClosed];
/// The bound of the first wait before another try, and of all (protocol.md §2).
const FIRST_WAIT_MS: u64 = 5_000;
const LONGEST_WAIT_MS: u64 = 30_000;

/// What the vehicles of a fleet share.
pub(super) struct Surroundings {
    pub(super) model: Model,
    pub(super) board: Scoreboard,
    server: Endpoint,
    topics: Topics,
    handshakes: Semaphore,
    downloads: Semaphore,
    /// Hosts of packages that were looked up.
    files: Mutex<HashMap<String, FileServer>>,
}

/// Where packages are fetched.
#[derive(Clone)]
struct FileServer {
    endpoint: Endpoint,
    host: String,
    /// What stands before the path of a package.
    path: String,
}

impl Surroundings {
    pub(super) fn new(model: Model, server: Endpoint) -> Self {
        Self {
            model,
            board: Scoreboard::default(),
            server,
            topics: Topics::default(),
            handshakes: Semaphore::new(HANDSHAKES),
            downloads: Semaphore::new(DOWNLOADS),
            files: Mutex::default(),
        }
    }

    async fn file_server(&self, base_url: &str) -> anyhow::Result<FileServer> {
        let mut files = self.files.lock().await;
        if let Some(known) = files.get(base_url) {
            return Ok(known.clone());
        }
        let url = reqwest::Url::parse(base_url).with_context(|| format!("cannot read the URL {base_url}"))?;
        let host = url.host_str().with_context(|| format!("{base_url} names no host"))?.to_owned();
        let endpoint = Endpoint::look_up(&host, url.port().unwrap_or(443)).await?;
        let found = FileServer { endpoint, host, path: url.path().trim_end_matches('/').to_owned() };
        files.insert(base_url.to_owned(), found.clone());
        Ok(found)
    }
}

/// One vehicle.
pub(super) struct Vehicle {
    gateway: Gateway,
    tls: Arc<ClientConfig>,
    /// What the server has not acknowledged yet, oldest first.
    outbox: VecDeque<Unacknowledged>,
    around: Arc<Surroundings>,
    is_known: bool,
    is_at_rest: bool,
    failures_in_a_row: u32,
    /// When what is under way is done.
    work_until: Option<Instant>,
}

/// A message that the server has not acknowledged.
struct Unacknowledged {
    message_type: MessageType,
    topic: String,
    content: Vec<u8>,
    /// Of this connection; none where it was not sent over it yet.
    packet_id: Option<u16>,
}

impl Vehicle {
    pub(super) fn new(gateway: Gateway, tls: Arc<ClientConfig>, around: Arc<Surroundings>) -> Self {
        Self {
            gateway,
            tls,
            outbox: VecDeque::new(),
            around,
            is_known: false,
            is_at_rest: false,
            failures_in_a_row: 0,
            work_until: None,
        }
    }

    /// What it truly is.
    pub(super) fn truth(&self) -> Truth {
        self.gateway.truth()
    }

    /// Lives through its connections, without end.
    pub(super) async fn live(&mut self) {
        loop {
            let left = match self.connect().await {
                Ok(mut link) => self.be_connected(&mut link).await.map(|pause| (pause, link)),
                Err(error) => Err(error),
            };
            match left {
                Ok((Pause::Away { lasts, reboots }, link)) => {
                    drop(link);
                    sleep(lasts).await;
                    if reboots {
                        self.gateway.reboot();
                    }
                }
                Ok((Pause::Silent { stays_connected }, link)) => {
                    let _link = stays_connected.then_some(link);
                    self.rest(true);
                    std::future::pending::<()>().await;
                }
                Ok((Pause::SilentUntil(until), link)) => {
                    drop(link);
                    let left_ms = u64::try_from(until.0.saturating_sub(now().0)).unwrap_or(0);
                    sleep(Duration::from_millis(left_ms)).await;
                    let told = self.gateway.come_back_late(now());
                    self.say(told);
                }
                Err(error) => {
                    self.around.board.failed(&error);
                    self.rest(false);
                    sleep(self.next_wait()).await;
                }
            }
        }
    }

    async fn connect(&self) -> anyhow::Result<MqttLink> {
        let around = &self.around;
        let _turn = around.handshakes.acquire().await?;
        let binding = &self.gateway.binding;
        let (client_id, commands) = (binding.client_id(), around.topics.down(binding));
        let connecting = MqttLink::connect(&around.server, &self.tls, &client_id, &commands);
        let link = timeout(PATIENCE, connecting).await.context("the server took too long to let it in")??;
        around.board.connections.add(1);
        Ok(link)
    }

    /// Says what there is to say and does what it is told, until its nature takes it away.
    async fn be_connected(&mut self, link: &mut MqttLink) -> anyhow::Result<Pause> {
        // Of several WakeUps the last one counts, and goes first.
        self.outbox.retain(|message| message.message_type != MessageType::WakeUp);
        self.outbox.iter_mut().for_each(|message| message.packet_id = None);
        let wake_up = self.gateway.wake_up(now());
        self.outbox.push_front(self.unacknowledged(&wake_up));
        loop {
            self.send(link).await?;
            if let Some(pause) = self.gateway.take_pause() {
                self.rest(false);
                return Ok(pause);
            }
            if self.work_until.is_none() {
                self.work_until = self.gateway.work_takes().map(|takes| Instant::now() + takes);
            }
            self.rest(self.outbox.is_empty() && self.work_until.is_none());
            let wake_at = self.work_until.unwrap_or_else(|| Instant::now() + QUIET);
            tokio::select! {
                packet = link.next() => self.receive(link, packet?)?,
                () = sleep_until(wake_at) => match self.work_until.take() {
                    Some(_) => self.work().await,
                    None => link.put_ping(),
                },
            }
        }
    }

    async fn send(&mut self, link: &mut MqttLink) -> anyhow::Result<()> {
        for message in self.outbox.iter_mut().filter(|message| message.packet_id.is_none()) {
            message.packet_id = Some(link.put_publish(&message.topic, &message.content));
        }
        timeout(PATIENCE, link.flush()).await.context("the server took too long to read")?
    }

    fn receive(&mut self, link: &mut MqttLink, packet: Packet) -> anyhow::Result<()> {
        match packet {
            Packet::Acknowledged { packet_id, reason } => self.acknowledged(packet_id, reason)?,
            Packet::Message { packet_id, payload } => {
                link.put_acknowledgement(packet_id);
                self.around.board.received.add(1);
                self.take(&payload);
            }
            Packet::Alive => {}
            other @ (Packet::Connected { .. } | Packet::Subscribed { .. } | Packet::Disconnected { .. }) => {
                bail!("expected a message, found {other:?}")
            }
        }
        self.failures_in_a_row = 0;
        Ok(())
    }

    fn acknowledged(&mut self, packet_id: u16, reason: u8) -> anyhow::Result<()> {
        /// MQTT 5: quota exceeded. The message was not taken.
        const TOO_MANY: u8 = 0x97;
        ensure!(reason != TOO_MANY, "the server takes no more messages for now");
        let place = self.outbox.iter().position(|message| message.packet_id == Some(packet_id));
        let message = place.and_then(|place| self.outbox.remove(place));
        let message = message.context("the server acknowledged what was not sent")?;
        let board = &self.around.board;
        if reason == 0 {
            board.sent.add(1);
        } else {
            let who = &self.gateway.binding.vehicle_id;
            board.fault(format!("{who}: the server refused {} with {reason:#04x}", message.message_type));
        }
        if message.message_type == MessageType::WakeUp && !self.is_known {
            self.is_known = true;
            board.known.add(1);
        }
        Ok(())
    }

    fn take(&mut self, payload: &[u8]) {
        let who = &self.gateway.binding.vehicle_id;
        let command = match ServerMessage::parse(payload) {
            Ok(command) => command,
            Err(refused) => {
                let refusal = refused.into_refusal();
                return self
                    .around
                    .board
                    .fault(format!("{who}: what the server sent cannot be read: {refusal}"));
            }
        };
        if let ServerBody::MessageRejected(rejected) = &command.body {
            if LATE.contains(&rejected.code) {
                self.around.board.refused_late.add(1);
            } else {
                let (of, code, why) = (&rejected.correlation_id, rejected.code, &rejected.detail);
                self.around.board.fault(format!("{who}: the server refused {of:?} with {code:?}: {why}"));
            }
        }
        let answers = self.gateway.take(&self.around.model, command, now());
        self.say(answers);
    }

    /// Does what is due.
    async fn work(&mut self) {
        if let Some(start) = self.gateway.to_download() {
            match download(&self.around, &self.tls, start).await {
                Ok(bytes) => self.around.board.downloaded_bytes.add(bytes),
                Err(error) => {
                    self.around.board.failed(&error.context("a package could not be fetched"));
                    if !self.gateway.give_up(now()) {
                        self.work_until = Some(Instant::now() + self.next_wait());
                    }
                    return;
                }
            }
            if self.gateway.give_up(now()) {
                return;
            }
        }
        let said = self.gateway.advance(now());
        self.say(said);
    }

    fn say(&mut self, messages: Vec<VehicleMessage>) {
        for message in messages {
            self.outbox.push_back(self.unacknowledged(&message));
        }
    }

    fn unacknowledged(&self, message: &VehicleMessage) -> Unacknowledged {
        Unacknowledged {
            message_type: message.message_type(),
            topic: self.around.topics.up(&self.gateway.binding, message.topic()),
            content: message.to_json(),
            packet_id: None,
        }
    }

    fn rest(&mut self, is_at_rest: bool) {
        if is_at_rest != self.is_at_rest {
            self.is_at_rest = is_at_rest;
            if is_at_rest {
                self.around.board.at_rest.add(1);
            } else {
                self.around.board.at_rest.subtract(1);
            }
        }
    }

    /// Any time up to a bound that doubles with each failure.
    fn next_wait(&mut self) -> Duration {
        let doubled = FIRST_WAIT_MS.saturating_mul(1 << self.failures_in_a_row.min(8));
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let mut octets = [0; 8];
        // Without random numbers there is no jitter; nothing else depends on them.
        let _ = aws_lc_rs::rand::fill(&mut octets);
        let bound = doubled.min(LONGEST_WAIT_MS).saturating_add(1);
        Duration::from_millis(u64::from_le_bytes(octets).checked_rem(bound).unwrap_or_default())
    }
}

/// Fetches every package of an update over one connection, and checks each; gives the octets.
async fn download(
    around: &Surroundings,
    tls: &Arc<ClientConfig>,
    start: &StartDownload,
) -> anyhow::Result<u64> {
    let _turn = around.downloads.acquire().await?;
    let server = around.file_server(start.transfer.base_url.as_str()).await?;
    let connecting = timeout(PATIENCE, connect_tls(&server.endpoint, tls)).await;
    let mut stream = connecting.context("the server took too long to let it in")??;
    let most = start.transfer.max_kb_per_msg.saturating_mul(1024);
    let mut bytes: u64 = 0;
    for package in &start.packages {
        let path = format!("{}{}", server.path, package.url);
        let content = fetch(&mut stream, &server.host, &path, package.size_bytes, most);
        let content = timeout(PATIENCE, content).await.context("the server took too long to send it")??;
        let found = Sha256::of(&content);
        ensure!(
            found == package.hash_sha256,
            "expected content with the digest {}, found {found}",
            package.hash_sha256
        );
        bytes = bytes.saturating_add(package.size_bytes);
    }
    Ok(bytes)
}
