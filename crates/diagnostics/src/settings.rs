//! What differs from maker to maker: identifiers, routine numbers, timers, the security algorithm.
//! The defaults are those of the vehicle notes in `docs/vehicle.md`.

use std::time::Duration;

use serde::Deserialize;

/// Data identifiers and routine numbers.
///
/// Names from ISO 14229-1 Annex C. By convention of this project: `active_bank` answers one byte (0 or 1),
/// `other_bank_version` the version of the software in the bank that does not run (a single zero byte if
/// that bank is not bootable), `trial_state` one byte (0 none, 1 on trial, 2 confirmed and the other bank still
/// usable), and the fingerprint that is written before a download is the version of the software that
/// follows, which the ECU reports as `sw_version` once it runs that bank (an image carries no version).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identifiers {
    /// systemSupplierIdentifier.
    pub supplier_code: u16,
    /// vehicleManufacturerECUHardwareNumber.
    pub hw_part_no: u16,
    /// vehicleManufacturerECUSoftwareNumber.
    pub sw_part_no: u16,
    /// vehicleManufacturerECUSoftwareVersionNumber.
    pub sw_version: u16,
    /// bootSoftwareIdentification; its first byte is the number of modules.
    pub bootloader_ver: u16,
    /// applicationDataIdentification; its first byte is the number of modules.
    pub calibration_id: u16,
    /// applicationSoftwareFingerprint: carries the version of the software to be written.
    pub fingerprint: u16,
    /// Which bank runs.
    pub active_bank: u16,
    /// Version of the software in the other bank.
    pub other_bank_version: u16,
    /// Whether the running software is on trial.
    pub trial_state: u16,
    /// eraseMemory, of the inactive bank.
    pub erase_routine: u16,
    /// checkMemory; its option record is the SHA-256 of the image.
    pub check_memory_routine: u16,
    /// checkProgrammingDependencies.
    pub check_dependencies_routine: u16,
    /// Checks whether the ECU can be programmed now.
    pub check_preconditions_routine: u16,
    /// Marks the inactive bank for the next boot.
    pub activate_routine: u16,
    /// Ends the trial of the running bank.
    pub confirm_routine: u16,
    /// Marks the earlier bank for the next boot.
    pub roll_back_routine: u16,
    /// Security level: the odd sub-function that asks for the seed.
    pub security_level: u8,
    /// Where an image is written, as the ECU counts addresses within its inactive bank.
    pub memory_address: u32,
}

impl Default for Identifiers {
    fn default() -> Self {
        Self {
            supplier_code: 0xF18A,
            hw_part_no: 0xF191,
            sw_part_no: 0xF188,
            sw_version: 0xF189,
            bootloader_ver: 0xF180,
            calibration_id: 0xF182,
            fingerprint: 0xF184,
            active_bank: 0xF1A0,
            other_bank_version: 0xF1A1,
            trial_state: 0xF1A2,
            erase_routine: 0xFF00,
            check_memory_routine: 0x0202,
            check_dependencies_routine: 0xFF01,
            check_preconditions_routine: 0x0203,
            activate_routine: 0x0301,
            confirm_routine: 0x0302,
            roll_back_routine: 0x0303,
            security_level: 0x11,
            memory_address: 0,
        }
    }
}

/// Timers and bounds of a tester.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timers {
    /// P2: the ECU's time to answer, until its session says otherwise.
    pub p2: Duration,
    /// P2*: its time after each "response pending", until its session says otherwise.
    pub p2_star: Duration,
    /// Added to P2 and P2* for the way there and back (A_DoIP_Diagnostic_Message).
    pub network_allowance: Duration,
    /// How long "response pending" may go on for one request.
    pub pending_cap: Duration,
    /// The same for an erase.
    pub erase_pending_cap: Duration,
    /// First wait after "busy, repeat request"; doubles.
    pub busy_wait: Duration,
    /// How often a busy ECU is asked again.
    pub busy_repeats: u32,
    /// How long conditions that are not correct are waited for.
    pub conditions_wait: Duration,
    /// How often conditions that are not correct are asked again.
    pub conditions_poll: Duration,
    /// Wait before the one further try after a security refusal.
    pub security_delay: Duration,
    /// How often a request without any answer is repeated.
    pub silence_repeats: u32,
    /// How often one sequence starts again, from its session or its download.
    pub restarts: u32,
    /// Wait before a sequence starts again after its connection was lost.
    pub reconnect_wait: Duration,
    /// The longest block this tester sends, in bytes, service byte and counter included.
    pub max_block_length: u16,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            p2: Duration::from_millis(50),
            p2_star: Duration::from_secs(5),
            network_allowance: Duration::from_secs(2),
            pending_cap: Duration::from_secs(30),
            erase_pending_cap: Duration::from_secs(120),
            busy_wait: Duration::from_millis(100),
            busy_repeats: 10,
            conditions_wait: Duration::from_secs(30),
            conditions_poll: Duration::from_secs(1),
            security_delay: Duration::from_secs(10),
            silence_repeats: 2,
            restarts: 3,
            reconnect_wait: Duration::from_millis(500),
            max_block_length: 0xFFFF,
        }
    }
}

/// How a security access key follows from its seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum SecurityAlgorithm {
    /// Each byte XOR 0xA5: what the simulated ECUs use, no protection whatever.
    #[serde(rename = "insecure-xor-a5-for-simulators-only")]
    InsecureXorA5ForSimulatorsOnly,
}

impl SecurityAlgorithm {
    /// The key for this seed.
    pub fn key(self, seed: &[u8]) -> Vec<u8> {
        match self {
            Self::InsecureXorA5ForSimulatorsOnly => seed.iter().map(|byte| byte ^ 0xA5).collect(),
        }
    }
}

/// Everything a sequence needs to know about the ECU and the tester.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Identifiers and routine numbers.
    pub identifiers: Identifiers,
    /// Timers and bounds.
    pub timers: Timers,
    /// Security access.
    pub security: SecurityAlgorithm,
}
