//! A tester made by others (Python: can-isotp, python-can and udsoncan) flashes a simulated ECU on CAN.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::path::Path;

use farrier_simulator::can_bus::{CanBus, CanBusConfig, CanEcuConfig};
use farrier_simulator::ecu::{EcuConfig, EcuTiming, Faults};
use farrier_system_tests::can_recording::CanRecording;
use farrier_system_tests::recording::Dissection;
use serde_json::json;
use tokio::process::Command;

const IMAGE_LENGTH: usize = 20_000;

/// What one message of ISO-TP carries of an image: 4,095 bytes without service byte and block counter.
const BLOCK_PAYLOAD: usize = 4_093;

#[tokio::test]
async fn a_python_tester_flashes_an_ecu_on_can() {
    let folder = tempfile::tempdir().unwrap();
    let ecu = CanEcuConfig {
        request_id: 0x701,
        response_id: 0x709,
        ecu: EcuConfig {
            ecu_id: "ecu_001".into(),
            logical_address: 0,
            supplier_code: "1234".into(),
            hw_part_no: "HW-PT-0001".into(),
            sw_part_no: "SW-PT-4711".into(),
            sw_version: "3.2.5".into(),
            bootloader_ver: "1.8.0".into(),
            calibration_id: "CAL-PT-2025-09".into(),
            timing: EcuTiming::default(),
            faults: Faults::default(),
        },
    };
    let config = CanBusConfig { interface: "vcan0".into(), listen: "127.0.0.1:0".parse().unwrap() };
    let bus = CanBus::start(config, vec![ecu], folder.path()).await.unwrap();
    let image: Vec<u8> = (0..IMAGE_LENGTH).map(|position| (position * 31 % 251) as u8).collect();
    let image_path = folder.path().join("image.bin");
    std::fs::write(&image_path, &image).unwrap();

    let file = folder.path().join("session.pcap");
    let recording = CanRecording::start(&file, bus.address(), "vcan0").await;
    let python = std::env::var("FARRIER_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = Command::new(&python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/can_isotp_peer.py"))
        .args(["127.0.0.1", &bus.address().port().to_string(), "vcan0", "0x701", "0x709"])
        .arg(&image_path)
        .arg("3.3.0")
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
    assert_eq!(seen["fields"]["calibration_id"], "CAL-PT-2025-09");
    assert_eq!(seen["flash"]["block"], BLOCK_PAYLOAD);
    assert_eq!(seen["flash"]["blocks"], IMAGE_LENGTH.div_ceil(BLOCK_PAYLOAD));
    assert_eq!(seen["flash"]["check_memory"], "00");
    let running = |version: &str, bank: u8, other: &str, trial: u8| json!({ "version": version, "bank": bank, "other_version": other, "trial": trial });
    assert_eq!(seen["after_reset"], running("3.3.0", 1, "3.2.5", 1));
    assert_eq!(seen["after_confirm"], running("3.3.0", 1, "3.2.5", 2));
    assert_eq!(seen["after_roll_back"], running("3.2.5", 0, "", 0));
    assert_eq!(std::fs::read(folder.path().join("ecu_001/bank1.bin")).unwrap(), image);

    // A third party, tshark, reads the whole session of the two others.
    let frames = recording.stop().await;
    assert!(frames > IMAGE_LENGTH / 7, "{frames} frames");
    let dissection = Dissection::can(&file, &[0x701, 0x709]);
    dissection.assert_well_formed().await;
    assert_eq!(dissection.values("iso15765", "iso15765.message_type").await.len(), frames);
    let blocks =
        dissection.values("uds.sid == 0x36 && uds.reply == 0", "uds.td.block_sequence_counter").await;
    // With a wrong counter once, and one block twice.
    assert_eq!(blocks, [1, 9, 2, 3, 3, 4, 5]);
}
