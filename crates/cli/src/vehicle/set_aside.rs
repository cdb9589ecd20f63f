//! `farrier vehicle set-aside` and `take-back`: vehicles that failed a release too often.

use clap::Subcommand;
use farrier_protocol::VehicleId;
use serde::Deserialize;
use serde_json::Value;

use crate::operator::{Operator, read};
use crate::output::{moment, plain, table};

#[derive(Subcommand)]
pub(super) enum SetAside {
    /// List them with why they failed.
    List {
        /// Only those of this release.
        #[arg(long)]
        release: Option<String>,
    },
}

#[derive(Deserialize)]
struct SetAsideAnswer {
    vehicle_id: String,
    release: String,
    failures: u64,
    campaign: String,
    code: String,
    since_ms: i64,
}

impl SetAside {
    pub(super) async fn ask(&self, operator: &Operator) -> anyhow::Result<Value> {
        let Self::List { release } = self;
        let asked: Vec<_> = release.as_deref().map(|release| ("release", release)).into_iter().collect();
        Ok(operator.list_with(&["set-aside"], &asked).await?)
    }
}

pub(super) fn listed(answer: &Value) -> anyhow::Result<String> {
    let found: Vec<SetAsideAnswer> = read(answer)?;
    if found.is_empty() {
        return Ok("No vehicle is set aside.".to_owned());
    }
    let rows = found.into_iter().map(|one| {
        let failures = one.failures.to_string();
        [one.vehicle_id, one.release, failures, one.code, one.campaign, moment(Some(one.since_ms))]
    });
    Ok(table(["VEHICLE", "RELEASE", "FAILURES", "LAST ONE", "CAMPAIGN", "SINCE"], rows.collect()))
}

pub(super) async fn take_back(
    operator: &Operator,
    vehicle: &VehicleId,
    release: &str,
) -> anyhow::Result<Value> {
    Ok(operator.delete(&["vehicles", vehicle.as_str(), "set-aside", release]).await?)
}

pub(super) fn taken_back(vehicle: &VehicleId, release: &str) -> String {
    format!(
        "Vehicle {vehicle} can get release {} again. Where a campaign of it has ended for the vehicle, try it again: \
         farrier campaign retry CAMPAIGN --code CODE",
        plain(release)
    )
}
