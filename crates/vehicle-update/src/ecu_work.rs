//! What is done with one ECU to bring it to the goal of the present phase.
//!
//! | goal | after | that | next |
//! |---|---|---|---|
//! | Sync | (start) | | Identify |
//! | | Identify | the hardware of the plan, nothing on trial | reached: its software is remembered |
//! | | | other hardware, or on trial | failed |
//! | | | no answer | Identify again |
//! | Write | (start) | | WriteInactiveBank |
//! | | WriteInactiveBank | done / failed | reached / failed |
//! | Activate | (start) | | Activate |
//! | | Activate | done / failed | reached / failed |
//! | Prove | (start) | | Reset |
//! | | Reset | done, or no answer | AskWhatRuns |
//! | | AskWhatRuns | new version from the other bank | reached |
//! | | | anything else | failed |
//! | | | no answer | AskWhatRuns again |
//! | Keep | (start) | | AskWhatRuns |
//! | | AskWhatRuns | new, not on trial | reached |
//! | | | new, on trial | Confirm |
//! | | | earlier, the new one in the other bank (its trial ran out) | Activate |
//! | | | anything else | AskWhatRuns again |
//! | | Confirm | done / failed | AskWhatRuns / AskWhatRuns again |
//! | | Activate | done / failed | Reset / AskWhatRuns again |
//! | | Reset | done, or no answer | AskWhatRuns |
//! | StayEarlier | (start) | | AskWhatRuns |
//! | | AskWhatRuns | earlier | reached |
//! | | | anything else, or no answer | AskWhatRuns again |
//! | RestoreEarlier | (start) | | RollBack |
//! | | RollBack | done, or failed | Reset |
//! | | Reset | done / no answer | AskWhatRuns / RollBack again |
//! | | AskWhatRuns | earlier, not on trial | reached |
//! | | | anything else, or no answer | RollBack again |
//! | OfferEarlier | (start) | | AskWhatRuns |
//! | | AskWhatRuns | new, the earlier one in the other bank | reached |
//! | | | anything else | failed |
//! | | | no answer | AskWhatRuns again |
//!
//! "again", Confirm and Activate each use up one attempt; without any left the ECU has failed.
//! A refused roll-back is followed by a restart all the same, for only what runs after a restart shows
//! which way the boot flag points; an ECU that never swapped its flag may well refuse.

use farrier_protocol::Package;

use crate::record::EarlierSoftware;

/// What the gateway does with an ECU; each is idempotent on the ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EcuCall {
    /// Read the hardware part number and what runs.
    Identify,
    /// Read what runs.
    AskWhatRuns,
    /// Write the image into the inactive bank and have the ECU check it.
    WriteInactiveBank,
    /// Swap the boot flag.
    Activate,
    /// Restart, and wait until the ECU answers again.
    Reset,
    /// End the trial.
    Confirm,
    /// Swap the boot flag back.
    RollBack,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EcuOutcome {
    /// Of Identify.
    Identified {
        /// Hardware part number.
        hw_part_no: String,
        /// What runs.
        runs: Runs,
    },
    /// Of AskWhatRuns.
    Runs(Runs),
    /// Of all others: the ECU acknowledged.
    Done,
    /// It refused, did not answer, or the call was interrupted; for people.
    Failed(String),
}

/// What an ECU says it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runs {
    /// Version of the running software.
    pub version: String,
    /// The bank it runs from, 0 or 1.
    pub bank: u8,
    /// Version in the other bank, if that can be booted.
    pub other_version: Option<String>,
    /// Whether it is on trial.
    pub trial: Trial,
}

/// Whether running software is on trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// No.
    None,
    /// Activated, not confirmed.
    OnTrial,
    /// Confirmed; the other bank still holds the earlier software.
    Confirmed,
}

/// What one ECU is to be brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    Sync,
    Write,
    Activate,
    Prove,
    Keep,
    StayEarlier,
    RestoreEarlier,
    OfferEarlier,
}

/// What follows for this ECU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Call this now.
    Call(EcuCall),
    /// Call this if an attempt is left.
    Attempt(EcuCall, String),
    /// The goal is reached; Sync says what ran.
    Reached(Option<EarlierSoftware>),
    /// It cannot be reached.
    Failed(String),
}

impl Goal {
    /// The first call.
    pub(crate) fn first_call(self) -> EcuCall {
        match self {
            Self::Sync => EcuCall::Identify,
            Self::Write => EcuCall::WriteInactiveBank,
            Self::Activate => EcuCall::Activate,
            Self::Prove => EcuCall::Reset,
            Self::Keep | Self::StayEarlier | Self::OfferEarlier => EcuCall::AskWhatRuns,
            Self::RestoreEarlier => EcuCall::RollBack,
        }
    }

    /// What follows from the outcome of a call: the table above.
    pub(crate) fn next(
        self,
        call: EcuCall,
        outcome: EcuOutcome,
        package: &Package,
        earlier: Option<&EarlierSoftware>,
    ) -> Next {
        match (self, call, outcome) {
            (Self::Sync, EcuCall::Identify, EcuOutcome::Identified { hw_part_no, runs }) => {
                synced(package, &hw_part_no, runs)
            }
            (Self::Sync, _, outcome) => Next::Attempt(EcuCall::Identify, reason(call, outcome)),

            (Self::Write | Self::Activate, _, EcuOutcome::Done) => Next::Reached(None),
            (Self::Write | Self::Activate, _, outcome) => Next::Failed(reason(call, outcome)),

            (Self::Prove | Self::Keep, EcuCall::Reset, EcuOutcome::Done)
            | (Self::Keep, EcuCall::Confirm, EcuOutcome::Done)
            | (Self::RestoreEarlier, EcuCall::Reset, EcuOutcome::Done) => Next::Call(EcuCall::AskWhatRuns),
            (Self::Keep, EcuCall::Activate, EcuOutcome::Done)
            | (Self::RestoreEarlier, EcuCall::RollBack, _) => Next::Call(EcuCall::Reset),

            (Self::Prove, EcuCall::AskWhatRuns, EcuOutcome::Runs(runs)) => {
                if runs.is_new(package, earlier) {
                    Next::Reached(None)
                } else {
                    Next::Failed(unexpected(package.target_version.as_str(), &runs))
                }
            }
            (Self::Prove, _, outcome) => Next::Attempt(EcuCall::AskWhatRuns, reason(call, outcome)),

            (Self::Keep, EcuCall::AskWhatRuns, EcuOutcome::Runs(runs)) => keep(package, earlier, &runs),
            (Self::Keep, _, outcome) => Next::Attempt(EcuCall::AskWhatRuns, reason(call, outcome)),

            (Self::StayEarlier, EcuCall::AskWhatRuns, EcuOutcome::Runs(runs)) => {
                back(earlier, &runs, EcuCall::AskWhatRuns)
            }
            (Self::StayEarlier, _, outcome) => Next::Attempt(EcuCall::AskWhatRuns, reason(call, outcome)),

            (Self::RestoreEarlier, EcuCall::AskWhatRuns, EcuOutcome::Runs(runs)) => {
                back(earlier, &runs, EcuCall::RollBack)
            }
            (Self::RestoreEarlier, _, outcome) => Next::Attempt(EcuCall::RollBack, reason(call, outcome)),

            (Self::OfferEarlier, EcuCall::AskWhatRuns, EcuOutcome::Runs(runs)) => {
                offered(package, earlier, &runs)
            }
            (Self::OfferEarlier, _, outcome) => Next::Attempt(EcuCall::AskWhatRuns, reason(call, outcome)),
        }
    }
}

impl Runs {
    /// The new version, from the bank that did not run before.
    fn is_new(&self, package: &Package, earlier: Option<&EarlierSoftware>) -> bool {
        self.version == package.target_version.as_str()
            && earlier.is_some_and(|earlier| self.bank != earlier.bank)
    }

    /// The earlier version, from its bank.
    fn is_earlier(&self, earlier: Option<&EarlierSoftware>) -> bool {
        earlier.is_some_and(|earlier| self.version == earlier.version && self.bank == earlier.bank)
    }
}

fn synced(package: &Package, hw_part_no: &str, runs: Runs) -> Next {
    let wanted = package.hw_part_no.as_str();
    if hw_part_no != wanted {
        return Next::Failed(format!("expected hardware {wanted}, found {hw_part_no}"));
    }
    if runs.trial == Trial::OnTrial {
        return Next::Failed(format!("runs {} on trial, which is not of this update", runs.version));
    }
    Next::Reached(Some(EarlierSoftware {
        ecu_id: package.target_component.clone(),
        version: runs.version,
        bank: runs.bank,
    }))
}

fn keep(package: &Package, earlier: Option<&EarlierSoftware>, runs: &Runs) -> Next {
    let target = package.target_version.as_str();
    if runs.is_new(package, earlier) {
        return match runs.trial {
            Trial::OnTrial => Next::Attempt(EcuCall::Confirm, "is still on trial".to_owned()),
            Trial::None | Trial::Confirmed => Next::Reached(None),
        };
    }
    if runs.is_earlier(earlier) && runs.other_version.as_deref() == Some(target) {
        return Next::Attempt(EcuCall::Activate, unexpected(target, runs));
    }
    Next::Attempt(EcuCall::AskWhatRuns, unexpected(target, runs))
}

fn back(earlier: Option<&EarlierSoftware>, runs: &Runs, again: EcuCall) -> Next {
    if runs.is_earlier(earlier) && runs.trial != Trial::OnTrial {
        return Next::Reached(None);
    }
    Next::Attempt(
        again,
        unexpected(earlier.map_or("its earlier software", |software| &software.version), runs),
    )
}

fn offered(package: &Package, earlier: Option<&EarlierSoftware>, runs: &Runs) -> Next {
    let wanted = earlier.map(|software| software.version.as_str());
    if runs.is_new(package, earlier) && wanted.is_some() && runs.other_version.as_deref() == wanted {
        return Next::Reached(None);
    }
    Next::Failed(format!(
        "expected {} in its other bank, found {}",
        wanted.unwrap_or("the earlier software"),
        runs.other_version.as_deref().unwrap_or("nothing that can be booted")
    ))
}

fn unexpected(expected: &str, runs: &Runs) -> String {
    format!("expected {expected} to run, found {} in bank {} ({:?})", runs.version, runs.bank, runs.trial)
}

fn reason(call: EcuCall, outcome: EcuOutcome) -> String {
    match outcome {
        EcuOutcome::Failed(detail) => detail,
        EcuOutcome::Identified { .. } | EcuOutcome::Runs(_) | EcuOutcome::Done => {
            format!("answered {call:?} with something else")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::start_download;

    const NEW: (&str, u8) = ("2.0", 1);
    const EARLIER: (&str, u8) = ("1.0", 0);

    fn runs((version, bank): (&str, u8), other_version: Option<&str>, trial: Trial) -> Runs {
        Runs { version: version.to_owned(), bank, other_version: other_version.map(str::to_owned), trial }
    }

    fn next(goal: Goal, call: EcuCall, outcome: EcuOutcome) -> Next {
        let package = start_download(&[1]).packages.remove(0);
        let earlier = EarlierSoftware {
            ecu_id: package.target_component.clone(),
            version: EARLIER.0.to_owned(),
            bank: EARLIER.1,
        };
        goal.next(call, outcome, &package, Some(&earlier))
    }

    /// What follows, without the words for people.
    #[derive(Debug, PartialEq)]
    enum Follows {
        Call(EcuCall),
        Again(EcuCall),
        Reached,
        Failed,
    }

    #[test]
    fn every_row_of_the_table() {
        use EcuCall::{Activate, AskWhatRuns, Confirm, Identify, Reset, RollBack, WriteInactiveBank};
        use Follows::{Again, Call, Failed, Reached};

        let silent = || EcuOutcome::Failed("silent".to_owned());
        let done = || EcuOutcome::Done;
        let says = |what, other, trial| EcuOutcome::Runs(runs(what, other, trial));
        let identified = |hw: &str, trial| EcuOutcome::Identified {
            hw_part_no: hw.to_owned(),
            runs: runs(EARLIER, None, trial),
        };
        let new_on_trial = || says(NEW, Some("1.0"), Trial::OnTrial);
        let new_kept = || says(NEW, Some("1.0"), Trial::Confirmed);
        let earlier = || says(EARLIER, Some("2.0"), Trial::None);
        let earlier_alone = || says(EARLIER, None, Trial::None);
        let rows = [
            (Goal::Sync, Identify, identified("HW-1", Trial::None), Reached),
            (Goal::Sync, Identify, identified("HW-1", Trial::Confirmed), Reached),
            (Goal::Sync, Identify, identified("HW-1", Trial::OnTrial), Failed),
            (Goal::Sync, Identify, identified("HW-2", Trial::None), Failed),
            (Goal::Sync, Identify, silent(), Again(Identify)),
            (Goal::Write, WriteInactiveBank, done(), Reached),
            (Goal::Write, WriteInactiveBank, silent(), Failed),
            (Goal::Activate, Activate, done(), Reached),
            (Goal::Activate, Activate, silent(), Failed),
            (Goal::Prove, Reset, done(), Call(AskWhatRuns)),
            (Goal::Prove, Reset, silent(), Again(AskWhatRuns)),
            (Goal::Prove, AskWhatRuns, new_on_trial(), Reached),
            (Goal::Prove, AskWhatRuns, earlier(), Failed),
            (Goal::Prove, AskWhatRuns, says(("2.0", 0), None, Trial::None), Failed),
            (Goal::Prove, AskWhatRuns, silent(), Again(AskWhatRuns)),
            (Goal::Keep, AskWhatRuns, new_kept(), Reached),
            (Goal::Keep, AskWhatRuns, new_on_trial(), Again(Confirm)),
            (Goal::Keep, AskWhatRuns, earlier(), Again(Activate)),
            (Goal::Keep, AskWhatRuns, earlier_alone(), Again(AskWhatRuns)),
            (Goal::Keep, AskWhatRuns, silent(), Again(AskWhatRuns)),
            (Goal::Keep, Confirm, done(), Call(AskWhatRuns)),
            (Goal::Keep, Confirm, silent(), Again(AskWhatRuns)),
            (Goal::Keep, Activate, done(), Call(Reset)),
            (Goal::Keep, Activate, silent(), Again(AskWhatRuns)),
            (Goal::Keep, Reset, done(), Call(AskWhatRuns)),
            (Goal::Keep, Reset, silent(), Again(AskWhatRuns)),
            (Goal::StayEarlier, AskWhatRuns, earlier(), Reached),
            (Goal::StayEarlier, AskWhatRuns, earlier_alone(), Reached),
            (Goal::StayEarlier, AskWhatRuns, new_on_trial(), Again(AskWhatRuns)),
            (Goal::StayEarlier, AskWhatRuns, silent(), Again(AskWhatRuns)),
            (Goal::RestoreEarlier, RollBack, done(), Call(Reset)),
            (Goal::RestoreEarlier, RollBack, silent(), Call(Reset)),
            (Goal::RestoreEarlier, Reset, done(), Call(AskWhatRuns)),
            (Goal::RestoreEarlier, Reset, silent(), Again(RollBack)),
            (Goal::RestoreEarlier, AskWhatRuns, earlier(), Reached),
            (Goal::RestoreEarlier, AskWhatRuns, new_on_trial(), Again(RollBack)),
            (Goal::RestoreEarlier, AskWhatRuns, silent(), Again(RollBack)),
            (Goal::OfferEarlier, AskWhatRuns, new_kept(), Reached),
            (Goal::OfferEarlier, AskWhatRuns, says(NEW, None, Trial::None), Failed),
            (Goal::OfferEarlier, AskWhatRuns, earlier(), Failed),
            (Goal::OfferEarlier, AskWhatRuns, silent(), Again(AskWhatRuns)),
        ];
        for (goal, call, outcome, expected) in rows {
            let row = format!("{goal:?} {call:?} {outcome:?}");
            let follows = match next(goal, call, outcome) {
                Next::Call(call) => Call(call),
                Next::Attempt(call, _) => Again(call),
                Next::Reached(_) => Reached,
                Next::Failed(_) => Failed,
            };
            assert_eq!(follows, expected, "{row}");
        }
    }

    #[test]
    fn syncing_remembers_version_and_bank() {
        let said = EcuOutcome::Identified {
            hw_part_no: "HW-1".to_owned(),
            runs: runs(("1.5", 1), Some("1.0"), Trial::Confirmed),
        };
        let Next::Reached(Some(software)) = next(Goal::Sync, EcuCall::Identify, said) else { panic!() };
        assert_eq!((software.version.as_str(), software.bank), ("1.5", 1));
    }
}
