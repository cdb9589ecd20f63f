//! What a page says while the server is away, and that it lives again by itself.

use farrier_system_tests::until;
use serde_json::json;

use crate::signed_in;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_is_shown_and_mended_without_anybody_doing_anything() {
    let (mut testbed, browser) = signed_in().await;
    browser.goto("/").await;
    browser.sees("Connected now").await;
    browser.mark().await;
    assert!(!is_warned(&browser).await);

    testbed.stop_server().await;
    until("the page says that the connection is lost", async || is_warned(&browser).await.then_some(()))
        .await;
    browser.sees("may be out of date").await;

    testbed.start_server().await;
    until("the page says so no more", async || (!is_warned(&browser).await).then_some(())).await;
    // And it is alive: what changes now is to be seen on it.
    let vehicle = json!({ "vehicle_id": "VEH_900", "gateway_id": "CCU_900" });
    testbed.api().post("vehicles", vehicle).await;
    browser.sees_in(".kpi .value", "1").await;
    assert!(browser.is_marked().await, "the page has mended itself and was not loaded anew");
    let faults = browser.faults().await;
    let is_of_the_pause =
        |fault: &String| ["net::ERR_", "Failed to fetch"].iter().any(|of| fault.contains(of));
    assert!(faults.iter().all(is_of_the_pause), "{faults:#?}");
    browser.end().await;
    testbed.stop().await;
}

async fn is_warned(browser: &farrier_system_tests::browser::Browser) -> bool {
    !browser.text_in("#lost:not([hidden])").await.is_empty()
}
