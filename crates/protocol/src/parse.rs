//! From octets to a message, with the checks of protocol.md §7 that one message allows, in their order:
//! size, JSON, version, type and topic, identity and binding, fields.

use serde::Deserialize;

use crate::decode::{Fault, Others, decode};
use crate::envelope::{HEADER_FIELDS, MessageType, ProtoVer, ServerHeader, VehicleHeader, version_parts};
use crate::ids::{Binding, MsgId, shortened};
use crate::json::{Member, Node, Object, scan};
use crate::message::{ServerBody, ServerMessage, VehicleBody, VehicleMessage};
use crate::refusal::{Refusal, RefusalCode};
use crate::topics::{Direction, UpTopic};

/// A vehicle's message whose fields are in order, with its document where it answers a command, since later checks need
/// it: of several faults they report the one that stands first.
#[derive(Debug, Clone)]
pub struct ReceivedMessage {
    /// The message.
    pub message: VehicleMessage,
    pub(crate) document: Option<Node<'static>>,
}

/// A refused message with what could be read of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{refusal}")]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// Its id, where it could be read.
    pub msg_id: Option<MsgId>,
    /// Its type, where it could be read.
    pub message_type: Option<MessageType>,
}

impl Refused {
    /// Only the reason.
    pub fn into_refusal(self) -> Refusal {
        self.refusal
    }
}

impl ReceivedMessage {
    /// Reads what a vehicle published on `topic`.
    ///
    /// # Errors
    /// The first failing check of size, JSON, version, type and topic, identity (the ids of the payload
    /// are those of `sender`, who published it) and fields.
    pub fn parse(topic: UpTopic, payload: &[u8], sender: Option<&Binding>) -> Result<Self, Refused> {
        parse_up(topic, payload, sender.map(|binding| (binding, RefusalCode::IdentityMismatch)))
    }

    /// Reads what is said to answer `command`; without a connection the command alone says who should
    /// have sent it.
    pub(crate) fn parse_answer(
        topic: UpTopic,
        payload: &[u8],
        command: Option<&ServerMessage>,
    ) -> Result<Self, Refused> {
        let binding = command.map(ServerMessage::binding);
        parse_up(topic, payload, binding.as_ref().map(|binding| (binding, RefusalCode::BindingMismatch)))
    }
}

impl ServerMessage {
    /// Reads what the server published on `down`. Whom it is for is the reader's to compare.
    ///
    /// # Errors
    /// The first failing check of size, JSON, version, type and fields.
    pub fn parse(payload: &[u8]) -> Result<Self, Refused> {
        let mut opened = Opened::default();
        parse_down(payload, &mut opened).map_err(|refusal| opened.refused(refusal))
    }
}

/// What could be read before a check failed.
#[derive(Default)]
struct Opened {
    msg_id: Option<MsgId>,
    message_type: Option<MessageType>,
}

impl Opened {
    fn refused(self, refusal: Refusal) -> Refused {
        Refused { refusal, msg_id: self.msg_id, message_type: self.message_type }
    }
}

fn parse_up(
    topic: UpTopic,
    payload: &[u8],
    sender: Option<(&Binding, RefusalCode)>,
) -> Result<ReceivedMessage, Refused> {
    let mut opened = Opened::default();
    read_up(topic, payload, sender, &mut opened).map_err(|refusal| opened.refused(refusal))
}

fn read_up(
    topic: UpTopic,
    payload: &[u8],
    sender: Option<(&Binding, RefusalCode)>,
    opened: &mut Opened,
) -> Result<ReceivedMessage, Refusal> {
    let direction = Direction::Up(topic);
    let document = open(payload, direction, opened)?;
    let object = top_level(&document)?;
    let version = version(object)?;
    let default_type = match topic {
        UpTopic::Wakeup => Some(MessageType::WakeUp),
        UpTopic::Vci | UpTopic::Readiness | UpTopic::Result | UpTopic::Error => None,
    };
    message_type(object, direction, default_type, opened)?;
    if let Some((binding, code)) = sender {
        identity(object, binding, code)?;
    }
    let (header, body) = match topic {
        UpTopic::Wakeup => fields(&document, version, VehicleBody::WakeUp),
        UpTopic::Vci => fields(&document, version, VehicleBody::SendVci),
        UpTopic::Readiness => fields(&document, version, VehicleBody::ReadinessReport),
        UpTopic::Result => fields(&document, version, VehicleBody::UpdateSuccessResult),
        UpTopic::Error => fields(&document, version, VehicleBody::ErrorResponse),
    }?;
    let VehicleHeader { msg_id, proto_ver, vehicle_id, gateway_id, ts } = header;
    let message = VehicleMessage { msg_id, proto_ver, vehicle_id, gateway_id, ts, body };
    let document = message.correlation_id().is_some().then(|| document.into_owned());
    Ok(ReceivedMessage { message, document })
}

fn parse_down(payload: &[u8], opened: &mut Opened) -> Result<ServerMessage, Refusal> {
    let document = open(payload, Direction::Down, opened)?;
    let object = top_level(&document)?;
    let version = version(object)?;
    let message_type = message_type(object, Direction::Down, None, opened)?;
    let (header, body) = match message_type {
        MessageType::RequestVci => fields(&document, version, ServerBody::RequestVci),
        MessageType::RequestDownloadReadiness => {
            fields(&document, version, ServerBody::RequestDownloadReadiness)
        }
        MessageType::StartDownload => fields(&document, version, ServerBody::StartDownload),
        MessageType::StartRollback => fields(&document, version, ServerBody::StartRollback),
        MessageType::CancelUpdate => fields(&document, version, ServerBody::CancelUpdate),
        MessageType::MessageRejected => fields(&document, version, ServerBody::MessageRejected),
        MessageType::WakeUp
        | MessageType::SendVci
        | MessageType::ReadinessReportForDownload
        | MessageType::UpdateSuccessResult
        | MessageType::ErrorResponse => Err(wrong_topic(message_type, Direction::Down)),
    }?;
    let ServerHeader { msg_id, proto_ver, vehicle_id, gateway_id, ts } = header;
    Ok(ServerMessage { msg_id, proto_ver, vehicle_id, gateway_id, ts, body })
}

/// Checks size and JSON, and remembers the message's id for whoever reports a refusal.
fn open<'t>(payload: &'t [u8], direction: Direction, opened: &mut Opened) -> Result<Node<'t>, Refusal> {
    let most = direction.max_payload_bytes();
    if payload.len() > most {
        let expected = format!("at most {most} octets on {}", direction.name());
        return Err(Refusal::new(RefusalCode::TooLarge, "", expected, format!("{} octets", payload.len())));
    }
    let document = scan(payload)
        .map_err(|malformed| Refusal::new(RefusalCode::MalformedJson, "", ONE_OBJECT, malformed.found))?;
    let msg_id = top_level(&document)?.member("msg_id").and_then(|member| member.value.value.as_str());
    opened.msg_id = msg_id.and_then(|msg_id| msg_id.parse().ok());
    Ok(document)
}

const ONE_OBJECT: &str = "one JSON object in UTF-8, nested at most 32 deep";

fn top_level<'d>(document: &'d Node<'d>) -> Result<&'d Object<'d>, Refusal> {
    let refused = || Refusal::new(RefusalCode::MalformedJson, "", ONE_OBJECT, document.value.describe());
    document.value.as_object().ok_or_else(refused)
}

fn version(object: &Object) -> Result<ProtoVer, Refusal> {
    let member = object.member("proto_ver").ok_or_else(|| Fault::missing(object, "proto_ver"))?;
    let text = string(member)?;
    match version_parts(text) {
        Some((major, _)) if major != "1" => {
            Err(at(member, RefusalCode::UnsupportedVersion, "major version 1", shortened(text)))
        }
        Some(_) | None => ProtoVer::try_from(text.to_owned())
            .map_err(|error| at(member, RefusalCode::InvalidField, error.expected, error.found)),
    }
}

/// Which message this is, and that it belongs on the topic.
fn message_type(
    object: &Object,
    direction: Direction,
    default: Option<MessageType>,
    opened: &mut Opened,
) -> Result<MessageType, Refusal> {
    let message_type = match (object.member("type"), default) {
        (Some(member), _) => string(member)?.parse().map_err(|_| unknown_type(member))?,
        (None, Some(default)) => default,
        (None, None) => return Err(Fault::missing(object, "type").into()),
    };
    opened.message_type = Some(message_type);
    if message_type.direction() == direction {
        Ok(message_type)
    } else {
        Err(wrong_topic(message_type, direction))
    }
}

fn unknown_type(member: &Member) -> Refusal {
    let names: Vec<&str> = MessageType::ALL.iter().map(|message_type| message_type.name()).collect();
    let expected = format!("one of {}", names.join(", "));
    at(member, RefusalCode::UnknownType, &expected, member.value.value.describe())
}

fn wrong_topic(message_type: MessageType, direction: Direction) -> Refusal {
    let expected = format!("{message_type} on topic {}", message_type.direction().name());
    let found = format!("{message_type} on topic {}", direction.name());
    Refusal::new(RefusalCode::WrongTopic, "/type", expected, found)
}

/// The ids of the payload are those of `binding`. An absent one, or one that is no string, is a matter
/// of the fields.
fn identity(object: &Object, binding: &Binding, code: RefusalCode) -> Result<(), Refusal> {
    let expected = |key: &str| match key {
        "vehicle_id" => Some(binding.vehicle_id.as_str()),
        "gateway_id" => Some(binding.gateway_id.as_str()),
        _ => None,
    };
    for member in &object.members {
        match (expected(member.key.as_ref()), member.value.value.as_str()) {
            (Some(expected), Some(found)) if expected != found => {
                return Err(at(member, code, &shortened(expected), shortened(found)));
            }
            (_, _) => {}
        }
    }
    Ok(())
}

/// Reads header and body from one object; of two faults the one that stands first decides.
fn fields<'de, H: Deserialize<'de>, B: Deserialize<'de>, T>(
    document: &'de Node<'de>,
    version: ProtoVer,
    body: impl FnOnce(B) -> T,
) -> Result<(H, T), Refusal> {
    let rest_ignored = version.ignores_unknown_fields();
    let header = decode(document, Others::BelongElsewhere { named: None, rest_ignored });
    let named = Some(HEADER_FIELDS);
    match (header, decode(document, Others::BelongElsewhere { named, rest_ignored })) {
        (Ok(header), Ok(read)) => Ok((header, body(read))),
        (Err(fault), read) => Err(fault.or_earlier(read.err()).into()),
        (Ok(_), Err(fault)) => Err(fault.into()),
    }
}

fn string<'d>(member: &'d Member<'d>) -> Result<&'d str, Refusal> {
    let refused = || at(member, RefusalCode::InvalidField, "a string", member.value.value.describe());
    member.value.value.as_str().ok_or_else(refused)
}

/// A refusal of a member of the outermost object that the contract names.
fn at(member: &Member, code: RefusalCode, expected: &str, found: String) -> Refusal {
    Refusal::new(code, format!("/{}", member.key), expected, found)
}
