//! Four simulated ECUs behind two zonal gateways, and the files of a gateway that updates them. What the ECUs
//! hold is read from their own state, not through the gateway.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use farrier_simulator::doip_entity::{DoipEntity, EntityConfig};
use farrier_simulator::ecu::{Banks, EcuConfig, EcuTiming, Faults, Phase};

use crate::scripted_server::ScriptedServer;

/// ECUs, half of them behind each zonal gateway.
pub(crate) const ECUS: usize = 4;

pub(crate) const EARLIER: &str = "1.0";
pub(crate) const NEW: &str = "2.0";

pub(crate) struct Vehicle {
    pub(crate) folder: PathBuf,
    pub(crate) entities: Vec<DoipEntity>,
}

/// What the ECUs run when nothing is under way any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum AtRest {
    AllNew,
    AllEarlier,
}

pub(crate) fn ecu_id(number: usize) -> String {
    format!("ecu_{number:03}")
}

pub(crate) fn logical_address(number: usize) -> u16 {
    0x1010 + u16::try_from(number).unwrap()
}

fn ecu(number: usize, timing: &EcuTiming) -> EcuConfig {
    EcuConfig {
        ecu_id: ecu_id(number),
        logical_address: logical_address(number),
        supplier_code: "1234".into(),
        hw_part_no: "HW-1".into(),
        sw_part_no: "SW-1".into(),
        sw_version: EARLIER.into(),
        bootloader_ver: "BL-1".into(),
        calibration_id: "CAL-1".into(),
        timing: timing.clone(),
        faults: Faults::default(),
    }
}

impl Vehicle {
    pub(crate) async fn power_up(folder: &Path, timing: EcuTiming) -> Self {
        let mut entities = Vec::new();
        for position in 0..2 {
            let ecus = (1..=ECUS).filter(|number| number % 2 != position);
            let config = EntityConfig {
                name: format!("zone_{position}"),
                logical_address: 0x1000 + u16::try_from(position).unwrap(),
                listen: "127.0.0.1:0".parse().unwrap(),
                vin: "WFARRIER000000001".into(),
                entity_id: [2, 0, 0, 0, 0, 9],
                announce_to: None,
                max_connections: 4,
                initial_inactivity_ms: 2_000,
                general_inactivity_ms: 300_000,
            };
            let ecus = ecus.map(|number| ecu(number, &timing)).collect();
            entities.push(DoipEntity::start(config, ecus, &folder.join("ecus")).await.unwrap());
        }
        Self { folder: folder.to_owned(), entities }
    }

    /// Writes the files of a gateway that reaches the zonal gateways at these addresses; its settings file.
    pub(crate) fn write_gateway(&self, server: &ScriptedServer, addresses: [SocketAddr; 2]) -> PathBuf {
        let mut topology = "security_algorithm = \"insecure-xor-a5-for-simulators-only\"\n[tester]\n\
             network_allowance_ms = 250\nconditions_wait_ms = 100\nsecurity_delay_ms = 20\n\
             reboot_wait_ms = 25\nreboot_timeout_ms = 2000\n"
            .to_owned();
        for (position, address) in addresses.into_iter().enumerate() {
            topology += &format!(
                "[[controller]]\nname = \"zone_{position}\"\naddress = \"{address}\"\n\
                 logical_address = {}\nparallel_writes = 4\n",
                0x1000 + position
            );
        }
        for number in 1..=ECUS {
            let zone = format!("zone_{}", 1 - number % 2);
            topology += &format!(
                "[[ecu]]\necu_id = \"{}\"\ncontroller = \"{zone}\"\nlogical_address = {}\n\
                 mac_address = \"02:00:00:00:00:01\"\nfunctional_group = {{ zone = \"{zone}\" }}\n",
                ecu_id(number),
                logical_address(number)
            );
        }
        let signals = "\"power.battery_12v_v\" = 12.6\n\"vehicle.speed_kmh\" = 0.0\n";
        let certificates = server.certificates();
        let settings = format!(
            "vehicle_id = \"VEH_001\"\ngateway_id = \"CCU_001\"\nfw_sw_version = \"2.6.1\"\n\
             server = \"localhost:{}\"\ncertificate = {:?}\nprivate_key = {:?}\nserver_ca = {:?}\n\
             release_public_key = {:?}\nstate_dir = \"state\"\ntopology = \"topology.toml\"\n\
             readiness_signals = \"signals.toml\"\nbackoff_min_ms = 5\nbackoff_max_ms = 20\n\
             [update_bounds]\nattempts = 3\nattempts_to_end = 5\nretry_wait_ms = 5\n",
            server.mqtt_port,
            certificates.join("cert.pem"),
            certificates.join("key.pem"),
            certificates.join("ca.pem"),
            server.release_public_key(),
        );
        let path = |name: &str| self.folder.join(name);
        std::fs::write(path("topology.toml"), topology).unwrap();
        std::fs::write(path("signals.toml"), signals).unwrap();
        std::fs::write(path("gateway.toml"), settings).unwrap();
        path("gateway.toml")
    }

    /// The banks of an ECU, as its own state says.
    pub(crate) fn banks(folder: &Path, number: usize) -> Banks {
        let state = std::fs::read(folder.join("ecus").join(ecu_id(number)).join("state.json")).unwrap();
        serde_json::from_slice(&state).unwrap()
    }

    /// What these ECUs run, if it is the same and no restart or trial can change it.
    pub(crate) fn at_rest(folder: &Path, numbers: impl IntoIterator<Item = usize>) -> Result<AtRest, String> {
        Self::at_rest_with(folder, numbers, EARLIER, NEW)
    }

    /// The same with other versions, of which the earlier one may be an update that was confirmed.
    pub(crate) fn at_rest_with(
        folder: &Path,
        numbers: impl IntoIterator<Item = usize>,
        earlier: &str,
        new: &str,
    ) -> Result<AtRest, String> {
        let banks: Vec<Banks> = numbers.into_iter().map(|number| Self::banks(folder, number)).collect();
        let all = |version: &str, phases: &dyn Fn(Phase) -> bool| {
            banks.iter().all(|banks| banks.running().version == version && phases(banks.phase()))
        };
        if all(new, &|phase| phase == Phase::Confirmed) {
            return Ok(AtRest::AllNew);
        }
        let rests = |phase| match phase {
            Phase::Idle | Phase::Written => true,
            Phase::Confirmed => earlier != EARLIER,
            Phase::Activating | Phase::OnTrial { .. } | Phase::RollingBack => false,
        };
        if all(earlier, &rests) {
            return Ok(AtRest::AllEarlier);
        }
        let said = banks.iter().map(|banks| format!("{} {:?}", banks.running().version, banks.phase()));
        Err(format!("mixed or not at rest: {}", said.collect::<Vec<_>>().join(", ")))
    }
}
