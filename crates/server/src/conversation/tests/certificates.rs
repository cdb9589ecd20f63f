//! Until when a vehicle's certificate is valid, as the server saw it.

use farrier_protocol::UnixMillis;

use crate::desk::Certificate;
use crate::store::{vehicle_certificates, vehicles};
use crate::testbed::{Car, START, World};

const DAY_S: u64 = 86_400;

fn certificate(serial: &str, days: u64) -> Option<Certificate> {
    Some(Certificate { serial: serial.to_owned(), ends_at: START.plus_seconds(days * DAY_S) })
}

async fn ending(world: &World, before: UnixMillis) -> u64 {
    world.read(move |tx| vehicle_certificates::count_ending(tx, before)).await
}

#[tokio::test]
async fn the_end_of_a_certificate_is_written_when_a_vehicle_comes_with_another_one_and_not_again() {
    let mut world = World::new();
    let mut car = Car::new("V1");
    car.peer.certificate = certificate("0a", 20);
    car.wake_up(&world).await;
    assert_eq!(car.vehicle(&world).await.unwrap().certificate, certificate("0a", 20));
    assert_eq!(ending(&world, START.plus_seconds(20 * DAY_S)).await, 0);
    assert_eq!(ending(&world, START.plus_seconds(20 * DAY_S + 1)).await, 1);

    world
        .write(|tx, _, _| {
            if tx.is_shared() {
                return Ok(());
            }
            tx.exec(
                "CREATE TRIGGER once BEFORE UPDATE OF certificate_serial ON vehicle WHEN new.certificate_serial = '0a' \
                 BEGIN SELECT RAISE(ABORT, 'written again'); END",
                &[],
            )
            .map(drop)
        })
        .await;
    world.pass(5).await;
    car.wake_up(&world).await;
    car.answer_vci(&world).await;

    // The operator lets it come with a new one; until it does, nothing is known of that.
    let id = car.binding.vehicle_id.clone();
    world.write(move |tx, _, _| vehicles::set_thumbprint(tx, &id, None)).await;
    assert_eq!(car.vehicle(&world).await.unwrap().certificate, None);
    car.peer.certificate = certificate("0b", 700);
    car.wake_up(&world).await;
    assert_eq!(car.vehicle(&world).await.unwrap().certificate, certificate("0b", 700));
    assert_eq!(ending(&world, START.plus_seconds(30 * DAY_S)).await, 0);
}

#[tokio::test]
async fn what_a_broker_alone_has_seen_is_not_known() {
    let world = World::at_a_broker();
    let mut car = Car::at_a_broker("V1");
    car.peer.certificate = certificate("0a", 1);
    car.wake_up(&world).await;
    assert_eq!(car.vehicle(&world).await.unwrap().certificate, None);
    assert_eq!(ending(&world, START.plus_seconds(30 * DAY_S)).await, 0);
}

#[tokio::test]
async fn a_message_that_is_refused_for_its_certificate_says_nothing_of_the_vehicles_own() {
    let world = World::new();
    let mut car = Car::new("V1");
    car.peer.certificate = certificate("0a", 400);
    car.wake_up(&world).await;
    car.peer.thumbprint = farrier_protocol::Thumbprint::of_certificate(b"another");
    car.peer.certificate = certificate("0b", 1);
    let message = car.wake_up_message(1);
    let receipt = car.send(&world, farrier_protocol::UpTopic::Wakeup, &message).await;
    assert_eq!(receipt, crate::desk::Receipt::RefusedIdentity);
    assert_eq!(car.vehicle(&world).await.unwrap().certificate, certificate("0a", 400));
}
