//! A dissector made by others (Wireshark's tshark) reads a recorded session of the gateway's own links with a
//! simulated controller: every byte of it has to be well-formed DoIP and UDS, and what it says what was done.
//!
//! Needs the Debian package `tshark` and the right to record on the loopback interface (root, or the group
//! `wireshark`); without them the test fails and says so. The ports are free ones: tshark is told their protocol.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use farrier_diagnostics::uds::NegativeResponseCode;
use farrier_diagnostics::{Call, Failure, IdentificationField, WriteJob};
use farrier_gateway::ecu_link::{ConnectError, EcuError, EcuLinks, Image};
use farrier_gateway::topology::Topology;
use farrier_simulator::doip_entity::{AnnounceTo, DoipEntity, EntityConfig};
use farrier_simulator::ecu::{EcuConfig, EcuTiming, Faults};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::UdpSocket;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

/// The longest that any step of the recording may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A VIN that no vehicle has: the last datagram of the recording.
const END_MARK: &[u8; 17] = b"END-OF-RECORDING.";

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

fn links(entity: &DoipEntity) -> EcuLinks {
    let address = entity.tcp_address();
    let text = format!(
        r#"
        security_algorithm = "insecure-xor-a5-for-simulators-only"
        [tester]
        # Nothing is asked twice because the machine is busy.
        network_allowance_ms = 30000
        reboot_wait_ms = 200
        [[controller]]
        name = "front"
        address = "{address}"
        logical_address = 0x1000
        [[ecu]]
        ecu_id = "good"
        controller = "front"
        logical_address = 0x1010
        functional_group = {{ zone = "front" }}
        [[ecu]]
        ecu_id = "faulty"
        controller = "front"
        logical_address = 0x1011
        functional_group = {{ zone = "front" }}
        [[ecu]]
        ecu_id = "absent"
        controller = "front"
        logical_address = 0x1012
        functional_group = {{ zone = "front" }}
        "#
    );
    EcuLinks::new(Topology::from_toml(&text).unwrap())
}

/// A recording of the loopback interface into a file.
struct Recording {
    dumpcap: Child,
    messages: Lines<BufReader<ChildStderr>>,
}

impl Recording {
    /// Begins; when this returns, everything on these ports is recorded.
    async fn start(file: &Path, filter: &str) -> Self {
        let mut dumpcap = Command::new("dumpcap")
            .args([
                "-i",
                "lo",
                "-P",
                "-B",
                "16",
                "-a",
                "duration:120",
                "-a",
                "filesize:20000",
                "-f",
                filter,
                "-w",
            ])
            .arg(file)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("expected dumpcap of the Debian package tshark: {error}"));
        let mut messages = BufReader::new(dumpcap.stderr.take().unwrap()).lines();
        let mut said = String::new();
        // The name of the file is said once the interface is open and the filter set.
        while let Some(line) =
            timeout(PATIENCE, messages.next_line()).await.expect("dumpcap to start").unwrap()
        {
            if line.starts_with("File:") {
                return Self { dumpcap, messages };
            }
            said += &line;
            said.push('\n');
        }
        panic!(
            "expected the right to record on the loopback interface (root, or group wireshark), dumpcap said:\n{said}"
        );
    }

    /// Ends once the file holds `mark`, and with it everything that was sent before.
    async fn stop(mut self, file: &Path, mark: &[u8]) {
        let recorded = async {
            while !std::fs::read(file).unwrap().windows(mark.len()).any(|part| part == mark) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, recorded).await.expect("dumpcap to record the last datagram");
        let id = self.dumpcap.id().unwrap().to_string();
        // An interrupt, not a kill: dumpcap closes the file and says what it lost.
        assert!(Command::new("sh").args(["-c", "kill -INT \"$0\"", &id]).status().await.unwrap().success());
        let mut summary = String::new();
        while let Some(line) = self.messages.next_line().await.unwrap() {
            summary += &line;
        }
        assert!(self.dumpcap.wait().await.unwrap().success(), "{summary}");
        assert!(summary.contains("(pcap:0/dumpcap:0/flushed:0"), "packets were lost: {summary}");
    }
}

/// What is done while the recording runs.
async fn session(entity: &DoipEntity, links: &EcuLinks, image: &Path, content: &[u8]) {
    let (good, faulty, absent) =
        ("good".parse().unwrap(), "faulty".parse().unwrap(), "absent".parse().unwrap());
    let job = WriteJob {
        size: content.len() as u64,
        sha256: digest(&SHA256, content).as_ref().try_into().unwrap(),
        version: "2.0".into(),
        hw_part_no: "HW-1".into(),
    };
    links.read_identification(&good, &IdentificationField::ALL).await.unwrap();
    links.write_inactive_bank(&good, Image { path: image, job: job.clone() }, |_| {}).await.unwrap();
    links.activate(&good).await.unwrap();
    assert_eq!(links.reset_and_wait(&good).await.unwrap().version, "2.0");
    links.confirm(&good).await.unwrap();
    links.roll_back(&good).await.unwrap();
    assert_eq!(links.reset_and_wait(&good).await.unwrap().version, "1.0");

    let refused = links.write_inactive_bank(&faulty, Image { path: image, job }, |_| {}).await.unwrap_err();
    let Failure::Refused { call, code } = conversation(refused) else { panic!("expected a refusal") };
    assert_eq!((call, code), (Call::TransferBlocks, NegativeResponseCode::GeneralProgrammingFailure));
    assert!(matches!(links.running(&absent).await, Err(EcuError::NotRouted { .. })));

    // Links that say they are the same tester make the controller ask the first whether they are alive.
    let second = self::links(entity);
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

async fn tshark(file: &Path, ports: [u16; 3], arguments: &[&str]) -> String {
    let [tcp, udp, announcements] = ports;
    let output = Command::new("tshark")
        .arg("-r")
        .arg(file)
        .args(["-d", &format!("tcp.port=={tcp},doip"), "-d", &format!("udp.port=={udp},doip")])
        .args(["-d", &format!("udp.port=={announcements},doip")])
        .args(arguments)
        .output()
        .await
        .unwrap_or_else(|error| panic!("expected tshark of the Debian package tshark: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// All values of a field, in the order of the recording.
async fn values(file: &Path, ports: [u16; 3], filter: &str, field: &str) -> Vec<u64> {
    let arguments = ["-Y", filter, "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,", "-e", field];
    let text = tshark(file, ports, &arguments).await;
    let number = |value: &str| match value.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None => value.parse().unwrap(),
    };
    text.split(['\n', ',']).filter(|value| !value.is_empty()).map(number).collect()
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
    let (image, file) = (folder.path().join("image"), folder.path().join("session.pcap"));
    let content: Vec<u8> = (0..IMAGE_LENGTH).map(|position| (position * 31 % 251) as u8).collect();
    std::fs::write(&image, &content).unwrap();
    let tester = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let announcements = UdpSocket::bind("127.0.0.1:0").await.unwrap();

    let fails = Faults { fails_write_at_byte: Some(10_000), ..Faults::default() };
    let ecus = vec![ecu("good", 0x1010, Faults::default()), ecu("faulty", 0x1011, fails)];
    let entity = DoipEntity::start(entity_config("front", None), ecus, folder.path()).await.unwrap();
    let announce_to = announcements.local_addr().unwrap();
    let ports = [entity.tcp_address().port(), entity.udp_address().port(), announce_to.port()];

    let filter = format!("tcp port {} or udp port {} or udp port {}", ports[0], ports[1], ports[2]);
    let recording = Recording::start(&file, &filter).await;
    let links = links(&entity);
    session(&entity, &links, &image, &content).await;
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
    tester.send_to(&datagram(3, END_MARK), entity.udp_address()).await.unwrap();
    recording.stop(&file, END_MARK).await;

    let bad = tshark(
        &file,
        ports,
        &["-Y", "_ws.malformed || (doip && _ws.expert.severity >= 0x600000)", "-T", "text", "-V"],
    )
    .await;
    assert_eq!(bad, "", "malformed frames, warnings or errors");

    // Every byte that went over TCP belongs to a DoIP message: eight bytes of header and its payload.
    let carried: u64 =
        values(&file, ports, "tcp && !tcp.analysis.retransmission", "tcp.len").await.iter().sum();
    let lengths = values(&file, ports, "tcp && doip", "doip.length").await;
    assert_eq!(carried, lengths.iter().map(|length| length + 8).sum::<u64>());
    assert!(carried > 2 * IMAGE_LENGTH as u64 - 10_000);

    let types = counted(values(&file, ports, "doip", "doip.type").await);
    let number = |payload_type: u64| types.get(&payload_type).copied().unwrap_or_default();
    // The second links try it once and three times again.
    assert_eq!((number(0x0005), number(0x0006)), (1 + 4, 1 + 4), "routing activations: {types:02X?}");
    assert_eq!((number(0x0007), number(0x0008)), (4, 4), "alive checks: {types:02X?}");
    assert_eq!(number(0x8003), 1, "messages for an unknown target: {types:02X?}");
    assert_eq!((number(0x0001), number(0x0002), number(0x0003)), (1, 1, 2), "by UDP: {types:02X?}");
    assert_eq!(number(0x0004), 3 + 3, "answers and announcements: {types:02X?}");
    let known = [0x0001, 0x0002, 0x0003, 0x0004, 0x0005, 0x0006, 0x0007, 0x0008, 0x8001, 0x8002, 0x8003];
    assert!(types.keys().all(|payload_type| known.contains(payload_type)), "{types:02X?}");

    let to_ecus = "doip.type == 0x8001 && uds.reply == 0";
    let from_ecus = "doip.type == 0x8001 && uds.reply == 1";
    let requests = values(&file, ports, to_ecus, "uds.sid").await;
    let answers = values(&file, ports, from_ecus, "uds.sid").await;
    assert_eq!(requests.len() + answers.len(), number(0x8001), "a diagnostic message was not decoded as UDS");
    assert_eq!(requests.len(), number(0x8002) + number(0x8003), "an acknowledgement for each request");
    assert_services(&requests);

    let refusals = counted(values(&file, ports, from_ecus, "uds.err.code").await);
    assert_eq!(refusals.get(&0x72), Some(&1), "{refusals:02X?}");
    assert!(refusals.get(&0x78).is_some_and(|pending| *pending >= 2), "{refusals:02X?}");
    assert_eq!(refusals.len(), 2, "{refusals:02X?}");
    let pending_and_refused: usize = refusals.values().sum();
    assert_eq!(counted(answers).get(&0x3F), Some(&pending_and_refused), "7F without its highest bit but one");

    let blocks =
        values(&file, ports, "uds.sid == 0x36 && uds.reply == 0", "uds.td.block_sequence_counter").await;
    assert_eq!(blocks, [1, 2, 3, 4, 5, 1, 2, 3]);
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
