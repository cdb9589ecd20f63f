//! Attempts that follow failed ones by themselves, and vehicles that are set aside.

use farrier_campaign::{Attempts, RetryCode, RetryRule, Rollout, WaitingOn};

use super::*;
use crate::store::audit;
use crate::store::{campaigns, set_aside, updates};
use crate::testbed::text;

fn twice_or_more(attempts: u32) -> Rollout {
    let rule =
        RetryRule { code: RetryCode::UpdateFailed, attempts, pause_s: 60, factor: 2, longest_pause_s: 3_600 };
    Rollout { retries: vec![rule], ..Rollout::default() }
}

async fn fails(world: &World, car: &Car) {
    let (start, _) = car.to_start_download(world).await;
    car.fail(world, &start, "UPDATE_FAILED", json!({"failed_ecus": ["e0"]})).await;
    car.answer_vci(world).await;
}

async fn check_counters(world: &World) {
    let wrong = world.read(|tx| campaigns::wrong_counters(tx, &text("C2"))).await;
    assert_eq!(wrong, Vec::<String>::new());
}

async fn failed_in_campaign(world: &World) -> u64 {
    check_counters(world).await;
    world
        .read(|tx| {
            let campaign = campaigns::by_name(tx, &text("C2"))?.unwrap();
            Ok(campaigns::wave_counts(tx, &campaign)?[0].failed)
        })
        .await
}

async fn audited(world: &World) -> Vec<String> {
    let entries = world.read(|tx| audit::page(tx, 0, 100)).await;
    entries.into_iter().map(|entry| entry.action).filter(|action| action.contains("aside")).collect()
}

#[tokio::test]
async fn a_failed_attempt_is_followed_by_another_after_its_pause_and_counts_until_then() {
    let mut world = World::new();
    let mut car = Car::known(&world, "V1").await;
    world.release("R2", "2").await;
    world.campaign_by_waves("C2", "R2", None, twice_or_more(3)).await;
    fails(&world, &car).await;
    let update = car.update(&world, "C2").await;
    let until = START.plus_seconds(60);
    assert!(
        matches!(update.state.waiting_on(), Some(WaitingOn::NextAttempt { attempt: 2, of: 3, until: at, .. }) if at == until)
    );
    assert_eq!((update.attempts, update.ended_at), (Attempts { failed: 1, barred: false }, None));
    let steps = world.read(move |tx| updates::steps(tx, &update.id)).await;
    let steps: Vec<_> = steps.iter().map(|(state, _)| state.as_str()).collect();
    assert_eq!(steps[steps.len() - 2..], ["rolled_back", "waiting"]);
    assert_eq!(failed_in_campaign(&world).await, 1);

    world.restart().await;
    world.pass(59).await;
    assert_eq!(car.state(&world).await, "waiting");
    world.pass(1).await;
    assert_eq!(car.state(&world).await, "collecting_vci");
    assert_eq!(failed_in_campaign(&world).await, 1, "until the second attempt has ended");
    let (start, _) = car.to_start_download(&world).await;
    car.report(&world, &start, "commit").await;
    car.versions = vec!["2", "2"];
    car.answer_vci(&world).await;
    assert_eq!(car.state(&world).await, "succeeded");
    assert_eq!(failed_in_campaign(&world).await, 0);
    assert_eq!(car.update(&world, "C2").await.attempts, Attempts::default());
}

#[tokio::test]
async fn a_vehicle_that_turns_out_to_run_the_release_is_not_tried_again() {
    let mut world = World::new();
    let mut car = Car::known(&world, "V1").await;
    world.release("R2", "2").await;
    world.campaign_by_waves("C2", "R2", None, twice_or_more(3)).await;
    fails(&world, &car).await;
    world.pass(10).await;
    car.versions = vec!["2", "2"];
    // It reboots, and its inventory is not what it was.
    let mut wake_up = car.wake_up_message(100_000);
    wake_up["vci_digest"] = json!("0".repeat(64));
    car.send(&world, UpTopic::Wakeup, &wake_up).await;
    car.answer_vci(&world).await;
    assert_eq!(car.state(&world).await, "succeeded");
    check_counters(&world).await;
    world.pass(1_000).await;
    assert_eq!(car.state(&world).await, "succeeded");
}

#[tokio::test]
async fn a_vehicle_whose_update_an_operator_wanted_to_cancel_is_not_tried_again() {
    let world = World::new();
    let car = Car::known(&world, "V1").await;
    world.release("R2", "2").await;
    world.campaign_by_waves("C2", "R2", None, twice_or_more(3)).await;
    let (start, _) = car.to_start_download(&world).await;
    let update = car.update(&world, "C2").await;
    let event = farrier_campaign::Event::CancelAsked { reason: text("why") };
    world
        .write(move |tx, rules, now| crate::conversation::advance(tx, rules, update, event, None, now))
        .await;
    car.commands(&world).await;
    car.fail(&world, &start, "UPDATE_FAILED", json!({"failed_ecus": ["e0"]})).await;
    car.answer_vci(&world).await;
    assert_eq!(car.state(&world).await, "rolled_back");
    check_counters(&world).await;
}

#[tokio::test]
async fn a_vehicle_that_failed_a_release_too_often_is_set_aside_until_it_runs_it() {
    let mut world = World::new();
    let mut car = Car::known(&world, "V1").await;
    world.release("R2", "2").await;
    world.campaign_by_waves("C2", "R2", None, twice_or_more(10)).await;
    let mut pause_s = 60;
    for _ in 0..2 {
        fails(&world, &car).await;
        assert_eq!(car.state(&world).await, "waiting");
        world.pass(pause_s).await;
        pause_s *= 2;
    }
    fails(&world, &car).await;
    // The rules have more attempts, but it was the third.
    assert_eq!(car.state(&world).await, "rolled_back");
    let (id, release) = (car.binding.vehicle_id.clone(), text("R2"));
    let found = world.read(move |tx| set_aside::of(tx, &id, &release)).await.unwrap();
    assert_eq!((found.failures, found.code.as_str(), found.campaign.as_str()), (3, "UPDATE_FAILED", "C2"));
    assert_eq!(audited(&world).await, ["vehicle.set_aside"]);
    let verified = world.read(crate::store::verify::all).await;
    assert!(verified.iter().all(|check| check.wrong == 0), "{verified:?}");

    // Somebody repairs it in a workshop: what it runs counts.
    world.pass(10).await;
    car.versions = vec!["2", "2"];
    let mut wake_up = car.wake_up_message(100_000);
    wake_up["vci_digest"] = json!("0".repeat(64));
    car.send(&world, UpTopic::Wakeup, &wake_up).await;
    car.answer_vci(&world).await;
    assert_eq!(car.state(&world).await, "succeeded");
    let (id, release) = (car.binding.vehicle_id.clone(), text("R2"));
    assert!(world.read(move |tx| set_aside::of(tx, &id, &release)).await.is_none());
    check_counters(&world).await;
}

#[tokio::test]
async fn what_is_said_of_one_attempt_twice_is_one_failure() {
    let world = World::new();
    let car = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    let (start, _) = car.to_start_download(&world).await;
    car.fail(&world, &start, "UPDATE_FAILED", json!({"failed_ecus": ["e0"]})).await;
    car.answer_vci(&world).await;
    for _ in 0..3 {
        // Too late, and not what the record has: it is verified again.
        car.report(&world, &start, "commit").await;
        assert_eq!(car.state(&world).await, "verifying");
        // It is told, too, that its word came too late.
        let request = car.commands(&world).await.remove(0);
        car.send(&world, UpTopic::Vci, &car.vci(request.msg_id.as_str())).await;
        assert_eq!(car.state(&world).await, "rolled_back");
    }
    let found = world.read(|tx| set_aside::page(tx, ("", ""), 10)).await;
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(car.update(&world, "C2").await.attempts.failed, 1);
}
