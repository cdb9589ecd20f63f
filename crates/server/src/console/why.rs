//! Why a vehicle update is where it is, in the visitor's language, and as reasons that can be counted.

use farrier_campaign::{DeferredBy, State, WaitingOn};
use farrier_protocol::UnixMillis;
use serde_json::Value;

use super::endings;
use super::format::span;
use super::language::Language;
use super::texts::{Texts, filled};

/// One sentence.
pub(super) fn sentence(language: Language, state: &State, now: UnixMillis) -> String {
    let t = language.texts();
    match (language, state.waiting_on()) {
        (Language::English, _) => state.sentence(now),
        (Language::Korean, Some(waiting_on)) => {
            let reasons = reasons(t, &waiting_on).join(", ");
            match until(&waiting_on) {
                Some(until) => {
                    let left = span(t, until.0.saturating_sub(now.0));
                    format!("{reasons} ({})", filled(t.from_now, &[&left]))
                }
                None => reasons,
            }
        }
        (Language::Korean, None) => {
            endings::ended(t, state).unwrap_or_else(|| t.state(state.name()).to_owned())
        }
    }
}

/// What is waited for, in a few words that are the same for all vehicles that wait for it; of a vehicle that is not ready each
/// reason.
pub(super) fn reasons(t: &'static Texts, waiting_on: &WaitingOn) -> Vec<String> {
    if let WaitingOn::ReadinessRetry { why: DeferredBy::NotReady { reasons }, .. } = waiting_on {
        return reasons.iter().map(|reason| t.readiness_reason(reason.name())).collect();
    }
    let data = data(waiting_on);
    let kind = data.get("kind").and_then(Value::as_str).unwrap_or_default();
    let said = match kind {
        "wave_to_open" => filled(t.waits_for_wave, &[&member(&data, "wave")]),
        "other_update" => filled(t.waits_for_other_update, &[&member(&data, "campaign")]),
        "answer" => filled(t.waits_for_answer, &[&member(&data, "to")]),
        "step" => filled(t.waits_for_step, &[t.operation(&member(&data, "step"))]),
        kind => t.waits_for(kind).to_owned(),
    };
    vec![said]
}

fn until(waiting_on: &WaitingOn) -> Option<UnixMillis> {
    data(waiting_on).get("until").and_then(Value::as_i64).map(UnixMillis)
}

fn data(waiting_on: &WaitingOn) -> Value {
    serde_json::to_value(waiting_on).unwrap_or_default()
}

fn member(data: &Value, name: &str) -> String {
    match data.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}
