//! Campaigns that are paused, resumed and aborted.

use farrier_campaign::WaitingOn;
use farrier_protocol::{MessageType, UpTopic};
use serde_json::json;

use crate::conversation::Rules;
use crate::desk::Receipt;
use crate::store::Tx;
use crate::store::campaigns::{self, Aborted};
use crate::testbed::{Car, World, text};

async fn pause(world: &mut World, paused: bool) {
    let pause_or_resume = move |tx: &Tx<'_>, _: &Rules, now| match paused {
        true => campaigns::pause(tx, &text("C2"), now),
        false => campaigns::resume(tx, &campaigns::by_name(tx, &text("C2"))?.unwrap()),
    };
    world.write(pause_or_resume).await;
    world.run_due().await;
}

async fn abort(world: &mut World) {
    let aborted = |at| Aborted { at, reason: text("a bad release") };
    world.write(move |tx, _, now| campaigns::abort(tx, &text("C2"), &aborted(now))).await;
    world.run_due().await;
}

async fn waits_for_the_operator(world: &World, car: &Car) -> bool {
    car.update(world, "C2").await.state.waiting_on() == Some(WaitingOn::CampaignPaused)
}

#[tokio::test]
async fn a_paused_campaign_sends_nobody_a_start_download_and_goes_on_where_it_is_resumed() {
    let mut world = World::new();
    world.campaign_for_all().await;
    let (downloads, asked, knows_nothing) = (Car::new("V1"), Car::new("V2"), Car::new("V3"));
    for car in [&downloads, &asked, &knows_nothing] {
        car.wake_up(&world).await;
    }
    let (start, _) = downloads.to_start_download(&world).await;
    asked.answer_vci(&world).await;

    pause(&mut world, true).await;
    // In mid-download: the vehicle has what it needs, and ends it by itself.
    assert_eq!(downloads.report(&world, &start, "download").await, Receipt::Accepted);
    assert_eq!(downloads.state(&world).await, "installing");
    // What was asked before is answered, and then it waits.
    asked.answer_ready(&world).await;
    assert!(waits_for_the_operator(&world, &asked).await);
    knows_nothing.answer_vci(&world).await;
    assert!(waits_for_the_operator(&world, &knows_nothing).await);
    // One that comes only now is taken in, and waits too.
    let late = Car::new("V4");
    late.wake_up(&world).await;
    assert!(waits_for_the_operator(&world, &late).await);
    world.pass(100_000).await;
    assert!(waits_for_the_operator(&world, &asked).await);

    world.woken.lock().unwrap().clear();
    pause(&mut world, false).await;
    for car in [&asked, &knows_nothing, &late] {
        assert_eq!(car.state(&world).await, "collecting_vci");
        assert!(world.woken.lock().unwrap().contains(&car.binding));
    }
}

#[tokio::test]
async fn a_vehicle_can_be_rolled_back_while_its_campaign_is_paused() {
    let mut world = World::new();
    world.campaign_for_all().await;
    let mut car = Car::new("V1");
    car.wake_up(&world).await;
    let (start, _) = car.to_start_download(&world).await;
    car.report(&world, &start, "commit").await;
    car.versions = vec!["2", "2"];
    car.answer_vci(&world).await;
    pause(&mut world, true).await;
    let update = car.update(&world, "C2").await;
    let event = farrier_campaign::Event::RollbackAsked;
    world
        .write(move |tx, rules, now| crate::conversation::advance(tx, rules, update, event, None, now))
        .await;
    assert_eq!(car.state(&world).await, "rolling_back");
}

#[tokio::test]
async fn an_aborted_campaign_ends_every_vehicle_as_soon_as_it_can_be_ended() {
    let mut world = World::new();
    world.campaign_for_all().await;
    let names =
        ["AWAY", "COLLECTS", "CHECKS", "DEFERRED", "DOWNLOADS", "INSTALLS", "COMMITS", "DONE", "REFUSES"];
    let mut cars: Vec<Car> = names.iter().map(|name| Car::new(name)).collect();
    for car in &cars {
        car.wake_up(&world).await;
    }
    let is = |name: &str| names.iter().position(|other| *other == name).unwrap();
    cars[is("CHECKS")].answer_vci(&world).await;
    let deferred = &cars[is("DEFERRED")];
    deferred.answer_vci(&world).await;
    let question = deferred.command(&world, MessageType::RequestDownloadReadiness).await;
    let not_ready = json!({
        "correlation_id": question.msg_id, "ready": false, "not_ready_reasons": ["VEHICLE_MOVING"], "retry_after_s": 600,
        "requested_fields": {"vehicle.speed_kmh": 50.0},
    });
    deferred.tell(&world, UpTopic::Readiness, "ReadinessReportForDownload", not_ready).await;
    let mut starts = std::collections::BTreeMap::new();
    for name in ["DOWNLOADS", "INSTALLS", "COMMITS", "DONE", "REFUSES"] {
        starts.insert(name, cars[is(name)].to_start_download(&world).await.0);
    }
    for (name, operation) in [("INSTALLS", "download"), ("COMMITS", "install"), ("DONE", "commit")] {
        cars[is(name)].report(&world, &starts[name], operation).await;
    }
    cars[is("DONE")].versions = vec!["2", "2"];
    cars[is("DONE")].answer_vci(&world).await;
    world.set_connected(false);
    let stranger = Car::new("STRANGER");

    abort(&mut world).await;
    for name in ["AWAY", "COLLECTS", "CHECKS", "DEFERRED"] {
        assert_eq!(cars[is(name)].state(&world).await, "cancelled", "{name}");
    }
    assert_eq!(cars[is("DONE")].state(&world).await, "succeeded");
    assert_eq!(
        cars[is("COMMITS")].state(&world).await,
        "committing",
        "its boot flags are swapped: it ends by itself"
    );
    for name in ["DOWNLOADS", "INSTALLS", "REFUSES"] {
        assert_eq!(cars[is(name)].command_types(&world).await, [MessageType::CancelUpdate], "{name}");
    }
    // It calls its StartDownload expired: that leads to no other try.
    cars[is("REFUSES")].fail(&world, &starts["REFUSES"], "EXPIRED", json!({})).await;
    assert_eq!(cars[is("REFUSES")].state(&world).await, "cancelled");
    cars[is("COMMITS")].report(&world, &starts["COMMITS"], "commit").await;
    cars[is("COMMITS")].versions = vec!["2", "2"];
    world.set_connected(true);
    cars[is("COMMITS")].wake_up(&world).await;
    cars[is("COMMITS")].answer_vci(&world).await;
    assert_eq!(cars[is("COMMITS")].state(&world).await, "succeeded");
    // Whoever comes later is not taken in.
    stranger.wake_up(&world).await;
    let id = stranger.binding.vehicle_id.clone();
    let taken = world.read(move |tx| crate::store::updates::of_vehicle(tx, &id)).await;
    assert!(taken.is_empty());
}

#[tokio::test]
async fn more_vehicles_than_one_transaction_takes_find_out_and_a_restart_in_between_loses_none() {
    let mut world = World::new();
    world.campaign_for_all().await;
    let cars: Vec<Car> = (0..600).map(|number| Car::new(&format!("V{number:03}"))).collect();
    for car in &cars {
        car.wake_up(&world).await;
    }
    let aborted = |at| Aborted { at, reason: text("a bad release") };
    world.write(move |tx, _, now| campaigns::abort(tx, &text("C2"), &aborted(now))).await;
    assert!(world.write(crate::runner::look_at_a_campaign).await, "there are more");
    world.restart().await;
    world.run_due().await;
    let counts = world.read(|tx| campaigns::counts(tx, &text("C2"))).await;
    assert_eq!(counts.by_state, std::collections::BTreeMap::from([("cancelled".to_owned(), 600)]));
}
