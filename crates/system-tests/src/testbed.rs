//! One server with its certificates and vehicles, in a temporary folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farrier_protocol::{Binding, UnixMillis};
use farrier_server::desk::WallClock;
use farrier_server::pki::{LEAF_VALIDITY, Pki};
use farrier_server::{Enroll, RunningServer, Server, ServerConfig};
use farrier_simulator::vehicle::{ControllerConfig, SimulatedVehicle, VehicleConfig};
use tempfile::TempDir;

use crate::api::Api;

/// A server that can be stopped and started again on the same ports, and what vehicles need to reach it.
pub struct Testbed {
    folder: TempDir,
    /// The certificate authority.
    pub pki: Pki,
    config: ServerConfig,
    clock: WallClock,
    server: Option<RunningServer>,
}

impl Testbed {
    /// A server that enrols vehicles by itself and asks for failure reports.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same with other settings.
    pub async fn start_with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::start_with_clock(change, |real| real).await
    }

    /// The same with a clock that may go otherwise than the real one.
    pub async fn start_with_clock(
        change: impl FnOnce(&mut ServerConfig),
        clock: impl Fn(UnixMillis) -> UnixMillis + Send + Sync + 'static,
    ) -> Self {
        if let Ok(filter) = std::env::var("FARRIER_LOG") {
            let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        }
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::init(&folder.path().join("pki"), false, now()).unwrap();
        let mut config = ServerConfig::for_one_machine(folder.path().join("data"), folder.path().join("pki"));
        for listener in [&mut config.mqtt.listen, &mut config.https, &mut config.operator] {
            listener.set_port(0);
        }
        config.enroll = Enroll::Auto;
        config.failure_report = true;
        change(&mut config);
        let clock = Arc::new(move || clock(now()));
        let mut testbed = Self { folder, pki, config, clock, server: None };
        testbed.start_server().await;
        testbed
    }

    /// Starts the server; later starts take the ports of the first.
    pub async fn start_server(&mut self) {
        let server = Server::start_with_clock(self.config.clone(), Arc::clone(&self.clock)).await.unwrap();
        if let Some(mqtt) = server.mqtt {
            self.config.mqtt.listen = mqtt;
        }
        self.config.https = server.https;
        self.config.operator = server.operator;
        self.server = Some(server);
    }

    /// Stops the server as SIGTERM does.
    pub async fn stop_server(&mut self) {
        self.server.take().expect("a running server").stop().await;
    }

    /// Loads certificates and lists anew as SIGHUP does.
    pub fn reload_server(&self) {
        self.server.as_ref().expect("a running server").reload();
    }

    /// Where operators' browsers find the console.
    pub fn console(&self) -> &str {
        &self.server.as_ref().expect("a running server").operator_url
    }

    /// The link by which the first admin of the console signs in, once.
    pub fn console_link(&self) -> &str {
        let link = &self.server.as_ref().expect("a running server").console_link;
        link.as_deref().expect("a console without an admin")
    }

    /// The operator API.
    pub fn api(&self) -> Api {
        Api::new(self.config.operator, &self.config.data.join("operator.token"))
    }

    /// Where vehicles speak MQTT.
    pub fn mqtt(&self) -> SocketAddr {
        self.config.mqtt.listen
    }

    /// Where vehicles fetch files.
    pub fn https(&self) -> SocketAddr {
        self.config.https
    }

    /// The folder that everything is in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The public half of the release key.
    pub fn release_public_key(&self) -> PathBuf {
        self.pki.release_public_key()
    }

    /// Issues certificates to the vehicle of this number; they are in the folder that is given back.
    pub fn certificates(&self, binding: &Binding) -> PathBuf {
        let out = self.folder.path().join("certificates").join(binding.client_id());
        self.pki.issue_vehicle(binding, &out, LEAF_VALIDITY, false, now()).unwrap();
        out
    }

    /// A vehicle with its certificates and so many ECUs, half behind domain and half behind zonal controllers.
    pub fn vehicle(&self, number: u8, ecus: u8) -> VehicleConfig {
        let binding = binding(number);
        let folder = self.folder.path().join("vehicles").join(binding.vehicle_id.as_str());
        let mut config =
            VehicleConfig::on_this_machine(binding.clone(), self.config.mqtt.listen.port(), &folder);
        config.certificates = self.certificates(&binding);
        config.release_public_key = self.release_public_key();
        config.controllers = ControllerConfig::mixed(ecus);
        config
    }

    /// Stops the server and removes the folder.
    pub async fn stop(mut self) {
        self.stop_server().await;
    }
}

/// `VEH_001` with `CCU_001` and so on.
pub fn binding(number: u8) -> Binding {
    Binding {
        vehicle_id: format!("VEH_{number:03}").parse().unwrap(),
        gateway_id: format!("CCU_{number:03}").parse().unwrap(),
    }
}

/// An image that is not the same anywhere: 2^n bytes later something else stands there.
fn image(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..bytes).map(|_| next()).collect()
}

/// An image of about so many bytes for each hardware of a vehicle of [`Testbed::vehicle`], no two the same.
pub fn images(seed: u64, ecus: u8, bytes: usize) -> Vec<(String, Vec<u8>)> {
    let one = |number: u8| {
        let content = image(seed * 1_000 + u64::from(number), bytes + usize::from(number));
        (format!("HW-{number:04}"), content)
    };
    (1..=ecus).map(one).collect()
}

/// Asserts that every ECU runs this version, and holds exactly the image for its hardware.
pub fn assert_all_run(vehicle: &SimulatedVehicle, version: &str, images: &[(String, Vec<u8>)]) {
    let running = vehicle.running_versions().unwrap();
    for ecu in vehicle.config().ecus() {
        assert_eq!(running[&ecu.ecu_id], version, "{}", ecu.ecu_id);
        let (_, image) = images.iter().find(|(hardware, _)| hardware == ecu.hw_part_no.as_str()).unwrap();
        let content = std::fs::read(vehicle.running_image(&ecu.ecu_id).unwrap()).unwrap();
        assert!(content == *image, "{} holds other bytes than its image", ecu.ecu_id);
    }
}

/// The wall clock.
pub fn now() -> UnixMillis {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixMillis(since_1970.as_millis().try_into().unwrap())
}
