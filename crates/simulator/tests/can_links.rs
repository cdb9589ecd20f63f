//! The gateway's links to ECUs on a CAN bus of its own, over socketcand.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use farrier_diagnostics::{Failure, IdentificationField, Trial, WriteJob};
use farrier_gateway::ecu_link::{ConnectError, EcuError, EcuLinks, Image};
use farrier_gateway::topology::Topology;
use farrier_protocol::EcuId;
use farrier_simulator::can_bus::{CanBus, CanBusConfig, CanEcuConfig};
use farrier_simulator::ecu::{EcuConfig, EcuTiming, Faults};

/// Standard format, and extended format.
const IDS: [(u32, u32); 2] = [(0x701, 0x709), (0x18DA_10F1, 0x18DA_F110)];

fn ecu(number: usize, faults: Faults) -> CanEcuConfig {
    CanEcuConfig {
        request_id: IDS[number].0,
        response_id: IDS[number].1,
        ecu: EcuConfig {
            ecu_id: format!("ecu_{number:03}"),
            logical_address: 0,
            supplier_code: "1234".into(),
            hw_part_no: "HW-1".into(),
            sw_part_no: "SW-1-with-a-name-longer-than-a-frame".into(),
            sw_version: "1.0".into(),
            bootloader_ver: "BL-1".into(),
            calibration_id: "CAL-1".into(),
            timing: EcuTiming { erase_ms: 60, reboot_ms: 50, ..EcuTiming::default() },
            faults,
        },
    }
}

async fn bus(folder: &Path, listen: &str, faults: Faults) -> CanBus {
    let config = CanBusConfig { interface: "vcan0".into(), listen: listen.parse().unwrap() };
    let ecus = vec![ecu(0, faults), ecu(1, Faults::default())];
    CanBus::start(config, ecus, folder).await.unwrap()
}

fn links(bus: &CanBus, interface: &str) -> EcuLinks {
    let mut text = format!(
        r#"
        security_algorithm = "insecure-xor-a5-for-simulators-only"
        [tester]
        network_allowance_ms = 1000
        reboot_wait_ms = 20
        reboot_timeout_ms = 3000
        [[controller]]
        name = "body"
        can = {{ interface = "{interface}", socketcand = "{}" }}
        parallel_writes = 2
        "#,
        bus.address(),
    );
    for (number, (request_id, response_id)) in IDS.iter().enumerate() {
        text += &format!(
            "[[ecu]]\necu_id = \"ecu_{number:03}\"\ncontroller = \"body\"\n\
             can = {{ request_id = {request_id}, response_id = {response_id} }}\n\
             functional_group = {{ domain = \"body\", index = {number} }}\n"
        );
    }
    EcuLinks::new(Topology::from_toml(&text).unwrap())
}

fn id(number: usize) -> EcuId {
    format!("ecu_{number:03}").parse().unwrap()
}

fn content() -> Vec<u8> {
    (0..50_000).map(|position: usize| (position * 31 % 251) as u8).collect()
}

async fn write(links: &EcuLinks, number: usize, folder: &Path) -> Result<(), EcuError> {
    let (path, content) = (folder.join("image"), content());
    fs::write(&path, &content).unwrap();
    let job = WriteJob {
        size: content.len() as u64,
        sha256: digest(&SHA256, &content).as_ref().try_into().unwrap(),
        version: "2.0".into(),
        hw_part_no: "HW-1".into(),
    };
    links.write_inactive_bank(&id(number), Image { path: &path, job }, |_| {}).await
}

#[tokio::test]
async fn ecus_on_can_are_read_flashed_confirmed_and_rolled_back() {
    let folder = tempfile::tempdir().unwrap();
    let bus = bus(folder.path(), "127.0.0.1:0", Faults::default()).await;
    let links = links(&bus, "vcan0");
    let (first, second) = tokio::join!(write(&links, 0, folder.path()), write(&links, 1, folder.path()));
    first.and(second).unwrap();
    for number in 0..2 {
        let ecu = id(number);
        let read = links.read_identification(&ecu, &IdentificationField::ALL).await.unwrap();
        let sw_part_no = read.get(IdentificationField::SwPartNo);
        assert_eq!(sw_part_no, Some("SW-1-with-a-name-longer-than-a-frame"));
        assert_eq!(fs::read(folder.path().join(format!("{ecu}/bank1.bin"))).unwrap(), content());
        links.activate(&ecu).await.unwrap();
        let running = links.reset_and_wait(&ecu).await.unwrap();
        assert_eq!((running.version.as_str(), running.trial), ("2.0", Trial::OnTrial));
        links.confirm(&ecu).await.unwrap();
        links.roll_back(&ecu).await.unwrap();
        assert_eq!(links.reset_and_wait(&ecu).await.unwrap().version, "1.0");
        assert_eq!(links.mac_address(&ecu).await, None);
    }
}

#[tokio::test]
async fn what_passes_by_itself_is_got_past_on_can_too() {
    for faults in [
        Faults { loses_answer_to_block: Some(3), ..Faults::default() },
        Faults { loses_power_at_block: Some(3), ..Faults::default() },
        Faults { busy_answers: 2, ..Faults::default() },
    ] {
        let folder = tempfile::tempdir().unwrap();
        let bus = bus(folder.path(), "127.0.0.1:0", faults.clone()).await;
        let links = links(&bus, "vcan0");
        write(&links, 0, folder.path()).await.unwrap_or_else(|error| panic!("{faults:?}: {error}"));
        assert_eq!(fs::read(folder.path().join("ecu_000/bank1.bin")).unwrap(), content());
    }
}

#[tokio::test]
async fn a_silent_ecu_on_the_bus_costs_the_other_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bus = bus(folder.path(), "127.0.0.1:0", Faults { silent: true, ..Faults::default() }).await;
    let links = links(&bus, "vcan0");
    let (first, second) = (id(0), id(1));
    let (silent, good) = tokio::join!(links.running(&first), links.running(&second));
    assert!(matches!(silent, Err(EcuError::Conversation(Failure::Silent { .. }))), "{silent:?}");
    assert_eq!(good.unwrap().version, "1.0");
}

#[tokio::test]
async fn a_bus_that_was_lost_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let first = bus(folder.path(), "127.0.0.1:0", Faults::default()).await;
    let links = links(&first, "vcan0");
    links.running(&id(0)).await.unwrap();
    let address = first.address().to_string();
    first.stop().await;
    let gone = links.running(&id(0)).await.unwrap_err();
    assert!(matches!(gone, EcuError::Connect { source: ConnectError::Tcp { .. }, .. }), "{gone:?}");
    let _second = bus(folder.path(), &address, Faults::default()).await;
    links.running(&id(0)).await.unwrap();
}

#[tokio::test]
async fn a_server_without_the_interface_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let bus = bus(folder.path(), "127.0.0.1:0", Faults::default()).await;
    let error = links(&bus, "vcan7").running(&id(0)).await.unwrap_err();
    let EcuError::Connect { source: source @ ConnectError::Socketcand { .. }, .. } = error else {
        panic!("{error:?}")
    };
    assert!(source.to_string().contains("vcan7"), "{source}");
}

#[tokio::test]
async fn two_ecus_cannot_share_an_identifier() {
    let folder = tempfile::tempdir().unwrap();
    let config = CanBusConfig { interface: "vcan0".into(), listen: "127.0.0.1:0".parse().unwrap() };
    let mut ecus = vec![ecu(0, Faults::default()), ecu(1, Faults::default())];
    ecus[1].request_id = ecus[0].response_id;
    let error = CanBus::start(config, ecus, folder.path()).await.unwrap_err();
    assert!(error.to_string().contains("0x709"), "{error}");
}
