//! What a release would do to each ECU of a vehicle, and every reason against it.

use std::cmp::Ordering;

use farrier_protocol::{EcuEntry, SendVci, Text};

use crate::ineligible_reason::IneligibleReason;
use crate::plan::FoundVersion;
use crate::release::{Image, Release};
use crate::rules::Rule;

/// An ECU, and what the release would do to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outlook<'a> {
    pub(crate) ecu: &'a EcuEntry,
    pub(crate) prospect: Prospect<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Prospect<'a> {
    HardwareUnknown,
    NotOfRelease,
    NoFittingImage,
    VersionUnknown,
    AtRelease,
    Update { image: &'a Image, running: &'a Text },
}

impl<'a> Outlook<'a> {
    pub(crate) fn of(ecu: &'a EcuEntry, vci: &SendVci, release: &'a Release) -> Self {
        let of_hardware = |hw_part_no| {
            if !release.has_image_for(hw_part_no) {
                return Prospect::NotOfRelease;
            }
            let image = release.image_for(hw_part_no, ecu.supplier_code.as_ref(), vci.region.as_ref());
            match (image, &ecu.sw_version) {
                (None, _) => Prospect::NoFittingImage,
                (Some(_), None) => Prospect::VersionUnknown,
                (Some(image), Some(running)) if *running == image.version => Prospect::AtRelease,
                (Some(image), Some(running)) => Prospect::Update { image, running },
            }
        };
        Self { ecu, prospect: ecu.hw_part_no.as_ref().map_or(Prospect::HardwareUnknown, of_hardware) }
    }

    pub(crate) fn update(&self) -> Option<(&'a Image, &'a Text)> {
        match self.prospect {
            Prospect::Update { image, running } => Some((image, running)),
            Prospect::HardwareUnknown
            | Prospect::NotOfRelease
            | Prospect::NoFittingImage
            | Prospect::VersionUnknown
            | Prospect::AtRelease => None,
        }
    }

    fn has(&self, hw_part_no: &Text) -> bool {
        self.ecu.hw_part_no.as_ref() == Some(hw_part_no)
    }

    fn version_afterwards(&self) -> Option<&'a Text> {
        self.update().map(|(image, _)| &image.version).or(self.ecu.sw_version.as_ref())
    }
}

/// Every reason against the release, whatever order the ECUs come in.
pub(crate) fn reasons(
    mut outlooks: Vec<Outlook<'_>>,
    vci: &SendVci,
    release: &Release,
) -> Vec<IneligibleReason> {
    outlooks.sort_by(|one, other| one.ecu.ecu_id.cmp(&other.ecu.ecu_id));
    let mut judge = Judge { release, outlooks: &outlooks, reasons: Vec::new() };
    judge.ecus(vci);
    if outlooks.iter().any(|outlook| outlook.update().is_some()) {
        judge.downgrades();
        for rule in &release.rules().rules {
            judge.rule(rule);
        }
    }
    judge.reasons
}

struct Judge<'a> {
    release: &'a Release,
    outlooks: &'a [Outlook<'a>],
    reasons: Vec<IneligibleReason>,
}

impl<'a> Judge<'a> {
    fn add(&mut self, reason: IneligibleReason) {
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    fn ecus(&mut self, vci: &SendVci) {
        let mut matching = false;
        for Outlook { ecu, prospect } in self.outlooks {
            let ecu_id = ecu.ecu_id.clone();
            matching |= !matches!(prospect, Prospect::HardwareUnknown | Prospect::NotOfRelease);
            match prospect {
                Prospect::HardwareUnknown => self.add(IneligibleReason::HardwareUnknown { ecu_id }),
                Prospect::NoFittingImage => self.add(IneligibleReason::NoFittingImage {
                    ecu_id,
                    supplier: ecu.supplier_code.clone(),
                    region: vci.region.clone(),
                }),
                Prospect::VersionUnknown => self.add(IneligibleReason::VersionUnknown { ecu_id }),
                Prospect::NotOfRelease | Prospect::AtRelease | Prospect::Update { .. } => {}
            }
        }
        if !matching {
            self.add(IneligibleReason::NoMatchingHardware);
        }
    }

    fn downgrades(&mut self) {
        if self.release.rules().allow_downgrade {
            return;
        }
        for (ecu, image, running) in self.updates(None) {
            if self.compare(ecu, running, &image.version) == Some(Ordering::Greater) {
                self.add(IneligibleReason::Downgrade {
                    ecu_id: ecu.ecu_id.clone(),
                    running: running.clone(),
                    offered: image.version.clone(),
                });
            }
        }
    }

    fn rule(&mut self, rule: &Rule) {
        match rule {
            Rule::Needs { hw_part_no, when_updating, at_least } => {
                let concerned = |image: &Image| {
                    when_updating.as_ref().is_none_or(|updating| updating.contains(&image.hw_part_no))
                };
                if self.updates(None).any(|(_, image, _)| concerned(image)) {
                    self.needs(hw_part_no, at_least);
                }
            }
            Rule::Conflicts { hw_part_no, from, to } => {
                self.conflicts(hw_part_no, from.as_ref(), to.as_ref())
            }
            Rule::Together { hw_part_nos } => self.together(hw_part_nos),
            Rule::Order { .. } => {}
            Rule::MinimumBootloader { hw_part_no, version } => self.minimum_bootloader(hw_part_no, version),
            Rule::EarlierVersions { hw_part_no, versions } => self.earlier_versions(hw_part_no, versions),
        }
    }

    fn needs(&mut self, hw_part_no: &Text, at_least: &Text) {
        let mut is_there = false;
        let mut found = Vec::new();
        for outlook in self.with_hardware(hw_part_no) {
            is_there = true;
            let version = outlook.version_afterwards();
            let order = version.map(|version| self.compare(outlook.ecu, version, at_least));
            if matches!(order, None | Some(Some(Ordering::Less))) {
                found.push(FoundVersion { ecu_id: outlook.ecu.ecu_id.clone(), version: version.cloned() });
            }
        }
        if !is_there || !found.is_empty() {
            self.add(IneligibleReason::NeedNotMet {
                hw_part_no: hw_part_no.clone(),
                at_least: at_least.clone(),
                found,
            });
        }
    }

    fn conflicts(&mut self, hw_part_no: &Text, from: Option<&Text>, to: Option<&Text>) {
        for outlook in self.with_hardware(hw_part_no) {
            let ecu_id = outlook.ecu.ecu_id.clone();
            let version = outlook.version_afterwards();
            let Some(in_range) = self.in_range(outlook, from, to) else {
                self.add(IneligibleReason::VersionUnknown { ecu_id });
                continue;
            };
            if in_range {
                self.add(IneligibleReason::Conflict {
                    ecu_id,
                    hw_part_no: hw_part_no.clone(),
                    version: version.cloned(),
                    from: from.cloned(),
                    to: to.cloned(),
                });
            }
        }
    }

    /// `None` where it depends on a version that the ECU does not report.
    fn in_range(&mut self, outlook: &Outlook<'_>, from: Option<&Text>, to: Option<&Text>) -> Option<bool> {
        for (limit, outside) in [(from, Ordering::Less), (to, Ordering::Greater)] {
            let Some(limit) = limit else { continue };
            // What cannot be compared has its own reason by now.
            match self.compare(outlook.ecu, outlook.version_afterwards()?, limit) {
                None => return Some(false),
                Some(order) if order == outside => return Some(false),
                Some(_) => {}
            }
        }
        Some(true)
    }

    /// An ECU that is there and cannot be updated has a reason of its own, which is one against the vehicle.
    fn together(&mut self, hw_part_nos: &[Text]) {
        let missing: Vec<_> =
            hw_part_nos.iter().filter(|part| self.with_hardware(part).next().is_none()).cloned().collect();
        let concerned = hw_part_nos.iter().any(|part| self.updates(Some(part)).next().is_some());
        if concerned && !missing.is_empty() {
            self.add(IneligibleReason::TogetherIncomplete { hw_part_nos: hw_part_nos.to_vec(), missing });
        }
    }

    fn minimum_bootloader(&mut self, hw_part_no: &Text, at_least: &Text) {
        for (ecu, _, _) in self.updates(Some(hw_part_no)) {
            let found = ecu.bootloader_ver.as_ref();
            let order = found.map(|found| self.compare(ecu, found, at_least));
            if matches!(order, None | Some(Some(Ordering::Less))) {
                self.add(IneligibleReason::BootloaderTooOld {
                    ecu_id: ecu.ecu_id.clone(),
                    found: found.cloned(),
                    at_least: at_least.clone(),
                });
            }
        }
    }

    fn earlier_versions(&mut self, hw_part_no: &Text, versions: &[Text]) {
        for (ecu, _, running) in self.updates(Some(hw_part_no)) {
            if !versions.contains(running) {
                self.add(IneligibleReason::EarlierVersionNotAllowed {
                    ecu_id: ecu.ecu_id.clone(),
                    running: running.clone(),
                    allowed: versions.to_vec(),
                });
            }
        }
    }

    fn with_hardware<'h>(&self, hw_part_no: &'h Text) -> impl Iterator<Item = &'a Outlook<'a>> + use<'a, 'h> {
        self.outlooks.iter().filter(move |outlook| outlook.has(hw_part_no))
    }

    /// The ECUs to be updated, of one hardware or of all.
    fn updates<'h>(
        &self,
        hw_part_no: Option<&'h Text>,
    ) -> impl Iterator<Item = (&'a EcuEntry, &'a Image, &'a Text)> + use<'a, 'h> {
        let meant = move |outlook: &&Outlook<'_>| hw_part_no.is_none_or(|hw_part_no| outlook.has(hw_part_no));
        self.outlooks
            .iter()
            .filter(meant)
            .filter_map(|outlook| outlook.update().map(|(image, running)| (outlook.ecu, image, running)))
    }

    /// How a version of an ECU stands to one that the release names; where it has no place in the scheme, that
    /// becomes a reason. Without a scheme nothing is compared: no rule that asks for it is in such a release.
    fn compare(&mut self, ecu: &EcuEntry, found: &Text, named: &Text) -> Option<Ordering> {
        let scheme = self.release.rules().scheme?;
        let places = scheme.parse(found.as_str()).zip(scheme.parse(named.as_str()));
        if places.is_none() {
            let (ecu_id, found) = (ecu.ecu_id.clone(), found.clone());
            self.add(IneligibleReason::VersionNotInScheme { ecu_id, found, scheme });
        }
        places.map(|(found, named)| found.cmp(&named))
    }
}

#[cfg(test)]
mod tests;
