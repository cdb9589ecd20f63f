//! A vehicle that only talks: it has messages of the right form and size, and no ECUs behind them.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use farrier_protocol::{
    Binding, MessageType, MsgId, ReceivedMessage, ServerMessage, Sha256, Thumbprint, UpTopic, VehicleBody,
    vci_digest,
};
use farrier_server::pki::LEAF_VALIDITY;
use rustls::crypto::aws_lc_rs::kx_group;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::message::PreparedMessage;
use crate::light::mqtt::{MqttLink, Packet};
use crate::light::tls::{Endpoint, client_config};
use crate::output::now;
use crate::server_process::ServerProcess;

/// How long the server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

const GATEWAY_ID: &str = "CCU-8K0907064-REV-C";

pub(super) struct Vehicle {
    link: MqttLink,
    messages: Messages,
}

/// What a vehicle can say, encoded once.
struct Messages {
    binding: Binding,
    sent: u64,
    wake_up_topic: String,
    vci_topic: String,
    /// With the digest of the inventory, as a vehicle that reconnects sends it.
    known_wake_up: PreparedMessage,
    /// Without: the server asks for the inventory.
    unknown_wake_up: PreparedMessage,
    inventory: PreparedMessage,
    msg_id: String,
    buffer: Vec<u8>,
}

/// A message that waits for its acknowledgement.
pub(super) struct Sent {
    pub(super) packet_id: u16,
    pub(super) octets: u64,
    pub(super) at: Instant,
}

/// An inventory that was asked for, sent and acknowledged.
pub(super) struct Exchange {
    /// Of both messages.
    pub(super) octets: u64,
    /// From when the inventory was sent until it was acknowledged.
    pub(super) latency: Duration,
}

impl Vehicle {
    /// A vehicle with this id and so many ECUs, and a certificate of the server's authority; connected, enrolled, and
    /// its inventory known to the server.
    pub(super) async fn connect(
        server: &ServerProcess,
        vehicle_id: &str,
        ecus: usize,
    ) -> anyhow::Result<Self> {
        let mut vehicle = Self::connect_silently(server, vehicle_id, ecus).await?;
        vehicle.exchange_inventory().await?;
        Ok(vehicle)
    }

    /// The same before it has said anything: it waits for commands.
    pub(super) async fn connect_silently(
        server: &ServerProcess,
        vehicle_id: &str,
        ecus: usize,
    ) -> anyhow::Result<Self> {
        let binding = Binding { vehicle_id: vehicle_id.parse()?, gateway_id: GATEWAY_ID.parse()? };
        let certificates = server.folder().join("vehicles").join(binding.client_id());
        server.pki.issue_vehicle(&binding, &certificates, LEAF_VALIDITY, false, now())?;
        let (tls, thumbprint) = client_config(&certificates, vec![kx_group::X25519MLKEM768])?;
        let commands = format!("ota/{}/{}/down", binding.vehicle_id, binding.gateway_id);
        let link =
            MqttLink::connect(&Endpoint::on_this_machine(server.mqtt), &tls, &binding.client_id(), &commands)
                .await?;
        Ok(Self { link, messages: Messages::new(binding, &thumbprint, ecus)? })
    }

    /// As a vehicle does that has nothing else to say.
    pub(super) async fn says_that_it_is_alive(&mut self) -> anyhow::Result<()> {
        self.link.put_ping();
        self.link.flush().await?;
        let answer = self.link.next().await?;
        ensure!(answer == Packet::Alive, "expected PINGRESP, found {answer:?}");
        Ok(())
    }

    /// Messages of this vehicle that the server has acknowledged with success.
    pub(super) fn acknowledged(&self) -> u64 {
        self.link.acknowledged()
    }

    /// Prepares the WakeUp of a reconnect, which goes out with the next flush.
    pub(super) fn put_wake_up(&mut self) -> Sent {
        let octets = self.messages.known_wake_up();
        let packet_id = self.link.put_publish(&self.messages.wake_up_topic, &self.messages.buffer);
        Sent { packet_id, octets, at: Instant::now() }
    }

    pub(super) async fn flush(&mut self) -> anyhow::Result<()> {
        self.link.flush().await
    }

    /// The id of the next acknowledgement; an error for anything else. Waits for it.
    pub(super) async fn acknowledgement(&mut self) -> anyhow::Result<u16> {
        let next = timeout(PATIENCE, self.link.next()).await;
        acknowledgement(next.context("the server acknowledged nothing in 30 s")??)
    }

    /// The same for one that has come already.
    pub(super) fn acknowledgement_received(&mut self) -> anyhow::Result<Option<u16>> {
        self.link.received()?.map(acknowledgement).transpose()
    }

    /// Wakes up as one whose inventory is not known, sends what it is asked for, and waits until all is acknowledged.
    pub(super) async fn exchange_inventory(&mut self) -> anyhow::Result<Exchange> {
        let woken_up = self.messages.unknown_wake_up();
        self.link.put_publish(&self.messages.wake_up_topic, &self.messages.buffer);
        self.link.flush().await?;
        let asked = timeout(PATIENCE, self.question()).await;
        let asked = asked.context("the server did not ask for the inventory in 30 s")??;
        let octets = woken_up + self.messages.inventory(&asked);
        let packet_id = self.link.put_publish(&self.messages.vci_topic, &self.messages.buffer);
        let at = Instant::now();
        self.link.flush().await?;
        while self.acknowledgement().await? != packet_id {}
        Ok(Exchange { octets, latency: at.elapsed() })
    }

    /// The id of the next command, which must be a RequestVCI. It is acknowledged.
    async fn question(&mut self) -> anyhow::Result<MsgId> {
        loop {
            match self.link.next().await? {
                Packet::Message { packet_id, payload } => {
                    self.link.put_acknowledgement(packet_id);
                    let command = ServerMessage::parse(&payload).ok();
                    let command = command.filter(|command| command.message_type() == MessageType::RequestVci);
                    return Ok(command.with_context(|| unexpected("RequestVCI", &payload))?.msg_id);
                }
                Packet::Acknowledged { reason: 0, .. } => {}
                other @ (Packet::Acknowledged { .. }
                | Packet::Connected { .. }
                | Packet::Subscribed { .. }
                | Packet::Alive
                | Packet::Disconnected { .. }) => bail!("expected RequestVCI, found {other:?}"),
            }
        }
    }
}

fn acknowledgement(packet: Packet) -> anyhow::Result<u16> {
    match packet {
        Packet::Acknowledged { packet_id, reason: 0 } => Ok(packet_id),
        Packet::Message { payload, .. } => bail!(unexpected("an acknowledgement", &payload)),
        other @ (Packet::Acknowledged { .. }
        | Packet::Connected { .. }
        | Packet::Subscribed { .. }
        | Packet::Alive
        | Packet::Disconnected { .. }) => bail!("expected an acknowledgement, found {other:?}"),
    }
}

fn unexpected(expected: &str, payload: &[u8]) -> String {
    format!("expected {expected}, found the message {}", String::from_utf8_lossy(payload))
}

impl Messages {
    fn new(binding: Binding, thumbprint: &Thumbprint, ecus: usize) -> anyhow::Result<Self> {
        let inventory = PreparedMessage::new(&binding, MessageType::SendVci, inventory(ecus));
        let digest = digest_of(&binding, &inventory)?;
        let boot = json!({
            "boot_id": "8d4c8ba295c94f0e9a520f6c1f7f4a118d4c8ba295c94f0e9a520f6c1f7f4a11", "boot_seq": 1, "uptime_ms": 3_600_000,
            "client_cert_thumbprint": thumbprint,
        });
        let mut known = boot.clone();
        if let Value::Object(known) = &mut known {
            known.insert("vci_digest".to_owned(), json!(digest));
        }
        let topic =
            |topic: UpTopic| format!("ota/{}/{}/up/{}", binding.vehicle_id, binding.gateway_id, topic.name());
        Ok(Self {
            sent: 0,
            wake_up_topic: topic(UpTopic::Wakeup),
            vci_topic: topic(UpTopic::Vci),
            known_wake_up: PreparedMessage::new(&binding, MessageType::WakeUp, known),
            unknown_wake_up: PreparedMessage::new(&binding, MessageType::WakeUp, boot),
            inventory,
            msg_id: String::new(),
            buffer: Vec::new(),
            binding,
        })
    }

    /// Writes a WakeUp with the inventory's digest to the buffer; gives its length, as those below do.
    fn known_wake_up(&mut self) -> u64 {
        self.new_msg_id();
        self.known_wake_up.write(&mut self.buffer, &self.msg_id, None)
    }

    fn unknown_wake_up(&mut self) -> u64 {
        self.new_msg_id();
        self.unknown_wake_up.write(&mut self.buffer, &self.msg_id, None)
    }

    fn inventory(&mut self, asked: &MsgId) -> u64 {
        self.new_msg_id();
        self.inventory.write(&mut self.buffer, &self.msg_id, Some(asked.as_str()))
    }

    fn new_msg_id(&mut self) {
        self.sent += 1;
        self.msg_id.clear();
        // Writing to memory does not fail.
        let _ = write!(self.msg_id, "VMG-{}-{:08}", self.binding.vehicle_id, self.sent);
    }
}

/// An inventory with all that the server asks for; about 360 octets for each ECU.
fn inventory(ecus: usize) -> Value {
    let ecu = |number: usize| {
        let (high, low) = (number / 256, number % 256);
        json!({
            "ecu_id": format!("ecu_{number:03}"), "supplier_code": "SUPPLIER-0042",
            "hw_part_no": format!("HW-8K0907{number:03}-REV-C"), "sw_part_no": format!("SW-8K0906{number:03}-0010"),
            "sw_version": "2026.45.1", "bootloader_ver": "2.1.0-build.77",
            "calibration_id": format!("CAL-2026-EU6D-{number:05}"),
            "mac_address": format!("02:00:5e:10:{high:02x}:{low:02x}"),
            "ip_address": format!("10.0.{high}.{low}"), "can_id": format!("0x{number:03X}"),
            "functional_group": {"domain_zone_bit": 0, "domain": "body", "index": low},
        })
    };
    let ecus: Vec<_> = (1..=ecus).map(ecu).collect();
    json!({
        "region": "KR", "fw_sw_version": "2026.45.1", "bootloader_ver": "2.1.0", "ecu_inventory": ecus,
    })
}

/// The digest of an inventory, as WakeUp names it.
fn digest_of(binding: &Binding, inventory: &PreparedMessage) -> anyhow::Result<Sha256> {
    let mut message = Vec::new();
    inventory.write(&mut message, "M", Some("C"));
    let parsed = ReceivedMessage::parse(UpTopic::Vci, &message, Some(binding));
    let parsed = parsed
        .map_err(|refused| anyhow::anyhow!("the inventory would be refused: {}", refused.into_refusal()))?;
    let VehicleBody::SendVci(vci) = &parsed.message.body else {
        bail!("expected an inventory, found another message");
    };
    Ok(vci_digest(vci))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_are_as_large_as_those_of_a_fleet() {
        let binding = Binding {
            vehicle_id: "BENCH-6743a5b1-0001".parse().unwrap(),
            gateway_id: GATEWAY_ID.parse().unwrap(),
        };
        let mut messages = Messages::new(binding, &Thumbprint::of_certificate(b"certificate"), 100).unwrap();
        let small = messages.known_wake_up();
        assert!((440..=560).contains(&small), "{small}");
        let large = messages.inventory(&"SRV-0199d3c5-5a1b-7d3c-8e0f-1a2b3c4d5e6f".parse().unwrap());
        assert!((35_000..=37_000).contains(&large), "{large}");
    }
}
