use super::*;

const NOW: UnixMillis = UnixMillis(1_000_000_000);

fn wave(size: WaveSize, opens: Opening) -> Wave {
    Wave { size, opens, stop: StopRule::default() }
}

fn three_waves() -> Rollout {
    Rollout {
        waves: vec![
            wave(WaveSize::Vehicles(10), Opening::AtOnce),
            wave(WaveSize::Percent(25), Opening::AfterSuccessPercent(90)),
            wave(WaveSize::Rest, Opening::ByHand),
        ],
        ..Rollout::default()
    }
}

fn counts(standings: &[(Standing, u64)]) -> WaveCounts {
    let mut counts = WaveCounts::default();
    for (standing, vehicles) in standings {
        counts.add(*standing, *vehicles);
    }
    counts
}

#[test]
fn what_cannot_be_carried_out_is_refused_where_it_stands() {
    let ok = three_waves();
    assert_eq!(ok.check(), Ok(()));
    type Break = fn(&mut Rollout);
    let broken: [(&str, Break); 10] = [
        ("/waves", |rollout| rollout.waves = vec![rollout.waves[0].clone(); 101]),
        ("/vehicles_at_once", |rollout| rollout.vehicles_at_once = Some(0)),
        ("/starts_per_minute", |rollout| rollout.starts_per_minute = Some(0)),
        ("/stop/failures", |rollout| rollout.stop.failures = Some(0)),
        ("/stop/failed_percent", |rollout| rollout.stop.failed_percent = Some(101)),
        ("/waves/0/size", |rollout| rollout.waves[0].size = WaveSize::Vehicles(0)),
        ("/waves/1/size", |rollout| rollout.waves[1].size = WaveSize::Rest),
        ("/waves/2/size", |rollout| rollout.waves[2].size = WaveSize::Percent(10)),
        ("/waves/1/opens", |rollout| rollout.waves[1].opens = Opening::AtOnce),
        ("/waves/0/opens", |rollout| rollout.waves[0].opens = Opening::AfterSuccessPercent(10)),
    ];
    for (pointer, break_it) in broken {
        let mut rollout = ok.clone();
        break_it(&mut rollout);
        assert_eq!(rollout.check().unwrap_err().pointer, pointer);
    }
}

#[test]
fn vehicles_are_shared_out_among_the_waves() {
    assert_eq!(three_waves().wave_ends(200), [10, 60, u64::MAX]);
    assert_eq!(three_waves().wave_ends(201), [10, 61, u64::MAX]);
    assert_eq!(Rollout::default().wave_ends(7), [u64::MAX]);
}

#[test]
fn a_wave_opens_when_its_time_has_come() {
    let rollout = three_waves();
    let mut record = GateRecord::default();
    let mut waves = [WaveCounts::default(); 3];
    assert!(rollout.opens_next(&waves, &record, NOW));
    record.open = 1;
    waves[0] = counts(&[(Standing::Succeeded, 7), (Standing::RolledBack, 1), (Standing::Waiting, 2)]);
    assert!(!rollout.opens_next(&waves, &record, NOW));
    // 8 of the 8 that count.
    waves[0] = counts(&[(Standing::Succeeded, 7), (Standing::UpToDate, 1), (Standing::Ineligible, 2)]);
    assert!(rollout.opens_next(&waves, &record, NOW));
    record.open = 2;
    assert!(!rollout.opens_next(&waves, &record, NOW));
    record.open_next = true;
    assert!(rollout.opens_next(&waves, &record, NOW));
    record.open = 3;
    assert!(!rollout.opens_next(&waves, &record, NOW));
}

#[test]
fn a_wave_with_a_time_opens_at_it() {
    let mut rollout = three_waves();
    rollout.waves[1].opens = Opening::At(NOW);
    let record = GateRecord { open: 1, ..GateRecord::default() };
    let waves = [WaveCounts::default(); 3];
    assert_eq!(rollout.opens_at(&record), Some(NOW));
    assert!(!rollout.opens_next(&waves, &record, UnixMillis(NOW.0 - 1)));
    assert!(rollout.opens_next(&waves, &record, NOW));
}

#[test]
fn the_first_mix_of_software_stops_by_itself_and_a_silent_vehicle_counts_once_its_deadline_has_passed() {
    let record = GateRecord::default();
    let mixed = [counts(&[(Standing::Succeeded, 99), (Standing::Inconsistent, 1)])];
    let reason = Rollout::default().stop_reason(&mixed, &record).unwrap();
    assert_eq!(reason.sentence(), "1 of 100 vehicles failed, 1 of them with a mix of software.");
    let mut rollout = Rollout::default();
    rollout.stop.failures = Some(3);
    let silent = counts(&[(Standing::Overdue, 2), (Standing::Downloading, 5), (Standing::Declined, 9)]);
    assert_eq!(rollout.stop_reason(&[silent], &record), None);
    let silent = counts(&[(Standing::Overdue, 1), (Standing::Unknown, 1), (Standing::RolledBack, 1)]);
    assert_eq!(rollout.stop_reason(&[silent], &record).unwrap().failed, 3);
}

#[test]
fn the_rule_of_a_wave_goes_by_its_own_vehicles() {
    let mut rollout = three_waves();
    rollout.waves[1].stop.failed_percent = Some(10);
    let record = GateRecord::default();
    let mut waves = [WaveCounts::default(); 3];
    waves[0] = counts(&[(Standing::RolledBack, 10)]);
    waves[1] = counts(&[(Standing::RolledBack, 4), (Standing::Waiting, 46)]);
    assert_eq!(rollout.stop_reason(&waves, &record), None);
    waves[1] = counts(&[(Standing::RolledBack, 5), (Standing::Waiting, 45)]);
    let reason = rollout.stop_reason(&waves, &record).unwrap();
    assert_eq!(reason.sentence(), "5 of 50 vehicles of wave 2 failed, 0 of them with a mix of software.");
}

#[test]
fn what_an_operator_knew_of_stops_no_more() {
    let mut rollout = Rollout::default();
    rollout.stop.failures = Some(2);
    let known = counts(&[(Standing::Inconsistent, 1), (Standing::RolledBack, 1)]);
    let record = GateRecord { forgiven: vec![known], ..GateRecord::default() };
    assert_eq!(rollout.stop_reason(&[known], &record), None);
    let one_more = counts(&[(Standing::Inconsistent, 1), (Standing::RolledBack, 2)]);
    assert_eq!(rollout.stop_reason(&[one_more], &record), None);
    let two_more = counts(&[(Standing::Inconsistent, 1), (Standing::RolledBack, 3)]);
    assert!(rollout.stop_reason(&[two_more], &record).is_some());
}

#[test]
fn room_is_what_is_left_at_once_and_in_this_minute() {
    let rollout = Rollout { vehicles_at_once: Some(10), starts_per_minute: Some(4), ..Rollout::default() };
    let mut record = GateRecord::default();
    let waves = |under_way| [counts(&[(Standing::Downloading, under_way), (Standing::Deferred, 50)])];
    assert_eq!(rollout.room(&waves(0), &record, NOW), Ok(4));
    assert_eq!(rollout.room(&waves(8), &record, NOW), Ok(2));
    assert_eq!(rollout.room(&waves(10), &record, NOW), Err(NoRoom::AtOnce(10)));
    (0..4).for_each(|_| record.note_start(NOW));
    let next = UnixMillis((NOW.0 / 60_000 + 1) * 60_000);
    assert_eq!(rollout.room(&waves(3), &record, NOW), Err(NoRoom::Minute(4, next)));
    assert_eq!(rollout.room(&waves(3), &record, next), Ok(4));
}

#[test]
fn a_standing_has_one_name_and_is_found_by_it() {
    for standing in Standing::ALL {
        assert_eq!(standing.name().parse(), Ok(standing));
    }
}
