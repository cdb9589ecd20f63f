//! What the pictures show: a fleet that has had one campaign and is in the middle of another.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use farrier_simulator::vehicle::SimulatedVehicle;
use farrier_system_tests::api::Api;
use farrier_system_tests::mqtt_client::MqttClient;
use farrier_system_tests::testbed::{Testbed, binding, images};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// ECUs of a vehicle that is simulated whole.
const ECUS: u8 = 6;
/// Octets of an image.
const OCTETS: usize = 150_000;
/// The share of the fleet that does so.
const SHARES: [&str; 8] = ["--failing", "0.03", "--silent", "0.015", "--not-ready", "0.2", "--away", "0.05"];
/// How long the first campaign may take, looked at once a second.
const PATIENCE: u32 = 900;

pub(crate) struct Scene {
    api: Api,
    fleet: Child,
    vehicles: Vec<SimulatedVehicle>,
    count: usize,
}

impl Scene {
    /// Vehicles of both kinds, fleet groups, tokens, a webhook that fails, a message that was refused.
    pub(crate) async fn set(testbed: &Testbed, count: usize) -> Self {
        let api = testbed.api();
        let mut failing = testbed.vehicle(3, ECUS);
        failing.ecu_mut(&"ecu_004".parse().unwrap()).unwrap().faults.fails_write_at_byte = Some(60_000);
        let mut vehicles = Vec::new();
        for config in [testbed.vehicle(1, ECUS), testbed.vehicle(2, ECUS), failing] {
            vehicles.push(SimulatedVehicle::start(config).await.unwrap());
        }
        let signals = vehicles[1].config().readiness_signals();
        let standing = std::fs::read_to_string(&signals).unwrap();
        std::fs::write(&signals, standing.replace("speed_kmh\" = 0.0", "speed_kmh\" = 42.0")).unwrap();
        let fleet = fleet(testbed, count).await;
        api.knows_vehicles(count + vehicles.len()).await;

        for number in 1..=count.min(40) {
            patch(&api, &format!("vehicles/ION-{number:05}"), json!({ "tags": ["pilot"] })).await;
        }
        patch(&api, "vehicles/VEH_002", json!({ "tags": ["pilot"], "vin": "KMHFARREER0000002" })).await;
        api.post("groups", json!({ "name": "pilots", "query": "tag = \"pilot\"" })).await;
        api.post("groups", json!({ "name": "korea", "query": "region = \"KR\"" })).await;
        api.post("tokens", json!({ "name": "release-pipeline", "scope": "release_manager" })).await;
        // Nobody listens there.
        let hook = json!({ "name": "pager", "url": "http://127.0.0.1:9/farrier", "types": ["*"] });
        api.post("webhooks", hook).await;
        refused_message(testbed).await;
        Self { api, fleet, vehicles, count }
    }

    /// For one half of the fleet, to its end.
    pub(crate) async fn run_the_first_campaign(&mut self, testbed: &Testbed) {
        let api = testbed.api();
        release(&api, "autumn-2026", "2.0.0", 1).await;
        let half: Vec<_> = (1..=self.count / 2).map(|number| format!("ION-{number:05}")).collect();
        let plan = json!({
            "name": "autumn-2026", "release": "autumn-2026", "vehicles": half, "update_deadline_s": 20,
            "rollout": { "stop": { "inconsistent": false } },
        });
        api.post("campaigns", plan).await;
        api.post("campaigns/autumn-2026/start", json!({})).await;
        for _ in 0..PATIENCE {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if api.get("campaigns/autumn-2026").await["state"] == "finished" {
                return;
            }
        }
        panic!("{}", api.get("campaigns/autumn-2026").await);
    }

    /// For all, in three waves; comes back when the last one is under way. And one that nobody has approved yet.
    pub(crate) async fn begin_the_second(&mut self, testbed: &Testbed) {
        let api = testbed.api();
        release(&api, "winter-2026", "2.1.0", 2).await;
        // Vehicles that are left with a mix are part of the play.
        let stop = json!({ "inconsistent": false });
        let waves = json!([
            { "size": { "group": "pilots" }, "stop": stop },
            { "size": { "percent": 10 }, "opens": { "after_success_percent": 50 }, "stop": stop },
            { "size": "rest", "opens": "by_hand", "stop": stop },
        ]);
        let plan = json!({
            "name": "winter-2026", "release": "winter-2026", "update_deadline_s": 40,
            "rollout": {
                "waves": waves, "stop": { "inconsistent": false, "failed_percent": 9 },
                "vehicles_at_once": 80, "starts_per_minute": 90,
            },
        });
        api.post("campaigns", plan).await;
        let plan = json!({
            "name": "spring-2027", "release": "winter-2026", "where": "tag = \"pilot\"", "needs_approval": true,
        });
        api.post("campaigns", plan).await;
        api.post("campaigns/winter-2026/start", json!({})).await;
        let at_release =
            async || api.get("campaigns/winter-2026").await["states"]["succeeded"].as_u64().unwrap_or(0);
        let wanted = (self.count as u64 / 8).min(120);
        for second in 0..PATIENCE {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if second == 30 {
                let open: Vec<Value> =
                    api.get("campaigns/winter-2026").await["waves"].as_array().unwrap().clone();
                for _ in open.iter().filter(|wave| wave["is_open"] == false) {
                    api.ask(Method::POST, "campaigns/winter-2026/open-wave", Some(json!({}))).await;
                }
            }
            if at_release().await >= wanted {
                return;
            }
        }
        panic!("{}", api.get("campaigns/winter-2026").await);
    }

    pub(crate) async fn clear(mut self) {
        self.fleet.kill().await.unwrap();
        for vehicle in self.vehicles {
            vehicle.stop().await.unwrap();
        }
        drop(self.api);
    }
}

/// So many light vehicles in another process; comes back when the server knows them all.
async fn fleet(testbed: &Testbed, count: usize) -> Child {
    let data = testbed.folder().join("data");
    let operator = testbed.api().base().trim_end_matches("/api/v1").to_owned();
    let mut fleet = Command::new(env!("CARGO_BIN_EXE_farrier"))
        .args(["simulate", "fleet", "--no-campaign", "--tag", "ION", "--vehicles", &count.to_string()])
        .args(SHARES)
        .args(["--server", &operator, "--mqtt", &format!("localhost:{}", testbed.mqtt().port())])
        .args([Path::new("--pki"), &testbed.folder().join("pki")])
        .args([Path::new("--token-file"), &data.join("operator.token")])
        .args([Path::new("--ca"), &data.join("operator.ca.pem")])
        .env_remove("FARRIER_TOKEN")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(fleet.stdout.take().unwrap()).lines();
    while let Some(line) = said.next_line().await.unwrap() {
        println!("{line}");
        if line.starts_with("They stay") {
            return fleet;
        }
    }
    panic!("the fleet has ended");
}

/// Images for the hardware of both kinds of vehicles.
async fn release(api: &Api, name: &str, version: &str, seed: u64) {
    let mut all = images(seed, ECUS, OCTETS);
    let of_the_fleet = images(seed + 100, 4, OCTETS).into_iter().zip(1..);
    all.extend(of_the_fleet.map(|((_, image), number)| (format!("HW-ION-{number:03}"), image)));
    api.create_release(name, version, &all).await;
}

async fn patch(api: &Api, path: &str, body: Value) {
    let (status, answer) = api.ask(Method::PATCH, path, Some(body)).await;
    assert!(status.is_success(), "PATCH {path}: {status} {answer}");
}

/// A gateway that sends what nobody can read.
async fn refused_message(testbed: &Testbed) {
    let binding = binding(9);
    let certificates = testbed.certificates(&binding);
    let client_id = binding.client_id();
    let mut client = MqttClient::connect(testbed.mqtt().port(), &certificates, &client_id).await.unwrap();
    let topic = format!("ota/{}/{}/up/wakeup", binding.vehicle_id, binding.gateway_id);
    client.publish(&topic, r#"{"vehicle_id":"VEH_009","boot_counter":"many"}"#).await;
}
