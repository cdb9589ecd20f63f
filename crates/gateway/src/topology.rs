//! The topology file: which ECUs the vehicle has, behind which controllers, and how they are spoken to.
//!
//! Checked as a whole when it is read; past this module every address and name is good.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use farrier_diagnostics::doip::LogicalAddress;
use farrier_diagnostics::{Identifiers, SecurityAlgorithm, Settings, Timers};
use farrier_protocol::{CanId, EcuId, FunctionalGroup, IpAddress, MacAddress, Placement, Text, Zone};
use serde::Deserialize;

mod controller_tls;
mod transport;

pub use self::controller_tls::{ControllerTls, ControllerTlsError};
pub use self::transport::{CanIds, CanInterface, DoIpEntity, EcuAddress, EntityAddress, Transport};

/// The most ECUs that an inventory holds (protocol.md §4.3).
const MAX_ECUS: usize = 512;

/// The vehicle behind the gateway.
#[derive(Debug, Clone)]
pub struct Topology {
    /// The gateway's own logical address as a tester.
    pub tester_address: LogicalAddress,
    /// Identifiers, timers and security, the same for all ECUs.
    pub settings: Settings,
    /// How a restart is waited for.
    pub reboot: Reboot,
    /// The DoIP entities and CAN buses.
    pub controllers: Vec<Controller>,
    /// The ECUs, each behind one of the controllers.
    pub ecus: Vec<EcuPlace>,
}

/// How a restart of an ECU is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reboot {
    /// Before it is asked for the first time.
    pub wait: Duration,
    /// Until it counts as not coming back.
    pub timeout: Duration,
}

/// A zonal gateway or domain controller, or a bus that has none.
#[derive(Debug, Clone)]
pub struct Controller {
    /// Its name in this file.
    pub name: String,
    /// How it is reached.
    pub transport: Transport,
    /// How many blocks of images may be on their way to its ECUs at once: what its buffers hold.
    pub parallel_writes: usize,
}

/// Where an ECU stands and what the inventory says of it that UDS does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcuPlace {
    /// Its name.
    pub ecu_id: EcuId,
    /// Position of its controller in [`Topology::controllers`].
    pub controller: usize,
    /// Its address behind that controller.
    pub address: EcuAddress,
    /// Its domain or zone.
    pub functional_group: FunctionalGroup,
    /// Its Ethernet address, if it has one.
    pub mac_address: Option<MacAddress>,
    /// Its IP address, if it has one.
    pub ip_address: Option<IpAddress>,
    /// Its CAN identifier, if it has one; on a bus of the gateway's own, that of its requests unless the file has
    /// another.
    pub can_id: Option<CanId>,
}

/// Why a topology file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The file could not be read.
    #[error("expected a topology file at {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// It is not TOML, has an unknown key or a value of the wrong kind.
    #[error("expected a topology file")]
    Parse {
        /// Where and what.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The certificates for a controller cannot be used.
    #[error("expected certificates for TLS with controller {controller}")]
    Tls {
        /// The controller.
        controller: String,
        /// What is wrong with them.
        #[source]
        source: Box<ControllerTlsError>,
    },
    /// Its parts do not fit together.
    #[error("expected {expected}, found {found}; correct the topology file")]
    Contradiction {
        /// The rule.
        expected: &'static str,
        /// What breaks it.
        found: String,
    },
}

fn contradiction(expected: &'static str, found: impl Into<String>) -> TopologyError {
    TopologyError::Contradiction { expected, found: found.into() }
}

impl Topology {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// A file that is not there, is no topology file, or contradicts itself.
    pub fn load(path: &Path) -> Result<Self, TopologyError> {
        let text = fs::read_to_string(path)
            .map_err(|source| TopologyError::Read { path: path.to_owned(), source })?;
        Self::in_folder(&text, path.parent().unwrap_or(Path::new("")))
    }

    /// Checks the text of a topology file; names of files in it count from the working directory.
    ///
    /// # Errors
    /// As [`Topology::load`].
    pub fn from_toml(text: &str) -> Result<Self, TopologyError> {
        Self::in_folder(text, Path::new(""))
    }

    fn in_folder(text: &str, folder: &Path) -> Result<Self, TopologyError> {
        let file: File =
            toml::from_str(text).map_err(|source| TopologyError::Parse { source: Box::new(source) })?;
        let tester_address = file.tester.logical_address.0;
        if !(LogicalAddress::MIN_CLIENT_ADDRESS.0..=LogicalAddress::MAX_CLIENT_ADDRESS.0)
            .contains(&tester_address.0)
        {
            let found = tester_address.to_string();
            return Err(contradiction("a tester address from 0x0E00 to 0x0FFF", found));
        }
        let controllers = checked_controllers(file.controllers, folder)?;
        let ecus = checked_ecus(file.ecus, &controllers)?;
        Ok(Self {
            tester_address,
            settings: Settings {
                identifiers: file.identifiers,
                timers: file.tester.timers(),
                security: file.security_algorithm,
            },
            reboot: Reboot {
                wait: Duration::from_millis(file.tester.reboot_wait_ms),
                timeout: Duration::from_millis(file.tester.reboot_timeout_ms),
            },
            controllers,
            ecus,
        })
    }

    /// The place of an ECU, if the vehicle has it.
    pub fn ecu(&self, ecu_id: &EcuId) -> Option<&EcuPlace> {
        self.ecus.iter().find(|place| place.ecu_id == *ecu_id)
    }
}

fn checked_controllers(
    entries: Vec<ControllerEntry>,
    folder: &Path,
) -> Result<Vec<Controller>, TopologyError> {
    let mut names = HashSet::new();
    for entry in &entries {
        if !names.insert(entry.name.clone()) {
            return Err(contradiction("each controller name once", entry.name.as_str()));
        }
        if entry.parallel_writes == 0 {
            return Err(contradiction("parallel_writes of at least 1", format!("0 at {}", entry.name)));
        }
    }
    entries.into_iter().map(|entry| entry.checked(folder)).collect()
}

fn checked_ecus(entries: Vec<EcuEntry>, controllers: &[Controller]) -> Result<Vec<EcuPlace>, TopologyError> {
    if !(1..=MAX_ECUS).contains(&entries.len()) {
        return Err(contradiction("1 to 512 [[ecu]] entries", entries.len().to_string()));
    }
    let mut names = HashSet::new();
    let mut addresses = HashSet::new();
    let mut ecus = Vec::with_capacity(entries.len());
    for entry in entries {
        let place = entry.checked(controllers)?;
        if !names.insert(place.ecu_id.clone()) {
            return Err(contradiction("each ecu_id once", place.ecu_id.as_str()));
        }
        let taken = match place.address {
            EcuAddress::DoIp(address) => vec![u32::from(address.0)],
            EcuAddress::Can(ids) => vec![ids.request_id, ids.response_id],
        };
        for address in taken {
            if !addresses.insert((place.controller, address)) {
                let found = format!("{address:#06X} at {}", place.ecu_id);
                return Err(contradiction("each address once behind a controller", found));
            }
        }
        ecus.push(place);
    }
    Ok(ecus)
}

impl EcuEntry {
    fn checked(self, controllers: &[Controller]) -> Result<EcuPlace, TopologyError> {
        let known = |controller: &Controller| controller.name == self.controller;
        let Some((position, controller)) =
            controllers.iter().enumerate().find(|(_, controller)| known(controller))
        else {
            let found = format!("{:?} at {}", self.controller, self.ecu_id);
            return Err(contradiction("the name of a [[controller]]", found));
        };
        let address = match (&controller.transport, self.logical_address, self.can) {
            (Transport::DoIp(_), Some(address), None) => EcuAddress::DoIp(address.0),
            (Transport::Can(_), None, Some(ids)) => EcuAddress::Can(ids.checked(self.ecu_id.as_str())?),
            (Transport::DoIp(_) | Transport::Can(_), None | Some(_), None | Some(_)) => {
                let expected = "logical_address behind a DoIP entity, can on a CAN bus";
                return Err(contradiction(expected, format!("another address at {}", self.ecu_id)));
            }
        };
        let request_id = match address {
            EcuAddress::DoIp(_) => None,
            EcuAddress::Can(ids) => format!("0x{:X}", ids.request_id).parse().ok(),
        };
        Ok(EcuPlace {
            functional_group: self.functional_group.checked(&self.ecu_id)?,
            ecu_id: self.ecu_id,
            controller: position,
            address,
            mac_address: self.mac_address,
            ip_address: self.ip_address,
            can_id: self.can_id.or(request_id),
        })
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    security_algorithm: SecurityAlgorithm,
    #[serde(default)]
    tester: TesterEntry,
    #[serde(default)]
    identifiers: Identifiers,
    #[serde(rename = "controller")]
    controllers: Vec<ControllerEntry>,
    #[serde(rename = "ecu")]
    ecus: Vec<EcuEntry>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TesterEntry {
    logical_address: Address,
    p2_ms: u64,
    p2_star_ms: u64,
    network_allowance_ms: u64,
    pending_cap_ms: u64,
    erase_pending_cap_ms: u64,
    conditions_wait_ms: u64,
    security_delay_ms: u64,
    reboot_wait_ms: u64,
    reboot_timeout_ms: u64,
    max_block_length: u16,
}

impl Default for TesterEntry {
    fn default() -> Self {
        Self {
            logical_address: Address(LogicalAddress(0x0E80)),
            p2_ms: 50,
            p2_star_ms: 5_000,
            network_allowance_ms: 2_000,
            pending_cap_ms: 30_000,
            erase_pending_cap_ms: 120_000,
            conditions_wait_ms: 30_000,
            security_delay_ms: 10_000,
            reboot_wait_ms: 100,
            reboot_timeout_ms: 60_000,
            max_block_length: 0xFFFF,
        }
    }
}

impl TesterEntry {
    fn timers(&self) -> Timers {
        Timers {
            p2: Duration::from_millis(self.p2_ms),
            p2_star: Duration::from_millis(self.p2_star_ms),
            network_allowance: Duration::from_millis(self.network_allowance_ms),
            pending_cap: Duration::from_millis(self.pending_cap_ms),
            erase_pending_cap: Duration::from_millis(self.erase_pending_cap_ms),
            conditions_wait: Duration::from_millis(self.conditions_wait_ms),
            security_delay: Duration::from_millis(self.security_delay_ms),
            max_block_length: self.max_block_length,
            ..Timers::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ControllerEntry {
    name: String,
    #[serde(default)]
    address: Option<SocketAddr>,
    #[serde(default)]
    eid: Option<MacAddress>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    discovery: Option<SocketAddr>,
    #[serde(default)]
    tls: Option<controller_tls::Entry>,
    #[serde(default)]
    logical_address: Option<Address>,
    #[serde(default)]
    can: Option<CanInterface>,
    #[serde(default = "one")]
    parallel_writes: usize,
}

impl ControllerEntry {
    fn checked(self, folder: &Path) -> Result<Controller, TopologyError> {
        let Self { name, address, eid, port, discovery, tls, logical_address, can, parallel_writes } = self;
        let fields = transport::Fields { address, eid, port, discovery, tls, logical_address, can };
        let transport = fields.checked(&name, folder)?;
        Ok(Controller { name, transport, parallel_writes })
    }
}

fn one() -> usize {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EcuEntry {
    ecu_id: EcuId,
    controller: String,
    #[serde(default)]
    logical_address: Option<Address>,
    #[serde(default)]
    can: Option<CanIds>,
    functional_group: GroupEntry,
    #[serde(default)]
    mac_address: Option<MacAddress>,
    #[serde(default)]
    ip_address: Option<IpAddress>,
    #[serde(default)]
    can_id: Option<CanId>,
}

/// `{ domain = "powertrain", index = 1 }` or `{ zone = "front_left", index = 2 }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupEntry {
    #[serde(default)]
    domain: Option<Text>,
    #[serde(default)]
    zone: Option<ZoneEntry>,
    #[serde(default)]
    index: Option<u8>,
}

/// A zone by number or by name, as TOML has it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a zone by name or by a number up to 65535")]
enum ZoneEntry {
    Number(u16),
    Name(Text),
}

impl GroupEntry {
    fn checked(self, ecu_id: &EcuId) -> Result<FunctionalGroup, TopologyError> {
        let placement = match (self.domain, self.zone) {
            (Some(domain), None) => Placement::Domain(domain),
            (None, Some(ZoneEntry::Number(number))) => Placement::Zone(Zone::Number(number)),
            (None, Some(ZoneEntry::Name(name))) => Placement::Zone(Zone::Name(name)),
            (Some(_), Some(_)) => {
                return Err(contradiction("a domain or a zone", format!("both at {ecu_id}")));
            }
            (None, None) => return Err(contradiction("a domain or a zone", format!("neither at {ecu_id}"))),
        };
        Ok(FunctionalGroup { placement, index: self.index })
    }
}

/// A logical address, as a number (`0x1010`) or as text (`"0x1010"`).
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "AddressForm")]
struct Address(LogicalAddress);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a logical address such as 0x1010 or \"0x1010\"")]
enum AddressForm {
    Number(u16),
    Text(String),
}

impl TryFrom<AddressForm> for Address {
    type Error = String;

    fn try_from(form: AddressForm) -> Result<Self, String> {
        let address = match &form {
            AddressForm::Number(number) => Some(*number),
            AddressForm::Text(text) => {
                text.strip_prefix("0x").and_then(|hex| u16::from_str_radix(hex, 16).ok())
            }
        };
        address
            .map(|address| Self(LogicalAddress(address)))
            .ok_or_else(|| "expected a logical address such as 0x1010 or \"0x1010\"".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        security_algorithm = "insecure-xor-a5-for-simulators-only"
        [tester]
        logical_address = "0x0E81"
        pending_cap_ms = 1000
        [identifiers]
        active_bank = 0xF1B0
        [[controller]]
        name = "front"
        address = "127.0.0.1:13400"
        logical_address = 0x1000
        parallel_writes = 4
        [[ecu]]
        ecu_id = "ecu_001"
        controller = "front"
        logical_address = 0x1010
        functional_group = { zone = "front_left", index = 2 }
        mac_address = "00:1A:2B:3C:4D:5E"
    "#;

    /// The error and all its sources.
    fn refusal(text: &str) -> String {
        let error = Topology::from_toml(text).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("{error}: {source}")
    }

    #[test]
    fn a_good_file_gives_places_and_settings() {
        let topology = Topology::from_toml(GOOD).unwrap();
        assert_eq!(topology.tester_address, LogicalAddress(0x0E81));
        assert_eq!(topology.settings.timers.pending_cap, Duration::from_secs(1));
        assert_eq!(topology.settings.identifiers.active_bank, 0xF1B0);
        assert_eq!(topology.settings.identifiers.sw_version, 0xF189);
        let ecu = topology.ecu(&"ecu_001".parse().unwrap()).unwrap();
        assert_eq!(ecu.address, EcuAddress::DoIp(LogicalAddress(0x1010)));
        assert_eq!(ecu.functional_group.index, Some(2));
        assert_eq!(topology.controllers[ecu.controller].parallel_writes, 4);
    }

    #[test]
    fn the_example_in_the_documentation_is_good_and_shows_the_defaults() {
        let topology = Topology::from_toml(include_str!("../../../docs/topology.example.toml")).unwrap();
        assert_eq!(topology.settings.timers, Timers::default());
        assert_eq!(topology.settings.identifiers, Identifiers::default());
        assert_eq!(topology.tester_address, TesterEntry::default().logical_address.0);
        assert_eq!(topology.ecus.len(), 3);
    }

    #[test]
    fn defaults_are_the_same_as_those_of_the_sequences() {
        assert_eq!(TesterEntry::default().timers(), Timers::default());
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        for (place, key) in [
            ("pending_cap_ms", "pendingcap"),
            ("active_bank", "aktive_bank"),
            ("parallel_writes", "paralel"),
            ("index", "indx"),
            ("mac_address", "mac"),
        ] {
            let found = refusal(&GOOD.replacen(place, key, 1));
            assert!(found.contains(key), "{found}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused_with_its_name() {
        let second = "\n[[ecu]]\necu_id = \"ecu_002\"\ncontroller = \"front\"\nlogical_address = 0x1011\nfunctional_group = { zone = 1 }\n";
        assert!(Topology::from_toml(&format!("{GOOD}{second}")).is_ok());
        for (replaced, by, says) in [
            ("ecu_002", "ecu_001", "each ecu_id once"),
            ("0x1011", "0x1010", "each address once"),
            ("\"front\"", "\"rear\"", "the name of a [[controller]]"),
            ("{ zone = 1 }", "{ zone = 1, domain = \"body\" }", "a domain or a zone"),
            ("{ zone = 1 }", "{ index = 1 }", "a domain or a zone"),
            ("{ zone = 1 }", "{ zone = 70000 }", "a number up to 65535"),
            ("0x1011", "0x11011", "a logical address"),
        ] {
            let found = refusal(&format!("{GOOD}{}", second.replace(replaced, by)));
            assert!(found.contains(says), "{found}");
        }
        assert!(refusal(&GOOD.replace("0x0E81", "0x1E81")).contains("a tester address"));
        assert!(refusal(&GOOD.replace("writes = 4", "writes = 0")).contains("parallel_writes"));
    }

    const CAN: &str = r#"
        [[controller]]
        name = "body"
        can = { interface = "can0" }
        [[ecu]]
        ecu_id = "ecu_002"
        controller = "body"
        can = { request_id = 0x701, response_id = 0x709 }
        functional_group = { domain = "body" }
    "#;

    #[test]
    fn an_ecu_on_a_bus_of_the_gateway_has_identifiers_of_its_own() {
        let topology = Topology::from_toml(&format!("{GOOD}{CAN}")).unwrap();
        let ecu = topology.ecu(&"ecu_002".parse().unwrap()).unwrap();
        assert_eq!(ecu.address, EcuAddress::Can(CanIds { request_id: 0x701, response_id: 0x709 }));
        assert_eq!(ecu.can_id, Some("0x701".parse().unwrap()));
        for (replaced, by, says) in [
            ("0x709", "0x701", "two different CAN identifiers"),
            ("0x709", "0x20000000", "two different CAN identifiers"),
            (
                "can = { request_id = 0x701, response_id = 0x709 }",
                "logical_address = 0x1011",
                "can on a CAN bus",
            ),
            ("\"body\"\n        can = { req", "\"front\"\n        can = { req", "behind a DoIP entity"),
            ("can = { interface", "logical_address = 1\ncan = { interface", "or can alone"),
            ("can = { interface = \"can0\" }", "", "or can alone"),
        ] {
            let text = CAN.replacen(replaced, by, 1);
            assert_ne!(text, CAN, "{replaced}");
            let found = refusal(&format!("{GOOD}{text}"));
            assert!(found.contains(says), "{found}");
        }
    }

    #[test]
    fn a_controller_can_be_named_by_its_eid_instead_of_its_address() {
        let by_eid = |eid: &str| GOOD.replace("address = \"127.0.0.1:13400\"", eid);
        let entity = |eid: &str| match &Topology::from_toml(&by_eid(eid)).unwrap().controllers[0].transport {
            Transport::DoIp(entity) => (entity.address.clone(), entity.discovery.to_string()),
            Transport::Can(bus) => panic!("{bus:?}"),
        };
        let of_eid = |port| EntityAddress::OfEid { eid: "02:00:00:00:00:09".parse().unwrap(), port };
        assert_eq!(
            entity("eid = \"02:00:00:00:00:09\""),
            (of_eid(13_400), "255.255.255.255:13400".to_owned())
        );
        let elsewhere = "eid = \"02:00:00:00:00:09\"\nport = 13401\ndiscovery = \"192.0.2.255:13400\"";
        assert_eq!(entity(elsewhere), (of_eid(13_401), "192.0.2.255:13400".to_owned()));
        for (eid, says) in [
            ("eid = \"02:00\"", "eid"),
            ("eid = \"02:00:00:00:00:09\"\naddress = \"127.0.0.1:1\"", "both"),
            ("address = \"127.0.0.1:1\"\nport = 1", "port alone"),
            ("eid = \"02:00:00:00:00:09\"\ntls = { ca = \"ca.pem\" }", "server_name"),
        ] {
            let found = refusal(&by_eid(eid));
            assert!(found.contains(says), "{found}");
        }
    }

    #[test]
    fn insecure_security_is_never_a_default() {
        let found = refusal(&GOOD.replace("security_algorithm", "# security_algorithm"));
        assert!(found.contains("security_algorithm"), "{found}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Topology::load(Path::new("/nowhere/topology.toml")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/topology.toml"));
    }
}
