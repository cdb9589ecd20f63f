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
use farrier_simulator::vehicle::SimulatedVehicle;
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
        assert_eq!(update["bytes_served"], update["bytes_total"], "{update}");
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
    rolls_back(Testbed::start().await).await;
}

/// A gateway that only knows the source documents sends no failure report: silence must end rightly too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_that_nobody_reports_is_found_out_after_the_deadline() {
    let testbed = Testbed::start_with(|config| {
        config.failure_report = false;
        config.deadlines.update_deadline_s = 8;
    });
    rolls_back(testbed.await).await;
}

async fn rolls_back(testbed: Testbed) {
    let mut config = testbed.vehicle(1, ECUS);
    config.ecu_mut(&"ecu_003".parse().unwrap()).unwrap().faults.fails_write_at_byte = Some(100_000);
    let vehicle = SimulatedVehicle::start(config).await.unwrap();
    let api = testbed.api();
    api.knows_vehicles(1).await;
    api.start_campaign("winter", "2.0.0", &images(2, ECUS, 200_000)).await;

    let update = api.reaches("winter", "VEH_001", "rolled_back").await;
    for (ecu_id, running) in vehicle.running_versions().unwrap() {
        assert_eq!(running, "1.0.0", "{ecu_id}: {update}");
    }
    // Install and commit are successes: neither was reported, or the server would have taken or refused it.
    let shown = api.get("vehicles/VEH_001").await;
    let steps = shown["updates"][0]["steps"].as_array().unwrap();
    assert!(steps.iter().all(|step| step["state"] != "committing"), "{shown}");
    assert_eq!(shown["refused_messages"], json!([]), "{shown}");
    assert!(
        shown["inventory"]["ecus"].as_array().unwrap().iter().all(|ecu| ecu["sw_version"] == "1.0.0"),
        "{shown}"
    );
    assert_eq!(api.get("campaigns/winter").await["states"], json!({ "rolled_back": 1 }));
    vehicle.stop().await.unwrap();
    testbed.stop().await;
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
