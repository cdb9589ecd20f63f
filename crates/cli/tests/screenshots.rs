//! Pictures of every screen of the console, with a fleet of which something is everywhere. `scripts/screenshots` runs it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "scaffolding of tests: a panic is how it says what is wrong"
)]

mod screenshots {
    pub(crate) mod scene;
}

use std::path::{Path, PathBuf};

use farrier_system_tests::browser::{Browser, Look};
use farrier_system_tests::testbed::Testbed;

use screenshots::scene::Scene;

/// A picture is no longer than this, in pixels.
const LONGEST: u64 = 4_000;

/// What links lead to late or never, and shows something of its own.
const OF_ITS_OWN: [&str; 5] = [
    "/vehicles/VEH_001",
    "/vehicles/VEH_002",
    "/vehicles/VEH_003",
    "/campaigns/winter-2026",
    "/vehicles?q=regoin+%3D+KR",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and judges nothing: it is for people who look at its pictures"]
async fn pictures_of_every_screen() {
    let folder: PathBuf =
        std::env::var("FARRIER_SCREENSHOTS").expect("FARRIER_SCREENSHOTS names a folder").into();
    let vehicles =
        std::env::var("FARRIER_SCREENSHOT_VEHICLES").map_or(1_000, |number| number.parse().unwrap());
    std::fs::create_dir_all(&folder).unwrap();
    let testbed = Testbed::start_with(|config| {
        config.deadlines.verify_deadline_s = 20;
        config.webhooks.allow_insecure_http = true;
        config.webhooks.allow_private_targets = true;
    })
    .await;
    let browser = Browser::at(testbed.console()).await;
    browser.goto(testbed.console_link()).await;
    take(&browser, &folder, "welcome").await;
    browser.goto("/sign-in").await;
    take(&browser, &folder, "sign-in").await;
    browser.uses_link(testbed.console_link(), Some("alice")).await;
    take(&browser, &folder, "empty").await;
    browser.goto("/campaigns").await;
    take(&browser, &folder, "empty-campaigns").await;

    let mut scene = Scene::set(&testbed, vehicles).await;
    scene.run_the_first_campaign(&testbed).await;
    scene.begin_the_second(&testbed).await;
    for path in ["/", "/campaigns/winter-2026"] {
        browser.goto(path).await;
        take(&browser, &folder, &format!("middle{}", path.replace('/', "-"))).await;
    }
    let mut number = 0;
    let opened = browser
        .every_screen(2, async |_, screen| {
            number += 1;
            let name: String =
                screen.chars().map(|sign| if sign.is_ascii_alphanumeric() { sign } else { '-' }).collect();
            take(&browser, &folder, &format!("{number:02}{name}")).await;
        })
        .await;
    for path in OF_ITS_OWN {
        browser.goto(path).await;
        let name: String =
            path.chars().map(|sign| if sign.is_ascii_alphanumeric() { sign } else { '-' }).collect();
        take(&browser, &folder, &format!("own{name}")).await;
    }
    browser.goto("/").await;
    browser.press("한국어").await;
    for path in ["/", "/campaigns/winter-2026", "/vehicles/VEH_002", "/sign-in"] {
        browser.goto(path).await;
        take(&browser, &folder, &format!("korean{}", path.replace('/', "-"))).await;
    }
    println!("{opened:#?}\nwrong on the pages: {:#?}", browser.faults().await);
    scene.clear().await;
    browser.end().await;
    testbed.stop().await;
}

/// Four pictures of the page that is shown.
async fn take(browser: &Browser, folder: &Path, name: &str) {
    for look in Look::ALL {
        let theme = if look.is_dark { "dark" } else { "light" };
        let file = folder.join(format!("{name}-{}-{theme}.png", look.width));
        std::fs::write(file, browser.picture(look, LONGEST).await).unwrap();
    }
}
