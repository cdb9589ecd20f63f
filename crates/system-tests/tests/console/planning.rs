//! A campaign is planned, looked at as a dry run, and started: by mouse, and by nothing but the keyboard.

use farrier_system_tests::browser::{Browser, Key};
use farrier_system_tests::testbed::{assert_all_run, images};
use serde_json::json;

use crate::{ECUS, signed_in, stop, with_vehicles};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_is_planned_step_by_step_and_nothing_is_lost_on_the_way_back() {
    let (testbed, browser) = signed_in().await;
    let vehicles = with_vehicles(&testbed, 2).await;
    let (api, images) = (testbed.api(), images(6, ECUS, 50_000));
    api.create_release("winter", "2.0.0", &images).await;
    // It has other hardware than the release is for.
    api.post("vehicles", json!({ "vehicle_id": "VEH_009", "gateway_id": "CCU_009" })).await;

    browser.goto("/campaigns").await;
    browser.press("New campaign").await;
    browser.press("Next").await;
    browser.sees("what was typed is all still there").await;
    browser.met_only("status of 422").await;
    browser.fill("Name", "spring").await;
    browser.fill("Release", "winter").await;
    browser.choose("Which vehicles", "those that a query selects").await;
    browser.fill("Query", "ecu.sw_versio = \"1.0.0\"").await;
    browser.sees_in("#selected", "sw_versio").await;
    browser.fill("Query", "ecu.sw_version = \"1.0.0\"").await;
    browser.sees_in("#selected", "2 vehicles match.").await;
    browser.press("Next").await;
    browser.sees("Step 2").await;
    browser.press("Next").await;
    browser.sees("Step 3").await;
    browser.fill("Vehicles at once, at most", "many").await;
    browser.press("Next").await;
    browser.sees("Expected a whole number, found “many”.").await;
    browser.met_only("status of 422").await;
    assert_eq!(browser.value("Vehicles at once, at most").await, "many");
    browser.fill("Vehicles at once, at most", "5").await;

    // Back to the first step, where another choice is made, and forth again.
    browser.press("1 Release and vehicles").await;
    browser.sees("Step 1").await;
    assert_eq!(browser.value("Name").await, "spring");
    assert_eq!(browser.value("Query").await, "ecu.sw_version = \"1.0.0\"");
    browser.choose("Which vehicles", "every vehicle, later ones too").await;
    browser.press("3 Pace and times").await;
    assert_eq!(browser.value("Vehicles at once, at most").await, "5");
    browser.press("Next").await;
    browser.sees("Step 4").await;
    browser.press("To the dry run").await;
    browser.sees("What would happen by what is known now").await;
    // Two would be updated, and the one that nobody has seen would be asked first.
    browser.sees("be updated").await;
    browser.sees("be asked first what they run").await;
    assert_eq!(api.get("campaigns?limit=10").await["items"], json!([]), "nothing is stored by looking");

    browser.press("Create and start…").await;
    browser.sees("Start campaign spring?").await;
    browser.press("Create and start now").await;
    browser.comes_to("/campaigns/spring").await;
    browser.sees_in("h1", "running").await;
    for vehicle in &vehicles {
        api.reaches("spring", vehicle.config().vehicle_id.as_str(), "succeeded").await;
        assert_all_run(vehicle, "2.0.0", &images);
    }
    stop(vehicles).await;
    browser.end().await;
    testbed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_is_planned_started_and_paused_by_nothing_but_the_keyboard() {
    let (testbed, browser) = signed_in().await;
    let vehicles = with_vehicles(&testbed, 1).await;
    let (api, images) = (testbed.api(), images(7, ECUS, 50_000));
    api.create_release("winter", "2.0.0", &images).await;

    browser.goto("/").await;
    to(&browser, "Campaigns", Key::Enter).await;
    browser.comes_to("/campaigns").await;
    to(&browser, "Skip to content", Key::Enter).await;
    to(&browser, "New campaign", Key::Enter).await;
    browser.sees("Step 1").await;
    browser.tabs_to("Name").await;
    browser.types("spring").await;
    browser.tabs_to("Release").await;
    browser.types("winter").await;
    browser.tabs_to("Which vehicles").await;
    browser.key(Key::Down).await;
    browser.tabs_to("Query").await;
    browser.types("ecu.sw_version = \"1.0.0\"").await;
    browser.sees_in("#selected", "1 vehicle matches.").await;
    to(&browser, "Take in vehicles that match later", Key::Space).await;
    to(&browser, "Next", Key::Enter).await;
    for step in ["Step 2", "Step 3"] {
        browser.sees(step).await;
        to(&browser, "Skip to content", Key::Enter).await;
        to(&browser, "Next", Key::Space).await;
    }
    browser.sees("Step 4").await;
    to(&browser, "To the dry run", Key::Enter).await;
    browser.sees("What would happen by what is known now").await;
    to(&browser, "Create and start…", Key::Enter).await;
    browser.sees("Start campaign spring?").await;
    to(&browser, "Create and start now", Key::Enter).await;
    browser.comes_to("/campaigns/spring").await;
    let planned = api.get("campaigns/spring").await;
    assert_eq!(
        (&planned["query"], &planned["follows"]),
        (&json!("ecu.sw_version = \"1.0.0\""), &json!(true))
    );
    assert_eq!(planned["rollout"]["waves"].as_array().unwrap().len(), 3, "{planned}");

    to(&browser, "Pause", Key::Enter).await;
    browser.sees("wait until the campaign is resumed").await;
    to(&browser, "Pause", Key::Enter).await;
    browser.comes_to("/campaigns/spring").await;
    browser.sees_in("h1", "paused").await;
    stop(vehicles).await;
    browser.end().await;
    testbed.stop().await;
}

/// Goes on with Tab to what is called so, and presses a key there.
async fn to(browser: &Browser, name: &str, key: Key) {
    browser.tabs_to(name).await;
    browser.key(key).await;
}
