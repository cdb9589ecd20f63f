//! Every deadline and pause of the server's side of the protocol, in one place, with defaults.

use serde::{Deserialize, Serialize};

/// The deadlines, pauses and numbers of tries by which vehicle updates are run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Seconds a vehicle has to answer RequestVCI (protocol.md §4.2: 30).
    pub vci_deadline_s: u64,
    /// Seconds a vehicle has to answer RequestDownloadReadiness.
    pub readiness_deadline_s: u64,
    /// Seconds an attempt may take from StartDownload to the commit result; a campaign may set its own.
    pub update_deadline_s: u64,
    /// Seconds a StartRollback may take.
    pub rollback_deadline_s: u64,
    /// Seconds until a vehicle whose VCI does not come after an update is `unknown`.
    pub verify_deadline_s: u64,
    /// How often one question is asked before the server pauses, or waits for the next WakeUp.
    pub question_tries: u32,
    /// How often in a row an update is planned again before the server pauses.
    pub replans: u32,
    /// Seconds until a connected vehicle that answered nothing of use is asked again without a WakeUp.
    pub silence_pause_s: u64,
    /// Pauses before RequestVCI is sent again after VCI_INCOMPLETE (protocol.md §4.10: 60, 300, 900).
    pub vci_incomplete_pauses_s: Vec<u64>,
    /// Pause after a BUSY that names none.
    pub busy_pause_s: u64,
    /// When a vehicle counts as being in a boot loop.
    pub boot_loop: BootLoopSettings,
}

/// When a vehicle is quarantined and when it is let go (protocol.md §4.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BootLoopSettings {
    /// So many reboots …
    pub reboots: usize,
    /// … within so many seconds …
    pub within_s: u64,
    /// … each reported with an uptime below so many seconds.
    pub uptime_below_s: u64,
    /// A quarantined vehicle that stays up for so many seconds is let go.
    pub release_after_s: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            vci_deadline_s: 30,
            readiness_deadline_s: 60,
            update_deadline_s: 86_400,
            rollback_deadline_s: 3_600,
            verify_deadline_s: 1_800,
            question_tries: 3,
            replans: 3,
            silence_pause_s: 1_800,
            vci_incomplete_pauses_s: vec![60, 300, 900],
            busy_pause_s: 300,
            boot_loop: BootLoopSettings::default(),
        }
    }
}

impl Default for BootLoopSettings {
    fn default() -> Self {
        Self { reboots: 5, within_s: 600, uptime_below_s: 60, release_after_s: 1_800 }
    }
}
