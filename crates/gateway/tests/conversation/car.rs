//! Simulated ECUs behind two controllers, and the gateway's files.

use std::path::PathBuf;

use farrier_gateway::{Bounds, Gateway, GatewayConfig, ReadinessPolicy, RunningGateway};
use farrier_simulator::doip_entity::{DoipEntity, EntityConfig};
use farrier_simulator::ecu::{EcuConfig, EcuTiming, Faults};

use crate::scripted_server::{ScriptedServer, binding};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum EcuFault {
    None,
    FailsWrite,
    WrongChecksum,
    BootsOldBank,
    SlowWrite,
    Silent,
}

pub(crate) struct Car {
    config: GatewayConfig,
    folder: tempfile::TempDir,
    entities: Vec<DoipEntity>,
    pub(crate) ecus: usize,
}

fn ecu(number: usize, fault: EcuFault) -> EcuConfig {
    let faults = Faults {
        fails_write_at_byte: (fault == EcuFault::FailsWrite).then_some(50_000),
        silent: fault == EcuFault::Silent,
        wrong_checksum: fault == EcuFault::WrongChecksum,
        boots_into_old_bank: fault == EcuFault::BootsOldBank,
        ..Faults::default()
    };
    let block_ms = if fault == EcuFault::SlowWrite { 300 } else { 0 };
    let timing =
        EcuTiming { erase_ms: 5, reboot_ms: 20, block_ms, max_block_length: 4_000, ..EcuTiming::default() };
    EcuConfig {
        ecu_id: format!("ecu_{number:03}"),
        logical_address: 0x1010 + u16::try_from(number).unwrap(),
        supplier_code: "1234".into(),
        hw_part_no: "HW-1".into(),
        sw_part_no: "SW-1".into(),
        sw_version: "1.0".into(),
        bootloader_ver: "BL-1".into(),
        calibration_id: "CAL-1".into(),
        timing,
        faults,
    }
}

impl Car {
    /// ECUs of these kinds, half of them behind each controller.
    pub(crate) async fn new(server: &ScriptedServer, faults: &[EcuFault]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut topology = "security_algorithm = \"insecure-xor-a5-for-simulators-only\"\n[tester]\n\
             network_allowance_ms = 300\nconditions_wait_ms = 100\nsecurity_delay_ms = 100\n\
             reboot_wait_ms = 20\nreboot_timeout_ms = 2000\n"
            .to_owned();
        let mut entities = Vec::new();
        let mut ecu_lines = String::new();
        for (position, name) in ["front", "rear"].into_iter().enumerate() {
            let numbered = faults.iter().enumerate().filter(|(index, _)| index % 2 == position);
            let ecus: Vec<EcuConfig> = numbered.map(|(index, fault)| ecu(index + 1, *fault)).collect();
            for ecu in &ecus {
                ecu_lines += &format!(
                    "[[ecu]]\necu_id = \"{}\"\ncontroller = \"{name}\"\nlogical_address = {}\n\
                     mac_address = \"02:00:00:00:00:01\"\nfunctional_group = {{ zone = \"{name}\" }}\n",
                    ecu.ecu_id, ecu.logical_address
                );
            }
            let config = EntityConfig {
                name: name.into(),
                logical_address: 0x1000 + u16::try_from(position).unwrap(),
                listen: "127.0.0.1:0".parse().unwrap(),
                vin: "WFARRIER000000001".into(),
                entity_id: [2, 0, 0, 0, 0, 9],
                announce_to: None,
                max_connections: 4,
                initial_inactivity_ms: 2_000,
                general_inactivity_ms: 300_000,
            };
            let entity = DoipEntity::start(config, ecus, &folder.path().join("ecus")).await.unwrap();
            topology += &format!(
                "[[controller]]\nname = \"{name}\"\naddress = \"{}\"\nlogical_address = {}\nparallel_writes = 4\n",
                entity.tcp_address(),
                0x1000 + position
            );
            entities.push(entity);
        }
        std::fs::write(folder.path().join("topology.toml"), topology + &ecu_lines).unwrap();
        let certificates = server.certificates();
        let binding = binding();
        let config = GatewayConfig {
            vehicle_id: binding.vehicle_id,
            gateway_id: binding.gateway_id,
            fw_sw_version: "2.6.1".parse().unwrap(),
            region: Some("KR".parse().unwrap()),
            bootloader_ver: None,
            server: format!("localhost:{}", server.mqtt_port),
            topic_prefix: "ota".into(),
            certificate: certificates.join("cert.pem"),
            private_key: certificates.join("key.pem"),
            server_ca: certificates.join("ca.pem"),
            release_public_key: server.release_public_key(),
            state_dir: folder.path().join("state"),
            topology: folder.path().join("topology.toml"),
            readiness_signals: folder.path().join("signals.toml"),
            backoff_min_ms: 5,
            backoff_max_ms: 50,
            keep_alive_s: 60,
            allow_classical_key_exchange: false,
            readiness_policy: ReadinessPolicy { install_check_ms: 10, ..ReadinessPolicy::default() },
            download: Default::default(),
            image_store_max_bytes: 1_000_000,
            consent: Default::default(),
            update_bounds: Bounds { retry_wait_ms: 10, ..Bounds::default() },
        };
        let car = Self { config, folder, entities, ecus: faults.len() };
        car.set_signals("\"power.battery_12v_v\" = 12.6\n\"vehicle.speed_kmh\" = 0.0\n");
        car
    }

    pub(crate) fn set_signals(&self, text: &str) {
        std::fs::write(self.folder.path().join("signals.toml"), text).unwrap();
    }

    /// Starts a gateway; the state of the one before is its own.
    pub(crate) async fn start(&self) -> RunningGateway {
        Gateway::start(self.config.clone()).await.unwrap()
    }

    /// What a workshop does while the gateway is off.
    pub(crate) fn change_topology(&self, from: &str, to: &str) {
        let topology = std::fs::read_to_string(&self.config.topology).unwrap();
        assert!(topology.contains(from));
        std::fs::write(&self.config.topology, topology.replace(from, to)).unwrap();
    }

    /// Where the first controller listens.
    pub(crate) fn controller_address(&self) -> String {
        self.entities[0].tcp_address().to_string()
    }

    /// Files that the downloader left behind.
    pub(crate) fn packages(&self) -> usize {
        let folder: PathBuf = self.folder.path().join("state/packages");
        std::fs::read_dir(folder).unwrap().count()
    }
}
