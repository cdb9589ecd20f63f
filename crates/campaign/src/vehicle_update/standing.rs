//! Where a vehicle update stands for its campaign: what counters are kept by.

use super::{Hold, State, VerifyCause};
use crate::ineligible_reason::IneligibleReason;

/// Where a vehicle update stands for its campaign: its state, and what the state's name alone does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Something must happen first.
    Waiting,
    /// The VCI is asked for.
    CollectingVci,
    /// Readiness is asked for.
    CheckingReadiness,
    /// Not ready; asked again later.
    Deferred,
    /// Packages are on their way.
    Downloading,
    /// Inactive banks are written.
    Installing,
    /// The new software is on trial.
    Committing,
    /// The vehicle has said how its attempt ended, and is asked what it runs.
    Verifying,
    /// The attempt's deadline has passed in silence, and the vehicle is asked what it runs.
    Overdue,
    /// An operator's roll-back is under way.
    RollingBack,
    /// Ended by an operator before any change.
    Cancelled,
    /// Nothing to do.
    UpToDate,
    /// Cannot get the release.
    Ineligible,
    /// Runs the release.
    Succeeded,
    /// Runs the earlier versions, since the driver said no.
    Declined,
    /// Runs the earlier versions.
    RolledBack,
    /// Runs a mix.
    Inconsistent,
    /// Nobody knows what it runs.
    Unknown,
}

impl Standing {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Waiting,
        Self::CollectingVci,
        Self::CheckingReadiness,
        Self::Deferred,
        Self::Downloading,
        Self::Installing,
        Self::Committing,
        Self::Verifying,
        Self::Overdue,
        Self::RollingBack,
        Self::Cancelled,
        Self::UpToDate,
        Self::Ineligible,
        Self::Succeeded,
        Self::Declined,
        Self::RolledBack,
        Self::Inconsistent,
        Self::Unknown,
    ];

    /// Its name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overdue => "overdue",
            Self::Declined => "declined",
            Self::Waiting
            | Self::CollectingVci
            | Self::CheckingReadiness
            | Self::Deferred
            | Self::Downloading
            | Self::Installing
            | Self::Committing
            | Self::Verifying
            | Self::RollingBack
            | Self::Cancelled
            | Self::UpToDate
            | Self::Ineligible
            | Self::Succeeded
            | Self::RolledBack
            | Self::Inconsistent
            | Self::Unknown => self.state_name(),
        }
    }

    /// The name of the state in protocol.md §8.
    pub fn state_name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::CollectingVci => "collecting_vci",
            Self::CheckingReadiness => "checking_readiness",
            Self::Deferred => "deferred",
            Self::Downloading => "downloading",
            Self::Installing => "installing",
            Self::Committing => "committing",
            Self::Verifying | Self::Overdue => "verifying",
            Self::RollingBack => "rolling_back",
            Self::Cancelled => "cancelled",
            Self::UpToDate => "up_to_date",
            Self::Ineligible => "ineligible",
            Self::Succeeded => "succeeded",
            Self::Declined | Self::RolledBack => "rolled_back",
            Self::Inconsistent => "inconsistent",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the attempt is over.
    pub fn is_final(self) -> bool {
        match self {
            Self::Waiting
            | Self::CollectingVci
            | Self::CheckingReadiness
            | Self::Deferred
            | Self::Downloading
            | Self::Installing
            | Self::Committing
            | Self::Verifying
            | Self::Overdue
            | Self::RollingBack => false,
            Self::Cancelled
            | Self::UpToDate
            | Self::Ineligible
            | Self::Succeeded
            | Self::Declined
            | Self::RolledBack
            | Self::Inconsistent
            | Self::Unknown => true,
        }
    }

    /// Whether the vehicle takes one of the places of its campaign. One that is not ready takes none: it may stay so for
    /// days.
    pub fn takes_a_place(self) -> bool {
        !self.is_final() && !matches!(self, Self::Waiting | Self::Deferred)
    }
}

impl std::str::FromStr for Standing {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|standing| standing.name() == name).ok_or(())
    }
}

impl State {
    /// Where the update stands for its campaign.
    pub fn standing(&self) -> Standing {
        match self {
            Self::Waiting { .. } => Standing::Waiting,
            Self::CollectingVci { .. } => Standing::CollectingVci,
            Self::CheckingReadiness { .. } => Standing::CheckingReadiness,
            Self::Deferred { .. } => Standing::Deferred,
            Self::Downloading(_) => Standing::Downloading,
            Self::Installing(_) => Standing::Installing,
            Self::Committing(_) => Standing::Committing,
            Self::Verifying { cause: VerifyCause::DeadlinePassed, .. } => Standing::Overdue,
            Self::Verifying { .. } => Standing::Verifying,
            Self::RollingBack { .. } => Standing::RollingBack,
            Self::Cancelled { .. } => Standing::Cancelled,
            Self::UpToDate => Standing::UpToDate,
            Self::Ineligible { .. } => Standing::Ineligible,
            Self::Succeeded { .. } => Standing::Succeeded,
            Self::RolledBack { cause: VerifyCause::ConsentDenied, .. } => Standing::Declined,
            Self::RolledBack { .. } => Standing::RolledBack,
            Self::Inconsistent { .. } => Standing::Inconsistent,
            Self::Unknown { .. } => Standing::Unknown,
        }
    }

    /// Why the update ended without the release, as codes; none where it did not.
    pub fn failure_codes(&self) -> Vec<&'static str> {
        match self {
            Self::Cancelled { .. } => vec!["CANCELLED"],
            Self::Ineligible { reasons } => reasons.iter().map(IneligibleReason::code).collect(),
            Self::Waiting { hold: Hold::BeforeNextAttempt(pause) } => vec![pause.cause.code()],
            Self::RolledBack { cause, .. }
            | Self::Inconsistent { cause, .. }
            | Self::Unknown { cause, .. } => {
                vec![cause.code()]
            }
            Self::Waiting { .. }
            | Self::CollectingVci { .. }
            | Self::CheckingReadiness { .. }
            | Self::Deferred { .. }
            | Self::Downloading(_)
            | Self::Installing(_)
            | Self::Committing(_)
            | Self::Verifying { .. }
            | Self::RollingBack { .. }
            | Self::UpToDate
            | Self::Succeeded { .. } => Vec::new(),
        }
    }
}

impl VerifyCause {
    /// The cause as a code; that of the vehicle's ErrorResponse where it sent one.
    pub fn code(&self) -> &'static str {
        match self {
            Self::CommitReported => "COMMIT_NOT_FOUND",
            Self::DeadlinePassed => "DEADLINE_PASSED",
            Self::UpdateFailed { .. } => "UPDATE_FAILED",
            Self::ServiceRequired { .. } => "SERVICE_REQUIRED",
            Self::ConsentDenied => "CONSENT_DENIED",
            Self::ErrorReported { code } | Self::RollbackRefused { code } => code.name(),
            Self::RollbackReported => "ROLLED_BACK_BY_OPERATOR",
            Self::RollbackDeadlinePassed => "ROLLBACK_DEADLINE_PASSED",
            Self::FoundLater => "FOUND_LATER",
        }
    }
}
