use farrier_campaign::{Opening, RetryCode, RetryRule, Rollout, StopRule, WaitingOn, Wave, WaveSize, Window};

use farrier_protocol::{MessageType, UnixMillis};
use proptest::prelude::*;
use serde_json::json;

use crate::desk::Receipt;
use crate::store::campaigns::{self, StateCounts};
use crate::store::test_database::TestDatabase;
use crate::store::vehicles::Said;
use crate::store::{updates, vehicles};
use crate::testbed::{Car, World, text};

fn wave(size: WaveSize, opens: Opening) -> Wave {
    Wave { size, opens, stop: StopRule::default() }
}

async fn cars(world: &World, number: usize) -> Vec<Car> {
    let mut cars = Vec::new();
    for index in 0..number {
        cars.push(Car::known(world, &format!("V{index}")).await);
    }
    cars
}

async fn counts(world: &World) -> StateCounts {
    let wrong = world.read(|tx| campaigns::wrong_counters(tx, &text("C2"))).await;
    assert_eq!(wrong, Vec::<String>::new());
    world.read(|tx| campaigns::counts(tx, &text("C2"))).await
}

async fn begun(world: &World) -> u64 {
    let counts = counts(world).await;
    counts.total - counts.by_state.get("waiting").copied().unwrap_or(0)
}

async fn in_state(world: &World, cars: &[Car], state: &str) -> Vec<usize> {
    let mut found = Vec::new();
    for (index, car) in cars.iter().enumerate() {
        if car.state(world).await == state {
            found.push(index);
        }
    }
    found
}

/// A whole update, which the vehicle's inventory proves.
async fn succeed(world: &World, car: &mut Car) {
    let (start, _) = car.to_start_download(world).await;
    car.versions = vec!["2", "2"];
    assert_eq!(car.report(world, &start, "commit").await, Receipt::Accepted);
    car.answer_vci(world).await;
    assert_eq!(car.state(world).await, "succeeded");
}

async fn campaign(world: &World, rollout: Rollout) {
    world.release("R2", "2").await;
    world.campaign_by_waves("C2", "R2", None, rollout).await;
    world.look_at_gates().await;
}

#[tokio::test]
async fn a_wave_opens_when_enough_of_the_one_before_run_the_release() {
    for database in TestDatabase::both() {
        let mut world = World::on(database);
        let mut cars = cars(&world, 6).await;
        let waves = vec![
            wave(WaveSize::Vehicles(2), Opening::AtOnce),
            wave(WaveSize::Percent(50), Opening::AfterSuccessPercent(100)),
            wave(WaveSize::Rest, Opening::ByHand),
        ];
        campaign(&world, Rollout { waves, ..Rollout::default() }).await;
        let first = in_state(&world, &cars, "collecting_vci").await;
        assert_eq!(first.len(), 2);
        let third = cars.iter().position(|car| !first.contains(&(car_number(car)))).unwrap();
        let waits = cars[third].update(&world, "C2").await.state.waiting_on();
        assert!(matches!(waits, Some(WaitingOn::WaveToOpen { wave: 2 | 3 })), "{waits:?}");

        succeed(&world, &mut cars[first[0]]).await;
        world.look_at_gates().await;
        assert_eq!(begun(&world).await, 2, "one of two is not enough");
        succeed(&world, &mut cars[first[1]]).await;
        world.look_at_gates().await;
        assert_eq!(begun(&world).await, 5, "half of six are in wave 2");
        world.pass(60).await;
        assert_eq!(begun(&world).await, 5, "wave 3 is opened by hand");
        world
            .write(|tx, _, _| {
                let campaign = campaigns::by_name(tx, &text("C2"))?.unwrap();
                let record = farrier_campaign::GateRecord { open_next: true, ..campaign.gate };
                campaigns::set_gate(tx, &campaign.name, &record)
            })
            .await;
        world.look_at_gates().await;
        assert_eq!(begun(&world).await, 6);
    }
}

fn car_number(car: &Car) -> usize {
    car.binding.vehicle_id.as_str().trim_start_matches('V').parse().unwrap()
}

#[tokio::test]
async fn no_more_than_the_places_there_are_are_taken_and_each_that_is_free_is() {
    for database in TestDatabase::both() {
        let world = World::on(database);
        let mut cars = cars(&world, 7).await;
        campaign(&world, Rollout { vehicles_at_once: Some(3), ..Rollout::default() }).await;
        let mut ended = 0;
        while ended < cars.len() {
            let under_way = in_state(&world, &cars, "collecting_vci").await;
            assert_eq!(under_way.len(), 3.min(cars.len() - ended));
            succeed(&world, &mut cars[under_way[0]]).await;
            ended += 1;
            world.look_at_gates().await;
        }
        assert_eq!(counts(&world).await.by_state["succeeded"], 7);
    }
}

#[tokio::test]
async fn no_more_begin_in_a_minute_than_may() {
    let mut world = World::new();
    cars(&world, 5).await;
    campaign(&world, Rollout { starts_per_minute: Some(2), ..Rollout::default() }).await;
    assert_eq!(begun(&world).await, 2);
    world.look_at_gates().await;
    assert_eq!(begun(&world).await, 2);
    world.pass(60).await;
    assert_eq!(begun(&world).await, 4);
}

#[tokio::test]
async fn silence_alone_stops_a_campaign_and_what_was_known_when_it_is_resumed_stops_it_no_more() {
    for database in TestDatabase::both() {
        let mut world = World::on(database);
        let cars = cars(&world, 5).await;
        let stop = StopRule { failures: Some(2), ..StopRule::default() };
        campaign(&world, Rollout { stop, vehicles_at_once: Some(2), ..Rollout::default() }).await;
        for index in in_state(&world, &cars, "collecting_vci").await {
            cars[index].to_start_download(&world).await;
        }
        world.look_at_gates().await;
        assert_eq!(begun(&world).await, 2);
        // The deadline of both passes, and nobody has said a word.
        world.pass(3_601).await;
        let name = text("C2");
        let campaign = world.read(move |tx| campaigns::by_name(tx, &name)).await.unwrap();
        let stopped = campaign.stopped.expect("two vehicles fell silent");
        assert_eq!(stopped.reason.failed, 2);
        assert_eq!(begun(&world).await, 2, "none began after that");
        let waiting = in_state(&world, &cars, "waiting").await[0];
        let update = cars[waiting].update(&world, "C2").await;
        assert_eq!(update.state.waiting_on(), Some(WaitingOn::CampaignStopped));

        world
            .write(|tx, _, _| {
                let campaign = campaigns::by_name(tx, &text("C2"))?.unwrap();
                campaigns::resume(tx, &campaign)
            })
            .await;
        world.pass(1).await;
        let name = text("C2");
        let campaign = world.read(move |tx| campaigns::by_name(tx, &name)).await.unwrap();
        assert_eq!(campaign.stopped, None);
        // Their places are still taken: what they run is being asked for. That ends too.
        world.pass(1_801).await;
        assert_eq!(counts(&world).await.by_state.get("unknown"), Some(&2));
        assert_eq!(begun(&world).await, 4);
    }
}

/// What may happen to a vehicle whose update is under way.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Succeeds,
    Fails,
    IsNotReady,
    FallsSilent,
    NothingFor(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => Just(Happening::Succeeds),
        1 => Just(Happening::Fails),
        1 => Just(Happening::IsNotReady),
        1 => Just(Happening::FallsSilent),
        2 => (1_u64..90).prop_map(Happening::NothingFor),
        1 => (900_u64..4_000).prop_map(Happening::NothingFor),
    ]
}

/// What must hold whatever happens.
async fn check(world: &World, at_once: u64, begun_when_stopped: &mut Option<u64>) {
    let counts = counts(world).await;
    let name = text("C2");
    let campaign = world.read(move |tx| campaigns::by_name(tx, &name)).await.unwrap();
    let waves = world
        .read({
            let campaign = campaign.clone();
            move |tx| campaigns::wave_counts(tx, &campaign)
        })
        .await;
    let under_way: u64 = waves.iter().map(|wave| wave.under_way).sum();
    assert!(under_way <= at_once, "{under_way} of {at_once}");
    for (number, wave) in (1_u32..).zip(&waves) {
        assert!(
            number <= campaign.gate.open || wave.under_way + wave.ended == 0,
            "wave {number} is not open"
        );
    }
    let begun = counts.total
        - ["waiting", "deferred"].iter().filter_map(|state| counts.by_state.get(*state)).sum::<u64>();
    match (campaign.stopped.is_some(), *begun_when_stopped) {
        (true, Some(before)) => assert!(begun <= before, "{begun} have begun, {before} had when it stopped"),
        (true, None) => *begun_when_stopped = Some(begun),
        (false, _) => *begun_when_stopped = None,
    }
}

/// The zones of the vehicles in turn, and what their clocks are ahead of UTC in winter, in hours.
const ZONES: [(&str, i64); 3] = [("Europe/Berlin", 1), ("Asia/Seoul", 9), ("Europe/London", 0)];

/// Every even hour by the vehicle's clock.
fn even_hours() -> Vec<Window> {
    let time = |hour: u32| format!("{hour:02}:00").parse().unwrap();
    let window = |hour| Window { days: Vec::new(), from: time(hour), to: time(hour + 1) };
    (0..24).step_by(2).map(window).collect()
}

/// Reckoned without any table of time zones.
fn is_in_its_window(car: &Car, at: UnixMillis) -> bool {
    let (_, ahead_h) = ZONES[car_number(car) % ZONES.len()];
    (at.0.div_euclid(3_600_000) + ahead_h) % 2 == 0
}

async fn live_in_their_zones(world: &World, cars: &[Car]) {
    for car in cars {
        let (zone, _) = ZONES[car_number(car) % ZONES.len()];
        let vehicle_id = car.binding.vehicle_id.clone();
        let said = Said { time_zone: Some(zone.parse().unwrap()), ..Said::default() };
        world.write(move |tx, _, _| vehicles::set_said(tx, &vehicle_id, &said)).await;
    }
}

/// No vehicle has begun, nor was told to download, outside its window.
async fn check_windows(world: &World, cars: &[Car]) {
    for car in cars {
        let id = car.update(world, "C2").await.id;
        let steps = world.read(move |tx| updates::steps(tx, &id)).await;
        for (state, at) in steps {
            let begins = ["collecting_vci", "checking_readiness", "downloading"].contains(&state.as_str());
            assert!(!begins || is_in_its_window(car, at), "{:?} was {state} at {at:?}", car.binding);
        }
    }
}

async fn happens(world: &mut World, car: &mut Car, happening: Happening, has_windows: bool) {
    let state = car.state(world).await;
    let is_late = has_windows && !is_in_its_window(car, world.now);
    let campaign = world.read(|tx| campaigns::by_name(tx, &text("C2"))).await.unwrap();
    let has_stopped = campaign.stopped.is_some();
    if (is_late || has_stopped) && !matches!(happening, Happening::NothingFor(_)) {
        // Its window has closed, or its campaign has stopped, since it was asked: it goes no further.
        match state {
            "collecting_vci" => car.answer_vci(world).await,
            "checking_readiness" => car.answer_ready(world).await,
            _ => return,
        }
        assert_eq!(car.state(world).await, "waiting");
        world.look_at_gates().await;
        return;
    }
    match (happening, state) {
        (Happening::NothingFor(seconds), _) => world.pass(seconds).await,
        (Happening::Succeeds, "collecting_vci") => succeed(world, car).await,
        (Happening::Fails, "collecting_vci") => {
            let (start, _) = car.to_start_download(world).await;
            car.fail(world, &start, "UPDATE_FAILED", json!({"failed_ecus": ["e0"]})).await;
            car.answer_vci(world).await;
        }
        (Happening::IsNotReady, "collecting_vci") => {
            car.answer_vci(world).await;
            car.answer_not_ready(world, 60).await;
        }
        (Happening::FallsSilent, "collecting_vci") => {
            car.to_start_download(world).await;
            world.pass(3_601).await;
            world.pass(1_801).await;
        }
        (_, "checking_readiness") => {
            car.answer_ready(world).await;
            let start = car.command(world, MessageType::StartDownload).await.msg_id;
            car.versions = vec!["2", "2"];
            car.report(world, start.as_str(), "commit").await;
            car.answer_vci(world).await;
        }
        (_, _) => {}
    }
    world.look_at_gates().await;
}

async fn rolls_out(
    at_once: u64,
    has_windows: bool,
    is_tried_again: bool,
    happenings: Vec<(usize, Happening)>,
) {
    const CARS: usize = 8;
    let mut world = World::new();
    let mut cars = cars(&world, CARS).await;
    let rule = RetryRule { code: RetryCode::Any, attempts: 3, pause_s: 30, factor: 2, longest_pause_s: 50 };
    let rollout = Rollout {
        waves: vec![
            wave(WaveSize::Vehicles(3), Opening::AtOnce),
            wave(WaveSize::Rest, Opening::AfterSuccessPercent(50)),
        ],
        stop: StopRule { failures: Some(2), ..StopRule::default() },
        vehicles_at_once: Some(at_once),
        starts_per_minute: Some(3),
        windows: if has_windows { even_hours() } else { Vec::new() },
        retries: if is_tried_again { vec![rule] } else { Vec::new() },
        ..Rollout::default()
    };
    live_in_their_zones(&world, &cars).await;
    campaign(&world, rollout).await;
    let mut begun_when_stopped = None;
    for (index, happening) in happenings {
        happens(&mut world, &mut cars[index % CARS], happening, has_windows).await;
        check(&world, at_once, &mut begun_when_stopped).await;
    }
    // An operator lets it go on whenever it stands still: every vehicle comes to an end.
    for _ in 0..CARS * 4 {
        world
            .write(|tx, _, _| {
                let campaign = campaigns::by_name(tx, &text("C2"))?.unwrap();
                campaigns::resume(tx, &campaign)?;
                let campaign = campaigns::by_name(tx, &text("C2"))?.unwrap();
                let record = farrier_campaign::GateRecord { open_next: true, ..campaign.gate };
                campaigns::set_gate(tx, &campaign.name, &record)
            })
            .await;
        world.pass(if has_windows { 1_201 } else { 61 }).await;
        begun_when_stopped = None;
        for car in &mut cars {
            happens(&mut world, car, Happening::Succeeds, has_windows).await;
            check(&world, at_once, &mut begun_when_stopped).await;
        }
    }
    let counts = counts(&world).await;
    assert_eq!(counts.ended, CARS as u64, "{counts:?}");
    if has_windows {
        check_windows(&world, &cars).await;
    }
}

#[tokio::test]
async fn a_vehicle_that_was_asked_before_its_campaign_stopped_goes_no_further() {
    let happenings = vec![(2, Happening::Fails), (7, Happening::Fails), (0, Happening::FallsSilent)];
    rolls_out(2, false, false, happenings).await;
    let happenings = vec![(0, Happening::FallsSilent), (1, Happening::Fails), (2, Happening::Succeeds)];
    rolls_out(2, false, false, happenings).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_happens_a_rollout_keeps_its_limits_and_comes_to_its_end(
        at_once in 1_u64..4,
        has_windows in any::<bool>(),
        is_tried_again in any::<bool>(),
        happenings in prop::collection::vec((any::<usize>(), happening()), 0..24),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(rolls_out(at_once, has_windows, is_tried_again, happenings));
    }
}
