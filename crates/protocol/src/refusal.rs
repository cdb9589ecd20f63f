//! Why a message is refused (protocol.md §7).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The closed set of refusal codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RefusalCode {
    /// Not one JSON object, or nested deeper than 32.
    MalformedJson,
    /// More octets than the topic allows.
    TooLarge,
    /// A major version other than 1.
    UnsupportedVersion,
    /// `type` names no message.
    UnknownType,
    /// The message does not belong on this topic.
    WrongTopic,
    /// A required field is absent.
    MissingField,
    /// Duplicate key, wrong JSON type, out of range, against its rule, outside a closed set.
    InvalidField,
    /// A field that this version does not know.
    UnknownField,
    /// Not the identity of the topic, the client id or the certificate.
    IdentityMismatch,
    /// Not the current binding of the vehicle.
    BindingMismatch,
    /// Names no command that was sent to this binding.
    UnknownCorrelation,
    /// The command takes another kind of answer.
    CorrelationTypeMismatch,
    /// The command is already answered.
    CorrelationClosed,
    /// The command's deadline has passed.
    CorrelationExpired,
    /// The same `msg_id` with other content.
    DuplicateConflict,
    /// The boot counter went back.
    BootSeqRegression,
    /// An inventory without ECUs.
    VciEmpty,
    /// Two entries for one ECU.
    VciDuplicateEcu,
    /// A field that was not asked for.
    VciFieldNotRequested,
    /// A required field that was asked for.
    VciFieldMissing,
    /// A condition that was not asked for.
    ReadinessFieldNotRequested,
    /// Ready with reasons, or not ready without.
    ReadinessInconsistent,
    /// Not the number of distinct ECUs of the command.
    EcuCountMismatch,
    /// A success that was not verified.
    IntegrityNotVerified,
    /// The vehicle is quarantined.
    Quarantined,
    /// Too many messages.
    RateLimited,
}

/// A refusal with what an operator or the author of a VMG needs to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code:?} at {pointer:?}: expected {expected}, found {found}")]
pub struct Refusal {
    /// Which rule was broken.
    pub code: RefusalCode,
    /// JSON pointer (RFC 6901) of the field; `""` is the whole message.
    pub pointer: String,
    /// What the rule asks for.
    pub expected: String,
    /// What was there, shortened.
    pub found: String,
}
