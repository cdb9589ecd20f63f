//! The MQTT packets that the endpoint understands and sends, the same for 5.0 and 3.1.1.
//! The only place that knows how the two versions differ on the wire. The codec is
//! `mqtt-protocol-core`'s; what it lets pass against the standard is refused here.

use std::sync::Arc;

use bytes::Bytes;
use mqtt_protocol_core::mqtt::packet::{
    MaximumPacketSize, MaximumQos, MessageExpiryInterval, Property, Qos, ReasonString, ReceiveMaximum,
    RetainAvailable, ServerKeepAlive, SessionExpiryInterval, SharedSubscriptionAvailable, SubEntry,
    SubscriptionIdentifierAvailable, WildcardSubscriptionAvailable, v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, ConnectReturnCode, DisconnectReasonCode, MqttError, PubackReasonCode,
    SubackReasonCode, SubackReturnCode, UnsubackReasonCode,
};

use super::frame::Frame;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V3_1_1,
    V5_0,
}

/// What a vehicle asks for when it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Connect {
    pub(super) version: Version,
    pub(super) client_id: String,
    /// Seconds; zero asks for none.
    pub(super) keep_alive_s: u16,
    pub(super) has_will: bool,
    pub(super) wants_enhanced_authentication: bool,
    /// How many unacknowledged messages the vehicle takes.
    pub(super) receive_maximum: u16,
    /// The largest packet the vehicle takes, in octets.
    pub(super) maximum_packet_size: u32,
}

/// Why a first packet is no CONNECT that can be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoConnect {
    UnknownVersion,
    Malformed(Option<Version>),
}

/// What may follow the CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    Publish(Publish),
    Puback { packet_id: u16, refused: bool },
    Subscribe { packet_id: u16, filters: Vec<(String, Qos)> },
    Unsubscribe { packet_id: u16, filters: Vec<String> },
    Pingreq,
    Disconnect,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publish {
    pub(super) topic: String,
    /// Absent with QoS 0.
    pub(super) packet_id: Option<u16>,
    pub(super) payload: Bytes,
    /// Seconds after which it is worth nothing any more.
    pub(super) expiry_s: Option<u32>,
}

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const PUBREL: u8 = 6;
const SUBSCRIBE: u8 = 8;
const UNSUBSCRIBE: u8 = 10;
const PINGREQ: u8 = 12;
const DISCONNECT: u8 = 14;

/// Reads the first packet of a connection.
pub(super) fn decode_connect(frame: &Frame) -> Result<Connect, NoConnect> {
    if frame.kind != CONNECT || frame.flags != 0 {
        return Err(NoConnect::Malformed(None));
    }
    // The name and the level stand at the same place in all versions that are called "MQTT".
    let level = match frame.body.get(..7) {
        Some([0, 4, b'M', b'Q', b'T', b'T', level]) => *level,
        // MQTT 3.1, before there was a standard.
        Some([0, 6, b'M', b'Q', b'I', b's', b'd']) => return Err(NoConnect::UnknownVersion),
        Some(_) | None => return Err(NoConnect::Malformed(None)),
    };
    let version = match level {
        4 => Version::V3_1_1,
        5 => Version::V5_0,
        _ => return Err(NoConnect::UnknownVersion),
    };
    let malformed = NoConnect::Malformed(Some(version));
    let flags = *frame.body.get(7).ok_or(malformed)?;
    let (reserved, will, will_details) = (flags & 0x01, flags & 0x04, flags & 0x38);
    if reserved != 0 || (will == 0 && will_details != 0) {
        return Err(malformed);
    }
    match version {
        Version::V3_1_1 => whole(v3_1_1::Connect::parse(&frame.body), frame).map(|packet| Connect {
            version,
            client_id: packet.client_id().to_owned(),
            keep_alive_s: packet.keep_alive(),
            has_will: packet.will_flag(),
            wants_enhanced_authentication: false,
            receive_maximum: u16::MAX,
            maximum_packet_size: u32::MAX,
        }),
        Version::V5_0 => whole(v5_0::Connect::parse(&frame.body), frame).map(|packet| connect_5(&packet)),
    }
    .map_err(|_| malformed)
}

fn connect_5(packet: &v5_0::Connect) -> Connect {
    let mut connect = Connect {
        version: Version::V5_0,
        client_id: packet.client_id().to_owned(),
        keep_alive_s: packet.keep_alive(),
        has_will: packet.will_flag(),
        wants_enhanced_authentication: false,
        receive_maximum: u16::MAX,
        maximum_packet_size: u32::MAX,
    };
    for property in packet.props() {
        if let Property::ReceiveMaximum(maximum) = property {
            connect.receive_maximum = maximum.val();
        } else if let Property::MaximumPacketSize(maximum) = property {
            connect.maximum_packet_size = maximum.val();
        } else if let Property::AuthenticationMethod(_) = property {
            connect.wants_enhanced_authentication = true;
        }
    }
    connect
}

/// Reads a packet that follows the CONNECT. The error is the reason to close with.
pub(super) fn decode(version: Version, frame: &Frame) -> Result<Packet, DisconnectReasonCode> {
    let malformed = DisconnectReasonCode::MalformedPacket;
    let expected_flags = match frame.kind {
        PUBLISH => frame.flags,
        PUBREL | SUBSCRIBE | UNSUBSCRIBE => 0b0010,
        _ => 0,
    };
    if frame.flags != expected_flags {
        return Err(malformed);
    }
    match frame.kind {
        PUBLISH => publish(version, frame),
        PUBACK => puback(version, frame).map_err(reason),
        SUBSCRIBE => subscribe(version, frame),
        UNSUBSCRIBE => unsubscribe(version, frame),
        PINGREQ if frame.body.is_empty() => Ok(Packet::Pingreq),
        PINGREQ => Err(malformed),
        DISCONNECT => match version {
            Version::V3_1_1 if frame.body.is_empty() => Ok(Packet::Disconnect),
            Version::V3_1_1 => Err(malformed),
            Version::V5_0 => match whole(v5_0::Disconnect::parse(&frame.body), frame) {
                Ok(_) => Ok(Packet::Disconnect),
                Err(error) => Err(reason(error)),
            },
        },
        // A second CONNECT, QoS 2's packets, AUTH, and what only a server sends.
        _ => Err(DisconnectReasonCode::ProtocolError),
    }
}

fn publish(version: Version, frame: &Frame) -> Result<Packet, DisconnectReasonCode> {
    let octets: Arc<[u8]> = Arc::from(frame.body.as_ref());
    let mut expiry_s = None;
    let (topic, qos, dup, retain, packet_id, payload_len, aliased) = match version {
        Version::V3_1_1 => {
            let (packet, _) = v3_1_1::Publish::parse(frame.flags, octets).map_err(reason)?;
            let (topic, id) = (packet.topic_name().to_owned(), packet.packet_id());
            (topic, packet.qos(), packet.dup(), packet.retain(), id, packet.payload().len(), false)
        }
        Version::V5_0 => {
            let (packet, _) = v5_0::Publish::parse(frame.flags, octets).map_err(reason)?;
            let aliased = packet.props().iter().any(|property| matches!(property, Property::TopicAlias(_)));
            for property in packet.props() {
                if let Property::MessageExpiryInterval(interval) = property {
                    expiry_s = Some(interval.val());
                }
            }
            let (topic, id) = (packet.topic_name().to_owned(), packet.packet_id());
            (topic, packet.qos(), packet.dup(), packet.retain(), id, packet.payload().len(), aliased)
        }
    };
    if aliased {
        return Err(DisconnectReasonCode::TopicAliasInvalid);
    }
    if packet_id == Some(0) || (dup && qos == Qos::AtMostOnce) {
        return Err(DisconnectReasonCode::ProtocolError);
    }
    if topic.is_empty() || topic.contains(['\0', '+', '#']) {
        return Err(DisconnectReasonCode::TopicNameInvalid);
    }
    if retain {
        return Err(DisconnectReasonCode::RetainNotSupported);
    }
    if qos == Qos::ExactlyOnce {
        return Err(DisconnectReasonCode::QosNotSupported);
    }
    let payload = frame.body.slice(frame.body.len().saturating_sub(payload_len)..);
    Ok(Packet::Publish(Publish { topic, packet_id, payload, expiry_s }))
}

fn puback(version: Version, frame: &Frame) -> Result<Packet, MqttError> {
    match version {
        Version::V3_1_1 if frame.body.len() != 2 => Err(MqttError::MalformedPacket),
        Version::V3_1_1 => {
            let packet = whole(v3_1_1::Puback::parse(&frame.body), frame)?;
            Ok(Packet::Puback { packet_id: packet.packet_id(), refused: false })
        }
        Version::V5_0 => {
            let packet = whole(v5_0::Puback::parse(&frame.body), frame)?;
            let refused = packet.reason_code().is_some_and(|code| !code.is_success());
            Ok(Packet::Puback { packet_id: packet.packet_id(), refused })
        }
    }
}

fn subscribe(version: Version, frame: &Frame) -> Result<Packet, DisconnectReasonCode> {
    let requested = |entries: &[SubEntry]| {
        entries.iter().map(|entry| (entry.topic_filter().to_owned(), entry.sub_opts().qos())).collect()
    };
    let (packet_id, filters): (u16, Vec<_>) = match version {
        Version::V3_1_1 => {
            let packet = whole(v3_1_1::Subscribe::parse(&frame.body), frame).map_err(reason)?;
            (packet.packet_id(), requested(packet.entries()))
        }
        Version::V5_0 => {
            let packet = whole(v5_0::Subscribe::parse(&frame.body), frame).map_err(reason)?;
            if packet.props().iter().any(|property| matches!(property, Property::SubscriptionIdentifier(_))) {
                return Err(DisconnectReasonCode::SubscriptionIdentifiersNotSupported);
            }
            (packet.packet_id(), requested(packet.entries()))
        }
    };
    if packet_id == 0 || filters.is_empty() {
        return Err(DisconnectReasonCode::ProtocolError);
    }
    if filters.iter().any(|(filter, _)| filter.is_empty() || filter.contains('\0')) {
        return Err(DisconnectReasonCode::TopicFilterInvalid);
    }
    Ok(Packet::Subscribe { packet_id, filters })
}

fn unsubscribe(version: Version, frame: &Frame) -> Result<Packet, DisconnectReasonCode> {
    let (packet_id, filters): (u16, Vec<String>) = match version {
        Version::V3_1_1 => {
            let packet = whole(v3_1_1::Unsubscribe::parse(&frame.body), frame).map_err(reason)?;
            (packet.packet_id(), packet.entries().iter().map(|filter| filter.as_str().to_owned()).collect())
        }
        Version::V5_0 => {
            let packet = whole(v5_0::Unsubscribe::parse(&frame.body), frame).map_err(reason)?;
            (packet.packet_id(), packet.entries().iter().map(|filter| filter.as_str().to_owned()).collect())
        }
    };
    if packet_id == 0 || filters.is_empty() {
        return Err(DisconnectReasonCode::ProtocolError);
    }
    Ok(Packet::Unsubscribe { packet_id, filters })
}

/// A packet that is followed by more octets than it has fields is malformed.
fn whole<T>(parsed: Result<(T, usize), MqttError>, frame: &Frame) -> Result<T, MqttError> {
    let (packet, consumed) = parsed?;
    if consumed == frame.body.len() { Ok(packet) } else { Err(MqttError::MalformedPacket) }
}

fn reason(error: MqttError) -> DisconnectReasonCode {
    if error == MqttError::ProtocolError {
        DisconnectReasonCode::ProtocolError
    } else {
        DisconnectReasonCode::MalformedPacket
    }
}

/// What the endpoint tells a 5.0 vehicle of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capabilities {
    pub(super) receive_maximum: u16,
    pub(super) maximum_packet_size: u32,
    /// Where it is not the vehicle's own.
    pub(super) keep_alive_s: Option<u16>,
}

/// Accepts a connection; there is never a session to resume.
pub(super) fn accepting_connack(version: Version, tells: Capabilities) -> Result<Vec<u8>, MqttError> {
    match version {
        Version::V3_1_1 => {
            let connack = v3_1_1::Connack::builder()
                .session_present(false)
                .return_code(ConnectReturnCode::Accepted)
                .build()?;
            Ok(connack.to_continuous_buffer())
        }
        Version::V5_0 => {
            let mut properties = vec![
                Property::SessionExpiryInterval(SessionExpiryInterval::new(0)?),
                Property::ReceiveMaximum(ReceiveMaximum::new(tells.receive_maximum)?),
                Property::MaximumQos(MaximumQos::new(1)?),
                Property::RetainAvailable(RetainAvailable::new(0)?),
                Property::MaximumPacketSize(MaximumPacketSize::new(tells.maximum_packet_size)?),
                Property::WildcardSubscriptionAvailable(WildcardSubscriptionAvailable::new(0)?),
                Property::SubscriptionIdentifierAvailable(SubscriptionIdentifierAvailable::new(0)?),
                Property::SharedSubscriptionAvailable(SharedSubscriptionAvailable::new(0)?),
            ];
            if let Some(keep_alive_s) = tells.keep_alive_s {
                properties.push(Property::ServerKeepAlive(ServerKeepAlive::new(keep_alive_s)?));
            }
            let connack = v5_0::Connack::builder()
                .session_present(false)
                .reason_code(ConnectReasonCode::Success)
                .props(properties)
                .build()?;
            Ok(connack.to_continuous_buffer())
        }
    }
}

/// Refuses a connection; 3.1.1 knows five reasons only, and no words beside them.
pub(super) fn refusing_connack(
    version: Version,
    reason: ConnectReasonCode,
    hint: Option<&str>,
) -> Result<Vec<u8>, MqttError> {
    match version {
        Version::V3_1_1 => {
            let code = if reason == ConnectReasonCode::ClientIdentifierNotValid {
                ConnectReturnCode::IdentifierRejected
            } else if matches!(reason, ConnectReasonCode::ServerBusy | ConnectReasonCode::QuotaExceeded) {
                ConnectReturnCode::ServerUnavailable
            } else {
                ConnectReturnCode::NotAuthorized
            };
            let connack = v3_1_1::Connack::builder().session_present(false).return_code(code).build()?;
            Ok(connack.to_continuous_buffer())
        }
        Version::V5_0 => {
            let connack = v5_0::Connack::builder().session_present(false).reason_code(reason);
            let connack = match hint {
                Some(hint) => connack.props(vec![Property::ReasonString(ReasonString::new(hint)?)]),
                None => connack,
            };
            Ok(connack.build()?.to_continuous_buffer())
        }
    }
}

/// Acknowledges a message; 3.1.1 knows no negative acknowledgement.
pub(super) fn puback_for(
    version: Version,
    packet_id: u16,
    reason: PubackReasonCode,
) -> Result<Vec<u8>, MqttError> {
    match version {
        Version::V3_1_1 => Ok(v3_1_1::Puback::builder().packet_id(packet_id).build()?.to_continuous_buffer()),
        Version::V5_0 => {
            let puback = v5_0::Puback::builder().packet_id(packet_id);
            // Success is said by leaving the reason out.
            let puback =
                if reason == PubackReasonCode::Success { puback } else { puback.reason_code(reason) };
            Ok(puback.build()?.to_continuous_buffer())
        }
    }
}

/// A message to a vehicle with QoS 1, not retained; the expiry, in seconds, is known to 5.0 only.
pub(super) fn publish_to(
    version: Version,
    topic: &str,
    packet_id: u16,
    payload: &Bytes,
    expiry_s: Option<u32>,
) -> Result<Vec<u8>, MqttError> {
    match version {
        Version::V3_1_1 => Ok(v3_1_1::Publish::builder()
            .topic_name(topic)?
            .qos(Qos::AtLeastOnce)
            .packet_id(packet_id)
            .payload(payload.to_vec())
            .build()?
            .to_continuous_buffer()),
        Version::V5_0 => {
            let publish = v5_0::Publish::builder()
                .topic_name(topic)?
                .qos(Qos::AtLeastOnce)
                .packet_id(packet_id)
                .payload(payload.to_vec());
            let publish = match expiry_s {
                Some(expiry_s) => publish
                    .props(vec![Property::MessageExpiryInterval(MessageExpiryInterval::new(expiry_s)?)]),
                None => publish,
            };
            Ok(publish.build()?.to_continuous_buffer())
        }
    }
}

/// Answers a subscription, filter by filter; 3.1.1 knows one failure only.
pub(super) fn suback_for(
    version: Version,
    packet_id: u16,
    reasons: Vec<SubackReasonCode>,
) -> Result<Vec<u8>, MqttError> {
    match version {
        Version::V3_1_1 => {
            let codes = reasons.into_iter().map(|reason| {
                if reason == SubackReasonCode::GrantedQos1 {
                    SubackReturnCode::SuccessMaximumQos1
                } else {
                    SubackReturnCode::Failure
                }
            });
            let suback =
                v3_1_1::Suback::builder().packet_id(packet_id).return_codes(codes.collect()).build()?;
            Ok(suback.to_continuous_buffer())
        }
        Version::V5_0 => {
            let suback = v5_0::Suback::builder().packet_id(packet_id).reason_codes(reasons).build()?;
            Ok(suback.to_continuous_buffer())
        }
    }
}

pub(super) fn unsuback_for(
    version: Version,
    packet_id: u16,
    reasons: Vec<UnsubackReasonCode>,
) -> Result<Vec<u8>, MqttError> {
    match version {
        Version::V3_1_1 => {
            Ok(v3_1_1::Unsuback::builder().packet_id(packet_id).build()?.to_continuous_buffer())
        }
        Version::V5_0 => {
            let unsuback = v5_0::Unsuback::builder().packet_id(packet_id).reason_codes(reasons).build()?;
            Ok(unsuback.to_continuous_buffer())
        }
    }
}

pub(super) fn pingresp(version: Version) -> Vec<u8> {
    match version {
        Version::V3_1_1 => v3_1_1::Pingresp::new().to_continuous_buffer(),
        Version::V5_0 => v5_0::Pingresp::new().to_continuous_buffer(),
    }
}

/// Says why the server closes the connection; only 5.0 can be told.
pub(super) fn disconnect(version: Version, reason: DisconnectReasonCode) -> Result<Vec<u8>, MqttError> {
    match version {
        Version::V3_1_1 => Ok(Vec::new()),
        Version::V5_0 => Ok(v5_0::Disconnect::builder().reason_code(reason).build()?.to_continuous_buffer()),
    }
}
