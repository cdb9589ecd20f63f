use farrier_campaign::{Opening, Rollout, StopRule, Wave, WaveSize};
use farrier_protocol::{MessageType, VehicleId};
use proptest::prelude::*;

use super::*;
use crate::desk::Download;
use crate::store::samples::Counted;
use crate::store::test_database::TestDatabase;
use crate::store::traffic::Traffic;
use crate::store::verify;
use crate::testbed::{Car, World, text};

const MINUTE_MS: i64 = 60_000;

async fn sampled(world: &World) -> bool {
    take(&world.store, &world.rules, 7, world.now).await.unwrap()
}

async fn rows(world: &World, sql: &'static str) -> u64 {
    world.read(move |tx| tx.row(sql, &[], |row| row.count(0))).await.unwrap()
}

async fn of_campaign(world: &World) -> Vec<Counted> {
    let now = world.now;
    let samples = world.read(move |tx| samples::of_campaign(tx, &text("C2"), now, 1_000)).await;
    samples.into_iter().map(|(_, counted)| counted).collect()
}

proptest! {
    #[test]
    fn of_every_quarter_hour_and_day_that_has_samples_one_stays(
        pauses in prop::collection::vec(0_i64..200_000_000, 1..60)
    ) {
        let (mut at, mut last, mut kept) = (1_800_000_000_000_i64, None, Vec::new());
        for pause in pauses {
            at += pause;
            let minute = UnixMillis(at - at.rem_euclid(MINUTE_MS));
            if let Some(step) = Step::after(last, minute) {
                kept.push((minute, step));
                last = Some(minute);
            }
        }
        for step in Step::ALL {
            let bucket = |at: &UnixMillis| at.0.div_euclid(step.ms());
            let mut all: Vec<_> = kept.iter().map(|(at, _)| bucket(at)).collect();
            all.dedup();
            let coarse: Vec<_> = kept.iter().filter(|(_, of)| *of >= step).map(|(at, _)| bucket(at)).collect();
            prop_assert_eq!(all, coarse, "{:?}", step);
        }
    }
}

#[test]
fn as_many_samples_are_read_as_a_chart_can_show() {
    let hours = |hours: i64| hours * 3_600_000;
    assert_eq!(Step::for_span(hours(1), 200), Step::Minute);
    assert_eq!(Step::for_span(hours(24), 200), Step::Quarter);
    assert_eq!(Step::for_span(hours(24 * 7), 200), Step::Hour);
    assert_eq!(Step::for_span(hours(24 * 365), 200), Step::Day);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_on_one_database_take_one_sample_a_minute() {
    let mut world = World::on(TestDatabase::postgres());
    world.campaign_for_all().await;
    Car::known(&world, "V1").await;
    let other = world.another_store();
    for minute in 1..=5_u64 {
        world.now = world.now.plus_seconds(60);
        // Their clocks differ by some seconds.
        let ahead = world.now.plus_seconds(2);
        let (first, second) = tokio::join!(
            take(&world.store, &world.rules, 1, world.now),
            take(&other, &world.rules, 1, ahead)
        );
        assert_eq!(u8::from(first.unwrap()) + u8::from(second.unwrap()), 1, "minute {minute}");
        assert_eq!(rows(&world, "SELECT COUNT(*) FROM fleet_sample").await, minute);
        assert_eq!(rows(&world, "SELECT COUNT(*) FROM campaign_sample").await, minute);
    }
    other.close().await;
}

#[tokio::test]
async fn samples_thin_out_as_they_age_so_that_their_number_is_bounded() {
    let mut world = World::new();
    world.campaign_for_all().await;
    Car::known(&world, "V1").await;
    for _ in 0..3 * 24 * 60 {
        world.now = world.now.plus_seconds(60);
        assert!(sampled(&world).await);
    }
    // A day of minutes, and two of quarters before it.
    let expected = 24 * 60 + 2 * 24 * 4;
    for sql in ["SELECT COUNT(*) FROM fleet_sample", "SELECT COUNT(*) FROM campaign_sample"] {
        let found = rows(&world, sql).await;
        assert!((expected..=expected + 8).contains(&found), "{found} instead of {expected}");
    }
    // Years of nobody at work leave nothing finer than a day.
    world.now = world.now.plus_seconds(200 * 86_400);
    assert!(sampled(&world).await);
    let found = rows(&world, "SELECT COUNT(*) FROM fleet_sample").await;
    assert!((4..=6).contains(&found), "{found}");
}

#[tokio::test]
async fn samples_of_a_clock_that_was_wrong_do_not_stop_those_of_the_right_one() {
    let mut world = World::new();
    assert!(sampled(&world).await);
    let right = world.now;
    world.now = right.plus_seconds(2 * 365 * 86_400);
    assert!(sampled(&world).await);
    world.now = right.plus_seconds(60);
    assert!(sampled(&world).await);
    assert!(!sampled(&world).await);
    assert_eq!(rows(&world, "SELECT COUNT(*) FROM fleet_sample").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_is_sampled_while_it_is_under_way_and_once_when_it_is_over() {
    for database in TestDatabase::both() {
        let mut world = World::on(database);
        let (car, _other) = (Car::known(&world, "V1").await, Car::known(&world, "V2").await);
        world.release("R2", "2").await;
        let wave = |size| Wave { size, opens: Opening::ByHand, stop: StopRule::default() };
        let waves = vec![wave(WaveSize::Vehicles(1)), wave(WaveSize::Rest)];
        world.campaign_by_waves("C2", "R2", Some(&[&car]), Rollout { waves, ..Rollout::default() }).await;
        world.run_due().await;
        assert!(sampled(&world).await);
        assert!(!sampled(&world).await, "one a minute");
        let mut car = car;
        world
            .write(|tx, _, _| {
                let record = crate::store::campaigns::hold_gate(tx, &text("C2"))?;
                let record = farrier_campaign::GateRecord { open_next: true, ..record };
                crate::store::campaigns::set_gate(tx, &text("C2"), &record)
            })
            .await;
        world.run_due().await;
        let (command, start) = car.to_start_download(&world).await;
        let package = &start.packages[0];
        for up_to_byte in [400, 1_000, 1_000] {
            let download = Download {
                peer: car.peer.clone(),
                pkg_id: package.pkg_id.clone(),
                hash: package.hash_sha256,
                up_to_byte,
            };
            let vehicle = car.binding.vehicle_id.clone();
            world.write(move |tx, _, now| crate::store::packages::served(tx, &vehicle, &download, now)).await;
        }
        world.now = world.now.plus_seconds(60);
        assert!(sampled(&world).await);
        for operation in ["download", "install", "commit"] {
            car.report(&world, &command, operation).await;
        }
        car.versions = vec!["2", "2"];
        car.answer_vci(&world).await;
        for _ in 0..3 {
            world.now = world.now.plus_seconds(60);
            assert!(sampled(&world).await);
        }
        let traffic = Traffic { sent_bytes: 1_000, whole_bytes: 1_000 };
        let all = of_campaign(&world).await;
        let [waits, goes, ended] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(*waits, Counted { waiting: 1, ..Counted::default() });
        assert_eq!(*goes, Counted { under_way: 1, traffic, ..Counted::default() });
        assert_eq!(*ended, Counted { at_release: 1, ended: 1, traffic, ..Counted::default() });
        let ends = world.read(|tx| samples::wave_ends(tx, &text("C2"))).await;
        assert_eq!(ends.keys().collect::<Vec<_>>(), [&1]);
        let (since, now) = (UnixMillis(0), world.now);
        let history = world.read(move |tx| samples::of_fleet(tx, since, now, 200)).await;
        let last = history.releases.last().unwrap();
        assert_eq!((last.1.as_str(), last.2), ("R2", 1));
        assert_eq!(history.fleet.last().unwrap().1, 2);
        let problems: Vec<_> = world.read(verify::all).await.into_iter().flat_map(|of| of.problems).collect();
        assert!(problems.is_empty(), "{problems:?}");
        let undone = "UPDATE vehicle SET release_name = NULL";
        world.write(move |tx, _, _| tx.exec(undone, &[])).await;
        world.write(|tx, _, _| tx.exec("UPDATE campaign_traffic SET sent_bytes = 1", &[])).await;
        let problems: Vec<_> = world.read(verify::all).await.into_iter().flat_map(|of| of.problems).collect();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(
            car.commands(&world)
                .await
                .iter()
                .all(|command| command.message_type() != MessageType::StartDownload)
        );
    }
}

#[tokio::test]
async fn who_was_not_heard_for_a_week_is_silent_until_heard_again() {
    let mut world = World::new();
    let car = Car::known(&world, "V1").await;
    Car::known(&world, "V2").await;
    Car::known(&world, "V3").await;
    let look = async |world: &World| {
        let now = world.now;
        for _ in 0..3 {
            let found = world.read(move |tx| silent::look(tx, now, 2)).await;
            world.write(move |tx, _, _| silent::keep(tx, &found)).await;
        }
        let listed: Vec<VehicleId> =
            world.read(|tx| silent::page(tx, "", 10)).await.into_iter().map(|(id, _)| id).collect();
        assert_eq!(world.read(silent::count).await, listed.len() as u64);
        listed.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(look(&world).await.is_empty());
    world.now = world.now.plus_seconds(8 * 86_400);
    car.wake_up(&world).await;
    assert_eq!(look(&world).await, ["V2", "V3"]);
    world.now = world.now.plus_seconds(8 * 86_400);
    assert_eq!(look(&world).await, ["V1", "V2", "V3"]);
    car.wake_up(&world).await;
    assert_eq!(look(&world).await, ["V2", "V3"]);
}
