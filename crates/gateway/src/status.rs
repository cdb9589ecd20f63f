//! What a gateway is doing, for progress displays.

use std::collections::BTreeMap;

use farrier_protocol::{EcuId, Text};
use farrier_vehicle_update::{Ending, Phase};

/// A snapshot; the newest one is in the watch channel of a running gateway.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// Whether the server is connected and has taken our WakeUp.
    pub connected: bool,
    /// What was found when the journal was damaged: no update is taken on until a workshop has cleared that.
    pub journal_fault: Option<String>,
    /// The update under way, or the last one.
    pub update_id: Option<Text>,
    /// Where it stands.
    pub phase: Option<Phase>,
    /// What it waits for, where it waits.
    pub waits_for: Option<String>,
    /// Bytes of its packages that are here.
    pub downloaded_bytes: u64,
    /// Bytes of its packages in all.
    pub download_total_bytes: u64,
    /// Its ECUs.
    pub ecus: BTreeMap<EcuId, EcuProgress>,
    /// How it ended, once it has.
    pub ending: Option<Ending>,
}

/// How far one ECU is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EcuProgress {
    /// Bytes written into its inactive bank.
    pub written_bytes: u64,
    /// Bytes of its image.
    pub total_bytes: u64,
}
