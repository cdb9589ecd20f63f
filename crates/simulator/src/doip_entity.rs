//! A DoIP entity (ISO 13400-2): the zonal gateway or domain controller that testers connect to, and that
//! routes diagnostic messages to the ECUs behind it by their logical addresses.

mod connection;
mod discovery;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod tls;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farrier_diagnostics::doip::LogicalAddress;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use self::connection::TesterHandle;
pub use self::tls::{EntityTls, EntityTlsError};
use crate::ecu::{Ecu, EcuConfig, EcuHandle, EcuRequest, StateError};

/// A DoIP entity as a configuration file describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntityConfig {
    /// Its name, as logs say it.
    pub name: String,
    /// Its own logical address.
    pub logical_address: u16,
    /// Where it listens, TCP and UDP; port 0 takes a free one.
    #[serde(default = "loopback")]
    pub listen: SocketAddr,
    /// Vehicle identification number, 17 characters.
    pub vin: String,
    /// EID of the vehicle announcement, usually a MAC address.
    #[serde(default = "local_mac_address")]
    pub entity_id: [u8; 6],
    /// Where vehicle announcements go at the start; none without it.
    #[serde(default)]
    pub announce_to: Option<AnnounceTo>,
    /// How many testers may be connected at once.
    #[serde(default = "four_connections")]
    pub max_connections: usize,
    /// How long a connection may stay without routing activation, in milliseconds.
    #[serde(default = "initial_inactivity")]
    pub initial_inactivity_ms: u64,
    /// How long an activated connection may stay without a message, in milliseconds.
    #[serde(default = "general_inactivity")]
    pub general_inactivity_ms: u64,
}

/// Where vehicle announcements go.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnnounceTo {
    /// In a vehicle the broadcast address and port 13400.
    pub address: SocketAddr,
    /// Time between the three announcements, in milliseconds (ISO 13400-2, A_DoIP_Announce_Interval).
    #[serde(default = "announce_interval")]
    pub every_ms: u64,
}

fn announce_interval() -> u64 {
    500
}

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn local_mac_address() -> [u8; 6] {
    [0x02, 0, 0, 0, 0, 1]
}

fn four_connections() -> usize {
    4
}

fn initial_inactivity() -> u64 {
    2_000
}

fn general_inactivity() -> u64 {
    300_000
}

/// Why an entity did not start.
#[derive(Debug, thiserror::Error)]
pub enum EntityError {
    /// Its address could not be taken.
    #[error("expected to listen on {address} as DoIP entity {name}; choose another address or port 0")]
    Listen {
        /// The entity.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// Its certificates cannot be used.
    #[error("expected certificates for TLS at DoIP entity {name}")]
    Tls {
        /// The entity.
        name: String,
        /// What is wrong with them.
        #[source]
        source: EntityTlsError,
    },
    /// The vehicle identification number is not one.
    #[error("expected a vehicle identification number of 17 ASCII characters, found {found:?}")]
    Vin {
        /// What the configuration says.
        found: String,
    },
    /// Two ECUs share an address.
    #[error("expected each logical address once behind {name}, found {address:#06X} twice")]
    AddressTwice {
        /// The entity.
        name: String,
        /// The address.
        address: u16,
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

/// What every connection of an entity shares.
#[derive(Debug)]
struct Entity {
    config: EntityConfig,
    vin: [u8; 17],
    ecus: HashMap<u16, mpsc::Sender<EcuRequest>>,
    /// Routing is activated over TLS only.
    secured: bool,
    /// Testers with an activated connection, by their logical address.
    testers: Mutex<HashMap<u16, TesterHandle>>,
}

impl Entity {
    fn address(&self) -> LogicalAddress {
        LogicalAddress(self.config.logical_address)
    }

    fn testers(&self) -> MutexGuard<'_, HashMap<u16, TesterHandle>> {
        // The map is never left half changed, so it is good even after a panic elsewhere.
        self.testers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running DoIP entity with its ECUs; all of it stops when this is dropped.
#[derive(Debug)]
pub struct DoipEntity {
    tcp_address: SocketAddr,
    udp_address: SocketAddr,
    tls_address: Option<SocketAddr>,
    handles: HashMap<String, EcuHandle>,
    tasks: JoinSet<()>,
}

impl DoipEntity {
    /// Powers up the ECUs, each with its state in `state_folder/{ecu_id}`, and listens. An ECU with the entity's
    /// own logical address is the entity itself.
    ///
    /// # Errors
    /// An address that is taken, a configuration that contradicts itself, state that cannot be read.
    pub async fn start(
        config: EntityConfig,
        ecus: Vec<EcuConfig>,
        state_folder: &Path,
    ) -> Result<Self, EntityError> {
        Self::start_with(config, None, ecus, state_folder).await
    }

    /// The same with TLS: without it, a tester can connect and its routing activation is denied.
    ///
    /// # Errors
    /// As [`DoipEntity::start`], and certificates that cannot be used.
    pub async fn start_secured(
        config: EntityConfig,
        tls: &EntityTls,
        ecus: Vec<EcuConfig>,
        state_folder: &Path,
    ) -> Result<Self, EntityError> {
        Self::start_with(config, Some(tls), ecus, state_folder).await
    }

    async fn start_with(
        config: EntityConfig,
        tls: Option<&EntityTls>,
        ecus: Vec<EcuConfig>,
        state_folder: &Path,
    ) -> Result<Self, EntityError> {
        let vin = <[u8; 17]>::try_from(config.vin.as_bytes())
            .ok()
            .filter(|vin| vin.is_ascii())
            .ok_or_else(|| EntityError::Vin { found: config.vin.clone() })?;
        let (listener, socket) = listen(&config).await?;
        let listen_error =
            |source| EntityError::Listen { name: config.name.clone(), address: config.listen, source };
        let tcp_address = listener.local_addr().map_err(listen_error)?;
        let udp_address = socket.local_addr().map_err(listen_error)?;
        let mut tls_address = None;
        let mut secure_listener = None;
        if let Some(tls) = tls {
            let name = || config.name.clone();
            let acceptor = tls.acceptor().map_err(|source| EntityError::Tls { name: name(), source })?;
            let failed = |source| EntityError::Listen { name: name(), address: tls.listen, source };
            let listener = TcpListener::bind(tls.listen).await.map_err(failed)?;
            tls_address = Some(listener.local_addr().map_err(failed)?);
            secure_listener = Some((listener, acceptor));
        }

        let mut tasks = JoinSet::new();
        let PoweredEcus { requests: ecus, handles } = power_up(&config, ecus, state_folder, &mut tasks)?;
        let secured = tls.is_some();
        let permits = Arc::new(Semaphore::new(config.max_connections));
        let entity = Arc::new(Entity { config, vin, ecus, secured, testers: Mutex::default() });
        tasks.spawn(discovery::answer(Arc::clone(&entity), socket));
        if let Some((listener, acceptor)) = secure_listener {
            tasks.spawn(accept(Arc::clone(&entity), listener, Some(acceptor), Arc::clone(&permits)));
        }
        tasks.spawn(accept(entity, listener, None, permits));
        Ok(Self { tcp_address, udp_address, tls_address, handles, tasks })
    }

    /// Where testers connect.
    pub fn tcp_address(&self) -> SocketAddr {
        self.tcp_address
    }

    /// Where testers connect with TLS, if they have to.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// Where vehicle identification is asked for.
    pub fn udp_address(&self) -> SocketAddr {
        self.udp_address
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

/// TCP, and UDP on the same port where that is free.
async fn listen(config: &EntityConfig) -> Result<(TcpListener, UdpSocket), EntityError> {
    let failed = |source| EntityError::Listen { name: config.name.clone(), address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let socket = match UdpSocket::bind(address).await {
        Ok(socket) => socket,
        // The port was free for TCP only: any other will do where the caller did not name one.
        Err(_) if config.listen.port() == 0 => {
            UdpSocket::bind(SocketAddr::new(address.ip(), 0)).await.map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    Ok((listener, socket))
}

/// ECUs that run: where their requests go, by logical address, and their handles, by name.
#[derive(Debug, Default)]
struct PoweredEcus {
    requests: HashMap<u16, mpsc::Sender<EcuRequest>>,
    handles: HashMap<String, EcuHandle>,
}

fn power_up(
    entity: &EntityConfig,
    configs: Vec<EcuConfig>,
    state_folder: &Path,
    tasks: &mut JoinSet<()>,
) -> Result<PoweredEcus, EntityError> {
    let mut powered = PoweredEcus::default();
    for config in configs {
        let (address, ecu_id) = (config.logical_address, config.ecu_id.clone());
        if powered.requests.contains_key(&address) {
            return Err(EntityError::AddressTwice { name: entity.name.clone(), address });
        }
        let folder = state_folder.join(&ecu_id);
        let ecu = Ecu::power_up(config, &folder)
            .map_err(|source| EntityError::Ecu { ecu_id: ecu_id.clone(), source })?;
        let (requests, handle, task) = ecu.run();
        tasks.spawn(task);
        powered.requests.insert(address, requests);
        powered.handles.insert(ecu_id, handle);
    }
    Ok(powered)
}

async fn accept(
    entity: Arc<Entity>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    permits: Arc<Semaphore>,
) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(entity = entity.config.name, %error, "A tester could not be accepted.");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // One tester too many is let go at once: the others keep their connections.
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        let entity = Arc::clone(&entity);
        let tls = tls.clone();
        connections.spawn(async move {
            serve(entity, stream, tls).await;
            drop(permit);
        });
    }
}

async fn serve(entity: Arc<Entity>, stream: TcpStream, tls: Option<TlsAcceptor>) {
    // Acknowledgement and answer are two small writes: with Nagle's algorithm they take 40 ms.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some(acceptor) = tls else {
        let (reader, writer) = stream.into_split();
        return connection::serve(entity, reader, writer, false).await;
    };
    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let (reader, writer) = tokio::io::split(stream);
            connection::serve(entity, reader, writer, true).await;
        }
        Ok(Err(error)) => tracing::info!(entity = entity.config.name, %error, "A tester was refused by TLS."),
        Err(_) => tracing::info!(entity = entity.config.name, "A tester did not finish its TLS handshake."),
    }
}
