//! How scripts say what a campaign, a release and a vehicle are like.

use farrier_campaign::{
    Opening, ReleaseRules, RetryCode, RetryRule, Rollout, Rule, StopRule, VersionScheme, Wave, WaveSize,
    Window,
};
use serde_json::json;

use super::people;
use crate::testbed::{START, text};

/// A word of a script for as long as the test runs.
pub(super) fn spoken(word: &str) -> &'static str {
    word.to_owned().leak()
}

/// `at-once=2`, `retry=UPDATE_FAILED,attempts=3,pause=60`, `per-minute=5`, `stop-after=3`, `wave=2`, `wave=50%,after=100`, `wave=rest,by-hand`,
/// `window=22:00-05:00`, `spread=600`, `ends-in=3600`.
pub(super) fn rollout(words: &[&str]) -> Rollout {
    let mut rollout = Rollout::default();
    for word in words {
        let (key, value) = word.split_once('=').unwrap();
        match key {
            "a-mix" => rollout.stop.inconsistent = value != "stops-nothing",
            "at-once" => rollout.vehicles_at_once = Some(value.parse().unwrap()),
            "per-minute" => rollout.starts_per_minute = Some(value.parse().unwrap()),
            "stop-after" => rollout.stop.failures = Some(value.parse().unwrap()),
            "retry" => rollout.retries.push(retry(value)),
            "wave" => rollout.waves.push(wave(value)),
            "window" => {
                let (from, to) = value.split_once('-').unwrap();
                let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
                rollout.windows.push(Window { days: Vec::new(), from, to });
            }
            "spread" => rollout.spread_s = Some(value.parse().unwrap()),
            "ends-in" => rollout.not_after = Some(START.plus_seconds(value.parse().unwrap())),
            other => panic!("no {other} in a rollout"),
        }
    }
    rollout
}

fn wave(value: &str) -> Wave {
    let (size, opening) = value.split_once(',').unwrap_or((value, ""));
    let size = match (size, size.strip_suffix('%')) {
        ("rest", _) => WaveSize::Rest,
        (tagged, None) if tagged.starts_with("tag:") => WaveSize::Where(people::tagged(&tagged[4..])),
        (_, Some(percent)) => WaveSize::Percent(percent.parse().unwrap()),
        (number, None) => WaveSize::Vehicles(number.parse().unwrap()),
    };
    let opens = match (opening, opening.strip_prefix("after=")) {
        ("", _) => Opening::AtOnce,
        ("by-hand", _) => Opening::ByHand,
        ("by-approval", _) => Opening::ByApproval,
        (_, share) => Opening::AfterSuccessPercent(share.unwrap().parse().unwrap()),
    };
    Wave { size, opens, stop: StopRule::default() }
}

fn retry(value: &str) -> RetryRule {
    let mut words = value.split(',');
    let code: RetryCode = serde_json::from_value(json!(words.next().unwrap())).unwrap();
    let mut rule = RetryRule { code, attempts: 2, pause_s: 60, factor: 2, longest_pause_s: 3_600 };
    for word in words {
        match word.split_once('=').unwrap() {
            ("attempts", number) => rule.attempts = number.parse().unwrap(),
            ("pause", seconds) => rule.pause_s = seconds.parse().unwrap(),
            other => panic!("no {other:?} in a rule"),
        }
    }
    rule
}

/// `HW-1@2`, an image; `needs=HW-3@1.5`, `order=HW-2,HW-1`, `from=HW-1@1`, rules. Versions are dotted numbers.
pub(super) fn release(words: &[&str]) -> (Vec<(&'static str, &'static str)>, ReleaseRules) {
    let mut images = Vec::new();
    let mut rules = ReleaseRules { scheme: Some(VersionScheme::Dotted), ..ReleaseRules::default() };
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            images.push(spoken(word).split_once('@').unwrap());
            continue;
        };
        let (one, other) = value.split_once(['@', ',']).unwrap();
        rules.rules.push(match key {
            "needs" => Rule::Needs { hw_part_no: text(one), when_updating: None, at_least: text(other) },
            "order" => Rule::Order { first: text(one), then: text(other) },
            "from" => Rule::EarlierVersions { hw_part_no: text(one), versions: vec![text(other)] },
            other => panic!("no {other} in a release"),
        });
    }
    (images, rules)
}
