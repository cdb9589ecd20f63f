//! A vehicle that says a lot: it reboots, answers, updates, repeats itself, and remembers what was acknowledged.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farrier_protocol::{Binding, Thumbprint};
use farrier_system_tests::mqtt_client::MqttClient;
use rumqttc::mqttbytes::v5::PubAckReason;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::Random;

/// ECUs in each inventory, which makes it about 10 KB.
const ECUS: usize = 32;
/// A vehicle that has nothing to say for so long reboots.
const BOREDOM: Duration = Duration::from_millis(30);
/// Before it connects again.
const PAUSE: Duration = Duration::from_millis(15);

/// What a vehicle knows when it comes to rest.
#[derive(Debug, Default, Clone)]
pub(crate) struct Memory {
    /// Ids of messages whose PUBACK came.
    pub(crate) acknowledged: Vec<String>,
    /// How often it sent a message again that was acknowledged, on purpose.
    pub(crate) repeated: usize,
    /// How often it booted.
    pub(crate) boots: u64,
}

pub(crate) struct Vehicle {
    pub(crate) binding: Binding,
    certificates: PathBuf,
    port: u16,
    random: Random,
    sent: u64,
    version: String,
    next_version: String,
    /// Messages to be acknowledged, in this order: topic, id, content.
    outbox: VecDeque<(&'static str, String, String)>,
    /// Commands that it has taken.
    taken: BTreeSet<String>,
    memory: Arc<Mutex<Memory>>,
}

impl Vehicle {
    pub(crate) fn new(binding: Binding, certificates: PathBuf, port: u16, seed: u64) -> Self {
        Self {
            binding,
            certificates,
            port,
            random: Random(seed),
            sent: 0,
            version: "1".to_owned(),
            next_version: "1".to_owned(),
            outbox: VecDeque::new(),
            taken: BTreeSet::new(),
            memory: Arc::default(),
        }
    }

    pub(crate) fn memory(&self) -> Arc<Mutex<Memory>> {
        Arc::clone(&self.memory)
    }

    /// Lives through connections until it is asked to rest, and then until all that it has said is acknowledged.
    pub(crate) async fn live(mut self, rest: CancellationToken) {
        loop {
            let own = (self.certificates.clone(), self.binding.client_id());
            let connected = MqttClient::connect(self.port, &own.0, &own.1).await;
            if let Some(mut client) = connected
                && self.be_connected(&mut client, &rest).await
            {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether it has come to rest; else the connection ended.
    async fn be_connected(&mut self, client: &mut MqttClient, rest: &CancellationToken) -> bool {
        let down = format!("ota/{}/{}/down", self.binding.vehicle_id, self.binding.gateway_id);
        if client.subscribe(&down).await.is_none() {
            return false;
        }
        if self.memory.lock().unwrap().boots == 0 || self.random.below(3) == 0 {
            self.boot();
        }
        loop {
            if let Some((topic, id, content)) = self.outbox.front().cloned() {
                if !self.publish(client, topic, &id, &content).await {
                    return false;
                }
                self.outbox.pop_front();
                continue;
            }
            match tokio::time::timeout(BOREDOM, client.next()).await {
                Ok(Some(command)) => self.take(&command),
                Ok(None) => return false,
                Err(_) if rest.is_cancelled() => return true,
                Err(_) => self.boot(),
            }
        }
    }

    /// Publishes until it is acknowledged, and sometimes once more; `false` if the connection ended before.
    async fn publish(&mut self, client: &mut MqttClient, topic: &str, id: &str, content: &str) -> bool {
        let topic = format!("ota/{}/{}/up/{topic}", self.binding.vehicle_id, self.binding.gateway_id);
        match client.publish(&topic, content.to_owned()).await {
            Some(PubAckReason::Success) => self.memory.lock().unwrap().acknowledged.push(id.to_owned()),
            Some(other) => panic!("{id} was answered by {other:?}: {content}"),
            None => return false,
        }
        if self.random.below(3) == 0 {
            self.memory.lock().unwrap().repeated += 1;
            return client.publish(&topic, content.to_owned()).await == Some(PubAckReason::Success);
        }
        true
    }

    fn boot(&mut self) {
        let boots = {
            let mut memory = self.memory.lock().unwrap();
            memory.boots += 1;
            memory.boots
        };
        let leaf = CertificateDer::from_pem_file(self.certificates.join("cert.pem")).unwrap();
        let body = json!({
            "boot_id": format!("boot-{boots}"), "boot_seq": boots, "uptime_ms": 1_000,
            "client_cert_thumbprint": Thumbprint::of_certificate(&leaf).to_string(),
        });
        self.say("wakeup", "WakeUp", body);
    }

    fn take(&mut self, command: &Value) {
        let id = command["msg_id"].as_str().unwrap().to_owned();
        if !self.taken.insert(id.clone()) {
            return;
        }
        match command["type"].as_str().unwrap() {
            "RequestVCI" => self.tell_inventory(&id),
            "RequestDownloadReadiness" => {
                let measured = json!({"power.battery_12v_v": 12.5});
                let body = json!({"correlation_id": id, "ready": true, "requested_fields": measured});
                self.say("readiness", "ReadinessReportForDownload", body);
            }
            "StartDownload" => {
                command["packages"][0]["target_version"].as_str().unwrap().clone_into(&mut self.next_version);
                for operation in ["download", "install", "commit"] {
                    let body = json!({
                        "correlation_id": id, "operation": operation, "ecu_count": ECUS, "verified_integrity": true,
                    });
                    self.say("result", "UpdateSuccessResult", body);
                }
                self.version.clone_from(&self.next_version);
            }
            // Those that a restart made superfluous: the store says whether they were refused rightly.
            "MessageRejected" => {}
            other => panic!("expected no {other}: {command}"),
        }
    }

    fn tell_inventory(&mut self, request: &str) {
        let version = self.version.clone();
        let ecu = |number: usize| {
            json!({
                "ecu_id": format!("ecu_{number:03}"), "supplier_code": "SUP", "hw_part_no": "HW-1", "sw_part_no": "SW",
                "sw_version": version, "bootloader_ver": "1", "calibration_id": "CAL", "can_id": "0x7E0",
                "functional_group": {"domain_zone_bit": 0, "domain": "body", "index": number + 1},
            })
        };
        let body = json!({
            "correlation_id": request, "region": "KR", "fw_sw_version": "1", "bootloader_ver": "1",
            "ecu_inventory": (0..ECUS).map(ecu).collect::<Vec<_>>(),
        });
        self.say("vci", "SendVCI", body);
    }

    fn say(&mut self, topic: &'static str, message_type: &str, body: Value) {
        self.sent += 1;
        let id = format!("M-{}", self.sent);
        let mut message = json!({
            "msg_id": id, "proto_ver": "1.0", "type": message_type, "ts": 1_800_000_000_000_i64,
            "vehicle_id": self.binding.vehicle_id, "gateway_id": self.binding.gateway_id,
        });
        let (Value::Object(to), Value::Object(from)) = (&mut message, body) else { panic!("not an object") };
        to.extend(from);
        self.outbox.push_back((topic, id, message.to_string()));
    }
}
