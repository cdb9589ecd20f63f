//! What one connected vehicle may do, and what it is owed: decides on each packet, does no I/O.
//!
//! | packet | if | then |
//! |---|---|---|
//! | CONNECT | client id = common name of the certificate, no will | accepted, without session |
//! | | otherwise | refused: 0x85, 0x87, 0x8C |
//! | PUBLISH | own `up` topic, QoS 0 or 1 | to the desk, acknowledged after it |
//! | | another's topic | security event; negative PUBACK, or closed where there is none (3.1.1, QoS 0) |
//! | SUBSCRIBE | own `down` topic, QoS 1 or 2 | granted QoS 1, waiting commands go out |
//! | | anything else | security event; refused in the SUBACK |
//! | PUBACK | of a command in flight | delivered |
//! | UNSUBSCRIBE, PINGREQ | | answered |
//! | DISCONNECT | | gone |

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farrier_protocol::{Binding, MsgId, Topics, UnixMillis, UpTopic};
use mqtt_protocol_core::mqtt::packet::Qos;
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, DisconnectReasonCode, MqttError, PubackReasonCode, SubackReasonCode,
    UnsubackReasonCode,
};

use super::packet::{self, Capabilities, Connect, Packet, Publish, Version};
use super::settings::MqttLimits;
use crate::desk::{PeerIdentity, PendingCommand};

/// How many commands are in flight to a vehicle; fewer if it says so.
pub(super) const COMMAND_WINDOW: usize = 16;
/// The largest CONNECT, in octets.
pub(super) const MAXIMUM_CONNECT_SIZE: usize = 16 * 1024;
/// A vehicle that wants no keep alive, or a longer one, gets this: a dead connection has an end.
const LONGEST_KEEP_ALIVE_S: u16 = 3600;
/// Commands that go out in one write end with the one that reaches this size, in octets.
const COMMANDS_OF_ONE_WRITE: usize = 256 * 1024;

/// What the connection has to do about a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    Send(Vec<u8>),
    Receive(Received),
    /// Acknowledge with this reason, in its turn.
    Acknowledge {
        packet_id: u16,
        reason: PubackReasonCode,
    },
    /// Send this, then look for commands.
    Subscribed(Vec<u8>),
    Delivered {
        binding: Binding,
        msg_id: MsgId,
    },
    Leave,
}

/// A message for the desk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) packet_id: Option<u16>,
    pub(super) binding: Binding,
    pub(super) topic: UpTopic,
    pub(super) payload: Bytes,
    /// For how long it is worth taking, from its last octet on.
    pub(super) worth: Option<Duration>,
}

/// Why the connection is closed by what the vehicle did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) reason: DisconnectReasonCode,
    pub(super) what: &'static str,
}

impl From<MqttError> for Violation {
    fn from(_: MqttError) -> Self {
        Self { reason: DisconnectReasonCode::UnspecifiedError, what: "an answer could not be encoded" }
    }
}

/// A connection that is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) reason: ConnectReasonCode,
    pub(super) what: &'static str,
    /// When it may be tried again, where that changes anything.
    pub(super) retry_after: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Session {
    version: Version,
    client_id: String,
    topics: Arc<Topics>,
    keep_alive_s: u16,
    /// Fixed by the first topic: a client id may be read as several bindings, a connection is one.
    binding: Option<Binding>,
    subscribed: bool,
    most_filters: usize,
    /// The last topic of another that was published or subscribed to, until it is reported.
    foreign_topic: Option<String>,
    window: usize,
    maximum_packet_size: usize,
    in_flight: Vec<InFlight>,
    last_packet_id: u16,
    more_waiting: bool,
}

/// A command that was sent, until the desk knows that it was delivered.
#[derive(Debug)]
struct InFlight {
    packet_id: u16,
    msg_id: MsgId,
    acknowledged: bool,
}

impl Session {
    /// Judges a CONNECT; gives the session and the packet that accepts it.
    ///
    /// A will is refused: it would be a message of which nobody knows whether the vehicle meant it, on
    /// a topic that carries none. User name and password are not looked at, the certificate counts.
    pub(super) fn open(
        connect: Connect,
        peer: &PeerIdentity,
        topics: &Arc<Topics>,
        limits: &MqttLimits,
    ) -> Result<(Self, Vec<u8>), Refused> {
        let refused = |reason, what| Err(Refused { reason, what, retry_after: None });
        if connect.client_id != peer.common_name {
            let what = "its client id is not the common name of its certificate";
            return refused(ConnectReasonCode::ClientIdentifierNotValid, what);
        }
        if bindings_of(&connect.client_id).next().is_none() {
            let what = "its client id is not {vehicle_id}_{gateway_id}";
            return refused(ConnectReasonCode::ClientIdentifierNotValid, what);
        }
        if connect.wants_enhanced_authentication {
            let what = "it wants enhanced authentication, the certificate is all there is";
            return refused(ConnectReasonCode::BadAuthenticationMethod, what);
        }
        if connect.has_will {
            return refused(ConnectReasonCode::NotAuthorized, "it has a will, which no vehicle may have");
        }
        let keep_alive_s = match connect.keep_alive_s {
            0 => LONGEST_KEEP_ALIVE_S,
            asked => asked.min(LONGEST_KEEP_ALIVE_S),
        };
        let tells = Capabilities {
            receive_maximum: limits.unacknowledged,
            maximum_packet_size: limits.packet_octets(),
            keep_alive_s: (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s),
        };
        let Ok(connack) = packet::accepting_connack(connect.version, tells) else {
            return refused(ConnectReasonCode::UnspecifiedError, "the answer could not be encoded");
        };
        let session = Self {
            version: connect.version,
            client_id: connect.client_id,
            topics: Arc::clone(topics),
            keep_alive_s,
            binding: None,
            subscribed: false,
            most_filters: limits.subscriptions,
            foreign_topic: None,
            window: COMMAND_WINDOW.min(usize::from(connect.receive_maximum)),
            maximum_packet_size: usize::try_from(connect.maximum_packet_size).unwrap_or(usize::MAX),
            in_flight: Vec::new(),
            last_packet_id: 0,
            more_waiting: false,
        };
        Ok((session, connack))
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// How long a vehicle may be silent: one and a half times its keep alive.
    pub(super) fn longest_silence(&self) -> Duration {
        Duration::from_secs(u64::from(self.keep_alive_s)).mul_f64(1.5)
    }

    /// What was last done with a topic of another, asked once.
    pub(super) fn take_foreign_topic(&mut self) -> Option<String> {
        self.foreign_topic.take()
    }

    /// Whose commands this connection takes, if it takes any.
    pub(super) fn subscriber(&self) -> Option<&Binding> {
        self.binding.as_ref().filter(|_| self.subscribed)
    }

    /// Decides on a packet.
    pub(super) fn handle(&mut self, packet: Packet) -> Result<Step, Violation> {
        match packet {
            Packet::Publish(publish) => self.publish(publish),
            Packet::Puback { packet_id, refused } => Ok(self.puback(packet_id, refused)),
            Packet::Subscribe { packet_id, filters } => self.subscribe(packet_id, &filters),
            Packet::Unsubscribe { packet_id, filters } => self.unsubscribe(packet_id, &filters),
            Packet::Pingreq => Ok(Step::Send(packet::pingresp(self.version))),
            Packet::Disconnect => Ok(Step::Leave),
        }
    }

    fn publish(&mut self, publish: Publish) -> Result<Step, Violation> {
        let own = match &self.binding {
            Some(own) => self.topics.parse_up_of(own, &publish.topic).map(|topic| (own.clone(), topic)),
            None => self.topics.parse_up(&publish.topic).filter(|(binding, _)| self.is_own(binding)),
        };
        if let Some((binding, topic)) = own {
            self.binding.get_or_insert_with(|| binding.clone());
            let Publish { packet_id, payload, expiry_s, .. } = publish;
            let worth = expiry_s.map(|seconds| Duration::from_secs(u64::from(seconds)));
            return Ok(Step::Receive(Received { packet_id, binding, topic, payload, worth }));
        }
        self.foreign_topic = Some(format!("published on {}", shortened(&publish.topic)));
        let reason = PubackReasonCode::NotAuthorized;
        match (self.version, publish.packet_id) {
            (Version::V5_0, Some(packet_id)) => Ok(Step::Acknowledge { packet_id, reason }),
            (Version::V5_0, None) | (Version::V3_1_1, _) => Err(Violation {
                reason: DisconnectReasonCode::NotAuthorized,
                what: "published on a topic that is not its own",
            }),
        }
    }

    fn is_own(&self, binding: &Binding) -> bool {
        match &self.binding {
            Some(own) => own == binding,
            None => binding.client_id() == self.client_id,
        }
    }

    fn puback(&mut self, packet_id: u16, refused: bool) -> Step {
        let acknowledged =
            self.in_flight.iter_mut().find(|command| command.packet_id == packet_id && !command.acknowledged);
        // What was never sent, or acknowledged before, changes nothing.
        let (Some(command), Some(binding)) = (acknowledged, &self.binding) else { return Step::Nothing };
        command.acknowledged = true;
        if refused {
            tracing::warn!(
                client_id = self.client_id,
                msg_id = %command.msg_id,
                "A vehicle acknowledged a command with an error; it has it, so it is not sent again."
            );
        }
        Step::Delivered { binding: binding.clone(), msg_id: command.msg_id.clone() }
    }

    fn subscribe(&mut self, packet_id: u16, filters: &[(String, Qos)]) -> Result<Step, Violation> {
        if filters.len() > self.most_filters {
            return Err(Violation {
                reason: DisconnectReasonCode::QuotaExceeded,
                what: "subscribed to too many filters at once",
            });
        }
        let reasons: Vec<_> = filters.iter().map(|(filter, qos)| self.judge_filter(filter, *qos)).collect();
        let granted = reasons.contains(&SubackReasonCode::GrantedQos1);
        let suback = packet::suback_for(self.version, packet_id, reasons)?;
        self.subscribed |= granted;
        Ok(if granted { Step::Subscribed(suback) } else { Step::Send(suback) })
    }

    fn judge_filter(&mut self, filter: &str, qos: Qos) -> SubackReasonCode {
        let Some(binding) = self.binding_of_down(filter) else {
            self.foreign_topic = Some(format!("subscribed to {}", shortened(filter)));
            return SubackReasonCode::NotAuthorized;
        };
        if qos == Qos::AtMostOnce {
            tracing::warn!(
                client_id = self.client_id,
                "A vehicle subscribed with QoS 0 and was refused: commands need QoS 1, else none is known to be delivered."
            );
            return SubackReasonCode::ImplementationSpecificError;
        }
        self.binding = Some(binding);
        SubackReasonCode::GrantedQos1
    }

    fn binding_of_down(&self, filter: &str) -> Option<Binding> {
        bindings_of(&self.client_id)
            .filter(|binding| self.is_own(binding))
            .find(|binding| self.topics.down(binding) == filter)
    }

    fn unsubscribe(&mut self, packet_id: u16, filters: &[String]) -> Result<Step, Violation> {
        let mut reasons = Vec::with_capacity(filters.len());
        for filter in filters {
            let own = self.subscribed && self.binding_of_down(filter).is_some();
            self.subscribed &= !own;
            reasons.push(if own {
                UnsubackReasonCode::Success
            } else {
                UnsubackReasonCode::NoSubscriptionExisted
            });
        }
        Ok(Step::Send(packet::unsuback_for(self.version, packet_id, reasons)?))
    }

    /// Encodes those of the waiting commands that can go out now, and holds them in flight.
    pub(super) fn commands(
        &mut self,
        waiting: &[PendingCommand],
        now: UnixMillis,
    ) -> Result<Vec<u8>, Violation> {
        let mut octets = Vec::new();
        let Some(binding) = self.subscriber() else { return Ok(octets) };
        let topic = self.topics.down(binding);
        self.more_waiting = waiting.len() >= COMMAND_WINDOW;
        for command in waiting {
            let expired = command.expires_at.is_some_and(|end| end <= now);
            let in_flight = self.in_flight.iter().any(|sent| sent.msg_id == command.msg_id);
            if expired || in_flight {
                continue;
            }
            if self.in_flight.len() >= self.window {
                self.more_waiting = true;
                break;
            }
            let packet_id = self.free_packet_id();
            let expiry_s = command.expires_at.map(|end| seconds_until(end, now));
            let publish = packet::publish_to(self.version, &topic, packet_id, &command.payload, expiry_s)?;
            if publish.len() > self.maximum_packet_size {
                tracing::warn!(
                    client_id = self.client_id,
                    msg_id = %command.msg_id,
                    size_bytes = publish.len(),
                    "A command is larger than the vehicle takes; it is not sent and will expire."
                );
                continue;
            }
            octets.extend_from_slice(&publish);
            self.in_flight.push(InFlight { packet_id, msg_id: command.msg_id.clone(), acknowledged: false });
            if octets.len() >= COMMANDS_OF_ONE_WRITE {
                self.more_waiting = true;
                break;
            }
        }
        Ok(octets)
    }

    /// The desk knows that the command was delivered; tells whether to look for more.
    pub(super) fn forget(&mut self, msg_id: &MsgId) -> bool {
        self.in_flight.retain(|command| command.msg_id != *msg_id);
        self.more_waiting
    }

    /// The window is far smaller than the range, so the loop ends.
    fn free_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            if !self.in_flight.iter().any(|command| command.packet_id == self.last_packet_id) {
                return self.last_packet_id;
            }
        }
    }
}

/// All bindings that a client id can be read as: `_` may stand in both of its parts.
pub(crate) fn bindings_of(client_id: &str) -> impl Iterator<Item = Binding> {
    client_id.match_indices('_').filter_map(move |(at, _)| {
        Some(Binding {
            vehicle_id: client_id.get(..at)?.parse().ok()?,
            gateway_id: client_id.get(at + 1..)?.parse().ok()?,
        })
    })
}

/// Whole seconds, rounded up: a command that is not expired here is not expired there.
pub(crate) fn seconds_until(end: UnixMillis, now: UnixMillis) -> u32 {
    let milliseconds = end.0.saturating_sub(now.0).max(0).unsigned_abs();
    u32::try_from(milliseconds.div_ceil(1000)).unwrap_or(u32::MAX)
}

/// What came from outside goes into logs and records in part.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(160).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests;
