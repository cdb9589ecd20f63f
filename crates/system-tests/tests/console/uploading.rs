//! An image goes from the browser to the server in parts; where the line breaks, and where the page is left, it goes on.

use farrier_protocol::Sha256;
use farrier_system_tests::browser::Browser;
use farrier_system_tests::testbed::images;
use farrier_system_tests::until;
use serde_json::Value;

use crate::signed_in;

/// Some of the browser's parts of 4 MiB.
const OCTETS: usize = 22_000_000;
/// So that the upload is still under way when something happens to it, on a busy machine too.
const SLOW: i64 = 1_500_000;
const HARDLY: i64 = 50_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_shows_its_progress_and_goes_on_after_a_lost_connection_and_after_a_reload() {
    let (mut testbed, browser) = signed_in().await;
    let image = images(8, 1, OCTETS).remove(0).1;
    let file = testbed.folder().join("powertrain.bin");
    std::fs::write(&file, &image).unwrap();
    browser.goto("/releases").await;
    browser.press("New release").await;
    browser.sends_at_most(SLOW).await;
    browser.chooses_file("files", &file).await;
    passes(&browser, 4_194_304).await;

    // The line breaks, and comes back.
    testbed.stop_server().await;
    browser.sees("The connection is lost at").await;
    testbed.start_server().await;
    passes(&browser, 8_388_608).await;
    browser.sends_at_most(HARDLY).await;
    let arrived = uploads(&testbed.api()).await[0]["offset_bytes"].as_u64().unwrap();
    assert!(arrived >= 4_194_304, "{arrived}");

    // The page is left, and the same file is chosen again.
    browser.goto("/new-release").await;
    browser.sees("alice").await;
    assert_eq!(uploads(&testbed.api()).await.len(), 1);
    browser.sends_at_most(-1).await;
    browser.chooses_file("files", &file).await;
    browser.sees("Stored, checked and signed").await;
    let from = browser.run(FIRST_SENT, vec![]).await.as_u64().unwrap();
    assert!(from >= arrived, "it began again at {from}, though {arrived} octets had arrived");

    browser.fill("Hardware part number", "HW-0001").await;
    browser.fill("Version", "2.0.0").await;
    browser.fill("Name", "uploaded").await;
    browser.press("Make release").await;
    browser.comes_to("/releases/uploaded").await;
    let release = testbed.api().get("releases/uploaded").await;
    assert_eq!(release["images"][0]["sha256"], Sha256::of(&image).to_string(), "{release}");
    let faults = browser.faults().await;
    assert!(faults.iter().all(|fault| fault.contains("net::ERR_")), "{faults:#?}");
    browser.end().await;
    testbed.stop().await;
}

async fn uploads(api: &farrier_system_tests::api::Api) -> Vec<Value> {
    api.list("uploads").await
}

/// Waits until the bar shows more than so many octets, and not all.
async fn passes(browser: &Browser, octets: u64) {
    until(&format!("the bar passes {octets}"), async || {
        let shown = browser
            .run(
                "const bar = document.querySelector('.upload progress'); return [bar.value, 0, \
            document.querySelector('.upload').dataset.state]",
                vec![],
            )
            .await;
        let at = shown[0].as_u64()?;
        assert_ne!(shown[2], "stored", "it was too quick to be looked at");
        (shown[2] == "sending" && at > octets).then_some(())
    })
    .await;
}

/// Where the first part began that this page has sent.
const FIRST_SENT: &str = "return Math.min(...performance.getEntriesByType('resource') \
    .map((one) => new URL(one.name).searchParams.get('offset_bytes')).filter((from) => from !== null).map(Number))";
