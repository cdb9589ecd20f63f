//! Where an update stands, for people and for decisions that hang on it.

use std::fmt;

/// Where an update stands, in the words of AUTOSAR's update and configuration management.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Asks every ECU what it runs.
    Syncing,
    /// Fetches the packages.
    Transferring,
    /// Waits until the vehicle is ready and the driver agrees.
    Waiting,
    /// Writes the inactive banks.
    Processing,
    /// Every ECU is ready; the ACTIVATE record is being written.
    Barrier,
    /// Swaps the boot flags.
    Activating,
    /// Restarts the ECUs and reads back what they run.
    VehicleChecking,
    /// Every ECU proved the new software; the COMMIT record is being written.
    Committing,
    /// Has every ECU confirm.
    Finishing,
    /// Brings every ECU back.
    RollingBack,
    /// Deletes what is no longer needed.
    CleaningUp,
    /// Nothing is left to do.
    Ended,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syncing => "syncing",
            Self::Transferring => "transferring",
            Self::Waiting => "waiting",
            Self::Processing => "processing",
            Self::Barrier => "barrier",
            Self::Activating => "activating",
            Self::VehicleChecking => "vehicle checking",
            Self::Committing => "committing",
            Self::Finishing => "finishing",
            Self::RollingBack => "rolling back",
            Self::CleaningUp => "cleaning up",
            Self::Ended => "ended",
        })
    }
}
