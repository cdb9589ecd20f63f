//! A campaign from its start to its abort, steered on its page, while real vehicles are updated.

use farrier_system_tests::browser::Browser;
use farrier_system_tests::testbed::{assert_all_run, images};
use farrier_system_tests::until;
use serde_json::json;

use crate::{ECUS, signed_in, stop, with_vehicles};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_is_started_watched_paused_resumed_and_aborted_on_its_page() {
    let (testbed, browser) = signed_in().await;
    let vehicles = with_vehicles(&testbed, 3).await;
    let (api, images) = (testbed.api(), images(1, ECUS, 200_000));
    api.create_release("winter", "2.0.0", &images).await;
    let by_hand = json!({ "size": { "vehicles": 1 }, "opens": "by_hand" });
    let waves = json!([{ "size": { "vehicles": 1 } }, by_hand, { "size": "rest", "opens": "by_hand" }]);
    let plan = json!({ "name": "winter", "release": "winter", "rollout": { "waves": waves } });
    api.post("campaigns", plan).await;

    browser.goto("/campaigns").await;
    browser.press("winter").await;
    browser.sees_in("h1", "draft").await;
    browser.press("Start").await;
    // What will happen, and to how many, is said before it happens.
    browser.sees("3 vehicles are taken in and get release winter").await;
    browser.press("Start").await;
    browser.comes_to("/campaigns/winter").await;
    browser.mark().await;
    shows(&browser, "At the release", "1").await;
    assert!(browser.is_marked().await, "the page has changed by itself and was not loaded anew");

    browser.press("Pause").await;
    browser.sees("wait until the campaign is resumed").await;
    browser.press("Pause").await;
    browser.comes_to("/campaigns/winter").await;
    browser.sees_in("h1", "paused").await;
    assert_eq!(api.get("campaigns/winter").await["state"], "paused");
    assert!(!browser.can_press("Pause").await && browser.can_press("Resume").await);
    browser.sees("opens by an operator; not before the campaign is resumed").await;
    assert!(browser.has(".times .sign.paused").await, "the pause is marked in the time line of the waves");

    browser.press("Resume").await;
    browser.press("Resume").await;
    browser.sees_in("h1", "running").await;
    browser.press("Open next wave").await;
    browser.sees("Wave 2 with 1 vehicle opens").await;
    browser.press("Open next wave").await;
    browser.comes_to("/campaigns/winter").await;
    shows(&browser, "At the release", "2").await;

    browser.press("Abort").await;
    browser.sees("1 vehicle that has not begun is cancelled for good").await;
    browser.fill("Reason", "the third one stays as it is").await;
    browser.press("Abort").await;
    browser.comes_to("/campaigns/winter").await;
    browser.sees_in("h1", "aborted").await;
    browser.sees("was never opened").await;
    let ended = api.get("campaigns/winter").await;
    assert_eq!(
        (&ended["state"], &ended["abort_reason"]),
        (&json!("aborted"), &json!("the third one stays as it is"))
    );
    until("the third vehicle's update is cancelled", async || {
        (api.get("campaigns/winter").await["states"] == json!({ "succeeded": 2, "cancelled": 1 }))
            .then_some(())
    })
    .await;
    // The page says it of each, and it is what the vehicles run.
    browser.goto("/campaigns/winter").await;
    for vehicle in &vehicles {
        let id = vehicle.config().vehicle_id.as_str();
        let state = api.vehicle_update("winter", id).await.unwrap()["state"].as_str().unwrap().to_owned();
        let row = browser.run(ROW, vec![json!(id)]).await;
        assert!(row.as_str().unwrap().contains(&state), "{id}: {row}");
        if state == "succeeded" {
            assert_all_run(vehicle, "2.0.0", &images);
        } else {
            assert!(vehicle.running_versions().unwrap().values().all(|version| version == "1.0.0"));
        }
    }
    stop(vehicles).await;
    browser.end().await;
    testbed.stop().await;
}

/// The row of a table that links to a vehicle.
const ROW: &str = "return document.querySelector(`tr:has(a[href='/vehicles/${arguments[0]}'])`).innerText";

/// Waits until the figure below this heading is so much.
async fn shows(browser: &Browser, heading: &str, figure: &str) {
    until(&format!("{heading} is {figure}"), async || {
        (browser.run(FIGURE, vec![json!(heading)]).await == figure).then_some(())
    })
    .await;
}

const FIGURE: &str = "const one = [...document.querySelectorAll('.kpi')].find((one) => \
    one.querySelector('h2').innerText === arguments[0]); return one ? one.querySelector('.value').innerText : ''";
