//! An ECU with two banks, as docs/vehicle.md has them: calls are idempotent, a trial can run out.

use farrier_vehicle_update::{EcuCall, EcuOutcome, Runs, Trial};

pub(super) const HARDWARE: &str = "HW-1";

/// What the next start changes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum AtNextStart {
    Nothing,
    New,
    Earlier,
}

#[derive(Debug, Clone)]
pub(super) struct Ecu {
    /// Versions; nothing in a bank that cannot be booted.
    banks: [Option<u8>; 2],
    active: usize,
    at_next_start: AtNextStart,
    trial: Trial,
    pub(super) is_dead: bool,
}

impl Ecu {
    pub(super) fn new() -> Self {
        Self {
            banks: [Some(1), None],
            active: 0,
            at_next_start: AtNextStart::Nothing,
            trial: Trial::None,
            is_dead: false,
        }
    }

    pub(super) fn version(&self) -> u8 {
        self.banks[self.active].unwrap()
    }

    pub(super) fn is_on_trial(&self) -> bool {
        self.trial == Trial::OnTrial
    }

    fn runs(&self) -> Runs {
        Runs {
            version: self.version().to_string(),
            bank: u8::try_from(self.active).unwrap(),
            other_version: self.banks[1 - self.active].map(|version| version.to_string()),
            trial: self.trial,
        }
    }

    /// Does what is asked; `version` is what is being installed.
    pub(super) fn carry_out(&mut self, call: EcuCall, version: u8) -> EcuOutcome {
        match call {
            EcuCall::Identify => {
                return EcuOutcome::Identified { hw_part_no: HARDWARE.to_owned(), runs: self.runs() };
            }
            EcuCall::AskWhatRuns => return EcuOutcome::Runs(self.runs()),
            EcuCall::WriteInactiveBank => {
                self.trial = Trial::None;
                self.banks[1 - self.active] = Some(version);
            }
            EcuCall::Activate if self.trial == Trial::None => {
                if self.banks[1 - self.active].is_none() {
                    return EcuOutcome::Failed("the other bank cannot be booted".to_owned());
                }
                self.at_next_start = AtNextStart::New;
            }
            // It lost power in between and runs the new software already.
            EcuCall::Activate => {}
            EcuCall::Reset => self.start(),
            EcuCall::Confirm => {
                if self.trial == Trial::OnTrial {
                    self.trial = Trial::Confirmed;
                }
            }
            EcuCall::RollBack => match (self.at_next_start, self.trial) {
                (AtNextStart::New, _) => self.at_next_start = AtNextStart::Nothing,
                (_, Trial::OnTrial | Trial::Confirmed) => self.at_next_start = AtNextStart::Earlier,
                (_, Trial::None) => {}
            },
        }
        EcuOutcome::Done
    }

    /// Loses power during a call, before or after its effect.
    pub(super) fn cut_off(&mut self, call: EcuCall, version: u8, has_effect: bool) {
        if has_effect {
            self.carry_out(call, version);
        } else if call == EcuCall::WriteInactiveBank {
            self.trial = Trial::None;
            self.banks[1 - self.active] = None;
        }
    }

    /// What a restart does, and a power cut too.
    pub(super) fn start(&mut self) {
        let trial = match self.at_next_start {
            AtNextStart::Nothing => return,
            AtNextStart::New => Trial::OnTrial,
            AtNextStart::Earlier => Trial::None,
        };
        self.swap(trial);
    }

    pub(super) fn end_trial(&mut self) {
        if self.trial == Trial::OnTrial {
            self.swap(Trial::None);
        }
    }

    fn swap(&mut self, trial: Trial) {
        self.active = 1 - self.active;
        self.trial = trial;
        self.at_next_start = AtNextStart::Nothing;
    }
}
