use farrier_campaign::{GateRecord, Opening, Rollout, StopRule};
use farrier_protocol::Text;
use proptest::prelude::*;

use super::*;
use crate::console::texts::ENGLISH;
use crate::store::campaigns::{Aborted, Stopped};
use crate::store::intake::Intake;

const START: UnixMillis = UnixMillis(1_764_115_200_000);

fn after(minutes: i64) -> UnixMillis {
    UnixMillis(START.0 + minutes * 60_000)
}

fn text(text: &str) -> Text {
    text.parse().unwrap()
}

/// A campaign of three waves, of which those are open that opened at these minutes.
fn campaign(opened: &[i64]) -> Campaign {
    let wave = |size, opens| Wave { size, opens, stop: StopRule::default() };
    let waves = vec![
        wave(WaveSize::Vehicles(10), Opening::AtOnce),
        wave(WaveSize::Percent(50), Opening::AfterSuccessPercent(90)),
        wave(WaveSize::Rest, Opening::ByApproval),
    ];
    Campaign {
        name: text("winter"),
        release: text("R2"),
        every_vehicle: true,
        update_deadline_s: None,
        created_at: START,
        started_at: (!opened.is_empty()).then_some(START),
        paused_at: None,
        aborted: None,
        rollout: Rollout { waves, ..Rollout::default() },
        gate: GateRecord {
            open: u32::try_from(opened.len()).unwrap(),
            opened_at: opened.iter().copied().map(after).collect(),
            ..GateRecord::default()
        },
        stopped: None,
        starting: None,
        intake: Intake::default(),
    }
}

fn counts(vehicles: u64, at_release: u64, failed: u64) -> WaveCounts {
    WaveCounts { vehicles, at_release, failed, ended: at_release + failed, ..WaveCounts::default() }
}

fn drawn(
    campaign: &Campaign,
    counts: &[WaveCounts],
    ends: &[(u32, i64)],
    halts: &[Halt],
    now: i64,
) -> TimeLine {
    let ends = ends.iter().map(|(wave, at)| (*wave, after(*at))).collect();
    let goes_on = campaign.started_at.is_some() && campaign.aborted.is_none();
    let waves = Waves { counts, vehicles: 100, goes_on };
    TimeLine::drawn(&ENGLISH, campaign, waves, (&ends, halts), after(now))
}

fn at(x: &str) -> f64 {
    x.parse().unwrap()
}

#[test]
fn what_is_over_goes_on_or_is_closed_stands_in_this_order_with_what_opens_the_next() {
    let counted = [counts(10, 9, 1), counts(50, 20, 0), counts(40, 0, 0)];
    let line = drawn(&campaign(&[0, 60]), &counted, &[(1, 45)], &[], 120);
    let stages: Vec<_> = line.rows.iter().map(|row| row.stage).collect();
    assert_eq!(stages, [Stage::Over, Stage::Open, Stage::Closed]);
    let said: Vec<_> = line.rows.iter().map(|row| row.when.as_str()).collect();
    assert_eq!(
        said,
        [
            "took 45 min, from 2025-11-26 00:00:00 UTC to 2025-11-26 00:45:00 UTC",
            "open since 2025-11-26 01:00:00 UTC, for 1 h",
            "opens by approval of a second person",
        ]
    );
    assert_eq!(line.rows[0].counted.as_deref(), Some("10 of 10 ended · 9 at the release · 1 failed"));
    assert_eq!(line.rows[2].counted.as_deref(), Some("40 vehicles"));
    // 45 of 120 minutes, and from the middle until now; what is closed is no part of the time.
    let [first, second, third] = [0, 1, 2].map(|index| &line.rows[index].bar);
    assert_eq!((at(&first.x), at(&first.width)), (0.0, 30.0));
    assert_eq!((at(&second.x), at(&second.x) + at(&second.width)), (40.0, 80.0));
    assert_eq!((third.class, at(&third.x), at(&third.x) + at(&third.width)), ("later", 84.5, 100.0));
    assert_eq!(line.now.as_deref(), Some("80"));
    let classes: Vec<_> = line.rows[0].vehicles.iter().map(|piece| (piece.class, at(&piece.width))).collect();
    assert_eq!(classes, [("ok", 27.0), ("bad", 3.0)]);
    assert!(line.marks.iter().all(|mark| mark.label.ends_with(":30") || mark.label.ends_with(":00")));
    assert!(line.description.contains("Wave 2: 20 of 50 ended"), "{}", line.description);

    let line = drawn(&campaign(&[0]), &[counts(10, 4, 0), counts(50, 0, 0), counts(40, 0, 0)], &[], &[], 5);
    assert_eq!(line.rows[1].when, "opens when 90 % of the wave before run the release; 40 % do now");
    assert_eq!(line.rows[2].when, "opens by approval of a second person");
    let paused = Campaign { paused_at: Some(after(4)), ..campaign(&[0]) };
    let line = drawn(&paused, &[counts(10, 4, 0), counts(50, 0, 0), counts(40, 0, 0)], &[], &[], 5);
    assert!(line.rows[1].when.ends_with("; not before the campaign is resumed"), "{}", line.rows[1].when);
}

#[test]
fn before_the_start_there_are_places_and_no_times() {
    let line = drawn(&campaign(&[]), &[WaveCounts::default(); 3], &[], &[], 5);
    assert!(line.marks.is_empty() && line.now.is_none() && line.signs.is_empty());
    let bars: Vec<_> = line.rows.iter().map(|row| (row.bar.class, at(&row.bar.x))).collect();
    assert_eq!(bars, [("later", 0.0), ("later", 33.3), ("later", 66.6)]);
    let sizes: Vec<_> = line.rows.iter().map(|row| row.counted.as_deref()).collect();
    assert_eq!(sizes, [Some("10 vehicles"), Some("50 vehicles"), Some("40 vehicles")]);
    let mut chosen = campaign(&[]);
    chosen.rollout.waves[0].size = WaveSize::Where("tag = \"pilot\"".parse().unwrap());
    let line = drawn(&chosen, &[WaveCounts::default(); 3], &[], &[], 5);
    assert!(line.rows.iter().all(|row| row.counted.is_none()), "nobody has counted them");
}

#[test]
fn pauses_and_stops_cross_the_waves_that_were_open_then() {
    let halts = [
        Halt { why: Why::Paused, from: after(30), until: Some(after(60)) },
        Halt { why: Why::Stopped, from: after(90), until: None },
    ];
    let stopped = Stopped {
        at: after(90),
        reason: farrier_campaign::StopReason { wave: None, failed: 1, inconsistent: 0, vehicles: 60 },
    };
    let campaign = Campaign { stopped: Some(stopped), ..campaign(&[0, 60]) };
    let counted = [counts(10, 9, 0), counts(50, 20, 1), counts(40, 0, 0)];
    let line = drawn(&campaign, &counted, &[], &halts, 120);
    let crossed = |row: usize| -> Vec<_> {
        line.rows[row].halts.iter().map(|piece| (piece.class, at(&piece.x), at(&piece.width))).collect()
    };
    assert_eq!(crossed(0), [("paused", 20.0, 20.0), ("stopped", 60.0, 20.0)]);
    assert_eq!(crossed(1), [("stopped", 60.0, 20.0)]);
    assert_eq!(crossed(2), []);
    let signs: Vec<_> = line.signs.iter().map(|sign| sign.text.as_str()).collect();
    assert_eq!(
        signs,
        ["Paused 2025-11-26 00:30:00 UTC, for 30 min", "Stopped by its rule 2025-11-26 01:30:00 UTC"]
    );
}

#[test]
fn what_was_aborted_ends_then_and_its_closed_waves_never_opened() {
    let aborted = Aborted { at: after(60), reason: text("wrong release") };
    let campaign = Campaign { aborted: Some(aborted), ..campaign(&[0]) };
    let cancelled = WaveCounts { left_out: 50, ..counts(50, 0, 0) };
    let line = drawn(&campaign, &[counts(10, 10, 0), cancelled, cancelled], &[(1, 30)], &[], 9_000);
    assert_eq!(line.rows[1].when, "was never opened");
    assert_eq!(at(&line.rows[0].bar.width), 40.0, "half of the time until the end");
    assert!(line.now.is_none());
}

#[test]
fn the_drawing_of_what_goes_on_does_not_change_with_every_second() {
    for minutes in [0, 3, 60, 1_440, 43_200] {
        let from = START.0 + minutes * 60_000;
        let mut edges: Vec<_> =
            (0..60).map(|second| edge(START, UnixMillis(from + second * 1_000)).0).collect();
        assert!(edges.iter().zip(0..).all(|(edge, second)| *edge >= from + second * 1_000));
        edges.dedup();
        assert!(edges.len() <= if minutes < 60 { 60 } else { 5 }, "{minutes}: {}", edges.len());
    }
}

proptest! {
    #[test]
    fn everything_lies_in_the_drawing(
        opened in prop::collection::vec(-100_i64..100_000, 0..4),
        over in -100_i64..100_000,
        now in -100_i64..200_000,
        from in -100_i64..100_000,
        lasts in 0_i64..10_000,
        ended in 0_u64..=20,
    ) {
        let halts = [Halt { why: Why::Paused, from: after(from), until: Some(after(from + lasts)) }];
        let counted = [counts(20, ended, 0), counts(20, ended, 20 - ended), counts(20, 0, ended)];
        let line = drawn(&campaign(&opened), &counted, &[(1, over), (2, over)], &halts, now);
        for row in &line.rows {
            let (from, until) = (at(&row.bar.x), at(&row.bar.x) + at(&row.bar.width));
            prop_assert!(from >= 0.0 && until <= 100.001 && until - from >= 0.5, "{row:?}");
            for piece in row.vehicles.iter().chain(&row.halts) {
                prop_assert!(at(&piece.x) >= from - 0.001 && at(&piece.x) + at(&piece.width) <= until + 0.001, "{row:?}");
            }
        }
        for x in line.marks.iter().map(|mark| &mark.x).chain(line.signs.iter().map(|sign| &sign.x)) {
            prop_assert!((0.0..=100.0).contains(&at(x)), "{line:?}");
        }
    }
}
