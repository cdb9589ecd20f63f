//! `farrier vehicle bindings`: the gateways and certificates that a vehicle had.

use serde::Deserialize;
use serde_json::Value;

use crate::operator::read;
use crate::output::{moment, table};

#[derive(Deserialize)]
struct BindingAnswer {
    number: u64,
    gateway_id: String,
    #[serde(default)]
    thumbprint: Option<String>,
    since_ms: i64,
    #[serde(default)]
    until_ms: Option<i64>,
    #[serde(default)]
    reason: Option<String>,
}

pub(super) fn listed(answer: &Value) -> anyhow::Result<String> {
    let bindings: Vec<BindingAnswer> = read(answer)?;
    let rows = bindings.into_iter().map(|one| {
        [
            one.number.to_string(),
            one.gateway_id,
            one.thumbprint.unwrap_or_else(|| "not seen yet".to_owned()),
            moment(Some(one.since_ms)),
            one.until_ms.map_or_else(|| "now".to_owned(), |until| moment(Some(until))),
            one.reason.unwrap_or_default(),
        ]
    });
    Ok(table(["BINDING", "GATEWAY", "CERTIFICATE", "SINCE", "UNTIL", "REPLACED FOR"], rows.collect()))
}
