//! What an update has the gateway do.

use std::time::Duration;

use farrier_protocol::{EcuId, VehicleBody};

use crate::ecu_work::EcuCall;
use crate::record::Record;

/// What the gateway does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Store the record and the reports durably, in one transaction; then say `Persisted`.
    Persist {
        /// The record.
        record: Record,
        /// The reports to send.
        reports: Vec<VehicleBody>,
    },
    /// Store this report to be sent. Nothing waits for it.
    Report(VehicleBody),
    /// Fetch and verify every package that is not here yet.
    Download,
    /// Call an ECU.
    CallEcu {
        /// The ECU.
        ecu_id: EcuId,
        /// What to do.
        call: EcuCall,
        /// How long to wait before.
        wait: Duration,
    },
    /// Wait until the vehicle is ready for this.
    AwaitReady {
        /// What comes after.
        before: InstallStep,
    },
    /// Give up the download, the waits and the calls that are under way: each answers with its failure.
    Interrupt,
    /// Delete the packages of this update.
    DeletePackages,
}

/// What an update waits with until the vehicle is ready: parked, powered and cool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallStep {
    /// The driver's consent: once the vehicle is ready, the driver is asked, and the wait ends when they agree.
    Consent,
    /// Writing the inactive banks.
    Processing,
    /// Swapping the boot flags and restarting the ECUs.
    Activating,
}
