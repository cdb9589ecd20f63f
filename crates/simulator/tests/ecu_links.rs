//! The gateway's links against simulated ECUs, over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use farrier_diagnostics::doip::{
    self, Frame, LogicalAddress, Message, OwnedPayload, RoutingActivationResponseCode,
};
use farrier_diagnostics::uds::NegativeResponseCode;
use farrier_diagnostics::{Call, Failure, IdentificationField, Routine, Trial, WriteJob};
use farrier_gateway::ecu_link::{ConnectError, EcuError, EcuLinks, Image};
use farrier_gateway::topology::Topology;
use farrier_protocol::EcuId;
use farrier_simulator::doip_entity::{AnnounceTo, DoipEntity, EntityConfig};
use farrier_simulator::ecu::{EcuConfig, EcuTiming, Faults};
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::codec::{Decoder, FramedRead};

const FIRST: u16 = 0x1010;

fn ecu_config(number: u16) -> EcuConfig {
    EcuConfig {
        ecu_id: format!("ecu_{number:03}"),
        logical_address: FIRST + number,
        supplier_code: "1234".into(),
        hw_part_no: "HW-1".into(),
        sw_part_no: "SW-1".into(),
        sw_version: "1.0".into(),
        bootloader_ver: "BL-1".into(),
        calibration_id: "CAL-1".into(),
        timing: EcuTiming { erase_ms: 10, reboot_ms: 50, ..EcuTiming::default() },
        faults: Faults::default(),
    }
}

fn entity_config(listen: &str) -> EntityConfig {
    EntityConfig {
        name: "front".into(),
        logical_address: 0x1000,
        listen: listen.parse().unwrap(),
        vin: "WFARRIER000000001".into(),
        entity_id: [2, 0, 0, 0, 0, 9],
        announce_to: None,
        max_connections: 4,
        initial_inactivity_ms: 2_000,
        general_inactivity_ms: 300_000,
    }
}

/// One controller with its ECUs and the gateway's links to them.
struct Car {
    entity: DoipEntity,
    links: EcuLinks,
    folder: tempfile::TempDir,
}

impl Car {
    async fn new(ecus: Vec<EcuConfig>) -> Self {
        Self::with_places(ecus, 8).await
    }

    /// A controller that has room for so many blocks at once.
    async fn with_places(ecus: Vec<EcuConfig>, places: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let count = ecus.len();
        let entity = DoipEntity::start(entity_config("127.0.0.1:0"), ecus, folder.path()).await.unwrap();
        let links = EcuLinks::new(topology(&entity, count, places));
        Self { entity, links, folder }
    }

    /// Cuts the power of the controller and its ECUs, and switches it on again at the same address.
    async fn power_cycle(self, ecus: Vec<EcuConfig>) -> Self {
        let address = self.entity.tcp_address().to_string();
        self.entity.stop().await;
        let entity = DoipEntity::start(entity_config(&address), ecus, self.folder.path()).await.unwrap();
        Self { entity, ..self }
    }

    fn image(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn bank(&self, number: u16, bank: u8) -> Vec<u8> {
        fs::read(self.folder.path().join(format!("ecu_{number:03}/bank{bank}.bin"))).unwrap()
    }
}

fn topology(entity: &DoipEntity, ecus: usize, places: usize) -> Topology {
    let mut text = format!(
        r#"
        security_algorithm = "insecure-xor-a5-for-simulators-only"
        [tester]
        network_allowance_ms = 1000
        conditions_wait_ms = 100
        security_delay_ms = 100
        reboot_wait_ms = 20
        reboot_timeout_ms = 3000
        [[controller]]
        name = "front"
        address = "{}"
        logical_address = 0x1000
        parallel_writes = {places}
        "#,
        entity.tcp_address(),
    );
    for number in 0..ecus {
        let address = FIRST + number as u16;
        text += &format!(
            "[[ecu]]\necu_id = \"ecu_{number:03}\"\ncontroller = \"front\"\nlogical_address = {address}\n\
             functional_group = {{ zone = \"front\", index = {number} }}\n"
        );
    }
    Topology::from_toml(&text).unwrap()
}

fn id(number: u16) -> EcuId {
    format!("ecu_{number:03}").parse().unwrap()
}

fn job(content: &[u8]) -> WriteJob {
    WriteJob {
        size: content.len() as u64,
        sha256: digest(&SHA256, content).as_ref().try_into().unwrap(),
        version: "2.0".into(),
        hw_part_no: "HW-1".into(),
    }
}

async fn write(links: &EcuLinks, number: u16, path: &Path, job: WriteJob) -> Result<(), EcuError> {
    links.write_inactive_bank(&id(number), Image { path, job }, |_| {}).await
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|position| (position * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn every_inventory_field_is_read() {
    let car = Car::new(vec![ecu_config(0), ecu_config(1)]).await;
    let read = car.links.read_identification(&id(1), &IdentificationField::ALL).await.unwrap();
    let values: Vec<_> = IdentificationField::ALL.iter().filter_map(|field| read.get(*field)).collect();
    assert_eq!(values, ["1234", "HW-1", "SW-1", "1.0", "BL-1", "CAL-1"]);
}

#[tokio::test]
async fn an_image_goes_the_whole_way_and_back() {
    let car = Car::new(vec![ecu_config(0)]).await;
    let content = content(500_000);
    let path = car.image("image", &content);
    let progress = Mutex::new(Vec::new());
    let image = Image { path: &path, job: job(&content) };
    car.links.write_inactive_bank(&id(0), image, |bytes| progress.lock().unwrap().push(bytes)).await.unwrap();
    assert_eq!(car.bank(0, 1), content);
    let progress = progress.into_inner().unwrap();
    assert!(progress.is_sorted() && progress.last() == Some(&500_000), "{progress:?}");
    assert_eq!(car.links.running(&id(0)).await.unwrap().version, "1.0");

    car.links.activate(&id(0)).await.unwrap();
    let running = car.links.reset_and_wait(&id(0)).await.unwrap();
    assert_eq!((running.version.as_str(), running.active_bank, running.trial), ("2.0", 1, Trial::OnTrial));
    car.links.confirm(&id(0)).await.unwrap();
    car.links.confirm(&id(0)).await.unwrap();
    let running = car.links.running(&id(0)).await.unwrap();
    assert_eq!((running.trial, running.other_bank_version.as_deref()), (Trial::Confirmed, Some("1.0")));

    car.links.roll_back(&id(0)).await.unwrap();
    let running = car.links.reset_and_wait(&id(0)).await.unwrap();
    assert_eq!((running.version.as_str(), running.active_bank, running.trial), ("1.0", 0, Trial::None));
    car.links.roll_back(&id(0)).await.unwrap();
    assert_eq!(car.links.reset_and_wait(&id(0)).await.unwrap(), running);
}

#[tokio::test]
async fn a_failing_write_leaves_the_running_software_alone() {
    let faults = Faults { fails_write_at_byte: Some(150_000), ..Faults::default() };
    let car = Car::new(vec![EcuConfig { faults, ..ecu_config(0) }]).await;
    let content = content(300_000);
    let path = car.image("image", &content);
    let error = write(&car.links, 0, &path, job(&content)).await.unwrap_err();
    assert!(
        matches!(
            error,
            EcuError::Conversation(Failure::Refused {
                call: Call::TransferBlocks,
                code: NegativeResponseCode::GeneralProgrammingFailure
            })
        ),
        "{error}"
    );
    let running = car.links.running(&id(0)).await.unwrap();
    assert_eq!((running.version.as_str(), running.other_bank_version), ("1.0", None));
    assert!(car.links.activate(&id(0)).await.is_err());
}

#[tokio::test]
async fn an_image_for_another_hardware_writes_nothing() {
    let car = Car::new(vec![ecu_config(0)]).await;
    let content = content(1000);
    let path = car.image("image", &content);
    let other = WriteJob { hw_part_no: "HW-2".into(), ..job(&content) };
    let error = write(&car.links, 0, &path, other).await.unwrap_err();
    assert!(matches!(error, EcuError::Conversation(Failure::HardwareMismatch { .. })), "{error}");
    assert!(!car.folder.path().join("ecu_000/bank1.bin").exists());
}

#[tokio::test]
async fn a_damaged_image_is_found_by_the_ecu() {
    let car = Car::new(vec![ecu_config(0)]).await;
    let path = car.image("image", &content(1000));
    let other = WriteJob { sha256: [0; 32], ..job(&content(1000)) };
    let error = write(&car.links, 0, &path, other).await.unwrap_err();
    let found =
        matches!(error, EcuError::Conversation(Failure::RoutineFailed { routine: Routine::CheckMemory, .. }));
    assert!(found, "{error}");
}

#[tokio::test]
async fn an_image_shorter_than_promised_is_an_error_that_names_the_file() {
    let car = Car::new(vec![ecu_config(0)]).await;
    let path = car.image("image", &content(1000));
    let error =
        write(&car.links, 0, &path, WriteJob { size: 2000, ..job(&content(1000)) }).await.unwrap_err();
    assert!(matches!(&error, EcuError::Image { path: named, .. } if *named == path), "{error}");
}

#[tokio::test]
async fn state_and_links_survive_a_power_cut() {
    let car = Car::new(vec![ecu_config(0)]).await;
    let content = content(10_000);
    let path = car.image("image", &content);
    write(&car.links, 0, &path, job(&content)).await.unwrap();
    car.links.activate(&id(0)).await.unwrap();
    let car = car.power_cycle(vec![ecu_config(0)]).await;
    let running = car.links.running(&id(0)).await.unwrap();
    assert_eq!((running.version.as_str(), running.trial), ("2.0", Trial::OnTrial));
}

#[tokio::test]
async fn a_write_whose_connection_breaks_starts_again_and_succeeds() {
    let slow = || EcuConfig {
        timing: EcuTiming { block_ms: 20, max_block_length: 1002, ..ecu_config(0).timing },
        ..ecu_config(0)
    };
    let car = Car::new(vec![slow()]).await;
    let content = content(20_000);
    let path = car.image("image", &content);
    let links = car.links.clone();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let writing = tokio::spawn(async move {
        let mut started = Some(started);
        let image = Image { path: &path, job: job(&self::content(20_000)) };
        let progress = |bytes| {
            if bytes > 2_000
                && let Some(started) = started.take()
            {
                started.send(()).unwrap();
            }
        };
        links.write_inactive_bank(&id(0), image, progress).await
    });
    has_started.await.unwrap();
    let car = car.power_cycle(vec![slow()]).await;
    writing.await.unwrap().unwrap();
    assert_eq!(car.bank(0, 1), content);
}

#[tokio::test]
async fn a_write_gets_past_everything_that_passes_by_itself() {
    for faults in [
        Faults { busy_answers: 3, ..Faults::default() },
        Faults { slow_ms: 100, ..Faults::default() },
        Faults { loses_answer_to_block: Some(3), ..Faults::default() },
        Faults { loses_power_at_block: Some(4), ..Faults::default() },
        // The erase.
        Faults { loses_power_instead_of_answer: Some(8), ..Faults::default() },
    ] {
        let timing = EcuTiming { max_block_length: 1002, ..ecu_config(0).timing };
        let car = Car::new(vec![EcuConfig { timing, ..ecu_config(0) }]).await;
        car.entity.ecu("ecu_000").unwrap().set_faults(faults.clone());
        let content = content(5_000);
        let path = car.image("image", &content);
        write(&car.links, 0, &path, job(&content))
            .await
            .unwrap_or_else(|error| panic!("{faults:?}: {error}"));
        assert_eq!(car.bank(0, 1), content, "{faults:?}");
        assert_eq!(car.links.running(&id(0)).await.unwrap().other_bank_version.as_deref(), Some("2.0"));
    }
}

#[tokio::test]
async fn one_ecu_without_power_does_not_touch_the_others() {
    let car = Car::new(vec![ecu_config(0), ecu_config(1)]).await;
    let dark = car.entity.ecu("ecu_000").unwrap();
    dark.cut_power().await;
    assert!(car.links.running(&id(1)).await.is_ok());
    assert!(matches!(car.links.running(&id(0)).await, Err(EcuError::Conversation(Failure::Silent { .. }))));
    dark.restore_power().await;
    assert!(car.links.running(&id(0)).await.is_ok());
}

#[tokio::test]
async fn a_dropped_write_leaves_the_link_usable() {
    let timing = EcuTiming { block_ms: 20, max_block_length: 1002, ..ecu_config(0).timing };
    let car = Car::new(vec![EcuConfig { timing, ..ecu_config(0) }]).await;
    let content = content(20_000);
    let path = car.image("image", &content);
    let dropped =
        tokio::time::timeout(Duration::from_millis(150), write(&car.links, 0, &path, job(&content)));
    assert!(dropped.await.is_err());
    write(&car.links, 0, &path, job(&content)).await.unwrap();
    assert_eq!(car.bank(0, 1), content);
}

#[tokio::test]
async fn a_slow_ecu_does_not_hold_up_its_neighbours() {
    let mut ecus: Vec<_> = (0..4).map(ecu_config).collect();
    ecus[0].timing.erase_ms = 2_000;
    let car = Car::new(ecus).await;
    let content = content(200_000);
    let path = car.image("image", &content);
    let start = Instant::now();
    let slow = async {
        write(&car.links, 0, &path, job(&content)).await.unwrap();
        start.elapsed()
    };
    let others = async {
        let (a, b, c) = tokio::join!(
            write(&car.links, 1, &path, job(&content)),
            write(&car.links, 2, &path, job(&content)),
            write(&car.links, 3, &path, job(&content)),
        );
        a.and(b).and(c).unwrap();
        start.elapsed()
    };
    let (slow, others) = tokio::join!(slow, others);
    assert!(others < slow, "{others:?} and {slow:?}");
    for number in 0..4 {
        assert_eq!(car.bank(number, 1), content);
    }
}

#[tokio::test]
async fn ecus_in_trouble_take_no_time_from_others_even_behind_the_smallest_controller() {
    let mut ecus: Vec<_> = (0..5).map(ecu_config).collect();
    ecus[0].faults.silent = true;
    ecus[1].timing.erase_ms = 3_000;
    ecus[2].faults.slow_ms = 500;
    let car = Car::with_places(ecus, 1).await;
    let content = content(200_000);
    let path = car.image("image", &content);
    let start = Instant::now();
    let timed = async |number| (write(&car.links, number, &path, job(&content)).await, start.elapsed());
    let (silent, erasing, slow, good, better) =
        tokio::join!(timed(0), timed(1), timed(2), timed(3), timed(4));
    assert!(matches!(silent.0, Err(EcuError::Conversation(Failure::Silent { .. }))), "{:?}", silent.0);
    for (result, elapsed) in [good, better] {
        result.unwrap();
        for trouble in [silent.1, erasing.1, slow.1] {
            assert!(elapsed < trouble, "{elapsed:?} and {trouble:?}");
        }
    }
    erasing.0.and(slow.0).unwrap();
    for number in 1..5 {
        assert_eq!(car.bank(number, 1), content);
    }
}

#[tokio::test]
async fn a_controller_gets_no_more_blocks_at_once_than_it_has_room_for() {
    let timing = EcuTiming { block_ms: 20, max_block_length: 1002, ..ecu_config(0).timing };
    let ecus = (0..3).map(|number| EcuConfig { timing: timing.clone(), ..ecu_config(number) }).collect();
    let car = Car::with_places(ecus, 1).await;
    let content = content(10_000);
    let path = car.image("image", &content);
    let start = Instant::now();
    let (a, b, c) = tokio::join!(
        write(&car.links, 0, &path, job(&content)),
        write(&car.links, 1, &path, job(&content)),
        write(&car.links, 2, &path, job(&content)),
    );
    a.and(b).and(c).unwrap();
    // Three times ten blocks, one after the other, each with its 20 ms.
    assert!(start.elapsed() >= Duration::from_millis(600), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_ecu_that_boots_its_old_bank_is_seen() {
    let faults = Faults { boots_into_old_bank: true, ..Faults::default() };
    let car = Car::new(vec![EcuConfig { faults, ..ecu_config(0) }]).await;
    let content = content(1000);
    let path = car.image("image", &content);
    write(&car.links, 0, &path, job(&content)).await.unwrap();
    car.links.activate(&id(0)).await.unwrap();
    let running = car.links.reset_and_wait(&id(0)).await.unwrap();
    assert_eq!((running.version.as_str(), running.trial), ("1.0", Trial::None));
}

#[tokio::test]
async fn a_silent_ecu_is_an_error_in_bounded_time() {
    let faults = Faults { silent: true, ..Faults::default() };
    let car = Car::new(vec![EcuConfig { faults, ..ecu_config(0) }, ecu_config(1)]).await;
    let error = car.links.running(&id(0)).await.unwrap_err();
    assert!(matches!(error, EcuError::Conversation(Failure::Silent { .. })), "{error}");
    assert!(car.links.running(&id(1)).await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_reached_is_named() {
    let car = Car::new(vec![ecu_config(0)]).await;
    let unknown = car.links.running(&id(7)).await.unwrap_err();
    assert!(matches!(unknown, EcuError::UnknownEcu { .. }), "{unknown}");

    let more = EcuLinks::new(topology(&car.entity, 2, 8));
    drop(car.links);
    let not_routed = more.running(&id(1)).await.unwrap_err();
    assert!(matches!(not_routed, EcuError::NotRouted { .. }), "{not_routed}");

    let address = car.entity.tcp_address();
    car.entity.stop().await;
    let gone = more.running(&id(0)).await.unwrap_err();
    assert!(
        matches!(&gone, EcuError::Connect { source: ConnectError::Tcp { address: named, .. }, .. } if *named == address),
        "{gone}"
    );
}

/// A tester that writes its own frames.
struct RawTester {
    frames: FramedRead<tokio::net::tcp::OwnedReadHalf, doip::MessageCodec>,
    writer: tokio::net::tcp::OwnedWriteHalf,
}

impl RawTester {
    async fn connect(entity: &DoipEntity) -> Self {
        let (reader, writer) = TcpStream::connect(entity.tcp_address()).await.unwrap().into_split();
        Self { frames: FramedRead::new(reader, doip::codec()), writer }
    }

    async fn send(&mut self, message: Message<'_>) {
        let mut frame = bytes::BytesMut::new();
        doip::append_frame(&mut frame, &message).unwrap();
        self.writer.write_all(&frame).await.unwrap();
    }

    /// The next message; nothing if the entity closed the connection.
    async fn next(&mut self) -> Option<OwnedPayload> {
        match self.frames.next().await? {
            Ok(Frame::Message(message)) => Some(message.payload),
            other => panic!("expected a message, found {other:?}"),
        }
    }

    async fn activate(&mut self, tester: u16) -> RoutingActivationResponseCode {
        let kind = doip::ActivationTypeCode::Default;
        let tester = LogicalAddress(tester);
        self.send(Message::routing_activation_request(doip::VERSION, tester, kind, None)).await;
        match self.next().await {
            Some(OwnedPayload::RoutingActivationResponse(response)) => {
                response.routing_activation_response_code
            }
            other => panic!("expected an answer to the activation, found {other:?}"),
        }
    }

    async fn diagnose(&mut self, tester: u16, target: u16, uds: &[u8]) {
        let (tester, target) = (LogicalAddress(tester), LogicalAddress(target));
        self.send(Message::diagnostic_message(doip::VERSION, tester, target, uds)).await;
    }
}

#[tokio::test]
async fn diagnostics_need_an_activated_connection() {
    let car = Car::new(vec![ecu_config(0)]).await;
    let mut tester = RawTester::connect(&car.entity).await;
    tester.diagnose(0x0E80, FIRST, &[0x3E, 0x00]).await;
    assert!(matches!(tester.next().await, Some(OwnedPayload::DiagnosticMessageNack(_))));
    assert_eq!(tester.next().await, None);

    let mut tester = RawTester::connect(&car.entity).await;
    assert_eq!(tester.activate(0x1234).await, RoutingActivationResponseCode::DeniedUnknownSourceAddress);
    assert_eq!(tester.next().await, None);
}

#[tokio::test]
async fn every_message_is_acknowledged_before_it_is_answered() {
    let car = Car::new(vec![ecu_config(0)]).await;
    let mut tester = RawTester::connect(&car.entity).await;
    assert_eq!(tester.activate(0x0E80).await, RoutingActivationResponseCode::RoutingSuccessfullyActivated);
    tester.diagnose(0x0E80, FIRST, &[0x3E, 0x00]).await;
    assert!(matches!(tester.next().await, Some(OwnedPayload::DiagnosticMessageAck(_))));
    assert!(
        matches!(tester.next().await, Some(OwnedPayload::DiagnosticMessage(m)) if m.user_data == [0x7E, 0x00])
    );
    // A suppressed answer: the next message is the acknowledgement of the request after it.
    tester.diagnose(0x0E80, FIRST, &[0x3E, 0x80]).await;
    assert!(matches!(tester.next().await, Some(OwnedPayload::DiagnosticMessageAck(_))));
    tester.diagnose(0x0E80, 0x4444, &[0x3E, 0x00]).await;
    assert!(matches!(
        tester.next().await,
        Some(OwnedPayload::DiagnosticMessageNack(nack)) if nack.nack_code == doip::DiagnosticNackCode::UnknownTargetAddress
    ));
}

#[tokio::test]
async fn a_second_tester_of_the_same_address_is_let_in_only_if_the_first_is_dead() {
    let car = Car::new(vec![ecu_config(0)]).await;
    let activated = RoutingActivationResponseCode::RoutingSuccessfullyActivated;
    let mut dead = RawTester::connect(&car.entity).await;
    assert_eq!(dead.activate(0x0E80).await, activated);

    // It never answers its alive check.
    let mut second = RawTester::connect(&car.entity).await;
    assert_eq!(second.activate(0x0E80).await, activated);

    // The gateway's link answers.
    drop((dead, second));
    car.links.running(&id(0)).await.unwrap();
    let mut third = RawTester::connect(&car.entity).await;
    assert_eq!(
        third.activate(0x0E80).await,
        RoutingActivationResponseCode::DeniedSourceAddressAlreadyRegistered
    );
    car.links.running(&id(0)).await.unwrap();
}

#[tokio::test]
async fn what_is_no_doip_is_refused_and_the_connection_closed() {
    let car = Car::new(vec![ecu_config(0)]).await;
    let mut tester = RawTester::connect(&car.entity).await;
    tester.writer.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(tester.next().await, Some(OwnedPayload::DoIPNack(doip::NackCode::IncorrectPatternFormat)));
    assert_eq!(tester.next().await, None);
}

#[tokio::test]
async fn a_connection_without_activation_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let config = EntityConfig { initial_inactivity_ms: 50, ..entity_config("127.0.0.1:0") };
    let entity = DoipEntity::start(config, vec![ecu_config(0)], folder.path()).await.unwrap();
    assert_eq!(RawTester::connect(&entity).await.next().await, None);
}

#[tokio::test]
async fn a_tester_too_many_is_let_go_and_the_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let config = EntityConfig { max_connections: 1, ..entity_config("127.0.0.1:0") };
    let entity = DoipEntity::start(config, vec![ecu_config(0)], folder.path()).await.unwrap();
    let mut first = RawTester::connect(&entity).await;
    assert_eq!(first.activate(0x0E80).await, RoutingActivationResponseCode::RoutingSuccessfullyActivated);
    assert_eq!(RawTester::connect(&entity).await.next().await, None);
    first.diagnose(0x0E80, FIRST, &[0x3E, 0x00]).await;
    assert!(matches!(first.next().await, Some(OwnedPayload::DiagnosticMessageAck(_))));
}

#[tokio::test]
async fn the_entity_announces_its_vehicle_three_times() {
    let folder = tempfile::tempdir().unwrap();
    let tester = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let announce_to = Some(AnnounceTo { address: tester.local_addr().unwrap(), every_ms: 10 });
    let config = EntityConfig { announce_to, ..entity_config("127.0.0.1:0") };
    let _entity = DoipEntity::start(config, vec![ecu_config(0)], folder.path()).await.unwrap();
    for _ in 0..3 {
        let mut datagram = [0; 100];
        let length = tester.recv(&mut datagram).await.unwrap();
        assert_eq!(datagram[..length][..8], [2, 0xFD, 0, 4, 0, 0, 0, 33]);
    }
}

#[tokio::test]
async fn the_vehicle_can_be_found_by_udp() {
    let car = Car::new(vec![ecu_config(0)]).await;
    let tester = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for (payload_type, asked) in [(1, &b""[..]), (2, &[2, 0, 0, 0, 0, 9]), (3, b"WFARRIER000000001")] {
        let mut request = vec![2, 0xFD, 0, payload_type, 0, 0, 0, asked.len() as u8];
        request.extend(asked);
        tester.send_to(&request, car.entity.udp_address()).await.unwrap();
        let mut datagram = [0; 100];
        let length = tester.recv(&mut datagram).await.unwrap();
        let frame = doip::codec().decode(&mut bytes::BytesMut::from(&datagram[..length])).unwrap();
        let Some(Frame::Message(message)) = frame else { panic!("expected a message, found {frame:?}") };
        let OwnedPayload::VehicleAnnouncement(found) = message.payload else { panic!("{message:?}") };
        assert_eq!((&found.vin, found.logical_address.0), (b"WFARRIER000000001", 0x1000));
    }
}

/// Links to a controller that is found by this EID.
fn links_by_eid(entity: &DoipEntity, eid: &str) -> EcuLinks {
    let (port, udp) = (entity.tcp_address().port(), entity.udp_address());
    let text = format!(
        r#"
        security_algorithm = "insecure-xor-a5-for-simulators-only"
        [[controller]]
        name = "front"
        eid = "{eid}"
        port = {port}
        discovery = "{udp}"
        logical_address = 0x1000
        [[ecu]]
        ecu_id = "ecu_000"
        controller = "front"
        logical_address = {FIRST}
        functional_group = {{ zone = "front" }}
        "#
    );
    EcuLinks::new(Topology::from_toml(&text).unwrap())
}

#[tokio::test]
async fn a_controller_without_an_address_is_found_by_its_eid_and_another_is_not_taken_for_it() {
    let car = Car::new(vec![ecu_config(0)]).await;
    let links = links_by_eid(&car.entity, "02:00:00:00:00:09");
    assert_eq!(links.running(&id(0)).await.unwrap().version, "1.0");
    let found = links.find_controllers().await;
    assert!(
        matches!(&found[..], [(name, Ok(address))] if name == "front" && *address == car.entity.tcp_address()),
        "{found:?}"
    );
    let other = links_by_eid(&car.entity, "02:00:00:00:00:0A").running(&id(0)).await.unwrap_err();
    assert!(
        matches!(&other, EcuError::Connect { source: ConnectError::NotFound { eid, .. }, .. } if eid.to_string() == "02:00:00:00:00:0A"),
        "{other:?}"
    );
}

#[tokio::test]
async fn two_ecus_of_one_address_are_a_mistake_in_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let started =
        DoipEntity::start(entity_config("127.0.0.1:0"), vec![ecu_config(0), ecu_config(0)], folder.path())
            .await;
    assert!(started.unwrap_err().to_string().contains("0x1010"));
}
