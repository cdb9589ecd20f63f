//! What the vehicle last said of whether it is ready: each value beside the usual threshold, and whether the vehicle itself is
//! content with it. The vehicle's verdict counts, whatever the usual threshold is.

use farrier_protocol::{Condition, MessageType, VehicleId};
use serde_json::Value;

use crate::api::Problem;
use crate::console::format::{Time, time};
use crate::console::texts::Texts;
use crate::store::{Tx, messages};

/// A measured value.
pub(super) struct Measured {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) usual: &'static str,
    pub(super) is_met: bool,
    /// Why it is not.
    pub(super) reasons: String,
}

pub(super) struct Readiness {
    pub(super) at: Time,
    pub(super) is_ready: bool,
    pub(super) values: Vec<Measured>,
    /// Reasons that belong to no value that was sent.
    pub(super) others: Vec<String>,
}

/// Conditions with the reasons that they can be, the unit, and the threshold that a gateway of ours has where nobody set another.
const CONDITIONS: [(Condition, &str, &str, &[&str]); 15] = [
    (Condition::Battery12V, "V", "≥ 11.5 V", &["POWER_LOW", "POWER_CRITICAL"]),
    (Condition::Battery48V, "V", "", &[]),
    (Condition::ChargingStatus, "", "≠ charging", &["POWER_CHARGING"]),
    (Condition::TempCcu, "°C", "≤ 70 °C", &["TEMP_HIGH", "TEMP_COOLING", "TEMP_CRITICAL"]),
    (Condition::TempEcuMax, "°C", "", &["TEMP_HIGH", "TEMP_COOLING", "TEMP_CRITICAL"]),
    (Condition::CpuUsage, "%", "≤ 80 %", &["CPU_HIGH"]),
    (Condition::MemoryAvailable, "MB", "≥ 1,024 MB", &["MEMORY_LOW"]),
    (Condition::StorageAvailable, "GB", "≥ 2 GB", &["STORAGE_LOW", "STORAGE_FRAGMENTED"]),
    (Condition::Bandwidth, "Mbit/s", "≥ 1 Mbit/s", &["NETWORK_POOR"]),
    (Condition::SignalStrength, "dBm", "", &["NETWORK_POOR"]),
    (Condition::DataPlanStatus, "", "= ok", &["NETWORK_DATA_LIMIT"]),
    (Condition::Speed, "km/h", "≤ 0 km/h", &["VEHICLE_MOVING", "VEHICLE_HIGH_SPEED"]),
    (Condition::IgnitionStatus, "", "", &[]),
    (Condition::ParkingBrake, "", "", &[]),
    (Condition::GearPosition, "", "", &[]),
];

/// The newest report; `None` where there is none, or none that was kept whole.
pub(super) fn newest(
    tx: &Tx<'_>,
    t: &'static Texts,
    vehicle_id: &VehicleId,
    now: farrier_protocol::UnixMillis,
) -> Result<Option<Readiness>, Problem> {
    let found = messages::newest(tx, vehicle_id, MessageType::ReadinessReportForDownload)?;
    let Some((at, payload)) = found else { return Ok(None) };
    let Ok(report) = serde_json::from_str::<Value>(&payload) else { return Ok(None) };
    Ok(Some(Readiness { at: time(t, at, now), ..read(t, &report) }))
}

fn read(t: &'static Texts, report: &Value) -> Readiness {
    let reasons = report.get("not_ready_reasons").and_then(Value::as_array);
    let mut reasons: Vec<&str> = reasons.into_iter().flatten().filter_map(Value::as_str).collect();
    let mut values = Vec::new();
    let mut told = Vec::new();
    for (condition, unit, usual, own) in CONDITIONS {
        let name = condition.name();
        let Some(value) = report.get("requested_fields").and_then(|fields| fields.get(name)) else {
            continue;
        };
        if value.is_null() {
            continue;
        }
        let against: Vec<&str> = reasons.iter().copied().filter(|reason| own.contains(reason)).collect();
        told.extend(against.iter().copied());
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        values.push(Measured {
            name,
            value: if unit.is_empty() { text } else { format!("{text} {unit}") },
            usual,
            is_met: against.is_empty(),
            reasons: against.iter().map(|reason| t.readiness_reason(reason)).collect::<Vec<_>>().join(", "),
        });
    }
    reasons.retain(|reason| !told.contains(reason));
    Readiness {
        at: crate::console::format::time_or_never(t, None, farrier_protocol::UnixMillis(0)),
        is_ready: report.get("ready").and_then(Value::as_bool).unwrap_or(false),
        values,
        others: reasons.iter().map(|reason| t.readiness_reason(reason)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::console::texts::ENGLISH;

    #[test]
    fn each_value_is_met_unless_the_vehicle_says_otherwise() {
        let report = json!({
            "ready": false,
            // Above the usual threshold, and yet too low for this vehicle.
            "requested_fields": {"power.battery_12v_v": 11.9, "vehicle.speed_kmh": 0.0, "cpu.usage_percent": 99.0},
            "not_ready_reasons": ["POWER_LOW", "VEHICLE_EMERGENCY"],
        });
        let readiness = read(&ENGLISH, &report);
        assert!(!readiness.is_ready);
        let met: Vec<_> =
            readiness.values.iter().map(|one| (one.name, one.value.as_str(), one.is_met)).collect();
        assert_eq!(
            met,
            [
                ("power.battery_12v_v", "11.9 V", false),
                ("cpu.usage_percent", "99.0 %", true),
                ("vehicle.speed_kmh", "0.0 km/h", true)
            ]
        );
        assert_eq!(readiness.others, ["VEHICLE_EMERGENCY"]);
    }

    #[test]
    fn the_usual_thresholds_are_those_of_our_gateway() {
        let policy = farrier_vehicle_update::ReadinessPolicy::default();
        let usual =
            |condition| CONDITIONS.iter().find(|(known, ..)| *known == condition).unwrap().2.replace(',', "");
        for (condition, threshold) in [
            (Condition::Battery12V, format!("≥ {} V", policy.min_battery_12v_v)),
            (Condition::TempCcu, format!("≤ {} °C", policy.max_temp_ccu_c)),
            (Condition::CpuUsage, format!("≤ {} %", policy.max_cpu_usage_percent)),
            (Condition::MemoryAvailable, format!("≥ {} MB", policy.min_memory_available_mb)),
            (Condition::StorageAvailable, format!("≥ {} GB", policy.min_storage_available_gb)),
            (Condition::Bandwidth, format!("≥ {} Mbit/s", policy.min_bandwidth_mbps)),
            (Condition::Speed, format!("≤ {} km/h", policy.max_speed_kmh)),
        ] {
            assert_eq!(usual(condition), threshold);
        }
    }
}
