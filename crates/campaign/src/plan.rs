//! What one vehicle needs from a release, decided from its VCI, and what a later VCI says about it.

use std::collections::BTreeSet;

use farrier_protocol::{Condition, EcuEntry, EcuId, PkgId, SendVci, Sha256, Text, VciField};
use serde::{Deserialize, Serialize};

use crate::delta::Deltas;
use crate::eligibility::{self, Outlook};
use crate::ineligible_reason::IneligibleReason;
use crate::release::{Image, Release};

/// The software update packages of one vehicle, one per ECU that needs one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// At least one.
    pub packages: Vec<PlannedPackage>,
}

/// What travels to one ECU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPackage {
    /// Names the package; unique in its plan.
    pub pkg_id: PkgId,
    /// The ECU it is for.
    pub ecu_id: EcuId,
    /// The hardware it is for.
    pub hw_part_no: Text,
    /// What the ECU ran when this was planned.
    pub earlier_version: Text,
    /// What it runs afterwards.
    pub version: Text,
    /// The version that a delta starts from; `None` = full image.
    pub delta_from: Option<Text>,
    /// SHA-256 of the bytes that travel.
    pub sha256: Sha256,
    /// Bytes that travel.
    pub size_bytes: u64,
    /// SHA-256 of the full image.
    pub image_sha256: Sha256,
    /// Bytes of the full image.
    pub image_size_bytes: u64,
    /// Equal numbers in parallel, lower ones first.
    pub install_order: u64,
}

impl Plan {
    /// Number of distinct ECUs.
    pub fn ecu_count(&self) -> usize {
        self.packages.iter().map(|package| &package.ecu_id).collect::<BTreeSet<_>>().len()
    }

    /// Bytes of all packages.
    pub fn size_bytes(&self) -> u64 {
        self.packages.iter().fold(0, |sum, package| sum.saturating_add(package.size_bytes))
    }

    /// SHA-256 of each delta among these packages.
    pub(crate) fn deltas(&self) -> Vec<Sha256> {
        let deltas = self.packages.iter().filter(|package| package.delta_from.is_some());
        deltas.map(|package| package.sha256).collect()
    }

    /// Whether a VCI shows what this was planned from.
    pub(crate) fn starts_from(&self, vci: &SendVci) -> bool {
        self.packages.iter().all(|package| running(package, vci) == Some(&package.earlier_version))
    }

    /// Turns the deltas among these packages into full images; all deltas where none is named.
    /// Says whether there was one.
    pub(crate) fn replace_deltas(&mut self, named: Option<&[PkgId]>) -> bool {
        let mut replaced = false;
        for package in &mut self.packages {
            let meant = named.is_none_or(|named| named.contains(&package.pkg_id));
            if meant && package.delta_from.take().is_some() {
                package.sha256 = package.image_sha256;
                package.size_bytes = package.image_size_bytes;
                replaced = true;
            }
        }
        replaced
    }
}

/// What a VCI says about a vehicle and a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evaluation {
    /// These packages bring it to the release.
    Eligible(Plan),
    /// Every ECU of the release's hardware runs the release already.
    UpToDate,
    /// It cannot get the release.
    Ineligible(Vec<IneligibleReason>),
}

/// Joins names for people.
pub(crate) fn listed(names: &[EcuId]) -> String {
    names.iter().map(EcuId::as_str).collect::<Vec<_>>().join(", ")
}

/// The ECU fields that the server asks for: all of them, so that one VCI serves every purpose.
pub const VCI_FIELDS: [VciField; 10] = [
    VciField::EcuId,
    VciField::SupplierCode,
    VciField::HwPartNo,
    VciField::SwPartNo,
    VciField::SwVersion,
    VciField::BootloaderVer,
    VciField::CalibrationId,
    VciField::MacAddress,
    VciField::IpAddress,
    VciField::CanId,
];

/// The conditions that the server asks a vehicle to report before a download.
pub const READINESS_CONDITIONS: [Condition; 9] = [
    Condition::Battery12V,
    Condition::ChargingStatus,
    Condition::TempCcu,
    Condition::CpuUsage,
    Condition::MemoryAvailable,
    Condition::StorageAvailable,
    Condition::Bandwidth,
    Condition::DataPlanStatus,
    Condition::Speed,
];

/// Decides what a vehicle needs from a release: each ECU with hardware of the release that runs another version,
/// as a delta where one from that version is clearly smaller; or every reason why it cannot get the release.
pub fn evaluate(vci: &SendVci, release: &Release, deltas: Deltas<'_>) -> Evaluation {
    let outlooks: Vec<_> = vci.ecu_inventory.iter().map(|ecu| Outlook::of(ecu, vci, release)).collect();
    let updates: Vec<_> = outlooks
        .iter()
        .filter_map(|outlook| outlook.update().map(|(image, running)| (outlook.ecu, image, running)))
        .collect();
    let reasons = eligibility::reasons(outlooks, vci, release);
    match (reasons.is_empty(), updates.is_empty()) {
        (false, _) => Evaluation::Ineligible(reasons),
        (true, true) => Evaluation::UpToDate,
        (true, false) => Evaluation::Eligible(plan(&updates, release, deltas)),
    }
}

fn plan(outdated: &[(&EcuEntry, &Image, &Text)], release: &Release, deltas: Deltas<'_>) -> Plan {
    let assigned = |ecu: &EcuEntry| ecu.functional_group.index.filter(|index| *index > 0).map(u64::from);
    let last = outdated.iter().filter_map(|(ecu, _, _)| assigned(ecu)).max().unwrap_or(0).saturating_add(1);
    // A whole round of indices for each level, so that within it every controller works its ECUs in sequence.
    let before = |image: &Image| release.install_level(&image.hw_part_no).saturating_mul(last);
    let mut names = BTreeSet::new();
    let packages = outdated
        .iter()
        .map(|(ecu, image, earlier)| (ecu, image, earlier, deltas.to(image, earlier)))
        .map(|(ecu, image, earlier, delta)| PlannedPackage {
            pkg_id: package_name(&ecu.ecu_id, &image.version, &mut names),
            ecu_id: ecu.ecu_id.clone(),
            hw_part_no: image.hw_part_no.clone(),
            earlier_version: (*earlier).clone(),
            version: image.version.clone(),
            delta_from: delta.map(|delta| delta.from_version.clone()),
            sha256: delta.map_or(image.sha256, |delta| delta.sha256),
            size_bytes: delta.map_or(image.size_bytes, |delta| delta.size_bytes),
            image_sha256: image.sha256,
            image_size_bytes: image.size_bytes,
            install_order: before(image).saturating_add(assigned(ecu).unwrap_or(last)),
        })
        .collect();
    Plan { packages }
}

/// `PKG-{ecu_id}-{version}` where that is an identifier and still free in this plan, else a digest of both.
fn package_name(ecu_id: &EcuId, version: &Text, taken: &mut BTreeSet<PkgId>) -> PkgId {
    let spoken: Option<PkgId> = format!("PKG-{ecu_id}-{version}").parse().ok();
    let name = spoken.filter(|name| !taken.contains(name)).unwrap_or_else(|| {
        // A line feed stands in neither part, so that different pairs never give one digest.
        digest_name(Sha256::of(format!("{ecu_id}\n{version}").as_bytes()))
    });
    taken.insert(name.clone());
    name
}

/// A digest's hex digits are an identifier by their form: 64 letters and digits.
fn digest_name(digest: Sha256) -> PkgId {
    #[allow(clippy::expect_used, reason = "64 hex digits satisfy the rule of identifiers; a test holds it")]
    digest.to_string().parse().expect("64 hex digits are an identifier")
}

/// The version that an ECU of a plan was found to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundVersion {
    /// The ECU.
    pub ecu_id: EcuId,
    /// What it runs; `None` where the inventory does not say.
    pub version: Option<Text>,
}

impl FoundVersion {
    /// The ECU and its version, for people.
    pub fn phrase(&self) -> String {
        format!("{} {}", self.ecu_id, self.version.as_ref().map_or("unknown", AsRef::as_ref))
    }
}

/// What a VCI says about the ECUs of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All run the new version.
    AllNew,
    /// All run their earlier versions.
    AllEarlier,
    /// Neither.
    Mixed(Vec<FoundVersion>),
}

/// Compares what the vehicle runs with what was planned.
pub fn verdict(plan: &Plan, vci: &SendVci) -> Verdict {
    let runs = |package: &PlannedPackage| running(package, vci);
    if plan.packages.iter().all(|package| runs(package) == Some(&package.version)) {
        Verdict::AllNew
    } else if plan.starts_from(vci) {
        Verdict::AllEarlier
    } else {
        let found = |package: &PlannedPackage| FoundVersion {
            ecu_id: package.ecu_id.clone(),
            version: runs(package).cloned(),
        };
        Verdict::Mixed(plan.packages.iter().map(found).collect())
    }
}

/// The version that a VCI shows for the ECU of a package.
pub(crate) fn running<'v>(package: &PlannedPackage, vci: &'v SendVci) -> Option<&'v Text> {
    let ecu = vci.ecu_inventory.iter().find(|ecu| ecu.ecu_id == package.ecu_id);
    ecu.and_then(|ecu| ecu.sw_version.as_ref())
}

#[cfg(test)]
mod tests;
