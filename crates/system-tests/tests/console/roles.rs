//! What each role sees and may do.

use farrier_system_tests::browser::Browser;
use farrier_system_tests::testbed::images;
use serde_json::json;

use crate::{ECUS, signed_in};

/// Makes a link for somebody new, and leaves nobody signed in.
async fn invites(browser: &Browser, name: &str, role: &str) -> String {
    browser.goto("/settings").await;
    let form = "form[action='/settings/users'] ";
    browser.run("document.querySelector(arguments[0] + 'input').focus()", vec![json!(form)]).await;
    browser.types(name).await;
    browser.run(CHOOSE, vec![json!(format!("{form}select")), json!(role)]).await;
    browser.press("Invite").await;
    browser.sees("good for one use within two days").await;
    let page = browser.text().await;
    let link = page.split_whitespace().find(|word| word.contains("/welcome/")).expect("a link").to_owned();
    // The settings offer to sign others out as well.
    browser.goto("/").await;
    browser.press("Sign out").await;
    browser.comes_to("/sign-in").await;
    link
}

const CHOOSE: &str = "const list = document.querySelector(arguments[0]); \
    list.value = [...list.options].find((option) => option.text === arguments[1]).value";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_sees_everything_and_is_offered_nothing_and_an_operator_acts() {
    let (testbed, browser) = signed_in().await;
    let api = testbed.api();
    api.create_release("winter", "2.0.0", &images(3, ECUS, 10_000)).await;
    api.post("vehicles", json!({ "vehicle_id": "VEH_001", "gateway_id": "CCU_001" })).await;
    api.run_campaign("winter", "winter").await;

    let viewer = invites(&browser, "eve", "viewer").await;
    browser.uses_link(&viewer, None).await;
    browser.sees("viewer").await;
    for path in ["/campaigns/winter", "/vehicles/VEH_001", "/releases/winter", "/settings"] {
        browser.goto(path).await;
        let shown = browser.run(OFFERS, vec![]).await;
        assert_eq!(shown, json!([]), "{path} offers a viewer what they may not do");
    }
    browser.goto("/campaigns/winter/pause").await;
    browser.sees("That is not possible").await;
    browser.met_only("status of 403").await;
    browser.press("Sign out").await;
    browser.comes_to("/sign-in").await;

    browser.signs_in(crate::ADMIN, farrier_system_tests::browser::PASSWORD).await;
    browser.comes_to("/").await;
    let operator = invites(&browser, "bob", "operator").await;
    browser.uses_link(&operator, None).await;
    browser.goto("/campaigns/winter").await;
    browser.press("Pause").await;
    browser.press("Pause").await;
    browser.comes_to("/campaigns/winter").await;
    browser.sees_in("h1", "paused").await;
    browser.goto("/settings").await;
    assert!(!browser.can_press("Invite").await, "only an admin lets others in");
    browser.end().await;
    testbed.stop().await;
}

/// Buttons, and links that look like buttons, in the page's own part; without those that only lead on or search.
const OFFERS: &str = "return [...document.querySelectorAll('main button, main a.button')] \
    .filter((one) => one.checkVisibility() && !one.closest('nav, form[method=get], form[role=search]')) \
    .map((one) => one.innerText)";
