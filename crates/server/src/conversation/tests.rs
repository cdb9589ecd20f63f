use farrier_campaign::{Rollout, Settings, State};
use farrier_protocol::{MessageType, RefusalCode, ServerBody, UpTopic, VciReason};
use serde_json::json;

use crate::config::Enroll;
use crate::desk::{CampaignLimit, Download, FileAnswer, PackageDesk, Receipt};
use crate::store::{messages, vehicles};
use crate::testbed::{Car, START, World, text};

mod broker;
mod certificates;
mod control;
mod order;
mod outcomes;
mod refusals;
mod retries;
mod starting;

#[tokio::test]
async fn the_whole_conversation_ends_in_success_that_the_inventory_shows() {
    let mut world = World::new();
    world.campaign_for_all().await;
    let mut car = Car::new("V1");
    car.wake_up(&world).await;
    assert_eq!(car.state(&world).await, "collecting_vci");

    let request = car.command(&world, MessageType::RequestVci).await;
    let ServerBody::RequestVci(body) = &request.body else { panic!("{request:?}") };
    assert_eq!((body.reason, body.deadline_s), (Some(VciReason::CampaignEvaluation), Some(30)));
    let vci = car.vci(request.msg_id.as_str());
    assert_eq!(car.send(&world, UpTopic::Vci, &vci).await, Receipt::Accepted);
    assert_eq!(car.state(&world).await, "checking_readiness");

    car.answer_ready(&world).await;
    let command = car.command(&world, MessageType::StartDownload).await;
    let ServerBody::StartDownload(start) = &command.body else { panic!("{command:?}") };
    assert_eq!(start.expires_at_ms, START.plus_seconds(3_600));
    assert_eq!(start.transfer.base_url.as_str(), "https://localhost:8443");
    let packages: Vec<_> =
        start.packages.iter().map(|p| (p.pkg_id.as_str(), p.install_order, p.url.as_str())).collect();
    let hash = start.packages[0].hash_sha256;
    assert_eq!(packages[0], ("PKG-e0-2", 1, format!("/v1/packages/PKG-e0-2/{hash}").as_str()));
    assert_eq!(packages[1].1, 2);

    let command = command.msg_id.as_str();
    for (operation, state) in [("download", "installing"), ("install", "committing"), ("commit", "verifying")]
    {
        assert_eq!(car.report(&world, command, operation).await, Receipt::Accepted);
        assert_eq!(car.state(&world).await, state);
    }
    world.pass(5).await;
    car.versions = vec!["2", "2"];
    car.answer_vci(&world).await;
    let update = car.update(&world, "C2").await;
    assert!(matches!(update.state, State::Succeeded { late: false, .. }), "{:?}", update.state);
    assert_eq!(update.ended_at, Some(world.now));
    assert!(car.commands(&world).await.is_empty());
    assert!(world.woken.lock().unwrap().contains(&car.binding));
}

#[tokio::test]
async fn a_restart_at_any_step_changes_nothing() {
    let mut world = World::new();
    world.campaign_for_all().await;
    let mut car = Car::new("V1");
    car.wake_up(&world).await;
    world.restart().await;
    car.answer_vci(&world).await;
    world.restart().await;
    car.answer_ready(&world).await;
    world.restart().await;
    let command = car.command(&world, MessageType::StartDownload).await.msg_id.to_string();
    world.restart().await;
    assert_eq!(car.report(&world, &command, "commit").await, Receipt::Accepted);
    world.restart().await;
    car.versions = vec!["2", "2"];
    car.answer_vci(&world).await;
    assert_eq!(car.state(&world).await, "succeeded");
}

#[tokio::test]
async fn a_message_that_comes_twice_has_one_effect() {
    let world = World::new();
    world.campaign_for_all().await;
    let car = Car::new("V1");
    car.wake_up(&world).await;
    let request = car.command(&world, MessageType::RequestVci).await;
    let vci = car.vci(request.msg_id.as_str());
    for _ in 0..2 {
        assert_eq!(car.send(&world, UpTopic::Vci, &vci).await, Receipt::Accepted);
    }
    let spaced = serde_json::to_string_pretty(&vci).unwrap();
    assert_eq!(car.send_octets(&world, UpTopic::Vci, spaced.into()).await, Receipt::Accepted);
    assert_eq!(car.command_types(&world).await, [MessageType::RequestDownloadReadiness]);
    assert!(car.refused(&world).await.is_empty());
}

#[tokio::test]
async fn an_enrolled_vehicles_inventory_is_asked_for_until_the_server_holds_it() {
    let world = World::new();
    let car = Car::new("V1");
    car.wake_up(&world).await;
    let request = car.command(&world, MessageType::RequestVci).await;
    let ServerBody::RequestVci(body) = &request.body else { panic!("{request:?}") };
    assert_eq!(body.reason, Some(VciReason::Wakeup));
    // Asked once is enough while an answer can come.
    car.wake_up(&world).await;
    assert!(car.commands(&world).await.is_empty());
    let vci = car.vci(request.msg_id.as_str());
    assert_eq!(car.send(&world, UpTopic::Vci, &vci).await, Receipt::Accepted);

    let digest = car.vehicle(&world).await.unwrap().vci_digest.unwrap();
    let mut known = car.wake_up_message(5);
    known["vci_digest"] = json!(digest);
    assert_eq!(car.send(&world, UpTopic::Wakeup, &known).await, Receipt::Accepted);
    assert!(car.commands(&world).await.is_empty());

    let mut changed = car.wake_up_message(6);
    changed["vci_digest"] = json!("ab".repeat(32));
    assert_eq!(car.send(&world, UpTopic::Wakeup, &changed).await, Receipt::Accepted);
    assert_eq!(car.command_types(&world).await, [MessageType::RequestVci]);
}

#[tokio::test]
async fn an_incomplete_inventory_is_asked_for_again_outside_a_campaign_too() {
    let mut world = World::new();
    let car = Car::new("V1");
    car.wake_up(&world).await;
    for pause_s in [60, 300, 900] {
        let request = car.command(&world, MessageType::RequestVci).await;
        car.fail(&world, request.msg_id.as_str(), "VCI_INCOMPLETE", json!({"failed_ecus": ["e1"]})).await;
        world.pass(pause_s - 1).await;
        assert!(car.commands(&world).await.is_empty());
        world.woken.lock().unwrap().clear();
        world.pass(1).await;
        assert_eq!(*world.woken.lock().unwrap(), std::slice::from_ref(&car.binding));
    }
    let request = car.command(&world, MessageType::RequestVci).await;
    car.fail(&world, request.msg_id.as_str(), "VCI_INCOMPLETE", json!({})).await;
    world.pass(10_000).await;
    assert!(car.commands(&world).await.is_empty());
}

#[tokio::test]
async fn only_operators_enrol_unless_told_otherwise() {
    let world = World::with(Enroll::Operator, Settings::default());
    let car = Car::new("V1");
    let wake_up = car.wake_up_message(1);
    assert_eq!(car.send(&world, UpTopic::Wakeup, &wake_up).await, Receipt::RefusedIdentity);
    assert!(car.vehicle(&world).await.is_none());
    assert!(car.commands(&world).await.is_empty(), "who is not enrolled is told nothing");

    let binding = car.binding.clone();
    world.write(move |tx, _, now| vehicles::enrol(tx, &binding, vehicles::EnrolledBy::Operator, now)).await;
    assert_eq!(car.send(&world, UpTopic::Wakeup, &wake_up).await, Receipt::Accepted);
    let vehicle = car.vehicle(&world).await.unwrap();
    assert_eq!(vehicle.thumbprint, Some(car.peer.thumbprint.clone()));
}

#[tokio::test]
async fn a_vehicle_enrols_itself_by_its_wake_up_only_and_never_under_anothers_client_id() {
    let world = World::new();
    let car = Car::new("A");
    let vci = car.vci("SRV-1");
    assert_eq!(car.send(&world, UpTopic::Vci, &vci).await, Receipt::RefusedIdentity);
    assert!(car.vehicle(&world).await.is_none());

    let mut first = Car::new("A_B");
    first.binding.gateway_id = "C".parse().unwrap();
    let mut second = Car::new("A");
    second.binding.gateway_id = "B_C".parse().unwrap();
    assert_eq!(first.binding.client_id(), second.binding.client_id());
    first.wake_up(&world).await;
    assert_eq!(
        second.send(&world, UpTopic::Wakeup, &second.wake_up_message(1)).await,
        Receipt::RefusedIdentity
    );
    assert!(second.vehicle(&world).await.is_none());
}

#[tokio::test]
async fn a_campaign_for_every_vehicle_takes_in_later_ones() {
    let world = World::new();
    let early = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    assert_eq!(early.state(&world).await, "collecting_vci");
    let later = Car::new("V2");
    later.wake_up(&world).await;
    assert_eq!(later.state(&world).await, "collecting_vci");
}

#[tokio::test]
async fn commands_wait_for_a_vehicle_that_is_away_and_expired_ones_never_go_out() {
    let mut world = World::new();
    let car = Car::known(&world, "V1").await;
    world.set_connected(false);
    world.campaign_for_all().await;
    assert_eq!(car.state(&world).await, "waiting");
    assert!(car.commands(&world).await.is_empty());

    world.set_connected(true);
    car.wake_up(&world).await;
    assert_eq!(car.state(&world).await, "collecting_vci");
    // It goes away before it takes the question.
    world.set_connected(false);
    world.now = world.now.plus_seconds(30);
    assert!(car.commands(&world).await.is_empty(), "the question has expired");
    world.run_due().await;
    assert_eq!(car.state(&world).await, "waiting");
    world.set_connected(true);
    car.wake_up(&world).await;
    car.answer_vci(&world).await;
    car.answer_ready(&world).await;
    world.set_connected(false);
    world.pass(600).await;
    assert_eq!(car.state(&world).await, "downloading");
    assert_eq!(car.command_types(&world).await, [MessageType::StartDownload]);
}

#[tokio::test]
async fn a_vehicle_is_in_one_update_at_a_time() {
    let mut world = World::new();
    let mut car = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    world.release("R3", "3").await;
    world.campaign("C3", "R3", Some(&[&car])).await;
    let waiting = car.update(&world, "C3").await.state;
    assert_eq!(
        waiting.sentence(world.now),
        "The vehicle is in an update of campaign C2, which must end first."
    );
    let (command, _) = car.to_start_download(&world).await;
    assert_eq!(car.report(&world, &command, "commit").await, Receipt::Accepted);
    car.versions = vec!["2", "2"];
    car.answer_vci(&world).await;
    assert_eq!(car.state(&world).await, "succeeded");
    assert_eq!(car.update(&world, "C3").await.state.name(), "collecting_vci");
    let (command, _) = car.to_start_download(&world).await;
    assert_eq!(car.report(&world, &command, "commit").await, Receipt::Accepted);
    car.versions = vec!["3", "3"];
    world.pass(1).await;
    car.answer_vci(&world).await;
    assert_eq!(car.update(&world, "C3").await.state.name(), "succeeded");
    assert_eq!(car.state(&world).await, "succeeded");
}

#[tokio::test]
async fn what_is_worth_knowing_is_recorded_and_refuses_nothing() {
    let world = World::new();
    let car = Car::new("V1");
    let mut wake_up = car.wake_up_message(1);
    wake_up["ts"] = json!(START.0 - 90_000);
    assert_eq!(car.send(&world, UpTopic::Wakeup, &wake_up).await, Receipt::Accepted);
    assert_eq!(car.vehicle(&world).await.unwrap().clock_skew_ms, Some(90_000));

    let request = car.command(&world, MessageType::RequestVci).await;
    let mut vci = car.vci(request.msg_id.as_str());
    vci.as_object_mut().unwrap().remove("region");
    assert_eq!(car.send(&world, UpTopic::Vci, &vci).await, Receipt::Accepted);
    let note = world
        .read(|tx| {
            tx.row("SELECT note FROM inbound_message WHERE message_type = 'SendVCI'", &[], |row| row.text(0))
        })
        .await;
    assert_eq!(note.as_deref(), Some("without recommended fields: region"));
}

async fn remembered(world: &World) -> Option<i64> {
    world.read(|tx| tx.row("SELECT COUNT(*) FROM inbound_message", &[], |row| row.integer(0))).await
}

#[tokio::test]
async fn accepted_messages_are_forgotten_after_a_month_and_never_while_their_command_is_open() {
    let mut world = World::new();
    let car = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    let (command, _) = car.to_start_download(&world).await;
    let download = car.result(&command, "download");
    assert_eq!(car.send(&world, UpTopic::Result, &download).await, Receipt::Accepted);
    let before = remembered(&world).await.unwrap();
    // As if the command were open for longer than messages are kept.
    world.now = world.now.plus_seconds(60);
    let now = world.now;
    let forgotten = world.write(move |tx, _, _| messages::forget_accepted(tx, now, now)).await;
    assert_eq!(i64::try_from(forgotten).unwrap(), before - 1);
    assert_eq!(car.send(&world, UpTopic::Result, &download).await, Receipt::Accepted);
    assert_eq!(remembered(&world).await, Some(1), "the retransmission was known");
}

/// How far the package was served of which most was.
async fn served(world: &World) -> Option<u64> {
    let sql = "SELECT MAX(served_bytes) FROM package_grant";
    world.read(move |tx| tx.row(sql, &[], |row| row.count(0))).await
}

#[tokio::test]
async fn a_vehicle_fetches_exactly_the_packages_of_its_open_start_download() {
    let mut world = World::new();
    let (car, other) = (Car::known(&world, "V1").await, Car::known(&world, "V2").await);
    world.release("R2", "2").await;
    let rollout = Rollout { bytes_per_second: Some(5_000), ..Rollout::default() };
    world.campaign_by_waves("C2", "R2", Some(&[&car]), rollout).await;
    let dir = tempfile::tempdir().unwrap();
    let desk = |world: &World| {
        let now = world.now;
        super::ServerDesk {
            store: world.store.clone(),
            rules: std::sync::Arc::clone(&world.rules),
            artifacts: crate::artifacts::Artifacts::open(dir.path(), "n").unwrap(),
            clock: std::sync::Arc::new(move || now),
            grants: crate::conversation::Grants::default(),
            sessions: std::sync::Arc::default(),
        }
    };
    let (command, start) = car.to_start_download(&world).await;
    let (pkg_id, hash) = (&start.packages[0].pkg_id, &start.packages[0].hash_sha256);

    let answer = desk(&world).package(&car.peer, pkg_id, hash).await.unwrap();
    let limit = Some(CampaignLimit { campaign: text("C2"), bytes_per_second: 5_000 });
    let FileAnswer::Serve { size_bytes: 1_000, limit: found, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(found, limit);
    let signature = desk(&world).signature(&car.peer, pkg_id, hash).await.unwrap();
    assert_eq!(signature, FileAnswer::Signature(vec![0x30, 1]));
    assert_eq!(desk(&world).package(&other.peer, pkg_id, hash).await.unwrap(), FileAnswer::Forbidden);
    let unknown = "PKG-none".parse().unwrap();
    assert_eq!(desk(&world).package(&car.peer, &unknown, hash).await.unwrap(), FileAnswer::Unknown);
    let mut impostor = car.peer.clone();
    impostor.thumbprint = other.peer.thumbprint.clone();
    assert_eq!(desk(&world).package(&impostor, pkg_id, hash).await.unwrap(), FileAnswer::Forbidden);

    let got = |up_to_byte| {
        vec![Download { peer: car.peer.clone(), pkg_id: pkg_id.clone(), hash: *hash, up_to_byte }]
    };
    let foreign = vec![Download { peer: other.peer.clone(), ..got(900).remove(0) }];
    assert_eq!(desk(&world).downloading(got(700)).await.unwrap(), [true]);
    assert_eq!(desk(&world).downloading(foreign).await.unwrap(), [false]);
    assert_eq!(desk(&world).downloading(got(600)).await.unwrap(), [true]);
    assert_eq!(served(&world).await, Some(700));

    car.fail(&world, &command, "CONSENT_DENIED", json!({})).await;
    assert_eq!(desk(&world).package(&car.peer, pkg_id, hash).await.unwrap(), FileAnswer::Gone);
    // What was on its way when the download ended is told a moment later.
    assert_eq!(desk(&world).downloading(got(800)).await.unwrap(), [false]);
    assert_eq!(served(&world).await, Some(800));
    world.pass(1).await;
    assert_eq!(desk(&world).signature(&car.peer, pkg_id, hash).await.unwrap(), FileAnswer::Gone);
}
