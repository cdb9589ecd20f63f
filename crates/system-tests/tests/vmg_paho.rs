//! A gateway made by others (Python: paho-mqtt, ssl, http.client, openssl) is updated by protocol.md alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::path::Path;
use std::process::Stdio;

use farrier_system_tests::testbed::{Testbed, binding, images};
use serde_json::json;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_made_by_others_is_updated_over_mqtt_5() {
    whole_update("5.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_made_by_others_is_updated_over_mqtt_3_1_1() {
    whole_update("3.1.1").await;
}

async fn whole_update(mqtt_version: &str) {
    // Python's OpenSSL need not have ML-KEM.
    let testbed = Testbed::start_with(|config| {
        config.allow_classical_key_exchange = true;
        config.max_kb_per_msg = 64;
    })
    .await;
    let certificates = testbed.certificates(&binding(1));
    let api = testbed.api();
    let images = images(8, 2, 200_000);
    let all_bytes: usize = images.iter().map(|(_, image)| image.len()).sum();
    api.start_campaign("winter", "2.0.0", &images).await;

    let python = std::env::var("FARRIER_TEST_PYTHON")
        .expect("FARRIER_TEST_PYTHON names the Python with paho-mqtt; run ./scripts/test");
    let output = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/vmg_paho.py"))
        .args(["--mqtt", &format!("localhost:{}", testbed.mqtt().port()), "--mqtt-version", mqtt_version])
        .args(["--vehicle", "VEH_001", "--gateway", "CCU_001", "--certificates"])
        .arg(&certificates)
        .arg("--release-public-key")
        .arg(testbed.release_public_key())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");

    let update = api.reaches("winter", "VEH_001", "succeeded").await;
    assert_eq!(update["bytes_total"], all_bytes, "{update}");
    api.notes_that_all_is_served("winter", "VEH_001").await;
    let shown = api.get("vehicles/VEH_001").await;
    assert_eq!(shown["refused_messages"], json!([]), "{shown}");
    testbed.stop().await;
}
