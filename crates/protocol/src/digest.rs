//! The VCI digest (protocol.md §6): SHA-256 over canonical JSON (RFC 8785).

use serde::Serialize;
use serde_json::Value;

use crate::ids::{Sha256, Text};
use crate::message::{EcuEntry, SendVci};

/// What the digest covers; the power snapshot and the header are not part of it.
#[derive(Serialize)]
struct Inventory<'a> {
    ecu_inventory: Vec<&'a EcuEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<&'a Text>,
    fw_sw_version: &'a Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    bootloader_ver: Option<&'a Text>,
}

/// The digest of an inventory: equal digests mean that the vehicle has nothing new to tell.
pub fn vci_digest(vci: &SendVci) -> Sha256 {
    let mut ecu_inventory: Vec<&EcuEntry> = vci.ecu_inventory.iter().collect();
    ecu_inventory.sort_by(|one, two| one.ecu_id.cmp(&two.ecu_id));
    let inventory = Inventory {
        ecu_inventory,
        region: vci.region.as_ref(),
        fw_sw_version: &vci.fw_sw_version,
        bootloader_ver: vci.bootloader_ver.as_ref(),
    };
    // These types always serialise: their keys are strings, and nothing in them refuses.
    let value = serde_json::to_value(inventory).unwrap_or_default();
    let mut canonical = String::new();
    write_canonical(&value, &mut canonical);
    Sha256::of(canonical.as_bytes())
}

/// Writes RFC 8785: members sorted by key, no white space. An inventory holds only ASCII keys and small
/// integers, for which `serde_json` writes what the RFC asks for, as it does for strings; whether its
/// maps are sorted depends on features that other crates switch on.
fn write_canonical(value: &Value, to: &mut String) {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(key, _)| key.as_str());
            to.push('{');
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    to.push(',');
                }
                to.push_str(&Value::String(key.clone()).to_string());
                to.push(':');
                write_canonical(value, to);
            }
            to.push('}');
        }
        Value::Array(items) => {
            to.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    to.push(',');
                }
                write_canonical(item, to);
            }
            to.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => to.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests;
