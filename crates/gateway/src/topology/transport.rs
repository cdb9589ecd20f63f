//! How a controller is reached: a DoIP entity, or a CAN bus that the gateway is on itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use farrier_diagnostics::can::MAX_CAN_ID;
use farrier_diagnostics::doip::LogicalAddress;
use farrier_protocol::MacAddress;
use serde::Deserialize;

use super::controller_tls::{self, ControllerTls};
use super::{Address, TopologyError, contradiction};

/// UDP and TCP port of a DoIP entity (ISO 13400-2, table 48).
const DOIP_PORT: u16 = 13_400;
/// Its TCP port for TLS.
const DOIP_TLS_PORT: u16 = 3_496;
/// Every entity of the network that the gateway is in.
const EVERYBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::BROADCAST), DOIP_PORT);

/// How a controller is reached.
#[derive(Debug, Clone)]
pub enum Transport {
    /// By DoIP: it routes to the ECUs behind it.
    DoIp(DoIpEntity),
    /// By CAN: its ECUs are on this bus.
    Can(CanInterface),
}

/// A DoIP entity.
#[derive(Debug, Clone)]
pub struct DoIpEntity {
    /// Where it listens, TCP.
    pub address: EntityAddress,
    /// Where it is asked who it is, UDP; where it is found by its EID, this is where everybody is asked.
    pub discovery: SocketAddr,
    /// The certificates, where the connection to it is encrypted.
    pub tls: Option<ControllerTls>,
    /// Its own logical address.
    pub logical_address: LogicalAddress,
}

/// Where a DoIP entity listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntityAddress {
    /// Always here.
    Fixed(SocketAddr),
    /// At the address from which the entity of this EID answers, wherever that is.
    OfEid {
        /// Its entity identifier, usually a MAC address.
        eid: MacAddress,
        /// Its TCP port.
        port: u16,
    },
}

/// A CAN bus.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanInterface {
    /// The name of the interface, such as `can0`.
    pub interface: String,
    /// The socketcand server that has the interface; without it, the interface is this machine's (SocketCAN).
    #[serde(default)]
    pub socketcand: Option<SocketAddr>,
}

/// An ECU's address behind its controller, of the controller's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EcuAddress {
    /// Behind a DoIP entity.
    DoIp(LogicalAddress),
    /// On a CAN bus.
    Can(CanIds),
}

/// The identifiers of an ECU's diagnostics on its bus; above 0x7FF they are of the extended format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanIds {
    /// Of what is sent to it.
    pub request_id: u32,
    /// Of what it sends.
    pub response_id: u32,
}

impl CanIds {
    pub(super) fn checked(self, ecu: &str) -> Result<Self, TopologyError> {
        let Self { request_id, response_id } = self;
        if request_id > MAX_CAN_ID || response_id > MAX_CAN_ID || request_id == response_id {
            let found = format!("{request_id:#X} and {response_id:#X} at {ecu}");
            return Err(contradiction("two different CAN identifiers up to 0x1FFFFFFF", found));
        }
        Ok(self)
    }
}

/// What a `[[controller]]` says about it.
pub(super) struct Fields {
    pub(super) address: Option<SocketAddr>,
    pub(super) eid: Option<MacAddress>,
    pub(super) port: Option<u16>,
    pub(super) discovery: Option<SocketAddr>,
    pub(super) tls: Option<controller_tls::Entry>,
    pub(super) logical_address: Option<Address>,
    pub(super) can: Option<CanInterface>,
}

impl Fields {
    pub(super) fn checked(self, controller: &str, folder: &Path) -> Result<Transport, TopologyError> {
        let doip_only = self.discovery.is_some() || self.tls.is_some();
        let port = self.port;
        let address = match (self.address, self.eid) {
            (Some(address), None) if port.is_none() => Some(EntityAddress::Fixed(address)),
            (None, Some(eid)) => {
                let default = if self.tls.is_some() { DOIP_TLS_PORT } else { DOIP_PORT };
                Some(EntityAddress::OfEid { eid, port: port.unwrap_or(default) })
            }
            (None, None) if port.is_none() => None,
            (None | Some(_), None | Some(_)) => {
                let expected = "address with its port, or eid and perhaps port";
                return Err(contradiction(expected, format!("both, or port alone, at {controller}")));
            }
        };
        match (address, self.logical_address, self.can) {
            (Some(address), Some(logical_address), None) => {
                let default = match (&address, &self.tls) {
                    (EntityAddress::Fixed(address), None) => *address,
                    // Where TLS has a port of its own, the entity is still asked who it is on DoIP's.
                    (EntityAddress::Fixed(address), Some(_)) => SocketAddr::new(address.ip(), DOIP_PORT),
                    (EntityAddress::OfEid { .. }, _) => EVERYBODY,
                };
                let tls = self.tls.map(|entry| entry.read(&address, folder)).transpose();
                Ok(Transport::DoIp(DoIpEntity {
                    tls: tls.map_err(|source| TopologyError::Tls {
                        controller: controller.to_owned(),
                        source: Box::new(source),
                    })?,
                    address,
                    discovery: self.discovery.unwrap_or(default),
                    logical_address: logical_address.0,
                }))
            }
            (None, None, Some(can)) if !doip_only => Ok(Transport::Can(can)),
            (None | Some(_), None | Some(_), None | Some(_)) => {
                let expected = "address or eid, and logical_address (DoIP), or can alone";
                Err(contradiction(expected, format!("neither of them at {controller}")))
            }
        }
    }
}
