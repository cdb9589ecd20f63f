//! The agent: takes commands from the link, answers them, and carries out the commands of
//! `farrier_vehicle_update`. Everything that changes its state passes through one loop.

mod bases;
mod commands;
mod unchanged;
mod update;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use farrier_protocol::{Binding, InvalidValue, MsgId, NotReadyReason, Text, VehicleBody};
use farrier_vehicle_update::{DamagedRecords, Event, VehicleUpdate};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{ConfigError, GatewayConfig};
use crate::download::{Downloader, SetUpError};
use crate::ecu_link::EcuLinks;
use crate::identity;
use crate::image_store::ImageStore;
use crate::journal::{Entry, Journal, JournalError};
use crate::readiness::{ReadinessSource, SignalsFile};
use crate::release_signature::{ReleaseKey, ReleaseKeyError};
use crate::server_link::{Boot, Received, ServerLink};
use crate::status::Status;
use crate::status_socket;
use crate::tls::{Tls, TlsError};
use crate::topology::{Topology, TopologyError};

/// Results of ECU calls and downloads that wait for the agent.
const EVENT_QUEUE: usize = 64;

/// Starts gateways.
#[derive(Debug)]
pub struct Gateway;

/// A gateway at work. Dropping it stops it at once, as a power cut would.
#[derive(Debug)]
pub struct RunningGateway {
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    pulse: Pulse,
    /// Nothing once its result was told.
    work: Option<JoinHandle<Result<(), GatewayFailure>>>,
}

/// Shows whether the agent still does its work.
#[derive(Debug, Clone)]
pub struct Pulse {
    agent: mpsc::Sender<TaskResult>,
}

impl Pulse {
    /// Waits until the agent answers; `false` once it has stopped.
    pub async fn beats(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        self.agent.send(TaskResult::Pulse(answer)).await.is_ok() && answered.await.is_ok()
    }
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificate, key or root.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The release key.
    #[error(transparent)]
    ReleaseKey(#[from] ReleaseKeyError),
    /// The topology.
    #[error("the topology file {path} cannot be used")]
    Topology {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TopologyError,
    },
    /// The state folder.
    #[error("cannot make the folder {path}; name a folder on a writable disk as state_dir")]
    StateDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The downloader.
    #[error(transparent)]
    Download(#[from] SetUpError),
    /// An identifier that could not be made.
    #[error(transparent)]
    Identifier(#[from] InvalidValue),
}

/// Why a running gateway stopped by itself: going on would not be safe.
#[derive(Debug, thiserror::Error)]
pub enum GatewayFailure {
    /// The journal cannot be written or read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The records of the update in it contradict each other.
    #[error(transparent)]
    Records(#[from] DamagedRecords),
    /// An identifier that could not be made.
    #[error(transparent)]
    Identifier(#[from] InvalidValue),
    /// A part of the gateway ended before the others.
    #[error("a part of the gateway stopped unexpectedly; restart it")]
    Stopped,
}

impl Gateway {
    /// Starts a gateway on the present tokio runtime. It connects in its own time, again and again.
    ///
    /// # Errors
    /// Settings or files that cannot be used; a journal that is damaged.
    pub async fn start(config: GatewayConfig) -> Result<RunningGateway, StartError> {
        let signals = SignalsFile::new(&config.readiness_signals);
        Self::start_with(config, Arc::new(signals)).await
    }

    /// Starts a gateway that takes the vehicle's signals from `signals` rather than from the file of its
    /// settings.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub async fn start_with(
        config: GatewayConfig,
        signals: Arc<dyn ReadinessSource>,
    ) -> Result<RunningGateway, StartError> {
        config.check()?;
        let tls = Tls::read(&config)?;
        let release_key = ReleaseKey::read(&config.release_public_key)?;
        let topology = Topology::load(&config.topology)
            .map_err(|source| StartError::Topology { path: config.topology.clone(), source })?;
        std::fs::create_dir_all(&config.state_dir)
            .map_err(|source| StartError::StateDir { path: config.state_dir.clone(), source })?;
        let journal = Journal::open(&config.state_dir)?;
        let packages = config.state_dir.join("packages");
        let images_dir = config.state_dir.join("images");
        let images = ImageStore::new(images_dir.clone(), config.image_store_max_bytes)
            .map_err(|source| StartError::StateDir { path: images_dir, source })?;
        let (limits, backoff) = (config.download.clone(), config.backoff());
        let downloader = Downloader::new(tls.https, packages, release_key, backoff, limits, images.clone())?;

        let journal_fault = journal.fault().map(str::to_owned);
        let (status, status_receiver) = watch::channel(Status { journal_fault, ..Status::default() });
        let outgoing = Arc::new(Notify::new());
        let incoming = Arc::new(Notify::new());
        let stop = CancellationToken::new();
        let boot = Boot {
            boot_id: Uuid::now_v7().to_string().parse()?,
            boot_seq: journal.count_boot().await?,
            began: Instant::now(),
            thumbprint: tls.thumbprint,
        };
        let link = ServerLink {
            binding: config.binding(),
            topics: config.topics()?,
            server: config.server_address()?,
            keep_alive_s: config.keep_alive_s,
            tls: tls.mqtt,
            boot: boot.clone(),
            backoff: config.backoff(),
            journal: journal.clone(),
            outgoing: outgoing.clone(),
            incoming: incoming.clone(),
            status: status.clone(),
            stop: stop.clone(),
        };
        let (results, result_receiver) = mpsc::channel(EVENT_QUEUE);
        let pulse = Pulse { agent: results.clone() };
        let agent = Agent {
            binding: config.binding(),
            boot,
            config: Arc::new(config),
            journal,
            links: EcuLinks::new(topology),
            downloader,
            images,
            signals,
            not_ready: Vec::new(),
            outgoing,
            incoming,
            status,
            results,
            in_work: BTreeSet::new(),
            comparing: BTreeMap::new(),
            update: None,
            interrupt: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        let work = tokio::spawn(run(agent, link, result_receiver, stop.clone()));
        Ok(RunningGateway { status: status_receiver, stop, pulse, work: Some(work) })
    }
}

impl RunningGateway {
    /// What it is doing.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Whether the agent still does its work.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Resolves when the gateway stops by itself; afterwards at once.
    ///
    /// # Errors
    /// Why it did.
    pub async fn stopped(&mut self) -> Result<(), GatewayFailure> {
        let Some(work) = &mut self.work else { return Ok(()) };
        let result = work.await.unwrap_or(Err(GatewayFailure::Stopped));
        self.work = None;
        result
    }

    /// Takes its leave of the server, closes the journal and stops. An update under way goes on at the next start, as the
    /// journal says.
    ///
    /// # Errors
    /// Why it had stopped before.
    pub async fn stop(mut self) -> Result<(), GatewayFailure> {
        self.stop.cancel();
        self.stopped().await
    }
}

impl Drop for RunningGateway {
    fn drop(&mut self) {
        if let Some(work) = &self.work {
            work.abort();
        }
    }
}

/// Agent and link live and end together.
async fn run(
    mut agent: Agent,
    link: ServerLink,
    results: mpsc::Receiver<TaskResult>,
    stop: CancellationToken,
) -> Result<(), GatewayFailure> {
    let status = status_socket::serve(agent.config.state_dir.clone(), agent.status.subscribe());
    let result = tokio::select! {
        result = link.run() => result,
        () = status => Err(GatewayFailure::Stopped),
        result = agent.run(results) => result,
    };
    stop.cancel();
    agent.tasks.shutdown().await;
    agent.journal.close().await;
    if let Err(failure) = &result {
        tracing::error!(why = crate::with_causes(failure), "The gateway stops.");
    }
    result
}

/// What a task of the agent came to.
#[derive(Debug)]
enum TaskResult {
    /// An event of the update that answers this command.
    Update { command: MsgId, event: Event },
    /// The answer to a command that took its time.
    Answer(Box<Entry>, Vec<VehicleBody>),
    /// The vehicle is not what the inventory that was sent last says.
    VehicleChanged,
    /// Somebody wants to know whether the agent is alive.
    Pulse(oneshot::Sender<()>),
    /// A command whose deltas were compared with what the ECUs run.
    BasesCompared(Box<bases::Compared>),
}

struct Agent {
    config: Arc<GatewayConfig>,
    binding: Binding,
    boot: Boot,
    journal: Journal,
    links: EcuLinks,
    downloader: Downloader,
    images: ImageStore,
    signals: Arc<dyn ReadinessSource>,
    /// Why the vehicle was not ready when it was asked last.
    not_ready: Vec<NotReadyReason>,
    outgoing: Arc<Notify>,
    incoming: Arc<Notify>,
    status: watch::Sender<Status>,
    results: mpsc::Sender<TaskResult>,
    /// Open commands that are being carried out.
    in_work: BTreeSet<MsgId>,
    /// Updates, and their StartDownloads, whose deltas are being compared with what the ECUs run.
    comparing: BTreeMap<Text, MsgId>,
    /// The update under way, or the last one.
    update: Option<VehicleUpdate>,
    /// Ends the download and the ECU calls that are under way.
    interrupt: CancellationToken,
    tasks: JoinSet<()>,
}

impl Agent {
    /// Goes on with what the journal holds, then takes what comes.
    async fn run(&mut self, mut results: mpsc::Receiver<TaskResult>) -> Result<(), GatewayFailure> {
        self.resume_update().await?;
        self.compare_inventory().await?;
        let incoming = self.incoming.clone();
        incoming.notify_one();
        loop {
            tokio::select! {
                () = incoming.notified() => self.take_open_commands().await?,
                result = results.recv() => {
                    self.finish(result.ok_or(GatewayFailure::Stopped)?).await?;
                }
                Some(ended) = self.tasks.join_next() => {
                    if ended.is_err_and(|error| error.is_panic()) {
                        return Err(GatewayFailure::Stopped);
                    }
                }
            }
        }
    }

    /// Carries out the commands of the journal that it does not work on already.
    async fn take_open_commands(&mut self) -> Result<(), GatewayFailure> {
        let mut open = BTreeSet::new();
        for command in self.journal.open_commands().await? {
            let read = Received::read(&command.payload, command.received_at, &self.binding);
            let Some(command) = read else { continue };
            open.insert(command.msg_id.clone());
            if self.in_work.insert(command.msg_id.clone()) {
                self.take(command).await?;
            }
        }
        self.in_work.retain(|msg_id| open.contains(msg_id));
        Ok(())
    }

    async fn finish(&mut self, result: TaskResult) -> Result<(), GatewayFailure> {
        match result {
            TaskResult::Answer(entry, bodies) => self.store(*entry, bodies).await,
            TaskResult::VehicleChanged => self.vehicle_changed().await,
            TaskResult::Pulse(answer) => {
                answer.send(()).ok();
                Ok(())
            }
            TaskResult::BasesCompared(compared) => self.bases_compared(*compared).await,
            TaskResult::Update { command, event } => {
                let is_current = self.update.as_ref().is_some_and(|update| update.plan().command == command);
                if is_current { self.update_event(event).await } else { Ok(()) }
            }
        }
    }

    /// Stores messages to send, and what belongs to them, in one transaction.
    async fn store(&self, mut entry: Entry, bodies: Vec<VehicleBody>) -> Result<(), GatewayFailure> {
        for body in bodies {
            entry.messages.push(identity::message(&self.binding, body)?);
        }
        let sends = !entry.messages.is_empty();
        self.journal.store(entry).await?;
        if sends {
            self.outgoing.notify_one();
        }
        Ok(())
    }

    async fn send(&self, body: VehicleBody) -> Result<(), GatewayFailure> {
        self.store(Entry::default(), vec![body]).await
    }

    async fn close(&self, command: MsgId) -> Result<(), GatewayFailure> {
        self.store(Entry { closes: vec![command], ..Entry::default() }, Vec::new()).await
    }
}
