//! Who is taken into a running campaign, and into which of its waves.

use farrier_campaign::{EcuFacts, Event, VehicleFacts, lot};
use farrier_protocol::{SendVci, Text, UnixMillis, VehicleId};

use super::Rules;
use super::advance::advance;
use crate::store::campaigns::Campaign;
use crate::store::vehicles::{ENROLMENT, Vehicle};
use crate::store::{StoreError, Tx, campaigns, intake, updates, vehicles};
use crate::vehicle_fields::Tag;

/// What selections ask of a vehicle, as the store has it.
struct Known<'v> {
    vehicle: &'v Vehicle,
    tags: Vec<Tag>,
    vci: Option<SendVci>,
}

impl<'v> Known<'v> {
    fn of(tx: &Tx<'_>, vehicle: &'v Vehicle) -> Result<Self, StoreError> {
        let vehicle_id = &vehicle.binding.vehicle_id;
        Ok(Self { vehicle, tags: vehicles::tags(tx, vehicle_id)?, vci: vehicles::vci(tx, vehicle_id)? })
    }

    fn facts(&self) -> VehicleFacts<'_> {
        let Self { vehicle, tags, vci } = self;
        VehicleFacts {
            vehicle_id: vehicle.binding.vehicle_id.as_str(),
            gateway_id: vehicle.binding.gateway_id.as_str(),
            vin: vehicle.vin.as_ref().map(|vin| vin.as_str()),
            vehicle_type: vehicle.vehicle_type.as_ref().map(|of| of.as_str()),
            region: vehicle.effective_region().map(Text::as_str),
            time_zone: vehicle.time_zone.as_ref().map(|zone| zone.as_str()),
            tags: tags.iter().map(Tag::as_str).collect(),
            ecus: vci.iter().flat_map(|vci| &vci.ecu_inventory).map(EcuFacts::from).collect(),
        }
    }
}

/// The wave of a vehicle that a campaign takes in, by what is known of it now.
pub(super) fn wave_of(tx: &Tx<'_>, campaign: &Campaign, vehicle: &Vehicle) -> Result<u32, StoreError> {
    let has_queries = campaign.rollout.waves_by_query().next().is_some();
    let known = has_queries.then(|| Known::of(tx, vehicle)).transpose()?;
    let by_query = known.as_ref().and_then(|known| campaign.rollout.wave_by_query(&known.facts()));
    Ok(by_query.unwrap_or_else(|| wave_by_lot(campaign, &vehicle.binding.vehicle_id)))
}

fn wave_by_lot(campaign: &Campaign, vehicle_id: &VehicleId) -> u32 {
    let shares = campaign.starting.as_ref().and_then(|starting| starting.shares.as_ref());
    campaign.rollout.wave_by_lot(shares, &lot(&campaign.name, vehicle_id))
}

/// The running campaigns for every vehicle take in one that has just come.
pub(crate) fn take_into_open_campaigns(
    tx: &Tx<'_>,
    vehicle: &Vehicle,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let vehicle_id = &vehicle.binding.vehicle_id;
    for campaign in campaigns::open_to_all(tx)? {
        if campaign.starting.as_ref().is_some_and(|starting| starting.shares.is_none()) {
            // It draws its lot with the others.
            continue;
        }
        let asks_more =
            !campaign.intake.excludes.is_empty() || campaign.rollout.waves_by_query().next().is_some();
        if asks_more
            && (updates::of_vehicle_in(tx, &campaign.name, vehicle_id)?.is_some()
                || intake::is_excluded(tx, &campaign, vehicle_id)?)
        {
            continue;
        }
        updates::select(tx, &campaign.name, vehicle_id, wave_of(tx, &campaign, vehicle)?, now)?;
    }
    Ok(())
}

/// What is known of a vehicle has changed: running campaigns that follow a query which has it now take it in. Once in, it
/// stays in. A vehicle that has not changed costs nothing here, and one that has only a look at these campaigns.
pub(crate) fn take_into_following_campaigns(
    tx: &Tx<'_>,
    rules: &Rules,
    vehicle_id: &VehicleId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    // A campaign that starts meanwhile would not see the change, nor this the campaign.
    tx.lock_with_others(ENROLMENT)?;
    let campaigns = campaigns::following(tx)?;
    if campaigns.is_empty() {
        return Ok(());
    }
    let Some(vehicle) = vehicles::by_id(tx, vehicle_id)? else { return Ok(()) };
    let known = Known::of(tx, &vehicle)?;
    let facts = known.facts();
    for campaign in campaigns {
        let Some(query) = &campaign.intake.query else { continue };
        if !rules.queries.get(query)?.matches(&facts) || intake::is_excluded(tx, &campaign, vehicle_id)? {
            continue;
        }
        let by_query = campaign.rollout.wave_by_query(&facts);
        let wave = by_query.unwrap_or_else(|| wave_by_lot(&campaign, vehicle_id));
        take_in(tx, rules, &campaign.name, wave, vehicle_id, now)?;
    }
    Ok(())
}

/// A campaign takes in a vehicle, unless it has it already.
pub(super) fn take_in(
    tx: &Tx<'_>,
    rules: &Rules,
    campaign: &Text,
    wave: u32,
    vehicle_id: &VehicleId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    match updates::select(tx, campaign, vehicle_id, wave, now)? {
        Some(update) => advance(tx, rules, update, Event::LookedAt, None, now),
        None => Ok(()),
    }
}
