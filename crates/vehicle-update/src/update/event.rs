//! What an update hears of.

use farrier_protocol::{EcuId, MsgId};

use crate::ecu_work::{EcuCall, EcuOutcome};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The record is durable.
    Persisted,
    /// Every package is here and verified.
    Downloaded,
    /// A package cannot be had; for people.
    DownloadFailed(String),
    /// The vehicle is ready, and the driver agrees where that was asked.
    Ready,
    /// The driver does not agree; for people.
    ConsentDenied(String),
    /// The wait for the vehicle was given up.
    WaitGivenUp,
    /// An ECU call ended.
    EcuAnswered {
        /// The ECU.
        ecu_id: EcuId,
        /// The call.
        call: EcuCall,
        /// What came of it.
        outcome: EcuOutcome,
    },
    /// A CancelUpdate for this update came in.
    CancelRequested {
        /// Its `msg_id`.
        command: MsgId,
    },
    /// The deadline of the StartDownload has passed.
    DeadlinePassed,
    /// The packages are deleted.
    PackagesDeleted,
}
