//! What a vehicle's ECUs run, by the controller that they stand behind: before, now, and what they are to get.

use std::collections::BTreeMap;

use farrier_campaign::Plan;
use farrier_protocol::{EcuEntry, Placement, SendVci, Text, VehicleId, Zone};

use crate::api::Problem;
use crate::console::texts::Texts;
use crate::store::updates::VehicleUpdate;
use crate::store::{Tx, campaigns, inventories, releases};

pub(super) struct EcuRow {
    pub(super) ecu_id: String,
    pub(super) hw_part_no: String,
    /// Of the configuration before this one; empty where it was the same or is not known.
    pub(super) before: String,
    pub(super) sw_version: String,
    /// Of the update that is under way, or was last.
    pub(super) target: String,
    pub(super) is_changed: bool,
    /// What the target changes of them.
    pub(super) rxswins: String,
}

/// The ECUs behind one controller.
pub(super) struct Group {
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) ecus: Vec<EcuRow>,
}

pub(super) fn groups(
    tx: &Tx<'_>,
    t: &'static Texts,
    vehicle_id: &VehicleId,
    vci: Option<&SendVci>,
    update: Option<&VehicleUpdate>,
) -> Result<Vec<Group>, Problem> {
    let Some(vci) = vci else { return Ok(Vec::new()) };
    let earlier = inventories::configurations(tx, vehicle_id, i64::MAX, 2)?;
    let earlier = earlier.into_iter().find(|one| one.last_seen_at.is_some()).map(|one| one.vci);
    let release = match update {
        Some(update) => match campaigns::by_name(tx, &update.campaign)? {
            Some(campaign) => releases::by_name(tx, &campaign.release)?,
            None => None,
        },
        None => None,
    };
    let plan = update.and_then(|update| update.state.plan());
    let mut groups: BTreeMap<&Placement, Vec<EcuRow>> = BTreeMap::new();
    for ecu in &vci.ecu_inventory {
        let before = earlier.as_ref().and_then(|vci| version_of(vci, ecu));
        let row = row(ecu, before.filter(|before| Some(*before) != ecu.sw_version.as_ref()), plan);
        let images = release.iter().flat_map(|release| release.release.images());
        let changed = images.filter(|image| {
            Some(&image.hw_part_no) == ecu.hw_part_no.as_ref() && image.version.as_str() == row.target
        });
        let mut rxswins: Vec<&str> =
            changed.flat_map(|image| image.rxswins.iter().map(Text::as_str)).collect();
        rxswins.sort_unstable();
        rxswins.dedup();
        let row = EcuRow { rxswins: rxswins.join(", "), ..row };
        groups.entry(&ecu.functional_group.placement).or_default().push(row);
    }
    let groups = groups.into_iter().map(|(placement, ecus)| {
        let (kind, name) = placed(t, placement);
        Group { kind, name, ecus }
    });
    Ok(groups.collect())
}

fn version_of<'a>(vci: &'a SendVci, ecu: &EcuEntry) -> Option<&'a Text> {
    vci.ecu_inventory.iter().find(|other| other.ecu_id == ecu.ecu_id)?.sw_version.as_ref()
}

fn row(ecu: &EcuEntry, before: Option<&Text>, plan: Option<&Plan>) -> EcuRow {
    let planned = plan.and_then(|plan| plan.packages.iter().find(|package| package.ecu_id == ecu.ecu_id));
    let text = |value: Option<&Text>| value.map(ToString::to_string).unwrap_or_default();
    EcuRow {
        ecu_id: ecu.ecu_id.to_string(),
        hw_part_no: text(ecu.hw_part_no.as_ref()),
        before: text(before),
        sw_version: text(ecu.sw_version.as_ref()),
        is_changed: planned.is_some_and(|package| Some(&package.version) != ecu.sw_version.as_ref()),
        target: planned.map(|package| package.version.to_string()).unwrap_or_default(),
        rxswins: String::new(),
    }
}

fn placed(t: &Texts, placement: &Placement) -> (&'static str, String) {
    match placement {
        Placement::Domain(name) => (t.in_domain, name.to_string()),
        Placement::Zone(Zone::Name(name)) => (t.in_zone, name.to_string()),
        Placement::Zone(Zone::Number(number)) => (t.in_zone, number.to_string()),
    }
}
