//! The console in a real browser, against a real server and real simulated vehicles. In every test every page is watched: see
//! `farrier_system_tests::browser`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

mod console {
    mod campaigns;
    mod connection;
    mod look;
    mod planning;
    mod roles;
    mod signing_in;
    mod uploading;
    mod vehicles;
    mod watching;
}

use farrier_simulator::vehicle::SimulatedVehicle;
use farrier_system_tests::browser::Browser;
use farrier_system_tests::testbed::Testbed;

/// The first admin of every console here.
const ADMIN: &str = "alice";

/// A server whose first admin has signed in.
async fn signed_in() -> (Testbed, Browser) {
    let testbed = Testbed::start().await;
    let browser = Browser::at(testbed.console()).await;
    browser.uses_link(testbed.console_link(), Some(ADMIN)).await;
    (testbed, browser)
}

/// So many vehicles of four ECUs, known to the server.
async fn with_vehicles(testbed: &Testbed, count: u8) -> Vec<SimulatedVehicle> {
    let mut vehicles = Vec::new();
    for number in 1..=count {
        vehicles.push(SimulatedVehicle::start(testbed.vehicle(number, ECUS)).await.unwrap());
    }
    testbed.api().knows_vehicles(count.into()).await;
    vehicles
}

const ECUS: u8 = 4;

async fn stop(vehicles: Vec<SimulatedVehicle>) {
    for vehicle in vehicles {
        vehicle.stop().await.unwrap();
    }
}
