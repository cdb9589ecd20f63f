//! A vehicle that speaks to the desk as one that is connected does.

use std::sync::Arc;

use bytes::Bytes;
use farrier_protocol::{Binding, MessageType, MsgId, ServerMessage, Sha256, Thumbprint, UpTopic, VehicleId};
use serde_json::{Value, json};

use super::{FleetError, unexpected};
use crate::conversation::ServerDesk;
use crate::desk::{Inbound, MessageDesk, PeerIdentity, Receipt, WallClock};

pub(super) const GATEWAY_ID: &str = "CCU";
/// What the vehicles run, and what the release brings.
pub(super) const VERSIONS: [&str; 2] = ["1.0.0", "2.0.0"];
pub(super) const HARDWARE: &str = "HW-1";
/// Of each vehicle.
const ECUS: usize = 2;
/// Commands that wait for a vehicle are read so many at a time.
const COMMANDS: usize = 16;

pub(super) struct Car {
    binding: Binding,
    peer: Arc<PeerIdentity>,
    sent: u64,
    /// Differs from one life of the object to the next.
    run: String,
}

impl Car {
    pub(super) fn new(vehicle_id: VehicleId) -> Result<Self, FleetError> {
        let gateway_id = GATEWAY_ID.parse().map_err(|error| unexpected("a gateway id", error))?;
        let binding = Binding { vehicle_id, gateway_id };
        let peer = PeerIdentity {
            common_name: binding.client_id(),
            // The fleet was copied from one vehicle, with its certificate.
            thumbprint: Thumbprint::of_certificate(b"bench"),
            certificate: None,
        };
        Ok(Self { binding, peer: Arc::new(peer), sent: 0, run: crate::store::new_id() })
    }

    async fn tell(
        &mut self,
        desk: &ServerDesk,
        clock: &WallClock,
        topic: UpTopic,
        message_type: MessageType,
        body: Value,
    ) -> Result<(), FleetError> {
        self.sent += 1;
        let now = clock();
        let mut message = json!({
            "msg_id": format!("VMG-{}-{}", self.run, self.sent), "proto_ver": "1.0", "type": message_type.name(),
            "vehicle_id": self.binding.vehicle_id, "gateway_id": self.binding.gateway_id, "ts": now.0,
        });
        if let (Value::Object(message), Value::Object(body)) = (&mut message, body) {
            message.extend(body);
        }
        let inbound = Inbound {
            peer: Some(Arc::clone(&self.peer)),
            binding: self.binding.clone(),
            topic,
            payload: Bytes::from(message.to_string()),
            received_at: now,
        };
        match desk.receive(inbound).await {
            Ok(Receipt::Accepted) => Ok(()),
            Ok(receipt) => Err(unexpected("a message that is taken", format!("{receipt:?}: {message}"))),
            Err(error) => Err(unexpected("a message that is taken", error)),
        }
    }

    /// The one command that waits; it is acknowledged.
    async fn command(&mut self, desk: &ServerDesk, expected: MessageType) -> Result<MsgId, FleetError> {
        let pending = desk.pending(&self.binding, COMMANDS).await;
        let pending = pending.map_err(|error| unexpected("the commands of a vehicle", error))?;
        let [command] = pending.as_slice() else {
            return Err(unexpected("one command", pending.len()));
        };
        let parsed = ServerMessage::parse(&command.payload);
        let found = parsed.map_err(|refused| unexpected("a command", refused))?.message_type();
        if found != expected {
            return Err(unexpected("the next command of an update", found));
        }
        let delivered = desk.delivered(&self.binding, &command.msg_id).await;
        delivered.map_err(|error| unexpected("an acknowledgement that is taken", error))?;
        Ok(command.msg_id.clone())
    }

    /// A reconnect.
    pub(super) async fn wake_up(&mut self, desk: &ServerDesk, clock: &WallClock) -> Result<(), FleetError> {
        let body = json!({
            "boot_id": "b", "boot_seq": 1, "uptime_ms": 3_600_000,
            "client_cert_thumbprint": self.peer.thumbprint, "vci_digest": digest()?,
        });
        self.tell(desk, clock, UpTopic::Wakeup, MessageType::WakeUp, body).await
    }

    /// Says what runs on its ECUs, as it is asked.
    pub(super) async fn answer_vci(
        &mut self,
        desk: &ServerDesk,
        clock: &WallClock,
        version: &str,
    ) -> Result<(), FleetError> {
        let asked = self.command(desk, MessageType::RequestVci).await?;
        let mut body = inventory(version);
        if let Value::Object(body) = &mut body {
            body.insert("correlation_id".to_owned(), json!(asked));
        }
        self.tell(desk, clock, UpTopic::Vci, MessageType::SendVci, body).await
    }

    /// From the first command to the inventory that proves the update; gives the number of its messages.
    pub(super) async fn update(&mut self, desk: &ServerDesk, clock: &WallClock) -> Result<u64, FleetError> {
        let [before, after] = VERSIONS;
        let sent = self.sent;
        self.wake_up(desk, clock).await?;
        self.answer_vci(desk, clock, before).await?;
        let asked = self.command(desk, MessageType::RequestDownloadReadiness).await?;
        let body = json!({
            "correlation_id": asked, "ready": true, "requested_fields": {"power.battery_12v_v": 12.4},
        });
        self.tell(desk, clock, UpTopic::Readiness, MessageType::ReadinessReportForDownload, body).await?;
        let start = self.command(desk, MessageType::StartDownload).await?;
        for operation in ["download", "install", "commit"] {
            let body = json!({
                "correlation_id": start, "operation": operation, "ecu_count": ECUS, "verified_integrity": true,
            });
            self.tell(desk, clock, UpTopic::Result, MessageType::UpdateSuccessResult, body).await?;
        }
        self.answer_vci(desk, clock, after).await?;
        Ok(self.sent.saturating_sub(sent))
    }
}

fn inventory(version: &str) -> Value {
    let ecu = |number: usize| {
        json!({
            "ecu_id": format!("ecu_{number:03}"), "supplier_code": "SUPPLIER-0042", "hw_part_no": HARDWARE,
            "sw_part_no": "SW-1", "sw_version": version, "bootloader_ver": "2.1.0", "calibration_id": "C",
            "can_id": "0x100", "functional_group": {"domain_zone_bit": 0, "domain": "body", "index": number},
        })
    };
    let ecus: Vec<_> = (1..=ECUS).map(ecu).collect();
    json!({"region": "KR", "fw_sw_version": version, "bootloader_ver": "2.1.0", "ecu_inventory": ecus})
}

/// Of the inventory before the update.
fn digest() -> Result<Sha256, FleetError> {
    let [before, _] = VERSIONS;
    let mut body = inventory(before);
    if let Value::Object(body) = &mut body {
        // Not part of the digest.
        body.insert("correlation_id".to_owned(), json!("C"));
    }
    let vci = serde_json::from_value(body).map_err(|error| unexpected("an inventory", error))?;
    Ok(farrier_protocol::vci_digest(&vci))
}
