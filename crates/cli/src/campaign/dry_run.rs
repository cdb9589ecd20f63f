//! `farrier campaign dry-run`: what a campaign would do, before there is one.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::operator::{Operator, read};
use crate::output::{bytes, plain, table, thousands};

#[derive(Deserialize)]
struct Answer {
    release: String,
    outcome: Outcome,
    items: Vec<Vehicle>,
}

#[derive(Deserialize)]
struct Outcome {
    vehicles: u64,
    would_update: u64,
    up_to_date: u64,
    ineligible: u64,
    inventory_unknown: u64,
    quarantined: u64,
    in_another_update: u64,
    reasons: Vec<Reason>,
    ecus: u64,
    bytes: u64,
    bytes_without_deltas: u64,
}

#[derive(Deserialize)]
struct Reason {
    code: String,
    vehicles: u64,
    example: String,
    sentence: String,
}

#[derive(Deserialize)]
struct Vehicle {
    vehicle_id: String,
    sentence: String,
}

/// The answer about the whole selection, with all vehicles of the verdict that is to be listed. `whom` has `vehicles`, `where` or
/// `group`, or none of them for all.
pub(super) async fn ask(
    operator: &Operator,
    release: &str,
    whom: Value,
    list: Option<&str>,
) -> anyhow::Result<Value> {
    let mut body = json!({ "release": release, "verdict": list, "limit": 1000 });
    if let (Some(fields), Value::Object(whom)) = (body.as_object_mut(), whom) {
        fields.extend(whom);
    }
    let path = ["campaigns", "dry-run"];
    let mut answer = operator.post(&path, &body).await?;
    let Some(fields) = answer.as_object_mut() else { return Ok(answer) };
    if list.is_none() {
        fields.insert("items".to_owned(), json!([]));
        fields.remove("next");
    }
    while let (Some(next), Some(asked)) = (fields.remove("next"), body.as_object_mut()) {
        asked.insert("after".to_owned(), next);
        let mut page = operator.post(&path, &body).await?;
        let more = page.get_mut("items").map(Value::take);
        if let (Some(Value::Array(items)), Some(Value::Array(more))) = (fields.get_mut("items"), more) {
            items.extend(more);
        }
        fields.extend(page.get_mut("next").map(|next| ("next".to_owned(), next.take())));
    }
    Ok(answer)
}

pub(super) fn shown(answer: &Value, with_vehicles: bool) -> anyhow::Result<String> {
    let Answer { release, outcome, items } = read(answer)?;
    let counts = [
        ("would be updated", outcome.would_update),
        ("up to date", outcome.up_to_date),
        ("ineligible", outcome.ineligible),
        ("inventory unknown", outcome.inventory_unknown),
        ("quarantined", outcome.quarantined),
        ("in another update", outcome.in_another_update),
    ];
    let counts = counts.map(|(what, count)| [what.to_owned(), thousands(count)]);
    let mut text = format!(
        "Release {} and {} vehicle(s), from what they last told; nothing is sent.\n\n{}\n\n\
         {} ECU(s) would be updated by {}; without deltas it would be {}.",
        plain(&release),
        thousands(outcome.vehicles),
        table(["VERDICT", "VEHICLES"], counts.into()),
        thousands(outcome.ecus),
        bytes(outcome.bytes),
        bytes(outcome.bytes_without_deltas)
    );
    if !outcome.reasons.is_empty() {
        let rows = outcome.reasons.into_iter().map(|reason| {
            let example = format!("{}: {}", reason.example, reason.sentence);
            [reason.code, thousands(reason.vehicles), example]
        });
        text = format!("{text}\n\n{}", table(["REASON", "VEHICLES", "FOR EXAMPLE"], rows.collect()));
    }
    if with_vehicles {
        let rows = items.into_iter().map(|vehicle| [vehicle.vehicle_id, vehicle.sentence]);
        text = format!("{text}\n\n{}", table(["VEHICLE", "WHY"], rows.collect()));
    }
    Ok(text)
}
