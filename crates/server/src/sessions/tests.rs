use crate::desk::{SessionEnd, WhyGone};
use crate::store::Tx;
use crate::store::test_database::TestDatabase;
use crate::store::timeline::{self, Kind, Place};
use crate::testbed::{Car, START, World};

use super::*;

const NODE: &str = "node-a";

fn session(client_id: &str, number: u64, end: Option<WhyGone>) -> ClientSession {
    let came_at = START.plus_seconds(number * 10);
    let end = end.map(|why| SessionEnd { at: came_at.plus_seconds(5), why, detail: None });
    ClientSession { client_id: client_id.to_owned(), id: format!("{number:08}"), came_at, end }
}

fn writer(world: &World) -> SessionWriter {
    let started_at = START.plus_seconds(1_000_000);
    SessionWriter { store: world.store.clone(), sessions: Arc::default(), node: NODE.to_owned(), started_at }
}

/// The connections of a vehicle in its time line, oldest first: when, and why each ended.
async fn told(world: &World, car: &Car) -> Vec<(i64, Kind, Option<String>)> {
    let id = car.binding.vehicle_id.clone();
    let read = move |tx: &Tx<'_>| timeline::before(tx, &id, &Place::end(), 1_000);
    let entries = world.read(read).await.into_iter().rev();
    let sessions = entries.filter(|entry| matches!(entry.kind, Kind::Connected | Kind::Disconnected));
    sessions.map(|entry| ((entry.place.0.0 - START.0) / 1_000, entry.kind, entry.code)).collect()
}

#[tokio::test]
async fn the_time_line_tells_when_a_vehicle_connected_and_why_it_went() {
    for database in TestDatabase::both() {
        let world = World::on(database);
        let car = Car::known(&world, "V1").await;
        let writer = writer(&world);
        writer.sessions.note(session("V1_CCU", 1, None));
        writer.write().await.unwrap();
        assert_eq!(told(&world, &car).await, [(10, Kind::Connected, None)]);
        writer.sessions.note(session("V1_CCU", 1, Some(WhyGone::KeepAlive)));
        writer.sessions.note(session("V2_CCU", 2, Some(WhyGone::Left)));
        writer.sessions.note(session("V1_CCU", 3, None));
        writer.write().await.unwrap();
        let all = [
            (10, Kind::Connected, None),
            (15, Kind::Disconnected, Some("KEEP_ALIVE".to_owned())),
            (30, Kind::Connected, None),
        ];
        assert_eq!(told(&world, &car).await, all);
        let latest = world.read(|tx| sessions::latest(tx, "V1_CCU")).await.unwrap();
        assert_eq!((latest.came_at, latest.gone), (START.plus_seconds(30), None));

        // What the earlier gateway did stays the vehicle's.
        let before = car.vehicle(&world).await.unwrap();
        let binding =
            farrier_protocol::Binding { gateway_id: "CCU2".parse().unwrap(), ..before.binding.clone() };
        world
            .write(move |tx, _, now| {
                let reason = "repair".parse().unwrap();
                crate::store::vehicles::rebind(tx, &before, &binding, None, &reason, now)
            })
            .await;
        writer.sessions.note(session("V1_CCU2", 4, Some(WhyGone::Lost)));
        writer.write().await.unwrap();
        let told = told(&world, &car).await;
        assert_eq!(told.len(), 5, "{told:?}");
        assert_eq!(told[4], (45, Kind::Disconnected, Some("LOST".to_owned())));
    }
}

#[tokio::test]
async fn of_a_client_that_comes_and_goes_the_newest_are_kept_and_what_is_old_is_forgotten() {
    for database in TestDatabase::both() {
        let world = World::on(database);
        let car = Car::known(&world, "V1").await;
        let writer = writer(&world);
        for number in 1..=1_000 {
            writer.sessions.note(session("V1_CCU", number, None));
            writer.sessions.note(session("V1_CCU", number, Some(WhyGone::Lost)));
        }
        assert_eq!(
            writer.sessions.waiting().sessions.len(),
            1_000,
            "one row for each, not one for each change"
        );
        writer.write().await.unwrap();
        let kept = told(&world, &car).await;
        assert_eq!((kept.len(), kept[0].0, kept[99].0), (100, 9_510, 10_005));
        let before = START.plus_seconds(9_995 + 1);
        let forgotten = world.write(move |tx, _, _| sessions::forget(tx, before)).await;
        assert_eq!(forgotten, 49);
        assert_eq!(told(&world, &car).await.len(), 2);
    }
}

#[tokio::test]
async fn what_a_server_left_open_when_it_died_is_ended_when_it_starts_again() {
    for database in TestDatabase::both() {
        let world = World::on(database);
        let car = Car::known(&world, "V1").await;
        let other = SessionWriter { node: "node-b".to_owned(), ..writer(&world) };
        for (writer, number) in [(&writer(&world), 1), (&other, 2)] {
            writer.sessions.note(session("V1_CCU", number, None));
            writer.write().await.unwrap();
        }
        let again = writer(&world);
        again.end_left_open().await.unwrap();
        let unknown = Some("UNKNOWN".to_owned());
        let all = [
            (10, Kind::Connected, None),
            (20, Kind::Connected, None),
            (1_000_000, Kind::Disconnected, unknown),
        ];
        assert_eq!(told(&world, &car).await, all);
    }
}

#[tokio::test]
async fn while_the_store_fails_what_is_noted_waits_and_is_bounded() {
    let sessions = Sessions::default();
    for number in 0..u64::try_from(MOST_WAITING).unwrap() + 10 {
        sessions.note(session("V1_CCU", number, None));
    }
    assert_eq!(sessions.waiting().sessions.len(), MOST_WAITING);
    assert_eq!(sessions.waiting().lost, 10);
    let taken = sessions.take();
    sessions.note(session("V1_CCU", 0, Some(WhyGone::Left)));
    sessions.put_back(taken);
    assert!(sessions.take()[0].end.is_some(), "what is known by now stays");
}

#[tokio::test]
async fn whoever_goes_when_the_server_stops_is_written_too() {
    let world = World::new();
    let car = Car::known(&world, "V1").await;
    let writer = writer(&world);
    let (sessions, shutdown) = (Arc::clone(&writer.sessions), CancellationToken::new());
    let running = tokio::spawn(writer.run(shutdown.clone()));
    sessions.note(session("V1_CCU", 1, Some(WhyGone::ServerStopped)));
    shutdown.cancel();
    running.await.unwrap();
    assert_eq!(told(&world, &car).await.len(), 2);
}
