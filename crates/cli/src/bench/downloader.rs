//! A vehicle that goes as far as its StartDownload, so that it may fetch a package; it has one ECU and no software.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use farrier_protocol::{Binding, MessageType, ServerBody, ServerMessage, StartDownload, Thumbprint, UpTopic};
use farrier_server::pki::LEAF_VALIDITY;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::kx_group;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::light::mqtt::{MqttLink, Packet};
use crate::light::tls::{Endpoint, client_config};
use crate::output::now;
use crate::server_process::ServerProcess;

/// The hardware of its ECU.
pub(super) const HARDWARE: &str = "HW-BENCH";
/// How long the server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Downloader {
    binding: Binding,
    pub(super) tls: Arc<ClientConfig>,
    thumbprint: Thumbprint,
    messages: u64,
    link: MqttLink,
}

impl Downloader {
    /// Vehicle number so much, with a certificate of the server's authority, connected and known to the server.
    pub(super) async fn connect(server: &ServerProcess, number: usize) -> anyhow::Result<Self> {
        let binding = Binding {
            vehicle_id: format!("VEH_{number:05}").parse()?,
            gateway_id: format!("CCU_{number:05}").parse()?,
        };
        let certificates = server.folder().join("vehicles").join(binding.client_id());
        server.pki.issue_vehicle(&binding, &certificates, LEAF_VALIDITY, false, now())?;
        // The classical group is for an nginx whose TLS library has no ML-KEM.
        let (tls, thumbprint) =
            client_config(&certificates, vec![kx_group::X25519MLKEM768, kx_group::X25519])?;
        let commands = format!("ota/{}/{}/down", binding.vehicle_id, binding.gateway_id);
        let link =
            MqttLink::connect(&Endpoint::on_this_machine(server.mqtt), &tls, &binding.client_id(), &commands)
                .await?;
        let mut vehicle = Self { binding, tls, thumbprint, messages: 0, link };
        let wake_up = vehicle.message(
            MessageType::WakeUp,
            json!({
                "boot_id": "boot-1", "boot_seq": 1, "uptime_ms": 3_600_000,
                "client_cert_thumbprint": vehicle.thumbprint,
            }),
        );
        vehicle.send(UpTopic::Wakeup, &wake_up).await?;
        vehicle.send_inventory().await?;
        Ok(vehicle)
    }

    /// Answers what it is asked in a campaign, up to the StartDownload.
    pub(super) async fn start_download(&mut self) -> anyhow::Result<StartDownload> {
        self.send_inventory().await?;
        let request = self.command(MessageType::RequestDownloadReadiness).await?;
        let body = json!({
            "correlation_id": request.msg_id, "ready": true, "requested_fields": {"power.battery_12v_v": 12.4},
        });
        let report = self.message(MessageType::ReadinessReportForDownload, body);
        self.send(UpTopic::Readiness, &report).await?;
        match self.command(MessageType::StartDownload).await?.body {
            ServerBody::StartDownload(start) => Ok(start),
            ServerBody::RequestVci(_)
            | ServerBody::RequestDownloadReadiness(_)
            | ServerBody::StartRollback(_)
            | ServerBody::CancelUpdate(_)
            | ServerBody::MessageRejected(_) => bail!("expected StartDownload, found another command"),
        }
    }

    /// Answers the RequestVCI that comes next.
    async fn send_inventory(&mut self) -> anyhow::Result<()> {
        let request = self.command(MessageType::RequestVci).await?;
        let ecu = json!({
            "ecu_id": "ecu_001", "supplier_code": "SUP-0042", "hw_part_no": HARDWARE, "sw_part_no": "SW-1",
            "sw_version": "1.0.0", "bootloader_ver": "2.1.0", "calibration_id": "CAL-1", "can_id": "0x100",
            "functional_group": {"domain_zone_bit": 0, "domain": "body", "index": 1},
        });
        let body = json!({
            "correlation_id": request.msg_id, "region": "KR", "fw_sw_version": "1.0.0", "bootloader_ver": "2.1.0",
            "ecu_inventory": [ecu],
        });
        let inventory = self.message(MessageType::SendVci, body);
        self.send(UpTopic::Vci, &inventory).await
    }

    /// A message of this type that was not sent before.
    fn message(&mut self, message_type: MessageType, body: Value) -> Vec<u8> {
        self.messages += 1;
        let mut message = json!({
            "msg_id": format!("VMG-{}-{:08}", self.binding.vehicle_id, self.messages), "proto_ver": "1.0",
            "type": message_type.name(), "vehicle_id": self.binding.vehicle_id,
            "gateway_id": self.binding.gateway_id, "ts": now().0,
        });
        if let (Value::Object(message), Value::Object(body)) = (&mut message, body) {
            message.extend(body);
        }
        message.to_string().into_bytes()
    }

    async fn send(&mut self, topic: UpTopic, message: &[u8]) -> anyhow::Result<()> {
        let Binding { vehicle_id, gateway_id } = &self.binding;
        let topic = format!("ota/{vehicle_id}/{gateway_id}/up/{}", topic.name());
        self.link.put_publish(&topic, message);
        self.link.flush().await
    }

    /// The next command, which must be of this type; it is acknowledged.
    async fn command(&mut self, expected: MessageType) -> anyhow::Result<ServerMessage> {
        let wait = async {
            loop {
                match self.link.next().await? {
                    Packet::Message { packet_id, payload } => {
                        self.link.put_acknowledgement(packet_id);
                        self.link.flush().await?;
                        let message = ServerMessage::parse(&payload).ok();
                        let message = message.filter(|message| message.message_type() == expected);
                        return message.with_context(|| {
                            format!("expected {expected}, found {}", String::from_utf8_lossy(&payload))
                        });
                    }
                    Packet::Acknowledged { reason: 0, .. } => {}
                    other @ (Packet::Acknowledged { .. }
                    | Packet::Connected { .. }
                    | Packet::Subscribed { .. }
                    | Packet::Alive
                    | Packet::Disconnected { .. }) => bail!("expected {expected}, found {other:?}"),
                }
            }
        };
        timeout(PATIENCE, wait)
            .await
            .with_context(|| format!("no {expected} within {} s", PATIENCE.as_secs()))?
    }
}
