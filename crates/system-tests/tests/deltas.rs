//! The second update of a vehicle travels as deltas, from the images that the first one installed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use farrier_simulator::vehicle::SimulatedVehicle;
use farrier_system_tests::api::Api;
use farrier_system_tests::testbed::{Testbed, assert_all_run, images};
use farrier_system_tests::until;

const ECUS: u8 = 4;
const IMAGE_BYTES: usize = 300_000;

/// The same images with a few octets changed and a few put in.
fn next_build(images: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    let changed = |image: &Vec<u8>| {
        let mut image = image.clone();
        image.iter_mut().step_by(5_000).for_each(|octet| *octet ^= 0x55);
        image.splice(70_000..70_000, *b"what is new in this build");
        image
    };
    images.iter().map(|(hardware, image)| (hardware.clone(), changed(image))).collect()
}

async fn every_delta_is_decided(api: &Api, release: &str, state: &str) {
    until(&format!("every delta of {release} is {state}"), async || {
        let shown = api.get(&format!("releases/{release}")).await;
        let deltas = shown["deltas"].as_array().expect("a list of deltas");
        let decided = deltas.len() == usize::from(ECUS) && deltas.iter().all(|delta| delta["state"] == state);
        decided.then_some(())
    })
    .await;
}

/// Updates the vehicle to version 2, brings version 3 to the server, and waits until its deltas are made.
async fn second_release_with_deltas(api: &Api) -> Vec<(String, Vec<u8>)> {
    let first = images(7, ECUS, IMAGE_BYTES);
    api.start_campaign("first", "2.0.0", &first).await;
    api.reaches("first", "VEH_001", "succeeded").await;
    let second = next_build(&first);
    api.create_release("second", "3.0.0", &second).await;
    every_delta_is_decided(api, "second", "ready").await;
    second
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_update_travels_as_deltas_and_leaves_the_very_images() {
    let testbed = Testbed::start().await;
    let vehicle = SimulatedVehicle::start(testbed.vehicle(1, ECUS)).await.unwrap();
    let api = testbed.api();
    api.knows_vehicles(1).await;
    let second = second_release_with_deltas(&api).await;

    api.run_campaign("spring", "second").await;
    let update = api.reaches("spring", "VEH_001", "succeeded").await;
    let bytes = update["bytes_total"].as_u64().unwrap();
    assert!(bytes * 10 < (IMAGE_BYTES * usize::from(ECUS)) as u64, "{bytes} bytes travelled: {update}");
    assert_all_run(&vehicle, "3.0.0", &second);
    vehicle.stop().await.unwrap();
    testbed.stop().await;
}

/// A gateway that lost the installed images says so, and gets full images instead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_without_the_base_gets_full_images() {
    let testbed = Testbed::start().await;
    let vehicle = SimulatedVehicle::start(testbed.vehicle(1, ECUS)).await.unwrap();
    let api = testbed.api();
    api.knows_vehicles(1).await;
    let second = second_release_with_deltas(&api).await;
    std::fs::remove_dir_all(vehicle.config().state_dir.join("gateway/images")).unwrap();

    api.run_campaign("spring", "second").await;
    let update = api.reaches("spring", "VEH_001", "succeeded").await;
    let whole: usize = second.iter().map(|(_, image)| image.len()).sum();
    assert_eq!(update["bytes_total"], whole, "{update}");
    assert_all_run(&vehicle, "3.0.0", &second);
    vehicle.stop().await.unwrap();
    testbed.stop().await;
}
