use serde_json::json;

use super::*;

fn updates(count: u64) -> Vec<VehicleUpdate> {
    let update = |number| {
        let (state, sentence, waits) = match number % 4 {
            0 => ("succeeded", "The vehicle reported success, and runs the new versions.", None),
            1 => ("waiting", "The vehicle waits for its wave 3 to open.", Some("wave_to_open")),
            2 => ("downloading", "The vehicle has until 20:00 UTC to report the download.", Some("step")),
            _ => ("rolled_back", "The vehicle reported that the update failed (ecu_004).", None),
        };
        serde_json::from_value(json!({
            "vehicle_id": format!("VEH_{number:03}"), "state": state, "sentence": sentence,
            "waiting_on": waits.map(|kind| json!({"kind": kind})),
        }))
        .unwrap()
    };
    (1..=count).map(update).collect()
}

fn campaign(state: &str) -> Value {
    let wave = |wave, is_open, vehicles, ended, failed| {
        json!({"wave": wave, "is_open": is_open, "vehicles": vehicles, "under_way": if is_open { 7 } else { 0 },
               "at_release": ended - failed, "failed": failed, "left_out": 0, "ended": ended})
    };
    json!({
        "name": "winter", "release": "2026.11", "state": state, "vehicles": 1200, "ended": 61,
        "states": {"waiting": 1100, "collecting_vci": 9, "downloading": 20, "installing": 10,
                   "succeeded": 59, "rolled_back": 2},
        "waves": [wave(1, true, 10, 10, 0), wave(2, true, 190, 51, 2), wave(3, false, 500, 0, 0),
                  wave(4, false, 400, 0, 0), wave(5, false, 100, 0, 0)],
        "rollout": {"waves": [{}, {"opens": {"after_success_percent": 90}}, {"opens": "by_hand"}, {}, {}],
                    "stop": {"failures": 20, "failed_percent": 2}},
    })
}

fn drawn(campaign: &Value, width: usize, height: usize, change: impl FnOnce(&mut View<'_>)) -> Vec<Line> {
    let campaign: CampaignAnswer = serde_json::from_value(campaign.clone()).unwrap();
    let events: Vec<String> =
        (1..=8).map(|minute| format!("2026-11-26 10:0{minute}:00 UTC  token:kim  campaign.paused")).collect();
    let updates = updates(100);
    let mut view = View {
        campaign: &campaign,
        updates: &updates,
        vehicles_before: 0,
        above: 0,
        has_more: true,
        events: &events,
        pace: Some(Pace { ended: 40, within: Duration::from_secs(120) }),
        trouble: None,
        question: None,
        at: "2026-11-26 10:09:00 UTC".to_owned(),
        has_colour: true,
    };
    change(&mut view);
    lines(&view, width, height)
}

fn text(lines: &[Line]) -> String {
    lines.iter().map(|line| format!("{}\n", line.text.trim_end())).collect()
}

#[test]
fn a_screen_of_the_usual_size_shows_all_that_matters() {
    let lines = drawn(&campaign("running"), 80, 24, |_| {});
    insta::assert_snapshot!("screen_80x24", text(&lines));
}

#[test]
fn a_large_screen_shows_more_vehicles_and_changes() {
    let lines = drawn(&campaign("running"), 120, 40, |view| {
        (view.vehicles_before, view.above) = (100, 5);
    });
    insta::assert_snapshot!("screen_120x40", text(&lines));
}

#[test]
fn every_size_is_filled_and_never_exceeded() {
    for (width, height) in [(80, 24), (120, 40), (40, 10), (20, 5), (1, 1), (0, 0), (300, 100)] {
        let lines =
            drawn(&campaign("paused"), width, height, |view| view.trouble = Some("The server is away."));
        assert_eq!(lines.len(), height, "{width}x{height}");
        for line in &lines {
            assert!(line.text.chars().count() <= width, "{width}x{height}: {:?}", line.text);
        }
    }
}

#[test]
fn what_a_colour_says_stands_in_the_text_and_colours_can_be_switched_off() {
    let mut stopped = campaign("stopped");
    stopped["stop_sentence"] = json!("20 of 1200 vehicles have failed.");
    let coloured = drawn(&stopped, 80, 24, |_| {});
    let plain = drawn(&stopped, 80, 24, |view| view.has_colour = false);
    assert_eq!(text(&coloured), text(&plain));
    assert!(text(&plain).contains("State: stopped; by its rule: 20 of 1200 vehicles have failed."));
    assert!(coloured.iter().any(|line| line.style == Style::Bad));
    let coloured_styles = [Style::Good, Style::Bad, Style::Warning];
    assert!(plain.iter().all(|line| !coloured_styles.contains(&line.style)));
}

#[test]
fn a_question_stands_where_the_keys_did_and_nothing_can_control_the_terminal() {
    let mut hostile = campaign("running");
    hostile["name"] = json!("a\u{1b}[2Jb");
    let lines = drawn(&hostile, 80, 24, |view| view.question = Some("Pause this campaign? y: yes"));
    assert_eq!(lines.last().unwrap().text, "Pause this campaign? y: yes");
    assert!(!text(&lines).contains('\u{1b}'));
}

#[test]
fn a_campaign_that_has_just_been_planned_is_shown_too() {
    let draft = json!({"name": "new", "release": "r", "state": "draft"});
    let lines = drawn(&draft, 80, 24, |view| (view.updates, view.has_more, view.pace) = (&[], false, None));
    let text = text(&lines);
    for part in
        ["State: draft; starts with: farrier campaign start new", "no vehicle is taken in yet", "not known"]
    {
        assert!(text.contains(part), "expected {part} in {text}");
    }
}

#[test]
fn spans_are_told_in_the_units_that_matter() {
    for (seconds, text) in
        [(9, "9 s"), (61, "1 min 1 s"), (700, "11 min"), (7_260, "2 h 1 min"), (180_000, "2 d 2 h")]
    {
        assert_eq!(span(Duration::from_secs(seconds)), text);
    }
}
