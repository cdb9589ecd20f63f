//! A whole server tells a campaign's course to a receiver that others' code checks, and to a stream.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::path::Path;
use std::process::Stdio;

use farrier_system_tests::testbed::{Testbed, images};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_in_python_finds_every_change_of_a_campaign_genuine() {
    let testbed = Testbed::start_with(|config| {
        config.webhooks.allow_insecure_http = true;
        config.webhooks.allow_private_targets = true;
    })
    .await;
    let python =
        std::env::var("FARRIER_TEST_PYTHON").expect("FARRIER_TEST_PYTHON names a Python; run ./scripts/test");
    let mut receiver = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/webhook_receiver.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(receiver.stdout.take().unwrap()).lines();
    let port = lines.next_line().await.unwrap().unwrap();
    let api = testbed.api();
    let url = format!("http://127.0.0.1:{port}/");
    let made = api.post("webhooks", json!({"name": "ops", "url": url, "types": ["*"]})).await;
    let mut input = receiver.stdin.take().unwrap();
    input.write_all(format!("{}\n", made["secret"].as_str().unwrap()).as_bytes()).await.unwrap();
    api.post("vehicles", json!({"vehicle_id": "VEH_001", "gateway_id": "CCU"})).await;
    api.start_campaign("winter", "2.0.0", &images(3, 1, 1_000)).await;
    let mut open = vec!["vehicle.enrolled", "release.created", "campaign.created", "campaign.started"];
    while !open.is_empty() {
        let told: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        assert_eq!((&told["genuine"], &told["forged"]), (&json!(true), &json!(false)), "{told}");
        open.retain(|kind| told["event"]["type"] != *kind);
    }
    drop(input);
    testbed.stop().await;
}
