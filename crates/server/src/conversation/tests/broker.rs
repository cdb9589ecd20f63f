//! Vehicles that are reached through a broker.

use farrier_protocol::{MessageType, RefusalCode, UpTopic};
use serde_json::json;

use crate::conversation::is_there;
use crate::desk::Receipt;
use crate::store::{commands, vehicles};
use crate::testbed::{Car, World};

async fn is_reached(world: &World, car: &Car) -> bool {
    let binding = car.binding.clone();
    world.write(move |tx, rules, now| is_there(tx, rules, &binding, now)).await
}

/// What one of several servers would hand to the broker now, and keep to itself for ten seconds.
async fn taken(world: &World, car: &Car) -> Vec<String> {
    let binding = car.binding.clone();
    let pending = world
        .write(move |tx, _, now| commands::take_pending(tx, &binding, now, now.plus_seconds(10), 16))
        .await;
    pending.into_iter().map(|command| command.msg_id.to_string()).collect()
}

#[tokio::test]
async fn the_certificate_that_a_vehicle_names_first_is_the_one_it_has_to_name_from_then_on() {
    let world = World::at_a_broker();
    let car = Car::at_a_broker("V1");
    car.wake_up(&world).await;
    assert_eq!(car.vehicle(&world).await.unwrap().thumbprint, Some(car.peer.thumbprint.clone()));

    let mut other = car.wake_up_message(5);
    other["client_cert_thumbprint"] = json!("ab".repeat(32));
    assert_eq!(car.send(&world, UpTopic::Wakeup, &other).await, Receipt::RefusedIdentity);
    let refused = &car.refused(&world).await[0].refusal;
    assert_eq!(
        (refused.code, refused.pointer.as_str()),
        (RefusalCode::IdentityMismatch, "/client_cert_thumbprint")
    );
    assert_eq!(car.security_events(&world).await[0].kind, RefusalCode::IdentityMismatch.name());
}

#[tokio::test]
async fn a_vehicle_is_there_from_when_it_is_heard_until_nobody_listens() {
    let mut world = World::at_a_broker();
    let car = Car::at_a_broker("V1");
    assert!(!is_reached(&world, &car).await);
    car.wake_up(&world).await;
    assert!(is_reached(&world, &car).await);

    let vehicle_id = car.binding.vehicle_id.clone();
    let asked_at = world.now;
    world.pass(1).await;
    // It has connected anew since the broker was asked: the answer is about the earlier connection.
    car.wake_up(&world).await;
    let id = vehicle_id.clone();
    world.write(move |tx, _, _| vehicles::not_at_broker(tx, &id, asked_at)).await;
    assert!(is_reached(&world, &car).await);

    world.write(move |tx, _, now| vehicles::not_at_broker(tx, &vehicle_id, now)).await;
    assert!(!is_reached(&world, &car).await);
    car.answer_vci(&world).await;
    assert!(is_reached(&world, &car).await, "any message tells that it is there");
}

#[tokio::test]
async fn of_several_servers_one_hands_a_command_to_the_broker() {
    let mut world = World::at_a_broker();
    let car = Car::at_a_broker("V1");
    car.wake_up(&world).await;
    let first = taken(&world, &car).await;
    assert_eq!(first.len(), 1);
    assert!(taken(&world, &car).await.is_empty());
    world.pass(9).await;
    assert!(taken(&world, &car).await.is_empty());
    // The server that took it did not hand it over.
    world.pass(1).await;
    assert_eq!(taken(&world, &car).await, first);
}

#[tokio::test]
async fn what_a_vehicle_has_not_answered_goes_out_again_when_it_wakes_up() {
    let world = World::at_a_broker();
    world.campaign_for_all().await;
    let car = Car::at_a_broker("V1");
    car.wake_up(&world).await;
    assert_eq!(car.command_types(&world).await, [MessageType::RequestVci]);
    assert!(car.commands(&world).await.is_empty());
    world.woken.lock().unwrap().clear();
    // The broker took it for a connection that broke before the vehicle had it.
    car.wake_up(&world).await;
    assert_eq!(*world.woken.lock().unwrap(), std::slice::from_ref(&car.binding));
    car.answer_vci(&world).await;
    assert_eq!(car.command_types(&world).await, [MessageType::RequestDownloadReadiness]);
    let mut known = car.wake_up_message(5);
    known["vci_digest"] = json!(car.vehicle(&world).await.unwrap().vci_digest.unwrap());
    assert_eq!(car.send(&world, UpTopic::Wakeup, &known).await, Receipt::Accepted);
    assert_eq!(
        car.command_types(&world).await,
        [MessageType::RequestDownloadReadiness],
        "and nothing that is answered"
    );
}

#[tokio::test]
async fn commands_that_lie_about_are_found_for_vehicles_that_are_there() {
    let mut world = World::at_a_broker();
    let (there, away) = (Car::at_a_broker("V1"), Car::at_a_broker("V2"));
    let began = world.now.plus_seconds(0);
    for car in [&there, &away] {
        car.wake_up(&world).await;
    }
    let vehicle_id = away.binding.vehicle_id.clone();
    world.write(move |tx, _, now| vehicles::not_at_broker(tx, &vehicle_id, now)).await;
    world.pass(5).await;
    let owed = async |world: &World| {
        let before = farrier_protocol::UnixMillis(began.0 - 1);
        let now = world.now;
        world.read(move |tx| commands::owed(tx, (before, now), now, "", 10)).await
    };
    assert_eq!(owed(&world).await, std::slice::from_ref(&there.binding));
    taken(&world, &there).await;
    assert!(owed(&world).await.is_empty(), "a server is at it");
    world.pass(10).await;
    assert_eq!(owed(&world).await, std::slice::from_ref(&there.binding));
    there.commands(&world).await;
    assert!(owed(&world).await.is_empty(), "it is handed over");
}
