//! The two banks of an ECU and which of them boots next: what survives a restart.
//!
//! | phase | erase | activate | confirm | roll back | boot |
//! |---|---|---|---|---|---|
//! | idle | idle | refused | refused | no effect | idle |
//! | written | idle | activating | refused | no effect | written |
//! | activating | idle | activating | refused | written | on trial, from the other bank |
//! | on trial | refused | no effect | confirmed | rolling back | on trial; idle in the earlier bank after too many boots |
//! | confirmed | idle | no effect | confirmed | rolling back | confirmed |
//! | rolling back | refused | refused | refused | rolling back | idle, from the earlier bank |
//!
//! A bank that is erased, half written or was rolled back is never bootable. Boots are counted on trial only.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use farrier_diagnostics::uds::NegativeResponseCode;
use serde::{Deserialize, Serialize};

const STATE_FILE: &str = "state.json";

/// One bank.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bank {
    /// Whether it can be booted.
    pub valid: bool,
    /// Version of the software in it; empty if it cannot be booted.
    pub version: String,
}

/// Where an ECU stands between two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// No update under way.
    Idle,
    /// The other bank is written and verified.
    Written,
    /// The other bank boots next.
    Activating,
    /// Runs software that nobody has confirmed.
    OnTrial {
        /// How often it has booted.
        boots: u32,
    },
    /// Confirmed; the other bank still holds the earlier software.
    Confirmed,
    /// The earlier bank boots next.
    RollingBack,
}

/// Both banks, as the state file keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Banks {
    second_runs: bool,
    phase: Phase,
    first: Bank,
    second: Bank,
}

/// State that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder or a file in it.
    #[error("expected to read and write {path}; make the folder writable")]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A state file that this program did not write.
    #[error(
        "expected the state of a simulated ECU in {path}; delete the file to start from the factory state"
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

impl Banks {
    /// As it leaves the factory: one bank with this version, the other empty.
    fn factory(version: &str) -> Self {
        Self {
            second_runs: false,
            phase: Phase::Idle,
            first: Bank { valid: true, version: version.to_owned() },
            second: Bank::default(),
        }
    }

    /// Reads the state in `folder`, which is made if it is not there.
    pub(super) fn load_or_new(folder: &Path, factory_version: &str) -> Result<Self, StateError> {
        fs::create_dir_all(folder).map_err(|source| StateError::Io { path: folder.to_owned(), source })?;
        let path = folder.join(STATE_FILE);
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| StateError::Content { path, source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::factory(factory_version)),
            Err(source) => Err(StateError::Io { path, source }),
        }
    }

    /// Writes the state, durably: the file is replaced whole, so that neither a killed simulator nor a power cut
    /// of its machine leaves half of it or brings an earlier one back.
    pub(super) fn save(&self, folder: &Path) -> Result<(), StateError> {
        let path = folder.join(STATE_FILE);
        let json = serde_json::to_vec_pretty(self)
            .map_err(|source| StateError::Content { path: path.clone(), source })?;
        let temporary = folder.join("state.json.new");
        write_synced(&temporary, &json)
            .and_then(|()| fs::rename(&temporary, &path))
            // The new name, and that of the bank's file, are in the folder.
            .and_then(|()| fs::File::open(folder)?.sync_all())
            .map_err(|source| StateError::Io { path, source })
    }

    /// The number of the bank that runs, 0 or 1.
    pub fn active(&self) -> u8 {
        u8::from(self.second_runs)
    }

    /// The bank that runs.
    pub fn running(&self) -> &Bank {
        if self.second_runs { &self.second } else { &self.first }
    }

    /// The bank that does not run.
    pub fn other(&self) -> &Bank {
        if self.second_runs { &self.first } else { &self.second }
    }

    /// Where the ECU stands between two versions.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    fn other_mut(&mut self) -> &mut Bank {
        if self.second_runs { &mut self.first } else { &mut self.second }
    }

    /// The file of the bank that does not run.
    pub(super) fn other_image(&self, folder: &Path) -> PathBuf {
        folder.join(if self.second_runs { "bank0.bin" } else { "bank1.bin" })
    }

    pub(super) fn is_on_trial(&self) -> bool {
        matches!(self.phase, Phase::OnTrial { .. })
    }

    /// The value of the trial state identifier.
    pub(super) fn trial_state(&self) -> u8 {
        match self.phase {
            Phase::Idle | Phase::Written | Phase::Activating => 0,
            Phase::OnTrial { .. } => 1,
            Phase::Confirmed => 2,
            // The software that runs until the reset is still what it was.
            Phase::RollingBack => 1,
        }
    }

    /// Makes the other bank unbootable; it can be written then.
    pub(super) fn erase(&mut self) -> Result<(), NegativeResponseCode> {
        match self.phase {
            // The other bank is the way back: it may not go.
            Phase::OnTrial { .. } | Phase::RollingBack => Err(NegativeResponseCode::ConditionsNotCorrect),
            Phase::Idle | Phase::Written | Phase::Activating | Phase::Confirmed => {
                self.phase = Phase::Idle;
                *self.other_mut() = Bank::default();
                Ok(())
            }
        }
    }

    /// The other bank holds this version, whole and verified.
    pub(super) fn written(&mut self, version: String) {
        *self.other_mut() = Bank { valid: true, version };
        self.phase = Phase::Written;
    }

    pub(super) fn activate(&mut self) -> Result<(), NegativeResponseCode> {
        match self.phase {
            Phase::Written | Phase::Activating => self.phase = Phase::Activating,
            Phase::OnTrial { .. } | Phase::Confirmed => {}
            Phase::Idle | Phase::RollingBack => return Err(NegativeResponseCode::RequestSequenceError),
        }
        Ok(())
    }

    pub(super) fn confirm(&mut self) -> Result<(), NegativeResponseCode> {
        match self.phase {
            Phase::OnTrial { .. } | Phase::Confirmed => self.phase = Phase::Confirmed,
            Phase::Idle | Phase::Written | Phase::Activating | Phase::RollingBack => {
                return Err(NegativeResponseCode::RequestSequenceError);
            }
        }
        Ok(())
    }

    pub(super) fn roll_back(&mut self) {
        match self.phase {
            Phase::Activating => self.phase = Phase::Written,
            Phase::OnTrial { .. } | Phase::Confirmed => self.phase = Phase::RollingBack,
            Phase::Idle | Phase::Written | Phase::RollingBack => {}
        }
    }

    /// What the bootloader does at every start.
    pub(super) fn boot(&mut self, trial_boots: u32, refuses_new_bank: bool) {
        match self.phase {
            Phase::Activating if refuses_new_bank || !self.other().valid => {
                *self.other_mut() = Bank::default();
                self.phase = Phase::Idle;
            }
            Phase::Activating => {
                self.second_runs = !self.second_runs;
                self.phase = Phase::OnTrial { boots: 1 };
            }
            Phase::OnTrial { boots } if boots >= trial_boots => self.switch_back(),
            Phase::OnTrial { boots } => self.phase = Phase::OnTrial { boots: boots + 1 },
            Phase::RollingBack => self.switch_back(),
            Phase::Idle | Phase::Written | Phase::Confirmed => {}
        }
    }

    /// Nobody confirmed: the earlier bank boots next.
    pub(super) fn revert(&mut self) {
        self.phase = Phase::RollingBack;
    }

    fn switch_back(&mut self) {
        self.second_runs = !self.second_runs;
        *self.other_mut() = Bank::default();
        self.phase = Phase::Idle;
    }
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 6] = [
        Phase::Idle,
        Phase::Written,
        Phase::Activating,
        Phase::OnTrial { boots: 1 },
        Phase::Confirmed,
        Phase::RollingBack,
    ];

    /// Version 2 in the second bank, version 1 in the first; the second runs where the phase says so.
    fn in_phase(phase: Phase) -> Banks {
        let second_runs = matches!(phase, Phase::OnTrial { .. } | Phase::Confirmed | Phase::RollingBack);
        let bank = |version: &str| Bank { valid: true, version: version.into() };
        Banks { second_runs, phase, first: bank("1"), second: bank("2") }
    }

    /// The phase that follows in each row of the table; nothing where the call is refused.
    fn row(call: impl Fn(&mut Banks) -> Result<(), NegativeResponseCode>) -> [Option<Phase>; 6] {
        PHASES.map(|phase| {
            let mut banks = in_phase(phase);
            call(&mut banks).ok().map(|()| banks.phase())
        })
    }

    #[test]
    fn every_call_leads_where_the_table_says() {
        let [idle, written, activating, trial, confirmed, rolling_back] = PHASES.map(Some);
        assert_eq!(row(Banks::erase), [idle, idle, idle, None, idle, None]);
        assert_eq!(row(Banks::activate), [None, activating, activating, trial, confirmed, None]);
        assert_eq!(row(Banks::confirm), [None, None, None, confirmed, confirmed, None]);
        let roll_back = row(|banks| {
            banks.roll_back();
            Ok(())
        });
        assert_eq!(roll_back, [idle, written, written, rolling_back, rolling_back, rolling_back]);
        let boot = row(|banks| {
            banks.boot(10, false);
            Ok(())
        });
        assert_eq!(boot, [idle, written, trial, Some(Phase::OnTrial { boots: 2 }), confirmed, idle]);
    }

    #[test]
    fn an_activated_bank_runs_after_the_boot_and_the_earlier_one_stays() {
        let mut banks = in_phase(Phase::Activating);
        banks.boot(10, false);
        assert_eq!((banks.active(), banks.running().version.as_str()), (1, "2"));
        assert!(banks.other().valid);
    }

    #[test]
    fn too_many_boots_on_trial_lead_back_and_the_bad_bank_cannot_boot_again() {
        let mut banks = in_phase(Phase::Activating);
        for _ in 0..4 {
            banks.boot(3, false);
        }
        assert_eq!((banks.running().version.as_str(), banks.phase()), ("1", Phase::Idle));
        assert_eq!(*banks.other(), Bank::default());
    }

    #[test]
    fn boots_outside_a_trial_are_not_counted() {
        for phase in [Phase::Idle, Phase::Written, Phase::Confirmed] {
            let mut banks = in_phase(phase);
            for _ in 0..100 {
                banks.boot(3, false);
            }
            assert_eq!(banks, in_phase(phase));
        }
    }

    #[test]
    fn an_erased_bank_is_never_booted() {
        let mut banks = in_phase(Phase::Activating);
        banks.erase().unwrap();
        banks.boot(10, false);
        assert_eq!(banks.running().version, "1");
        assert_eq!(banks.activate(), Err(NegativeResponseCode::RequestSequenceError));
    }

    #[test]
    fn a_state_file_that_is_damaged_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(STATE_FILE), "{").unwrap();
        let error = Banks::load_or_new(folder.path(), "1").unwrap_err();
        assert!(error.to_string().contains(STATE_FILE), "{error}");
    }

    #[test]
    fn state_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        for phase in PHASES {
            in_phase(phase).save(folder.path()).unwrap();
            assert_eq!(Banks::load_or_new(folder.path(), "9").unwrap(), in_phase(phase));
        }
    }
}
