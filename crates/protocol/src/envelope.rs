//! What all messages have in common: version, type, header, and how a message is written.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{GatewayId, InvalidValue, MsgId, UnixMillis, VehicleId, checked};
use crate::message::{ServerBody, ServerMessage, VehicleBody, VehicleMessage};
use crate::names::wire_names;
use crate::topics::{Direction, UpTopic};

/// `"1.x"`: the major version is always 1, another is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtoVer {
    /// The x.
    pub minor: u32,
}

impl ProtoVer {
    /// The version that this crate writes, 1.0.
    pub const CURRENT: Self = Self { minor: 0 };

    /// Whether fields that this crate does not know are ignored: a later minor version may have added
    /// them.
    pub fn ignores_unknown_fields(self) -> bool {
        self.minor > 0
    }
}

impl fmt::Display for ProtoVer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.minor)
    }
}

/// Splits `digits.digits`; numbers are written without leading zeros.
pub(crate) fn version_parts(text: &str) -> Option<(&str, &str)> {
    let is_number = |digits: &str| {
        digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'))
    };
    text.split_once('.').filter(|(major, minor)| {
        !major.is_empty() && !minor.is_empty() && is_number(major) && is_number(minor)
    })
}

impl TryFrom<String> for ProtoVer {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        let refused = || InvalidValue::new("a version \"1.x\", x an integer below 4294967296", &text);
        match version_parts(&text) {
            Some(("1", minor)) => Ok(Self { minor: minor.parse().map_err(|_| refused())? }),
            Some(_) | None => Err(refused()),
        }
    }
}

impl<'de> Deserialize<'de> for ProtoVer {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        checked(from)
    }
}

impl Serialize for ProtoVer {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl JsonSchema for ProtoVer {
    fn schema_name() -> Cow<'static, str> {
        "ProtoVer".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "The protocol version that the sender speaks; another major version than 1 is refused.",
            "type": "string",
            "pattern": "^1\\.(0|[1-9][0-9]*)$"
        })
    }
}

wire_names! {
    /// The eleven messages by their `type`.
    MessageType, "a message type of protocol.md §4" {
        /// Message 1.
        WakeUp = "WakeUp",
        /// Message 2.
        RequestVci = "RequestVCI",
        /// Message 3.
        SendVci = "SendVCI",
        /// Message 4.
        RequestDownloadReadiness = "RequestDownloadReadiness",
        /// Message 5.
        ReadinessReportForDownload = "ReadinessReportForDownload",
        /// Message 6.
        UpdateSuccessResult = "UpdateSuccessResult",
        /// Message 7.
        StartDownload = "StartDownload",
        /// Message 8.
        StartRollback = "StartRollback",
        /// Message 9.
        CancelUpdate = "CancelUpdate",
        /// Message 10.
        ErrorResponse = "ErrorResponse",
        /// Message 11.
        MessageRejected = "MessageRejected",
    }
}

impl MessageType {
    /// Where messages of this type travel.
    pub fn direction(self) -> Direction {
        match self {
            Self::WakeUp => Direction::Up(UpTopic::Wakeup),
            Self::SendVci => Direction::Up(UpTopic::Vci),
            Self::ReadinessReportForDownload => Direction::Up(UpTopic::Readiness),
            Self::UpdateSuccessResult => Direction::Up(UpTopic::Result),
            Self::ErrorResponse => Direction::Up(UpTopic::Error),
            Self::RequestVci
            | Self::RequestDownloadReadiness
            | Self::StartDownload
            | Self::StartRollback
            | Self::CancelUpdate
            | Self::MessageRejected => Direction::Down,
        }
    }
}

/// The fields of every message, which are read beside those of its body.
pub(crate) const HEADER_FIELDS: &[&str] = &["msg_id", "proto_ver", "type", "vehicle_id", "gateway_id", "ts"];

/// The header of what a vehicle sends, without `type`, which is judged before it.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct VehicleHeader {
    /// Unique per sender; a retransmission repeats it with the same content.
    pub(crate) msg_id: MsgId,
    pub(crate) proto_ver: ProtoVer,
    /// The sending vehicle.
    pub(crate) vehicle_id: VehicleId,
    /// Its gateway.
    pub(crate) gateway_id: GatewayId,
    /// When it was sent, by the vehicle's clock, in milliseconds since 1970-01-01T00:00:00Z.
    pub(crate) ts: UnixMillis,
}

/// The header of what the server sends, without `type`.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct ServerHeader {
    /// Unique per sender; a retransmission repeats it with the same content.
    pub(crate) msg_id: MsgId,
    pub(crate) proto_ver: ProtoVer,
    /// The vehicle it is for.
    pub(crate) vehicle_id: VehicleId,
    /// Its gateway.
    pub(crate) gateway_id: GatewayId,
    /// When it was sent, in milliseconds since 1970-01-01T00:00:00Z.
    #[serde(default)]
    pub(crate) ts: Option<UnixMillis>,
}

/// A message as it is written: header first.
#[derive(Serialize)]
struct Written<'a, B> {
    msg_id: &'a MsgId,
    proto_ver: ProtoVer,
    r#type: MessageType,
    vehicle_id: &'a VehicleId,
    gateway_id: &'a GatewayId,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<UnixMillis>,
    #[serde(flatten)]
    body: &'a B,
}

impl<B: Serialize> Written<'_, B> {
    fn to_json(&self) -> Vec<u8> {
        // These types always serialise: their keys are strings, and nothing in them refuses.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl VehicleMessage {
    /// The message's type.
    pub fn message_type(&self) -> MessageType {
        match &self.body {
            VehicleBody::WakeUp(_) => MessageType::WakeUp,
            VehicleBody::SendVci(_) => MessageType::SendVci,
            VehicleBody::ReadinessReport(_) => MessageType::ReadinessReportForDownload,
            VehicleBody::UpdateSuccessResult(_) => MessageType::UpdateSuccessResult,
            VehicleBody::ErrorResponse(_) => MessageType::ErrorResponse,
        }
    }

    /// The topic that the message belongs on.
    pub fn topic(&self) -> UpTopic {
        match &self.body {
            VehicleBody::WakeUp(_) => UpTopic::Wakeup,
            VehicleBody::SendVci(_) => UpTopic::Vci,
            VehicleBody::ReadinessReport(_) => UpTopic::Readiness,
            VehicleBody::UpdateSuccessResult(_) => UpTopic::Result,
            VehicleBody::ErrorResponse(_) => UpTopic::Error,
        }
    }

    /// The command that the message answers; a WakeUp answers none.
    pub fn correlation_id(&self) -> Option<&MsgId> {
        match &self.body {
            VehicleBody::WakeUp(_) => None,
            VehicleBody::SendVci(vci) => Some(&vci.correlation_id),
            VehicleBody::ReadinessReport(report) => Some(&report.correlation_id),
            VehicleBody::UpdateSuccessResult(result) => Some(&result.correlation_id),
            VehicleBody::ErrorResponse(error) => Some(&error.correlation_id),
        }
    }

    /// The message as it travels, header first.
    pub fn to_json(&self) -> Vec<u8> {
        match &self.body {
            VehicleBody::WakeUp(body) => self.written(body).to_json(),
            VehicleBody::SendVci(body) => self.written(body).to_json(),
            VehicleBody::ReadinessReport(body) => self.written(body).to_json(),
            VehicleBody::UpdateSuccessResult(body) => self.written(body).to_json(),
            VehicleBody::ErrorResponse(body) => self.written(body).to_json(),
        }
    }

    fn written<'a, B>(&'a self, body: &'a B) -> Written<'a, B> {
        Written {
            msg_id: &self.msg_id,
            proto_ver: self.proto_ver,
            r#type: self.message_type(),
            vehicle_id: &self.vehicle_id,
            gateway_id: &self.gateway_id,
            ts: Some(self.ts),
            body,
        }
    }
}

impl ServerMessage {
    /// The message's type.
    pub fn message_type(&self) -> MessageType {
        match &self.body {
            ServerBody::RequestVci(_) => MessageType::RequestVci,
            ServerBody::RequestDownloadReadiness(_) => MessageType::RequestDownloadReadiness,
            ServerBody::StartDownload(_) => MessageType::StartDownload,
            ServerBody::StartRollback(_) => MessageType::StartRollback,
            ServerBody::CancelUpdate(_) => MessageType::CancelUpdate,
            ServerBody::MessageRejected(_) => MessageType::MessageRejected,
        }
    }

    /// The message as it travels, header first.
    pub fn to_json(&self) -> Vec<u8> {
        match &self.body {
            ServerBody::RequestVci(body) => self.written(body).to_json(),
            ServerBody::RequestDownloadReadiness(body) => self.written(body).to_json(),
            ServerBody::StartDownload(body) => self.written(body).to_json(),
            ServerBody::StartRollback(body) => self.written(body).to_json(),
            ServerBody::CancelUpdate(body) => self.written(body).to_json(),
            ServerBody::MessageRejected(body) => self.written(body).to_json(),
        }
    }

    fn written<'a, B>(&'a self, body: &'a B) -> Written<'a, B> {
        Written {
            msg_id: &self.msg_id,
            proto_ver: self.proto_ver,
            r#type: self.message_type(),
            vehicle_id: &self.vehicle_id,
            gateway_id: &self.gateway_id,
            ts: self.ts,
            body,
        }
    }
}
