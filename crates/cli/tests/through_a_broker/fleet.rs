//! Simulated vehicles with real gateways that connect to the broker.

use farrier_simulator::vehicle::{ControllerConfig, SimulatedVehicle, VehicleConfig};
use farrier_system_tests::testbed::{assert_all_run, binding};

use crate::nodes::Nodes;

pub(crate) struct Fleet {
    vehicles: Vec<SimulatedVehicle>,
}

impl Fleet {
    pub(crate) async fn start(nodes: &Nodes, vehicles: u8, ecus: u8) -> Self {
        let mut fleet = Vec::new();
        for number in 1..=vehicles {
            let binding = binding(number);
            let folder = nodes.folder().join("vehicles").join(binding.vehicle_id.as_str());
            let mut config = VehicleConfig::on_this_machine(binding.clone(), nodes.broker_port(), &folder);
            config.certificates = nodes.certificates(&binding);
            config.release_public_key = nodes.release_public_key();
            config.controllers = ControllerConfig::mixed(ecus);
            // Debian's mosquitto knows no ML-KEM.
            config.allow_classical_key_exchange = true;
            fleet.push(SimulatedVehicle::start(config).await.unwrap());
        }
        Self { vehicles: fleet }
    }

    pub(crate) fn all_run(&self, version: &str, images: &[(String, Vec<u8>)]) {
        self.vehicles.iter().for_each(|vehicle| assert_all_run(vehicle, version, images));
    }

    pub(crate) async fn stop(self) {
        for vehicle in self.vehicles {
            vehicle.stop().await.unwrap();
        }
    }
}
