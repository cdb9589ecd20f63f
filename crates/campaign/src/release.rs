//! A release: the images that belong together, and the rules that they come with.

use std::collections::{BTreeMap, BTreeSet};

use farrier_protocol::{Sha256, Text};

use crate::rules::{RULES_AT_MOST, ReleaseRules, Rule, install_levels, joined};
use crate::version::VersionScheme;

/// One ECU hardware's file in a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The hardware that the image is for.
    pub hw_part_no: Text,
    /// The supplier whose ECUs it is for; `None` = any.
    pub supplier: Option<Text>,
    /// The calibration region whose vehicles it is for; `None` = any.
    pub region: Option<Text>,
    /// The software version that an ECU with this image reports.
    pub version: Text,
    /// SHA-256 of the image.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// The RXSWINs (UN R156) that installing it changes.
    pub rxswins: Vec<Text>,
}

impl Image {
    /// An image for every supplier and region that changes no RXSWIN.
    pub fn new(hw_part_no: Text, version: Text, sha256: Sha256, size_bytes: u64) -> Self {
        Self { hw_part_no, supplier: None, region: None, version, sha256, size_bytes, rxswins: Vec::new() }
    }

    fn fits(&self, supplier: Option<&Text>, region: Option<&Text>) -> bool {
        (self.supplier.is_none() || self.supplier.as_ref() == supplier)
            && (self.region.is_none() || self.region.as_ref() == region)
    }

    fn is_for(&self) -> (&Text, Option<&Text>, Option<&Text>) {
        (&self.hw_part_no, self.supplier.as_ref(), self.region.as_ref())
    }
}

/// The images that belong together, one for each hardware, supplier and region, and their rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    images: Vec<Image>,
    rules: ReleaseRules,
    install_levels: BTreeMap<Text, u64>,
}

/// Why images and rules do not make a release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRelease {
    /// Nothing in it.
    #[error("expected at least one image in a release, found none; add one")]
    Empty,
    /// Two images for one hardware.
    #[error(
        "expected one image per hardware part number, or several for different suppliers or regions, \
         found two for {hw_part_no} that do not differ in them; remove one of them"
    )]
    HardwareTwice {
        /// The hardware in question.
        hw_part_no: Text,
    },
    /// One image for a supplier, another for a region, and nothing that says which of them is meant for both.
    #[error(
        "expected one best image of {hw_part_no} for supplier {supplier} in region {region}, \
         found one for the supplier and one for the region; add one for both"
    )]
    Ambiguous {
        /// The hardware in question.
        hw_part_no: Text,
        /// The supplier of the one.
        supplier: Text,
        /// The region of the other.
        region: Text,
    },
    /// An image's version that has no place in the declared order.
    #[error(
        "expected {}, found {version} as the version of the image for {hw_part_no}; \
         correct it or declare another scheme",
        .scheme.phrase()
    )]
    ImageVersion {
        /// The hardware of the image.
        hw_part_no: Text,
        /// Its version.
        version: Text,
        /// The scheme.
        scheme: VersionScheme,
    },
    /// A rule's version that has no place in the declared order.
    #[error(
        "expected {}, found {version} in the rule that {}; correct it or declare another scheme",
        .scheme.phrase(), .rule.phrase()
    )]
    RuleVersion {
        /// The rule.
        rule: Rule,
        /// The version.
        version: Text,
        /// The scheme.
        scheme: VersionScheme,
    },
    /// A rule that asks which version is later, and nothing declared that says it.
    #[error(
        "expected a version scheme for the rule that {}, found none; \
         declare how versions are written: semver, dotted or date", .rule.phrase()
    )]
    SchemeMissing {
        /// The rule.
        rule: Rule,
    },
    /// A rule on the update of hardware that the release does not update.
    #[error(
        "expected an image for {hw_part_no} with the rule that {}, found none; \
         add the image or correct the rule", .rule.phrase()
    )]
    RuleWithoutImage {
        /// The rule.
        rule: Rule,
        /// The hardware.
        hw_part_no: Text,
    },
    /// A rule that no vehicle or every vehicle would meet.
    #[error("expected {expected}, found none in the rule that {}; correct the rule or remove it", .rule.phrase())]
    RuleIncomplete {
        /// The rule.
        rule: Rule,
        /// What it lacks.
        expected: &'static str,
    },
    /// Hardware that would have to be installed before itself.
    #[error(
        "expected an order of installation, found the circle {}; remove one of these order rules",
        joined(.circle, " before ")
    )]
    OrderInCircle {
        /// The hardware in the order of the rules; the last is the first again.
        circle: Vec<Text>,
    },
    /// More rules than every VCI can be held against.
    #[error("expected at most {RULES_AT_MOST} rules, found {found}; remove some or make two releases")]
    TooManyRules {
        /// How many there are.
        found: usize,
    },
}

impl Release {
    /// Puts images together that come without rules.
    pub fn new(images: Vec<Image>) -> Result<Self, InvalidRelease> {
        Self::with_rules(images, ReleaseRules::default())
    }

    /// Puts images and rules together, if for each ECU there is one best image at most and each rule can be kept.
    pub fn with_rules(images: Vec<Image>, rules: ReleaseRules) -> Result<Self, InvalidRelease> {
        if images.is_empty() {
            return Err(InvalidRelease::Empty);
        }
        if rules.rules.len() > RULES_AT_MOST {
            return Err(InvalidRelease::TooManyRules { found: rules.rules.len() });
        }
        let install_levels =
            install_levels(&rules.rules).map_err(|circle| InvalidRelease::OrderInCircle { circle })?;
        let release = Self { images, rules, install_levels };
        release.check_images()?;
        release.rules.rules.iter().try_for_each(|rule| release.check_rule(rule))?;
        Ok(release)
    }

    fn check_images(&self) -> Result<(), InvalidRelease> {
        let mut taken = BTreeSet::new();
        for image in &self.images {
            let hw_part_no = image.hw_part_no.clone();
            if !taken.insert(image.is_for()) {
                return Err(InvalidRelease::HardwareTwice { hw_part_no });
            }
            match self.rules.scheme {
                Some(scheme) if scheme.parse(image.version.as_str()).is_none() => {
                    let version = image.version.clone();
                    return Err(InvalidRelease::ImageVersion { hw_part_no, version, scheme });
                }
                Some(_) | None => {}
            }
        }
        for (hw_part_no, supplier, _) in taken.iter().filter(|(_, _, region)| region.is_none()) {
            for (_, _, region) in taken.iter().filter(|(other, of, _)| other == hw_part_no && of.is_none()) {
                let (Some(supplier), Some(region)) = (*supplier, *region) else { continue };
                if !taken.contains(&(*hw_part_no, Some(supplier), Some(region))) {
                    let (hw_part_no, supplier) = ((*hw_part_no).clone(), supplier.clone());
                    return Err(InvalidRelease::Ambiguous { hw_part_no, supplier, region: region.clone() });
                }
            }
        }
        Ok(())
    }

    fn check_rule(&self, rule: &Rule) -> Result<(), InvalidRelease> {
        let named = || rule.clone();
        let scheme = self.rules.scheme;
        if let Some(hw_part_no) = rule.updated_hardware().into_iter().find(|part| !self.has_image_for(part)) {
            return Err(InvalidRelease::RuleWithoutImage { rule: named(), hw_part_no: hw_part_no.clone() });
        }
        match scheme {
            None if rule.orders_versions() => return Err(InvalidRelease::SchemeMissing { rule: named() }),
            None => {}
            Some(scheme) => {
                let misplaced = |version: &&Text| scheme.parse(version.as_str()).is_none();
                if let Some(version) = rule.versions().into_iter().find(misplaced) {
                    let version = version.clone();
                    return Err(InvalidRelease::RuleVersion { rule: named(), version, scheme });
                }
            }
        }
        let lacking = rule.lacks(scheme);
        lacking.map_or(Ok(()), |expected| Err(InvalidRelease::RuleIncomplete { rule: named(), expected }))
    }

    /// The images, in the order in which they were named.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// What belongs to it beside the images.
    pub fn rules(&self) -> &ReleaseRules {
        &self.rules
    }

    /// The RXSWINs that its images change.
    pub fn rxswins(&self) -> BTreeSet<&Text> {
        self.images.iter().flat_map(|image| &image.rxswins).collect()
    }

    /// The image for an ECU of this hardware and supplier in a vehicle of this region: of those that fit the one
    /// that is made for the fewest.
    pub fn image_for(
        &self,
        hw_part_no: &Text,
        supplier: Option<&Text>,
        region: Option<&Text>,
    ) -> Option<&Image> {
        let fitting = |image: &&Image| image.hw_part_no == *hw_part_no && image.fits(supplier, region);
        let specific = |image: &&Image| (image.supplier.is_some(), image.region.is_some());
        self.images.iter().filter(fitting).max_by_key(specific)
    }

    /// Whether it has an image for this hardware, for whatever supplier and region.
    pub(crate) fn has_image_for(&self, hw_part_no: &Text) -> bool {
        self.images.iter().any(|image| image.hw_part_no == *hw_part_no)
    }

    /// How many hardwares' installation comes before this hardware's, at most.
    pub(crate) fn install_level(&self, hw_part_no: &Text) -> u64 {
        self.install_levels.get(hw_part_no).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
