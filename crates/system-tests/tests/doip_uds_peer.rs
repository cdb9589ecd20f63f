//! A tester made by others (Python: doipclient and udsoncan) reads and flashes a simulated ECU.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::path::Path;

use farrier_simulator::doip_entity::{DoipEntity, EntityConfig, EntityTls};
use farrier_simulator::ecu::{EcuConfig, EcuTiming, Faults};
use farrier_system_tests::controller_certificates;
use farrier_system_tests::recording::{Dissection, Recording};
use serde_json::json;
use tokio::process::Command;

const BLOCK: u16 = 4_098;

fn ecu(number: u16) -> EcuConfig {
    EcuConfig {
        ecu_id: format!("ecu_{number:03}"),
        logical_address: 0x1010 + number,
        supplier_code: "1234".into(),
        hw_part_no: format!("HW-PT-{number:04}"),
        sw_part_no: "SW-PT-4711".into(),
        sw_version: "3.2.5".into(),
        bootloader_ver: "1.8.0".into(),
        calibration_id: "CAL-PT-2025-09".into(),
        timing: EcuTiming { max_block_length: BLOCK, ..EcuTiming::default() },
        faults: Faults::default(),
    }
}

/// Two blocks more than the counter has values, the last one not full.
fn image() -> Vec<u8> {
    (0..257 * usize::from(BLOCK - 2) + 100).map(|position| (position * 31 % 251) as u8).collect()
}

fn entity_config() -> EntityConfig {
    EntityConfig {
        name: "front".into(),
        logical_address: 0x1000,
        listen: "127.0.0.1:0".parse().unwrap(),
        vin: "WFARRIER000000001".into(),
        entity_id: [2, 0, 0, 0, 0, 9],
        announce_to: None,
        max_connections: 4,
        initial_inactivity_ms: 2_000,
        general_inactivity_ms: 300_000,
    }
}

#[tokio::test]
async fn a_python_tester_reads_and_flashes_a_simulated_ecu() {
    let folder = tempfile::tempdir().unwrap();
    let entity = DoipEntity::start(entity_config(), (0..3).map(ecu).collect(), folder.path()).await.unwrap();
    let (file, port) = (folder.path().join("session.pcap"), entity.tcp_address().port());
    let ports = [port, entity.udp_address().port()];
    let recording = Recording::start(&file, &ports).await;
    flash(&entity, port, folder.path(), &[]).await;
    recording.stop().await;
    assert_well_formed(&Dissection::doip(&file, &ports)).await;
}

#[tokio::test]
async fn a_python_tester_does_the_same_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    controller_certificates::write(folder.path());
    let tls = EntityTls {
        listen: "127.0.0.1:0".parse().unwrap(),
        certificate: folder.path().join("entity.pem"),
        private_key: folder.path().join("entity.key"),
        tester_ca: Some(folder.path().join("ca.pem")),
        key_log: Some(folder.path().join("keys.log")),
    };
    let ecus = (0..3).map(ecu).collect();
    let entity = DoipEntity::start_secured(entity_config(), &tls, ecus, folder.path()).await.unwrap();
    let port = entity.tls_address().unwrap().port();
    let (file, udp_port) = (folder.path().join("session.pcap"), entity.udp_address().port());
    let recording = Recording::start(&file, &[port, udp_port]).await;
    flash(&entity, port, folder.path(), &[folder.path()]).await;
    recording.stop().await;
    let dissection = Dissection::doip(&file, &[udp_port]).and_tls(port, &folder.path().join("keys.log"));
    assert_well_formed(&dissection).await;
}

/// A third party, tshark, reads the whole session of the two others.
async fn assert_well_formed(dissection: &Dissection) {
    dissection.assert_well_formed().await;
    let blocks = dissection.values("uds.sid == 0x36 && uds.reply == 0", "uds.sid").await;
    // With a wrong counter once, and one block twice.
    assert_eq!(blocks.len(), 258 + 2);
    let diagnostic = dissection.values("doip.type == 0x8001", "doip.type").await.len();
    let decoded = dissection.values("doip.type == 0x8001 && uds", "uds.sid").await.len();
    assert_eq!(diagnostic, decoded, "a diagnostic message was not decoded as UDS");
}

async fn flash(entity: &DoipEntity, tcp_port: u16, folder: &Path, tls: &[&Path]) {
    let image_path = folder.join("image.bin");
    std::fs::write(&image_path, image()).unwrap();

    let python = std::env::var("FARRIER_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/doip_uds_peer.py");
    let output = Command::new(&python)
        .arg(script)
        .arg("127.0.0.1")
        .arg(tcp_port.to_string())
        .arg(entity.udp_address().port().to_string())
        .arg("0x1011")
        .arg(&image_path)
        .arg("3.3.0")
        .args(tls)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap_or_else(|error| panic!("expected to run {python}: {error}; ./scripts/test prepares it"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "the tester ended with {}; if a module is missing, ./scripts/test installs it:\n{stderr}",
        output.status
    );
    let seen: serde_json::Value = serde_json::from_str(&stdout).unwrap();

    assert_eq!(seen["vehicle"], json!({ "vin": "WFARRIER000000001", "logical_address": 0x1000 }));
    assert_eq!(
        seen["fields"],
        json!({
            "supplier_code": "1234",
            "hw_part_no": "HW-PT-0001",
            "sw_part_no": "SW-PT-4711",
            "sw_version": "3.2.5",
            "bootloader_ver": "1.8.0",
            "calibration_id": "CAL-PT-2025-09",
        })
    );
    assert_eq!(
        seen["flash"],
        json!({
            "programming_from_default": 0x7E,
            "preconditions": "00",
            "download_while_locked": 0x33,
            "erase": "00",
            "block": BLOCK - 2,
            "blocks": 258,
            "wrong_counter": 0x73,
            "repeated_block": "acknowledged",
            "check_wrong_hash": "01",
            "check_memory": "00",
            "check_dependencies": "00",
        })
    );
    let running = |version: &str, bank: u8, other: &str, trial: u8| json!({ "version": version, "bank": bank, "other_version": other, "trial": trial });
    assert_eq!(seen["before"], running("3.2.5", 0, "", 0));
    assert_eq!(seen["after_activate"], running("3.2.5", 0, "3.3.0", 0));
    assert_eq!(seen["after_reset"], running("3.3.0", 1, "3.2.5", 1));
    assert_eq!(seen["after_confirm"], running("3.3.0", 1, "3.2.5", 2));
    assert_eq!(seen["after_roll_back"], running("3.2.5", 0, "", 0));

    assert_eq!(std::fs::read(folder.join("ecu_001/bank1.bin")).unwrap(), image());
    assert!(!folder.join("ecu_000/bank1.bin").exists(), "a neighbour was written");
}
