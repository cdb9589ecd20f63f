//! A dissector made by others (Wireshark's tshark) reads recorded sessions of the gateway's own links with
//! simulated controllers, plain and over TLS, and with an ECU on CAN: every byte has to be well-formed DoIP, ISO-TP
//! and UDS, and what it says what was done.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use farrier_diagnostics::uds::NegativeResponseCode;
use farrier_diagnostics::{Call, Failure, IdentificationField, WriteJob};
use farrier_gateway::ecu_link::{ConnectError, EcuError, EcuLinks, Image};
use farrier_gateway::topology::Topology;
use farrier_protocol::EcuId;
use farrier_simulator::can_bus::{CanBus, CanBusConfig, CanEcuConfig};
use farrier_simulator::doip_entity::{AnnounceTo, DoipEntity, EntityConfig, EntityTls};
use farrier_simulator::ecu::{EcuConfig, EcuTiming, Faults};
use farrier_system_tests::can_recording::CanRecording;
use farrier_system_tests::controller_certificates;
use farrier_system_tests::recording::{Dissection, Recording};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// The longest that any answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

const IMAGE_LENGTH: usize = 20_000;
const BLOCK_PAYLOAD: usize = 4_096;

fn ecu(ecu_id: &str, logical_address: u16, faults: Faults) -> EcuConfig {
    EcuConfig {
        ecu_id: ecu_id.into(),
        logical_address,
        supplier_code: "1234".into(),
        hw_part_no: "HW-1".into(),
        sw_part_no: "SW-1".into(),
        sw_version: "1.0".into(),
        bootloader_ver: "BL-1".into(),
        calibration_id: "CAL-1".into(),
        timing: EcuTiming {
            // Longer than P2, so that the erase says "response pending".
            erase_ms: 60,
            reboot_ms: 10,
            max_block_length: BLOCK_PAYLOAD as u16 + 2,
            ..EcuTiming::default()
        },
        faults,
    }
}

fn entity_config(name: &str, announce_to: Option<AnnounceTo>) -> EntityConfig {
    EntityConfig {
        name: name.into(),
        logical_address: 0x1000,
        listen: "127.0.0.1:0".parse().unwrap(),
        vin: "WFARRIER000000001".into(),
        entity_id: [2, 0, 0, 0, 0, 9],
        announce_to,
        max_connections: 4,
        initial_inactivity_ms: 2_000,
        general_inactivity_ms: 300_000,
    }
}

/// The gateway's links to a controller at this address, with these keys beside it.
fn links(folder: &Path, address: SocketAddr, keys: &str) -> EcuLinks {
    let mut text = format!(
        r#"
        security_algorithm = "insecure-xor-a5-for-simulators-only"
        [tester]
        # Nothing is asked twice because the machine is busy.
        network_allowance_ms = 30000
        reboot_wait_ms = 200
        [[controller]]
        name = "front"
        address = "{address}"
        {keys}
        logical_address = 0x1000
        "#
    );
    for (ecu_id, logical_address) in [("good", 0x1010), ("faulty", 0x1011), ("absent", 0x1012)] {
        text += &format!(
            "[[ecu]]\necu_id = \"{ecu_id}\"\ncontroller = \"front\"\nlogical_address = {logical_address}\n\
             functional_group = {{ zone = \"front\" }}\n"
        );
    }
    let path = folder.join("topology.toml");
    std::fs::write(&path, text).unwrap();
    EcuLinks::new(Topology::load(&path).unwrap())
}

fn ecus() -> Vec<EcuConfig> {
    let fails = Faults { fails_write_at_byte: Some(10_000), ..Faults::default() };
    vec![ecu("good", 0x1010, Faults::default()), ecu("faulty", 0x1011, fails)]
}

/// What is written, beside the file that holds it.
fn image(folder: &Path) -> (PathBuf, WriteJob) {
    let content: Vec<u8> = (0..IMAGE_LENGTH).map(|position| (position * 31 % 251) as u8).collect();
    let path = folder.join("image");
    std::fs::write(&path, &content).unwrap();
    let job = WriteJob {
        size: content.len() as u64,
        sha256: digest(&SHA256, &content).as_ref().try_into().unwrap(),
        version: "2.0".into(),
        hw_part_no: "HW-1".into(),
    };
    (path, job)
}

/// The whole life of one update of an ECU: written, activated, confirmed, rolled back.
async fn update_and_roll_back(links: &EcuLinks, ecu_id: &EcuId, image: Image<'_>) {
    links.read_identification(ecu_id, &IdentificationField::ALL).await.unwrap();
    links.write_inactive_bank(ecu_id, image, |_| {}).await.unwrap();
    links.activate(ecu_id).await.unwrap();
    assert_eq!(links.reset_and_wait(ecu_id).await.unwrap().version, "2.0");
    links.confirm(ecu_id).await.unwrap();
    links.roll_back(ecu_id).await.unwrap();
    assert_eq!(links.reset_and_wait(ecu_id).await.unwrap().version, "1.0");
}

/// What is done while the recording runs.
async fn session(folder: &Path, links: &EcuLinks, second: &EcuLinks) {
    let (good, faulty, absent) =
        ("good".parse().unwrap(), "faulty".parse().unwrap(), "absent".parse().unwrap());
    let (path, job) = image(folder);
    update_and_roll_back(links, &good, Image { path: &path, job: job.clone() }).await;

    let refused = links.write_inactive_bank(&faulty, Image { path: &path, job }, |_| {}).await.unwrap_err();
    let Failure::Refused { call, code } = conversation(refused) else { panic!("expected a refusal") };
    assert_eq!((call, code), (Call::TransferBlocks, NegativeResponseCode::GeneralProgrammingFailure));
    assert!(matches!(links.running(&absent).await, Err(EcuError::NotRouted { .. })));

    // Links that say they are the same tester make the controller ask the first whether they are alive.
    assert!(matches!(
        second.running(&good).await,
        Err(EcuError::Connect { source: ConnectError::Denied { .. }, .. })
    ));
}

fn conversation(error: EcuError) -> Failure {
    let EcuError::Conversation(failure) = error else { panic!("{error}") };
    failure
}

/// A DoIP request by UDP.
fn datagram(payload_type: u8, payload: &[u8]) -> Vec<u8> {
    [&[2, 0xFD, 0, payload_type, 0, 0, 0, payload.len() as u8], payload].concat()
}

fn counted<T: Ord>(values: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn tshark_finds_nothing_malformed_in_a_session_of_the_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session.pcap");
    let tester = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let announcements = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let entity = DoipEntity::start(entity_config("front", None), ecus(), folder.path()).await.unwrap();
    let announce_to = announcements.local_addr().unwrap();
    let ports = [entity.tcp_address().port(), entity.udp_address().port(), announce_to.port()];

    let recording = Recording::start(&file, &ports).await;
    let [first, second] = [(); 2].map(|()| links(folder.path(), entity.tcp_address(), ""));
    session(folder.path(), &first, &second).await;
    let mut answer = [0; 64];
    let asked = [(1, &b""[..]), (2, &[2, 0, 0, 0, 0, 9]), (3, b"WFARRIER000000001")];
    for (payload_type, payload) in asked {
        tester.send_to(&datagram(payload_type, payload), entity.udp_address()).await.unwrap();
        timeout(PATIENCE, tester.recv(&mut answer)).await.expect("the vehicle to answer").unwrap();
    }
    // Another one, which starts now: its announcements are recorded from the first.
    let announcing = entity_config("rear", Some(AnnounceTo { address: announce_to, every_ms: 10 }));
    let _announcing = DoipEntity::start(announcing, Vec::new(), folder.path()).await.unwrap();
    for _ in 0..3 {
        timeout(PATIENCE, announcements.recv(&mut answer)).await.expect("an announcement").unwrap();
    }
    recording.stop().await;

    let dissection = Dissection::doip(&file, &ports);
    dissection.assert_well_formed().await;
    // Every byte that went over TCP belongs to a DoIP message: eight bytes of header and its payload.
    let carried: u64 = dissection.values("tcp && !tcp.analysis.retransmission", "tcp.len").await.iter().sum();
    let lengths = dissection.values("tcp && doip", "doip.length").await;
    assert_eq!(carried, lengths.iter().map(|length| length + 8).sum::<u64>());
    assert!(carried > 2 * IMAGE_LENGTH as u64 - 10_000);
    let types = assert_session(&dissection).await;
    let number = |payload_type: u64| types.get(&payload_type).copied().unwrap_or_default();
    assert_eq!((number(0x0001), number(0x0002), number(0x0003)), (1, 1, 1), "by UDP: {types:02X?}");
    assert_eq!(number(0x0004), 3 + 3, "answers and announcements: {types:02X?}");
}

#[tokio::test]
async fn tshark_finds_nothing_malformed_in_a_session_over_tls_once_it_has_the_keys() {
    let folder = tempfile::tempdir().unwrap();
    let (file, key_log) = (folder.path().join("session.pcap"), folder.path().join("keys.log"));
    controller_certificates::write(folder.path());
    let tls = EntityTls {
        listen: "127.0.0.1:0".parse().unwrap(),
        certificate: folder.path().join("entity.pem"),
        private_key: folder.path().join("entity.key"),
        tester_ca: Some(folder.path().join("ca.pem")),
        key_log: Some(key_log.clone()),
    };
    let config = entity_config("front", None);
    let entity = DoipEntity::start_secured(config, &tls, ecus(), folder.path()).await.unwrap();
    let address = entity.tls_address().unwrap();

    let recording = Recording::start(&file, &[address.port()]).await;
    let keys = r#"tls = { ca = "ca.pem", certificate = "tester.pem", private_key = "tester.key" }"#;
    let [first, second] = [(); 2].map(|()| links(folder.path(), address, keys));
    session(folder.path(), &first, &second).await;
    recording.stop().await;

    let dissection = Dissection::doip(&file, &[]).and_tls(address.port(), &key_log);
    dissection.assert_well_formed().await;
    assert_session(&dissection).await;
    let without_keys = Dissection::doip(&file, &[]).and_tls(address.port(), Path::new("/dev/null"));
    assert_eq!(without_keys.values("doip", "doip.type").await, [0; 0], "all of it is encrypted");
}

#[tokio::test]
async fn tshark_finds_nothing_malformed_in_a_session_with_an_ecu_on_can() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session.pcap");
    let on_can =
        CanEcuConfig { request_id: 0x701, response_id: 0x709, ecu: ecu("on_can", 0, Faults::default()) };
    let config = CanBusConfig { interface: "vcan0".into(), listen: "127.0.0.1:0".parse().unwrap() };
    let bus = CanBus::start(config, vec![on_can], folder.path()).await.unwrap();
    let topology = format!(
        r#"
        security_algorithm = "insecure-xor-a5-for-simulators-only"
        [tester]
        network_allowance_ms = 30000
        reboot_wait_ms = 200
        [[controller]]
        name = "body"
        can = {{ interface = "vcan0", socketcand = "{}" }}
        [[ecu]]
        ecu_id = "on_can"
        controller = "body"
        can = {{ request_id = 0x701, response_id = 0x709 }}
        functional_group = {{ domain = "body" }}
        "#,
        bus.address()
    );
    let recording = CanRecording::start(&file, bus.address(), "vcan0").await;
    let links = EcuLinks::new(Topology::from_toml(&topology).unwrap());
    let (path, job) = image(folder.path());
    update_and_roll_back(&links, &"on_can".parse().unwrap(), Image { path: &path, job }).await;
    let frames = recording.stop().await;

    let dissection = Dissection::can(&file, &[0x701, 0x709]);
    dissection.assert_well_formed().await;
    let types = dissection.values("iso15765", "iso15765.message_type").await;
    assert_eq!(types.len(), frames, "a frame was not decoded as ISO-TP");
    // Single, first and consecutive frames, and flow control.
    assert_eq!(counted(types).into_keys().collect::<Vec<_>>(), [0, 1, 2, 3]);
    let blocks =
        dissection.values("uds.sid == 0x36 && uds.reply == 0", "uds.td.block_sequence_counter").await;
    // Messages of ISO-TP have 4,095 bytes at most.
    assert_eq!(blocks, [1, 2, 3, 4, 5]);
    let refusals = counted(dissection.values("uds.reply == 1", "uds.err.code").await);
    assert_eq!(refusals.into_keys().collect::<Vec<_>>(), [0x78]);
}

/// What the session of both transports must look like; how often each type of message was there.
async fn assert_session(dissection: &Dissection) -> BTreeMap<u64, usize> {
    let types = counted(dissection.values("doip", "doip.type").await);
    let number = |payload_type: u64| types.get(&payload_type).copied().unwrap_or_default();
    // The second links try it once and three times again.
    assert_eq!((number(0x0005), number(0x0006)), (1 + 4, 1 + 4), "routing activations: {types:02X?}");
    assert_eq!((number(0x0007), number(0x0008)), (4, 4), "alive checks: {types:02X?}");
    assert_eq!(number(0x8003), 1, "messages for an unknown target: {types:02X?}");
    let known = [0x0001, 0x0002, 0x0003, 0x0004, 0x0005, 0x0006, 0x0007, 0x0008, 0x8001, 0x8002, 0x8003];
    assert!(types.keys().all(|payload_type| known.contains(payload_type)), "{types:02X?}");

    let to_ecus = "doip.type == 0x8001 && uds.reply == 0";
    let from_ecus = "doip.type == 0x8001 && uds.reply == 1";
    let requests = dissection.values(to_ecus, "uds.sid").await;
    let answers = dissection.values(from_ecus, "uds.sid").await;
    assert_eq!(requests.len() + answers.len(), number(0x8001), "a diagnostic message was not decoded as UDS");
    assert_eq!(requests.len(), number(0x8002) + number(0x8003), "an acknowledgement for each request");
    assert_services(&requests);

    let refusals = counted(dissection.values(from_ecus, "uds.err.code").await);
    assert_eq!(refusals.get(&0x72), Some(&1), "{refusals:02X?}");
    assert!(refusals.get(&0x78).is_some_and(|pending| *pending >= 2), "{refusals:02X?}");
    assert_eq!(refusals.len(), 2, "{refusals:02X?}");
    let pending_and_refused: usize = refusals.values().sum();
    assert_eq!(counted(answers).get(&0x3F), Some(&pending_and_refused), "7F without its highest bit but one");

    let blocks =
        dissection.values("uds.sid == 0x36 && uds.reply == 0", "uds.td.block_sequence_counter").await;
    assert_eq!(blocks, [1, 2, 3, 4, 5, 1, 2, 3]);
    types
}

/// The requests, service by service, follow from what the session does.
fn assert_services(requests: &[u64]) {
    let mut found = counted(requests.iter().copied());
    // How often it is sent depends on the time.
    found.remove(&0x3E);
    // After each of two restarts the ECU is asked for four records, and perhaps before it is back.
    let reads = found.remove(&0x22).unwrap_or_default();
    let fields = IdentificationField::ALL.len();
    assert!(reads > fields + 2 + 2 * 4, "reads: {reads}");
    let expected = BTreeMap::from([
        // Writes: two each; activate, confirm, roll back: one each; resets: one each of two.
        (0x10, 2 * 2 + 3 + 2),
        (0x11, 2),
        (0x27, 2 * 2 + 3 * 2),
        (0x28, 1),
        (0x85, 1),
        (0x2E, 2),
        // Preconditions and erase twice, both checks once, then activate, confirm, roll back.
        (0x31, 2 * 2 + 2 + 3),
        (0x34, 2),
        (0x36, 5 + 3),
        (0x37, 1),
    ]);
    assert_eq!(found, expected);
}
