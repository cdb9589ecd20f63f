//! The gateway's side of diagnostics: runs the sequences of `farrier-diagnostics` over DoIP and CAN.
//!
//! One connection per controller or bus, shared by its ECUs; one conversation at a time with each ECU. Every
//! call can be dropped at any await: the ECU then leaves its session by itself, and the next call begins anew.

mod can_bus;
mod can_link;
mod connection;
mod discovery;
mod image;
mod runner;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use farrier_diagnostics::doip::{DiagnosticNackCode, LogicalAddress};
use farrier_diagnostics::isotp;
use farrier_diagnostics::{
    Failure, Identification, IdentificationField, NotAText, Running, Sequence, Settings, WriteJob,
};
use farrier_protocol::{EcuId, MacAddress};
use futures_util::future::join_all;
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use tokio::time::{Instant, sleep};

use self::can_link::CanLink;
pub use self::connection::ConnectError;
use self::connection::ControllerLink;
#[doc(hidden)]
#[cfg(any(test, fuzzing))]
pub use self::connection::fuzzing::doip_gateway;
use self::image::ImageReader;
use self::runner::Conversation;
use crate::topology::{self, CanIds, EcuAddress, EntityAddress, Topology, Transport};

/// How long one question to an ECU that restarts is waited for, and the distance of these questions.
const REBOOT_POLL: Duration = Duration::from_millis(200);

/// Why a call to an ECU failed.
#[derive(Debug, thiserror::Error)]
pub enum EcuError {
    /// The topology file does not name it.
    #[error("expected an ECU of the topology file, found {ecu_id}")]
    UnknownEcu {
        /// The ECU.
        ecu_id: EcuId,
    },
    /// Its controller cannot be reached.
    #[error("expected a connection to controller {controller}")]
    Connect {
        /// The controller.
        controller: String,
        /// What happened.
        #[source]
        source: ConnectError,
    },
    /// Its controller does not know the way to it.
    #[error(
        "expected controller {controller} to route to the ECU, it refuses: {code:?}; check logical addresses"
    )]
    NotRouted {
        /// The controller.
        controller: String,
        /// Its reason.
        code: DiagnosticNackCode,
    },
    /// The conversation failed.
    #[error(transparent)]
    Conversation(#[from] Failure),
    /// What it says about itself cannot be used.
    #[error(transparent)]
    Identification(#[from] NotAText),
    /// What it runs could not be understood.
    #[error(
        "expected version, bank (0 or 1) and trial state (0 to 2), found {found:02X?}; check [identifiers] of the topology file"
    )]
    Running {
        /// The records as they were read.
        found: Vec<Vec<u8>>,
    },
    /// It did not come back from its restart.
    #[error("expected the ECU back within {}s of its restart, it is silent", .waited.as_secs())]
    NotBack {
        /// How long was waited.
        waited: Duration,
    },
    /// The image could not be read.
    #[error("expected to read {size} bytes of image from {path}")]
    Image {
        /// The file.
        path: PathBuf,
        /// What was to be read.
        size: u64,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
}

/// An image in a file, and where it belongs.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    /// The file.
    pub path: &'a Path,
    /// What is in it.
    pub job: WriteJob,
}

/// The links to all ECUs of the vehicle. Clones share them.
#[derive(Debug, Clone)]
pub struct EcuLinks {
    vehicle: Arc<Vehicle>,
}

#[derive(Debug)]
struct Vehicle {
    topology: Topology,
    controllers: Vec<Controller>,
    /// One conversation at a time with each ECU.
    turns: HashMap<EcuId, Mutex<()>>,
}

#[derive(Debug)]
struct Controller {
    link: Link,
    /// Places for blocks in its buffers.
    blocks: Semaphore,
}

#[derive(Debug)]
enum Link {
    DoIp(ControllerLink),
    Can(CanLink),
}

impl Controller {
    fn new(controller: &topology::Controller, tester: LogicalAddress) -> Self {
        let link = match &controller.transport {
            Transport::DoIp(entity) => {
                Link::DoIp(ControllerLink::new(controller.name.clone(), entity, tester))
            }
            Transport::Can(interface) => Link::Can(CanLink::new(controller.name.clone(), interface.clone())),
        };
        Self { link, blocks: Semaphore::new(controller.parallel_writes) }
    }
}

impl EcuLinks {
    /// Links that connect when they are first used.
    pub fn new(topology: Topology) -> Self {
        let controllers = topology
            .controllers
            .iter()
            .map(|controller| Controller::new(controller, topology.tester_address))
            .collect();
        let turns = topology.ecus.iter().map(|ecu| (ecu.ecu_id.clone(), Mutex::new(()))).collect();
        Self { vehicle: Arc::new(Vehicle { topology, controllers, turns }) }
    }

    /// The vehicle as the topology file describes it.
    pub fn topology(&self) -> &Topology {
        &self.vehicle.topology
    }

    /// Reads what the ECU says about itself.
    ///
    /// # Errors
    /// An ECU that cannot be reached, does not answer, or answers what is no text.
    pub async fn read_identification(
        &self,
        ecu_id: &EcuId,
        fields: &[IdentificationField],
    ) -> Result<Identification, EcuError> {
        let identifiers: Vec<u16> =
            fields.iter().map(|field| field.identifier(&self.settings().identifiers)).collect();
        let records = self.ecu(ecu_id)?.read(self.settings(), &identifiers).await?;
        Ok(Identification::from_records(fields, &records)?)
    }

    /// The ECU's Ethernet address: as the topology file says, else, if the ECU is the DoIP entity itself, the EID
    /// that it announces. An ECU behind an entity has none that could be asked for.
    pub async fn mac_address(&self, ecu_id: &EcuId) -> Option<MacAddress> {
        let place = self.topology().ecu(ecu_id)?;
        if place.mac_address.is_some() {
            return place.mac_address.clone();
        }
        let controller = self.topology().controllers.get(place.controller)?;
        let (Transport::DoIp(entity), EcuAddress::DoIp(address)) = (&controller.transport, place.address)
        else {
            return None;
        };
        if entity.logical_address != address {
            return None;
        }
        match &entity.address {
            EntityAddress::Fixed(_) => discovery::entity_id(entity.discovery, entity.logical_address).await,
            EntityAddress::OfEid { eid, .. } => Some(eid.clone()),
        }
    }

    /// The controllers that the topology file names by their EID, and where each answers now.
    pub async fn find_controllers(&self) -> Vec<(String, Result<SocketAddr, ConnectError>)> {
        let by_eid = self.vehicle.controllers.iter().filter_map(|controller| match &controller.link {
            Link::DoIp(link) if link.is_found_by_eid() => Some(link),
            Link::DoIp(_) | Link::Can(_) => None,
        });
        join_all(by_eid.map(|link| async move { (link.name().to_owned(), link.locate().await) })).await
    }

    /// What the ECU runs.
    ///
    /// # Errors
    /// As [`EcuLinks::read_identification`].
    pub async fn running(&self, ecu_id: &EcuId) -> Result<Running, EcuError> {
        self.ecu(ecu_id)?.running(self.settings()).await
    }

    /// Asks whether the ECU can be programmed now.
    ///
    /// # Errors
    /// [`Failure::NotReady`] if its conditions stay wrong, and all that a conversation can meet.
    pub async fn check_preconditions(&self, ecu_id: &EcuId) -> Result<(), EcuError> {
        self.call(ecu_id, Sequence::check_preconditions(self.settings())).await
    }

    /// Writes an image into the bank that does not run and has the ECU verify it. Nothing is erased on
    /// hardware other than `image.job.hw_part_no`. `progress` gets the bytes that the ECU has acknowledged.
    ///
    /// # Errors
    /// As for any conversation; the bank is then not bootable, and the running software untouched.
    pub async fn write_inactive_bank(
        &self,
        ecu_id: &EcuId,
        image: Image<'_>,
        progress: impl FnMut(u64) + Send,
    ) -> Result<(), EcuError> {
        let ecu = self.ecu(ecu_id)?;
        let mut reader = ImageReader::open(image.path, image.job.size).await?;
        let mut settings = self.settings().clone();
        settings.timers.max_block_length = settings.timers.max_block_length.min(ecu.way.max_message_length());
        let mut sequence = Sequence::write(&settings, image.job);
        let _turn = ecu.turn().await;
        ecu.conversation(Some(&mut reader), progress).run(&mut sequence).await
    }

    /// Marks the written bank for the next boot.
    ///
    /// # Errors
    /// As for any conversation.
    pub async fn activate(&self, ecu_id: &EcuId) -> Result<(), EcuError> {
        self.call(ecu_id, Sequence::activate(self.settings())).await
    }

    /// Restarts the ECU and waits until it runs again; says what it runs then.
    ///
    /// # Errors
    /// [`EcuError::NotBack`] if it stays silent, and all that a conversation can meet.
    pub async fn reset_and_wait(&self, ecu_id: &EcuId) -> Result<Running, EcuError> {
        let ecu = self.ecu(ecu_id)?;
        let _turn = ecu.turn().await;
        ecu.conversation(None, |_| {}).run(&mut Sequence::reset(self.settings())).await?;

        let reboot = self.vehicle.topology.reboot;
        let end = Instant::now() + reboot.timeout;
        let mut quick = self.settings().clone();
        quick.timers.network_allowance = REBOOT_POLL;
        quick.timers.silence_repeats = 0;
        quick.timers.restarts = 0;
        sleep(reboot.wait).await;
        loop {
            match ecu.running_in_turn(&quick).await {
                Err(EcuError::Connect { .. } | EcuError::Conversation(_)) if Instant::now() < end => {
                    sleep(REBOOT_POLL).await;
                }
                Err(EcuError::Conversation(Failure::Silent { .. })) => {
                    return Err(EcuError::NotBack { waited: reboot.timeout });
                }
                result => return result,
            }
        }
    }

    /// Ends the trial of the running software.
    ///
    /// # Errors
    /// As for any conversation.
    pub async fn confirm(&self, ecu_id: &EcuId) -> Result<(), EcuError> {
        self.call(ecu_id, Sequence::confirm(self.settings())).await
    }

    /// Marks the earlier software for the next boot; without effect on an ECU that runs it already.
    ///
    /// # Errors
    /// As for any conversation.
    pub async fn roll_back(&self, ecu_id: &EcuId) -> Result<(), EcuError> {
        self.call(ecu_id, Sequence::roll_back(self.settings())).await
    }

    fn settings(&self) -> &Settings {
        &self.vehicle.topology.settings
    }

    async fn call(&self, ecu_id: &EcuId, mut sequence: Sequence) -> Result<(), EcuError> {
        let ecu = self.ecu(ecu_id)?;
        let _turn = ecu.turn().await;
        ecu.conversation(None, |_| {}).run(&mut sequence).await
    }

    fn ecu(&self, ecu_id: &EcuId) -> Result<Ecu<'_>, EcuError> {
        let vehicle = &self.vehicle;
        let found = vehicle.topology.ecu(ecu_id).and_then(|place| {
            let controller = vehicle.controllers.get(place.controller)?;
            let way = match (&controller.link, place.address) {
                (Link::DoIp(link), EcuAddress::DoIp(address)) => Way::DoIp(link, address),
                (Link::Can(link), EcuAddress::Can(ids)) => Way::Can(link, ids),
                // The topology holds no ECU of another kind than its controller.
                (Link::DoIp(_), EcuAddress::Can(_)) | (Link::Can(_), EcuAddress::DoIp(_)) => return None,
            };
            Some(Ecu { way, controller, turn: vehicle.turns.get(ecu_id)? })
        });
        found.ok_or_else(|| EcuError::UnknownEcu { ecu_id: ecu_id.clone() })
    }
}

/// The way to one ECU.
#[derive(Debug, Clone, Copy)]
enum Way<'a> {
    DoIp(&'a ControllerLink, LogicalAddress),
    Can(&'a CanLink, CanIds),
}

impl Way<'_> {
    /// The longest UDS message that goes this way, in bytes.
    fn max_message_length(self) -> u16 {
        match self {
            Self::DoIp(..) => u16::MAX,
            Self::Can(..) => u16::try_from(isotp::MAX_MESSAGE_LENGTH).unwrap_or(u16::MAX),
        }
    }

    /// The name of its controller.
    fn controller(self) -> String {
        match self {
            Self::DoIp(link, _) => link.name().to_owned(),
            Self::Can(link, _) => link.name().to_owned(),
        }
    }
}

/// One ECU.
struct Ecu<'a> {
    way: Way<'a>,
    controller: &'a Controller,
    turn: &'a Mutex<()>,
}

impl Ecu<'_> {
    async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn conversation<'c, P: FnMut(u64) + Send>(
        &'c self,
        image: Option<&'c mut ImageReader>,
        progress: P,
    ) -> Conversation<'c, P> {
        Conversation::new(self.way, &self.controller.blocks, image, progress)
    }

    async fn read(&self, settings: &Settings, identifiers: &[u16]) -> Result<Vec<Vec<u8>>, EcuError> {
        let _turn = self.turn().await;
        self.read_in_turn(settings, identifiers).await
    }

    async fn read_in_turn(&self, settings: &Settings, identifiers: &[u16]) -> Result<Vec<Vec<u8>>, EcuError> {
        let mut sequence = Sequence::read(settings, identifiers);
        self.conversation(None, |_| {}).run(&mut sequence).await?;
        Ok(sequence.into_records())
    }

    async fn running(&self, settings: &Settings) -> Result<Running, EcuError> {
        let _turn = self.turn().await;
        self.running_in_turn(settings).await
    }

    async fn running_in_turn(&self, settings: &Settings) -> Result<Running, EcuError> {
        let records = self.read_in_turn(settings, &Running::identifiers(&settings.identifiers)).await?;
        Running::from_records(&records).ok_or(EcuError::Running { found: records })
    }
}
