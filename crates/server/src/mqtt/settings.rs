//! What an operator can set about MQTT: where vehicles connect, and how much of everything one of them,
//! and all of them together, may take.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Deserialize;

use crate::broker::BrokerSettings;

/// The `[mqtt]` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttSettings {
    /// Whether vehicles connect to this server or to a broker.
    pub mode: MqttMode,
    /// Where vehicles speak MQTT with this server.
    pub listen: SocketAddr,
    /// How much of everything, where they do.
    pub limits: MqttLimits,
    /// Where the broker is and how it is spoken to, where there is one.
    pub broker: BrokerSettings,
}

/// What vehicles connect to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MqttMode {
    /// This server, which is its own MQTT endpoint.
    #[default]
    Endpoint,
    /// Somebody's broker, whose client this server is.
    Broker,
}

impl Default for MqttSettings {
    fn default() -> Self {
        Self {
            mode: MqttMode::Endpoint,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8883)),
            limits: MqttLimits::default(),
            broker: BrokerSettings::default(),
        }
    }
}

/// The `[mqtt.limits]` section: bounds on what vehicles can hold and do. A certificate has one connection at a
/// time, so what is counted by certificate bounds each connection too, and reconnecting does not reset it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttLimits {
    /// Connections at a time; whoever comes then is told that the server is busy.
    pub connections: usize,
    /// TLS handshakes at a time; more wait.
    pub handshakes: usize,
    /// For the TLS handshake, with its wait.
    pub handshake_s: u64,
    /// From the handshake to a whole CONNECT.
    pub first_packet_s: u64,
    /// For a packet, from its first octet to its last.
    pub packet_s: u64,
    /// For a vehicle to take what is sent to it.
    pub write_s: u64,
    /// For the desk to take the last messages of a connection that ends.
    pub drain_s: u64,
    /// For a vehicle to close its side after the server has closed its own.
    pub linger_s: u64,
    /// The largest packet, in KiB.
    pub packet_kib: u32,
    /// Messages of one vehicle that are being taken at a time (MQTT receive maximum).
    pub unacknowledged: u16,
    /// Topic filters in one SUBSCRIBE; a vehicle has one topic to subscribe to.
    pub subscriptions: usize,
    /// Messages a second of one certificate.
    pub messages_per_second: u32,
    /// Messages of one certificate at once, after a quiet time.
    pub message_burst: u32,
    /// Messages refused for their rate, after which the connection is closed; one a second is forgotten.
    pub rate_refusals: u32,
    /// KiB a second of one certificate; above it, the server reads slower.
    pub kib_per_second: u32,
    /// KiB of one certificate at once, after a quiet time.
    pub kib_burst: u32,
    /// Connections a minute of one certificate, and at once after a quiet time.
    pub connects_per_minute: u32,
    /// For how long a certificate is banned that connected too often.
    pub ban_s: u64,
    /// What the messages of all vehicles that are arriving or being taken may hold together, in MiB.
    pub in_flight_mib: u32,
}

impl Default for MqttLimits {
    fn default() -> Self {
        Self {
            connections: 50_000,
            handshakes: 256,
            handshake_s: 10,
            first_packet_s: 10,
            packet_s: 60,
            write_s: 30,
            drain_s: 10,
            linger_s: 1,
            packet_kib: 512,
            unacknowledged: 32,
            subscriptions: 8,
            messages_per_second: 50,
            message_burst: 500,
            rate_refusals: 100,
            kib_per_second: 1024,
            kib_burst: 8 * 1024,
            connects_per_minute: 60,
            ban_s: 120,
            in_flight_mib: 64,
        }
    }
}

impl MqttLimits {
    /// Checks each number; the error is the key, its rule, and what was found.
    ///
    /// # Errors
    /// Names the first number that is against its rule.
    pub(crate) fn check(&self) -> Result<(), (&'static str, &'static str, String)> {
        let at_least_one = [
            ("mqtt.limits.connections", self.connections as u64),
            ("mqtt.limits.handshakes", self.handshakes as u64),
            ("mqtt.limits.handshake_s", self.handshake_s),
            ("mqtt.limits.first_packet_s", self.first_packet_s),
            ("mqtt.limits.packet_s", self.packet_s),
            ("mqtt.limits.write_s", self.write_s),
            ("mqtt.limits.unacknowledged", u64::from(self.unacknowledged)),
            ("mqtt.limits.subscriptions", self.subscriptions as u64),
            ("mqtt.limits.messages_per_second", u64::from(self.messages_per_second)),
            ("mqtt.limits.message_burst", u64::from(self.message_burst)),
            ("mqtt.limits.rate_refusals", u64::from(self.rate_refusals)),
            ("mqtt.limits.kib_per_second", u64::from(self.kib_per_second)),
            ("mqtt.limits.connects_per_minute", u64::from(self.connects_per_minute)),
            ("mqtt.limits.ban_s", self.ban_s),
            ("mqtt.limits.in_flight_mib", u64::from(self.in_flight_mib)),
        ];
        if let Some((key, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Err((key, "at least 1", "0".to_owned()));
        }
        // Below it, an inventory of the largest size that the protocol allows could not arrive.
        if !(257..=4096).contains(&self.packet_kib) {
            return Err(("mqtt.limits.packet_kib", "257 to 4096", self.packet_kib.to_string()));
        }
        if self.kib_burst < self.packet_kib {
            let expected = "at least mqtt.limits.packet_kib";
            return Err(("mqtt.limits.kib_burst", expected, self.kib_burst.to_string()));
        }
        if self.in_flight_mib.saturating_mul(1024) < self.packet_kib {
            let expected = "room for one packet of mqtt.limits.packet_kib";
            return Err(("mqtt.limits.in_flight_mib", expected, self.in_flight_mib.to_string()));
        }
        if self.in_flight_mib > 64 * 1024 {
            return Err(("mqtt.limits.in_flight_mib", "at most 65536", self.in_flight_mib.to_string()));
        }
        Ok(())
    }

    /// The largest packet, in octets.
    pub(super) fn packet_octets(&self) -> u32 {
        self.packet_kib.saturating_mul(1024)
    }
}
