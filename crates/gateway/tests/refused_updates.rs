//! What must not reach an ECU does not: the banks are looked at, not the gateway asked. And a gateway whose
//! journal is damaged says so and takes on nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests: a panic is how they say what is wrong"
)]

#[path = "conversation/scripted_server.rs"]
#[allow(dead_code, reason = "the tests of conversations use more of it")]
mod scripted_server;
#[path = "interruption/vehicle.rs"]
mod vehicle;

use std::path::Path;

use farrier_gateway::{Gateway, GatewayConfig};
use farrier_protocol::{
    CancelUpdate, ErrorCode, ErrorResponse, Operation, RequestDownloadReadiness, RequestVci, ServerBody,
    StartDownload, StartRollback, VciField, VehicleBody,
};
use farrier_simulator::ecu::EcuTiming;
use scripted_server::{ScriptedServer, later};
use vehicle::{AtRest, ECUS, Vehicle, ecu_id};

async fn vehicle(server: &ScriptedServer, folder: &Path) -> (Vehicle, GatewayConfig) {
    let timing = EcuTiming { erase_ms: 2, reboot_ms: 5, ..EcuTiming::default() };
    let vehicle = Vehicle::power_up(folder, timing).await;
    let addresses: Vec<_> = vehicle.entities.iter().map(|entity| entity.tcp_address()).collect();
    let settings = vehicle.write_gateway(server, addresses.try_into().unwrap());
    let config = GatewayConfig::read(&settings).unwrap();
    (vehicle, config)
}

fn error(body: VehicleBody) -> ErrorResponse {
    let VehicleBody::ErrorResponse(error) = body else { panic!("{body:?}") };
    error
}

/// Bytes in the bank that does not run, over all ECUs.
fn written_bytes(folder: &Path) -> u64 {
    let length = |number| {
        let bank = folder.join("ecus").join(ecu_id(number)).join("bank1.bin");
        bank.metadata().map_or(0, |metadata| metadata.len())
    };
    (1..=ECUS).map(length).sum()
}

/// The failure of an update that must not write anything.
async fn fails_unwritten(spoil: impl FnOnce(&ScriptedServer, &mut StartDownload)) -> ErrorResponse {
    let folder = tempfile::tempdir().unwrap();
    let server = ScriptedServer::start().await;
    let (_vehicle, config) = vehicle(&server, folder.path()).await;
    let gateway = Gateway::start(config).await.unwrap();
    let mut start = server.offer(ECUS, vehicle::NEW);
    spoil(&server, &mut start);
    let failed = error(server.ask(ServerBody::StartDownload(start)).await);
    assert_eq!(failed.code, ErrorCode::UpdateFailed);
    gateway.stop().await.unwrap();
    assert_eq!(written_bytes(folder.path()), 0, "{failed:?}");
    assert_eq!(Vehicle::at_rest(folder.path(), 1..=ECUS), Ok(AtRest::AllEarlier));
    failed
}

#[tokio::test(flavor = "multi_thread")]
async fn no_image_byte_is_written_where_one_ecu_has_other_hardware() {
    let failed = fails_unwritten(|_, start| start.packages[2].hw_part_no = "HW-2".parse().unwrap()).await;
    assert_eq!(failed.failed_ecus, Some(vec![ecu_id(3).parse().unwrap()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_image_byte_is_written_where_an_image_is_not_what_was_promised() {
    fails_unwritten(|server, _| server.spoil_images()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_image_byte_is_written_where_an_image_is_not_signed_by_the_release_key() {
    fails_unwritten(|server, _| server.spoil_signatures()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_a_damaged_journal_asks_for_service_until_a_workshop_clears_the_fault() {
    let folder = tempfile::tempdir().unwrap();
    let server = ScriptedServer::start().await;
    let (_vehicle, config) = vehicle(&server, folder.path()).await;
    let gateway = Gateway::start(config.clone()).await.unwrap();
    let first = server.offer(ECUS, vehicle::NEW);
    let command = server.send(ServerBody::StartDownload(first.clone()));
    server.result(&command, Operation::Commit).await;
    gateway.stop().await.unwrap();
    std::fs::remove_file(config.state_dir.join("journal.sqlite3")).unwrap();

    let gateway = Gateway::start(config.clone()).await.unwrap();
    assert!(gateway.status().borrow().journal_fault.is_some());
    let start = server.offer(ECUS, "3.0");
    let refused = error(server.ask(ServerBody::StartDownload(start.clone())).await);
    assert_eq!(refused.code, ErrorCode::ServiceRequired);
    assert!(refused.detail.as_str().contains("journal"), "{refused:?}");
    let update_id = first.update_id.clone();
    let rollback =
        StartRollback { correlation_id: None, update_id, expires_at_ms: later(), deadline_s: None };
    let refused = error(server.ask(ServerBody::StartRollback(rollback)).await);
    assert_eq!(refused.code, ErrorCode::ServiceRequired);
    let readiness = RequestDownloadReadiness {
        correlation_id: None,
        region_filter: None,
        packages: scripted_server::offered(&start),
        transfer: scripted_server::transfer(&start),
        readiness_requirements: Vec::new(),
        deadline_s: None,
        expires_at_ms: Some(later()),
    };
    let refused = error(server.ask(ServerBody::RequestDownloadReadiness(readiness)).await);
    assert_eq!((refused.code, refused.retry_after_s), (ErrorCode::Busy, Some(7_200)));
    let cancel = CancelUpdate {
        correlation_id: None,
        update_id: start.update_id.clone(),
        reason: "withdrawn".parse().unwrap(),
        expires_at_ms: None,
        deadline_s: None,
    };
    let refused = error(server.ask(ServerBody::CancelUpdate(cancel)).await);
    assert_eq!(refused.code, ErrorCode::CancelRefused);
    let request = RequestVci {
        correlation_id: None,
        fields: vec![VciField::SwVersion],
        deadline_s: Some(30),
        expires_at_ms: None,
        reason: None,
    };
    let told = server.ask(ServerBody::RequestVci(request)).await;
    assert!(matches!(told, VehicleBody::SendVci(_)), "what the vehicle runs is still told: {told:?}");
    gateway.stop().await.unwrap();

    std::fs::remove_file(config.state_dir.join("journal.fault")).unwrap();
    let gateway = Gateway::start(config).await.unwrap();
    let command = server.send(ServerBody::StartDownload(server.offer(ECUS, "3.0")));
    server.result(&command, Operation::Commit).await;
    gateway.stop().await.unwrap();
    let boots: Vec<u64> = server
        .bodies()
        .iter()
        .filter_map(|body| match body {
            VehicleBody::WakeUp(wake_up) => Some(wake_up.boot_seq),
            VehicleBody::SendVci(_)
            | VehicleBody::ReadinessReport(_)
            | VehicleBody::UpdateSuccessResult(_)
            | VehicleBody::ErrorResponse(_) => None,
        })
        .collect();
    assert_eq!(boots, [1, 2, 3], "the boot counter goes on");
}
