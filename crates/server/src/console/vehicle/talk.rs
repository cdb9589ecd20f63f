//! What passed between the server and the vehicle, by what belongs together: a question with its acknowledgement and its answers.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::console::format::{Time, number, time};
use crate::console::page::Frame;
use crate::store::timeline::{self, Kind};

/// Values of a message that are told one by one at most; all of it is in its raw text.
const MOST_TOLD: usize = 12;

pub(super) struct Entry {
    is_question: bool,
    pub(super) at: Time,
    pub(super) kind: &'static str,
    pub(super) class: &'static str,
    pub(super) what: String,
    pub(super) detail: String,
    /// What the message says, value by value.
    pub(super) told: Vec<(String, String)>,
    pub(super) raw: Option<String>,
}

/// Entries that belong together, oldest first.
pub(super) struct Exchange {
    /// The id of the question, where there is one.
    pub(super) correlation: String,
    pub(super) entries: Vec<Entry>,
}

/// The entries of a page, given newest first: exchanges by their newest entry, newest first.
pub(super) fn exchanges(
    frame: &Frame,
    entries: Vec<timeline::Entry>,
    now: farrier_protocol::UnixMillis,
) -> Vec<Exchange> {
    let mut order: Vec<String> = Vec::new();
    let mut groups: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for entry in entries {
        let correlation = entry.correlation_id.clone().or_else(|| entry.msg_id.clone());
        let key = correlation.unwrap_or_else(|| format!("{} {}", entry.place.1, entry.place.2));
        if !groups.contains_key(&key) {
            order.push(key.clone());
        }
        let all = groups.entry(key).or_default();
        // The question stands first, also where its answer came in the same millisecond.
        let place =
            usize::from(entry.kind != Kind::Command && all.first().is_some_and(|one| one.is_question));
        all.insert(place, told(frame, entry, now));
    }
    let exchanges = order.into_iter().filter_map(|key| {
        let entries = groups.remove(&key)?;
        // A key of the time line itself names nothing that anybody sent.
        let correlation = if key.contains(' ') { String::new() } else { key };
        Some(Exchange { correlation, entries })
    });
    exchanges.collect()
}

fn told(frame: &Frame, mut entry: timeline::Entry, now: farrier_protocol::UnixMillis) -> Entry {
    let t = frame.t;
    let (kind, class) = match entry.kind {
        Kind::Received => (t.entry_received, "ok"),
        Kind::Refused => (t.entry_refused, "bad"),
        Kind::Command => (t.entry_command, "run"),
        Kind::Acknowledged => (t.entry_acknowledged, "idle"),
        Kind::Step => (t.entry_step, "idle"),
        Kind::SecurityEvent => (t.entry_security, "bad"),
        Kind::Connected => (t.entry_connection, "ok"),
        Kind::Disconnected => (t.entry_connection, "idle"),
    };
    let what = match entry.kind {
        Kind::Step => {
            let from = entry.from_state.as_deref().map_or("", |state| t.state(state));
            let to = entry.to_state.as_deref().map_or("", |state| t.state(state));
            format!("{from} → {to}")
        }
        Kind::Connected => t.connected.to_owned(),
        Kind::Disconnected => t.why_gone(entry.code.take().as_deref().unwrap_or_default()).to_owned(),
        Kind::Received | Kind::Refused | Kind::Command | Kind::Acknowledged | Kind::SecurityEvent => {
            entry.message.clone().or_else(|| entry.code.clone()).unwrap_or_default()
        }
    };
    let times = entry.times.filter(|times| *times > 1).map(|times| format!("{} ×", number(times)));
    let code = entry.code.filter(|code| *code != what);
    let detail = [code, entry.detail, entry.campaign, times].into_iter().flatten().collect::<Vec<_>>();
    let value: Option<Value> =
        entry.payload.as_deref().and_then(|payload| serde_json::from_str(payload).ok());
    Entry {
        is_question: entry.kind == Kind::Command,
        at: time(t, entry.place.0, now),
        kind,
        class,
        what,
        detail: detail.join(" · "),
        told: value.as_ref().map(values).unwrap_or_default(),
        raw: entry.payload.map(|payload| match &value {
            Some(value) => serde_json::to_string_pretty(value).unwrap_or(payload),
            None => payload,
        }),
    }
}

/// What every message has, and what is shown beside it.
const KNOWN: [&str; 6] = ["msg_id", "proto_ver", "type", "vehicle_id", "gateway_id", "correlation_id"];

/// The first values of a message, by their place in it.
fn values(message: &Value) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let fields = message.as_object().into_iter().flatten();
    for (name, value) in fields.filter(|(name, _)| !KNOWN.contains(&name.as_str())) {
        collect(name, value, &mut all);
    }
    all.truncate(MOST_TOLD);
    all
}

fn collect(place: &str, value: &Value, all: &mut Vec<(String, String)>) {
    if all.len() >= MOST_TOLD {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                collect(&format!("{place}.{name}"), value, all);
            }
        }
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            let items: Vec<_> = items.iter().map(plain).collect();
            all.push((place.to_owned(), items.join(", ")));
        }
        // Of a longer list only how many there are: the raw text has them.
        Value::Array(items) => all.push((place.to_owned(), format!("{} ×", items.len()))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            all.push((place.to_owned(), plain(value)));
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_values_of_a_message_are_told_by_their_place() {
        let message = json!({
            "msg_id": "M1", "ready": false, "requested_fields": {"power.battery_12v_v": 11.9},
            "not_ready_reasons": ["POWER_LOW"], "packages": [{"a": 1}, {"a": 2}],
        });
        let told = values(&message);
        let told: Vec<_> = told.iter().map(|(place, value)| (place.as_str(), value.as_str())).collect();
        assert_eq!(
            told,
            [
                ("not_ready_reasons", "POWER_LOW"),
                ("packages", "2 ×"),
                ("ready", "false"),
                ("requested_fields.power.battery_12v_v", "11.9")
            ]
        );
    }
}
