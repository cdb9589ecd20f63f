//! A whole simulated vehicle: DoIP entities and CAN buses with their ECUs, and the real gateway in front of them.
//! Owns how the parts are put together; what an ECU or the gateway does is theirs.

mod config;
mod controller;
mod topology;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use farrier_gateway::{Gateway, GatewayConfig, GatewayFailure, RunningGateway, StartError, Status};
use farrier_protocol::EcuId;
use tokio::sync::watch;

use crate::can_bus::CanBusError;
use crate::doip_entity::EntityError;
use crate::ecu::{Banks, EcuHandle};

pub use self::config::{ControllerConfig, ControllerPlacement, EcuOfVehicle, VehicleConfig};
use self::controller::RunningController;

/// What a parked, healthy vehicle measures.
const READY_SIGNALS: &str = r#"# The vehicle's signals; read anew whenever the server asks whether the vehicle is ready.
"power.battery_12v_v" = 12.6
"power.battery_48v_v" = 48.2
"power.charging_status" = "charged"
"thermal.temp_ccu_c" = 36.0
"thermal.temp_ecu_max_c" = 41.0
"cpu.usage_percent" = 22.0
"memory.available_mb" = 2048.0
"storage.available_gb" = 16.0
"network.bandwidth_mbps" = 40.0
"network.signal_strength" = -71.0
"network.data_plan_status" = "ok"
"vehicle.speed_kmh" = 0.0
"vehicle.ignition_status" = "off"
"vehicle.parking_brake" = "on"
"vehicle.gear_position" = "P"
"#;

/// Why a simulated vehicle does not run.
#[derive(Debug, thiserror::Error)]
pub enum VehicleError {
    /// Its configuration file cannot be read.
    #[error("cannot read the vehicle's configuration {path}; name an existing TOML file")]
    ReadConfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its configuration file is not what is expected.
    #[error("the vehicle's configuration {path} is not usable; correct the named key")]
    Config {
        /// The file.
        path: PathBuf,
        /// The key, what was expected and what was found.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// More controllers or ECUs than there are addresses.
    #[error(
        "expected at most 96 controllers with at most 255 ECUs each, 240 on a CAN bus; spread the ECUs over more controllers"
    )]
    TooManyEcus,
    /// A file of its state cannot be written or read.
    #[error("cannot read and write {path}; make the vehicle's state folder writable")]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A controller did not start.
    #[error("a controller of the vehicle did not start")]
    Controller(#[from] EntityError),
    /// A CAN bus did not start.
    #[error("a CAN bus of the vehicle did not start")]
    CanBus(#[from] CanBusError),
    /// The gateway did not start.
    #[error("the vehicle's gateway did not start")]
    Gateway(#[source] Box<StartError>),
    /// The gateway failed while it ran.
    #[error("the vehicle's gateway failed")]
    GatewayFailed(#[source] Box<GatewayFailure>),
}

/// A running vehicle. What survives a restart is in its state folder: starting it again with the same
/// configuration is switching it on again.
#[derive(Debug)]
pub struct SimulatedVehicle {
    config: VehicleConfig,
    controllers: Vec<RunningController>,
    gateway: RunningGateway,
}

impl SimulatedVehicle {
    /// Powers up the ECUs and the gateway, which then looks for its server.
    ///
    /// # Errors
    /// A configuration that contradicts itself, an address that is taken, files that cannot be read or written.
    pub async fn start(config: VehicleConfig) -> Result<Self, VehicleError> {
        let ecu_folder = ecu_folder(&config);
        make_folder(&ecu_folder)?;
        let mut controllers = Vec::new();
        for (position, controller) in config.controllers.iter().enumerate() {
            controllers.push(RunningController::start(&config, controller, position, &ecu_folder).await?);
        }
        let gateway_folder = config.state_dir.join("gateway");
        make_folder(&gateway_folder)?;
        let topology_file = config.state_dir.join("topology.toml");
        write_file(&topology_file, &topology::text(&config, &controllers)?)?;
        let signals = config.readiness_signals();
        if !signals.exists() {
            write_file(&signals, READY_SIGNALS)?;
        }
        let gateway = Gateway::start(gateway_config(&config, gateway_folder, topology_file)).await;
        let gateway = gateway.map_err(|error| VehicleError::Gateway(Box::new(error)))?;
        Ok(Self { config, controllers, gateway })
    }

    /// What it was started with.
    pub fn config(&self) -> &VehicleConfig {
        &self.config
    }

    /// How far the gateway is.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.gateway.status()
    }

    /// The faults and the power of an ECU.
    pub fn ecu(&self, ecu_id: &EcuId) -> Option<EcuHandle> {
        self.controllers.iter().find_map(|controller| controller.ecu(ecu_id.as_str()))
    }

    /// What an ECU's banks hold, as the ECU itself last saved it.
    ///
    /// # Errors
    /// The vehicle has no such ECU, or its state cannot be read.
    pub fn banks(&self, ecu_id: &EcuId) -> Result<Banks, VehicleError> {
        let path = ecu_folder(&self.config).join(ecu_id.as_str()).join("state.json");
        let failed = |source| VehicleError::State { path: path.clone(), source };
        let text = std::fs::read(&path).map_err(failed)?;
        serde_json::from_slice(&text).map_err(|error| failed(error.into()))
    }

    /// The file of the bank that an ECU runs: the image that it was given, byte for byte. An ECU that still runs
    /// its factory software has none.
    ///
    /// # Errors
    /// As [`SimulatedVehicle::banks`].
    pub fn running_image(&self, ecu_id: &EcuId) -> Result<PathBuf, VehicleError> {
        let active = self.banks(ecu_id)?.active();
        Ok(ecu_folder(&self.config).join(ecu_id.as_str()).join(format!("bank{active}.bin")))
    }

    /// The version that each ECU runs, as the ECUs themselves say.
    ///
    /// # Errors
    /// State that cannot be read.
    pub fn running_versions(&self) -> Result<BTreeMap<EcuId, String>, VehicleError> {
        let version = |ecu: &EcuOfVehicle| {
            let banks = self.banks(&ecu.ecu_id)?;
            Ok((ecu.ecu_id.clone(), banks.running().version.clone()))
        };
        self.config.ecus().map(version).collect()
    }

    /// Resolves when the gateway stops by itself.
    ///
    /// # Errors
    /// Why it stopped.
    pub async fn stopped(&mut self) -> Result<(), VehicleError> {
        self.gateway.stopped().await.map_err(|error| VehicleError::GatewayFailed(Box::new(error)))
    }

    /// Stops the gateway, then switches the ECUs off.
    ///
    /// # Errors
    /// What went wrong in the gateway; the ECUs are off all the same.
    pub async fn stop(self) -> Result<(), VehicleError> {
        let stopped = self.gateway.stop().await;
        for controller in self.controllers {
            controller.stop().await;
        }
        stopped.map_err(|error| VehicleError::GatewayFailed(Box::new(error)))
    }
}

fn ecu_folder(config: &VehicleConfig) -> PathBuf {
    config.state_dir.join("ecus")
}

fn make_folder(path: &Path) -> Result<(), VehicleError> {
    std::fs::create_dir_all(path).map_err(|source| VehicleError::State { path: path.to_owned(), source })
}

fn write_file(path: &Path, text: &str) -> Result<(), VehicleError> {
    std::fs::write(path, text).map_err(|source| VehicleError::State { path: path.to_owned(), source })
}

fn gateway_config(config: &VehicleConfig, state_dir: PathBuf, topology: PathBuf) -> GatewayConfig {
    GatewayConfig {
        vehicle_id: config.vehicle_id.clone(),
        gateway_id: config.gateway_id.clone(),
        fw_sw_version: config.fw_sw_version.clone(),
        region: config.region.clone(),
        bootloader_ver: None,
        server: config.server.clone(),
        topic_prefix: "ota".to_owned(),
        certificate: config.certificates.join("cert.pem"),
        private_key: config.certificates.join("key.pem"),
        server_ca: config.certificates.join("ca.pem"),
        release_public_key: config.release_public_key.clone(),
        state_dir,
        topology,
        readiness_signals: config.readiness_signals(),
        backoff_min_ms: config.backoff_min_ms.unwrap_or(5_000),
        backoff_max_ms: config.backoff_max_ms.unwrap_or(30_000),
        keep_alive_s: 60,
        allow_classical_key_exchange: config.allow_classical_key_exchange,
        readiness_policy: Default::default(),
        download: Default::default(),
        image_store_max_bytes: 1_000_000_000,
        consent: Default::default(),
        update_bounds: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use farrier_gateway::{ReadinessPolicy, ReadinessSource, SignalsFile};
    use farrier_protocol::Condition;

    use super::*;

    #[test]
    fn a_new_vehicle_measures_every_condition_and_is_ready() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signals.toml");
        std::fs::write(&path, READY_SIGNALS).unwrap();
        let signals = SignalsFile::new(&path).measure().unwrap();
        assert_eq!(signals.conditions.measured(), Condition::ALL);
        assert_eq!(ReadinessPolicy::default().judge(&signals, 1_000_000_000, &[]).reasons, []);
    }
}
