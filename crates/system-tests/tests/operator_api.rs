//! The operator API held to its own OpenAPI document by schemathesis, and /metrics read by Prometheus's own parser:
//! programs made by others, with a token of each scope, against a real server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use farrier_system_tests::testbed::{Testbed, images};
use serde_json::{Value, json};
use tokio::process::Command;

const SCOPES: [&str; 4] = ["viewer", "operator", "release_manager", "admin"];
/// For each scope, in seconds: the whole test has to end within a minute.
const TIME_FOR_EACH: &str = "8";
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                      negative_data_rejection,ignored_auth,unsupported_method,allow_header_conformance";

fn python() -> PathBuf {
    std::env::var("FARRIER_TEST_PYTHON")
        .expect("FARRIER_TEST_PYTHON names the Python with schemathesis; run ./scripts/test")
        .into()
}

/// Runs schemathesis with a new token over the operations that `which` selects. Data that the document allows is not
/// expected to be taken: it cannot say what is there, nor what an opaque place in a list is.
async fn fuzz(testbed: &Testbed, scope: &str, seconds: &str, which: &[&str]) {
    let api = testbed.api();
    let number = api.list("tokens").await.len();
    let made = api.post("tokens", json!({"name": format!("fuzz-{number}"), "scope": scope})).await;
    let output = Command::new(python())
        .args(["-m", "schemathesis.cli", "run", &format!("{}/openapi.json", api.base())])
        .args(["--header", &format!("Authorization: Bearer {}", made["token"].as_str().unwrap())])
        .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", "15"])
        .args(["--max-time", seconds, "--seed", &seed(), "--generation-database", "none", "--no-color"])
        .args(trusted(testbed))
        .args(which)
        .current_dir(testbed.folder())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "as {scope} {which:?}:\n{stdout}\n{stderr}");
    let told = stdout.lines().find(|line| line.contains(" generated, ")).unwrap_or_default();
    println!("as {scope} {which:?}: {told}");
    assert!(told.contains("passed"), "as {scope} {which:?} nothing was asked:\n{stdout}");
}

/// FARRIER_SEED tries other requests.
fn seed() -> String {
    std::env::var("FARRIER_SEED").unwrap_or_else(|_| "20261125".to_owned())
}

/// The root of the server's own certificate, where it has one for operators.
fn trusted(testbed: &Testbed) -> Vec<String> {
    let root = testbed.folder().join("data/operator.ca.pem");
    if root.is_file() { vec!["--tls-verify".to_owned(), root.display().to_string()] } else { Vec::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_makes_a_server_error_and_every_answer_is_as_the_document_says() {
    let testbed = Testbed::start().await;
    let api = testbed.api();
    for number in 1..=3 {
        api.post("vehicles", json!({"vehicle_id": format!("VEH_{number:03}"), "gateway_id": "CCU"})).await;
    }
    api.start_campaign("winter", "2.0.0", &images(9, 2, 1_000)).await;
    for scope in SCOPES {
        // A token that revoked itself would end the run.
        let except = ["--exclude-path-regex", "/(messages|revoke)$"];
        fuzz(&testbed, scope, TIME_FOR_EACH, &except).await;
    }
    fuzz(&testbed, "admin", "5", &["--include-path-regex", "/revoke$"]).await;
    fuzz(&testbed, "viewer", "5", &["--include-path-regex", "/messages$"]).await;
    // Whatever was asked, the log of changes still holds together.
    let page = api.get("audit").await;
    assert!(page["head"]["seq"].as_u64().unwrap() > 10, "{page}");
    testbed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_are_read_by_prometheuss_own_parser() {
    let testbed = Testbed::start().await;
    let api = testbed.api();
    let text = api.text("metrics").await;
    let file = testbed.folder().join("metrics.txt");
    std::fs::write(&file, &text).unwrap();
    let output = Command::new(python())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/metrics_reader.py"))
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    let families: Value = serde_json::from_slice(&output.stdout).unwrap();
    let documented =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md"))
            .unwrap();
    let read = families.as_object().unwrap();
    assert!(read.len() >= 6, "{families}");
    for (name, family) in read {
        let shown = if family["type"] == "counter" { format!("{name}_total") } else { name.clone() };
        assert!(documented.contains(&format!("`{shown}`")), "{shown} is not in docs/operations.md");
        assert!(!family["help"].as_str().unwrap().is_empty(), "{name} says nothing of itself");
    }
    assert_eq!(read["farrier_connections"]["samples"], json!([0]));
    testbed.stop().await;
}
