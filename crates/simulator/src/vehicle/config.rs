//! A vehicle as a configuration file describes it. Unknown keys are refused; relative paths count from the
//! folder of the file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use farrier_protocol::{Binding, CanId, EcuId, GatewayId, IpAddress, MacAddress, Text, VehicleId, Zone};
use serde::{Deserialize, Serialize};

use super::VehicleError;
use crate::ecu::{EcuTiming, Faults};

/// How many ECUs [`ControllerConfig::mixed`] puts behind one controller.
const ECUS_PER_CONTROLLER: usize = 4;

/// One vehicle: its gateway, its controllers and their ECUs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VehicleConfig {
    /// The vehicle.
    pub vehicle_id: VehicleId,
    /// Its gateway.
    pub gateway_id: GatewayId,
    /// The server's MQTT listener as `name:port`.
    pub server: String,
    /// Folder with `cert.pem`, `key.pem` and `ca.pem`, as `farrier pki issue-vehicle` makes it.
    pub certificates: PathBuf,
    /// The public half of the release key, PEM.
    pub release_public_key: PathBuf,
    /// Where the gateway and the ECUs keep what survives a restart; made if it is not there.
    pub state_dir: PathBuf,
    /// The vehicle's signals, TOML, read anew at each question; without it `signals.toml` in `state_dir`, which
    /// is made with the signals of a parked, healthy vehicle if it is not there.
    #[serde(default)]
    pub readiness_signals: Option<PathBuf>,
    /// Software version of the gateway.
    #[serde(default = "factory_version")]
    pub fw_sw_version: Text,
    /// Region of the vehicle.
    #[serde(default)]
    pub region: Option<Text>,
    /// Upper bound of the gateway's first wait before another try, in milliseconds; its own default without.
    #[serde(default)]
    pub backoff_min_ms: Option<u64>,
    /// Upper bound of any such wait, in milliseconds; the gateway's own default without it.
    #[serde(default)]
    pub backoff_max_ms: Option<u64>,
    /// Lets a key exchange without post-quantum protection happen.
    #[serde(default)]
    pub allow_classical_key_exchange: bool,
    /// The controllers, each with its ECUs.
    #[serde(rename = "controller")]
    pub controllers: Vec<ControllerConfig>,
}

/// A domain controller or a zonal controller: one DoIP entity. Or a CAN bus that the gateway itself is on, in the
/// domain or zone of its ECUs:
///
/// ```toml
/// [[controller]]
/// name = "chassis_can"
/// domain = "chassis"
/// can = true
/// [[controller.ecu]]
/// ecu_id = "ecu_003"
/// hw_part_no = "HW-CH-0003"
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "ControllerFields")]
pub struct ControllerConfig {
    /// Its name.
    pub name: String,
    /// Its domain or zone: `domain = "powertrain"` or `zone = "front_left"`.
    pub placement: ControllerPlacement,
    /// Its ECUs have CAN only, without a DoIP entity in front of them: the gateway speaks ISO-TP with them. Their
    /// identifiers, 0x18DAxxF1 for requests and 0x18DAF1xx for answers, follow from their order (xx from 1 on).
    pub can: bool,
    /// Where it listens, by DoIP or as the bus's socketcand server; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The ECUs behind it, in the order in which they are updated.
    pub ecus: Vec<EcuOfVehicle>,
}

/// A controller as the file writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ControllerFields {
    name: String,
    #[serde(default)]
    domain: Option<Text>,
    #[serde(default)]
    zone: Option<Zone>,
    #[serde(default)]
    can: bool,
    #[serde(default = "loopback")]
    listen: SocketAddr,
    #[serde(rename = "ecu")]
    ecus: Vec<EcuOfVehicle>,
}

impl TryFrom<ControllerFields> for ControllerConfig {
    type Error = String;

    fn try_from(fields: ControllerFields) -> Result<Self, String> {
        let ControllerFields { name, domain, zone, can, listen, ecus } = fields;
        let placement = match (domain, zone) {
            (Some(domain), None) => ControllerPlacement::Domain(domain),
            (None, Some(zone)) => ControllerPlacement::Zone(zone),
            (Some(_), Some(_)) => return Err(format!("expected a domain or a zone at {name:?}, found both")),
            (None, None) => return Err(format!("expected a domain or a zone at {name:?}, found neither")),
        };
        if let Some(ecu) = ecus.iter().find(|ecu| can && ecu.has_addresses()) {
            let ecu_id = &ecu.ecu_id;
            return Err(format!(
                "expected no mac_address, ip_address or can_id on a CAN bus, found one at {ecu_id}"
            ));
        }
        Ok(Self { name, placement, can, listen, ecus })
    }
}

/// Which part of the vehicle a controller stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ControllerPlacement {
    /// Domain architecture: by function.
    Domain(Text),
    /// Zonal architecture: by place.
    Zone(Zone),
}

/// One ECU; what is left out gets a value that fits a simulation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EcuOfVehicle {
    /// Its name.
    pub ecu_id: EcuId,
    /// Its hardware: decides which image of a release it gets.
    pub hw_part_no: Text,
    /// The version that it leaves the factory with; afterwards its state decides.
    #[serde(default = "factory_version")]
    pub sw_version: Text,
    /// Its supplier.
    #[serde(default = "supplier")]
    pub supplier_code: Text,
    /// Its software part number; made from its name if it is left out.
    #[serde(default)]
    pub sw_part_no: Option<Text>,
    /// Version of its bootloader.
    #[serde(default = "factory_version")]
    pub bootloader_ver: Text,
    /// Its calibration.
    #[serde(default = "calibration")]
    pub calibration_id: Text,
    /// Its Ethernet address, if it has one.
    #[serde(default)]
    pub mac_address: Option<MacAddress>,
    /// Its IP address, if it has one.
    #[serde(default)]
    pub ip_address: Option<IpAddress>,
    /// Its CAN identifier behind a DoIP entity, if it has one; on a CAN bus of the gateway it follows from its place.
    #[serde(default)]
    pub can_id: Option<CanId>,
    /// How fast it is.
    #[serde(default)]
    pub timing: EcuTiming,
    /// What it does wrong.
    #[serde(default)]
    pub faults: Faults,
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn factory_version() -> Text {
    text("1.0.0")
}

fn supplier() -> Text {
    text("FARRIER-SIM")
}

fn calibration() -> Text {
    text("CAL-SIM-2026")
}

/// A text that this module wrote itself.
#[allow(clippy::expect_used, reason = "the callers' texts are constants that satisfy the rule")]
fn text(constant: &str) -> Text {
    constant.parse().expect("a text of the protocol")
}

impl VehicleConfig {
    /// A vehicle without ECUs yet, whose server runs on this machine: `folder/certificates`, `folder/state`,
    /// and short waits before another try.
    pub fn on_this_machine(binding: Binding, mqtt_port: u16, folder: &Path) -> Self {
        Self {
            vehicle_id: binding.vehicle_id,
            gateway_id: binding.gateway_id,
            server: format!("localhost:{mqtt_port}"),
            certificates: folder.join("certificates"),
            release_public_key: folder.join("release.pub.pem"),
            state_dir: folder.join("state"),
            readiness_signals: None,
            fw_sw_version: factory_version(),
            region: None,
            backoff_min_ms: Some(100),
            backoff_max_ms: Some(1_000),
            allow_classical_key_exchange: false,
            controllers: Vec::new(),
        }
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// A file that cannot be read, or a key that is unknown, missing or wrong.
    pub fn read(path: &Path) -> Result<Self, VehicleError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| VehicleError::ReadConfig { path: path.to_owned(), source })?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|source| VehicleError::Config { path: path.to_owned(), source: Box::new(source) })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let signals = config.readiness_signals.as_mut();
        let paths = [&mut config.certificates, &mut config.release_public_key, &mut config.state_dir];
        for relative in paths.into_iter().chain(signals) {
            // `join` leaves an absolute path as it is.
            *relative = folder.join(&*relative);
        }
        Ok(config)
    }

    /// The vehicle and its gateway.
    pub fn binding(&self) -> Binding {
        Binding { vehicle_id: self.vehicle_id.clone(), gateway_id: self.gateway_id.clone() }
    }

    /// The file of the vehicle's signals.
    pub fn readiness_signals(&self) -> PathBuf {
        self.readiness_signals.clone().unwrap_or_else(|| self.state_dir.join("signals.toml"))
    }

    /// All ECUs, controller by controller.
    pub fn ecus(&self) -> impl Iterator<Item = &EcuOfVehicle> {
        self.controllers.iter().flat_map(|controller| &controller.ecus)
    }

    /// The ECU of this name, to give it a fault.
    pub fn ecu_mut(&mut self, ecu_id: &EcuId) -> Option<&mut EcuOfVehicle> {
        self.controllers
            .iter_mut()
            .flat_map(|controller| &mut controller.ecus)
            .find(|ecu| ecu.ecu_id == *ecu_id)
    }
}

impl ControllerConfig {
    /// So many ECUs in both architectures, half of the controllers domains on CAN, half zones on Ethernet:
    /// `ecu_001` with hardware `HW-0001`, `ecu_002` with `HW-0002` and so on, up to 255.
    pub fn mixed(ecus: u8) -> Vec<Self> {
        const PLACES: [&str; 8] =
            ["powertrain", "front_left", "body", "front_right", "chassis", "rear_left", "adas", "rear_right"];
        let count =
            usize::from(ecus).div_ceil(ECUS_PER_CONTROLLER).clamp(2, PLACES.len()).min(usize::from(ecus));
        let mut controllers: Vec<Self> = PLACES
            .into_iter()
            .take(count)
            .enumerate()
            .map(|(position, name)| Self {
                name: name.to_owned(),
                placement: if position % 2 == 0 {
                    ControllerPlacement::Domain(text(name))
                } else {
                    ControllerPlacement::Zone(Zone::Name(text(name)))
                },
                can: false,
                listen: loopback(),
                ecus: Vec::new(),
            })
            .collect();
        let per_controller = usize::from(ecus).div_ceil(count.max(1)).max(1);
        for number in 1..=ecus {
            if let Some(controller) = controllers.get_mut((usize::from(number) - 1) / per_controller) {
                let on_can = matches!(controller.placement, ControllerPlacement::Domain(_));
                controller.ecus.push(EcuOfVehicle::numbered(number, on_can));
            }
        }
        controllers.retain(|controller| !controller.ecus.is_empty());
        controllers
    }
}

impl EcuOfVehicle {
    fn has_addresses(&self) -> bool {
        self.mac_address.is_some() || self.ip_address.is_some() || self.can_id.is_some()
    }

    #[allow(clippy::expect_used, reason = "each text is built here by the rule of its type")]
    fn numbered(number: u8, on_can: bool) -> Self {
        let can_id = on_can.then(|| format!("0x{:X}", 0x100 + u16::from(number)).parse());
        let mac_address = (!on_can).then(|| format!("02:00:00:00:01:{number:02X}").parse());
        let ip_address = (!on_can).then(|| format!("192.168.10.{number}").parse());
        Self {
            ecu_id: format!("ecu_{number:03}").parse().expect("an identifier"),
            hw_part_no: text(&format!("HW-{number:04}")),
            sw_version: factory_version(),
            supplier_code: supplier(),
            sw_part_no: None,
            bootloader_ver: factory_version(),
            calibration_id: calibration(),
            mac_address: mac_address.transpose().expect("a MAC address"),
            ip_address: ip_address.transpose().expect("an IP address"),
            can_id: can_id.transpose().expect("a CAN identifier"),
            timing: EcuTiming::default(),
            faults: Faults::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_ecus_stand_half_behind_a_domain_and_half_behind_a_zone() {
        let controllers = ControllerConfig::mixed(8);
        let sizes: Vec<_> = controllers.iter().map(|controller| controller.ecus.len()).collect();
        assert_eq!(sizes, [4, 4]);
        assert!(matches!(controllers[0].placement, ControllerPlacement::Domain(_)));
        assert!(matches!(controllers[1].placement, ControllerPlacement::Zone(_)));
    }

    #[test]
    fn every_number_of_ecus_is_built_whole_and_by_name() {
        for count in 1..=u8::MAX {
            let controllers = ControllerConfig::mixed(count);
            let names: Vec<String> =
                controllers.iter().flat_map(|c| &c.ecus).map(|ecu| ecu.ecu_id.to_string()).collect();
            let expected: Vec<String> = (1..=count).map(|number| format!("ecu_{number:03}")).collect();
            assert_eq!(names, expected);
            assert!(controllers.iter().all(|controller| !controller.ecus.is_empty()));
        }
    }

    #[test]
    fn a_file_gives_a_vehicle_with_both_architectures() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vehicle.toml");
        std::fs::write(&path, EXAMPLE).unwrap();
        let config = VehicleConfig::read(&path).unwrap();
        assert_eq!(config.certificates, folder.path().join("certificates"));
        assert_eq!(config.ecus().count(), 2);
        assert_eq!(config.controllers[1].placement, ControllerPlacement::Zone(Zone::Number(2)));
        assert_eq!(config.ecus().last().unwrap().faults.fails_write_at_byte, Some(4096));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vehicle.toml");
        for (place, key) in [
            ("state_dir", "statedir"),
            ("hw_part_no", "hw_partno"),
            ("fails_write_at_byte", "fails_at"),
            ("zone", "zon"),
        ] {
            std::fs::write(&path, EXAMPLE.replacen(place, key, 1)).unwrap();
            let error = VehicleConfig::read(&path).unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains(key), "{cause}");
        }
    }

    #[test]
    fn an_ecu_with_can_only_has_no_other_address() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vehicle.toml");
        let on_can = EXAMPLE.replace("zone = 2", "zone = 2\ncan = true");
        std::fs::write(&path, &on_can).unwrap();
        let buses: Vec<_> =
            VehicleConfig::read(&path).unwrap().controllers.iter().map(|controller| controller.can).collect();
        assert_eq!(buses, [false, true]);
        for address in
            ["ip_address = \"192.168.10.2\"", "mac_address = \"02:00:00:00:01:02\"", "can_id = \"0x102\""]
        {
            std::fs::write(&path, format!("{on_can}\n{address}")).unwrap();
            let error = VehicleConfig::read(&path).unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains("on a CAN bus, found one at ecu_002"), "{cause}");
        }
    }

    const EXAMPLE: &str = r#"
        vehicle_id = "VEH_001"
        gateway_id = "CCU_001"
        server = "localhost:8883"
        certificates = "certificates"
        release_public_key = "/etc/farrier/release.pub.pem"
        state_dir = "state"
        [[controller]]
        name = "powertrain"
        domain = "powertrain"
        [[controller.ecu]]
        ecu_id = "ecu_001"
        hw_part_no = "HW-PT-0001"
        [[controller]]
        name = "rear"
        zone = 2
        [[controller.ecu]]
        ecu_id = "ecu_002"
        hw_part_no = "HW-Z-0002"
        sw_version = "1.4.0"
        faults = { fails_write_at_byte = 4096 }
    "#;
}
