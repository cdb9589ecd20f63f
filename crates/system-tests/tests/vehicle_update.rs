//! A release on its way to the ECUs of whole vehicles: real server, real gateways, simulated ECUs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use farrier_protocol::UnixMillis;
use farrier_simulator::vehicle::{ControllerConfig, ControllerPlacement, SimulatedVehicle, VehicleConfig};
use farrier_system_tests::testbed::{Testbed, assert_all_run, images};
use farrier_system_tests::until;
use serde_json::json;

const ECUS: u8 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_reaches_every_ecu_of_every_vehicle() {
    let testbed = Testbed::start().await;
    let mut vehicles = Vec::new();
    for number in 1..=2 {
        vehicles.push(SimulatedVehicle::start(testbed.vehicle(number, ECUS)).await.unwrap());
    }
    let api = testbed.api();
    api.knows_vehicles(2).await;
    let images = images(1, ECUS, 300_000);
    let all_bytes: usize = images.iter().map(|(_, image)| image.len()).sum();
    api.start_campaign("winter", "2.0.0", &images).await;

    for vehicle in &vehicles {
        let vehicle_id = vehicle.config().vehicle_id.as_str();
        let update = api.reaches("winter", vehicle_id, "succeeded").await;
        assert_eq!(update["ecu_count"], ECUS, "{update}");
        assert_eq!(update["bytes_total"], all_bytes, "{update}");
        api.notes_that_all_is_served("winter", vehicle_id).await;
        assert_all_run(vehicle, "2.0.0", &images);

        let shown = api.get(&format!("vehicles/{vehicle_id}")).await;
        let inventory = shown["inventory"]["ecus"].as_array().unwrap();
        assert_eq!(inventory.len(), usize::from(ECUS));
        assert!(inventory.iter().all(|ecu| ecu["sw_version"] == "2.0.0"), "{inventory:?}");
    }
    let campaign = api.get("campaigns/winter").await;
    assert_eq!(campaign["states"], json!({ "succeeded": 2 }));

    for vehicle in vehicles {
        vehicle.stop().await.unwrap();
    }
    testbed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_failing_ecu_brings_every_ecu_back_and_the_vehicle_says_so() {
    let testbed = Testbed::start().await;
    let config = vehicle_with_failing_write(&testbed);
    let installed = rolls_back(testbed, config, &images(2, ECUS, 200_000)).await;
    assert!(!installed);
}

/// A gateway that only knows the source documents sends no failure report: silence must end rightly too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_that_nobody_reports_is_found_out_after_the_deadline() {
    let testbed = Testbed::start_with(|config| {
        config.failure_report = false;
        config.deadlines.update_deadline_s = 8;
    });
    let testbed = testbed.await;
    let config = vehicle_with_failing_write(&testbed);
    let installed = rolls_back(testbed, config, &images(2, ECUS, 200_000)).await;
    assert!(!installed);
}

fn vehicle_with_failing_write(testbed: &Testbed) -> VehicleConfig {
    let mut config = testbed.vehicle(1, ECUS);
    config.ecu_mut(&"ecu_003".parse().unwrap()).unwrap().faults.fails_write_at_byte = Some(100_000);
    config
}

/// An update of this vehicle that ends with the old versions everywhere. Gives back whether the vehicle reported
/// that all was installed before.
async fn rolls_back(testbed: Testbed, config: VehicleConfig, images: &[(String, Vec<u8>)]) -> bool {
    let vehicle = SimulatedVehicle::start(config).await.unwrap();
    let api = testbed.api();
    api.knows_vehicles(1).await;
    api.start_campaign("winter", "2.0.0", images).await;

    let update = api.reaches("winter", "VEH_001", "rolled_back").await;
    for (ecu_id, running) in vehicle.running_versions().unwrap() {
        assert_eq!(running, "1.0.0", "{ecu_id}: {update}");
    }
    let shown = api.get("vehicles/VEH_001").await;
    assert_eq!(shown["refused_messages"], json!([]), "{shown}");
    assert!(
        shown["inventory"]["ecus"].as_array().unwrap().iter().all(|ecu| ecu["sw_version"] == "1.0.0"),
        "{shown}"
    );
    assert_eq!(api.get("campaigns/winter").await["states"], json!({ "rolled_back": 1 }));
    vehicle.stop().await.unwrap();
    testbed.stop().await;
    let steps = shown["updates"][0]["steps"].as_array().unwrap();
    steps.iter().any(|step| step["state"] == "committing")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ecu_that_has_can_only_is_updated_with_the_others() {
    let testbed = Testbed::start().await;
    let vehicle = SimulatedVehicle::start(vehicle_with_can_only_ecu(&testbed)).await.unwrap();
    let api = testbed.api();
    api.knows_vehicles(1).await;
    let images = images_with_small_last(5);
    api.start_campaign("winter", "2.0.0", &images).await;
    api.reaches("winter", "VEH_001", "succeeded").await;
    assert_all_run(&vehicle, "2.0.0", &images);

    let shown = api.get("vehicles/VEH_001").await;
    let inventory = shown["inventory"]["ecus"].as_array().unwrap();
    let ecu = inventory.iter().find(|ecu| ecu["ecu_id"] == CAN_ONLY).unwrap();
    assert_eq!(ecu["can_id"], "0x18DA01F1", "{ecu}");
    assert!(ecu["mac_address"].is_null() && ecu["ip_address"].is_null(), "{ecu}");
    assert_eq!(ecu["sw_version"], "2.0.0", "{ecu}");
    vehicle.stop().await.unwrap();
    testbed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ecu_on_can_that_fails_while_it_is_written_brings_every_ecu_back() {
    let testbed = Testbed::start().await;
    let mut config = vehicle_with_can_only_ecu(&testbed);
    config.ecu_mut(&CAN_ONLY.parse().unwrap()).unwrap().faults.fails_write_at_byte = Some(20_000);
    let installed = rolls_back(testbed, config, &images_with_small_last(6)).await;
    assert!(!installed);
}

/// Here the ECU on CAN has swapped its banks already when another fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ecu_on_can_goes_back_when_another_does_not_boot_its_new_software() {
    let testbed = Testbed::start().await;
    let mut config = vehicle_with_can_only_ecu(&testbed);
    config.ecu_mut(&"ecu_002".parse().unwrap()).unwrap().faults.boots_into_old_bank = true;
    let installed = rolls_back(testbed, config, &images_with_small_last(7)).await;
    assert!(installed);
}

/// The last ECU of [`vehicle_with_can_only_ecu`].
const CAN_ONLY: &str = "ecu_005";

/// A domain and a zonal controller with DoIP, and one ECU on a CAN bus of the gateway.
fn vehicle_with_can_only_ecu(testbed: &Testbed) -> VehicleConfig {
    let mut config = testbed.vehicle(1, ECUS + 1);
    let mut ecu = config.controllers.last_mut().unwrap().ecus.pop().unwrap();
    assert_eq!((ecu.ecu_id.as_str(), config.controllers.len()), (CAN_ONLY, 2));
    (ecu.mac_address, ecu.ip_address, ecu.can_id) = (None, None, None);
    config.controllers.push(ControllerConfig {
        name: "chassis_can".into(),
        placement: ControllerPlacement::Domain("chassis".parse().unwrap()),
        can: true,
        listen: "127.0.0.1:0".parse().unwrap(),
        ecus: vec![ecu],
    });
    config
}

/// Their images: a small one for the ECU on CAN, as it takes a frame for each seven bytes.
fn images_with_small_last(seed: u64) -> Vec<(String, Vec<u8>)> {
    let mut images = images(seed, ECUS + 1, 100_000);
    images.last_mut().unwrap().1.truncate(40_000);
    images
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vehicle_that_moves_is_asked_again_in_time_and_updated_when_it_stands() {
    let ahead_ms = Arc::new(AtomicI64::new(0));
    let clock = Arc::clone(&ahead_ms);
    let mut testbed = Testbed::start_with_clock(
        |_| {},
        move |real: UnixMillis| UnixMillis(real.0 + clock.load(Ordering::SeqCst)),
    )
    .await;
    let vehicle = SimulatedVehicle::start(testbed.vehicle(1, ECUS)).await.unwrap();
    let signals = vehicle.config().readiness_signals();
    let standing = std::fs::read_to_string(&signals).unwrap();
    let moving = standing.replace("\"vehicle.speed_kmh\" = 0.0", "\"vehicle.speed_kmh\" = 42.0");
    assert_ne!(standing, moving);
    std::fs::write(&signals, moving).unwrap();

    let api = testbed.api();
    api.knows_vehicles(1).await;
    let images = images(3, ECUS, 100_000);
    api.start_campaign("winter", "2.0.0", &images).await;
    let deferred = api.reaches("winter", "VEH_001", "deferred").await;
    assert!(deferred.to_string().contains("VEHICLE_MOVING"), "{deferred}");
    assert_eq!(deferred["bytes_served"], 0, "{deferred}");
    let why = api.get("vehicles/VEH_001/why").await;
    assert_eq!(why["state"], "deferred", "{why}");

    std::fs::write(&signals, standing).unwrap();
    // The longest retry_after_s is two hours; a server that starts looks at once at what is due.
    testbed.stop_server().await;
    ahead_ms.store(2 * 3_600_000, Ordering::SeqCst);
    testbed.start_server().await;
    let api = testbed.api();
    api.reaches("winter", "VEH_001", "succeeded").await;
    assert_all_run(&vehicle, "2.0.0", &images);
    vehicle.stop().await.unwrap();
    testbed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ecus_keep_their_software_when_the_vehicle_is_switched_off_and_on() {
    let testbed = Testbed::start().await;
    let config = testbed.vehicle(1, ECUS);
    let vehicle = SimulatedVehicle::start(config.clone()).await.unwrap();
    let api = testbed.api();
    api.knows_vehicles(1).await;
    let images = images(4, ECUS, 100_000);
    api.start_campaign("winter", "2.0.0", &images).await;
    api.reaches("winter", "VEH_001", "succeeded").await;
    vehicle.stop().await.unwrap();
    api.sees_connected("VEH_001", false).await;

    let vehicle = SimulatedVehicle::start(config).await.unwrap();
    api.sees_connected("VEH_001", true).await;
    assert_all_run(&vehicle, "2.0.0", &images);
    until("the inventory is still the new one", async || {
        let shown = api.get("vehicles/VEH_001").await;
        shown["inventory"]["ecus"].as_array()?.iter().all(|ecu| ecu["sw_version"] == "2.0.0").then_some(())
    })
    .await;
    vehicle.stop().await.unwrap();
    testbed.stop().await;
}
