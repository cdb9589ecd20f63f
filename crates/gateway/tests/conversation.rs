//! A real gateway with simulated ECUs, against the server's own endpoints with a scripted desk behind them:
//! each test says what the server sends, and sees what the gateway answers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests: a panic is how they say what is wrong"
)]

#[path = "conversation/car.rs"]
mod car;
#[path = "conversation/scripted_server.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod scripted_server;

use car::{Car, EcuFault};
use farrier_gateway::{Ending, Phase};
use farrier_protocol::{
    CancelUpdate, Condition, ErrorCode, ErrorResponse, Operation, RequestDownloadReadiness, RequestVci,
    SendVci, ServerBody, StartRollback, UpdateSuccessResult, VciField, VehicleBody, WakeUp, vci_digest,
};
use scripted_server::{ScriptedServer, later, now};

const VCI_FIELDS: [VciField; 9] = [
    VciField::EcuId,
    VciField::SupplierCode,
    VciField::HwPartNo,
    VciField::SwPartNo,
    VciField::SwVersion,
    VciField::BootloaderVer,
    VciField::CalibrationId,
    VciField::IpAddress,
    VciField::PowerBattery12V,
];

fn request_vci() -> ServerBody {
    ServerBody::RequestVci(RequestVci {
        correlation_id: None,
        fields: VCI_FIELDS.to_vec(),
        deadline_s: Some(30),
        expires_at_ms: None,
        reason: None,
    })
}

async fn vci(server: &ScriptedServer) -> SendVci {
    let answer = server.ask(request_vci()).await;
    let VehicleBody::SendVci(vci) = answer else { panic!("{answer:?}") };
    vci
}

async fn versions(server: &ScriptedServer) -> Vec<String> {
    let vci = vci(server).await;
    vci.ecu_inventory.into_iter().map(|entry| entry.sw_version.unwrap().to_string()).collect()
}

fn error(body: VehicleBody) -> ErrorResponse {
    let VehicleBody::ErrorResponse(error) = body else { panic!("{body:?}") };
    error
}

async fn wake_up(server: &ScriptedServer, nth: usize) -> WakeUp {
    let bodies = server.wait_for("WakeUp", nth, |body| matches!(body, VehicleBody::WakeUp(_))).await;
    let Some(VehicleBody::WakeUp(wake_up)) = bodies.into_iter().nth(nth - 1) else { panic!("no WakeUp") };
    wake_up
}

fn operations(server: &ScriptedServer) -> Vec<Operation> {
    let operation = |body: VehicleBody| match body {
        VehicleBody::UpdateSuccessResult(UpdateSuccessResult { operation, .. }) => Some(operation),
        VehicleBody::WakeUp(_)
        | VehicleBody::SendVci(_)
        | VehicleBody::ReadinessReport(_)
        | VehicleBody::ErrorResponse(_) => None,
    };
    server.bodies().into_iter().filter_map(operation).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vehicle_says_what_it_is_is_updated_and_can_be_brought_back() {
    let server = ScriptedServer::start().await;
    let car = Car::new(&server, &[EcuFault::None; 4]).await;
    let gateway = car.start().await;

    let first = wake_up(&server, 1).await;
    assert_eq!((first.boot_seq, first.vci_digest), (1, None));
    let inventory = vci(&server).await;
    assert_eq!(inventory.ecu_inventory.len(), 4);
    assert_eq!(inventory.power.as_ref().unwrap().battery_12v_v, Some(12.6));
    assert!(inventory.ecu_inventory[0].mac_address.is_none(), "nobody asked for it");

    let start = server.offer(car.ecus, "2.0");
    let readiness = server
        .ask(ServerBody::RequestDownloadReadiness(RequestDownloadReadiness {
            correlation_id: None,
            region_filter: None,
            packages: scripted_server::offered(&start),
            transfer: scripted_server::transfer(&start),
            readiness_requirements: vec![Condition::Battery12V, Condition::Speed],
            deadline_s: None,
            expires_at_ms: Some(later()),
        }))
        .await;
    let VehicleBody::ReadinessReport(report) = readiness else { panic!("{readiness:?}") };
    assert!(report.ready, "{report:?}");

    let command = server.send(ServerBody::StartDownload(start.clone()));
    let commit = server.result(&command, Operation::Commit).await;
    assert_eq!((commit.ecu_count, commit.rebooted), (4, Some(true)));
    assert_eq!(operations(&server), [Operation::Download, Operation::Install, Operation::Commit]);
    assert_eq!(server.served_packages(), 2, "equal contents travel once");
    let updated = vci(&server).await;
    assert!(updated.ecu_inventory.iter().all(|entry| entry.sw_version.as_ref().unwrap().as_str() == "2.0"));
    assert_eq!(car.packages(), 0, "what is installed is deleted");

    gateway.stop().await.unwrap();
    let gateway = car.start().await;
    let second = wake_up(&server, 2).await;
    assert_eq!((second.boot_seq, second.vci_digest), (2, Some(vci_digest(&updated))));
    assert_ne!(first.boot_id, second.boot_id);

    let rollback = StartRollback {
        correlation_id: None,
        update_id: start.update_id.clone(),
        expires_at_ms: later(),
        deadline_s: None,
    };
    let undo = server.send(ServerBody::StartRollback(rollback.clone()));
    server.result(&undo, Operation::Rollback).await;
    assert_eq!(versions(&server).await, ["1.0"; 4]);
    let again = error(server.ask(ServerBody::StartRollback(rollback)).await);
    assert_eq!(again.code, ErrorCode::RollbackUnavailable);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_ecu_that_fails_leaves_every_ecu_as_it_was() {
    for fault in [EcuFault::FailsWrite, EcuFault::WrongChecksum, EcuFault::BootsOldBank] {
        let server = ScriptedServer::start().await;
        let car = Car::new(&server, &[EcuFault::None, EcuFault::None, fault, EcuFault::None]).await;
        let gateway = car.start().await;
        let failed = error(server.ask(ServerBody::StartDownload(server.offer(car.ecus, "2.0"))).await);
        assert_eq!(failed.code, ErrorCode::UpdateFailed, "{fault:?}");
        assert_eq!(failed.failed_ecus, Some(vec!["ecu_003".parse().unwrap()]), "{fault:?}");
        assert_eq!(versions(&server).await, ["1.0"; 4], "{fault:?}");
        let reported = operations(&server);
        assert!(!reported.contains(&Operation::Commit), "{fault:?}: {reported:?}");
        gateway.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stops_while_it_writes_brings_every_ecu_back_when_it_starts_again() {
    let server = ScriptedServer::start().await;
    let car = Car::new(&server, &[EcuFault::None, EcuFault::SlowWrite]).await;
    let gateway = car.start().await;
    let command = server.send(ServerBody::StartDownload(server.offer(car.ecus, "2.0")));
    let mut status = gateway.status();
    status.wait_for(|status| status.ecus.values().any(|ecu| ecu.written_bytes > 0)).await.unwrap();
    drop(status);
    gateway.stop().await.unwrap();

    let gateway = car.start().await;
    let failed = error(server.answer(&command).await);
    assert_eq!((failed.code, failed.failed_ecus), (ErrorCode::UpdateFailed, None));
    assert_eq!(versions(&server).await, ["1.0"; 2]);
    assert_eq!(operations(&server), [Operation::Download]);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_update_runs_others_are_told_to_wait_and_a_cancel_ends_it() {
    let server = ScriptedServer::start().await;
    let car = Car::new(&server, &[EcuFault::SlowWrite, EcuFault::None]).await;
    let gateway = car.start().await;
    let start = server.offer(car.ecus, "2.0");
    server.send(ServerBody::StartDownload(start.clone()));
    let mut status = gateway.status();
    status.wait_for(|status| status.phase == Some(Phase::Processing)).await.unwrap();

    let mut other = start.clone();
    other.update_id = "UPD_OTHER".parse().unwrap();
    for body in [ServerBody::StartDownload(other), request_vci()] {
        let busy = error(server.ask(body).await);
        assert_eq!((busy.code, busy.retry_after_s), (ErrorCode::Busy, Some(30)));
    }
    let cancel = |update_id: &str| {
        ServerBody::CancelUpdate(CancelUpdate {
            correlation_id: None,
            update_id: update_id.parse().unwrap(),
            reason: "withdrawn".parse().unwrap(),
            expires_at_ms: None,
            deadline_s: None,
        })
    };
    let cancelled = error(server.ask(cancel(start.update_id.as_str())).await);
    assert_eq!(cancelled.code, ErrorCode::Cancelled);
    status.wait_for(|status| status.ending == Some(Ending::Cancelled)).await.unwrap();
    assert_eq!(versions(&server).await, ["1.0"; 2]);
    assert_eq!(error(server.ask(cancel("UPD_UNKNOWN")).await).code, ErrorCode::Cancelled);
    drop(status);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_cannot_be_carried_out_are_answered_with_their_code() {
    let server = ScriptedServer::start().await;
    let car = Car::new(&server, &[EcuFault::None, EcuFault::Silent]).await;
    let gateway = car.start().await;

    let incomplete = error(server.ask(request_vci()).await);
    assert_eq!(incomplete.code, ErrorCode::VciIncomplete);
    assert_eq!(incomplete.failed_ecus, Some(vec!["ecu_002".parse().unwrap()]));

    let mut expired = server.offer(car.ecus, "2.0");
    expired.expires_at_ms = now();
    assert_eq!(error(server.ask(ServerBody::StartDownload(expired)).await).code, ErrorCode::Expired);

    let mut delta = server.offer(car.ecus, "2.0");
    delta.packages[1].delta_from = Some("1.0".parse().unwrap());
    let mismatch = error(server.ask(ServerBody::StartDownload(delta.clone())).await);
    assert_eq!(mismatch.code, ErrorCode::DeltaBaseMismatch);
    assert_eq!(mismatch.pkg_ids, Some(vec![delta.packages[1].pkg_id.clone()]));

    let unknown = server.send_raw(|msg_id| {
        format!(
            r#"{{"msg_id":"{msg_id}","proto_ver":"1.0","type":"OpenTheDoors","vehicle_id":"VEH_001","gateway_id":"CCU_001"}}"#
        )
    });
    assert_eq!(error(server.answer(&unknown).await).code, ErrorCode::Unsupported);

    car.set_signals("\"vehicle.speed_kmh\" = 30.0");
    let start = server.offer(car.ecus, "2.0");
    let request = RequestDownloadReadiness {
        correlation_id: None,
        region_filter: None,
        packages: scripted_server::offered(&start),
        transfer: scripted_server::transfer(&start),
        readiness_requirements: vec![Condition::Speed],
        deadline_s: None,
        expires_at_ms: Some(later()),
    };
    let report = server.ask(ServerBody::RequestDownloadReadiness(request.clone())).await;
    let VehicleBody::ReadinessReport(report) = report else { panic!("{report:?}") };
    assert_eq!((report.ready, report.retry_after_s), (false, Some(930)));
    car.set_signals("no signals");
    let unreadable = error(server.ask(ServerBody::RequestDownloadReadiness(request)).await);
    assert_eq!((unreadable.code, unreadable.retry_after_s), (ErrorCode::Busy, Some(60)));
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_not_acknowledged_comes_again_as_it_was() {
    let server = ScriptedServer::start().await;
    let car = Car::new(&server, &[EcuFault::None]).await;
    let gateway = car.start().await;
    wake_up(&server, 1).await;
    server.fail_next_answers(2);
    let command = server.send(request_vci());
    let VehicleBody::SendVci(_) = server.answer(&command).await else { panic!() };
    let tries = server.raw_answers(&command);
    assert_eq!(tries.len(), 3, "two that the server could not store, one that it could");
    assert!(tries.iter().all(|payload| payload == &tries[0]));
    assert!(server.bodies().iter().filter(|body| matches!(body, VehicleBody::WakeUp(_))).count() >= 3);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_after_the_gateway_was_restarted() {
    let server = ScriptedServer::start().await;
    let car = Car::new(&server, &[EcuFault::None; 2]).await;
    let gateway = car.start().await;
    server.hold_packages(true);
    let command = server.send(ServerBody::StartDownload(server.offer(car.ecus, "2.0")));
    server.package_was_asked_for().await;
    gateway.stop().await.unwrap();

    let gateway = car.start().await;
    server.hold_packages(false);
    server.result(&command, Operation::Commit).await;
    assert_eq!(operations(&server), [Operation::Download, Operation::Install, Operation::Commit]);
    assert_eq!(versions(&server).await, ["2.0"; 2]);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vehicle_that_starts_to_move_goes_on_downloading_and_waits_with_the_install() {
    let server = ScriptedServer::start().await;
    let car = Car::new(&server, &[EcuFault::None; 2]).await;
    car.set_signals("\"power.battery_12v_v\" = 12.6\n\"vehicle.speed_kmh\" = 30.0");
    let gateway = car.start().await;
    let command = server.send(ServerBody::StartDownload(server.offer(car.ecus, "2.0")));
    server.result(&command, Operation::Download).await;
    let mut status = gateway.status();
    let waits_for = |status: &farrier_gateway::Status| status.waits_for.clone();
    let waiting = status.wait_for(|status| status.waits_for.is_some()).await.map(|status| waits_for(&status));
    assert_eq!(waiting.unwrap().as_deref(), Some("the vehicle (VEHICLE_MOVING)"));
    assert_eq!(versions(&server).await, ["1.0"; 2], "the inventory can be told meanwhile");
    drop(status);
    gateway.stop().await.unwrap();

    // A restart goes on waiting.
    let gateway = car.start().await;
    let mut status = gateway.status();
    status.wait_for(|status| status.waits_for.is_some()).await.unwrap();
    drop(status);
    car.set_signals("\"vehicle.speed_kmh\" = 0.0");
    server.result(&command, Operation::Commit).await;
    assert_eq!(operations(&server), [Operation::Download, Operation::Install, Operation::Commit]);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_update_can_come_as_a_delta_of_what_is_installed() {
    let server = ScriptedServer::start().await;
    let car = Car::new(&server, &[EcuFault::None; 2]).await;
    let gateway = car.start().await;
    let first = server.offer(car.ecus, "2.0");
    let command = server.send(ServerBody::StartDownload(first.clone()));
    server.result(&command, Operation::Commit).await;
    let mut status = gateway.status();
    status.wait_for(|status| status.phase == Some(Phase::Ended)).await.unwrap();
    drop(status);

    let second = server.offer_deltas(&first, "2.0", "3.0");
    let command = server.send(ServerBody::StartDownload(second));
    server.result(&command, Operation::Commit).await;
    assert_eq!(versions(&server).await, ["3.0"; 2]);

    // What ran before is no base any more.
    let stale = server.offer_deltas(&first, "2.0", "4.0");
    let mismatch = error(server.ask(ServerBody::StartDownload(stale.clone())).await);
    assert_eq!(mismatch.code, ErrorCode::DeltaBaseMismatch);
    assert_eq!(mismatch.pkg_ids.map(|pkg_ids| pkg_ids.len()), Some(2));
    let readiness = RequestDownloadReadiness {
        correlation_id: None,
        region_filter: None,
        packages: scripted_server::offered(&stale),
        transfer: scripted_server::transfer(&stale),
        readiness_requirements: vec![Condition::Speed],
        deadline_s: None,
        expires_at_ms: Some(later()),
    };
    let mismatch = error(server.ask(ServerBody::RequestDownloadReadiness(readiness)).await);
    assert_eq!(mismatch.code, ErrorCode::DeltaBaseMismatch);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vehicle_is_asked_again_only_if_it_may_have_changed() {
    let server = ScriptedServer::start().await;
    let car = Car::new(&server, &[EcuFault::None]).await;
    let gateway = car.start().await;
    let told = vci(&server).await;
    gateway.stop().await.unwrap();
    let gateway = car.start().await;
    assert_eq!(wake_up(&server, 2).await.vci_digest, Some(vci_digest(&told)));

    let command = server.send(ServerBody::StartDownload(server.offer(car.ecus, "2.0")));
    server.result(&command, Operation::Commit).await;
    gateway.stop().await.unwrap();
    let gateway = car.start().await;
    assert_eq!(wake_up(&server, 3).await.vci_digest, None, "the server must ask");
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vehicle_that_was_changed_while_it_was_off_says_so() {
    let server = ScriptedServer::start().await;
    let car = Car::new(&server, &[EcuFault::None]).await;
    let gateway = car.start().await;
    vci(&server).await;
    gateway.stop().await.unwrap();
    car.change_topology("zone = \"front\"", "zone = \"rear\"");
    let gateway = car.start().await;
    let without_digest =
        |body: &VehicleBody| matches!(body, VehicleBody::WakeUp(wake_up) if wake_up.vci_digest.is_none());
    server.wait_for("a WakeUp without digest", 2, without_digest).await;
    vci(&server).await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_is_cancelled_while_its_deltas_are_compared_never_begins() {
    let server = ScriptedServer::start().await;
    let car = Car::new(&server, &[EcuFault::None]).await;
    let gateway = car.start().await;
    let first = server.offer(car.ecus, "2.0");
    let command = server.send(ServerBody::StartDownload(first.clone()));
    server.result(&command, Operation::Commit).await;
    gateway.stop().await.unwrap();

    // A controller that takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, silent_address) = (car.controller_address(), silent.local_addr().unwrap().to_string());
    car.change_topology(&address, &silent_address);
    let gateway = car.start().await;
    let second = server.offer_deltas(&first, "2.0", "3.0");
    server.send(ServerBody::StartDownload(second.clone()));
    let (_ecu_is_asked, _) = silent.accept().await.unwrap();
    let cancel = CancelUpdate {
        correlation_id: None,
        update_id: second.update_id.clone(),
        reason: "withdrawn".parse().unwrap(),
        expires_at_ms: None,
        deadline_s: None,
    };
    let cancelled = error(server.ask(ServerBody::CancelUpdate(cancel)).await);
    assert_eq!(cancelled.code, ErrorCode::Cancelled);
    gateway.stop().await.unwrap();

    car.change_topology(&silent_address, &address);
    let gateway = car.start().await;
    assert_eq!(versions(&server).await, ["2.0"]);
    assert_eq!(gateway.status().borrow().update_id.as_ref(), Some(&first.update_id));
    gateway.stop().await.unwrap();
}
