//! Which campaign's update of a vehicle goes first.

use std::collections::BTreeMap;

use farrier_campaign::{Block, Hold, Rollout, State, WaitingOn};
use farrier_protocol::{MessageType, UpTopic};
use proptest::prelude::*;
use serde_json::json;

use crate::store::campaigns;
use crate::store::intake::Intake;
use crate::store::test_database::TestDatabase;
use crate::testbed::{Car, World, text};

async fn campaign(world: &World, number: usize, priority: u16) {
    let intake = Intake { priority, ..Intake::default() };
    let (name, release) = (format!("C{number}"), format!("R{number}"));
    world.campaign_of(&name, &release, None, Rollout::default(), intake).await;
}

async fn pause(world: &mut World, number: usize) {
    let name = text(&format!("C{number}"));
    world.write(move |tx, _, now| campaigns::pause(tx, &name, now)).await;
    world.run_due().await;
}

async fn resume(world: &mut World, number: usize) {
    let name = text(&format!("C{number}"));
    world
        .write(move |tx, _, _| {
            let campaign = campaigns::by_name(tx, &name)?.unwrap();
            campaigns::resume(tx, &campaign)
        })
        .await;
    world.run_due().await;
}

/// The state of a vehicle's update in each campaign that has one.
async fn states(world: &World, car: &Car, campaigns: usize) -> BTreeMap<usize, State> {
    let mut states = BTreeMap::new();
    for number in 2..2 + campaigns {
        let (campaign, vehicle_id) = (text(&format!("C{number}")), car.binding.vehicle_id.clone());
        let update =
            world.read(move |tx| crate::store::updates::of_vehicle_in(tx, &campaign, &vehicle_id)).await;
        states.extend(update.map(|update| (number, update.state)));
    }
    states
}

/// The vehicle does what it is asked, one thing after the other.
async fn does_what_it_is_asked(world: &World, car: &mut Car, campaigns: usize, is_ready: bool) {
    for command in car.commands(world).await {
        let id = command.msg_id.to_string();
        // What was overtaken meanwhile is refused.
        match command.message_type() {
            MessageType::RequestVci => {
                car.send(world, UpTopic::Vci, &car.vci(&id)).await;
            }
            MessageType::RequestDownloadReadiness => {
                let mut body = json!({
                    "correlation_id": id, "ready": is_ready, "requested_fields": {"power.battery_12v_v": 12.4},
                });
                if !is_ready {
                    body["not_ready_reasons"] = json!(["POWER_LOW"]);
                }
                car.send(world, UpTopic::Readiness, &car.message("ReadinessReportForDownload", body)).await;
            }
            MessageType::StartDownload => {
                let states = states(world, car, campaigns).await;
                let (number, _) = states.iter().find(|(_, state)| state.is_active()).unwrap();
                let version = ["2", "3", "4"][number - 2];
                car.versions = vec![version, version];
                car.report(world, &id, "commit").await;
            }
            other @ (MessageType::WakeUp
            | MessageType::SendVci
            | MessageType::ReadinessReportForDownload
            | MessageType::UpdateSuccessResult
            | MessageType::StartRollback
            | MessageType::CancelUpdate
            | MessageType::ErrorResponse
            | MessageType::MessageRejected) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn of_two_that_can_begin_the_higher_priority_begins_and_the_other_says_why_it_waits() {
    for database in TestDatabase::both() {
        let mut world = World::on(database);
        world.release("R2", "2").await;
        world.release("R3", "3").await;
        let mut car = Car::known(&world, "V1").await;
        world.set_connected(false);
        campaign(&world, 2, 500).await;
        campaign(&world, 3, 900).await;
        car.wake_up(&world).await;
        world.set_connected(true);
        let states = states(&world, &car, 2).await;
        assert_eq!(states[&3].name(), "collecting_vci");
        let expected = WaitingOn::GoesAfter { campaign: "C3".to_owned(), priority: 900, own_priority: 500 };
        let other = WaitingOn::OtherUpdate { campaign: "C3".to_owned() };
        let found = states[&2].waiting_on().unwrap();
        assert!(found == expected || found == other, "{found:?}");
        // The other one is planned against what the vehicle runs by then.
        for _ in 0..5 {
            does_what_it_is_asked(&world, &mut car, 2, true).await;
            world.run_due().await;
        }
        let states = self::states(&world, &car, 2).await;
        assert_eq!(states[&3].name(), "succeeded");
        let plan = states[&2].plan().unwrap();
        assert!(plan.packages.iter().all(|package| package.earlier_version.as_str() == "3"), "{plan:?}");
    }
}

#[tokio::test]
async fn a_campaign_that_is_paused_holds_nobody_back() {
    for database in TestDatabase::both() {
        let mut world = World::on(database);
        for (release, version) in [("R2", "2"), ("R3", "3")] {
            world.release(release, version).await;
        }
        let car = Car::known(&world, "V1").await;
        world.set_connected(false);
        campaign(&world, 2, 900).await;
        campaign(&world, 3, 500).await;
        let waits = states(&world, &car, 2).await[&3].waiting_on();
        let first = WaitingOn::GoesAfter { campaign: "C2".to_owned(), priority: 900, own_priority: 500 };
        assert_eq!(waits, Some(first));
        world.set_connected(true);
        pause(&mut world, 2).await;
        let states = states(&world, &car, 2).await;
        assert_eq!(states[&2].waiting_on(), Some(WaitingOn::CampaignPaused));
        assert_eq!(states[&3].name(), "collecting_vci", "nothing is before it any more");
        resume(&mut world, 2).await;
        let states = self::states(&world, &car, 2).await;
        let under_way = Hold::Blocked(Block::OtherUpdate { campaign: text("C3") });
        assert_eq!(states[&2], State::Waiting { hold: under_way }, "what is under way is not ended");
    }
}

#[derive(Debug, Clone, Copy)]
enum Happening {
    WakesUp,
    DoesTheNextThing,
    IsNotReady,
    Goes,
    Comes,
    Pause(usize),
    Resume(usize),
    Pass(u64),
    Start(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => Just(Happening::WakesUp),
        4 => Just(Happening::DoesTheNextThing),
        1 => Just(Happening::IsNotReady),
        1 => Just(Happening::Goes),
        1 => Just(Happening::Comes),
        1 => (2_usize..5).prop_map(Happening::Pause),
        1 => (2_usize..5).prop_map(Happening::Resume),
        1 => (1_u64..2_000).prop_map(Happening::Pass),
        3 => (2_usize..5).prop_map(Happening::Start),
    ]
}

/// Priority and start of each campaign that has started: the first goes first.
type Ranks = BTreeMap<usize, (std::cmp::Reverse<u16>, i64, usize)>;

async fn happens(
    world: &mut World,
    car: &mut Car,
    happening: Happening,
    priorities: [u16; 3],
    ranks: &mut Ranks,
) {
    match happening {
        Happening::WakesUp => {
            world.set_connected(true);
            car.wake_up(world).await;
        }
        Happening::DoesTheNextThing => does_what_it_is_asked(world, car, 3, true).await,
        Happening::IsNotReady => does_what_it_is_asked(world, car, 3, false).await,
        Happening::Goes => world.set_connected(false),
        Happening::Comes => world.set_connected(true),
        Happening::Pause(number) if ranks.contains_key(&number) => pause(world, number).await,
        Happening::Resume(number) if ranks.contains_key(&number) => resume(world, number).await,
        Happening::Pass(seconds) => world.pass(seconds).await,
        Happening::Start(number) if !ranks.contains_key(&number) => {
            world.pass(1).await;
            let priority = priorities[number - 2];
            campaign(world, number, priority).await;
            ranks.insert(number, (std::cmp::Reverse(priority), world.now.0, number));
        }
        Happening::Pause(_) | Happening::Resume(_) | Happening::Start(_) => {}
    }
}

/// No two are under way, and none that has just begun has left one behind that goes before it.
fn check(before: &BTreeMap<usize, State>, after: &BTreeMap<usize, State>, ranks: &Ranks) {
    let under_way: Vec<_> = after.iter().filter(|(_, state)| state.is_active()).collect();
    assert!(under_way.len() <= 1, "{under_way:?}");
    let began =
        under_way.into_iter().filter(|(number, _)| before.get(number).is_none_or(|state| !state.is_active()));
    for (number, _) in began {
        let first = after
            .iter()
            .find(|(other, state)| ranks[*other] < ranks[number] && waits_for_the_vehicle_alone(state));
        assert!(first.is_none(), "{number} began before {first:?}");
    }
}

fn waits_for_the_vehicle_alone(state: &State) -> bool {
    matches!(state, State::Waiting { hold: Hold::VehicleAway })
}

async fn goes_in_order(priorities: [u16; 3], happenings: Vec<Happening>) {
    let mut world = World::new();
    for (release, version) in [("R2", "2"), ("R3", "3"), ("R4", "4")] {
        world.release(release, version).await;
    }
    let mut car = Car::known(&world, "V1").await;
    let mut ranks = Ranks::new();
    let mut before = BTreeMap::new();
    for happening in happenings {
        happens(&mut world, &mut car, happening, priorities, &mut ranks).await;
        let after = states(&world, &car, 3).await;
        check(&before, &after, &ranks);
        before = after;
    }
    // Once nothing stands in its way, each comes to its end.
    for number in ranks.keys() {
        resume(&mut world, *number).await;
    }
    for _ in 0..40 {
        world.set_connected(true);
        car.wake_up(&world).await;
        does_what_it_is_asked(&world, &mut car, 3, true).await;
        world.pass(1_000).await;
        let after = states(&world, &car, 3).await;
        check(&before, &after, &ranks);
        before = after;
    }
    assert!(before.values().all(State::is_final), "{before:?}");
}

/// The first update ended in silence, and the vehicle wakes up when the second has just begun: what is asked for the second
/// tells what became of the first.
#[tokio::test]
async fn what_an_update_asks_tells_of_one_of_unknown_outcome_and_only_one_is_under_way() {
    use Happening::{DoesTheNextThing, Pass, Start, WakesUp};
    for database in TestDatabase::both() {
        let mut world = World::on(database);
        for (release, version) in [("R2", "2"), ("R3", "3"), ("R4", "4")] {
            world.release(release, version).await;
        }
        let mut car = Car::known(&world, "V1").await;
        let mut ranks = Ranks::new();
        let mut before = BTreeMap::new();
        let silence =
            [Start(2), DoesTheNextThing, DoesTheNextThing, DoesTheNextThing, Pass(1_799), Start(3), WakesUp];
        for happening in silence {
            happens(&mut world, &mut car, happening, [100, 100, 100], &mut ranks).await;
            let after = states(&world, &car, 3).await;
            check(&before, &after, &ranks);
            before = after;
        }
        assert_eq!((before[&2].name(), before[&3].name()), ("unknown", "collecting_vci"));
        does_what_it_is_asked(&world, &mut car, 3, true).await;
        let after = states(&world, &car, 3).await;
        assert_eq!((after[&2].name(), after[&3].is_active()), ("succeeded", true), "{after:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_vehicle_is_in_one_update_at_a_time_and_the_first_in_order_begins(
        priorities in prop::array::uniform3(prop_oneof![Just(100_u16), Just(500), Just(900)]),
        happenings in prop::collection::vec(happening(), 0..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(goes_in_order(priorities, happenings));
    }
}
