//! What became of every vehicle, and whether that is as it should be: judged by what the ECUs themselves say.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use farrier_protocol::{EcuId, VehicleId};
use serde::Serialize;

use super::Plan;
use super::progress::Followed;
use super::stage::{FACTORY_VERSION, NEW_VERSION, Stage};
use crate::output::{bytes, plain, seconds, table, thousands};

#[derive(Serialize)]
pub(super) struct Outcome {
    pub(super) as_expected: bool,
    duration_s: f64,
    vehicles: Vec<VehicleOutcome>,
}

#[derive(Serialize)]
struct VehicleOutcome {
    vehicle_id: VehicleId,
    state: String,
    sentence: String,
    as_expected: bool,
    duration_s: f64,
    bytes_downloaded: u64,
    ecu_versions: BTreeMap<EcuId, String>,
}

/// Holds the server's word against the ECUs' own.
pub(super) fn judge(plan: &Plan, stage: &Stage, followed: &Followed) -> anyhow::Result<Outcome> {
    let mut vehicles = Vec::new();
    for vehicle in &stage.vehicles {
        let vehicle_id = vehicle.config().vehicle_id.clone();
        let seen = followed.vehicles.get(vehicle_id.as_str()).context("the server lost a vehicle")?;
        let fails = vehicle_id == plan.failing.vehicle_id;
        let (state, version) =
            if fails { ("rolled_back", FACTORY_VERSION) } else { ("succeeded", NEW_VERSION) };
        let ecu_versions = vehicle.running_versions()?;
        let mut as_expected = seen.state == state && ecu_versions.values().all(|running| running == version);
        if !fails {
            for ecu in vehicle.config().ecus() {
                as_expected &= holds(&vehicle.running_image(&ecu.ecu_id)?, &stage.image(&ecu.hw_part_no)?)?;
            }
        }
        vehicles.push(VehicleOutcome {
            vehicle_id,
            state: seen.state.clone(),
            sentence: seen.sentence.clone(),
            as_expected,
            duration_s: seen.duration.as_secs_f64(),
            bytes_downloaded: seen.bytes_served,
            ecu_versions,
        });
    }
    Ok(Outcome {
        as_expected: !vehicles.is_empty() && vehicles.iter().all(|vehicle| vehicle.as_expected),
        duration_s: followed.duration.as_secs_f64(),
        vehicles,
    })
}

/// Whether the bank holds the image, byte for byte.
fn holds(bank: &Path, image: &[u8]) -> anyhow::Result<bool> {
    let content = std::fs::read(bank).with_context(|| format!("cannot read the bank {}", bank.display()))?;
    Ok(content == image)
}

impl Outcome {
    pub(super) fn text(&self) -> String {
        let rows = self.vehicles.iter().map(|vehicle| {
            [
                vehicle.vehicle_id.to_string(),
                vehicle.state.clone(),
                seconds(Duration::from_secs_f64(vehicle.duration_s)),
                thousands(vehicle.bytes_downloaded),
                versions(&vehicle.ecu_versions),
                if vehicle.as_expected { "as expected" } else { "NOT AS EXPECTED" }.to_owned(),
            ]
        });
        let headings = ["VEHICLE", "STATE", "TIME", "BYTES DOWNLOADED", "ECUS NOW RUN", "VERDICT"];
        let mut text = format!("\n{}\n", table(headings, rows.collect()));
        for vehicle in &self.vehicles {
            text.push_str(&format!("\n{}: {}", vehicle.vehicle_id, plain(&vehicle.sentence)));
        }
        let total = self.vehicles.iter().map(|vehicle| vehicle.bytes_downloaded).sum();
        text.push_str(&format!(
            "\n\n{} in {}; the versions above were read from the ECUs, not from the server.\n{}",
            bytes(total),
            seconds(Duration::from_secs_f64(self.duration_s)),
            if self.as_expected {
                "Every vehicle ended as it should."
            } else {
                "At least one vehicle did not end as it should: see NOT AS EXPECTED above."
            }
        ));
        text
    }
}

/// "8 × 2.0.0", or each version with its number of ECUs.
fn versions(ecus: &BTreeMap<EcuId, String>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for version in ecus.values() {
        *counts.entry(version).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(version, count)| format!("{count} × {version}")).collect();
    counts.join(", ")
}
