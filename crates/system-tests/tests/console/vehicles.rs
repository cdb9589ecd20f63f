//! A vehicle that waits is found, and its page says why.

use farrier_system_tests::testbed::images;

use crate::{ECUS, signed_in, stop, with_vehicles};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vehicle_that_waits_is_found_and_says_why_it_waits() {
    let (testbed, browser) = signed_in().await;
    let vehicles = with_vehicles(&testbed, 2).await;
    let signals = vehicles[1].config().readiness_signals();
    let standing = std::fs::read_to_string(&signals).unwrap();
    let moving = standing.replace("\"vehicle.speed_kmh\" = 0.0", "\"vehicle.speed_kmh\" = 42.0");
    assert_ne!(standing, moving);
    std::fs::write(&signals, moving).unwrap();
    let api = testbed.api();
    api.start_campaign("winter", "2.0.0", &images(2, ECUS, 50_000)).await;
    api.reaches("winter", "VEH_001", "succeeded").await;
    api.reaches("winter", "VEH_002", "deferred").await;

    browser.goto("/campaigns/winter").await;
    browser.sees("VEHICLE_MOVING").await;
    browser.goto("/vehicles").await;
    browser.fill("Vehicle id, VIN, or query", "VEH_002").await;
    browser.press("Find").await;
    browser.comes_to("/vehicles/VEH_002").await;
    browser.sees("not ready").await;
    browser.sees("VEHICLE_MOVING").await;

    // By a query that is wrong first: what was typed stays, and it is said what is wrong with it.
    browser.goto("/vehicles").await;
    let wrong = "ecu.sw_versio = \"2.0.0\"";
    browser.fill("Vehicle id, VIN, or query", wrong).await;
    browser.press("Find").await;
    browser.sees("sw_versio").await;
    assert_eq!(browser.value("Vehicle id, VIN, or query").await, wrong);
    browser.fill("Vehicle id, VIN, or query", "ecu.sw_version = \"2.0.0\"").await;
    browser.press("Find").await;
    browser.sees("1 vehicle matches.").await;
    browser.sees("VEH_001").await;
    assert!(!browser.text().await.contains("VEH_002"));

    stop(vehicles).await;
    browser.end().await;
    testbed.stop().await;
}
