//! How vehicle updates end when they do not simply succeed.

use super::*;
use crate::conversation::{advance, release_from_quarantine};
use farrier_campaign::Event;

async fn downloading(world: &World) -> (Car, String) {
    let car = Car::known(world, "V1").await;
    world.campaign_for_all().await;
    let (command, _) = car.to_start_download(world).await;
    (car, command)
}

#[tokio::test]
async fn a_reported_failure_is_believed_only_when_the_inventory_shows_the_earlier_versions() {
    let world = World::new();
    let (car, command) = downloading(&world).await;
    car.report(&world, &command, "download").await;
    car.fail(&world, &command, "UPDATE_FAILED", json!({"failed_ecus": ["e1"]})).await;
    assert_eq!(car.state(&world).await, "verifying");
    car.answer_vci(&world).await;
    let state = car.update(&world, "C2").await.state;
    assert_eq!(
        state.sentence(world.now),
        "The vehicle reported that the update failed (e1); its inventory shows the earlier versions on all ECUs."
    );
    assert_eq!(state.name(), "rolled_back");
}

#[tokio::test]
async fn a_vehicle_that_says_nothing_is_asked_what_it_runs_when_its_deadline_passes() {
    let mut world = World::new();
    let (car, _) = downloading(&world).await;
    world.pass(3_599).await;
    assert_eq!(car.state(&world).await, "downloading");
    world.pass(1).await;
    assert_eq!(car.state(&world).await, "verifying");
    car.answer_vci(&world).await;
    assert_eq!(car.state(&world).await, "rolled_back");
}

#[tokio::test]
async fn a_mix_of_versions_is_inconsistent_and_an_alarm_is_raised_for_service() {
    let world = World::new();
    let (mut car, command) = downloading(&world).await;
    car.fail(&world, &command, "SERVICE_REQUIRED", json!({"failed_ecus": ["e0"]})).await;
    car.versions = vec!["1", "2"];
    car.answer_vci(&world).await;
    assert_eq!(car.state(&world).await, "inconsistent");
    let kinds: Vec<_> = car.security_events(&world).await.into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["MIXED_SOFTWARE", "SERVICE_REQUIRED"]);

    // A workshop brings it to one state, and its next inventory says so.
    car.versions = vec!["1", "1"];
    car.wake_up(&world).await;
    car.answer_vci(&world).await;
    assert_eq!(car.state(&world).await, "rolled_back");
}

#[tokio::test]
async fn a_commit_that_the_inventory_contradicts_is_no_success_and_an_alarm() {
    let world = World::new();
    let (car, command) = downloading(&world).await;
    assert_eq!(car.report(&world, &command, "commit").await, Receipt::Accepted);
    car.answer_vci(&world).await;
    assert_eq!(car.state(&world).await, "rolled_back");
    assert_eq!(car.security_events(&world).await[0].kind, "FALSE_SUCCESS");
}

#[tokio::test]
async fn a_vehicle_that_stays_silent_is_unknown_until_it_wakes_up() {
    let mut world = World::new();
    let (mut car, _) = downloading(&world).await;
    world.set_connected(false);
    world.pass(3_600).await;
    assert_eq!(car.state(&world).await, "verifying");
    world.pass(1_799).await;
    assert_eq!(car.state(&world).await, "verifying");
    world.pass(1).await;
    assert_eq!(car.state(&world).await, "unknown");

    world.set_connected(true);
    car.versions = vec!["2", "2"];
    car.wake_up(&world).await;
    assert_eq!(car.state(&world).await, "verifying");
    car.answer_vci(&world).await;
    let state = car.update(&world, "C2").await.state;
    assert!(matches!(state, State::Succeeded { late: true, .. }), "{state:?}");
}

#[tokio::test]
async fn a_late_result_is_refused_and_the_truth_comes_by_the_inventory() {
    let mut world = World::new();
    let (mut car, command) = downloading(&world).await;
    world.pass(3_600).await;
    // It tells what it runs while it is still at work, and is done only afterwards.
    car.answer_vci(&world).await;
    assert_eq!(car.state(&world).await, "rolled_back");
    world.pass(60).await;
    car.versions = vec!["2", "2"];
    assert_eq!(car.report(&world, &command, "commit").await, Receipt::Refused);
    assert_eq!(car.refused(&world).await[0].refusal.code, RefusalCode::CorrelationExpired);
    assert_eq!(car.state(&world).await, "verifying");

    let commands = car.commands(&world).await;
    let types: Vec<_> = commands.iter().map(farrier_protocol::ServerMessage::message_type).collect();
    assert_eq!(types, [MessageType::RequestVci, MessageType::MessageRejected]);
    let vci = car.vci(commands[0].msg_id.as_str());
    assert_eq!(car.send(&world, UpTopic::Vci, &vci).await, Receipt::Accepted);
    let state = car.update(&world, "C2").await.state;
    assert!(matches!(state, State::Succeeded { late: true, .. }), "{state:?}");
}

#[tokio::test]
async fn an_earlier_step_after_a_later_one_is_taken_and_changes_nothing() {
    let world = World::new();
    let (car, command) = downloading(&world).await;
    assert_eq!(car.report(&world, &command, "commit").await, Receipt::Accepted);
    assert_eq!(car.report(&world, &command, "download").await, Receipt::Accepted);
    assert_eq!(car.report(&world, &command, "install").await, Receipt::Accepted);
    assert_eq!(car.state(&world).await, "verifying");
    assert_eq!(car.report(&world, &command, "commit").await, Receipt::Refused);
    assert_eq!(car.refused(&world).await[0].refusal.code, RefusalCode::CorrelationClosed);
}

#[tokio::test]
async fn a_vehicle_that_is_not_ready_is_asked_again_when_it_wished() {
    let mut world = World::new();
    let car = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    car.answer_vci(&world).await;
    let request = car.command(&world, MessageType::RequestDownloadReadiness).await;
    let body = json!({
        "correlation_id": request.msg_id, "ready": false, "requested_fields": {"vehicle.speed_kmh": 30},
        "not_ready_reasons": ["VEHICLE_MOVING"], "retry_after_s": 10,
    });
    car.tell(&world, UpTopic::Readiness, "ReadinessReportForDownload", body).await;
    assert_eq!(car.state(&world).await, "deferred");
    world.pass(59).await;
    assert_eq!(car.state(&world).await, "deferred");
    world.pass(1).await;
    car.answer_ready(&world).await;
    assert_eq!(car.state(&world).await, "downloading");
}

#[tokio::test]
async fn a_busy_gateway_is_asked_again_when_it_wished() {
    let mut world = World::new();
    let car = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    let request = car.command(&world, MessageType::RequestVci).await;
    car.fail(&world, request.msg_id.as_str(), "BUSY", json!({"retry_after_s": 40})).await;
    world.pass(39).await;
    assert!(car.commands(&world).await.is_empty());
    world.pass(1).await;
    let (command, _) = car.to_start_download(&world).await;
    car.fail(&world, &command, "BUSY", json!({"retry_after_s": 70})).await;
    assert_eq!(car.state(&world).await, "deferred");
    world.pass(70).await;
    car.answer_ready(&world).await;
    let command = car.command(&world, MessageType::StartDownload).await;
    assert_eq!(car.report(&world, command.msg_id.as_str(), "commit").await, Receipt::Accepted);
}

#[tokio::test]
async fn an_inventory_that_stays_incomplete_makes_the_vehicle_ineligible() {
    let mut world = World::new();
    let car = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    for pause_s in [60, 300, 900] {
        let request = car.command(&world, MessageType::RequestVci).await;
        car.fail(&world, request.msg_id.as_str(), "VCI_INCOMPLETE", json!({"failed_ecus": ["e1"]})).await;
        world.pass(pause_s).await;
    }
    let request = car.command(&world, MessageType::RequestVci).await;
    car.fail(&world, request.msg_id.as_str(), "VCI_INCOMPLETE", json!({"failed_ecus": ["e1"]})).await;
    assert_eq!(car.state(&world).await, "ineligible");
}

#[tokio::test]
async fn a_denied_consent_ends_the_attempt_and_nobody_asks_again() {
    let mut world = World::new();
    let (car, command) = downloading(&world).await;
    car.fail(&world, &command, "CONSENT_DENIED", json!({})).await;
    car.answer_vci(&world).await;
    assert_eq!(car.state(&world).await, "rolled_back");
    world.pass(1_000_000).await;
    assert!(car.commands(&world).await.is_empty());
}

#[tokio::test]
async fn a_cancelled_update_is_cancelled_when_the_vehicle_says_so() {
    let world = World::new();
    let (car, command) = downloading(&world).await;
    let cancel = |reason: &str| Event::CancelAsked { reason: reason.parse().unwrap() };
    let (update, event) = (car.update(&world, "C2").await, cancel("wrong image"));
    world.write(move |tx, rules, now| advance(tx, rules, update, event, None, now)).await;
    let asked = car.command(&world, MessageType::CancelUpdate).await;
    let ServerBody::CancelUpdate(body) = &asked.body else { panic!("{asked:?}") };
    assert_eq!(body.reason.as_str(), "wrong image");
    assert_eq!(car.state(&world).await, "downloading");
    car.fail(&world, asked.msg_id.as_str(), "CANCELLED", json!({})).await;
    assert_eq!(car.state(&world).await, "cancelled");
    assert!(car.commands(&world).await.is_empty());

    // It says that it went on all the same: what is true, its inventory tells.
    assert_eq!(car.report(&world, &command, "download").await, Receipt::Accepted);
    assert_eq!(car.state(&world).await, "verifying");
    assert_eq!(car.report(&world, &command, "commit").await, Receipt::Refused);
    let request = car.commands(&world).await.remove(0);
    let mut gone_on = car;
    gone_on.versions = vec!["2", "2"];
    let vci = gone_on.vci(request.msg_id.as_str());
    assert_eq!(gone_on.send(&world, UpTopic::Vci, &vci).await, Receipt::Accepted);
    assert_eq!(gone_on.state(&world).await, "succeeded");
}

#[tokio::test]
async fn a_late_need_for_service_is_found_out_by_the_inventory() {
    let mut world = World::new();
    let (mut car, command) = downloading(&world).await;
    world.pass(3_600).await;
    car.answer_vci(&world).await;
    assert_eq!(car.state(&world).await, "rolled_back");
    car.versions = vec!["1", "2"];
    let body = json!({"correlation_id": command, "code": "SERVICE_REQUIRED", "detail": "words"});
    let late = car.message("ErrorResponse", body);
    assert_eq!(car.send(&world, UpTopic::Error, &late).await, Receipt::Refused);
    let request = car.commands(&world).await.remove(0);
    let vci = car.vci(request.msg_id.as_str());
    assert_eq!(car.send(&world, UpTopic::Vci, &vci).await, Receipt::Accepted);
    assert_eq!(car.state(&world).await, "inconsistent");
}

#[tokio::test]
async fn an_inventory_that_was_asked_for_before_the_end_changes_no_ended_update() {
    let mut world = World::new();
    let (mut car, command) = downloading(&world).await;
    assert_eq!(car.report(&world, &command, "commit").await, Receipt::Accepted);
    let verification = car.command(&world, MessageType::RequestVci).await;
    let binding = car.binding.clone();
    world
        .write(move |tx, rules, now| {
            let reason = VciReason::Wakeup;
            let question = super::super::outgoing::InventoryQuestion { reason, try_number: 0, send_at: now };
            super::super::outgoing::queue_inventory_question(tx, rules, &binding, &question, now)
        })
        .await;
    let asked_before = car.command(&world, MessageType::RequestVci).await;
    let old = car.vci(asked_before.msg_id.as_str());
    world.pass(1).await;
    car.versions = vec!["2", "2"];
    let vci = car.vci(verification.msg_id.as_str());
    assert_eq!(car.send(&world, UpTopic::Vci, &vci).await, Receipt::Accepted);
    assert_eq!(car.send(&world, UpTopic::Vci, &old).await, Receipt::Accepted);
    assert_eq!(car.state(&world).await, "succeeded");
}

#[tokio::test]
async fn a_connected_vehicle_that_stays_silent_is_asked_again_and_holds_up_no_other_campaign() {
    let mut world = World::new();
    let car = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    world.release("R3", "3").await;
    world.campaign("C3", "R3", Some(&[&car])).await;
    for _ in 0..3 {
        world.pass(30).await;
    }
    assert_eq!(car.state(&world).await, "waiting");
    assert_eq!(car.update(&world, "C3").await.state.name(), "collecting_vci");
    for _ in 0..3 {
        world.pass(30).await;
    }
    for campaign in ["C2", "C3"] {
        let sentence = car.update(&world, campaign).await.state.sentence(world.now);
        assert!(sentence.starts_with("The vehicle is connected but did not answer"), "{sentence}");
    }
    world.pass(1_800).await;
    assert_eq!(car.state(&world).await, "collecting_vci");
    assert_eq!(car.command_types(&world).await, [MessageType::RequestVci]);
    car.wake_up(&world).await;
    assert_eq!(
        car.update(&world, "C3").await.state.sentence(world.now),
        "The vehicle is in an update of campaign C2, which must end first."
    );
}

#[tokio::test]
async fn only_the_update_that_was_installed_last_can_be_undone() {
    let mut world = World::new();
    let (mut car, command) = downloading(&world).await;
    car.report(&world, &command, "commit").await;
    car.versions = vec!["2", "2"];
    car.answer_vci(&world).await;
    world.pass(1).await;
    world.release("R3", "3").await;
    world.campaign("C3", "R3", Some(&[&car])).await;
    let (command, _) = car.to_start_download(&world).await;
    car.report(&world, &command, "commit").await;
    car.versions = vec!["3", "3"];
    car.answer_vci(&world).await;
    for (campaign, expected) in [("C2", "succeeded"), ("C3", "rolling_back")] {
        let update = car.update(&world, campaign).await;
        world.write(move |tx, rules, now| advance(tx, rules, update, Event::RollbackAsked, None, now)).await;
        assert_eq!(car.update(&world, campaign).await.state.name(), expected);
    }
}

#[tokio::test]
async fn a_succeeded_update_can_be_undone() {
    let world = World::new();
    let (mut car, command) = downloading(&world).await;
    car.report(&world, &command, "commit").await;
    car.versions = vec!["2", "2"];
    car.answer_vci(&world).await;
    let update = car.update(&world, "C2").await;
    world.write(move |tx, rules, now| advance(tx, rules, update, Event::RollbackAsked, None, now)).await;
    let undo = car.command(&world, MessageType::StartRollback).await;
    assert_eq!(car.state(&world).await, "rolling_back");
    assert_eq!(car.report(&world, undo.msg_id.as_str(), "rollback").await, Receipt::Accepted);
    car.versions = vec!["1", "1"];
    car.answer_vci(&world).await;
    assert_eq!(car.state(&world).await, "rolled_back");
}

#[tokio::test]
async fn a_vehicle_in_a_boot_loop_gets_no_update_until_an_operator_lets_it_go() {
    let mut world = World::new();
    let mut car = Car::known(&world, "V1").await;
    for _ in 0..5 {
        world.pass(60).await;
        car.reboot(&world, 5_000).await;
    }
    let vehicle = car.vehicle(&world).await.unwrap();
    assert_eq!(vehicle.quarantined_at, Some(world.now));
    assert_eq!(car.security_events(&world).await[0].kind, "BOOT_LOOP");
    car.commands(&world).await;

    world.campaign_for_all().await;
    assert_eq!(car.state(&world).await, "waiting");
    assert!(car.commands(&world).await.is_empty());
    world
        .write(move |tx, rules, now| {
            release_from_quarantine(tx, rules, &vehicle, &crate::store::audit::Actor::server(), now)
        })
        .await;
    assert_eq!(car.state(&world).await, "collecting_vci");
}

#[tokio::test]
async fn an_update_command_that_waits_is_held_back_while_its_vehicle_is_quarantined() {
    let world = World::new();
    let mut car = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    car.answer_vci(&world).await;
    car.answer_ready(&world).await;
    assert_eq!(car.state(&world).await, "downloading");
    for _ in 0..5 {
        car.reboot(&world, 5_000).await;
    }
    assert!(!car.command_types(&world).await.contains(&MessageType::StartDownload));
    let vehicle = car.vehicle(&world).await.unwrap();
    world.woken.lock().unwrap().clear();
    world
        .write(move |tx, rules, now| {
            release_from_quarantine(tx, rules, &vehicle, &crate::store::audit::Actor::server(), now)
        })
        .await;
    assert_eq!(*world.woken.lock().unwrap(), std::slice::from_ref(&car.binding));
    assert_eq!(car.command_types(&world).await, [MessageType::StartDownload]);
}

#[tokio::test]
async fn a_quarantined_vehicle_that_stays_up_is_let_go() {
    let mut world = World::new();
    let mut car = Car::known(&world, "V1").await;
    for _ in 0..5 {
        car.reboot(&world, 5_000).await;
    }
    world.campaign_for_all().await;
    world.pass(1_700).await;
    assert!(car.vehicle(&world).await.unwrap().quarantined_at.is_some());
    // Away when its time would be over: nobody knows whether it stayed up, so its next WakeUp tells.
    world.set_connected(false);
    world.pass(200).await;
    assert!(car.vehicle(&world).await.unwrap().quarantined_at.is_some());
    world.set_connected(true);
    let reconnect = car.wake_up_message(1_900_000);
    assert_eq!(car.send(&world, UpTopic::Wakeup, &reconnect).await, Receipt::Accepted);
    assert!(car.vehicle(&world).await.unwrap().quarantined_at.is_none());
    assert_eq!(car.state(&world).await, "collecting_vci");
}

#[tokio::test]
async fn a_quarantined_vehicle_that_stays_connected_is_let_go_without_a_word() {
    let mut world = World::new();
    let mut car = Car::known(&world, "V1").await;
    for _ in 0..5 {
        car.reboot(&world, 5_000).await;
    }
    world.pass(1_794).await;
    assert!(car.vehicle(&world).await.unwrap().quarantined_at.is_some());
    world.pass(1).await;
    assert!(car.vehicle(&world).await.unwrap().quarantined_at.is_none());
}

#[tokio::test]
async fn a_quarantined_vehicles_readiness_is_refused() {
    let world = World::new();
    let mut car = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    car.answer_vci(&world).await;
    let request = car.command(&world, MessageType::RequestDownloadReadiness).await;
    for _ in 0..5 {
        car.reboot(&world, 5_000).await;
    }
    let body = json!({"correlation_id": request.msg_id, "ready": true, "requested_fields": {}});
    let report = car.message("ReadinessReportForDownload", body);
    assert_eq!(car.send(&world, UpTopic::Readiness, &report).await, Receipt::Refused);
    assert_eq!(car.refused(&world).await[0].refusal.code, RefusalCode::Quarantined);
    assert_eq!(car.state(&world).await, "checking_readiness");
}
