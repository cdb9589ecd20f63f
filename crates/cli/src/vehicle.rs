//! `farrier vehicle`: looks at vehicles, and enrols them.

use clap::{Args, Subcommand};
use farrier_protocol::{GatewayId, VehicleId};
use serde::Deserialize;
use serde_json::json;

use crate::messages::Timeline;
use crate::operator::{Operator, OperatorArgs, read};
use crate::output::{moment, plain, print, print_json, table};

#[derive(Args)]
pub(crate) struct Vehicle {
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the vehicles.
    List,
    /// Show one vehicle: what it runs, its updates, its refused messages.
    Show {
        /// The vehicle's id.
        vehicle: VehicleId,
    },
    /// Say in one sentence why a vehicle is where it is, and what it waits for.
    Why {
        /// The vehicle's id.
        vehicle: VehicleId,
    },
    /// Tell everything that passed between the server and a vehicle, as a time line.
    Messages {
        /// The vehicle's id.
        vehicle: VehicleId,
        /// How many entries at first, the newest.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Go on with what comes, until Ctrl-C.
        #[arg(long)]
        follow: bool,
        /// Also the messages themselves: of a vehicle's the first 4 KiB, of a refused one the first 16 KiB.
        #[arg(long)]
        raw: bool,
    },
    /// End a vehicle's quarantine.
    Release {
        /// The vehicle's id.
        vehicle: VehicleId,
    },
    /// Let a vehicle take part, where the server does not enrol vehicles by itself.
    Enroll {
        /// The vehicle's id.
        vehicle: VehicleId,
        /// The id of its gateway.
        #[arg(long)]
        gateway: GatewayId,
    },
}

#[derive(Deserialize)]
struct VehicleAnswer {
    vehicle_id: String,
    gateway_id: String,
    connected: bool,
    #[serde(default)]
    last_seen_at_ms: Option<i64>,
    #[serde(default)]
    quarantined_at_ms: Option<i64>,
    #[serde(default)]
    thumbprint: Option<String>,
    #[serde(default)]
    ecu_count: Option<u64>,
    #[serde(default)]
    inventory: Option<InventoryAnswer>,
    #[serde(default)]
    updates: Vec<UpdateAnswer>,
    #[serde(default)]
    refused_messages: Vec<RefusedAnswer>,
}

#[derive(Deserialize)]
struct InventoryAnswer {
    ecus: Vec<EcuAnswer>,
}

#[derive(Deserialize)]
struct EcuAnswer {
    ecu_id: String,
    #[serde(default)]
    hw_part_no: Option<String>,
    #[serde(default)]
    sw_version: Option<String>,
}

#[derive(Deserialize)]
struct UpdateAnswer {
    campaign: String,
    state: String,
    sentence: String,
}

#[derive(Deserialize)]
struct RefusedAnswer {
    #[serde(default)]
    last_at_ms: Option<i64>,
    #[serde(default)]
    topic: String,
    code: String,
    pointer: String,
    expected: String,
    found: String,
}

#[derive(Deserialize)]
struct WhyAnswer {
    sentence: String,
}

impl Vehicle {
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        let operator = Operator::new(&self.operator)?;
        let answer = match &self.command {
            Command::List => operator.list(&["vehicles"]).await?,
            Command::Show { vehicle } => operator.get(&["vehicles", vehicle.as_str()]).await?,
            Command::Why { vehicle } => operator.get(&["vehicles", vehicle.as_str(), "why"]).await?,
            Command::Messages { vehicle, limit, follow, raw } => {
                let (limit, follow, raw, json) = (*limit, *follow, *raw, self.operator.json);
                let timeline = Timeline { operator: &operator, vehicle, limit, follow, raw, json };
                return timeline.print().await;
            }
            Command::Release { vehicle } => {
                operator.post(&["vehicles", vehicle.as_str(), "release"], &json!({})).await?
            }
            Command::Enroll { vehicle, gateway } => {
                let body = json!({ "vehicle_id": vehicle, "gateway_id": gateway });
                operator.post(&["vehicles"], &body).await?
            }
        };
        if self.operator.json {
            return print_json(&answer);
        }
        match &self.command {
            Command::List => print(&listed(&read::<Vec<VehicleAnswer>>(&answer)?)),
            Command::Show { .. } => print(&shown(&read(&answer)?)),
            Command::Why { .. } => print(&plain(&read::<WhyAnswer>(&answer)?.sentence)),
            Command::Messages { .. } => Ok(()),
            Command::Release { vehicle } => {
                print(&format!("Released vehicle {vehicle} from its quarantine; its updates go on."))
            }
            Command::Enroll { vehicle, gateway } => {
                print(&format!("Enrolled vehicle {vehicle} with gateway {gateway}."))
            }
        }
    }
}

fn connection(vehicle: &VehicleAnswer) -> &'static str {
    match (vehicle.quarantined_at_ms, vehicle.connected) {
        (Some(_), true) => "connected, quarantined",
        (Some(_), false) => "away, quarantined",
        (None, true) => "connected",
        (None, false) => "away",
    }
}

fn listed(vehicles: &[VehicleAnswer]) -> String {
    if vehicles.is_empty() {
        return "No vehicles yet. With `farrier server --enroll auto` they appear at their first WakeUp; otherwise \
                enrol them: farrier vehicle enroll VEHICLE --gateway GATEWAY"
            .to_owned();
    }
    let rows = vehicles.iter().map(|vehicle| {
        [
            vehicle.vehicle_id.clone(),
            vehicle.gateway_id.clone(),
            connection(vehicle).to_owned(),
            moment(vehicle.last_seen_at_ms),
            vehicle.ecu_count.map_or("not reported".to_owned(), |count| count.to_string()),
        ]
    });
    table(["VEHICLE", "GATEWAY", "CONNECTION", "LAST SEEN", "ECUS"], rows.collect())
}

fn shown(vehicle: &VehicleAnswer) -> String {
    let mut parts = vec![format!(
        "Vehicle {} with gateway {}: {}, last seen {}\nCertificate {}",
        plain(&vehicle.vehicle_id),
        plain(&vehicle.gateway_id),
        connection(vehicle),
        moment(vehicle.last_seen_at_ms),
        vehicle.thumbprint.as_deref().map_or("not seen yet".to_owned(), plain)
    )];
    match &vehicle.inventory {
        None => parts.push("It has not reported its inventory yet.".to_owned()),
        Some(inventory) => {
            let known = |value: &Option<String>| value.clone().unwrap_or_else(|| "not reported".to_owned());
            let row = |ecu: &EcuAnswer| [ecu.ecu_id.clone(), known(&ecu.hw_part_no), known(&ecu.sw_version)];
            parts.push(table(["ECU", "HARDWARE", "VERSION"], inventory.ecus.iter().map(row).collect()));
        }
    }
    if !vehicle.updates.is_empty() {
        let rows = vehicle
            .updates
            .iter()
            .map(|update| [update.campaign.clone(), update.state.clone(), update.sentence.clone()]);
        parts.push(table(["CAMPAIGN", "STATE", "WHY"], rows.collect()));
    }
    if !vehicle.refused_messages.is_empty() {
        let rows = vehicle.refused_messages.iter().map(|refused| {
            let what = format!("expected {}, found {}", refused.expected, refused.found);
            let place = format!("{} {}", refused.topic, refused.pointer);
            [moment(refused.last_at_ms), refused.code.clone(), place, what]
        });
        parts.push(table(["REFUSED", "CODE", "WHERE", "WHY"], rows.collect()));
    }
    parts.join("\n\n")
}
