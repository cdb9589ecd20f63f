//! What `farrier check-message` says about one message: the checks that need no clock and no store.

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::envelope::MessageType;
use crate::message::ServerMessage;
use crate::parse::{ReceivedMessage, Refused};
use crate::refusal::Refusal;
use crate::topics::Direction;

/// The topic that a message is checked for.
pub type CheckTopic = Direction;

/// Whether a message would be taken; serialises to the one line that `farrier check-message` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong with it.
    Accepted {
        /// What it is.
        message_type: MessageType,
    },
    /// It would be refused.
    Refused(Refusal),
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Accepted { message_type } => {
                let mut line = to.serialize_struct("Verdict", 2)?;
                line.serialize_field("accepted", &true)?;
                line.serialize_field("type", message_type)?;
                line.end()
            }
            Self::Refused(refusal) => {
                let mut line = to.serialize_struct("Verdict", 5)?;
                line.serialize_field("accepted", &false)?;
                line.serialize_field("code", &refusal.code)?;
                line.serialize_field("pointer", &refusal.pointer)?;
                line.serialize_field("expected", &refusal.expected)?;
                line.serialize_field("found", &refusal.found)?;
                line.end()
            }
        }
    }
}

/// Checks a message by itself and, where `in_reply_to` is given, against the command that it answers.
///
/// Not judged here, for want of a clock, a store and a connection: expiry, closed commands, duplicates,
/// boot counters, certificates, rates. `in_reply_to` means nothing for a message on `down`.
pub fn check_message(topic: CheckTopic, payload: &[u8], in_reply_to: Option<&ServerMessage>) -> Verdict {
    let judged = match topic {
        Direction::Up(up) => ReceivedMessage::parse_answer(up, payload, in_reply_to)
            .map_err(Refused::into_refusal)
            .and_then(|received| {
                if let Some(command) = in_reply_to {
                    received.check_correlation(command)?;
                }
                received.check_content(in_reply_to)?;
                Ok(received.message.message_type())
            }),
        Direction::Down => {
            ServerMessage::parse(payload).map(|message| message.message_type()).map_err(Refused::into_refusal)
        }
    };
    match judged {
        Ok(message_type) => Verdict::Accepted { message_type },
        Err(refusal) => Verdict::Refused(refusal),
    }
}
