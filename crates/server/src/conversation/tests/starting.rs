//! A campaign with more vehicles than fit one transaction takes them in some at a time.

use farrier_campaign::{Opening, Rollout, StopRule, Wave, WaveSize};

use crate::conversation::go_on_starting;
use crate::store::campaigns::{self, Aborted, Campaign};
use crate::store::test_database::TestDatabase;
use crate::store::vehicles::{self, EnrolledBy};
use crate::testbed::{Car, World, text};

const VEHICLES: u64 = 600;

fn wave(size: WaveSize, opens: Opening) -> Wave {
    Wave { size, opens, stop: StopRule::default() }
}

/// A world whose vehicles are away, and a campaign for all of them that has just been started.
async fn starting(database: TestDatabase) -> World {
    let world = World::on(database);
    world.set_connected(false);
    world
        .write(|tx, _, now| {
            let mut cars = (0..VEHICLES).map(|number| Car::new(&format!("V{number:03}")));
            cars.try_for_each(|car| vehicles::enrol(tx, &car.binding, EnrolledBy::Operator, now))
        })
        .await;
    world.release("R2", "2").await;
    let rollout = Rollout {
        waves: vec![
            wave(WaveSize::Vehicles(100), Opening::AtOnce),
            wave(WaveSize::Percent(50), Opening::AfterSuccessPercent(1)),
            wave(WaveSize::Rest, Opening::ByHand),
        ],
        stop: StopRule { failed_percent: Some(1), ..StopRule::default() },
        ..Rollout::default()
    };
    world.campaign_by_waves("C2", "R2", None, rollout).await;
    world
}

async fn campaign(world: &World) -> Campaign {
    world.read(|tx| campaigns::by_name(tx, &text("C2"))).await.unwrap()
}

async fn go_on(world: &World) -> bool {
    go_on_starting(&world.store, &world.rules, world.now).await.unwrap()
}

/// How many vehicles the campaign has; the counters must agree.
async fn taken_in(world: &World) -> u64 {
    let wrong = world.read(|tx| campaigns::wrong_counters(tx, &text("C2"))).await;
    assert_eq!(wrong, Vec::<String>::new());
    world.read(|tx| campaigns::counts(tx, &text("C2"))).await.total
}

async fn waves(world: &World) -> Vec<u64> {
    let campaign = campaign(world).await;
    let counts = world.read(move |tx| campaigns::wave_counts(tx, &campaign)).await;
    counts.iter().map(|counts| counts.vehicles).collect()
}

#[tokio::test]
async fn a_server_that_stops_in_the_middle_goes_on_where_it_was() {
    for database in TestDatabase::both() {
        let mut world = starting(database).await;
        assert_eq!(taken_in(&world).await, 0);
        let mut steps = 0;
        loop {
            world.restart().await;
            world.look_at_gates().await;
            assert!(campaign(&world).await.gate.open <= 1, "nobody has succeeded");
            if !go_on(&world).await {
                break;
            }
            steps += 1;
            assert!(taken_in(&world).await <= 256 * (steps - 1));
            if steps > 1 {
                assert_eq!(waves(&world).await, [100, 300, 200], "also while some are still to come");
            }
        }
        assert_eq!(steps, 4, "lots, 256, 256, 88");
        assert_eq!(campaign(&world).await.starting, None);
        assert_eq!((taken_in(&world).await, waves(&world).await), (VEHICLES, vec![100, 300, 200]));
    }
}

#[tokio::test]
async fn a_vehicle_that_wakes_up_meanwhile_comes_into_its_own_wave_once() {
    for database in TestDatabase::both() {
        let world = starting(database).await;
        Car::new("V599").wake_up(&world).await;
        assert_eq!(taken_in(&world).await, 0, "it draws its lot with the others");
        assert!(go_on(&world).await);
        for number in 580..590 {
            Car::new(&format!("V{number}")).wake_up(&world).await;
        }
        Car::new("X1").wake_up(&world).await;
        assert_eq!(taken_in(&world).await, 11);
        while go_on(&world).await {}
        let waves = waves(&world).await;
        assert_eq!(taken_in(&world).await, VEHICLES + 1);
        assert_eq!(
            waves.iter().sum::<u64>(),
            VEHICLES + 1,
            "the one more is in the wave of its lot: {waves:?}"
        );
        assert!(
            waves.iter().zip([100, 300, 200]).all(|(found, shared)| (shared..=shared + 1).contains(found))
        );
        Car::new("X2").wake_up(&world).await;
        assert_eq!(self::waves(&world).await[2], waves[2] + 1, "those that come later are in the last");
    }
}

#[tokio::test]
async fn a_campaign_that_is_aborted_takes_in_no_more() {
    for database in TestDatabase::both() {
        let mut world = starting(database).await;
        assert!(go_on(&world).await && go_on(&world).await);
        world
            .write(|tx, _, at| {
                campaigns::abort(tx, &text("C2"), &Aborted { at, reason: text("a bad release") })
            })
            .await;
        assert!(!go_on(&world).await);
        world.run_due().await;
        let counts = world.read(|tx| campaigns::counts(tx, &text("C2"))).await;
        assert_eq!((counts.total, counts.ended), (256, 256));
    }
}
