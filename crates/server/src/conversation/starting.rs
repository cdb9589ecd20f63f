//! A campaign that starts takes in its vehicles some at a time: nobody waits for a large fleet, and a server that is struck
//! down goes on where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use farrier_campaign::{Shares, Starting, lot};
use farrier_protocol::{Text, UnixMillis, VehicleId};

use super::Rules;
use super::intake::{take_in, wave_of};
use crate::store::campaigns::{self, Campaign};
use crate::store::{Store, StoreError, Tx, intake, vehicles};

/// Vehicles that are taken in by one transaction. A campaign of no more has all of them once its start is answered.
pub(crate) const BATCH: u32 = 256;
/// Vehicles whose lots are read at a time.
const LOTS_AT_A_TIME: u32 = 10_000;
/// Whoever takes vehicles into campaigns that start holds this.
const STARTING: &str = "starting campaigns";

/// Starts a campaign; says how many vehicles it starts with, or `None` where it runs already. It has none yet: until this
/// transaction ends no vehicle is enrolled or changes what queries find, and whoever holds a vehicle may wait for that.
pub(crate) fn start(tx: &Tx<'_>, campaign: &Campaign, now: UnixMillis) -> Result<Option<u64>, StoreError> {
    if !campaigns::start(tx, &campaign.name, now)? {
        return Ok(None);
    }
    if campaign.rollout.has_gate() && campaign.rollout.opens_next(&[], &campaign.gate, now) {
        let mut record = campaign.gate.clone();
        record.note_opening(now);
        campaigns::set_gate(tx, &campaign.name, &record)?;
    }
    let vehicles = intake::vehicle_count(tx, campaign)?;
    campaigns::set_starting(tx, &campaign.name, Some(&Starting::default()))?;
    if vehicles <= u64::from(BATCH) {
        share_out(tx, &campaign.name, shares(tx, campaign)?)?;
    }
    Ok(Some(vehicles))
}

/// Takes the first vehicles into a campaign that has just been started, which are all of a small one. In a transaction of its
/// own, as [`take_in_some`].
pub(crate) fn take_in_first(
    tx: &Tx<'_>,
    rules: &Rules,
    name: &Text,
    now: UnixMillis,
) -> Result<(), StoreError> {
    tx.lock(STARTING)?;
    match campaigns::by_name(tx, name)? {
        Some(campaign) => take_in_some_of(tx, rules, &campaign, now),
        None => Ok(()),
    }
}

/// Goes on with campaigns that start; says whether there is more to do.
pub(crate) async fn go_on_starting(
    store: &Store,
    rules: &Arc<Rules>,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let own_rules = Arc::clone(rules);
    match store.write(move |tx| take_in_some(tx, &own_rules, now)).await? {
        TakenIn::Nothing => Ok(false),
        TakenIn::Some => Ok(true),
        TakenIn::NotSharedOut(campaign) => {
            let name = campaign.name.clone();
            // Read beside the writers: it takes a second for a million vehicles.
            let shares = store.read(move |tx| shares(tx, &campaign)).await?;
            store.write(move |tx| share_out(tx, &name, shares)).await?;
            Ok(true)
        }
    }
}

/// What was there to do for campaigns that start.
enum TakenIn {
    Nothing,
    Some,
    /// Its vehicles have not drawn their lots yet.
    NotSharedOut(Box<Campaign>),
}

/// Takes some vehicles into a campaign that starts. In a transaction of its own: it waits for vehicles in the order of their
/// ids, and may hold none before.
fn take_in_some(tx: &Tx<'_>, rules: &Rules, now: UnixMillis) -> Result<TakenIn, StoreError> {
    if campaigns::starting(tx)?.is_none() {
        return Ok(TakenIn::Nothing);
    }
    // Not the campaign's row: a vehicle that asks at its gate holds itself while it waits for that.
    tx.lock(STARTING)?;
    let Some(campaign) = campaigns::starting(tx)? else { return Ok(TakenIn::Nothing) };
    if campaign.starting.as_ref().is_some_and(|starting| starting.shares.is_none()) {
        return Ok(TakenIn::NotSharedOut(Box::new(campaign)));
    }
    take_in_some_of(tx, rules, &campaign, now)?;
    Ok(TakenIn::Some)
}

fn take_in_some_of(
    tx: &Tx<'_>,
    rules: &Rules,
    campaign: &Campaign,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let Some(Starting { shares: Some(shares), after }) = &campaign.starting else { return Ok(()) };
    let vehicle_ids = intake::vehicles_after(tx, campaign, after, BATCH)?;
    // All before the first asks at the gate, which others may hold who wait for a vehicle.
    for vehicle_id in &vehicle_ids {
        vehicles::lock(tx, vehicle_id)?;
    }
    for vehicle_id in &vehicle_ids {
        if let Some(vehicle) = vehicles::by_id(tx, vehicle_id)? {
            if intake::is_excluded(tx, campaign, vehicle_id)? {
                continue;
            }
            let wave = wave_of(tx, campaign, &vehicle)?;
            take_in(tx, rules, &campaign.name, wave, vehicle_id, now)?;
        }
    }
    let last = vehicle_ids.last().filter(|_| vehicle_ids.len() >= BATCH as usize);
    let rest = last.map(|last| Starting { shares: Some(shares.clone()), after: last.to_string() });
    campaigns::set_starting(tx, &campaign.name, rest.as_ref())
}

/// Notes how a campaign's vehicles are shared out, unless that is known already or it starts no more.
fn share_out(tx: &Tx<'_>, name: &Text, shares: Shares) -> Result<(), StoreError> {
    tx.lock(STARTING)?;
    let starting = campaigns::by_name(tx, name)?.and_then(|campaign| campaign.starting);
    match starting {
        Some(starting @ Starting { shares: None, .. }) => {
            campaigns::set_starting(tx, name, Some(&Starting { shares: Some(shares), ..starting }))
        }
        Some(Starting { shares: Some(_), .. }) | None => Ok(()),
    }
}

fn shares(tx: &Tx<'_>, campaign: &Campaign) -> Result<Shares, StoreError> {
    let theirs = intake::all_excluded(tx, campaign)?;
    let mut by_query: Vec<(u32, BTreeSet<VehicleId>)> = Vec::new();
    for (wave, selection) in campaign.rollout.waves_by_query() {
        by_query.push((wave, intake::all_of(tx, selection)?.into_iter().collect()));
    }
    let (mut lots, mut chosen, mut after) = (Vec::new(), BTreeMap::new(), String::new());
    loop {
        let vehicle_ids = intake::vehicles_after(tx, campaign, &after, LOTS_AT_A_TIME)?;
        for vehicle_id in vehicle_ids.iter().filter(|vehicle_id| !theirs.contains(*vehicle_id)) {
            match by_query.iter().find(|(_, selected)| selected.contains(vehicle_id)) {
                Some((wave, _)) => {
                    let vehicles: &mut u64 = chosen.entry(*wave).or_default();
                    *vehicles = vehicles.saturating_add(1);
                }
                None => lots.push(lot(&campaign.name, vehicle_id)),
            }
        }
        match vehicle_ids.last().filter(|_| vehicle_ids.len() >= LOTS_AT_A_TIME as usize) {
            Some(last) => after = last.to_string(),
            None => return Ok(campaign.rollout.share_out(lots, &chosen)),
        }
    }
}
