use proptest::prelude::*;

use super::*;
use crate::window::{Weekday, Window};

/// Friday, 15 January 2027, 08:00 UTC.
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const HOUR_MS: i64 = 3_600_000;

fn hours(hours: i64) -> UnixMillis {
    UnixMillis(NOW.0 + hours * HOUR_MS)
}

fn text(text: &str) -> Text {
    text.parse().unwrap()
}

fn morning() -> Rollout {
    let window = Window { days: vec![], from: "09:00".parse().unwrap(), to: "11:00".parse().unwrap() };
    Rollout { windows: vec![window], ..Rollout::default() }
}

fn judged_in(zone: Option<&str>, rollout: &Rollout, now: UnixMillis) -> Option<Block> {
    let (campaign, vehicle_id) = (text("C"), "V1".parse().unwrap());
    let candidate =
        Candidate { campaign: &campaign, vehicle_id: &vehicle_id, time_zone: zone, opened_at: NOW };
    rollout.not_its_turn(&candidate, now)
}

fn judged(rollout: &Rollout, now: UnixMillis) -> Option<Block> {
    judged_in(None, rollout, now)
}

#[test]
fn outside_its_window_a_vehicle_waits_for_its_turn_in_the_next() {
    let rollout = Rollout { spread_s: Some(0), ..morning() };
    let closed = |opens_at| Some(Block::WindowClosed { opens_at, until: opens_at });
    assert_eq!(judged(&rollout, NOW), closed(hours(1)));
    assert_eq!(judged(&rollout, hours(1)), None);
    assert_eq!(judged(&rollout, UnixMillis(hours(3).0 - 1)), None);
    assert_eq!(judged(&rollout, hours(3)), closed(hours(25)));
    // It is 17:00 in Seoul; and where nobody knows the vehicle's zone, the campaign's counts.
    assert_eq!(judged_in(Some("Asia/Seoul"), &rollout, NOW), closed(hours(16)));
    let of_berlin = Rollout { time_zone: Some(text("Europe/Berlin")), ..rollout };
    for zone in [None, Some("Nowhere/Atall")] {
        assert_eq!(judged_in(zone, &of_berlin, NOW), None, "it is 09:00 in Berlin");
    }
}

#[test]
fn a_window_that_opens_is_not_for_all_at_the_same_moment() {
    let Some(Block::WindowClosed { opens_at, until }) = judged(&morning(), NOW) else { panic!("is open") };
    assert!(opens_at == hours(1) && (hours(1)..hours(1).plus_seconds(60)).contains(&until), "{until:?}");
    assert_eq!(judged(&morning(), hours(1)), Some(Block::Spread { until }));
    assert_eq!(judged(&morning(), until), None);
    // Nothing is spread where nobody has waited for the opening.
    let started_inside = Rollout { time_zone: Some(text("Europe/Berlin")), ..morning() };
    assert_eq!(judged(&started_inside, NOW), None);
}

#[test]
fn nobody_begins_before_the_schedule_nor_after_it() {
    let days = Rollout {
        not_before: Some(hours(2)),
        not_after: Some(hours(4)),
        spread_s: Some(0),
        ..Rollout::default()
    };
    let waits = Block::ScheduleToBegin { not_before: hours(2), until: hours(2) };
    assert_eq!(judged(&days, NOW), Some(waits));
    assert_eq!(judged(&days, hours(2)), None);
    assert_eq!(judged(&days, UnixMillis(hours(4).0 - 1)), None);
    assert_eq!(judged(&days, hours(4)), Some(Block::ScheduleOver { not_after: hours(4) }));
    // The window of the day is over, and the next is too late.
    let with_window = Rollout { windows: morning().windows, ..days };
    assert_eq!(judged(&with_window, UnixMillis(hours(3).0 - 1)), None);
    assert_eq!(judged(&with_window, hours(3)), Some(Block::ScheduleOver { not_after: hours(4) }));
}

#[test]
fn what_cannot_be_carried_out_is_refused_where_it_stands() {
    type Break = fn(&mut Rollout);
    let broken: [(&str, Break); 9] = [
        ("/windows", |rollout| rollout.windows = vec![rollout.windows[0].clone(); 22]),
        ("/windows/0/days", |rollout| rollout.windows[0].days = vec![Weekday::Mon; 8]),
        ("/windows/0/from", |rollout| rollout.windows[0].from = "24:00".parse().unwrap()),
        ("/windows/0/to", |rollout| rollout.windows[0].to = rollout.windows[0].from),
        ("/time_zone", |rollout| rollout.time_zone = Some(text("Asia/Seoull"))),
        ("/not_after", |rollout| (rollout.not_before, rollout.not_after) = (Some(NOW), Some(NOW))),
        ("/spread_s", |rollout| rollout.spread_s = Some(86_401)),
        ("/bytes_per_second", |rollout| rollout.bytes_per_second = Some(1_023)),
        ("/bytes_per_second", |rollout| rollout.bytes_per_second = Some(0)),
    ];
    assert_eq!(morning().check(), Ok(()));
    for (pointer, breaks) in broken {
        let mut rollout = morning();
        breaks(&mut rollout);
        assert_eq!(rollout.check().unwrap_err().pointer, pointer);
    }
}

#[test]
fn a_schedule_is_told_in_one_sentence() {
    assert_eq!(Rollout::default().schedule_sentence(), None);
    let rollout = Rollout {
        time_zone: Some(text("Asia/Seoul")),
        not_before: Some(NOW),
        spread_s: Some(600),
        bytes_per_second: Some(20_000_000),
        ..morning()
    };
    assert_eq!(
        rollout.schedule_sentence().unwrap(),
        "Updates begin 09:00-11:00 by the vehicle's clock (Asia/Seoul where it has no time zone); none begins before \
         2027-01-15T08:00:00Z; vehicles begin spread over 600 s; all vehicles together fetch 20000000 bytes per second of a \
         server at most."
    );
}

proptest! {
    /// What a vehicle is told is true: until then it may not begin, and then it may.
    #[test]
    fn a_turn_that_is_told_comes_and_lies_within_window_spread_and_schedule(
        vehicle in 0_u32..10_000,
        at in 0_i64..200 * HOUR_MS,
        from in 0_u16..24,
        length in 1_u16..24,
        spread_s in prop::option::of(0_u64..=86_400),
        not_before in prop::option::of(0_i64..200 * HOUR_MS),
        not_after in prop::option::of(200 * HOUR_MS..400 * HOUR_MS),
        zone in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Asia/Seoul"]),
    ) {
        let time = |hour: u16| format!("{:02}:00", hour % 24).parse().unwrap();
        let window = Window { days: vec![], from: time(from), to: time(from + length) };
        let later = |ms: i64| UnixMillis(NOW.0 + ms);
        let rollout = Rollout {
            windows: vec![window],
            not_before: not_before.map(later),
            not_after: not_after.map(later),
            spread_s,
            ..Rollout::default()
        };
        let (campaign, vehicle_id) = (text("C"), format!("V{vehicle}").parse().unwrap());
        let candidate =
            Candidate { campaign: &campaign, vehicle_id: &vehicle_id, time_zone: Some(zone), opened_at: NOW };
        let mut now = later(at);
        match rollout.not_its_turn(&candidate, now) {
            None => {}
            Some(
                Block::WindowClosed { until, .. } | Block::ScheduleToBegin { until, .. } | Block::Spread { until },
            ) => {
                prop_assert!(until > now);
                let just_before = UnixMillis(until.0 - 1);
                prop_assert!(rollout.not_its_turn(&candidate, just_before).is_some());
                prop_assert_eq!(rollout.not_its_turn(&candidate, until), None);
                now = until;
            }
            Some(Block::ScheduleOver { not_after }) => {
                prop_assert_eq!(Some(not_after), rollout.not_after);
                return Ok(());
            }
            Some(other) => prop_assert!(false, "{:?}", other),
        }
        let zone = Zone::named(zone).unwrap();
        let span = open_span(&rollout.windows, &zone, now).unwrap();
        prop_assert!(span.from <= now && now < span.until);
        prop_assert!(rollout.not_before.is_none_or(|time| time <= now));
        prop_assert!(rollout.not_after.is_none_or(|time| now < time));
    }
}

#[test]
fn vehicles_are_spread_evenly() {
    let rollout = Rollout { spread_s: Some(600), ..Rollout::default() };
    let campaign = text("C");
    let mut per_minute = [0; 10];
    for number in 0..10_000 {
        let vehicle_id = format!("V{number}").parse().unwrap();
        let candidate =
            Candidate { campaign: &campaign, vehicle_id: &vehicle_id, time_zone: None, opened_at: NOW };
        let minute = match rollout.not_its_turn(&candidate, NOW) {
            Some(Block::Spread { until }) => (until.0 - NOW.0) / 60_000,
            _ => 0,
        };
        per_minute[usize::try_from(minute).unwrap()] += 1;
    }
    assert!(per_minute.iter().all(|vehicles| (850..1_150).contains(vehicles)), "{per_minute:?}");
}
