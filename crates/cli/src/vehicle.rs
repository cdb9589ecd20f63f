//! `farrier vehicle`: looks at vehicles, and enrols them.

mod bindings;
mod exchange;
mod set_aside;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use farrier_protocol::{GatewayId, Thumbprint, VehicleId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::messages::Timeline;
use crate::operator::{Operator, OperatorArgs, read};
use crate::output::{moment, now, plain, print, print_json, table};

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
    List {
        /// Only those that this query selects, as: region = "KR" and tag = "prototype".
        #[arg(long = "where", value_name = "QUERY")]
        query: Option<String>,
        /// Only those of this fleet group.
        #[arg(long)]
        group: Option<String>,
    },
    /// Set a vehicle's VIN, region, time zone, type and tags; an empty text forgets.
    Set {
        /// The vehicle's id.
        vehicle: VehicleId,
        /// Its vehicle identification number.
        #[arg(long)]
        vin: Option<String>,
        /// Its region, in place of what it reports.
        #[arg(long)]
        region: Option<String>,
        /// Its time zone, as Asia/Seoul.
        #[arg(long)]
        time_zone: Option<String>,
        /// The type that it is approved as.
        #[arg(long = "type", value_name = "TYPE")]
        vehicle_type: Option<String>,
        /// A tag that it gets; can be given several times.
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        /// A tag that it loses; can be given several times.
        #[arg(long = "untag", value_name = "TAG")]
        untags: Vec<String>,
    },
    /// Bind a vehicle to another gateway or certificate, as after a repair.
    Rebind {
        /// The vehicle's id.
        vehicle: VehicleId,
        /// The id of the gateway that it has now; without it, the id stays.
        #[arg(long)]
        gateway: Option<GatewayId>,
        /// SHA-256 of the certificate that it must use; without it, that of its next WakeUp counts.
        #[arg(long)]
        thumbprint: Option<Thumbprint>,
        /// Why; the audit log is told.
        #[arg(long)]
        reason: String,
    },
    /// Ask a connected vehicle for its inventory.
    AskInventory {
        /// The vehicle's id.
        vehicle: VehicleId,
    },
    /// List what a vehicle ran, newest first.
    Configurations {
        /// The vehicle's id.
        vehicle: VehicleId,
    },
    /// List the gateways and certificates that a vehicle had, newest first.
    Bindings {
        /// The vehicle's id.
        vehicle: VehicleId,
    },
    /// Look at the vehicles that failed a release too often: no campaign begins that release on them.
    SetAside {
        #[command(subcommand)]
        command: set_aside::SetAside,
    },
    /// Take a vehicle back that is set aside for a release, and forget its failures.
    TakeBack {
        /// The vehicle's id.
        vehicle: VehicleId,
        /// The release.
        #[arg(long)]
        release: String,
    },
    /// Write the vehicles to stdout, for other programs or to import them again.
    Export {
        /// How they are written.
        #[arg(long, value_enum, default_value = "csv")]
        format: exchange::Format,
        /// Only those that this query selects.
        #[arg(long = "where", value_name = "QUERY")]
        query: Option<String>,
    },
    /// Enrol the vehicles of a file, or change what is said of them.
    Import {
        /// CSV or JSON lines, as `export` writes them.
        file: PathBuf,
        /// How they are written; by the file's name where it is absent.
        #[arg(long, value_enum)]
        format: Option<exchange::Format>,
        /// Only try it.
        #[arg(long)]
        dry_run: bool,
    },
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
    certificate_ends_at_ms: Option<i64>,
    #[serde(default)]
    certificate_serial: Option<String>,
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
struct ConfigurationAnswer {
    number: u64,
    first_seen_at_ms: i64,
    last_seen_at_ms: i64,
    current: bool,
    inventory: InventoryAnswer,
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
            Command::List { query, group } => {
                let asked = [("where", query), ("group", group)];
                let asked: Vec<_> =
                    asked.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
                operator.list_with(&["vehicles"], &asked).await?
            }
            Command::Set { vehicle, vin, region, time_zone, vehicle_type, tags, untags } => {
                let said = [
                    ("vin", vin),
                    ("region", region),
                    ("time_zone", time_zone),
                    ("vehicle_type", vehicle_type),
                ];
                let mut body: Map<_, _> = said
                    .into_iter()
                    .filter_map(|(name, value)| Some(said_of(name, value.as_deref()?)))
                    .collect();
                if !tags.is_empty() {
                    body.insert("add_tags".to_owned(), json!(tags));
                }
                if !untags.is_empty() {
                    body.insert("remove_tags".to_owned(), json!(untags));
                }
                operator.patch(&["vehicles", vehicle.as_str()], &Value::Object(body)).await?
            }
            Command::Rebind { vehicle, gateway, thumbprint, reason } => {
                let body = json!({ "gateway_id": gateway, "thumbprint": thumbprint, "reason": reason });
                operator.post(&["vehicles", vehicle.as_str(), "rebind"], &body).await?
            }
            Command::AskInventory { vehicle } => {
                operator.post(&["vehicles", vehicle.as_str(), "ask-inventory"], &json!({})).await?
            }
            Command::Configurations { vehicle } => {
                operator.list(&["vehicles", vehicle.as_str(), "configurations"]).await?
            }
            Command::Bindings { vehicle } => {
                operator.list(&["vehicles", vehicle.as_str(), "bindings"]).await?
            }
            Command::SetAside { command } => command.ask(&operator).await?,
            Command::TakeBack { vehicle, release } => {
                set_aside::take_back(&operator, vehicle, release).await?
            }
            Command::Export { format, query } => {
                return exchange::export(&operator, *format, query.as_deref()).await;
            }
            Command::Import { file, format, dry_run } => {
                return exchange::import(&operator, file, *format, *dry_run, self.operator.json).await;
            }
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
            Command::List { .. } => print(&listed(&read::<Vec<VehicleAnswer>>(&answer)?)),
            Command::Show { .. } => print(&shown(&read(&answer)?)),
            Command::Why { .. } => print(&plain(&read::<WhyAnswer>(&answer)?.sentence)),
            Command::Messages { .. } | Command::Export { .. } | Command::Import { .. } => Ok(()),
            Command::Set { vehicle, .. } => print(&format!("Vehicle {vehicle} is set.")),
            Command::Rebind { vehicle, .. } => {
                print(&format!("Vehicle {vehicle} is bound anew; its earlier gateway is refused."))
            }
            Command::AskInventory { vehicle } => print(&format!(
                "Vehicle {vehicle} is asked for its inventory; farrier vehicle show {vehicle} shows it when it has answered."
            )),
            Command::Bindings { .. } => print(&bindings::listed(&answer)?),
            Command::SetAside { .. } => print(&set_aside::listed(&answer)?),
            Command::TakeBack { vehicle, release } => print(&set_aside::taken_back(vehicle, release)),
            Command::Configurations { .. } => print(&ran(&read::<Vec<ConfigurationAnswer>>(&answer)?)),
            Command::Release { vehicle } => {
                print(&format!("Released vehicle {vehicle} from its quarantine; its updates go on."))
            }
            Command::Enroll { vehicle, gateway } => {
                print(&format!("Enrolled vehicle {vehicle} with gateway {gateway}."))
            }
        }
    }
}

/// An empty text forgets.
fn said_of(name: &str, value: &str) -> (String, Value) {
    (name.to_owned(), if value.is_empty() { Value::Null } else { json!(value) })
}

fn ran(configurations: &[ConfigurationAnswer]) -> String {
    if configurations.is_empty() {
        return "It has not reported its inventory yet.".to_owned();
    }
    let rows = configurations.iter().map(|one| {
        let ecus: Vec<_> = one
            .inventory
            .ecus
            .iter()
            .map(|ecu| format!("{} {}", ecu.ecu_id, ecu.sw_version.as_deref().unwrap_or("not reported")))
            .collect();
        [
            if one.current { format!("{}, current", one.number) } else { one.number.to_string() },
            moment(Some(one.first_seen_at_ms)),
            moment(Some(one.last_seen_at_ms)),
            ecus.join(", "),
        ]
    });
    table(["CONFIGURATION", "FIRST SEEN", "LAST SEEN", "ECUS"], rows.collect())
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

/// A certificate that ends within so many ms needs somebody.
const ENDS_SOON_MS: i64 = 30 * 86_400_000;

/// Its thumbprint and end, and what to do where that is near.
fn certificate(vehicle: &VehicleAnswer, now_ms: i64) -> String {
    let thumbprint = vehicle.thumbprint.as_deref().map_or("not seen yet".to_owned(), plain);
    let Some(ends_at) = vehicle.certificate_ends_at_ms else {
        return format!("Certificate {thumbprint}, its end is not known: the server has not seen it");
    };
    let serial = vehicle.certificate_serial.as_deref().map(plain).unwrap_or_default();
    let told =
        format!("Certificate {thumbprint}, valid until {} (serial number {serial})", moment(Some(ends_at)));
    let id = plain(&vehicle.vehicle_id);
    let renew = format!(
        "issue its gateway a new one, bring it there, then: farrier vehicle rebind {id} --thumbprint SHA-256 --reason TEXT"
    );
    match (ends_at < now_ms, ends_at.saturating_sub(now_ms) < ENDS_SOON_MS) {
        (true, _) => format!("{told}\nIt has ended, and the vehicle cannot connect any more: {renew}"),
        (false, true) => format!("{told}\nIt ends soon, and then the vehicle cannot connect: {renew}"),
        (false, false) => told,
    }
}

fn shown(vehicle: &VehicleAnswer) -> String {
    let mut parts = vec![format!(
        "Vehicle {} with gateway {}: {}, last seen {}\n{}",
        plain(&vehicle.vehicle_id),
        plain(&vehicle.gateway_id),
        connection(vehicle),
        moment(vehicle.last_seen_at_ms),
        certificate(vehicle, now().0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_told_with_what_to_do_where_it_is_near() {
        let told = |ends_at: Option<i64>| {
            let answer = json!({
                "vehicle_id": "V1", "gateway_id": "G1", "connected": true, "thumbprint": "ab",
                "certificate_ends_at_ms": ends_at, "certificate_serial": "7f",
            });
            certificate(&read(&answer).unwrap(), 1_000)
        };
        assert_eq!(told(None), "Certificate ab, its end is not known: the server has not seen it");
        let far = told(Some(1_000 + ENDS_SOON_MS));
        assert_eq!(far, "Certificate ab, valid until 1970-01-31 00:00:01 UTC (serial number 7f)");
        assert!(told(Some(999 + ENDS_SOON_MS)).contains("It ends soon"));
        assert!(told(Some(999)).contains("cannot connect any more: issue its gateway a new one"));
    }
}
