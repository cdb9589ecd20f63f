//! Why a message is refused (protocol.md §7).

use serde::{Deserialize, Serialize};

use crate::ids::LongText;
use crate::names::wire_names;

wire_names! {
    /// The closed set of refusal codes.
    RefusalCode, "a refusal code of protocol.md §7" {
        /// Not one JSON object, or nested deeper than 32.
        MalformedJson = "MALFORMED_JSON",
        /// More octets than the topic allows.
        TooLarge = "TOO_LARGE",
        /// A major version other than 1.
        UnsupportedVersion = "UNSUPPORTED_VERSION",
        /// `type` names no message.
        UnknownType = "UNKNOWN_TYPE",
        /// The message does not belong on this topic.
        WrongTopic = "WRONG_TOPIC",
        /// A required field is absent.
        MissingField = "MISSING_FIELD",
        /// Duplicate key, wrong JSON type, out of range, against its rule, outside a closed set.
        InvalidField = "INVALID_FIELD",
        /// A field that this version does not know.
        UnknownField = "UNKNOWN_FIELD",
        /// Not the identity of the topic, the client id or the certificate.
        IdentityMismatch = "IDENTITY_MISMATCH",
        /// Not the current binding of the vehicle.
        BindingMismatch = "BINDING_MISMATCH",
        /// Names no command that was sent to this binding.
        UnknownCorrelation = "UNKNOWN_CORRELATION",
        /// The command takes another kind of answer.
        CorrelationTypeMismatch = "CORRELATION_TYPE_MISMATCH",
        /// The command is already answered.
        CorrelationClosed = "CORRELATION_CLOSED",
        /// The command's deadline has passed.
        CorrelationExpired = "CORRELATION_EXPIRED",
        /// The same `msg_id` with other content.
        DuplicateConflict = "DUPLICATE_CONFLICT",
        /// The boot counter went back.
        BootSeqRegression = "BOOT_SEQ_REGRESSION",
        /// An inventory without ECUs.
        VciEmpty = "VCI_EMPTY",
        /// Two entries for one ECU.
        VciDuplicateEcu = "VCI_DUPLICATE_ECU",
        /// A field that was not asked for.
        VciFieldNotRequested = "VCI_FIELD_NOT_REQUESTED",
        /// A required field that was asked for.
        VciFieldMissing = "VCI_FIELD_MISSING",
        /// A condition that was not asked for.
        ReadinessFieldNotRequested = "READINESS_FIELD_NOT_REQUESTED",
        /// Ready with reasons, or not ready without.
        ReadinessInconsistent = "READINESS_INCONSISTENT",
        /// Not the number of distinct ECUs of the command.
        EcuCountMismatch = "ECU_COUNT_MISMATCH",
        /// A success that was not verified.
        IntegrityNotVerified = "INTEGRITY_NOT_VERIFIED",
        /// The vehicle is quarantined.
        Quarantined = "QUARANTINED",
        /// Too many messages.
        RateLimited = "RATE_LIMITED",
    }
}

/// A refusal with what an operator or the author of a VMG needs to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code} at {pointer:?}: expected {expected}, found {found}")]
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

impl Refusal {
    /// A refusal of the field at `pointer`.
    pub fn new(
        code: RefusalCode,
        pointer: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self { code, pointer: pointer.into(), expected: expected.into(), found: found.into() }
    }

    /// What the sender is told in `detail` of MessageRejected (message 11).
    pub fn detail(&self) -> LongText {
        let Self { code: _, pointer, expected, found } = self;
        LongText::beginning_of(&format!("{pointer:?}: expected {expected}, found {found}"))
    }
}
