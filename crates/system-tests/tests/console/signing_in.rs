//! The door: the first admin's link, passwords, sessions that end.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use farrier_protocol::UnixMillis;
use farrier_system_tests::browser::{Browser, PASSWORD};
use farrier_system_tests::testbed::Testbed;

use crate::{ADMIN, signed_in};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_admin_comes_in_by_the_link_and_from_then_on_by_the_password() {
    let (testbed, browser) = signed_in().await;
    let link = testbed.console_link();
    browser.sees(ADMIN).await;
    browser.press("Sign out").await;
    browser.comes_to("/sign-in").await;

    browser.signs_in(ADMIN, "four hooves and a hammer").await;
    browser.sees("do not belong together").await;
    assert_eq!(browser.value("User name").await, ADMIN, "what was typed stays");
    assert_eq!(browser.value("Password").await, "", "and the password does not");
    browser.met_only("status of 401").await;

    browser.signs_in(ADMIN, PASSWORD).await;
    browser.comes_to("/").await;
    browser.sees("Connected now").await;

    browser.goto(link).await;
    browser.sees("That is not possible").await;
    browser.met_only("status of 404").await;
    browser.end().await;
    testbed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_over_leads_to_the_door_and_back_also_from_a_page_that_only_watches() {
    let ahead_ms = Arc::new(AtomicI64::new(0));
    let clock = Arc::clone(&ahead_ms);
    let later = move |real: UnixMillis| UnixMillis(real.0 + clock.load(Ordering::SeqCst));
    let mut testbed = Testbed::start_with_clock(|_| {}, later).await;
    let browser = Browser::at(testbed.console()).await;
    browser.uses_link(testbed.console_link(), Some(ADMIN)).await;

    ahead_ms.fetch_add(13 * 3_600_000, Ordering::SeqCst);
    browser.goto("/vehicles?q=region+%3D+%22KR%22").await;
    assert!(browser.path().await.starts_with("/sign-in?to="));
    browser.signs_in(ADMIN, PASSWORD).await;
    browser.comes_to("/vehicles?q=region+%3D+%22KR%22").await;
    browser.sees("No vehicle on this page matches").await;

    // Nobody touches this page. Its connection ends now and not in a minute, and cannot be made anew.
    browser.goto("/").await;
    browser.sees("Connected now").await;
    ahead_ms.fetch_add(13 * 3_600_000, Ordering::SeqCst);
    testbed.stop_server().await;
    testbed.start_server().await;
    browser.comes_to("/sign-in").await;
    browser.signs_in(ADMIN, PASSWORD).await;
    browser.comes_to("/").await;
    let faults = browser.faults().await;
    let is_of_the_pause = |fault: &String| {
        ["net::ERR_", "Failed to fetch", "status of 401", "with status 401"]
            .iter()
            .any(|of| fault.contains(of))
    };
    assert!(faults.iter().all(is_of_the_pause), "{faults:#?}");
    browser.end().await;
    testbed.stop().await;
}
