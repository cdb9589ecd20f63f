//! Why a sequence gives up.

use std::time::Duration;

use super::call::{Call, Routine};
use crate::uds::{self, NegativeResponseCode};

/// Why a sequence gave up.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The ECU refuses, and asking again would not help.
    #[error(
        "expected the ECU to accept {call:?}, it refused with {code:?} (0x{:02X}); see the ECU's fault memory",
        .code.value()
    )]
    Refused {
        /// The request.
        call: Call,
        /// Its refusal.
        code: NegativeResponseCode,
    },
    /// The ECU's conditions stayed wrong.
    #[error(
        "expected the conditions for {call:?} within {}s, the ECU still says {code:?} (0x{:02X}); try again when the vehicle is ready",
        .waited.as_secs(), .code.value()
    )]
    NotReady {
        /// The request.
        call: Call,
        /// The last refusal.
        code: NegativeResponseCode,
        /// How long was waited.
        waited: Duration,
    },
    /// No answer.
    #[error("expected an answer to {call:?}, the ECU is silent; check its supply and its network")]
    Silent {
        /// The request.
        call: Call,
    },
    /// "Response pending" without end.
    #[error("expected {call:?} to end within {}s, the ECU still says response pending", .cap.as_secs())]
    PendingTooLong {
        /// The request.
        call: Call,
        /// The bound.
        cap: Duration,
    },
    /// "Busy" without end.
    #[error("expected {call:?} to be taken within {repeats} repeats, the ECU is still busy")]
    Busy {
        /// The request.
        call: Call,
        /// How often it was repeated.
        repeats: u32,
    },
    /// The sequence was started again too often.
    #[error("expected the sequence to get past {call:?} in {restarts} restarts; the last cause was {cause}")]
    GaveUp {
        /// The request at which it stopped.
        call: Call,
        /// How often it had started again.
        restarts: u32,
        /// Negative response or lost connection.
        cause: RestartCause,
    },
    /// The image is for another hardware; nothing was erased.
    #[error(
        "expected hardware {expected}, found {found}; nothing was erased, send the image made for this hardware"
    )]
    HardwareMismatch {
        /// Hardware that the image is made for.
        expected: String,
        /// Hardware that the ECU says it is.
        found: String,
    },
    /// A routine ran and its result is not good.
    #[error("expected {routine:?} to end well, its status is {status:02X?}")]
    RoutineFailed {
        /// The routine.
        routine: Routine,
        /// Its status record.
        status: Vec<u8>,
    },
    /// An answer of the right service that this call cannot use.
    #[error("expected a well-formed answer to {call:?}, found {found:02X?}")]
    UnexpectedAnswer {
        /// The request.
        call: Call,
        /// The first bytes of the answer.
        found: Vec<u8>,
    },
    /// An image of a length that a download cannot have.
    #[error("expected an image of 1 to 4294967295 bytes, found {size}; nothing was erased")]
    ImageSize {
        /// Its length in bytes.
        size: u64,
    },
    /// A version that an ECU cannot report.
    #[error(
        "expected a version of 1 to 128 printable ASCII characters, found {version:?}; nothing was erased"
    )]
    VersionText {
        /// The version.
        version: String,
    },
    /// A request that UDS cannot carry: a setting is wrong.
    #[error("expected {call:?} to be a request that UDS can carry; check the topology file")]
    Unsendable {
        /// The request.
        call: Call,
        /// Why not.
        #[source]
        source: uds::Error,
    },
}

/// What made a sequence start again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartCause {
    /// A negative response.
    Refused(NegativeResponseCode),
    /// The connection was lost.
    ConnectionLost,
}

impl std::fmt::Display for RestartCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(code) => write!(f, "{code:?} (0x{:02X})", code.value()),
            Self::ConnectionLost => f.write_str("a lost connection"),
        }
    }
}

/// An answer that a call cannot use.
pub(super) fn unexpected(call: Call, received: &[u8]) -> Failure {
    Failure::UnexpectedAnswer { call, found: received.iter().take(16).copied().collect() }
}
