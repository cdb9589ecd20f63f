//! How every screen looks and reads: for people with a narrow screen, a dark one, another language, without a mouse or eyes.

use std::collections::{BTreeMap, BTreeSet};

use farrier_system_tests::browser::{Browser, Look};
use farrier_system_tests::testbed::{Testbed, images};
use serde_json::json;

use crate::{ADMIN, ECUS, signed_in, stop, with_vehicles};

/// What every page must have, and whether something is wider than the window.
const SOUND: &str = "const wide = [...document.querySelectorAll('main *, header *')].filter((one) => { \
        const box = one.getBoundingClientRect(); \
        return box.width > 0 && box.right > innerWidth + 1 && one.checkVisibility() && !one.closest('.scroll, pre, .hidden, .skip, header nav') }); \
    return { headings: document.querySelectorAll('h1').length, title: document.title, \
        language: document.documentElement.lang, over: document.documentElement.scrollWidth - innerWidth, \
        wide: wide.slice(0, 3).map((one) => one.outerHTML.slice(0, 200)) }";

/// Screens that have to be among those that links lead to.
const SCREENS: [&str; 13] = [
    "/",
    "/campaigns",
    "/campaigns/*",
    "/campaigns/*/pause",
    "/campaigns/*/abort",
    "/vehicles",
    "/vehicles/*",
    "/releases",
    "/releases/*",
    "/audit",
    "/security-events",
    "/refused-messages",
    "/settings",
];

/// Looks at the page as it is now with every width and theme.
async fn looked_at(browser: &Browser, path: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    for look in Look::ALL {
        browser.look(look).await;
        let mut wrong = browser.barriers().await;
        let sound = browser.run(SOUND, vec![]).await;
        if sound["headings"] != 1 || sound["title"] == "" || sound["language"] != "en" {
            wrong.push(format!("one h1, a title and a language were expected: {sound}"));
        }
        if sound["over"].as_f64().unwrap() > 0.0 || sound["wide"] != json!([]) {
            wrong.push(format!("wider than {} px: {sound}", look.width));
        }
        found
            .entry(path.to_owned())
            .or_default()
            .extend(wrong.into_iter().map(|one| format!("{look:?} {one}")));
    }
}

/// A fleet with something of everything: updated, rolled back, not ready, never seen; a message that was refused.
async fn mixed(testbed: &Testbed) -> Vec<farrier_simulator::vehicle::SimulatedVehicle> {
    let mut vehicles = with_vehicles(testbed, 2).await;
    let mut failing = testbed.vehicle(4, ECUS);
    failing.ecu_mut(&"ecu_003".parse().unwrap()).unwrap().faults.fails_write_at_byte = Some(10_000);
    let failing = farrier_simulator::vehicle::SimulatedVehicle::start(failing).await.unwrap();
    vehicles.push(failing);
    let api = testbed.api();
    api.knows_vehicles(3).await;
    let signals = vehicles[1].config().readiness_signals();
    let standing = std::fs::read_to_string(&signals).unwrap();
    std::fs::write(&signals, standing.replace("speed_kmh\" = 0.0", "speed_kmh\" = 42.0")).unwrap();
    api.post("vehicles", json!({ "vehicle_id": "VEH_005", "gateway_id": "CCU_005", "tags": ["pilot"] }))
        .await;
    api.post("groups", json!({ "name": "pilots", "query": "tag = \"pilot\"" })).await;
    api.start_campaign("winter", "2.0.0", &images(4, ECUS, 50_000)).await;
    api.reaches("winter", "VEH_001", "succeeded").await;
    api.reaches("winter", "VEH_002", "deferred").await;
    api.reaches("winter", "VEH_004", "rolled_back").await;
    api.create_release("spring", "3.0.0", &images(5, ECUS, 20_000)).await;
    api.post("campaigns", json!({ "name": "spring", "release": "spring" })).await;
    vehicles
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_screen_is_sound_wide_and_narrow_light_and_dark() {
    let testbed = Testbed::start().await;
    let browser = Browser::at(testbed.console()).await;
    let mut found = BTreeMap::new();
    browser.goto(testbed.console_link()).await;
    looked_at(&browser, "/welcome/*", &mut found).await;
    browser.goto("/sign-in").await;
    looked_at(&browser, "/sign-in", &mut found).await;
    browser.uses_link(testbed.console_link(), Some(ADMIN)).await;
    let vehicles = mixed(&testbed).await;

    // Of two campaigns one has begun and one has not.
    let screens = browser.every_screen(2, async |path, _| looked_at(&browser, path, &mut found).await).await;
    browser.goto("/vehicles/VEH_999").await;
    looked_at(&browser, "what is not there", &mut found).await;
    browser.met_only("status of 404").await;
    println!("looked at {} screens: {screens:#?}", found.len());
    found.retain(|_, wrong| !wrong.is_empty());
    assert!(found.is_empty(), "{found:#?}");
    for screen in SCREENS {
        assert!(screens.contains_key(screen), "no link led to {screen}: {screens:#?}");
    }
    stop(vehicles).await;
    browser.end().await;
    testbed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn language_and_colours_are_as_chosen_and_stay_so() {
    let (testbed, browser) = signed_in().await;
    browser.goto("/campaigns").await;
    browser.press("한국어").await;
    browser.sees_in("h1", "캠페인").await;
    assert_eq!(browser.path().await, "/campaigns", "the page is still the same");
    assert_eq!(browser.run("return document.documentElement.lang", vec![]).await, "ko");
    browser.goto("/").await;
    assert_eq!(browser.run("return document.documentElement.lang", vec![]).await, "ko");
    browser.press("English").await;
    browser.sees("Connected now").await;
    assert_eq!(browser.run("return document.documentElement.lang", vec![]).await, "en");

    let canvas = async || browser.run("return getComputedStyle(document.body).backgroundColor", vec![]).await;
    let light = canvas().await;
    browser.look(Look { is_dark: true, ..Look::ALL[0] }).await;
    let dark = canvas().await;
    assert_ne!(light, dark, "without a choice the system's is taken");
    browser.press("Light").await;
    browser.comes_to("/").await;
    assert_eq!(canvas().await, light);
    browser.look(Look::ALL[0]).await;
    browser.press("Dark").await;
    browser.comes_to("/").await;
    assert_eq!(canvas().await, dark);
    browser.goto("/vehicles").await;
    assert_eq!(canvas().await, dark);
    browser.end().await;
    testbed.stop().await;
}
