//! Why the vehicles of a campaign wait, failed or were left out, and on which ECUs: counted over the first of each state, so that a
//! page takes no longer the larger a campaign is.

use std::collections::BTreeMap;

use farrier_campaign::{State, VerifyCause};
use farrier_protocol::{EcuId, Text};

use crate::api::Problem;
use crate::console::format::{number, percent};
use crate::console::texts::Texts;
use crate::console::why;
use crate::store::campaigns::StateCounts;
use crate::store::{Tx, updates};

/// Vehicle updates of one state that are looked at.
const LOOKED_AT: u32 = 1_000;

/// How many vehicles have the same reason.
pub(super) struct Reason {
    pub(super) what: String,
    pub(super) vehicles: String,
    pub(super) length: u64,
    /// Whether an operator can have them tried again by it.
    pub(super) can_retry: bool,
}

/// All that is counted so; nothing where it is not shown.
#[derive(Default)]
pub(super) struct Tallies {
    pub(super) waiting: Vec<Reason>,
    pub(super) failures: Vec<Reason>,
    pub(super) failed_ecus: Vec<Reason>,
    pub(super) left_out: Vec<Reason>,
    /// Whether there are more than were looked at.
    pub(super) is_part: bool,
}

impl Tallies {
    pub(super) fn of(
        tx: &Tx<'_>,
        t: &'static Texts,
        campaign: &Text,
        counts: &StateCounts,
    ) -> Result<Self, Problem> {
        let (mut waiting, mut failures) = (Tally::default(), Tally::default());
        let (mut failed_ecus, mut left_out) = (Tally::default(), Tally::default());
        let mut is_part = false;
        for state in [
            "waiting",
            "collecting_vci",
            "deferred",
            "rolled_back",
            "inconsistent",
            "unknown",
            "ineligible",
            "cancelled",
        ] {
            let number = counts.by_state.get(state).copied().unwrap_or(0);
            if number == 0 {
                continue;
            }
            is_part |= number > u64::from(LOOKED_AT);
            for update in updates::page_in_state(tx, campaign, state, "", LOOKED_AT)? {
                let codes = || update.state.failure_codes().into_iter().map(str::to_owned);
                match &update.state {
                    State::RolledBack { cause, .. } => {
                        failures.add(codes(), true);
                        failed_ecus.add(ecus_of(cause), false);
                    }
                    State::Inconsistent { cause, .. } | State::Unknown { cause, .. } => {
                        failures.add(codes(), false);
                        failed_ecus.add(ecus_of(cause), false);
                    }
                    State::Ineligible { .. } | State::Cancelled { .. } => left_out.add(codes(), true),
                    State::Waiting { .. } | State::CollectingVci { .. } | State::Deferred { .. } => {
                        let reasons =
                            update.state.waiting_on().map(|waiting_on| why::reasons(t, &waiting_on));
                        waiting.add(reasons.into_iter().flatten(), false);
                    }
                    State::CheckingReadiness { .. }
                    | State::Downloading(_)
                    | State::Installing(_)
                    | State::Committing(_)
                    | State::Verifying { .. }
                    | State::RollingBack { .. }
                    | State::UpToDate
                    | State::Succeeded { .. } => {}
                }
            }
        }
        Ok(Self {
            waiting: waiting.reasons(),
            failures: failures.reasons(),
            failed_ecus: failed_ecus.reasons(),
            left_out: left_out.reasons(),
            is_part,
        })
    }
}

/// The ECUs that a vehicle named when it failed.
fn ecus_of(cause: &VerifyCause) -> impl Iterator<Item = String> + '_ {
    let ecus: &[EcuId] = match cause {
        VerifyCause::UpdateFailed { failed_ecus } | VerifyCause::ServiceRequired { failed_ecus } => {
            failed_ecus
        }
        VerifyCause::CommitReported
        | VerifyCause::DeadlinePassed
        | VerifyCause::ConsentDenied
        | VerifyCause::ErrorReported { .. }
        | VerifyCause::RollbackReported
        | VerifyCause::RollbackDeadlinePassed
        | VerifyCause::RollbackRefused { .. }
        | VerifyCause::FoundLater => &[],
    };
    ecus.iter().map(ToString::to_string)
}

/// How often something was found, and whether it can be tried again.
#[derive(Default)]
struct Tally(BTreeMap<String, (u64, bool)>);

impl Tally {
    fn add(&mut self, all: impl Iterator<Item = String>, can_retry: bool) {
        for one in all {
            let (number, can) = self.0.entry(one).or_default();
            *number = number.saturating_add(1);
            *can |= can_retry;
        }
    }

    fn reasons(self) -> Vec<Reason> {
        let mut found: Vec<_> = self.0.into_iter().collect();
        found.sort_by_key(|(_, (vehicles, _))| std::cmp::Reverse(*vehicles));
        let most = found.first().map_or(0, |(_, (vehicles, _))| *vehicles);
        let reasons = found.into_iter().map(|(what, (vehicles, can_retry))| Reason {
            what,
            vehicles: number(vehicles),
            length: percent(vehicles, most).max(1),
            can_retry,
        });
        reasons.collect()
    }
}
