//! What a release demands of the vehicles that get it, across their ECUs.
//! Whether a rule can be kept at all is found when the release is made; whether a vehicle keeps it, by `evaluate`.

use std::collections::{BTreeMap, BTreeSet};

use farrier_protocol::{LongText, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::version::VersionScheme;

/// How many rules a release may have: every VCI is held against each.
pub const RULES_AT_MOST: usize = 256;

/// What belongs to a release beside its images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReleaseRules {
    /// How its versions are written; without one, versions are only the same or not.
    pub scheme: Option<VersionScheme>,
    /// Whether an ECU that runs a later version gets the earlier one of the release; asked with a scheme only.
    pub allow_downgrade: bool,
    /// The release's place in the maker's own count.
    pub release_counter: Option<u64>,
    /// For people.
    pub notes: Option<LongText>,
    /// All of them must be met.
    #[schemars(length(max = RULES_AT_MOST))]
    pub rules: Vec<Rule>,
}

/// A demand across the ECUs of a vehicle; it matters where the vehicle would be updated, and not otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "rule", deny_unknown_fields)]
pub enum Rule {
    /// The vehicle has this hardware, and after the update all of it runs this version or a later one.
    Needs {
        /// What is needed.
        hw_part_no: Text,
        /// The hardware whose update needs it; any where not given.
        #[serde(default)]
        when_updating: Option<Vec<Text>>,
        /// The earliest version that will do.
        at_least: Text,
    },
    /// After the update no ECU of this hardware runs one of these versions.
    Conflicts {
        /// What the release does not go with.
        hw_part_no: Text,
        /// The earliest such version; no limit where not given.
        #[serde(default)]
        from: Option<Text>,
        /// The last such version, itself included; no limit where not given.
        #[serde(default)]
        to: Option<Text>,
    },
    /// Hardware of which none is updated in a vehicle that has not all of it.
    Together {
        /// At least two.
        hw_part_nos: Vec<Text>,
    },
    /// ECUs of one hardware are installed before those of another.
    Order {
        /// The hardware that comes first.
        first: Text,
        /// The hardware that comes later.
        then: Text,
    },
    /// An ECU of this hardware is updated only if its bootloader has this version or a later one.
    MinimumBootloader {
        /// The hardware.
        hw_part_no: Text,
        /// The earliest version that will do.
        version: Text,
    },
    /// An ECU of this hardware is updated only from one of these versions.
    EarlierVersions {
        /// The hardware.
        hw_part_no: Text,
        /// At least one.
        versions: Vec<Text>,
    },
}

impl Rule {
    /// The rule as part of a sentence for people.
    pub fn phrase(&self) -> String {
        match self {
            Self::Needs { hw_part_no, when_updating: None, at_least } => {
                format!("any update needs {hw_part_no} at {at_least} or later")
            }
            Self::Needs { hw_part_no, when_updating: Some(updating), at_least } => {
                format!("an update of {} needs {hw_part_no} at {at_least} or later", joined(updating, " or "))
            }
            Self::Conflicts { hw_part_no, from, to } => {
                format!("no {hw_part_no} may run {}", range(from.as_ref(), to.as_ref()))
            }
            Self::Together { hw_part_nos } => {
                format!("{} are updated together", joined(hw_part_nos, " and "))
            }
            Self::Order { first, then } => format!("{first} is installed before {then}"),
            Self::MinimumBootloader { hw_part_no, version } => {
                format!("an update of {hw_part_no} needs its bootloader at {version} or later")
            }
            Self::EarlierVersions { hw_part_no, versions } => {
                format!("{hw_part_no} is updated only from {}", joined(versions, " or "))
            }
        }
    }

    /// The hardware that it speaks of as updated: without an image for it, the rule would say nothing.
    pub(crate) fn updated_hardware(&self) -> Vec<&Text> {
        match self {
            Self::Needs { when_updating, .. } => when_updating.iter().flatten().collect(),
            Self::Conflicts { .. } => Vec::new(),
            Self::Together { hw_part_nos } => hw_part_nos.iter().collect(),
            Self::Order { first, then } => vec![first, then],
            Self::MinimumBootloader { hw_part_no, .. } | Self::EarlierVersions { hw_part_no, .. } => {
                vec![hw_part_no]
            }
        }
    }

    /// The versions that it names.
    pub(crate) fn versions(&self) -> Vec<&Text> {
        match self {
            Self::Needs { at_least, .. } => vec![at_least],
            Self::Conflicts { from, to, .. } => from.iter().chain(to).collect(),
            Self::Together { .. } | Self::Order { .. } => Vec::new(),
            Self::MinimumBootloader { version, .. } => vec![version],
            Self::EarlierVersions { versions, .. } => versions.iter().collect(),
        }
    }

    /// Whether it asks which of two versions is the later one.
    pub(crate) fn orders_versions(&self) -> bool {
        match self {
            Self::Needs { .. } | Self::MinimumBootloader { .. } => true,
            Self::Conflicts { from, to, .. } => from.is_some() || to.is_some(),
            Self::Together { .. } | Self::Order { .. } | Self::EarlierVersions { .. } => false,
        }
    }

    /// What it lacks to say anything, where it does.
    pub(crate) fn lacks(&self, scheme: Option<VersionScheme>) -> Option<&'static str> {
        let place = |version: &Text| scheme.and_then(|scheme| scheme.parse(version.as_str()));
        match self {
            Self::Needs { when_updating: Some(updating), .. } if updating.is_empty() => {
                Some("hardware in when_updating, or no when_updating at all")
            }
            Self::Conflicts { from: Some(from), to: Some(to), .. } if place(from) > place(to) => {
                Some("a version in from that is not later than the one in to")
            }
            Self::Together { hw_part_nos } if hw_part_nos.iter().collect::<BTreeSet<_>>().len() < 2 => {
                Some("two different hardware part numbers or more")
            }
            Self::EarlierVersions { versions, .. } if versions.is_empty() => Some("at least one version"),
            Self::Needs { .. }
            | Self::Conflicts { .. }
            | Self::Together { .. }
            | Self::Order { .. }
            | Self::MinimumBootloader { .. }
            | Self::EarlierVersions { .. } => None,
        }
    }
}

/// Joins names for people.
pub(crate) fn joined(names: &[Text], by: &str) -> String {
    names.iter().map(Text::as_str).collect::<Vec<_>>().join(by)
}

/// Versions from one to another, for people.
pub(crate) fn range(from: Option<&Text>, to: Option<&Text>) -> String {
    match (from, to) {
        (None, None) => "any version".to_owned(),
        (Some(from), None) => format!("{from} or later"),
        (None, Some(to)) => format!("{to} or earlier"),
        (Some(from), Some(to)) => format!("{from} to {to}"),
    }
}

/// How many steps of order rules lead to each hardware that they name; where they lead in a circle, that circle.
pub(crate) fn install_levels(rules: &[Rule]) -> Result<BTreeMap<Text, u64>, Vec<Text>> {
    let orders: Vec<(&Text, &Text)> = rules.iter().filter_map(order).collect();
    let mut open: BTreeSet<&Text> = orders.iter().flat_map(|(first, then)| [*first, *then]).collect();
    let mut levels = BTreeMap::new();
    for level in 0.. {
        let waiting: BTreeSet<&Text> =
            orders.iter().filter(|(first, _)| open.contains(first)).map(|(_, then)| *then).collect();
        let free: Vec<&Text> = open.difference(&waiting).copied().collect();
        if free.is_empty() {
            break;
        }
        open.retain(|hw_part_no| waiting.contains(hw_part_no));
        levels.extend(free.into_iter().map(|hw_part_no| (hw_part_no.clone(), level)));
    }
    circle(&orders, &open).map_or(Ok(levels), Err)
}

fn order(rule: &Rule) -> Option<(&Text, &Text)> {
    match rule {
        Rule::Order { first, then } => Some((first, then)),
        Rule::Needs { .. }
        | Rule::Conflicts { .. }
        | Rule::Together { .. }
        | Rule::MinimumBootloader { .. }
        | Rule::EarlierVersions { .. } => None,
    }
}

/// Where each of these comes after another of them, going back leads in a circle.
fn circle(orders: &[(&Text, &Text)], open: &BTreeSet<&Text>) -> Option<Vec<Text>> {
    let mut way = vec![*open.first()?];
    loop {
        let here = *way.last()?;
        let (before, _) = orders.iter().find(|(first, then)| *then == here && open.contains(first))?;
        let met = way.iter().position(|passed| passed == before);
        way.push(before);
        if let Some(start) = met {
            return Some(way.into_iter().skip(start).rev().cloned().collect());
        }
    }
}
