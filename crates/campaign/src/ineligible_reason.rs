//! Why a vehicle cannot get a release: for the store, for counting and for people.

use farrier_protocol::{EcuId, MessageType, Text};
use serde::{Deserialize, Serialize};

use crate::plan::{FoundVersion, listed};
use crate::rules::{joined, range};
use crate::version::VersionScheme;

/// Why a vehicle cannot get a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum IneligibleReason {
    /// None of its ECUs has hardware of the release.
    NoMatchingHardware,
    /// An ECU does not say what hardware it is.
    HardwareUnknown {
        /// The ECU.
        ecu_id: EcuId,
    },
    /// The version of an ECU matters and the ECU does not say what it runs.
    VersionUnknown {
        /// The ECU.
        ecu_id: EcuId,
    },
    /// The gateway could not collect a whole inventory, however often it was asked.
    InventoryIncomplete {
        /// The ECUs that did not answer.
        failed_ecus: Vec<EcuId>,
    },
    /// The gateway does not know a command.
    CommandUnsupported {
        /// The `type` of the command.
        command: MessageType,
    },
    /// The gateway rejects packages of the plan as deltas although they are none.
    PlanRejected,
    /// The release has images for an ECU's hardware, each for another supplier or region.
    NoFittingImage {
        /// The ECU.
        ecu_id: EcuId,
        /// Its supplier, where it says so.
        supplier: Option<Text>,
        /// The vehicle's region, where it says so.
        region: Option<Text>,
    },
    /// An ECU runs a later version than the release's.
    Downgrade {
        /// The ECU.
        ecu_id: EcuId,
        /// What it runs.
        running: Text,
        /// What the release would bring.
        offered: Text,
    },
    /// A version that must be compared is not written by the release's scheme.
    VersionNotInScheme {
        /// The ECU that reports it.
        ecu_id: EcuId,
        /// The version.
        found: Text,
        /// The scheme.
        scheme: VersionScheme,
    },
    /// `Rule::Needs`: hardware is missing or would be too old.
    NeedNotMet {
        /// The hardware.
        hw_part_no: Text,
        /// The earliest version that will do.
        at_least: Text,
        /// The ECUs that would be too old; none where the vehicle has no such hardware.
        found: Vec<FoundVersion>,
    },
    /// `Rule::Conflicts`: an ECU would run what the release does not go with.
    Conflict {
        /// The ECU.
        ecu_id: EcuId,
        /// Its hardware.
        hw_part_no: Text,
        /// What it would run, where it is known.
        version: Option<Text>,
        /// The earliest version in conflict.
        from: Option<Text>,
        /// The last version in conflict.
        to: Option<Text>,
    },
    /// `Rule::MinimumBootloader`: an ECU's bootloader is too old or not reported.
    BootloaderTooOld {
        /// The ECU.
        ecu_id: EcuId,
        /// The version of its bootloader, where it says so.
        found: Option<Text>,
        /// The earliest version that will do.
        at_least: Text,
    },
    /// `Rule::EarlierVersions`: an ECU cannot be updated from what it runs.
    EarlierVersionNotAllowed {
        /// The ECU.
        ecu_id: EcuId,
        /// What it runs.
        running: Text,
        /// From what it could be updated.
        allowed: Vec<Text>,
    },
    /// It failed with this release so often that it is set aside.
    SetAside {
        /// How often.
        failures: u32,
    },
    /// `Rule::Together`: hardware that is updated together is not all there.
    TogetherIncomplete {
        /// What is updated together.
        hw_part_nos: Vec<Text>,
        /// What the vehicle does not have.
        missing: Vec<Text>,
    },
}

impl IneligibleReason {
    /// The kind of reason, for counting.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoMatchingHardware => "NO_MATCHING_HARDWARE",
            Self::HardwareUnknown { .. } => "HARDWARE_UNKNOWN",
            Self::VersionUnknown { .. } => "VERSION_UNKNOWN",
            Self::InventoryIncomplete { .. } => "INVENTORY_INCOMPLETE",
            Self::CommandUnsupported { .. } => "COMMAND_UNSUPPORTED",
            Self::PlanRejected => "PLAN_REJECTED",
            Self::NoFittingImage { .. } => "NO_FITTING_IMAGE",
            Self::Downgrade { .. } => "DOWNGRADE",
            Self::VersionNotInScheme { .. } => "VERSION_NOT_IN_SCHEME",
            Self::NeedNotMet { .. } => "NEED_NOT_MET",
            Self::Conflict { .. } => "CONFLICT",
            Self::BootloaderTooOld { .. } => "BOOTLOADER_TOO_OLD",
            Self::EarlierVersionNotAllowed { .. } => "EARLIER_VERSION_NOT_ALLOWED",
            Self::SetAside { .. } => "SET_ASIDE",
            Self::TogetherIncomplete { .. } => "TOGETHER_INCOMPLETE",
        }
    }

    /// The reason as part of a sentence for people.
    pub fn phrase(&self) -> String {
        match self {
            Self::NoMatchingHardware => "no ECU has hardware of this release".to_owned(),
            Self::HardwareUnknown { ecu_id } => format!("ECU {ecu_id} does not report its hw_part_no"),
            Self::VersionUnknown { ecu_id } => format!("ECU {ecu_id} does not report its sw_version"),
            Self::InventoryIncomplete { failed_ecus } if failed_ecus.is_empty() => {
                "the gateway could not collect its inventory".to_owned()
            }
            Self::InventoryIncomplete { failed_ecus } => {
                format!("the gateway could not collect the inventory of {}", listed(failed_ecus))
            }
            Self::CommandUnsupported { command } => format!("the gateway does not know {}", command.name()),
            Self::PlanRejected => "the gateway rejects the planned packages".to_owned(),
            Self::NoFittingImage { ecu_id, supplier, region } => format!(
                "no image for the hardware of ECU {ecu_id} is for supplier {} in region {}",
                or_unknown(supplier.as_ref()),
                or_unknown(region.as_ref())
            ),
            Self::Downgrade { ecu_id, running, offered } => {
                format!("ECU {ecu_id} runs {running}, which is later than {offered} of the release")
            }
            Self::VersionNotInScheme { ecu_id, found, scheme } => {
                format!("ECU {ecu_id} reports {found}, which is not {}", scheme.phrase())
            }
            Self::NeedNotMet { hw_part_no, at_least, found } if found.is_empty() => {
                format!("the release needs {hw_part_no} at {at_least} or later, and no ECU has this hardware")
            }
            Self::NeedNotMet { hw_part_no, at_least, found } => {
                let found: Vec<_> = found.iter().map(FoundVersion::phrase).collect();
                let found = found.join(", ");
                format!("the release needs {hw_part_no} at {at_least} or later, and it would be {found}")
            }
            Self::Conflict { ecu_id, hw_part_no, version, from, to } => format!(
                "the release does not go with {hw_part_no} at {}, and ECU {ecu_id} would run {}",
                range(from.as_ref(), to.as_ref()),
                or_unknown(version.as_ref())
            ),
            Self::BootloaderTooOld { ecu_id, found: None, at_least } => {
                format!("ECU {ecu_id} needs its bootloader at {at_least} or later and does not report it")
            }
            Self::BootloaderTooOld { ecu_id, found: Some(found), at_least } => {
                format!("ECU {ecu_id} needs its bootloader at {at_least} or later and has {found}")
            }
            Self::EarlierVersionNotAllowed { ecu_id, running, allowed } => {
                let allowed = joined(allowed, " or ");
                format!("ECU {ecu_id} runs {running} and can be updated only from {allowed}")
            }
            Self::SetAside { failures } => format!(
                "it failed {failures} {} with this release and is set aside until an operator takes it back",
                if *failures == 1 { "time" } else { "times" }
            ),
            Self::TogetherIncomplete { hw_part_nos, missing } => format!(
                "{} are updated together, and no ECU has {}",
                joined(hw_part_nos, " and "),
                joined(missing, " or ")
            ),
        }
    }
}

fn or_unknown(text: Option<&Text>) -> &str {
    text.map_or("unknown", Text::as_str)
}
