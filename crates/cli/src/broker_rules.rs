//! `farrier broker-rules`: who may do what on an outside broker, for every enrolled vehicle, in the broker's words.

use std::fmt::Write;

use clap::Args;
use farrier_protocol::{Binding, GatewayId, Topics, VehicleId};
use serde::Deserialize;

use crate::operator::{Operator, OperatorArgs, read};
use crate::output::{print, print_json};

/// One vehicle may publish and subscribe on its own topics only; which these are no pattern of mosquitto can say, since
/// the client id is both ids of the topic in one.
#[derive(Args)]
pub(crate) struct BrokerRules {
    #[command(flatten)]
    operator: OperatorArgs,
    /// What the broker calls a server of Farrier: the common name of its certificate; can be given several times.
    #[arg(long = "node", required = true, value_name = "COMMON_NAME")]
    nodes: Vec<String>,
    /// What all topics begin with.
    #[arg(long, default_value = "ota")]
    topic_prefix: String,
}

#[derive(Deserialize)]
struct VehicleAnswer {
    vehicle_id: VehicleId,
    gateway_id: GatewayId,
}

impl BrokerRules {
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        let topics = Topics::new(&self.topic_prefix)?;
        for node in &self.nodes {
            // A line of its own would be a rule of its own.
            anyhow::ensure!(
                !node.is_empty() && !node.chars().any(char::is_control),
                "--node: expected the common name of a certificate, found {node:?}"
            );
        }
        let vehicles: Vec<VehicleAnswer> = read(&Operator::new(&self.operator)?.list(&["vehicles"]).await?)?;
        let bindings: Vec<_> = vehicles
            .into_iter()
            .map(|VehicleAnswer { vehicle_id, gateway_id }| Binding { vehicle_id, gateway_id })
            .collect();
        if self.operator.json {
            return print_json(&as_json(&topics, &bindings));
        }
        print(mosquitto(&topics, &self.nodes, &bindings).trim_end())
    }
}

fn as_json(topics: &Topics, bindings: &[Binding]) -> serde_json::Value {
    let vehicle = |binding: &Binding| {
        serde_json::json!({
            "client_id": binding.client_id(),
            "publish": topics.all_up_of(binding),
            "subscribe": topics.down(binding),
        })
    };
    bindings.iter().map(vehicle).collect()
}

/// As mosquitto's `acl_file` has it.
fn mosquitto(topics: &Topics, nodes: &[String], bindings: &[Binding]) -> String {
    let mut rules =
        String::from("# Made by farrier broker-rules; after a change mosquitto has to get SIGHUP.\n");
    for node in nodes {
        let (up, down) = (topics.all_up(), topics.all_down());
        // Writing to a String cannot fail.
        _ = write!(rules, "\nuser {node}\ntopic read {up}\ntopic write {down}\n");
    }
    for binding in bindings {
        let (up, down) = (topics.all_up_of(binding), topics.down(binding));
        _ = write!(rules, "\nuser {}\ntopic write {up}\ntopic read {down}\n", binding.client_id());
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vehicle_may_speak_on_its_own_topics_and_a_server_on_its_side_of_all() {
        let topics = Topics::new("ota").unwrap();
        let binding = Binding { vehicle_id: "VEH_1".parse().unwrap(), gateway_id: "CCU_1".parse().unwrap() };
        let rules = mosquitto(&topics, &["farrier-1".to_owned()], std::slice::from_ref(&binding));
        assert_eq!(
            rules.lines().skip(1).collect::<Vec<_>>(),
            [
                "",
                "user farrier-1",
                "topic read ota/+/+/up/#",
                "topic write ota/+/+/down",
                "",
                "user VEH_1_CCU_1",
                "topic write ota/VEH_1/CCU_1/up/#",
                "topic read ota/VEH_1/CCU_1/down",
            ]
        );
        let json = as_json(&topics, &[binding]);
        assert_eq!(json[0]["client_id"], "VEH_1_CCU_1");
        assert_eq!(json[0]["publish"], "ota/VEH_1/CCU_1/up/#");
    }
}
