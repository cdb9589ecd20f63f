//! How a campaign goes out, as it is said on the command line.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::schedule::ScheduleArgs;

#[derive(Args)]
pub(crate) struct RolloutArgs {
    /// A wave: which vehicles, `,`, what opens it; can be given several times, the last one has the rest.
    /// `10`, `group:pilot` (those of a fleet group), `5%,after=95%` (when 95 % of the wave before run the release),
    /// `rest,by-hand`, `rest,by-approval` (of another person than the one who started the campaign).
    #[arg(long = "wave", value_name = "WAVE", value_parser = wave)]
    waves: Vec<Value>,
    /// Stop when so many vehicles have failed: rolled back, silent beyond the deadline, with a mix of software.
    #[arg(long, value_name = "VEHICLES")]
    stop_after: Option<u64>,
    /// Stop when so many of a hundred vehicles have failed.
    #[arg(long, value_name = "PERCENT")]
    stop_at_percent: Option<u64>,
    /// Update so many vehicles at the same time, at most.
    #[arg(long, value_name = "VEHICLES")]
    at_once: Option<u64>,
    /// Begin with so many vehicles in a minute, at most.
    #[arg(long, value_name = "VEHICLES")]
    per_minute: Option<u64>,
    #[command(flatten)]
    schedule: ScheduleArgs,
    /// Try vehicles again by themselves: how an attempt failed, or `*`, and how many attempts a vehicle has in all; then,
    /// perhaps, the first pause, how many times longer each further one is, and the longest, in seconds. Can be given several
    /// times. `UPDATE_FAILED=3`, `DEADLINE_PASSED=2,pause=600`, `*=4,pause=60,factor=3,longest=86400`.
    #[arg(long = "retry", value_name = "RULE", value_parser = retry)]
    retries: Vec<Value>,
    /// All of it from a JSON file, as the API takes it.
    #[arg(long, value_name = "FILE",
          conflicts_with_all = ["waves", "stop_after", "stop_at_percent", "at_once", "per_minute", "retries", "windows",
                                "window_zone", "not_before", "not_after", "spread", "bytes_per_second"])]
    rollout: Option<PathBuf>,
}

impl RolloutArgs {
    /// What the API takes; `None` where nothing was said.
    pub(crate) fn body(&self) -> anyhow::Result<Option<Value>> {
        if let Some(path) = &self.rollout {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            let rollout = serde_json::from_str(&text)
                .with_context(|| format!("{}: expected a rollout in JSON", path.display()))?;
            return Ok(Some(rollout));
        }
        let mut rollout = serde_json::Map::new();
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                rollout.insert(key.to_owned(), value);
            }
        };
        set("waves", (!self.waves.is_empty()).then(|| json!(self.waves)));
        set("retries", (!self.retries.is_empty()).then(|| json!(self.retries)));
        set("vehicles_at_once", self.at_once.map(Value::from));
        set("starts_per_minute", self.per_minute.map(Value::from));
        for (key, value) in self.schedule.body() {
            set(key, value);
        }
        let stop: serde_json::Map<_, _> =
            [("failures", self.stop_after), ("failed_percent", self.stop_at_percent)]
                .into_iter()
                .filter_map(|(key, limit)| limit.map(|limit| (key.to_owned(), json!(limit))))
                .collect();
        set("stop", (!stop.is_empty()).then_some(Value::Object(stop)));
        Ok((!rollout.is_empty()).then_some(Value::Object(rollout)))
    }
}

/// A wave as the API takes it.
fn wave(text: &str) -> Result<Value, String> {
    let refused = || {
        format!(
            "expected a number, a share such as 5%, group:NAME or rest, perhaps with ,after=95%, ,by-hand or ,by-approval; found {text:?}"
        )
    };
    let (size, opening) = text.split_once(',').map_or((text, None), |(size, opening)| (size, Some(opening)));
    let percent = |text: &str| text.strip_suffix('%').and_then(|number| number.parse::<u8>().ok());
    let group = size.strip_prefix("group:").filter(|group| !group.is_empty());
    let size = match (size, percent(size), size.parse::<u64>()) {
        _ if group.is_some() => json!({ "group": group }),
        ("rest", _, _) => json!("rest"),
        (_, Some(percent), _) => json!({ "percent": percent }),
        (_, None, Ok(vehicles)) => json!({ "vehicles": vehicles }),
        (_, None, Err(_)) => return Err(refused()),
    };
    let opens = match opening {
        None => return Ok(json!({ "size": size })),
        Some("by-hand") => json!("by_hand"),
        Some("by-approval") => json!("by_approval"),
        Some(opening) => {
            let share = opening.strip_prefix("after=").and_then(percent).ok_or_else(refused)?;
            json!({ "after_success_percent": share })
        }
    };
    Ok(json!({ "size": size, "opens": opens }))
}

/// A rule for retries as the API takes it.
fn retry(text: &str) -> Result<Value, String> {
    let refused = || {
        format!(
            "expected a code or * and a number of attempts such as UPDATE_FAILED=3, perhaps with ,pause=600 ,factor=2 or \
             ,longest=86400; found {text:?}"
        )
    };
    let mut words = text.split(',').map(|word| word.split_once('=').ok_or_else(refused));
    let number = |text: &str| text.parse::<u64>().map_err(|_| refused());
    let (code, attempts) = words.next().ok_or_else(refused)??;
    let mut rule = serde_json::Map::from_iter([
        ("code".to_owned(), json!(code)),
        ("attempts".to_owned(), json!(number(attempts)?)),
    ]);
    for word in words {
        let (key, value) = word?;
        let key = match key {
            "pause" => "pause_s",
            "factor" => "factor",
            "longest" => "longest_pause_s",
            _ => return Err(refused()),
        };
        rule.insert(key.to_owned(), json!(number(value)?));
    }
    Ok(Value::Object(rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_for_retries_is_said_in_one_word() {
        for (text, expected) in [
            ("UPDATE_FAILED=3", json!({"code": "UPDATE_FAILED", "attempts": 3})),
            (
                "*=4,pause=60,factor=3,longest=900",
                json!({"code": "*", "attempts": 4, "pause_s": 60, "factor": 3, "longest_pause_s": 900}),
            ),
        ] {
            assert_eq!(retry(text), Ok(expected));
        }
        for text in ["", "UPDATE_FAILED", "UPDATE_FAILED=x", "*=2,pause", "*=2,later=3"] {
            assert!(retry(text).unwrap_err().contains("expected"), "{text}");
        }
    }

    #[test]
    fn a_wave_is_said_in_one_word() {
        for (text, expected) in [
            ("10", json!({"size": {"vehicles": 10}})),
            ("5%,after=95%", json!({"size": {"percent": 5}, "opens": {"after_success_percent": 95}})),
            ("rest,by-hand", json!({"size": "rest", "opens": "by_hand"})),
            ("group:pilot", json!({"size": {"group": "pilot"}})),
            ("rest,by-approval", json!({"size": "rest", "opens": "by_approval"})),
        ] {
            assert_eq!(wave(text), Ok(expected));
        }
        for text in ["", "%", "ten", "group:", "10,after=", "10,later", "300%"] {
            assert!(wave(text).unwrap_err().contains("expected"), "{text}");
        }
    }
}
